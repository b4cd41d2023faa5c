// Where words look: the maps of a step (looks/overlay.py packs them), which words are chosen, and their colours over a picture.
import { pen } from "./dom.js";

const RANGE = 8; // as there: a byte is the root of how many times its mean a place has, up to this
const FULL = 4; // times its mean, from where a map is all there
const DIM = 0.45;
const HUES = 6; // colours
/** What is no word and takes attention all the same. */
export const SINKS = { "<begin>": "begin", "<end>": "end" };
export const SINK = "A sink: what stands around the prompt. It takes most of the attention where there is nothing to look for.";

/** @type {WeakMap<Looks, Uint8Array>} */ const opened = new WeakMap();
/** @type {WeakMap<Looks, Map<string, HTMLCanvasElement>>} */ const drawn = new WeakMap();

/**
 * The words that a film has maps of, in order; [] of one without.
 * @param {Film | undefined} film
 * @returns {string[]}
 */
export const lookers = (film) => film?.columns?.find(({ name }) => name === "attention")?.words ?? [];

/**
 * All words of films that have maps, each once.
 * @param {Film[]} films
 */
export const allLookers = (films) => [...new Map(films.flatMap(lookers).map((word) => [word.toLowerCase(), word])).values()];

/**
 * Choose a word, or no longer. At most as many as there are colours: the last one makes room.
 * @param {Session} session
 * @param {string} word
 */
export function chooseWord(session, word) {
	const key = word.toLowerCase();
	const looks = [...session.looks];
	const at = looks.indexOf(key);
	const free = looks.indexOf("");
	if (at >= 0) looks[at] = "";
	else looks[free >= 0 ? free : Math.min(looks.length, HUES - 1)] = key;
	session.set({ looks });
}

/**
 * Which colour a word has, -1 where it is not chosen.
 * @param {Session} session
 * @param {string} word
 */
export const colourOf = (session, word) => session.looks.indexOf(word.toLowerCase());

/**
 * The share of attention that a word has at a step: of all places that stand there.
 * @param {Film} film
 * @param {string} word
 * @param {Step | undefined} step
 * @returns {number | null}
 */
export function shareOf(film, word, step) {
	const shares = step?.attention?.shares;
	if (!shares) return null;
	const own = lookers(film).flatMap((one, k) => (one.toLowerCase() === word.toLowerCase() ? [Number(shares[k] ?? 0)] : []));
	return own.length ? own.reduce((sum, share) => sum + share, 0) : null;
}

/**
 * How far a byte of a map is above the mean, 0 to 1.
 * @param {number} byte
 */
export const riseOf = (byte) => Math.sqrt(Math.max(0, Math.min(1, (RANGE * (byte / 255) ** 2 - 1) / (FULL - 1))));

/**
 * A word's map as a small picture of one colour, as strong as it looks.
 * @param {Film} film
 * @param {Looks} looks
 * @param {string} word
 * @param {string} colour
 */
function layer(film, looks, word, colour) {
	const known = drawn.get(looks) ?? new Map();
	drawn.set(looks, known);
	const key = word + colour;
	if (known.has(key)) return known.get(key);
	let bytes = opened.get(looks);
	if (!bytes) opened.set(looks, (bytes = Uint8Array.from(atob(looks.maps), (c) => c.charCodeAt(0))));
	const [height, width] = looks.size;
	const canvas = document.createElement("canvas");
	canvas.width = width;
	canvas.height = height;
	const context = pen(canvas);
	context.fillStyle = colour;
	context.fillRect(0, 0, width, height);
	const image = context.getImageData(0, 0, width, height);
	const ks = lookers(film).flatMap((one, k) => (one.toLowerCase() === word ? [k] : []));
	for (let i = 0; i < width * height; i++) image.data[4 * i + 3] = Math.max(...ks.map((k) => 204 * riseOf(/** @type {Uint8Array} */ (bytes)[k * width * height + i])));
	context.putImageData(image, 0, 0);
	known.set(key, canvas);
	return canvas;
}

/**
 * The chosen words of a film, each with the number of its colour.
 * @param {Session} session
 * @param {Film} film
 */
export function chosenOf(session, film) {
	const there = new Set(lookers(film).map((word) => word.toLowerCase()));
	return session.looks.map((word, k) => ({ word, k })).filter(({ word }) => there.has(word));
}

/**
 * Lay where the chosen words look over a picture.
 * @param {HTMLCanvasElement} canvas
 * @param {Session} session
 * @param {Film} film
 */
export function lay(canvas, session, film) {
	const chosen = chosenOf(session, film);
	const looks = session.numbers(film)?.attention;
	if (!chosen.length || !looks) return;
	const context = pen(canvas);
	const { scale, left, top } = session.zoom;
	context.save();
	context.fillStyle = `rgb(0 0 0 / ${DIM})`;
	context.fillRect(0, 0, canvas.width, canvas.height);
	context.imageSmoothingEnabled = true;
	context.imageSmoothingQuality = "high";
	const style = getComputedStyle(canvas);
	for (const { word, k } of chosen) {
		const map = layer(film, looks, word, style.getPropertyValue(`--dx-w${k}`).trim() || "orange");
		context.drawImage(map, left * map.width, top * map.height, map.width / scale, map.height / scale, 0, 0, canvas.width, canvas.height);
	}
	context.restore();
}
