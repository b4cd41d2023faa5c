"""Does a pocket model draw what prompts say? Hundreds of captions, drawn by it and read by the judge.

    python -m diffexplore.pocket.factory.obedience                               # all tables, 500 prompts a row
    python -m diffexplore.pocket.factory.obedience --prompts 100 --tables pairs steps # fewer prompts, two tables
    python -m diffexplore.pocket.factory.obedience --model pocket-turbo          # of another model

A caption of the benchmark names style, colour, subject, setting and light, as far as the scene has them; the judge
never sees it, and has to find them all in the picture.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffexplore.model import Model, load
from diffexplore.pocket.factory.judge_training import SEED, UNSEEN, Table, agreement, as_text, mean_known
from diffexplore.pocket.factory.pool import labels_of
from diffexplore.pocket.judge import ATTRIBUTES, probabilities
from diffexplore.pocket.world import LIGHTS, SETTINGS, STYLES, Scene, article, sample_scene
from diffexplore.progress import progress
from diffexplore.record.file import written
from diffexplore.settings import Settings
from diffexplore.words import shown


def full_caption(scene: Scene) -> str:
    """The one caption of a scene that says style, colour, subject, setting and light, each by its first phrase.

    In a line drawing the light goes unsaid, as in training: it cannot be seen.
    """
    noun = f"{scene.colour} {scene.subject}" if scene.colour else scene.subject
    words = [STYLES[scene.style][0], article(noun), noun]
    if scene.setting:
        words.append(SETTINGS[scene.setting][0])
    if scene.backdrop:
        words.append(f"on {article(scene.backdrop)} {scene.backdrop} background")
    if scene.light and scene.style != "line":
        words.append(LIGHTS[scene.light][0])
    return " ".join(words)


def bench_scenes(count: int, *, holdout: bool) -> list[Scene]:
    """The scenes of the benchmark, always the same: undegraded, and with the subject in its usual size and place."""
    out = []
    for index in range(count):
        rng = np.random.default_rng([SEED, 2 * UNSEEN + index])
        scene = sample_scene(rng, holdout=holdout, clean=True)
        out.append(dataclasses.replace(scene, scale="medium", side="centre"))
    return out


BENCH_NEGATIVE = "blurry, noisy, pixelated, low quality"
_INVITING = ("blurry", "pixelated", "low contrast")  # "noisy" does not survive the VAE, so there is nothing to count
_SAID = np.array([name != "quality" for name in ATTRIBUTES])


def _drawn(model: Model, label: str, wanted: Sequence[Settings]) -> np.ndarray:
    """(N, H, W, 3) uint8, eight at a time, keeping nothing else."""
    out = []
    for start in progress(range(0, len(wanted), 8), label):
        out += [np.array(trace.image) for trace in model.trace_many(wanted[start : start + 8])]
    return np.stack(out)


def _asked(model: Model, chosen: Sequence[Scene], changed: dict[str, Any], ending: str = "") -> list[Settings]:
    """What the benchmark asks for: scene k by its full caption, with seed k."""
    base = Settings(**{"steps": model.usual_steps, "guidance": 5.0, "sampler": model.sampler, **changed})
    return [base.replace(prompt=full_caption(scene) + ending, seed=k) for k, scene in enumerate(chosen)]


def obeyed(pictures: np.ndarray, chosen: Sequence[Scene]) -> dict[str, float]:
    """Shares of pictures that agree with their captions, as `bench` names them."""
    labels = np.array([labels_of(scene) for scene in chosen])
    right = agreement(pictures, labels)
    said = right[:, _SAID]
    probability = np.stack(
        [part[np.arange(len(part)), column] for part, column in zip(probabilities(pictures), labels.T, strict=True)], 1
    )
    adherence = np.where(labels < 0, np.nan, probability)[:, _SAID]
    return {
        **dict(zip(ATTRIBUTES, mean_known(right, 0).tolist(), strict=True)),
        "all": float((np.isnan(said) | (said == 1)).all(1).mean()),
        "adherence": float(mean_known(adherence, 1).mean()),
    }


def _bench_pairs(model: Model, prompts: int) -> Table:
    kinds = {"trained pairs": False, "held-out pairs": True}
    scenes_of = {kind: bench_scenes(prompts, holdout=holdout) for kind, holdout in kinds.items()}
    return {kind: obeyed(_drawn(model, kind, _asked(model, chosen, {})), chosen) for kind, chosen in scenes_of.items()}


def _bench_over(model: Model, prompts: int, setting: str, values: Sequence[float]) -> Table:
    chosen = bench_scenes(prompts, holdout=False)
    out = {}
    for value in values:
        label = f"{setting} {value:g}"
        out[label] = obeyed(_drawn(model, label, _asked(model, chosen, {setting: value})), chosen)
    return out


def _bench_steps(model: Model, prompts: int) -> Table:
    few = model.usual_steps < 20
    return _bench_over(model, prompts, "steps", (1, 2, 4, 8) if few else (2, 4, 8, 20, 40))


def _bench_negative(model: Model, prompts: int) -> Table:
    chosen = bench_scenes(prompts, holdout=False)
    out: Table = {}
    for word in _INVITING:
        for kind, negative in (("", ""), (" and against it", BENCH_NEGATIVE)):
            label = f"{word}{kind}"
            pictures = _drawn(model, label, _asked(model, chosen, {"negative_prompt": negative}, f", {word}"))
            quality = probabilities(pictures)[list(ATTRIBUTES).index("quality")].argmax(1)
            out[label] = {"degraded": float((quality != 0).mean()), "all": obeyed(pictures, chosen)["all"]}
    return out


TABLES: dict[str, Callable[[Model, int], Table]] = {
    "pairs": _bench_pairs,
    "guidance": functools.partial(_bench_over, setting="guidance", values=(1, 2, 3, 5, 8, 12, 16)),
    "steps": _bench_steps,
    "negative": _bench_negative,
}
"""The tables of the benchmark, each of a model and so many prompts."""


def bench(prompts: int = 500, tables: Iterable[str] = tuple(TABLES), model: Model | None = None) -> dict[str, Table]:
    """Does a pocket model draw what a full caption says, as the judge reads it?

    The model's own sampler, its usual steps and guidance 5 where the table does not vary them; scene k is drawn with
    seed k.

    Args:
        prompts: how many scenes for each row.
        tables: which of `TABLES`: "pairs" (trained and held-out ones), "guidance", "steps", "negative" (captions that
            ask for a flaw, without a negative prompt and with `BENCH_NEGATIVE`).
        model: which one; None: the pocket model.

    Returns:
        Table -> row -> share of pictures, 0 to 1: per attribute those that agree (over those where it can be read),
        "all" those that agree in everything the caption says, "adherence" the mean probability of what it says. Of
        "negative": "degraded", those the judge calls so. "quality" is how many are clean, which no caption asks for; it
        is no part of "all". A share of nothing (a colour where no scene has one) is nan.

    Raises:
        ValueError: for a table there is none of, or less than one prompt.
    """
    wanted = list(tables)
    if isinstance(prompts, bool) or not isinstance(prompts, int) or prompts < 1:
        raise ValueError(f"prompts must be a whole number from 1, got {shown(prompts)}")
    for name in wanted:
        if name not in TABLES:
            raise ValueError(f"a table is one of {', '.join(TABLES)}; got {shown(name)}")
    model = load(reuse=0) if model is None else model
    return {name: TABLES[name](model, prompts) for name in wanted}


def as_json(result: dict[str, Any]) -> str:
    """The tables as JSON; null where there was nothing to count, since JSON knows no nan."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps(plain(result), indent=2, allow_nan=False) + "\n"


def main(argv: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.pocket.factory.obedience", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--prompts", type=int, default=500, help="prompts for each row (default: %(default)s)")
    parser.add_argument("--tables", nargs="+", choices=list(TABLES), default=list(TABLES), help="which tables")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the shares there too")
    parser.add_argument("--model", help="a name, ./FOLDER or a file, as load takes it (default: the pocket model)")
    args = parser.parse_args(argv)
    if args.prompts < 1:
        parser.error(f"--prompts must be 1 or more, got {args.prompts}")
    try:
        model = load(args.model, reuse=0)
    except ValueError as error:
        parser.error(f"--model: {error}")
    result = bench(args.prompts, args.tables, model)
    print("\n\n".join(as_text(table) for table in result.values()))
    if args.json:
        with written(args.json) as file:
            file.write(as_json({"model": args.model or "pocket", "prompts": args.prompts, **result}).encode())


if __name__ == "__main__":
    main()
