"""What the marks of a picture outlive: a picture saved anew, made smaller, cropped, blurred, taken off a screen.

Marks in the file (a recipe, a source type, Content Credentials) live as long as programs carry them over, whatever
happens to the pixels: nearly all that is done here is done by a program that carries over nothing, as most do. Marks in
the pixels live as long as the pixels are near enough to what they were.

A mark that was found says what it says and no more. That none was found proves nothing: they can all be removed, as
this bench shows, and be put where they do not belong, but for a signature with a key that somebody is known to have.

No library that writes a watermark into finished pixels is used here. ``invisible-watermark`` 0.2.0 was tried: no
release since July 2023, OpenCV with its windows, pictures below 256 pixels refused. Of its methods the usual one loses
bits with nothing done (48 bits in 512 pixels: all read in 2 of 10 drawn pictures and 12 of 15 others); the other,
``dwtDctSvd``, changes single values by up to 149 of 255, was read whole after JPEG 95, halving and blur, mostly after
JPEG 80 (20 of 25), and never after WebP 80, JPEG 50, a crop, a screenshot or mirroring. TrustMark is kept up, but
fetches its networks when it is first used. Whoever has one of them hands over its reader (`read`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from PIL import Image

from diffexplore.experiments.damage import AS_SAVED, THINGS, done_to, suffix_of
from diffexplore.experiments.detect import detect
from diffexplore.experiments.shared import Tabled, a_model
from diffexplore.looks.credentials import credentials, sign
from diffexplore.looks.figures.kit import INK, PALE_BLUE, QUIET, RED, TEXT, Figure, Plotted, fitted, plain
from diffexplore.looks.figures.paper import MARGIN, Paper
from diffexplore.looks.marks import is_marked, source_of, sources
from diffexplore.looks.pictures import FORMATS, read_picture
from diffexplore.looks.recipe import recipe_in
from diffexplore.settings import MAX_KEY, Settings
from diffexplore.trace import Trace
from diffexplore.values import as_secret
from diffexplore.words import listed, sentence, shown

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["Finding", "Survival", "survives"]

Reader = Callable[[Image.Image], Any]
"""Says what a mark in the pixels of a picture (PIL, RGB) says; None or False: there is none."""

KEPT: Final = "kept"
BROKEN: Final = "broken"
GONE: Final = "gone"

RECIPE: Final = "recipe"
SOURCE: Final = "source type"
CREDENTIALS: Final = "Content Credentials"
WATERMARK: Final = "watermark"


@dataclass(frozen=True)
class Finding:
    """One mark, after one thing was done to the picture.

    Attributes:
        mark: which.
        done: what was done.
        state: "kept", it says what it said; "broken", it is there and does not hold; "gone".
        says: what it says now, or why it says nothing.
        p: of a watermark, how often another key would go with the picture as well (`detect.Detection`); of others None.
    """

    mark: str
    done: str
    state: str
    says: str
    p: float | None = None


# What is found


class Survival(Plotted, Tabled):
    """What :func:`survives` found.

    Attributes:
        name: of the picture.
        findings: of each mark, what each thing left of it.
        missing: marks that were not looked for -> why.
        pictures: what was done -> the picture after it.
        left_out: things that were not done -> why.
    """

    def __init__(
        self, name: str, findings: Sequence[Finding], missing: Mapping[str, str],
        pictures: Mapping[str, Image.Image], left_out: Mapping[str, str],
    ) -> None:  # fmt: skip
        """As :func:`survives` makes it."""
        self.name, self.findings = name, tuple(findings)
        self.missing, self.pictures, self.left_out = dict(missing), dict(pictures), dict(left_out)

    @property
    def marks(self) -> list[str]:
        """The marks that were looked for."""
        return list(dict.fromkeys(one.mark for one in self.findings))

    def of(self, mark: str) -> dict[str, Finding]:
        """What was done -> what it left of a mark.

        Raises:
            ValueError: one sentence, for a mark that was not looked for, with the reason.
        """
        if mark not in self.marks:
            why = f"{mark}: {self.missing[mark]}" if mark in self.missing else f"got {shown(mark)}"
            raise ValueError(f"marks that were looked for are {', '.join(self.marks) or 'none'}; {why}")
        return {one.done: one for one in self.findings if one.mark == mark}

    def table(self) -> list[dict[str, Any]]:
        """One row for each mark and thing: ``mark``, ``done``, ``state`` ("kept", "broken" or "gone"), ``says``, and of
        a watermark ``p``, of others None.
        """
        return [vars(one).copy() for one in self.findings]

    def __repr__(self) -> str:
        return f"Survival({self.name!r}, {len(self.pictures)} things, marks: {', '.join(self.marks) or 'none'})"

    def __str__(self) -> str:
        lines = [f"{mark}: {_told(self.of(mark))}" for mark in self.marks]
        lines += [f"{mark}: not looked for: {why}" for mark, why in self.missing.items()]
        return "\n".join([*lines, *(f"{done}: not done: {why}" for done, why in self.left_out.items())])

    def plot(self) -> Figure:
        """Marks over what was done: a row for each thing, with the picture after it."""
        return _plot(self)


def _told(found: Mapping[str, Finding]) -> str:
    """One mark in a sentence."""
    done = {name: one for name, one in found.items() if name != AS_SAVED}
    by = {state: [name for name, one in done.items() if one.state == state] for state in (KEPT, BROKEN, GONE)}
    told = f"outlives {len(by[KEPT]) or 'none'} of {len(done)}"
    told += f" ({listed(by[KEPT], 20)})" if by[KEPT] else ""
    told += f"; does not hold after: {listed(by[BROKEN], 20)}" if by[BROKEN] else ""
    others = "the others" if by[KEPT] or by[BROKEN] else "all of them"
    return told + (f"; gone after {others}" if by[GONE] else "")


def survives(
    picture: Trace | str | os.PathLike[str],
    *,
    model: Model | None = None,
    key: str | None = None,
    read: Mapping[str, Reader] | None = None,
    things: Sequence[str] | None = None,
) -> Survival:
    """Do to a picture what is done to pictures, and say what is left of each of its marks; blocking.

    Args:
        picture: a run, whose picture is saved as a PNG with all marks that can be had here: with the extra ``marks``,
            it is signed with a certificate made on the spot. Or the path of a .png, .jpg or .webp, as it is.
        model: that drew it: looks for a watermark (`detect`), and draws the picture again. None: neither.
        key: of the watermark; None: what the run or the recipe in the file says.
        read: names to functions that read another mark in the pixels, such as that of a library of your own choice: of
            a picture (PIL, RGB) what it says, None or False where there is none. It is kept where it says the same as
            of the picture itself.
        things: which of `damage.THINGS` are done; None: all.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, before any work, for what is no picture, no model or key, or no such thing.
    """
    readers, chosen = _readers(read), _chosen(things)
    if model is not None:
        model = a_model(model)
    if key is not None:
        key = as_secret("the key", key, MAX_KEY)
    if key is not None and model is None:
        raise ValueError("a key is looked for by the model that drew the picture: hand over model= too")
    with tempfile.TemporaryDirectory() as folder:
        place, name, missing = _subject(picture, Path(folder))
        data = place.read_bytes()
        image = read_picture(data)
        asked = _asked(picture, place)
        looks: dict[str, Look] = {RECIPE: _recipe, SOURCE: _source, CREDENTIALS: _signed}
        watermark = key or (asked.watermark if asked else None)
        if watermark is None:
            missing[WATERMARK] = "no key is known: Settings.watermark was not set, and key= not handed over"
        elif model is None:
            missing[WATERMARK] = "it is looked for by the model that drew the picture: model="
        else:
            looks[WATERMARK] = _keyed(model, watermark)
        looks |= {name: _reader(name, one) for name, one in readers.items()}
        before, none = _marks(place, image, looks)
        files, left_out = done_to(data, image, chosen, model, asked)
        pictures = {done: read_picture(made) for done, made in files.items()}
        said = {(mark, AS_SAVED): one for mark, one in before.items()}
        for done in files.keys() - {AS_SAVED}:
            after = Path(folder) / f"after{suffix_of(files[done])}"
            after.write_bytes(files[done])
            said |= {(mark, done): looks[mark](after, pictures[done]) for mark in before}
    findings = [_finding(mark, done, said[mark, done], one) for mark, one in before.items() for done in files]
    return Survival(name, findings, none | missing, pictures, left_out)


def _readers(read: Any) -> dict[str, Reader]:
    if read is None:
        return {}
    if not isinstance(read, Mapping) or not all(isinstance(name, str) and callable(one) for name, one in read.items()):
        raise ValueError(f"read must map names to functions of a picture, got {shown(read)}")
    taken = [name for name in read if name in (RECIPE, SOURCE, CREDENTIALS, WATERMARK)]
    if taken:
        raise ValueError(f"{shown(taken[0])} is read by itself: call it otherwise")
    return dict(read)


def _chosen(things: Any) -> list[str]:
    if things is None:
        return list(THINGS)
    if isinstance(things, (str, bytes)) or not isinstance(things, Sequence) or not things:
        raise ValueError(f"things must be a list of at least one of {', '.join(THINGS)}; got {shown(things)}")
    for one in things:
        if one not in THINGS:
            raise ValueError(f"what is done is one of {', '.join(THINGS)}; got {shown(one)}")
    return list(dict.fromkeys([AS_SAVED, *things]))


def _subject(picture: Any, folder: Path) -> tuple[Path, str, dict[str, str]]:
    """A picture as a file, what it is called, and which marks it could not get."""
    if not isinstance(picture, Trace):
        if not isinstance(picture, (str, os.PathLike)):
            raise ValueError(f"a picture is a run or the path of a file, got {shown(picture)}")
        place = Path(picture).expanduser()
        if place.suffix.lower() not in FORMATS:
            raise ValueError(f"marks are in {', '.join(FORMATS)}; got {shown(os.fspath(picture), 200)}")
        if not place.is_file():
            raise FileNotFoundError(f"there is no file {shown(os.fspath(picture), 200)}")
        return place, place.name, {}
    place = folder / "picture.png"
    picture.save_image(place)
    name = picture.settings.prompt or "(no prompt)"
    source = source_of(picture.settings, picture.info)
    if not source:
        return place, name, {CREDENTIALS: "no model made it"}
    try:
        sign(place, source=source)
    except (ImportError, ValueError) as error:
        return place, name, {CREDENTIALS: sentence(error)}
    return place, name, {}


class Said(NamedTuple):
    """What is found of a mark: its state, as far as it can be told of this picture alone; what it means, to be held
    against what it meant before; the same in words; the p-value of a watermark."""

    state: str
    means: Any
    words: str
    p: float | None = None


Look = Callable[[Path, Image.Image], Said]
"""Looks for a mark in a file, of which the picture is there too."""


def _asked(picture: Any, place: Path) -> Settings | None:
    """What was drawn, as the run or the file says it."""
    if isinstance(picture, Trace):
        return picture.settings
    try:
        return recipe_in(place, "the picture").settings
    except ValueError:
        return None


def _marks(place: Path, image: Image.Image, looks: Mapping[str, Look]) -> tuple[dict[str, Said], dict[str, str]]:
    """The marks that a picture has, and what each says; and why others are not looked for."""
    found: dict[str, Said] = {}
    missing: dict[str, str] = {}
    for mark, look in looks.items():
        try:
            said = look(place, image)
        except ImportError as error:
            missing[mark] = sentence(error)
            continue
        if said.state == GONE:
            missing[mark] = f"the picture has none ({said.words})"
        else:
            found[mark] = said
    return found, missing


def _recipe(place: Path, _: Image.Image) -> Said:
    try:
        settings, _notes = recipe_in(place, "the picture")
    except ValueError as error:
        told = sentence(error)
        none = "carries no recipe" in told
        return Said(GONE, None, "no text says how it was drawn") if none else Said(BROKEN, None, told)
    return Said(KEPT, settings, _drawn(settings))


def _drawn(settings: Settings) -> str:
    return f"{shown(settings.prompt, 40)}, {settings.steps} steps, seed {settings.seed}"


def _source(place: Path, _: Image.Image) -> Said:
    said = sources(place)
    if not is_marked(place):
        return Said(GONE, None, "it says nothing of its making")
    return Said(KEPT, said, listed(said))


def _signed(place: Path, _: Image.Image) -> Said:
    try:
        found = credentials(place)
    except ValueError as error:
        return Said(BROKEN, None, sentence(error))
    if found is None:
        return Said(GONE, None, "there are no credentials")
    return Said(KEPT if found.intact else BROKEN, found, str(found))


def _keyed(model: Model, key: str) -> Look:
    known: dict[bytes, Said] = {}  # several things leave the pixels as they are, and each look is an inversion

    def look(_: Path, image: Image.Image) -> Said:
        pixels = np.asarray(image).tobytes()
        if pixels not in known:
            found = detect(model, image, key)
            known[pixels] = Said(KEPT if found.found else GONE, True, f"p = {found.p:.2g}", found.p)
        return known[pixels]

    return look


def _reader(name: str, read: Reader) -> Look:
    def look(_: Path, image: Image.Image) -> Said:
        try:
            said = read(image.copy())
        except Exception as error:
            return Said(BROKEN, None, f"{name} could not be read: {sentence(error)}")
        none = said is None or said is False
        return Said(GONE, None, "not found") if none else Said(KEPT, said, shown(said))

    return look


def _finding(mark: str, done: str, after: Said, before: Said) -> Finding:
    if after.state == KEPT and after.means != before.means:
        return Finding(mark, done, BROKEN, f"{after.words}; it said {before.words}", after.p)
    return Finding(mark, done, after.state, after.words, after.p)


# As a figure

_NAMES: Final = 1.95  # inches
_CELL: Final = 1.6
_ROW: Final = 0.36
_TOP: Final = 0.98
_LEAST: Final = 1e-12  # a smaller p is no more than that


def _plot(found: Survival) -> Figure:
    marks, things = found.marks, list(found.pictures)
    width = max(5.0, _NAMES + _CELL * len(marks) + MARGIN)
    notes = [f"{mark}: {why}" for mark, why in found.missing.items()]
    notes += [f"{done}: {why}" for done, why in found.left_out.items()]
    paper = Paper(width, _TOP + _ROW * len(things) + 0.14 * len(notes) + 0.15)
    paper.title(f"What is left of the marks in “{found.name}”", "kept: it says what it said; broken: it does not hold")
    for k, mark in enumerate(marks):
        x = _NAMES + _CELL * (k + 0.5)
        paper.text(x, _TOP - 0.14, plain(mark, TEXT, _CELL, "bold"), ha="center", fontweight="bold")
    colours = {KEPT: (PALE_BLUE, INK), BROKEN: ("white", RED), GONE: ("white", QUIET)}
    for row, done in enumerate(things):
        y = _TOP + _ROW * row
        image = found.pictures[done]
        across, down = fitted(image.width / image.height, _ROW - 0.06, _ROW - 0.06)
        paper.picture(MARGIN + (_ROW - across) / 2, y + (_ROW - 0.06 - down) / 2, across, down, image)
        paper.text(MARGIN + _ROW + 0.06, y + _ROW / 2, plain(done, TEXT, _NAMES - _ROW - 0.25), va="center")
        for k, mark in enumerate(marks):
            one = found.of(mark)[done]
            fill, ink = colours[one.state]
            x = _NAMES + _CELL * k
            paper.box(x + 0.02, y + 0.01, _CELL - 0.04, _ROW - 0.04, facecolor=fill)
            told = one.state
            if one.p is not None:
                told += f", p {'<' if one.p < _LEAST else '='} {max(one.p, _LEAST):.2g}"
            words = plain(told, TEXT, _CELL - 0.1)
            paper.text(x + _CELL / 2, y + _ROW / 2 - 0.01, words, ha="center", va="center", color=ink)
    for k, note in enumerate(notes):
        y = _TOP + _ROW * len(things) + 0.12 + 0.14 * k
        paper.text(
            MARGIN, y, plain(note, TEXT - 0.5, width - 2 * MARGIN), fontsize=TEXT - 0.5, color=QUIET, va="center"
        )
    return paper.figure
