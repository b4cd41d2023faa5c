// Pictures to be counted by hand: each is a button, pressed for "yes". What is counted the kernel says; tally.py is its side.
import { h, say } from "./dom.js";

/** @param {{model: Model & {set(name: string, value: unknown): void, save_changes(): void}, el: HTMLElement}} host */
const tally = ({ model, el }) => {
	const title = h("p.dx-tally-title");
	const told = h("p.dx-tally-told", { role: "status" });
	const sheet = h("div.dx-tally-sheet", { role: "group" });
	el.append(title, sheet, told);
	el.classList.add("dx-tally");
	/** @type {string[]} */ const urls = [];
	/** @type {string[]} */ const seeds = model.get("seeds");
	/** @type {DataView[]} */ const pictures = model.get("pictures");
	const faces = seeds.map((seed, k) => {
		const url = URL.createObjectURL(new Blob([/** @type {any} */ (pictures[k])], { type: "image/webp" }));
		urls.push(url);
		const face = h("button.dx-tally-face", { type: "button", "aria-label": `seed ${seed}` }, h("img", { src: url, alt: "" }), h("span", {}, seed));
		face.addEventListener("click", () => {
			/** @type {string[]} */ const chosen = model.get("chosen");
			model.set("chosen", chosen.includes(seed) ? chosen.filter((one) => one !== seed) : [...chosen, seed]);
			model.save_changes();
		});
		return face;
	});
	sheet.append(...faces);
	sheet.addEventListener("keydown", (event) => {
		const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
		const at = faces.indexOf(/** @type {HTMLButtonElement} */ (document.activeElement));
		if (!by || at < 0) return;
		event.preventDefault();
		event.stopPropagation();
		faces[(at + by + faces.length) % faces.length]?.focus();
	});
	const show = () => {
		/** @type {string[]} */ const chosen = model.get("chosen");
		seeds.forEach((seed, k) => faces[k]?.setAttribute("aria-pressed", String(chosen.includes(seed))));
		say(title, model.get("title"));
		say(told, model.get("told"));
		sheet.setAttribute("aria-label", model.get("title"));
	};
	const names = ["chosen", "title", "told"];
	for (const name of names) model.on(`change:${name}`, show);
	show();
	return () => {
		for (const url of urls) URL.revokeObjectURL(url);
		for (const name of names) model.off(`change:${name}`, show);
	};
};

export default { render: tally };
