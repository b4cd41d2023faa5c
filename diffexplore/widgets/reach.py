"""`Reach`: reaching into the run on show, from the tab of that name: a mark on its way, or a branch from a step.

The page (``browser/panels/reach.js``) asks, and hears by the widget's other traits what became of it::

    {"kind": "reach", "act": act, "run": r, "step": i, "mark": m, "values": {"prompt": "a car", ...}, "edit": {...}}

with the number of the run that it shows and an evaluation of it, counted from 0. ``act`` is "branch" (the run goes on
otherwise from that step, beside itself), "put" (a mark there, in place of the mark ``mark`` where that is one), "take"
(the mark ``mark`` away) or "show" (of the branches that are kept the one with the number ``node``, beside its parent).
``values`` are settings of `settings.CHANGING`, of which those count that are others there. A branch may have an
``edit`` of the latents that it leaves with, as somebody has painted it::

    {"tool": "noise", "size": [h, w], "bits": "...", "amount": 1.5, "seed": 0, "node": n}

``tool`` is one of `TOOLS`, ``bits`` are those of the latents, row by row and eight to a byte, as base64; ``amount`` is
for a poke, ``seed`` for noise, ``node`` says from which of the runs that are kept a swap takes.

The trait ``_marks`` of the viewer holds the marks of the next run: ``[[share of noise, words, values], ...]``; its
trait ``branches`` the runs that are kept (``nodes``, as `Kin.told` has them), how many that are at ``most``, which are
``on`` show, and the ``loras`` that may change on the way, with their scales now.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from diffexplore.record.predictions import share_of_noise
from diffexplore.runs.edits import Touch, edits
from diffexplore.settings import CHANGING, Settings, in_words
from diffexplore.widgets.feed import REACH
from diffexplore.words import shown

if TYPE_CHECKING:
    from diffexplore.trace import Trace
    from diffexplore.widgets.viewer import Viewer

__all__ = ["TOOLS", "Reach", "edit_of", "mark_of", "marks_of", "others", "remarked"]

Changes = dict[float, dict[str, Any]]

TOOLS: Final = ("poke", "noise", "erase", "swap")
"""What a brush may do, of `runs.edits`."""


def mark_of(trace: Trace, i: int) -> float:
    """The share of noise at which an evaluation is.

    Raises:
        ValueError: One sentence, where there is no such evaluation.
    """
    if isinstance(i, bool) or not isinstance(i, int) or not 0 <= i < len(trace):
        raise ValueError("the kernel no longer has this step: press Run")
    return share_of_noise(trace[i].a, trace[i].b)


def others(settings: Settings, mark: float, values: Mapping[str, Any], needed: bool = True) -> dict[str, Any]:
    """Those of `values` that are others than what holds where a run comes to `mark`.

    Raises:
        ValueError: One sentence, where none is and one is `needed`.
    """
    now = [stage for at, stage in settings.stages() if at > mark][-1]
    told = now.replace(**{name: value for name, value in values.items() if name in CHANGING})
    found = {name: new for name, (_, new) in now.diff(told).items()}
    if dict(_worn(now)) == dict(_worn(told)):
        found.pop("adapters", None)
    if not found and needed:
        raise ValueError("nothing would change there: write another prompt or guidance first")
    return found


def _worn(settings: Settings) -> list[tuple[str, float]]:
    """The LoRAs that are on."""
    return [(name, scale) for name, scale in settings.adapters if scale]


def edit_of(told: Mapping[str, Any], trace: Trace, kept: Callable[[object], Trace]) -> Touch:
    """The edit that somebody has painted.

    Args:
        told: As the head of this file has it; it comes from a page and may be anything.
        trace: The run whose latents were painted on.
        kept: Gives the run of a number.

    Raises:
        ValueError: One sentence, for what is no edit, or a run that makes no picture.
    """
    if trace.kind != "picture" or len(trace[0].shape) != 3:
        raise ValueError(f"only the latents of a picture can be painted on: this run makes a {trace.kind}")
    tool, mask = told.get("tool"), _painted(told, trace[0].shape)
    if tool == "poke":
        return edits.poke(mask, told.get("amount", 1.0))
    if tool == "noise":
        return edits.noise(mask, seed=told.get("seed", 0))
    if tool == "erase":
        return edits.erase(mask)
    if tool == "swap":
        return edits.swap(mask, kept(told.get("node")))
    raise ValueError(f"a brush does one of {', '.join(TOOLS)}; got {shown(tool)}")


def _painted(told: Mapping[str, Any], shape: Sequence[int]) -> np.ndarray:
    """The latents that were painted on, (h, w) bool."""
    size, bits = told.get("size"), told.get("bits")
    wrong = ValueError("what was painted is not the size of the latents: paint it again")
    if not isinstance(size, list) or len(size) != 2 or not isinstance(bits, str):
        raise wrong
    # A large picture's latents are painted on in a smaller picture of them.
    if not all(type(side) is int and 0 < side <= most for side, most in zip(size, shape[-2:], strict=True)):
        raise wrong
    count = size[0] * size[1]
    try:
        data = np.frombuffer(base64.b64decode(bits, validate=True), np.uint8)
    except (binascii.Error, ValueError):
        raise wrong from None
    if len(data) != -(-count // 8):
        raise wrong
    return np.unpackbits(data, count=count).reshape(size).astype(bool)


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
        branch: Hears (trace, evaluation, values, edit or None).
        put: Hears (share of noise or None, values, old mark or None).
        show: Hears the number of a run that is kept.
        kept: Gives the run of such a number.
        quietly: Does what a page asked for, and says there what is refused.
    """

    def __init__(
        self,
        viewer: Viewer,
        traces_of: Callable[[int], Sequence[Trace] | None],
        branch: Callable[[Trace, int, dict[str, Any], Touch | None], object],
        put: Callable[[float | None, dict[str, Any], float | None], object],
        show: Callable[[object], object],
        kept: Callable[[object], Trace],
        quietly: Callable[[Callable[[], object]], None],
    ) -> None:
        """Listens from now on; the class says what the arguments are."""
        self._traces_of, self._branch, self._put, self._quietly = traces_of, branch, put, quietly
        self._show, self._kept = show, kept
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
        if act == "show":
            self._show(content.get("node"))
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
            told = content.get("edit")
            edit = edit_of(told, trace, self._kept) if isinstance(told, dict) else None
            self._branch(trace, i, others(trace.settings, mark, values, needed=edit is None), edit)
