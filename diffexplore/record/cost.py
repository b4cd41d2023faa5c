"""What a run cost, as data: kept in ``info["cost"]`` of its record, and with that in its file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from diffexplore.values import as_number
from diffexplore.words import shown

__all__ = ["Cost"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run cost. Of pictures that were drawn together each has its share of the seconds and of the energy.

    Attributes:
        evaluations: how often the network was asked, both halves of guidance as one; not what the memory answered.
        rows: how much it was asked: a row for each half of guidance.
        seconds: from its turn to the picture.
        steps: of these, those of the denoising steps;
        decode: those of the decoder, for the final picture alone (0 where the pipeline's own call decodes, and nobody
            can tell);
        text: the others: reading the prompt, setting up.
        remembered: evaluations that the memory of results answered.
        memory: bytes that were allocated on the card at most beyond what was there before; None on the CPU, where
            nobody can say.
        energy: joules that a meter counted meanwhile, everything else on that device included; None without a meter.
        meter: which meter that was, "" for none.
        preview: seconds that were spent on pictures of its steps, apart from all the above; None where none were made.
    """

    evaluations: int
    rows: int
    seconds: float
    steps: float
    decode: float
    text: float
    remembered: int = 0
    memory: int | None = None
    energy: float | None = None
    meter: str = ""
    preview: float | None = None

    def energy_said(self, watts: float | None = None) -> str:
        """The energy of the run in a sentence, which says whether it was counted or estimated.

        Args:
            watts: what the device is taken to draw all the while, for an estimate where no meter counted; None: then
                nothing is said of how much it was.

        Raises:
            ValueError: one sentence, for watts that are no number above 0.
        """
        taken = None if watts is None else as_number(watts)
        if watts is not None and (taken is None or not 0 < taken < math.inf):
            raise ValueError(f"watts must be a number above 0, got {shown(watts)}")
        if self.energy is not None:
            return f"{self.energy:.3g} J, counted by {self.meter or 'a meter'}, all else on that device included"
        if taken is None:
            return "no meter counted it"
        return f"about {self.seconds * taken:.2g} J if it drew {taken:g} W all the while: assumed, no meter counted it"

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, told: Any) -> Cost | None:
        """What :meth:`told` told; None for anything else, such as what an older file or a stranger's says."""
        if not isinstance(told, Mapping):
            return None
        known = {name: told[name] for name in (one.name for one in fields(cls)) if name in told}
        try:
            made = cls(**known)
        except TypeError:
            return None
        plain = all(
            isinstance(value, str) if name == "meter" else isinstance(value, int | float | None)
            for name, value in made.told().items()
        )
        return made if plain else None
