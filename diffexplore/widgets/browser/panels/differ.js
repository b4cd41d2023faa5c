// The settings in which several films differ.
import { fill, h, line } from "../dom.js";
import { differing } from "../films.js";
import { panel } from "../panel.js";

panel("differ", (view) => {
	const { session } = view;
	const differ = h("table.dx-differ");
	return {
		tab: { word: "What differs", many: true, there: () => session.films.length > 1 },
		nodes: { tab: [differ] },
		draw() {
			const { films } = session;
			const rows = differing(films);
			fill(differ, rows.length ? [["setting", ...films.map(({ label }) => label)], ...rows] : [], ([name, ...values], k) => line(k ? "td" : "th", name, ...values));
		},
	};
});
