// The choice of what is looked at: the estimate, the latents, the noise ... each as it is at the step on show.
import { MUTE, h, paint } from "../dom.js";
import { WORDS, wordOf } from "../films.js";
import { panel } from "../panel.js";
import { Roll } from "../reel.js";
import { STRONG, strength } from "../strength.js";

panel("views", (view) => {
	const { id, session, signal } = view;
	const choices = h("fieldset.dx-views", {}, h("legend.dx-hidden", {}, "view"));
	const radios = Object.keys(WORDS).map((kind) => {
		const { word, symbol } = wordOf(kind);
		const radio = h("input", { type: "radio", name: `${id}-view`, value: kind, "aria-label": word });
		const canvas = h("canvas.dx-thumb", MUTE);
		const label = h("label", {}, radio, canvas, h("span", {}, word), " ", h("i", MUTE, symbol));
		radio.addEventListener("change", () => radio.checked && session.look(kind), { signal });
		choices.append(label);
		const roll = new Roll(session, () => session.changed()); // the frames of a video, while it is pointed at
		for (const [name, act] of /** @type {[string, () => void][]} */ ([["pointerenter", () => roll.start()], ["focusin", () => radio.matches(":focus-visible") && roll.start()], ["pointerleave", () => roll.stop()], ["focusout", () => roll.stop()]])) label.addEventListener(name, act, { signal });
		signal.addEventListener("abort", () => roll.stop());
		return { kind, radio, label, canvas, roll };
	});
	return {
		nodes: { views: [choices] },
		paint() {
			const [film] = session.films;
			if (view.many || !radios[0].canvas.clientWidth) return;
			choices.style.setProperty("--dx-shape", String(view.seats[0].shape));
			const i = film ? session.stepOf(film) : 0;
			for (const { kind, canvas, roll } of radios) {
				const slot = film && session.picture(film, kind, roll.at < 0 ? {} : { at: roll.at, place: "thumb " });
				const bitmap = session.bitmap(slot);
				if (bitmap) paint(canvas, session.strong[kind] && STRONG.has(kind) ? strength(bitmap) : bitmap, session.squares(kind));
				else if (!film || typeof slot === "string") paint(canvas, null, false);
				for (const next of [i + 1, i - 1]) session.bitmap(film && session.slot(film, kind, next));
			}
		},
		draw() {
			for (const { kind, radio, label } of radios) {
				radio.checked = kind === session.kind;
				const caption = session.captions[kind] ?? "";
				if (label.title !== caption) label.title = caption;
				const { films } = session;
				const none = films.length > 0 && films.every((film) => film.frames[kind]?.length && film.frames[kind].every((slot) => typeof slot === "string"));
				label.classList.toggle("dx-none", none);
			}
		},
	};
});
