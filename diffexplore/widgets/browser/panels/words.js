// The prompt, word by word, as the model reads it; where a run kept where they look, each word shows it.
import { MUTE, fill, h, svg } from "../dom.js";
import { tokensOf } from "../films.js";
import { SINK, SINKS, chooseWord, colourOf, lookers, shareOf } from "../looks.js";
import { panel } from "../panel.js";

/** @type {Record<string, string>} */
const MATTERS = {
	cut: "not read: the prompt is longer than what this model reads",
	unknown: "part of a word that this model never saw in training",
};

/** @typedef {{text: string, matter: string, ids: string, word: string}} Chip */

panel("words", (view) => {
	const { session } = view;
	const list = h("ul.dx-words", { "aria-label": "the prompt, as the model reads it", tabindex: "0" });

	/** @type {Map<string, {button: HTMLElement, line: SVGElement}>} */ let lit = new Map();
	let drawn = ""; // the lines

	/** @returns {Chip[]} */
	const chips = () => {
		const tokens = session.films.length ? tokensOf(session.films) : [];
		const words = session.films.length === 1 ? lookers(session.films[0]) : [];
		let at = words[0] === "<begin>" ? 1 : 0;
		const read = tokens.map(([text, matter, ids = ""]) => {
			const looks = matter !== "cut" && matter !== "more" && words[at]?.toLowerCase() === text.toLowerCase();
			return { text, matter, ids, word: looks ? words[at++] : "" };
		});
		const sink = (/** @type {"<begin>" | "<end>"} */ word) => (words.includes(word) ? [{ text: SINKS[word], matter: "sink", ids: "", word }] : []);
		return [...sink("<begin>"), ...read, ...sink("<end>")];
	};

	const titleOf = (/** @type {Chip} */ { matter, ids, word }) => {
		const parts = [MATTERS[matter] ?? "", matter === "sink" ? SINK : "", ids && `token${ids.includes(" ") ? "s" : ""} ${ids}`];
		return [...parts, word && matter !== "sink" ? "click: where it looks" : ""].filter(Boolean).join("; ");
	};

	const item = (/** @type {Chip} */ chip) => {
		const { text, matter, word } = chip;
		const why = MATTERS[matter];
		const title = titleOf(chip);
		const node = h("li", { ...(matter ? { class: `dx-${matter}` } : {}), ...(title ? { title } : {}) });
		const says = [text, ...(why ? [h("span.dx-hidden", {}, ` (${why})`)] : [])];
		if (!word) {
			node.append(...says);
			return node;
		}
		const line = svg("polyline", { points: "" });
		const button = h("button", { type: "button", class: "dx-look" }, ...says);
		button.append(svg("svg", { ...MUTE, viewBox: "0 0 100 100", preserveAspectRatio: "none" }, line));
		view.on(button, "click", () => chooseWord(session, word));
		lit.set(word.toLowerCase(), { button, line });
		node.append(button);
		return node;
	};

	return {
		nodes: { words: [list] },
		draw() {
			const wanted = chips();
			const key = JSON.stringify(wanted);
			if (list.dataset.key !== key) {
				lit = new Map();
				drawn = "";
			}
			list.dataset.key = key;
			fill(list, wanted, item);
			const [film] = session.films;
			if (!lit.size || !film) return;
			for (const [word, { button }] of lit) {
				const k = colourOf(session, word);
				button.ariaPressed = String(k >= 0);
				button.style.setProperty("--dx-own", k < 0 ? "" : `var(--dx-w${k})`);
			}
			const count = `${session.run} ${film.steps.length} ${session.complete}`;
			if (count === drawn) return;
			drawn = count;
			const rows = [...lit.keys()].map((word) => film.steps.map((step) => shareOf(film, word, step)));
			const top = Math.max(...rows.flatMap((row, j) => ([...lit.keys()][j] in SINKS ? [] : row.map(Number))), 1e-9);
			[...lit.values()].forEach(({ line }, j) => {
				const most = [...lit.keys()][j] in SINKS ? 1 : top;
				const points = rows[j].flatMap((share, i) => (share == null ? [] : [`${film.expected < 2 ? 50 : ((100 * i) / (film.expected - 1)).toFixed(1)},${(95 - (90 * share) / most).toFixed(1)}`]));
				line.setAttribute("points", points.join(" "));
			});
		},
	};
});
