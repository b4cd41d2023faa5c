// Maps of how strong: pictures of a difference, whose grey is none, as one brightness for each place.
import { pen } from "./dom.js";

/** The views that are differences, drawn as `_signed` of looks/views.py draws them. */
export const STRONG = new Set(["guidance", "change"]);

const KNEE = 1 / 50; // as there
const SPAN = Math.asinh(1 / KNEE);
const SQUARES = Float32Array.from({ length: 256 }, (_, byte) => (Math.sinh((byte / 255 - 0.5) * 2 * SPAN) * KNEE) ** 2);
// From dark over violet and orange to light yellow: even steps of lightness, told apart without colour too.
const STOPS = [[10, 9, 34], [74, 20, 104], [150, 40, 105], [222, 86, 58], [250, 160, 40], [252, 244, 180]];

/** @type {WeakMap<ImageBitmap, HTMLCanvasElement>} */ const made = new WeakMap();

/**
 * A number from 0 to 1 as a colour.
 * @param {number} x
 */
export function heat(x) {
	const at = Math.max(0, Math.min(1, x)) * (STOPS.length - 1);
	const k = Math.min(Math.floor(at), STOPS.length - 2);
	return STOPS[k].map((low, channel) => Math.round(low + (STOPS[k + 1][channel] - low) * (at - k)));
}

/**
 * How far the colours of a pixel are from none, on the scale of the picture it is drawn in: 0 to 1.
 * @param {number} red
 * @param {number} green
 * @param {number} blue
 */
export const strengthOf = (red, green, blue) => Math.asinh(Math.sqrt((SQUARES[red] + SQUARES[green] + SQUARES[blue]) / 3) / KNEE) / SPAN;

/**
 * The map of a picture, of its size; made once.
 * @param {ImageBitmap} bitmap
 */
export function strength(bitmap) {
	const known = made.get(bitmap);
	if (known) return known;
	const canvas = document.createElement("canvas");
	canvas.width = bitmap.width;
	canvas.height = bitmap.height;
	const context = pen(canvas);
	context.drawImage(bitmap, 0, 0);
	const image = context.getImageData(0, 0, canvas.width, canvas.height);
	const { data } = image;
	for (let i = 0; i < data.length; i += 4) data.set(heat(strengthOf(data[i], data[i + 1], data[i + 2])), i);
	context.putImageData(image, 0, 0);
	made.set(bitmap, canvas);
	return canvas;
}
