// Where films part: how far each is from the pinned one, picture by picture.
import { h, own, say, svg } from "../dom.js";
import { figures, lineOf } from "../numbers.js";
import { apart } from "../parts.js";
import { panel } from "../panel.js";
import { lineup } from "../timeline.js";

panel("parting", (view) => {
	const { session } = view;
	const lines = svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none" });
	const here = h("i.dx-here");
	const top = h("span.dx-top");
	const says = h("p.dx-parted");
	const plot = h("div.dx-plot", { role: "img" }, lines, here, top);
	let drawn = "";
	return {
		tab: { word: "Where they part", many: true, there: () => session.films.length > 1 },
		nodes: { tab: [plot, says] },
		draw() {
			if (view.tab !== "parting" || session.films.length < 2) return;
			const { films, pinned, reference, places, shown } = session;
			const under = lineup(reference, pinned);
			const rows = films.map((film) => {
				const line = lineup(reference, film);
				return line.map((i, place) => (film === pinned ? null : apart(session, session.slot(film, "x0", i, session.still), session.slot(pinned, "x0", under[place], session.still))));
			});
			const highest = Math.max(0.05, ...rows.flat().map((x) => x ?? 0));
			here.style.left = `${places < 2 ? 50 : (100 * shown) / (places - 1)}%`;
			const now = films.flatMap((film, k) => (film === pinned || rows[k][shown] == null ? [] : [`${film.label} ${figures(rows[k][shown])}`]));
			say(says, `How far each estimate is from that of ${pinned.label}: root mean square of the colours, 0 is equal, 1 is black against white. At step ${shown + 1}: ${now.join(", ")}.`);
			const key = JSON.stringify([rows, session.pin]);
			if (key === drawn) return;
			drawn = key;
			say(top, figures(highest));
			plot.ariaLabel = says.textContent ?? "";
			lines.replaceChildren(
				...rows.map((row, k) => own(svg("polyline", { points: lineOf(row.map((x) => (x == null ? null : x / highest)), places) }), k)),
			);
		},
	};
});
