// Code that makes what is shown, to take along.
import { h, say } from "../dom.js";
import { panel } from "../panel.js";

panel("copy", (view) => {
	const { session } = view;
	const code = h("pre.dx-code");
	const button = view.tool("Copy", "copy the code", () => {
		const picked = window.getSelection();
		picked?.selectAllChildren(code);
		const done = navigator.clipboard?.writeText(code.textContent ?? "") ?? Promise.reject();
		done.then(
			() => say(button, "Copied"),
			() => say(button, document.execCommand("copy") ? "Copied" : "Selected: press Ctrl+C"),
		);
	});
	return {
		tab: { word: "Copy", there: () => Boolean(session.model.get("code")) },
		nodes: { tab: [button, code] },
		draw() {
			const text = session.model.get("code") ?? "";
			if (code.textContent !== text) say(button, "Copy");
			say(code, text);
		},
	};
});
