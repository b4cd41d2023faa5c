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
			const told = session.model.get("truth") ?? {};
			const state = view.gone ? "none" : session.deaf ? "busy" : session.stale ? "stale" : (told.state ?? "none");
			const text = view.gone ? "" : session.deaf ? DEAF : session.stale ? "settings changed: Run" : (told.text ?? "");
			truth.dataset.state = state;
			say(truth, text);
			truth.title = text;
			truth.hidden = !text;
		},
	};
});
