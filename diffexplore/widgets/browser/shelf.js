// Decoded pictures kept ready, least recently shown first.
import { GRID, luminance } from "./calm.js";
import { h } from "./dom.js";

const PIXELS_KEPT = 32e6; // 4 bytes each

export class Shelf {
	/** @param {() => void} changed called when a picture is ready */
	constructor(changed) {
		this.changed = changed;
		/** @type {Shot[]} */ this.ready = [];
		this.pixels = 0;
		this.eye = /** @type {CanvasRenderingContext2D} */ (h("canvas", { width: String(GRID), height: String(GRID) }).getContext("2d", { willReadFrequently: true }));
		this.eye.imageSmoothingQuality = "high";
	}

	/**
	 * A picture ready to draw, or the one it is to cover, or null: then it is being decoded, and the views are told.
	 * @param {Slot | undefined} slot
	 */
	bitmap(slot) {
		if (!slot || typeof slot === "string") return null;
		if (slot.bitmap) {
			if (this.pixels > PIXELS_KEPT / 2) {
				this.ready.splice(this.ready.indexOf(slot), 1);
				this.ready.push(slot);
			}
			return slot.bitmap;
		}
		if (!slot.asked) {
			slot.asked = true;
			createImageBitmap(new Blob([/** @type {any} */ (slot.bytes)], { type: `image/${slot.format}` })).then(
				(bitmap) => {
					slot.bitmap = bitmap;
					slot.before = null;
					this.ready.push(slot);
					this.pixels += bitmap.width * bitmap.height;
					while (this.pixels > PIXELS_KEPT && this.ready.length > 64) this.forget(/** @type {Shot} */ (this.ready.shift()));
					this.changed();
				},
				() => {}, // a frame that cannot be read stays an empty place
			);
		}
		return slot.before?.bitmap ?? null;
	}

	/**
	 * The luminance of a picture that is ready to draw.
	 * @param {Shot} slot
	 */
	light(slot) {
		if (!slot.light && slot.bitmap) {
			this.eye.drawImage(slot.bitmap, 0, 0, GRID, GRID);
			slot.light = luminance(this.eye.getImageData(0, 0, GRID, GRID).data);
		}
		return /** @type {Float32Array} */ (slot.light);
	}

	/** @param {Shot} slot */
	forget(slot) {
		if (!slot.bitmap) return;
		this.pixels -= slot.bitmap.width * slot.bitmap.height;
		slot.bitmap.close();
		slot.bitmap = null;
		slot.asked = false;
	}

	close() {
		for (const one of this.ready) one.bitmap?.close();
	}
}
