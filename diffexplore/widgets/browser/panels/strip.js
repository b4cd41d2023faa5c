// A strip of small pictures for every film, with a mark at the place on show.
import { MUTE, box, h, pen } from "../dom.js";
import { wordOf } from "../films.js";
import { panel } from "../panel.js";
import { lineup, placesShown, stepAt } from "../timeline.js";

panel("strip", (view) => {
	const { session } = view;
	const mark = box("dx-mark");
	const strips = h("div.dx-strips", MUTE, mark);
	/** @type {HTMLCanvasElement[]} */ const canvases = [];
	let drawn = ""; // what is shown: sizes and places
	/** @type {(ImageBitmap | null)[]} */ let pictures = []; // and pictures
	let cells = 1;

	view.on(strips, "pointerdown", (event) => {
		if (event.button !== 0 || !session.places) return;
		strips.setPointerCapture(event.pointerId);
		session.move(view.placeUnder(event));
		view.range.focus({ preventScroll: true });
		event.preventDefault();
	});
	view.on(strips, "pointermove", (event) => {
		if (strips.hasPointerCapture(event.pointerId)) session.go(view.placeUnder(event));
	});

	return {
		nodes: { strips: [strips] },
		paint() {
			const { films, places, kind } = session;
			while (canvases.length > films.length) canvases.pop()?.remove();
			while (canvases.length < films.length) {
				const canvas = h("canvas.dx-strip");
				canvases.push(canvas);
				strips.insertBefore(canvas, mark);
			}
			const width = strips.clientWidth;
			const ratio = window.devicePixelRatio || 1;
			const shown = placesShown(places, width);
			cells = shown.length;
			const cell = width / cells;
			const shape = films[0].size[0] / films[0].size[1];
			const height = Math.round(Math.min(cell / shape, 60));
			// Drawn only when a picture is new: scrubbing moves the mark and nothing else.
			const slots = films.map((film) => {
				const line = lineup(session.reference, film);
				return shown.map((place) => {
					const now = film.frames[kind]?.[line[place]];
					const old = now || !film.previous ? null : film.previous.frames[kind]?.[stepAt(place, places, film.previous.count)];
					return { bitmap: session.bitmap(now ?? old), old: !now };
				});
			});
			const key = JSON.stringify([kind, width, ratio, height, session.run, slots.map((row) => row.map(({ bitmap, old }) => [bitmap?.width, old]))]);
			const found = slots.flat().map(({ bitmap }) => bitmap);
			if (key === drawn && found.every((bitmap, j) => bitmap === pictures[j])) return;
			drawn = key;
			pictures = found;
			slots.forEach((row, k) => {
				const strip = canvases[k];
				strip.width = Math.round(width * ratio);
				strip.height = Math.round(height * ratio);
				strip.style.height = `${height}px`;
				const context = pen(strip);
				context.imageSmoothingQuality = "high";
				row.forEach(({ bitmap, old }, j) => {
					const left = Math.round((j * strip.width) / row.length);
					const right = Math.round(((j + 1) * strip.width) / row.length);
					const wide = Math.min(right - left, Math.round(strip.height * shape)) - Math.ceil(ratio);
					const x = Math.round((left + right - wide) / 2);
					if (!bitmap) {
						context.globalAlpha = 0.08;
						context.fillStyle = "#808080";
						context.fillRect(x, 0, wide, strip.height);
					} else {
						context.globalAlpha = old ? 0.25 : 1;
						context.imageSmoothingEnabled = !wordOf(kind).cells || bitmap.width > wide;
						context.drawImage(bitmap, x, 0, wide, strip.height);
					}
				});
			});
		},
		draw() {
			const { places, shown } = session;
			mark.style.left = `${(100 * Math.floor((shown * cells) / places)) / cells}%`;
			mark.style.width = `${100 / cells}%`;
		},
	};
});
