// Sentences beside the pictures: the first in a line, all of them behind it.
import { fill, h, say } from "../dom.js";
import { panel } from "../panel.js";

panel("notes", (view) => {
	const { session, places } = view;
	const list = h("ul.dx-notes", { id: `${view.id}-notes` });
	const button = h("button", { type: "button", class: "dx-note", "aria-expanded": "false", "aria-controls": list.id });
	const count = h("span");
	const said = h("span"); // where there is room
	button.append(count, said);
	let open = false;
	const turn = (/** @type {boolean} */ on) => {
		open = on;
		view.redraw();
	};
	view.on(button, "click", () => turn(!open));
	view.on(list, "click", () => turn(false));
	view.on(view.root, "keydown", (event) => {
		if (event.key !== "Escape" || !open) return;
		turn(false);
		event.preventDefault();
	});
	return {
		nodes: { words: [button], text: [list] },
		draw() {
			const notes = /** @type {string[]} */ (session.model.get("_notes") ?? []);
			const place = view.many ? places.foot : places.words;
			if (button.parentNode !== place) place.append(button);
			button.hidden = !notes.length;
			const first = (notes[0] ?? "").slice(0, 300);
			say(count, notes.length > 1 ? `${notes.length} notes` : "1 note");
			say(said, `: ${first}`);
			button.title = notes.join("\n").slice(0, 2000);
			button.ariaExpanded = String(open && notes.length > 0);
			fill(list, open ? notes : [], (note) => h("li", {}, note));
		},
	};
});
