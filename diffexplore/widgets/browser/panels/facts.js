// The numbers of the step on show.
import { MUTE, h, say } from "../dom.js";
import { COLUMNS } from "../numbers.js";
import { panel } from "../panel.js";

panel("facts", ({ session }) => {
	const count = h("p.dx-count");
	const list = h("dl");
	const rows = COLUMNS.filter(({ word }) => word).map((column) => {
		const value = h("dd");
		const row = h("div", { title: column.title }, h("dt", {}, column.word ?? ""), value);
		const bar = h("div");
		if (column.share) row.append(h("div.dx-bar", MUTE, bar));
		list.append(row);
		return { column, row, value, bar };
	});
	return {
		nodes: { facts: [count, list] },
		draw() {
			const { films, places, shown, reference } = session;
			const step = reference.steps[shown];
			say(count, "");
			count.append("step ", h("b", {}, String(Math.min(shown + 1, places))), ` of ${places}`);
			for (const { column, row, value, bar } of rows) {
				say(value, column.text(step));
				row.hidden = Boolean(column.judged && !films[0].judged);
				if (column.share) bar.style.width = `${Math.round(100 * column.share(step))}%`;
			}
		},
	};
});
