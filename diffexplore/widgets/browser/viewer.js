// The browser's half of the wire in viewer.py: a session for each widget, a view for each place it is shown.
import { Around } from "./around.js";
import { PANELS } from "./panel.js";
import { box, combined, h, say } from "./dom.js";
import { WORDS } from "./films.js";
import { keepState, standIn } from "./keep.js";
import { seatsOf } from "./seats.js";
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
		this.dismissed = ""; // an error that was read and put away
		this.enlarged = -1; // which picture covers the others
		this.tab = ""; // the tab that was chosen
		/** @type {Seat[]} */ this.seats = [];

		this.error = h("p.dx-error", { role: "alert" });
		const away = this.tool("×", "put this away", () => this.dismiss(), { "aria-label": "put this away" });
		this.fault = box("dx-fault", this.error, away);
		/**
		 * Where panels go. `tab` is the pane of a panel that declares a tab.
		 * @type {Record<string, HTMLElement>}
		 */
		this.places = {
			words: box("dx-head"), // the prompt, and what there is to say of it
			tools: box("dx-tools"),
			stage: box("dx-main"), // the pictures
			views: box("dx-side"), // what of them is looked at
			modes: box("dx-modes"), // how several stand to each other
			bar: box("dx-bar"), // the tabs,
			panes: box("dx-panes"), // and what is on them
			left: box("dx-left"), // beside the timeline
			strips: box("dx-film-strips"),
			lane: box("dx-lane"), // flags under the strips
			scrub: box("dx-scrub"),
			tip: box("dx-tips"),
			foot: box("dx-foot"), // what it took, and whether it is what was asked for
			text: box("dx-text"), // sentences
			menu: box("dx-menu"), // behind the button "more"
			unseen: box("dx-unseen"),
		};
		const { words, tools, stage, views, modes, bar, panes, left, strips, lane, scrub, tip, foot, text, unseen } = this.places;
		this.track = box("dx-track", strips, lane, scrub, tip);
		this.timeline = box("dx-timeline", left, this.track);
		// In the order of worth: the scrubber comes before what is on the tabs.
		this.body = box("dx-body", unseen, words, tools, stage, views, modes, this.timeline, bar, panes, foot, text, this.fault);
		this.root = h("div.dx-viewer", { tabindex: "-1" }, this.body); // a click anywhere in it brings its keys

		/** @type {Map<string, Panel>} */ this.panels = new Map();
		/** @type {Map<string, HTMLElement>} */ this.panes = new Map(); // of the panels that have a tab
		for (const [name, mount] of PANELS) {
			const made = mount(this);
			this.panels.set(name, made);
			for (const [place, nodes] of Object.entries(made.nodes)) this.placeOf(name, place, made.tab).append(...nodes);
		}
		el.append(this.root);

		this.around = new Around(this);
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
		this.redraw = redraw;
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
	 * A place of the page; "tab": the pane of the panel.
	 * @param {string} panel
	 * @param {string} place
	 * @param {Tab | undefined} tab
	 */
	placeOf(panel, place, tab) {
		if (place === "tab" && tab) {
			let pane = this.panes.get(panel);
			if (!pane) {
				pane = h(`div.dx-pane`, { role: "tabpanel", id: `${this.id}-${panel}`, "aria-label": tab.word, tabindex: "0", hidden: "" });
				this.panes.set(panel, pane);
				this.places.panes.append(pane);
			}
			return pane;
		}
		if (!this.places[place]) throw new Error(`panel "${panel}" goes to "${place}"; there are ${Object.keys(this.places).join(", ")}, and tab`);
		return this.places[place];
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
	 * @param {string | Node} word
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

	/** Whether several runs stand side by side, or are going to. */
	get many() {
		return this.seats.length > 1;
	}

	/**
	 * Change what only this view knows.
	 * @param {Partial<View>} change
	 */
	set(change) {
		Object.assign(this, change);
		this.redraw();
	}

	/** Put an error away until there is another. */
	dismiss() {
		this.set({ dismissed: this.error.textContent ?? "" });
	}

	/**
	 * A key that was pressed in the viewer, or beside it where nothing takes it.
	 * @param {KeyboardEvent} event
	 */
	key(event) {
		if (combined(event) || event.defaultPrevented) return;
		const { session } = this;
		const { key } = event;
		const target = /** @type {HTMLElement} */ (event.target);
		const own = target.matches("input, select, textarea, button, [role=slider], [role=tab], [contenteditable=true]"); // it has keys of its own
		/** @type {Record<string, [number, number]>} */ const arrows = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
		const arrow = arrows[key];
		const kind = Object.keys(WORDS)[Number(key) - 1];
		if (event.shiftKey && arrow && session.zoom.scale > 1) session.set({ zoom: panned(session.zoom, arrow[0] / 8, arrow[1] / 8) });
		else if (key === "," || key === ".") session.move(session.shown + (key === "," ? -1 : 1));
		else if (key === " " && (target === this.range || !own)) session.play(!session.playing);
		else if (arrow && arrow[0] && !own) session.move(session.shown - arrow[0]);
		else if ((key === "Home" || key === "End") && !own) session.move(key === "Home" ? 0 : session.places - 1);
		else if (kind) session.look(kind);
		else if (key === "[" || key === "]") session.faster(key === "[" ? -1 : 1);
		else if (key === "+" || key === "=") this.magnify(2);
		else if (key === "-") this.magnify(0.5);
		else if (key === "0") this.magnify(0);
		else if (key === "e") this.set({ enlarged: this.enlarged < 0 ? 0 : -1 });
		else if (key === "f") this.around.project();
		else if (key === "l") this.around.toggleLive();
		else if (key === "Escape") this.escape();
		else return;
		event.preventDefault();
	}

	/** Leave what was opened last. */
	escape() {
		if (this.enlarged >= 0) this.set({ enlarged: -1 });
		else if (this.many && this.tab) this.set({ tab: "" });
		else if (!this.fault.hidden) this.dismiss();
		else if (this.around.projecting) this.around.project();
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
		this.fault.hidden = false;
		say(this.error, `The viewer could not draw this: ${error}`);
	}

	draw() {
		const { session } = this;
		const { films } = session;
		this.gone = session.severed && Boolean(this.root.closest(".jupyter-widgets-disconnected"));
		const error = this.gone ? GONE : session.model.get("_error") || "";
		if (error !== this.dismissed) this.dismissed = "";
		say(this.error, error);
		this.fault.hidden = !error || error === this.dismissed;
		this.root.dataset.status = films[0]?.status ?? "empty";
		this.seats = seatsOf(films, session.model.get("_outlook") ?? {});
		this.root.classList.toggle("dx-many", this.many);
		this.root.style.setProperty("--dx-count", String(this.seats.length));
		this.root.dataset.count = String(this.seats.length);
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
			keepState(model);
			return () => session?.close();
		},
		/** @param {{model: Model, el: HTMLElement, signal?: AbortSignal}} host */
		render({ model, el }) {
			const life = new AbortController();
			standIn(el, life.signal);
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
