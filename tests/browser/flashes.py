"""Counts luminance flashes as WCAG 2.3.1 does: pairs of opposing changes of relative luminance of a tenth or more, the
darker side below 0.8, over more than a quarter of any 10 degrees of the field of view (341 x 256 CSS pixels)."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

CELL = 8  # CSS pixels of a square that is looked at
CHANGE, BRIGHT = 0.1, 0.8
FIELD = (256 // CELL, 341 // CELL)  # rows and columns of squares
SHARE = 0.25

# Draws all canvases under a selector as they stand and as pale as they are, small, at every frame of the page, and
# keeps what has changed with its time: that of the frame, whose drawing is over when it is looked at.
RECORD = """([selector, cell]) => {
    const root = document.querySelector(selector);
    const { width, height } = root.getBoundingClientRect();
    const small = new OffscreenCanvas(Math.ceil(width / cell), Math.ceil(height / cell));
    const pen = small.getContext('2d', { willReadFrequently: true });
    pen.imageSmoothingQuality = 'high';
    window.taken = { times: [], frames: [], rows: small.height, columns: small.width, on: true };
    let last = '';
    const { port1, port2 } = new MessageChannel();
    const look = ({ data: now }) => {
        if (!taken.on) return;
        const { left, top } = root.getBoundingClientRect();
        pen.globalAlpha = 1;
        pen.fillStyle = '#ffffff';
        pen.fillRect(0, 0, small.width, small.height);
        for (const canvas of root.querySelectorAll('canvas')) {
            const at = canvas.getBoundingClientRect();
            if (!at.width || !canvas.width || !canvas.checkVisibility({ visibilityProperty: true })) continue;
            pen.globalAlpha = 1;
            for (let one = canvas; one !== root; one = one.parentElement)
                pen.globalAlpha *= getComputedStyle(one).opacity;
            pen.drawImage(canvas, (at.left - left) / cell, (at.top - top) / cell, at.width / cell, at.height / cell);
        }
        const { data } = pen.getImageData(0, 0, small.width, small.height);
        let text = '';
        for (let i = 0; i < data.length; i += 4) text += String.fromCharCode(data[i], data[i + 1], data[i + 2]);
        if (text !== last) {
            taken.times.push(now / 1000);
            taken.frames.push(btoa(text));
            last = text;
        }
        requestAnimationFrame((now) => port2.postMessage(now));
    };
    port1.onmessage = look;
    look({ data: performance.now() });
}"""


class Recording:
    """What is on show from now on."""

    def __init__(self, page: Any, selector: str = ".dx-viewer") -> None:
        self.page = page
        page.evaluate(RECORD, [selector, CELL])

    @property
    def changes(self) -> int:
        """How often something has changed until now, the first look counted."""
        return int(self.page.evaluate("taken.times.length"))

    def stop(self) -> tuple[np.ndarray, np.ndarray]:
        """Times in seconds, one for each change, and the relative luminance of what came then, (T, rows, columns)."""
        taken = self.page.evaluate("() => { taken.on = false; return taken; }")
        shape = (len(taken["frames"]), taken["rows"], taken["columns"], 3)
        pixels = np.frombuffer(b"".join(base64.b64decode(one) for one in taken["frames"]), np.uint8).reshape(shape)
        return np.array(taken["times"]), luminance(pixels)


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB pixels (..., 3), as WCAG defines it."""
    x = pixels / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    return np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722]))


def turns(frames: np.ndarray) -> np.ndarray:
    """(T, rows, columns): where a square changes by `CHANGE` against the way it went before, counted from the extreme
    between. A change that goes on in the same direction counts once."""
    extreme, way = frames[0].copy(), np.zeros(frames[0].shape, int)
    found = np.zeros(frames.shape, bool)
    for t, now in enumerate(frames):
        off = now - extreme
        dark = np.minimum(now, extreme) < BRIGHT
        found[t] = (np.abs(off) >= CHANGE) & dark & (np.sign(off) != way)
        way = np.where(found[t], np.sign(off).astype(int), way)
        extreme = np.where(found[t] | (off * way > 0), now, extreme)
    return found


def most_flashes(times: np.ndarray, frames: np.ndarray) -> float:
    """The most flashes in any second: half the opposing changes that more than a quarter of some field has had."""
    found = turns(frames)
    most = 0.0
    for end in times:
        counts = found[(times > end - 1) & (times <= end)].sum(0)
        while _widest(counts >= 2 * most + 1) > SHARE:
            most += 0.5
    return most


def _widest(squares: np.ndarray) -> float:
    """The greatest part of any field of view that `squares` take."""
    rows, columns = (max(0, size - have) for size, have in zip(FIELD, squares.shape, strict=True))
    total = np.pad(squares, ((0, rows), (0, columns))).cumsum(0).cumsum(1)
    total = np.pad(total, ((1, 0), (1, 0)))
    h, w = FIELD
    inside = total[h:, w:] - total[:-h, w:] - total[h:, :-w] + total[:-h, :-w]
    return float(inside.max()) / (h * w)
