// What the pointer is over in the strips of a video, larger and moving.
import { MUTE, box, h, paint } from "../dom.js";
import { panel } from "../panel.js";
import { Roll } from "../reel.js";
import { lineup } from "../timeline.js";

panel("peek", (view) => {
	const { session, track, places } = view;
	const canvas = h("canvas");
	const peek = box("dx-peek", canvas);
	peek.ariaHidden = MUTE["aria-hidden"];
	peek.hidden = true;
	let place = 0;
	let n = 0; // of the seats
	const draw = () => {
		const film = session.films[view.seats[n]?.k];
		if (!film || peek.hidden) return;
		const i = lineup(session.reference, film)[place] ?? 0;
		const at = roll.at < 0 ? session.still : roll.at;
		for (const next of [at + 1, at + 2]) session.bitmap(session.slot(film, session.kind, i, next % session.frames));
		const bitmap = session.bitmap(session.picture(film, session.kind, { at, i, place: "peek " }));
		if (bitmap) paint(canvas, bitmap, session.squares(session.kind));
	};
	const roll = new Roll(session, draw);
	view.signal.addEventListener("abort", () => roll.stop());
	view.on(places.strips, "pointermove", (event) => {
		if (!session.frames || event.pointerType === "touch") return;
		const { top, height } = places.strips.getBoundingClientRect();
		n = Math.max(0, Math.min(view.seats.length - 1, Math.floor(((event.clientY - top) / height) * view.seats.length)));
		place = view.placeUnder(event);
		peek.hidden = false;
		peek.style.setProperty("--dx-shape", String(view.seats[n].shape));
		const half = peek.offsetWidth / 2;
		const width = track.clientWidth;
		peek.style.left = `${Math.max(half, Math.min((width * (place + 0.5)) / session.places, width - half))}px`;
		roll.start();
		draw();
	});
	view.on(places.strips, "pointerleave", () => {
		roll.stop();
		peek.hidden = true;
	});
	return { nodes: { tip: [peek] }, paint: draw };
});
