// Films: how they come apart, how they stand, and what tells several apart.
import { duration, stepOf } from "./numbers.js";
import { lengthOf, stepAt } from "./timeline.js";

/** @type {Record<string, {word: string, symbol: string, cells: boolean}>} */
export const WORDS = {
	x0: { word: "Estimate", symbol: "x₀", cells: false },
	latents: { word: "Latents", symbol: "xₜ", cells: true },
	noise: { word: "Noise", symbol: "ε", cells: true },
	guidance: { word: "Guidance", symbol: "Δ", cells: true },
	change: { word: "Change", symbol: "Δx₀", cells: false },
};

/** @param {string} kind */
export const wordOf = (kind) => WORDS[kind] ?? { word: kind, symbol: "", cells: false };

/**
 * The settings in which films differ, each with every film's value.
 * @param {Film[]} films
 */
export function differing(films) {
	const rows = [...new Set(films.flatMap(({ about }) => Object.keys(about)))].map((name) => [name, ...films.map(({ about }) => String(about[name] ?? "–"))]);
	return rows.filter(([, first, ...others]) => others.some((value) => value !== first));
}

/**
 * Which films ended in the same bytes, in a sentence for each such group.
 * @param {Film[]} films
 */
export function identical(films) {
	/** @type {Record<string, string[]>} */ const groups = {};
	for (const { final, label, digest } of films) if (final) (groups[digest || final.format + final.bytes] ??= []).push(label);
	const same = Object.entries(groups).filter(([, { length }]) => length > 1);
	return same.map(([key, labels]) => `${labels.join(" and ")} are identical ${key.startsWith("jpeg") ? "as JPEG" : "to the bit"}.`).join(" ");
}

/**
 * Some samplers ask the model twice per step (Heun) or once more (PLMS).
 * @param {Film} film
 */
export const unitOf = (film) => (film.expected === film.about.steps ? "step" : "evaluation");

/** @param {Film} film */
export function standing(film) {
	const n = film.steps.length;
	const word = unitOf(film);
	const one = `${n} ${word}${n === 1 ? "" : "s"}`;
	if (film.status === "running") return n ? `running: ${n} of ${film.expected} ${word}s` : "starting";
	const took = film.seconds ? ` in ${duration(film.seconds)}, ${duration(film.seconds / Math.max(1, n))} each` : "";
	if (film.status === "cancelled") return `stopped after ${one}`;
	return film.status === "failed" ? `failed after ${one}` : one + took;
}

/**
 * What made a film, in a line; `whole`: with its prompt.
 * @param {Film} film
 * @param {boolean} whole
 */
export function madeBy(film, whole) {
	const { prompt, "negative prompt": negative, sampler, model, ...numbers } = film.about;
	const parts = whole ? [prompt ? `“${prompt}”` : "no prompt"] : [];
	if (negative) parts.push(`without “${negative}”`);
	for (const [name, value] of Object.entries(numbers)) parts.push(name === "steps" ? `${value} steps` : `${name} ${value}`);
	return parts.concat(sampler ? [String(sampler)] : [], model ? [String(model)] : []).join(" · ");
}

/**
 * The prompt as the model read it, where it is the same for all films.
 * @param {Film[]} films
 */
export function tokensOf([first, ...others]) {
	const same = others.every((film) => JSON.stringify(film.tokens) === JSON.stringify(first.tokens));
	return (same && first.tokens) || [];
}

/**
 * @param {Uint8Array} bytes
 * @param {string} format
 * @param {boolean} exact
 * @returns {Shot}
 */
export const shot = (bytes, format, exact) => ({ bytes, format, exact, bitmap: null, asked: false, before: null, light: null, about: null });

/**
 * A picture in the place of another: the other itself where it is the same picture, else one that is covered by the
 * other until it is ready to draw.
 * @param {Slot | undefined} old
 * @param {Slot} fresh
 */
export function inPlaceOf(old, fresh) {
	if (!old || !fresh || typeof old === "string" || typeof fresh === "string") return fresh;
	if (old.bytes.length === fresh.bytes.length && old.bytes.every((byte, j) => byte === fresh.bytes[j])) return Object.assign(old, { exact: fresh.exact, about: fresh.about });
	fresh.before = old.bitmap ? old : old.before;
	return fresh;
}

/**
 * The films that film.py packed; null where document and bytes do not match.
 * @param {any} document
 * @param {Uint8Array} data
 * @returns {Film[] | null}
 */
export function unpack(document, data) {
	if (!document || document.format !== 1 || document.bytes !== data.byteLength) return null;
	const slot = (/** @type {any} */ one) => (Array.isArray(one) ? shot(data.subarray(one[0], one[0] + one[1]), one[2], true) : one);
	return document.films.map((/** @type {any} */ film) => ({
		...film,
		steps: film.steps.map((/** @type {any[]} */ row) => stepOf(row, film.columns)),
		frames: Object.fromEntries(Object.entries(film.frames).map(([kind, row]) => [kind, row.map(slot)])),
		final: slot(film.final),
		previous: null,
	}));
}

/**
 * What a film leaves on show when a run begins: its pictures and numbers, else those that it left itself.
 * @param {Film} film
 * @param {number} at the evaluation looked at
 * @param {boolean} held whether it has been since the run began
 * @returns {Ghost}
 */
export function ghostOf(film, at, held) {
	const { previous, frames, steps } = film;
	const count = Math.max(1, lengthOf(film));
	const places = Array.from({ length: count }, (_, i) => i);
	/** @type {Record<string, Slot[]>} */ const rows = {};
	for (const kind of Object.keys({ ...previous?.frames, ...frames }))
		rows[kind] = places.map((i) => frames[kind]?.[i] ?? previous?.frames[kind]?.[behind(film, i, held && i === at)] ?? null);
	return { count, at, frames: rows, steps: places.map((i) => steps[i] ?? previous?.steps[behind(film, i, held && i === at)]), final: film.final ?? previous?.final ?? null };
}

/**
 * Which evaluation of the run before lies behind evaluation `i`: where `held`, the one that was looked at.
 * @param {Film} film
 * @param {number} i
 * @param {boolean} held
 */
export function behind(film, i, held) {
	const { previous } = film;
	if (!previous) return -1;
	return held ? previous.at : stepAt(i, lengthOf(film), previous.count);
}
