// The viewer's half of the wire that viewer.py describes, and everything a person sees of it. One module with no imports, used as it is
// by anywidget and by exported pages. From top to bottom: the wire's words, pure functions (tested by `node --test`), the session (one
// per widget: films, playhead, messages), the view (one per place the widget is shown: DOM and drawing).

/**
 * @typedef {{bytes: Uint8Array, format: string, exact: boolean, bitmap: ImageBitmap | null, asked: boolean}} Shot
 * @typedef {Shot | string | null} Slot  a picture, why there is none, or not there yet
 * @typedef {{label: string, status: string, expected: number, seconds: number, size: [number, number],
 *   about: Record<string, string | number>, steps: (number | null)[][], frames: Record<string, Slot[]>, final: Shot | null,
 *   previous: Ghost | null}} Film
 * @typedef {{count: number, frames: Record<string, Slot[]>, final: Shot | null}} Ghost  what earlier runs left on show
 * @typedef {{get(name: string): any, send(content: any): void, on(name: string, f: Function): void, off(name: string, f: Function): void}} Model
 */

// === the wire's words: keep in step with viewer.py ===
const PIECE = "piece";
const STATE = "state";
const HELLO = "hello";
const ACK = "ack";
const AGAIN = "again";
const LOOK = "look";

const SILENCE = 4000; // ms of a running film without a message, after which the kernel is asked whether it is still there
const PATIENCE = 3000; // ms it then has to answer
const CELL = 18; // narrowest picture of a strip that shows every step, in CSS pixels
const WIDER = 30; // and of one that must leave some out
const PIXELS_KEPT = 32e6; // decoded pictures kept ready, in pixels (4 bytes each)

/** Menu words and symbols; what a view shows in one sentence comes with the film. A view not listed here shows under its own name. */
const WORDS = /** @type {Record<string, {word: string, symbol: string, cells: boolean}>} */ ({
  x0: { word: "Estimate", symbol: "x\u2080", cells: false },
  latents: { word: "Latents", symbol: "x\u209c", cells: true },
  noise: { word: "Noise", symbol: "\u03b5", cells: true },
  guidance: { word: "Guidance", symbol: "\u0394", cells: true },
  change: { word: "Change", symbol: "\u0394x\u2080", cells: false },
});

// === pure functions ===

/** The bytes of a message buffer. Hosts hand over a DataView, a Uint8Array or an ArrayBuffer, the first two perhaps inside a larger one. */
export function bytesOf(/** @type {DataView | Uint8Array | ArrayBuffer} */ buffer) {
  return ArrayBuffer.isView(buffer) ? new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength) : new Uint8Array(buffer);
}

/** How many places a film takes on the timeline: all it will have while it runs, then those it has. */
export const lengthOf = (/** @type {Film} */ film) => (film.status === "running" ? Math.max(film.expected, film.steps.length) : film.steps.length);

/** The evaluation of a film of `count` that stands under place `at` of a timeline of `places`: first under first, last under last. */
export function stepAt(/** @type {number} */ at, /** @type {number} */ places, /** @type {number} */ count) {
  return places < 2 ? 0 : Math.round((at * (count - 1)) / (places - 1));
}

/** The places shown by a strip of this width: all where they fit, else for each of fewer, wider cells the one under its middle. */
export function placesShown(/** @type {number} */ places, /** @type {number} */ width) {
  const count = places * CELL <= width ? places : Math.max(1, Math.min(places, Math.floor(width / WIDER)));
  return Array.from({ length: count }, (_, k) => Math.floor(((k + 0.5) * places) / count));
}

/** The numbers below `count` that are not in `seen`: pieces that were sent and never came. */
export function missing(/** @type {Set<number>} */ seen, /** @type {number} */ count) {
  return Array.from({ length: count }, (_, k) => k).filter((k) => !seen.has(k));
}

/** A number for a reader: three figures, no exponent where it can be avoided. */
export function figures(/** @type {number | null | undefined} */ x) {
  if (x == null) return "\u2013";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 100) return String(Math.round(x));
  return size < 0.0005 ? x.toExponential(0) : String(Number(x.toPrecision(size < 1 ? 2 : 3)));
}

/** A duration for a reader. */
export function duration(/** @type {number | null | undefined} */ seconds) {
  if (seconds == null) return "\u2013";
  if (seconds < 0.9995) return `${figures(seconds * 1000)} ms`;
  if (seconds < 100) return `${seconds.toPrecision(3)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/** The part of the latents' variance that is noise, for noise level sigma = b / a: b^2 / (a^2 + b^2). */
export const noiseShare = (/** @type {number | null} */ sigma) => (sigma == null ? 1 : (sigma * sigma) / (1 + sigma * sigma));

/** What a screen reader says of the scrubber. */
export function spoken(/** @type {number} */ at, /** @type {number} */ places, /** @type {(number | null)[] | undefined} */ step) {
  const place = `step ${at + 1} of ${places}`;
  return step ? `${place}, timestep ${figures(step[0])}, sigma ${figures(step[1])}` : place;
}

/** How a run stands, in a few words. */
export function standing(/** @type {Film} */ film) {
  const n = film.steps.length;
  // Some samplers ask the model twice per step (Heun) or once more at the start (PLMS); then the places are not the steps asked for.
  const word = film.expected === film.about.steps ? "step" : "evaluation";
  const one = `${n} ${word}${n === 1 ? "" : "s"}`;
  if (film.status === "running") return n ? `running: ${n} of ${film.expected} ${word}s` : "starting";
  const took = film.seconds ? ` in ${duration(film.seconds)}, ${duration(film.seconds / Math.max(1, n))} each` : "";
  if (film.status === "cancelled") return `stopped after ${one}`;
  return film.status === "failed" ? `failed after ${one}` : one + took;
}

/** The films of a packed document and its bytes (film.py, `pack`); null where the two do not belong together. */
export function unpack(/** @type {any} */ document, /** @type {Uint8Array} */ data) {
  if (!document || document.format !== 1 || document.bytes !== data.byteLength) return null;
  const slot = (/** @type {any} */ one) =>
    Array.isArray(one) ? shot(data.subarray(one[0], one[0] + one[1]), one[2], true) : one;
  return document.films.map((/** @type {any} */ film) => ({
    ...film,
    frames: Object.fromEntries(Object.entries(film.frames).map(([kind, row]) => [kind, /** @type {any[]} */ (row).map(slot)])),
    final: slot(film.final),
    previous: null,
  }));
}

/** @returns {Shot} */
function shot(/** @type {Uint8Array} */ bytes, /** @type {string} */ format, /** @type {boolean} */ exact) {
  return { bytes, format, exact, bitmap: null, asked: false };
}

/** What a film leaves on show when another run begins: its own pictures and, where it has none, those it covered itself. */
function ghostOf(/** @type {Film} */ film) {
  const { previous, frames } = film;
  const count = Math.max(1, lengthOf(film));
  /** @type {Record<string, Slot[]>} */ const rows = {};
  for (const kind of Object.keys({ ...previous?.frames, ...frames }))
    rows[kind] = Array.from({ length: count }, (_, i) => frames[kind]?.[i] ?? previous?.frames[kind]?.[stepAt(i, count, previous.count)] ?? null);
  return { count, frames: rows, final: film.final ?? previous?.final ?? null };
}

// === the session: one per widget, whatever number of views ===

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

    /** @type {[string, Function][]} */ this.wires = [
      ["msg:custom", (/** @type {any} */ content, /** @type {any[]} */ buffers) => this.hear(content, buffers || [])],
      ["change:_film", () => this.adopt()],
      ["change:_frames", () => this.adopt()], // hosts may set the two one after the other
      ["change:view", () => this.look(model.get("view"))],
      ["change:step", () => this.placed()],
      ["change:_notes", () => this.changed()],
      ["change:_error", () => this.changed()],
    ];
    for (const [name, wire] of this.wires) model.on(name, wire);
    this.adopt();
    this.placed();
    this.hello();
  }

  hello() {
    this.model.send({ kind: HELLO, run: this.run, complete: this.complete });
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

  // --- what is shown ---

  get places() {
    return Math.max(0, ...this.films.map(lengthOf));
  }

  get running() {
    return this.films.some((film) => film.status === "running");
  }

  /** The last place that every film has reached. */
  get reached() {
    const places = this.places;
    const ends = this.films.map((film) => (lengthOf(film) < 2 ? places - 1 : Math.floor(((film.steps.length - 1) * (places - 1)) / (lengthOf(film) - 1))));
    return Math.max(0, Math.min(...ends, places - 1));
  }

  /** The place on show: where the person rests, or as near as the run has come. */
  get shown() {
    return this.follow ? this.reached : Math.max(0, Math.min(this.at, this.reached));
  }

  /** The evaluation of a film on show. */
  stepOf(/** @type {Film} */ film, place = this.shown) {
    return Math.min(stepAt(place, this.places, lengthOf(film)), film.steps.length - 1);
  }

  go(/** @type {number} */ place) {
    this.at = Math.max(0, Math.min(place, this.places - 1));
    this.follow = this.at >= this.places - 1;
    this.changed();
  }

  look(/** @type {string} */ kind) {
    if (!kind || kind === this.kind) return;
    this.kind = kind;
    if (this.films.length && !this.complete) this.model.send({ kind: LOOK, view: kind }); // once complete, a film needs nothing from the kernel
    this.changed();
  }

  placed() {
    const step = this.model.get("step");
    if (step === this.opened) return; // some hosts announce what has not changed
    this.opened = step;
    if (Number.isInteger(step)) this.go(step < 0 ? this.places + step : step);
  }

  play(/** @type {boolean} */ on) {
    clearTimeout(this.timer);
    this.playing = on && this.places > 1;
    if (this.playing && this.shown >= this.places - 1) this.go(0);
    const delay = Math.max(40, Math.min(250, 4000 / this.places)); // a run takes about four seconds, whatever its length
    const tick = () => {
      if (this.shown >= this.places - 1 && !this.running) return this.play(false);
      this.go(this.shown + 1);
      this.timer = window.setTimeout(tick, delay);
    };
    if (this.playing) this.timer = window.setTimeout(tick, delay);
    this.changed();
  }

  // --- what comes over the wire ---

  /** Take the complete films out of the traits. */
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
    this.watched(false);
    this.changed();
  }

  /** Begin another run. What was shown stays until the new films cover it. */
  start(/** @type {number} */ run, /** @type {Film[]} */ films) {
    films.forEach((film, k) => (film.previous = this.films[k] ? ghostOf(this.films[k]) : null));
    if (!this.films.length) this.follow = true;
    if (run !== this.run) {
      this.seen = new Set();
      this.asked.clear();
    }
    this.run = run;
    this.films = films;
    this.complete = false;
  }

  hear(/** @type {any} */ content, /** @type {any[]} */ buffers) {
    this.heard = performance.now();
    this.silent = false;
    if (content?.kind === PIECE) this.take(content, buffers);
    if (content?.kind === STATE && (content.run > this.run || (content.run === this.run && !this.complete)))
      this.ask(content.run, missing(content.run > this.run ? new Set() : this.seen, content.pieces));
    this.changed();
  }

  take(/** @type {any} */ content, /** @type {any[]} */ buffers) {
    const { run, piece } = content;
    this.model.send({ kind: ACK, run, piece, view: this.kind });
    if (run < this.run || (run === this.run && this.complete)) return; // late
    if (run > this.run || !this.films.length) {
      const blank = { steps: [], frames: {}, final: null, previous: null };
      this.start(run, content.films.map((/** @type {any} */ film) => ({ ...film, ...blank, steps: [], frames: {} })));
    }
    this.captions = content.captions ?? this.captions;
    this.seen.add(piece);
    content.films.forEach((/** @type {any} */ news, /** @type {number} */ k) => {
      const film = this.films[k];
      // A piece may come late, after newer ones: a status only moves forward, and steps only come to be more.
      if (film.status === "running") Object.assign(film, { ...news, steps: film.steps });
      news.steps.forEach((/** @type {any} */ step, /** @type {number} */ j) => (film.steps[news.first + j] ??= step));
    });
    content.shots.forEach((/** @type {any[]} */ [k, kind, i, format, exact], /** @type {number} */ j) => {
      const film = this.films[k];
      const fresh = shot(bytesOf(buffers[j]).slice(), format, exact); // a copy: the host may reuse its buffer
      if (kind === "final") film.final = fresh;
      else this.put(film, kind, i, fresh);
    });
    for (const [k, kind, i, why] of content.blanks) this.put(this.films[k], kind, i, why);
    this.ask(run, missing(this.seen, piece));
    this.watched(true);
  }

  put(/** @type {Film} */ film, /** @type {string} */ kind, /** @type {number} */ i, /** @type {Slot} */ slot) {
    const row = (film.frames[kind] ??= []);
    const old = row[i];
    if (old && typeof old === "object" && slot && typeof slot === "object" && old.exact && !slot.exact) return;
    row[i] = slot;
  }

  ask(/** @type {number} */ run, /** @type {number[]} */ pieces) {
    const now = performance.now();
    const due = pieces.filter((piece) => now - (this.asked.get(`${run}/${piece}`) ?? -1e9) > 500);
    for (const piece of due) this.asked.set(`${run}/${piece}`, now);
    if (due.length) this.model.send({ kind: AGAIN, run, pieces: due });
  }

  /** Until a run is complete, notice when the kernel falls silent: ask, and say so when no answer comes. */
  watched(/** @type {boolean} */ on) {
    clearInterval(this.watch);
    if (!on) return;
    let asked = 0;
    this.watch = window.setInterval(() => {
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

  // --- pictures ---

  /** A picture ready to draw, or null: then it is being decoded, and the views are told when it is there. */
  bitmap(/** @type {Slot | undefined} */ slot) {
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

  forget(/** @type {Shot} */ slot) {
    if (!slot.bitmap) return;
    this.pixels -= slot.bitmap.width * slot.bitmap.height;
    slot.bitmap.close();
    slot.bitmap = null;
    slot.asked = false;
  }
}

// === the view: one per place the widget is shown ===

/** An element with attributes and children. Text is only ever a text node. */
function h(/** @type {string} */ tag, /** @type {Record<string, string>} */ attributes = {}, /** @type {(Node | string)[]} */ ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Set text only where it differs: a live region repeats what is set, and layout is not free. */
function say(/** @type {Element} */ node, /** @type {string} */ text) {
  if (node.textContent !== text) node.textContent = text;
}

const wordOf = (/** @type {string} */ kind) => WORDS[kind] ?? { word: kind, symbol: "", cells: false };

let serial = 0; // names radio groups and labels apart where several viewers share a page

export class View {
  constructor(/** @type {Session} */ session, /** @type {HTMLElement} */ el, /** @type {AbortSignal} */ signal) {
    this.session = session;
    this.id = `dx${++serial}-${Math.random().toString(36).slice(2, 8)}`;
    this.frame = 0;
    this.drawn = ""; // what the strips show: sizes and places
    /** @type {(ImageBitmap | null)[]} */ this.pictures = []; // and pictures
    this.noted = "";
    /** @type {{figure: HTMLElement, canvas: HTMLCanvasElement, why: HTMLElement, label: HTMLElement, strip: HTMLCanvasElement}[]} */
    this.panels = [];
    const { id } = this;
    const on = (/** @type {EventTarget} */ node, /** @type {string} */ name, /** @type {(event: any) => void} */ f) =>
      node.addEventListener(name, f, { signal });

    // What to look at.
    this.choices = h("fieldset", { class: "dx-views" }, h("legend", { class: "dx-hidden" }, "view"));
    this.radios = new Map();
    for (const kind of Object.keys(WORDS)) {
      const { word, symbol } = wordOf(kind);
      const radio = /** @type {HTMLInputElement} */ (h("input", { type: "radio", name: `${id}-view`, value: kind }));
      const label = h("label", {}, radio, h("span", {}, word), h("i", { "aria-hidden": "true" }, symbol));
      on(radio, "change", () => radio.checked && session.look(kind));
      this.radios.set(kind, { radio, label });
      this.choices.append(label);
    }

    // The pictures, and the finished one beside them.
    this.stage = h("div", { class: "dx-stage" });
    this.result = /** @type {HTMLCanvasElement} */ (h("canvas", { role: "img", "aria-label": "the finished picture" }));
    this.resultWord = h("figcaption", {}, "result");
    this.resultBox = h("figure", { class: "dx-result" }, h("div", { class: "dx-screen" }, this.result), this.resultWord);
    const fact = (/** @type {string} */ name, /** @type {string} */ title) => {
      const value = h("dd");
      return { value, row: h("div", { title }, h("dt", {}, name), value) };
    };
    this.facts = {
      timestep: fact("timestep", "what the network is told about how noisy its input is"),
      sigma: fact("sigma", "noise level: noise over picture in x\u209c"),
      time: fact("time", "how long this step took"),
      share: fact("noise", "part of the latents' variance that is noise: \u03c3\u00b2 / (1 + \u03c3\u00b2)"),
    };
    this.bar = h("div", { class: "dx-bar", "aria-hidden": "true" }, h("div"));
    this.facts.share.row.append(this.bar);
    this.count = h("p", { class: "dx-count" });
    this.side = h(
      "div",
      { class: "dx-side" },
      this.resultBox,
      h("div", { class: "dx-facts" }, this.count, h("dl", {}, ...Object.values(this.facts).map(({ row }) => row))),
    );
    this.caption = h("p", { class: "dx-caption" });

    // The timeline.
    this.button = h("button", { type: "button", class: "dx-play" });
    on(this.button, "click", () => session.play(!session.playing));
    this.strips = h("div", { class: "dx-strips", "aria-hidden": "true" });
    this.mark = h("div", { class: "dx-mark" });
    this.strips.append(this.mark);
    this.range = /** @type {HTMLInputElement} */ (h("input", { type: "range", id: `${id}-step`, min: "1", max: "1", step: "1", value: "1" }));
    on(this.range, "input", () => {
      session.play(false);
      session.go(this.range.valueAsNumber - 1);
    });
    on(this.strips, "pointerdown", (/** @type {PointerEvent} */ event) => {
      if (event.button !== 0 || !session.places) return;
      this.strips.setPointerCapture(event.pointerId);
      session.play(false);
      this.pick(event);
      this.range.focus({ preventScroll: true });
      event.preventDefault();
    });
    on(this.strips, "pointermove", (/** @type {PointerEvent} */ event) => {
      if (this.strips.hasPointerCapture(event.pointerId)) this.pick(event);
    });
    this.timeline = h(
      "div",
      { class: "dx-timeline" },
      this.button,
      h("div", { class: "dx-track" }, this.strips, h("label", { class: "dx-hidden", for: `${id}-step` }, "step"), this.range),
    );

    // How things stand.
    this.status = h("p", { class: "dx-status", role: "status" });
    this.about = h("p", { class: "dx-about" });
    this.notes = h("ul", { class: "dx-notes" });
    this.error = h("p", { class: "dx-error", role: "alert" });
    this.empty = h("p", { class: "dx-empty" }, "No run yet.");
    this.body = h("div", { class: "dx-body" }, this.choices, h("div", { class: "dx-main" }, this.stage, this.side), this.caption, this.timeline);
    this.root = h("div", { class: "dx-viewer" }, this.error, this.empty, this.body, h("div", { class: "dx-foot" }, this.status, this.about), this.notes);
    el.append(this.root);

    on(this.root, "keydown", (event) => this.key(event));
    // Around an Explorer's controls too: in JupyterLab a plain `x` on a focused slider deletes the cell. The controls are not ours to
    // build, their common box is found once the view is in the page.
    const seen = new IntersectionObserver(() => {
      const box = this.root.closest(".dx-explorer");
      if (box) on(box, "keydown", quiet);
      if (this.root.isConnected) seen.disconnect();
    });
    seen.observe(this.root);
    signal.addEventListener("abort", () => seen.disconnect());

    // When to draw.
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
      this.root.remove();
    });
    session.views.add(redraw);
    redraw();
  }

  key(/** @type {KeyboardEvent} */ event) {
    quiet(event);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { session } = this;
    const { target } = event;
    const jump = /** @type {Record<string, number>} */ ({ ",": -1, ".": 1 })[event.key];
    if (jump) {
      session.play(false);
      session.go(session.shown + jump);
    } else if (event.key === " " && target === this.range) session.play(!session.playing);
    else return;
    event.preventDefault();
  }

  /** Go to the place under the pointer. */
  pick(/** @type {PointerEvent} */ event) {
    const box = this.strips.getBoundingClientRect();
    this.session.go(Math.floor(((event.clientX - box.left) / box.width) * this.session.places));
  }

  /** Say what went wrong where the pictures should be; an empty cell would say nothing. */
  fail(/** @type {unknown} */ error) {
    console.error(error);
    this.error.hidden = false;
    say(this.error, `The viewer could not draw this: ${error}`);
  }

  // --- drawing ---

  draw() {
    const { session } = this;
    const { films, places, shown, kind } = session;
    const error = session.model.get("_error") || "";
    say(this.error, error);
    this.error.hidden = !error;
    this.note(session.model.get("_notes") || []);
    this.root.dataset.status = films[0]?.status ?? "empty";
    this.empty.hidden = films.length > 0;
    this.body.hidden = !films.length;
    this.root.classList.toggle("dx-many", films.length > 1);
    if (!films.length) {
      say(this.status, "");
      say(this.about, "");
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

    const film = films[0];
    const step = film.steps[session.stepOf(film)];
    say(this.count, "");
    this.count.append("step ", h("b", {}, String(shown + 1)), ` of ${places}`);
    say(this.facts.timestep.value, figures(step?.[0]));
    say(this.facts.sigma.value, figures(step?.[1]));
    say(this.facts.time.value, duration(step?.[2]));
    const share = noiseShare(step?.[1] ?? null);
    say(this.facts.share.value, `${Math.round(100 * share)} %`);
    /** @type {HTMLElement} */ (this.bar.firstChild).style.width = `${100 * share}%`;
    say(this.caption, session.captions[kind] ?? "");

    this.range.max = String(places);
    this.range.valueAsNumber = shown + 1;
    this.range.setAttribute("aria-valuetext", spoken(shown, places, step));
    const cells = placesShown(places, this.strips.clientWidth).length;
    this.mark.style.left = `${(100 * Math.floor((shown * cells) / places)) / cells}%`;
    this.mark.style.width = `${100 / cells}%`;
    this.timeline.style.setProperty("--dx-cell", `${100 / places}%`);
    this.range.style.setProperty("--dx-done", `${places < 2 ? 100 : (100 * shown) / (places - 1)}%`);
    const word = session.playing ? "pause" : "play";
    this.button.setAttribute("aria-label", word);
    this.button.title = word;
    this.button.dataset.icon = word;

    const silence = "The kernel does not answer: it is busy, or it was restarted. If it was, run the cell again.";
    say(this.status, session.silent ? silence : films.map((one) => (one.label ? `${one.label}: ` : "") + standing(one)).join(" \u00b7 "));
    say(this.about, films.length > 1 ? "" : about(film));
  }

  /** One panel and one strip for every film. */
  furnish(/** @type {number} */ count) {
    while (this.panels.length > count) {
      const panel = this.panels.pop();
      panel?.figure.remove();
      panel?.strip.remove();
    }
    while (this.panels.length < count) {
      const canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { role: "img" }));
      const why = h("p", { class: "dx-why" });
      const label = h("figcaption");
      const figure = h("figure", { class: "dx-film" }, h("div", { class: "dx-screen" }, canvas, why), label);
      const strip = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "dx-strip" }));
      this.stage.append(figure);
      this.strips.insertBefore(strip, this.mark);
      this.panels.push({ figure, canvas, why, label, strip });
    }
  }

  drawFilm(/** @type {Film} */ film, /** @type {number} */ k) {
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
    if (bitmap) paint(canvas, bitmap, wordOf(kind).cells);
    else if (typeof slot === "string") paint(canvas, null, true);
    canvas.setAttribute("aria-label", `${wordOf(kind).word} at step ${i + 1} of ${lengthOf(film)}${film.label ? `, ${film.label}` : ""}`);
    const alike = session.films.every((one) => lengthOf(one) === lengthOf(film));
    say(label, alike ? film.label : `${film.label}: step ${i + 1} of ${lengthOf(film)}`);
    label.hidden = !film.label;
    // The neighbours are decoded ahead, so that scrubbing and playing find them ready.
    for (const next of [i + 1, i - 1, i + 2]) session.bitmap(film.frames[kind]?.[next]);
  }

  drawResult(/** @type {Film} */ film) {
    const old = film.final ? null : film.previous?.final;
    const bitmap = this.session.bitmap(film.final ?? old);
    this.resultBox.style.setProperty("--dx-shape", String(film.size[0] / film.size[1]));
    this.resultBox.classList.toggle("dx-stale", Boolean(old));
    if (bitmap) paint(this.result, bitmap, false);
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
    // Scrubbing moves the mark and nothing else: the strips are drawn when a picture in them is new.
    const slots = films.map((film) =>
      shown.map((place) => {
        const i = stepAt(place, places, lengthOf(film));
        const now = film.frames[kind]?.[i];
        const old = now ? null : film.previous?.frames[kind]?.[stepAt(place, places, film.previous.count)];
        return { bitmap: session.bitmap(now ?? old), old: !now };
      }),
    );
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
      const context = /** @type {CanvasRenderingContext2D} */ (strip.getContext("2d"));
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

  note(/** @type {string[]} */ notes) {
    this.notes.hidden = !notes.length;
    if (notes.join("\n") === this.noted) return;
    this.noted = notes.join("\n");
    this.notes.replaceChildren(...notes.map((note) => h("li", {}, note)));
  }
}

/** Keep plain keys from the notebook, whose commands they are; leave combinations such as Ctrl-S alone. */
function quiet(/** @type {KeyboardEvent} */ event) {
  if (!(event.ctrlKey || event.metaKey || event.altKey)) event.stopPropagation();
}

/** The settings of a film on one line. */
function about(/** @type {Film} */ film) {
  const { prompt, "negative prompt": negative, sampler, model, ...numbers } = film.about;
  const parts = [prompt ? `\u201c${prompt}\u201d` : "no prompt"];
  if (negative) parts.push(`without \u201c${negative}\u201d`);
  for (const [name, value] of Object.entries(numbers)) parts.push(name === "steps" ? `${value} steps` : `${name} ${value}`);
  return parts.concat(sampler ? [String(sampler)] : [], model ? [String(model)] : []).join(" \u00b7 ");
}

/** Draw a picture over the whole canvas at the screen's own resolution; null clears it. */
function paint(/** @type {HTMLCanvasElement} */ canvas, /** @type {ImageBitmap | null} */ bitmap, /** @type {boolean} */ cells) {
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  if (!bitmap) return context.clearRect(0, 0, width, height);
  context.imageSmoothingEnabled = !cells || bitmap.width > width;
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, width, height);
}

// === anywidget ===

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
        // Without this a fault leaves an empty cell, and only the console knows.
        el.replaceChildren(h("div", { class: "dx-viewer" }, h("p", { class: "dx-error", role: "alert" }, `The viewer could not start: ${error}`)));
        console.error(error);
      }
      return () => life.abort();
    },
  };
};

export default viewer;
