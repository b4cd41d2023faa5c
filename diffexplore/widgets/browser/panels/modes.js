// How several films stand to the pinned one: beside it, as their difference from it, or under it.
import { h } from "../dom.js";
import { panel } from "../panel.js";

/** @type {Record<string, [string, string]>} */
const MODES = {
	side: ["Side", "side by side"],
	difference: ["Diff", "the difference from the pinned one, four times as strong: black is equal"],
	swipe: ["Swipe", "the pinned one over the others: drag on a picture"],
};

panel("modes", (view) => {
	const { id, session } = view;
	const choices = h("fieldset.dx-mode", {}, h("legend.dx-hidden", {}, "compare"));
	const radios = Object.entries(MODES).map(([mode, [word, title]]) => {
		const radio = h("input", { type: "radio", name: `${id}-mode`, value: mode, "aria-label": mode[0].toUpperCase() + mode.slice(1) });
		view.on(radio, "change", () => radio.checked && session.set({ mode }));
		choices.append(h("label", { title }, radio, h("span", {}, word)));
		return radio;
	});
	return {
		nodes: { modes: [choices] },
		draw() {
			choices.hidden = session.films.length < 2;
			for (const radio of radios) radio.checked = radio.value === session.mode;
		},
	};
});
