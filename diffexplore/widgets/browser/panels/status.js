// How things stand and what it took, on the page and for a screen reader, and what made the films.
import { costOf } from "../cost.js";
import { h, say } from "../dom.js";
import { madeBy, tokensOf } from "../films.js";
import { panel } from "../panel.js";

const SILENT = "The kernel does not answer: it is busy, or it was restarted. If it was, run the cell again.";

panel("status", (view) => {
	const { session } = view;
	// With the keyboard too one gets to what is cut.
	const status = h("p.dx-status", { tabindex: "0" });
	const about = h("p.dx-about", { tabindex: "0" });
	const live = h("p.dx-hidden", { role: "status" });
	let spoke = 0; // when the live region last said something
	let later = 0;
	view.signal.addEventListener("abort", () => clearTimeout(later));

	/** Tell a screen reader, at most once a second, the last word always. */
	const announce = (/** @type {string} */ text) => {
		clearTimeout(later);
		if (live.textContent === text) return;
		const now = performance.now();
		const wait = spoke + 1000 - now;
		if (wait > 0) later = setTimeout(() => announce(text), wait);
		else {
			spoke = now;
			say(live, text);
		}
	};

	return {
		nodes: { foot: [status, about], unseen: [live] },
		draw() {
			const { films, twins } = session;
			const { gone } = view;
			const text = session.silent && !gone ? SILENT : films.length ? costOf(gone ? films.map((one) => (one.status === "running" ? { ...one, status: "cancelled" } : one)) : films) : "";
			say(status, text);
			status.title = text;
			announce(text);
			const made = !films.length ? "" : films.length > 1 ? twins || (!session.model.get("truth")?.text && films.every(({ about: { seed } }) => seed === films[0].about.seed) ? "same starting noise ✓" : "") : (films[0].label ? `${films[0].label} · ` : "") + madeBy(films[0], !tokensOf(films).length);
			say(about, made);
			about.title = made;
			status.hidden = !text;
			about.hidden = !made;
		},
	};
});
