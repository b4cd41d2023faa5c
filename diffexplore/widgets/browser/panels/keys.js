// Which keys do what.
import { h } from "../dom.js";
import { panel } from "../panel.js";

const KEYS = [
	"on the scrubber: ← → Home End, Space to play",
	"anywhere: , and . a step back and on, [ ] slower and faster, + − 0 zoom, Shift with arrows moves what is zoomed",
];

panel("keys", () => ({
	nodes: { more: [h("details", {}, h("summary", {}, "Keys"), ...KEYS.map((text) => h("p", {}, text)))] },
}));
