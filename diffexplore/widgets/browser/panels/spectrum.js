// The power spectrum of the estimate of one film, among the facts of the step.
import { h } from "../dom.js";
import { figures } from "../numbers.js";
import { panel } from "../panel.js";

const SPECTRUM = "power spectrum of the estimate on a logarithmic scale; the marks show that of the last step";

panel("spectrum", (view) => {
	const { session } = view;
	const bars = h("div.dx-bars", { role: "img" });
	const node = h("div.dx-spectrum", { title: SPECTRUM }, bars, h("p", {}, h("span", {}, "coarse"), h("span", {}, "power of the estimate"), h("span", {}, "fine")));
	view.panes.get("facts")?.append(node);
	// One fixed scale, white noise lies at 3/8: bars can be compared between steps and runs.
	const height = (/** @type {number | null | undefined} */ x) => `${Math.max(0, Math.min(100, 25 * ((x ?? -2) + 1.5)))}%`;
	return {
		nodes: {},
		draw() {
			const [film] = session.films;
			const power = (film && session.numbers(film))?.spectrum ?? [];
			node.hidden = !power.length || view.many;
			if (node.hidden || !film) return;
			const last = film.status === "running" ? undefined : film.steps[film.steps.length - 1]?.spectrum;
			while (bars.children.length > power.length) bars.lastChild?.remove();
			while (bars.children.length < power.length) bars.append(h("div", {}, h("i"), h("b")));
			power.forEach((x, band) => {
				const [bar, mark] = /** @type {any} */ (bars.children[band].children);
				bar.style.height = height(x);
				mark.style.bottom = height(last?.[band]);
				mark.hidden = !last;
			});
			bars.ariaLabel = `power of the estimate, coarse to fine, as powers of ten: ${power.map(figures).join(", ")}`;
		},
	};
});
