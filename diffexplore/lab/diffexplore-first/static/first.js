// An extension of JupyterLab, written as its loader takes one, with no build. Only the command `diffexplore` loads it, for
// the server that it starts: there the notebook that opens is to show its first widget, with nothing to press. It runs the
// cells down to the one tagged "first-screen", once for each kernel, and brings that cell to the top.
(() => {
	const NAME = "diffexplore-first";
	const TAG = "first-screen";

	const until = async (test, patience = 60_000) => {
		const end = Date.now() + patience;
		for (;;) {
			const found = test();
			if (found || Date.now() > end) return found;
			await new Promise((done) => setTimeout(done, 50));
		}
	};

	const tagged = (cell) => {
		const tags = cell.model.getMetadata?.("tags");
		return Array.isArray(tags) && tags.includes(TAG);
	};

	async function start(app) {
		const panel = await until(() => (app.shell.currentWidget?.content?.widgets && app.shell.currentWidget?.sessionContext ? app.shell.currentWidget : null));
		if (!panel) return;
		await panel.revealed;
		await panel.context.ready;
		const cells = panel.content.widgets;
		const last = cells.findIndex(tagged);
		if (last < 0) return;
		await panel.sessionContext.ready;
		const kernel = panel.sessionContext.session?.kernel;
		if (!kernel) return;
		const top = () => cells[last].node.scrollIntoView({ block: "start" });
		top();
		const key = `${NAME}:${kernel.id}`;
		if (sessionStorage.getItem(key)) return; // a page that was loaded again: the widget is still there
		sessionStorage.setItem(key, "1");
		await kernel.info;
		for (let k = 0; k <= last; k++) {
			if (cells[k].model.type !== "code") continue;
			panel.content.deselectAll();
			panel.content.activeCellIndex = k;
			await app.commands.execute("notebook:run-cell");
		}
		await until(() => cells[last].node.querySelector(".dx-viewer"), 30_000);
		top();
	}

	const plugin = {
		id: `${NAME}:plugin`,
		autoStart: true,
		activate: (app) => void app.restored.then(() => start(app)).catch((error) => console.warn(error)),
	};
	window._JUPYTERLAB ??= {};
	window._JUPYTERLAB[NAME] = {
		init: () => Promise.resolve(),
		get: (module) => Promise.resolve(() => (module === "./extension" ? { __esModule: true, default: plugin } : {})),
	};
})();
