// A menu with groups, and the sentence of the entry that is chosen: ipywidgets has none. Joined apart from the viewer; controls.py is its kernel's side.
import { h, quiet, say } from "./dom.js";

/** @param {{model: Model & {set(name: string, value: unknown): void, save_changes(): void}, el: HTMLElement}} host */
const render = ({ model, el }) => {
	const life = new AbortController();
	const name = model.get("description");
	const menu = h("select.dx-menu-select", { "aria-label": name });
	const told = h("span.dx-menu-told", { role: "status" });
	el.append(menu, told);
	const show = () => {
		const value = model.get("value");
		for (const option of menu.options) option.selected = option.value === value;
		say(told, menu.selectedOptions[0]?.title ?? "");
		menu.title = `${name}: ${told.textContent}`;
	};
	const furnish = () => {
		/** @type {[string, [string, string][]][]} */ const groups = model.get("groups");
		menu.replaceChildren(
			...groups.map(([title, entries]) => {
				const group = h("optgroup", { label: title }, ...entries.map(([value, sentence]) => h("option", { value, title: sentence }, value)));
				return group;
			}),
		);
		show();
	};
	menu.addEventListener(
		"change",
		() => {
			model.set("value", menu.value);
			model.save_changes();
			show();
		},
		{ signal: life.signal },
	);
	menu.addEventListener("keydown", quiet, { signal: life.signal });
	model.on("change:value", show);
	model.on("change:groups", furnish);
	furnish();
	return () => {
		life.abort();
		model.off("change:value", show);
		model.off("change:groups", furnish);
	};
};

export default { render };
