// A strip of small pictures for every film, with a mark at the place on show.
import { MUTE, box, call, fill, h, own, pen } from "../dom.js";
import { wordOf } from "../films.js";
import { panel } from "../panel.js";
import { lineup, placesShown } from "../timeline.js";

const GAP = 3; // px between the strips of several films

panel("strip", (view) => {
	const { session } = view;
	const mark = box("dx-mark");
	const tags = box("dx-tags");
	const strips = h("div.dx-strips", MUTE, mark);
	/** @type {HTMLCanvasElement[]} */ const canvases = [];
	let drawn = ""; // what is shown: sizes
	/** @type {(ImageBitmap | null | undefined)[][]} */ let pictures = []; // and pictures, of each strip; undefined: not ready
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
		nodes: { strips: [strips], left: [tags] },
		paint() {
			const { films, kind } = session;
			const { seats } = view;
			const places = session.places || seats[0].steps;
			while (canvases.length > seats.length) canvases.pop()?.remove();
			while (canvases.length < seats.length) {
				const canvas = h("canvas.dx-strip");
				canvases.push(canvas);
				strips.insertBefore(canvas, mark);
			}
			const width = strips.clientWidth;
			const ratio = window.devicePixelRatio || 1;
			const shown = placesShown(places, width);
			cells = shown.length;
			const cell = width / cells;
			const { shape } = seats[0];
			const height = Math.max(1, (strips.clientHeight - GAP * (seats.length - 1)) / seats.length);
			// Drawn only where a picture is new: scrubbing moves the mark and nothing else.
			const found = seats.map(({ k }) => {
				const film = films[k];
				if (!film) return shown.map(() => null);
				const line = lineup(session.reference, film);
				return shown.map((place) => {
					const slot = session.slot(film, kind, line[place], session.still);
					return slot && typeof slot === "object" ? (session.bitmap(slot) ?? undefined) : null;
				});
			});
			const size = JSON.stringify([width, ratio, height, cells, seats.length]);
			const anew = size !== drawn;
			drawn = size;
			found.forEach((row, k) => {
				const strip = canvases[k];
				if (anew) {
					strip.width = Math.round(width * ratio);
					strip.height = Math.round(height * ratio);
					strip.style.height = `${height}px`;
				}
				const context = pen(strip);
				context.imageSmoothingQuality = "high";
				row.forEach((bitmap, j) => {
					if (!anew && (bitmap === undefined || bitmap === pictures[k][j])) return; // what is shown stays until there is another
					const left = Math.round((j * strip.width) / row.length);
					const right = Math.round(((j + 1) * strip.width) / row.length);
					const wide = Math.min(right - left, Math.round(strip.height * shape)) - Math.ceil(ratio);
					const high = Math.min(strip.height, Math.round(wide / shape));
					const x = Math.round((left + right - wide) / 2);
					const y = Math.round((strip.height - high) / 2);
					if (bitmap) {
						context.imageSmoothingEnabled = !wordOf(kind).cells || bitmap.width > wide;
						context.drawImage(bitmap, x, y, wide, high);
					} else {
						context.clearRect(left, 0, right - left, strip.height);
						context.fillStyle = "rgb(128 128 128 / 10%)";
						context.fillRect(x, y, wide, high);
					}
				});
			});
			pictures = found;
		},
		draw() {
			const { places, shown } = session;
			const { seats } = view;
			fill(tags, view.many ? seats.map(({ label }) => label) : [], (label, k) => {
				const tag = own(h("div.dx-tag", { title: label }, h("b")), k);
				call(/** @type {HTMLElement} */ (tag.firstElementChild), label);
				return tag;
			});
			mark.hidden = !places;
			mark.style.left = `${(100 * Math.floor((shown * cells) / (places || 1))) / cells}%`;
			mark.style.width = `${100 / cells}%`;
		},
	};
});
