"""`Stages`: sliders for the stages of a U-Net, under a chip that opens them: how strongly each takes what comes from
below and from the side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets
import traitlets

from diffexplore.settings import Settings, as_dict
from diffexplore.widgets.controls import Number, button, chip, layout, marked

if TYPE_CHECKING:
    from diffexplore.runs.skips import Stage

__all__ = ["Stages"]


class Stages(ipywidgets.HBox):  # type: ignore[misc]
    """A chip with a `Number` for the skip and the backbone of each stage; 1 is as the network was trained.

    Args:
        stages: Those of a model, see ``Model.stages``.
    """

    value = traitlets.Dict(help="As ``Settings.skips`` takes it.")

    def __init__(self, stages: Sequence[Stage]) -> None:
        """All at 1; the class says what the arguments are."""
        self._numbers: dict[tuple[str, str], Number] = {}
        for stage in stages:
            for part in ("skip", "backbone") if stage.skip else ("backbone",):
                self._numbers[str(stage.number), part] = Number(stage.name.replace("stage", part), 0.0, 2.0, 0.05)
        back = button("as trained", "all of them at 1")
        title = "skip and backbone of each stage of the U-Net"
        chips = marked(chip("skips", title, *self._numbers.values(), back), "stages")
        self._face = chips.children[0]
        super().__init__([chips], layout=layout())
        for place, one in self._numbers.items():
            one.observe(lambda change, place=place: self._moved(place, change["new"]), names="value")
        back.on_click(lambda _: self.show({}))
        self.show({})

    def show(self, value: Mapping[str, Any] | Sequence[Any]) -> None:
        """Say `value`, as ``Settings.skips`` takes or keeps it."""
        self.value = as_dict(value) if value else {}
        for (stage, part), one in self._numbers.items():
            one.show(self.value.get(stage, {}).get(part, 1.0))
        self._say()

    def _say(self) -> None:
        changed = sum(len(strengths) for strengths in self.value.values())
        said = f"skips ({changed})" if changed else "skips"
        self._face.description = "FreeU" if "freeu" in self.value else said

    def _moved(self, place: tuple[str, str], strength: Any) -> None:
        stage, part = place
        now = {name: dict(strengths) for name, strengths in self.value.items() if name != "freeu"}
        if strength == now.get(stage, {}).get(part, 1.0):
            return
        now.setdefault(stage, {})[part] = strength
        try:
            self.value = as_dict(Settings(skips=now).skips)
        except ValueError:  # what was typed is no strength: whoever listens says so
            self.value = now
        self._say()
