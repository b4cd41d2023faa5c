// The numbers of every step, as a table.
import { h, line } from "../dom.js";
import { madeBy } from "../films.js";
import { columnsOf } from "../numbers.js";
import { panel } from "../panel.js";

panel("table", (view) => {
	const { session } = view;
	const tables = h("div.dx-tables");
	let tabled = ""; // what is shown

	const tableOf = (/** @type {Film} */ film) => {
		const columns = columnsOf([film]);
		return h(
			"table",
			{},
			h("caption", {}, (film.label ? `${film.label}: ` : "") + madeBy(film, true)),
			h("thead", {}, line("th", "step", ...columns.map(({ head, word }) => head ?? word ?? ""))),
			h("tbody", {}, ...film.steps.map((step, i) => line("td", String(i + 1), ...columns.map(({ text }) => text(step))))),
		);
	};

	return {
		tab: { word: "Numbers", there: () => session.films.length > 0 },
		nodes: { tab: [tables] },
		draw() {
			if (view.tab !== "table") return;
			const { films, run, complete } = session;
			const key = JSON.stringify([run, complete, films.map((film) => [film.label, film.steps.length])]);
			if (key !== tabled) {
				tabled = key;
				tables.replaceChildren(...films.map(tableOf));
			}
			for (const row of tables.querySelectorAll("[aria-current]")) row.removeAttribute("aria-current");
			films.forEach((film, k) => tables.querySelectorAll("tbody")[k].rows[session.stepOf(film)]?.setAttribute("aria-current", "step"));
		},
	};
});
