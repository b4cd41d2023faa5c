// The whole screen, and what is behind the button "more": zoom, plain squares, export.
import { box, h, icon, say } from "../dom.js";
import { savePage } from "../export.js";
import { figures } from "../numbers.js";
import { panel } from "../panel.js";

panel("tools", (view) => {
	const { session } = view;
	const { menu } = view.places;
	menu.hidden = true;
	menu.id = `${view.id}-menu`;
	menu.role = "group";
	menu.ariaLabel = "more";
	const turn = (/** @type {boolean} */ on) => {
		menu.hidden = !on;
		dots.ariaExpanded = String(on);
	};
	const full = view.tool(icon("M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4"), "the whole screen (f)", () => view.around.project(), { "aria-label": "whole screen" });
	const dots = view.tool("⋯", "more", () => turn(Boolean(menu.hidden)), { "aria-label": "more", "aria-expanded": "false", "aria-controls": menu.id });
	view.on(view.root, "keydown", (event) => {
		if (event.key !== "Escape" || menu.hidden) return;
		turn(false);
		dots.focus();
		event.preventDefault();
	});
	document.addEventListener("pointerdown", ({ target }) => view.places.tools.contains(/** @type {Node} */ (target)) || turn(false), { signal: view.signal });

	const less = view.tool("−", "zoom out", () => view.magnify(0.5), { "aria-label": "zoom out" });
	const scale = h("span.dx-scale");
	const more = view.tool("+", "zoom in", () => view.magnify(2), { "aria-label": "zoom in" });
	const squares = view.tool("Pixels", "plain squares, or smooth", () => session.set({ cells: { ...session.cells, [session.kind]: !session.squares(session.kind) } }));
	const save = view.tool("Export", "save as one page that needs no kernel and no network", () => savePage(session));
	return {
		nodes: { tools: [full, dots, menu], menu: [h("span.dx-zoom", {}, less, scale, more), squares, save] },
		draw() {
			const { zoom, model } = session;
			say(scale, `${figures(zoom.scale)}×`);
			less.disabled = zoom.scale <= 1;
			more.disabled = zoom.scale >= 16;
			squares.ariaPressed = String(session.squares(session.kind));
			save.hidden = !model.get("_page") || !model.get("_esm");
			save.disabled = !session.complete;
			full.ariaPressed = String(view.around.projecting);
			view.body.classList.toggle("dx-bare", !session.films.length);
		},
	};
});
