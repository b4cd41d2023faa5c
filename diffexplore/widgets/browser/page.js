// The exported page's host, in place of Jupyter: a model of constants, with no kernel behind it.
import { viewer } from "./viewer.js";

const page = JSON.parse(document.getElementById("dx-data")?.textContent ?? "");
const traits = { ...page.traits, _frames: Uint8Array.from(atob(page.frames), (c) => c.charCodeAt(0)) };
const host = { get: (/** @type {string} */ name) => traits[name], set() {}, save_changes() {}, send() {}, on() {}, off() {} };
const widget = viewer();
widget.initialize({ model: host });
widget.render({ model: host, el: /** @type {HTMLElement} */ (document.getElementById("dx")) });
