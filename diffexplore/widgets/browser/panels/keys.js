// Which keys do what.
import { h } from "../dom.js";
import { panel } from "../panel.js";

const KEYS = [
	["← →", "a step back, on"],
	["Space", "play"],
	["1 – 5", "the views"],
	["[ ]", "slower, faster"],
	["+ − 0", "zoom"],
	["Shift+← →", "move it"],
	["e", "enlarge"],
	["f", "whole screen"],
	["l", "live"],
	["Ctrl+Enter", "run"],
	["Esc", "back"],
];

panel("keys", () => ({
	nodes: { menu: [h("dl.dx-keys", {}, ...KEYS.map(([key, what]) => h("div", {}, h("dt", {}, key), h("dd", {}, what))))] },
}));
