// The Export button's page, made here: the kernel may be gone.
import { h } from "./dom.js";
import { bytesOf } from "./wire.js";

/**
 * The page of its own: `template` (Python's `page`) filled in one pass.
 * @param {string} template
 * @param {{title: string, style: string, script: string}} parts
 * @param {unknown} data
 */
export function pageOf(template, { title, style, script }, data) {
	/** @type {Record<string, string>} */ const filled = {
		title: title.replace(/[<>&]/g, (c) => `&#${c.charCodeAt(0)};`),
		style,
		script,
		data: JSON.stringify(data).replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`),
	};
	return template.replace(/@(title|style|script|data)@/g, (_, name) => filled[name]);
}

/** @param {Uint8Array} bytes */
export function base64(bytes) {
	let text = "";
	for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
	return btoa(text);
}

/**
 * Save the films as a page.
 * @param {Session} session
 */
export function savePage(session) {
	const { model } = session;
	const names = session.films.map((film) => String(film.about.prompt ?? "")).filter(Boolean);
	const title = names.length ? `${names[0].slice(0, 80)} - diffexplore` : "diffexplore";
	const traits = { _film: model.get("_film"), view: session.kind, step: session.shown, _notes: [], _error: "" };
	const data = { traits, frames: base64(bytesOf(model.get("_frames"))) };
	const page = pageOf(model.get("_page"), { title, style: model.get("_css"), script: model.get("_esm") }, data);
	const name = title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
	const link = h("a", { href: URL.createObjectURL(new Blob([page], { type: "text/html" })), download: `${name}.html` });
	link.click();
	setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
