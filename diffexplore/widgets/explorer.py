"""`Explorer`: controls around a viewer.

What the controls say lives in traits of the Explorer (``prompt``, ``steps``, ...), checked by `Settings`, so that code
and mouse do the same thing: setting a trait moves its control, moving a control sets its trait. Handlers only note and
submit. The model's own worker thread runs, the viewer's thread encodes and sends; a run replaced by a newer one simply
ends as cancelled, and nobody looks at it again.

When a run starts: on `run`, on the Run button and Enter in a text, and at each change of a setting while ``live`` is on
or a run is going, of a text when the typing pauses. Elsewhere a changed setting waits. A change leaves the run it
replaces its first `runner.HEAD_START` seconds: a slider that is dragged changes every few milliseconds, and runs that
were all replaced before their first step would show nothing. One that will be over soon is finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import ipywidgets
import traitlets

from diffexplore.pipelines.signature import alike
from diffexplore.samplers import named, unknown
from diffexplore.settings import Settings, as_dict
from diffexplore.widgets.branches import Branches
from diffexplore.widgets.code import code_of
from diffexplore.widgets.controls import (
    NAMES,
    TEXTS,
    app,
    button,
    close_parts,
    control,
    layout,
    live_box,
    marked,
    model_of,
    names_for,
    on_enter,
    row,
    sentence,
)
from diffexplore.widgets.extras import Extras, extras_for
from diffexplore.widgets.eye import Looks
from diffexplore.widgets.handing import Handing
from diffexplore.widgets.leveled import Leveled, Setting
from diffexplore.widgets.near import NOISE, beside, noise_for
from diffexplore.widgets.notebook import InNotebook, watched
from diffexplore.widgets.reach import marks_of
from diffexplore.widgets.recipes import Recipes
from diffexplore.widgets.runner import TYPING, Jobs, Runner, outlook, planning
from diffexplore.widgets.stages import Stages
from diffexplore.widgets.viewer import Viewer
from diffexplore.widgets.what_if import WhatIf

if TYPE_CHECKING:
    from diffexplore.model import Model
    from diffexplore.runs.plan import Plan
    from diffexplore.trace import Trace

__all__ = ["Explorer"]

_TRAITS: Final = (*NAMES, "adapters", "skips", "changes", *NOISE, "guider", "sigmas", "fresh_noise")
_OWN: Final = Settings.model_fields.keys() - {"strength"}  # settings that are no matter of a picture handed over


class Explorer(Looks, Branches, Leveled, Handing, Recipes, InNotebook, ipywidgets.Box):  # type: ignore[misc]
    """One denoising run with everything in reach.

    Args:
        model: A `Model` (see ``diffexplore.load``). None: the pocket model that comes with the package.
        attention: Whether runs keep where words look, which is then a click on a word away.
        **settings: What `Settings` takes, and ``live``: whether every change of a setting starts a run (default
            False), and the first display. And what the pipeline takes beyond settings, such as ``image=``, see
            `Model.extras`.

    Attributes:
        prompt, negative_prompt, steps, guidance, seed, sampler: The settings, as traits: assign to them, observe them.
            A value that makes no sense is refused with a ValueError, said in the widget too, and changes nothing.
        changes: What changes on the way, as `Settings` takes it; the tab "Reach in" puts marks.
        adapters: Name -> scale of the LoRAs to use, kept as pairs; each that the model had loaded when the Explorer was
            made has a slider.
        extra: Name -> value of what is handed to the pipeline beyond settings, without what it takes anyway. A picture
            is kept as it is handed over; assign another dict to change it.
        skips: Strengths of the stages of a U-Net, kept as pairs; there are sliders where the model has stages.
        guider: How the predictions with and without the prompt are mixed, one of ``diffexplore.GUIDERS``; there is a
            menu where the model makes both.
        sigmas, fresh_noise: Noise levels in place of the sampler's own, as many as ``steps``; how much of the noise of
            each next level is drawn anew; or None. The tab "Levels" has both.
        variation: Another seed, and how far the starting noise is turned towards its noise, as ``(7, 0.2)``; or None.
        watermark: The key of a hidden mark in the starting noise, which `diffexplore.detect` finds again; or None.
        live: Whether a change of a setting starts a run. While a run is going, a change replaces it in any case.
        status: "idle", "running", "done", "cancelled" or "failed"; read only.
        branched: The newest runs that are branches or have some, by number; read only.
        viewer: The `Viewer` inside.

    Raises:
        ValueError: One sentence: a setting that makes no sense (said before a model is loaded), or one that this model
            cannot do.

    Examples:
        >>> explorer = Explorer(prompt="a red fox in the snow", steps=20)  # doctest: +SKIP
        >>> trace = explorer.run()  # doctest: +SKIP
    """

    prompt = Setting("", help="What the picture should show.")
    negative_prompt = Setting("", help="What it should not show; acts only with a guidance above 1.")
    steps = Setting(20, help="Denoising steps, 1 to 1000.")
    guidance = Setting(5.0, help="0 to 100; 1 is off.")
    seed = Setting(0, help="0 to 2**63 - 1.")
    sampler = Setting(None, help="A name from `Model.samplers`; None: the model's own.")
    adapters = Setting((), help="Name -> scale of the LoRAs to use, kept as pairs.")
    guider = Setting("CFG", help="How predictions with and without the prompt are mixed.")
    skips = Setting((), help="Strengths of the stages of a U-Net, or FreeU, kept as pairs.")
    changes = Setting((), help="What changes on the way, by share of noise, kept as pairs.")
    variation = Setting(None, help="Another seed, and how far the starting noise is turned towards it.")
    watermark = Setting(None, help="The key of a hidden mark in the starting noise.")
    live = traitlets.Bool(False, help="Whether a change of a setting starts a run.")
    status = traitlets.Unicode("idle", read_only=True, help='"idle", "running", "done", "cancelled" or "failed".')

    _ready = False
    _following = False  # the settings follow a run that was started already
    _typing = False  # a setting comes from a field that is being typed in

    def __init__(
        self, model: Model | None = None, *, live: bool = False, attention: bool = False, **settings: Any
    ) -> None:
        """The widget, with nothing run yet; the class says what the arguments are."""
        beyond = {name: settings.pop(name) for name in list(settings) if name not in _OWN}
        asked = Settings(**settings)  # refuses nonsense before a model is loaded
        self.model = model_of(model, "Explorer")
        if "steps" not in settings and asked.sigmas is None:
            asked = asked.replace(steps=self.model.usual_steps)
        self._plan_of = planning(self.model)
        self._beyond = extras_for(self.model)
        beyond = self._right(asked, beyond)
        self._asked = asked = self._take(asked, beyond)
        self._plain = self.model.resolve(Settings())
        self._size = {"width": asked.width, "height": asked.height}
        self._wrong: dict[str, str] = {}  # setting -> why what stands in its control was refused
        self.viewer = Viewer(layout=layout())
        self._runner = Runner(
            self.model, self.viewer,
            ask=self._ask, status=self._set_status, settled=self._say_failure, notes=self._notes,
            looks=lambda: self.attention, wanted=self._wanted,
        )  # fmt: skip
        self._what_if = WhatIf(self.viewer, self._runner.traces_of)
        self._reach = self._reaching()
        self._leveling()
        self._still = self.model.planner.still("changes")
        super().__init__(layout=layout())
        for name in _TRAITS:
            self.set_trait(name, getattr(asked, name))
        self.extra = beyond
        self.live, self.attention = live, attention
        self._build()
        self._ready = True
        self.observe(self._on_setting, names=[*_TRAITS, "extra"])
        self._foretell()
        self._say_wrong()
        self.settle_in()

    def __repr__(self) -> str:
        return (
            f"Explorer(prompt={self.prompt!r:.60}, steps={self.steps}, guidance={self.guidance:g}, "
            f"seed={self.seed}, sampler={self.sampler!r})"
        )

    # --- what people call ---

    @property
    def settings(self) -> Settings:
        """What the next run would use, with every None filled in."""
        return self._filled(self._asked_now(), self.extra)

    @property
    def trace(self) -> Trace | None:
        """The newest run that has a step: still growing while ``status`` is "running", None before the first."""
        return next(reversed(self._runner.traces.values()), None)

    def run(self) -> Trace:
        """Run the settings and wait; the pictures appear meanwhile.

        Returns:
            The run, complete and in the viewer. If something replaced it meanwhile, the one that did. If ``cancel``
            stopped it, the steps so far, with ``cancelled`` True.

        Raises:
            ValueError: The settings are refused, or what stands in a control is; nothing was started.
            KeyboardInterrupt: The kernel was interrupted. The run is stopped, and what it made is in the viewer and in
                ``trace``.
        """
        (job,) = self._runner.run().values()
        return job.result()

    def cancel(self) -> None:
        """Stop the run that is going, if any. Returns at once; what was made stays on show."""
        self._runner.cancel()

    def code(self) -> str:
        """Python that makes the same run, with the model that `Model.code` opens."""
        moves = self.trace is not None and self.trace.kind in ("video", "sound")
        return code_of(
            self.model, self.settings, self._plain, self.extra,
            attention=self.attention, moves=moves, branch=self._untold(),
        )  # fmt: skip

    def close(self) -> None:
        """Stop what is going and take the widget off every page."""
        if self._ready:  # Python calls this too for what was never finished, because its settings were refused
            self._runner.close()
            close_parts(self)
        super().close()

    # --- settings ---

    def _asked_now(self) -> Settings:
        values = {name: getattr(self, name) for name in _TRAITS}
        asked = self._asked
        if any(getattr(asked, name) != value for name, value in values.items()):
            asked = self._asked = Settings(**values, **self._size)
        return asked

    @traitlets.validate(*_TRAITS)
    def _checked(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        if not self._ready:  # the constructor's, checked already
            return value
        others = {other: getattr(self, other) for other in _TRAITS if other != name}
        try:
            if name == "sampler" and isinstance(value, str) and named(value) is None:
                raise ValueError(unknown(value, self.model.samplers))
            others = self._fitting(name, value, others)
            asked = self._take(Settings(**{name: value}, **others, **self._size), self.extra)
        except ValueError as error:
            self.viewer.tell(error=sentence(error))
            raise
        self._asked = asked
        if self._wrong.pop(name, None) is not None:
            self._say_wrong()
            self._show(name, getattr(asked, name))
        return getattr(asked, name)

    def _on_setting(self, change: Any) -> None:
        """A setting has changed, by whatever hand."""
        if change["name"] == "extra":
            self._show_extra()
        else:
            self._keep_step(change["name"], change["new"])
            self._show(change["name"], change["new"])
            self._try_again()
        self._say_wrong()
        self._foretell()
        self._run_if_live(TYPING if self._typing else 0.0)

    def _try_again(self) -> None:
        """What was refused beside another setting may go with what that is now: it stands in its control still."""
        if self._following:
            return
        for name in [one for one in self._wrong if one in self._controls]:
            try:
                self.set_trait(name, self._controls[name].value)
            except ValueError as error:
                self._wrong[name] = sentence(error)

    def _foretell(self) -> None:
        """Say what the next run will be."""
        settings = self.settings
        if not self._still:
            self.viewer.mark(marks_of(settings))
            self._say_kin()
        self._say_levels(settings)
        self.viewer.tell(notes=self._notes())
        self.viewer.expect(**outlook(self.model, [settings], () if self._lack() else [self._plan()]))
        self._say_recipe()

    def _notes(self) -> list[str]:
        """What is known of the next run, and what the one on show has told where it is that."""
        if self._lack():
            return []
        notes, trace = list(self._plan().notes), self.trace
        told = trace.info.get("notes", ()) if trace is not None and self._is_asked(trace) else ()
        return [*notes, *(note for note in told if note not in notes), *self._of_recipe()]

    def _is_asked(self, trace: Trace) -> bool:
        """Whether a run is what the controls say."""
        if self._lack():
            return False
        plan = self._plan()
        return trace.settings == plan.settings and alike(trace.extra, plan.extra)

    def _run_if_live(self, pause: float = 0.0) -> None:
        if self._following:
            return
        if (self.live or self.status == "running") and not self._wrong and not self._lack():
            self._runner.start_soon(pause)

    def _say_wrong(self) -> None:
        lack = self._lack()
        needs = [f"Nothing can be drawn yet: {sentence(lack)}"] if lack else []
        self.viewer.tell(error=" ".join([*self._wrong.values(), *needs]))
        self._runner.say_truth()

    # --- runs ---

    def _ask(self) -> dict[str, Plan]:
        """What to run. What stands in a control and was refused is not passed over for the value before it."""
        if self._wrong:
            raise ValueError(" ".join(self._wrong.values()))
        self._pair = None
        return {"": self._plan()}

    def _wanted(self) -> dict[str, Plan] | str | None:
        """What the controls say, to be held against what is on show."""
        if self._wrong:
            return None
        lack = self._lack()
        if lack is None:
            plan = self._plan()
            return self._paired(plan.settings) or {"": plan}
        return f"waits for {' and '.join(lack.names)}"

    def _follow(self, settings: Settings, extra: Mapping[str, Any]) -> None:
        """Let the controls say what is run already."""
        self._following = True
        try:
            if not alike(self.extra, extra):
                self.extra = dict(extra)
            for name in _TRAITS:
                self.set_trait(name, getattr(settings, name))
        finally:
            self._following = False

    def _take_over(self, settings: Settings, size: Mapping[str, Any]) -> None:
        asked = self._take(settings.model_copy(update=dict(size)), self.extra)  # refused before anything is changed
        self._size, self._asked = dict(size), asked
        self._wrong.clear()
        self._following = True
        try:
            with self.hold_trait_notifications():  # between old and new may lie what nobody asked for
                for name in _TRAITS:
                    self.set_trait(name, getattr(asked, name))
        finally:
            self._following = False
        self._say_wrong()
        self._foretell()
        self._run_if_live()

    def _say_failure(self, jobs: Jobs) -> None:
        self._say_kin(jobs)
        for job in jobs.values():
            if job.error is not None:
                self.viewer.tell(error=f"The run failed: {sentence(job.error)}")
            elif self._is_asked(job.trace):
                self.viewer.code = self.code()
                self.viewer.tell(notes=self._notes())

    def _ipython_display_(self, **more: Any) -> None:
        """Live from the first: where it is shown before anything was run, it draws."""
        super()._ipython_display_(**more)
        if self.live and not self._runner.jobs and self.comm is not None:
            self._runner.quietly(self._runner.start if watched() else self._runner.run)

    def _set_status(self, status: str) -> None:
        self.set_trait("status", status)
        self._stop.disabled = status != "running"

    # --- the controls ---

    def _build(self) -> None:
        self._controls = {name: control(name, self.model) for name in names_for(self.model)}
        if self.model.stages:
            self._controls["skips"] = Stages(self.model.stages)
        self._controls |= {name: NOISE[name]() for name in noise_for(self.model)}
        # Not where the model is made to learn from, unless something of it is used.
        if self._beyond and (self.model.origin.kind != "pocket" or self.extra):
            self._more = Extras(self._beyond, taken=self._from_extra, refused=lambda why: self.viewer.tell(error=why))
        self._go = button("Run", "draw with these settings (Ctrl+Enter)", "play", "run", button_style="primary")
        self._stop = button("", "Stop", "stop", "icon", "stop", disabled=True)
        live = live_box()
        self._show_extra()
        for name, one in self._controls.items():
            self._show(name, getattr(self, name))
            one.observe(lambda change, name=name: self._from_control(name, change["new"]), names="value")
        for name in TEXTS:
            on_enter(self._controls[name], lambda: self._runner.quietly(self._runner.start))
        self._go.on_click(lambda _: self._runner.quietly(self._runner.start))
        self._stop.on_click(lambda _: self.cancel())
        traitlets.link((self, "live"), (live, "value"))

        seed, noise = self._controls["seed"], [self._controls[name] for name in NOISE if name in self._controls]
        first = [self._controls[name] for name in (*TEXTS, "guider") if name in self._controls]
        rows = [
            row(*first, self._go, self._stop, *self._eye(), live, names=("first",)),
            row(
                *(self._controls[name] for name in ("steps", "guidance")),
                beside(seed, *noise) if noise else seed,
                *(self._controls[name] for name in ("sampler", "skips") if name in self._controls),
                *([self._more.box] if self._more else []),
                self._recipe_chip(),
            ),
        ]
        if "adapters" in self._controls:
            rows.append(row(marked(self._controls["adapters"], "wide")))
        app(self, [*rows, self.viewer])

    def _run_if_stale(self) -> None:
        """What was refused was put right: run where the newest run is another."""
        newest = next(iter(self._runner.jobs.values()), None)
        if newest is not None and not self._is_asked(newest.trace):
            self._run_if_live()

    def _show(self, name: str, value: Any) -> None:
        """Let the control of a setting show it, where it has one."""
        if name in self._controls:
            self._controls[name].show(value)

    def _from_control(self, name: str, value: Any) -> None:
        """Let a trait follow its control. What is refused is said in place, and stays in the control to be put
        right: until then Run refuses."""
        held_up = name in self._wrong
        if not held_up and value == _plain(getattr(self, name)):
            return  # it shows what it was told to
        if name == "prompt" and self._is_recipe(value):
            return
        self._typing = name in TEXTS
        try:
            self.set_trait(name, value)
        except ValueError as error:
            self._wrong[name] = sentence(error)
            self._say_wrong()
        else:
            if held_up:
                self._run_if_stale()
        finally:
            self._typing = False


def _plain(value: Any) -> Any:
    """A setting as a control says it: LoRAs as a dict, not as pairs."""
    return as_dict(value) if isinstance(value, tuple) else value
