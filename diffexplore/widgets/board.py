"""`Board`: the controls of a `Compare`. What all columns share, as chips that open their control in place; then each
column with its label and what is its own, in line with the columns of the pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import ipywidgets

from diffexplore.widgets.controls import Scales, chip, close_all, control, layout, marked, on_enter, titled
from diffexplore.widgets.near import NOISE

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["SHARED", "Board"]

SHARED: Final = -1
"""In the place of a column's number: what all have in common."""


class Board:
    """Controls for the settings of several columns.

    Args:
        model: Whose settings they are.
        names: The settings that have a control.
        taken: Hears (column or `SHARED`, name, value) when a control says something.
        renamed: Hears (column, label) when a label is written.
        entered: Hears of Enter in a text.

    Attributes:
        text: Holds the field of the prompt that all share, where they do.
        chips: Holds the other settings that all share.
        columns: Holds each column's own.
    """

    def __init__(
        self,
        model: Model,
        names: Sequence[str],
        taken: Callable[[int, str, Any], object],
        renamed: Callable[[int, str], object],
        entered: Callable[[], object],
    ) -> None:
        """Empty, until something is shown; the class says what the arguments are."""
        self._model, self._names, self._taken, self._renamed, self._entered = model, names, taken, renamed, entered
        self._controls: dict[tuple[int, str], Any] = {}
        self._faces: dict[tuple[int, str], Any] = {}  # of the chips, by column and setting
        self._titles: list[Any] = []
        # All that were ever made, by column, setting and what is in it. What a hand has just left may still have
        # something to say when it is no longer in sight, which a closed widget answers with an error in the page.
        self._made: dict[tuple[Any, ...], Any] = {}
        self._laid: tuple[Any, ...] = ()
        self.text, self.chips, self.columns = (
            marked(ipywidgets.HBox(layout=layout()), name) for name in ("shared-text", "chips", "columns")
        )

    def show(
        self, columns: Mapping[str, Mapping[str, Any]], varied: Sequence[str], value: Callable[[int, str], Any]
    ) -> None:
        """Let the controls say what columns have. They are made anew only where there are to be others: one of them may
        be in somebody's hand.

        Args:
            columns: Label -> what a column has of its own.
            varied: The settings that each column has a control for.
            value: Gives the value of (column or `SHARED`, name).
        """
        if (laid := (len(columns), *varied)) != self._laid:
            self._lay_out(len(columns), varied, value)
            self._laid = laid
        for (k, name), one in self._controls.items():
            one.show(value(k, name))
        for (k, name), face in self._faces.items():
            said = "noise" if name == "noise" else _brief(name, value(k, name))
            face.description = said + (_noise(k, value) if name in ("seed", "noise") else "")
        for title, label in zip(self._titles, columns, strict=True):
            title.value = label

    def _lay_out(self, count: int, varied: Sequence[str], value: Callable[[int, str], Any]) -> None:
        gone = [one for box in (self.text, self.chips, self.columns) for one in box.children]
        self._titles = [self._title(k) for k in range(count)]
        self._controls, self._faces = {}, {}
        shared = {name: self._control(SHARED, name, value) for name in self._names if name not in varied}
        self.text.children = [one for name, one in shared.items() if name == "prompt"]
        inside = {name: [one] for name, one in shared.items() if name not in ("prompt", *NOISE)}
        if noise := [shared[name] for name in NOISE if name in shared]:
            inside.setdefault("seed" if "seed" in inside else "noise", []).extend(noise)
        chips = []
        for name, controls in inside.items():
            chips.append(chip("", f"{name.replace('_', ' ')}, shared by all", *controls))
            self._faces[SHARED, name] = chips[-1].children[0]
        self.chips.children = chips
        self.columns.layout.grid_template_columns = f"repeat({count}, minmax(0, 1fr))"
        self.columns.children = [self._column(k, title, varied, value) for k, title in enumerate(self._titles)]
        for one in gone:
            self._close_around(one)

    def close(self) -> None:
        """Close what is not in sight too."""
        for one in self._made.values():
            close_all(one)
        self._made.clear()

    def _close_around(self, box: Any) -> None:
        """Close a box with what is in it, but for the controls."""
        if any(box is one for one in self._made.values()):
            return
        if isinstance(box, ipywidgets.Box):
            inside, box.children = box.children, ()
            for part in inside:
                self._close_around(part)
        close_all(box)

    def _column(self, k: int, title: Any, varied: Sequence[str], value: Callable[[int, str], Any]) -> Any:
        own = [self._control(k, name, value) for name in varied]
        parts = sum(len(one.children) if isinstance(one, Scales) else 1 for one in own)
        if parts > 1:  # a row has room for one
            own = [chip(f"{parts} settings", f"what column {k + 1} has of its own", *own)]
        elif parts and varied[0] in NOISE:
            own = [chip("", f"the starting noise of column {k + 1}", *own)]
            self._faces[k, varied[0]] = own[0].children[0]
        return marked(ipywidgets.HBox([title, *own], layout=layout()), "column", f"of-{k}")

    def _title(self, k: int) -> Any:
        if ("title", k) not in self._made:
            self._made["title", k] = self._new_title(k)
        return self._made["title", k]

    def _new_title(self, k: int) -> Any:
        title = ipywidgets.Text(continuous_update=False, layout=layout(), **titled(f"column {k + 1}"))
        title.observe(lambda change: k < len(self._titles) and self._renamed(k, change["new"]), names="value")
        return marked(title, "title")

    def _control(self, k: int, name: str, value: Callable[[int, str], Any]) -> Any:
        key = (k, name, *(self._model.adapters if name == "adapters" else ()))
        one = self._made.get(key)
        if one is None:
            one = self._made[key] = self._new_control(k, name)
        one.show(value(k, name))
        self._controls[k, name] = one
        return one

    def _new_control(self, k: int, name: str) -> Any:
        one = NOISE[name]() if name in NOISE else control(name, self._model)
        # What is no longer in sight says nothing of what is compared now.
        one.observe(
            lambda change: self._controls.get((k, name)) is one and self._taken(k, name, change["new"]), names="value"
        )
        if isinstance(one, ipywidgets.Text):
            on_enter(one, self._entered)
        return one


def _brief(name: str, value: Any) -> str:
    """A setting on its chip."""
    if name in ("sampler", "guider"):  # known by their names
        return str(value)
    if name == "negative_prompt":
        return f"without {' '.join(value.split())[:40]}" if value else "no negative"
    if name == "variation":
        return f"{value[1]:.3g} to {value[0]}" if value else "as the seed"
    if name == "watermark":
        return "marked" if value else "no mark"
    if name == "adapters":
        return ", ".join(f"{one} {scale:g}" for one, scale in value.items() if scale) or "no LoRA"
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"


def _noise(k: int, value: Callable[[int, str], Any]) -> str:
    """What is done to the noise of a seed, behind it; "" for nothing."""
    return "".join(f", {_brief(name, value(k, name))}" for name in NOISE if value(k, name))
