// Zoom, plain squares, export.
import { box, h, say } from "../dom.js";
import { savePage } from "../export.js";
import { figures } from "../numbers.js";
import { panel } from "../panel.js";

panel("tools", (view) => {
	const { session } = view;
	const less = view.tool("−", "zoom out", () => view.magnify(0.5), { "aria-label": "zoom out" });
	const scale = h("span.dx-scale");
	const more = view.tool("+", "zoom in", () => view.magnify(2), { "aria-label": "zoom in" });
	const squares = view.tool("Pixels", "plain squares, or smooth", () => session.set({ cells: { ...session.cells, [session.kind]: !session.squares(session.kind) } }));
	const save = view.tool("Export", "save as one page that needs no kernel and no network", () => savePage(session));
	return {
		nodes: { head: [box("dx-tools", h("span.dx-zoom", {}, less, scale, more), squares, save)] },
		draw() {
			const { zoom, model } = session;
			say(scale, `${figures(zoom.scale)}×`);
			less.disabled = zoom.scale <= 1;
			more.disabled = zoom.scale >= 16;
			squares.ariaPressed = String(session.squares(session.kind));
			save.hidden = !model.get("_page") || !model.get("_esm");
			save.disabled = !session.complete;
		},
	};
});
