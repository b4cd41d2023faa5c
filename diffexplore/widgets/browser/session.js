// What one widget shows, and its end of the wire; every place that shows the widget is a view (viewer.js) of it.
import { Calm } from "./calm.js";
import { Doubt } from "./doubt.js";
import { behind, ghostOf, identical, inPlaceOf, shot, unpack, wordOf } from "./films.js";
import { stepOf } from "./numbers.js";
import { frameRate, framesOf, rowOf } from "./reel.js";
import { Shelf } from "./shelf.js";
import { lengthOf, lineup, pace, placeOf } from "./timeline.js";
import { ACK, AGAIN, HELLO, LOOK, PATIENCE, PIECE, SILENCE, STATE, bytesOf, missing } from "./wire.js";

export const SPEEDS = [0.25, 0.5, 1, 2, 4];

const LONG = 5000; // ms of a run after which a playhead at the end goes along with it
const SLOWLY = 500; // ms between two pictures for those who ask for less motion

export class Session {
	/** @param {Model} model */
	constructor(model) {
		this.model = model;
		/** @type {Film[]} */ this.films = [];
		/** @type {Record<string, string>} */ this.captions = {};
		this.run = -1;
		this.kind = model.get("view") || "x0";
		/** @type {Held} */ this.held = { place: 0, places: 0, sigma: null, end: true }; // where the playhead was put
		this.kept = this.held; // where it was when the newest run began
		this.hand = 0; // how often it was moved by hand
		this.opened = NaN; // the trait `step` as last followed
		this.began = 0; // when the newest run was first heard of
		this.along = false; // it takes long: a playhead at the end goes with it
		this.playing = false;
		this.speed = 1;
		this.loop = false;
		this.share = 0.5; // how far into their frames videos are
		this.rolling = false; // their frames are played
		this.stood = 0; // where they stood before
		this.roller = 0;
		this.track = "sigma";
		/** @type {string[]} */ this.looks = []; // words whose attention is shown, each at the place of its colour
		this.mode = "side"; // how films stand to the one that is pinned: side by side, "difference" or "swipe"
		this.pin = 0; // which that is
		this.cut = 0.5; // where the swipe stands, from the left
		this.twins = ""; // which films ended in the same picture
		/** @type {Zoom} */ this.zoom = { scale: 1, left: 0, top: 0 };
		/** @type {Record<string, boolean>} */ this.cells = {}; // views wanted with plain squares, or without
		/** @type {Record<string, boolean>} */ this.strong = {}; // views wanted as a map of how strong
		this.edited = NaN; // the mark whose flag was pressed
		this.doubt = new Doubt((content) => this.send(content), () => this.changed());
		this.severed = false; // the line to the kernel changed
		this.complete = false; // the films came out of the traits: nothing is missing
		this.silent = false; // asked, and the kernel gave no answer
		/** @type {Set<number>} */ this.seen = new Set(); // pieces of this run
		/** @type {Map<string, number>} */ this.asked = new Map(); // run and piece -> when it was asked for
		/** @type {Set<() => void>} */ this.views = new Set();
		this.shelf = new Shelf(() => this.changed());
		this.calm = new Calm();
		this.motion = window.matchMedia("(prefers-reduced-motion: reduce)");
		this.pacing = 0; // the timer of a picture that was held back
		this.heard = 0; // when the kernel was last heard
		this.timer = 0;
		this.watch = 0;

		/** @type {[string, (...args: any[]) => void][]} */ this.wires = [
			["msg:custom", (content, buffers) => this.hear(content, buffers || [])],
			["change:_film", () => this.adopt()],
			["change:_frames", () => this.adopt()], // one may come later
			["change:view", () => this.look(model.get("view"))],
			["change:step", () => this.placed()],
			["comm_live_update", () => this.set({ severed: true })], // ipywidgets' own, when a kernel restarts or dies
			["change:_notes", () => this.changed()],
			["change:_error", () => this.changed()],
			["change:_outlook", () => this.changed()],
			["change:_marks", () => this.changed()],
			["change:branches", () => this.changed()],
			["change:levels", () => this.changed()],
			["change:truth", () => (this.doubt.told(), this.changed())],
		];
		for (const [name, wire] of this.wires) model.on(name, wire);
		this.adopt();
		this.placed();
		this.hello();
	}

	/** @param {Record<string, unknown>} content */
	send(content) {
		try {
			this.model.send(content);
		} catch {} // the kernel is gone, which the views say
	}

	hello() {
		this.send({ kind: HELLO, run: this.run, complete: this.complete });
	}

	close() {
		for (const [name, wire] of this.wires) this.model.off(name, wire);
		clearTimeout(this.timer);
		clearTimeout(this.roller);
		clearTimeout(this.pacing);
		this.doubt.close();
		clearInterval(this.watch);
		this.shelf.close();
		this.views.clear();
	}

	changed() {
		for (const redraw of this.views) redraw();
	}

	get places() {
		return Math.max(0, ...this.films.map(lengthOf));
	}

	get running() {
		return this.films.some((film) => film.status === "running");
	}

	get reached() {
		const { places } = this;
		const ends = this.films.map((film) => (lengthOf(film) < 2 ? places - 1 : Math.floor(((film.steps.length - 1) * (places - 1)) / (lengthOf(film) - 1))));
		return Math.max(0, Math.min(...ends, places - 1));
	}

	/** Whether what runs before left shows where the newest has not come yet. */
	get covering() {
		return !this.complete && this.films.some((film) => film.previous);
	}

	/** The place on show: where the playhead was put, in a run that covers no other as near as it has come. */
	get shown() {
		const place = this.reference ? placeOf(this.held, this.reference) : 0;
		const waits = this.covering && !(this.held.end && this.along);
		return Math.max(0, waits ? place : Math.min(place, this.reached));
	}

	/** The longest film: a place on the timeline is one of its evaluations. */
	get reference() {
		return this.films.find((film) => lengthOf(film) === this.places) ?? this.films[0];
	}

	/**
	 * The evaluation of a film at the place on show.
	 * @param {Film} film
	 */
	stepOf(film) {
		const step = lineup(this.reference, film)[this.shown] ?? 0;
		return film.previous && !this.complete ? step : Math.min(step, film.steps.length - 1);
	}

	/** The film with most frames, undefined where nothing moves: a place of the second scrubber is one of its frames. */
	get reel() {
		return this.films.reduce((/** @type {Film | undefined} */ most, film) => (framesOf(film) > Math.max(1, framesOf(most)) ? film : most), undefined);
	}

	get frames() {
		return framesOf(this.reel);
	}

	/** The frame on show, counted from 0, of those that there are. */
	get at() {
		return Math.round(this.share * Math.max(0, this.frames - 1));
	}

	/** The same for what keeps still while frames are played. */
	get still() {
		return this.rolling ? this.stood : this.at;
	}

	/**
	 * Put the second scrubber somewhere by hand.
	 * @param {number} at
	 */
	turn(at) {
		this.roll(false);
		this.hand += 1;
		this.share = this.frames > 1 ? Math.max(0, Math.min(at / (this.frames - 1), 1)) : 0.5;
		this.changed();
	}

	/** @param {boolean} on */
	roll(on) {
		clearTimeout(this.roller);
		this.stood = this.at;
		this.rolling = on && this.frames > 1;
		const tick = () => {
			const { reel, frames } = this;
			if (!reel) return this.roll(false);
			if (this.pacing) return void (this.roller = setTimeout(tick, 16)); // until the picture of this frame is there
			const { stride, delay } = frameRate(reel, this.speed);
			this.share = ((this.at + stride) % frames) / (frames - 1);
			this.roller = setTimeout(tick, this.motion.matches ? Math.max(delay, SLOWLY) : delay);
			this.changed();
		};
		if (this.rolling) tick();
		else this.changed();
	}

	/**
	 * Which evaluation of the run before lies behind one of a film, -1 for none.
	 * @param {Film} film
	 * @param {number} i
	 */
	behind(film, i) {
		return this.complete ? -1 : behind(film, i, this.held === this.kept && i === this.stepOf(film));
	}

	/**
	 * The newest that has come for an evaluation of a film: of a run that is going, or of those that it replaces.
	 * @param {Film} film
	 * @param {string} kind
	 * @param {number} i
	 * @param {number} at the frame
	 * @returns {Slot}
	 */
	slot(film, kind, i, at = this.at) {
		if (!lengthOf(film) && film.final) return kind === "x0" && i <= 0 ? film.final : null; // a run that has no steps to show
		return film.frames[rowOf(film, kind, at, this.frames)]?.[i] ?? film.frames[kind]?.[i] ?? film.previous?.frames[kind]?.[this.behind(film, i)] ?? null;
	}

	/**
	 * So the numbers.
	 * @param {Film} film
	 * @param {number} i
	 * @returns {Step | undefined}
	 */
	numbers(film, i = this.stepOf(film)) {
		return film.steps[i] ?? film.previous?.steps[this.behind(film, i)];
	}

	/**
	 * What to show large of a film at the place on show. Where pictures would flash it is for a moment the one before.
	 * @param {Film} film
	 * @param {string} kind
	 * @param {{at?: number, i?: number, place?: string}} other another frame, evaluation and place of the page
	 */
	picture(film, kind, { at = this.at, i = this.stepOf(film), place: where = "" } = {}) {
		const place = `${where}${kind} ${this.films.indexOf(film)}`;
		const slot = this.slot(film, kind, i, at);
		if (typeof slot === "string") return slot;
		if (!slot || !(this.bitmap(slot) && slot.bitmap)) return this.calm.shown(place) ?? slot;
		const now = performance.now();
		const shown = this.calm.offer(place, slot, this.shelf.light(slot), now, { hand: this.hand, least: this.motion.matches ? SLOWLY : 0 });
		const due = this.calm.held();
		if (due < Infinity && !this.pacing)
			this.pacing = setTimeout(() => {
				this.pacing = 0;
				this.changed();
			}, due - now);
		return shown;
	}

	/** The film that others are compared with. */
	get pinned() {
		return this.films[Math.min(this.pin, this.films.length - 1)];
	}

	/** The same, while they are. */
	get base() {
		return this.films.length > 1 && this.mode !== "side" ? this.pinned : undefined;
	}

	/** @param {number} place */
	rest(place) {
		const { places } = this;
		const at = Math.max(0, Math.min(place, places - 1));
		this.held = { place: at, places, sigma: this.reference?.steps[at]?.sigma ?? null, end: at >= places - 1 };
		this.changed();
	}

	/**
	 * Put the playhead somewhere by hand: what stands there is shown at once.
	 * @param {number} place
	 */
	go(place) {
		this.hand += 1;
		this.rest(place);
	}

	/** @param {number} place */
	move(place) {
		this.play(false);
		this.go(place);
	}

	/** @param {string} kind */
	look(kind) {
		if (!kind || kind === this.kind) return;
		this.kind = kind;
		if (this.films.length && !this.complete) this.send({ kind: LOOK, view: kind });
		this.changed();
	}

	placed() {
		const step = this.model.get("step");
		if (step === this.opened) return; // not a change
		this.opened = step;
		if (Number.isInteger(step)) this.go(step < 0 ? this.places + step : step);
	}

	/** @param {boolean} on */
	play(on) {
		clearTimeout(this.timer);
		this.playing = on && this.places > 1;
		if (this.playing && this.shown >= this.places - 1) this.go(0);
		const least = this.motion.matches ? SLOWLY : undefined;
		const tick = () => {
			if (this.pacing) return void (this.timer = setTimeout(tick, 16)); // until the picture of this place is there
			const end = this.shown >= this.places - 1 && !this.running;
			if (end && !this.loop) return this.play(false);
			const { stride, delay } = pace(this.places, this.speed, least);
			this.rest(end ? 0 : Math.min(this.shown + stride, this.places - 1));
			this.timer = setTimeout(tick, this.shown >= this.places - 1 ? Math.max(delay, 500) : delay); // rest on the last
		};
		if (this.playing) this.timer = setTimeout(tick, pace(this.places, this.speed, least).delay);
		this.changed();
	}

	/** @param {Partial<Session>} change */
	set(change) {
		Object.assign(this, change);
		this.changed();
	}

	/** @param {number} by */
	faster(by) {
		this.set({ speed: SPEEDS[Math.max(0, Math.min(SPEEDS.indexOf(this.speed) + by, SPEEDS.length - 1))] });
	}

	/**
	 * Whether a view is drawn as plain squares.
	 * @param {string} kind
	 */
	squares(kind) {
		return this.cells[kind] ?? wordOf(kind).cells;
	}

	adopt() {
		const document = this.model.get("_film");
		const frames = this.model.get("_frames");
		if (!document || !frames || document.run < this.run) return;
		const films = unpack(document, bytesOf(frames));
		if (!films?.length) return;
		this.heard = performance.now();
		this.start(document.run, films);
		for (const film of this.films) {
			const at = this.held === this.kept ? this.stepOf(film) : -1;
			for (const [kind, row] of Object.entries(film.frames)) film.frames[kind] = row.map((slot, i) => this.covered(film, slot, film.previous?.frames[kind]?.[behind(film, i, i === at)]));
			film.final = /** @type {Shot | null} */ (this.covered(film, film.final, film.previous?.final));
			film.previous = null;
		}
		this.captions = document.captions;
		this.complete = true;
		this.twins = identical(films);
		this.watched(false);
		this.changed();
	}

	/**
	 * Begin another run. What was shown stays until the new films cover it, and the playhead where it is.
	 * @param {number} run
	 * @param {Film[]} films
	 */
	start(run, films) {
		const held = this.held === this.kept;
		const ghosts = this.films.map((film) => ghostOf(film, this.stepOf(film), held));
		films.forEach((film, k) => (film.previous = ghosts[k] ?? null));
		for (const film of this.films) film.previous = null;
		this.kept = this.held;
		this.began = performance.now();
		this.along = false;
		if (run !== this.run) {
			this.seen = new Set();
			this.asked.clear();
		}
		this.run = run;
		this.films = films;
		this.twins = "";
		this.complete = false;
	}

	/**
	 * @param {any} content
	 * @param {any[]} buffers
	 */
	hear(content, buffers) {
		this.heard = performance.now();
		this.silent = false;
		this.doubt.heard();
		if (content?.kind === PIECE) this.take(content, buffers);
		if (content?.kind === STATE && (content.run > this.run || (content.run === this.run && !this.complete)))
			this.ask(content.run, missing(content.run > this.run ? new Set() : this.seen, content.pieces));
		this.changed();
	}

	/**
	 * Take in a piece.
	 * @param {Piece} content
	 * @param {any[]} buffers
	 */
	take(content, buffers) {
		const { run, piece } = content;
		this.send({ kind: ACK, run, piece, view: this.kind });
		if (run < this.run || (run === this.run && this.complete)) return; // late
		if (run > this.run || !this.films.length) {
			const blank = { steps: [], frames: {}, final: null, previous: null };
			this.start(run, content.films.map((film) => ({ ...film, ...blank, steps: [], frames: {} })));
		}
		this.captions = content.captions ?? this.captions;
		this.seen.add(piece);
		content.films.forEach((news, k) => {
			const film = this.films[k];
			// A piece may come late: a status only moves forward, steps only come to be more.
			if (film.status === "running") Object.assign(film, { ...news, steps: film.steps });
			news.steps.forEach((row, j) => (film.steps[news.first + j] ??= stepOf(row, news.columns)));
		});
		content.shots.forEach(([k, kind, i, format, exact], j) => {
			const film = this.films[k];
			const fresh = shot(bytesOf(buffers[j]).slice(), format, exact); // hosts reuse their buffers
			if (kind === "final") film.final = /** @type {Shot} */ (this.covered(film, fresh, film.final ?? film.previous?.final));
			else this.put(film, kind, i, fresh);
		});
		for (const [k, kind, i, why] of content.blanks) this.put(this.films[k], kind, i, why);
		this.along ||= this.running && performance.now() - this.began > LONG;
		this.ask(run, missing(this.seen, piece));
		this.watched(true);
	}

	/**
	 * A picture of a film, in place of another.
	 * @param {Film} film
	 * @param {Slot} slot
	 * @param {Slot | undefined} old
	 */
	covered(film, slot, old) {
		if (slot && typeof slot === "object") slot.about = film.about;
		return inPlaceOf(old, slot);
	}

	/**
	 * @param {Film} film
	 * @param {string} kind
	 * @param {number} i
	 * @param {Slot} slot
	 */
	put(film, kind, i, slot) {
		const row = (film.frames[kind] ??= []);
		const now = row[i];
		if (now && typeof now === "object" && slot && typeof slot === "object" && now.exact && !slot.exact) return;
		row[i] = this.covered(film, slot, this.slot(film, kind, i));
	}

	/**
	 * @param {number} run
	 * @param {number[]} pieces
	 */
	ask(run, pieces) {
		const now = performance.now();
		const due = pieces.filter((piece) => now - (this.asked.get(`${run}/${piece}`) ?? -1e9) > 500);
		for (const piece of due) this.asked.set(`${run}/${piece}`, now);
		if (due.length) this.send({ kind: AGAIN, run, pieces: due });
	}

	/**
	 * Until a run is complete: ask a silent kernel, and say so where no answer comes.
	 * @param {boolean} on
	 */
	watched(on) {
		clearInterval(this.watch);
		if (!on) return;
		let asked = 0;
		this.watch = setInterval(() => {
			const quiet = performance.now() - this.heard;
			if (quiet < SILENCE) asked = 0;
			else if (!asked) {
				asked = performance.now();
				this.hello();
			} else if (performance.now() - asked > PATIENCE && !this.silent) {
				this.silent = true;
				this.changed();
			}
		}, 500);
	}

	/**
	 * A picture ready to draw, while it is not the one it covers, or null.
	 * @param {Slot | undefined} slot
	 */
	bitmap(slot) {
		return this.shelf.bitmap(slot);
	}
}
