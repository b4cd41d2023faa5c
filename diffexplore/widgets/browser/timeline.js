// Places on the timeline that films share, and the part of a picture that is on show.

const CELL = 18; // narrowest picture of a strip that shows every step, in CSS pixels
const WIDER = 30; // and of one that must leave some out

/**
 * The places a film takes: while it runs all it will have, then those it has.
 * @param {Pick<Film, "status" | "expected" | "steps">} film
 */
export const lengthOf = (film) => (film.status === "running" ? Math.max(film.expected, film.steps.length) : film.steps.length);

/**
 * The evaluation, of `count`, under place `at` of `places`: first under first, last under last.
 * @param {number} at
 * @param {number} places
 * @param {number} count
 */
export function stepAt(at, places, count) {
	return places < 2 ? 0 : Math.round((at * (count - 1)) / (places - 1));
}

/**
 * The noise level of a step as a logarithm; null is a sigma without bound.
 * @param {{sigma: number | null} | undefined} step
 */
const levelOf = (step) => (step?.sigma == null ? 99 : Math.log(Math.max(step.sigma, 1e-9)));

/**
 * For every place of the reference the evaluation nearest in log sigma, never backwards; else by proportion.
 * @param {Film} reference
 * @param {Film} film
 */
export function lineup(reference, film) {
	const places = lengthOf(reference);
	const known = [reference, film].every((one) => one.status !== "running" && one.steps.some((step) => step?.sigma != null));
	let j = 0;
	return Array.from({ length: places }, (_, place) => {
		const even = stepAt(place, places, lengthOf(film));
		if (!known || film === reference) return even;
		const off = (/** @type {number} */ k) => Math.abs(levelOf(film.steps[k]) - levelOf(reference.steps[place]));
		for (;;) {
			let next = j + 1;
			while (next < film.steps.length && off(next) === off(j)) next++;
			if (!(next < film.steps.length && off(next) < off(j))) return (j = Math.max(j, Math.min(even, next - 1)));
			j = next;
		}
	});
}

/**
 * Where a run stands while another, of which `held` tells the place, gives way to it: at the same step, or, of another
 * number of steps, at the nearest noise level. While the run goes that is known once it has passed the level, and until
 * then ahead of what there is.
 * @param {Held} held
 * @param {Pick<Film, "status" | "expected" | "steps">} film
 */
export function placeOf(held, film) {
	const places = lengthOf(film);
	if (held.end) return places - 1;
	if (places === held.places) return held.place;
	const even = stepAt(held.place, held.places, places);
	if (held.sigma == null || (film.steps.length && film.steps.every((step) => step?.sigma == null))) return even;
	const off = (/** @type {number} */ k) => levelOf(film.steps[k]) - levelOf(held);
	const passed = film.steps.findIndex((_, k) => off(k) <= 0);
	if (passed < 0) return film.status === "running" ? Math.min(places - 1, Math.max(even, film.steps.length)) : places - 1;
	return passed > 0 && off(passed - 1) < -off(passed) ? passed - 1 : passed;
}

/**
 * The places a strip shows: all where they fit, else those under the middles of fewer cells.
 * @param {number} places
 * @param {number} width
 */
export function placesShown(places, width) {
	const count = places * CELL <= width ? places : Math.max(1, Math.min(places, Math.floor(width / WIDER)));
	return Array.from({ length: count }, (_, k) => Math.floor(((k + 0.5) * places) / count));
}

/**
 * A run plays in about four seconds at speed 1, whatever its length; a very long one leaves steps out.
 * @param {number} places
 * @param {number} speed
 * @param {number} least ms for which a step is shown
 */
export function pace(places, speed, least = 33) {
	const each = Math.min(250, 4000 / places) / speed;
	const stride = Math.max(1, Math.ceil(least / each));
	return { stride, delay: each * stride };
}

/**
 * Zoom by a factor; what is under the point (x, y of the picture shown, 0 to 1) stays.
 * @param {Zoom} zoom
 * @param {number} factor
 */
export function zoomed(zoom, factor, x = 0.5, y = 0.5) {
	const scale = Math.max(1, Math.min(16, zoom.scale * factor));
	return panned({ scale, left: zoom.left + x / zoom.scale - x / scale, top: zoom.top + y / zoom.scale - y / scale }, 0, 0);
}

/**
 * Move a zoomed picture by shares of what is shown; its edges stay outside.
 * @param {Zoom} zoom
 * @param {number} x
 * @param {number} y
 * @returns {Zoom}
 */
export function panned({ scale, left, top }, x, y) {
	const within = (/** @type {number} */ at) => Math.max(0, Math.min(1 - 1 / scale, at));
	return { scale, left: within(left - x / scale), top: within(top - y / scale) };
}
