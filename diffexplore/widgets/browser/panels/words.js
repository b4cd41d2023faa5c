// The prompt, token by token, as the model reads it.
import { fill, h } from "../dom.js";
import { tokensOf } from "../films.js";
import { panel } from "../panel.js";

/** @type {Record<string, string>} */
const MATTERS = {
	cut: "not read: the prompt is longer than what this model reads",
	unknown: "part of a word that this model never saw in training",
};

panel("words", ({ session }) => {
	const list = h("ul.dx-words", { "aria-label": "the prompt, as the model reads it", tabindex: "0" });
	return {
		nodes: { words: [list] },
		draw() {
			const tokens = session.films.length ? tokensOf(session.films) : [];
			fill(list, tokens, ([text, matter]) => {
				const why = MATTERS[matter];
				return h("li", why ? { class: `dx-${matter}`, title: why } : {}, text, ...(why ? [h("span.dx-hidden", {}, ` (${why})`)] : []));
			});
		},
	};
});
