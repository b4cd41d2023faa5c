// The picture of every film at the place on show, zoomed, and compared with one of them.
import { box, h, paint, pen, say } from "../dom.js";
import { unitOf, wordOf } from "../films.js";
import { duration } from "../numbers.js";
import { panel } from "../panel.js";
import { lengthOf, panned } from "../timeline.js";

panel("stage", (view) => {
	const { session } = view;
	const stage = box("dx-stage");
	/** @type {{canvas: HTMLCanvasElement, why: HTMLElement, label: HTMLElement, figure: HTMLElement}[]} */
	const screens = [];

	// Zoom: double click, drag. A wheel belongs to the notebook.
	view.on(stage, "dblclick", (event) => view.magnify(session.zoom.scale < 8 ? 2 : 0, event));
	view.on(stage, "pointerdown", (event) => {
		if (event.button === 0 && session.zoom.scale > 1) stage.setPointerCapture(event.pointerId);
	});
	view.on(stage, "pointermove", (event) => {
		if (!stage.hasPointerCapture(event.pointerId)) return;
		const { clientWidth, clientHeight } = screens[0].canvas;
		session.set({ zoom: panned(session.zoom, event.movementX / clientWidth, event.movementY / clientHeight) });
	});

	const furnish = (/** @type {number} */ count) => {
		while (screens.length > count) screens.pop()?.figure.remove();
		while (screens.length < count) {
			const canvas = h("canvas", { role: "img" });
			const why = h("p.dx-why");
			const label = h("figcaption");
			const figure = h("figure.dx-film", {}, box("dx-screen", canvas, why), label);
			stage.append(figure);
			screens.push({ figure, canvas, why, label });
		}
		view.figures = screens.map(({ figure }) => figure);
	};

	/** The other film's picture, over a part of this one or taken from it. */
	const against = (/** @type {HTMLCanvasElement} */ canvas, /** @type {ImageBitmap} */ other, /** @type {boolean} */ apart) => {
		const context = pen(canvas);
		context.save();
		context.beginPath();
		context.rect(0, 0, canvas.width * (apart ? 1 : session.cut), canvas.height);
		context.clip();
		if (apart) context.globalCompositeOperation = "difference";
		paint(canvas, other, session.squares(session.kind), session.zoom);
		context.globalCompositeOperation = "lighter"; // the canvas on itself: twice as bright, each time
		for (let k = 0; apart && k < 2; k++) context.drawImage(canvas, 0, 0);
		context.restore();
	};

	const drawFilm = (/** @type {Film} */ film, /** @type {number} */ k) => {
		const { kind, base } = session;
		const { canvas, why, label, figure } = screens[k];
		const i = session.stepOf(film);
		const slot = film.frames[kind]?.[i];
		const bitmap = session.bitmap(slot);
		figure.style.setProperty("--dx-shape", String(film.size[0] / film.size[1]));
		say(why, typeof slot === "string" ? slot : "");
		why.hidden = typeof slot !== "string";
		// Not there yet: what the canvas shows stays, paler where it belongs to another run.
		figure.classList.toggle("dx-stale", !bitmap && typeof slot !== "string" && film.previous !== null);
		const apart = session.versus % 2 > 0;
		const other = base && base !== film ? session.bitmap(base.frames[kind]?.[session.stepOf(base)]) : null;
		if (bitmap) paint(canvas, bitmap, session.squares(kind), session.zoom);
		else if (typeof slot === "string") paint(canvas, null, true);
		if (bitmap && other) against(canvas, other, apart);
		canvas.ariaLabel = `${other ? `${apart ? "difference from" : "swipe with"} ${base?.label}: ` : ""}${wordOf(kind).word} at step ${i + 1} of ${lengthOf(film)}${film.label ? `, ${film.label}` : ""}`;
		const spent = film.steps.slice(0, i + 1).reduce((sum, step) => sum + (step?.seconds ?? 0), 0);
		const adherence = film.steps[i]?.adherence;
		const judged = adherence == null ? "" : `, adherence ${adherence.toFixed(2)}`;
		say(label, session.films.length < 2 ? film.label : `${film.label}: ${unitOf(film)} ${i + 1} of ${lengthOf(film)}, after ${duration(spent)}${judged}`);
		label.hidden = !film.label;
		// The neighbours are decoded ahead, so that scrubbing and playing find them ready.
		for (const next of [i + 1, i - 1, i + 2]) session.bitmap(film.frames[kind]?.[next]);
	};

	return {
		nodes: { main: [stage] },
		paint() {
			furnish(session.films.length);
			session.films.forEach(drawFilm);
		},
		draw: () => void stage.classList.toggle("dx-zoomed", session.zoom.scale > 1),
	};
});
