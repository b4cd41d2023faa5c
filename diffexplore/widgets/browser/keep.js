// What a notebook keeps of a widget: its state, and beside it a picture (handin.py) that steps aside where the widget lives.

const AREAS = ".jp-OutputArea, .output_wrapper, .cell_container, #output-body";
const MIME = "application/vnd.jupyter.widget-state+json";
const KEPT = Symbol.for("diffexplore.kept");

/**
 * Let the picture step aside for as long as a view is there.
 * @param {HTMLElement} el
 * @param {AbortSignal} signal
 */
export function standIn(el, signal) {
	const seen = new IntersectionObserver(() => {
		const area = el.closest(AREAS);
		if (!area) return;
		seen.disconnect();
		area.classList.add("dx-alive");
		signal.addEventListener("abort", () => queueMicrotask(() => area.classList.toggle("dx-alive", Boolean(area.querySelector(".dx-viewer")))));
	});
	seen.observe(el);
	signal.addEventListener("abort", () => seen.disconnect());
}

/**
 * The widgets of a notebook that belong to a viewer, by their id: it, what is around it, and what is in that.
 * @param {Record<string, SavedWidget>} all
 */
export function ours(all) {
	const links = new Map(Object.entries(all).map(([id, one]) => [id, [...JSON.stringify(one.state).matchAll(/"IPY_MODEL_([^"]+)"/g)].map((found) => found[1])]));
	const found = new Set(Object.keys(all).filter((id) => String(all[id].state._anywidget_id ?? "").startsWith("diffexplore.")));
	for (let before = -1; before < found.size; ) {
		before = found.size;
		for (const [id, parts] of links) if (parts.some((part) => found.has(part))) found.add(id);
	}
	for (let before = -1; before < found.size; ) {
		before = found.size;
		for (const id of [...found]) for (const part of links.get(id) ?? []) if (part in all) found.add(part);
	}
	return Object.fromEntries([...found].map((id) => [id, all[id]]));
}

/**
 * Where a notebook is saved by JupyterLab, save the state of our widgets with it: without, a notebook that is opened
 * again says "model not found" in their place. JupyterLab has a setting for that, which is off.
 * @param {Model} model
 */
export function keepState(model) {
	const manager = /** @type {any} */ (model).widget_manager;
	const context = manager?.context;
	if (!context?.saveState?.connect || !context.model?.setMetadata || context[KEPT]) return;
	context[KEPT] = true;
	context.saveState.connect((/** @type {unknown} */ _, /** @type {string} */ state) => {
		if (state !== "started") return;
		try {
			const now = manager.get_state_sync({ drop_defaults: true });
			const before = context.model.getMetadata("widgets")?.[MIME]?.state ?? {};
			const others = Object.entries(before).filter(([id]) => manager.has_model(id));
			const kept = { ...Object.fromEntries(others), ...ours(now.state) };
			context.model.setMetadata("widgets", { [MIME]: { ...now, state: kept } });
		} catch (error) {
			console.error(error); // saving is more than this
		}
	});
}
