"""What a watermark in the starting noise survives, how often it is seen where there is none, and what it costs.

    python -m diffexplore.bench.rings --pictures 200 --unmarked 1000 --json rings.json

Prompts are captions of the pocket world, as training had them, each once. Marked pictures have one of ten keys; what is
done to them is what `diffexplore.experiments.survival` does, and drawing them again from a part of their noise.
Unmarked pictures are held against one key each, and each against many more: false alarms of both. Quality is that of
marked pictures against unmarked ones of the same prompts and seeds: what the judge reads of the prompt (adherence), and
the Frechet distance of what it sees from other unmarked pictures, with that of two unmarked sets beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from diffexplore.experiments.counts import wilson
from diffexplore.experiments.detect import LEVEL, STEPS, inverted, scored
from diffexplore.experiments.survival import survives
from diffexplore.model import Model, load
from diffexplore.pocket import world
from diffexplore.pocket.judge import adherence, frechet, readable, seen
from diffexplore.progress import progress
from diffexplore.record.file import written
from diffexplore.settings import Settings
from diffexplore.trace import Trace

__all__ = ["main"]

THINGS: Final = (
    "JPEG 80", "JPEG 50", "cropped to 90 %", "half and back", "blurred", "screenshot", "mirrored",
)  # fmt: skip
REDRAWN: Final = (0.3, 0.6)
KEYS: Final = 10
AT_ONCE: Final = 8


def asked(index: int, base: Settings) -> Settings:
    """The settings of a picture: a caption of a scene without flaws, and a seed, always the same."""
    rng = np.random.default_rng([2305, 20030, index])
    return base.replace(prompt=world.caption(world.sample_scene(rng, clean=True), rng), seed=index)


def plain(prompt: str) -> bool:
    """Whether a caption asks for a plain background, of which next to no noise is left in a picture."""
    return prompt.find(" background") >= 0


class Share:
    """Found of so many."""

    def __init__(self) -> None:
        self.found = self.of = 0

    def count(self, found: bool) -> None:
        """One more."""
        self.found, self.of = self.found + bool(found), self.of + 1

    def told(self) -> dict[str, Any]:
        """As JSON takes it, with the interval of 95 %."""
        low, high = wilson(self.found, self.of)
        return {"found": self.found, "of": self.of, "share": self.found / max(1, self.of), "low": low, "high": high}


class Bench:
    """All that is measured, as far as it has come."""

    def __init__(self, model: Model, base: Settings, json_to: Path | None, back: int = STEPS) -> None:
        """Draws with `model` what `base` says beside prompts and seeds, and inverts in `back` steps; writes figures to
        `json_to` on the way.
        """
        self._model, self._base, self._to, self._back = model, base, json_to, back
        self.figures: dict[str, Any] = {"model": model.name, "settings": base.told(), "level": LEVEL, "back": back}

    def _note(self, **figures: Any) -> None:
        self.figures |= figures
        if self._to is not None:
            with written(self._to) as file:
                file.write((json.dumps(self.figures, indent=1) + "\n").encode())

    def marked(self, count: int, things: Sequence[str] = THINGS) -> None:
        """Draw marked pictures, do things to them, and look for their keys."""
        found: dict[str, Share] = {}

        def look(name: str, picture: Any, key: str, prompt: str, told: str | None = None) -> None:
            hit = scored(inverted(self._model, picture, prompt=told, steps=self._back), key).found
            for row in (name, f"{name}, {'plain background' if plain(prompt) else 'a place'}"):
                found.setdefault(row, Share()).count(hit)

        with tempfile.TemporaryDirectory() as folder:
            for index in progress(range(count), "marked"):
                key = f"key {index % KEYS}"
                settings = asked(index, self._base)
                image = self._model.trace(settings, watermark=key).image
                assert image is not None
                place = Path(folder) / "one.png"
                image.save(place)
                look("clean", image, key, settings.prompt)
                look("clean, and its prompt told", image, key, settings.prompt, settings.prompt)
                for name, picture in survives(place, things=things).pictures.items():
                    if name in things:
                        look(name, picture, key, settings.prompt)
                for strength in REDRAWN if len(things) > 1 else ():
                    again = self._model.trace(settings, image=image, strength=strength, seed=10**6 + index)
                    look(f"drawn again at {strength:g}", again.image, key, settings.prompt)
                if index % 10 == 9 or index == count - 1:
                    self._note(detection={name: share.told() for name, share in found.items()})

    def unmarked(self, count: int, keys: int) -> None:
        """Draw unmarked pictures and look for keys in them; then marked ones of the first half, for their quality."""
        one, many, ps = Share(), Share(), []
        settings = [asked(index, self._base) for index in range(count)]
        looks, reads = [], []
        for start in progress(range(0, count, AT_ONCE), "unmarked"):
            for k, trace in enumerate(self._model.trace_many(settings[start : start + AT_ONCE]), start):
                noise = inverted(self._model, trace, steps=self._back)
                mine = scored(noise, f"unmarked {k}")
                one.count(mine.found)
                ps.append(mine.p)
                for other in range(keys):
                    many.count(scored(noise, f"another {other}").found)
                looks.append(_look(trace))
                reads.append(_adherence(trace.image, settings[k].prompt))
            rates = {
                f"p at most {level:g}": float(np.mean(np.array(ps) <= level)) for level in (0.001, 0.01, 0.05, 0.1)
            }
            self._note(one_key_each=one.told(), pictures_and_keys=many.told(), false_alarms=rates)
        half = count // 2
        self._quality(settings[:half], np.stack(looks), np.array(reads[:half]))

    def _quality(self, settings: Sequence[Settings], looks: np.ndarray, reads: np.ndarray) -> None:
        """Marked pictures of one key against unmarked ones of the same settings."""
        made, said = [], []
        half = len(settings)
        for start in progress(range(0, half, AT_ONCE), "their like, marked"):
            part = [one.replace(watermark="key 0") for one in settings[start : start + AT_ONCE]]
            for one, trace in zip(part, self._model.trace_many(part), strict=True):
                made.append(_look(trace))
                said.append(_adherence(trace.image, one.prompt))
        known = ~np.isnan(reads)
        without, with_it = float(reads[known].mean()), float(np.array(said)[known].mean())
        apart = np.array(said)[known] - reads[known]
        other = looks[half : 2 * half]
        scale = other.var(0, ddof=1).sum()
        distance = {
            "marked": 100 * frechet(np.stack(made), other) / scale,
            "unmarked": 100 * frechet(looks[:half], other) / scale,
        }
        self._note(
            quality={
                "pictures": half,
                "adherence": {"unmarked": without, "marked": with_it, "ratio": with_it / without,
                              "error": float(apart.std(ddof=1) / math.sqrt(len(apart)) / without)},
                "frechet": distance | {"ratio": distance["marked"] / distance["unmarked"]},
            }
        )  # fmt: skip


def _look(trace: Trace) -> np.ndarray:
    assert trace.image is not None, "nobody cancels it"
    return seen(trace.image).astype(np.float64)


def _adherence(image: Any, prompt: str) -> float:
    return adherence(image, prompt) if readable(prompt) else math.nan


def as_text(figures: dict[str, Any]) -> str:
    """The figures as a table."""
    lines = []

    def row(name: str, share: dict[str, Any]) -> None:
        lines.append(
            f"{name:<46} {share['share']:7.3f}   {share['found']:>6} of {share['of']:<7} "
            f"({share['low']:.3f} to {share['high']:.3f})"
        )

    for name, share in figures.get("detection", {}).items():
        row(f"found, {name}", share)
    for name, told in (("one_key_each", "false alarms, one key each"), ("pictures_and_keys", "pictures and keys")):
        if name in figures:
            row(told, figures[name])
    if "quality" in figures:
        for name in ("adherence", "frechet"):
            of = figures["quality"][name]
            lines.append(f"{name:<46} {of['ratio']:7.3f}   {of['marked']:.4g} marked, {of['unmarked']:.4g} unmarked")
    return "\n".join(lines)


def main(given: list[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m diffexplore.bench.rings", description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=200, help="marked pictures (default: %(default)s)")
    parser.add_argument("--unmarked", type=int, default=1000, help="unmarked ones, 0 for none (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=20, help="further keys for each of those (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="of every run (default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=5.0, help="of every run (default: %(default)s)")
    parser.add_argument("--model", help="what load takes (default: the pocket model)")
    parser.add_argument("--json", type=Path, help="write the figures there, on the way too")
    parser.add_argument("--back", type=int, default=STEPS, help="steps of an inversion (default: %(default)s)")
    parser.add_argument("--things", nargs="+", default=list(THINGS), choices=THINGS, help="what is done to marked ones")
    args = parser.parse_args(given)
    model = load(args.model, reuse=0)
    bench = Bench(model, Settings(steps=args.steps, guidance=args.guidance), args.json, args.back)
    if args.pictures:
        bench.marked(args.pictures, args.things)
    if args.unmarked > 3:
        bench.unmarked(args.unmarked, args.keys)
    print(as_text(bench.figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
