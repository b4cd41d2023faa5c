// The finished picture, while there is one film.
import { box, h, paint, say } from "../dom.js";
import { panel } from "../panel.js";

panel("result", ({ session }) => {
	const canvas = h("canvas", { role: "img", "aria-label": "the finished picture" });
	const word = h("figcaption", {}, "result");
	const figure = h("figure.dx-result", {}, box("dx-screen", canvas), word);
	return {
		nodes: { side: [figure] },
		paint() {
			const [film] = session.films;
			const old = film.final ? null : film.previous?.final;
			const bitmap = session.bitmap(film.final ?? old);
			figure.style.setProperty("--dx-shape", String(film.size[0] / film.size[1]));
			figure.classList.toggle("dx-stale", Boolean(old));
			if (bitmap) paint(canvas, bitmap, session.cells.x0 ?? false, session.zoom);
			else if (!film.final && !old) paint(canvas, null, false);
			say(word, film.final ? "result" : old ? "result before" : film.status === "running" ? "result to come" : "no result");
		},
	};
});
