"""`Near`: a picture near that of the seed: another seed, and how far the starting noise is turned towards its noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import ipywidgets
import traitlets

from diffexplore.widgets.controls import Number, Seed, icon_chip, layout, marked

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["Near", "turns"]

_OTHER: Final = 1000  # the seed to go towards, until there is one
_TOLD: Final = "The noise that a run starts from, turned a part of the way towards that of another seed: 0 is off."
_FACE: Final = "near this seed: a picture a little like it"


def turns(model: Model) -> bool:
    """Whether it is known how a model draws its noise, which can then be turned."""
    return model.family != "any"


class Near(ipywidgets.VBox):  # type: ignore[misc]
    """A `Number` for how far, and a `Seed` to go towards; it is off at 0, and keeps the seed."""

    value = traitlets.Any(None, help="As ``Settings.variation`` takes it, and what was typed where that is nothing.")

    def __init__(self) -> None:
        """Off."""
        self._amount = Number("how far", 0.0, 1.0, 0.05)
        self._seed = Seed("towards seed", "another seed to go towards")
        self._seed.show(_OTHER)
        self._face: Any = None
        told = marked(ipywidgets.Label(_TOLD, layout=layout()), "near-told")
        super().__init__([self._amount, self._seed, told], layout=layout())
        marked(self, "turn")
        for one in (self._amount, self._seed):
            one.observe(lambda _: self._moved(), names="value")

    def chip(self) -> Any:
        """A small button that opens it, and is lit while it is on."""
        made = marked(icon_chip("bullseye", _FACE, self), "near")
        self._face = made.children[0]
        self._say()
        return made

    def show(self, value: Sequence[Any] | None) -> None:
        """Say `value`, as ``Settings.variation`` keeps it."""
        self.value = None if value is None else tuple(value)
        if value is not None:
            self._seed.show(value[0])
        self._amount.show(0.0 if value is None else value[1])
        self._say()

    def _moved(self) -> None:
        amount = self._amount.value
        now = (self._seed.value, amount) if amount != 0 else None
        if now != self.value:
            self.value = now
            self._say()

    def _say(self) -> None:
        if self._face is None:
            return
        on = isinstance(self.value, tuple) and not isinstance(self.value[1], str)
        said = f"near this seed: {self.value[1]:.3g} of the way to seed {self.value[0]}" if on else _FACE
        (self._face.add_class if on else self._face.remove_class)("dx-on")
        self._face.tooltip = said
