"""What a run samples otherwise than its sampler does by itself, as settings ask for it: noise levels, fresh noise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffexplore.runs.fresh import Fresh
from diffexplore.runs.spaced import Spaced
from diffexplore.samplers.spacings import Levels, spaced
from diffexplore.settings import Settings

if TYPE_CHECKING:
    from diffexplore.runs.probes import Probe
    from diffexplore.runs.schedules import Schedules

__all__ = ["Sampled", "asked_otherwise"]


class Sampled:
    """The part of a `Model` that knows what of its sampling can be asked for otherwise."""

    _schedules: Schedules

    def levels(
        self, name: str | None = None, steps: int = 20, *, sampler: str | None = None, **parameters: float
    ) -> Levels:
        """Noise levels for ``Settings.sigmas``, the highest first, over the range that this model was trained on.

        Args:
            name: how they are spaced, of ``samplers.WAYS``: "as trained", "linear", "karras",
                "exponential", "beta" or "cosine"; None: as the sampler spaces them by itself.
            steps: how many.
            sampler: which; None: the model's own.
            **parameters: of that way to space them, such as ``rho`` of "karras".

        Raises:
            ValueError: one sentence, for a sampler that takes none, or what makes no sense.
        """
        asked = Settings(steps=steps, sampler=sampler)
        sampler = asked.sampler or self._schedules.default
        wrong = self._schedules.wrong(sampler)
        if wrong:
            raise ValueError(f"sampler {sampler!r} cannot be used here: {wrong}")
        if name is None:
            return self._schedules.levels(sampler, asked.steps)
        return spaced(name, self._schedules.range(sampler), asked.steps, **parameters)

    def fixed(self, sampler: str | None = None) -> dict[str, str]:
        """What cannot be asked for otherwise of a sampler, "sigmas" or "fresh_noise", and why, one sentence each.

        Args:
            sampler: which; None: the model's own.
        """
        name = sampler or self._schedules.default
        told = {"sigmas": self._schedules.no_sigmas(name), "fresh_noise": self._schedules.no_fresh(name)}
        return {what: f"{why[0].upper()}{why[1:]}." for what, why in told.items() if why}


def asked_otherwise(settings: Settings, scheduler: str = "scheduler") -> list[Probe]:
    """The probes that do it, for a pipeline whose scheduler has this name; they come before all that read its steps."""
    found: list[Probe] = []
    if settings.sigmas is not None:
        found.append(Spaced(settings.sigmas, scheduler))
    if settings.fresh_noise is not None:
        found.append(Fresh(settings.fresh_noise, scheduler))
    return found
