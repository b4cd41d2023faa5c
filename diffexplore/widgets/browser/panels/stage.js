// The picture of every film at the place on show, zoomed, and compared with one of them.
import { MUTE, box, call, fill, h, icon, own, paint, pen, say } from "../dom.js";
import { unitOf, wordOf } from "../films.js";
import { chosenOf, lay } from "../looks.js";
import { duration, took } from "../numbers.js";
import { panel } from "../panel.js";
import { numberOf } from "../reel.js";
import { STRONG, strength } from "../strength.js";
import { lengthOf, panned } from "../timeline.js";

const STILL = 4; // px that a hand may tremble in a click
const TWICE = 250; // ms in which a second click makes a double one

panel("stage", (view) => {
	const { session } = view;
	const stage = box("dx-stage");
	const as = h("button", { type: "button", class: "dx-strong" }, "strength");
	view.on(as, "click", () => session.set({ strong: { ...session.strong, [session.kind]: !session.strong[session.kind] } }));

	// A click enlarges; in what is zoomed, a hand drags. A wheel belongs to the notebook.
	let down = { x: 0, y: 0 };
	let closing = 0;
	view.signal.addEventListener("abort", () => clearTimeout(closing));
	view.on(stage, "dblclick", (event) => {
		clearTimeout(closing);
		view.magnify(session.zoom.scale < 8 ? 2 : 0, event);
	});
	view.on(stage, "pointerdown", (event) => {
		down = { x: event.clientX, y: event.clientY };
		if (event.button === 0 && session.zoom.scale > 1 && onPicture(event)) stage.setPointerCapture(event.pointerId);
	});
	view.on(stage, "pointermove", (event) => {
		if (!stage.hasPointerCapture(event.pointerId)) return;
		const { clientWidth, clientHeight } = screens[0].canvas;
		session.set({ zoom: panned(session.zoom, event.movementX / clientWidth, event.movementY / clientHeight) });
	});
	view.on(stage, "click", (event) => {
		const k = screens.findIndex(({ screen }) => screen.contains(/** @type {Node} */ (event.target)));
		if (k < 0 || !onPicture(event) || !session.films.length || Math.hypot(event.clientX - down.x, event.clientY - down.y) > STILL) return;
		clearTimeout(closing);
		if (view.enlarged < 0) view.set({ enlarged: k });
		else if (event.detail < 2) closing = window.setTimeout(() => view.set({ enlarged: -1 }), TWICE);
	});

	/** @param {MouseEvent} event */
	const onPicture = (event) => !(/** @type {Element} */ (event.target).closest("button, input"));

	const screenOf = () => {
		const canvas = h("canvas", { role: "img" });
		const why = h("p.dx-why");
		const cut = h("input.dx-swipe", { type: "range", min: "0", max: "100", step: "any" });
		view.on(cut, "input", () => session.set({ cut: cut.valueAsNumber / 100 }));
		view.on(cut, "keydown", (event) => {
			const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
			if (!by) return;
			event.preventDefault();
			session.set({ cut: Math.max(0, Math.min(1, Math.round(100 * session.cut + by) / 100)) });
		});
		const legend = h("ul.dx-legend", { ...MUTE, hidden: "" });
		const screen = box("dx-screen", canvas, why, legend);
		const name = h("b.dx-name");
		const facts = h("span.dx-told", {}, h("span"), h("span"), h("span")); // the last are left out where they do not fit
		const pin = h("button", { type: "button", class: "dx-pin", title: "compare the others with this one", "aria-label": "pin" }, icon("M5 2h6M6.5 2v5L4 9.5h8L9.5 7V2M8 9.5V14"), h("span", {}, "pin"));
		const label = h("figcaption", {}, name, facts, pin);
		const figure = h("figure", {}, screen, label);
		const made = { figure, screen, canvas, why, legend, cut, label, name, facts, pin };
		view.on(pin, "click", () => session.set({ pin: view.seats[screens.indexOf(made)].k }));
		stage.append(figure);
		return made;
	};
	/** @type {ReturnType<typeof screenOf>[]} */ const screens = [];

	/** Have the handle of the swipe on a picture, or not. */
	const swiped = (/** @type {ReturnType<typeof screenOf>} */ { screen, cut }, /** @type {boolean} */ on) => {
		if (on !== cut.isConnected) on ? screen.append(cut) : cut.remove();
	};

	/** The other film's picture, over a part of this one or taken from it. */
	const against = (/** @type {HTMLCanvasElement} */ canvas, /** @type {Picture} */ other, /** @type {boolean} */ apart) => {
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

	/** A picture as it is wanted: itself, or how strong it is. */
	const wanted = (/** @type {Slot | undefined} */ slot) => {
		const bitmap = session.bitmap(slot);
		return bitmap && session.strong[session.kind] && STRONG.has(session.kind) && !as.hidden ? strength(bitmap) : bitmap;
	};

	const drawFilm = (/** @type {ReturnType<typeof screenOf>} */ one, /** @type {Film} */ film) => {
		const { kind, base, mode } = session;
		const { canvas, why, facts, figure, cut, label } = one;
		const i = session.stepOf(film);
		const slot = session.picture(film, kind);
		const bitmap = wanted(slot);
		say(why, typeof slot === "string" ? slot : "");
		// Not there yet: what the canvas shows stays.
		const apart = mode === "difference";
		const other = base && base !== film ? wanted(session.picture(base, kind)) : null;
		if (bitmap) paint(canvas, bitmap, session.squares(kind), session.zoom);
		else if (typeof slot === "string") paint(canvas, null, true);
		if (bitmap && other) against(canvas, other, apart);
		else if (bitmap) lay(canvas, session, film);
		const words = chosenOf(session, film);
		fill(one.legend, words, ({ word, k }) => {
			const item = h("li", {}, word);
			item.style.setProperty("--dx-own", `var(--dx-w${k})`);
			return item;
		});
		swiped(one, mode === "swipe" && other !== null);
		cut.ariaLabel = film.label ? `swipe, ${film.label}` : "swipe";
		cut.value = String(100 * session.cut);
		canvas.ariaLabel = `${other ? `${apart ? "difference from" : "swipe with"} ${base?.label}: ` : ""}${wordOf(kind).word} at step ${i + 1} of ${lengthOf(film)}${film.reel ? `, frame ${numberOf(film, session.at, session.frames) + 1} of ${film.reel.frames}` : ""}${film.label ? `, ${film.label}` : ""}${words.length ? `, with where ${words.map(({ word }) => word).join(" and ")} look` : ""}`;
		if (!view.many) return;
		const spent = film.steps.slice(0, i + 1).reduce((sum, step) => sum + (step?.seconds ?? 0), 0);
		const adherence = session.numbers(film)?.adherence;
		const parts = [`${i + 1}/${lengthOf(film)}`, took(spent), adherence == null ? "" : `shows ${adherence.toFixed(2)}`];
		parts.forEach((part, j) => say(facts.children[j], j && part ? ` · ${part}` : part));
		label.title = `${film.label}: ${unitOf(film)} ${i + 1} of ${lengthOf(film)}, after ${duration(spent)}${adherence == null ? "" : `, adherence ${adherence.toFixed(2)}`}`;
		figure.classList.toggle("dx-pinned", film === session.pinned);
		one.pin.ariaPressed = String(film === session.pinned);
	};

	return {
		nodes: { stage: [stage] },
		paint() {
			const { films, kind } = session;
			const { seats } = view;
			while (screens.length > seats.length) screens.pop()?.figure.remove();
			while (screens.length < seats.length) screens.push(screenOf());
			screens[0].screen.append(as);
			const moves = films.some(({ reel, sound }) => reel || sound);
			stage.style.setProperty("--dx-shape", String(moves ? seats[0].shape : 1));
			seats.forEach((seat, n) => {
				const one = screens[n];
				const film = films[seat.k];
				const { figure } = one;
				figure.className = `${film ? "dx-film" : "dx-wait"}${view.enlarged === n ? " dx-large" : ""}`;
				figure.style.setProperty("--dx-shape", String(seat.shape));
				own(figure, n);
				call(one.name, seat.label);
				one.label.hidden = !view.many;
				one.pin.hidden = !film;
				if (film) {
					drawFilm(one, film);
					const i = session.stepOf(film);
					// The neighbours are decoded ahead, so that scrubbing and playing find them ready.
					for (const next of [i + 1, i - 1, i + 2]) session.bitmap(session.slot(film, kind, next));
					for (const next of session.frames ? [1, 2] : []) session.bitmap(session.slot(film, kind, i, (session.at + next) % session.frames));
				} else {
					paint(one.canvas, null, true);
					fill(one.legend, [], () => one.label);
					one.canvas.ariaLabel = "no picture yet";
					one.label.title = seat.label;
					swiped(one, false);
					for (const fact of one.facts.children) say(fact, "");
					say(one.why, films.length ? "Not drawn yet." : "No run yet.");
				}
				one.why.hidden = !one.why.textContent;
			});
		},
		draw() {
			stage.classList.toggle("dx-zoomed", session.zoom.scale > 1);
			view.root.classList.toggle("dx-enlarged", view.enlarged >= 0 && view.enlarged < screens.length);
			as.hidden = !STRONG.has(session.kind) || !session.films.length || session.films.some(({ sound }) => sound);
			as.ariaPressed = String(Boolean(session.strong[session.kind]));
			as.title = `how strong the ${wordOf(session.kind).word.toLowerCase()} is, whatever its colour: dark is none, bright is most`;
		},
	};
});
