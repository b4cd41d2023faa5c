"""Reads a picture of the pocket world: subject, colour, setting, light, style and quality, as probabilities.

    python -m diffexplore.pocket.judge train --art FOLDER     # draw labelled pictures, train, write the weights
    python -m diffexplore.pocket.judge score --art FOLDER     # accuracy on composed pictures it never saw

The judge is a small convolutional network with one head per attribute, trained on nothing but composed pictures
(`scenes.draw`), so that it can say how far the pocket model's pictures keep to their prompts (`obedience` counts
that). Training can be stopped at any moment and goes on where it was when called again.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import re
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.pocket.factory import scenes
from diffexplore.pocket.factory.train import Budget, Stage

if TYPE_CHECKING:
    import torch
    from PIL import Image

Table = dict[str, dict[str, float]]

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "subject": tuple(scenes.SUBJECTS),
    "colour": (*scenes.COLOURS, "own"),
    "setting": (*scenes.SETTINGS, "none"),
    "light": tuple(scenes.LIGHTS),
    "style": tuple(scenes.STYLES),
    "quality": ("clean", *scenes.QUALITIES),
}
"""What a judge reads, and the values of each. The order is that of the network's outputs."""

WEIGHTS = Path(__file__).with_name("weights") / "judge.safetensors"

SEED = 7707
PICTURES = 60_000
UNSEEN = 10_000_000  # index of the first picture that is for scoring and not for training


def truth(scene: scenes.Scene) -> dict[str, str]:
    """What a judge should read off the picture of a scene; what nobody could read is left out.

    On top of `Scene.attributes`, a subject in its own colours is "own" and a plain background is "none".
    """
    out = scene.attributes
    if not scene.colour and scene.style in ("render", "flat"):
        out["colour"] = "own"
    if not scene.setting:
        out["setting"] = "none"
    return out


def labels_of(scene: scenes.Scene) -> list[int]:
    """`truth` as indices into the values of `ATTRIBUTES`, -1 for what nobody could read."""
    known = truth(scene)
    return [values.index(known[name]) if name in known else -1 for name, values in ATTRIBUTES.items()]


def _labelled(art: scenes.Art, index: int, *, holdout: bool) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng([SEED, index])
    scene = scenes.sample_scene(rng, holdout=holdout)
    return scenes.draw(scene, art, rng), labels_of(scene)


def _draw_share(job: tuple[str, int, int]) -> tuple[np.ndarray, np.ndarray]:
    folder, start, stop = job
    art = scenes.Art(folder)
    drawn = [_labelled(art, index, holdout=index % 3 == 0) for index in range(start, stop)]
    return np.stack([pixels for pixels, _ in drawn]), np.array([labels for _, labels in drawn], np.int8)


def prepare(work: Path, art: str, pictures: int, processes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """The labelled pictures, drawn once and kept in `work`: (N, 64, 64, 3) uint8 and (N, 6) int8, -1 for unreadable.

    Every third picture pairs what the pocket model's training holds out: a judge has to know all pairs.
    """
    kept = work / f"judge-{pictures}.npz"
    if not kept.is_file():
        work.mkdir(parents=True, exist_ok=True)
        jobs = [(art, start, min(start + 250, pictures)) for start in range(0, pictures, 250)]
        if processes == 1:
            parts = list(_progress(map(_draw_share, jobs), len(jobs), "drawing"))
        else:
            with multiprocessing.get_context("spawn").Pool(processes) as pool:
                parts = list(_progress(pool.imap(_draw_share, jobs), len(jobs), "drawing"))
        part = work / "judge-part.npz"
        np.savez(part, pictures=np.concatenate([p for p, _ in parts]), labels=np.concatenate([n for _, n in parts]))
        part.replace(kept)
    with np.load(kept) as file:
        return file["pictures"], file["labels"]


def _progress(items: Iterable[Any], total: int, label: str) -> Iterator[Any]:
    from tqdm import tqdm

    return iter(tqdm(items, total=total, desc=label, mininterval=5))


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


def _fold(network: torch.nn.Module) -> None:
    """Move every batch normalisation of a trained network into the convolution before it, in place."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for name, part in network.named_children():
        if isinstance(part, nn.Sequential) and len(part) == 2 and isinstance(part[1], nn.BatchNorm2d):
            layer = part[0]
            assert isinstance(layer, nn.Conv2d)
            setattr(network, name, nn.Sequential(fuse_conv_bn_eval(layer, part[1])))
        else:
            _fold(part)


def _pixels(pictures: np.ndarray) -> torch.Tensor:
    """(N, 64, 64, 3) uint8 as (N, 3, 64, 64) in -1..1; a view of channels-last memory."""
    import torch

    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


# --- training ------------------------------------------------------------------------------------------------------


def _varied(x: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """Pictures mirrored, a little brighter or darker, softer and grainier, as a VAE's are; far below what is degraded.

    A picture that counts as noisy is not softened: that would take away what it is to be recognised by.
    """
    import torch
    from torch.nn.functional import avg_pool2d, pad

    n = len(x)
    x = torch.where(torch.rand(n, 1, 1, 1) < 0.5, x.flip(3), x)
    soft = avg_pool2d(avg_pool2d(pad(x, (1, 1, 1, 1), "replicate"), 2, 1), 2, 1)  # binomial, sigma 0.7
    share = (torch.rand(n, 1, 1, 1) * 2 - 1).clamp(min=0) * (~noisy).view(-1, 1, 1, 1)
    x = torch.lerp(x, soft, share)
    x = x * (1 + 0.12 * (torch.rand(n, 1, 1, 1) - 0.5)) + 0.12 * (torch.rand(n, 1, 1, 1) - 0.5)
    return x + torch.rand(n, 1, 1, 1) * 0.04 * torch.randn_like(x)


def _loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy per attribute over the pictures in which it can be read, summed over the attributes."""
    from torch.nn.functional import cross_entropy

    parts = scores.float().split([len(names) for names in ATTRIBUTES.values()], 1)
    total = scores.new_zeros((), dtype=scores.float().dtype)
    for part, label in zip(parts, labels.unbind(1), strict=True):
        known = (label >= 0).sum().clamp(min=1)
        total = total + cross_entropy(part, label, ignore_index=-1, reduction="sum") / known
    return total


def train(
    work: Path, art: str, budget: Budget, *, pictures: int = PICTURES, steps: int = 10_000, batch: int = 64,
    widths: tuple[int, ...] = WIDTHS, processes: int = 2,
) -> None:  # fmt: skip
    """Train the judge; state in ``judge.pt``, so that a stopped training goes on where it was."""
    import torch

    torch.manual_seed(SEED)
    drawn, labels = prepare(work, art, pictures, processes)
    network = make_network(widths).train()
    stage = Stage(work, "judge", {"judge": network}, steps=steps, budget=budget, rate=3e-3, ema=0.0)
    noisy = ATTRIBUTES["quality"].index("noisy")

    def loss_of(step: int) -> torch.Tensor:
        index = np.random.default_rng([SEED, step]).integers(0, len(drawn), batch)
        truths = torch.from_numpy(labels[index]).long()
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            x = _varied(_pixels(drawn[index]), truths[:, -1] == noisy)
        return _loss(network(x.contiguous(memory_format=torch.channels_last)), truths)

    stage.run(loss_of, lambda path: None)


def export(work: Path, out: Path, widths: tuple[int, ...] = WIDTHS) -> None:
    """Write the trained judge of ``work/judge.pt`` as fp16 safetensors, batch normalisation folded in."""
    import torch
    from safetensors.torch import save_file

    network = make_network(widths)
    network.load_state_dict(torch.load(work / "judge.pt", weights_only=True)["parts"]["judge"])
    _fold(network.eval())
    save_file({name: value.half().contiguous() for name, value in network.state_dict().items()}, out)
    out.chmod(0o644)


# --- reading pictures ----------------------------------------------------------------------------------------------


@functools.cache
def _network(path: Path = WEIGHTS, widths: tuple[int, ...] = WIDTHS) -> torch.nn.Sequential:
    from safetensors.torch import load_file

    network = make_network(widths, folded=True)
    network.load_state_dict(load_file(path))
    return network.float().eval().requires_grad_(False)


def probabilities(pictures: np.ndarray, path: Path = WEIGHTS, widths: tuple[int, ...] = WIDTHS) -> list[np.ndarray]:
    """(N, 64, 64, 3) uint8 -> for each attribute (N, values) float32, rows of sum 1."""
    import torch

    network, sizes = _network(path, widths), [len(values) for values in ATTRIBUTES.values()]
    with torch.inference_mode():
        scores = torch.cat([network(_pixels(pictures[k : k + 256])) for k in range(0, len(pictures), 256)])
        return [part.softmax(1).numpy() for part in scores.split(sizes, 1)]


def _as_array(image: object) -> np.ndarray:
    from PIL import Image

    if isinstance(image, Image.Image):
        image = image.convert("RGB")
        if image.size != (scenes.SIZE, scenes.SIZE):
            image = image.resize((scenes.SIZE, scenes.SIZE), Image.Resampling.LANCZOS)
        return np.array(image)
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.shape == (scenes.SIZE, scenes.SIZE, 3):
            return image
        what = f"{image.dtype} of shape {image.shape}"
    else:
        what = reprlib.repr(image)
    raise ValueError(
        f"an image to judge is a PIL image or uint8 of shape ({scenes.SIZE}, {scenes.SIZE}, 3), got {what}"
    )


def judge_many(images: Iterable[Image.Image | np.ndarray]) -> list[dict[str, dict[str, float]]]:
    """`judge` of several pictures, computed together.

    Raises:
        ValueError: as `judge`, before any work; or `images` is one picture or nothing to go through.
    """
    if not isinstance(images, Iterable) or isinstance(images, str):
        raise ValueError(f"judge_many takes a list of images, got {reprlib.repr(images)}; judge takes one")
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


def judge(image: Image.Image | np.ndarray) -> dict[str, dict[str, float]]:
    """What is in a picture of the pocket model's world, as probabilities.

    It was trained on composed pictures of that world and means nothing on others.

    Args:
        image: a PIL image (other sizes are resized to 64x64) or uint8 of shape (64, 64, 3).

    Returns:
        For each of "subject", "colour", "setting", "light", "style" and "quality" a dict of value -> probability, of
        sum 1. The colour "own" is a subject as it usually is, the setting "none" a plain background. Where there is
        nothing to read (the colour in a silhouette or a line drawing, the light in space, on a plain background or in
        a line drawing), the numbers are a guess.

    Raises:
        ValueError: `image` is neither, in one sentence.
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

    tables = {"setting": scenes.SETTINGS, "light": scenes.LIGHTS, "style": scenes.STYLES, "quality": scenes.QUALITIES}
    for subject, (_, _, others) in scenes.SUBJECTS.items():
        add("subject", subject, (subject, *others))
    for colour, (_, others) in scenes.COLOURS.items():
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
        raise ValueError(f"a prompt is text, got {reprlib.repr(prompt)}")
    pattern, means = _phrases()
    found: dict[str, str] = {}
    for match in pattern.finditer(" ".join(prompt.lower().split())):
        attribute, value = means[match.group()]
        found.setdefault(attribute, value)
    return {attribute: found[attribute] for attribute in ATTRIBUTES if attribute in found}


def adherence(image: Image.Image | np.ndarray, prompt: str) -> float:
    """How far a picture of the pocket model's world shows what the prompt names, 0 to 1.

    The mean of the judge's probabilities of what is named, over the attributes that are named; a quality ("blurry") is
    one of them, so a negative prompt that takes it away lowers the number. What the prompt itself makes unreadable is
    left out: a colour in a silhouette, the light in space.

    Args:
        image: as for `judge`.
        prompt: plain English; words the picture world does not know are passed over.

    Raises:
        ValueError: the prompt names nothing that the judge can read, or the image is none.
    """
    wanted = named(prompt)
    if not wanted:
        raise ValueError(
            f"the prompt {reprlib.repr(prompt)} names nothing the judge knows; it knows subjects like 'fox', colours, "
            "settings like 'in the snow', lights like 'at night', styles like 'a sketch of' and qualities like 'blurry'"
        )
    if wanted.get("style") in ("silhouette", "line"):
        wanted.pop("colour", None)
    if wanted.get("style") == "line" or wanted.get("setting") in ("space", "none"):
        wanted.pop("light", None)
    read = judge(image)
    return float(np.mean([read[attribute][value] for attribute, value in wanted.items()]))


# --- measurements --------------------------------------------------------------------------------------------------


def agreement(pictures: np.ndarray, labels: np.ndarray, path: Path = WEIGHTS) -> np.ndarray:
    """(N, 6) float: 1 where the judge's likeliest value is the label, 0 where not, nan where there is none."""
    read = np.stack([part.argmax(1) for part in probabilities(pictures, path)], 1)
    return np.where(labels < 0, np.nan, read == labels)


def score(art: str, count: int = 2000) -> Table:
    """Accuracy of the shipped judge per attribute on composed pictures it never saw, `count` of each kind of pair."""
    cutouts, out = scenes.Art(art), {}
    for kind, holdout in (("trained pairs", False), ("held-out pairs", True)):
        drawn = [_labelled(cutouts, UNSEEN + index, holdout=holdout) for index in range(count)]
        right = agreement(np.stack([pixels for pixels, _ in drawn]), np.array([labels for _, labels in drawn]))
        out[kind] = dict(zip(ATTRIBUTES, np.nanmean(right, 0).tolist(), strict=True))
    return out


def as_text(result: Table) -> str:
    """A row for each entry, a column for each share in percent."""
    names = list(next(iter(result.values())))
    first = max(len(row) for row in result)
    lines = [" " * first + "".join(f"{name:>11}" for name in names)]
    for row, shares in result.items():
        lines.append(f"{row:<{first}}" + "".join(f"{100 * shares[name]:>9.1f} %" for name in names))
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Train the judge, or score it."""
    parser = argparse.ArgumentParser(prog="python -m diffexplore.pocket.judge", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["train", "export", "score"])
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder of pictures and checkpoints")
    parser.add_argument("--art", help="unpacked npm package @lobehub/fluent-emoji-3d (for train and score)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the file train and export write")
    parser.add_argument("--minutes", type=float, help="stop training (and let the rate fall) after this long")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 (AVX512-BF16, AMX)")
    args = parser.parse_args(argv)
    if args.what in ("train", "score") and not args.art:
        parser.error(f"{args.what} needs --art FOLDER: npm pack @lobehub/fluent-emoji-3d, then unpack it")
    if args.what == "train":
        train(args.work, args.art, Budget(args.minutes, args.bf16))
    if args.what in ("train", "export"):
        export(args.work, args.out)
    else:
        print(as_text(score(args.art)))


if __name__ == "__main__":
    main()
