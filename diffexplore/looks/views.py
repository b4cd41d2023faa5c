"""A :class:`~diffexplore.trace.Step` as a picture.

One evaluation of the denoiser holds several fields of the same shape: what went in (x_t), what came out
(noise), and what that says about the picture (x0). Each kind below is one fixed map from such a field to
colours. Fixed is the point: no map looks at the smallest or largest value of its own frame, so brightness
never jumps between two steps, frames drawn while a run is going are those drawn afterwards, and two runs side
by side can be compared colour by colour.

- ``x0``: the estimate of the finished picture, decoded; without a decoder, its linear colours.
- ``latents``: x_t divided by sqrt(a^2 + b^2), in linear colours.
- ``noise``: the guided prediction of the noise. Grey is none; white noise of variance 1 has a fixed contrast.
- ``guidance``: x0_cond - x0_uncond, signed: what colours the prompt adds or, darker than grey, takes away.
- ``change``: x0 now minus x0 at the evaluation before, signed.

*Linear colours* are one small matrix from the channels of the latents to RGB (``Trace.matrix``), so those
frames have the resolution the network works at: one pixel per latent. For x_t that is a choice. The decoder
was never shown noise and answers it with texture of its own; the linear map adds nothing.
(``latents_decoded`` shows what it would answer.)

*Division by sqrt(a^2 + b^2)*: x_t = a x0 + b noise, with x0 and noise of about unit variance, so this is its
expected standard deviation: 1 for samplers that keep the variance, up to about 15 for those that let it grow
(Euler, Heun). After the division all look alike.

*Signed* frames show a difference d of two pictures, in units of the full range from black to white, as grey
plus ``asinh(d / k) / asinh(1 / k)`` of the half range, k being 1/50: linear for small differences,
logarithmic for large ones (the asinh stretch of Lupton et al. 2004, PASP 116:133). A step that moves the
picture by half its range and one that moves it by a hundredth are both readable, and the first still looks
the stronger.

Latents may have axes between their channels and height and width, such as the frames of a video. A picture here is of
one plane of them, the middle one unless another is asked for. A video has more frames than its latents have planes: a
:class:`Moment` is a frame of what was decoded, and :func:`plane_of` says which plane of the latents it lies in.

What makes a sound has pictures of its own, see ``looks.sounds``.

A view is one row of :data:`KINDS`: what it is called, what it says, whether it takes the split or the decoder, and how
it is drawn.

Numbers that are not finite are drawn in magenta, and an estimate that has some in linear colours, as decoders spread
them over the whole picture. (One that overflows in the decoder itself is black.)
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from PIL import Image

from diffexplore.looks import sounds
from diffexplore.looks.estimates import estimate, field_of, finite, forget, unit
from diffexplore.words import near, shown

if TYPE_CHECKING:
    from torch import Tensor

    from diffexplore.record.record import Record
    from diffexplore.record.step import Step

__all__ = [
    "CAPTIONS",
    "KINDS",
    "VIEWS",
    "Moment",
    "Plane",
    "View",
    "forget",
    "frame",
    "moment",
    "native",
    "plane_of",
    "view",
    "why_blank",
]


class Moment(NamedTuple):
    """A frame of a video: its number, from 0, and how many there are."""

    number: int
    of: int


Plane = int | tuple[int, ...] | Moment | None

_GREY: Final = 128
_KNEE: Final = 1 / 50
_NOISE_CONTRAST: Final = 0.2  # standard deviation of drawn noise of variance 1; black to white is 1
_BROKEN: Final = (255, 0, 255)
_LARGEST: Final = 8192


def view(trace: "Record", kind: str, i: int, size: int | None = None, plane: Plane = None) -> Image.Image:
    """One evaluation as a picture.

    Frames at the latents' resolution are enlarged to plain squares, decoded pictures resampled smoothly.

    Args:
        trace: as in :func:`frame`,
        kind: as there,
        i: and as there.
        plane: as there too.
        size: the longest side in pixels, 1 to 8192. None: as large as the run's own picture, so that all
            kinds of a trace come in one size.

    Raises:
        ValueError: for an unknown kind, a plane that is not there, or a size out of range.
        IndexError: for an evaluation that is not there.
    """
    pixels = frame(trace, kind, i, plane=plane)
    height, width = pixels.shape[:2]
    longest = _own_size(trace, pixels) if size is None else _checked_size(size)
    scale = longest / max(width, height)
    target = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(pixels)
    if target == (width, height):
        return picture
    if (height, width) != native(trace[i]):
        return picture.resize(target, Image.Resampling.LANCZOS)
    return picture.resize(target, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)


def frame(trace: "Record", kind: str, i: int, exact: bool = True, plane: Plane = None) -> np.ndarray:
    """One evaluation as pixels, at native size.

    Args:
        trace: finished, or still growing.
        kind: one of :data:`VIEWS`, or a finer one of :data:`KINDS`.
        i: the evaluation, counted from 0; negative numbers count from the end.
        exact: decode what is a picture (``x0``, ``x0_cond``, ``x0_uncond``, ``change``, ``latents_decoded``)
            where the trace has a decoder; a loaded one has pictures of ``x0`` that it kept. False, or where
            there is neither: linear colours, in well under a millisecond.
        plane: where latents have axes between channels and height, such as frames, the place on them, a number or
            one for each axis; None: the middle. Where the decoder gives a single picture for all planes, one that is
            asked for has linear colours. A :class:`Moment` is a frame of a video, however many of them the latents
            hold in one plane.

    Returns:
        (H, W, 3) uint8, not to be written to: of the picture's size where decoded, else one pixel per latent.
        Plain grey where there is nothing to show; :func:`why_blank` says why.

    Raises:
        ValueError: for an unknown kind, or a plane that is not there.
        IndexError: for an evaluation that is not there.
    """
    row, i = _checked_kind(kind), _checked_index(trace, i)
    step = trace[i]
    if trace.kind == "sound":
        with np.errstate(all="ignore"):
            return sounds.frame(trace, kind, i, exact, why_blank(trace, kind, i))
    _place(step.shape, plane)
    if why_blank(trace, kind, i):
        return np.full((*native(step), 3), _GREY, np.uint8)
    with np.errstate(all="ignore"):  # a broken run is shown broken, not reported by numpy
        return row.draw(trace, i, exact, plane)


def why_blank(trace: "Record", kind: str, i: int) -> str:
    """Why this frame is plain grey, one sentence; "" where there is something to see. Raises as frame."""
    row, i = _checked_kind(kind), _checked_index(trace, i)
    if row.split:
        return trace[i].split
    if row.before and i == 0:
        return "This is the first evaluation: there is no earlier estimate to compare with."
    return ""


def moment(trace: "Record", number: int) -> Moment:
    """A frame of a run's pictures by its number.

    Args:
        trace: finished, or still growing.
        number: from 0; negative numbers count from the end.

    Raises:
        ValueError: one sentence, where there is no such frame, or where there are none.
    """
    count = trace.frames
    if not count:
        raise ValueError(f"this run made a {trace.kind}, which has no frames: got frame {shown(number)}")
    if isinstance(number, bool) or not isinstance(number, int) or not -count <= number < count:
        counted = f"or from {-count} counted from the end"
        raise ValueError(f"frame must be from 0 to {count - 1}, {counted}; got {shown(number)}")
    return Moment(number % count, count)


def plane_of(number: int, frames: int, planes: int) -> int:
    """In which plane of the latents a frame of a video lies.

    Where 1 + r (planes - 1) frames came of the planes, r a power of two, the first frame is a plane of its own and r of
    the others share one, as in causal video autoencoders; else each plane stands for as many as the others.
    """
    if planes > 1 and (frames - 1) % (planes - 1) == 0:
        each = (frames - 1) // (planes - 1)
        if each & (each - 1) == 0:
            return -(-number // each)
    return number * planes // max(frames, 1)


def native(step: "Step") -> tuple[int, int]:
    """(height, width) of a frame with one pixel per latent. Latents of fewer than three axes are a single line."""
    shape = tuple(step.shape)
    return (shape[-2], shape[-1]) if len(shape) > 2 else (1, math.prod(shape[1:]))


# The rows


@dataclass(frozen=True, slots=True)
class View:
    """One kind of picture.

    Attributes:
        label: What it is called where there is little room.
        sentence: One plain sentence for a reader.
        draw: (record, evaluation, exact, plane) -> (H, W, 3) uint8.
        split: Whether it takes the predictions with and without the prompt.
        before: Whether it takes the evaluation before.
        decoded: Whether its exact form takes a pass of the picture decoder. All others are exact at once.
        offered: Whether a viewer has it in its menu.
    """

    label: str
    sentence: str
    draw: "Callable[[Record, int, bool, Plane], np.ndarray]"
    split: bool = False
    before: bool = False
    decoded: bool = False
    offered: bool = False


def _decoded_as(kind: str) -> "Callable[[Record, int, bool, Plane], np.ndarray]":
    return lambda trace, i, exact, plane: _picture(trace, kind, i, exact, plane)


def _noise_as(kind: str) -> "Callable[[Record, int, bool, Plane], np.ndarray]":
    return lambda trace, i, exact, plane: _bytes(_noise(trace, _at(getattr(trace[i], kind), plane)))


def _latents(trace: "Record", i: int, exact: bool, plane: Plane) -> np.ndarray:
    return _bytes(_linear(trace, _at(unit(trace[i]), plane)))


def _guidance(trace: "Record", i: int, exact: bool, plane: Plane) -> np.ndarray:
    with_prompt, without = trace[i].x0_cond, trace[i].x0_uncond
    assert with_prompt is not None, "why_blank has looked"
    assert without is not None, "why_blank has looked"
    return _bytes(_signed(_linear(trace, _at(with_prompt - without, plane), bias=False)))


def _changed(trace: "Record", i: int, exact: bool, plane: Plane) -> np.ndarray:
    return _bytes(_signed(_change(trace, i, exact, plane)))


# fmt: off
KINDS: Final[dict[str, View]] = {
    "x0": View("estimate", "The model's estimate of the finished picture, as seen from this step.",
               _decoded_as("x0"), decoded=True, offered=True),
    "latents": View("latents", "What the model is given at this step: the noisy latents, one square per latent.",
                    _latents, offered=True),
    "noise": View("noise", "The noise that the model finds in the latents, after guidance. Grey is none.",
                  _noise_as("noise"), offered=True),
    "guidance": View("guidance", "What the prompt pulls: the estimate with it minus the estimate without. Grey is no "
                     "pull.", _guidance, split=True, offered=True),
    "change": View("change", "How the estimate changed since the evaluation before. Grey is no change.",
                   _changed, before=True, decoded=True, offered=True),
    "noise_cond": View("noise, with", "The noise that the model finds when it reads the prompt.",
                       _noise_as("noise_cond"), split=True),
    "noise_uncond": View("noise, without", "The noise that the model finds without the prompt, or with the negative "
                         "one.", _noise_as("noise_uncond"), split=True),
    "x0_cond": View("estimate, with", "The estimate of the finished picture with the prompt, and no guidance beyond "
                    "it.", _decoded_as("x0_cond"), split=True, decoded=True),
    "x0_uncond": View("estimate, without", "The estimate of the finished picture without the prompt, or with the "
                      "negative one.", _decoded_as("x0_uncond"), split=True, decoded=True),
    "latents_decoded": View("latents, decoded", "The noisy latents, decoded. The decoder never saw noise: the texture "
                            "is its own.", _decoded_as("latents_decoded"), decoded=True),
}
# fmt: on
"""Every kind that `frame` and `view` accept: :data:`VIEWS` first, then the finer ones."""

VIEWS: Final = tuple(kind for kind, row in KINDS.items() if row.offered)
"""The kinds a viewer offers, in menu order."""

CAPTIONS: Final = {kind: row.sentence for kind, row in KINDS.items()}
"""Kind -> one plain sentence for a reader."""


# The maps


def _place(shape: "Sequence[int]", plane: Plane) -> tuple[int, ...]:
    """Where a plane lies on the axes between channels and height."""
    between = tuple(shape[1:-2])
    if isinstance(plane, Moment):
        first = [plane_of(plane.number, plane.of, count) for count in between[:1]]
        return (*first, *(count // 2 for count in between[1:]))
    if plane is None:
        return tuple(count // 2 for count in between)
    where = plane if isinstance(plane, tuple) else (plane,) * (len(between) == 1)
    if len(where) != len(between) or not all(
        isinstance(k, int) and -count <= k < count for k, count in zip(where, between, strict=True)
    ):
        raise ValueError(f"plane must be one of the planes {between}, a number for each axis; got {shown(plane)}")
    return where


def _at(field: "Tensor", plane: Plane) -> "Tensor":
    """(C, *axes, h, w) -> (C, h, w)."""
    if field.ndim < 3:
        return field.reshape(field.shape[0], 1, -1)
    for k in _place(field.shape, plane):
        field = field[:, k]
    return field


def _linear(trace: "Record", field: "Tensor", bias: bool = True) -> np.ndarray:
    """(C, h, w) latents to (h, w, 3) colours, 0 to 1 for a picture; without bias for a difference of two."""
    matrix = _matrix(trace, field.shape[0])
    flat = field.numpy().reshape(field.shape[0], -1)  # (C, h w)
    colours = flat.T @ matrix[:-1]  # (h w, 3)
    if bias:
        colours = colours + matrix[-1]
    return np.asarray(colours).reshape(*field.shape[1:], 3)


def _noise(trace: "Record", field: "Tensor") -> np.ndarray:
    # Each colour of white noise of variance 1 has the variance |column|^2; their mean sets the contrast, so
    # that noise looks alike whatever the model, and too strong or too weak a prediction looks so.
    spread = math.sqrt(float(np.mean(np.sum(_matrix(trace, field.shape[0])[:-1] ** 2, axis=0))))
    return 0.5 + _linear(trace, field, bias=False) * (_NOISE_CONTRAST / spread if spread else 0.0)


def _signed(difference: np.ndarray) -> np.ndarray:
    return 0.5 + np.arcsinh(difference / _KNEE) * (0.5 / math.asinh(1 / _KNEE))


def _change(trace: "Record", i: int, exact: bool, plane: Plane) -> np.ndarray:
    if exact and trace.decoded:
        decoded = [_of_estimate(trace, "x0", k, trace[k].shape, plane) for k in (i, i - 1)]
        if decoded[0] is not None and decoded[1] is not None and (trace.decode or _both_finite(trace, i)):
            return (decoded[0].astype(np.float32) - decoded[1].astype(np.float32)) / 255
    return _linear(trace, _at(trace[i].x0 - trace[i - 1].x0, plane), bias=False)


def _both_finite(trace: "Record", i: int) -> bool:
    return finite(trace[i].x0) and finite(trace[i - 1].x0)


def _bytes(colours: np.ndarray) -> np.ndarray:
    """Colours from 0 to 1 to uint8, rounded; what is beyond is clipped."""
    sound = np.isfinite(colours)
    broken = None if sound.all() else ~sound.all(axis=-1)
    if broken is not None:
        colours = np.where(sound, colours, 0)
    pixels: np.ndarray = (np.clip(colours, 0, 1) * 255 + 0.5).astype(np.uint8)
    if broken is not None:
        pixels[broken] = _BROKEN
    return pixels


def _matrix(trace: "Record", channels: int) -> np.ndarray:
    """The trace's (C + 1, 3) matrix; one without shows its first three channels as red, green and blue."""
    known = trace.matrix
    # One that was found out at the end of a run fits no field that was laid out as supposed before.
    if known is not None and len(known) == channels + 1:
        return np.asarray(known)
    matrix = np.zeros((channels + 1, 3), np.float32)
    for colour in range(3):
        matrix[min(colour, channels - 1), colour] = 0.25  # two standard deviations either way fill the range
    matrix[-1] = 0.5
    return matrix


def _picture(trace: "Record", kind: str, i: int, exact: bool, plane: Plane) -> np.ndarray:
    """What the decoder makes of a field, or its linear colours."""
    pixels = _of_estimate(trace, kind, i, trace[i].shape, plane) if exact else None
    if pixels is not None:
        return pixels
    field = field_of(trace[i], kind)
    assert field is not None, "why_blank has looked"
    return _bytes(_linear(trace, _at(field, plane)))


def _of_estimate(trace: "Record", kind: str, i: int, shape: "Sequence[int]", plane: Plane) -> np.ndarray | None:
    """A picture of what was decoded; None where nothing was, or one for all planes of which one is asked for."""
    pixels = estimate(trace, kind, i)
    if pixels is not None and pixels.ndim == 4:  # a picture for each plane, if not for each one of the latents
        return np.asarray(pixels[_number(len(pixels), shape, plane)])
    one_for_all = plane is not None and not isinstance(plane, Moment) and len(shape) > 3
    return None if one_for_all else pixels


def _number(count: int, shape: "Sequence[int]", plane: Plane) -> int:
    """Which of `count` decoded frames is meant."""
    if plane is None:
        return count // 2
    if isinstance(plane, Moment):
        return plane.number if plane.of == count else round(plane.number * (count - 1) / max(plane.of - 1, 1))
    of = shape[1]
    return round(_place(shape, plane)[0] % of * (count - 1) / max(of - 1, 1))


# What people pass


def _checked_kind(kind: str) -> View:
    if isinstance(kind, str) and kind in KINDS:
        return KINDS[kind]
    raise ValueError(f"view must be one of {', '.join(KINDS)}; got {shown(kind)}{near(kind, KINDS)}")


def _checked_index(trace: "Record", i: int) -> int:
    count = len(trace)
    try:
        index = operator.index(i)
    except TypeError:
        raise TypeError(f"step must be a whole number, got {shown(i)}") from None
    if -count <= index < count:
        return index % count
    if not count:
        raise IndexError(f"the trace has no steps yet, so there is no step {index}")
    raise IndexError(f"step must be from 0 to {count - 1}, or from {-count} counted from the end; got {index}")


def _checked_size(size: int) -> int:
    try:
        longest = operator.index(size)
    except TypeError:
        longest = 0
    if isinstance(size, bool) or not 1 <= longest <= _LARGEST:
        raise ValueError(f"size must be a whole number of pixels from 1 to {_LARGEST}, got {shown(size)}")
    return longest


def _own_size(trace: "Record", pixels: np.ndarray) -> int:
    return max(trace.settings.width or 0, trace.settings.height or 0) or max(pixels.shape[:2])
