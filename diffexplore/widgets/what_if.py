"""`WhatIf`: another guidance or guider at one step of a recorded run, with no model call, for the tab of that name.

The page (``browser/panels/whatif.js``) asks for what stands at its scrubber, one question at a time::

    {"kind": "what if", "run": r, "guidance": g, "guider": m, "steps": [i, ...], "frames": [k, ...], "who": name}

with the number of the run that it shows, how the halves are mixed (null: as the run did), and, column by column, the
evaluation on show, counted from 0, and of a video the frame (else null); ``who`` is the view that asks. The answer is
the question with ``"told": [sentence, ...]`` + one buffer per column: its picture, or none, in which case the sentence
says why. A run that is no longer kept has no pictures at all: those of another would be taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from diffexplore.looks.pictures import encode
from diffexplore.looks.views import moment, view
from diffexplore.mixing import GUIDERS, named_guider
from diffexplore.record.record import Record
from diffexplore.record.step import Step
from diffexplore.widgets.feed import WHAT_IF
from diffexplore.words import sentence, shown

if TYPE_CHECKING:
    from diffexplore.trace import Trace
    from diffexplore.widgets.viewer import Viewer

__all__ = ["WhatIf", "mixed", "what_if"]

SIDE: Final = 160
"""Pixels of a picture."""
_KEPT: Final = 6  # mixes: one for each column that a comparison may have
_KINDS: Final = {"x0": "sample", "noise": "epsilon"}  # view -> the kind of prediction that it shows as it is


def what_if(
    trace: Trace, i: int, guidance: float, kind: str = "x0", frame: int | None = None, guider: str | None = None
) -> Any:
    """One evaluation with another guidance, as a picture: what `Step.guided` gives, drawn as `trace` draws its own.

    Args:
        trace: A run, finished or still going.
        i: The evaluation, counted from 0.
        guidance: Any number; the run's own gives the run's picture.
        kind: "x0" or "noise".
        frame: Of a video, which of its frames, from 0; None: the one in the middle.
        guider: How the halves are mixed, as `Settings` take it; None: as the run did at this step.

    Raises:
        ValueError: One sentence: there is no such step or frame, its guidance cannot be taken apart, or `guidance` or
            `guider` is none.
    """
    return _view(mixed(trace, i, guidance, kind, guider), trace, kind, frame)


def mixed(trace: Trace, i: int, guidance: float, kind: str = "x0", guider: str | None = None) -> Record:
    """A run of that one evaluation, mixed otherwise. Arguments and errors are those of :func:`what_if`."""
    if not isinstance(i, int) or not 0 <= i < len(trace):
        raise ValueError(f"Step must be a whole number from 1 to {len(trace)}, got {shown(_counted(i))}.")
    step = trace[i]
    if step.split:
        raise ValueError(f"Step {i + 1} cannot be guided anew: {step.split}")
    other = step.guided(guidance, step.guider if guider is None else guider)
    made = Step(
        index=step.index, timestep=step.timestep, seconds=step.seconds, a=step.a, b=step.b,
        kind=_KINDS[kind], latents=step.latents, output=other.x0 if kind == "x0" else other.noise,
    )  # fmt: skip
    return Record(trace.settings, [made], decode=trace.decode, matrix=trace.matrix, info=trace.info)


def _counted(i: object) -> object:
    """A step as people count, from 1."""
    return i + 1 if isinstance(i, int) else i


class WhatIf:
    """Answers a viewer's questions.

    Args:
        viewer: Whose page asks.
        traces_of: Gives the traces of a run by its number, column by column; None for one that is no more.
    """

    def __init__(self, viewer: Viewer, traces_of: Callable[[int], Sequence[Trace] | None]) -> None:
        """Listens from now on; the class says what the arguments are."""
        self._viewer, self._traces_of = viewer, traces_of
        # The newest mixes: each frame of a video asks for the same one.
        self._kept: dict[tuple[int, int, float, str | None, bool], Record] = {}
        self._run = -1  # of which run
        viewer.guiders = {name: one.sentence for name, one in GUIDERS.items()}
        viewer.on_msg(self._asked)

    def _asked(self, _: Any, content: Any, __: Any) -> None:
        if isinstance(content, dict) and content.get("kind") == WHAT_IF:
            run, guidance, steps = content.get("run"), content.get("guidance"), content.get("steps")
            if isinstance(run, int) and isinstance(steps, list):
                told, pictures = self.answer(run, guidance, steps, content.get("frames") or (), content.get("guider"))
                self._viewer.send({**content, "told": told}, pictures)

    def answer(
        self, run: int, guidance: Any, steps: Sequence[Any], frames: Sequence[Any] = (), guider: Any = None
    ) -> tuple[list[str], list[bytes]]:
        """A sentence and a picture for each column, one of them empty."""
        traces = self._traces_of(run)
        if traces is None or len(traces) < len(steps):
            return ["The kernel no longer has this run: press Run."] * len(steps), [b""] * len(steps)
        told, pictures = [], []
        for trace, i, at in zip(traces, steps, [*frames, *[None] * len(steps)], strict=False):
            try:
                if isinstance(guidance, bool) or not isinstance(guidance, (int, float)) or not math.isfinite(guidance):
                    raise ValueError(f"guidance must be a finite number, got {shown(guidance)}")
                record = self._mixed(run, trace, i, guidance, None if guider is None else named_guider(guider))
                pictures.append(encode(_view(record, trace, "x0", at if trace.frames else None)))
                told.append("")
            except ValueError as error:
                pictures.append(b"")
                told.append(sentence(error))
        return told, pictures

    def _mixed(self, run: int, trace: Trace, i: int, guidance: float, guider: str | None) -> Record:
        if run != self._run:
            self._run, self._kept = run, {}
        key = id(trace), i, guidance, guider, trace.decode is None  # one that goes may learn to decode at its end
        if key not in self._kept:
            self._kept[key] = mixed(trace, i, guidance, guider=guider)
            while len(self._kept) > _KEPT:
                del self._kept[next(iter(self._kept))]
        return self._kept[key]


def _view(record: Record, trace: Trace, kind: str, frame: int | None) -> Any:
    """A prediction as the picture that `trace` shows of its own."""
    side = SIDE if trace.kind != "sound" else 2 * SIDE  # a spectrogram has words beside it
    return view(record, kind, 0, size=side, plane=None if frame is None else moment(trace, frame))
