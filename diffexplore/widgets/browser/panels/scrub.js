// The scrubber, and what the pointer is over.
import { MUTE, h, say } from "../dom.js";
import { COLUMNS, spoken } from "../numbers.js";
import { panel } from "../panel.js";

panel("scrub", (view) => {
	const { id, session, track, timeline, places: put } = view;
	const range = h("input", { type: "range", id: `${id}-step`, min: "1", max: "1", step: "1", value: "1" });
	view.on(range, "input", () => session.move(range.valueAsNumber - 1));
	const tip = h("div.dx-tip", { ...MUTE, hidden: "" });
	const told = ["timestep", "sigma", "snr", "seconds"].flatMap((name) => COLUMNS.find((column) => column.name === name) ?? []);

	for (const node of [put.strips, put.scrub]) {
		view.on(node, "pointermove", (event) => {
			const place = view.placeUnder(event);
			const step = session.reference?.steps[place];
			tip.hidden = !step || event.pointerType === "touch";
			if (!step) return;
			const numbers = told.map(({ name, word, head, text }) => (name === "seconds" ? text(step) : `${head ?? word} ${text(step)}`));
			say(tip, [`step ${place + 1}`, ...numbers].join(" · "));
			const half = tip.offsetWidth / 2;
			const width = track.clientWidth;
			tip.style.left = `${Math.max(half, Math.min((width * (place + 0.5)) / session.places, width - half))}px`;
		});
		view.on(node, "pointerleave", () => void (tip.hidden = true));
	}

	return {
		nodes: { scrub: [h("label.dx-hidden", { for: `${id}-step` }, "step"), range], tip: [tip] },
		draw() {
			const { shown, reference } = session;
			const places = session.places || view.seats[0].steps;
			range.disabled = !session.places;
			range.max = String(places);
			range.valueAsNumber = shown + 1;
			range.ariaValueText = session.places ? spoken(shown, places, session.numbers(reference)) : "no steps yet";
			timeline.style.setProperty("--dx-cell", `${100 / places}%`);
			timeline.style.setProperty("--dx-done", `${places < 2 ? 100 : (100 * shown) / (places - 1)}%`);
		},
	};
});
