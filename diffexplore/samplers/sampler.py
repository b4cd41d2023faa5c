"""One entry of the menu: what it is, what it costs, and how many steps it takes."""

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffexplore.samplers.classes import facts_of
from diffexplore.samplers.nets import DIFFUSION, SPACINGS, cosine, zero_snr

__all__ = ["Sampler"]


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

    @property
    def respaced(self) -> bool:
        """Whether the noise levels are spaced anew (Karras, exponential, beta), whatever the timesteps were."""
        return any(self.config.get(key) for key in SPACINGS)

    def spacing(self, base_config: Mapping[str, Any]) -> str:
        """How its class shall part the timesteps of a model, whose scheduler came with `base_config`."""
        spacing = str(self.config.get("timestep_spacing", ""))
        # A net trained down to pure noise must start there; "leading" never visits the last timestep (Lin et al.
        # 2023, 2305.08891).
        return "trailing" if spacing and self.zero_snr and zero_snr(base_config) else spacing
