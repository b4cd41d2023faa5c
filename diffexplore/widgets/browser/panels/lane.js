// Flags under the strips: where a run was changed on its way. Where it can be reached into, they are dragged, or moved by keys.
import { fill, h, own } from "../dom.js";
import { panel } from "../panel.js";
import { flagsOf } from "../flags.js";
import { marksOf, reachTo } from "../marks.js";
import { lineup } from "../timeline.js";

panel("lane", (view) => {
	const { session } = view;
	const flags = h("div.dx-flags");

	/**
	 * @param {HTMLElement} button
	 * @param {{place: number, k: number, mark: number, values: Record<string, unknown>}} flag
	 */
	const movable = (button, { place, k, mark, values }) => {
		const to = (/** @type {number} */ at) => {
			const { films, reference, places } = session;
			if (reference && films[k] && at !== place && at >= 0 && at < places) reachTo(session, { act: "put", step: lineup(reference, films[k])[at], mark, values });
		};
		view.on(button, "keydown", (event) => {
			const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
			if (by) to(place + by);
			else if (event.key === "Delete") reachTo(session, { act: "take", mark });
			else return;
			event.preventDefault();
			event.stopPropagation();
		});
		view.on(button, "pointerdown", (event) => button.setPointerCapture(event.pointerId));
		view.on(button, "pointermove", (event) => {
			if (button.hasPointerCapture(event.pointerId)) button.style.left = leftOf(view.placeUnder(event));
		});
		view.on(button, "pointerup", (event) => to(view.placeUnder(event)));
	};
	const leftOf = (/** @type {number} */ place) => `${(100 * (place + 0.5)) / session.places}%`;
	return {
		nodes: { lane: [flags] },
		draw() {
			const marks = new Map((marksOf(session) ?? []).map(([at, , values]) => [at, values]));
			const last = session.films.length - 1;
			const found = last < 0 ? [] : flagsOf(session).map((flag) => ({ ...flag, values: flag.k === last ? marks.get(flag.mark) : undefined }));
			view.root.classList.toggle("dx-flagged", found.length > 0);
			fill(flags, found, (flag) => {
				const { place, text, k, values } = flag;
				const next = Math.min(...found.flatMap((one) => (one.place > place ? [one.place] : [])), session.places);
				const title = `step ${place + 1}: ${text}${values ? " (drag it, or arrow keys; Delete takes it away)" : ""}`;
				const button = own(h("button", { type: "button", class: "dx-flag", title }, text), view.many ? k : -1);
				button.style.left = leftOf(place);
				button.style.maxWidth = `max(18px, min(140px, ${(100 * (next - place)) / session.places}% - 2px))`; // no flag covers another
				view.on(button, "click", () => {
					session.move(place);
					if (!values) return;
					session.edited = flag.mark;
					view.set({ tab: "reach" });
				});
				if (values) movable(button, { ...flag, values });
				return button;
			});
		},
	};
});
