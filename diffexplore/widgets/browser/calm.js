// How fast pictures may follow each other: at most two and a half flashes a second. WCAG 2.3.1 allows three, where a
// flash is a pair of opposing changes of relative luminance by a tenth or more, the darker side below 0.8, over a part
// of the picture. What is held back is replaced by what is wanted when its turn comes, so the newest always wins.

export const GRID = 24; // a picture is looked at in so many squares a side
const CHANGE = 0.1; // of relative luminance
const BRIGHT = 0.8; // where both sides are brighter, nobody is hurt
const PERIOD = 1100; // ms; over a second, since a screen is never quite on time
const MOST = 5; // changes, each opposing the one before, of one square in a period
const SHARE = 0.1; // of a picture may have more: less than a quarter of what an eye sees sharply

/**
 * @typedef {object} Watched
 * @property {Shot} shot what is on show
 * @property {number} at when it came
 * @property {number} hand how often a hand had moved the playhead then
 * @property {Float32Array} turn the luminance that each square last turned at
 * @property {Int8Array} way where it went then: 1 is brighter, -1 darker
 * @property {{at: number, turned: Uint8Array}[]} past which squares turned, in the last period
 */

/**
 * Relative luminance of the squares of a picture, and of all of it last; `pixels` are RGBA.
 * @param {Uint8ClampedArray} pixels
 */
export function luminance(pixels) {
	const linear = (/** @type {number} */ x) => (x <= 10.31 ? x / 3294.6 : ((x / 255 + 0.055) / 1.055) ** 2.4);
	const found = Float32Array.from({ length: pixels.length / 4 }, (_, j) => 0.2126 * linear(pixels[4 * j]) + 0.7152 * linear(pixels[4 * j + 1]) + 0.0722 * linear(pixels[4 * j + 2]));
	const mean = found.reduce((sum, x) => sum + x, 0) / found.length;
	return Float32Array.of(...found, mean);
}

export class Calm {
	constructor() {
		/** @type {Map<string, Watched>} */ this.watched = new Map();
		this.due = Infinity; // when something held back may come
	}

	/**
	 * What a place of the page shows now.
	 * @param {string} place
	 */
	shown(place) {
		return this.watched.get(place)?.shot ?? null;
	}

	/**
	 * What the place is to show where `shot` is wanted: this, or what it shows already, until `due`.
	 * @param {string} place
	 * @param {Shot} shot
	 * @param {Float32Array} light as `luminance` gives it
	 * @param {number} now ms
	 * @param {{hand?: number, least?: number}} rules `hand`: how often a hand has moved it, which is never held back;
	 * `least`: ms between two pictures
	 */
	offer(place, shot, light, now, { hand = 0, least = 0 } = {}) {
		const old = this.watched.get(place);
		if (!old || old.turn.length !== light.length) {
			this.watched.set(place, { shot, at: now, hand, turn: light.slice(), way: new Int8Array(light.length), past: [] });
			return shot;
		}
		if (old.shot === shot) return shot;
		const past = old.past.filter(({ at }) => now - at < PERIOD);
		const turned = light.map((x, j) => Number(turns(old.turn[j], old.way[j], x)));
		const often = turned.map((one, j) => Number(one + past.reduce((sum, swap) => sum + swap.turned[j], 0) > MOST));
		const flashes = often[often.length - 1] > 0 || often.reduce((sum, one) => sum + one, 0) > SHARE * often.length;
		const wait = Math.max(old.at + least - now, flashes && past.length ? past[0].at + PERIOD - now : 0);
		if (wait > 0 && hand === old.hand) {
			this.due = Math.min(this.due, now + wait);
			return old.shot;
		}
		light.forEach((x, j) => {
			if (turned[j]) old.way[j] = x > old.turn[j] ? 1 : -1;
			if (turned[j] || old.way[j] * (x - old.turn[j]) > 0) old.turn[j] = x;
		});
		past.push({ at: now, turned: Uint8Array.from(turned) });
		this.watched.set(place, { ...old, shot, at: now, hand, past });
		return shot;
	}

	/** Until when something has been held back since this was last asked; without end where nothing was. */
	held() {
		const { due } = this;
		this.due = Infinity;
		return due;
	}
}

/**
 * Whether luminance `x` is a change that opposes the last, which went `way` as far as `turn`.
 * @param {number} turn
 * @param {number} way
 * @param {number} x
 */
function turns(turn, way, x) {
	return way * (x - turn) <= 0 && Math.abs(x - turn) >= CHANGE && Math.min(x, turn) < BRIGHT;
}
