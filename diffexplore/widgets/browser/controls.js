// What a page adds to controls of ipywidgets: a menu with groups and sentences, names for a screen reader, popovers that open with no
// kernel. Joined apart from the viewer: an exported page has no controls. controls.py is its kernel's side.
import { h, quiet, say } from "./dom.js";

const UNNAMED = ".dx-row :is(.noUi-handle, input:not([type=checkbox]), textarea, select:not(.dx-menu-select), .dx-icon)";

/**
 * The name of a control: its label, else its title; in a column with that of the column.
 * @param {HTMLElement} control
 */
function nameOf(control) {
	const widget = /** @type {HTMLElement | null} */ (control.closest(".jupyter-widgets"));
	const label = widget?.querySelector(".widget-label")?.textContent || control.title || widget?.title || "";
	const title = /** @type {HTMLInputElement | null | undefined} */ (control.closest(".dx-column")?.querySelector(".dx-title input"));
	if (!title || title === control || !label) return label;
	// A column that is called by what it has would be called otherwise at each move.
	return `${label} of ${title.value.startsWith(`${label} `) ? title.title || "its column" : title.value}`;
}

/**
 * Step a number up or down, as its slider does.
 * @param {Element} number
 * @param {number} by
 */
function nudge(number, by) {
	const field = /** @type {HTMLInputElement | null} */ (number.querySelector("input[type=text]"));
	const { step = 1, range = {} } = /** @type {any} */ (number.querySelector(".noUi-target"))?.noUiSlider?.options ?? {};
	const to = Number(field?.value) + by * step;
	if (!field || field.disabled || !Number.isFinite(to)) return;
	field.value = String(Number(Math.max(range.min ?? -Infinity, Math.min(range.max ?? Infinity, to)).toFixed(10)));
	field.dispatchEvent(new Event("change", { bubbles: true })); // as where it was typed
}

/**
 * Where a column is narrow, buttons stand in place of its slider.
 * @param {Element} number
 */
function steppers(number) {
	for (const by of [-1, 1]) {
		// At the end, since ipywidgets counts its children; with keys, the arrows in the field do the same.
		const button = h("button", { type: "button", class: "dx-by", tabindex: "-1" }, by < 0 ? "−" : "+");
		button.addEventListener("click", () => nudge(number, by));
		number.append(button);
	}
}

/** @param {HTMLElement} app */
function name(app) {
	for (const one of /** @type {NodeListOf<HTMLElement>} */ (app.querySelectorAll(UNNAMED))) {
		const found = nameOf(one);
		if (found && one.ariaLabel !== found) one.ariaLabel = found;
	}
	for (const face of app.querySelectorAll(".dx-face")) face.ariaExpanded ??= "false";
	for (const number of app.querySelectorAll(".dx-column .dx-number")) {
		if (!number.querySelector(".dx-by")) steppers(number);
		const [less, more] = /** @type {NodeListOf<HTMLElement>} */ (number.querySelectorAll(".dx-by"));
		const called = /** @type {HTMLElement | null} */ (number.querySelector("input[type=text]"))?.ariaLabel ?? "";
		[less.ariaLabel, more.ariaLabel] = [`less ${called}`, `more ${called}`];
	}
}

/**
 * Open or close a popover; open, it has the focus.
 * @param {Element} chip
 * @param {boolean} on
 */
function turn(chip, on) {
	const face = chip.querySelector("button");
	const pop = /** @type {HTMLElement | null} */ (chip.querySelector(".dx-pop"));
	if (!face || !pop) return;
	chip.classList.toggle("dx-open", on);
	face.ariaExpanded = String(on);
	if (!on) return;
	chip.classList.remove("dx-flip");
	const right = chip.closest(".dx-app")?.getBoundingClientRect().right ?? Infinity;
	chip.classList.toggle("dx-flip", pop.getBoundingClientRect().right > right); // it would stand out
	pop.tabIndex = -1; // a press beside its controls does not leave it
	(/** @type {HTMLElement | null} */ (pop.querySelector(".noUi-handle, input, textarea, select")) ?? pop).focus();
}

/**
 * Once for a box of controls, whichever of its parts comes first.
 * @param {HTMLElement} app
 */
function enter(app) {
	if (app.dataset.dxControls) return;
	app.dataset.dxControls = "on";
	app.addEventListener("click", ({ target }) => {
		const chip = /** @type {Element} */ (target).closest(".dx-face")?.parentElement;
		if (chip) turn(chip, !chip.classList.contains("dx-open"));
	});
	app.addEventListener("focusout", ({ target, relatedTarget }) => {
		const chip = /** @type {Element} */ (target).closest(".dx-chip.dx-open");
		if (chip && document.hasFocus() && !chip.contains(/** @type {Node | null} */ (relatedTarget))) turn(chip, false);
	});
	app.addEventListener(
		"keydown",
		(event) => {
			const by = { ArrowUp: 1, ArrowDown: -1 }[event.key];
			const number = by && /** @type {Element} */ (event.target).matches("input[type=text]") && /** @type {Element} */ (event.target).closest(".dx-number");
			if (number) {
				nudge(number, by);
				event.preventDefault();
				return;
			}
			const chip = event.key === "Escape" && /** @type {Element} */ (event.target).closest(".dx-chip.dx-open");
			if (!chip) return;
			chip.querySelector("button")?.focus();
			turn(chip, false);
			event.preventDefault();
			event.stopPropagation();
		},
		true,
	);
	// Controls come when ipywidgets has made them, and others when there are other columns.
	let due = 0;
	const again = () => {
		due ||= requestAnimationFrame(() => {
			due = 0;
			for (const row of app.querySelectorAll(".dx-row")) rows.observe(row, { childList: true, subtree: true, attributeFilter: ["title"] });
			name(app);
		});
	};
	const rows = new MutationObserver(again);
	rows.observe(app, { childList: true });
	app.addEventListener("change", again); // a column was renamed
	again();
}

/**
 * Make the controls around a part at home; the box is found once the part is in the page.
 * @param {HTMLElement} el
 */
export function atHome(el) {
	const seen = new IntersectionObserver(() => {
		const app = /** @type {HTMLElement | null} */ (el.closest(".dx-app"));
		if (app) enter(app);
		if (el.isConnected) seen.disconnect();
	});
	seen.observe(el);
	return seen;
}

/** @param {{model: Model & {set(name: string, value: unknown): void, save_changes(): void}, el: HTMLElement}} host */
const render = ({ model, el }) => {
	const life = new AbortController();
	const { signal } = life;
	const label = model.get("description");
	const menu = h("select.dx-menu-select", { "aria-label": label });
	const told = h("span.dx-menu-told", { role: "status" });
	el.append(menu, told);
	const show = () => {
		const value = model.get("value");
		for (const option of menu.options) option.selected = option.value === value;
		say(told, menu.selectedOptions[0]?.title ?? "");
		menu.title = `${label}: ${told.textContent}`;
	};
	const furnish = () => {
		/** @type {[string, [string, string, string][]][]} */ const groups = model.get("groups");
		menu.replaceChildren(...groups.map(([title, entries]) => h("optgroup", { label: title }, ...entries.map(([value, sentence, label]) => h("option", { value, title: sentence }, label)))));
		show();
	};
	const take = () => {
		model.set("value", menu.value);
		model.save_changes();
		show();
	};
	menu.addEventListener("change", take, { signal });
	menu.addEventListener("keydown", quiet, { signal });
	model.on("change:value", show);
	model.on("change:groups", furnish);
	furnish();
	const seen = atHome(el);
	return () => {
		life.abort();
		seen.disconnect();
		model.off("change:value", show);
		model.off("change:groups", furnish);
	};
};

export default { render };
