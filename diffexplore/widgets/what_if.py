"""`WhatIfPanel`: another guidance at one step of a recorded run, with no model call."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import ipywidgets

from diffexplore.looks.pictures import encode
from diffexplore.looks.views import view
from diffexplore.record.record import Record
from diffexplore.record.step import Step
from diffexplore.widgets.controls import LABEL, Number, layout
from diffexplore.words import sentence, shown

if TYPE_CHECKING:
    from torch import Tensor

    from diffexplore.trace import Trace

__all__ = ["WhatIfPanel"]

_SAYS: Final = (
    "One step, seen with another guidance. The run itself went on with its own; a new run would go elsewhere."
)
_SIDE: Final = 160
_KINDS: Final = {"x0": "sample", "noise": "epsilon"}  # view -> the kind of prediction that it shows as it is


class WhatIfPanel(ipywidgets.VBox):  # type: ignore[misc]
    """Sliders for step and guidance over finished runs; beside them the noise and the x0 that `Step.guided` gives.

    Args:
        traces: Finished runs by label; `show` takes others later.
    """

    def __init__(self, traces: Mapping[str, Trace] | None = None) -> None:
        """At the first step of the first run, with its own guidance; the class says what the argument is."""
        self._traces: dict[str, Trace] = {}
        self._run = ipywidgets.Dropdown(description="run", style=LABEL, layout=layout())
        self._step = Number("step", 1, 1, 1)
        self._guidance = Number("guidance", 0.0, 20.0, 0.5)
        self._says = ipywidgets.HTML()
        self._pictures = {
            kind: ipywidgets.Image(format="png", width=_SIDE, height=_SIDE, layout=layout())
            for kind in ("was", "x0", "noise")
        }
        names = {"was": "x0 of the run", "x0": "x0, what if", "noise": "noise, what if"}
        pictures = [ipywidgets.VBox([one, ipywidgets.Label(names[kind])]) for kind, one in self._pictures.items()]
        self._row = ipywidgets.HBox(pictures, layout=layout(flex_flow="row wrap"))
        super().__init__([self._run, self._step, self._guidance, self._row, self._says])
        self._run.observe(lambda _: self._turn_to(), names="value")
        for control in (self._run, self._step, self._guidance):
            control.observe(lambda _: self._draw(), names="value")
        self.show(traces or {})

    def show(self, traces: Mapping[str, Trace]) -> None:
        """Take other runs; the step and the guidance stay where they are as far as the runs go."""
        self._traces = {name: trace for name, trace in traces.items() if len(trace)}
        looked_at = self._run.value
        self._run.options = list(self._traces)
        self._run.value = looked_at if looked_at in self._traces else next(iter(self._traces), None)
        for control in (self._run, self._step, self._guidance):
            control.disabled = not self._traces
        if self._run.value is not None:
            self._step.limit(1, len(self._traces[self._run.value]))
        self._draw()

    def _turn_to(self) -> None:
        """Another run is looked at: start from the guidance it had."""
        trace = self._traces.get(self._run.value)
        if trace is not None:
            self._step.limit(1, len(trace))
            self._guidance.show(trace.settings.guidance)

    def _draw(self) -> None:
        trace = self._traces.get(self._run.value)
        if trace is None:
            return self._refuse("Run first: there is nothing recorded yet.")
        number, guidance = self._step.value, self._guidance.value
        if not isinstance(number, int) or not 1 <= number <= len(trace):
            return self._refuse(f"Step must be a whole number from 1 to {len(trace)}, got {shown(number)}.")
        step = trace[number - 1]
        if step.split:
            return self._refuse(f"Step {number} cannot be guided anew: {step.split}")
        try:
            mixed = step.guided(guidance)
        except ValueError as error:
            return self._refuse(sentence(error))
        self._pictures["was"].value = encode(trace.view("x0", number - 1, size=_SIDE))
        for kind, field in (("x0", mixed.x0), ("noise", mixed.noise)):
            self._pictures[kind].value = encode(_picture(trace, step, kind, field))
        self._row.layout.visibility = "visible"
        self._says.value = f"{_SAYS} The run's own guidance: {trace.settings.guidance:g}."
        return None

    def _refuse(self, text: str) -> None:
        """Say why there is nothing to see; pictures of something else would be taken for it."""
        self._says.value = html.escape(text)
        self._row.layout.visibility = "hidden"
        for one in self._pictures.values():
            one.value = b""


def _picture(trace: Trace, step: Step, kind: str, field: Tensor) -> Any:
    """A prediction as the picture that `trace` shows of its own."""
    made = Step(
        index=step.index, timestep=step.timestep, seconds=step.seconds, a=step.a, b=step.b,
        kind=_KINDS[kind], latents=step.latents, output=field,
    )  # fmt: skip
    return view(Record(trace.settings, [made], decode=trace.decode, matrix=trace.matrix), kind, 0, size=_SIDE)
