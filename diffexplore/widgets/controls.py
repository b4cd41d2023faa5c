"""The controls of settings: one ipywidget for each, as `Explorer` and `Compare` lay them out.

A control shows a value and hands one back; what a value means, and whether it is accepted, is for `Settings` to say.
"""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from typing import Any, Final

import ipywidgets

from diffexplore import words
from diffexplore.model import Model, load
from diffexplore.words import shown

__all__ = ["NAMES", "close_all", "control", "lay", "layout", "model_of", "pocket", "sentence", "show", "value_of"]

NAMES: Final = ("prompt", "negative_prompt", "steps", "guidance", "seed", "sampler")
"""The settings that have a control."""
LABELS: Final = {"negative_prompt": "negative"}
_RANGES: Final = {"steps": (1, 50), "guidance": (1.0, 15.0)}  # what the sliders offer; other values widen them


def layout(**more: str) -> Any:
    """A layout that fills its place and no more."""
    return ipywidgets.Layout(**{"width": "auto", "min_width": "0", "margin": "0"} | more)


def control(name: str, model: Model, label: str | None = None) -> Any:
    """The control of a setting, labelled with its name if not otherwise."""
    text = LABELS.get(name, name) if label is None else label
    common: dict[str, Any] = {"description": text, "style": {"description_width": "72px"}}
    # The seed shares its line with the dice.
    common["layout"] = layout(flex="1 1 auto") if name == "seed" else layout()
    if name == "prompt":
        return ipywidgets.Textarea(rows=2, placeholder="what to draw", **common)
    if name == "negative_prompt":
        return ipywidgets.Text(placeholder="what to keep out", **common)
    if name == "steps":
        return ipywidgets.IntSlider(min=_RANGES[name][0], max=_RANGES[name][1], **common)
    if name == "guidance":
        low, high = _RANGES[name]
        return ipywidgets.FloatSlider(min=low, max=high, step=0.5, readout_format=".1f", **common)
    if name == "sampler":
        return ipywidgets.Dropdown(options=model.samplers, **common)
    # Text, not a number field: a browser rounds whole numbers above 2**53.
    return ipywidgets.Text(continuous_update=False, **common)


def show(control: Any, name: str, value: Any) -> None:
    """Let a control show a value."""
    if name == "seed":
        value = str(value)
    if control.value == value:  # a control that is in somebody's hand keeps its range
        return
    if name == "sampler" and value not in control.options:  # asked for in code; that it is refused is said elsewhere
        control.options = [*control.options, value]
    if name in _RANGES:
        # The range widens for a value beyond it and goes back for one within. In this order no bound crosses
        # another, nor the value that is there.
        low, high = _RANGES[name]
        control.min, control.max = min(control.min, low, value), max(control.max, high, value)
        control.value = value
        control.min, control.max = min(low, value), max(high, value)
    control.value = value


def value_of(name: str, value: Any, now: Any = None) -> Any:
    """What a control says, as `Settings` takes it. `now`: the value it showed, which stays to the digit where the
    control only gives it back: sliders round, and say 10.000000000000002 for 10."""
    if name == "seed" and isinstance(value, str):
        with suppress(ValueError):  # then Settings says what a seed is
            return int(value)
    if isinstance(value, float) and math.isfinite(value):
        if isinstance(now, (int, float)) and math.isclose(value, now, rel_tol=1e-9, abs_tol=1e-12):
            return now
        return float(f"{value:.12g}")
    return value


def close_all(widget: ipywidgets.Widget) -> None:
    """Close a widget with all that is in it, layouts and styles too: ipywidgets keeps every open widget, with all its
    callbacks reach."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    for part in (getattr(widget, "layout", None), getattr(widget, "style", None)):
        if isinstance(part, ipywidgets.Widget):
            part.close()
    widget.close()


def lay(widget: ipywidgets.Widget, **more: str) -> None:
    """Give a widget another layout than it was born with, which is closed."""
    born, widget.layout = widget.layout, layout(**more)
    born.close()


_pocket_lock = threading.Lock()
_pocket_model: Model | None = None


def pocket() -> Model:
    """One pocket model for all widgets: its weights are in memory once, and what it remembers serves them all."""
    global _pocket_model
    with _pocket_lock:
        if _pocket_model is None:
            _pocket_model = load()
        return _pocket_model


def model_of(value: Any, widget: str) -> Model:
    """The model that a widget is given, the pocket model for None.

    Raises:
        ValueError: One sentence, for anything else, with what to write instead.
    """
    if value is None:
        return pocket()
    if isinstance(value, Model):
        return value
    if isinstance(value, str):
        raise ValueError(
            f"{widget} takes a model here, not text: for a prompt write {widget}(prompt={shown(value)}), "
            "for a model's name open it with diffexplore.load first"
        )
    got = f"a {type(value).__name__}" if hasattr(value, "components") else shown(value)
    raise ValueError(
        f"{widget} takes a model, as diffexplore.load gives one of a pipeline, a folder or a name; got {got}"
    )


def sentence(error: BaseException) -> str:
    """An error as one sentence for a reader, with the next thing to do where that is known."""
    text, name = words.sentence(error), type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":  # torch's own, named for CUDA too
        first = text.split(". ")[0].rstrip(".")
        return f"Memory ran out ({first}). Make the picture smaller, close other notebooks, or restart the kernel."
    if not isinstance(error, ValueError) and not text.startswith(name):
        text = f"{name}: {text}"
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
