"""Trains the judge on composed pictures, and says how often it is right.

    python -m diffexplore.pocket.factory.judge_training train --art FOLDER  # draw, label, train, write weights
    python -m diffexplore.pocket.factory.judge_training score --art FOLDER  # accuracy on composed pictures it never saw

It is trained on nothing but composed pictures (`scenes.draw`); `obedience` counts with it how far the pocket model's
pictures keep to their prompts. Training can be stopped at any moment and goes on where it was when called again.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffexplore.pocket.factory import scenes
from diffexplore.pocket.factory.train import Budget, Stage, end_with_parent
from diffexplore.pocket.judge import ATTRIBUTES, WEIGHTS, WIDTHS, make_network, pixels_of, probabilities
from diffexplore.pocket.world import Scene, sample_scene
from diffexplore.progress import progress
from diffexplore.record.file import written

if TYPE_CHECKING:
    import torch

Table = dict[str, dict[str, float]]

SEED = 7707
PICTURES = 60_000
UNSEEN = 10_000_000  # index of the first picture that is for scoring and not for training


def truth(scene: Scene) -> dict[str, str]:
    """What a judge should read off the picture of a scene; what nobody could read is left out.

    On top of `Scene.attributes`, a subject in its own colours is "own" and a plain background is "none".
    """
    out = scene.attributes
    if not scene.colour and scene.style in ("render", "flat"):
        out["colour"] = "own"
    if not scene.setting:
        out["setting"] = "none"
    return out


def labels_of(scene: Scene) -> list[int]:
    """`truth` as indices into the values of `ATTRIBUTES`, -1 for what nobody could read."""
    known = truth(scene)
    return [values.index(known[name]) if name in known else -1 for name, values in ATTRIBUTES.items()]


def labelled(art: scenes.Art, index: int, *, holdout: bool) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng([SEED, index])
    scene = sample_scene(rng, holdout=holdout)
    return scenes.draw(scene, art, rng), labels_of(scene)


def _draw_share(job: tuple[str, int, int]) -> tuple[np.ndarray, np.ndarray]:
    folder, start, stop = job
    art = scenes.Art(folder)
    drawn = [labelled(art, index, holdout=index % 3 == 0) for index in range(start, stop)]
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
            parts = list(progress(map(_draw_share, jobs), "drawing", total=len(jobs)))
        else:
            with multiprocessing.get_context("spawn").Pool(processes, end_with_parent) as pool:
                parts = list(progress(pool.imap(_draw_share, jobs), "drawing", total=len(jobs)))
        with written(kept) as file:
            np.savez(file, pictures=np.concatenate([p for p, _ in parts]), labels=np.concatenate([n for _, n in parts]))
    with np.load(kept) as arrays:
        return arrays["pictures"], arrays["labels"]


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
            x = _varied(pixels_of(drawn[index]), truths[:, -1] == noisy)
        return _loss(network(x.contiguous(memory_format=torch.channels_last)), truths)

    stage.run(loss_of, lambda path: None)


def export(work: Path, out: Path, widths: tuple[int, ...] = WIDTHS) -> None:
    """Write the trained judge of ``work/judge.pt`` as fp16 safetensors, batch normalisation folded in."""
    import torch
    from safetensors.torch import save

    network = make_network(widths)
    network.load_state_dict(torch.load(work / "judge.pt", weights_only=True)["parts"]["judge"])
    _fold(network.eval())
    with written(out) as file:
        file.write(save({name: value.half().contiguous() for name, value in network.state_dict().items()}))


# --- measurements --------------------------------------------------------------------------------------------------


def agreement(pictures: np.ndarray, labels: np.ndarray, path: Path = WEIGHTS) -> np.ndarray:
    """(N, 6) float: 1 where the judge's likeliest value is the label, 0 where not, nan where there is none."""
    read = np.stack([part.argmax(1) for part in probabilities(pictures, path)], 1)
    return np.where(labels < 0, np.nan, read == labels)


def mean_known(values: np.ndarray, axis: int) -> np.ndarray:
    """The mean over what is not nan; nan where nothing is known."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    return np.where(count, np.where(known, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def score(art: str, count: int = 2000) -> Table:
    """Accuracy of the shipped judge per attribute on composed pictures it never saw, `count` of each kind of pair."""
    cutouts, out = scenes.Art(art), {}
    for kind, holdout in (("trained pairs", False), ("held-out pairs", True)):
        drawn = [labelled(cutouts, UNSEEN + index, holdout=holdout) for index in range(count)]
        right = agreement(np.stack([pixels for pixels, _ in drawn]), np.array([labels for _, labels in drawn]))
        out[kind] = dict(zip(ATTRIBUTES, mean_known(right, 0).tolist(), strict=True))
    return out


def as_text(result: Table) -> str:
    """A row for each entry, a column for each share in percent; a dash where there was nothing to count."""
    names = list(next(iter(result.values())))
    first = max(len(row) for row in result)
    lines = [" " * first + "".join(f"{name:>11}" for name in names)]
    for row, shares in result.items():
        lines.append(f"{row:<{first}}" + "".join(_percent(shares[name]) for name in names))
    return "\n".join(lines)


def _percent(share: float) -> str:
    return f"{'-':>11}" if np.isnan(share) else f"{100 * share:>9.1f} %"


def main(argv: list[str] | None = None) -> None:
    """Train the judge, or score it."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.pocket.factory.judge_training", description=__doc__.splitlines()[0]
    )
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
