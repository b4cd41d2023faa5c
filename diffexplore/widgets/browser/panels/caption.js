// What the view on show is, in a sentence.
import { h, say } from "../dom.js";
import { panel } from "../panel.js";

panel("caption", ({ session }) => {
	const caption = h("p.dx-caption");
	return {
		nodes: { text: [caption] },
		draw() {
			const { base, versus, captions, kind } = session;
			const left = versus % 2 ? "Difference from" : "On the left:";
			const note = base ? `${left} ${base.label}${versus % 2 ? ", four times as strong: black is equal" : ""}. ` : "";
			say(caption, note + (captions[kind] ?? ""));
		},
	};
});
