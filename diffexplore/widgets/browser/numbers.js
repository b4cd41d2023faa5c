// The numbers of a step, and how a reader reads them.

/**
 * A number for a reader: three figures, rarely an exponent.
 * @param {number | null | undefined} x
 */
export function figures(x) {
	if (x == null) return "–";
	if (x === 0) return "0";
	const size = Math.abs(x);
	if (size === Infinity) return "∞";
	if (size >= 1e6) return x.toExponential(0);
	if (size >= 100) return String(Math.round(x));
	return size < 0.0005 ? x.toExponential(0) : String(Number(x.toPrecision(size < 1 ? 2 : 3)));
}

/** @param {number | null | undefined} s */
export function duration(s) {
	if (s == null) return "–";
	if (s < 0.9995) return `${figures(s * 1000)} ms`;
	if (s < 100) return `${s.toPrecision(3)} s`;
	s = Math.round(s);
	return `${Math.floor(s / 60)} min ${s % 60} s`;
}

/**
 * A time in a line: two figures.
 * @param {number} s
 */
export const took = (s) => (s >= 0.0995 && s < 9.95 ? `${s.toPrecision(2)} s` : s < 0.0995 ? `${figures(Number((s * 1000).toPrecision(2)))} ms` : duration(s));

/**
 * The share of noise in the latents' variance: b^2 / (a^2 + b^2), sigma = b / a.
 * @param {number | null | undefined} sigma
 */
export const noiseShare = (sigma) => (sigma == null ? 1 : (sigma * sigma) / (1 + sigma * sigma));

/** @param {number | null | undefined} sigma */
export const percent = (sigma) => `${Math.round(100 * noiseShare(sigma))} %`;

/**
 * The signal-to-noise ratio at noise level sigma: a^2 / b^2.
 * @param {number | null | undefined} sigma
 */
export const snr = (sigma) => (sigma == null ? null : 1 / (sigma * sigma));

/**
 * What a reader is told of a step: `word` beside its fact, `head` over its column of the table.
 * @type {Column[]}
 */
export const COLUMNS = [
	{ name: "timestep", word: "timestep", title: "what the network is told about how noisy its input is", text: (step) => figures(step?.timestep) },
	{ name: "sigma", word: "sigma", head: "σ", title: "noise level: noise over picture in xₜ", text: (step) => figures(step?.sigma) },
	{ name: "snr", word: "SNR", title: "signal-to-noise ratio of xₜ: 1 / σ²", text: (step) => figures(snr(step?.sigma)) },
	{ name: "noise", word: "noise", title: "part of the latents' variance that is noise: σ² / (1 + σ²)", text: (step) => percent(step?.sigma), share: (step) => noiseShare(step?.sigma) },
	{ name: "change", head: "change of x₀", title: "how far the estimate moved", text: (step) => figures(step?.change) },
	{ name: "seconds", word: "time", title: "how long this step took", text: (step) => duration(step?.seconds) },
	{ name: "adherence", word: "adherence", title: "how far the estimate shows what the prompt names, 0 to 1", judged: true, text: (step) => step?.adherence?.toFixed(2) ?? "–" },
];

/**
 * What the track may show over the steps.
 * @type {Track[]}
 */
export const TRACKS = [
	{ name: "sigma", word: "noise level σ", log: true },
	{ name: "change", word: "change of x₀", log: false },
	{ name: "adherence", word: "adherence", log: false, judged: true },
];

// What every film has; one saved before there were columns has nothing else.
const NAMES = ["timestep", "sigma", "seconds", "change", "spectrum", "adherence"];

/**
 * A step as it came over the wire, by the names of its columns.
 * @param {any[]} row
 * @param {WireColumn[]} columns
 * @returns {Step}
 */
export function stepOf(row, columns = []) {
	const names = columns.length ? columns.map(({ name }) => name) : NAMES;
	return /** @type {any} */ (Object.fromEntries(names.map((name, k) => [name, row[k]])));
}

/**
 * The columns of films that this side has no words for: numbers that were declared in Python.
 * @param {Film[]} films
 */
const declared = (films) => {
	const found = films.flatMap(({ columns }) => columns ?? []).filter(({ name }) => name !== "attention" && !NAMES.includes(name));
	return [...new Map(found.map((one) => [one.name, one])).values()];
};

/**
 * All that a reader is told of the steps of films.
 * @param {Film[]} films
 * @returns {Column[]}
 */
export const columnsOf = (films) => [
	...COLUMNS,
	...declared(films).map(({ name, label, unit, group }) => ({ name, word: label, group, title: unit || label, text: (/** @type {Step | undefined} */ step) => figures(step?.[name]) })),
];

/**
 * All that the track may show of films.
 * @param {Film[]} films
 * @returns {Track[]}
 */
export const tracksOf = (films) => [
	...TRACKS.filter(({ judged }) => !judged || films[0]?.judged),
	...declared(films).map(({ name, label, unit, log }) => ({ name, word: unit ? `${label} (${unit})` : label, log: Boolean(log) })),
];

/**
 * Numbers as heights from 0 to 1 on one scale: from their least to their greatest logarithm, or from 0, or the least below it.
 * @param {(number | null | undefined)[][]} rows
 * @param {boolean} log
 */
export function heights(rows, log) {
	const levels = rows.map((row) => row.map((x) => (x == null || (log && x <= 0) ? null : log ? Math.log10(x) : x)));
	const known = levels.flat().filter((x) => x != null);
	const top = Math.max(...known);
	const bottom = log ? Math.min(...known) : Math.min(0, ...known);
	return levels.map((row) => row.map((x) => (x == null ? null : top > bottom ? (x - bottom) / (top - bottom) : 0)));
}

/**
 * The area under heights as a CSS clip path, the places from edge to edge.
 * @param {(number | null)[]} row
 * @param {number} places
 */
export function areaOf(row, places) {
	const points = row.flatMap((y, i) => (y == null ? [] : [[places < 2 ? 50 : +((100 * i) / (places - 1)).toFixed(2), +(96 - 96 * y).toFixed(1)]]));
	if (!points.length) return "inset(100%)";
	const floor = [[points[points.length - 1][0], 100], [points[0][0], 100]];
	return `polygon(${[...points, ...floor].map(([x, y]) => `${x}% ${y}%`).join()})`;
}

/**
 * The line through heights as the points of an SVG polyline, the places from edge to edge of 100 by 100.
 * @param {(number | null)[]} row
 * @param {number} places
 */
export const lineOf = (row, places) => row.flatMap((y, i) => (y == null ? [] : [`${places < 2 ? 50 : +((100 * i) / (places - 1)).toFixed(2)},${+(96 - 96 * y).toFixed(1)}`])).join(" ");

/**
 * A few round values on the scale of `heights`, and how high they lie.
 * @param {(number | null | undefined)[][]} rows
 * @param {boolean} log
 * @returns {{value: number, at: number}[]}
 */
export function ticksOf(rows, log) {
	const known = rows.flat().filter((x) => x != null && Number.isFinite(x) && (!log || x > 0)).map(Number);
	const top = Math.max(...known);
	const least = Math.min(log ? Infinity : 0, ...known);
	if (!known.length || !(top > least)) return [];
	if (!log) return [0, 0.5, 1].map((at) => ({ value: least + at * (top - least), at }));
	const [low, high] = [Math.log10(least), Math.log10(top)];
	const decades = Array.from({ length: Math.max(0, Math.floor(high) - Math.ceil(low) + 1) }, (_, k) => Math.ceil(low) + k);
	const every = Math.ceil(decades.length / 4);
	const ticks = decades.filter((_, k) => k % every === 0);
	return (ticks.length > 1 ? ticks : [low, high]).map((level) => ({ value: 10 ** level, at: (level - low) / (high - low) }));
}

/**
 * @param {number} at
 * @param {number} places
 * @param {Step | undefined} step
 */
export function spoken(at, places, step) {
	const place = `step ${at + 1} of ${places}`;
	return step ? `${place}, timestep ${figures(step.timestep)}, sigma ${figures(step.sigma)}` : place;
}
