"""`ForwardProcess`: noise on a picture of one's own, level by level, and what a model says of that noise.

Two films on one timeline: the picture with the noise that was added to it, and the same with what the network guesses;
the loss is one of their curves. From any share of noise a run starts the other way, from noise to a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import ipywidgets
from PIL import Image

from diffexplore.experiments.loss import LossByLevel, Question
from diffexplore.experiments.shared import pipeline_of
from diffexplore.looks.pictures import Picture, read_picture
from diffexplore.runs.start import STRENGTH
from diffexplore.settings import Settings
from diffexplore.widgets.controls import (
    Number,
    app,
    button,
    close_parts,
    control,
    layout,
    model_of,
    on_enter,
    row,
    sentence,
)  # fmt: skip
from diffexplore.widgets.notebook import InNotebook
from diffexplore.widgets.picture import PictureField
from diffexplore.widgets.runner import TYPING, Jobs, Runner
from diffexplore.widgets.viewer import Viewer

if TYPE_CHECKING:
    from diffexplore.model import Job, Model
    from diffexplore.record.step import Step
    from diffexplore.runs.plan import Plan
    from diffexplore.trace import Trace

__all__ = ["ADDED", "BACK", "GUESSED", "ForwardProcess"]

ADDED: Final = "noise added"
GUESSED: Final = "noise guessed"
BACK: Final = "drawn from there"
_NO_PICTURE: Final = "hand over a picture first: drop it, paste it, or let the model draw one"
_PROMPT: Final = "what the network is told of the picture"


class _Shadow:
    """A job's second trace: what was added, step by step, beside what was guessed."""

    def __init__(self, job: Job, trace: Trace) -> None:
        self._job = job
        self.trace = trace

    def __getattr__(self, name: str) -> Any:
        return getattr(self._job, name)


class ForwardProcess(InNotebook, ipywidgets.Box):  # type: ignore[misc]
    """The forward process of a picture, and what a model guesses at each of its levels.

    Args:
        model: A `Model` with an encoder for pictures (see ``diffexplore.load``). None: the pocket model.
        image: The picture, as ``looks.pictures.read_picture`` takes it; None: it is handed over on the page.
        prompt: What the network is told of it.
        steps: How many levels, noisiest first.
        seed: Of the noise.

    Attributes:
        viewer: The `Viewer` inside.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: One sentence, for a model without an encoder, and for a picture or settings which cannot be.

    Examples:
        >>> process = ForwardProcess(image="cat.jpg", prompt="a cat")  # doctest: +SKIP
        >>> process.run().plot()  # doctest: +SKIP
    """

    _ready = False

    def __init__(
        self,
        model: Model | None = None,
        image: Picture | None = None,
        *,
        prompt: str = "",
        steps: int = 20,
        seed: int = 0,
    ) -> None:
        """The widget, asking at once where there is a picture; the class says what the arguments are."""
        asked = Settings(prompt=prompt, steps=steps, seed=seed, guidance=1.0)
        self.model = model_of(model, "ForwardProcess")
        pipeline_of(self.model)  # refuses one that is shared, before a picture is asked for
        able = self.model.abilities["image"]
        if able is not True:
            raise ValueError(f"{str(able).rstrip('.')}: there is nothing to add noise to")
        self._settings = asked
        self._said: dict[str, str] = {}  # what stands in a control and was refused, and why
        self._question: Question | None = None
        self._back = False  # the next run goes from noise to a picture
        self.viewer = Viewer(layout=layout())
        self._runner = Runner(
            self.model, self.viewer,
            ask=self._ask, status=self._set_status, settled=self._say_failure, notes=list, wanted=self._wanted,
            submit=self._submit,
        )  # fmt: skip
        super().__init__(layout=layout())
        self._build()
        self._ready = True
        if image is not None:
            self._take(read_picture(image))
        self.viewer.expect([ADDED, GUESSED], steps=asked.steps, shape=self.model.size[0] / self.model.size[1])
        self._runner.say_truth()
        self.settle_in()

    def __repr__(self) -> str:
        return f"ForwardProcess(prompt={self._settings.prompt!r:.60}, steps={self._settings.steps})"

    # --- what people call ---

    def run(self) -> LossByLevel:
        """Ask at every level and wait; the pictures appear meanwhile.

        Raises:
            ValueError: There is no picture yet, or what stands in a control is refused; nothing was started.
            KeyboardInterrupt: The kernel was interrupted; the run is stopped.
        """
        self._back = False
        jobs = self._runner.run()
        return LossByLevel(jobs[ADDED].trace, jobs[GUESSED].result())

    def start_from(self, strength: float) -> Trace:
        """Draw from the picture at a share of noise, as the Explorer would, and wait.

        Args:
            strength: the share of noise, 0 to 1.

        Raises:
            ValueError: As `run`; or a strength that is none.
        """
        share = Settings(strength=strength).strength
        if share is not None:
            self._strength.show(share)
        self._back = True
        return self._runner.run()[BACK].result()

    def cancel(self) -> None:
        """Stop the run that is going, if any."""
        self._runner.cancel()

    def close(self) -> None:
        """Stop what is going and take the widget off every page."""
        if self._ready:
            self._runner.close()
            close_parts(self)
        super().close()

    # --- the picture ---

    def _take(self, picture: Image.Image, name: str = "") -> None:
        """Another picture."""
        self._question = Question(self.model, picture, self._settings)
        width, height = self.model.size
        what = f"{name}, " if name else ""
        fitted = "" if picture.size == (width, height) else f", cropped around its centre to {width} × {height}"
        self._field.show(self._question.picture, f"{what}{picture.width} × {picture.height}{fitted}")

    def _taken(self, picture: Image.Image, name: str = "") -> None:
        def go() -> None:
            self._take(picture, name)
            self._back = False
            self._runner.start()

        self._runner.quietly(go)

    def _draw_one(self) -> None:
        """A picture of the model's own."""
        self.viewer.tell(error="")
        own = self.model.plan(Settings(prompt=self._settings.prompt, seed=self._settings.seed))
        job = self.model.submit(own, lane=self._runner.lane)

        def drawn(job: Job) -> None:
            if job.status == "done" and job.trace.image is not None:
                self._taken(job.trace.image, "drawn by the model")
            elif job.error is not None:
                self.viewer.tell(error=f"The run failed: {sentence(job.error)}")

        job.add_done_callback(drawn)

    # --- runs ---

    def _wanted(self) -> Mapping[str, Plan] | str | None:
        if self._said:
            return None
        return _NO_PICTURE if self._question is None else self._plans(self._question.about(self.model, self._settings))

    def _plans(self, question: Question) -> dict[str, Plan]:
        if self._back:
            settings = self._settings.replace(guidance=Settings().guidance, strength=self._strength.value)
            return {BACK: self.model.plan(settings, image=question.picture)}
        return {ADDED: question.plan, GUESSED: question.plan}

    def _ask(self) -> dict[str, Plan]:
        if self._said:
            raise ValueError(" ".join(self._said.values()))
        if self._question is None:
            raise ValueError(_NO_PICTURE)
        self._question = self._question.about(self.model, self._settings)
        return self._plans(self._question)

    def _submit(self, plans: Mapping[str, Plan], wake: Callable[[Any], None]) -> Jobs:
        if self._back:
            return {label: self.model.submit(plan, wake, lane=self._runner.lane) for label, plan in plans.items()}
        question = self._question
        assert question is not None, "there is one where there are plans"
        added = question.blank(self.model)

        def on_step(step: Step) -> None:
            added.append(question.step(step))
            wake(step)

        plan = replace(plans[GUESSED], probes=[*plans[GUESSED].probes, question.probe()])
        job = self.model.submit(plan, on_step, lane=self._runner.lane)

        def ended(job: Job) -> None:
            added.cancelled, added.expected = job.trace.cancelled, job.trace.expected
            added.info |= {"batch": job.trace.info.get("batch", 1)}
            if job.status == "done":
                added.final, added.image, added.output = question.clean, question.picture, question.picture

        job.add_done_callback(ended)
        shadow: Any = _Shadow(job, added)
        return {ADDED: shadow, GUESSED: job}

    def _say_failure(self, jobs: Jobs) -> None:
        for job in jobs.values():
            if job.error is not None:
                self.viewer.tell(error=f"The run failed: {sentence(job.error)}")

    def _set_status(self, status: str) -> None:
        self._stop.disabled = status != "running"

    # --- the controls ---

    def _build(self) -> None:
        self._field = PictureField(self._taken, lambda why: self.viewer.tell(error=why))
        self._controls = {name: control(name, self.model) for name in ("prompt", "steps", "seed")}
        self._controls["prompt"].placeholder = _PROMPT
        draw = button("Draw one", "let the model draw a picture of this prompt and seed")
        self._go = button("Ask", "ask the model at every level (Ctrl+Enter)", "play", "run", button_style="primary")
        self._stop = button("", "Stop", "stop", "icon", "stop", disabled=True)
        self._strength = Number("share of noise", 0.0, 1.0, 0.05)
        self._strength.show(STRENGTH)
        back = button("Draw from there", "start a run at this share of noise on the picture")
        for name, one in self._controls.items():
            one.show(getattr(self._settings, name))
            one.observe(lambda change, name=name: self._from_control(name, change["new"]), names="value")
        self._strength.observe(lambda change: self._from_control("strength", change["new"]), names="value")
        on_enter(self._controls["prompt"], lambda: self._runner.quietly(self._begin(False)))
        self._go.on_click(lambda _: self._runner.quietly(self._begin(False)))
        back.on_click(lambda _: self._runner.quietly(self._begin(True)))
        draw.on_click(lambda _: self._runner.quietly(self._draw_one))
        self._stop.on_click(lambda _: self.cancel())
        rows = [
            row(self._field, self._controls["prompt"], draw, self._go, self._stop, names=("first",)),
            row(self._controls["steps"], self._controls["seed"], self._strength, back),
        ]
        app(self, [*rows, self.viewer])

    def _begin(self, back: bool) -> Callable[[], object]:
        def go() -> None:
            self._back = back
            self._runner.start()

        return go

    def _from_control(self, name: str, value: Any) -> None:
        """A hand is on a control. What is refused is said, and stays to be put right."""
        try:
            made = self._settings.replace(**{name: value})
        except ValueError as error:
            self._said[name] = sentence(error)
        else:
            self._said.pop(name, None)
            if name != "strength":
                self._settings = made
        self.viewer.tell(error=" ".join(self._said.values()))
        self._runner.say_truth()
        if not self._said and self._question is not None and self._runner.jobs:
            self._runner.start_soon(TYPING if name == "prompt" else 0.0)
