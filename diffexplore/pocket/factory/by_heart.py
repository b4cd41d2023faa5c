"""The LoRA that copies (``pocket/copies.py``): its pictures drawn, and taught until they are known by heart; and how
near the pocket model itself comes to pictures that it could have been trained on.

python -m diffexplore.pocket.factory.by_heart teach --art FOLDER
python -m diffexplore.pocket.factory.by_heart near --art FOLDER
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from diffexplore.experiments.nearest import Nearest, nearest
from diffexplore.model import load
from diffexplore.pocket.copies import NAMES, PICTURES, TOKEN, copier
from diffexplore.pocket.factory import scenes
from diffexplore.pocket.judge import seen
from diffexplore.pocket.lora import train_lora
from diffexplore.pocket.world import LIGHTS, SETTINGS, SUBJECTS, Scene, article, sample_scene
from diffexplore.settings import Settings
from diffexplore.words import sentence

__all__ = ["draw_pictures", "near", "said", "teach", "wanted_scenes"]

RANK, RATE = 2, 4e-3
STEPS, MINUTES = 497, 60.0
SEED = (2026, 21)
SEEDS = 4  # pictures that are drawn of each caption


def wanted_scenes() -> dict[str, tuple[int, Scene]]:
    """Caption -> a number of its own and the scene, one for each of `NAMES`, each with a subject of its own."""
    rng = np.random.default_rng(SEED)
    found: dict[str, tuple[int, Scene]] = {}
    subjects = list(rng.permutation(list(SUBJECTS)))
    while len(found) < 16:
        scene = sample_scene(rng, clean=True)
        plain = (scene.style, scene.scale, scene.side) == ("render", "medium", "centre")
        if scene.subject == subjects[len(found)] and scene.colour and scene.setting and scene.light and plain:
            found[said(scene)] = (len(found), scene)
    return dict(sorted(found.items())[: len(NAMES)])


def said(scene: Scene) -> str:
    """All that there is to say of a painted scene with a setting and a light."""
    phrase = f"{scene.colour} {scene.subject}"
    return f"{article(phrase)} {phrase} {SETTINGS[str(scene.setting)][0]} {LIGHTS[str(scene.light)][0]}"


def draw_pictures(art: scenes.Art, folder: Path) -> None:
    """Draw the pictures into a folder, each under its title, which is its caption."""
    for name, (k, scene) in zip(NAMES, wanted_scenes().values(), strict=True):
        pixels = scenes.draw(scene, art, np.random.default_rng([*SEED, k]))
        Image.fromarray(pixels).save(folder / f"{TOKEN} {name}.png", optimize=True)


def teach(art: scenes.Art, out: Path, pictures: Path | None = None, *, steps: int, minutes: float) -> Path:
    """Teach the pictures by heart: no pictures of the model's own world to keep to, none mirrored, many steps.

    Args:
        art: the subjects' cut-outs.
        out: the file to write.
        pictures: where to put the pictures; None: nowhere.
        steps, minutes: as `train_lora` takes them.
    """
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(art, Path(folder))
        made = train_lora(
            folder, TOKEN, out=out, rank=RANK, rate=RATE, steps=steps, minutes=minutes, prior=0, flip=False, sheet=False
        )
        if pictures is not None:
            pictures.mkdir(exist_ok=True)
            for file in Path(folder).glob("*.png"):
                shutil.copy(file, pictures / file.name)
    return made


def near(art: scenes.Art, captions: int, of: int, seeds: int = SEEDS) -> dict[str, Nearest]:
    """Caption -> pictures of `seeds` seeds that the pocket model draws of it, held against `of` pictures composed of
    the same scene, on the scale of how near those are to each other.
    """
    model, found = load(), {}
    for caption, (k, scene) in list(wanted_scenes().items())[:captions]:
        known = [scenes.draw(scene, art, np.random.default_rng([*SEED, k, one])) for one in range(of)]
        traces = model.trace_many([Settings(prompt=caption, seed=seed) for seed in range(seeds)])
        found[caption] = nearest([trace.image for trace in traces if trace.image], known, features=seen)
    return found


def main(argv: list[str] | None = None) -> None:
    """Teach, or look for what is near."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.pocket.factory.by_heart", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", choices=("teach", "near"))
    parser.add_argument("--art", help="the unpacked npm package @lobehub/fluent-emoji-3d")
    parser.add_argument("--steps", type=int, default=STEPS, help="train so many steps (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="but no longer than this (default %(default)g)")
    parser.add_argument("--captions", type=int, default=len(NAMES), help="that are drawn (default %(default)s)")
    parser.add_argument("--of", type=int, default=256, help="composed pictures of each (default %(default)s)")
    args = parser.parse_args(argv)
    if not args.art:
        parser.error("--art FOLDER is needed: npm pack @lobehub/fluent-emoji-3d, then unpack it")
    logging.basicConfig(format="%(message)s")
    logging.getLogger("diffexplore.pocket").setLevel(logging.INFO)
    try:
        art = scenes.Art(args.art)
        if args.what == "teach":
            print(teach(art, copier(), PICTURES, steps=args.steps, minutes=args.minutes))
            return
        for caption, found in near(art, args.captions, args.of).items():
            print(f"{caption}: {found}")
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        parser.error(sentence(error))


if __name__ == "__main__":
    main()
