"""`WhatIf`: another guidance at one step of a recorded run, with no model call."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import ipywidgets

from diffexplore.looks.pictures import encode
from diffexplore.widgets.controls import layout

if TYPE_CHECKING:
    from diffexplore.trace import Step, Trace

__all__ = ["WhatIf", "guided_anew"]

_SAYS = "One step, seen with another guidance. The run itself went on with its own; a new run would go elsewhere."
_SIDE = 160


def guided_anew(step: Step, guidance: float) -> Step:
    """The same step as if its two predictions had been mixed with another guidance; no model call.

    Raises:
        ValueError: The step has no prediction with and without the prompt, or the guidance is no finite number.
    """
    from diffexplore.trace import Step

    mixed = step.what_if(guidance)
    # Of the two equal ways to state a prediction, the one that loses no digits at this noise level.
    by_noise = step.a >= step.b
    halves = (step.noise_cond, step.noise_uncond) if by_noise else (step.x0_cond, step.x0_uncond)
    return Step(
        index=step.index,
        timestep=step.timestep,
        seconds=step.seconds,
        a=step.a,
        b=step.b,
        kind="epsilon" if by_noise else "sample",
        latents=step.latents,
        output=mixed.noise if by_noise else mixed.x0,
        cond=halves[0],
        uncond=halves[1],
        guidance=guidance,
        half=step.half,
    )


class WhatIf(ipywidgets.VBox):  # type: ignore[misc]
    """Sliders for step and guidance over finished runs; beside them the noise and the x0 they would have given.

    Args:
        traces: Finished runs by label; `show` takes others later.
    """

    def __init__(self, traces: Mapping[str, Trace] | None = None) -> None:
        self._traces: dict[str, Trace] = {}
        label = {"description_width": "72px"}
        self._run = ipywidgets.Dropdown(description="run", style=label, layout=layout())
        self._step = ipywidgets.IntSlider(description="step", min=1, max=1, style=label, layout=layout())
        self._guidance = ipywidgets.FloatSlider(
            description="guidance", min=0.0, max=20.0, step=0.5, readout_format=".1f", style=label, layout=layout()
        )
        self._says = ipywidgets.HTML()
        self._pictures = {
            kind: ipywidgets.Image(format="png", width=_SIDE, height=_SIDE, layout=layout())
            for kind in ("was", "x0", "noise")
        }
        names = {"was": "x0 of the run", "x0": "x0, what if", "noise": "noise, what if"}
        shown = [ipywidgets.VBox([picture, ipywidgets.Label(names[kind])]) for kind, picture in self._pictures.items()]
        for control in (self._run, self._step, self._guidance):
            control.observe(self._draw, names="value")
        super().__init__(
            [self._run, self._step, self._guidance, ipywidgets.HBox(shown, layout=layout(flex_flow="row wrap")),
             self._says]
        )  # fmt: skip
        self.show(traces or {})

    def show(self, traces: Mapping[str, Trace]) -> None:
        """Take other runs; the step and the guidance stay where they are as far as the runs go."""
        self._traces = {name: trace for name, trace in traces.items() if len(trace)}
        looked_at = self._run.value
        self._run.options = list(self._traces)
        self._run.value = looked_at if looked_at in self._traces else next(iter(self._traces), None)
        for control in (self._run, self._step, self._guidance):
            control.disabled = not self._traces
        self._draw()

    def _draw(self, _: Any = None) -> None:
        trace = self._traces.get(self._run.value)
        if trace is None:
            self._says.value = "Run first: there is nothing recorded yet."
            return
        self._step.max = len(trace)
        from diffexplore.trace import Trace

        i = min(self._step.value, len(trace)) - 1
        try:
            step = guided_anew(trace[i], self._guidance.value)
        except ValueError as error:
            self._says.value = html.escape(str(error))
            return
        other = Trace(trace.settings, [step], decode=trace.decode, matrix=trace.matrix)
        self._set("was", trace, "x0", i)
        self._set("x0", other, "x0", 0)
        self._set("noise", other, "noise", 0)
        self._says.value = f"{_SAYS} The run's own guidance: {trace.settings.guidance:g}."

    def _set(self, name: str, trace: Trace, kind: str, i: int) -> None:
        self._pictures[name].value = encode(trace.view(kind, i, size=_SIDE))
