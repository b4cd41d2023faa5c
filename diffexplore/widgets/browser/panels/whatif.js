// What if the guidance were another: the step on show, with another guidance or guider, as the kernel mixes it from what was recorded.
import { box, h, paint, say } from "../dom.js";
import { shot } from "../films.js";
import { figures } from "../numbers.js";
import { panel } from "../panel.js";
import { numberOf } from "../reel.js";
import { WHAT_IF, bytesOf } from "../wire.js";

const ANSWERED = 5000; // ms that a kernel has to answer
const MIXED = "A mix of what was recorded at this step: the run itself went on with its own, a new run would go elsewhere.";

const MENU = "how the predictions with and without the prompt are mixed";

/** @typedef {{run: number, guidance: number, guider: string | null, steps: number[], frames: (number | null)[], who: string}} Question */

panel("whatif", (view) => {
	const { id, session } = view;
	const range = h("input", { type: "range", id: `${id}-whatif`, min: "0", max: "20", step: "0.5" });
	const value = h("output", { for: range.id });
	const menu = h("select.dx-tool", { "aria-label": "guider" });
	const says = h("p.dx-says", { role: "status" });
	const pictures = box("dx-whatifs");
	/** @type {HTMLCanvasElement[]} */ const canvases = [];
	/** @type {number | null} */ let chosen = null; // null: the run's own
	/** @type {string | null} */ let mixer = null; // likewise
	let offered = "";
	let run = -1; // what it was chosen for
	/** @type {Question | null} */ let asked = null; // on its way
	/** @type {(Question & {told: string[], slots: Slot[]}) | null} */ let answer = null;
	let mute = false; // no answer came
	let timer = 0;

	const own = () => Number(session.films[0]?.about.guidance ?? 1);
	const mix = () => {
		const { about } = session.films[0] ?? {};
		return session.films.length > 1 ? "each its own" : /guider/.test(String(about?.changes ?? "")) ? "as the run" : String(about?.guider ?? "CFG");
	};
	/** @returns {Question} */
	const question = () => ({ run: session.run, guidance: chosen ?? own(), guider: mixer, steps: session.films.map((film) => session.stepOf(film)), frames: session.films.map((film) => (film.reel ? numberOf(film, session.still, session.frames) : null)), who: id });
	const same = (/** @type {Question | null} */ one, /** @type {Question} */ other) => one !== null && JSON.stringify([one.run, one.guidance, one.guider, one.steps, one.frames]) === JSON.stringify([other.run, other.guidance, other.guider, other.steps, other.frames]);
	const ask = () => {
		const wanted = question();
		if (asked || same(answer, wanted)) return; // one on its way: the newest is asked for when it is answered
		asked = wanted;
		session.send({ kind: WHAT_IF, ...wanted });
		clearTimeout(timer);
		timer = setTimeout(() => {
			asked = null;
			mute = true;
			view.redraw();
		}, ANSWERED);
	};
	const hear = (/** @type {any} */ content, /** @type {any[]} */ buffers) => {
		if (content?.kind !== WHAT_IF || content.who !== id) return;
		clearTimeout(timer);
		asked = null;
		mute = false;
		const slots = content.told.map((/** @type {string} */ why, /** @type {number} */ k) => why || shot(bytesOf(buffers[k]).slice(), "png", true));
		for (const old of answer?.slots ?? []) if (old && typeof old === "object") session.shelf.forget(old);
		answer = { ...content, slots };
		view.redraw();
	};
	session.model.on("msg:custom", hear);
	view.signal.addEventListener("abort", () => {
		clearTimeout(timer);
		session.model.off("msg:custom", hear);
	});
	const choose = (/** @type {number | null} */ to, /** @type {string | null} */ by) => {
		[chosen, mixer] = [to, by];
		mute = false;
		view.redraw();
	};
	view.on(range, "input", () => choose(range.valueAsNumber, mixer));
	view.on(menu, "change", () => choose(chosen, menu.value || null));
	const back = view.tool("the run's own", "back to the guidance of the run", () => choose(null, null));

	return {
		tab: { word: "What if", there: () => session.films.length > 0 && (session.model.get("truth")?.state ?? "none") !== "none" },
		nodes: { tab: [box("dx-ask", h("label", { for: range.id }, "guidance"), range, value, menu, back), box("dx-whatif", pictures, says)] },
		draw() {
			if (view.tab !== "whatif" || !session.films.length) return;
			if (session.run !== run) [run, chosen, mixer] = [session.run, null, null];
			const told = /** @type {Record<string, string>} */ (session.model.get("guiders") ?? {});
			const names = Object.keys(told).filter((name) => name !== mix());
			if (JSON.stringify([mix(), names]) !== offered) {
				offered = JSON.stringify([mix(), names]);
				menu.replaceChildren(...["", ...names].map((name) => h("option", { value: name }, name || mix())));
			}
			menu.hidden = !names.length;
			menu.value = mixer ?? "";
			menu.title = told[mixer ?? mix().replace(/\(.*/, "")] ?? MENU;
			const wanted = question();
			range.max = String(Math.max(20, own()));
			range.valueAsNumber = wanted.guidance;
			say(value, figures(wanted.guidance));
			range.ariaValueText = figures(wanted.guidance);
			back.disabled = mixer === null && (chosen === null || chosen === own());
			if (!view.gone && !mute) ask();

			// Never a picture of another run, nor of a step that is not on show.
			const there = answer !== null && answer.run === wanted.run && JSON.stringify([answer.steps, answer.frames]) === JSON.stringify([wanted.steps, wanted.frames]) ? answer : null;
			const { films } = session;
			while (canvases.length > films.length) canvases.pop()?.remove();
			while (canvases.length < films.length) {
				const canvas = h("canvas", { role: "img" });
				canvases.push(canvas);
				pictures.append(canvas);
			}
			const whys = new Set();
			canvases.forEach((canvas, k) => {
				const slot = there?.slots[k];
				const bitmap = session.bitmap(slot);
				const [film, i] = [films[k], wanted.steps[k]];
				if (typeof slot === "string") whys.add(film.label ? `${film.label}: ${slot}` : slot);
				canvas.style.setProperty("--dx-shape", String(film.size[0] / film.size[1]));
				canvas.style.visibility = bitmap ? "visible" : "hidden";
				if (bitmap) paint(canvas, bitmap, session.squares("x0"), session.zoom);
				canvas.title = canvas.ariaLabel = `${film.label ? `${film.label}: ` : ""}the estimate at step ${i + 1} with guidance ${figures(there?.guidance ?? wanted.guidance)}${there?.guider ? ` by ${there.guider}` : ""} in place of ${figures(Number(film.about.guidance))}`;
			});
			const steps = films.length > 1 ? "" : `Step ${wanted.steps[0] + 1} with guidance ${figures(wanted.guidance)}${mixer ? ` by ${mixer}` : ""} in place of ${figures(own())}. `;
			say(says, view.gone || mute ? "The kernel does not answer: it is busy, or it was restarted." : whys.size ? [...whys].join(" ") : steps + MIXED);
		},
	};
});
