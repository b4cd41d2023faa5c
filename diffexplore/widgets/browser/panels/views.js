// The choice of what is looked at: the estimate, the latents, the noise ...
import { MUTE, h } from "../dom.js";
import { WORDS, wordOf } from "../films.js";
import { panel } from "../panel.js";

panel("views", ({ id, session, signal }) => {
	const choices = h("fieldset.dx-views", {}, h("legend.dx-hidden", {}, "view"));
	const radios = Object.keys(WORDS).map((kind) => {
		const { word, symbol } = wordOf(kind);
		const radio = h("input", { type: "radio", name: `${id}-view`, value: kind });
		const label = h("label", {}, radio, h("span", {}, word), h("i", MUTE, symbol));
		radio.addEventListener("change", () => radio.checked && session.look(kind), { signal });
		choices.append(label);
		return { kind, radio, label };
	});
	return {
		nodes: { head: [choices] },
		draw() {
			for (const { kind, radio, label } of radios) {
				radio.checked = kind === session.kind;
				const caption = session.captions[kind] ?? "";
				if (label.title !== caption) label.title = caption;
				const none = session.films.every((film) => film.frames[kind]?.length && film.frames[kind].every((slot) => typeof slot === "string"));
				label.classList.toggle("dx-none", none);
			}
		},
	};
});
