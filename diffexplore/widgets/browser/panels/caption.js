// What the view on show is, in a sentence.
import { h, say } from "../dom.js";
import { panel } from "../panel.js";
import { STRONG } from "../strength.js";

panel("caption", (view) => {
	const { session, places } = view;
	const caption = h("p.dx-caption");
	return {
		nodes: { views: [caption] },
		draw() {
			const { base, mode, captions, kind, strong } = session;
			const place = view.many ? places.foot : places.views;
			if (caption.parentNode !== place) place.append(caption);
			const apart = mode === "difference";
			const note = base ? `${apart ? "Difference from" : "On the left:"} ${base.label}${apart ? ", four times as strong: black is equal" : ""}. ` : "";
			const how = strong[kind] && STRONG.has(kind) ? "How strong, whatever the colour: dark is none, bright is most. " : "";
			say(caption, note + how + (captions[kind] ?? ""));
			caption.title = caption.textContent ?? "";
			caption.hidden = view.many && !caption.title; // beside it, other lines stand
		},
	};
});
