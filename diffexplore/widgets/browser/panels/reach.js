// Reaching in: from the step on show on another prompt or guidance, as a mark of the next run, or as a branch beside this one,
// which may leave with latents that were painted on.
import { brushOf } from "../brush.js";
import { box, fill, h, quiet, say } from "../dom.js";
import { kinOf } from "../kin.js";
import { branchesOf, marksOf, reachTo } from "../marks.js";
import { figures, noiseShare } from "../numbers.js";
import { panel } from "../panel.js";

panel("reach", (view) => {
	const { id, session } = view;
	const where = h("p.dx-says", { role: "status" });
	const field = (/** @type {string} */ name, /** @type {string} */ hint, more = {}) => h("input", { type: "text", "aria-label": `${name} from this step on`, title: `${name} from this step on`, placeholder: hint, maxlength: "2000", ...more });
	const prompt = field("prompt", "prompt", { class: "dx-reach-prompt" });
	const negative = field("negative prompt", "without: blurry …", { class: "dx-reach-negative" });
	const guidance = field("guidance", "guidance", { type: "number", min: "0", max: "100", step: "0.5", class: "dx-reach-guidance" });
	const guider = h("select.dx-tool", { "aria-label": "guider from this step on", title: "guider from this step on" });
	const loras = h("span.dx-loras");
	const scales = () => /** @type {HTMLInputElement[]} */ ([...loras.querySelectorAll("input")]);
	const brush = brushOf(view);
	const kin = kinOf(view);
	const fields = [prompt, negative, guidance];
	let filled = ""; // what they were filled with
	let editing = NaN; // the mark that is being edited

	const film = () => session.films[session.films.length - 1];
	const values = () => {
		/** @type {Record<string, unknown>} */ const found = { prompt: prompt.value, negative_prompt: negative.value };
		if (Number.isFinite(guidance.valueAsNumber)) found.guidance = guidance.valueAsNumber;
		if (!guider.hidden) found.guider = guider.value;
		const worn = scales().filter(({ valueAsNumber }) => Number.isFinite(valueAsNumber));
		if (worn.length) found.adapters = Object.fromEntries(worn.map((one) => [one.name, one.valueAsNumber]));
		return found;
	};
	const put = (/** @type {Record<string, unknown>} */ told) => {
		prompt.value = String(told.prompt ?? film()?.about.prompt ?? "");
		negative.value = String(told.negative_prompt ?? film()?.about["negative prompt"] ?? "");
		guidance.value = String(told.guidance ?? film()?.about.guidance ?? "");
		const own = String(told.guider ?? film()?.about.guider ?? "CFG");
		const names = new Set([...Object.keys(session.model.get("guiders") ?? {}), own]);
		guider.replaceChildren(...[...names].map((name) => h("option", { value: name }, name)));
		guider.value = own;
		const worn = told.adapters ? Object.fromEntries(/** @type {[string, number][]} */ (told.adapters)) : null;
		fill(loras, branchesOf(session).loras, ([name]) => {
			const title = `LoRA ${name} from this step on`;
			const one = h("input", { type: "number", name, step: "0.1", min: "-10", max: "10", title, "aria-label": title });
			heard(one);
			return h("label", { title }, name, one);
		});
		const now = Object.fromEntries(branchesOf(session).loras);
		for (const one of scales()) one.value = String((worn ?? now)[one.name] ?? 0);
	};
	const act = (/** @type {string} */ what) => {
		const edit = what === "branch" ? brush.told() : undefined;
		reachTo(session, { act: what, step: session.stepOf(film()), values: values(), ...(edit ? { edit } : {}), ...(what === "put" && Number.isFinite(editing) ? { mark: editing } : {}) });
		editing = NaN;
		if (what === "branch") view.set({ tab: "" }); // it would lie over what is to be seen
	};
	const branch = view.tool("branch here", "run on from this step with these, beside this run (Enter)", () => act("branch"));
	const mark = view.tool("put a mark", "let the next run change at this share of noise", () => act("put"));
	const heard = (/** @type {HTMLElement} */ one) =>
		view.on(one, "keydown", (event) => {
			if (event.key === "Enter") act("branch");
			quiet(event);
		});
	fields.forEach(heard);
	const marks = h("ul.dx-marks");

	return {
		tab: { word: "Reach in", there: () => session.films.length > 0 && marksOf(session) !== null },
		nodes: { tab: [box("dx-reached", box("dx-reach", where, prompt, negative, guidance), brush.node, box("dx-made", branch, mark, guider, loras, marks, kin.node))] },
		draw() {
			const one = film();
			if (view.tab !== "reach" || !one) return;
			const i = session.stepOf(one);
			say(where, `from step ${i + 1} on`);
			where.title = `from where the share of noise is ${figures(noiseShare(session.numbers(one, i)?.sigma))}`;
			const { nodes, on, loras: known } = branchesOf(session);
			guider.hidden = !one.steps.some((step) => step?.cond_norm != null); // one prediction: nothing to mix
			brush.draw(one, nodes.filter(({ n }) => n !== on[on.length - 1]).map(({ n, words }) => [`swap ${n}`, `swap with ${n}: ${words.slice(0, 40)}`]));
			kin.draw();
			const now = JSON.stringify([one.about.prompt, one.about["negative prompt"], one.about.guidance, one.about.guider, known, marksOf(session)]);
			if (now !== filled && ![...fields, ...scales()].some((field) => field === view.root.ownerDocument.activeElement)) {
				filled = now;
				editing = NaN;
				put({});
			}
			const pressed = (marksOf(session) ?? []).find(([at]) => at === session.edited);
			session.edited = NaN;
			if (pressed) {
				editing = pressed[0];
				put(pressed[2]);
			}
			for (const button of [branch, mark]) button.disabled = view.gone || one.status === "running";
			say(mark, Number.isFinite(editing) ? "move the mark here" : "put a mark");
			fill(marks, marksOf(session) ?? [], ([at, text, told], k) => {
				const edit = h("button", { type: "button", class: "dx-tool", title: "edit this mark" }, `${figures(at)}: ${text}`);
				view.on(edit, "click", () => {
					editing = at;
					put(told);
					const near = one.steps.findIndex((step) => noiseShare(step?.sigma) <= at);
					if (near >= 0) session.move(near);
					prompt.focus();
					view.redraw();
				});
				const away = h("button", { type: "button", class: "dx-tool", title: "take this mark away", "aria-label": `take the mark ${text} away` }, "×");
				view.on(away, "click", () => reachTo(session, { act: "take", mark: at }));
				return h("li", { "data-mark": String(k) }, edit, away);
			});
		},
	};
});
