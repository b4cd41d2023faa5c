"""Whose turn it is: jobs, the lanes they wait in, and the one turn at a denoiser.

Every client of a model (an Explorer, a Compare, a learner on another machine) has a *lane*. Within a lane the newest
wins: what runs there is cancelled, what waits is replaced and its place in the queue is kept. Between lanes it is first
come, first served. All lanes of a model are worked off by one thread, and all models around one denoiser take turns at
it, in the order in which they asked. Nobody looks at a clock: whoever waits is woken.
"""

import atexit
import contextvars
import logging
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from diffexplore.record.step import Step
from diffexplore.runs.probes import Cancelled, Probe, Stop
from diffexplore.trace import Trace

__all__ = ["Job", "Lanes", "Turn", "turn_at"]

logger = logging.getLogger(__name__)

IDLE_SECONDS = 10.0  # a worker with nothing to do ends after this, so that it does not keep its model in memory
REPLACED = "a newer run of the same client took its place"
ASKED = "it was asked to stop"

OnStep = Callable[[Step], None]


class Turn:
    """Whose turn it is with a denoiser: a lock that is fair, and that can be waited for with a stop in hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()  # the first of them has the turn
        self._owner: int | None = None

    @property
    def mine(self) -> bool:
        """Whether the calling thread has the turn."""
        return self._owner == threading.get_ident()

    @property
    def waiting(self) -> int:
        """How many wait for it."""
        with self._lock:
            return max(0, len(self._waiting) - 1)

    @contextmanager
    def taken(self, stop: Stop | None = None) -> Iterator[None]:
        """Wait for the turn and keep it for the block.

        Raises:
            Cancelled: `stop` was set first.
            RuntimeError: this thread has it already.
        """
        if self.mine:
            raise RuntimeError("a run cannot start another run of the same model from its own on_step")
        stop = stop or Stop()
        called = threading.Event()
        try:
            with self._lock:
                self._waiting.append(called)
                if self._waiting[0] is called:
                    called.set()
            with stop.calling(called.set):
                called.wait()
            if stop.is_set():
                raise Cancelled
            self._owner = threading.get_ident()
            yield
        finally:
            if self.mine:
                self._owner = None
            with self._lock:
                first = bool(self._waiting) and self._waiting[0] is called
                if called in self._waiting:
                    self._waiting.remove(called)
                if first and self._waiting:
                    self._waiting[0].set()


_TURNS: "weakref.WeakKeyDictionary[torch.nn.Module, Turn]" = weakref.WeakKeyDictionary()
_TURNS_LOCK = threading.Lock()


def turn_at(denoiser: torch.nn.Module) -> Turn:
    """The turn at a network: one for all models around it."""
    with _TURNS_LOCK:
        return _TURNS.setdefault(denoiser, Turn())


class Job:
    """One submitted run.

    Attributes:
        trace: the run so far; it grows while the run goes.
        error: what a failed run raised, else None.
        reason: why a cancelled run was stopped, in a few words; "" for any other.
        news: what there is to say while it goes, one sentence, such as that who draws it is gone; "" as a rule.
        line: where it stands in line behind other people's, in a few words; "" where it has its turn, or nobody says.
    """

    def __init__(
        self,
        trace: Trace,
        on_step: OnStep | None = None,
        stop: Stop | None = None,
        turn: Turn | None = None,
        probes: Sequence[Probe] = (),
    ) -> None:
        """A run that has not started, as `Model.submit` makes them.

        Args:
            trace: where its steps will go.
            on_step: called with every step.
            stop: what stops it, where several runs share that; None: its own.
            turn: the turn that it waits for.
            probes: what watches or changes it.
        """
        self.trace = trace
        self.error: BaseException | None = None
        self.reason = ""
        self.news = ""
        self.line = ""
        self.on_step = on_step
        self.stop = stop or Stop()
        self.probes = probes
        self._turn = turn
        self._status = "queued"
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Job], Any]] = []
        self._told: list[Callable[[Job], Any]] = []
        # Output of callbacks belongs to the notebook cell that submitted, which ipykernel keeps in a context
        # variable.
        self.context = contextvars.copy_context()

    def __repr__(self) -> str:
        return f"Job({self._status}, {self.trace!r})"

    @property
    def status(self) -> str:
        """queued, running, done, cancelled or failed."""
        return self._status

    def cancel(self, reason: str = ASKED) -> None:
        """Stop the run within one block of the denoiser; no effect once it has ended. Returns at once.

        Args:
            reason: what its `reason` will say.
        """
        with self._lock:
            queued = self._status == "queued"
            if queued or self._status == "running":
                self.reason = self.reason or reason
            if queued:
                self._status = "cancelled"
                self.trace.cancelled = True
        self.stop.set()
        if queued:
            self.finish("cancelled")

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._done.is_set()

    def result(self, timeout: float | None = None) -> Trace:
        """Wait for the end and return the trace; after a cancel the steps so far.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Raises:
            TimeoutError: if the run has not ended after `timeout` seconds; it goes on.
            RuntimeError: if it is waited for where it could never end: in the ``on_step`` of another run of the model.
            BaseException: what made the run fail.
        """
        if self._turn is not None and self._turn.mine and not self.done():
            raise RuntimeError("a run cannot wait for another run of the same model in its own on_step")
        if not self._done.wait(timeout):
            raise TimeoutError(f"the run has not ended within {timeout:g} s")
        if self.error is not None:
            raise self.error
        return self.trace

    def add_done_callback(self, callback: "Callable[[Job], Any]") -> None:
        """Call ``callback(job)`` at the end, on the thread that ends it; at once if it has ended. An
        exception in it is logged.
        """
        with self._lock:
            if not self._done.is_set():
                self._callbacks.append(callback)
                return
        self._call(callback)

    def add_news_callback(self, callback: "Callable[[Job], Any]") -> None:
        """Call ``callback(job)`` whenever its `news` or its `line` change, on the thread that tells them; at once if
        there is some news. Where nobody listens, news are logged.
        """
        with self._lock:
            self._told.append(callback)
        if self.news:
            self._call(callback)

    def tell(self, news: str) -> None:
        """Say what there is to say of it while it goes; "" takes back what was said.

        Args:
            news: one sentence without a full stop.
        """
        with self._lock:
            if news == self.news:
                return
            self.news, told = news, list(self._told)
        if news and not told:
            logger.warning("%s", news)
        for callback in told:
            self._call(callback)

    def stand(self, line: str) -> None:
        """Say where it stands in line.

        Args:
            line: a few words; "" where it stands there no longer.
        """
        with self._lock:
            if line == self.line:
                return
            self.line, told = line, list(self._told)
        for callback in told:
            self._call(callback)

    def start(self) -> bool:
        """Claim it for running, as a worker does; False if it was cancelled while it was queued."""
        with self._lock:
            if self._status == "queued":
                self._status = "running"
            return self._status == "running"

    def finish(self, status: str, error: BaseException | None = None) -> None:
        """Say how it ended, as a worker does, and call whoever waits.

        Args:
            status: "done", "cancelled" or "failed".
            error: what a failed one raised.
        """
        with self._lock:
            self._status, self.error = status, error
            if status != "cancelled":
                self.reason = ""
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: "Callable[[Job], Any]") -> None:
        try:
            callback(self)
        except Exception:
            logger.exception("a done callback of %r failed", self)


Work = Callable[[list[Job]], None]


class Lanes:
    """The jobs of one model, a lane for each client, and the thread that works them off."""

    def __init__(self, work: Work, name: str) -> None:
        """What runs the jobs of one submission, and what to call the thread.

        `work` is called on the worker thread, and has to end every job that it gets; it is held weakly where it is a
        method, so that an idle worker does not keep its model.
        """
        self._work = weakref.WeakMethod(work) if hasattr(work, "__self__") else (lambda: work)
        self._name = name
        self._changed = threading.Condition()
        self._queued: OrderedDict[Hashable, list[Job]] = OrderedDict()  # first come, first served
        self._running: tuple[Hashable, list[Job]] | None = None
        self._worker: threading.Thread | None = None
        _all.add(self)

    def submit(self, jobs: Sequence[Job], lane: Hashable = None) -> None:
        """Queue `jobs`, which belong together, in place of what their lane has."""
        with self._changed:
            replaced = list(self._queued.get(lane, ()))
            if self._running is not None and self._running[0] == lane:
                replaced += self._running[1]
            self._queued[lane] = list(jobs)  # in the place of what it replaces
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._run, name=f"diffexplore {self._name}", daemon=True)
                self._worker.start()
            self._changed.notify()
        # Outside the lock: a cancelled job calls its callbacks, and those may submit.
        for old in replaced:
            old.cancel(REPLACED)

    def waiting(self, lane: Hashable = None) -> int:
        """How many lanes will be served before what this one has queued; 0 if it has nothing there."""
        with self._changed:
            order = list(self._queued)
            ahead = 0 if self._running is None else 1
            return order.index(lane) + ahead if lane in order else 0

    def stop(self) -> threading.Thread | None:
        """Cancel everything; the thread that may still be at it."""
        with self._changed:
            jobs = [job for queued in self._queued.values() for job in queued]
            jobs += [] if self._running is None else self._running[1]
        for job in jobs:
            job.cancel()
        return self._worker if jobs else None

    def _run(self) -> None:
        """The worker thread: serve lane after lane until there is nothing to do for a while."""
        while True:
            with self._changed:
                if not self._queued:
                    self._changed.wait(IDLE_SECONDS)
                if not self._queued:
                    self._worker = None
                    return
                lane, jobs = self._queued.popitem(last=False)
                self._running = lane, jobs
            work = self._work()
            try:
                if work is not None:
                    work(jobs)
            except BaseException as error:
                logger.exception("the worker of %s failed", self._name)
                for job in jobs:
                    if not job.done():
                        job.finish("failed", error)
            finally:
                for job in jobs:
                    if not job.done():  # the model is gone
                        job.cancel()
                        job.finish("cancelled")
                with self._changed:
                    self._running = None
                del jobs, lane, work  # or an idle worker would keep the last traces


_all: "weakref.WeakSet[Lanes]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """End what is running before the interpreter does: a thread that it finds inside torch makes it abort."""
    workers = [worker for lanes in list(_all) if (worker := lanes.stop()) is not None]
    for worker in workers:
        worker.join(5)
