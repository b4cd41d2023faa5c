// The browser's half of the wire in viewer.py, one module without imports; its types are in types.d.ts.

// the wire's words: as in viewer.py
const PIECE = "piece";
const STATE = "state";
const HELLO = "hello";
const ACK = "ack";
const AGAIN = "again";
const LOOK = "look";

const SILENCE = 4000; // ms of a run without a message, then the kernel is asked
const PATIENCE = 3000; // ms it then has to answer
const CELL = 18; // narrowest picture of a strip that shows every step, in CSS pixels
const WIDER = 30; // and of one that must leave some out
const PIXELS_KEPT = 32e6; // decoded pictures kept ready, in pixels (4 bytes each)

const WORDS = {
	x0: { word: "Estimate", symbol: "x₀", cells: false },
	latents: { word: "Latents", symbol: "xₜ", cells: true },
	noise: { word: "Noise", symbol: "ε", cells: true },
	guidance: { word: "Guidance", symbol: "Δ", cells: true },
	change: { word: "Change", symbol: "Δx₀", cells: false },
};

const TRACKS = {
	sigma: { word: "noise level σ", at: 1, log: true },
	change: { word: "change of x₀", at: 3, log: false },
	adherence: { word: "adherence", at: 5, log: false },
};
const SPEEDS = [0.25, 0.5, 1, 2, 4];
const MATTERS = {
	cut: "not read: the prompt is longer than what this model reads",
	unknown: "part of a word that this model never saw in training",
};
const KEYS = [
	"on the scrubber: ← → Home End, Space to play",
	"anywhere: , and . a step back and on, [ ] slower and faster, + − 0 zoom, Shift with arrows moves what is zoomed",
];

const MUTE = { "aria-hidden": "true" };

// pure functions

/** The bytes of a buffer: hosts hand over a DataView, a Uint8Array or an ArrayBuffer. */
export function bytesOf(buffer) {
	return ArrayBuffer.isView(buffer) ? new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength) : new Uint8Array(buffer);
}

/** The places a film takes: while it runs all it will have, then those it has. */
export const lengthOf = (film) => (film.status === "running" ? Math.max(film.expected, film.steps.length) : film.steps.length);

/** The evaluation, of `count`, under place `at` of `places`: first under first, last under last. */
export function stepAt(at, places, count) {
	return places < 2 ? 0 : Math.round((at * (count - 1)) / (places - 1));
}

/** For every place of the reference the evaluation nearest in log sigma, never backwards; else by proportion. */
export function lineup(reference, film) {
	const places = lengthOf(reference);
	const level = (step) => (step?.[1] == null ? 99 : Math.log(Math.max(step[1], 1e-9))); // null: without bound
	const known = [reference, film].every((one) => one.status !== "running" && one.steps.some((step) => step?.[1] != null));
	let j = 0;
	return Array.from({ length: places }, (_, place) => {
		const even = stepAt(place, places, lengthOf(film));
		if (!known || film === reference) return even;
		const off = (k) => Math.abs(level(film.steps[k]) - level(reference.steps[place]));
		for (;;) {
			let next = j + 1;
			while (next < film.steps.length && off(next) === off(j)) next++;
			if (!(next < film.steps.length && off(next) < off(j))) return (j = Math.max(j, Math.min(even, next - 1)));
			j = next;
		}
	});
}

export function differing(films) {
	const rows = [...new Set(films.flatMap(({ about }) => Object.keys(about)))].map((name) => [name, ...films.map(({ about }) => String(about[name] ?? "–"))]);
	return rows.filter(([, first, ...others]) => others.some((value) => value !== first));
}

/** Which films ended in the same bytes, in a sentence for each such group. */
export function identical(films) {
	const groups = {};
	for (const { final, label } of films) if (final) (groups[final.format + final.bytes] ??= []).push(label);
	const same = Object.entries(groups).filter(([, { length }]) => length > 1);
	return same.map(([key, labels]) => `${labels.join(" and ")} are identical ${key.startsWith("jpeg") ? "as JPEG" : "to the bit"}.`).join(" ");
}

/** The places a strip shows: all where they fit, else those under the middles of fewer cells. */
export function placesShown(places, width) {
	const count = places * CELL <= width ? places : Math.max(1, Math.min(places, Math.floor(width / WIDER)));
	return Array.from({ length: count }, (_, k) => Math.floor(((k + 0.5) * places) / count));
}

export function missing(seen, count) {
	return Array.from({ length: count }, (_, k) => k).filter((k) => !seen.has(k));
}

/** A number for a reader: three figures, rarely an exponent. */
export function figures(x) {
	if (x == null) return "–";
	if (x === 0) return "0";
	const size = Math.abs(x);
	if (size === Infinity) return "∞";
	if (size >= 1e6) return x.toExponential(0);
	if (size >= 100) return String(Math.round(x));
	return size < 0.0005 ? x.toExponential(0) : String(Number(x.toPrecision(size < 1 ? 2 : 3)));
}

export function duration(s) {
	if (s == null) return "–";
	if (s < 0.9995) return `${figures(s * 1000)} ms`;
	if (s < 100) return `${s.toPrecision(3)} s`;
	s = Math.round(s);
	return `${Math.floor(s / 60)} min ${s % 60} s`;
}

/** The share of noise in the latents' variance: b^2 / (a^2 + b^2), sigma = b / a. */
export const noiseShare = (sigma) => (sigma == null ? 1 : (sigma * sigma) / (1 + sigma * sigma));

const percent = (sigma) => `${Math.round(100 * noiseShare(sigma))} %`;

/** The signal-to-noise ratio at noise level sigma: a^2 / b^2. */
export const snr = (sigma) => (sigma == null ? null : 1 / (sigma * sigma));

/** The numbers of a step for a reader: timestep, sigma, SNR, noise, change, time, adherence. */
const told = (/** @type {any} */ [timestep, sigma, seconds, change, , adherence] = []) => [figures(timestep), figures(sigma), figures(snr(sigma)), percent(sigma), figures(change), duration(seconds), adherence?.toFixed(2) ?? "–"];

/** Numbers as heights from 0 to 1 on one scale: from their least to their greatest logarithm, or from 0. */
export function heights(rows, log) {
	const levels = rows.map((row) => row.map((x) => (x == null || (log && x <= 0) ? null : log ? Math.log10(x) : x)));
	const known = /** @type {number[]} */ (levels.flat().filter((x) => x != null));
	const top = Math.max(...known);
	const bottom = log ? Math.min(...known) : 0;
	return levels.map((row) => row.map((x) => (x == null ? null : top > bottom ? (x - bottom) / (top - bottom) : 0)));
}

/** The area under heights as a CSS clip path, the places from edge to edge. */
export function areaOf(row, places) {
	const points = row.flatMap((y, i) => (y == null ? [] : [[places < 2 ? 50 : +((100 * i) / (places - 1)).toFixed(2), +(96 - 96 * y).toFixed(1)]]));
	if (!points.length) return "inset(100%)";
	const floor = [[points[points.length - 1][0], 100], [points[0][0], 100]];
	return `polygon(${[...points, ...floor].map(([x, y]) => `${x}% ${y}%`).join()})`;
}

/** A run plays in about four seconds at speed 1, whatever its length; a very long one leaves steps out. */
export function pace(places, speed) {
	const each = Math.min(250, 4000 / places) / speed;
	const stride = Math.max(1, Math.ceil(33 / each));
	return { stride, delay: each * stride };
}

/** Zoom by a factor; what is under the point (x, y of the picture shown, 0 to 1) stays. */
export function zoomed(zoom, factor, x = 0.5, y = 0.5) {
	const scale = Math.max(1, Math.min(16, zoom.scale * factor));
	return panned({ scale, left: zoom.left + x / zoom.scale - x / scale, top: zoom.top + y / zoom.scale - y / scale }, 0, 0);
}

/** Move a zoomed picture by shares of what is shown; its edges stay outside. */
export function panned({ scale, left, top }, x, y) {
	const within = (at) => Math.max(0, Math.min(1 - 1 / scale, at));
	return { scale, left: within(left - x / scale), top: within(top - y / scale) };
}

/** The page of its own: `template` (film.py, `page`) filled in one pass. */
export function pageOf(template, { title, style, script }, data) {
	const fill = {
		title: title.replace(/[<>&]/g, (c) => `&#${c.charCodeAt(0)};`),
		style,
		script,
		data: JSON.stringify(data).replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`),
	};
	return template.replace(/@(title|style|script|data)@/g, (_, name) => fill[name]);
}

export function base64(bytes) {
	let text = "";
	for (let i = 0; i < bytes.length; i += 0x8000) text += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
	return btoa(text);
}

export function spoken(at, places, step) {
	const place = `step ${at + 1} of ${places}`;
	return step ? `${place}, timestep ${figures(step[0])}, sigma ${figures(step[1])}` : place;
}

// Some samplers ask the model twice per step (Heun) or once more (PLMS).
const unitOf = (film) => (film.expected === film.about.steps ? "step" : "evaluation");

export function standing(film) {
	const n = film.steps.length;
	const word = unitOf(film);
	const one = `${n} ${word}${n === 1 ? "" : "s"}`;
	if (film.status === "running") return n ? `running: ${n} of ${film.expected} ${word}s` : "starting";
	const took = film.seconds ? ` in ${duration(film.seconds)}, ${duration(film.seconds / Math.max(1, n))} each` : "";
	if (film.status === "cancelled") return `stopped after ${one}`;
	return film.status === "failed" ? `failed after ${one}` : one + took;
}

/** The films that film.py packed; null where document and bytes do not match. */
export function unpack(document, data) {
	if (!document || document.format !== 1 || document.bytes !== data.byteLength) return null;
	const slot = (one) => (Array.isArray(one) ? shot(data.subarray(one[0], one[0] + one[1]), one[2], true) : one);
	return document.films.map((film) => ({
		...film,
		frames: Object.fromEntries(Object.entries(film.frames).map(([kind, row]) => [kind, row.map(slot)])),
		final: slot(film.final),
		previous: null,
	}));
}

const shot = (bytes, format, exact) => ({ bytes, format, exact, bitmap: null, asked: false });

/** What a film leaves on show when a run begins: its pictures, else those it covered itself. */
function ghostOf(film) {
	const { previous, frames } = film;
	const count = Math.max(1, lengthOf(film));
	/** @type {Record<string, Slot[]>} */ const rows = {};
	for (const kind of Object.keys({ ...previous?.frames, ...frames }))
		rows[kind] = Array.from({ length: count }, (_, i) => frames[kind]?.[i] ?? previous?.frames[kind]?.[stepAt(i, count, previous.count)] ?? null);
	return { count, frames: rows, final: film.final ?? previous?.final ?? null };
}

// the session: one per widget

export class Session {
	constructor(/** @type {Model} */ model) {
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
		this.versus = 0; // for film k, from 1: 2k - 1 shows the others' difference from it, 2k swipes it over them
		this.cut = 0.5; // where the swipe stands, from the left
		this.twins = ""; // which films ended in the same picture
		/** @type {Zoom} */ this.zoom = { scale: 1, left: 0, top: 0 };
		/** @type {Record<string, boolean>} */ this.cells = {}; // views wanted with plain squares, or without
		this.severed = false; // the line to the kernel changed
		this.complete = false; // the films came out of the traits: nothing is missing
		this.silent = false; // asked, and the kernel gave no answer
		/** @type {Set<number>} */ this.seen = new Set(); // pieces of this run
		/** @type {Map<string, number>} */ this.asked = new Map(); // run and piece -> when it was asked for
		/** @type {Set<() => void>} */ this.views = new Set();
		/** @type {Shot[]} */ this.ready = []; // decoded pictures, least recently shown first
		this.pixels = 0;
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
		];
		for (const [name, wire] of this.wires) model.on(name, wire);
		this.adopt();
		this.placed();
		this.hello();
	}

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
		clearInterval(this.watch);
		for (const one of this.ready) one.bitmap?.close();
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

	stepOf(film) {
		return Math.min(lineup(this.reference, film)[this.shown] ?? 0, film.steps.length - 1);
	}

	get base() {
		return this.films.length > 1 ? this.films[((this.versus + 1) >> 1) - 1] : undefined;
	}

	go(place) {
		this.at = Math.max(0, Math.min(place, this.places - 1));
		this.follow = this.at >= this.places - 1;
		this.changed();
	}

	move(place) {
		this.play(false);
		this.go(place);
	}

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

	set(change) {
		Object.assign(this, change);
		this.changed();
	}

	faster(by) {
		this.set({ speed: SPEEDS[Math.max(0, Math.min(SPEEDS.indexOf(this.speed) + by, SPEEDS.length - 1))] });
	}

	squares(kind) {
		return this.cells[kind] ?? wordOf(kind).cells;
	}

	/** Save the films as a page, made here: the kernel may be gone. */
	save() {
		const { model } = this;
		const names = this.films.map((film) => String(film.about.prompt ?? "")).filter(Boolean);
		const title = names.length ? `${names[0].slice(0, 80)} - diffexplore` : "diffexplore";
		const traits = { _film: model.get("_film"), view: this.kind, step: this.shown, _notes: [], _error: "" };
		const data = { traits, frames: base64(bytesOf(model.get("_frames"))) };
		const page = pageOf(model.get("_page"), { title, style: model.get("_css"), script: model.get("_esm") }, data);
		const name = title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "");
		const link = h("a", { href: URL.createObjectURL(new Blob([page], { type: "text/html" })), download: `${name}.html` });
		link.click();
		setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
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

	/** Begin another run. What was shown stays until the new films cover it. */
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

	hear(content, buffers) {
		this.heard = performance.now();
		this.silent = false;
		if (content?.kind === PIECE) this.take(content, buffers);
		if (content?.kind === STATE && (content.run > this.run || (content.run === this.run && !this.complete)))
			this.ask(content.run, missing(content.run > this.run ? new Set() : this.seen, content.pieces));
		this.changed();
	}

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
			news.steps.forEach((step, j) => (film.steps[news.first + j] ??= step));
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

	put(film, kind, i, slot) {
		const row = (film.frames[kind] ??= []);
		const old = row[i];
		if (old && typeof old === "object" && slot && typeof slot === "object" && old.exact && !slot.exact) return;
		row[i] = slot;
	}

	ask(run, pieces) {
		const now = performance.now();
		const due = pieces.filter((piece) => now - (this.asked.get(`${run}/${piece}`) ?? -1e9) > 500);
		for (const piece of due) this.asked.set(`${run}/${piece}`, now);
		if (due.length) this.send({ kind: AGAIN, run, pieces: due });
	}

	/** Until a run is complete: ask a silent kernel, and say so where no answer comes. */
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

	/** A picture ready to draw, or null: then it is being decoded, and the views are told. */
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
					this.ready.push(slot);
					this.pixels += bitmap.width * bitmap.height;
					while (this.pixels > PIXELS_KEPT && this.ready.length > 64) this.forget(/** @type {Shot} */ (this.ready.shift()));
					this.changed();
				},
				() => {}, // a frame that cannot be read stays an empty place
			);
		}
		return null;
	}

	forget(slot) {
		if (!slot.bitmap) return;
		this.pixels -= slot.bitmap.width * slot.bitmap.height;
		slot.bitmap.close();
		slot.bitmap = null;
		slot.asked = false;
	}
}

// the view: one per place shown

/**
 * An element, perhaps with a class ("p.dx-x"), with attributes and children. Text is only ever a text node.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K | `${K}.${string}`} tag
 * @param {Record<string, string>} attributes
 * @param {(Node | string)[]} children
 */
function h(tag, attributes = {}, ...children) {
	const [name, style] = tag.split(".");
	const node = document.createElement(/** @type {K} */ (name));
	for (const [name, value] of Object.entries(style ? { class: style, ...attributes } : attributes)) node.setAttribute(name, value);
	node.append(...children);
	return node;
}

const box = (name, ...children) => h(`div.${name}`, {}, ...children);
const option = (value, word) => h("option", { value }, word);

const line = (tag, first, ...rest) =>
	h("tr", {}, h("th", { scope: tag === "td" ? "row" : "col" }, first), ...rest.map((text) => h(tag, tag === "th" ? { scope: "col" } : {}, text)));

/** Set text only where it differs: a live region repeats what is set, layout costs. */
function say(node, text) {
	if (node.textContent !== text) node.textContent = text;
}

const wordOf = (kind) => WORDS[kind] ?? { word: kind, symbol: "", cells: false };

const SILENT = "The kernel does not answer: it is busy, or it was restarted. If it was, run the cell again.";
const GONE = "The kernel was restarted or has ended. What is here can still be looked at and exported. To go on, run the cell again.";

let serial = 0; // keeps the radio groups and labels of several viewers apart

export class View {
	constructor(/** @type {Session} */ session, /** @type {HTMLElement} */ el, /** @type {AbortSignal} */ signal) {
		this.session = session;
		this.id = `dx${++serial}-${Math.random().toString(36).slice(2, 8)}`;
		this.frame = 0;
		this.drawn = ""; // what the strips show: sizes and places
		/** @type {any[]} */ this.pictures = []; // and pictures
		this.listed = new Map();
		this.tabled = ""; // what the table shows
		this.charted = ""; // and the track
		this.spoke = 0; // when the live region last said something
		this.later = 0;
		/** @type {Panel[]} */ this.panels = [];
		const { id } = this;
		const on = (node, name, f) => node.addEventListener(name, f, { signal });

		const choices = h("fieldset.dx-views", {}, h("legend.dx-hidden", {}, "view"));
		this.radios = new Map();
		for (const kind of Object.keys(WORDS)) {
			const { word, symbol } = wordOf(kind);
			const radio = h("input", { type: "radio", name: `${id}-view`, value: kind });
			const label = h("label", {}, radio, h("span", {}, word), h("i", MUTE, symbol));
			on(radio, "change", () => radio.checked && session.look(kind));
			this.radios.set(kind, { radio, label });
			choices.append(label);
		}
		const tool = (word, title, act, more = {}) => {
			const button = h("button", { type: "button", class: "dx-tool", title, ...more }, word);
			on(button, "click", act);
			return button;
		};
		const select = (name, options, act) => {
			const menu = h("select.dx-tool", { "aria-label": name, title: name }, ...options.map((pair) => option(...pair)));
			on(menu, "change", () => act(menu.value));
			return menu;
		};
		this.less = tool("−", "zoom out", () => this.magnify(0.5), { "aria-label": "zoom out" });
		this.scale = h("span.dx-scale");
		this.more = tool("+", "zoom in", () => this.magnify(2), { "aria-label": "zoom in" });
		this.squares = tool("Pixels", "plain squares, or smooth", () => session.set({ cells: { ...session.cells, [session.kind]: !session.squares(session.kind) } }));
		this.export = tool("Export", "save as one page that needs no kernel and no network", () => session.save());
		const tools = box("dx-tools", h("span.dx-zoom", {}, this.less, this.scale, this.more), this.squares, this.export);

		this.stage = box("dx-stage");
		this.result = h("canvas", { role: "img", "aria-label": "the finished picture" });
		this.resultWord = h("figcaption", {}, "result");
		this.resultBox = h("figure.dx-result", {}, box("dx-screen", this.result), this.resultWord);
		this.bar = h("div");
		const facts = [
			["timestep", "what the network is told about how noisy its input is"],
			["sigma", "noise level: noise over picture in xₜ"],
			["SNR", "signal-to-noise ratio of xₜ: 1 / σ²"],
			["noise", "part of the latents' variance that is noise: σ² / (1 + σ²)"],
			["time", "how long this step took"],
			["adherence", "how far the estimate shows what the prompt names, 0 to 1"],
		].map(([name, title]) => h("div", { title }, h("dt", {}, name), h("dd")));
		facts[3].append(h("div.dx-bar", MUTE, this.bar));
		this.facts = facts.map((row) => row.children[1]);
		this.count = h("p.dx-count");
		this.factsBox = box("dx-facts", this.count, h("dl", {}, ...facts));
		const side = box("dx-side", this.resultBox, this.factsBox);
		this.caption = h("p.dx-caption");

		this.button = h("button", { type: "button", class: "dx-play" });
		on(this.button, "click", () => session.play(!session.playing));
		this.strips = h("div.dx-strips", MUTE);
		this.mark = box("dx-mark");
		this.strips.append(this.mark);
		this.range = h("input", { type: "range", id: `${id}-step`, min: "1", max: "1", step: "1", value: "1" });
		on(this.range, "input", () => session.move(this.range.valueAsNumber - 1));
		on(this.strips, "pointerdown", (event) => {
			if (event.button !== 0 || !session.places) return;
			this.strips.setPointerCapture(event.pointerId);
			session.move(this.placeUnder(event));
			this.range.focus({ preventScroll: true });
			event.preventDefault();
		});
		on(this.strips, "pointermove", (event) => {
			if (this.strips.hasPointerCapture(event.pointerId)) session.go(this.placeUnder(event));
		});
		this.chart = h("div.dx-chart", MUTE);
		this.tip = h("div.dx-tip", { ...MUTE, hidden: "" });
		const scrub = box("dx-scrub", this.chart, h("label.dx-hidden", { for: `${id}-step` }, "step"), this.range);
		this.track = box("dx-track", this.strips, scrub, this.tip);
		on(this.track, "pointermove", (event) => this.hover(event));
		on(this.track, "pointerleave", () => (this.tip.hidden = true));
		this.timeline = box("dx-timeline", this.button, this.track);
		this.curve = select("the track shows", Object.entries(TRACKS).map(([name, { word }]) => [name, word]), (track) => session.set({ track }));
		this.speed = select("speed", SPEEDS.map((speed) => [String(speed), `${speed}×`]), (speed) => session.set({ speed: Number(speed) }));
		this.loop = tool("Loop", "begin again at the end", () => session.set({ loop: !session.loop }));
		this.versus = select("compare", [], (versus) => session.set({ versus: Number(versus) }));
		this.cut = h("input", { type: "range", "aria-label": "swipe", value: "50" });
		on(this.cut, "input", () => session.set({ cut: this.cut.valueAsNumber / 100 }));
		this.judged = [facts[5], this.curve.options[2]];
		const tune = box("dx-tune", this.curve, this.cut, this.versus, this.speed, this.loop);
		this.differ = h("table.dx-differ");

		// Zoom: double click, drag. A wheel belongs to the notebook.
		on(this.stage, "dblclick", (event) => this.magnify(session.zoom.scale < 8 ? 2 : 0, event));
		on(this.stage, "pointerdown", (event) => {
			if (event.button === 0 && session.zoom.scale > 1) this.stage.setPointerCapture(event.pointerId);
		});
		on(this.stage, "pointermove", (event) => {
			if (!this.stage.hasPointerCapture(event.pointerId)) return;
			const { clientWidth, clientHeight } = this.panels[0].canvas;
			session.set({ zoom: panned(session.zoom, event.movementX / clientWidth, event.movementY / clientHeight) });
		});

		this.status = h("p.dx-status");
		this.live = h("p.dx-hidden", { role: "status" });
		this.words = h("ul.dx-words", { "aria-label": "the prompt, as the model reads it" });
		this.about = h("p.dx-about");
		this.notes = h("ul.dx-notes");
		this.error = h("p.dx-error", { role: "alert" });
		this.empty = h("p.dx-empty", {}, "No run yet.");
		this.table = h("div.dx-scroll", { tabindex: "0", role: "region", "aria-label": "numbers of every step" });
		this.numbers = h("details", {}, h("summary", {}, "Numbers"), this.table);
		on(this.numbers, "toggle", () => session.changed());
		const keys = h("details", {}, h("summary", {}, "Keys"), ...KEYS.map((line) => h("p", {}, line)));
		this.body = box("dx-body", box("dx-head", choices, tools), box("dx-main", this.stage, side), this.caption, this.timeline, tune);
		this.extra = box("dx-more", this.numbers, keys);
		this.root = box("dx-viewer", this.error, this.empty, this.body, this.words, this.differ, box("dx-foot", this.status, this.about), this.live, this.notes, this.extra);
		el.append(this.root);

		on(this.root, "keydown", (event) => this.key(event));
		// Around the controls too; their box is found once this is in the page.
		const seen = new IntersectionObserver(() => {
			const box = this.root.closest(".dx-explorer");
			if (box) on(box, "keydown", quiet);
			if (this.root.isConnected) seen.disconnect();
		});
		seen.observe(this.root);
		signal.addEventListener("abort", () => seen.disconnect());

		const redraw = () => {
			this.frame ||= requestAnimationFrame(() => {
				this.frame = 0;
				try {
					this.draw();
				} catch (error) {
					this.fail(error);
				}
			});
		};
		const observer = new ResizeObserver(redraw);
		observer.observe(this.root);
		const scale = window.matchMedia(`(resolution: ${window.devicePixelRatio}dppx)`);
		scale.addEventListener("change", redraw, { signal });
		signal.addEventListener("abort", () => {
			session.views.delete(redraw);
			observer.disconnect();
			cancelAnimationFrame(this.frame);
			clearTimeout(this.later);
			this.root.remove();
		});
		session.views.add(redraw);
		redraw();
	}

	key(event) {
		quiet(event);
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		const { session } = this;
		const { key, target } = event;
		const arrow = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
		if (key === "," || key === ".") session.move(session.shown + (key === "," ? -1 : 1));
		else if (key === " " && target === this.range) session.play(!session.playing);
		else if (key === "[" || key === "]") session.faster(key === "[" ? -1 : 1);
		else if (key === "+" || key === "=") this.magnify(2);
		else if (key === "-") this.magnify(0.5);
		else if (key === "0") this.magnify(0);
		else if (event.shiftKey && arrow && session.zoom.scale > 1) session.set({ zoom: panned(session.zoom, arrow[0] / 8, arrow[1] / 8) });
		else return;
		event.preventDefault();
	}

	magnify(factor, /** @type {any} */ event = null) {
		const box = event?.target.closest(".dx-screen")?.getBoundingClientRect();
		const at = box ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : [];
		this.session.set({ zoom: zoomed(this.session.zoom, factor, ...at) });
	}

	placeUnder(event) {
		const { left, width } = this.strips.getBoundingClientRect();
		const { places } = this.session;
		return Math.max(0, Math.min(Math.floor(((event.clientX - left) / width) * places), places - 1));
	}

	hover(event) {
		const { session } = this;
		const place = this.placeUnder(event);
		const step = session.reference?.steps[place];
		this.tip.hidden = !step || event.pointerType === "touch";
		if (!step) return;
		const [timestep, sigma, ratio, , , time] = told(step);
		say(this.tip, [`step ${place + 1}`, `timestep ${timestep}`, `σ ${sigma}`, `SNR ${ratio}`, time].join(" · "));
		const half = this.tip.offsetWidth / 2;
		const width = this.track.clientWidth;
		this.tip.style.left = `${Math.max(half, Math.min((width * (place + 0.5)) / session.places, width - half))}px`;
	}

	/** Say what went wrong: an empty cell would say nothing. */
	fail(error) {
		console.error(error);
		this.error.hidden = false;
		say(this.error, `The viewer could not draw this: ${error}`);
	}

	draw() {
		const { session } = this;
		const { films, places, shown, kind } = session;
		const gone = session.severed && this.root.closest(".jupyter-widgets-disconnected");
		const error = gone ? GONE : session.model.get("_error") || "";
		say(this.error, error);
		this.error.hidden = !error;
		this.list(this.notes, session.model.get("_notes") || [], (note) => h("li", {}, note));
		this.root.dataset.status = films[0]?.status ?? "empty";
		this.empty.hidden = films.length > 0;
		this.body.hidden = !films.length;
		this.root.classList.toggle("dx-many", films.length > 1);
		if (!films.length) {
			for (const node of [this.status, this.live, this.about]) say(node, "");
			this.words.hidden = this.extra.hidden = this.differ.hidden = true;
			return;
		}

		for (const [name, { radio, label }] of this.radios) {
			radio.checked = name === kind;
			const caption = session.captions[name] ?? "";
			if (label.title !== caption) label.title = caption;
			label.classList.toggle("dx-none", films.every((film) => film.frames[name]?.length && film.frames[name].every((slot) => typeof slot === "string")));
		}
		this.furnish(films.length);
		films.forEach((film, k) => this.drawFilm(film, k));
		this.drawResult(films[0]);
		this.drawStrips();
		const cells = placesShown(places, this.strips.clientWidth).length;
		// From here on nothing asks for sizes: each answer would cost a layout.
		this.drawTrack();
		this.drawTools();
		const film = films[0];
		const step = session.reference.steps[shown];
		say(this.count, "");
		this.count.append("step ", h("b", {}, String(Math.min(shown + 1, places))), ` of ${places}`);
		told(step).filter((_, k) => k !== 4).forEach((text, k) => say(this.facts[k], text));
		for (const node of this.judged) node.hidden = film.about.model !== "pocket"; // the one whose pictures the judge reads
		this.bar.style.width = percent(step?.[1]).replace(" ", "");
		const { base, versus } = session;
		const left = versus % 2 ? "Difference from" : "On the left:";
		const note = base ? `${left} ${base.label}${versus % 2 ? ", four times as strong: black is equal" : ""}. ` : "";
		say(this.caption, note + (session.captions[kind] ?? ""));

		this.range.max = String(places);
		this.range.valueAsNumber = shown + 1;
		this.range.ariaValueText = spoken(shown, places, step);
		films.forEach((one, k) => this.drawSpectrum(one, k));
		this.mark.style.left = `${(100 * Math.floor((shown * cells) / places)) / cells}%`;
		this.mark.style.width = `${100 / cells}%`;
		this.timeline.style.setProperty("--dx-cell", `${100 / places}%`);
		this.timeline.style.setProperty("--dx-done", `${places < 2 ? 100 : (100 * shown) / (places - 1)}%`);
		const word = session.playing ? "pause" : "play";
		this.button.ariaLabel = this.button.title = this.button.dataset.icon = word;

		const stands = films.map((one) => (one.label ? `${one.label}: ` : "") + standing(gone && one.status === "running" ? { ...one, status: "cancelled" } : one));
		const text = session.silent && !gone ? SILENT : stands.join(" · ");
		say(this.status, text);
		this.announce(text);
		const read = films.every((one) => JSON.stringify(one.tokens) === JSON.stringify(film.tokens)) ? film.tokens ?? [] : [];
		this.drawWords(read);
		this.drawCompared(!read.length);
		this.extra.hidden = false;
		if (this.numbers.open) this.drawTable();
	}

	/** Tell a screen reader how things stand, at most once a second, the last word always. */
	announce(text) {
		clearTimeout(this.later);
		if (this.live.textContent === text) return;
		const now = performance.now();
		const wait = this.spoke + 1000 - now;
		if (wait > 0) this.later = setTimeout(() => this.announce(text), wait);
		else {
			this.spoke = now;
			say(this.live, text);
		}
	}

	drawTools() {
		const { session } = this;
		const { scale } = session.zoom;
		say(this.scale, `${figures(scale)}×`);
		this.less.disabled = scale <= 1;
		this.more.disabled = scale >= 16;
		this.stage.classList.toggle("dx-zoomed", scale > 1);
		this.squares.ariaPressed = String(session.squares(session.kind));
		this.loop.ariaPressed = String(session.loop);
		this.speed.value = String(session.speed);
		this.curve.value = session.track;
		this.export.hidden = !session.model.get("_page") || !session.model.get("_esm");
		this.export.disabled = !session.complete;
	}

	drawTrack() {
		const { films, places, track, run, reference, complete } = this.session;
		const key = [run, track, places, complete, ...films.map((film) => film.steps.length + film.status)].join();
		if (key === this.charted) return;
		this.charted = key;
		const { at, log } = TRACKS[track];
		const rows = heights(films.map((film) => lineup(reference, film).map((i) => /** @type {any} */ (film.steps[i]?.[at]))), log);
		this.chart.replaceChildren(
			...rows.map((row) => {
				const area = h("i");
				area.style.clipPath = areaOf(row, places);
				return area;
			}),
		);
	}

	drawSpectrum(film, k) {
		const { spectrum, bars } = this.panels[k];
		const power = film.steps[this.session.stepOf(film)]?.[4] ?? [];
		spectrum.hidden = !power.length;
		const place = this.session.films.length > 1 ? this.panels[k].figure : this.factsBox;
		if (spectrum.parentNode !== place) place.append(spectrum);
		const last = film.status === "running" ? undefined : film.steps[film.steps.length - 1]?.[4];
		while (bars.children.length > power.length) bars.lastChild?.remove();
		while (bars.children.length < power.length) bars.append(h("div", {}, h("i"), h("b")));
		// One fixed scale, white noise lies at 3/8: bars can be compared between steps and runs.
		const height = (x) => `${Math.max(0, Math.min(100, 25 * ((x ?? -2) + 1.5)))}%`;
		power.forEach((x, band) => {
			const [bar, mark] = /** @type {any} */ (bars.children[band].children);
			bar.style.height = height(x);
			mark.style.bottom = height(last?.[band]);
			mark.hidden = !last;
		});
		bars.ariaLabel = `power of the estimate, coarse to fine, as powers of ten: ${power.map((x) => figures(x)).join(", ")}`;
	}

	drawWords(tokens) {
		this.list(this.words, tokens, ([text, matter]) => {
			const why = MATTERS[matter];
			return h("li", why ? { class: `dx-${matter}`, title: why } : {}, text, ...(why ? [h("span.dx-hidden", {}, ` (${why})`)] : []));
		});
	}

	list(list, items, item) {
		list.hidden = !items.length;
		const key = JSON.stringify(items);
		if (this.listed.get(list) === key) return;
		this.listed.set(list, key);
		list.replaceChildren(...items.map(item));
	}

	drawCompared(whole) {
		const { films, base, versus, twins } = this.session;
		const labels = films.map(({ label }) => label);
		const many = films.length > 1;
		this.list(this.versus, many ? ["side by side", ...labels.flatMap((label) => [`difference from ${label}`, `swipe with ${label}`])] : [], (word, k) => option(k, word));
		this.versus.selectedIndex = base ? versus : 0;
		this.cut.hidden = !base || versus % 2 > 0;
		const rows = differing(films);
		this.list(this.differ, rows.length ? [["setting", ...labels], ...rows] : [], (texts, k) => line(k ? "td" : "th", ...texts));
		say(this.about, many ? twins : about(films[0], whole));
	}

	drawTable() {
		const { session } = this;
		const { films, run, complete } = session;
		const key = JSON.stringify([run, complete, films.map((film) => [film.label, film.steps.length])]);
		if (key !== this.tabled) {
			this.tabled = key;
			this.table.replaceChildren(
				...films.map((film) =>
					h(
						"table",
						{},
						h("caption", {}, (film.label ? `${film.label}: ` : "") + about(film, true)),
						h("thead", {}, line("th", "step", "timestep", "σ", "SNR", "noise", "change of x₀", "time", "adherence")),
						h("tbody", {}, ...film.steps.map((step, i) => line("td", String(i + 1), ...told(step)))),
					),
				),
			);
		}
		for (const row of this.table.querySelectorAll("[aria-current]")) row.removeAttribute("aria-current");
		films.forEach((film, k) => this.table.querySelectorAll("tbody")[k].rows[session.stepOf(film)]?.setAttribute("aria-current", "step"));
	}

	furnish(count) {
		while (this.panels.length > count) {
			const panel = this.panels.pop();
			panel?.figure.remove();
			panel?.strip.remove();
			panel?.spectrum.remove();
		}
		while (this.panels.length < count) {
			const canvas = h("canvas", { role: "img" });
			const why = h("p.dx-why");
			const label = h("figcaption");
			const figure = h("figure.dx-film", {}, box("dx-screen", canvas, why), label);
			const strip = h("canvas.dx-strip");
			const bars = h("div.dx-bars", { role: "img" });
			const title = "power spectrum of the estimate on a logarithmic scale; the marks show that of the last step";
			const spectrum = h("div.dx-spectrum", { title }, bars, h("p", {}, h("span", {}, "coarse"), h("span", {}, "detail"), h("span", {}, "fine")));
			this.stage.append(figure);
			this.strips.insertBefore(strip, this.mark);
			this.panels.push({ figure, canvas, why, label, strip, spectrum, bars });
		}
	}

	drawFilm(film, k) {
		const { session } = this;
		const { kind } = session;
		const { canvas, why, label, figure } = this.panels[k];
		const i = session.stepOf(film);
		const slot = film.frames[kind]?.[i];
		const bitmap = session.bitmap(slot);
		figure.style.setProperty("--dx-shape", String(film.size[0] / film.size[1]));
		say(why, typeof slot === "string" ? slot : "");
		why.hidden = typeof slot !== "string";
		// Not there yet: what the canvas shows stays, paler where it belongs to another run.
		figure.classList.toggle("dx-stale", !bitmap && typeof slot !== "string" && film.previous !== null);
		const { base } = session;
		const apart = session.versus % 2;
		const other = base && base !== film ? session.bitmap(base.frames[kind]?.[session.stepOf(base)]) : null;
		if (bitmap) paint(canvas, bitmap, session.squares(kind), session.zoom);
		else if (typeof slot === "string") paint(canvas, null, true);
		if (bitmap && other) {
			const context = pen(canvas);
			context.save();
			context.beginPath();
			context.rect(0, 0, canvas.width * (apart ? 1 : session.cut), canvas.height);
			context.clip();
			if (apart) context.globalCompositeOperation = "difference";
			paint(canvas, other, session.squares(kind), session.zoom);
			context.globalCompositeOperation = "lighter"; // the canvas on itself: twice as bright, each time
			for (let k = 0; apart && k < 2; k++) context.drawImage(canvas, 0, 0);
			context.restore();
		}
		canvas.ariaLabel = `${other ? `${apart ? "difference from" : "swipe with"} ${base?.label}: ` : ""}${wordOf(kind).word} at step ${i + 1} of ${lengthOf(film)}${film.label ? `, ${film.label}` : ""}`;
		const spent = film.steps.slice(0, i + 1).reduce((sum, step) => sum + (step?.[2] ?? 0), 0);
		const judged = film.steps[i]?.[5] == null ? "" : `, adherence ${film.steps[i][5].toFixed(2)}`;
		say(label, session.films.length < 2 ? film.label : `${film.label}: ${unitOf(film)} ${i + 1} of ${lengthOf(film)}, after ${duration(spent)}${judged}`);
		label.hidden = !film.label;
		// The neighbours are decoded ahead, so that scrubbing and playing find them ready.
		for (const next of [i + 1, i - 1, i + 2]) session.bitmap(film.frames[kind]?.[next]);
	}

	drawResult(film) {
		const old = film.final ? null : film.previous?.final;
		const bitmap = this.session.bitmap(film.final ?? old);
		this.resultBox.style.setProperty("--dx-shape", String(film.size[0] / film.size[1]));
		this.resultBox.classList.toggle("dx-stale", Boolean(old));
		if (bitmap) paint(this.result, bitmap, this.session.cells.x0 ?? false, this.session.zoom);
		else if (!film.final && !old) paint(this.result, null, false);
		say(this.resultWord, film.final ? "result" : old ? "result before" : film.status === "running" ? "result to come" : "no result");
	}

	drawStrips() {
		const { session } = this;
		const { films, places, kind } = session;
		const width = this.strips.clientWidth;
		const ratio = window.devicePixelRatio || 1;
		const shown = placesShown(places, width);
		const cell = width / shown.length;
		const shape = films[0].size[0] / films[0].size[1];
		const height = Math.round(Math.min(cell / shape, 60));
		// Drawn only when a picture is new: scrubbing moves the mark and nothing else.
		const slots = films.map((film) => {
			const line = lineup(session.reference, film);
			return shown.map((place) => {
				const now = film.frames[kind]?.[line[place]];
				const old = now ? null : film.previous?.frames[kind]?.[stepAt(place, places, film.previous.count)];
				return { bitmap: session.bitmap(now ?? old), old: !now };
			});
		});
		const key = JSON.stringify([kind, width, ratio, height, session.run, slots.map((row) => row.map(({ bitmap, old }) => [bitmap?.width, old]))]);
		const pictures = slots.flat().map(({ bitmap }) => bitmap);
		if (key === this.drawn && pictures.every((bitmap, j) => bitmap === this.pictures[j])) return;
		this.drawn = key;
		this.pictures = pictures;
		slots.forEach((row, k) => {
			const { strip } = this.panels[k];
			strip.width = Math.round(width * ratio);
			strip.height = Math.round(height * ratio);
			strip.style.height = `${height}px`;
			const context = pen(strip);
			context.imageSmoothingQuality = "high";
			row.forEach(({ bitmap, old }, j) => {
				const left = Math.round((j * strip.width) / row.length);
				const right = Math.round(((j + 1) * strip.width) / row.length);
				const wide = Math.min(right - left, Math.round(strip.height * shape)) - Math.ceil(ratio);
				const x = Math.round((left + right - wide) / 2);
				if (!bitmap) {
					context.globalAlpha = 0.08;
					context.fillStyle = "#808080";
					context.fillRect(x, 0, wide, strip.height);
				} else {
					context.globalAlpha = old ? 0.25 : 1;
					context.imageSmoothingEnabled = !wordOf(kind).cells || bitmap.width > wide;
					context.drawImage(bitmap, x, 0, wide, strip.height);
				}
			});
		});
	}
}

/** Keep plain keys, its commands, from the notebook; combinations such as Ctrl-S pass. */
function quiet(event) {
	if (!(event.ctrlKey || event.metaKey || event.altKey)) event.stopPropagation();
}

function about(film, whole) {
	const { prompt, "negative prompt": negative, sampler, model, ...numbers } = film.about;
	const parts = whole ? [prompt ? `“${prompt}”` : "no prompt"] : [];
	if (negative) parts.push(`without “${negative}”`);
	for (const [name, value] of Object.entries(numbers)) parts.push(name === "steps" ? `${value} steps` : `${name} ${value}`);
	return parts.concat(sampler ? [String(sampler)] : [], model ? [String(model)] : []).join(" · ");
}

/** @returns {any} */
const pen = (canvas) => canvas.getContext("2d");

/** Draw the part on show over the canvas, at the screen's resolution; null clears it. */
function paint(canvas, bitmap, cells, zoom = { scale: 1, left: 0, top: 0 }) {
	const ratio = window.devicePixelRatio || 1;
	const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
	const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
	if (canvas.width !== width || canvas.height !== height) {
		canvas.width = width;
		canvas.height = height;
	}
	const context = pen(canvas);
	if (!bitmap) return context.clearRect(0, 0, width, height);
	const { scale, left, top } = zoom;
	context.imageSmoothingEnabled = !cells || bitmap.width > width * scale;
	context.imageSmoothingQuality = "high";
	context.drawImage(bitmap, left * bitmap.width, top * bitmap.height, bitmap.width / scale, bitmap.height / scale, 0, 0, width, height);
}

const viewer = () => {
	/** @type {Session | null} */
	let session = null;
	return {
		initialize(/** @type {{model: Model, signal?: AbortSignal}} */ { model }) {
			session = new Session(model);
			return () => session?.close();
		},
		render(/** @type {{model: Model, el: HTMLElement, signal?: AbortSignal}} */ { model, el }) {
			const life = new AbortController();
			try {
				session ??= new Session(model);
				new View(session, el, life.signal);
			} catch (error) {
				// Else a fault leaves an empty cell.
				el.replaceChildren(box("dx-viewer", h("p.dx-error", { role: "alert" }, `The viewer could not start: ${error}`)));
				console.error(error);
			}
			return () => life.abort();
		},
	};
};

export default viewer;
