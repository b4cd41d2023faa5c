// What a page adds to the controls of ipywidgets around a viewer: names for a screen reader, and popovers that open with no kernel.
import { panel } from "../panel.js";

/**
 * The name of a control: its label, else its title; in a column with that of the column.
 * @param {HTMLElement} control
 */
function nameOf(control) {
	const widget = control.closest(".jupyter-widgets");
	const label = widget?.querySelector(".widget-label")?.textContent || control.title || /** @type {HTMLElement | null} */ (widget)?.title || "";
	const column = control.closest(".dx-column");
	const title = /** @type {HTMLInputElement | null} */ (column?.querySelector(".dx-title input"));
	return title && title !== control && label ? `${label} of ${title.value}` : label;
}

/** @param {HTMLElement} app */
function name(app) {
	for (const one of /** @type {NodeListOf<HTMLElement>} */ (app.querySelectorAll(".dx-row :is(.noUi-handle, input:not([type=checkbox]), textarea, select:not(.dx-menu-select), button)"))) {
		if (one.matches("button") && one.textContent?.trim().length !== 0 && !one.closest(".dx-icon")) continue; // named by its word
		const found = nameOf(one);
		if (found && one.ariaLabel !== found) one.ariaLabel = found;
	}
	for (const chip of app.querySelectorAll(".dx-chip")) {
		const face = chip.querySelector("button");
		if (face && face.ariaExpanded === null) face.ariaExpanded = "false";
	}
}

/**
 * @param {Element} chip
 * @param {boolean} on
 */
function turn(chip, on) {
	const face = chip.querySelector("button");
	if (!face || chip.classList.contains("dx-open") === on) return;
	chip.classList.toggle("dx-open", on);
	face.ariaExpanded = String(on);
	if (!on) return;
	// Where it would stand out at the right, it hangs from its right end.
	const pop = /** @type {HTMLElement} */ (chip.querySelector(".dx-pop"));
	chip.classList.remove("dx-flip");
	const app = /** @type {HTMLElement} */ (chip.closest(".dx-app"));
	chip.classList.toggle("dx-flip", pop.getBoundingClientRect().right > app.getBoundingClientRect().right);
	/** @type {HTMLElement | null} */ (pop.querySelector(".noUi-handle, input, textarea, select"))?.focus();
}

panel("controls", (view) => {
	/** @type {HTMLElement | null} */ let app = null;
	const closeAll = (/** @type {EventTarget | null} */ but) => {
		for (const chip of app?.querySelectorAll(".dx-chip.dx-open") ?? []) if (!chip.contains(/** @type {Node | null} */ (but))) turn(chip, false);
	};
	const enter = (/** @type {HTMLElement} */ found) => {
		app = found;
		view.on(app, "click", ({ target }) => {
			const face = /** @type {Element} */ (target).closest(".dx-face");
			if (face?.parentElement) turn(face.parentElement, !face.parentElement.classList.contains("dx-open"));
		});
		app.addEventListener(
			"keydown",
			(event) => {
				const chip = event.key === "Escape" && /** @type {Element} */ (event.target).closest(".dx-chip.dx-open");
				if (!chip) return;
				turn(chip, false);
				chip.querySelector("button")?.focus();
				event.preventDefault();
				event.stopPropagation();
			},
			{ capture: true, signal: view.signal },
		);
		document.addEventListener("pointerdown", ({ target }) => closeAll(target), { signal: view.signal });
		view.on(app, "focusin", ({ target }) => closeAll(target));
		// Controls come when ipywidgets has made them, and others when there are other columns.
		let due = 0;
		const again = () => {
			due ||= requestAnimationFrame(() => {
				due = 0;
				for (const row of found.querySelectorAll(".dx-row")) rows.observe(row, { childList: true, subtree: true, attributeFilter: ["title", "disabled"] });
				name(found);
			});
		};
		const rows = new MutationObserver(again);
		rows.observe(app, { childList: true });
		view.on(app, "change", again); // a column was renamed
		view.signal.addEventListener("abort", () => {
			rows.disconnect();
			cancelAnimationFrame(due);
		});
		again();
	};
	return {
		nodes: {},
		draw() {
			if (app?.isConnected) return;
			const found = /** @type {HTMLElement | null} */ (view.root.closest(".dx-app"));
			if (found && found !== app) enter(found);
		},
	};
});
