"""What the marks of a picture outlive: a picture saved anew, made smaller, cropped, blurred, taken off a screen.

Marks in the file (a recipe, a source type, Content Credentials) live as long as programs carry them over, whatever
happens to the pixels: nearly all that is done here is done by a program that carries over nothing, as most do. Marks in
the pixels live as long as the pixels are near enough to what they were.

A mark that was found says what it says and no more. That none was found proves nothing: they can all be removed, as
this bench shows, and be put where they do not belong, but for a signature with a key that somebody is known to have.
"""

from __future__ import annotations

import io
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageFilter, PngImagePlugin

from diffexplore.experiments.shared import write_csv
from diffexplore.looks.credentials import credentials, sign
from diffexplore.looks.figures.kit import INK, PALE_BLUE, QUIET, RED, TEXT, Figure, fitted, plain
from diffexplore.looks.figures.paper import MARGIN, Paper
from diffexplore.looks.marks import is_marked, source_of, sources
from diffexplore.looks.pictures import FORMATS, read_picture
from diffexplore.looks.recipe import recipe_in
from diffexplore.trace import Trace
from diffexplore.words import listed, sentence, shown

if TYPE_CHECKING:
    from diffexplore.settings import Settings

__all__ = ["THINGS", "Finding", "Survival", "survives"]

Reader = Callable[[Image.Image], Any]
"""Says what a mark in the pixels of a picture (PIL, RGB) says; None or False: there is none."""

KEPT: Final = "kept"
BROKEN: Final = "broken"
GONE: Final = "gone"

AS_SAVED: Final = "as saved"
RECIPE: Final = "recipe"
SOURCE: Final = "source type"
CREDENTIALS: Final = "Content Credentials"


@dataclass(frozen=True)
class Finding:
    """One mark, after one thing was done to the picture.

    Attributes:
        mark: which.
        done: what was done.
        state: "kept", it says what it said; "broken", it is there and does not hold; "gone".
        says: what it says now, or why it says nothing.
    """

    mark: str
    done: str
    state: str
    says: str


# What is done. Each takes the pixels and gives the bytes of a file that carries nothing but them.


def _written(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    plain_image = Image.fromarray(np.asarray(image))  # none of what Pillow would carry over from where it was read
    buffer = io.BytesIO()
    plain_image.save(buffer, format, **options)
    return buffer.getvalue()


def _halved(image: Image.Image) -> bytes:
    small = image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.LANCZOS)
    return _written(small.resize(image.size, Image.Resampling.LANCZOS))


def _cropped(image: Image.Image) -> bytes:
    across, down = round(image.width * 0.05), round(image.height * 0.05)
    return _written(image.crop((across, down, image.width - across, image.height - down)))


def _photographed(image: Image.Image) -> bytes:
    size = (round(image.width * 1.25), round(image.height * 1.25))
    return _written(image.resize(size, Image.Resampling.BILINEAR))


_PIXELS: Final[Mapping[str, tuple[str, Callable[[Image.Image], bytes]]]] = {
    "metadata stripped": ("The same pixels in a new PNG, as chat programs and sites send them on.", _written),
    "JPEG 95": ("Saved as a JPEG of quality 95.", lambda image: _written(image, "JPEG", quality=95)),
    "JPEG 80": ("Saved as a JPEG of quality 80.", lambda image: _written(image, "JPEG", quality=80)),
    "JPEG 50": ("Saved as a JPEG of quality 50.", lambda image: _written(image, "JPEG", quality=50)),
    "WebP 80": ("Saved as a WebP of quality 80.", lambda image: _written(image, "WEBP", quality=80)),
    "half and back": ("Resized to half of its width and height, and back.", _halved),
    "cropped to 90 %": ("A twentieth cut off at each side.", _cropped),
    "blurred": (
        "A Gaussian blur of one pixel.", lambda image: _written(image.filter(ImageFilter.GaussianBlur(1))),
    ),
    "screenshot": ("Shown 1.25 times as large, and that taken off the screen.", _photographed),
    "mirrored": (
        "Left and right exchanged.", lambda image: _written(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
    ),
}  # fmt: skip

_CAREFUL: Final = "PNG with its texts"
_RETOUCHED: Final = "one pixel changed"

THINGS: Final[Mapping[str, str]] = {
    AS_SAVED: "Nothing was done: what it is held against.",
    _CAREFUL: "Saved as a PNG by a program that carries texts, EXIF and XMP over.",
    _RETOUCHED: "One level of one colour of one pixel, all else in the file left as it is.",
    **{name: told for name, (told, _) in _PIXELS.items()},
}
"""What is done to a picture -> what that is, in a sentence."""


def _careful(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        pieces = PngImagePlugin.PngInfo()
        for key, text in getattr(image, "text", {}).items():
            pieces.add_itxt(key, text)
        more = {"exif": image.info["exif"]} if "exif" in image.info else {}
        if "xmp" in image.info and "XML:com.adobe.xmp" not in getattr(image, "text", {}):
            pieces.add_itxt("XML:com.adobe.xmp", image.info["xmp"].decode("utf-8", "replace"))
        return _written(image.convert("RGB"), pnginfo=pieces, **more)


def _retouched(data: bytes) -> bytes:
    """A PNG whose pixels are others by one level of one of them; its other pieces are those of `data`.

    Raises:
        ValueError: it is no PNG.
    """
    if not data.startswith(b"\x89PNG"):
        raise ValueError("only of a PNG the pixels are exchanged and all else left")
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.array(image.convert("RGB"))
    pixels[0, 0, 0] ^= 1
    head, body = _pieces(data), _pieces(_written(Image.fromarray(pixels)))
    made = [next(one for one in body if one[0] == b"IHDR")]
    drawn = [one for one in body if one[0] == b"IDAT"]
    for kind, content in head:
        if kind == b"IDAT":
            made, drawn = made + drawn, []  # all of them where the first one was
        elif kind not in (b"IHDR", b"PLTE", b"tRNS"):
            made.append((kind, content))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        for kind, content in made
    )


def _pieces(data: bytes) -> list[tuple[bytes, bytes]]:
    """The pieces of a PNG that can be read, (kind, content)."""
    found, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


# What is found


class Survival:
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

    def table(self) -> list[dict[str, str]]:
        """One row for each mark and thing: ``mark``, ``done``, ``state`` ("kept", "broken" or "gone"), ``says``."""
        return [vars(one).copy() for one in self.findings]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`table` as CSV, in UTF-8, with a first line of names; an existing file is replaced.

        Raises:
            OSError: the file cannot be written.
        """
        write_csv(path, ["mark", "done", "state", "says"], self.table())

    def __repr__(self) -> str:
        return f"Survival({self.name!r}, {len(self.pictures)} things, marks: {', '.join(self.marks) or 'none'})"

    def __str__(self) -> str:
        lines = [f"{mark}: {_told(self.of(mark))}" for mark in self.marks]
        lines += [f"{mark}: not looked for: {why}" for mark, why in self.missing.items()]
        return "\n".join([*lines, *(f"{done}: not done: {why}" for done, why in self.left_out.items())])

    def plot(self) -> Figure:
        """Marks over what was done: a row for each thing, with the picture after it."""
        return _plot(self)

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.plot()._repr_png_()


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
    read: Mapping[str, Reader] | None = None,
    things: Sequence[str] | None = None,
) -> Survival:
    """Do to a picture what is done to pictures, and say what is left of each of its marks; blocking.

    Args:
        picture: a run, whose picture is saved as a PNG with all marks that can be had here: with the extra ``marks``,
            it is signed with a certificate made on the spot. Or the path of a .png, .jpg or .webp, as it is.
        read: names to functions that read another mark in the pixels, such as that of a library of your own choice: of
            a picture (PIL, RGB) what it says, None or False where there is none. It is kept where it says the same as
            of the picture itself.
        things: which of `THINGS` are done; None: all.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, before any work, for what is no picture, or no such thing.
    """
    readers, chosen = _readers(read), _chosen(things)
    with tempfile.TemporaryDirectory() as folder:
        place, name, missing = _subject(picture, Path(folder))
        data = place.read_bytes()
        image = read_picture(data)
        marks, more = _marks(place, readers)
        missing |= more
        files, left_out = _files(data, image, chosen)
        findings, pictures = [], {}
        before = {mark: look(place, image) for mark, look in marks.items()}
        for done, made in files.items():
            after = Path(folder) / f"after{_suffix(made)}"
            after.write_bytes(made)
            pictures[done] = read_picture(made)
            for mark, look in marks.items():
                findings.append(_finding(mark, done, look(after, pictures[done]), before[mark]))
    order = {mark: k for k, mark in enumerate(marks)}
    findings.sort(key=lambda one: order[one.mark])
    return Survival(name, findings, missing, pictures, left_out)


def _readers(read: Any) -> dict[str, Reader]:
    if read is None:
        return {}
    if not isinstance(read, Mapping) or not all(isinstance(name, str) and callable(one) for name, one in read.items()):
        raise ValueError(f"read must map names to functions of a picture, got {shown(read)}")
    taken = [name for name in read if name in (RECIPE, SOURCE, CREDENTIALS)]
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
    except ImportError as error:
        return place, name, {CREDENTIALS: sentence(error)}
    return place, name, {}


Said = tuple[str, Any, str]
"""Whether a mark is "kept", "broken" or "gone" by itself; what it means, to be held against what it meant; in words."""


def _marks(
    place: Path, readers: Mapping[str, Reader]
) -> tuple[dict[str, Callable[[Path, Image.Image], Said]], dict[str, str]]:
    """The marks that a picture has, each with who looks for it; and why others are not looked for."""
    found: dict[str, Callable[[Path, Image.Image], Said]] = {}
    missing: dict[str, str] = {}
    own = {RECIPE: _recipe, SOURCE: _source, CREDENTIALS: _signed}
    for mark, look in (own | {name: _reader(name, one) for name, one in readers.items()}).items():
        try:
            state, _, said = look(place, read_picture(place))
        except ImportError as error:
            missing[mark] = sentence(error)
            continue
        if state == GONE:
            missing[mark] = f"the picture has none ({said})"
        else:
            found[mark] = look
    return found, missing


def _recipe(place: Path, _: Image.Image) -> Said:
    try:
        settings, _notes = recipe_in(place, "the picture")
    except ValueError as error:
        told = sentence(error)
        return (GONE, None, "no text says how it was drawn") if "carries no recipe" in told else (BROKEN, None, told)
    return KEPT, settings, _drawn(settings)


def _drawn(settings: Settings) -> str:
    return f"{shown(settings.prompt, 40)}, {settings.steps} steps, seed {settings.seed}"


def _source(place: Path, _: Image.Image) -> Said:
    said = sources(place)
    return (KEPT, said, listed(said)) if is_marked(place) else (GONE, None, "it says nothing of its making")


def _signed(place: Path, _: Image.Image) -> Said:
    try:
        found = credentials(place)
    except ValueError as error:
        return BROKEN, None, sentence(error)
    if found is None:
        return GONE, None, "there are no credentials"
    return KEPT if found.intact else BROKEN, found, str(found)


def _reader(name: str, read: Reader) -> Callable[[Path, Image.Image], Said]:
    def look(_: Path, image: Image.Image) -> Said:
        try:
            said = read(image.copy())
        except Exception as error:
            return BROKEN, None, f"{name} could not be read: {sentence(error)}"
        return (GONE, None, "not found") if said is None or said is False else (KEPT, said, shown(said))

    return look


def _finding(mark: str, done: str, after: Said, before: Said) -> Finding:
    state, means, said = after
    if state == KEPT and means != before[1]:
        state, said = BROKEN, f"{said}; it said {before[2]}"
    return Finding(mark, done, state, said)


def _files(data: bytes, image: Image.Image, chosen: Sequence[str]) -> tuple[dict[str, bytes], dict[str, str]]:
    """What was done -> the file after it; and what was not, and why."""
    files: dict[str, bytes] = {}
    left_out: dict[str, str] = {}
    for done in chosen:
        try:
            if done == AS_SAVED:
                files[done] = data
            elif done in (_CAREFUL, _RETOUCHED):
                files[done] = (_careful if done == _CAREFUL else _retouched)(data)
            else:
                files[done] = _PIXELS[done][1](image)
        except Exception as error:  # such as a picture of one pixel, of which nothing can be cut off
            left_out[done] = sentence(error)
    return files, left_out


def _suffix(data: bytes) -> str:
    return ".png" if data.startswith(b"\x89PNG") else ".webp" if data[:4] == b"RIFF" else ".jpg"


# As a figure

_NAMES: Final = 1.95  # inches
_CELL: Final = 1.6
_ROW: Final = 0.36
_TOP: Final = 0.98


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
            words = plain(one.state, TEXT, _CELL - 0.1)
            paper.text(x + _CELL / 2, y + _ROW / 2 - 0.01, words, ha="center", va="center", color=ink)
    for k, note in enumerate(notes):
        y = _TOP + _ROW * len(things) + 0.12 + 0.14 * k
        paper.text(
            MARGIN, y, plain(note, TEXT - 0.5, width - 2 * MARGIN), fontsize=TEXT - 0.5, color=QUIET, va="center"
        )
    return paper.figure
