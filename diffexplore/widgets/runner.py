"""`Runner`: what widgets that run a model share. One lane of the model, the newest jobs in it, their way into a viewer.

A widget says what to draw (plans by label) and hears how it went; when to start, to replace, to wait and to stop is
decided here. Runs of other widgets on the same model are in other lanes: nobody stops them.
"""

from __future__ import annotations

import contextvars
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from diffexplore.pipelines.signature import alike
from diffexplore.widgets.controls import sentence
from diffexplore.widgets.feed import PING, Feed
from diffexplore.widgets.film import Status
from diffexplore.widgets.truth import truth
from diffexplore.widgets.viewer import Viewer

if TYPE_CHECKING:
    from diffexplore.model import Job, Model
    from diffexplore.runs.plan import Plan
    from diffexplore.settings import Settings
    from diffexplore.trace import Trace

__all__ = ["HEAD_START", "HINT_AFTER", "SOON", "TYPING", "Jobs", "Runner", "outlook", "planning"]

HEAD_START: Final = 0.2
"""Seconds a run has before a changed setting may replace it: a slider that is dragged changes every few milliseconds,
and runs that were all replaced before their first step would show nothing."""
SOON: Final = 1.0
"""Seconds a run has where it will be over by then, as the newest that was finished tells: a drag shows finished
pictures, not only beginnings."""
_MARGIN: Final = 1.5  # how much longer than that one it may take
_LOOKED_AT: Final = (
    0.1  # seconds in which the last picture of a finished run gets to a page, before the next run begins
)
TYPING: Final = 0.4
"""Seconds without a key after which a text counts as typed."""
HINT_AFTER: Final = 1.5
"""Seconds a cell waits before it is said how to stop it."""
_HINT: Final = "A cell is waiting for this run. To stop it, interrupt the kernel (the square button above)."

_KEPT: Final = 16  # plans that a widget remembers

Jobs = Mapping[str, "Job"]


def planning(model: Model) -> Callable[..., Plan]:
    """`Model.plan` that remembers: settings are looked at by many hands between a move and a run, and planned once.
    Called with settings, and with what is handed over beside them.

    What was planned is forgotten when other LoRAs are loaded, and when something else is handed over beside them.
    """
    known: OrderedDict[Any, tuple[Mapping[str, Any], Plan]] = OrderedDict()

    def plan(settings: Settings, extra: Mapping[str, Any] = MappingProxyType({})) -> Plan:
        key = settings, tuple(model.adapters)
        kept = known.get(key)
        if kept is not None and alike(kept[0], extra):
            return kept[1]
        made = model.plan(settings, **extra)
        known[key] = extra, made
        while len(known) > _KEPT:
            with suppress(KeyError):  # another hand was faster
                known.popitem(last=False)
        return made

    return plan


def _seen(trace: Trace) -> bool:
    """Whether there is something to show of a run: a step, or the picture of one without."""
    return bool(len(trace)) or trace.image is not None


def evaluations(model: Model, settings: Settings) -> int:
    """How often the model will be asked, by settings with every None filled in."""
    return model.evaluations(settings.sampler or model.sampler, settings.steps)


def shape(settings: Settings) -> float:
    """Width over height of what they draw."""
    return (settings.width or 1) / (settings.height or 1)


def outlook(model: Model, settings: Sequence[Settings], plans: Sequence[Plan]) -> dict[str, Any]:
    """What `Viewer.expect` is to say of runs: of those `settings`, and of `plans`, as far as they can start."""
    said = ""
    with suppress(ValueError, OSError):  # of a model that is shared: the room may be gone, or an older one
        due = model.estimate(plans)
        said = due.said if plans and due.seconds is not None else ""
    steps, wide = max(evaluations(model, one) for one in settings), max(map(shape, settings))
    return {"steps": steps, "shape": wide, "cost": said}


class Runner:
    """Runs what a widget asks for, the newest in place of what it asked for before.

    Args:
        model: What draws.
        viewer: What shows it.
        ask: Gives what to run now, by label; a ValueError it raises is said in the viewer, and nothing is started.
        status: Hears each status: "idle", "running", "done", "cancelled" or "failed".
        settled: Hears of the newest jobs, by label, when all are over and no others are about to start; before `status`
            does.
        notes: Gives the sentences that stand in the viewer.
        refused: Says what of that is refused while the rest runs, "" for nothing; asked before that starts.
        wanted: Gives what the controls say now, plans by label; None where that is refused, or what they wait for. Held
            against what is on show, for `Viewer.truth`.
        looks: Says whether runs keep where words look.
        submit: Starts plans, by label, in this lane of the model, and lets the viewer hear of each step; None: each as
            it is.
    """

    def __init__(
        self,
        model: Model,
        viewer: Viewer,
        *,
        ask: Callable[[], Mapping[str, Plan]],
        status: Callable[[str], object],
        settled: Callable[[Jobs], object],
        notes: Callable[[], Sequence[str]],
        refused: Callable[[], str] = str,
        wanted: Callable[[], Mapping[str, Plan] | str | None] = dict,
        looks: Callable[[], bool] = bool,
        submit: Callable[[Mapping[str, Plan], Callable[[object], None]], Jobs] | None = None,
    ) -> None:
        """Nothing is run yet; the class says what the arguments are."""
        self.model, self.viewer = model, viewer
        self.lane = object()
        self._ask, self._status, self._notes = ask, status, notes
        self._settled, self._refused, self._wanted, self._looks = settled, refused, wanted, looks
        self._start_plans = submit
        self._lock = threading.RLock()  # around the fields below
        self._jobs: Jobs = {}
        self._feed: Feed | None = None
        self._traces: dict[str, Trace] = {}  # what is on show
        self._run = 0  # their number, as the viewer counts
        self._kept: dict[int, dict[str, Trace]] = {}  # the newest runs by that number: what a page may be showing
        self._standing = "idle"  # the status as last said
        self._answers = 0
        self._began = -math.inf  # when the newest run was started
        self._over = -math.inf  # when it was over
        self._took = math.inf  # seconds of the newest run that was finished
        self._due: threading.Timer | None = None  # a run that a changed setting asked for, to start in a moment
        self._pausing = False  # it waits for a pause in typing, not for the newest run
        self._starting = False
        self._heard = ""  # the news that were last said
        self._going = False  # whether it has still to be said how the newest ended
        self._blocked = False  # a cell waits in `run` and settles what happens
        self._closed = False
        viewer.on_msg(self._on_message)

    @property
    def jobs(self) -> Jobs:
        """The newest jobs by label."""
        with self._lock:
            return self._jobs

    @property
    def traces(self) -> dict[str, Trace]:
        """The newest runs that have a step, or a picture without any, by label; those before them as long as none has.

        Which these are is the viewer's to say: a run that was replaced between its first step and the first piece that
        a page would have got of it is on show nowhere.
        """
        with self._lock:
            feed = self.viewer.on_show
            if feed is not None and feed.run in self._kept:
                found = {label: trace for label, trace in self._kept[feed.run].items() if _seen(trace)}
                self._traces, self._run = found, feed.run
            return dict(self._traces)

    def traces_of(self, run: int) -> list[Trace] | None:
        """The traces of a run by its number, as a page knows it, column by column; None for one that is no more."""
        with self._lock:
            found = self._kept.get(run)
            return None if found is None else list(found.values())

    def quietly(self, action: Callable[[], object]) -> None:
        """Do what a control asked for; a refusal is said in the viewer, as there is no cell to raise it in."""
        try:
            action()
        except ValueError as error:
            self.viewer.tell(error=sentence(error))

    # --- starting ---

    def start(
        self, here: bool = False, plans: Mapping[str, Plan] | None = None, beside: Mapping[str, Trace] | None = None
    ) -> tuple[Jobs, Feed]:
        """Run what is asked for, in place of what is going.

        Args:
            here: The caller drives the viewer.
            plans: What to run by label, in place of what is asked for.
            beside: Finished runs by label, to be shown before them.
        """
        with self._lock:
            self._forget_due()
            try:
                self._starting = True
                plans = self._ask() if plans is None else plans
                self.viewer.tell(error=self._refused())  # before the rest takes its time
                jobs = self._submit(plans)
            except ValueError as error:
                self._starting = False
                self.settle()
                self.viewer.tell(error=sentence(error))
                raise
            self._starting = False
            self._began = time.monotonic()
            others = dict(beside or {})
            newest = others | {label: job.trace for label, job in jobs.items()}
            feed = self.viewer.feed(newest, here=here)
            self._jobs, self._feed = jobs, feed
            self._kept[feed.run] = newest
            _ = self.traces  # keep the runs on show, should these never make a step
            self._kept = {run: traces for run, traces in self._kept.items() if run in (self._run, feed.run)}
            self._going, self._heard = True, ""
            self._blocked = self._blocked or here
            self._stand("running")
        self.viewer.tell(error=self._refused())  # no news of runs before these
        for k, trace in enumerate(others.values()):
            self.viewer.end(feed, "cancelled" if trace.cancelled else "done", k)
        for k, job in enumerate(jobs.values(), len(others)):
            job.add_done_callback(partial(self._ended, feed=feed, k=k))
            job.add_news_callback(self._hear)
        return jobs, feed

    def _hear(self, job: Job) -> None:
        """There is something to say of a job that goes on."""
        if job in self._jobs.values():
            if job.news != self._heard:
                self._heard = job.news
                self.viewer.tell(error=sentence(ValueError(job.news)) if job.news else self._refused())
            self.say_truth()

    def show(self, traces: Mapping[str, Trace]) -> None:
        """Show runs that are over, by label, in place of what is going."""
        self.cancel()
        with self._lock:
            feed = self.viewer.feed(traces)
            self._jobs, self._feed, self._going = {}, feed, False
            self._kept[feed.run] = dict(traces)
            _ = self.traces
            self._kept = {run: found for run, found in self._kept.items() if run in (self._run, feed.run)}
        self.viewer.tell(error="")
        for k, trace in enumerate(traces.values()):
            self.viewer.end(feed, "cancelled" if trace.cancelled else "done", k)
        self._stand("done")

    def _submit(self, plans: Mapping[str, Plan]) -> Jobs:
        def wake(_: object) -> None:
            self.viewer.wake()

        if self._start_plans is not None:
            return self._start_plans(plans, wake)
        several = list(plans.values())
        if len(several) == 1:
            made = [self.model.submit(several[0], wake, lane=self.lane, attention=self._looks())]
        else:
            made = self.model.submit_many(several, wake, lane=self.lane, attention=self._looks())
        return dict(zip(plans, made, strict=True))

    def start_soon(self, pause: float = 0.0) -> None:
        """Start, now or when the newest run has had its head start, with what is then asked for.

        Args:
            pause: Seconds to wait in any case, counted anew by each call that asks for a pause.
        """
        with self._lock:
            if self._due is not None and not pause:
                return
            wait = max(self._free() - time.monotonic(), pause)
            if wait > 0:
                self._start_in(wait, contextvars.copy_context())
                self._pausing = pause > 0
                self._stand("running")
                return
        self.start()

    def _free(self) -> float:
        """When another run may take the place of the newest."""
        if all(job.done() for job in self._jobs.values()):
            # Where none has begun after the hand has rested, nothing is waited for.
            return max(self._began + HEAD_START, self._over + _LOOKED_AT)
        soon = self._took <= SOON
        return self._began + (max(HEAD_START, min(_MARGIN * self._took, SOON)) if soon else HEAD_START)

    def _start_in(self, seconds: float, context: contextvars.Context) -> None:
        self._forget_due()
        self._due = threading.Timer(seconds, context.run, args=(self.quietly, self._start_due))
        self._due.daemon = True
        self._due.start()

    def _start_due(self) -> None:
        with self._lock:
            if self._due is threading.current_thread():  # else it was called off at the last moment
                self.start()

    def _forget_due(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    # --- waiting ---

    def run(self) -> Jobs:
        """Start and wait, driving the viewer; the jobs that ended, newer ones where they replaced those started.

        Raises:
            ValueError: What is asked for is refused; nothing was started.
            KeyboardInterrupt: The kernel was interrupted. The runs are stopped, and what they made is in the viewer.
        """
        try:
            jobs, feed = self.start(here=True)
        except KeyboardInterrupt:
            self._let_go()
            raise
        begun = time.monotonic()
        hinted = False

        def over() -> bool:
            nonlocal hinted
            if not hinted and time.monotonic() - begun > HINT_AFTER:
                hinted = True
                self.viewer.tell(notes=[*self._notes(), _HINT])
            return feed.complete.is_set() and all(job.done() for job in jobs.values())

        try:
            while True:
                try:
                    self.viewer.drive(over)
                except KeyboardInterrupt:
                    for job in jobs.values():
                        job.cancel()
                    self.viewer.drive(over)
                    raise
                with self._lock:
                    if self._jobs is jobs or self._feed is None:
                        break
                    jobs, feed = self._jobs, self._feed  # replaced while we waited
        finally:
            with self._lock:
                self._blocked = False
            self.settle()
            if hinted:
                self.viewer.tell(notes=self._notes())
        return jobs

    def _let_go(self) -> None:
        """An interrupt came while a run was being started: leave nothing that waits for it."""
        with self._lock:
            self._starting = self._blocked = False
            jobs = self._jobs
        self.viewer.release()
        self.cancel()
        for job in jobs.values():
            job.add_done_callback(lambda _: self.settle())

    # --- ending ---

    def cancel(self) -> None:
        """Stop what is going, if anything. Returns at once; what was made stays on show."""
        with self._lock:
            self._forget_due()
            jobs = self._jobs
        for job in jobs.values():
            job.cancel()
        self.settle()  # where nothing was running any more, but something was due

    def close(self) -> None:
        """Stop what is going, and plan and say nothing any more of what follows.

        The collector closes widgets that nobody holds, at any moment and in any thread: that is no time to plan.
        """
        with self._lock:
            self._closed = True
        self.cancel()

    def _ended(self, job: Job, feed: Feed, k: int) -> None:
        """Run `k` of a feed is over; called by whichever thread ended it."""
        with self._lock:  # while a run is being started in place of this one, the viewer hears of that first
            self.viewer.end(feed, cast(Status, job.status), k)
            if feed is self._feed and all(one.done() for one in self._jobs.values()):
                self._note_end()
            blocked = self._blocked
        if not blocked:
            self.settle()

    def _note_end(self) -> None:
        """The newest runs are over: how long they took says how long the next may; what is due need not wait longer."""
        self._over = time.monotonic()
        took, jobs = self._over - self._began, self._jobs.values()
        drawing = max(sum(step.seconds for step in job.trace) for job in jobs)
        # What comes out of the memory says nothing of how long drawing takes.
        if all(job.status == "done" for job in jobs) and took > drawing / 2:
            self._took = took
        if self._due is not None and not self._pausing:
            self._start_in(max(0.0, self._free() - self._over), contextvars.copy_context())

    def settle(self) -> None:
        """Say how the newest runs ended, if all have and no others are about to start."""
        with self._lock:
            jobs = self._jobs
            if self._starting or self._due is not None or not all(job.done() for job in jobs.values()):
                return
            found = {job.status for job in jobs.values()}
            news, self._going = self._going, False
            if news and not self._closed:
                self._settled(jobs)
            self._stand(next((one for one in ("cancelled", "done", "failed") if one in found), "idle"))

    # --- what is true ---

    def _stand(self, status: str) -> None:
        self._standing = status
        self._status(status)
        self.say_truth()

    def say_truth(self, again: bool = False) -> None:
        """Say whether what is on show is what the controls say. To be called when they have changed.

        Args:
            again: A page asks: it is to hear it even where it is what was said before.
        """
        with self._lock:  # what is said last must be what was found out last
            if self._closed:
                return
            shown = list(self.traces.values())
            try:
                wanted = None if self._standing == "running" else self._wanted()
            except ConnectionError:  # of a model that is shared, and away: nobody knows
                return
            plans = wanted if wanted is None or isinstance(wanted, str) else list(wanted.values())
            line = next((job.line for job in self._jobs.values() if job.line), "")
            self._answers += again
            self.viewer.truth = truth(plans, shown, self._run, self._standing, line) | {"answers": self._answers}

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        if isinstance(content, dict) and content.get("kind") == PING:
            self.say_truth(again=True)
