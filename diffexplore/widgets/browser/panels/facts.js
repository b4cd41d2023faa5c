// The numbers of the step on show.
import { MUTE, h, say } from "../dom.js";
import { columnsOf } from "../numbers.js";
import { panel } from "../panel.js";

panel("facts", (view) => {
	const { session } = view;
	const at = h("b");
	const of = h("span");
	const count = h("p.dx-count", {}, "step ", at, of);
	const list = h("dl");
	const rowOf = (/** @type {Column} */ column) => {
		const value = h("dd");
		const term = h("dt", {}, column.word ?? "");
		const row = h("div", { title: column.title }, term, value);
		const bar = h("div");
		if (column.share) row.append(h("div.dx-share", MUTE, bar));
		return { column, row, term, value, bar };
	};
	/** @type {ReturnType<typeof rowOf>[]} */ let rows = [];
	let listed = ""; // which columns the rows are of
	return {
		tab: { word: "This step", many: false },
		nodes: { tab: [h("div.dx-facts", {}, count, list)] },
		draw() {
			const { films, places, shown, reference } = session;
			const step = reference && session.numbers(reference);
			say(at, places ? String(Math.min(shown + 1, places)) : "–");
			say(of, ` of ${places || view.seats[0].steps}`);
			const columns = columnsOf(films).filter(({ word, judged, group }) => word && !group && (!judged || films[0]?.judged));
			const key = JSON.stringify(columns);
			if (key !== listed) {
				listed = key;
				rows = columns.map(rowOf);
				list.replaceChildren(...rows.map(({ row }) => row));
			}
			for (const { column, row, term, value, bar } of rows) {
				if (column.judged) {
					say(term, `${column.word}, ${films[0]?.judged}`);
					row.title = `${column.title}; judges ${films[0]?.judged} of the prompt, and a dash where it has words that the judge cannot know`;
				}
				say(value, step ? column.text(step) : "–");
				if (column.share) bar.style.width = step ? `${Math.round(100 * column.share(step))}%` : "0";
			}
		},
	};
});
