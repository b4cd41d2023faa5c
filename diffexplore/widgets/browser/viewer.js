// The browser's half of the wire in viewer.py: a session for each widget, a view for each place it is shown.
import { PANELS } from "./panel.js";
import { box, fill, h, quiet, say } from "./dom.js";
import { Session } from "./session.js";
import { panned, zoomed } from "./timeline.js";
import "./panels/index.js";

const GONE = "The kernel was restarted or has ended. What is here can still be looked at and exported. To go on, run the cell again.";

let serial = 0; // keeps the radio groups and labels of several viewers apart

export class View {
	/**
	 * @param {Session} session
	 * @param {HTMLElement} el
	 * @param {AbortSignal} signal
	 */
	constructor(session, el, signal) {
		this.session = session;
		this.signal = signal;
		this.id = `dx${++serial}-${Math.random().toString(36).slice(2, 8)}`;
		this.frame = 0;
		this.gone = false; // the kernel
		/** @type {HTMLElement[]} */ this.figures = []; // of each film, made by the stage

		this.error = h("p.dx-error", { role: "alert" });
		this.empty = h("p.dx-empty", {}, "No run yet.");
		this.notes = h("ul.dx-notes");
		const at = () => box("dx-at"); // a place that is no box of its own
		/**
		 * Where panels go.
		 * @type {Record<string, HTMLElement>}
		 */
		this.places = {
			head: box("dx-head"),
			main: at(),
			side: at(),
			facts: box("dx-facts"),
			text: at(),
			timeline: at(),
			strips: at(),
			scrub: box("dx-scrub"),
			tip: at(),
			tune: box("dx-tune"),
			below: at(),
			foot: box("dx-foot"),
			more: box("dx-more"),
			unseen: at(),
		};
		const { head, main, side, facts, text, timeline, strips, scrub, tip, tune, below, foot, more, unseen } = this.places;
		this.track = box("dx-track", strips, scrub, tip);
		this.timeline = box("dx-timeline", timeline, this.track);
		this.body = box("dx-body", head, box("dx-main", main, box("dx-side", side, facts)), text, this.timeline, tune);
		this.root = box("dx-viewer", this.error, this.empty, this.body, below, foot, unseen, this.notes, more);

		/** @type {Map<string, Panel>} */ this.panels = new Map();
		for (const [name, mount] of PANELS) {
			const made = mount(this);
			this.panels.set(name, made);
			for (const [place, nodes] of Object.entries(made.nodes)) {
				if (!this.places[place]) throw new Error(`panel "${name}" goes to "${place}"; there are ${Object.keys(this.places).join(", ")}`);
				this.places[place].append(...nodes);
			}
		}
		el.append(this.root);

		this.on(this.root, "keydown", (event) => this.key(event));
		// Around the controls too; their box is found once this is in the page.
		const seen = new IntersectionObserver(() => {
			const around = /** @type {HTMLElement | null} */ (this.root.closest(".dx-explorer"));
			if (around) this.on(around, "keydown", quiet);
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
			this.root.remove();
		});
		session.views.add(redraw);
		redraw();
	}

	/**
	 * Listen for as long as the view is there.
	 * @template {keyof HTMLElementEventMap} E
	 * @param {HTMLElement} node
	 * @param {E} name
	 * @param {(event: HTMLElementEventMap[E]) => void} f
	 */
	on(node, name, f) {
		node.addEventListener(name, f, { signal: this.signal });
	}

	/**
	 * A button of the tools.
	 * @param {string} word
	 * @param {string} title
	 * @param {() => void} act
	 * @param {Record<string, string>} more
	 */
	tool(word, title, act, more = {}) {
		const button = h("button", { type: "button", class: "dx-tool", title, ...more }, word);
		this.on(button, "click", act);
		return button;
	}

	/**
	 * A menu of the tools.
	 * @param {string} name
	 * @param {HTMLOptionElement[]} options
	 * @param {(value: string) => void} act
	 */
	menu(name, options, act) {
		const menu = h("select.dx-tool", { "aria-label": name, title: name }, ...options);
		this.on(menu, "change", () => act(menu.value));
		return menu;
	}

	/** The scrubber, made by its panel. */
	get range() {
		return /** @type {HTMLInputElement} */ (this.places.scrub.querySelector("input"));
	}

	/** @param {KeyboardEvent} event */
	key(event) {
		quiet(event);
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		const { session } = this;
		const { key, target } = event;
		/** @type {Record<string, [number, number]>} */ const arrows = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
		const arrow = arrows[key];
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

	/**
	 * Zoom every picture, at the pointer where there is one.
	 * @param {number} factor
	 * @param {MouseEvent | null} event
	 */
	magnify(factor, event = null) {
		const screen = /** @type {Element | null} */ (event && event.target)?.closest(".dx-screen")?.getBoundingClientRect();
		const at = screen && event ? [(event.clientX - screen.left) / screen.width, (event.clientY - screen.top) / screen.height] : [];
		this.session.set({ zoom: zoomed(this.session.zoom, factor, ...at) });
	}

	/** @param {MouseEvent} event */
	placeUnder(event) {
		const { left, width } = this.track.getBoundingClientRect();
		const { places } = this.session;
		return Math.max(0, Math.min(Math.floor(((event.clientX - left) / width) * places), places - 1));
	}

	/**
	 * Say what went wrong: an empty cell would say nothing.
	 * @param {unknown} error
	 */
	fail(error) {
		console.error(error);
		this.error.hidden = false;
		say(this.error, `The viewer could not draw this: ${error}`);
	}

	draw() {
		const { session } = this;
		const { films } = session;
		this.gone = session.severed && Boolean(this.root.closest(".jupyter-widgets-disconnected"));
		const error = this.gone ? GONE : session.model.get("_error") || "";
		say(this.error, error);
		this.error.hidden = !error;
		fill(this.notes, session.model.get("_notes") || [], (/** @type {string} */ note) => h("li", {}, note));
		this.root.dataset.status = films[0]?.status ?? "empty";
		this.empty.hidden = films.length > 0;
		for (const part of [this.body, this.places.below, this.places.more]) part.hidden = !films.length;
		this.root.classList.toggle("dx-many", films.length > 1);
		if (!films.length) return;
		for (const one of this.panels.values()) one.paint?.();
		// From here on nothing asks for sizes: each answer would cost a layout.
		for (const one of this.panels.values()) one.draw?.();
	}
}

export const viewer = () => {
	/** @type {Session | null} */
	let session = null;
	return {
		/** @param {{model: Model, signal?: AbortSignal}} host */
		initialize({ model }) {
			session = new Session(model);
			return () => session?.close();
		},
		/** @param {{model: Model, el: HTMLElement, signal?: AbortSignal}} host */
		render({ model, el }) {
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
