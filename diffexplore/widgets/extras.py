"""`Extras`: the controls of what a pipeline takes beyond settings, made of its signature; folded away behind a button.

A number of a known range has a slider, other numbers and texts a field, which is empty where it is left to the
pipeline; a switch has a box; a picture is uploaded. What cannot be said with any of these is named, to be handed over
in code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import ipywidgets
from PIL import Image

from diffexplore.looks.pictures import encode, read_picture
from diffexplore.pipelines.signature import Extra, described
from diffexplore.runs.start import STRENGTH
from diffexplore.widgets.controls import Number, button, chip, layout, marked, sentence, titled

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["Extras", "as_code", "extras_for", "settled"]

_THUMB: Final = 28  # pixels of a picture that was uploaded, from top to bottom
_LABEL: Final = {"description_width": "initial"}
_FACE: Final = 20  # letters on the button


def extras_for(model: Model) -> list[Extra]:
    """What a run of a model takes beyond the settings that have a control of their own: with a picture to start from
    also how much noise that gets."""
    found = model.extras
    names = [one.name for one in found]
    if "image" in names and "strength" not in names:
        found.insert(names.index("image") + 1, Extra("strength", "number", STRENGTH, False))
    return found


def settled(extras: Sequence[Extra], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values without those that say what the pipeline takes anyway."""
    plain = {one.name: one.default for one in extras if isinstance(one.default, bool | int | float | str | None)}

    def said(name: str, value: Any) -> bool:
        default = plain.get(name, ...)
        numbers = not isinstance(default, bool) and isinstance(default, int | float) and type(value) in (int, float)
        return (numbers or type(value) is type(default)) and value == default

    return {name: value for name, value in values.items() if not said(name, value)}


def as_code(values: Mapping[str, Any]) -> tuple[str, str]:
    """Python that opens what can be opened, and the arguments of a call, in lines. What no text can say is expected in
    a variable of its name."""
    opens, said = "", ""
    for name, value in values.items():
        if isinstance(value, Image.Image):
            opens += f"{name} = Image.open({f'{name}.png'!r}).convert({value.mode!r})  # {described(value)}\n"
        plain = isinstance(value, bool | int | float | str | None)
        note = "" if plain or isinstance(value, Image.Image) else f"  # {described(value)}"
        said += f"    {name}={repr(value) if plain else name},{note}\n"
    return ("from PIL import Image\n\n" + opens if opens else ""), said


class Extras:
    """Controls for what a pipeline takes beyond settings.

    Args:
        extras: What that is.
        taken: Hears (name, value) when a control says something; None for what is left to the pipeline.
        refused: Hears why a file that was uploaded is not taken, one sentence.

    Attributes:
        box: The button, and what it opens.
    """

    def __init__(
        self, extras: Sequence[Extra], taken: Callable[[str, Any], object], refused: Callable[[str], object]
    ) -> None:
        """With nothing handed over; the class says what the arguments are."""
        self._taken = taken
        self._shown: dict[str, Any] = {}
        rank = {"picture": 0, "number": 1, "whole": 1, "text": 2, "switch": 3}
        own = sorted((one for one in extras if one.kind in rank), key=lambda one: (not one.required, rank[one.kind]))
        self._controls: dict[str, Any] = {}
        for one in own:
            self._controls[one.name] = made = _control(one, refused)
            made.heard = lambda value, name=one.name: self._taken(name, value)
        left = [one.name for one in extras if one.kind not in rank]
        told = [_told("in code only", ", ".join(left))] if left else []
        rows = [one.box for one in self._controls.values()]
        self.box = marked(chip("more", "what this pipeline takes beyond the settings", *rows, *told), "extras")

    def __contains__(self, name: str) -> bool:
        return name in self._controls

    def show(self, values: Mapping[str, Any], lacking: Collection[str] = (), but: Collection[str] = ()) -> None:
        """Say `values`.

        Args:
            values: Name -> value of what is handed over.
            lacking: Names of what the pipeline cannot do without and has not.
            but: Names whose controls hold what was refused, to be put right.
        """
        for name, one in self._controls.items():
            if name not in but:
                one.show(values.get(name))
        said = [_brief(name, value) for name, value in values.items()]
        face = f"needs {', '.join(lacking)}" if lacking else ", ".join(said) or "more"
        self.box.children[0].description = face if len(face) <= _FACE else f"{face[: _FACE - 1]}…"


def _brief(name: str, value: Any) -> str:
    if isinstance(value, bool | None):
        return name if value else f"no {name}"
    return f"{name} {value:g}" if isinstance(value, int | float) else name


def _told(label: str, text: str) -> Any:
    parts = [ipywidgets.Label(label, layout=layout()), ipywidgets.Label(text, layout=layout(), **titled(text))]
    return marked(ipywidgets.HBox(parts, layout=layout()), "extra", "extra-told")


def _control(one: Extra, refused: Callable[[str], object]) -> Any:
    if one.kind == "picture":
        return _Picture(one, refused)
    if one.kind == "switch":
        return _Switch(one)
    if one.kind == "number" and isinstance(one.default, int | float) and 0 < one.default <= 1:
        return _Share(one)
    return _Field(one)


class _Control:
    """One control: its `box`, `show`, and who has `heard` what it says."""

    box: Any
    heard: Callable[[Any], object]

    def __init__(self, one: Extra) -> None:
        self._default = one.default
        self._name = one.name
        self._showing = False

    def show(self, value: Any) -> None:
        """Say a value, or that it is left to the pipeline."""
        self._showing = True
        try:
            self._put(self._default if value is None else value)
        finally:
            self._showing = False

    def _put(self, value: Any) -> None:
        raise NotImplementedError

    def _says(self, value: Any) -> None:
        if not self._showing:
            self.heard(value)


class _Share(_Control):
    """A slider from 0 to 1, and its field."""

    def __init__(self, one: Extra) -> None:
        super().__init__(one)
        self.box = marked(Number(one.name, 0.0, 1.0, 0.05), "extra")
        self.box.show(one.default)
        self.box.observe(lambda change: self._says(change["new"]), names="value")

    def _put(self, value: Any) -> None:
        if isinstance(value, int | float):
            self.box.show(float(value))


class _Field(_Control):
    """A field; empty where it is left to the pipeline, whose own value stands behind it in grey."""

    def __init__(self, one: Extra) -> None:
        super().__init__(one)
        self._kind = one.kind
        hint = "found out by the pipeline" if one.default is None else str(one.default)
        self.box = ipywidgets.Text(
            description=one.name, placeholder=hint, continuous_update=False, style=_LABEL, layout=layout(),
            **titled(one.name),
        )  # fmt: skip
        marked(self.box, "extra")
        self.box.observe(lambda change: self._says(self._read(change["new"])), names="value")

    def _put(self, value: Any) -> None:
        self.box.value = "" if value == self._default else _text(value)

    def _read(self, text: str) -> Any:
        if not text.strip():
            return None
        for kind in {"number": (float,), "whole": (int,)}.get(self._kind, ()):
            try:
                return kind(text)
            except ValueError:
                continue
        return text


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(described(value))


class _Switch(_Control):
    """A box; half ticked is no state of it, so one that the pipeline decides is off until it is pressed."""

    def __init__(self, one: Extra) -> None:
        super().__init__(one)
        self.box = marked(
            ipywidgets.Checkbox(value=bool(one.default), description=one.name, indent=False, layout=layout()), "extra"
        )
        self.box.observe(lambda change: self._says(change["new"]), names="value")

    def _put(self, value: Any) -> None:
        self.box.value = bool(value)


class _Picture(_Control):
    """A picture from a file: small, its size beside it, and a button that takes it out again."""

    def __init__(self, one: Extra, refused: Callable[[str], object]) -> None:
        super().__init__(one)
        self._refused = refused
        self._seen: Any = None
        needed = "needed" if one.required else "none"
        self._none = needed
        self._small = marked(ipywidgets.Image(format="png", layout=layout(width=f"{_THUMB}px", flex="none")), "held")
        self._size = ipywidgets.Label(needed, layout=layout(flex="1 1 auto"))
        self._upload = ipywidgets.FileUpload(
            accept="image/*", multiple=False, description="choose", layout=layout(flex="none", width="34px"),
            **titled(f"a picture for {one.name}"),
        )  # fmt: skip
        self._out = button("", f"without {one.name}", "times", "icon")
        label = ipywidgets.Label(one.name, layout=layout(), **titled(one.name))
        self.box = ipywidgets.HBox([label, self._small, self._size, self._upload, self._out], layout=layout())
        marked(self.box, "extra", "extra-picture")
        self._upload.observe(lambda change: self._uploaded(change["new"]), names="value")
        self._out.on_click(lambda _: self._says(None))
        self._put(None)

    def _put(self, value: Any) -> None:
        if value is self._seen and value is not None:
            return
        self._seen = value
        self._out.disabled = value is None
        self._small.layout.display = "" if isinstance(value, Image.Image) else "none"
        if isinstance(value, Image.Image):
            small = value.convert("RGB")
            small.thumbnail((4 * _THUMB, _THUMB))
            self._small.value = encode(small)
            self._small.layout.width = f"{small.width}px"
        self._size.value = self._none if value is None else _said(value)

    def _uploaded(self, files: Any) -> None:
        if not files:
            return
        # ipywidgets 7 gives a dict by name, 8 a tuple; what is in the file is bytes there and a view of memory here.
        (one, *_) = files.values() if isinstance(files, Mapping) else files
        data = bytes(one["content"])
        try:
            picture = read_picture(data)
        except ValueError as error:
            self._refused(f"{self._name}: {sentence(error)}")
        else:
            self._says(picture)
        finally:
            self._forget()

    def _forget(self) -> None:
        """Let go of the file, which would go back to every page that opens."""
        if self._upload.has_trait("data"):  # ipywidgets 7 makes the value of these
            self._upload.data, self._upload.metadata, self._upload._counter = [], [], 0
        else:
            self._upload.value = ()


def _said(value: Any) -> str:
    if isinstance(value, Image.Image):
        return f"{value.width} × {value.height}"
    return str(described(value)) if not isinstance(value, list | tuple) else f"{len(value)} pictures"
