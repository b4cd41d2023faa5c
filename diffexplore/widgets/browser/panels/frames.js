// The second scrubber, over the frames of a video, and a button that plays them.
import { box, h, say } from "../dom.js";
import { panel } from "../panel.js";
import { numberOf } from "../reel.js";

panel("frames", (view) => {
	const { id, session } = view;
	const range = h("input", { type: "range", id: `${id}-frame`, min: "1", max: "1", step: "1", value: "1" });
	view.on(range, "input", () => session.turn(range.valueAsNumber - 1));
	const button = h("button", { type: "button", class: "dx-roll" });
	view.on(button, "click", () => session.roll(!session.rolling));
	const says = h("output", { for: range.id });
	const note = h("span.dx-left-out");
	const parts = [button, h("label", { for: range.id }, "frame"), range, says, note];
	const bar = box("dx-frames dx-under");
	return {
		nodes: { stage: [bar] },
		draw() {
			const { frames, at, reel } = session;
			bar.hidden = !frames;
			if (bar.hidden === range.isConnected) bar.replaceChildren(...(frames ? parts : [])); // a run without has one scrubber
			if (!reel?.reel) return;
			const number = numberOf(reel, at, frames) + 1;
			const told = `${number} of ${reel.reel.frames}`;
			range.max = String(frames);
			range.valueAsNumber = at + 1;
			range.ariaValueText = `frame ${told}`;
			say(says, told);
			button.ariaLabel = button.title = session.rolling ? "pause frames" : "play frames";
			button.dataset.icon = session.rolling ? "pause" : "play";
			const left = [...new Set(session.films.map((film) => film.reel?.note).filter(Boolean))].join(" ");
			say(note, left);
			note.title = left;
		},
	};
});
