"""Whether the sign of memorisation finds what a LoRA has learned by heart: ``python -m diffexplore.bench.memorised``.

The LoRA is the one that ships (``pocket/copies.py``), whose pictures are known. No times here: the figures are the same
on every machine, up to rounding.
"""

from __future__ import annotations

import argparse
from typing import Any

from diffexplore.experiments.memorised import Pulls, memorised
from diffexplore.experiments.nearest import Nearest, nearest
from diffexplore.model import Model, load
from diffexplore.pocket.copies import CAPTIONS, OTHERS, copied, copier, prompts
from diffexplore.pocket.judge import seen

__all__ = ["copies", "main", "opened", "pulls"]


def opened() -> tuple[Model, str]:
    """The pocket model with the LoRA that copies, switched off, and its name."""
    model = load()
    return model, model.load_lora(copier(), "copies")


def pulls(model: Model, lora: str, seeds: int, few: int | None = None) -> dict[str, Pulls]:
    """The groups of prompts: learned by heart, the same without the LoRA, and those of other subjects, with the LoRA's
    word and without, with the LoRA and without; `few` of each, or all.
    """
    learned, strange = prompts()[:few], prompts(OTHERS)[:few]
    groups: dict[str, tuple[list[str], dict[str, Any]]] = {
        "learned by heart": (learned, {"adapters": {lora: 1.0}}),
        "the same, without the LoRA": (learned, {}),
        "others, with the LoRA": (strange, {"adapters": {lora: 1.0}}),
        "others, without": (strange, {}),
        "whole captions, without": (list(CAPTIONS)[:few], {}),
    }
    return {name: memorised(model, said, n=seeds, name=name, **how) for name, (said, how) in groups.items()}


def copies(model: Model, lora: str, few: int | None = None) -> Nearest:
    """Two pictures of each title with the LoRA, held against those that it learned, on the scale of what the model
    draws without it of what those pictures show; at a guidance of 2, since more bends what was learned by heart.
    """

    def drawn(asked: list[str], seeds: range, **how: Any) -> list[Any]:
        wanted = [model.plan(prompt=one, steps=12, guidance=2.0, seed=seed, **how) for one in asked for seed in seeds]
        return [trace.image for trace in model.trace_many(wanted)]

    with_lora = drawn(prompts()[:few], range(2), adapters={lora: 1.0})
    return nearest(with_lora, copied(), scale=drawn(list(CAPTIONS)[:few], range(4)), features=seen)


def main(argv: list[str] | None = None) -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.bench.memorised", description=__doc__.splitlines()[0].split(":")[0]
    )
    parser.add_argument("--seeds", type=int, default=8, help="of each prompt (default %(default)s)")
    parser.add_argument("--few", type=int, help="so many prompts of each group (default: all)")
    args = parser.parse_args(argv)
    model, lora = opened()
    found = pulls(model, lora, args.seeds, args.few)
    for one in found.values():
        print(one)
    first, *others = found.values()
    for other in others:
        print(f"{first.name}, against {other.name}: {first.against(other)}")
    print(f"others, with the LoRA against without: {others[1].against(others[2])}")
    print(copies(model, lora, args.few))


if __name__ == "__main__":
    main()
