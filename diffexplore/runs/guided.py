"""The guiders of a run: what of them a model cannot do, and the pictures of a call, each mixed by its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from diffexplore.mixing import CFG, GUIDERS
from diffexplore.pipelines.family import Family, Looked
from diffexplore.record import guiders, predictions
from diffexplore.record.step import Step
from diffexplore.settings import Settings
from diffexplore.words import shown

__all__ = ["Guiding", "ability", "offered", "refused"]


def _without(family: Family, pipeline: Any) -> str:
    """Why a pipeline's predictions cannot be mixed otherwise, one sentence without a full stop; "" where they can, as
    far as is known.
    """
    title = type(pipeline).__name__
    if family.embedded(pipeline):
        return f"the network of this {title} makes one prediction at each step, so there is nothing to mix"
    if isinstance(family, Looked) and not family.ours and not family.guider:
        return f"the call of {title} has no word for guidance that is known here, so there is nothing to mix"
    return ""


def ability(family: Family, pipeline: Any) -> bool | str:
    """Whether a pipeline's predictions can be mixed otherwise: True, or one sentence why not."""
    reason = _without(family, pipeline)
    return f"{reason[0].upper()}{reason[1:]}." if reason else True


def offered(family: Family, pipeline: Any) -> list[str]:
    """The guiders that are right for a pipeline, in menu order."""
    return [CFG] if _without(family, pipeline) else list(GUIDERS)


def refused(family: Family, pipeline: Any, settings: Settings, extra: Mapping[str, Any]) -> str:
    """Why a pipeline cannot mix as settings ask it to, one sentence; "" where it can.

    Args:
        family: of the pipeline.
        pipeline: the pipeline.
        settings: what is asked for.
        extra: arguments of the pipeline beyond them.
    """
    stages = [stage for _, stage in settings.stages()]
    asked = [stage.guider for stage in stages if stage.guider != CFG]
    if not asked:
        return ""
    lacking = _without(family, pipeline)
    if lacking:
        return f"guider {shown(asked[0])} cannot be used here: {lacking}"
    guided = [stage for stage in stages if _guided(family, pipeline, stage)]
    if not any(stage.guider != CFG for stage in guided):
        return (
            f"guider {shown(asked[0])} needs a guidance above {family.unguided:g}, here it is "
            f"{stages[0].guidance:g}: below, there is one prediction at each step, and nothing to mix"
        )
    own = next((name for name in extra if "guidance" in name or "cfg" in name), None)
    if own:
        return f"guider {shown(asked[0])} cannot be used with {own}, which mixes the predictions in its own way"
    return ""


def _guided(family: Family, pipeline: Any, settings: Settings) -> bool:
    """Whether there are two predictions; a modular pipeline takes guidance by its own object."""
    by_object = isinstance(family, Looked) and family.guider and settings.guidance > 1
    return by_object or family.guided(pipeline, settings)


class Guiding:
    """The guider of each picture of a call, over its evaluations."""

    def __init__(self, asked: Sequence[str | None]) -> None:
        """At the beginning of a run.

        Args:
            asked: how each picture is mixed, as `Settings` say it; None: its guidance is off.
        """
        self._asked: list[str | None] = [CFG] * len(asked)
        self._mixers = [guiders.mixer(CFG) for _ in asked]
        self.ask(asked)

    def ask(self, asked: Sequence[str | None]) -> None:
        """What is asked for from now on. A guider that goes on remembers, also over steps without guidance."""
        for k, guider in enumerate(asked):
            if guider is not None and guider != self._asked[k]:
                self._asked[k], self._mixers[k] = guider, guiders.mixer(guider)
        self._off = [guider is None for guider in asked]

    def of(self, k: int) -> str:
        """How picture `k` is mixed now, as far as it is guided: CFG is the pipeline's own way."""
        asked = self._asked[k]
        return CFG if asked is None or self._off[k] else asked

    @property
    def any(self) -> bool:
        """Whether some picture is not mixed as the pipeline does."""
        return any(self.of(k) != CFG for k in range(len(self._asked)))

    def see(self, k: int, step: Step, laid: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Take notice of an evaluation of picture `k` that is replayed; `laid` lays its tensors out as `mix` gets them,
        and where.
        """
        found = guiders.halved(step)
        if found is not None:
            cond, uncond, at = found
            self._mixers[k].see(laid(cond), laid(uncond), at._replace(latents=laid(at.latents)))

    def mix(
        self, k: int, halves: predictions.Split, guidance: float, at: guiders.At, dtype: torch.dtype
    ) -> torch.Tensor:
        """The next prediction of picture `k`.

        Args:
            k: which picture.
            halves: both predictions.
            guidance: how much.
            at: where the run is, with the latents of that picture, laid out as the halves.
            dtype: of the prediction.
        """
        assert halves.cond is not None
        assert halves.uncond is not None
        at = at._replace(latents=at.latents.float())
        return self._mixers[k].mix(halves.cond.float(), halves.uncond.float(), guidance, at).to(dtype)
