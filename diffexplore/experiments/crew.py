"""Jobs through an executor, whoever made it: few in flight, each done again where the worker that had it died.

:class:`Crew` knows nothing of models. It is the same for threads, spawned processes and a Dask cluster; what it needs
to know of each (how many work there, and what a dead worker looks like) stands here.
"""

import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from typing import Any, Generic, TypeVar

__all__ = ["Crew", "LostError"]

POLL = 0.2  # seconds after which is looked again, where somebody else has to come first
DEATHS = 3  # of workers over one job, which is given up then
STREAK = 6  # pools that broke one after the other, with nothing done in between

Job = TypeVar("Job", bound=Hashable)
_END = object()


class LostError(RuntimeError):
    """A job whose workers died, as often as it was tried."""


class Crew(Generic[Job]):
    """An executor at work.

    Attributes:
        executor: what runs the jobs: the one that was given, or the one that took its place when its processes died.
    """

    def __init__(self, executor: Executor, load: int = 2) -> None:
        """Who works, and how many jobs each worker has: what it is at, and what comes next."""
        self.executor = executor
        self._given = executor
        self._load = load
        self._looked = 0.0
        self._workers = 1

    @property
    def pooled(self) -> bool:
        """Whether its workers are processes of a pool, which ends with whoever made it."""
        return isinstance(self.executor, ProcessPoolExecutor)

    @property
    def workers(self) -> int:
        """How many jobs can be worked on at once, as far as that can be known; of a cluster, by now."""
        if time.monotonic() - self._looked > 1 or not self._looked:
            self._workers = max(1, _workers(self.executor))
            self._looked = time.monotonic()
        return self._workers

    def work(
        self, function: Callable[[Job], Any], jobs: Iterable[Job | None]
    ) -> Generator[tuple[Job, Any, Exception | None], None, None]:
        """Have `function` called with each of `jobs`.

        Args:
            function: of a module, so that other processes find it.
            jobs: asked for one whenever there is room; None where none can start right now, and is to be asked for
                later.

        Yields:
            (job, what came back, None) or (job, None, what it failed of), as they come.
        """
        waiting = iter(jobs)
        flying: dict[Future[Any], Job] = {}
        again: deque[Job] = deque()
        deaths: Counter[Job] = Counter()
        streak, over = 0, False
        try:
            while True:
                blocked = broken = False
                # A job that may be what kills workers has them for itself, so that no other is blamed.
                suspicious = any(deaths[job] >= DEATHS - 1 for job in (*again, *flying.values()))
                room = 1 if suspicious else self._load * self.workers
                while len(flying) < room and not broken:
                    job: Any = again.popleft() if again else _END if over else next(waiting, _END)
                    if job is _END or job is None:
                        over, blocked = over or job is _END, job is None
                        break
                    try:
                        flying[self.executor.submit(function, job)] = job
                    except BrokenExecutor:
                        again.appendleft(job)
                        broken = True
                if not flying and not broken:
                    if over and not again:
                        return
                    time.sleep(POLL)
                    continue
                done = wait(flying, POLL if blocked else None, FIRST_COMPLETED)[0] if flying else set()
                broken = broken or any(_broke(future) for future in done)
                # All that a broken pool had is lost with it, but for what was ready.
                ended = {future: flying.pop(future) for future in (list(flying) if broken else done)}
                lost: list[Job] = []
                for future, one in ended.items():
                    made, error = _outcome(future)
                    if error is not None and _died(error):
                        deaths[one] += 1 if isinstance(error, BrokenExecutor) else DEATHS - 1
                        lost.append(one)
                        continue
                    streak = 0
                    yield one, made, error
                if broken:
                    streak += 1
                    self._mend(streak)
                for one in lost:
                    if deaths[one] >= DEATHS:
                        yield one, None, LostError(f"the worker died {DEATHS} times while it was at this")
                    else:
                        again.append(one)
        finally:
            for future in flying:
                future.cancel()
            if self.executor is not self._given:
                self.executor.shutdown(wait=not flying, cancel_futures=True)

    def _mend(self, streak: int) -> None:
        """A new pool in place of one whose process has died, which takes no more jobs.

        Raises:
            RuntimeError: that cannot help.
        """
        old = self.executor
        if not isinstance(old, ProcessPoolExecutor) or streak > STREAK:
            raise RuntimeError("the executor is broken and takes no more work: its workers die as they are started")
        values: Any = old
        self.executor = ProcessPoolExecutor(
            values._max_workers,
            mp_context=values._mp_context,
            initializer=values._initializer,
            initargs=values._initargs,
        )
        old.shutdown(wait=False)


def _broke(future: Future[Any]) -> bool:
    """Whether it says that its executor takes no more work."""
    return not future.cancelled() and isinstance(future.exception(), BrokenExecutor)


def _outcome(future: Future[Any]) -> tuple[Any, Exception | None]:
    """(what came back, None) or (None, what it failed of)."""
    try:
        return future.result(), None
    except Exception as error:
        return None, error


def _died(error: Exception) -> bool:
    """Whether it says that a worker is gone, and nothing of the job."""
    if isinstance(error, BrokenExecutor):
        return True
    if "distributed" not in sys.modules:
        return False
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)


def _workers(executor: Any) -> int:
    """How many jobs an executor works on at once; one for each core where it does not say."""
    client = getattr(executor, "_client", None)
    if client is None or not hasattr(client, "scheduler_info"):
        return getattr(executor, "_max_workers", None) or os.cpu_count() or 1
    asked = executor._kwargs.get("resources") or {}
    count = 0
    for worker in client.scheduler_info(n_workers=-1)["workers"].values():
        has = worker.get("resources", {})
        fits = [int(has.get(name, 0) // amount) for name, amount in asked.items() if amount]
        count += min([worker["nthreads"], *fits])
    return count
