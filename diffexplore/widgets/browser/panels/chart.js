// The curves over the scrubber, with their axis, and the choice of what they show.
import { MUTE, fill, h, option, own, svg } from "../dom.js";
import { areaOf, figures, heights, lineOf, ticksOf, tracksOf } from "../numbers.js";
import { panel } from "../panel.js";
import { lineup } from "../timeline.js";

panel("chart", (view) => {
	const { session } = view;
	const areas = h("div.dx-areas");
	const lines = svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none" });
	const axis = h("div.dx-axis");
	const chart = h("div.dx-chart", MUTE, areas, lines, axis);
	const choice = view.menu("the track shows", [], (track) => session.set({ track }));
	choice.classList.add("dx-axis-name");
	let charted = ""; // what is shown
	return {
		nodes: { scrub: [chart], tip: [choice] },
		draw() {
			const { films, places, run, reference, complete } = session;
			const tracks = tracksOf(films);
			const { name, log } = tracks.find((one) => one.name === session.track) ?? tracks[0];
			fill(choice, tracks, (one) => option(one.name, one.log ? `${one.word}, log` : one.word));
			choice.value = name;
			const key = [run, name, places, complete, ...films.map((film) => film.steps.length + film.status)].join();
			if (key === charted) return;
			charted = key;
			const rows = films.map((film) => lineup(reference, film).map((i) => session.numbers(film, i)?.[name]));
			const drawn = heights(rows, log);
			areas.replaceChildren(
				...drawn.slice(0, films.length > 1 ? 0 : 1).map((row) => {
					const area = h("i");
					area.style.clipPath = areaOf(row, places);
					return area;
				}),
			);
			lines.replaceChildren(...drawn.map((row, k) => own(svg("polyline", { points: lineOf(row, places) }), films.length > 1 ? k : -1)));
			axis.replaceChildren(
				...ticksOf(rows, log).map(({ value, at }) => {
					const tick = h("i", {}, h("span", {}, figures(value)));
					tick.style.bottom = `${(96 * at).toFixed(1)}%`;
					return tick;
				}),
			);
		},
	};
});
