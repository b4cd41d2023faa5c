"""The adapters that ship with the pocket model, taught once more from pictures drawn here.

python -m diffexplore.pocket.factory.lora_examples --art FOLDER
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffexplore.pocket.factory import scenes
from diffexplore.pocket.lora import ADAPTERS, PRIOR, RANK, RATE, SHIPPED, example_adapter, told, train_lora
from diffexplore.pocket.world import LIGHTS, SETTINGS, SUBJECTS, Scene, article
from diffexplore.words import sentence

DRAGON = "1f409"  # the emoji's code point


class _OneSubject(scenes.Art):
    """Art in which every subject looks like one emoji, which is not among the subjects."""

    def __init__(self, folder: str | Path, code: str) -> None:
        self.code = code
        super().__init__(folder)

    def path_of(self, subject: str) -> Path:
        return self.folder / "assets" / f"{self.code}.webp"


def example_pictures(name: str, art: str | Path, folder: Path) -> None:
    """Draw the pictures that an adapter of `SHIPPED` is taught from into `folder`; their names are their captions.

    Raises:
        ValueError: `art` is not the unpacked package of emoji.
    """
    example = SHIPPED[name]
    try:
        cutouts = _OneSubject(art, DRAGON) if example.kind == "subject" else scenes.Art(art)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    names = list(SUBJECTS)
    for k in range(example.pictures):
        rng = np.random.default_rng([2026, k])
        setting, light = list(SETTINGS)[k % 8], list(LIGHTS)[(k // 8 + k) % 4]
        subject = names[(k * 31 + 5) % len(names)]
        scene = Scene(subject, setting=setting, light=None if setting == "space" else light)
        pixels = scenes.draw(scene, cutouts, rng)
        noun = example.token if example.kind == "subject" else subject
        said = f"{article(noun)} {noun} {SETTINGS[setting][0]}"
        said += f" {LIGHTS[light][0]}" if scene.light else ""
        if example.kind == "style":
            pixels, said = synthwave(pixels), f"{said}, {example.token} style"
        Image.fromarray(pixels).save(folder / f"{said} {k:02}.png")


SYNTHWAVE = np.array([(20, 8, 60), (120, 20, 130), (240, 60, 110), (255, 170, 70), (255, 245, 190)], np.float32)


def synthwave(pixels: np.ndarray) -> np.ndarray:
    """A picture in the colours of an eighties sunset, from dark violet over pink to yellow by its brightness.

    (H, W, 3) uint8 to the same.
    """
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    place = (grey - grey.min()) / max(float(np.ptp(grey)), 1.0) * (len(SYNTHWAVE) - 1)
    out = [np.interp(place, np.arange(len(SYNTHWAVE)), band) for band in SYNTHWAVE.T]
    return np.stack(out, -1).round().astype(np.uint8)


def rebuild_examples(art: str | Path, **options: Any) -> list[Path]:
    """Draw the pictures and teach the adapters that ship, into the package. `options` are those of `train_lora`."""
    made = []
    for name, example in SHIPPED.items():
        with tempfile.TemporaryDirectory() as folder:
            example_pictures(name, art, Path(folder))
            ADAPTERS.mkdir(exist_ok=True)
            own = {"kind": example.kind, "out": example_adapter(name), "steps": example.steps, **options}
            made.append(train_lora(folder, example.token, **own))
    return made


def main(argv: list[str] | None = None) -> None:
    """Draw, teach, write."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.pocket.factory.lora_examples", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--art", help="the unpacked npm package @lobehub/fluent-emoji-3d")
    parser.add_argument("--rank", type=int, default=RANK, help="of the changes (default %(default)s)")
    parser.add_argument("--steps", type=int, help="train so many steps (default: each its own)")
    parser.add_argument("--minutes", type=float, default=600.0, help="but no longer than this (default %(default)g)")
    parser.add_argument("--rate", type=float, default=RATE, help="learning rate (default %(default)s)")
    parser.add_argument("--prior", type=int, default=PRIOR, help="pictures of its own the model keeps to; 0: none")
    parser.add_argument("--no-flip", action="store_true", help="do not show the pictures mirrored too")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal files (default 0)")
    args = parser.parse_args(argv)
    if not args.art:
        parser.error("--art FOLDER is needed: npm pack @lobehub/fluent-emoji-3d, then unpack it")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("diffexplore.pocket").setLevel(logging.INFO)
    options = {
        "rank": args.rank, "minutes": args.minutes, "rate": args.rate, "prior": args.prior, "flip": not args.no_flip,
        "seed": args.seed, **({} if args.steps is None else {"steps": args.steps}),
    }  # fmt: skip
    try:
        made = rebuild_examples(args.art, **options)
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        parser.error(sentence(error))
    for path in made:
        print(told(path))


if __name__ == "__main__":
    main()
