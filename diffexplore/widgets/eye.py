"""`Looks`: the switch of a widget that has its runs keep where words look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets
import traitlets

from diffexplore.widgets.controls import layout, marked, sentence, titled

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.widgets.runner import Runner
    from diffexplore.widgets.viewer import Viewer

__all__ = ["Looks"]


class Looks(traitlets.HasTraits):  # type: ignore[misc]
    """What an `Explorer` and a `Compare` share of it: a trait, and an eye among the controls where the model can tell.

    Attributes:
        attention: Whether runs keep where words look; their words can then be clicked in the viewer. Turned on while
            runs without it are on show, those are drawn again, to the same bits.
    """

    attention = traitlets.Bool(False, help="Whether runs keep where words look.")

    model: Model
    viewer: Viewer
    _runner: Runner

    @traitlets.validate("attention")
    def _can_look(self, proposal: Any) -> bool:
        found = self.model.abilities["attention"]
        if proposal["value"] and found not in ("cross", "joint"):
            error = ValueError(f"where words look cannot be shown: {str(found)[0].lower()}{str(found)[1:].rstrip('.')}")
            self.viewer.tell(error=sentence(error))
            raise error
        return bool(proposal["value"])

    def _eye(self) -> list[Any]:
        """The switch; none where the model cannot tell."""
        if self.model.abilities["attention"] not in ("cross", "joint"):
            return []
        made = ipywidgets.ToggleButton(
            icon="eye", layout=layout(flex="none", width="30px"),
            **titled("where words look: keep it with every run, then click a word"),
        )  # fmt: skip
        traitlets.link((self, "attention"), (made, "value"))
        self.observe(self._look_again, names="attention")
        return [marked(made, "icon", "eye")]

    def _look_again(self, change: Any) -> None:
        shown = list(self._runner.traces.values())
        if change["new"] and shown and not all(trace.words for trace in shown):
            self._runner.quietly(self._runner.start_soon)
