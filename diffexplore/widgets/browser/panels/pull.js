// How guidance pulls: the prediction without the prompt, the one with it and the guided one as arrows in the plane they lie in.
import { MUTE, box, fill, h, line, say, svg } from "../dom.js";
import { arrowsOf, extentOf, headed } from "../pulls.js";
import { panel } from "../panel.js";

const WIDE = 220; // of a drawing, in its own units
const HIGH = 80;
const EDGE = 6;
const SIZES = ["without", "with prompt", "guided", "pull", "along", "across", "angle"];
const PULL = "along, x₀ gets stronger (contrast); across, it turns to another picture.";
const PLANE = "All three predictions lie in one plane, which this is: the bar is 1 long, the dotted lines are the pull and its parts along and across the prediction with the prompt.";

panel("pull", (view) => {
	const { session } = view;
	const drawings = box("dx-pulls");
	const says = h("p.dx-says", { title: PLANE });
	const table = h("table.dx-pull-table");
	/** @type {ReturnType<typeof drawing>[]} */ let made = [];

	const drawing = () => {
		const arrows = ["uncond", "cond", "guided"].map((name) => svg("path", { class: `dx-${name}` }));
		const legs = svg("path", { class: "dx-legs" });
		const bar = svg("path", { class: "dx-unit" });
		const title = h("h4");
		return { arrows, legs, bar, title, node: box("dx-pulled", title, svg("svg", { ...MUTE, viewBox: `0 0 ${WIDE} ${HIGH}` }, bar, legs, ...arrows)) };
	};

	return {
		tab: { word: "Arrows", there: () => session.films.some((film) => film.steps.some((step) => step?.cond_norm != null)) },
		nodes: { tab: [drawings, table, says] },
		draw() {
			if (view.tab !== "pull") return;
			const { films } = session;
			const steps = films.map((film) => session.numbers(film));
			const wanted = view.many ? films.map((film, k) => ({ word: film.label, step: steps[k], end: "_x0" })) : ["_x0", ""].map((end) => ({ word: end ? "x₀" : "noise", step: steps[0], end }));
			if (made.length !== wanted.length) {
				made = wanted.map(drawing);
				drawings.replaceChildren(...made.map(({ node }) => node));
			}
			// Mixed otherwise, if only from somewhere on, the guided one lies elsewhere than plain guidance would put it.
			const bent = films.map(({ about }) => about.guider ?? (/guider/.test(String(about.changes ?? "")) ? "that changes on the way" : ""));
			const found = wanted.map(({ step, end }, j) => arrowsOf(step, end, !bent[view.many ? j : 0]));
			const rows = wanted.map(({ word }, j) => {
				const { arrows, legs, bar, title } = made[j];
				const now = found[j];
				const { left, right, low, high } = extentOf(view.many ? found : [now]); // runs on one scale
				const scale = Math.min((WIDE - 2 * EDGE) / (right - left), (HIGH - 2 * EDGE) / (high - low));
				const at = (/** @type {number[]} */ [x, y]) => [EDGE + (x - left) * scale, HIGH - EDGE - (y - low) * scale].map((z) => z.toFixed(1));
				say(title, word);
				const tips = now ? [now.uncond, now.cond, ...(now.guided ? [now.guided] : [])].map(at) : [];
				arrows.forEach((arrow, i) => arrow.setAttribute("d", tips[i] ? headed(at([0, 0]), tips[i]) : ""));
				legs.setAttribute("d", tips[2] ? `M${tips[0]}L${tips[2]}M${tips[1]}H${tips[2][0]}V${tips[2][1]}` : "");
				bar.setAttribute("d", `M${EDGE},${HIGH - 1}h${scale.toFixed(1)}`);
				return [word, ...(now?.numbers.map((x) => x?.toFixed(3) ?? "–") ?? Array(6).fill("–")), now ? `${now.angle?.toFixed(1)}°` : "–"];
			});
			fill(table, [[view.many ? "x₀" : "", ...SIZES], ...rows], ([name, ...values], k) => line(k ? "td" : "th", name, ...values));
			const g = view.many ? null : steps[0]?.guidance;
			const other = bent.find((one) => one);
			say(says, other ? `The guider ${other} mixes them otherwise, so the guided one is not drawn. The pull: ${PULL}` : `Guidance ${g == null ? "" : `${+g.toFixed(2)} `}adds ${g == null ? "more of" : `${+(g - 1).toFixed(2)} times`} the pull: ${PULL}`);
		},
	};
});
