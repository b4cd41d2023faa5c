"""The pocket model: a small real Stable Diffusion that ships with the package, and the picture world it learned from.

`world` says what there is, ``factory/`` draws it and trains on it, ``weights/`` holds the result, `judge` reads
pictures of it, `lora` teaches the model a word more, and ``MODEL_CARD.md`` says what it can do.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

EXAMPLES = Path(__file__).with_name("examples")
LEARNING = Path(__file__).with_name("learning")


def examples() -> list[str]:
    """Names of the composed pictures that ship with the package; each name is the picture's caption."""
    return sorted(path.stem.replace("_", " ") for path in EXAMPLES.glob("*.png"))


def example(name: str) -> Image:
    """A composed picture of the world the pocket model learned from: 128x128 RGB.

    Raises:
        ValueError: there is no picture of that name; the message lists those there are.
    """
    from PIL import Image

    path = EXAMPLES / f"{name.replace(' ', '_')}.png"
    if name not in examples():
        raise ValueError(f"there is no example called {name!r}; there are: {', '.join(examples())}")
    return Image.open(path).convert("RGB")


def learning(name: str = "pocket-turbo") -> Image:
    """What a model drew on its way: a row for a moment of its training, the earliest first, of the same eight prompts
    from the same seeds (`factory.export.LEARN`), at 64 pixels each: RGB. The model card says after how many steps.

    Raises:
        ValueError: nothing was kept of a model of that name; the message lists those there are.
    """
    from PIL import Image

    kept = sorted(path.stem for path in LEARNING.glob("*.png"))
    if name not in kept:
        raise ValueError(f"of {name!r} nothing was kept while it learned; there are: {', '.join(kept)}")
    return Image.open(LEARNING / f"{name}.png").convert("RGB")
