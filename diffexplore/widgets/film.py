"""A trace as encoded pictures: made once, sent in pieces, replayed without a kernel.

A `Film` holds one small encoded picture for every model evaluation and kind of view, and the numbers a reader wants
beside them. It knows nothing of browsers. `pack` turns films into one JSON-able document and one run of bytes, which is
what a saved notebook, an exported page and a second view show; `unpack` reads them back.

The document, with every length in bytes and every index counted from 0::

    {"format": 1, "run": 3, "bytes": 81234, "captions": {"x0": "The model's estimate ...", ...},
     "films": [{"label": "", "status": "done", "expected": 20, "seconds": 0.93, "size": [64, 64],
                "about": {"prompt": "a red fox", "seed": "7", ...},
                "tokens": [["a", ""], ["red", ""], ["zyx", "unknown"], ...],
                "steps": [[timestep, sigma, seconds, change, [power, ...], adherence], ...],
                "frames": {"x0": [[offset, length, "webp"], ...], ...},
                "final": [offset, length, "webp"]}]}

A seed is text, since a browser rounds integers above 2**53. A number that is not finite is null, so is a frame that is
not there (yet); a string in place of a triple says why there is no picture.

Of a step: ``change`` is how far the estimate moved since the step before (`curves.curve`), null at the first. ``power``
is log10 of the estimate's power spectrum (`curves.spectrum`) in up to `BANDS` bands of equal ratio, coarse to fine, the
mean left out. ``adherence`` is how far the exact estimate shows what the prompt names (`curves.adherence_at`), null
where nobody can tell and until that picture is there. A token is "" where the model reads it, "cut" where it never
sees it, "unknown" where it belongs to a word of which it saw no example, and "more" says how many others there are.

Pictures up to 128 x 128 are kept losslessly (a 64 x 64 picture is about 6 KB, a frame of 16 x 16 latents 0.9 KB);
larger ones as JPEG of quality 88, scaled down to `SIDE`. The finished picture keeps its size.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from PIL import Image

from diffexplore.looks import pictures
from diffexplore.looks.curves import adherence_at, spectrum
from diffexplore.looks.views import CAPTIONS, KINDS, VIEWS, frame, why_blank

if TYPE_CHECKING:
    from diffexplore.trace import Trace

__all__ = ["SIDE", "Film", "Frame", "Numbers", "Source", "encode", "films_of", "pack", "page", "to_html", "unpack"]

FORMAT: Final = 1
SIDE: Final = 384
"""Longest side of a frame in pixels; the finished picture may be larger."""
BANDS: Final = 12
"""Most bands of a spectrum."""
TOKENS: Final = 160
"""Most tokens of a prompt that a film carries; twice what CLIP reads."""

DECODED: Final = frozenset(kind for kind in VIEWS if KINDS[kind].decoded)
"""The views whose exact form takes a pass of the picture decoder. All others are exact at once."""

Status = Literal["running", "done", "cancelled", "failed"]
Numbers = tuple[float | None, float | None, float | None, float | None, tuple[float | None, ...], float | None]
"""Of one evaluation: timestep, sigma, seconds, change, the spectrum of the estimate, and its adherence."""
type_of: Final = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}

_LOSSLESS_PIXELS: Final = 128 * 128
_HERE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Frame:
    """One encoded picture: the bytes of an image file, its format (a key of `type_of`), and whether a better one is to
    follow."""

    data: bytes
    format: str
    exact: bool = True


def encode(pixels: np.ndarray | Image.Image, *, exact: bool = True, side: int = SIDE) -> Frame:
    """Encode (H, W, 3) uint8 pixels, or a picture, as a `Frame` no longer than `side` pixels."""
    picture = pixels.convert("RGB") if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    # Below 32 x 32 the container is what counts, and PNG is the smaller and the faster.
    pixels_of = picture.width * picture.height
    chosen = "png" if pixels_of <= 32 * 32 else "webp" if pixels_of <= _LOSSLESS_PIXELS else "jpeg"
    return Frame(pictures.encode(picture, chosen, quick=True), chosen, exact)


def pictures_of(trace: Trace) -> list[bytes]:
    """The decoded x0 of every step as image files: without loss up to 128 x 128 pixels, else as JPEG."""
    frames = (frame(trace, "x0", i) for i in range(len(trace)))
    return [encode(pixels, side=max(pixels.shape)).data for pixels in frames]


@dataclass(eq=False)
class Film:
    """One run as encoded pictures.

    Attributes:
        label: What to call the run where several are shown.
        about: The settings that made it and the model's name: text and numbers for a caption.
        status, expected, seconds: How the run stands, how many evaluations it will take, how long it took.
        size: (width, height) of the finished picture in pixels.
        tokens: The prompt as the model reads it, token by token, each with "" or what is the matter with it.
        steps: `Numbers` for every evaluation so far.
        frames: (kind, evaluation) -> `Frame`, or a sentence where there is nothing to see.
        final: The finished picture, once there is one.
    """

    label: str = ""
    about: dict[str, str | int | float] = field(default_factory=dict)
    status: Status = "running"
    expected: int = 0
    seconds: float = 0.0
    size: tuple[int, int] = (1, 1)
    tokens: list[tuple[str, str]] = field(default_factory=list)
    steps: list[Numbers] = field(default_factory=list)
    frames: dict[tuple[str, int], Frame | str] = field(default_factory=dict)
    final: Frame | None = None

    @classmethod
    def of(cls, trace: Trace, label: str = "") -> Film:
        """The complete film of a trace: every view of every evaluation, exact where the trace can decode."""
        film = cls.begin(trace, label)
        film.end(trace)
        for kind in VIEWS:
            for i in range(len(film.steps)):
                film.shoot(trace, kind, i)
        return film

    @classmethod
    def begin(cls, trace: Trace, label: str = "") -> Film:
        """An empty film for a run that may still be going."""
        settings = trace.settings
        about: dict[str, str | int | float] = {"prompt": settings.prompt}
        if settings.negative_prompt:
            about["negative prompt"] = settings.negative_prompt
        about |= {"steps": settings.steps, "guidance": settings.guidance, "seed": str(settings.seed)}
        if settings.sampler:
            about["sampler"] = settings.sampler
        if settings.loras:
            about["adapters"] = ", ".join(settings.loras)
        if model := trace.info.get("model"):
            about["model"] = str(model)
        size = (settings.width or 1, settings.height or 1)
        if trace.image is not None:
            size = trace.image.size
        return cls(label=label, about=about, expected=trace.expected, size=size, tokens=_tokens(trace))

    def grow(self, trace: Trace) -> None:
        """Take in the numbers of the next evaluation. Its pictures come by `shoot`."""
        i = len(self.steps)
        step = trace[i]
        change = None
        if i:
            moved = (step.x0 - trace[i - 1].x0).numpy().astype(np.float64)
            change = _finite(math.sqrt(float(np.mean(np.square(moved)))))
        numbers = (
            _finite(step.timestep),
            _finite(step.sigma),
            _finite(step.seconds),
            change,
            _bands(spectrum(trace, i)),
            None,
        )
        self.steps.append(numbers)
        self.expected = max(self.expected, len(self.steps))

    def end(self, trace: Trace, status: Status | None = None) -> None:
        """The run is over: take what is known only now."""
        for _ in range(len(self.steps), len(trace)):
            self.grow(trace)
        self.status = status or ("cancelled" if trace.cancelled else "done")
        self.expected = max(trace.expected, len(self.steps))
        self.seconds = _finite(trace.seconds) or 0.0
        if trace.info.get("reused"):  # looked up, not drawn: how long that took says nothing about the steps
            self.seconds = 0.0
            self.about["kept"] = "from an earlier run"
        if trace.image is not None:
            self.final = encode(trace.image, side=max(trace.image.size))
            self.size = trace.image.size

    def shoot(self, trace: Trace, kind: str, i: int, exact: bool = True) -> None:
        """Encode one view of one evaluation, unless that has been done as well as asked."""
        now = self.frames.get((kind, i))
        if now is not None and (isinstance(now, str) or now.exact or not exact):
            return
        blank = why_blank(trace, kind, i)
        good = exact or kind not in DECODED or trace.decode is None
        self.frames[kind, i] = blank or encode(frame(trace, kind, i, exact=exact), exact=good)
        if kind == "x0" and exact and not blank:
            self.steps[i] = (*self.steps[i][:5], _finite(adherence_at(trace, i)))

    @property
    def complete(self) -> bool:
        """Whether every view of every evaluation is there as good as it gets, and the run is over."""
        if self.status == "running":
            return False
        found = (self.frames.get((kind, i)) for kind in VIEWS for i in range(len(self.steps)))
        return all(isinstance(one, str) or (one is not None and one.exact) for one in found)


# --- packing ---


def pack(films: Sequence[Film], run: int = 0) -> tuple[dict[str, Any], bytes]:
    """Films as one JSON-able document (see the head of this file) and the bytes it points into."""
    data = bytearray()
    place: dict[bytes, int] = {}  # identical frames, such as a grey one for every step, are kept once

    def put(one: Frame | str | None) -> list[int | str] | str | None:
        if one is None or isinstance(one, str):
            return one
        offset = place.setdefault(one.data, len(data))
        if offset == len(data):
            data.extend(one.data)
        return [offset, len(one.data), one.format]

    documents = [
        {
            "label": film.label,
            "status": film.status,
            "expected": film.expected,
            "seconds": film.seconds,
            "size": list(film.size),
            "about": dict(film.about),
            "tokens": [list(token) for token in film.tokens],
            "steps": [list(step) for step in film.steps],
            "frames": {kind: [put(film.frames.get((kind, i))) for i in range(len(film.steps))] for kind in VIEWS},
            "final": put(film.final),
        }
        for film in films
    ]
    captions = {kind: CAPTIONS[kind] for kind in VIEWS}
    document = {"format": FORMAT, "run": run, "bytes": len(data), "captions": captions, "films": documents}
    return document, bytes(data)


def unpack(document: Mapping[str, Any], data: bytes) -> list[Film]:
    """The films that `pack` packed.

    Raises:
        ValueError: The document is of another format, or the bytes are not the ones it was made with.
    """
    if document.get("format") != FORMAT:
        msg = f"this film is of format {document.get('format')!r}; this version of diffexplore reads format {FORMAT}"
        raise ValueError(msg)
    if len(data) != document["bytes"]:
        msg = f"this film should have {document['bytes']} bytes of pictures, got {len(data)}"
        raise ValueError(msg)

    def take(one: Any) -> Frame | str | None:
        if one is None or isinstance(one, str):
            return one
        offset, length, chosen = one
        return Frame(data[offset : offset + length], chosen)

    films = []
    for one in document["films"]:
        film = Film(
            one["label"], dict(one["about"]), one["status"], one["expected"], one["seconds"], tuple(one["size"])
        )
        film.tokens = [(text, matter) for text, matter in one["tokens"]]
        # The judge's number was added later: films saved before have none.
        film.steps = [(*row[:4], tuple(row[4]), row[5] if len(row) > 5 else None) for row in one["steps"]]
        for kind, row in one["frames"].items():
            film.frames |= {(kind, i): shot for i, place in enumerate(row) if (shot := take(place)) is not None}
        final = take(one["final"])
        film.final = final if isinstance(final, Frame) else None
        films.append(film)
    return films


# -- what people hand over

Source = "Trace | Film | str | PathLike[str] | Sequence[Source] | Mapping[str, Source]"


def films_of(source: Any) -> list[Film]:
    """Films of whatever holds runs: a trace, a film, the path of a saved trace, a list of these, or a dict of them by
    label. Of several, those without a label are numbered.

    Raises:
        TypeError: Something else, or an empty list.
        ValueError: A run has no steps.
    """
    films = _films(source, "")
    if not all(film.steps for film in films):
        raise ValueError("there is nothing to show of a run without steps")
    if len(films) == 1:
        return films
    return [film if film.label else replace(film, label=f"run {number}") for number, film in enumerate(films, 1)]


def _films(source: Any, label: str) -> list[Film]:
    from diffexplore.trace import Trace

    if isinstance(source, Film):
        return [source]
    if isinstance(source, Trace):
        return [Film.of(source, label)]
    if isinstance(source, (str, PathLike)):
        return [Film.of(Trace.load(source), label)]
    if isinstance(source, Mapping):
        films = [film for name, one in source.items() for film in _films(one, str(name))]
    elif isinstance(source, Sequence):
        films = [film for one in source for film in _films(one, label)]
    else:
        films = []
    if not films:
        got = f"{type(source).__name__} {source!r:.60}"
        msg = f"give a trace, the path of a saved one, or a list or dict of them; got {got}"
        raise TypeError(msg)
    return films


# --- a page of its own ---

# What follows viewer.js in the page: a host of a dozen lines, in place of Jupyter. The module's names are in scope, it
# is one script.
_PAGE_HOST: Final = """
// === the page: a host with no kernel ===
{
const page = JSON.parse(document.getElementById("dx-data").textContent);
const traits = { ...page.traits, _frames: Uint8Array.from(atob(page.frames), (c) => c.charCodeAt(0)) };
const host = { get: (name) => traits[name], set() {}, save_changes() {}, send() {}, on() {}, off() {} };
const { signal } = new AbortController();
const widget = viewer();
widget.initialize({ model: host, signal });
widget.render({ model: host, el: document.getElementById("dx"), signal });
}
"""

# The places marked @...@ are filled here, and by the Export button in viewer.js. The hashes are of script and style.
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src blob: data:; style-src '@style_hash@'; \
script-src '@script_hash@'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="diffexplore">
<title>@title@</title>
<style>@style@</style>
</head>
<body>
<main id="dx"></main>
<noscript>This page needs JavaScript to show its pictures. It loads nothing from elsewhere.</noscript>
<script type="application/json" id="dx-data">@data@</script>
<script type="module">@script@</script>
</body>
</html>
"""

_PAGE_STYLE: Final = """
html { color-scheme: light dark; }
body { margin: 0 auto; max-width: 64rem; padding: 1rem; background: Canvas; color: CanvasText; font-family: system-ui,
sans-serif; }
"""


def to_html(source: Any, path: str | PathLike[str], *, view: str = "x0") -> Path:
    """Write one self-contained page that scrubs with no kernel, no network and no other file.

    Args:
        source: What `films_of` takes: a trace, a saved one, or several on one timeline.
        path: Where to write; an existing file is replaced.
        view: The view it opens with.

    Returns:
        The file written.
    """
    if view not in VIEWS:
        msg = f"view must be one of {', '.join(VIEWS)}; got {view!r}"
        raise ValueError(msg)
    films = films_of(source)
    document, frames = pack(films)
    traits = {"_film": document, "view": view, "step": -1, "_notes": [], "_error": ""}
    prompt = next((str(film.about["prompt"]) for film in films if film.about.get("prompt")), "")
    filled = _fill(
        page(),
        title=_text(f"{prompt:.80} - diffexplore" if prompt else "diffexplore"),
        style=_source("viewer.css"),
        script=_source("viewer.js"),
        data=_json({"traits": traits, "frames": base64.b64encode(frames).decode()}),
    )
    path = Path(path)
    path.write_text(filled, encoding="utf-8", newline="\n")  # the hashes are of "\n" line ends
    return path


@cache
def page() -> str:
    """The exported page with @title@, @style@ (viewer.css), @data@ and @script@ (viewer.js) still to be filled in."""
    style, script = _source("viewer.css") + _PAGE_STYLE, _source("viewer.js") + _PAGE_HOST
    return _fill(
        _PAGE,
        style=f"@style@{_PAGE_STYLE}",
        style_hash=_hash(style),
        script=f"@script@{_PAGE_HOST}",
        script_hash=_hash(script),
    )


def _fill(text: str, **values: str) -> str:
    """Fill marked places, in one pass: a mark within a value, such as a prompt, is left alone."""
    return re.sub("@(" + "|".join(values) + ")@", lambda found: values[found[1]], text)


@cache
def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> str:
    """JSON that no HTML parser can be led out of: markup, and the two line ends that JavaScript once refused, as
    escapes."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _text(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# --- numbers and words of a run ---


def _tokens(trace: Trace) -> list[tuple[str, str]]:
    """The prompt token by token, and what is the matter with each."""
    found = trace.info.get("tokens") or {}
    prompt, unknown = trace.settings.prompt, {str(word) for word in trace.info.get("unknown") or ()}
    strange = [word.span() for word in re.finditer(r"[^\W_]+(?:['-][^\W_]+)*", prompt) if word[0].lower() in unknown]
    read, cut = list(found.get("prompt", ())), list(found.get("cut", ()))
    tokens: list[tuple[str, str]] = []
    at = 0
    for k, text in enumerate([*read, *cut][:TOKENS]):
        start = prompt.find(text, at)  # tokens come in order; a tokenizer may have changed what it read
        start, at = (start, start + len(text)) if start >= 0 else (at, at)
        known = not any(begin < at and start < end for begin, end in strange)
        tokens.append((text, "cut" if k >= len(read) else "" if known else "unknown"))
    rest = len(read) + len(cut) - len(tokens)
    return [*tokens, (f"{rest} more", "more")] if rest else tokens


def _bands(power: np.ndarray) -> tuple[float | None, ...]:
    """log10 of a power spectrum in bands of about equal ratio, coarse to fine; the mean is left out."""
    edges = np.unique(np.round(np.geomspace(1, len(power), BANDS + 1)).astype(int))
    with np.errstate(all="ignore"):
        logs = [float(np.log10(np.mean(power[low:high]))) for low, high in pairwise(edges)]
    return tuple(round(one, 2) if math.isfinite(one) else None for one in logs)


def _finite(value: float | None) -> float | None:
    """A number as JSON can hold it: six significant digits, None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")
