// How far two pictures are apart.
import { h, pen } from "./dom.js";

const SIDE = 48; // pictures are compared at this size: what is finer decides nothing here

/** @type {WeakMap<ImageBitmap, Uint8ClampedArray>} */ const small = new WeakMap();

/** @param {ImageBitmap} bitmap */
function pixels(bitmap) {
	let found = small.get(bitmap);
	if (!found) {
		const canvas = h("canvas", { width: String(SIDE), height: String(SIDE) });
		const context = pen(canvas);
		context.imageSmoothingQuality = "high";
		context.drawImage(bitmap, 0, 0, SIDE, SIDE);
		found = context.getImageData(0, 0, SIDE, SIDE).data;
		small.set(bitmap, found);
	}
	return found;
}

/**
 * The root mean square of the difference of two pictures' colours, 0 to 1; null while one is not there.
 * @param {Session} session
 * @param {Slot | undefined} one
 * @param {Slot | undefined} other
 */
export function apart(session, one, other) {
	const [a, b] = [session.bitmap(one), session.bitmap(other)];
	return a && b ? rmsOf(pixels(a), pixels(b)) : null;
}

/**
 * @param {ArrayLike<number>} a RGBA
 * @param {ArrayLike<number>} b
 */
export function rmsOf(a, b) {
	let sum = 0;
	for (let i = 0; i < a.length; i++) if (i % 4 < 3) sum += (a[i] - b[i]) ** 2;
	return Math.sqrt(sum / ((3 * a.length) / 4)) / 255;
}
