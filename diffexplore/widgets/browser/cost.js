// What runs took, in a line.
import { standing, unitOf } from "./films.js";
import { took } from "./numbers.js";

/**
 * How often the network was asked: twice an evaluation where the prompt was weighed against its absence.
 * @param {Film} film
 */
export function callsOf(film) {
	if (film.about.network) return 0; // it was not asked
	const halves = film.frames?.guidance ?? [];
	return film.steps.reduce((sum, _, i) => sum + (halves[i] && typeof halves[i] !== "string" ? 2 : 1), 0);
}

/**
 * @param {number} count
 * @param {string} word
 */
const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

/**
 * How films stand: what is going, what ended early, else what they took.
 * @param {Film[]} films
 */
export function costOf(films) {
	const [first] = films;
	const several = films.length > 1;
	const label = (/** @type {Film} */ film) => (film.label && several ? `${film.label}: ` : "") + standing(film);
	const going = films.filter(({ status }) => status === "running");
	if (several && going.length === films.length && films.some(({ steps }) => steps.length)) {
		const [made, all] = [films.reduce((sum, { steps }) => sum + steps.length, 0), films.reduce((sum, { expected }) => sum + expected, 0)];
		return `running: ${made} of ${all} steps of ${films.length} runs`;
	}
	if (films.some(({ status }) => status !== "done")) return films.filter(({ status }) => !several || status !== "done").map(label).join(" · ");
	const calls = films.reduce((sum, film) => sum + callsOf(film), 0);
	const seconds = films.reduce((sum, film) => sum + film.seconds, 0);
	const steps = films.reduce((sum, film) => sum + film.steps.length, 0);
	const timed = films.reduce((sum, film) => sum + (film.seconds ? film.steps.length : 0), 0);
	const parts = [several ? `${films.length} runs · ${counted(calls, "call")}` : `${counted(steps, unitOf(first))} = ${counted(calls, "call")}`];
	if (seconds) parts.push(took(seconds), `${took(seconds / Math.max(1, timed))} a ${unitOf(first)}`);
	else if (films.some(({ about }) => about.kept)) parts.push("remembered, nothing drawn anew");
	return parts.join(" · ");
}
