"""`Handing`: the part of an `Explorer` that holds what a pipeline is handed beyond settings, with its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from diffexplore.pipelines.signature import LackingError, alike
from diffexplore.settings import Settings
from diffexplore.widgets.controls import sentence
from diffexplore.widgets.extras import Extras, settled

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.pipelines.signature import Extra
    from diffexplore.runs.plan import Plan
    from diffexplore.widgets.viewer import Viewer

__all__ = ["Handing"]


class Handing(traitlets.HasTraits):  # type: ignore[misc]
    """What an `Explorer` does with what is handed over: holds it, checks it, says what is lacking."""

    model: Model
    viewer: Viewer
    extra = traitlets.Dict(help="Name -> value of what is handed to the pipeline beyond settings.")
    _beyond: Sequence[Extra]  # what can be handed over
    _plan_of: Callable[[Settings, Mapping[str, Any]], Plan]
    _wrong: dict[str, str]
    _ready: bool
    _hand = ""  # which of what is handed over comes from its control
    _more: Extras | None = None

    def _asked_now(self) -> Settings:
        """What the controls say."""
        raise NotImplementedError

    def _plan(self) -> Plan:
        """What the next run would be."""
        return self._plan_of(self._asked_now(), self.extra)

    def _say_wrong(self) -> None:
        """Say what of the controls is refused."""
        raise NotImplementedError

    def _run_if_stale(self) -> None:
        """What was refused was put right: run where the newest run is another."""
        raise NotImplementedError

    def _filled(self, asked: Settings, extra: Mapping[str, Any]) -> Settings:
        """Settings with every None filled in, checked with what is handed over beside them."""
        try:
            return self._plan_of(asked, extra).settings
        except LackingError:  # which is said, and waited for
            return self.model.resolve(asked)

    def _take(self, asked: Settings, extra: Mapping[str, Any]) -> Settings:
        """The same, without what belongs to the picture that is handed over."""
        return self._filled(asked, extra).model_copy(update={"strength": None})

    def _right(self, asked: Settings, extra: Mapping[str, Any]) -> dict[str, Any]:
        """What is handed over, checked."""
        extra = settled(self._beyond, extra)
        try:
            self._plan_of(asked, extra)
        except LackingError as error:
            kinds = {one.name: one.kind for one in self._beyond}
            if any(kinds.get(name, "other") == "other" for name in error.names):
                raise  # nothing in the page could give it
        return extra

    def _lack(self) -> LackingError | None:
        """What the pipeline waits for."""
        try:
            self._plan()
        except LackingError as error:
            return error
        return None

    @traitlets.validate("extra")
    def _checked_extra(self, proposal: Any) -> dict[str, Any]:
        if not self._ready:
            return dict(proposal["value"])
        try:
            made = self._right(self._asked_now(), proposal["value"])
        except ValueError as error:
            self.viewer.tell(error=sentence(error))
            raise
        # What came in code leaves nothing in the controls that was refused; what came from one speaks for that alone.
        for name in [self._hand] if self._hand else [one.name for one in self._beyond]:
            self._wrong.pop(name, None)
        return made

    def _show_extra(self) -> None:
        if self._more is not None:
            lack = self._lack()
            self._more.show(self.extra, lack.names if lack else (), self._wrong)

    def _from_extra(self, name: str, value: Any) -> None:
        """Let what is handed over follow a control; what is refused stays in it."""
        held_up = name in self._wrong
        made = {other: one for other, one in self.extra.items() if other != name}
        made |= {} if value is None else {name: value}
        if "image" not in made and self.model.family != "any":
            for other in ("strength", "mask"):  # they are of the picture
                made.pop(other, None)
        if not held_up and alike(settled(self._beyond, made), self.extra):
            return
        self._hand = name
        try:
            self.set_trait("extra", made)
        except ValueError as error:
            self._wrong[name] = sentence(error)
            self._say_wrong()
        else:
            self._say_wrong()
            if held_up:
                self._run_if_stale()
        finally:
            self._hand = ""
