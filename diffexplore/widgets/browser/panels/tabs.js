// The tabs: of one film one is always open, of several a tab opens over the strips and closes again.
import { h } from "../dom.js";
import { PANELS, panel } from "../panel.js";

panel("tabs", (view) => {
	const list = h("div.dx-tabs", { role: "tablist", "aria-label": "more about it" });
	/** @type {Map<string, HTMLButtonElement>} */ const buttons = new Map();
	const choose = (/** @type {string} */ name) => view.set({ tab: view.many && view.tab === name ? "" : name });
	view.on(list, "keydown", (event) => {
		const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
		const there = [...buttons.values()].filter(({ hidden }) => !hidden);
		const at = there.indexOf(/** @type {any} */ (event.target));
		if (!by || at < 0) return;
		event.preventDefault();
		const next = there[(at + by + there.length) % there.length];
		next.focus();
		next.click();
	});
	const furnish = () => {
		for (const name of PANELS.keys()) {
			const tab = view.panels.get(name)?.tab;
			const pane = view.panes.get(name);
			if (!tab || !pane || buttons.has(name)) continue;
			const button = h("button", { type: "button", class: "dx-tab", role: "tab", id: `${pane.id}-tab`, "aria-controls": pane.id }, tab.word);
			view.on(button, "click", () => choose(name));
			buttons.set(name, button);
			list.append(button);
		}
	};
	return {
		nodes: { bar: [list] },
		// Before what is on the tabs is drawn: it looks which of them is open.
		paint() {
			furnish();
			const there = [...buttons.keys()].filter((name) => {
				const { tab } = /** @type {Panel} */ (view.panels.get(name));
				return tab && (tab.many == null || tab.many === view.many) && (tab.there?.() ?? true);
			});
			if (!there.includes(view.tab)) view.tab = view.many ? "" : (there[0] ?? "");
			for (const [name, button] of buttons) {
				const open = name === view.tab;
				button.hidden = !there.includes(name);
				button.ariaSelected = String(open);
				button.tabIndex = open || (!view.tab && name === there[0]) ? 0 : -1;
				const pane = /** @type {HTMLElement} */ (view.panes.get(name));
				pane.hidden = !open;
			}
			view.places.panes.hidden = !view.tab;
		},
	};
});
