// What changed in runs on their way, at its place on the timeline.
import { lineup } from "./timeline.js";

/**
 * The flags of films: each has those that came over the wire, an evaluation, a text and the share of noise asked for.
 * @param {Session} session
 * @returns {{place: number, text: string, k: number, mark: number}[]}
 */
export function flagsOf({ films, reference }) {
	return films.flatMap((film, k) => {
		const line = lineup(reference, film);
		return (film.flags ?? []).map(([i, text, mark]) => ({ place: Math.max(0, line.indexOf(i)), text, k, mark }));
	});
}
