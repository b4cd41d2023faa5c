// Guidance in the plane of its two halves: the prediction with the prompt lies along the first axis (record/predictions.py).

/**
 * The three predictions of a step as points, and their numbers; null where the halves are not there.
 * @param {Step | undefined} step
 * @param {string} end of the names of the columns: "_x0" or, for noise, ""
 * @param {boolean} plain whether they were mixed in the plain way: else nobody knows here where the guided one lies
 */
export function arrowsOf(step, end, plain = true) {
	const [cond, along, across, pull, angle] = ["cond_norm", "guidance_along", "guidance_across", "guidance_norm", "guidance_angle"].map((name) => step?.[name + end]);
	const g = step?.guidance;
	if (cond == null || along == null || across == null || g == null) return null;
	const uncond = [cond - along, -across];
	const guided = plain ? [cond + (g - 1) * along, (g - 1) * across] : null;
	return { uncond, cond: [cond, 0], guided, numbers: [Math.hypot(...uncond), cond, guided && Math.hypot(...guided), pull, along, across], angle };
}

/**
 * What arrows cover, and their origin and a unit beside it: one scale serves them all.
 * @param {ReturnType<typeof arrowsOf>[]} found
 */
export function extentOf(found) {
	const points = [[0, 0], [1, 0], ...found.flatMap((one) => (one ? [one.uncond, one.cond, one.guided ?? one.cond] : []))];
	const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
	return { left: Math.min(...xs), right: Math.max(...xs), low: Math.min(...ys), high: Math.max(...ys, Math.min(...ys) + 1e-6) };
}

/**
 * An arrow as an SVG path, with a head of fixed size.
 * @param {string[]} from
 * @param {string[]} to
 */
export function headed(from, to) {
	const [x, y, tx, ty] = [...from, ...to].map(Number);
	const length = Math.hypot(tx - x, ty - y);
	if (length < 1) return "";
	const [ux, uy] = [(tx - x) / length, (ty - y) / length];
	const wing = (/** @type {number} */ side) => `${(tx - 6 * ux - side * 3 * uy).toFixed(1)},${(ty - 6 * uy + side * 3 * ux).toFixed(1)}`;
	return `M${from}L${to}M${wing(1)}L${to}L${wing(-1)}`;
}
