// Whether the picture is what the controls say.
import { h, say } from "../dom.js";
import { panel } from "../panel.js";

const DEAF = "the kernel is busy: it does not answer";

panel("truth", (view) => {
	const { session } = view;
	const truth = h("p.dx-truth");
	return {
		nodes: { foot: [truth] },
		draw() {
			const known = session.model.get("truth") ?? {};
			// What is true of a run is not yet true of the page: its pictures are on their way.
			const there = known.run === undefined || (known.run === session.run && session.films.every(({ status }) => status !== "running"));
			const told = there ? known : { state: "busy", text: "drawing" };
			const state = view.gone ? "none" : session.deaf ? "busy" : session.stale ? "stale" : (told.state ?? "none");
			const text = view.gone ? "" : session.deaf ? DEAF : session.stale ? "settings changed: Run" : (told.text ?? "");
			truth.dataset.state = state;
			say(truth, text);
			truth.title = text;
			truth.hidden = !text;
		},
	};
});
