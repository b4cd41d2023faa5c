"""Pipeline families by name and by class: which one a pipeline belongs to.

What a family is stands in ``base``; those of diffusion in ``stable``, those of flow matching in ``flow``; a pipeline
that belongs to none is looked at (``any``).
"""

from __future__ import annotations

from typing import Any

from diffexplore.pipelines.any import Looked
from diffexplore.pipelines.base import Family
from diffexplore.pipelines.flow import SD3, Flux, QwenImage, Sana, ZImage
from diffexplore.pipelines.stable import LCM, SDXL, Kandinsky3, PixArtAlpha, PixArtSigma

__all__ = ["FAMILIES", "Family", "Looked", "family_of", "known_pipelines"]

_ALL: tuple[Family, ...] = (
    Family(), SDXL(), SD3(), Flux(), Kandinsky3(), LCM(), PixArtAlpha(), PixArtSigma(), Sana(), ZImage(), QwenImage(),
)  # fmt: skip

FAMILIES: dict[str, Family] = {family.name: family for family in _ALL}
"""All families by name; of those that share one, the newest."""


def known_pipelines() -> list[str]:
    """Names of the diffusers classes that belong to a named family."""
    return [name for family in _ALL for name in family.pipelines]


def family_of(pipeline: Any) -> Family:
    """The family of a pipeline: that of its class, else one found by looking at it.

    Args:
        pipeline: a ready one, or a class.

    Raises:
        ValueError: one sentence, for a class that belongs to no named family, or a pipeline that does not denoise.
    """
    given = pipeline if isinstance(pipeline, type) else type(pipeline)
    for cls in given.__mro__:
        for family in _ALL:
            if cls.__name__ in family.pipelines:
                return family
    return Looked(pipeline)
