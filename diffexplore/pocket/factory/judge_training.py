"""Trains what looks at pictures, on composed ones: the judge that ships, a second one, and the sight of a VAE.

    python -m diffexplore.pocket.factory.judge_training train --art FOLDER  # draw, label, train, write weights
    python -m diffexplore.pocket.factory.judge_training score --art FOLDER  # accuracy on composed pictures it never saw

All three learn from the same pictures in one loop, as long as `--minutes` says, and go on where they were when called
again. The second judge is for measuring alone (`eyes`); with ``--only second`` it learns alone, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.pocket.factory import scenes
from diffexplore.pocket.factory.eyes import features, make_second, make_sight, read_second, shaken
from diffexplore.pocket.factory.pool import Pool, compose
from diffexplore.pocket.factory.stage import Budget, Stage
from diffexplore.pocket.judge import ATTRIBUTES, SIDE, WEIGHTS, WIDTHS, make_network, probabilities
from diffexplore.pocket.world import SIZE
from diffexplore.record.file import written

if TYPE_CHECKING:
    import torch

Table = dict[str, dict[str, float]]

SEED = 7707
CAPACITY = 60_000
LEAST = 4_000
"""Pictures that have to be there before anything is learned."""
UNSEEN = 10_000_000  # index of the first picture that is for scoring and not for training


def _normalised(network: torch.nn.Module) -> dict[str, torch.nn.Sequential]:
    """Every convolution with the batch normalisation behind it, by name."""
    from torch import nn

    parts = ((name, part) for name, part in network.named_modules() if isinstance(part, nn.Sequential))
    return {name: part for name, part in parts if len(part) == 2 and isinstance(part[1], nn.BatchNorm2d)}


def _fold(network: torch.nn.Module) -> None:
    """Move every batch normalisation of a trained network into the convolution before it, in place."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    for part in _normalised(network).values():
        part[0] = fuse_conv_bn_eval(part[0], part[1])  # type: ignore[arg-type, type-var]
        del part[1]


def _kept(weights: Path) -> torch.nn.Sequential:
    """A judge as it ships."""
    from safetensors.torch import load_file

    network = make_network(WIDTHS, folded=True)
    network.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    return network


def _unfold(kept: torch.nn.Sequential, seen: torch.Tensor) -> torch.nn.Sequential:
    """A judge that can be trained on, from one that is kept: each normalisation gives back what it takes from `seen`,
    (N, 3, 64, 64) in -1..1, so that it says of those pictures what it said.
    """
    import torch
    from torch import nn

    def settle(normal: nn.BatchNorm2d, given: torch.Tensor, bias: Any) -> None:
        mean, var = given.mean((0, 2, 3)), given.var((0, 2, 3))
        told = {"weight": (var + normal.eps).sqrt(), "bias": mean + bias, "running_mean": mean, "running_var": var}
        normal.load_state_dict(told, strict=False)

    network, hooks = make_network(WIDTHS), []
    network[-1].load_state_dict(kept[-1].state_dict())
    for name, (layer, normal) in _normalised(network).items():
        was = kept.get_submodule(f"{name}.0")
        layer.load_state_dict({"weight": was.weight})
        hooks.append(normal.register_forward_pre_hook(lambda one, given, bias=was.bias: settle(one, given[0], bias)))
    with torch.no_grad():
        network.eval()(seen)
    for hook in hooks:
        hook.remove()
    return network.train()


# --- training ------------------------------------------------------------------------------------------------------


def _varied(x: torch.Tensor, noisy: torch.Tensor) -> torch.Tensor:
    """Pictures mirrored, a little brighter or darker, softer and grainier, as a VAE's are; far below what is degraded.

    A picture that counts as noisy is not softened: that would take away what it is to be recognised by.
    """
    import torch
    from torch.nn.functional import avg_pool2d, pad

    n = len(x)

    def chance() -> torch.Tensor:
        return torch.rand(n, 1, 1, 1, device=x.device)

    x = torch.where(chance() < 0.5, x.flip(3), x)
    soft = avg_pool2d(avg_pool2d(pad(x, (1, 1, 1, 1), "replicate"), 2, 1), 2, 1)  # binomial, sigma 0.7
    share = (chance() * 2 - 1).clamp(min=0) * (~noisy).view(-1, 1, 1, 1)
    x = torch.lerp(x, soft, share)
    x = x * (1 + 0.12 * (chance() - 0.5)) + 0.12 * (chance() - 0.5)
    return x + chance() * 0.04 * torch.randn_like(x)


def _loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy per attribute over the pictures in which it can be read, summed over the attributes."""
    from torch.nn.functional import cross_entropy

    parts = scores.float().split([len(names) for names in ATTRIBUTES.values()], 1)
    total = scores.new_zeros((), dtype=scores.float().dtype)
    for part, label in zip(parts, labels.unbind(1), strict=True):
        known = (label >= 0).sum().clamp(min=1)
        total = total + cross_entropy(part, label, ignore_index=-1, reduction="sum") / known
    return total


MAKERS = {"judge": lambda: make_network(WIDTHS), "second": make_second, "sight": make_sight}
"""What is trained here, and its untrained network."""


def train(
    work: Path, pool: Pool, budget: Budget, *, steps: int | None = None, batch: int = 192, only: str | None = None,
    like: Path | None = None,
) -> None:  # fmt: skip
    """Train all three; state in ``judges.pt``, weights as ``judge.safetensors`` and ``judge2.safetensors``.

    Args:
        work: folder of the state.
        pool: with held-out pairs, since a judge has to know all.
        budget, steps: how long.
        batch: pictures a step.
        only: one of `MAKERS`, trained alone; its state is called by its name.
        like: weights of a judge that ships, as which the judge begins; half the rate then shakes less of what it knows.

    Raises:
        FileNotFoundError: there is no such file of weights.
    """
    import torch
    from torch.nn.functional import interpolate

    torch.manual_seed(SEED)
    kept = _kept(like) if like is not None else None
    pool.wait(min(LEAST, len(pool.pictures)))
    parts = {name: make() for name, make in MAKERS.items() if only in (None, name)}
    if kept is not None and "judge" in parts:
        first = pool.pictures[:LEAST:8].float().cpu() / 127.5 - 1
        parts["judge"] = _unfold(kept, interpolate(first, (SIDE, SIDE), mode="area"))
    rate = 2e-3 if kept is None else 1e-3
    stage = Stage(work, only or "judges", parts, steps=steps, budget=budget, rate=rate, ema=0.0, decay=0.03)
    noisy = ATTRIBUTES["quality"].index("noisy")

    def loss_of(step: int) -> torch.Tensor:
        index = torch.randint(pool.count, (batch,), device=stage.device)
        truths = torch.stack([values[index].long() for values in pool.labels.values()], 1)
        with torch.no_grad(), torch.autocast(stage.device.type, enabled=False):
            x = (pool.pictures[index].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
            whole = _varied(x, truths[:, -1] == noisy)
            views = {
                "judge": lambda: interpolate(whole, (SIDE, SIDE), mode="area"),
                "second": lambda: shaken(x).contiguous(memory_format=torch.channels_last),
                "sight": lambda: whole,
            }
            shown = {name: views[name]() for name in parts}
        return torch.stack([_loss(stage.parts[name](picture), truths) for name, picture in shown.items()]).sum()

    stage.run(loss_of, feed=pool.take)
    export(work, only=only)


def export(work: Path, out: Path | None = None, only: str | None = None) -> None:
    """Write the judges of ``work/judges.pt`` (or of the one trained alone) as fp16 safetensors: the one that ships, its
    normalisation folded in, as `out` or ``judge.safetensors``, and the second as ``judge2.safetensors``.
    """
    import torch
    from safetensors.torch import save

    parts = torch.load(work / f"{only or 'judges'}.pt", weights_only=True, map_location="cpu")["parts"]
    for name, path in (("judge", out or work / "judge.safetensors"), ("second", work / "judge2.safetensors")):
        if name not in parts:
            continue
        network = MAKERS[name]()
        network.load_state_dict(parts[name])
        _fold(network.eval())
        with written(path) as file:
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


def score(art: str, count: int = 2000, size: int = SIZE, judge: Path = WEIGHTS, second: Path | None = None) -> Table:
    """Accuracy of the judge, and of the `second` where its weights are given, per attribute on composed pictures they
    never saw, `count` of each kind of pair.
    """
    cutouts, out = scenes.Art(art), {}
    for kind, holdout in (("trained pairs", False), ("held-out pairs", True)):
        drawn = [compose(cutouts, SEED, UNSEEN + index, size, holdout=holdout) for index in range(count)]
        labels = np.array([one.labels for one in drawn])
        right = agreement(np.stack([one.pixels for one in drawn]), labels, judge)
        out[kind] = dict(zip(ATTRIBUTES, mean_known(right, 0).tolist(), strict=True))
        if second is not None:
            _, scores = features(read_second(second), [one.pixels for one in drawn], size)
            out[f"{kind}, second"] = dict(zip(ATTRIBUTES, mean_known(said(scores, labels), 0).tolist(), strict=True))
    return out


def said(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N, 6) float: 1 where the likeliest of `scores` (N, 104) is the label, 0 where not, nan where there is none."""
    ends = np.cumsum([len(values) for values in ATTRIBUTES.values()])[:-1]
    read = np.stack([part.argmax(1) for part in np.split(scores, ends, axis=1)], 1)
    return np.where(labels < 0, np.nan, read == labels)


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
    """Train the judges, or score them."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.pocket.factory.judge_training", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", choices=["train", "export", "score"])
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder of the checkpoints")
    parser.add_argument("--art", help="unpacked npm package @lobehub/fluent-emoji-3d (for train and score)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the file of the judge that ships")
    parser.add_argument("--minutes", type=float, default=60, help="of training, all its runs together")
    parser.add_argument("--only", choices=list(MAKERS), help="train or export one of them, alone")
    parser.add_argument("--like", type=Path, metavar="FILE", help="weights of a judge, as which it begins")
    parser.add_argument("--batch", type=int, default=192, help="pictures a step (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16 (a GPU, AVX512-BF16, AMX)")
    args = parser.parse_args(argv)
    if args.what in ("train", "score") and not args.art:
        parser.error(f"{args.what} needs --art FOLDER: npm pack @lobehub/fluent-emoji-3d, then unpack it")
    if args.like and not args.like.is_file():
        parser.error(f"--like needs the weights of a judge, there is no file {str(args.like)!r}")
    if args.what == "score":
        second = args.work / "judge2.safetensors"
        print(as_text(score(args.art, judge=args.out, second=second if second.is_file() else None)))
        return
    if args.what == "train":
        from transformers import CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS.parent / "tokenizer")
        kind = {"size": SIZE, "capacity": CAPACITY, "seed": SEED, "held_out": True}
        with Pool(args.art, tokenizer=tokenizer, device=args.device, **kind) as pool:  # type: ignore[arg-type]
            budget = Budget(args.minutes, args.bf16, args.device)
            train(args.work, pool, budget, batch=args.batch, only=args.only, like=args.like)
    export(args.work, args.out, args.only)


if __name__ == "__main__":
    main()
