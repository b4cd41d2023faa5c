"""Fresh noise: how much of the noise of each next level is drawn anew, for samplers that can be asked.

One meaning for all of them: of the noise at the level that a step goes to, a part is kept and a part is drawn, ::

    x' = a' x0 + sqrt(b'^2 - c^2) noise + c fresh,    c = f b' sqrt(1 - (a b')^2 / (a' b)^2)

so that f = 0 is the sampler with nothing random on its way (DDIM, Euler) and f = 1 its ancestral form, as much as in
DDPM (Song et al. 2021, arXiv 2010.02502, equations 12 and 16, where f is eta; Euler a is the same with a = 1). Above 1
there is more, until at c = b' all of it is fresh. Euler, with f = 1, is Euler a.

diffusers has a word for it in DDIM (``eta``, taken as it is) and in TCD, where 1 draws all of it. Its other word,
``s_churn``, is not used: it adds noise in front of a step whose network was asked without it, so that the level is
missed, and ``FlowMatchEulerDiscreteScheduler.step`` passes it over.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from typing import Any

import torch

from diffexplore.record.predictions import noise_of, x0_of
from diffexplore.runs.levels import Levels
from diffexplore.runs.probes import Probe, going_on, tapped
from diffexplore.samplers.classes import facts_of

__all__ = ["Fresh", "adds", "dry"]


def dry(scheduler: Any, share: float = 1.0) -> str:
    """Why a scheduler cannot be asked for a share of fresh noise, in a few words that go on from its name; "" if it
    can.
    """
    row = facts_of(scheduler)
    if row is None:
        return "steps in a way that is not known here"
    if scheduler.config.get("stochastic_sampling"):
        return "draws all of its noise afresh"
    if row.fresh == "step" and row.levels == "timestep" and scheduler.config.get("variance_type") not in _SMALL:
        return "learns or widens its own share of it"
    if row.fresh == "eta" and share > 1:
        return "takes a share from 0 to 1"
    if not row.fresh and row.noise(scheduler.config) and not row.draws_noise:
        return "solves for its own share of it"
    return "" if row.fresh else row.dry


_SMALL = (None, "fixed_small")


def adds(scheduler: Any) -> float | None:
    """The share of fresh noise that a scheduler adds if nobody asks; None for one that cannot be asked."""
    row = facts_of(scheduler)
    return None if row is None or dry(scheduler) else row.adds


class Fresh(Probe):
    """Lets a sampler add another share of fresh noise than its own. To be attached before all that reads its steps."""

    changes = leads = True

    def __init__(self, share: float, scheduler: str = "scheduler") -> None:
        """The share, and the name of the scheduler in the pipeline."""
        self._share = share
        self._name = scheduler
        self._undo = ExitStack()

    def key(self) -> Hashable:
        """Nothing: the share is in the settings."""
        return "fresh_noise"

    def attach(self, pipeline: Any) -> None:
        self._scheduler = scheduler = getattr(pipeline, self._name)
        row = facts_of(scheduler)
        if row is None or row.adds == self._share:
            return  # as it is, to the bit
        self._levels: Levels | None = None
        self._inputs = inspect.signature(scheduler.step)
        self._draws = bool(row.draws_noise)
        step = self._asked if row.fresh == "eta" else self._step
        self._undo.enter_context(tapped(scheduler, "set_timesteps", self._set_timesteps, copies=False))
        self._undo.enter_context(tapped(scheduler, "step", step, copies=False))

    def detach(self) -> None:
        self._undo.close()

    def _set_timesteps(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        self._levels, self._count = None, 0  # read at the first step, when all have done what they do to them
        return result

    def _asked(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        given = self._inputs.bind(*args, **kwargs)
        given.arguments["eta"] = self._share
        return inner(*given.args, **given.kwargs)

    @torch.no_grad()
    def _step(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        from diffusers.utils.torch_utils import randn_tensor

        if self._levels is None:
            self._levels = Levels(self._scheduler)
        given = self._inputs.bind(*args, **kwargs).arguments
        x, time = given["sample"], given.get("timestep")
        output = given["model_output"][:, : x.shape[1]]
        a, b, _ = self._levels.at(self._count, time)
        onto, level = self._levels.after(self._count, time)
        self._count += 1
        ratio = a * level / (onto * b)
        part = min(1.0, self._share * math.sqrt(max(0.0, 1 - ratio * ratio))) * level
        clean = x0_of(self._levels.kind, x.float(), output.float(), a, b)
        kept = noise_of(self._levels.kind, x.float(), output.float(), a, b)
        made = onto * clean + math.sqrt(max(0.0, level * level - part * part)) * kept
        generator = given.get("generator")
        if self._share:
            made = made + part * randn_tensor(x.shape, generator=generator, device=x.device, dtype=output.dtype)
        if self._draws:  # what it draws itself comes from elsewhere, so that this run's is that of the sampler as it is
            kwargs["generator"] = torch.Generator("cpu").manual_seed(0)
        return going_on(inner(*args, **kwargs), lambda latents: made.to(latents))
