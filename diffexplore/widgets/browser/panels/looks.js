// Where words look, on a tab: every word of every film, to be clicked, with its share at the step on show.
import { box, fill, h, own, say, svg } from "../dom.js";
import { SINK, SINKS, allLookers, chooseWord, colourOf, shareOf } from "../looks.js";
import { panel } from "../panel.js";

const SAYS = "Lit: more attention than its mean over the picture. In percent: its share of all. Begin and end are sinks: they take what looks at nothing.";

panel("looks", (view) => {
	const { session } = view;
	const list = box("dx-lookers");
	const says = h("p.dx-says", { title: SAYS }, SAYS);
	/** @type {Map<string, {button: HTMLElement, shares: HTMLElement, lines: SVGElement[]}>} */ let made = new Map();

	const row = (/** @type {string} */ word) => {
		const shares = h("span");
		const lines = session.films.map((_, k) => own(svg("polyline"), session.films.length > 1 ? k : -1));
		const chart = svg("svg", { "aria-hidden": "true", viewBox: "0 0 100 100", preserveAspectRatio: "none" }, ...lines);
		const sink = word in SINKS;
		const button = h("button", { type: "button", class: `dx-look${sink ? " dx-sink" : ""}`, ...(sink ? { title: SINK } : {}) }, sink ? SINKS[/** @type {"<begin>"} */ (word)] : word);
		view.on(button, "click", () => chooseWord(session, word));
		made.set(word, { button, shares, lines });
		return box("dx-looker", button, chart, shares);
	};

	return {
		tab: { word: "Words", there: () => allLookers(session.films).length > 0 },
		nodes: { tab: [list, says] },
		draw() {
			if (view.tab !== "looks") return;
			const { films } = session;
			const words = allLookers(films);
			const key = JSON.stringify([words, films.length]);
			if (list.dataset.key !== key) {
				made = new Map();
				list.dataset.key = key;
				fill(list, [], row);
			}
			fill(list, words, row);
			const rows = words.map((word) => films.map((film) => film.steps.map((step) => shareOf(film, word, step))));
			const most = Math.max(...rows.flatMap((each, j) => (words[j] in SINKS ? [] : each.flat().map(Number))), 1e-9);
			words.forEach((word, j) => {
				const { button, shares, lines } = /** @type {any} */ (made.get(word));
				const k = colourOf(session, word);
				button.ariaPressed = String(k >= 0);
				button.style.setProperty("--dx-own", k < 0 ? "" : `var(--dx-w${k})`);
				const now = films.map((film) => shareOf(film, word, session.numbers(film)));
				say(shares, now.map((share) => (share == null ? "–" : `${(100 * share).toFixed(1)}`)).join(" · ") + " %");
				rows[j].forEach((row, n) => {
					const points = row.flatMap((share, i) => (share == null ? [] : [`${((100 * i) / Math.max(1, films[n].expected - 1)).toFixed(1)},${(96 - (92 * share) / (word in SINKS ? 1 : most)).toFixed(1)}`]));
					lines[n]?.setAttribute("points", points.join(" "));
				});
			});
		},
	};
});
