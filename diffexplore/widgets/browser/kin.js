// The runs that branches have parted, each behind the one that it left; kin.py keeps them.
import { box, fill, h, say } from "./dom.js";
import { branchesOf, reachTo } from "./marks.js";

/**
 * @param {View} view
 * @returns {{node: HTMLElement, draw(): void}}
 */
export function kinOf(view) {
	const { session } = view;
	const list = h("ol.dx-kin", { "aria-label": "runs and their branches" });
	const says = h("p.dx-says");
	return {
		node: box("dx-kins", list, says),
		draw() {
			const { nodes, on, most } = branchesOf(session);
			fill(list, nodes.map((node) => ({ ...node, on: on.includes(node.n), idle: view.gone })), (one) => {
				const text = `${one.n} ${one.of ? `from step ${one.at + 1} of ${one.of}: ` : ""}${one.words}`;
				const title = `${text}\n${one.of ? "show it beside the run that it left, as their difference" : "show this run"}`;
				const button = h("button", { type: "button", class: "dx-tool", title, ...(one.on ? { "aria-current": "true" } : {}) }, text);
				button.disabled = one.idle;
				view.on(button, "click", () => {
					if (one.of) session.set({ mode: "difference", pin: 0 });
					session.move(session.places - 1); // before the branch leaves there is no difference to see
					reachTo(session, { act: "show", node: one.n });
				});
				const item = h("li", {}, button);
				item.style.setProperty("--dx-deep", String(Math.min(one.deep, 6)));
				return item;
			});
			say(says, nodes.length ? `The newest ${most} are kept.` : "");
		},
	};
}
