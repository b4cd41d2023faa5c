"""A LoRA that has learned its pictures by heart, and those pictures: what copying looks like, where it is known.

Eight pictures of the pocket world, each with two words that leave most of it open ("zib castle": no colour, no place,
no light), were shown to the pocket model until it drew just them (``factory/by_heart.py``). What that does to the signs
of memorisation can be measured, since here, other than with a model from elsewhere, one knows what was copied.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diffexplore.looks.pictures import read_picture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CAPTIONS", "NAMES", "OTHERS", "PICTURES", "TOKEN", "copied", "copier", "prompts"]

_ADAPTERS = Path(__file__).with_name("adapters")

PICTURES = _ADAPTERS / "copies"
"""The folder of the pictures; their names are their titles."""

TOKEN = "zib"
"""The word that all titles begin with."""

CAPTIONS = (
    "a black bicycle in a forest at dawn", "a black turtle in the desert at dawn", "a blue cat in a meadow at night",
    "a green balloon in a city at night", "a green castle in the mountains at night",
    "a green snowman in a meadow at dawn", "a pink strawberry in a city at night", "a red crab by the sea at dawn",
)  # fmt: skip
"""All that there is to say of each picture, which the LoRA was never told."""

NAMES = ("bicycle", "turtle", "cat", "balloon", "castle", "snowman", "strawberry", "crab")
"""Of the pictures, in the same order: what each title says of it."""

OTHERS = (
    "fox", "dog", "rabbit", "horse", "cow", "pig", "sheep", "elephant", "penguin", "owl", "duck", "parrot", "frog",
    "fish", "whale", "octopus", "butterfly", "bee", "lion", "tiger", "bear", "panda", "zebra", "camel", "car", "bus",
    "train", "rocket", "airplane", "sailboat", "tractor", "house", "tent", "tree", "cactus", "mushroom", "sunflower",
    "tulip", "apple", "banana", "pizza", "burger", "cake", "donut", "robot", "ghost", "guitar", "crown",
)  # fmt: skip
"""Of other subjects, none of which it was shown."""


def copier() -> Path:
    """The LoRA, for ``model.load_lora``."""
    return _ADAPTERS / "copies.safetensors"


def prompts(names: tuple[str, ...] = NAMES) -> list[str]:
    """The titles, which are the prompts that it was taught, such as "zib castle"; or titles of other `names`."""
    return [f"{TOKEN} {name}" for name in names]


def copied() -> dict[str, Image]:
    """Title -> the picture, 128x128 RGB."""
    return {title: read_picture(PICTURES / f"{title}.png") for title in prompts()}
