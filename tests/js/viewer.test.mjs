// The pure functions of the browser's side. Run by tests/test_browser.py, or by hand: node --test tests/js
import assert from "node:assert/strict";
import test from "node:test";

import * as calm from "../../diffexplore/widgets/browser/calm.js";
import * as hear from "../../diffexplore/widgets/browser/hear.js";
import * as reel from "../../diffexplore/widgets/browser/reel.js";
import * as films from "../../diffexplore/widgets/browser/films.js";
import * as numbers from "../../diffexplore/widgets/browser/numbers.js";
import * as page from "../../diffexplore/widgets/browser/export.js";
import * as pulls from "../../diffexplore/widgets/browser/pulls.js";
import * as timeline from "../../diffexplore/widgets/browser/timeline.js";
import * as wire from "../../diffexplore/widgets/browser/wire.js";

test("bytes come out of every kind of buffer, wherever they begin in it", () => {
  const larger = new Uint8Array([9, 9, 1, 2, 3, 9]);
  for (const buffer of [new DataView(larger.buffer, 2, 3), larger.subarray(2, 5), larger.slice(2, 5).buffer])
    assert.deepEqual([...wire.bytesOf(buffer)], [1, 2, 3]);
});

test("runs of different lengths begin and end together on one timeline", () => {
  const under = (count) => Array.from({ length: 7 }, (_, at) => timeline.stepAt(at, 7, count));
  assert.deepEqual(under(7), [0, 1, 2, 3, 4, 5, 6]);
  assert.deepEqual(under(3), [0, 0, 1, 1, 1, 2, 2]);
  assert.deepEqual(under(1), [0, 0, 0, 0, 0, 0, 0]);
  assert.equal(timeline.stepAt(0, 1, 1), 0);
});

test("a strip shows every place, or the one under the middle of each cell", () => {
  assert.deepEqual(timeline.placesShown(4, 80), [0, 1, 2, 3]);
  assert.deepEqual(timeline.placesShown(20, 130), [2, 7, 12, 17]);
  assert.deepEqual(timeline.placesShown(1000, 10), [500]);
  assert.deepEqual(timeline.placesShown(0, 500), []);
});

test("missing pieces are those below the count that were not seen", () => {
  assert.deepEqual(wire.missing(new Set([0, 2, 5]), 5), [1, 3, 4]);
  assert.deepEqual(wire.missing(new Set([0, 1]), 2), []);
});

test("numbers read well over nine orders of magnitude", () => {
  const cases = [[4096, "4096"], [157.4, "157"], [14.615, "14.6"], [1, "1"], [0.0292, "0.029"], [0.00001, "1e-5"], [0, "0"], [null, "\u2013"]];
  for (const [number, text] of cases) assert.equal(numbers.figures(number), text);
  const times = [[0.0421, "42.1 ms"], [0.9996, "1.00 s"], [12.34, "12.3 s"], [125, "2 min 5 s"], [119.7, "2 min 0 s"], [null, "\u2013"]];
  for (const [seconds, text] of times) assert.equal(numbers.duration(seconds), text);
});

test("the share of noise is b^2 of a^2 + b^2", () => {
  assert.equal(numbers.noiseShare(0), 0);
  assert.equal(numbers.noiseShare(1), 0.5);
  assert.equal(numbers.noiseShare(null), 1); // sigma is without bound: nothing but noise
});

test("the signal-to-noise ratio is a^2 / b^2, without bound where there is no noise", () => {
  assert.equal(numbers.snr(2), 0.25);
  assert.equal(numbers.figures(numbers.snr(0)), "\u221e");
  assert.equal(numbers.snr(null), null);
});

test("heights share one scale: the least and the greatest logarithm, or nothing and the greatest", () => {
  assert.deepEqual(numbers.heights([[100, 10], [1, null]], true), [[1, 0.5], [0, null]]);
  assert.deepEqual(numbers.heights([[null, 4, 1]], false), [[null, 1, 0.25]]);
  assert.deepEqual(numbers.heights([[0, 5]], true), [[null, 0]]); // no logarithm of 0; all alike lies on the floor
  assert.deepEqual(numbers.heights([[]], true), [[]]);
});

test("the area under heights reaches from its first known place to its last", () => {
  assert.equal(numbers.areaOf([1, 0.5, 0], 3), "polygon(0% 0%,50% 48%,100% 96%,100% 100%,0% 100%)");
  assert.equal(numbers.areaOf([null, 1], 5), "polygon(25% 0%,25% 100%,25% 100%)"); // of a run that is going
  assert.equal(numbers.areaOf([null], 1), "inset(100%)");
});

test("a run plays in about four seconds, and no step is shown for more than a quarter of one", () => {
  assert.deepEqual(timeline.pace(4, 1), { stride: 1, delay: 250 });
  assert.deepEqual(timeline.pace(50, 2), { stride: 1, delay: 40 });
  for (const [places, speed] of [[1000, 1], [1000, 4], [50, 4], [300, 0.5]]) {
    const { stride, delay } = timeline.pace(places, speed);
    assert.ok(delay >= 33 && delay < 120);
    assert.ok(Math.abs((delay * places) / stride - 4000 / speed) < 1e-6);
  }
});

test("zooming keeps what is under the pointer there, and shows nothing beyond the picture", () => {
  const whole = { scale: 1, left: 0, top: 0 };
  assert.deepEqual(timeline.zoomed(whole, 2), { scale: 2, left: 0.25, top: 0.25 });
  const closer = timeline.zoomed(timeline.zoomed(whole, 2, 0.75, 0.5), 2, 0.75, 0.5);
  assert.equal(closer.left + 0.75 / closer.scale, 0.75);
  assert.deepEqual(timeline.zoomed(closer, 0), whole);
  assert.equal(timeline.zoomed(whole, 1000).scale, 16);
  assert.deepEqual(timeline.panned({ scale: 2, left: 0.25, top: 0.25 }, 5, -5), { scale: 2, left: 0, top: 0.5 });
  assert.deepEqual(timeline.panned(whole, 1, 1), whole);
});

test("the page takes every text as text, in one pass", () => {
  const data = { prompt: "</script><b>&\u2028 @script@ $&" };
  const made = page.pageOf("[@title@][@style@][@script@][@data@]", { title: "<i>@data@ & $1", style: "s", script: "j$'" }, data);
  const [, title, style, script, json] = made.match(/^\[(.*?)\]\[(.*?)\]\[(.*?)\]\[(.*)\]$/);
  assert.equal(title, "&#60;i&#62;@data@ &#38; $1");
  assert.deepEqual([style, script], ["s", "j$'"]);
  assert.ok(!/[<>&\u2028]/.test(json));
  assert.deepEqual(JSON.parse(json), data);
});

test("base64 of more bytes than a call takes arguments", () => {
  const bytes = Uint8Array.from({ length: 100_000 }, (_, i) => (i * 7) % 256);
  assert.equal(page.base64(bytes), Buffer.from(bytes).toString("base64"));
});

test("a screen reader hears the step, then what it stands for", () => {
  assert.equal(numbers.spoken(6, 20, { timestep: 613, sigma: 4.2042, seconds: 0.04 }), "step 7 of 20, timestep 613, sigma 4.2");
  assert.equal(numbers.spoken(0, 20, undefined), "step 1 of 20");
});

test("how a run stands is said in words for each status", () => {
  const film = { steps: [[1, 1, 1], [1, 1, 1]], expected: 8, seconds: 0.5, about: { steps: 8 } };
  assert.equal(films.standing({ ...film, status: "running" }), "running: 2 of 8 steps");
  assert.equal(films.standing({ ...film, status: "running", steps: [] }), "starting");
  assert.equal(films.standing({ ...film, status: "done" }), "2 steps in 500 ms, 250 ms each");
  assert.equal(films.standing({ ...film, status: "cancelled" }), "stopped after 2 steps");
  assert.equal(films.standing({ ...film, status: "failed", steps: [[1, 1, 1]] }), "failed after 1 step");
  const heun = { ...film, expected: 15 };
  assert.equal(films.standing({ ...heun, status: "running" }), "running: 2 of 15 evaluations");
  assert.equal(films.standing({ ...heun, status: "cancelled" }), "stopped after 2 evaluations");
});

test("a packed film comes apart into the same pictures, and torn state is not taken for one", () => {
  const document = {
    format: 1, run: 1, bytes: 5, captions: {},
    films: [{ label: "", status: "done", steps: [[1, 1, 1], [0, 0, 0]], frames: { x0: [[0, 2, "png"], null], change: ["the first", [2, 3, "webp"]] }, final: [2, 3, "webp"] }],
  };
  const data = new Uint8Array([1, 2, 3, 4, 5]);
  const [film] = films.unpack(document, data);
  assert.deepEqual([film.steps[1].timestep, film.steps[1].sigma], [0, 0]);
  assert.deepEqual([...film.frames.x0[0].bytes], [1, 2]);
  assert.equal(film.frames.x0[1], null);
  assert.equal(film.frames.change[0], "the first");
  assert.deepEqual([...film.final.bytes], [3, 4, 5]);
  assert.equal(films.unpack(document, data.subarray(1)), null);
  assert.equal(films.unpack({ ...document, format: 2 }, data), null);
  assert.equal(films.unpack({}, data), null);
});

test("a running film takes the places it will have, an ended one those it has", () => {
  assert.equal(timeline.lengthOf({ status: "running", expected: 20, steps: [1, 2] }), 20);
  assert.equal(timeline.lengthOf({ status: "cancelled", expected: 20, steps: [1, 2] }), 2);
});

const filmOf = (sigmas, more = {}) => ({ status: "done", expected: sigmas.length, about: {}, label: "", final: null, ...more, steps: sigmas.map((sigma) => ({ timestep: 1, sigma, seconds: 1 })) });

test("films stand side by side at the nearest noise level, whatever their number of steps", () => {
  const long = filmOf([16, 12, 9, 6, 4, 3, 1.5, 1]);
  assert.deepEqual(timeline.lineup(long, filmOf([16, 4, 1])), [0, 0, 0, 1, 1, 1, 2, 2]);
  assert.deepEqual(timeline.lineup(long, long), [0, 1, 2, 3, 4, 5, 6, 7]);
  // Another schedule: most of its steps are at high noise, where the proportion would be quite elsewhere.
  assert.deepEqual(timeline.lineup(filmOf([100, 10, 1, 0.1]), filmOf([100, 90, 80, 0.1])), [0, 2, 3, 3]);
});

test("a lineup never goes backwards, and equally near evaluations are gone through", () => {
  const heun = [8, 4, 4, 2, 2, 1, 1];
  assert.deepEqual(timeline.lineup(filmOf(heun), filmOf(heun)), [0, 1, 2, 3, 4, 5, 6]);
  const rising = timeline.lineup(filmOf([8, 2, 6, 1, 5, 0.5]), filmOf([8, 4, 1, 0.5]));
  assert.deepEqual(rising, [...rising].sort((a, b) => a - b));
  assert.equal(rising.at(-1), 3);
});

test("without noise levels, or while a run goes, places are matched by proportion", () => {
  const even = [0, 0, 1, 1, 2, 2];
  assert.deepEqual(timeline.lineup(filmOf(Array(6).fill(null)), filmOf([9, 8, 7])), even);
  assert.deepEqual(timeline.lineup(filmOf([6, 5, 4, 3, 2, 1]), filmOf([null, null, null])), even);
  assert.deepEqual(timeline.lineup(filmOf([600, 500, 400, 3, 2, 1]), filmOf([9, 8], { status: "running", expected: 3 })), even);
  assert.deepEqual(timeline.lineup(filmOf([null, 10, 1]), filmOf([null, 1])), [0, 1, 1]); // flow matching begins without bound
});

test("settings that differ are named, with every film's value", () => {
  const both = [{ about: { prompt: "a", steps: 4, seed: "1" } }, { about: { prompt: "a", steps: 8, seed: "1", guidance: 2 } }];
  assert.deepEqual(films.differing(both), [["steps", "4", "8"], ["guidance", "\u2013", "2"]]);
  assert.deepEqual(films.differing(both.slice(1)), []);
});

test("films with the same last bytes are named, those without a last picture never", () => {
  const film = (label, bytes, format = "webp") => ({ label, final: bytes && { bytes: new Uint8Array(bytes), format } });
  assert.equal(films.identical([film("A", [1, 2]), film("B", [1, 3]), film("C", [1, 2])]), "A and C are identical to the bit.");
  assert.equal(films.identical([film("A", [1], "jpeg"), film("B", [1], "jpeg")]), "A and B are identical as JPEG.");
  assert.equal(films.identical([film("A", null), film("B", null), film("C", [12]), film("D", [1, 2])]), "");
});

test("a step is read by the names of its columns, and what has no words here is told by its label", () => {
  const columns = [{ name: "sigma", label: "\u03c3", unit: "ratio", log: true }, { name: "warmth", label: "warmth", unit: "degrees", log: true }];
  assert.deepEqual(numbers.stepOf([2, 1234.5], columns), { sigma: 2, warmth: 1234.5 });
  assert.equal(numbers.stepOf([1, 2]).sigma, 2); // a film saved before there were columns
  const film = { ...filmOf([1]), columns };
  const told = numbers.columnsOf([film, { ...film }, filmOf([1])]);
  assert.equal(told.length, numbers.columnsOf([filmOf([1])]).length + 1);
  assert.deepEqual([told.at(-1).word, told.at(-1).title, told.at(-1).text({ warmth: 1234.5 }), told.at(-1).text({})], ["warmth", "degrees", "1235", "\u2013"]);
  assert.deepEqual(numbers.tracksOf([film]).map(({ name, log }) => [name, log]), [["sigma", true], ["change", false], ["warmth", true]]);
  assert.ok(numbers.tracksOf([{ ...film, judged: true }]).some(({ name }) => name === "adherence"));
});

test("guidance is drawn in the plane of its halves, and a curve below zero has a floor", () => {
  const step = { guidance: 5, cond_norm_x0: 1, guidance_along_x0: 0.2, guidance_across_x0: 0.1, guidance_norm_x0: 0.22, guidance_angle_x0: 7 };
  const found = pulls.arrowsOf(step, "_x0");
  assert.deepEqual([found.uncond, found.cond, found.guided], [[0.8, -0.1], [1, 0], [1.8, 0.4]]);
  assert.equal(pulls.arrowsOf(step, ""), null); // no such columns
  const bent = pulls.arrowsOf(step, "_x0", false); // another guider puts the guided one elsewhere
  assert.deepEqual([bent.guided, bent.numbers[2], pulls.extentOf([bent]).right], [null, null, 1]);
  assert.deepEqual(pulls.extentOf([found, null]), { left: 0, right: 1.8, low: -0.1, high: 0.4 });
  assert.match(pulls.headed(["0", "0"], ["10", "0"]), /^M0,0L10,0M4\.0,3\.0L10,0L4\.0,-3\.0$/);
  assert.deepEqual(numbers.heights([[-1, 0, 3]], false), [[0, 0.25, 1]]);
  assert.deepEqual(numbers.ticksOf([[-1, 3]], false).map(({ value }) => value), [-1, 1, 3]);
});

test("a place that is held is the same step, or the nearest noise level in a run of another length", () => {
  const held = { place: 2, places: 5, sigma: 4, end: false };
  const sigmas = [16, 12, 9, 6, 3.9, 3, 1.5];
  const run = (count, status = "running") => ({ status, expected: 7, steps: sigmas.slice(0, count).map((sigma) => ({ sigma })) });
  assert.equal(timeline.placeOf(held, { ...run(0), expected: 5 }), 2);
  assert.equal(timeline.placeOf(held, run(7, "done")), 4);
  assert.equal(timeline.placeOf({ ...held, sigma: 5.5 }, run(7, "done")), 3);
  assert.equal(timeline.placeOf({ ...held, sigma: 0.01 }, run(7, "done")), 6);
  // While it goes: where the share says, and always where there is nothing yet, until the level has been passed.
  assert.deepEqual([0, 3, 4, 5, 6].map((count) => timeline.placeOf(held, run(count))), [3, 3, 4, 4, 4]);
  assert.equal(timeline.placeOf({ ...held, end: true }, run(2)), 6);
  assert.equal(timeline.placeOf({ ...held, sigma: null }, run(7, "done")), 3);
});

test("behind a run stand the pictures of the one before, and behind those the ones before", () => {
  const bare = { label: "", seconds: 0, size: [1, 1], about: {}, final: null };
  const first = { ...bare, status: "done", expected: 4, steps: [{ n: 1 }, { n: 2 }, { n: 3 }, { n: 4 }], frames: { x0: ["a", "b", "c", "d"] }, previous: null };
  const second = { ...bare, status: "cancelled", expected: 4, steps: [{ n: 5 }], frames: { x0: ["A"] } };
  second.status = "running";
  second.previous = films.ghostOf(first, 1, true);
  const third = { ...bare, status: "running", expected: 8, steps: [], frames: {}, previous: films.ghostOf(second, 2, false) };
  assert.deepEqual(third.previous.frames.x0, ["A", "b", "c", "d"]);
  assert.deepEqual(third.previous.steps.map(({ n }) => n), [5, 2, 3, 4]);
  assert.equal(films.behind(third, 7, false), 3);
  assert.equal(films.behind(third, 5, true), 2); // what was looked at stays, wherever its share would be
  assert.equal(films.ghostOf(second, 2, true).frames.x0[2], "b");
  assert.equal(films.behind(first, 1, true), -1);
});

test("a picture that comes again is the one that is there, another is covered until it is ready", () => {
  const made = (...bytes) => films.shot(Uint8Array.from(bytes), "png", true);
  const old = made(1, 2);
  assert.equal(films.inPlaceOf(old, made(1, 2)), old);
  assert.equal(films.inPlaceOf(old, made(1, 3)).before, null); // it was never drawn itself
  old.bitmap = {};
  const next = films.inPlaceOf(old, made(1, 3));
  assert.equal(next.before, old);
  assert.equal(films.inPlaceOf(next, made(9)).before, old); // no chain of those that never were
  assert.equal(films.inPlaceOf(old, "why"), "why");
  assert.equal(films.inPlaceOf("why", next), next);
});

const even = (light) => calm.luminance(Uint8ClampedArray.from({ length: 4 * calm.GRID ** 2 }, () => light));

test("relative luminance is that of WCAG", () => {
  const [grey] = calm.luminance(Uint8ClampedArray.of(188, 188, 188, 255));
  assert.ok(Math.abs(grey - 0.5029) < 1e-3);
  const red = calm.luminance(Uint8ClampedArray.of(255, 0, 0, 255));
  assert.ok(Math.abs(red[0] - 0.2126) < 1e-6);
  assert.equal(red.length, 2); // the picture's own last
});

/** What a place shows where pictures of these luminances are wanted every `each` ms, and its changes. */
function shown(lights, each, rules = () => ({})) {
  const still = new calm.Calm();
  const shots = lights.map((light) => ({ light }));
  return lights.map((light, k) => still.offer("x0", shots[k], even(light), k * each, rules(k)).light);
}
const changes = (row) => row.filter((light, k) => k && light !== row[k - 1]).length;

test("pictures that flash are held back to two and a half flashes a second, the newest shown in its turn", () => {
  const strobe = shown(Array.from({ length: 200 }, (_, k) => (k % 2 ? 200 : 40)), 50); // ten seconds
  assert.ok(changes(strobe) <= 5 * 10 + 5 && changes(strobe) >= 40);
  for (let k = 0; k + 20 <= strobe.length; k++) assert.ok(changes(strobe.slice(k, k + 21)) <= 5);
  const faint = Array.from({ length: 50 }, (_, k) => (k % 2 ? 120 : 110));
  assert.deepEqual(shown(faint, 50), faint);
  const bright = Array.from({ length: 50 }, (_, k) => (k % 2 ? 255 : 232)); // both above 0.8
  assert.deepEqual(shown(bright, 50), bright);
  const ramp = Array.from({ length: 25 }, (_, k) => 10 * k); // one change, however far
  assert.deepEqual(shown(ramp, 20), ramp);
});

test("what a hand moves is shown at once, and less motion is a picture each half second", () => {
  const strobe = Array.from({ length: 40 }, (_, k) => (k % 2 ? 200 : 40));
  assert.deepEqual(shown(strobe, 20, (k) => ({ hand: k })), strobe);
  assert.equal(changes(shown(Array.from({ length: 41 }, (_, k) => 100 + k), 50, () => ({ least: 500 }))), 4);
});

test("what is held back says when it may come", () => {
  const still = new calm.Calm();
  for (let k = 0; k < 8; k++) still.offer("x0", {}, even(k % 2 ? 200 : 40), 10 * k);
  const due = still.held();
  assert.ok(due > 1000 && due < 1300);
  assert.equal(still.held(), Infinity);
  const last = {};
  assert.equal(still.offer("x0", last, even(200), due, {}), last);
  assert.equal(still.shown("x0"), last);
  assert.equal(still.shown("noise"), null);
});

test("at less motion a run plays as fast, in fewer pictures", () => {
  const { stride, delay } = timeline.pace(20, 1, 500);
  assert.deepEqual([stride, delay], [3, 600]);
});

test("a frame of a video is a row of its pictures, the one in the middle that of the view itself", () => {
  const film = { reel: { frames: 9, middle: 4, shown: [0, 2, 4, 6, 8], first: [0, 2, 2, 6, 6], fps: 8, note: "" } };
  assert.deepEqual([0, 1, 2, 3, 4].map((at) => reel.rowOf(film, "x0", at, 5)), ["x0@0", "x0@2", "x0", "x0@6", "x0@8"]);
  assert.deepEqual([0, 1, 2, 3, 4].map((at) => reel.rowOf(film, "latents", at, 5)), ["latents@0", "latents@2", "latents@2", "latents@6", "latents@6"]);
  assert.deepEqual([0, 8, 16].map((at) => reel.numberOf(film, at, 17)), [0, 4, 8], "under a longer one");
  assert.equal(reel.rowOf({ reel: null }, "x0", 3, 9), "x0");
  assert.deepEqual(reel.frameRate(film, 1), { stride: 1, delay: 225 }, "five of nine frames take as long as all");
  assert.equal(reel.frameRate({ reel: { ...film.reel, fps: 100 } }, 4).stride, 9);
});

test("a sound comes apart into its channels", () => {
  const bytes = new Uint8Array(3 + 44 + 8); // it may begin anywhere in its buffer
  const head = new DataView(bytes.buffer, 3);
  head.setUint16(22, 2, true);
  head.setUint32(24, 16000, true);
  [32767, -32767, 0, 16384].forEach((value, k) => head.setInt16(44 + 2 * k, value, true));
  const { channels, rate } = hear.heardOf(bytes.subarray(3));
  assert.equal(rate, 16000);
  assert.deepEqual(channels.map((one) => [...one].map((x) => Math.round(100 * x) / 100)), [[1, 0], [-1, 0.5]]);
});
