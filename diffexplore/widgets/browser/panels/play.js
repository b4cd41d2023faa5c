// Play and pause, and how fast.
import { box, h, option } from "../dom.js";
import { panel } from "../panel.js";
import { SPEEDS } from "../session.js";

panel("play", (view) => {
	const { session } = view;
	const button = h("button", { type: "button", class: "dx-play" });
	view.on(button, "click", () => session.play(!session.playing));
	const speeds = SPEEDS.map((speed) => option(String(speed), `${speed}×`));
	const speed = view.menu("speed", speeds, (value) => session.set({ speed: Number(value) }));
	const loop = view.tool("Loop", "begin again at the end", () => session.set({ loop: !session.loop }));
	return {
		nodes: { left: [box("dx-player", button, speed)], menu: [loop] },
		draw() {
			button.ariaLabel = button.title = button.dataset.icon = session.playing ? "pause" : "play";
			button.disabled = session.places < 2;
			speed.value = String(session.speed);
			loop.ariaPressed = String(session.loop);
		},
	};
});
