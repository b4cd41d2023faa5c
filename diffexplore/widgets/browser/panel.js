// The panels of the page. Each is a file in panels/ that calls `panel`, and a line of panels/index.js, whose order is theirs.

/** @type {Map<string, (view: View) => Panel>} */
export const PANELS = new Map();

/**
 * Declare a panel.
 * @param {string} name
 * @param {(view: View) => Panel} mount makes its nodes, by the place of the page (viewer.js) they go to, and draws them
 */
export function panel(name, mount) {
	if (PANELS.has(name)) throw new Error(`there are two panels "${name}"`);
	PANELS.set(name, mount);
}
