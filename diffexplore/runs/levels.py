"""The noise level of x_t at each call of a scheduler's ``step``, read from the scheduler's own tables."""

import math
from typing import Any

import torch

from diffexplore.record import predictions
from diffexplore.samplers import facts_of

__all__ = ["Levels"]


class Levels:
    """The (a, b) of ``x_t = a * x0 + b * noise`` for each call of a scheduler's ``step``; made after
    ``set_timesteps``.

    All tables are taken to Python floats once: asking a tensor on a GPU for one number would make the queue
    wait. Where in the tables a call is, is read from the scheduler, or from the timestep that ``step`` is given: calls
    are not counted where that can be helped, since pipelines that start from a picture leave out the first of them.

    Attributes:
        schedule: what the network is told at each call, in the scheduler's own unit: a timestep, or for EDM
            ``log(sigma) / 4``.
        kind: prediction type of the network's output, one of ``predictions.KINDS``.

    Raises:
        ValueError: for a scheduler whose levels are not known.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._name = name = type(scheduler).__name__
        self._config = config = getattr(scheduler, "config", {})
        self.schedule = [float(t) for t in scheduler.timesteps.tolist()]
        self._middle: list[float] = []
        self._table: list[float] = []
        self._first: int | None = None  # place in the schedule of the first call
        facts = facts_of(scheduler)
        self._asked: list[tuple[float, float]] = []
        if facts is None:
            self._ask(f"the noise levels of {name} are not known")
            return
        self._levels = facts.levels
        self._middle_offset = facts.midpoint_offset
        self.kind = str(config.get("prediction_type", "epsilon"))
        if facts.velocity:
            self.kind = "flow_prediction"  # these classes read nothing else, and have no word for it
        if facts.levels == "circle":
            self.kind = "v_prediction"
            self._table, self._middle = scheduler.alphas.tolist(), scheduler.betas.tolist()
        elif facts.levels == "timestep":
            self._table = scheduler.alphas_cumprod.tolist()
        elif facts.levels in ("exploding", "midpoint"):
            data = config.get("sigma_data", predictions.SIGMA_DATA)
            if facts.unit and data == 1:
                self.kind = "v_prediction"
            elif data != predictions.SIGMA_DATA:
                known = f"only {predictions.SIGMA_DATA} is known here"
                raise ValueError(f"the net assumes data of standard deviation {data}, {known}")
            elif facts.edm:
                self.kind = f"edm_{self.kind}"
            self._table = scheduler.sigmas.tolist()
            if facts.levels == "midpoint":
                self._middle = scheduler.sigmas_interpol.tolist()
        elif facts.levels == "angle":
            self.kind = "v_prediction"  # TrigFlow (Lu & Song 2024, arXiv 2410.11081)
        elif facts.levels != "share":
            if config.get("use_flow_sigmas"):
                self._levels = "flow"
            if config.get("invert_sigmas"):
                # Its tables tell the share of the picture, and its net the way from the noise to it.
                self._levels, self.kind = "inverted", "reversed_flow_prediction"
            self._table = scheduler.sigmas.tolist()

    def _ask(self, refusal: str) -> None:
        """Take the levels of a scheduler that nobody knows from what it adds to a picture at each timestep."""
        add = getattr(self._scheduler, "add_noise", None) or getattr(self._scheduler, "scale_noise", None)
        self.kind = str(self._config.get("prediction_type", ""))
        if not self.kind:
            self.kind = "flow_prediction" if hasattr(self._scheduler, "scale_noise") else "epsilon"
        # One of several evaluations a step keeps levels between those of its timesteps.
        if add is None or self.kind not in predictions.KINDS or getattr(self._scheduler, "order", 1) != 1:
            raise ValueError(refusal)
        self._levels = "asked"
        try:
            for t in self._scheduler.timesteps:
                one = torch.ones(1, 1, device=t.device)
                both = add(one, 0 * one, t.reshape(1)), add(0 * one, one, t.reshape(1))
                self._asked.append((float(both[0]), float(both[1])))
        except Exception as error:  # it wants to be asked otherwise
            raise ValueError(refusal) from error
        start = getattr(self._scheduler, "init_noise_sigma", None)
        if start is not None and self._asked:
            # What a run starts from must be as large as what it would add there; else x_t is kept in another form.
            a, b = self._asked[0]
            if min(abs(float(start) - one) for one in (b, math.hypot(a, b))) > 0.1 * abs(float(start)):
                raise ValueError(refusal)

    def reached(self, calls: int) -> tuple[float, float]:
        """(a, b) of what there is once so many calls of ``step`` have run: after the last, a picture."""
        return self.at(calls)[:2] if calls < len(self.schedule) else (1.0, 0.0)

    def at(self, call: int, timestep: Any = None) -> tuple[float, float, bool]:
        """(a, b, half) for the `call`-th call of ``step``, which must not have run yet; half: whether its x_t is
        only a trial within a step of several evaluations.

        Args:
            call: counted from 0, since ``set_timesteps``.
            timestep: what ``step`` is called with; None: the calls are those of the whole schedule, in order.
        """
        index = self.index(call, timestep)
        half = self._half(index, call)
        return *self._read(index, self.told(call, timestep), half), half

    def after(self, call: int, timestep: Any = None) -> tuple[float, float]:
        """(a, b) of the level that the `call`-th call of ``step`` goes to; as :meth:`at`, for schedulers of one
        evaluation a step that go on to the next level of their schedule.
        """
        if self._levels == "timestep":
            left = self.left(call, timestep)
            return (1.0, 0.0) if left == 1 else self._read(0, self.schedule[len(self.schedule) - left + 1], False)
        return self._read(self.index(call, timestep) + 1, math.nan, False)

    def index(self, call: int, timestep: Any = None) -> int:
        """Where in the scheduler's tables a call is."""
        if self._levels == "asked":
            return 0
        index = getattr(self._scheduler, "step_index", None)
        if index is None:
            index = getattr(self._scheduler, "begin_index", None)  # nothing asked the scheduler yet
        if index is None and timestep is not None and hasattr(self._scheduler, "index_for_timestep"):
            index = self._scheduler.index_for_timestep(timestep)
        return 0 if index is None else int(index)

    def told(self, call: int, timestep: Any = None) -> float:
        """What the network is told at a call."""
        if timestep is None:
            return self.schedule[min(call, len(self.schedule) - 1)]
        tensor = isinstance(timestep, torch.Tensor)
        if not tensor or timestep.device.type == "cpu":
            return float(timestep.reshape(-1)[0]) if tensor else float(timestep)
        if self._first is None:  # on a GPU ask once: each question would make its queue wait
            here = float(timestep.reshape(-1)[0])
            near = min(range(len(self.schedule)), key=lambda k: abs(self.schedule[k] - here))
            self._first = near - call
        return self.schedule[min(max(call + self._first, 0), len(self.schedule) - 1)]

    def left(self, call: int, timestep: Any = None) -> int:
        """How many calls there are from this one on, if the schedule is kept to the end."""
        here = self.told(call, timestep)
        near = min(range(len(self.schedule)), key=lambda k: abs(self.schedule[k] - here), default=0)
        return max(1, len(self.schedule) - near)

    def _half(self, index: int, call: int) -> bool:
        if self._name == "PNDMScheduler":
            # Runge-Kutta tries three points on the way to each of its four; without it, the second evaluation
            # corrects the first.
            warm_up = len(self._scheduler.prk_timesteps)
            return call % 4 > 0 if call < warm_up else call == 1 and not warm_up
        if self._name == "DPMSolverSinglestepScheduler":
            return bool(self._scheduler.order_list[index] > 1)
        return not getattr(self._scheduler, "state_in_first_order", True)

    def _read(self, index: int, told: float, half: bool) -> tuple[float, float]:
        if self._levels == "asked":
            near = min(range(len(self.schedule)), key=lambda k: abs(self.schedule[k] - told))
            return self._asked[near]
        if self._levels == "timestep":
            level = self._table[int(told)]
            return math.sqrt(level), math.sqrt(1 - level)
        if self._levels == "share":
            level = float(self._scheduler._alpha_cumprod(torch.tensor([told]), "cpu"))
            return math.sqrt(level), math.sqrt(1 - level)
        if self._levels == "circle":
            return self._table[index], self._middle[index]
        if self._levels == "angle":
            return math.cos(told), math.sin(told)
        if self._levels in ("exploding", "midpoint"):
            if half and self._middle:
                return 1.0, self._middle[index + self._middle_offset]
            if half and self._name == "DPMSolverSDEScheduler":
                return 1.0, float(self._scheduler.mid_point_sigma)  # computed as it goes; on the CPU, like its table
            return 1.0, self._table[index]
        if self._levels == "flow":
            return 1 - self._table[index], self._table[index]
        if self._levels == "inverted":
            return self._table[index], 1 - self._table[index]
        a = 1 / math.sqrt(self._table[index] ** 2 + 1)
        return a, a * self._table[index]
