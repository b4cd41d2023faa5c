"""Whether a picture grew from noise that a key was put into: ``Settings.watermark``, found again by inversion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from diffexplore.experiments.shared import a_model, whole
from diffexplore.looks.pictures import read_picture
from diffexplore.pocket.judge import said
from diffexplore.runs.start import first_order
from diffexplore.runs.watermark import chance, scores
from diffexplore.settings import MAX_KEY
from diffexplore.trace import Trace
from diffexplore.values import as_number, as_secret
from diffexplore.words import shown

if TYPE_CHECKING:
    import torch

    from diffexplore.looks.pictures import Picture
    from diffexplore.model import Model

__all__ = ["LEVEL", "STEPS", "Detection", "detect", "inverted", "scored"]

LEVEL: Final = 0.01
"""The share of pictures without the key in which `Detection.found` finds it."""
STEPS: Final = 20
"""Evaluations of the inversion where none are asked for."""
REFINE: Final = 1
"""How often latents are corrected before: most of what is lost between noise and picture, an encoder has lost. More
sees more in a picture as it was drawn, and less in one that was saved as JPEG.
"""


@dataclass(frozen=True)
class Detection:
    """What :func:`detect` found.

    Attributes:
        p: how often the noise of another key, chosen blindly, goes as well with this picture: a bound that holds for
            every picture and every model.
        statistic: how well the picture's noise goes with the key's, in standard deviations of other keys; the best of
            `tried` ways to lay one over the other.
        tried: how many ways that were; `p` takes account of them.
    """

    p: float
    statistic: float
    tried: int

    def at(self, level: float) -> bool:
        """Whether the key is in the picture, if one is content to find it in a share of `level` of all others.

        Raises:
            ValueError: one sentence, for a level that is no number from 0 to 1.
        """
        number = as_number(level)
        if number is None or not 0 <= number <= 1:
            raise ValueError(f"a level is a share of false alarms from 0 to 1, got {shown(level)}")
        return self.p <= number

    @property
    def found(self) -> bool:
        """Whether the key is found at 1 % false alarms."""
        return self.at(LEVEL)

    def __str__(self) -> str:
        ways = "" if self.tried == 1 else f", the best of {self.tried} places"
        if self.found:
            often = f"about one in {round(1 / self.p):,}" if self.p > 1e-15 else "none to speak of"
            return (
                f"The key is in this picture (z = {self.statistic:.1f}{ways}): of other keys {often} would go with it "
                f"as well (p = {self.p:.2g})."
            )
        return (
            f"The key was not found (z = {self.statistic:.1f}{ways}): of other keys {self.p:.0%} may go with this "
            f"picture as well (p = {self.p:.2g}). That does not show that it was never there."
        )

    def __repr__(self) -> str:
        return str(self)


def detect(
    model: Model, image: Picture | Trace, key: str, *, prompt: str | None = None, steps: int = STEPS
) -> Detection:
    """Whether a picture was drawn with ``Settings(watermark=key)``; blocking, one inversion.

    The model is run backwards from the picture, without guidance, and what it arrives at is held against the key's
    noise. Nothing beside picture, key and model is needed: no seed, no recipe.

    A p-value is of this key: who tries a hundred of them finds one at 1 %. A mark proves that somebody with the key
    drew the picture, not who; and it can be removed: by drawing the picture again from other noise
    (``model.trace(image=..., strength=0.5)``), cropping and scaling, or mirroring. `python -m diffexplore.bench.rings`
    measures what survives: of 200 pictures of the pocket model (20 steps, captions of its world) 197 are found at
    guidance 5 and 187 after JPEG 80; at guidance 3 all and 199. A picture remembers its noise where it has detail: of
    the 13 that JPEG lost, 9 stand before a plain background, as 23 of the 200 do.

    Args:
        model: that drew the picture, or is thought to have; another size or training knows nothing of its noise.
        image: a picture as ``looks.pictures.read_picture`` takes it, or a trace with one. One of another size than the
            model's is cropped around its centre and resampled, which is right for one that was made larger or smaller;
            one that was *drawn* at another size than the model's own is not found.
        key: a text of 1 to 200 characters.
        prompt: what the picture shows: who knows it sees more. None: of the pocket models' pictures what their judge
            reads there, of others nothing.
        steps: of the inversion, 2 to 1000; more than 20 find little more.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, before any work, for what is no model, picture or key, and for a model that has no
            encoder or cannot be run backwards.
    """
    key = as_secret("the key", key, MAX_KEY)
    return scored(inverted(model, image, prompt=prompt, steps=steps), key)


def inverted(model: Model, image: Picture | Trace, *, prompt: str | None = None, steps: int = STEPS) -> torch.Tensor:
    """The noise (C, *axes, h, w) that a model finds a picture to have grown from, for :func:`scored`: one inversion
    does for many keys. Arguments and errors are those of :func:`detect`.
    """
    model = a_model(model)
    steps = whole("steps", steps, 2, 1000)
    if first_order(model.samplers) is None:
        raise ValueError(
            f"the model {model.name} cannot be run backwards: no sampler that is right for it takes its steps alone"
        )
    if isinstance(image, Trace):
        if image.image is None:
            raise ValueError(f"the trace has no final picture: it has {len(image)} of {image.expected} steps")
        image = image.image
    picture = read_picture(image)
    if prompt is None:
        prompt = said(picture) if model.origin.kind == "pocket" else ""
    noise = model.invert(picture, prompt, steps, refine=REFINE).final
    assert noise is not None, "nobody could cancel it"
    return noise


def scored(noise: torch.Tensor, key: str) -> Detection:
    """What the inverted noise of a picture says of a key.

    Args:
        noise: as :func:`inverted` gives it.
        key: a text of 1 to 200 characters.

    Raises:
        ValueError: one sentence, for what is no key.
    """
    found = scores(noise, as_secret("the key", key, MAX_KEY))
    best = float(found.max())
    return Detection(chance(best, len(found)), best, len(found))
