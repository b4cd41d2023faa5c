// Whether the picture is what the controls say; where it is not, what the next run will cost.
import { h, say } from "../dom.js";
import { panel } from "../panel.js";

const DEAF = "the kernel is busy: it does not answer";

panel("truth", (view) => {
	const { session } = view;
	const truth = h("p.dx-truth");
	const due = h("p.dx-due", { title: "What the next run will take, by what runs of this model took on this machine." });
	return {
		nodes: { foot: [truth, due] },
		draw() {
			const { deaf, stale } = session.doubt;
			const known = session.model.get("truth") ?? {};
			// What is true of a run is not yet true of the page: its pictures are on their way.
			const there = known.run === undefined || (known.run === session.run && session.films.every(({ status }) => status !== "running"));
			const told = there ? known : { state: "busy", text: "drawing" };
			const state = view.gone ? "none" : deaf ? "busy" : stale ? "stale" : (told.state ?? "none");
			const text = view.gone ? "" : deaf ? DEAF : stale ? "settings changed: Run" : (told.text ?? "");
			truth.dataset.state = state;
			say(truth, text);
			truth.title = text;
			truth.hidden = !text;
			const cost = state === "match" || state === "busy" || view.gone ? "" : (session.model.get("_outlook")?.cost ?? "");
			say(due, cost);
			due.hidden = !cost;
		},
	};
});
