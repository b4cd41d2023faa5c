// A field for a recipe: a picture as in picture.js, which may be dropped anywhere on the widget around; a line that is pasted; and one to copy.
import { h, quiet, say } from "./dom.js";
import { MOST, field } from "./picture.js";

/** @param {{model: Model & {send(content: unknown, callbacks?: unknown, buffers?: ArrayBuffer[]): void}, el: HTMLElement}} host */
const recipe = ({ model, el }) => {
	const life = new AbortController();
	const { signal } = life;
	// A recipe stands before the pixels: a large file is cut, and never drawn anew, which would lose it.
	const read = (/** @type {File} */ file) => file.slice(0, MOST).arrayBuffer();
	const leave = field({ model, el }, read);
	const paste = h("input.dx-paste", { type: "text", placeholder: "or paste settings here: dx1{…}", "aria-label": "settings as text" });
	const copy = h("button.dx-copy", { type: "button", title: "copy the settings as a line that fits a chat" }, "Copy settings");
	el.append(h("div.dx-said", {}, paste, copy));
	const tell = (/** @type {string} */ text) => {
		if (text.trim()) model.send({ kind: "text", text });
		paste.value = "";
	};
	paste.addEventListener(
		"paste",
		(event) => {
			// Another program's text has lines, which a field would join.
			const text = event.clipboardData?.getData("text") ?? "";
			if (!text) return;
			event.preventDefault();
			tell(text);
		},
		{ signal },
	);
	paste.addEventListener(
		"keydown",
		(event) => {
			quiet(event);
			if (event.key === "Enter") tell(paste.value);
		},
		{ signal },
	);
	copy.addEventListener(
		"click",
		() => {
			const text = model.get("text");
			const done = navigator.clipboard?.writeText(text) ?? Promise.reject();
			done.then(
				() => say(copy, "Copied"),
				() => {
					paste.value = text;
					paste.select();
					say(copy, document.execCommand("copy") ? "Copied" : "Press Ctrl+C");
				},
			);
		},
		{ signal },
	);
	const anew = () => say(copy, "Copy settings");
	model.on("change:text", anew);
	for (const kind of /** @type {const} */ (["dragover", "dragleave", "drop"]))
		document.addEventListener(
			kind,
			(event) => {
				const app = el.closest(".dx-app");
				const target = /** @type {Element} */ (event.target);
				if (!app || !event.dataTransfer?.types.includes("Files")) return;
				const here = app.contains(target) && !target.closest?.(".dx-drop, .dx-extras");
				app.classList.toggle("dx-aim", here && kind === "dragover");
				if (!here || kind === "dragleave") return;
				event.preventDefault();
				event.stopPropagation();
				const [one] = kind === "drop" ? event.dataTransfer.files : [];
				if (one) void read(one).then((bytes) => model.send({ kind: "picture", name: one.name }, undefined, [bytes]));
			},
			{ signal, capture: true },
		);
	return () => {
		life.abort();
		leave();
		model.off("change:text", anew);
	};
};

export default { render: recipe };
