// A brush on the latents of a step: what is painted is a bit for each of them. reach.py is the kernel's side.
import { box, h, option, paint, pen, say } from "./dom.js";

/** @typedef {{node: HTMLElement, draw(film: Film, others: [string, string][]): void, told(): Record<string, unknown> | undefined}} Brush */

/** @type {Record<string, [word: string, title: string]>} */
const BRUSHES = {
	noise: ["other noise", "put other noise of the same strength there"],
	erase: ["erase", "take away what the model takes for the picture there, and leave the noise"],
	poke: ["poke", "add a value there, in sizes of the latents"],
};
const WIDTHS = [1 / 16, 1 / 8, 1 / 4, 1 / 2]; // widths of the brush, of the shorter side

/**
 * Bits, eight to a byte, as base64.
 * @param {Uint8Array} bits
 */
export function packed(bits) {
	const bytes = new Uint8Array(Math.ceil(bits.length / 8));
	bits.forEach((bit, k) => (bytes[k >> 3] |= bit ? 0x80 >> (k & 7) : 0));
	return btoa(String.fromCharCode(...bytes));
}

/**
 * The latents that a round brush covers at one of them.
 * @param {number} x
 * @param {number} y
 * @param {number} wide of the brush, in latents
 * @param {number} width of the picture, in latents
 * @param {number} height
 */
export function under(x, y, wide, width, height) {
	const found = [];
	const reach = Math.max(1, wide) / 2 + 0.25; // so that no size leaves gaps
	for (let v = Math.max(0, Math.ceil(y - reach)); v <= Math.min(height - 1, y + reach); v++)
		for (let u = Math.max(0, Math.ceil(x - reach)); u <= Math.min(width - 1, x + reach); u++) if (Math.hypot(u - x, v - y) < reach) found.push(v * width + u);
	return found;
}

/**
 * @param {View} view
 * @returns {Brush}
 */
export function brushOf(view) {
	const { session } = view;
	let [width, height] = [0, 0];
	let bits = new Uint8Array(0);
	let cursor = { x: 0, y: 0 };
	let last = cursor; // where the hand was
	const canvas = h("canvas.dx-easel", { tabindex: "0", role: "application", "aria-label": "latents of this step, to paint on: arrows move, Space paints, Shift and Space rubs out, Delete clears" });
	const tool = view.menu("what the brush does", [], () => view.redraw());
	const size = view.menu("size of the brush", ["fine", "small", "large", "broad"].map((word, k) => option(String(k), word)), () => view.redraw());
	size.value = "1";
	const number = h("input", { type: "number", class: "dx-amount", "aria-label": "how much" });
	const rub = view.tool("rub out", "the brush takes away what was painted (or hold Shift)", () => {
		rub.ariaPressed = String(rub.ariaPressed !== "true");
	}, { "aria-pressed": "false" });
	const clear = view.tool("clear", "take away all that was painted", () => wipe());
	const says = h("p.dx-says", { role: "status" });
	const node = box("dx-brush", canvas, box("dx-brushes", tool, size, number, rub, clear, says));

	const wipe = () => {
		bits = new Uint8Array(width * height);
		view.redraw();
	};
	const stroke = (/** @type {{x: number, y: number}} */ to, /** @type {boolean} */ away) => {
		const far = Math.max(1, Math.abs(to.x - last.x), Math.abs(to.y - last.y));
		for (let k = 0; k <= far; k++) {
			const x = Math.round(last.x + ((to.x - last.x) * k) / far);
			const y = Math.round(last.y + ((to.y - last.y) * k) / far);
			for (const at of under(x, y, WIDTHS[Number(size.value)] * Math.min(width, height), width, height)) bits[at] = Number(!away);
		}
		last = cursor = to;
		view.redraw();
	};
	const placed = (/** @type {PointerEvent} */ event) => {
		const { left, top, width: wide, height: tall } = canvas.getBoundingClientRect();
		const within = (/** @type {number} */ share, /** @type {number} */ count) => Math.max(0, Math.min(count - 1, Math.floor(share * count)));
		return { x: within((event.clientX - left) / wide, width), y: within((event.clientY - top) / tall, height) };
	};
	const rubs = (/** @type {MouseEvent | KeyboardEvent} */ event) => event.shiftKey || rub.ariaPressed === "true";
	view.on(canvas, "pointerdown", (event) => {
		if (event.button !== 0 || !width) return;
		canvas.setPointerCapture(event.pointerId);
		last = placed(event);
		stroke(last, rubs(event));
	});
	view.on(canvas, "pointermove", (event) => {
		if (canvas.hasPointerCapture(event.pointerId)) stroke(placed(event), rubs(event));
	});
	view.on(canvas, "keydown", (event) => {
		/** @type {Record<string, [number, number]>} */ const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
		const by = arrows[event.key];
		if (by) cursor = last = { x: Math.max(0, Math.min(width - 1, cursor.x + by[0])), y: Math.max(0, Math.min(height - 1, cursor.y + by[1])) };
		else if (event.key === " ") stroke(cursor, rubs(event));
		else if (event.key === "Delete" || event.key === "Backspace") wipe();
		else return;
		event.preventDefault();
		view.redraw();
	});
	view.on(number, "keydown", (event) => event.stopPropagation());
	for (const name of /** @type {const} */ (["focus", "blur"])) view.on(canvas, name, () => view.redraw());
	view.on(tool, "change", () => {
		if (tool.value === "poke") number.value = "1.5";
		if (tool.value === "noise") number.value = "1";
	});

	/** What is painted bright, the rest dim, with a line between the two. */
	const overlay = () => {
		const context = pen(canvas);
		const [wide, tall] = [canvas.width / width, canvas.height / height];
		const inside = (/** @type {number} */ x, /** @type {number} */ y) => x >= 0 && y >= 0 && x < width && y < height && bits[y * width + x];
		context.save();
		context.lineWidth = Math.max(1, window.devicePixelRatio);
		context.strokeStyle = "#fff";
		context.fillStyle = "rgb(0 0 0 / 60%)";
		context.beginPath();
		for (let y = 0; y < height && bits.includes(1); y++)
			for (let x = 0; x < width; x++) {
				if (!inside(x, y)) {
					context.fillRect(x * wide, y * tall, wide, tall);
					continue;
				}
				if (!inside(x, y - 1)) (context.moveTo(x * wide, y * tall), context.lineTo((x + 1) * wide, y * tall));
				if (!inside(x, y + 1)) (context.moveTo(x * wide, (y + 1) * tall), context.lineTo((x + 1) * wide, (y + 1) * tall));
				if (!inside(x - 1, y)) (context.moveTo(x * wide, y * tall), context.lineTo(x * wide, (y + 1) * tall));
				if (!inside(x + 1, y)) (context.moveTo((x + 1) * wide, y * tall), context.lineTo((x + 1) * wide, (y + 1) * tall));
			}
		context.stroke();
		if (canvas.matches(":focus-visible")) {
			const broad = Math.max(1, WIDTHS[Number(size.value)] * Math.min(width, height));
			context.lineWidth *= 2;
			context.strokeStyle = "#ffb020";
			context.strokeRect((cursor.x + 0.5 - broad / 2) * wide, (cursor.y + 0.5 - broad / 2) * tall, broad * wide, broad * tall);
		}
		context.restore();
	};

	return {
		node,
		draw(film, others) {
			const moves = Boolean(film.reel || film.sound);
			for (const one of [canvas, tool, size, rub, clear]) one.hidden = moves;
			number.hidden = moves || !["poke", "noise"].includes(tool.value);
			if (moves) return say(says, "Only latents of pictures can be painted on.");
			const words = [...Object.entries(BRUSHES), ...others.map(([value, word]) => [value, [word, "put there what that run has at the same share of noise"]])];
			const key = JSON.stringify(words);
			if (tool.dataset.key !== key) {
				const before = tool.value;
				tool.replaceChildren(.../** @type {[string, [string, string]][]} */ (words).map(([value, [word]]) => option(value, word)));
				tool.value = words.some(([value]) => value === before) ? before : "noise";
				tool.dataset.key = key;
				number.value ||= "1";
			}
			tool.title = BRUSHES[tool.value]?.[1] ?? "put there what that run has at the same share of noise";
			const poke = tool.value === "poke";
			number.step = poke ? "0.5" : "1";
			number.title = number.ariaLabel = poke ? "how much is added, in sizes of the latents" : "seed of the noise";
			const slot = session.slot(film, "latents", session.stepOf(film));
			const bitmap = session.bitmap(slot);
			if (!bitmap) return;
			if (bitmap.width !== width || bitmap.height !== height) {
				({ width, height } = bitmap);
				bits = new Uint8Array(width * height);
				cursor = last = { x: width >> 1, y: height >> 1 };
				canvas.style.setProperty("--dx-shape", String(width / height));
			}
			paint(canvas, bitmap, true);
			overlay();
			const share = bits.reduce((sum, bit) => sum + bit, 0) / bits.length;
			say(says, share ? `${Number((100 * share).toPrecision(2))} % painted` : "paint on the latents");
		},
		told() {
			if (!bits.includes(1)) return undefined;
			const [name, node] = tool.value.split(" ");
			const value = number.valueAsNumber;
			return {
				tool: name,
				size: [height, width],
				bits: packed(bits),
				...(name === "poke" && Number.isFinite(value) ? { amount: value } : {}),
				...(name === "noise" && Number.isInteger(value) ? { seed: value } : {}),
				...(node ? { node: Number(node) } : {}),
			};
		},
	};
}
