"""The controls of settings: one ipywidget for each, as `Explorer` and `Compare` lay them out.

A control shows a value and hands one back; what a value means, and whether it is accepted, is for `Settings` to say.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import ipywidgets

from diffexplore import words

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["NAMES", "close_all", "control", "layout", "pocket", "sentence", "show", "value_of"]

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
    common: dict[str, Any] = {"description": text, "style": {"description_width": "72px"}, "layout": layout()}
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
    common["layout"] = layout(flex="1 1 auto")
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


def value_of(name: str, value: Any) -> Any:
    """What a control says, as `Settings` takes it."""
    if name == "seed" and isinstance(value, str):
        with suppress(ValueError):  # then Settings says what a seed is
            return int(value)
    return value


def close_all(box: ipywidgets.Box) -> None:
    """Close what is in a box, at every depth: ipywidgets keeps every open widget, with all its callbacks reach."""
    for child in box.children:
        if isinstance(child, ipywidgets.Box):
            close_all(child)
        child.close()


_pocket_lock = threading.Lock()
_pocket_model: Model | None = None


def pocket() -> Model:
    """One pocket model for all widgets: running a cell again stops the run it started before, instead of competing
    with it."""
    global _pocket_model
    from diffexplore.model import load

    with _pocket_lock:
        if _pocket_model is None:
            _pocket_model = load()
        return _pocket_model


def sentence(error: BaseException) -> str:
    """An error as one sentence for a reader, with the next thing to do where that is known."""
    text, name = words.sentence(error), type(error).__name__
    if isinstance(error, MemoryError) or name == "OutOfMemoryError":  # torch's own, named for CUDA too
        first = text.split(". ")[0].rstrip(".")
        return f"Memory ran out ({first}). Make the picture smaller, close other notebooks, or restart the kernel."
    if not isinstance(error, ValueError) and not text.startswith(name):
        text = f"{name}: {text}"
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
