// What one widget shows, and its end of the wire; every place that shows the widget is a view (viewer.js) of it.
import { ghostOf, identical, shot, unpack, wordOf } from "./films.js";
import { stepOf } from "./numbers.js";
import { Shelf } from "./shelf.js";
import { lengthOf, lineup, pace } from "./timeline.js";
import { ACK, AGAIN, HELLO, LOOK, PATIENCE, PIECE, SILENCE, STATE, bytesOf, missing } from "./wire.js";

export const SPEEDS = [0.25, 0.5, 1, 2, 4];

export class Session {
	/** @param {Model} model */
	constructor(model) {
		this.model = model;
		/** @type {Film[]} */ this.films = [];
		/** @type {Record<string, string>} */ this.captions = {};
		this.run = -1;
		this.kind = model.get("view") || "x0";
		this.at = 0;
		this.opened = NaN; // the trait `step` as last followed
		this.follow = true; // the playhead rests on the newest step
		this.playing = false;
		this.speed = 1;
		this.loop = false;
		this.track = "sigma";
		this.mode = "side"; // how films stand to the one that is pinned: side by side, "difference" or "swipe"
		this.pin = 0; // which that is
		this.cut = 0.5; // where the swipe stands, from the left
		this.twins = ""; // which films ended in the same picture
		/** @type {Zoom} */ this.zoom = { scale: 1, left: 0, top: 0 };
		/** @type {Record<string, boolean>} */ this.cells = {}; // views wanted with plain squares, or without
		/** @type {Record<string, boolean>} */ this.strong = {}; // views wanted as a map of how strong
		this.stale = false; // a hand was on the controls, and the kernel has not said since what that means
		this.waiting = 0; // the timer of a question whether the kernel listens
		this.deaf = false; // it has not answered
		this.severed = false; // the line to the kernel changed
		this.complete = false; // the films came out of the traits: nothing is missing
		this.silent = false; // asked, and the kernel gave no answer
		/** @type {Set<number>} */ this.seen = new Set(); // pieces of this run
		/** @type {Map<string, number>} */ this.asked = new Map(); // run and piece -> when it was asked for
		/** @type {Set<() => void>} */ this.views = new Set();
		this.shelf = new Shelf(() => this.changed());
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
			["change:truth", () => this.set({ stale: false })],
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
		clearTimeout(this.waiting);
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

	/** The place on show: where the person rests, or as near as the run has come. */
	get shown() {
		return this.follow ? this.reached : Math.max(0, Math.min(this.at, this.reached));
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
		return Math.min(lineup(this.reference, film)[this.shown] ?? 0, film.steps.length - 1);
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
	go(place) {
		this.at = Math.max(0, Math.min(place, this.places - 1));
		this.follow = this.at >= this.places - 1;
		this.changed();
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
		const tick = () => {
			const end = this.shown >= this.places - 1 && !this.running;
			if (end && !this.loop) return this.play(false);
			const { stride, delay } = pace(this.places, this.speed);
			this.go(end ? 0 : Math.min(this.shown + stride, this.places - 1));
			this.timer = setTimeout(tick, this.shown >= this.places - 1 ? Math.max(delay, 500) : delay); // rest on the last
		};
		if (this.playing) this.timer = setTimeout(tick, pace(this.places, this.speed).delay);
		this.changed();
	}

	/** @param {Partial<Session>} change */
	set(change) {
		Object.assign(this, change);
		this.changed();
	}

	/**
	 * A hand is on the controls: what is on show may no longer be theirs.
	 * @param {boolean} stale
	 */
	touch(stale) {
		if (stale !== this.stale) this.set({ stale });
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
		for (const film of this.films) film.previous = null;
		this.captions = document.captions;
		this.complete = true;
		this.twins = identical(films);
		this.watched(false);
		this.changed();
	}

	/**
	 * Begin another run. What was shown stays until the new films cover it.
	 * @param {number} run
	 * @param {Film[]} films
	 */
	start(run, films) {
		films.forEach((film, k) => (film.previous = this.films[k] ? ghostOf(this.films[k]) : null));
		if (!this.films.length) this.follow = true;
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
		this.silent = this.deaf = false;
		clearTimeout(this.waiting);
		this.waiting = 0;
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
			if (kind === "final") film.final = fresh;
			else this.put(film, kind, i, fresh);
		});
		for (const [k, kind, i, why] of content.blanks) this.put(this.films[k], kind, i, why);
		this.ask(run, missing(this.seen, piece));
		this.watched(true);
	}

	/**
	 * @param {Film} film
	 * @param {string} kind
	 * @param {number} i
	 * @param {Slot} slot
	 */
	put(film, kind, i, slot) {
		const row = (film.frames[kind] ??= []);
		const old = row[i];
		if (old && typeof old === "object" && slot && typeof slot === "object" && old.exact && !slot.exact) return;
		row[i] = slot;
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
	 * A picture ready to draw, or null while it is not.
	 * @param {Slot | undefined} slot
	 */
	bitmap(slot) {
		return this.shelf.bitmap(slot);
	}
}
