// The noise levels of the next run: points that are dragged, or moved by keys; ways to space them; fresh noise.
import { MUTE, box, fill, h, option, quiet, say, svg } from "../dom.js";
import { figures } from "../numbers.js";
import { panel } from "../panel.js";
import { LEVELS } from "../wire.js";

const DRAGGABLE = 60; // points that a hand can tell apart
const FRESH_NOISE = "fresh noise: how much of the noise of each next level is drawn anew, from 0 (nothing random on the way) to 1 (as much as in DDPM, or Euler a)";

/** @typedef {{sigmas: number[], plain?: number[], own: boolean, way: string, ways?: [string, string][], low: number, high: number, flow: boolean, guess?: boolean, why: string, fresh: number | null, adds?: number, most?: number, dry: string}} Offer */

panel("levels", (view) => {
	const { session } = view;
	const ask = (/** @type {string} */ act, /** @type {unknown} */ value) => session.send({ kind: LEVELS, act, value });
	const offer = () => /** @type {Offer | null} */ (session.model.get("levels") ?? null);
	const plain = svg("polyline", { class: "dx-plain" });
	const line = svg("polyline");
	const points = box("dx-points");
	const high = h("span.dx-high", MUTE);
	const low = h("span.dx-low", MUTE);
	const chart = box("dx-levels-chart", svg("svg", { ...MUTE, viewBox: "0 0 100 100", preserveAspectRatio: "none" }, plain, line), high, low, points);
	const told = h("p.dx-says", { role: "status" });
	const way = view.menu("how noise levels are spaced", [], (value) => ask("way", value));
	const back = view.tool("reset", "the sampler's own levels", () => ask("way", ""));
	const fresh = h("input", { type: "range", min: "0", step: "0.05", "aria-label": FRESH_NOISE, title: FRESH_NOISE });
	const share = h("output");
	const dry = view.tool("as it is", "as much fresh noise as the sampler adds by itself", () => ask("fresh", null));
	const why = h("p.dx-says");
	/** @type {number[]} */ let now = []; // as a hand has them
	let held = -1; // the point in hand
	let timer = 0;

	const up = (/** @type {number} */ sigma, /** @type {Offer} */ { low, high, flow }) => (flow ? sigma / high : Math.log(sigma / low) / Math.log(high / low));
	const down = (/** @type {number} */ y, /** @type {Offer} */ { low, high, flow }) => (flow ? y * high : low * (high / low) ** y);
	const across = (/** @type {number} */ k) => (100 * (k + 0.5)) / now.length;
	const place = (/** @type {Offer} */ one) => {
		const path = (/** @type {number[]} */ levels) => levels.map((sigma, k) => `${((100 * (k + 0.5)) / levels.length).toFixed(2)},${(100 - 100 * up(sigma, one)).toFixed(2)}`).join(" ");
		line.setAttribute("points", path(now));
		plain.setAttribute("points", one.own ? path(one.plain ?? []) : "");
		[...points.children].forEach((node, k) => {
			const point = /** @type {HTMLElement} */ (node);
			point.style.left = `${across(k)}%`;
			point.style.bottom = `${100 * up(now[k], one)}%`;
			point.ariaValueNow = figures(now[k]);
			point.ariaValueText = `level ${k + 1} of ${now.length}: ${figures(now[k])}`;
			point.title = point.ariaValueText;
		});
	};
	const move = (/** @type {number} */ k, /** @type {number} */ sigma) => {
		const one = offer();
		if (!one) return;
		const near = one.flow ? 0.001 : 0; // between its neighbours, and within the range
		const most = k ? now[k - 1] * 0.999 - near : one.high;
		const least = k + 1 < now.length ? now[k + 1] * 1.001 + near : one.low;
		now[k] = Math.min(Math.max(sigma, least), Math.max(most, least));
		place(one);
		say(told, `level ${k + 1}: ${figures(now[k])}`);
	};
	const give = () => ask("set", now);
	view.on(points, "pointerdown", (event) => {
		held = [...points.children].indexOf(/** @type {any} */ (event.target));
		if (held < 0 || view.gone) return;
		points.setPointerCapture(event.pointerId);
		/** @type {HTMLElement} */ (points.children[held]).focus();
		event.preventDefault();
	});
	view.on(points, "pointermove", (event) => {
		const one = offer();
		if (held < 0 || !one) return;
		const { top, height } = points.getBoundingClientRect();
		move(held, down(Math.min(Math.max(1 - (event.clientY - top) / height, 0), 1), one));
	});
	const release = () => {
		if (held >= 0) give();
		held = -1;
	};
	view.on(points, "pointerup", release);
	view.on(points, "pointercancel", release);
	view.on(points, "keydown", (event) => {
		const k = [...points.children].indexOf(/** @type {any} */ (event.target));
		const one = offer();
		const by = { ArrowUp: 0.01, ArrowDown: -0.01, PageUp: 0.05, PageDown: -0.05 }[event.key];
		const to = k + ({ ArrowLeft: -1, ArrowRight: 1 }[event.key] ?? 0);
		quiet(event);
		if (!one || k < 0 || (!by && to === k)) return;
		event.preventDefault();
		if (!by) return /** @type {HTMLElement | undefined} */ (points.children[to])?.focus();
		move(k, down(up(now[k], one) + by, one));
		clearTimeout(timer);
		timer = window.setTimeout(give, 300);
	});
	view.on(fresh, "input", () => say(share, fresh.value));
	view.on(fresh, "change", () => ask("fresh", fresh.valueAsNumber));
	view.on(fresh, "keydown", quiet);
	const label = box("dx-fresh", h("label", { title: FRESH_NOISE }, "fresh noise", fresh, share), dry);

	return {
		tab: { word: "Levels", many: false, there: () => offer() !== null },
		nodes: { tab: [box("dx-levels", chart, box("dx-levels-made", told, way, back, label, why))] },
		draw() {
			const one = offer();
			if (!one || view.tab !== "levels") return;
			fill(way, [["", one.own && !one.way ? "your own" : one.guess ? "the pipeline's own" : "the sampler's own"], .../** @type {[string, string][]} */ (one.ways ?? [])], ([name, word]) => option(name, name || word));
			chart.hidden = way.hidden = back.hidden = Boolean(one.why);
			way.value = one.way;
			way.title = (one.ways ?? []).find(([name]) => name === one.way)?.[1] ?? "how noise levels are spaced";
			back.disabled = !one.own || view.gone;
			label.hidden = Boolean(one.dry);
			fresh.max = String(one.most ?? 1);
			if (view.root.ownerDocument.activeElement !== fresh || one.fresh === null) fresh.value = String(one.fresh ?? one.adds ?? 0);
			say(share, one.fresh === null ? `${one.adds ?? 0}` : String(one.fresh));
			dry.disabled = one.fresh === null || view.gone;
			fresh.disabled = way.disabled = view.gone;
			say(why, [one.why, one.dry].filter(Boolean).join(" "));
			if (one.why) return say(told, "");
			if (held >= 0) return;
			now = [...one.sigmas];
			const many = now.length > DRAGGABLE;
			while (points.children.length > (many ? 0 : now.length)) points.lastChild?.remove();
			while (points.children.length < (many ? 0 : now.length))
				points.append(h("i", { role: "slider", tabindex: "0", "aria-label": "noise level", "aria-valuemin": figures(one.low), "aria-valuemax": figures(one.high), "aria-orientation": "vertical" }));
			say(told, many ? `${now.length} levels, too many to drag` : `${now.length} levels, ${figures(now[0])} to ${figures(now[now.length - 1])}`);
			say(high, `σ ${figures(one.high)}`);
			say(low, `${figures(one.flow ? 0 : one.low)}${one.flow ? "" : ", log"}`);
			place(one);
		},
	};
});
