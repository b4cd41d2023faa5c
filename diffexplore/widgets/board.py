"""`Board`: the controls of a `Compare`. What all columns share first, then each column with its label and what is its
own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import ipywidgets

from diffexplore.widgets.controls import LABEL, close_all, control, layout

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["SHARED", "Board"]

SHARED: Final = -1
"""In the place of a column's number: what all have in common."""


class Board(ipywidgets.VBox):  # type: ignore[misc]
    """Controls for the settings of several columns.

    Args:
        model: Whose settings they are.
        names: The settings that have a control.
        taken: Hears (column or `SHARED`, name, value) when a control says something.
        renamed: Hears (column, label) when a label is written.
    """

    def __init__(
        self,
        model: Model,
        names: Sequence[str],
        taken: Callable[[int, str, Any], object],
        renamed: Callable[[int, str], object],
    ) -> None:
        """Empty, until something is shown; the class says what the arguments are."""
        self._model, self._names, self._taken, self._renamed = model, names, taken, renamed
        self._controls: dict[tuple[int, str], Any] = {}
        self._titles: list[Any] = []
        self._laid: tuple[Any, ...] = ()
        super().__init__(layout=layout(grid_gap="6px"))

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
        for title, label in zip(self._titles, columns, strict=True):
            title.value = label

    def _lay_out(self, count: int, varied: Sequence[str], value: Callable[[int, str], Any]) -> None:
        gone = self.children  # type: ignore[has-type]
        self._titles = [self._title(k) for k in range(count)]
        self._controls = {}
        shared = [self._control(SHARED, name, value) for name in self._names if name not in varied]
        boxes = []
        for k, title in enumerate(self._titles):
            side = layout(border_left="3px solid #8884", padding="0 0 0 6px")
            boxes.append(ipywidgets.VBox([title, *(self._control(k, name, value) for name in varied)], layout=side))
        self.children = [*shared, *boxes]
        for one in gone:
            close_all(one)

    def _title(self, k: int) -> Any:
        title = ipywidgets.Text(description=f"column {k + 1}", continuous_update=False, style=LABEL, layout=layout())
        title.observe(lambda change: self._renamed(k, change["new"]), names="value")
        return title

    def _control(self, k: int, name: str, value: Callable[[int, str], Any]) -> Any:
        one = self._controls[k, name] = control(name, self._model)
        one.show(value(k, name))
        one.observe(lambda change: self._taken(k, name, change["new"]), names="value")
        return one
