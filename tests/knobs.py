"""What a person does with a widget, with no browser: find a control by what is written on it, move it as a front end
does, press a button, read what is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ipywidgets

from diffexplore.widgets.controls import Menu


def parts(widget: Any) -> Iterator[Any]:
    """A widget and all in it, as they come on the page."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from parts(child)


def find(widget: Any, name: str, kind: type = ipywidgets.DOMWidget, nth: int = 0) -> Any:
    """The control with this label, or where none has it, with this title."""
    found = _found(widget, name, kind)
    assert len(found) > nth, f"no {kind.__name__} number {nth} with {name!r} on it"
    return found[nth]


def has(widget: Any, name: str, kind: type = ipywidgets.DOMWidget) -> bool:
    """Whether there is such a control."""
    return bool(_found(widget, name, kind))


def _found(widget: Any, name: str, kind: type) -> list[Any]:
    every = [one for one in parts(widget) if isinstance(one, kind)]
    labelled = [one for one in every if getattr(one, "description", "") == name]
    return labelled or [one for one in every if title(one) == name]


def title(widget: Any) -> str:
    """What stands at the pointer; ipywidgets 7 has another name for it than 8."""
    names = ("tooltip", "description_tooltip")
    return next((getattr(widget, name) or "" for name in names if widget.has_trait(name)), "")


def move(widget: Any, name: str, value: Any, nth: int = 0) -> None:
    """Move the control with this label: a slider, a menu, a field."""
    find(widget, name, nth=nth).set_state({"value": value})


def choose(widget: Any, name: str, value: Any, nth: int = 0) -> None:
    """Choose an entry of a menu."""
    menu = find(widget, name, ipywidgets.DOMWidget, nth)
    assert value in menu.options, f"{name} does not offer {value}"
    grouped = isinstance(menu, Menu)
    menu.set_state({"value": value} if grouped else {"index": list(menu.options).index(value)})


def enter(widget: Any, name: str, nth: int = 0) -> None:
    """Press Enter in a field."""
    find(widget, name, ipywidgets.Text, nth)._handle_custom_msg({"event": "submit"}, [])


def truth(widget: Any) -> tuple[str, str]:
    """Whether the picture is what the controls say, and how that is put."""
    told = widget.viewer.truth
    return told["state"], told["text"]


def type_in(widget: Any, name: str, text: str, nth: int = 0) -> None:
    """Type into a field, or into the one beside the slider of this name."""
    find(widget, name, ipywidgets.Text, nth).set_state({"value": text})


def press(widget: Any, name: str) -> None:
    find(widget, name, ipywidgets.Button).click()


def on(widget: Any, name: str, kind: type = ipywidgets.DOMWidget, nth: int = 0) -> Any:
    """What a control shows."""
    return find(widget, name, kind, nth).value


def error(widget: Any) -> str:
    """The sentence that stands as an error beside the pictures; "" for none."""
    return str(widget.viewer.error)


def notes(widget: Any) -> list[str]:
    """The other sentences there."""
    return list(widget.viewer.notes)


def registered() -> set[str]:
    """The widgets that ipywidgets keeps."""
    return set(ipywidgets.Widget.get_manager_state()["state"])
