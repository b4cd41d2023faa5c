// Several films: one against another, and the settings in which they differ.
import { fill, h, line, option } from "../dom.js";
import { differing } from "../films.js";
import { panel } from "../panel.js";

panel("compare", (view) => {
	const { session } = view;
	const versus = view.menu("compare", [], (value) => session.set({ versus: Number(value) }));
	const cut = h("input", { type: "range", "aria-label": "swipe", value: "50" });
	view.on(cut, "input", () => session.set({ cut: cut.valueAsNumber / 100 }));
	const differ = h("table.dx-differ");
	return {
		nodes: { tune: [cut, versus], below: [differ] },
		draw() {
			const { films, base } = session;
			const labels = films.map(({ label }) => label);
			const choices = films.length > 1 ? ["side by side", ...labels.flatMap((label) => [`difference from ${label}`, `swipe with ${label}`])] : [];
			fill(versus, choices, (word, k) => option(String(k), word));
			versus.selectedIndex = base ? session.versus : 0;
			cut.hidden = !base || session.versus % 2 > 0;
			const rows = differing(films);
			fill(differ, rows.length ? [["setting", ...labels], ...rows] : [], ([name, ...values], k) => line(k ? "td" : "th", name, ...values));
		},
	};
});
