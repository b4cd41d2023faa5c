"""`Explorer`: controls around a viewer.

What the controls say lives in traits of the Explorer (``prompt``, ``steps``, ...), checked by `Settings`, so that code
and mouse do the same thing: setting a trait moves its control, moving a control sets its trait. Handlers only note and
submit. The model's own worker thread runs, the viewer's thread encodes and sends; a run replaced by a newer one simply
ends as cancelled, and nobody looks at it again.

When a run starts: on `run`, on the Run button, and at each change of a setting while ``live`` is on or a run is going.
Elsewhere a changed setting waits. A change leaves the run it replaces its first `_HEAD_START` seconds: a slider that is
dragged changes every few milliseconds, and runs that were all replaced before their first step would show nothing.
"""

from __future__ import annotations

import contextvars
import secrets
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

import ipywidgets
import traitlets

from diffexplore.settings import Settings
from diffexplore.widgets.controls import NAMES, close_all, control, layout, pocket, sentence, show, value_of
from diffexplore.widgets.film import Status
from diffexplore.widgets.viewer import Feed, Viewer

if TYPE_CHECKING:
    from diffexplore.model import Job, Model
    from diffexplore.trace import Trace

__all__ = ["Explorer"]

_TRAITS: Final = (*NAMES, "adapters")
_HINT_AFTER: Final = 1.5  # seconds a cell waits before it is said how to stop it
_HEAD_START: Final = 0.2  # seconds a run has before a changed setting may replace it


class Explorer(ipywidgets.Box):  # type: ignore[misc]
    """One denoising run with everything in reach.

    Args:
        model: A `Model` (see ``diffexplore.load``). None: the pocket model that comes with the package.
        **settings: What `Settings` takes, and ``live``: whether every change of a setting starts a run (default False).

    Attributes:
        prompt, negative_prompt, steps, guidance, seed, sampler: The settings, as traits: assign to them, observe them.
            A value that makes no sense is refused with a ValueError, said in the widget too, and changes nothing.
        adapters: Name -> scale of the LoRAs to use, kept as pairs; each that the model had loaded when the Explorer was
            made has a slider.
        live: Whether a change of a setting starts a run. While a run is going, a change replaces it in any case.
        status: "idle", "running", "done", "cancelled" or "failed"; read only.
        viewer: The `Viewer` inside.

    Raises:
        ValueError: One sentence: a setting that makes no sense (said before a model is loaded), or one that this model
            cannot do.

    Examples:
        >>> explorer = Explorer(prompt="a red fox in the snow", steps=20)  # doctest: +SKIP
        >>> trace = explorer.run()  # doctest: +SKIP
    """

    # Any, because Settings does the checking, and says what is accepted.
    prompt = traitlets.Any("", help="What the picture should show.")
    negative_prompt = traitlets.Any("", help="What it should not show; acts only with a guidance above 1.")
    steps = traitlets.Any(20, help="Denoising steps, 1 to 1000.")
    guidance = traitlets.Any(5.0, help="0 to 100; 1 is off.")
    seed = traitlets.Any(0, help="0 to 2**63 - 1.")
    sampler = traitlets.Any(None, help="A name from `Model.samplers`; None: the model's own.")
    adapters = traitlets.Any((), help="Name -> scale of the LoRAs to use, kept as pairs.")
    live = traitlets.Bool(False, help="Whether a change of a setting starts a run.")
    status = traitlets.Unicode("idle", read_only=True, help='"idle", "running", "done", "cancelled" or "failed".')

    _ready = False

    def __init__(self, model: Model | None = None, *, live: bool = False, **settings: Any) -> None:
        """The widget, with nothing run yet; the class says what the arguments are."""
        asked = Settings(**settings)  # refuses nonsense before a model is loaded
        if model is None:
            model = pocket()
        asked = model.resolve(asked)
        self.model = model
        self._size = {"width": settings.get("width"), "height": settings.get("height")}
        self._lock = threading.RLock()  # around the fields below
        self._job: Job | None = None
        self._feed: Feed | None = None
        self._trace: Trace | None = None
        self._began = -_HEAD_START  # when the newest run was started
        self._due: threading.Timer | None = None  # a run that a changed setting asked for, to start in a moment
        self._starting = False
        self._blocked = False  # a cell waits in `run` and settles what happens
        self.viewer = Viewer()
        super().__init__()
        for name in _TRAITS:
            self.set_trait(name, getattr(asked, name))
        self.live = live
        self._build()
        self._ready = True
        self.observe(self._on_setting, names=list(_TRAITS))
        self._say_notes(asked)

    def __repr__(self) -> str:
        return (
            f"Explorer(prompt={self.prompt!r:.60}, steps={self.steps}, guidance={self.guidance:g}, "
            f"seed={self.seed}, sampler={self.sampler!r})"
        )

    # --- what people call ---

    @property
    def settings(self) -> Settings:
        """What the next run would use, with every None filled in."""
        return self.model.resolve(Settings(**{name: getattr(self, name) for name in _TRAITS}, **self._size))

    @property
    def trace(self) -> Trace | None:
        """The newest run that has a step: still growing while ``status`` is "running", None before the first."""
        with self._lock:
            if self._job is not None and len(self._job.trace):
                self._trace = self._job.trace
            return self._trace

    def run(self) -> Trace:
        """Run the settings and wait; the pictures appear meanwhile.

        Returns:
            The run, complete and in the viewer. If something replaced it meanwhile, the one that did. If ``cancel``
            stopped it, the steps so far, with ``cancelled`` True.

        Raises:
            ValueError: The settings are refused; nothing was started.
            KeyboardInterrupt: The kernel was interrupted. The run is stopped, and what it made is in the viewer and in
                ``trace``.
        """
        try:
            job, feed = self._start(here=True)
        except KeyboardInterrupt:
            self._let_go()
            raise
        begun = time.monotonic()
        hinted = False

        def over() -> bool:
            nonlocal hinted
            if not hinted and time.monotonic() - begun > _HINT_AFTER:
                hinted = True
                hint = "A cell is waiting for this run. To stop it, interrupt the kernel (the square button above)."
                self.viewer.tell(notes=[*self.model.notes(job.trace.settings), hint])
            return feed.complete.is_set() and job.done()

        try:
            while True:
                try:
                    self.viewer.drive(over)
                except KeyboardInterrupt:
                    job.cancel()
                    self.viewer.drive(over)
                    raise
                with self._lock:
                    if self._job is job or self._job is None or self._feed is None:
                        break
                    job, feed = self._job, self._feed  # replaced while we waited
        finally:
            with self._lock:
                self._blocked = False
            self._settle()
            if hinted:
                self._say_notes(job.trace.settings)
        return job.result()

    def _let_go(self) -> None:
        """An interrupt came while a run was being started: leave nothing that waits for it."""
        with self._lock:
            self._starting = self._blocked = False
            job = self._job
        self.viewer.release()
        self.cancel()
        if job is not None:
            job.add_done_callback(lambda _: self._settle())

    def cancel(self) -> None:
        """Stop the run that is going, if any. Returns at once; what was made stays on show."""
        with self._lock:
            self._forget_due()
            job = self._job
        if job is not None:
            job.cancel()
        self._settle()  # where nothing was running any more, but something was due

    def code(self) -> str:
        """Python that makes the same run, with the model that `Model.code` opens."""
        settings = self.settings
        plain = self.model.resolve(Settings())
        values = {"prompt": settings.prompt} | {name: values[0] for name, values in settings.diff(plain).items()}
        always = {name: getattr(settings, name) for name in ("steps", "guidance", "seed", "sampler")}
        arguments = "".join(f"    {name}={value!r},\n" for name, value in (values | always).items())
        return f"import diffexplore as dx\n\n{self.model.code()}trace = model.trace(\n{arguments})\ntrace.image\n"

    def close(self) -> None:
        """Stop what is going and take the widget off every page."""
        if self._ready:  # Python calls this too for what was never finished, because its settings were refused
            self.cancel()
            close_all(self)
        super().close()

    # --- settings ---

    @traitlets.validate(*_TRAITS)
    def _checked(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        try:
            checked = Settings(**{name: value})
            if self._ready:
                others = {other: getattr(self, other) for other in _TRAITS if other != name}
                checked = self.model.resolve(checked.replace(**others, **self._size))
        except ValueError as error:
            if self._ready:
                self.viewer.tell(error=sentence(error))
            raise
        return getattr(checked, name)

    def _on_setting(self, change: Any) -> None:
        """A setting has changed, by whatever hand."""
        self._show_setting(change["name"])
        self.viewer.tell(error="")
        settings = self.settings
        self._say_notes(settings)
        if self.live or self.status == "running":
            self._start_soon()

    def _say_notes(self, settings: Settings) -> None:
        self.viewer.tell(notes=self.model.notes(settings))

    # --- runs ---

    def _start(self, here: bool = False) -> tuple[Job, Feed]:
        with self._lock:
            self._forget_due()
            try:
                self._starting = True
                settings = self.settings
                job = self.model.submit(settings, on_step=lambda _: self.viewer.wake())
                job.trace.info.setdefault("unknown", self.model.unknown_words(settings.prompt))
            except ValueError as error:
                self._starting = False
                self._settle()
                self.viewer.tell(error=sentence(error))
                raise
            self._starting = False
            self._began = time.monotonic()
            _ = self.trace  # keep the run before, should this one never make a step
            feed = self.viewer.feed([job.trace], here=here)
            self._job, self._feed = job, feed
            self._blocked = self._blocked or here
            self._set_status("running")
        self.viewer.tell(error="")
        job.add_done_callback(lambda job: self._ended(job, feed))
        return job, feed

    def _start_soon(self) -> None:
        """Start a run, now or when the newest one has had its head start, with what the settings then are."""
        with self._lock:
            if self._due is not None:
                return
            wait = self._began + _HEAD_START - time.monotonic()
            if wait > 0:
                context = contextvars.copy_context()
                self._due = threading.Timer(wait, context.run, args=(self._quietly, self._start_due))
                self._due.daemon = True
                self._due.start()
                self._set_status("running")
                return
        self._start()

    def _start_due(self) -> None:
        with self._lock:
            if self._due is threading.current_thread():  # else it was called off at the last moment
                self._start()

    def _forget_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _ended(self, job: Job, feed: Feed) -> None:
        """A run is over; called by whichever thread ended it."""
        self.viewer.end(feed, cast(Status, job.status))
        with self._lock:
            blocked = self._blocked
        if not blocked:
            self._settle()

    def _settle(self) -> None:
        """Say how the newest run ended, if it has and no other is about to start."""
        with self._lock:
            job = self._job
            if self._starting or self._due is not None or (job is not None and not job.done()):
                return
            if job is not None and job.error is not None:
                self.viewer.tell(error=f"The run failed: {sentence(job.error)}")
            self._set_status("idle" if job is None else job.status)

    def _set_status(self, status: str) -> None:
        self.set_trait("status", status)
        self._stop.disabled = status != "running"

    # --- the controls ---

    def _build(self) -> None:
        self._controls: dict[str, Any] = {name: control(name, self.model) for name in NAMES}
        dice = ipywidgets.Button(icon="random", tooltip="another seed", layout=layout(width="36px", flex="none"))
        self._go = ipywidgets.Button(
            description="Run", icon="play", button_style="primary", layout=layout(flex="1 1 80px")
        )
        self._stop = ipywidgets.Button(description="Stop", icon="stop", disabled=True, layout=layout(flex="1 1 80px"))
        live = ipywidgets.Checkbox(
            description="live", indent=False, tooltip="run at every change", layout=layout(flex="none")
        )
        for name in NAMES:
            self._show_setting(name)
            self._controls[name].observe(
                lambda change, name=name: self._from_control(name, change["new"]), names="value"
            )
        dice.on_click(lambda _: self._from_control("seed", secrets.randbelow(2**32)))
        self._go.on_click(lambda _: self._quietly(self._start))
        self._stop.on_click(lambda _: self.cancel())
        traitlets.link((self, "live"), (live, "value"))

        seed = ipywidgets.HBox([self._controls["seed"], dice], layout=layout(align_items="center", grid_gap="4px"))
        buttons = ipywidgets.HBox(
            [self._go, self._stop, live],
            layout=layout(align_items="center", grid_gap="8px"),
        )
        order = ("prompt", "negative_prompt", "steps", "guidance", "sampler")
        for whole in (self._controls["prompt"], self._controls["negative_prompt"], buttons):
            whole.add_class("dx-line")  # the width of the grid; ipywidgets does not pass on `grid_column`
        self._scales = {name: self._scale(name) for name in self.model.adapters}
        self._show_setting("adapters")
        panel = ipywidgets.GridBox([*(self._controls[name] for name in order), seed, *self._scales.values(), buttons])
        panel.add_class("dx-controls")
        panel.layout = layout(
            flex="1 1 250px",
            grid_template_columns="repeat(auto-fit, minmax(min(100%, 220px), 1fr))",
            grid_gap="6px 12px",
        )
        self.viewer.layout = layout(flex="3 1 430px")
        self.add_class("dx-explorer")
        self.layout = layout(display="flex", flex_flow="row wrap", align_items="flex-start", overflow="visible")
        self.children = [panel, self.viewer]

    def _scale(self, name: str) -> Any:
        """The slider of a LoRA: 0 is off."""
        slider = ipywidgets.FloatSlider(
            description=name, min=0.0, max=1.5, step=0.05, style={"description_width": "72px"}, layout=layout()
        )
        slider.observe(
            lambda change: self._quietly(
                lambda: self.set_trait("adapters", {**dict(self.adapters), name: change["new"]})
            ),
            names="value",
        )
        return slider

    def _show_setting(self, name: str) -> None:
        """Let a control show its trait."""
        if name == "adapters":
            for adapter, slider in self._scales.items():
                scale = dict(self.adapters).get(adapter, 0.0)
                slider.min, slider.max = min(0.0, scale), max(1.5, scale)
                slider.value = scale
            return
        show(self._controls[name], name, getattr(self, name))

    def _from_control(self, name: str, value: Any) -> None:
        """Let a trait follow its control. What is refused is said in place, and stays in the control to be put
        right."""
        self._quietly(lambda: self.set_trait(name, value_of(name, value)))

    def _quietly(self, action: Callable[[], object]) -> None:
        """Do what a control asked for. A refusal has been said in the widget; there is no cell to raise it in."""
        try:
            action()
        except ValueError as error:
            self.viewer.tell(error=sentence(error))
