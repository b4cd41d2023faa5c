// The power spectra of the estimates of several films: at which scales one has lost something.
import { MUTE, box, h, own, say, svg } from "../dom.js";
import { figures, lineOf } from "../numbers.js";
import { panel } from "../panel.js";

panel("spectra", (view) => {
	const { session } = view;
	const lines = svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none" });
	const plot = h("div.dx-scales-plot", { role: "img" }, lines);
	const ends = h("p.dx-ends", MUTE, h("span", {}, "coarse"), h("span", {}, "power of the estimate, a logarithmic scale"), h("span", {}, "fine"));
	const says = h("p.dx-lost");
	return {
		tab: { word: "Spectra", many: true, there: () => session.films.length > 1 && session.films.every((film) => film.steps.some((step) => (step?.spectrum?.length ?? 0) > 1)) },
		nodes: { tab: [box("dx-spectra", plot, ends, says)] },
		draw() {
			if (view.tab !== "spectra" || session.films.length < 2) return;
			const { films, pinned } = session;
			const rows = films.map((film) => session.numbers(film)?.spectrum ?? []);
			const under = rows[films.indexOf(pinned)];
			// The scale of the bars of one film: white noise lies at 3/8.
			const height = (/** @type {number | null} */ x) => (x == null ? null : Math.max(0, Math.min(1, (x + 1.5) / 4)));
			lines.replaceChildren(...rows.map((row, k) => own(svg("polyline", { points: lineOf(row.map(height), row.length) }), k)));
			const times = (/** @type {number | null | undefined} */ x, /** @type {number | null | undefined} */ y) => (x == null || y == null ? "–" : figures(10 ** (x - y)));
			const told = films.flatMap((film, k) => (film === pinned || !rows[k].length ? [] : [`${film.label} × ${times(rows[k][0], under[0])} and × ${times(rows[k].at(-1), under.at(-1))}`]));
			say(says, `Power at the coarsest and the finest scale, against ${pinned.label}: ${told.join(", ")}.`);
			plot.ariaLabel = says.textContent ?? "";
		},
	};
});
