// Flags under the strips: where a run was changed on its way.
import { fill, h, own } from "../dom.js";
import { panel } from "../panel.js";
import { flagsOf } from "../flags.js";

panel("lane", (view) => {
	const { session } = view;
	const flags = h("div.dx-flags");
	return {
		nodes: { lane: [flags] },
		draw() {
			const found = session.films.length ? flagsOf(session) : [];
			fill(flags, found, ({ place, text, k }) => {
				const button = own(h("button", { type: "button", class: "dx-flag", title: `step ${place + 1}: ${text}` }, text), view.many ? k : 1);
				button.style.left = `${(100 * (place + 0.5)) / session.places}%`;
				view.on(button, "click", () => session.move(place));
				return button;
			});
		},
	};
});
