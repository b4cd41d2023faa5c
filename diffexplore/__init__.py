"""Open up a diffusion model: every step's latents, predicted noise and x0 estimate, in a Jupyter widget.

    import diffexplore as dx
    dx.Explorer()  # the pocket model, no GPU, no network
    trace = dx.load().trace(prompt="a fox in the snow", steps=20)
    trace[5].x0  # what the model thinks the picture is, at evaluation 5

Names are imported when first used, so that ``import diffexplore`` itself needs neither torch nor diffusers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Settings": "settings",
    "GUIDERS": "mixing",
    "SAMPLERS": "samplers",
    "interval": "mixing",
    "Model": "model",
    "load": "model",
    "Step": "record.step",
    "Trace": "trace",
    "VIEWS": "looks.views",
    "CURVES": "looks.curves",
    "arrival": "experiments.arrival",
    "forward": "experiments.forward",
    "loss_by_level": "experiments.loss",
    "edits": "runs.edits",
    "sweep": "experiments.sweep",
    "race": "experiments.race",
    "diminishing_returns": "experiments.returns",
    "negative_words": "experiments.negative",
    "survives": "experiments.survival",
    "kinds": "experiments.kinds",
    "swap_time": "experiments.swap_time",
    "travel": "experiments.travel",
    "twice": "experiments.twice",
    "detect": "experiments.detect",
    "seeds": "experiments.seeds",
    "degraded": "experiments.degraded",
    "memorised": "experiments.memorised",
    "nearest": "experiments.nearest",
    "bias": "experiments.bias",
    "read_recipe": "looks.pictures",
    "is_marked": "looks.marks",
    "credentials": "looks.credentials",
    "sign": "looks.credentials",
    "connect": "rooms.connect",
    "share": "rooms.share",
    "judge": "pocket.judge",
    "adherence": "pocket.judge",
    "Compare": "widgets.compare",
    "Explorer": "widgets.explorer",
    "ForwardProcess": "widgets.process",
    "Replay": "widgets.viewer",
    "Tally": "widgets.tally",
}

__all__ = [
    "CURVES",
    "GUIDERS",
    "SAMPLERS",
    "VIEWS",
    "Compare",
    "Explorer",
    "ForwardProcess",
    "Model",
    "Replay",
    "Settings",
    "Step",
    "Tally",
    "Trace",
    "adherence",
    "arrival",
    "bias",
    "connect",
    "credentials",
    "degraded",
    "detect",
    "diminishing_returns",
    "edits",
    "forward",
    "interval",
    "is_marked",
    "judge",
    "kinds",
    "load",
    "loss_by_level",
    "memorised",
    "nearest",
    "negative_words",
    "race",
    "read_recipe",
    "seeds",
    "share",
    "sign",
    "survives",
    "swap_time",
    "sweep",
    "travel",
    "twice",
]

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffexplore.experiments.arrival import arrival
    from diffexplore.experiments.bias import bias
    from diffexplore.experiments.degraded import degraded
    from diffexplore.experiments.detect import detect
    from diffexplore.experiments.forward import forward
    from diffexplore.experiments.kinds import kinds
    from diffexplore.experiments.loss import loss_by_level
    from diffexplore.experiments.memorised import memorised
    from diffexplore.experiments.nearest import nearest
    from diffexplore.experiments.negative import negative_words
    from diffexplore.experiments.race import race
    from diffexplore.experiments.returns import diminishing_returns
    from diffexplore.experiments.seeds import seeds
    from diffexplore.experiments.survival import survives
    from diffexplore.experiments.swap_time import swap_time
    from diffexplore.experiments.sweep import sweep
    from diffexplore.experiments.travel import travel
    from diffexplore.experiments.twice import twice
    from diffexplore.looks.credentials import credentials, sign
    from diffexplore.looks.curves import Curve
    from diffexplore.looks.marks import is_marked
    from diffexplore.looks.pictures import read_recipe
    from diffexplore.mixing import Guider, interval
    from diffexplore.model import Model, load
    from diffexplore.pocket.judge import adherence, judge
    from diffexplore.rooms.connect import connect
    from diffexplore.rooms.share import share
    from diffexplore.runs.edits import Edits
    from diffexplore.samplers import Sampler
    from diffexplore.settings import Settings
    from diffexplore.trace import Step, Trace
    from diffexplore.widgets.compare import Compare
    from diffexplore.widgets.explorer import Explorer
    from diffexplore.widgets.process import ForwardProcess
    from diffexplore.widgets.tally import Tally
    from diffexplore.widgets.viewer import Replay

# Declared here without a value, for whoever reads this file or the reference; `__getattr__` brings the value.
CURVES: Mapping[str, Curve]
"""Name -> what `Trace.curve` can give: a sentence and the unit of each."""
GUIDERS: Mapping[str, Guider]
"""Name -> a way to mix both predictions of a step, in menu order: a sentence for learners, its paper, its numbers."""
SAMPLERS: Mapping[str, Sampler]
"""Name -> entry of the menu, in its order: the scheduler behind it, what it is right for, a sentence for learners."""
VIEWS: tuple[str, ...]
"""The kinds of picture that `Trace.view` and the widgets show of a step, in menu order."""

edits: Edits
"""What can be done to latents where a branch leaves: ``model.branch(trace, 5, latents=dx.edits.noise(...))``."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'diffexplore' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
