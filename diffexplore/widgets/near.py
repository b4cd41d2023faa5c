"""Controls of the noise that a run starts from, beside the seed that draws it: `Near`, how far it is turned towards
another seed's, for a picture near this one; `Mark`, the key of a hidden mark in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import ipywidgets
import traitlets

from diffexplore.widgets.controls import Number, Seed, icon_chip, layout, marked, titled

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["NOISE", "Mark", "Near", "beside", "noise_for"]

_OTHER: Final = 1000  # the seed to go towards, until there is one
_LABEL: Final = {"description_width": "initial"}


def noise_for(model: Model) -> tuple[str, ...]:
    """The settings that have such a control; none where nobody knows how a model draws its noise."""
    return () if model.family == "any" else tuple(NOISE)


def beside(seed: Any, near: Near, mark: Mark) -> Any:
    """The control of a seed with a small button that opens both, lit while one of them is on."""
    chip = marked(icon_chip("bullseye", "", near, mark), "near")
    face = chip.children[0]

    def say(_: Any = None) -> None:
        (face.add_class if near.said or mark.value else face.remove_class)("dx-on")
        said = f"near this seed: {near.said or 'a picture a little like it'}"
        face.tooltip = f"{said}; {'with' if mark.value else 'or'} a hidden mark"

    for one in (near, mark):
        one.observe(say, names="value")
    say()
    return marked(ipywidgets.HBox([seed, chip], layout=layout()), "beside")


def _told(text: str) -> Any:
    return marked(ipywidgets.Label(text, layout=layout()), "near-told")


class Near(ipywidgets.VBox):  # type: ignore[misc]
    """A `Number` for how far, and a `Seed` to go towards; it is off at 0, and keeps the seed."""

    value = traitlets.Any(None, help="As ``Settings.variation`` takes it, and what was typed where that is nothing.")

    def __init__(self) -> None:
        """Off."""
        self._amount = Number("how far", 0.0, 1.0, 0.05)
        self._seed = Seed("towards seed", "another seed to go towards")
        self._seed.show(_OTHER)
        told = _told("A picture near this one: its starting noise, turned towards another seed's. 0 is off.")
        super().__init__([self._amount, self._seed, told], layout=layout())
        marked(self, "turn")
        for one in (self._amount, self._seed):
            one.observe(lambda _: self._moved(), names="value")

    @property
    def said(self) -> str:
        """What it does, in words; "" for nothing."""
        amount = self.value[1] if self.value else ""
        return "" if isinstance(amount, str) else f"{amount:.3g} of the way to seed {self.value[0]}"

    def show(self, value: Sequence[Any] | None) -> None:
        """Say `value`, as ``Settings.variation`` keeps it."""
        self.value = None if value is None else tuple(value)
        if value is not None:
            self._seed.show(value[0])
        self._amount.show(0.0 if value is None else value[1])

    def _moved(self) -> None:
        amount = self._amount.value
        self.value = (self._seed.value, amount) if amount != 0 else None


class Mark(ipywidgets.VBox):  # type: ignore[misc]
    """A field for a key; empty for no mark."""

    value = traitlets.Unicode(None, allow_none=True, help="As ``Settings.watermark`` takes it.")

    def __init__(self) -> None:
        """Empty."""
        self._field = ipywidgets.Text(
            description="hidden mark", placeholder="a key; empty for none", continuous_update=False, style=_LABEL,
            layout=layout(), **titled("hidden mark: its key"),
        )  # fmt: skip
        told = _told("A key chooses the noise; detect() with that key finds the picture again. Recipes tell the key.")
        super().__init__([self._field, told], layout=layout())
        marked(self, "turn")
        self._field.observe(lambda change: self.set_trait("value", change["new"] or None), names="value")

    def show(self, value: str | None) -> None:
        """Say `value`."""
        self.value = value
        self._field.value = value or ""


NOISE: Final[dict[str, Callable[[], Any]]] = {"variation": Near, "watermark": Mark}
"""What makes the control of a setting."""
