"""Reads a picture of the pocket world: subject, colour, setting, light, style and quality, as probabilities.

The judge is a small convolutional network with one head per attribute, trained on nothing but composed pictures
(``factory/judge_training.py``), so that it can say how far the pocket model's pictures keep to their prompts. What it
says depends on the picture alone: autocast, the default dtype and device, and random numbers around it are left out and
left alone.
"""

from __future__ import annotations

import functools
import re
from bisect import bisect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from diffexplore.looks.pictures import read_picture
from diffexplore.pocket import world
from diffexplore.words import shown

if TYPE_CHECKING:
    import os

    import torch
    from PIL import Image

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "subject": tuple(world.SUBJECTS),
    "colour": (*world.COLOURS, "own"),
    "setting": (*world.SETTINGS, "none"),
    "light": tuple(world.LIGHTS),
    "style": tuple(world.STYLES),
    "quality": ("clean", *world.QUALITIES),
}
"""What a judge reads, and the values of each. The order is that of the network's outputs."""

WEIGHTS = Path(__file__).with_name("weights") / "judge.safetensors"

SIDE = 64
"""Pixels a side of what it reads; pictures of other sizes are brought to that."""

# --- the network ---------------------------------------------------------------------------------------------------

WIDTHS = (32, 64, 96, 96)


def make_network(widths: tuple[int, ...] = WIDTHS, *, folded: bool = False) -> torch.nn.Sequential:
    """A residual network from (N, 3, 64, 64) in -1..1 to (N, 104) scores: the values of all attributes side by side.

    Args:
        widths: channels of the four blocks, at 32x32, 16x16, 8x8 and 8x8.
        folded: without batch normalisation, its effect being in weights and biases: how a trained judge is kept.
    """
    import torch
    from torch import nn

    def conv(wide: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
        layer = nn.Conv2d(wide, out, kernel, stride, kernel // 2, bias=folded)
        return nn.Sequential(layer) if folded else nn.Sequential(layer, nn.BatchNorm2d(out))

    class Block(nn.Module):
        def __init__(self, wide: int, out: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = conv(wide, out, 3, stride), conv(out, out, 3)
            self.short = conv(wide, out, 1, stride) if stride > 1 or wide != out else nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.second(self.first(x).relu())
            return (y + self.short(x)).relu()

    class Pool(nn.Module):
        # The mean knows the ground and the light, the maximum a small subject.
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)

    values = sum(len(names) for names in ATTRIBUTES.values())
    a, b, c, d = widths
    layers = [
        conv(3, a, 5, 2), nn.ReLU(), Block(a, a, 1), Block(a, b, 2), Block(b, c, 2), Block(c, d, 1),
        Pool(), nn.Linear(2 * d, values),
    ]  # fmt: skip
    network = nn.Sequential(*layers)
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network


# --- reading pictures ----------------------------------------------------------------------------------------------


def pixels_of(pictures: np.ndarray) -> torch.Tensor:
    """(N, 64, 64, 3) uint8 as (N, 3, 64, 64) float32 in -1..1; a view of channels-last memory."""
    import torch

    return torch.from_numpy(pictures).permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1


@contextmanager
def _undisturbed() -> Iterator[None]:
    """On the CPU, without gradients and without autocast, whatever the code around has switched on."""
    import torch

    with torch.inference_mode(), torch.device("cpu"), torch.autocast("cpu", enabled=False):
        yield


@functools.cache
def _network(path: Path = WEIGHTS, widths: tuple[int, ...] = WIDTHS) -> torch.nn.Sequential:
    import torch
    from safetensors.torch import load_file

    with torch.device("meta"):  # nothing is drawn at random, which would change the random numbers of others
        network = make_network(widths, folded=True)
    weights = {name: value.to(torch.float32) for name, value in load_file(path).items()}
    network.load_state_dict(weights, assign=True)
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)  # type: ignore[call-overload,no-any-return]


def probabilities(pictures: np.ndarray, path: Path = WEIGHTS, widths: tuple[int, ...] = WIDTHS) -> list[np.ndarray]:
    """(N, H, W, 3) uint8 -> for each attribute (N, values) float32, rows of sum 1.

    Pictures of another size than 64x64 are resized as in :func:`judge`.
    """
    import torch

    if len(pictures) and pictures.shape[1:3] != (SIDE, SIDE):
        pictures = np.stack([_as_array(one) for one in pictures])

    sizes = [len(values) for values in ATTRIBUTES.values()]
    with _undisturbed():
        network = _network(path, widths)
        scores = torch.cat([network(pixels_of(pictures[k : k + 256])) for k in range(0, len(pictures), 256)])
        return [part.softmax(1).numpy() for part in scores.split(sizes, 1)]


def seen(image: Image.Image | np.ndarray | str | os.PathLike[str]) -> np.ndarray:
    """What the judge sees in a picture before it names it: (192,) float32, pooled from its last layer of features.

    Pictures of which it would say the same lie near each other; that is no more than alike in what it reads.

    Args and errors are those of :func:`judge`.
    """
    with _undisturbed():
        made: np.ndarray = _network()[:-1](pixels_of(_as_array(image)[None]))[0].numpy()
    return made


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Frechet distance between two sets of features (N, D), taken as normal: |m - n|² + tr(A + B - 2 (AB)^½)
    (Heusel et al. 2017, arXiv 1706.08500).
    """
    centred = [(features - features.mean(0)) / np.sqrt(len(features) - 1) for features in (one, other)]
    # With A = X'X and B = Y'Y the trace of the root is the sum of the singular values of XY', which asks for no root of
    # what rounding has left of small numbers.
    x, y = (np.asarray(np.linalg.qr(features, mode="r")) for features in centred)
    both = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    spread = np.square(x).sum() + np.square(y).sum()
    return float(np.square(one.mean(0) - other.mean(0)).sum() + spread - 2 * both)


def _as_array(image: Image.Image | np.ndarray | str | os.PathLike[str]) -> np.ndarray:
    from PIL import Image

    picture = read_picture(image)
    if picture.size != (SIDE, SIDE):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.array(picture)


def said(image: Image.Image | np.ndarray | str | os.PathLike[str]) -> str:
    """A caption of what the judge takes a picture for: style, colour, subject, setting and light, as far as they are
    not the usual ones.

    Args and errors are those of :func:`judge`.
    """
    read = {attribute: max(values, key=values.__getitem__) for attribute, values in judge(image).items()}
    painted = read["colour"] != "own" and read["style"] in ("render", "flat")
    noun = f"{read['colour']} {read['subject']}" if painted else read["subject"]
    words = [] if read["style"] == "render" else [world.STYLES[read["style"]][0]]
    words += [world.article(noun), noun]
    if read["setting"] == "none":
        words.append("on a plain background")
    else:
        words.append(world.SETTINGS[read["setting"]][0])
        if read["setting"] != "space" and read["style"] != "line":
            words.append(world.LIGHTS[read["light"]][0])
    return " ".join(words)


def judge_many(
    images: Iterable[Image.Image | np.ndarray | str | os.PathLike[str]],
) -> list[dict[str, dict[str, float]]]:
    """`judge` of several pictures, computed together.

    Raises:
        ValueError: as `judge`, before any work; or `images` is one picture or nothing to go through.
        FileNotFoundError: as `judge`.
    """
    if not isinstance(images, Iterable) or isinstance(images, (str, bytes)):
        raise ValueError(f"judge_many takes a list of images, got {shown(images)}; judge takes one")
    arrays = [_as_array(image) for image in images]
    if not arrays:
        return []
    read = probabilities(np.stack(arrays))
    return [
        {
            name: dict(zip(values, part[k].tolist(), strict=True))
            for (name, values), part in zip(ATTRIBUTES.items(), read, strict=True)
        }
        for k in range(len(arrays))
    ]


def judge(image: Image.Image | np.ndarray | str | os.PathLike[str]) -> dict[str, dict[str, float]]:
    """What is in a picture of the pocket model's world, as probabilities.

    It was trained on composed pictures of that world and means nothing on others.

    Args:
        image: a picture as ``looks.pictures.read_picture`` takes it: a PIL image of any mode, an array (H, W),
            (H, W, 3) or (H, W, 4) of uint8, uint16 or floats from 0 to 1, or a path; of another size than 64x64, it is
            resized.

    Returns:
        For each of "subject", "colour", "setting", "light", "style" and "quality" a dict of value -> probability, of
        sum 1. The colour "own" is a subject as it usually is, the setting "none" a plain background. Where there is
        nothing to read (the colour in a silhouette or a line drawing, the light in space, on a plain background or in
        a line drawing), the numbers are a guess.

    Raises:
        ValueError: `image` is none of these, is damaged or has too many pixels, in one sentence.
        FileNotFoundError: there is no such file.
    """
    return judge_many([image])[0]


# --- what a prompt names -------------------------------------------------------------------------------------------


@functools.cache
def _phrases() -> tuple[re.Pattern[str], dict[str, tuple[str, str]]]:
    """Every phrase that names something, as one pattern (longest first) and phrase -> (attribute, value)."""
    means: dict[str, tuple[str, str]] = {}

    def add(attribute: str, value: str, phrases: Iterable[str]) -> None:
        for phrase in phrases:
            means.setdefault(phrase, (attribute, value))

    tables = {"setting": world.SETTINGS, "light": world.LIGHTS, "style": world.STYLES, "quality": world.QUALITIES}
    for subject, (_, _, others) in world.SUBJECTS.items():
        add("subject", subject, (subject, *others))
    for colour, (_, others) in world.COLOURS.items():
        add("colour", colour, (colour, *others))
        add("setting", "none", (f"{word} background" for word in (colour, *others)))
    add("setting", "none", ("plain background",))
    add("quality", "clean", ("clean", "high quality", "best quality", "sharp", "detailed", "in focus"))
    for attribute, table in tables.items():
        for value, phrases in table.items():
            add(attribute, value, (*phrases, value) if attribute != "style" else phrases)
    # People say "a snowy field" without the words the captions put before it. These come last, so that "dark" stays
    # a colour although "in the dark" is a light.
    for attribute, table in tables.items():
        for value, phrases in table.items():
            add(attribute, value, (_core(phrase) for phrase in phrases))
    pattern = "|".join(re.escape(phrase) for phrase in sorted(means, key=len, reverse=True))
    return re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])"), means


def _core(phrase: str) -> str:
    """A phrase of the captions without what leads to it: "in a snowy field" -> "snowy field"."""
    lead = r"^(?:(?:in front of|in|on|at|by|under|among|between) )?(?:(?:a|an|the) )?"
    return re.sub(r" of$", "", re.sub(lead, "", phrase))


def named(prompt: str) -> dict[str, str]:
    """What a prompt names, attribute -> value: the longest phrases known to the picture world, on word boundaries.

    Of several values of one attribute the first counts. A colour right before "background" is a plain backdrop (the
    setting "none") and not a colour.

    Raises:
        ValueError: `prompt` is not text.
    """
    if not isinstance(prompt, str):
        raise ValueError(f"a prompt is text, got {shown(prompt)}")
    pattern, means = _phrases()
    found: dict[str, str] = {}
    for match in pattern.finditer(" ".join(prompt.lower().split())):
        attribute, value = means[match.group()]
        found.setdefault(attribute, value)
    return {attribute: found[attribute] for attribute in ATTRIBUTES if attribute in found}


def readable(prompt: str) -> dict[str, str]:
    """:func:`named`, without what the prompt itself makes unreadable: a colour in a silhouette, the light in space.

    Raises:
        ValueError: `prompt` is not text.
    """
    wanted = named(prompt)
    if wanted.get("style") in ("silhouette", "line"):
        wanted.pop("colour", None)
    if wanted.get("style") == "line" or wanted.get("setting") in ("space", "none"):
        wanted.pop("light", None)
    return wanted


_SMALL = frozenset(
    ("a", "an", "the", "and", "or", "of", "in", "on", "at", "by", "to", "into", "from", "with", "without", "under",
     "over", "near", "behind", "beside", "between", "among", "for", "is", "are", "it", "its", "this", "that")
)  # fmt: skip
"""Words that name nothing by themselves."""


class Coverage(NamedTuple):
    """Which words of a prompt the judge can speak of.

    Attributes:
        judged: that name what it reads, in order.
        passed: that it passes over: the picture world has them, the judge does not look at them.
        unknown: that nobody here knows: what they ask for may be there or not.
    """

    judged: tuple[str, ...]
    passed: tuple[str, ...]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        """As "2 of 3 words"."""
        count = sum(map(len, self))
        return f"{len(self.judged)} of {count} word{'' if count == 1 else 's'}"


def coverage(prompt: str) -> Coverage:
    """Which words of a prompt `adherence` is about; articles and the like name nothing and are not counted.

    Raises:
        ValueError: `prompt` is not text.
    """
    text = " ".join(prompt.lower().split()) if isinstance(prompt, str) else ""
    wanted, known = named(prompt), frozenset(world.vocabulary())
    pattern, means = _phrases()
    spans = [match.span() for match in pattern.finditer(text) if means[match.group()] in wanted.items()]
    starts = [start for start, _ in spans]
    found: tuple[list[str], list[str], list[str]] = [], [], []
    for word in re.finditer(r"[^\W_]+(?:['-][^\W_]+)*", text):
        if word[0] in _SMALL:
            continue
        k = bisect(starts, word.start()) - 1  # of the last phrase that begins before it; no two overlap
        read = k >= 0 and word.end() <= spans[k][1]
        familiar = word[0] in known or known.issuperset(re.split("['-]", word[0]))
        found[0 if read else 1 if familiar else 2].append(word[0])
    return Coverage(*map(tuple, found))


def adherence(image: Image.Image | np.ndarray | str | os.PathLike[str], prompt: str) -> float:
    """How far a picture of the pocket model's world shows what the prompt names, 0 to 1.

    The mean of the judge's probabilities of what is named, over the attributes that are named; a quality ("blurry") is
    one of them, so a negative prompt that takes it away lowers the number. What the prompt itself makes unreadable is
    left out: a colour in a silhouette, the light in space.

    Args:
        image: as for `judge`.
        prompt: plain English; words the picture world does not know are passed over.

    Raises:
        ValueError: the prompt names nothing that the judge can read, or the image is none.
        FileNotFoundError: as `judge`.
    """
    wanted = readable(prompt)
    if not wanted:
        raise ValueError(
            f"the prompt {shown(prompt)} names nothing the judge knows; it knows subjects like 'fox', colours, "
            "settings like 'in the snow', lights like 'at night', styles like 'a sketch of' and qualities like 'blurry'"
        )
    read = judge(image)
    return float(np.mean([read[attribute][value] for attribute, value in wanted.items()]))
