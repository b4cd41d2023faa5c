"""`Compare`: two to six runs that differ in what you name and share the rest, on one locked timeline.

What is compared lies in two traits, `shared` (settings) and `columns` (label -> what differs), so that code and
controls do the same thing. Columns that can share a batch are drawn in one; columns whose run the model remembers are
not drawn again. A column whose settings are refused, or whose run fails, says so, and the others go on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import ipywidgets
import traitlets

from diffexplore.settings import Settings
from diffexplore.widgets.controls import NAMES, close_all, control, lay, layout, model_of, sentence, show, value_of
from diffexplore.widgets.runner import Jobs, Runner
from diffexplore.widgets.viewer import Viewer
from diffexplore.widgets.what_if import WhatIf
from diffexplore.words import near, shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from diffexplore.model import Model
    from diffexplore.runs.plan import Plan
    from diffexplore.trace import Trace

__all__ = ["PRESETS", "Compare"]

FEWEST: Final = 2
MOST: Final = 6
_LADDER: Final = (
    "a dog",
    "a dog in a meadow",
    "a dog in a meadow at golden hour",
    "a large dog in a meadow at golden hour, sharp, detailed",
)

Columns = dict[str, dict[str, Any]]


def _each(name: str, values: list[Any]) -> Columns:
    return {_label({name: value}): {name: value} for value in values}


def _samplers(model: Model) -> list[str]:
    usual: list[str] = [name for name in ("DPM++ 2M Karras", "Euler", "Euler a", "DDIM") if name in model.samplers]
    return usual if len(usual) >= FEWEST else model.samplers[:4]


PRESETS: Final[dict[str, Callable[[Model, Settings], Columns]]] = {
    "prompts": lambda _, s: _each(
        "prompt", [s.prompt or "a fox in the snow at noon", "a castle in the desert at night"]
    ),
    "negative prompt": lambda _, s: {
        "without": {"negative_prompt": ""},
        "with": {"negative_prompt": s.negative_prompt or "blurry, noisy, low quality"},
    },
    "samplers": lambda model, _: _each("sampler", _samplers(model)),
    "steps": lambda _, __: _each("steps", [4, 10, 20, 50]),
    "guidance": lambda _, __: _each("guidance", [1.0, 3.0, 5.0, 10.0]),
    "seeds": lambda _, s: _each("seed", [s.seed + k for k in range(4)]),
    "specificity": lambda _, __: _each("prompt", list(_LADDER)),
}
"""Comparisons to start from: name -> what differs, for a model and the shared settings."""


class Compare(ipywidgets.Box):  # type: ignore[misc]
    """Runs side by side, at equal noise level, on one scrubber.

    Args:
        columns: Label -> what that run has of its own, two to six of them; or the name of one of `PRESETS`.
        model: A `Model` (see ``diffexplore.load``). None: the pocket model that comes with the package.
        **shared: What all have in common, as `Settings` takes it; the seed too.

    Attributes:
        columns, shared: Both as above, as traits: assign to them, observe them.
        status: "idle", "running", "done", "cancelled" or "failed"; read only.
        errors: Label -> one sentence, for the columns that were refused or failed.

    Raises:
        ValueError: Too few or too many columns, an unknown preset, or a setting that makes no sense for any model.

    Examples:
        >>> both = {"plain": {}, "negative": {"negative_prompt": "blurry"}}
        >>> compare = Compare(both, prompt="a fox")  # doctest: +SKIP
        >>> compare.run()["plain"].image  # doctest: +SKIP
    """

    columns = traitlets.Dict(help="Label -> what that run has of its own.")
    shared = traitlets.Dict(help="What all runs have in common, the seed too.")
    status = traitlets.Unicode("idle", read_only=True, help='"idle", "running", "done", "cancelled" or "failed".')

    _ready = False

    def __init__(
        self,
        columns: Mapping[str, Mapping[str, Any]] | str = "negative prompt",
        model: Model | None = None,
        **shared: Any,
    ) -> None:
        """The widget, with nothing run yet; the class says what the arguments are."""
        base = Settings(**shared)
        if isinstance(columns, str) and columns not in PRESETS:
            raise ValueError(
                f"a preset is one of {', '.join(PRESETS)}; got {shown(columns)}; "
                "a prompt is given as Compare(prompt=...)"
            )
        if not isinstance(columns, str):
            checked_columns(columns, base)
        self.model = model = model_of(model, "Compare")
        if isinstance(columns, str):
            columns = PRESETS[columns](model, base)
        self.errors: dict[str, str] = {}
        self._planned: dict[str, tuple[Settings, Plan]] = {}
        self._refused: dict[str, str] = {}
        self.viewer = Viewer()
        self._runner = Runner(
            model, self.viewer,
            ask=self._ask, status=self._set_status, settled=self._say_ends, notes=self._notes,
        )  # fmt: skip
        super().__init__()
        self.shared = shared
        self.columns = {label: dict(own) for label, own in columns.items()}
        self._ready = True
        self._build()
        self.observe(self._on_change, names=["columns", "shared"])
        self.viewer.tell(notes=self._notes())

    def __repr__(self) -> str:
        return f"Compare({list(self.columns)}, {', '.join(f'{k}={v!r:.40}' for k, v in self.shared.items())})"

    # --- what people call ---

    @property
    def settings(self) -> dict[str, Settings]:
        """What each column would run, with every None filled in; columns that this model refuses are left out."""
        return {label: plan.settings for label, plan in self._plan()[0].items()}

    @property
    def traces(self) -> dict[str, Trace]:
        """The newest runs by label, those that have a step."""
        return self._runner.traces

    def run(self) -> dict[str, Trace]:
        """Run all columns and wait; the pictures appear meanwhile.

        Returns:
            Label -> trace, without the columns that failed: `errors` says why.

        Raises:
            ValueError: The model refuses every column; nothing was started.
            KeyboardInterrupt: The kernel was interrupted. The runs are stopped, and what they made is in the viewer and
                in `traces`.
        """
        jobs = self._runner.run()
        return {label: job.trace for label, job in jobs.items() if job.error is None}

    def cancel(self) -> None:
        """Stop what is going, if anything. Returns at once; what was made stays on show."""
        self._runner.cancel()

    def code(self) -> str:
        """Python that makes the same comparison, with the model that `Model.code` opens."""
        lines = "".join(f"    {name}={value!r},\n" for name, value in self.shared.items())
        columns = "".join(f"        {label!r}: {own!r},\n" for label, own in self.columns.items())
        return (
            f"import diffexplore as dx\n\n{self.model.code()}"
            f"compare = dx.Compare(\n    {{\n{columns}    }},\n    model=model,\n{lines})\ntraces = compare.run()\n"
        )

    def to_json(self) -> str:
        """Columns and shared settings as JSON, for `from_json` of another `Compare`."""
        return json.dumps({"shared": self.shared, "columns": self.columns}, indent=2, ensure_ascii=False)

    def from_json(self, text: str) -> None:
        """Take columns and shared settings from `to_json`'s text.

        Raises:
            ValueError: One sentence, for text that is none; nothing has changed then.
        """
        try:
            found = json.loads(text)
            shared, columns = dict(found["shared"]), dict(found["columns"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ValueError(
                f"a comparison is a JSON object with 'shared' and 'columns', both objects; got {shown(text)}"
            ) from None
        checked_columns(columns, _settings(shared))
        self._set(shared, columns)

    def plot(self) -> Figure:
        """Where the runs part: the distance of each one's x0 from the first column's, against the noise level.

        Raises:
            ValueError: There are not two runs yet.
        """
        from diffexplore.looks.figures import plot_parting

        return plot_parting(self.traces)

    def close(self) -> None:
        """Stop what is going and take the widget off every page."""
        if self._ready:  # Python calls this too for what was never finished, because its settings were refused
            self.cancel()
            for child in self.children:
                close_all(child)
            self.layout.close()
        super().close()

    # --- settings ---

    @traitlets.validate("columns")
    def _check_columns(self, proposal: Any) -> Any:
        columns = {str(label): dict(own) for label, own in proposal["value"].items()}
        checked_columns(columns, Settings(**self.shared))
        return {label: _as_checked(own) for label, own in columns.items()}

    @traitlets.validate("shared")
    def _check_shared(self, proposal: Any) -> Any:
        return _as_checked(proposal["value"])

    def _set(self, shared: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        """Both at once: columns may only make sense with the new shared settings."""
        with self.hold_trait_notifications():
            self.shared, self.columns = dict(shared), dict(columns)

    def _plan(self) -> tuple[dict[str, Plan], dict[str, str]]:
        """What each column runs, and why others cannot; only what changed is planned anew."""
        plans, errors = {}, {}
        kept, self._planned = self._planned, {}
        for label, own in self.columns.items():
            try:
                asked = Settings(**{**self.shared, **own})
                known = next((plan for settings, plan in kept.values() if settings == asked), None)
                plans[label] = known or self.model.plan(asked)
                self._planned[label] = asked, plans[label]
            except ValueError as error:
                errors[label] = sentence(error)
        return plans, errors

    def _on_change(self, _: Any) -> None:
        self._show()
        self.viewer.tell(error="", notes=self._notes())

    def _notes(self) -> list[str]:
        """What of the settings will be cut or ignored, said once with the columns it holds for."""
        plans, errors = self._plan()
        said: dict[str, list[str]] = {}
        for label, plan in plans.items():
            for note in plan.notes:
                said.setdefault(note, []).append(label)
        notes = [note if len(who) == len(plans) else f"{', '.join(who)}: {note}" for note, who in said.items()]
        notes += [f"{label}: {text}" for label, text in errors.items()]
        if any(job.trace.info.get("batch", 1) > 1 for job in self._runner.jobs.values()):
            notes.append(
                "Columns drawn together share a batch: each equals the same run alone but for rounding, "
                "about one part in a million."
            )
        return notes

    # --- runs ---

    def _ask(self) -> dict[str, Plan]:
        plans, self._refused = self._plan()
        self.errors = dict(self._refused)
        if not plans:
            raise ValueError(_joined(self.errors))
        return plans

    def _say_ends(self, jobs: Jobs) -> None:
        """Say how it ended, once all columns have."""
        if self.status != "running":
            return
        failed = {label: sentence(job.error) for label, job in jobs.items() if job.error is not None}
        self.errors = self._refused | failed
        said = {"error": _joined(self.errors)} if self.errors else {}
        self.viewer.tell(notes=self._notes(), **said)
        self._what_if.show(self.traces)

    def _set_status(self, status: str) -> None:
        self.set_trait("status", status)
        self._stop.disabled = status != "running"

    # --- the controls ---

    def _build(self) -> None:
        self._preset = ipywidgets.Dropdown(
            description="start from", options=["(own)", *PRESETS], style={"description_width": "72px"}, layout=layout()
        )
        self._vary = ipywidgets.Dropdown(
            description="compare", options=["(several)", *NAMES], style={"description_width": "72px"}, layout=layout()
        )
        self._go = ipywidgets.Button(description="Run", icon="play", button_style="primary", layout=layout(flex="1"))
        self._stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True, layout=layout(flex="1"))
        self._more = ipywidgets.Button(
            description="Add", icon="plus", tooltip="one more column", layout=layout(flex="1")
        )
        self._fewer = ipywidgets.Button(
            description="Remove", icon="minus", tooltip="the last column", layout=layout(flex="1")
        )
        self._shared_box = ipywidgets.VBox(layout=layout(grid_gap="6px"))
        self._column_box = ipywidgets.VBox(layout=layout(grid_gap="6px"))
        self._json = ipywidgets.Textarea(rows=8, layout=layout(width="100%"))
        take = ipywidgets.Button(description="Use this", tooltip="take the settings in the field", layout=layout())
        self._what_if = WhatIf()
        more = ipywidgets.Accordion([self._what_if, ipywidgets.VBox([self._json, take])], layout=layout())
        for k, title in enumerate(("What if the guidance were another?", "Settings to copy and paste")):
            more.set_title(k, title)
        more.selected_index = None

        self._preset.observe(lambda change: self._quietly(lambda: self._take_preset(change["new"])), names="value")
        self._vary.observe(lambda change: self._quietly(lambda: self._take_vary(change["new"])), names="value")
        self._go.on_click(lambda _: self._runner.quietly(self._runner.start))
        self._stop.on_click(lambda _: self.cancel())
        self._more.on_click(lambda _: self._quietly(self._add))
        self._fewer.on_click(lambda _: self._quietly(self._remove))
        take.on_click(lambda _: self._quietly(lambda: self.from_json(self._json.value)))

        row = layout(display="flex", grid_gap="8px")
        panel = ipywidgets.VBox(
            [
                self._preset,
                self._vary,
                self._shared_box,
                self._column_box,
                ipywidgets.HBox([self._more, self._fewer], layout=row),
                ipywidgets.HBox([self._go, self._stop], layout=row),
                more,
            ],
            layout=layout(flex="1 1 270px", grid_gap="6px"),
        )
        panel.add_class("dx-controls")
        lay(self.viewer, flex="3 1 430px")
        self.add_class("dx-explorer")
        lay(self, display="flex", flex_flow="row wrap", align_items="flex-start", overflow="visible")
        self.children = [panel, self.viewer]
        self._laid: tuple[Any, ...] = ()
        self._show()

    def _varied(self) -> list[str]:
        """Names that some column has of its own, in the order of the controls."""
        return [name for name in NAMES if any(name in own for own in self.columns.values())]

    def _show(self) -> None:
        """Let the controls show the traits; they are made anew only where there are to be others."""
        varied = self._varied()
        laid = (tuple(self.columns), tuple(varied))
        if laid != self._laid:
            self._lay_out(varied)
            self._laid = laid
        base = self._base()
        for name, one in self._shared_controls.items():
            show(one, name, base[name])
        for (label, name), one in self._own_controls.items():
            show(one, name, self.columns[label].get(name, base[name]))
        self._vary.value = varied[0] if len(varied) == 1 else "(several)"
        self._more.disabled, self._fewer.disabled = len(self.columns) >= MOST, len(self.columns) <= FEWEST
        self._json.value = self.to_json()

    def _base(self) -> dict[str, Any]:
        """What all columns share, with every None filled in."""
        given = {name: value for name, value in self.shared.items() if value is not None}
        return self.model.resolve(Settings()).model_dump() | given

    def _lay_out(self, varied: list[str]) -> None:
        self._shared_controls = {name: control(name, self.model) for name in NAMES if name not in varied}
        self._own_controls: dict[tuple[str, str], Any] = {}
        boxes = []
        for number, label in enumerate(self.columns, 1):
            title = ipywidgets.Text(
                value=label, description=f"column {number}", continuous_update=False,
                style={"description_width": "72px"}, layout=layout(),
            )  # fmt: skip
            title.observe(lambda c, old=label: self._quietly(lambda: self._rename(old, c["new"])), names="value")
            own = []
            for name in varied:
                one = control(name, self.model)
                self._own_controls[label, name] = one
                own.append(one)
            boxes.append(
                ipywidgets.VBox([title, *own], layout=layout(border_left="3px solid #8884", padding="0 0 0 6px"))
            )
        base = self._base()
        for name, one in self._shared_controls.items():
            show(one, name, base[name])
            one.observe(lambda c, n=name: self._quietly(lambda: self._from_shared(n, c["new"])), names="value")
        for (label, name), one in self._own_controls.items():
            show(one, name, self.columns[label].get(name, base[name]))
            one.observe(
                lambda c, where=label, n=name: self._quietly(lambda: self._from_column(where, n, c["new"])),
                names="value",
            )
        gone = [*self._shared_box.children, *self._column_box.children]
        self._shared_box.children = list(self._shared_controls.values())
        self._column_box.children = boxes
        for one in gone:
            close_all(one)

    def _from_shared(self, name: str, value: Any) -> None:
        self.shared = {**self.shared, name: value_of(name, value, self._base()[name])}

    def _from_column(self, label: str, name: str, value: Any) -> None:
        """A label that only says the value follows it; one that a person wrote stays."""
        own = {**self.columns[label], name: value_of(name, value)}
        new = _label(own) if _NUMBER.sub("", label) == _label(self.columns[label]) else label
        self._put(label, new, own)

    def _rename(self, old: str, new: str) -> None:
        if new.strip() and old in self.columns:
            self._put(old, new.strip(), self.columns[old])

    def _put(self, old: str, new: str, own: dict[str, Any]) -> None:
        new = _free(new, [label for label in self.columns if label != old])
        self.columns = {(new if label == old else label): own if label == old else value
                        for label, value in self.columns.items()}  # fmt: skip

    def _add(self) -> None:
        last = list(self.columns.values())[-1]
        self.columns = {**self.columns, _free(_label(last), self.columns): dict(last)}

    def _remove(self) -> None:
        self.columns = dict(list(self.columns.items())[:-1])

    def _take_preset(self, name: str) -> None:
        if name in PRESETS:
            self.columns = PRESETS[name](self.model, Settings(**self.shared))

    def _take_vary(self, name: str) -> None:
        """Let the columns differ in one setting only, which starts with what they have of it."""
        if name not in NAMES or self._varied() == [name]:
            return
        base = self.model.resolve(Settings(**self.shared))
        values = [own.get(name, getattr(base, name)) for own in self.columns.values()]
        made: Columns = {}
        for value in values:
            made[_free(_label({name: value}), made)] = {name: value}
        self.columns = made

    def _quietly(self, action: Callable[[], object]) -> None:
        """Do what a control asked for; what is refused is said, and the controls go back to what runs."""
        try:
            action()
        except ValueError as error:
            pasted = self._json.value
            self._show()
            self._json.value = pasted  # a long text is put right, not written anew
            self.viewer.tell(error=sentence(error))
        else:
            self.viewer.tell(error="")


def _joined(errors: Mapping[str, str]) -> str:
    return " ".join(f"{label}: {why}" for label, why in errors.items())


def _as_checked(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as given, but numbers as `Settings` keeps them: numpy's would not go into JSON."""
    checked = Settings(**values)
    return {
        name: value if value is None or isinstance(value, (str, Mapping)) else getattr(checked, name)
        for name, value in values.items()
    }


def checked_columns(columns: Mapping[str, Any], shared: Settings) -> None:
    """Refuse what cannot be a comparison, in one sentence."""
    if not isinstance(columns, Mapping) or not FEWEST <= len(columns) <= MOST:
        count = f"{len(columns)} columns" if isinstance(columns, Mapping) else shown(columns)
        raise ValueError(f"a comparison has {FEWEST} to {MOST} columns, label -> settings; got {count}")
    for label, own in columns.items():
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"a column's label must be text, got {shown(label)}")
        if not isinstance(own, Mapping):
            raise ValueError(f"column {shown(label)} must map settings to values, got {shown(own)}")
        _settings({**shared.model_dump(), **own})


def _settings(values: Mapping[Any, Any]) -> Settings:
    """Settings of values by name, where the names may come from a file and be anything."""
    for name in values:
        if name not in Settings.model_fields:
            raise ValueError(
                f"settings are {', '.join(Settings.model_fields)}; got {shown(name)}{near(name, Settings.model_fields)}"
            )
    return Settings(**values)


def _label(own: Mapping[str, Any]) -> str:
    """A label that says what a column has of its own."""
    text = ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in own.values())
    return " ".join(text.split())[:48] or "plain"


_NUMBER: Final = re.compile(r" \(\d+\)$")


def _free(label: str, taken: Any) -> str:
    """The label, numbered where it is taken."""
    found, number = label, 2
    while found in taken:
        found, number = f"{label} ({number})", number + 1
    return found
