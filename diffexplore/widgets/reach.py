"""`Reach`: reaching into the run on show, from the tab of that name: a mark on its way, or a branch from a step.

The page (``browser/panels/reach.js``) asks, and hears by the widget's other traits what became of it::

    {"kind": "reach", "act": act, "run": r, "step": i, "mark": m, "values": {"prompt": "a car", ...}}

with the number of the run that it shows and an evaluation of it, counted from 0. ``act`` is "branch" (the run goes on
otherwise from that step, beside itself), "put" (a mark there, in place of the mark ``mark`` where that is one) or
"take" (the mark ``mark`` away). ``values`` are settings of `settings.CHANGING`, of which those count that are others
there. The trait ``_marks`` of the viewer holds the marks of the next run: ``[[share of noise, words, values], ...]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffexplore.record.predictions import share_of_noise
from diffexplore.settings import CHANGING, Settings, in_words
from diffexplore.widgets.feed import REACH

if TYPE_CHECKING:
    from diffexplore.trace import Trace
    from diffexplore.widgets.viewer import Viewer

__all__ = ["Reach", "mark_of", "marks_of", "others", "remarked"]

Changes = dict[float, dict[str, Any]]


def mark_of(trace: Trace, i: int) -> float:
    """The share of noise at which an evaluation is.

    Raises:
        ValueError: One sentence, where there is no such evaluation.
    """
    if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < len(trace):
        raise ValueError("the kernel no longer has this step: press Run")
    return share_of_noise(trace[i].a, trace[i].b)


def others(settings: Settings, mark: float, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` that are others than what holds where a run comes to `mark`.

    Raises:
        ValueError: One sentence, where none is.
    """
    now = [stage for at, stage in settings.stages() if at > mark][-1]
    told = now.replace(**{name: value for name, value in values.items() if name in CHANGING})
    found = {name: new for name, (_, new) in now.diff(told).items()}
    if not found:
        raise ValueError("nothing would change there: write another prompt or guidance first")
    return found


def remarked(settings: Settings, mark: float | None, values: Mapping[str, Any], old: float | None = None) -> Changes:
    """What changes on the way of settings with a mark more.

    Args:
        settings: them.
        mark: where; None: only the old one goes.
        values: of what then holds, those that are others there count.
        old: the mark in whose place it is.

    Raises:
        ValueError: One sentence, where nothing would change.
    """
    told: Changes = {at: dict(fields) for at, fields in settings.changes if at != old}
    if mark is not None:
        told.pop(mark, None)
        told[mark] = others(settings.replace(changes=told), mark, values)
    return told


def marks_of(settings: Settings) -> list[list[Any]]:
    """The marks of settings as the page takes them."""
    return [[mark, in_words(fields), dict(fields)] for mark, fields in settings.changes]


class Reach:
    """Hears what a viewer's page asks for.

    Args:
        viewer: Whose page asks.
        traces_of: Gives the traces of a run by its number, column by column; None for one that is no more.
        branch: Hears (trace, evaluation, values).
        put: Hears (share of noise or None, values, old mark or None).
        quietly: Does what a page asked for, and says there what is refused.
    """

    def __init__(
        self,
        viewer: Viewer,
        traces_of: Callable[[int], Sequence[Trace] | None],
        branch: Callable[[Trace, int, dict[str, Any]], object],
        put: Callable[[float | None, dict[str, Any], float | None], object],
        quietly: Callable[[Callable[[], object]], None],
    ) -> None:
        """Listens from now on; the class says what the arguments are."""
        self._traces_of, self._branch, self._put, self._quietly = traces_of, branch, put, quietly
        viewer.on_msg(self._asked)

    def _asked(self, _: Any, content: Any, __: Any) -> None:
        if isinstance(content, dict) and content.get("kind") == REACH:
            self._quietly(lambda: self._do(content))

    def _do(self, content: Mapping[str, Any]) -> None:
        act, values, old = content.get("act"), content.get("values"), content.get("mark")
        values = {name: one for name, one in values.items() if name in CHANGING} if isinstance(values, dict) else {}
        old = float(old) if isinstance(old, (int, float)) and not isinstance(old, bool) else None
        if act == "take":
            self._put(None, {}, old)
            return
        run, i = content.get("run"), content.get("step")
        traces = self._traces_of(run) if isinstance(run, int) else None
        if not traces:
            raise ValueError("the kernel no longer has this run: press Run")
        trace = traces[-1]  # the branch, where a run stands beside one
        mark = mark_of(trace, i)  # type: ignore[arg-type]
        if act == "put":
            self._put(mark, values, old)
        elif act == "branch":
            assert isinstance(i, int)
            self._branch(trace, i, others(trace.settings, mark, values))
