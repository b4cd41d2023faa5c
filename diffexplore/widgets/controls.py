"""The controls of settings: one widget for each, with the same two ends, as `Explorer` and `Compare` lay them out.

``value`` is what a control says, as `Settings` takes it; `show` lets it say something else. What a value means, and
whether it is accepted, is for `Settings` to decide: a field holds whatever was typed, and hands it on as it is.

They stand in rows of a fixed height (`row`), in a box that `app` makes; how they look there is in
``browser/controls.css``, and what a page has to add (names for a screen reader, popovers) in ``controls.js`` beside it.
Both come with the `Menu`, which every box of controls has.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import anywidget
import ipywidgets
import traitlets

from diffexplore import words
from diffexplore.mixing import GUIDERS, parameters_of
from diffexplore.model import Model, load
from diffexplore.samplers import AS_IT_CAME, SAMPLERS, facts_of
from diffexplore.widgets.browser import CONTROLS, CONTROLS_CSS
from diffexplore.words import shown

__all__ = [
    "NAMES",
    "TEXTS",
    "Menu",
    "Number",
    "Scales",
    "Seed",
    "app",
    "button",
    "chip",
    "close_all",
    "close_parts",
    "control",
    "icon_chip",
    "layout",
    "live_box",
    "marked",
    "model_of",
    "names_for",
    "on_enter",
    "pocket",
    "row",
    "sentence",
    "titled",
]

NAMES: Final = ("prompt", "negative_prompt", "steps", "guidance", "seed", "sampler")
"""The settings that have a control with every model."""
TEXTS: Final = ("prompt", "negative_prompt")
"""Those that are typed: a run waits for a pause in the typing."""
_LABEL: Final = {"description_width": "initial"}


def names_for(model: Model) -> tuple[str, ...]:
    """The settings that have a control with this model: guiders where there is something to mix, LoRAs where some are
    loaded.
    """
    more = {"guider": len(model.guiders) > 1, "adapters": bool(model.adapters)}
    return (*NAMES, *(name for name, there in more.items() if there))


def titled(text: str) -> dict[str, str]:
    """The keyword that gives a field its title; ipywidgets 7 has another name for it than 8."""
    return {"tooltip" if hasattr(ipywidgets.Text, "tooltip") else "description_tooltip": text}


def layout(**more: str) -> Any:
    """A layout that fills its place and no more."""
    return ipywidgets.Layout(**{"width": "auto", "min_width": "0", "margin": "0"} | more)


def marked(widget: Any, *names: str) -> Any:
    """The widget, with names that style sheets know it by."""
    for name in names:
        widget.add_class(f"dx-{name}")
    return widget


def row(*children: Any, names: Sequence[str] = ()) -> Any:
    """A row of controls; its height is that of the style sheet, whatever is in it."""
    return marked(ipywidgets.HBox(children, layout=layout()), "row", *names)


def app(widget: Any, rows: Sequence[Any]) -> None:
    """Fill a box with rows of controls and a viewer: what belongs together on a page."""
    marked(widget, "app", "explorer")
    widget.children = list(rows)


def button(text: str, title: str = "", icon: str = "", *names: str, **more: Any) -> Any:
    """A button, by its word or by an icon; its title names it where it has no word."""
    size = {"width": "30px"} if "icon" in names else {}
    made = ipywidgets.Button(description=text, tooltip=title, icon=icon, layout=layout(flex="none", **size), **more)
    return marked(made, *names)


def chip(face: str, title: str, *inside: Any) -> Any:
    """A button that opens what is inside under it."""
    opened = marked(ipywidgets.Box(inside, layout=layout()), "pop")
    return marked(ipywidgets.Box([button(face, title, "", "face"), opened], layout=layout()), "chip")


def icon_chip(icon: str, title: str, *inside: Any) -> Any:
    """The same by an icon, among other buttons."""
    made = marked(chip("", title, *inside), "small")
    face = marked(made.children[0], "icon")
    face.icon, face.layout.width = icon, "30px"
    return made


def live_box() -> Any:
    """The box that says whether every change of a setting runs."""
    made = ipywidgets.Checkbox(description="live", indent=False, layout=layout(), **titled("run at every change (l)"))
    return marked(made, "live")


def on_enter(field: Any, heard: Callable[[], object]) -> None:
    """Hear of Enter in a text field."""
    field.on_msg(lambda _, content, __: heard() if content.get("event") == "submit" else None)


def close_parts(widget: ipywidgets.Widget) -> None:
    """Close all that is in a widget, layouts and styles too: ipywidgets keeps every open widget, with all its callbacks
    reach."""
    for child in getattr(widget, "children", ()):
        close_all(child)
    for part in (getattr(widget, "layout", None), getattr(widget, "style", None)):
        if isinstance(part, ipywidgets.Widget):
            part.close()


def close_all(widget: ipywidgets.Widget) -> None:
    """Close a widget with all that is in it."""
    close_parts(widget)
    widget.close()


# --- one for each setting ---


def control(name: str, model: Model) -> Any:
    """The control of a setting: a widget with ``value`` and `show`."""
    if name in TEXTS:
        title, hint = _TEXT[name]
        return marked(_Line(placeholder=hint, layout=layout(), **titled(title)), "text", name.replace("_", "-"))
    if name == "steps":
        return Number(name, 1, 50, 1)
    if name == "guidance":
        return Number(name, 1.0, 15.0, 0.5)
    if name == "seed":
        return Seed()
    if name == "sampler":
        return Menu(name, {sampler: model.label(sampler) for sampler in model.samplers})
    if name == "guider":
        return marked(_Pick(options=model.guiders, layout=layout()), "guider")
    assert name == "adapters", f"no control for {name}"
    return Scales(model.adapters)


_TEXT: Final = {"prompt": ("prompt", "what to draw"), "negative_prompt": ("negative", "without: blurry …")}


class _Line(ipywidgets.Text):  # type: ignore[misc]
    def show(self, value: str) -> None:
        self.value = value


class _Pick(ipywidgets.Dropdown):  # type: ignore[misc]
    """A menu of guiders, whose title is the sentence of the one that is chosen."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._tell()
        self.observe(lambda _: self._tell(), names="value")

    def _tell(self) -> None:
        for name, text in titled(f"guider: {GUIDERS[parameters_of(self.value)[0]].sentence}").items():
            setattr(self, name, text)

    def show(self, value: str) -> None:
        """Say `value`, which it offers from now on: one with numbers of its own was asked for in code."""
        offered = tuple(self.options)  # type: ignore[has-type]
        if value not in offered:
            self.options = [*offered, value]
        self.value = value


class Menu(anywidget.AnyWidget):  # type: ignore[misc]
    """A menu of samplers: in groups, with the sentence of the one that is chosen. It brings what a page adds to the
    controls around it.

    Args:
        label: What it is called.
        labels: Samplers to choose from, and what each is called.
    """

    _esm = CONTROLS
    _css = CONTROLS_CSS
    description = traitlets.Unicode().tag(sync=True)
    """What it is called."""
    value = traitlets.Unicode().tag(sync=True)
    """The one that is chosen."""
    groups = traitlets.List().tag(sync=True)
    """What is offered: title of a group, and its entries, each a name, a sentence, and what it is called."""

    def __init__(self, label: str, labels: Mapping[str, str]) -> None:
        """At the first; the class says what the arguments are."""
        super().__init__(description=label, groups=_grouped(labels), value=next(iter(labels), ""), layout=layout())
        marked(self, "menu-box")

    @property
    def options(self) -> tuple[str, ...]:
        """The names that are offered."""
        return tuple(name for _, entries in self.groups for name, *_ in entries)

    def show(self, value: str) -> None:
        """Say `value`, which it offers from now on: one asked for in code; that it is refused is said elsewhere."""
        if value not in self.options:
            self.groups = [*self.groups, ["asked for in code", [[value, _told(value), value]]]]
        self.value = value


def _grouped(labels: Mapping[str, str]) -> list[list[Any]]:
    """Samplers by what they do on the way, in the menu's order."""
    groups: dict[str, list[list[str]]] = {title: [] for title in _GROUPS}
    for name, label in labels.items():
        entry = SAMPLERS.get(name)
        facts = facts_of(entry.cls) if entry is not None else None
        noisy = entry is not None and facts is not None and bool(facts.noise(entry.config))
        slow = entry is not None and entry.per_step > 1
        title = _GROUPS[0 if name == AS_IT_CAME else 3 if slow else 2 if noisy else 1]
        groups[title].append([name, _told(name), label])
    return [[title, entries] for title, entries in groups.items() if entries]


_GROUPS: Final = (
    "this model's own",
    "nothing random on the way",
    "fresh noise on the way: more steps, another picture",
    "two looks at each step: twice the work",
)


def _told(name: str) -> str:
    if name == AS_IT_CAME:
        return "The scheduler that came with this model, with all that was set on it: what it draws by itself."
    return SAMPLERS[name].sentence if name in SAMPLERS else ""


class Number(ipywidgets.HBox):  # type: ignore[misc]
    """A slider, and a field beside it for what the slider does not offer.

    Args:
        label: What it is called.
        low: The least that the slider offers; other values widen it.
        high: The most.
        step: From one value of the slider to the next; a whole number for whole numbers.
    """

    value = traitlets.Any(help="A number, or the text in the field where that is none.")

    def __init__(self, label: str, low: float, high: float, step: float) -> None:
        """At the lower end; the class says what the arguments are."""
        self._range = low, high
        made = ipywidgets.IntSlider if isinstance(step, int) else ipywidgets.FloatSlider
        self._slider = made(
            value=low, min=low, max=high, step=step, description=label, readout=False, style=_LABEL,
            layout=layout(flex="1 1 auto"),
        )  # fmt: skip
        # Text, not the slider's own readout: that moves what is typed into its range, and says nothing. A title is
        # what a field without a label is named by.
        self._field = ipywidgets.Text(
            value=_digits(low), continuous_update=False, layout=layout(width="46px", flex="none"), **titled(label)
        )
        super().__init__([self._slider, self._field], layout=layout())
        marked(self, "number")
        self.value = low
        self._slider.observe(self._slid, names="value")
        self._field.observe(self._typed, names="value")

    @property
    def disabled(self) -> bool:
        """Whether it is out of use."""
        return bool(self._slider.disabled)

    @disabled.setter
    def disabled(self, value: bool) -> None:
        self._slider.disabled = self._field.disabled = value

    def limit(self, low: float, high: float) -> None:
        """Offer another range."""
        self._range = low, high
        now = self.value
        if isinstance(now, (int, float)) and low <= now <= high:
            self._widen(now)
        else:
            self.show(min(max(now, low), high) if isinstance(now, (int, float)) else low)

    def show(self, value: float) -> None:
        """Say `value`. A slider that says so already is perhaps in somebody's hand, and keeps its range."""
        self.value = value
        self._field.value = _digits(value)
        if self._slider.value != value:
            self._widen(value)

    def _widen(self, value: float) -> None:
        # The range widens for a value beyond it and goes back for one within. In this order no bound crosses another,
        # nor the value that is there.
        slider, (low, high) = self._slider, self._range
        slider.min, slider.max = min(slider.min, low, value), max(slider.max, high, value)
        slider.value = value
        slider.min, slider.max = min(low, value), max(high, value)

    def _slid(self, change: Any) -> None:
        value = change["new"]
        if not _same(value, self.value):
            value = value if isinstance(value, int) else float(_digits(value))
            self._field.value = _digits(value)
            self.value = value

    def _typed(self, change: Any) -> None:
        text = change["new"].strip()
        if isinstance(self.value, (int, float)) and text == _digits(self.value):
            return
        self.value = next((number for kind in (int, float) if (number := _read(kind, text)) is not None), text)


class Seed(ipywidgets.HBox):  # type: ignore[misc]
    """A field for a whole number of any size, and dice that throw another."""

    value = traitlets.Any(help="A whole number, or the text in the field where that is none.")

    def __init__(self, label: str = "seed", title: str = "another seed") -> None:
        """Empty, until something is shown. `label` is what it is called, `title` what the dice are."""
        # Text, not a number field: a browser rounds whole numbers above 2**53.
        self._field = ipywidgets.Text(
            description=label, continuous_update=False, style=_LABEL, layout=layout(flex="1 1 auto")
        )
        dice = button("", title, "random", "icon")
        super().__init__([self._field, dice], layout=layout())
        marked(self, "seed")
        self._field.observe(self._typed, names="value")
        dice.on_click(lambda _: self.show(secrets.randbelow(2**32)))

    def show(self, value: int) -> None:
        """Say `value`."""
        self.value = value
        self._field.value = str(value)

    def _typed(self, change: Any) -> None:
        number = _read(int, change["new"])
        self.value = change["new"] if number is None else number


class Scales(ipywidgets.HBox):  # type: ignore[misc]
    """A `Number` for the scale of each LoRA: 0 is off."""

    value = traitlets.Dict(help="Name -> scale.")

    def __init__(self, names: Sequence[str]) -> None:
        """All off. `names` are those of the LoRAs."""
        self._scales = {name: Number(name, 0.0, 1.5, 0.05) for name in names}
        super().__init__(list(self._scales.values()), layout=layout())
        marked(self, "scales")
        for name, one in self._scales.items():
            one.observe(lambda change, name=name: self._scaled(name, change["new"]), names="value")

    def show(self, value: Mapping[str, float] | Sequence[tuple[str, float]]) -> None:
        """Say `value`, names -> scales or such pairs; it may have names that have no slider here."""
        self.value = dict(value)
        for name, one in self._scales.items():
            one.show(self.value.get(name, 0.0))

    def _scaled(self, name: str, scale: Any) -> None:
        if scale != self.value.get(name, 0.0):
            self.value = {**self.value, name: scale}


def _same(one: float, other: Any) -> bool:
    """Whether two numbers are one but for rounding: sliders say 10.000000000000002 where they show 10."""
    return isinstance(other, (int, float)) and math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)


def _digits(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def _read(kind: type, text: str) -> Any:
    with suppress(ValueError):
        return kind(text)
    return None


# --- models and errors ---

_pocket_lock = threading.Lock()
_pockets: dict[str, Model] = {}


def pocket(name: str = "pocket") -> Model:
    """One model of each that comes with the package for all widgets: its weights are in memory once, and what it
    remembers serves them all.
    """
    with _pocket_lock:
        if name not in _pockets:
            _pockets[name] = load(name)
        return _pockets[name]


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
