// What is around a viewer: the controls it stands with, the keys for both, the whole screen.
import { combined, quiet } from "./dom.js";

const TYPED = "input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable=true]";

export class Around {
	/** @param {View} view */
	constructor(view) {
		this.view = view;
		/** @type {HTMLElement} */ this.app = view.root;
		this.projecting = false;
		view.on(view.root, "keydown", (event) => {
			quiet(event);
			view.key(event);
		});
		// The box of the controls is found once the viewer is in the page.
		const seen = new IntersectionObserver(() => {
			if (!view.root.isConnected) return;
			seen.disconnect();
			const app = /** @type {HTMLElement | null} */ (view.root.closest(".dx-app, .dx-explorer"));
			if (app) this.enter(app);
		});
		seen.observe(view.root);
		view.signal.addEventListener("abort", () => {
			seen.disconnect();
			this.hands?.disconnect();
		});
		document.addEventListener("fullscreenchange", () => this.cover(document.fullscreenElement === this.app), { signal: view.signal });
	}

	/** @param {HTMLElement} app */
	enter(app) {
		const { view } = this;
		this.app = app;
		view.on(app, "keydown", (event) => {
			if (event.defaultPrevented || view.root.contains(/** @type {Node} */ (event.target))) return;
			quiet(event);
			const target = /** @type {HTMLElement} */ (event.target);
			if (!target.matches(TYPED)) view.key(event);
		});
		// First of all that hear of it: fields keep their keys to themselves.
		app.addEventListener("keydown", (event) => this.combination(event), { capture: true, signal: view.signal });
		for (const name of /** @type {const} */ (["input", "change"])) view.on(app, name, (event) => this.touched(event.target));
		// Sliders of ipywidgets are no inputs: what tells of a hand is that their value moves while it holds them.
		let held = false;
		view.on(app, "pointerdown", (event) => void (held = Boolean(/** @type {Element} */ (event.target).closest(".noUi-target"))));
		for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) window.addEventListener(name, () => void (held = false), { signal: view.signal });
		this.hands = new MutationObserver((records) => {
			const moved = records.find(({ target }) => held || target === document.activeElement);
			if (moved) this.touched(moved.target);
		});
		this.hands.observe(app, { attributeFilter: ["aria-valuenow"], subtree: true });
		view.on(app, "click", (event) => {
			const button = /** @type {Element} */ (event.target).closest("button");
			if (button && !view.root.contains(button)) view.session.doubt.ask();
		});
	}

	/**
	 * Keys with Ctrl, which fields would not let pass: Enter runs, S is the notebook's.
	 * @param {KeyboardEvent} event
	 */
	combination(event) {
		if (!combined(event) || event.altKey) return;
		if (event.key === "Enter") {
			const run = /** @type {HTMLButtonElement | null} */ (this.app.querySelector("button.dx-run, .dx-run button"));
			if (!run) return;
			// A field says what was typed when it is left.
			const field = /** @type {HTMLElement | null} */ (document.activeElement);
			if (field && this.app.contains(field) && field.matches(TYPED)) field.dispatchEvent(new Event("change", { bubbles: true }));
			run.click();
			event.preventDefault();
			event.stopPropagation();
		} else if (event.key === "s" && !event.shiftKey && !this.view.root.contains(/** @type {Node} */ (event.target))) {
			event.preventDefault();
			event.stopPropagation();
			this.app.parentElement?.dispatchEvent(new KeyboardEvent("keydown", event));
		}
	}

	/**
	 * A hand was on the controls: until the kernel says otherwise, the picture is not theirs.
	 * @param {EventTarget | null} target
	 */
	touched(target) {
		const node = /** @type {Element} */ (target);
		if (this.view.root.contains(node) || node.closest(".dx-live, .dx-eye")) return;
		this.last(node);
		this.view.session.doubt.touch(!this.live);
		this.view.session.doubt.ask();
	}

	/**
	 * Mark the control that was used last: on the whole screen it is the one that stays.
	 * @param {Element} node
	 */
	last(node) {
		const one = node.closest(".dx-row > *, .dx-controls > *");
		if (!one || one.classList.contains("dx-last")) return;
		for (const other of this.app.querySelectorAll(".dx-last")) other.classList.remove("dx-last");
		one.classList.add("dx-last");
	}

	/** Whether every change of a setting runs. */
	get live() {
		return Boolean(/** @type {HTMLInputElement | null} */ (this.app.querySelector(".dx-live input"))?.checked);
	}

	toggleLive() {
		/** @type {HTMLElement | null} */ (this.app.querySelector(".dx-live input"))?.click();
	}

	/** Onto the whole screen and back; where a browser does not allow it, over the whole page. */
	project() {
		if (document.fullscreenElement) void document.exitFullscreen();
		else if (this.projecting) this.cover(false);
		else {
			this.cover(true);
			this.app.requestFullscreen?.().catch(() => {});
		}
	}

	/** @param {boolean} on */
	cover(on) {
		this.projecting = on;
		const numbers = this.app.querySelectorAll(".dx-row > .dx-number");
		if (on && numbers.length && !this.app.querySelector(".dx-last")) this.last(numbers[numbers.length - 1]);
		this.app.classList.toggle("dx-projector", on);
		this.view.root.classList.toggle("dx-projected", on);
		const { activeElement } = document;
		if (!activeElement?.checkVisibility() || activeElement === document.body) this.view.root.focus({ preventScroll: true });
		this.view.redraw();
	}
}
