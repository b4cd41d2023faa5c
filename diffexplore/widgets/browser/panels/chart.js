// The area under the scrubber, and the choice of what it shows.
import { MUTE, fill, h, option } from "../dom.js";
import { areaOf, heights, tracksOf } from "../numbers.js";
import { panel } from "../panel.js";
import { lineup } from "../timeline.js";

panel("chart", (view) => {
	const { session } = view;
	const chart = h("div.dx-chart", MUTE);
	const choice = view.menu("the track shows", [], (track) => session.set({ track }));
	let charted = ""; // what is shown
	return {
		nodes: { scrub: [chart], tune: [choice] },
		draw() {
			const { films, places, run, reference, complete } = session;
			const tracks = tracksOf(films);
			const { name, log } = tracks.find((one) => one.name === session.track) ?? tracks[0];
			fill(choice, tracks, (one) => option(one.name, one.word));
			choice.value = name;
			const key = [run, name, places, complete, ...films.map((film) => film.steps.length + film.status)].join();
			if (key === charted) return;
			charted = key;
			const rows = heights(films.map((film) => lineup(reference, film).map((i) => film.steps[i]?.[name])), log);
			chart.replaceChildren(
				...rows.map((row) => {
					const area = h("i");
					area.style.clipPath = areaOf(row, places);
					return area;
				}),
			);
		},
	};
});
