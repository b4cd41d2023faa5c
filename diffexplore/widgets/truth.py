"""Whether what is on show is what the controls say: the one line under the pictures that must never be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from diffexplore.pipelines.signature import alike

if TYPE_CHECKING:
    from diffexplore.runs.plan import Plan
    from diffexplore.trace import Trace

__all__ = ["STALE", "truth"]

STALE: Final = "settings changed: Run"


def truth(
    wanted: Sequence[Plan] | str | None, shown: Sequence[Trace], run: int, status: str, line: str = ""
) -> dict[str, Any]:
    """What `Viewer.truth` is to say.

    Args:
        wanted: What the controls say, column by column; None: what they say is refused; a line: what they wait for.
        shown: The runs on show, column by column.
        run: Their number, as the viewer counts.
        status: How the newest run stands: "idle", "running", "done", "cancelled" or "failed".
        line: Where a run that is going stands in line behind those of other people; "" where nobody is before it.

    Returns:
        ``state`` ("match", "stale", "busy", "none") and ``text``, one line; with "match" the ``run`` it holds for.
    """
    if status == "running":
        return {"state": "busy", "text": line or "drawing"}
    if wanted is None:
        return {"state": "stale", "text": "not accepted, see above: put it right"}
    if isinstance(wanted, str):
        return {"state": "stale" if shown else "none", "text": wanted}
    if not shown:
        failed = status in ("failed", "cancelled")
        return {"state": "none", "text": f"the run {_ENDED[status]} before its first step" if failed else "press Run"}
    same = [trace.settings for trace in shown] == [plan.settings for plan in wanted]
    if not (same and all(alike(trace.extra, plan.extra) for trace, plan in zip(shown, wanted, strict=True))):
        ended = f"the newest run {_ENDED[status]}: " if status == "failed" else ""
        return {"state": "stale", "text": ended + STALE}
    stopped = next((trace for trace in shown if trace.cancelled), None)
    if stopped is not None:
        return {"state": "stale", "text": f"stopped after {len(stopped)} of {stopped.expected} steps: Run"}
    if any(len(trace) < trace.expected for trace in shown):
        return {"state": "stale", "text": f"the run {_ENDED.get(status, 'ended early')}: Run"}
    several = len(shown) > 1
    noise = len({(one.seed, one.width, one.height) for one in (plan.settings for plan in wanted)}) == 1
    text = f"picture{'s match' if several else ' matches'} the controls"
    return {"state": "match", "run": run, "text": f"{text} · same starting noise" if several and noise else text}


_ENDED: Final = {"failed": "failed", "cancelled": "was stopped"}
