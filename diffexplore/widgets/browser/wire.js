// The wire's words, as in viewer.py, whose docstring describes it, and its bytes.

export const PIECE = "piece";
export const STATE = "state";
export const HELLO = "hello";
export const ACK = "ack";
export const AGAIN = "again";
export const LOOK = "look";
export const PING = "ping";
export const HERE = "here";
export const WHAT_IF = "what if";
export const REACH = "reach";
export const LEVELS = "levels";

export const SILENCE = 4000; // ms of a run without a message, then the kernel is asked
export const PATIENCE = 3000; // ms it then has to answer

/**
 * The bytes of a buffer: hosts hand over a DataView, a Uint8Array or an ArrayBuffer.
 * @param {ArrayBufferView | ArrayBuffer} buffer
 */
export function bytesOf(buffer) {
	return ArrayBuffer.isView(buffer) ? new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength) : new Uint8Array(buffer);
}

/**
 * The pieces below `count` that were not seen.
 * @param {Set<number>} seen
 * @param {number} count
 */
export function missing(seen, count) {
	return Array.from({ length: count }, (_, k) => k).filter((k) => !seen.has(k));
}
