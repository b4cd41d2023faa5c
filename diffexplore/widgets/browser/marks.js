// Marks on the way of a run, as reach.py says and hears them.
import { REACH } from "./wire.js";

/** @typedef {[share: number, words: string, values: Record<string, unknown>]} Mark */

/**
 * The marks of the next run; null where a run cannot be reached into.
 * @param {Session} session
 * @returns {Mark[] | null}
 */
export const marksOf = (session) => session.model.get("_marks") ?? null;

/** @typedef {{n: number, of: number | null, at: number, words: string, deep: number}} Kin */

/**
 * The runs that are kept, which are on show, and the LoRAs that may change on the way, with their scales.
 * @param {Session} session
 * @returns {{nodes: Kin[], on: number[], most: number, loras: [string, number][]}}
 */
export const branchesOf = (session) => ({ nodes: [], on: [], most: 0, loras: [], ...session.model.get("branches") });

/**
 * Ask the kernel for something.
 * @param {Session} session
 * @param {Record<string, unknown>} wish
 */
export function reachTo(session, wish) {
	session.send({ kind: REACH, run: session.run, ...wish });
}
