"""The noise level of x_t at each call of a scheduler's ``step``, read from the scheduler's own tables."""

import math
from typing import Any

from diffexplore.record import predictions
from diffexplore.samplers import facts_of

__all__ = ["Levels"]


class Levels:
    """The (a, b) of ``x_t = a * x0 + b * noise`` for each call of a scheduler's ``step``; made after
    ``set_timesteps``.

    All tables are taken to Python floats once: asking a tensor on a GPU for one number would make the queue
    wait.

    Attributes:
        schedule: what the network is told at each call, in the scheduler's own unit: a timestep, or for EDM
            ``log(sigma) / 4``.

    Raises:
        ValueError: for a scheduler whose levels are not known.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._name = name = type(scheduler).__name__
        config = getattr(scheduler, "config", {})
        self.schedule = [float(t) for t in scheduler.timesteps.tolist()]
        self._middle: list[float] = []
        self._table: list[float] = []
        facts = facts_of(scheduler)
        if facts is None:
            raise ValueError(f"the noise levels of {name} are not known, so its steps cannot be recorded")
        self._middle_offset = facts.midpoint_offset
        if facts.levels == "timestep":
            self._read = self._from_timestep
            self._table = scheduler.alphas_cumprod.tolist()
        elif facts.levels in ("exploding", "midpoint"):
            if config.get("sigma_data", predictions.SIGMA_DATA) != predictions.SIGMA_DATA:
                known = f"only {predictions.SIGMA_DATA} is known here"
                raise ValueError(f"the net assumes data of standard deviation {config['sigma_data']}, {known}")
            self._read = self._exploding
            self._table = scheduler.sigmas.tolist()
            if facts.levels == "midpoint":
                self._middle = scheduler.sigmas_interpol.tolist()
        else:
            if config.get("invert_sigmas"):
                raise ValueError("a net that counts its noise levels upwards (invert_sigmas) cannot be recorded")
            flow = facts.velocity or config.get("use_flow_sigmas")
            self._read = self._flow if flow else self._preserving
            self._table = scheduler.sigmas.tolist()

    def at(self, call: int) -> tuple[float, float, bool]:
        """(a, b, half) for the `call`-th call of ``step``, which must not have run yet; half: whether its x_t is
        only a trial within a step of several evaluations.
        """
        index = getattr(self._scheduler, "step_index", None)
        # None before the first call: nothing asked the scheduler yet, and `record` makes it begin at 0.
        index = 0 if index is None else index
        half = self._half(index, call)
        return *self._read(index, call, half), half

    def _half(self, index: int, call: int) -> bool:
        if self._name == "PNDMScheduler":
            # Runge-Kutta tries three points on the way to each of its four; without it, the second evaluation
            # corrects the first.
            warm_up = len(self._scheduler.prk_timesteps)
            return call % 4 > 0 if call < warm_up else call == 1 and not warm_up
        if self._name == "DPMSolverSinglestepScheduler":
            return bool(self._scheduler.order_list[index] > 1)
        return not getattr(self._scheduler, "state_in_first_order", True)

    def _from_timestep(self, index: int, call: int, half: bool) -> tuple[float, float]:
        level = self._table[int(self.schedule[call])]
        return math.sqrt(level), math.sqrt(1 - level)

    def _exploding(self, index: int, call: int, half: bool) -> tuple[float, float]:
        if half and self._middle:
            return 1.0, self._middle[index + self._middle_offset]
        if half and self._name == "DPMSolverSDEScheduler":
            return 1.0, float(self._scheduler.mid_point_sigma)  # computed as it goes; on the CPU, like its table
        return 1.0, self._table[index]

    def _preserving(self, index: int, call: int, half: bool) -> tuple[float, float]:
        a = 1 / math.sqrt(self._table[index] ** 2 + 1)
        return a, a * self._table[index]

    def _flow(self, index: int, call: int, half: bool) -> tuple[float, float]:
        return 1 - self._table[index], self._table[index]
