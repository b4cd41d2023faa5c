// Elements. Text is only ever a text node.

export const MUTE = { "aria-hidden": "true" };

/**
 * An element, perhaps with a class ("p.dx-x"), with attributes and children.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K | `${K}.${string}`} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 */
export function h(tag, attributes = {}, ...children) {
	const [name, style] = tag.split(".");
	const node = document.createElement(/** @type {K} */ (name));
	for (const [name, value] of Object.entries(style ? { class: style, ...attributes } : attributes)) node.setAttribute(name, value);
	node.append(...children);
	return node;
}

/**
 * @param {string} name
 * @param {(Node | string)[]} children
 */
export const box = (name, ...children) => h(`div.${name}`, {}, ...children);

/**
 * Give an element the colour of column `k`; -1: that of one film alone. (A page of its own allows no style attributes.)
 * @template {HTMLElement | SVGElement} N
 * @param {N} node
 * @param {number} k
 */
export function own(node, k) {
	node.style.setProperty("--dx-own", `var(--dx-${k < 0 ? "accent" : `c${k % 6}`})`);
	return node;
}

let svgs = ""; // the namespace of SVG, taken from what a parser makes of its tag

/**
 * An element of SVG.
 * @param {string} tag
 * @param {Record<string, string>} attributes
 * @param {Node[]} children
 */
export function svg(tag, attributes = {}, ...children) {
	svgs ||= new DOMParser().parseFromString("<svg>", "text/html").querySelector("svg")?.namespaceURI ?? "";
	const node = /** @type {SVGElement} */ (document.createElementNS(svgs, tag));
	for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
	node.append(...children);
	return node;
}

/**
 * A small drawing of lines, 16 by 16, in the colour of the text around it.
 * @param {string} path
 */
export const icon = (path) => svg("svg", { ...MUTE, class: "dx-icon", viewBox: "0 0 16 16" }, svg("path", { d: path }));

/**
 * @param {string} value
 * @param {string} word
 */
export const option = (value, word) => h("option", { value }, word);

/**
 * @param {"td" | "th"} tag
 * @param {string} first
 * @param {string[]} rest
 */
export const line = (tag, first, ...rest) =>
	h("tr", {}, h("th", { scope: tag === "td" ? "row" : "col" }, first), ...rest.map((text) => h(tag, tag === "th" ? { scope: "col" } : {}, text)));

/**
 * Set text only where it differs: a live region repeats what is set, layout costs.
 * @param {Node} node
 * @param {string} text
 */
export function say(node, text) {
	if (node.textContent !== text) node.textContent = text;
}

/**
 * Call a thing by a label; where that is cut, a number at its end stays: "guid… 10".
 * @param {HTMLElement} node
 * @param {string} label
 */
export function call(node, label) {
	if (node.textContent === label) return;
	const number = / -?\d[\d.]*(?: \(\d+\))?$/.exec(label)?.[0] ?? "";
	node.replaceChildren(h("span.dx-front", {}, label.slice(0, label.length - number.length)), number);
}

const listed = new WeakMap(); // what a list shows

/**
 * Fill a list, where its items changed; one without items is hidden.
 * @template T
 * @param {HTMLElement} list
 * @param {T[]} items
 * @param {(item: T, k: number) => Node} item
 */
export function fill(list, items, item) {
	list.hidden = !items.length;
	const key = JSON.stringify(items);
	if (listed.get(list) === key) return;
	listed.set(list, key);
	list.replaceChildren(...items.map(item));
}

/**
 * Keep plain keys, its commands, from the notebook; combinations such as Ctrl-S pass.
 * @param {KeyboardEvent} event
 */
export function quiet(event) {
	if (!combined(event)) event.stopPropagation();
}

/** @param {KeyboardEvent} event */
export const combined = (event) => event.ctrlKey || event.metaKey || event.altKey;

/**
 * @param {HTMLCanvasElement} canvas
 * @returns {CanvasRenderingContext2D}
 */
export const pen = (canvas) => /** @type {any} */ (canvas.getContext("2d"));

/**
 * Draw the part on show over the canvas, at the screen's resolution; null clears it.
 * @param {HTMLCanvasElement} canvas
 * @param {Picture | null} bitmap
 * @param {boolean} cells
 * @param {Zoom} zoom
 */
export function paint(canvas, bitmap, cells, zoom = { scale: 1, left: 0, top: 0 }) {
	const ratio = window.devicePixelRatio || 1;
	const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
	const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
	if (canvas.width !== width || canvas.height !== height) {
		canvas.width = width;
		canvas.height = height;
	}
	const context = pen(canvas);
	if (!bitmap) return context.clearRect(0, 0, width, height);
	const { scale, left, top } = zoom;
	context.imageSmoothingEnabled = !cells || bitmap.width > width * scale;
	context.imageSmoothingQuality = "high";
	context.drawImage(bitmap, left * bitmap.width, top * bitmap.height, bitmap.width / scale, bitmap.height / scale, 0, 0, width, height);
}
