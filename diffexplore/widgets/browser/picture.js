// A field for a picture: dropped on it, pasted into it, or chosen from files. What it is the kernel says; picture.py is its side.
import { atHome } from "./controls.js";
import { h, say } from "./dom.js";

export const MOST = 6e6; // bytes that are sent as they are: a server takes 10 MB in one message
const SIDE = 2048; // px of a picture that is larger

/**
 * The bytes of a picture file; of a large one those of a smaller picture, of what is none its own.
 * @param {Blob} file
 */
async function bytesOfFile(file) {
	if (file.size <= MOST) return file.arrayBuffer();
	const bitmap = await createImageBitmap(file).catch(() => null);
	if (!bitmap) return file.slice(0, MOST).arrayBuffer(); // it is refused for what it is
	const scale = Math.min(1, SIDE / Math.max(bitmap.width, bitmap.height));
	const canvas = new OffscreenCanvas(Math.max(1, Math.round(bitmap.width * scale)), Math.max(1, Math.round(bitmap.height * scale)));
	canvas.getContext("2d")?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
	return (await canvas.convertToBlob({ type: "image/webp", quality: 0.95 })).arrayBuffer();
}

/**
 * @param {{model: Model & {send(content: unknown, callbacks?: unknown, buffers?: ArrayBuffer[]): void}, el: HTMLElement}} host
 * @param {(file: File) => Promise<ArrayBuffer>} read
 */
export const field = ({ model, el }, read = bytesOfFile) => {
	const life = new AbortController();
	const { signal } = life;
	const file = h("input.dx-file", { type: "file", accept: "image/*", "aria-label": "choose a picture" });
	const thumb = h("img.dx-given", { alt: "" });
	const about = h("span.dx-given-told", { role: "status" });
	const face = h("label.dx-drop", {}, file, thumb, about);
	face.tabIndex = -1;
	el.append(face);
	let url = "";
	const show = () => {
		URL.revokeObjectURL(url);
		/** @type {DataView} */ const data = model.get("thumb");
		url = data.byteLength ? URL.createObjectURL(new Blob([/** @type {any} */ (data)], { type: "image/png" })) : "";
		thumb.hidden = !url;
		if (url) thumb.src = url;
		say(about, model.get("about"));
		face.title = model.get("about");
	};
	/** @param {Iterable<File> | null | undefined} files */
	const take = async (files) => {
		const [one] = files ?? [];
		if (one) model.send({ kind: "picture", name: one.name }, undefined, [await read(one)]);
	};
	/** @param {DragEvent} event */
	const over = (event) => {
		if (!event.dataTransfer?.types.includes("Files")) return;
		event.preventDefault();
		face.classList.toggle("dx-over", event.type !== "drop");
	};
	file.addEventListener(
		"change",
		() => {
			void take(file.files);
			file.value = ""; // the same one may be chosen again
		},
		{ signal },
	);
	for (const kind of /** @type {const} */ (["dragover", "dragenter"])) face.addEventListener(kind, over, { signal });
	face.addEventListener("dragleave", () => face.classList.remove("dx-over"), { signal });
	face.addEventListener(
		"drop",
		(event) => {
			over(event);
			event.stopPropagation();
			void take(event.dataTransfer?.files);
		},
		{ signal },
	);
	// A paste belongs to whatever has the focus: where that is in this widget, a picture is for this field.
	document.addEventListener(
		"paste",
		(event) => {
			const app = el.closest(".dx-app") ?? el;
			const files = [...(event.clipboardData?.files ?? [])].filter(({ type }) => type.startsWith("image/"));
			if (!files.length || !app.contains(document.activeElement)) return;
			event.preventDefault();
			event.stopPropagation();
			void take(files);
		},
		{ signal, capture: true },
	);
	for (const name of ["thumb", "about"]) model.on(`change:${name}`, show);
	show();
	const seen = atHome(el);
	return () => {
		life.abort();
		seen.disconnect();
		URL.revokeObjectURL(url);
		for (const name of ["thumb", "about"]) model.off(`change:${name}`, show);
	};
};

export default { render: (/** @type {any} */ host) => field(host) };
