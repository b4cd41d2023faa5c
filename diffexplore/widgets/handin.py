"""What stays of a widget where no widget can be: a picture of its films with a caption, as a notebook keeps it.

A notebook is handed in, printed, read on a page that runs no scripts. There a widget is an empty place; so beside every
display of one stands an output of its own, which is kept up to date while the kernel lives (`HandIns`) and which the
page hides wherever the widget itself is alive (`browser/keep.js`).

The output holds ``text/html``: a figure that survives any sanitiser, and a script for pages that run some. Where such a
page carries the widget's state, as nbconvert's do, the script puts the whole film in the place of the picture, with no
network. It holds ``image/png`` as well, for what prints and reads no HTML; and ``text/plain``.
"""

from __future__ import annotations

import base64
import html
import io
import json
import logging
import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import uuid4

from IPython.display import display
from PIL import Image

from diffexplore.widgets.film import Film, Frame

__all__ = ["HandIns", "bundle_of", "captions", "poster", "standing"]

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())

WIDTH: Final = 768
"""Pixels of a poster from left to right, at most."""
HEIGHT: Final = 256
"""Pixels of its large pictures from top to bottom, at most."""
ALONE: Final = (4, 2)
"""How many moments of a single run stand beside its picture, across and down."""
ROWS: Final = 4
"""How many moments of a single video have a row of frames,"""
ACROSS: Final = 6
"""and how many frames each."""
BESIDE: Final = 4
"""How many moments of each of several runs stand under its picture."""

_KEPT: Final = 8  # places of a notebook that show one widget and are kept up to date
_VIEW: Final = "application/vnd.jupyter.widget-view+json"


# --- the picture ---


def poster(films: Sequence[Film]) -> Image.Image | None:
    """The films in one picture: of each the end and moments on the way to it, evenly spaced.

    Of a single run the end stands at the left, large, and the moments beside it, to be read as a page is; of several,
    the ends stand in a row, each with its moments below. Of a single video there is a row for each moment, with frames
    from the first to the last. None where no film has a picture.
    """
    if len(films) == 1 and films[0].reel:
        return _frames_of(films[0])
    reels = [(_end(film), moments(film, ALONE[0] * ALONE[1] if len(films) == 1 else BESIDE)) for film in films]
    if not any(end for end, _ in reels):
        return None
    wide = WIDTH // max(3, len(films))
    if len(films) == 1:
        (end, on_the_way), (across, down) = reels[0], ALONE
        assert end is not None
        large = _fitted(end, wide, HEIGHT)
        small = [_fitted(one, large.width // 2, large.height // 2) for one in on_the_way.values()]
        sheet = Image.new("RGB", (large.width + across * (large.width // 2), large.height), "white")
        sheet.paste(large, (0, 0))
        for k, one in enumerate(small[: across * down]):
            sheet.paste(one, (large.width + (k % across) * (large.width // 2), (k // across) * (large.height // 2)))
        return sheet.crop((0, 0, large.width + min(across, max(len(small), 1)) * (large.width // 2), large.height))
    columns = []
    for end, on_the_way in reels:
        if end is None:
            columns.append(Image.new("RGB", (wide, 1), "white"))
            continue
        large = _fitted(end, wide - 4, HEIGHT)
        part = large.width // BESIDE
        small = [_fitted(one, part, HEIGHT) for one in on_the_way.values()]
        column = Image.new("RGB", (wide, large.height + 2 + max((one.height for one in small), default=0)), "white")
        column.paste(large, (0, 0))
        for k, one in enumerate(small):
            column.paste(one, (k * part, large.height + 2))
        columns.append(column)
    sheet = Image.new("RGB", (wide * len(columns) - 4, max(one.height for one in columns)), "white")
    for k, column in enumerate(columns):
        sheet.paste(column, (k * wide, 0))
    return sheet


def _frames_of(film: Film) -> Image.Image | None:
    """A video: a row of frames for each of a few estimates."""
    numbers = _numbers(film)
    rows: list[list[Image.Image]] = []
    for i in moments(film, ROWS):
        found = [film.frames.get((film.row("x0", number), i)) for number in numbers]
        shots = [one for one in found if isinstance(one, Frame)]
        if len(shots) == len(numbers):
            rows.append([_fitted(one, WIDTH // len(shots) - 2, HEIGHT) for one in shots])
    if not rows:
        return None
    wide, high = (side + 2 for side in rows[0][0].size)
    sheet = Image.new("RGB", (wide * len(numbers) - 2, high * len(rows) - 2), "white")
    for y, row in enumerate(rows):
        for x, one in enumerate(row):
            sheet.paste(one, (x * wide, y * high))
    return sheet


def _numbers(film: Film) -> list[int]:
    """The frames of a video that a poster shows, evenly spaced."""
    shown = film.reel["shown"] if film.reel else []
    count = min(ACROSS, len(shown))
    return [shown[round(k * (len(shown) - 1) / max(count - 1, 1))] for k in range(count)]


def moments(film: Film, count: int) -> dict[int, Frame]:
    """Up to `count` estimates of a film by their evaluation, counted from 0, evenly spaced from the first on."""
    there = [i for i in range(len(film.steps)) if isinstance(film.frames.get(("x0", i)), Frame)]
    chosen = there if len(there) <= count else [there[round(k * (len(there) - 1) / (count - 1))] for k in range(count)]
    return {i: one for i in chosen if isinstance(one := film.frames[("x0", i)], Frame)}


def _end(film: Film) -> Frame | None:
    """The finished picture, else the newest estimate."""
    return film.final or next(iter(reversed(moments(film, len(film.steps) + 1).values())), None)


def _fitted(frame: Frame, width: int, height: int) -> Image.Image:
    picture = Image.open(io.BytesIO(frame.data)).convert("RGB")
    scale = min(width / picture.width, height / picture.height)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC)


# --- the words ---


def captions(name: str, films: Sequence[Film]) -> list[str]:
    """What a poster shows, as plain text, a sentence or two a line.

    Args:
        name: What the widget is, such as "Explorer".
        films: What it shows; none before its first run.
    """
    if not films:
        return [f"{name}: nothing had been run when this was saved."]
    if len(films) == 1 and films[0].reel:
        (film,) = films
        steps = ", ".join(str(i + 1) for i in moments(film, ROWS))
        frames = ", ".join(str(number + 1) for number in _numbers(film))
        said = f"Frames {frames} of {films[0].reel['frames']}, from left to right; from top to bottom the estimate at"
        return [_settings(film.about) + _ended(film), f"{said} steps {steps} of {film.expected}."]
    if len(films) == 1:
        (film,) = films
        seen = [str(i + 1) for i in moments(film, ALONE[0] * ALONE[1])]
        steps = f"the estimate at step{'s' * (len(seen) != 1)} {', '.join(seen)}" if seen else "no picture on the way"
        made = "spectrogram of the finished sound" if film.sound else "finished picture"
        end = f"The {made}" if film.final else "The newest estimate"
        return [_settings(film.about) + _ended(film), f"{end}; then {steps} of {film.expected}."]
    shared = {key: value for key, value in films[0].about.items() if all(f.about.get(key) == value for f in films)}
    lines = [f"{len(films)} runs from left to right, below each its estimates on the way. {_settings(shared)}".strip()]
    for film in films:
        own = {key: value for key, value in film.about.items() if key not in shared}
        lines.append(f"{film.label}: {_settings(own)}{_ended(film)}".rstrip(": "))
    return lines


def _settings(about: Mapping[str, Any]) -> str:
    """Settings as a caption says them."""
    said = []
    for key, value in about.items():
        text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
        if key == "prompt":
            said.append(f"“{text}”" if text else "no prompt")
        else:
            said.append(f"{text} {key}" if key == "steps" else f"{key} {text}")
    return " · ".join(said)


def _ended(film: Film) -> str:
    if film.status == "cancelled":
        return f" · stopped after {len(film.steps)} of {film.expected} steps"
    return " · failed" if film.status == "failed" else ""


# --- the output ---


def bundle_of(name: str, films: Sequence[Film], model_id: str = "") -> dict[str, str]:
    """The output that stands for a widget, by type.

    Args:
        name: What the widget is, such as "Explorer".
        films: What it shows.
        model_id: Of the viewer, whose state a page may carry; "" for none.
    """
    return standing(captions(name, films), poster(films), model_id, films=len(films))


def standing(lines: Sequence[str], picture: Image.Image | None, model_id: str = "", films: int = 0) -> dict[str, str]:
    """The output of a picture with its caption, by type.

    Args:
        lines: The caption, line by line.
        picture: None for none.
        model_id: Of a viewer whose state a page may carry, which then takes the picture's place; "" for none.
        films: How many that has.
    """
    image, png = "", {}
    if picture is not None:
        alt = html.escape(" ".join(lines), quote=True)
        data = _encoded(picture, "JPEG", quality=82)
        image = (
            f'<img src="data:image/jpeg;base64,{data}" width="{picture.width}" height="{picture.height}" alt="{alt}" '
            'style="max-width: 100%; height: auto">'
        )
        # Few colours: a picture for paper, and a third of the size.
        png = {"image/png": _encoded(picture.quantize(96, Image.Quantize.FASTOCTREE), "PNG")}
    words = [html.escape(line, quote=False) for line in lines]
    if films == 1:
        words[-1] = f"<span>{words[-1]}</span>"  # of the picture, not of the film in its place
    said = "<br>".join(words)
    figure = f'<figure style="margin: 0">{image}<figcaption>{said}</figcaption></figure>'
    script = _SCRIPT.replace("@model@", json.dumps(re.sub(r"[^\w-]", "", model_id)))
    return {
        "text/html": f'<div class="dx-handin">{figure}</div><script>{script}</script>',
        **png,
        "text/plain": "\n".join(lines),
    }


def _encoded(picture: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


# Hidden at once, or it would be seen for a moment above every live widget. A page with no widget in sight shows it; one
# that carries the widget's state shows the film.
_SCRIPT: Final = """(() => {
const box = document.currentScript?.previousElementSibling;
if (!box) return;
const area = box.closest(".jp-OutputArea, .output_wrapper, .cell_container") ?? document.body;
const mime = "application/vnd.jupyter.widget-state+json";
const kept = () => [...document.querySelectorAll(`script[type="${mime}"]`)]
  .map((one) => JSON.parse(one.textContent).state?.[@model@]).find(Boolean);
const fill = (template, parts) => template.replace(/@(title|style|script|data)@/g, (_, name) => parts[name]);
const play = ({ state, buffers = [] }) => {
  const frames = buffers.find(({ path }) => path[0] === "_frames")?.data;
  if (!frames || !state._film?.films || !state._page) return;
  const traits = { _film: state._film, view: state.view ?? "x0", step: state.step ?? -1, _notes: [], _error: "" };
  const data = JSON.stringify({ traits, frames }).replace(/[<>&\\u2028\\u2029]/g,
    (c) => "\\\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  const frame = document.createElement("iframe");
  frame.title = "the film";
  frame.style.cssText = "display: block; width: 100%; height: 640px; border: 0";
  frame.srcdoc = fill(state._page, { title: "diffexplore", style: state._css, script: state._esm, data });
  frame.onload = () => {
    const page = frame.contentDocument;
    const grow = () => (frame.style.height = `${Math.ceil(page.body.getBoundingClientRect().height) + 8}px`);
    new ResizeObserver(grow).observe(page.body);
    grow();
  };
  box.querySelector("img")?.replaceWith(frame);
  box.querySelector("figcaption span")?.remove();
};
const show = () => {
  box.hidden = false;
  const seen = new IntersectionObserver(([{ isIntersecting }]) => {
    if (!isIntersecting) return;
    seen.disconnect();
    const found = kept();
    if (found) play(found);
  });
  seen.observe(box);
};
const begin = () => {
  if (kept()) return show();
  box.hidden = true;
  setTimeout(() => {
    if (area.querySelector(".dx-viewer")) return (box.hidden = false); // its style hides it
    show();
    const hush = () => {
      for (const one of area.querySelectorAll(".jupyter-widgets"))
        if (one.textContent === "Error displaying widget: model not found") one.style.display = "none";
      if (!box.isConnected) later.disconnect();
    };
    const later = new MutationObserver(hush);
    later.observe(area, { childList: true, subtree: true });
    hush();
  }, 2500);
};
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
else begin();
})();"""


class Shown(Protocol):
    """What a hand-in is made of; a `Viewer`."""

    model_id: str
    comm: Any

    @property
    def shown_run(self) -> int:
        """The number of the run on show; 0 for none."""

    def shown(self) -> list[Film]:
        """Its films."""


@dataclass
class _Place:
    """One place of a notebook that shows a widget."""

    display_id: str
    name: str
    told: int = -1  # the run that its output tells of


class HandIns:
    """The outputs that stand beside the displays of one viewer, or of a widget around it.

    Args:
        viewer: What they tell of.
    """

    def __init__(self, viewer: Shown) -> None:
        """None yet; the class says what the argument is."""
        self._viewer: Shown = weakref.proxy(viewer)  # else a viewer that nobody holds would wait for the collector
        self._places: list[_Place] = []

    def display(self, widget: Any) -> None:
        """Display a widget, and what stands for it."""
        name = type(widget).__name__
        data: dict[str, Any] = {"text/plain": f"{name}: a widget; what it showed last stands below."}
        if widget.comm is not None:  # else it is closed, and this is all that is left of it
            data[_VIEW] = {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}
        display(data, raw=True)
        place = _Place(f"diffexplore-{uuid4().hex}", name)
        self._publish(place, update=False)
        self._places = [*self._places[1 - _KEPT :], place]

    def update(self) -> None:
        """Bring all of them up to date. Costs nothing where there is no news; a page that is gone is no fault."""
        for place in self._places:
            try:
                if place.told != self._viewer.shown_run:
                    self._publish(place, update=True)
            except Exception:
                log.exception("the picture that stands for a widget could not be brought up to date")

    def close(self) -> None:
        """Leave them as they are."""
        self._places = []

    def _publish(self, place: _Place, update: bool) -> None:
        place.told = self._viewer.shown_run
        display(self.bundle(place.name), raw=True, display_id=place.display_id, update=update)

    def bundle(self, name: str) -> dict[str, str]:
        """What stands for the widget now, by type."""
        viewer = self._viewer
        return bundle_of(name, viewer.shown(), viewer.model_id if viewer.comm is not None else "")
