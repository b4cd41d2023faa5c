"""Pipeline families by name and by class: which one a pipeline belongs to.

What a family is stands in ``base``; those of diffusion in ``stable``, those of flow matching in ``flow``.
"""

from __future__ import annotations

from diffexplore.pipelines.base import Family
from diffexplore.pipelines.flow import SD3, Flux, QwenImage, Sana, ZImage
from diffexplore.pipelines.stable import LCM, SDXL, Kandinsky3, PixArtAlpha, PixArtSigma
from diffexplore.words import shown

__all__ = ["FAMILIES", "Family", "family_of", "known_pipelines"]

_ALL: tuple[Family, ...] = (
    Family(), SDXL(), SD3(), Flux(), Kandinsky3(), LCM(), PixArtAlpha(), PixArtSigma(), Sana(), ZImage(), QwenImage(),
)  # fmt: skip

FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
"""All families by name; of those that share one, the newest."""


def known_pipelines() -> list[str]:
    """Names of the diffusers classes that can be opened."""
    return [name for family in _ALL for name in family.pipelines]


def family_of(pipeline: type) -> Family:
    """The family of a pipeline's class.

    Raises:
        ValueError: one sentence, for a class that belongs to none.
    """
    for cls in pipeline.__mro__:
        for family in _ALL:
            if cls.__name__ in family.pipelines:
                return family
    raise ValueError(f"a pipeline must be one of {', '.join(known_pipelines())}, got {shown(pipeline.__name__)}")
