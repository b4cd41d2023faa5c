"""`Compare`: two to six runs that differ in what you name and share the rest, on one locked timeline.

What is compared lies in two traits, `shared` (settings) and `columns` (label -> what differs), so that code and
controls do the same thing. Columns that can share a batch are drawn in one; columns whose run the model remembers are
not drawn again. A column whose settings are refused, or whose run fails, says so, and the others go on. When runs start
is as in an `Explorer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import ipywidgets
import traitlets

from diffexplore.looks import figures
from diffexplore.model import Model
from diffexplore.settings import Settings
from diffexplore.widgets import columns as rules
from diffexplore.widgets.board import SHARED, Board
from diffexplore.widgets.columns import FEWEST, MOST, PRESETS, Columns
from diffexplore.widgets.controls import (
    TEXTS,
    app,
    button,
    chip,
    close_parts,
    layout,
    live_box,
    marked,
    model_of,
    names_for,
    row,
    sentence,
    titled,
)
from diffexplore.widgets.extras import as_code
from diffexplore.widgets.eye import Looks
from diffexplore.widgets.near import noise_for
from diffexplore.widgets.notebook import InNotebook
from diffexplore.widgets.runner import TYPING, Jobs, Runner, outlook, planning
from diffexplore.widgets.viewer import Viewer
from diffexplore.widgets.what_if import WhatIf

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from diffexplore.runs.plan import Plan
    from diffexplore.trace import Trace

__all__ = ["PRESETS", "Compare"]


class Compare(Looks, InNotebook, ipywidgets.Box):  # type: ignore[misc]
    """Runs side by side, at equal noise level, on one scrubber.

    Args:
        columns: Label -> what that run has of its own, two to six of them; or the name of one of `PRESETS`. What is
            within a setting has a path, such as ``changes.0.4.prompt``, see `experiments.axes`.
        model: A `Model` (see ``diffexplore.load``). None: the pocket model that comes with the package.
        live: Whether every change of a setting starts runs.
        attention: Whether runs keep where words look.
        **shared: What all have in common, as `Settings` takes it; the seed too. With a `model`, also what its pipeline
            takes beyond settings, such as ``image=``, see `Model.extras`: the same for all columns from then on.

    Attributes:
        columns, shared: Both as above, as traits: assign to them, observe them.
        live: Whether a change of a setting starts runs. While runs are going, a change replaces them in any case.
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
    live = traitlets.Bool(False, help="Whether a change of a setting starts runs.")
    status = traitlets.Unicode("idle", read_only=True, help='"idle", "running", "done", "cancelled" or "failed".')

    _ready = False
    _typing = False  # a setting comes from a field that is being typed in

    def __init__(
        self,
        columns: Mapping[str, Mapping[str, Any]] | str = "negative prompt",
        model: Model | None = None,
        *,
        live: bool = False,
        attention: bool = False,
        **shared: Any,
    ) -> None:
        """The widget, with nothing run yet; the class says what the arguments are."""
        known = Settings.model_fields if isinstance(model, Model) else shared
        beyond = {name: shared.pop(name) for name in list(shared) if name not in known}
        base = rules.settings_of(shared)
        start = rules.preset(columns) if isinstance(columns, str) else None
        if start is None:
            rules.checked(shared, columns)
        self.model = model = model_of(model, "Compare")
        self._extra = dict(model.plan(Settings(), **beyond).extra) if beyond else {}
        self.errors: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._asked: dict[str, Settings] = {}  # what each column asks for, as the traits were checked
        self._plan_of = planning(model)
        self._defaults = model.resolve(Settings())
        self.viewer = Viewer(layout=layout())
        self._runner = Runner(
            model, self.viewer,
            ask=self._ask, status=self._set_status, settled=self._say_ends, notes=self._notes,
            looks=lambda: self.attention,
            refused=lambda: _joined(self._refused),
            wanted=lambda: self._plans()[0],
        )  # fmt: skip
        self._what_if = WhatIf(self.viewer, self._runner.traces_of)
        super().__init__(layout=layout())
        levels = start is None and any("sigmas" in own for own in cast(Columns, columns).values())
        if not levels and not shared.keys() & {"steps", "sigmas"} and model.usual_steps != base.steps:
            shared["steps"] = model.usual_steps
            base = rules.settings_of(shared)
        self._set(shared, cast(Columns, columns) if start is None else start(model, base))
        self.live, self.attention = live, attention
        self._ready = True
        self._build()
        self.observe(self._on_change, names=["columns", "shared"])
        self.viewer.tell(notes=self._notes())
        self._foretell()
        self.settle_in()

    def __repr__(self) -> str:
        return f"Compare({list(self.columns)}, {', '.join(f'{k}={v!r:.40}' for k, v in self.shared.items())})"

    # --- what people call ---

    @property
    def settings(self) -> dict[str, Settings]:
        """What each column would run, with every None filled in; columns that this model refuses are left out."""
        return {label: plan.settings for label, plan in self._plans()[0].items()}

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
        opens, handed = as_code(self._extra)
        return (
            f"import diffexplore as dx\n{opens}\n{self.model.code()}"
            f"compare = dx.Compare(\n    {{\n{columns}    }},\n    model=model,\n{lines}{handed})\n"
            "traces = compare.run()\n"
        )

    def to_json(self) -> str:
        """Columns and shared settings as JSON, for `from_json` of another `Compare`."""
        return rules.to_json(self.shared, self.columns)

    def from_json(self, text: str) -> None:
        """Take columns and shared settings from `to_json`'s text.

        Raises:
            ValueError: One sentence, for text that is none; nothing has changed then.
        """
        self._set(*rules.from_json(text))

    def plot(self) -> Figure:
        """Where the runs part: the distance of each one's x0 from the first column's, against the noise level.

        Raises:
            ValueError: There are not two runs yet.
        """
        return figures.plot_parting(self.traces)

    def close(self) -> None:
        """Stop what is going and take the widget off every page."""
        if self._ready:  # Python calls this too for what was never finished, because its settings were refused
            self._runner.close()
            close_parts(self)
            self._board.close()
        super().close()

    # --- settings ---

    @traitlets.validate("columns")
    def _check_columns(self, proposal: Any) -> Columns:
        asked = rules.checked(self.shared, proposal["value"])
        self._asked = asked
        return {label: rules.plain(own, asked[label]) for label, own in proposal["value"].items()}

    @traitlets.validate("shared")
    def _check_shared(self, proposal: Any) -> dict[str, Any]:
        shared = rules.plain(proposal["value"], rules.settings_of(proposal["value"]))
        self._asked = rules.checked(shared, self.columns)
        return shared

    def _set(self, shared: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
        """Both at once: columns may only make sense with the new shared settings."""
        with self.hold_trait_notifications():
            self.shared, self.columns = dict(shared), dict(columns)

    def _plans(self) -> tuple[dict[str, Plan], dict[str, str]]:
        """What each column runs, and why others cannot."""
        plans, errors = {}, {}
        for label, asked in self._asked.items():
            try:
                plans[label] = self._plan_of(asked, self._extra)
            except ValueError as error:
                errors[label] = sentence(error)
        return plans, errors

    def _on_change(self, _: Any) -> None:
        self._show()
        self.viewer.tell(error="", notes=self._notes())
        self._foretell()
        if self.live or self.status == "running":
            self._runner.quietly(lambda: self._runner.start_soon(TYPING if self._typing else 0.0))

    def _foretell(self) -> None:
        """Say what the next runs will be, and whether those on show are that already."""
        plans = list(self._plans()[0].values())
        told = outlook(self.model, [plan.settings for plan in plans], plans) if plans else {}
        self.viewer.expect(list(self.columns), **told)
        self._runner.say_truth()

    def _notes(self) -> list[str]:
        """What of the settings will be cut or ignored, said once with the columns it holds for."""
        plans, errors = self._plans()
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
        plans, self._refused = self._plans()
        self.errors = dict(self._refused)
        if not plans:
            raise ValueError(_joined(self.errors))
        return plans

    def _say_ends(self, jobs: Jobs) -> None:
        """Say how it ended, once all columns have."""
        failed = {label: sentence(job.error) for label, job in jobs.items() if job.error is not None}
        self.errors = self._refused | failed
        said = {"error": _joined(self.errors)} if self.errors else {}
        self.viewer.code = self.code()
        self.viewer.tell(notes=self._notes(), **said)

    def _set_status(self, status: str) -> None:
        self.set_trait("status", status)
        self._stop.disabled = status != "running"

    def _start(self) -> None:
        self._runner.quietly(self._runner.start)

    # --- the controls ---

    def _build(self) -> None:
        self._names = (*names_for(self.model), *noise_for(self.model))
        style = {"description_width": "initial"}
        self._vary = ipywidgets.Dropdown(
            description="compare", options=["(several)", *map(_word, self._names)], style=style, layout=layout()
        )
        self._preset = ipywidgets.Dropdown(
            description="start from", options=["(own)", *PRESETS], style=style, layout=layout()
        )
        self._go = button("Run", "draw all columns (Ctrl+Enter)", "play", "run", button_style="primary")
        self._stop = button("", "Stop", "stop", "icon", "stop", disabled=True)
        live = live_box()
        self._more = button("+", "add a column", "", "icon")
        self._fewer = button("−", "remove the last column", "", "icon")
        self._board = Board(
            self.model,
            self._names,
            taken=lambda k, name, value: self._heed(lambda: self._take(k, name, value)),
            renamed=lambda k, label: self._heed(lambda: self._rename(k, label)),
            entered=self._start,
        )
        self._json = ipywidgets.Textarea(rows=8, layout=layout(), **titled("settings as JSON"))
        take = button("Use this", "take the settings in the field")

        self._preset.observe(lambda change: self._heed(lambda: self._take_preset(change["new"])), names="value")
        self._vary.observe(lambda change: self._heed(lambda: self._take_vary(change["new"])), names="value")
        self._go.on_click(lambda _: self._start())
        self._stop.on_click(lambda _: self.cancel())
        self._more.on_click(lambda _: self._heed(self._add))
        self._fewer.on_click(lambda _: self._heed(self._remove))
        take.on_click(lambda _: self._heed(lambda: self.from_json(self._json.value), keep_text=True))
        traitlets.link((self, "live"), (live, "value"))

        board = self._board
        json = marked(chip("Settings", "copy and paste all settings", self._json, take), "json")
        app(self, [
            row(marked(self._vary, "vary"), board.text, self._go, self._stop, *self._eye(), live, names=("first",)),
            row(board.chips, marked(self._preset, "preset"), self._fewer, self._more, json),
            marked(board.columns, "row"),
            self.viewer,
        ])  # fmt: skip
        self._show()

    def _varied(self) -> list[str]:
        """Names that some column has of its own, in the order of the controls."""
        return [name for name in self._names if any(name in own for own in self.columns.values())]

    def _show(self) -> None:
        """Let the controls show the traits."""
        varied = self._varied()
        self._board.show(self.columns, varied, self._value)
        self._vary.value = _word(varied[0]) if len(varied) == 1 else "(several)"
        self._more.disabled, self._fewer.disabled = len(self.columns) >= MOST, len(self.columns) <= FEWEST
        self._json.value = self.to_json()

    def _value(self, k: int, name: str) -> Any:
        """What column `k` has of a setting, its own or what all share; the model's own where it is left to it."""
        own = {} if k == SHARED else list(self.columns.values())[k]
        value = own.get(name, self.shared.get(name))
        value = getattr(self._defaults, name) if value is None else value
        return dict(value) if name == "adapters" else value

    def _take(self, k: int, name: str, value: Any) -> None:
        """What a control says; a column's label that only says its values follows them."""
        if value == self._value(k, name):
            return
        self._typing = name in TEXTS
        try:
            if k == SHARED:
                self.shared = {one: now for one, now in (self.shared | {name: value}).items() if now is not None}
                return
            label, before = list(self.columns.items())[k]
            own = {**before, name: value}
            self._put(k, rules.relabelled(label, before, own), own)
        finally:
            self._typing = False

    def _rename(self, k: int, new: str) -> None:
        label, own = list(self.columns.items())[k]
        if new != label:
            self._put(k, new.strip() or label, own)
            self._show()  # an empty label is none

    def _put(self, k: int, label: str, own: dict[str, Any]) -> None:
        columns = list(self.columns.items())
        columns[k] = rules.free(label, [other for j, (other, _) in enumerate(columns) if j != k]), own
        self.columns = dict(columns)

    def _add(self) -> None:
        last = list(self.columns.values())[-1]
        self.columns = {**self.columns, rules.free(rules.label_of(last), self.columns): dict(last)}

    def _remove(self) -> None:
        self.columns = dict(list(self.columns.items())[:-1])

    def _take_preset(self, name: str) -> None:
        if name in PRESETS:
            self.columns = PRESETS[name](self.model, rules.settings_of(self.shared))

    def _take_vary(self, word: str) -> None:
        """Let the columns differ in one setting only, which starts with what they have of it."""
        name = word.replace(" ", "_")
        if name in self._names and self._varied() != [name]:
            self.columns = rules.with_one(name, [self._value(k, name) for k in range(len(self.columns))])

    def _heed(self, action: Callable[[], object], keep_text: bool = False) -> None:
        """Do what a control asked for. What is refused is said, and the controls go back to what runs; a long text
        that was pasted stays, to be put right."""
        try:
            action()
        except ValueError as error:
            text = self._json.value
            self._show()
            if keep_text:
                self._json.value = text
            self.viewer.tell(error=sentence(error))
        else:
            self.viewer.tell(error="")


def _word(name: str) -> str:
    """A setting as people call it."""
    return name.replace("_", " ")


def _joined(errors: Mapping[str, str]) -> str:
    return " ".join(f"{label}: {why}" for label, why in errors.items())
