// The columns of the page: a film each, or the place that one is going to have.

/**
 * @param {Film[]} films
 * @param {{labels?: string[], steps?: number, shape?: number}} outlook what the next run will have, as viewer.py's `expect` says it
 * @returns {Seat[]}
 */
export function seatsOf(films, { labels = [], steps = 20, shape = 1 }) {
	const seat = (/** @type {string} */ label, /** @type {number} */ k) => ({ label, k, steps, shape: films[k] ? films[k].size[0] / films[k].size[1] : shape });
	if (!films.length) return (labels.length ? labels : [""]).map((label) => seat(label, -1));
	const found = labels.map((label) => films.findIndex((film) => film.label === label));
	// A column may be refused, or new: its place stays free, so that the others stand under their controls.
	if (films.length < labels.length && films.every((_, k) => found.includes(k))) return labels.map((label, n) => seat(label, found[n]));
	return films.map((film, k) => seat(film.label, k));
}
