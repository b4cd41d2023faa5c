// The area under the scrubber, and the choice of what it shows.
import { MUTE, h, option } from "../dom.js";
import { TRACKS, areaOf, heights } from "../numbers.js";
import { panel } from "../panel.js";
import { lineup } from "../timeline.js";

panel("chart", (view) => {
	const { session } = view;
	const chart = h("div.dx-chart", MUTE);
	const options = Object.entries(TRACKS).map(([name, { word }]) => option(name, word));
	const choice = view.menu("the track shows", options, (track) => session.set({ track }));
	let charted = ""; // what is shown
	return {
		nodes: { scrub: [chart], tune: [choice] },
		draw() {
			const { films, places, track, run, reference, complete } = session;
			choice.value = track;
			for (const one of options) one.hidden = Boolean(TRACKS[one.value].judged && !films[0].judged);
			const key = [run, track, places, complete, ...films.map((film) => film.steps.length + film.status)].join();
			if (key === charted) return;
			charted = key;
			const { of, log } = TRACKS[track];
			const rows = heights(films.map((film) => lineup(reference, film).map((i) => film.steps[i] && of(film.steps[i]))), log);
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
