// What there is to hear of runs that make sounds: the estimate of the step on show, and the end; a line goes along.
import { box, h, own, say } from "../dom.js";
import { panel } from "../panel.js";
import { heardOf } from "../hear.js";

panel("sound", (view) => {
	const { session } = view;
	const bar = box("dx-sounds dx-under");
	const note = h("span.dx-left-out");
	/** @type {AudioContext | null} */ let context = null;
	/** @type {{source: AudioBufferSourceNode, slot: Shot, n: number, began: number, seconds: number} | null} */ let playing = null;
	let frame = 0;

	const line = box("dx-cursor");
	const stop = () => {
		playing?.source.stop();
		playing = null;
		cancelAnimationFrame(frame);
		line.remove();
		view.redraw();
	};
	view.signal.addEventListener("abort", () => {
		stop();
		context?.close();
	});
	const follow = () => {
		if (!playing || !context) return;
		const { n, began, seconds } = playing;
		const film = session.films[view.seats[n]?.k];
		const screen = view.places.stage.querySelectorAll(".dx-screen")[n];
		if (film?.sound && screen) {
			const done = Math.min(1, (context.currentTime - began) / seconds);
			const { from, to } = film.sound;
			line.style.left = `${100 * (from + (to - from) * ((done * seconds) / film.sound.seconds))}%`;
			if (line.parentNode !== screen) screen.append(line);
		}
		frame = requestAnimationFrame(follow);
	};
	const play = (/** @type {Shot} */ slot, /** @type {number} */ n) => {
		const again = playing?.slot === slot;
		stop();
		if (again) return;
		context ??= new AudioContext();
		context.resume();
		const { channels, rate } = heardOf(slot.bytes);
		const buffer = context.createBuffer(channels.length, channels[0].length, rate);
		channels.forEach((samples, k) => buffer.copyToChannel(samples, k));
		const source = new AudioBufferSourceNode(context, { buffer });
		source.connect(context.destination);
		source.onended = () => playing?.source === source && stop();
		source.start();
		playing = { source, slot, n, began: context.currentTime, seconds: buffer.duration };
		follow();
		view.redraw();
	};

	const playerOf = (/** @type {number} */ n) => {
		const [step, end] = ["sound", "end"].map((row) => {
			const button = h("button", { type: "button", class: "dx-roll" });
			view.on(button, "click", () => {
				const film = session.films[view.seats[n]?.k];
				const slot = film?.frames[row]?.[row === "end" ? 0 : session.stepOf(film)];
				if (slot && typeof slot === "object") play(slot, n);
			});
			return { row, button, word: h("span") };
		});
		const node = own(h("span.dx-hear", {}, step.button, step.word, end.button, end.word), n);
		return { node, parts: [step, end] };
	};
	/** @type {ReturnType<typeof playerOf>[]} */ const players = [];

	return {
		nodes: { stage: [bar] },
		draw() {
			const { films } = session;
			bar.hidden = !films.some((film) => film.sound);
			if (bar.hidden) return playing ? stop() : undefined;
			while (players.length > view.seats.length) players.pop()?.node.remove();
			while (players.length < view.seats.length) players.push(playerOf(players.length));
			bar.replaceChildren(...players.map(({ node }) => node), note);
			const there = new Set();
			players.forEach(({ node, parts }, n) => {
				const film = films[view.seats[n].k];
				node.hidden = !film?.sound;
				if (!film?.sound) return;
				const i = session.stepOf(film);
				for (const { row, button, word } of parts) {
					const slot = film.frames[row]?.[row === "end" ? 0 : i];
					const what = row === "end" ? "the end" : `step ${i + 1}`;
					there.add(slot);
					const on = playing !== null && playing.slot === slot;
					button.dataset.icon = on ? "pause" : "play";
					button.disabled = !slot || typeof slot === "string";
					button.ariaLabel = `${on ? "stop" : "listen to"} ${what}${view.many ? `, ${film.label}` : ""}`;
					button.title = typeof slot === "string" ? slot : button.ariaLabel;
					say(word, what);
				}
			});
			if (playing && !there.has(playing.slot)) stop(); // the picture has moved on
			const told = [...new Set(films.map((film) => film.sound?.note).filter(Boolean))].join(" ");
			say(note, told);
			note.title = bar.title = told;
			note.hidden = view.many;
		},
	};
});
