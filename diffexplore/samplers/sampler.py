"""One entry of the menu: what it is, what it costs, and how many steps it takes."""

import importlib.util
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffexplore.samplers.classes import facts_of
from diffexplore.samplers.nets import DIFFUSION, SPACINGS, blind, cosine, sigmas_of, zero_snr

__all__ = ["Sampler"]

_FARTHEST = 2000.0  # its square times single precision's 6e-8 is a quarter: what is left is still a number


@dataclass(frozen=True)
class Sampler:
    """One line of the menu.

    Attributes:
        name: what the menu, ``Settings.sampler`` and papers call it.
        cls: diffusers class name.
        config: what is set on top of the model's own facts.
        sentence: one sentence for learners.
        per_step: model evaluations per step ...
        extra: ... and how many more in all; see :meth:`evaluations`.
        families: pipeline families for which it is mathematically right.
        predictions: prediction types that the class can read.
        zero_snr: whether the class can rescale the betas to zero terminal SNR, for nets trained that way.
        needs: modules beyond diffusers that it imports.
        net: the kind of net it samples from, a key of :data:`MODEL_FACTS`.
        few: fewest steps its class can take.
    """

    name: str
    cls: str
    config: Mapping[str, Any]
    sentence: str
    per_step: int = 1
    extra: int = 0
    families: frozenset[str] = DIFFUSION
    predictions: frozenset[str] = frozenset({"epsilon", "v_prediction", "sample"})
    zero_snr: bool = False
    needs: tuple[str, ...] = field(default=())
    net: str = "diffusion"
    few: int = 1

    def evaluations(self, steps: int) -> int:
        """How often the model is evaluated for so many steps (both halves of guidance are one evaluation)."""
        # A single step leaves no room for a second stage or a warm-up.
        return 1 if steps == 1 else self.per_step * steps + self.extra

    @property
    def missing(self) -> tuple[str, ...]:
        """Modules it needs that are not installed."""
        return tuple(name for name in self.needs if importlib.util.find_spec(name) is None)

    def least(self, base_config: Mapping[str, Any]) -> int:
        """Fewest steps with which it is right for a model; `base_config` is what its pipeline's scheduler came with."""
        if self.spacing(base_config) == "trailing":
            return 1  # the others put the only step of one at timestep 0, where there is no noise left to remove
        # Stretching a schedule so that it ends at a given level divides by what its last level lacks to 1; the
        # last level of a single step is 1.
        stretched = self.net == "flow" and bool(base_config.get("shift_terminal"))
        return max(self.few, 2 if stretched else 1)

    def most(self, base_config: Mapping[str, Any]) -> int:
        """Most steps with which it is right for a model, whose scheduler came with `base_config`; with more, diffusers
        runs off its tables or divides by zero in the middle of a run.
        """
        train = int(base_config.get("num_train_timesteps", 1000))
        if self.net in ("lcm", "tcd"):
            return int(base_config.get("original_inference_steps") or 50)
        spacing = self.spacing(base_config)
        if spacing == "leading":
            return train - int(base_config.get("steps_offset") or 0)
        facts = facts_of(self.cls)
        if (
            facts is not None
            and facts.levels == "preserving"
            and self.net == "diffusion"
            and not self.respaced
            and spacing != "trailing"
        ):
            # These leave out timestep 0, so the last of `train` steps would stand still: two equal noise levels,
            # and the slope between them is 0 / 0. A clipped cosine schedule has a few less.
            return train * 99 // 100 if cosine(base_config) else train - 1
        return train

    def refusal(self, steps: int, base_config: Mapping[str, Any]) -> str:
        """Why it cannot take so many `steps` with a model, whose scheduler came with `base_config`.

        Returns:
            One sentence without a full stop; "" if it can.
        """
        for bound, number, wrong in (
            ("at least", self.least(base_config), steps < self.least(base_config)),
            ("at most", self.most(base_config), steps > self.most(base_config)),
        ):
            if wrong:
                return f"{self.name} takes {bound} {number} steps with this model, got {steps}"
        wrong_jump = self._too_far(steps, base_config) or self._ends_blind(steps, base_config)
        if wrong_jump:
            return wrong_jump
        if self.spacing(base_config) != "trailing" or self.respaced:
            return ""
        train = int(base_config.get("num_train_timesteps", 1000))

        def slips(count: int) -> bool:
            # diffusers counts down from `train` in float steps; where those round badly it takes one too many,
            # past timestep 0.
            return math.ceil(train / (train / count)) != count

        if not slips(steps):
            return ""
        nearest = next(n for n in range(steps - 1, 0, -1) if not slips(n))
        return f"{self.name} cannot part {train} timesteps into {steps} steps without a rounding slip; {nearest} works"

    def _too_far(self, steps: int, base_config: Mapping[str, Any]) -> str:
        """Why an ancestral sampler cannot take so many steps. It steps down to s' = s2 sqrt(s2^2 / s1^2), computed as a
        difference of squares; from a level s1 thousands of times as high as the next, s2, that is smaller than
        single precision rounds, and the root of what is left may be that of a negative number.
        """
        facts = facts_of(self.cls)
        if self.net != "diffusion" or facts is None or not facts.ancestral:
            return ""
        table = sigmas_of(base_config)
        if self._jump(steps, table, base_config) <= _FARTHEST:
            return ""
        enough = next((n for n in range(steps + 1, 200) if self._jump(n, table, base_config) <= _FARTHEST), None)
        return f"{self.name} cannot jump as far between noise levels as {steps} steps with this model ask it to" + (
            f"; {enough} work" if enough else ""
        )

    def _jump(self, steps: int, table: Sequence[float], base_config: Mapping[str, Any]) -> float:
        """The largest ratio of a noise level to the next."""
        if not table or steps < 2:
            return 1.0
        last = len(table) - 1
        if self.respaced:  # between the same ends, spaced evenly in sigma^(1/7)
            low, high = table[0] ** (1 / 7), table[last] ** (1 / 7)
            found = [(high + (low - high) * i / (steps - 1)) ** 7 for i in range(steps)]
        elif self.spacing(base_config) == "trailing":
            found = [table[round((last + 1) * (1 - i / steps)) - 1] for i in range(steps)]
        else:
            found = [table[round(last * (1 - i / (steps - 1)))] for i in range(steps)]
        return max(one / after for one, after in itertools.pairwise(found))

    def _ends_blind(self, steps: int, base_config: Mapping[str, Any]) -> str:
        """Why "leading" spacing cannot keep clear of a last timestep at which the net says nothing."""
        if not blind(base_config) or self.spacing(base_config) != "leading":
            return ""
        train = int(base_config.get("num_train_timesteps", 1000))
        offset = int(base_config.get("steps_offset") or 0)

        def reaches(count: int) -> bool:
            return (count - 1) * (train // count) + offset >= train - 1

        if not reaches(steps):
            return ""
        nearest = next((n for n in range(steps - 1, 1, -1) if not reaches(n)), None)
        why = f"{self.name} cannot start from pure noise with this model, as {steps} steps ask it to"
        return why + (f"; {nearest} work" if nearest else "")

    @property
    def respaced(self) -> bool:
        """Whether the noise levels are spaced anew (Karras, exponential, beta), whatever the timesteps were."""
        return any(self.config.get(key) for key in SPACINGS)

    def spacing(self, base_config: Mapping[str, Any]) -> str:
        """How its class shall part the timesteps of a model, whose scheduler came with `base_config`."""
        spacing = str(self.config.get("timestep_spacing", ""))
        # A net trained down to pure noise must start there; "leading" never visits the last timestep (Lin et al.
        # 2023, 2305.08891).
        # But there a net that predicts noise has nothing to say.
        from_noise = self.zero_snr and zero_snr(base_config) and not blind(base_config)
        return "trailing" if spacing and from_noise else spacing
