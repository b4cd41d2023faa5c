// The host of a grid's page, in place of Jupyter: all pictures and runs are in it, and a page of them is cut out here.
import { h } from "./dom.js";
import { sheet } from "./sheet.js";
import { viewer } from "./viewer.js";

/** @param {string} text */
const bytesIn = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const grid = JSON.parse(document.getElementById("dx-data")?.textContent ?? "");

/**
 * A model of what is in the page.
 * @param {Record<string, any>} traits
 * @param {(content: any) => void} send
 */
function hosted(traits, send) {
	/** @type {Map<string, Set<() => void>>} */ const heard = new Map();
	return {
		get: (/** @type {string} */ name) => traits[name],
		set() {},
		save_changes() {},
		send,
		on: (/** @type {string} */ name, /** @type {() => void} */ f) => void heard.set(name, (heard.get(name) ?? new Set()).add(f)),
		off: (/** @type {string} */ name, /** @type {() => void} */ f) => void heard.get(name)?.delete(f),
		/** @param {Record<string, any>} change */
		put(change) {
			Object.assign(traits, change);
			for (const name of Object.keys(change)) for (const f of heard.get(`change:${name}`) ?? []) f();
		},
	};
}

/**
 * @param {number} row
 * @param {number} column
 * @param {number} side
 */
function leafOf(row, column, side) {
	const [, most] = grid.sides.find((/** @type {number[]} */ [one]) => one === side) ?? [side, 8];
	const [i, j] = [
		[row, grid.about.rows.length],
		[column, grid.about.columns.length],
	].map(([at, count]) => Math.floor(Math.max(0, Math.min(at, count - 1)) / most) * most);
	return { row: i, column: j, side, most, cells: grid.cells.slice(i, i + most).map((/** @type {unknown[]} */ line) => line.slice(j, j + most)) };
}

const main = /** @type {HTMLElement} */ (document.getElementById("dx"));
const table = h("div");
const run = h("div.dx-sheet-run", { hidden: "" });
main.append(table, run);
const films = hosted({ _film: null, _frames: null, view: "x0", step: -1, _notes: [], _error: "" }, () => {});
let sheetRun = 0;
const pages = hosted({ about: grid.about, page: leafOf(0, 0, grid.side), pictures: new DataView(bytesIn(grid.pictures).buffer), opened: [] }, (content) => {
	const { kind, row, column, side } = content;
	if (kind === "page") pages.put({ page: leafOf(row, column, side) });
	const found = kind === "open" && grid.films[`${row},${column}`];
	if (kind === "close" || found) run.hidden = !found;
	if (kind === "close") pages.put({ opened: [] });
	if (!found) return;
	films.put({ _frames: bytesIn(found[1]), _film: { ...found[0], run: ++sheetRun } });
	pages.put({ opened: [row, column] });
});
sheet({ model: pages, el: table });
const shown = viewer();
shown.initialize({ model: films });
shown.render({ model: films, el: run });
