"""A trace as encoded pictures: made once, sent in pieces, replayed without a kernel.

A `Film` holds one small encoded picture for every model evaluation and kind of view, and the numbers a reader wants
beside them. It knows nothing of browsers. `pack` turns films into one JSON-able document and one run of bytes, which is
what a saved notebook, an exported page and a second view show; `unpack` reads them back.

The document, with every length in bytes and every index counted from 0::

    {"format": 1, "run": 3, "bytes": 81234, "captions": {"x0": "The model's estimate ...", ...},
     "films": [{"label": "", "status": "done", "expected": 20, "seconds": 0.93, "size": [64, 64],
                "about": {"prompt": "a red fox", "seed": "7", ...}, "judged": "2 of 2 words",
                "tokens": [["a", "", "320"], ["red", "", "736"], ["zyx", "unknown", "88 21"], ...],
                "columns": [{"name": "timestep", "label": "timestep", "unit": "training step", "log": false}, ...],
                "steps": [[timestep, sigma, seconds, change, [power, ...], adherence, ...], ...],
                "frames": {"x0": [[offset, length, "webp"], ...], ...},
                "final": [offset, length, "webp"],
                "reel": null, "sound": null, "digest": ""}]}

A seed is text, since a browser rounds integers above 2**53. A number that is not finite is null, so is a frame that is
not there (yet); a string in place of a triple says why there is no picture.

Of a step: ``change`` is how far the estimate moved since the step before (`curves.curve`), null at the first. ``power``
is log10 of the estimate's power spectrum (`curves.spectrum`) in up to `BANDS` bands of equal ratio, coarse to fine, the
mean left out. ``adherence`` is how far the exact estimate shows what the prompt names (`curves.adherence_at`), null
where nobody can tell and until that picture is there; ``judged`` says of how many words somebody can,
"" where nobody. What follows are numbers
declared elsewhere (`record.numbers`), where the run has some. ``columns`` says what each entry is, in order; a row ends
early where a step has no more. ``attention`` is where the words look that its column names in ``words``
(`overlay.packed`). ``tokens`` are words with the numbers of their tokens: "" where the model reads one, "cut" where it
never sees it, "unknown" where it saw no example of it, and "more" says how many other tokens there are.

Of a video ``reel`` says which of its ``frames`` are ``shown``, by number, how many there are a second (``fps``, as far
as known) and, where some are left out so that the film stays under `shots.ROOM` bytes, a ``note``. The rows of
``frames`` that have a view's name are the frame in the ``middle``; those of frame 3 are "x0@3". Frames that lie in one
plane of the latents look alike in all views but the decoded ones: there they are those of the first of them (``first``,
for each that is shown). What comes before the end of a run is the middle frame.

Of a sound the row "sound" is the estimate of each step as WAV, "end" has one entry, the sound itself; ``sound`` says
how many ``seconds`` it has, where on a picture its time axis begins and ends (``from``, ``to``, shares of the width),
and in a ``note`` what was left out to stay under that. ``digest`` tells what such runs made apart.

Pictures up to 128 x 128 are kept losslessly (one of that size is about 18 KB, of half the side 6 KB, a frame of 16 x 16
latents 0.9 KB); larger ones as JPEG of quality 88, scaled down to `shots.SIDE`. The finished picture keeps its size.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from os import PathLike
from typing import Any, Final, Literal

import numpy as np

from diffexplore.looks import sounds
from diffexplore.looks.curves import adherence_at, spectrum
from diffexplore.looks.estimates import estimate
from diffexplore.looks.overlay import packed
from diffexplore.looks.views import CAPTIONS, KINDS, VIEWS, Moment, frame, native, why_blank
from diffexplore.pipelines.signature import described
from diffexplore.pipelines.texts import words_in
from diffexplore.pocket.judge import coverage
from diffexplore.record.heat import words_of
from diffexplore.record.numbers import COMPUTED, NUMBERS
from diffexplore.record.predictions import rms
from diffexplore.record.record import Record
from diffexplore.runs.steer import changed_at
from diffexplore.trace import Trace
from diffexplore.widgets.shots import ROOM, SIDE, Frame, digest, encode, pictures_of, reel_of, sound, sound_of
from diffexplore.words import shown

__all__ = ["SIDE", "Film", "Frame", "Numbers", "captions", "encode", "films_of", "pack", "pictures_of", "unpack"]

FORMAT: Final = 1
BANDS: Final = 12
"""Most bands of a spectrum."""
TOKENS: Final = 160
"""Most tokens of a prompt that a film carries; twice what CLIP reads."""

DECODED: Final = tuple(kind for kind in VIEWS if KINDS[kind].decoded)
"""The views whose exact form takes a pass of the picture decoder. All others are exact at once."""

Status = Literal["running", "done", "cancelled", "failed"]
Numbers = tuple[
    float | None, float | None, float | None, float | None, tuple[float | None, ...], float | None,
    *tuple[Any, ...],
]  # fmt: skip
"""Of one evaluation: timestep, sigma, seconds, change, the spectrum of the estimate, and its adherence; then those
declared elsewhere, as the columns of the film say."""
Column = dict[str, Any]
"""What one of those is: its name, label and unit, and whether it is best drawn on a logarithmic axis."""

_SPECTRUM: Final[Column] = {"name": "spectrum", "label": "spectrum", "unit": "log10 of power", "log": False}
_QUIET: Final = "This step has no sound: its numbers are not finite, or nobody can decode it."
ATTENTION: Final = "attention"
"""The column of where words look."""
_ATTENTION: Final[Column] = {"name": ATTENTION, "label": "where words look", "unit": "share", "log": False}


@dataclass(eq=False)
class Film:
    """One run as encoded pictures.

    Attributes:
        label: What to call the run where several are shown.
        about: The settings that made it and the model's name: text and numbers for a caption.
        judged: Of how many words of the prompt the pocket model's judge can speak, as text; "" for another's pictures.
        status, expected, seconds: How the run stands, how many evaluations it will take, how long it took; its
            share of what a batch took.
        size: (width, height) of the finished picture in pixels.
        tokens: The prompt as the model reads it, word by word, each with "" or what is the matter with it, and the
            numbers of its tokens.
        flags: What changed on the way: an evaluation, what, and the share of noise that it was asked for at.
        columns: What each of the numbers is; there may come to be more.
        steps: `Numbers` for every evaluation so far.
        frames: (kind, evaluation) -> `Frame`, or a sentence where there is nothing to see.
        final: The finished picture, once there is one; of a video its middle frame, of a sound its spectrogram.
        reel: Of a finished video, which of its frames are there, as the head of this file says it.
        sound: Likewise of a sound.
        digest: Of all the frames of a video, or of a sound; "" of a picture.
    """

    label: str = ""
    about: dict[str, str | int | float] = field(default_factory=dict)
    judged: str = ""
    status: Status = "running"
    expected: int = 0
    seconds: float = 0.0
    size: tuple[int, int] = (1, 1)
    tokens: list[tuple[str, str, str]] = field(default_factory=list)
    flags: list[tuple[int, str, float]] = field(default_factory=list)
    columns: list[Column] = field(default_factory=list)
    steps: list[Numbers] = field(default_factory=list)
    frames: dict[tuple[str, int], Frame | str] = field(default_factory=dict)
    final: Frame | None = None
    reel: dict[str, Any] | None = None
    sound: dict[str, Any] | None = None
    digest: str = ""
    _side: int = SIDE

    @classmethod
    def of(cls, trace: Record, label: str = "") -> Film:
        """The complete film of a trace: every view of every evaluation, exact where the trace can decode."""
        film = cls.begin(trace, label)
        film.end(trace)
        for i in range(len(film.steps)):  # all views of a step together: what is decoded for one serves the others
            for kind in VIEWS:
                for key in film.keys(kind, i):
                    film.shoot(trace, key, i)
        return film

    @classmethod
    def begin(cls, trace: Record, label: str = "") -> Film:
        """An empty film for a run that may still be going."""
        settings = trace.settings
        about: dict[str, str | int | float] = {"prompt": settings.prompt}
        if settings.negative_prompt:
            about["negative prompt"] = settings.negative_prompt
        about |= {"steps": settings.steps, "guidance": settings.guidance, "seed": str(settings.seed)}
        more = {
            "sampler": settings.sampler, "adapters": ", ".join(settings.loras), "strength": settings.strength,
            "changes": "; ".join(settings.changing), "variation": settings.varied,
            "guider": settings.guider if settings.mixed else "", "noise levels": settings.leveled,
            "fresh noise": settings.fresh_noise, "hidden mark": "by a key" if settings.watermark else "",
        }  # fmt: skip
        about |= {name: value for name, value in more.items() if value not in (None, "")}
        for name, value in described(dict(trace.extra) or trace.info.get("extra") or {}).items():
            about[name.replace("_", " ")] = value if isinstance(value, int | float | str) else str(value)[:200]
        if settings.skipped:
            about["skips"] = ", ".join(settings.skipped)
        if trace.info.get("forward"):
            about["network"] = "not asked"  # browser/cost.js counts its calls
        if model := trace.info.get("model"):
            about["model"] = str(model)
        size = (settings.width or 1, settings.height or 1)
        if trace.image is not None:
            size = trace.image.size
        elif trace.kind == "sound":
            size = sounds.SIZE
        film = cls(label=label, about=about, expected=trace.expected, size=size, tokens=_tokens(trace))
        # As in `looks.curves`: the name of a model is for people.
        film.judged = str(coverage(settings.prompt)) if trace.info.get("world") == "pocket" else ""
        film.columns = _columns(trace)
        return film

    def grow(self, trace: Record) -> None:
        """Take in the numbers of the next evaluation. Its pictures come by `shoot`."""
        i = len(self.steps)
        step = trace[i]
        if self.size == (1, 1):  # of a run that has no size but that of its latents
            self.size = native(step)[::-1]
        with np.errstate(all="ignore"):  # broken numbers are shown as such, not reported by numpy
            change = _finite(rms(step.x0 - trace[i - 1].x0)) if i else None
            # Of a sound's latents one axis is time: a scale in both means nothing.
            bands = () if trace.kind == "sound" else _bands(spectrum(trace, i))
        others = self._others(trace, i)
        self.flags = self.flags if i else []
        self.flags += changed_at(trace, i, [mark for *_, mark in self.flags])
        self.steps.append(
            (_finite(step.timestep), _finite(step.sigma), _finite(step.seconds), change, bands, None, *others)
        )
        self.expected = max(self.expected, len(self.steps))

    def _others(self, trace: Record, i: int) -> tuple[Any, ...]:
        """The numbers of an evaluation that were declared elsewhere, and those of a panel, where there are any."""
        left = trace[i].numbers
        known = {column["name"] for column in self.columns}
        computed = [
            name
            for name, one in NUMBERS.items()
            if one.of and not one.decodes and name not in known and (name not in COMPUTED or one.group)
        ]
        there = (name for name in computed if not NUMBERS[name].group or math.isfinite(NUMBERS[name].at(trace, i)))
        if new := [name for name in (*there, *left) if name not in known]:
            self.columns += trace.columns(new)
        maps = packed(trace, i)
        if maps is not None and ATTENTION not in known:
            self.columns.append({**_ATTENTION, "words": words_of(trace)})
        names = [str(column["name"]) for column in self.columns[6:]]
        return tuple(
            maps
            if name == ATTENTION
            else _finite(NUMBERS[name].at(trace, i) if name in NUMBERS else left.get(name, math.nan))
            for name in names
        )

    def end(self, trace: Record, status: Status | None = None) -> None:
        """The run is over: take what is known only now."""
        for _ in range(len(self.steps), len(trace)):
            self.grow(trace)
        # Once more: some are left when a step has been handed out already.
        for i, (when, level, seconds, change, bands, adherence, *_) in enumerate(self.steps):
            self.steps[i] = (when, level, seconds, change, bands, adherence, *self._others(trace, i))
        self.status = status or ("cancelled" if trace.cancelled else "done")
        self.expected = max(trace.expected, len(self.steps))
        self.seconds = _finite(trace.seconds / trace.info.get("batch", 1)) or 0.0
        if trace.info.get("reused"):  # looked up, not drawn: how long that took says nothing about the steps
            self.seconds = 0.0
            self.about["kept"] = "from an earlier run"
        if trace.image is not None:
            self.final = encode(trace.image, side=max(trace.image.size))
            self.size = trace.image.size
        if trace.kind == "sound":
            self._end_sound(trace)
        elif trace.frames:
            self.reel, self._side = reel_of(trace)
            if isinstance(trace.output, list):
                self.digest = digest(np.asarray(one) for one in trace.output)

    def _end_sound(self, trace: Record) -> None:
        if self.size != sounds.SIZE:  # it was not known what it would make
            self.size = sounds.SIZE
            self.frames.clear()
        if isinstance(trace.output, np.ndarray):
            self._side = max(sounds.SIZE)
            self.final = encode(sounds.heard(trace.output, sounds.rate_of(trace)), side=self._side)
            self.digest = digest([trace.output])
            self.sound = sound_of(trace, self._room)

    @property
    def _room(self) -> int:
        """Bytes of the sound of one step."""
        return ROOM // (len(self.steps) + 1)

    def row(self, kind: str, number: int) -> str:
        """The row of ``frames`` that has a frame of a video, by its number."""
        return kind if self.reel is None or number == self.reel["middle"] else f"{kind}@{number}"

    def keys(self, kind: str, i: int) -> Iterator[str]:
        """The rows of ``frames`` to which a view of an evaluation belongs: itself first, then, once the run is over,
        the frames of a video, and with the estimate its sound."""
        yield kind
        if self.reel and not isinstance(self.frames.get((kind, i)), str):
            reel = self.reel
            for number in dict.fromkeys(reel["shown"] if kind in DECODED else reel["first"]):
                if number != reel["middle"]:
                    yield self.row(kind, number)
        if self.sound and kind == "x0":
            yield "sound"
            if i == 0:
                yield "end"

    def shoot(self, trace: Record, key: str, i: int, exact: bool = True) -> None:
        """Encode one view of one evaluation, unless that has been done as well as asked."""
        now = self.frames.get((key, i))
        if now is not None and (isinstance(now, str) or now.exact or not exact):
            return
        if key in ("sound", "end"):
            samples = estimate(trace, "x0", i) if key == "sound" else trace.output
            self.frames[key, i] = _QUIET if samples is None else sound(samples, sounds.rate_of(trace), self._room)
            return
        kind, _, number = key.partition("@")
        plane = Moment(int(number), self.reel["frames"]) if number and self.reel else None
        blank = why_blank(trace, kind, i)
        good = exact or kind not in DECODED or trace.decode is None
        pixels = None if blank else frame(trace, kind, i, exact=exact, plane=plane)
        self.frames[key, i] = (
            blank
            if pixels is None
            else encode(pixels, exact=good, side=self._side, plain=trace.kind == "sound" and kind != "x0")
        )
        if key == "x0" and exact and not blank:
            row = self.steps[i]
            self.steps[i] = (*row[:5], _finite(adherence_at(trace, i)), *row[6:])

    @property
    def complete(self) -> bool:
        """Whether every view of every evaluation is there as good as it gets, and the run is over."""
        if self.status == "running":
            return False
        found = (
            self.frames.get((key, i)) for kind in VIEWS for i in range(len(self.steps)) for key in self.keys(kind, i)
        )
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
            "judged": film.judged,
            "tokens": [list(token) for token in film.tokens],
            "flags": [list(flag) for flag in film.flags],
            "columns": [dict(column) for column in film.columns],
            "steps": [list(step) for step in film.steps],
            "frames": {
                kind: [put(film.frames.get((kind, i))) for i in range(len(film.steps))]
                for kind in dict.fromkeys((*VIEWS, *(kind for kind, _ in film.frames)))
            },
            "final": put(film.final),
            "reel": film.reel,
            "sound": film.sound,
            "digest": film.digest,
        }
        for film in films
    ]
    document = {"format": FORMAT, "run": run, "bytes": len(data), "captions": captions(films), "films": documents}
    return document, bytes(data)


def captions(films: Sequence[Film]) -> dict[str, str]:
    """A sentence for each view, as a reader of these films needs it."""
    said = sounds.CAPTIONS if films and all(film.size == sounds.SIZE for film in films) else {}
    return {kind: said.get(kind, CAPTIONS[kind]) for kind in VIEWS}


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
            label=one["label"],
            about=dict(one["about"]),
            judged=_told(one.get("judged")),
            status=one["status"],
            expected=one["expected"],
            seconds=one["seconds"],
            size=tuple(one["size"]),
            columns=[dict(column) for column in one.get("columns", ())],
            reel=one.get("reel"),
            sound=one.get("sound"),
            digest=one.get("digest", ""),
        )
        film.flags = [(i, text, mark) for i, text, mark in one.get("flags", ())]
        film.tokens = [(text, matter, ids[0] if ids else "") for text, matter, *ids in one["tokens"]]
        # The judge's number was added later: films saved before have none.
        film.steps = [(*row[:4], tuple(row[4]), row[5] if len(row) > 5 else None, *row[6:]) for row in one["steps"]]
        for kind, row in one["frames"].items():
            film.frames |= {(kind, i): shot for i, place in enumerate(row) if (shot := take(place)) is not None}
        final = take(one["final"])
        film.final = final if isinstance(final, Frame) else None
        films.append(film)
    return films


# --- what people hand over ---


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
    if isinstance(source, Film):
        return [source]
    if isinstance(source, Record):
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
        raise TypeError(f"give a trace, the path of a saved one, or a list or dict of them; got {shown(source)}")
    return films


# --- numbers and words of a run ---


def _columns(trace: Record) -> list[Column]:
    """What the numbers are that every film has; their order is that of `Numbers`."""
    return [*trace.columns(("timestep", "sigma", "seconds", "change")), _SPECTRUM, *trace.columns(("adherence",))]


def _tokens(trace: Record) -> list[tuple[str, str, str]]:
    """The prompt word by word, what is the matter with each, and the numbers of its tokens."""
    found = trace.info.get("tokens") or {}
    prompt, unknown = trace.settings.prompt, {str(word) for word in trace.info.get("unknown") or ()}
    read, cut, ids = list(found.get("prompt", ())), list(found.get("cut", ())), list(found.get("ids", ()))
    pieces: list[tuple[int, int]] = []
    at = 0
    for text in [*read, *cut][: 4 * TOKENS]:
        start = prompt.find(text, at)  # tokens come in order; a tokenizer may have changed what it read
        start, at = (start, start + len(text)) if start >= 0 else (at, at)
        pieces.append((start, at))
    words: list[tuple[str, str, str]] = []
    count = 0
    for word in words_in(prompt, pieces)[:TOKENS]:
        strange = word.text.lower() in unknown or any(part.lower() in unknown for part in re.split("['’-]", word.text))
        matter = "cut" if word.tokens[0] >= len(read) else "unknown" if strange else ""
        words.append((word.text, matter, " ".join(str(ids[k]) for k in word.tokens if k < len(ids))))
        count = word.tokens[-1] + 1
    rest = len(read) + len(cut) - count
    return [*words, (f"{rest} more", "more", "")] if rest > 0 and words else words


def _bands(power: np.ndarray) -> tuple[float | None, ...]:
    """log10 of a power spectrum in bands of about equal ratio, coarse to fine; the mean is left out."""
    edges = np.unique(np.round(np.geomspace(1, len(power), BANDS + 1)).astype(int))
    with np.errstate(all="ignore"):
        logs = [float(np.log10(np.mean(power[low:high]))) for low, high in pairwise(edges)]
    return tuple(round(one, 2) if math.isfinite(one) else None for one in logs)


def _told(judged: Any) -> str:
    """Films saved before say only whether there was a judge."""
    return judged if isinstance(judged, str) else "its words" if judged else ""


def _finite(value: float | None) -> float | None:
    """A number as JSON can hold it: six significant digits, None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")
