// The frames of videos: which of them is on show, and how they follow each other.
import { wordOf } from "./films.js";
import { stepAt } from "./timeline.js";

const FASTEST = 40; // ms between two frames

/** @param {Film | undefined} film */
export const framesOf = (film) => film?.reel?.shown.length ?? 0;

/**
 * The number of the frame of a film, counted from 0 in the video itself, at frame `at` of `frames`.
 * @param {Film} film
 * @param {number} at
 * @param {number} frames
 */
export const numberOf = ({ reel }, at, frames) => (reel ? reel.shown[stepAt(at, frames, reel.shown.length)] : 0);

/**
 * The row of a film's pictures that shows a view at frame `at` of `frames`.
 * @param {Film} film
 * @param {string} kind
 * @param {number} at
 * @param {number} frames
 */
export function rowOf(film, kind, at, frames) {
	const { reel } = film;
	if (!reel || !frames) return kind;
	const k = stepAt(at, frames, reel.shown.length);
	const number = wordOf(kind).cells ? reel.first[k] : reel.shown[k];
	return number === reel.middle ? kind : `${kind}@${number}`;
}

/**
 * How long a frame of a film is shown, and how many are passed over, so that the video takes the time it has.
 * @param {Film} film
 * @param {number} speed
 */
export function frameRate({ reel }, speed) {
	if (!reel) return { stride: 1, delay: 125 };
	const each = (1000 * reel.frames) / (reel.fps * reel.shown.length * speed);
	const stride = Math.max(1, Math.ceil(FASTEST / each));
	return { stride, delay: each * stride };
}

/** The frames of something small, one after the other for as long as somebody points at it. */
export class Roll {
	/**
	 * @param {Session} session
	 * @param {() => void} draw called for each frame, and after the last
	 */
	constructor(session, draw) {
		this.session = session;
		this.draw = draw;
		this.timer = 0;
		this.at = -1; // the frame, -1 while nobody points
	}

	start() {
		const film = this.session.reel;
		if (!film || this.session.motion.matches || this.at >= 0) return;
		this.at = this.session.at;
		const tick = () => {
			const { stride, delay } = frameRate(film, 1);
			this.at = (this.at + stride) % Math.max(1, this.session.frames);
			this.draw();
			this.timer = setTimeout(tick, delay);
		};
		tick();
	}

	stop() {
		clearTimeout(this.timer);
		if (this.at < 0) return;
		this.at = -1;
		this.draw();
	}
}
