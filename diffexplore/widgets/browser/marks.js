// Marks on the way of a run, as reach.py says and hears them.
import { REACH } from "./wire.js";

/** @typedef {[share: number, words: string, values: Record<string, unknown>]} Mark */

/**
 * The marks of the next run; null where a run cannot be reached into.
 * @param {Session} session
 * @returns {Mark[] | null}
 */
export const marksOf = (session) => session.model.get("_marks") ?? null;

/**
 * Ask the kernel for something.
 * @param {Session} session
 * @param {Record<string, unknown>} wish
 */
export function reachTo(session, wish) {
	session.send({ kind: REACH, run: session.run, ...wish });
}
