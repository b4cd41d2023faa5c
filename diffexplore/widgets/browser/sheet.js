// The pictures of a grid, in a table whose names stay in sight; each is a button that opens its run. What is on a page the kernel
// says; sheet.py is its side.
import { combined, h, say } from "./dom.js";

const SIDES = [64, 96, 160, 256]; // px

/**
 * @typedef {[offset: number, length: number, format: string, words: string] | string} SheetCell
 * @typedef {{title: string, below: string, x: string, columns: string[], y: string, rows: string[], ratio: number}} SheetAbout
 * @typedef {{row: number, column: number, side: number, most: number, cells: SheetCell[][]}} SheetLeaf
 */

/**
 * @param {string} name
 * @param {string} word
 * @param {() => void} act
 */
function sheetButton(name, word, act) {
	const button = h("button.dx-sheet-tool", { type: "button", title: name, "aria-label": name }, word);
	button.addEventListener("click", act);
	return button;
}

/** @param {{model: Model, el: HTMLElement}} host */
export const sheet = ({ model, el }) => {
	/** @type {SheetAbout} */ const about = model.get("about");
	const where = { rows: h("span", { role: "status" }), columns: h("span", { role: "status" }) };
	/** @type {[number, number]} */ let focus = [0, 0]; // the cell that has the keys, of all
	/** @type {[number, number] | null} */ let aim = null; // the one that is to have them once its page is there
	/** @type {unknown[]} */ let drawn = [];
	/** @type {Map<string, HTMLButtonElement>} */ let faces = new Map();
	const leaf = () => /** @type {SheetLeaf} */ (model.get("page"));
	const ask = (/** @type {number} */ row, /** @type {number} */ column, side = leaf().side) => model.send({ kind: "page", row, column, side });
	const turn = (/** @type {number} */ down, /** @type {number} */ across) => {
		const { row, column, most } = leaf();
		ask(row + down * most, column + across * most);
	};
	const size = (/** @type {number} */ by) => {
		const at = SIDES.indexOf(leaf().side) + by;
		if (SIDES[at]) ask(...focus, SIDES[at]);
	};
	const pagers = {
		rows: h("span.dx-sheet-pager", {}, sheetButton("rows before", "↑", () => turn(-1, 0)), where.rows, sheetButton("rows after", "↓", () => turn(1, 0))),
		columns: h("span.dx-sheet-pager", {}, sheetButton("columns before", "←", () => turn(0, -1)), where.columns, sheetButton("columns after", "→", () => turn(0, 1))),
	};
	const smaller = sheetButton("smaller pictures (-)", "−", () => size(-1));
	const larger = sheetButton("larger pictures (+)", "+", () => size(1));
	const close = sheetButton("close the run (Escape)", "×", () => model.send({ kind: "close" }));
	const title = h("b.dx-sheet-title", { title: about.title }, about.title);
	const below = h("span.dx-sheet-below", { title: about.below }, about.below);
	const table = h("table.dx-sheet-table", { "aria-label": about.title });
	const scroll = h("div.dx-sheet-scroll", {}, table);
	const root = h("div.dx-sheet", {}, h("div.dx-sheet-bar", {}, title, below, pagers.rows, pagers.columns, smaller, larger, close), scroll);
	root.style.setProperty("--dx-ratio", String(about.ratio));
	el.append(root);

	/**
	 * @param {SheetCell} cell
	 * @param {number} i
	 * @param {number} j
	 * @param {Uint8Array} bytes
	 */
	const face = (cell, i, j, bytes) => {
		const name = [about.rows[i] && `${about.y} ${about.rows[i]}`, `${about.x} ${about.columns[j]}`].filter(Boolean).join(", ");
		const button = h("button.dx-sheet-cell", { type: "button", tabindex: "-1" });
		if (typeof cell === "string") {
			button.classList.add("dx-sheet-bad");
			button.append(cell);
			button.title = cell;
			button.ariaLabel = `${name}: ${cell}`;
			button.ariaDisabled = "true";
		} else {
			const [offset, length, format, words] = cell;
			const url = URL.createObjectURL(new Blob([/** @type {any} */ (bytes.slice(offset, offset + length))], { type: `image/${format}` }));
			const image = h("img", { src: url, alt: "" });
			image.addEventListener("load", () => URL.revokeObjectURL(url));
			button.append(image, h("span", {}, words.split(" · ")[0]));
			button.ariaLabel = `${name}: ${words}`;
			button.title = button.ariaLabel;
			button.addEventListener("click", () => model.send({ kind: "open", row: i, column: j }));
		}
		button.addEventListener("focus", () => hold(i, j));
		faces.set(`${i},${j}`, button);
		return button;
	};
	/** Let one cell have the keys. */
	const hold = (/** @type {number} */ i, /** @type {number} */ j) => {
		faces.get(focus.join())?.setAttribute("tabindex", "-1");
		focus = [i, j];
		faces.get(focus.join())?.setAttribute("tabindex", "0");
	};
	/** Bring a cell into sight, and no more of the page than the table. */
	const reveal = (/** @type {HTMLElement | undefined} */ button) => {
		const cell = button?.closest("td");
		if (!cell) return;
		const [head, side] = [table.tHead?.offsetHeight ?? 0, /** @type {HTMLElement | null} */ (table.querySelector("tbody th"))?.offsetWidth ?? 0];
		scroll.scrollTop = Math.max(Math.min(scroll.scrollTop, cell.offsetTop - head), cell.offsetTop + cell.offsetHeight - scroll.clientHeight);
		scroll.scrollLeft = Math.max(Math.min(scroll.scrollLeft, cell.offsetLeft - side), cell.offsetLeft + cell.offsetWidth - scroll.clientWidth);
	};
	const pager = (/** @type {"rows" | "columns"} */ axis, /** @type {number} */ from, /** @type {number} */ shown) => {
		const all = about[axis].length;
		pagers[axis].hidden = shown === all;
		say(where[axis], `${axis} ${from + 1}–${from + shown} of ${all}`);
		const [before, after] = pagers[axis].querySelectorAll("button");
		if (before) before.disabled = from === 0;
		if (after) after.disabled = from + shown >= all;
	};
	const draw = () => {
		/** @type {DataView} */ const data = model.get("pictures");
		if (drawn[0] === leaf() && drawn[1] === data) return; // both come at once, and each is told of
		drawn = [leaf(), data];
		const { row, column, side, cells } = leaf();
		const had = table.contains(document.activeElement);
		faces = new Map();
		const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
		const across = cells[0]?.length ?? 0;
		const heads = about.columns.slice(column, column + across).map((name) => h("th", { scope: "col", title: name }, h("span", {}, name || "(empty)")));
		const corner = h("td.dx-sheet-corner", {}, about.y ? `${about.y} ↓ ` : "", `${about.x} →`);
		const lines = cells.map((line, i) => {
			const name = about.rows[row + i] ?? "";
			return h("tr", {}, h("th", { scope: "row", title: name }, h("span", {}, name)), ...line.map((cell, j) => h("td", {}, face(cell, row + i, column + j, bytes))));
		});
		table.replaceChildren(h("thead", {}, h("tr", {}, corner, ...heads)), h("tbody", {}, ...lines));
		root.style.setProperty("--dx-side", `${side}px`);
		pager("rows", row, cells.length);
		pager("columns", column, across);
		smaller.disabled = side === SIDES[0];
		larger.disabled = side === SIDES[SIDES.length - 1];
		const [i, j] = aim ?? focus;
		if (aim && faces.has(aim.join())) aim = null;
		hold(Math.min(Math.max(i, row), row + cells.length - 1), Math.min(Math.max(j, column), column + across - 1));
		mark();
		if (had) faces.get(focus.join())?.focus({ preventScroll: true });
	};
	const mark = () => {
		/** @type {number[]} */ const opened = model.get("opened");
		root.classList.toggle("dx-sheet-open", opened.length > 0);
		close.hidden = !opened.length;
		for (const [key, button] of faces) button.ariaCurrent = String(key === opened.join());
		reveal(faces.get((opened.length ? opened : focus).join()));
	};
	root.addEventListener("keydown", (event) => {
		if (combined(event)) return;
		const { key } = event;
		/** @type {Record<string, [number, number]>} */ const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -Infinity], End: [0, Infinity] };
		const { most } = leaf();
		const move = { ...moves, PageUp: [-most, 0], PageDown: [most, 0] }[key];
		if (key !== "Tab") event.stopPropagation(); // plain keys are the notebook's commands
		if (move && table.contains(/** @type {Node} */ (event.target))) {
			const to = (aim ?? focus).map((at, k) => Math.max(0, Math.min(at + move[k], about[k ? "columns" : "rows"].length - 1)));
			const button = faces.get(to.join());
			if (button) {
				aim = null;
				button.focus({ preventScroll: true });
				reveal(button);
			} else {
				aim = /** @type {[number, number]} */ (to);
				ask(...aim);
			}
		} else if (key === "+" || key === "=") size(1);
		else if (key === "-") size(-1);
		else if (key === "Escape" && !close.hidden) model.send({ kind: "close" });
		else return;
		event.preventDefault();
	});
	model.on("change:pictures", draw);
	model.on("change:page", draw);
	model.on("change:opened", mark);
	draw();
	return () => {
		model.off("change:pictures", draw);
		model.off("change:page", draw);
		model.off("change:opened", mark);
	};
};

export default { render: sheet };
