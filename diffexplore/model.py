"""``load()`` and ``Model``: a pipeline, what it can do, and running it.

A run works on a shallow clone of the pipeline with a scheduler of its own, so the user's object is never
changed. Runs take turns: one lock per denoiser, shared by all models around it. ``trace`` runs on the calling
thread; ``submit`` runs on one worker thread per model, where the newest settings win.

The latents are decoded here, through the same calls as the pipeline's own, so the picture is bit-identical to
plain diffusers and a cancelled run never decodes.

What was computed is remembered (see reuse.py): asked for the same again, a model answers with the run it has, and
says so in ``trace.info["reused"]``.
"""

import atexit
import contextvars
import copy
import difflib
import functools
import hashlib
import importlib.util
import json
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from diffexplore.pipelines.family import family_of
from diffexplore.pipelines.open import lora_file, quiet
from diffexplore.pipelines.origin import POCKETS, Origin, open_pipeline
from diffexplore.runs import memory as _reuse
from diffexplore.runs.recorder import Cancelled, interruptible, record
from diffexplore.samplers import SAMPLERS, build, native, suitable
from diffexplore.settings import Settings
from diffexplore.trace import Step, Trace
from diffexplore.words import shown

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["POCKET", "Job", "Model", "load"]

logger = logging.getLogger(__name__)

POCKET = POCKETS["pocket"]
"""The embedded model: a standard StableDiffusionPipeline folder."""

DEFAULT_SAMPLER = "DPM++ 2M Karras"
DEFAULT_FLOW_SAMPLER = "Flow Euler"
REUSE = 256 * 2**20  # bytes of results that a model remembers
BATCH = 8  # pictures drawn at once at most: with both halves of guidance a batch of 16 for the network
IDLE_SECONDS = 10.0  # a worker with nothing to do ends after this, so that it does not keep its model in memory

OnStep = Callable[[Step], None]
Item = TypeVar("Item")


def load(
    source: Any = None,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
    *,
    offload: str | None = None,
    reuse: int = REUSE,
) -> "Model":
    """Open a model.

    Args:
        source: None for the pocket model that comes with the package; a diffusers folder; a single
            ``.safetensors`` checkpoint; a hub id, "org/name" or "org/name@revision"; or a ready pipeline of a
            known family, which is watched and never changed but for what `device`, `dtype` and `offload` ask.
        device: where to run; None: CUDA if there is one, else the CPU (a ready pipeline stays where it is).
        dtype: a torch dtype or its name, such as "float16"; None: float32 (a ready pipeline stays as it is).
        offload: "model" or "sequential": keep the networks in main memory and take each to the GPU only while
            it works (diffusers' ``enable_model_cpu_offload`` and ``enable_sequential_cpu_offload``), for models
            that do not fit; slower, the second by far.
        reuse: bytes of results to remember; 0: compute everything anew.

    Only safetensors weights are read, and no code that comes with a model is ever run. The commit that a hub id
    stood for is kept in ``trace.info["revision"]``.

    A single file names no layout of its networks: diffusers fetches that from the hub, once.

    Raises:
        ValueError: one sentence, for a source that is none of these or that cannot be opened, a device that is not
            here, and a `dtype`, `offload` or `reuse` that is none. Before anything is fetched.
    """
    if not isinstance(reuse, int) or isinstance(reuse, bool) or reuse < 0:
        raise ValueError(f"reuse must be a number of bytes, 0 or more, got {shown(reuse)}")
    opened = open_pipeline(source, device, dtype, offload=offload)
    pocket = opened.origin.kind == "pocket"
    return Model(
        opened.pipeline,
        name=opened.name,
        sampler=DEFAULT_SAMPLER if pocket else None,
        words=opened.words,
        near=opened.near,
        fixed_size=pocket,
        origin=opened.origin,
        reuse=reuse,
    )


class Job:
    """One submitted run.

    Attributes:
        trace: the run so far; it grows while the run goes.
        error: what a failed run raised, else None.
    """

    def __init__(self, trace: Trace, on_step: OnStep | None = None, cancel: threading.Event | None = None) -> None:
        """A run that has not started, as `Model.submit` makes them.

        Args:
            trace: where its steps will go.
            on_step: called with every step.
            cancel: what stops it, where several runs share that; None: its own.
        """
        self.trace = trace
        self.error: BaseException | None = None
        self._on_step = on_step
        self._status = "queued"
        self._cancel = cancel or threading.Event()  # shared by jobs that were submitted together
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Job], Any]] = []
        # Output of callbacks belongs to the notebook cell that submitted, which ipykernel keeps in a context
        # variable.
        self._context = contextvars.copy_context()

    def __repr__(self) -> str:
        return f"Job({self._status}, {self.trace!r})"

    @property
    def status(self) -> str:
        """queued, running, done, cancelled or failed."""
        return self._status

    def cancel(self) -> None:
        """Stop the run within one block of the denoiser; no effect once it has ended. Returns at once."""
        self._cancel.set()
        with self._lock:
            queued = self._status == "queued"
            if queued:
                self._status = "cancelled"
                self.trace.cancelled = True
        if queued:
            self._finish("cancelled")

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._done.is_set()

    def result(self, timeout: float | None = None) -> Trace:
        """Wait for the end and return the trace; after a cancel the steps so far.

        Raises:
            TimeoutError: if the run has not ended after `timeout` seconds; it goes on.
            BaseException: what made the run fail.
        """
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

    def _start(self) -> bool:
        """Claim a job for running; False if it was cancelled while it was queued."""
        with self._lock:
            if self._status == "queued":
                self._status = "running"
            return self._status == "running"

    def _finish(self, status: str, error: BaseException | None = None) -> None:
        with self._lock:
            self._status, self.error = status, error
            self._done.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._call(callback)

    def _call(self, callback: "Callable[[Job], Any]") -> None:
        try:
            callback(self)
        except Exception:
            logger.exception("a done callback of %r failed", self)


_models: "weakref.WeakSet[Model]" = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    """End what is running before the interpreter does: a thread that it finds inside torch makes it abort."""
    workers = [worker for model in list(_models) if (worker := model._stop()) is not None]
    for worker in workers:
        worker.join(5)


class Model:
    """A pipeline opened up: what it can do, and its runs as traces.

    Attributes:
        pipeline: the diffusers pipeline; never changed by a run.
        name: what to call it.
        family: which kind of pipeline it is ("sd", "sdxl", "sd3", "flux", ...).
        factor: pixels per latent.
        size: (width, height) it draws if nothing else is asked for.
        revision: the commit of the hub it is; None where it came from elsewhere.
        remembered: the results it keeps.
        options: the device, dtype and offload that `load` was asked for, by name.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        name: str | None = None,
        sampler: str | None = None,
        words: frozenset[str] = frozenset(),
        near: Mapping[str, Sequence[str]] | None = None,
        fixed_size: bool = False,
        origin: Origin | None = None,
        reuse: int = REUSE,
    ) -> None:
        """A model around a pipeline; `load` makes one from a file, a folder or a hub id too.

        Args:
            pipeline: a ready pipeline of a known family.
            name: what to call it; its class by default.
            sampler: which one it uses if none is asked for; None: the one it came with where the menu has it.
            words: all words it was trained on, lower case; empty if that is not known.
            near: other words -> the known ones nearest in meaning.
            fixed_size: refuse every other size than its own.
            origin: where it is from; None: what the pipeline says of that.
            reuse: bytes of results to remember.

        Raises:
            ValueError: for a pipeline of another family, or one that cannot read prompts.
        """
        self._family = family_of(type(pipeline))
        self.family = self._family.name
        if self._family.reader(pipeline) is None:
            raise ValueError(
                f"a pipeline needs a tokenizer and a text encoder, got a {type(pipeline).__name__} without"
            )
        self.pipeline = pipeline
        self.name = name or type(pipeline).__name__
        self.factor = self._family.factor(pipeline)
        self.size = self._family.size(pipeline)
        self._opened = origin or Origin.of(pipeline)
        self.revision = self._opened.revision
        self.remembered = _reuse.Store(reuse)
        self._sampler = sampler
        self._words = words
        self._near = dict(near or {})
        self._fixed_size = fixed_size
        self.options: dict[str, str] = dict(self._opened.options)
        self._adapters: dict[str, tuple[Path, str]] = {}  # name -> the file it was loaded from, its hash
        self._taught: dict[str, frozenset[str]] = {}  # adapter -> words that it says it teaches
        # What the model is, as opposed to how somebody samples from it: kept as it came, however often
        # samplers change.
        self._base_config = {**pipeline.scheduler.config, "_class_name": type(pipeline.scheduler).__name__}
        self._network: Any = getattr(pipeline, self._family.network)
        self._turn = _turn(self._network)
        self._decoding = threading.Lock()
        self._fitting = threading.Lock()
        self._matrix: np.ndarray | None = None
        self._jobs = threading.Condition()
        self._queued: list[Job] = []  # submitted together, waiting for the worker
        self._running: list[Job] = []
        self._worker: threading.Thread | None = None
        _models.add(self)

    def __repr__(self) -> str:
        width, height = self.size
        return f"Model({self.name!r}, family={self.family!r}, {width}x{height}, {len(self.samplers)} samplers)"

    # What it can do

    @functools.cached_property
    def samplers(self) -> list[str]:
        """Names of the samplers that are right for this pipeline, in menu order."""
        return [name for name in SAMPLERS if not suitable(name, self.family, self._base_config)]

    @functools.cached_property
    def sampler(self) -> str:
        """The sampler it uses if none is asked for."""
        if self._sampler is not None:
            return self._sampler
        came = native(self.family, self._base_config)
        if came is not None:
            return came
        usual = DEFAULT_FLOW_SAMPLER if self._family.flow else DEFAULT_SAMPLER
        return usual if usual in self.samplers else self.samplers[0]

    def code(self) -> str:
        """Python that opens this model again and loads its LoRAs, in lines that end in a newline.

        The commit of a hub's model is in it. A ready pipeline that has no name is expected in ``pipeline``.
        """
        return self.origin.code()

    @property
    def origin(self) -> Origin:
        """What opens this model again, anywhere, as it is now: with its LoRAs, and what is switched on in its pipeline.

        Not while a run is on: its LoRAs would pass for some that were switched on by hand.
        """
        return self._opened.now(self.pipeline, self._adapters)

    def default_settings(self) -> Settings:
        """Settings with everything filled in and an empty prompt."""
        return self.resolve(Settings())

    def resolve(self, settings: Settings) -> Settings:
        """The same settings with every None filled in.

        Raises:
            ValueError: one sentence, for what this model cannot do: a sampler that is wrong for it, a size it
                cannot draw.
        """
        sampler = settings.sampler or self.sampler
        if sampler not in self.samplers:
            reason = suitable(sampler, self.family, self._base_config)
            right = ", ".join(self.samplers)
            raise ValueError(f"sampler {sampler!r} cannot be used here: {reason}; this model takes {right}")
        width, height = settings.width or self.size[0], settings.height or self.size[1]
        if self._fixed_size and (width, height) != self.size:
            raise ValueError(f"the {self.name} model draws {self.size[0]}x{self.size[1]} pixels, got {width}x{height}")
        multiple = self._family.multiple(self.pipeline)
        for name, value in (("width", width), ("height", height)):
            if value % multiple:
                raise ValueError(f"{name} must be a multiple of {multiple} for this model, got {value}")
        for name, scale in settings.adapters:
            if scale and name not in self._adapters:
                raise ValueError(f"this model has no adapter {shown(name)}: {self.adapters or 'none is loaded'}")
        least = self._family.least(self.pipeline)
        if settings.steps < least:
            raise ValueError(f"this pipeline takes at least {least} steps, got {settings.steps}")
        refused = SAMPLERS[sampler].refusal(settings.steps, self._base_config)
        if refused:
            raise ValueError(refused)
        return settings.replace(sampler=sampler, width=width, height=height)

    def tokens(self, prompt: str) -> dict[str, list[str]]:
        """What the text encoder reads of a prompt, and what it never sees for want of room.

        Returns:
            ``{"tokens": [...], "cut": [...]}``, each token as the piece of the prompt that it stands for.
        """
        pieces, room = self._pieces(prompt)
        texts = [prompt[start:end] for start, end in pieces]
        return {"tokens": texts[:room], "cut": texts[room:]}

    @functools.cached_property
    def _reader(self) -> tuple[Any, int]:
        """A tokenizer of our own, and for how many tokens there is room. Fast tokenizers keep truncation and padding
        as state: sharing the pipeline's would change what a run on another thread reads.
        """
        read = self._family.reader(self.pipeline)
        assert read is not None, "checked when the model was made"
        return copy.deepcopy(read[0]), read[1]

    def _pieces(self, prompt: str) -> tuple[list[tuple[int, int]], int]:
        """Where in the prompt each of its tokens stands, and for how many there is room."""
        tokenizer, room = self._reader
        found = tokenizer(
            prompt, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
        )
        return found["offset_mapping"], room

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of a prompt which this model never saw in training, each once, in order, in lower case.

        A word that a loaded adapter of ``diffexplore.pocket.lora`` teaches counts as seen. Always [] where the training
        vocabulary is not known.
        """
        if not self._words:
            return []
        known = self._words.union(*self._taught.values())
        # A compound ("snow-white") counts as known if its parts are.
        found = dict.fromkeys(re.findall(r"[^\W_]+(?:['-][^\W_]+)*", prompt.lower()))
        return [w for w in found if w not in known and not known.issuperset(re.split("['-]", w))]

    def near_words(self, word: str) -> list[str]:
        """Words this model knows that come nearest to one which it does not, at most three.

        Of like meaning where the model's folder lists some (``near.json``), else of like spelling; [] for a known word,
        where nothing is near, and where the training vocabulary is not known.
        """
        word = word.lower()
        if not self._words or not self.unknown_words(word):
            return []
        meant = self._near.get(word) or self._near.get(word.removesuffix("s"))
        return list(meant or difflib.get_close_matches(word, sorted(self._words), 3, 0.75))

    def notes(self, settings: Settings) -> list[str]:
        """Plain sentences on what of these settings will be cut or ignored."""
        notes = []
        for name in ("prompt", "negative_prompt"):
            text, title = getattr(settings, name), name.replace("_", " ")
            pieces, room = self._pieces(text)
            if len(pieces) > room:
                rest = text[pieces[room][0] :].strip()
                notes.append(
                    f"The {title} has {len(pieces)} tokens and this model reads {room}; "
                    f"it does not see: {rest[:200]}{'...' if len(rest) > 200 else ''}"
                )
            unknown = self.unknown_words(text)
            if unknown:
                more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
                told = [(word, self.near_words(word)) for word in unknown[:8]]
                words = [f"{word} (near: {', '.join(near)})" if near else word for word, near in told]
                notes.append(f"The {title} has words this model never saw: {', '.join(words)}{more}.")
        return notes + self._family.notes(self.pipeline, settings)

    # Running it

    def trace(self, settings: Settings | None = None, **values: Any) -> Trace:
        """Run on this thread and return the trace; waits for its turn if another run is on.

        Args:
            settings: what to draw; or
            **values: its fields (with `settings`: what to change in it).

        Raises:
            ValueError: one sentence, before any work, for settings which are refused.
        """
        trace = self._new(settings, values)
        self._run([trace], threading.Event(), None)
        return trace

    def trace_many(self, settings: Sequence[Settings]) -> list[Trace]:
        """Run several, those that can share a batch together; all are checked before the first starts.

        Pictures of one batch have generators of their own and, where the pipeline allows it, guidance of their
        own. Each equals the same run alone up to the rounding of batched arithmetic (about 1e-6 relative in
        float32). A batch that does not fit into memory is split and tried again.

        Raises:
            ValueError: one sentence, before any work, for settings which are refused.
        """
        traces = [self._new(one, {}) for one in settings]
        for batch in self._batches(traces, lambda trace: trace):
            self._run_batch(batch)
        return traces

    def _batches(self, items: Sequence[Item], trace_of: Callable[[Item], Trace]) -> list[list[Item]]:
        """Those that can be drawn together, in lists of `BATCH` at most."""
        groups: dict[Hashable, list[Item]] = {}
        for item in items:
            groups.setdefault(self._family.batch_key(self.pipeline, trace_of(item).settings), []).append(item)
        return [group[start : start + BATCH] for group in groups.values() for start in range(0, len(group), BATCH)]

    def _run_batch(self, traces: list[Trace]) -> None:
        try:
            self._run(traces, threading.Event(), None)
        except torch.OutOfMemoryError:
            if len(traces) == 1:
                raise
            logger.warning("a batch of %d does not fit into memory: trying halves", len(traces))
            middle = len(traces) // 2
            for half in (traces[:middle], traces[middle:]):
                for trace in half:
                    trace.clear()
                self._run_batch(half)

    def submit(self, settings: Settings | None = None, on_step: OnStep | None = None, **values: Any) -> Job:
        """Run on the model's worker thread. The newest wins: a running job is cancelled, a queued one
        replaced.

        Args:
            settings: what to draw; or `values`, as in :meth:`trace`.
            on_step: called on the worker thread with each step, after it was added to ``job.trace``; an
                exception in it fails the job.

        Raises:
            ValueError: one sentence, before any work, for settings which are refused; the running job goes
                on.
        """
        (job,) = self._enqueue([Job(self._new(settings, values), on_step)])
        return job

    def submit_many(self, settings: Sequence[Settings], on_step: OnStep | None = None) -> list[Job]:
        """Run several on the worker thread, those that can share a batch together, in place of whatever runs there.

        The jobs were submitted together and are cancelled together: `cancel` on one stops all that have not ended.
        One that fails leaves the others alone: a batch that breaks is drawn again one by one, and only what fails by
        itself is failed.

        Args:
            settings: what to draw.
            on_step: called on the worker thread with each step of each run.

        Returns:
            A job for each, in the same order.

        Raises:
            ValueError: one sentence, before any work, for settings which are refused, or for none at all.
        """
        if not settings:
            raise ValueError("submit_many takes at least one Settings object, got none")
        cancel = threading.Event()
        return self._enqueue([Job(self._new(one, {}), on_step, cancel) for one in settings])

    def _enqueue(self, jobs: list[Job]) -> list[Job]:
        with self._jobs:
            replaced = [*self._queued, *self._running]
            self._queued = jobs
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name=f"diffexplore {self.name}", daemon=True)
                self._worker.start()
            self._jobs.notify()
        # Outside the lock: a cancelled job calls its callbacks, and those may submit.
        for old in replaced:
            old.cancel()
        return jobs

    def _stop(self) -> threading.Thread | None:
        """Cancel all that was submitted; the thread that may still be at it."""
        with self._jobs:
            jobs = [*self._queued, *self._running]
        for job in jobs:
            job.cancel()
        return self._worker if jobs else None

    def _new(self, settings: Settings | None, values: Mapping[str, Any]) -> Trace:
        """An empty trace of checked settings."""
        if settings is None:
            settings = Settings(**values)
        elif not isinstance(settings, Settings):
            raise ValueError(f"settings must be a Settings object, got {shown(settings)}")
        elif values:
            settings = settings.replace(**values)
        settings = self.resolve(settings)
        return Trace(settings, decode=self.decode, matrix=self.matrix, info=self._info(settings))

    def _info(self, settings: Settings) -> dict[str, Any]:
        import diffusers
        import transformers

        prompt, negative = self.tokens(settings.prompt), self.tokens(settings.negative_prompt)
        return {
            "model": self.name,
            "revision": self.revision,
            "family": self.family,
            "pipeline": type(self.pipeline).__name__,
            "tokens": {
                "prompt": prompt["tokens"],
                "cut": prompt["cut"],
                "negative": negative["tokens"],
                "negative_cut": negative["cut"],
            },
            "notes": self.notes(settings),
            "unknown": self.unknown_words(settings.prompt),
            "versions": {
                "torch": torch.__version__,
                "diffusers": diffusers.__version__,
                "transformers": transformers.__version__,
            },
        }

    def _work(self) -> None:
        """The worker thread: take the newest jobs until there are none for a while."""
        while True:
            with self._jobs:
                if not self._queued:
                    self._jobs.wait(IDLE_SECONDS)
                jobs, self._queued = self._queued, []
                if not jobs:
                    self._worker = None
                    return
                self._running = jobs
            for batch in self._batches(jobs, lambda job: job.trace):
                batch[0]._context.run(self._run_jobs, batch)
            with self._jobs:
                self._running = []
            del jobs, batch  # or an idle worker would keep the last traces

    def _run_jobs(self, jobs: list[Job]) -> None:
        """Run jobs that share a batch."""

        def started() -> None:
            claimed = [job._start() for job in jobs]
            if not any(claimed):
                raise Cancelled

        try:
            self._run([job.trace for job in jobs], jobs[0]._cancel, jobs[0]._on_step, started)
        except BaseException as error:
            if len(jobs) == 1:
                jobs[0]._finish("failed", error)
                return
            logger.warning("a batch of %d failed (%s): trying one by one", len(jobs), error)
            for job in jobs:
                job.trace.clear()
            for job in jobs:
                self._run_jobs([job])
        else:
            for job in jobs:
                job._finish("cancelled" if job.trace.cancelled else "done")

    def _run(
        self,
        traces: list[Trace],
        cancel: threading.Event,
        on_step: OnStep | None,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Fill `traces`, all in one batch; on a cancel mark them so."""
        begun = time.perf_counter()
        try:
            with self._turn.taken(cancel):
                begun = time.perf_counter()
                started()
                with self._adapted(traces[0].settings):
                    state = _reuse.fingerprint(self.pipeline) if self.remembered.budget else None
                    keys = [_reuse.run_key(state, trace.settings, self._base_config) for trace in traces]
                    left = [
                        (trace, key)
                        for trace, key in zip(traces, keys, strict=True)
                        if not self._replay(trace, key, cancel, on_step, batched=len(traces) > 1)
                    ]
                    if left:
                        self._draw([trace for trace, _ in left], state, cancel, on_step)
                    for trace, key in left:
                        # Rounding differs between a batch and a picture alone: a run alone is never answered
                        # with one of a batch.
                        kept = _reuse.copy_of(trace)
                        self.remembered.put(key and (key, len(left) > 1), kept, _reuse.size_of(kept))
        except Cancelled:
            for trace in traces:
                trace.cancelled = True
        finally:
            for trace in traces:
                trace.seconds = time.perf_counter() - begun

    def _replay(
        self, trace: Trace, key: Hashable, cancel: threading.Event, on_step: OnStep | None, *, batched: bool
    ) -> bool:
        """Fill a trace from a remembered run of the same settings; False if there is none."""
        kept = self.remembered.get(key and (key, False))
        if kept is None and batched:
            kept = self.remembered.get(key and (key, True))
        if kept is None:
            return False
        made = _reuse.copy_of(kept)
        trace.info |= made.info | {"notes": trace.info["notes"], "reused": True}
        trace.expected = made.expected
        for step in made:
            if cancel.is_set():
                raise Cancelled
            trace.append(step)
            if on_step is not None:
                on_step(step)
        trace.final, trace.image = made.final, made.image
        return True

    def _draw(self, traces: list[Trace], state: bytes | None, cancel: threading.Event, on_step: OnStep | None) -> None:
        """Run the pipeline once for all of `traces`, and decode."""
        family, settings = self._family, [trace.settings for trace in traces]
        first = settings[0]
        width, height = first.width or self.size[0], first.height or self.size[1]

        def emit_to(trace: Trace) -> Callable[[Step], None]:
            def emit(step: Step) -> None:
                trace.append(step)
                if on_step is not None:
                    on_step(step)

            return emit

        def on_schedule(schedule: list[float]) -> None:
            for trace in traces:
                trace.info["schedule"] = list(schedule)
                trace.expected = len(schedule)

        def unpack(latents: torch.Tensor) -> torch.Tensor:
            return family.unpack(self.pipeline, latents, width, height)

        pipeline = copy.copy(self.pipeline)
        seeds = [one.seed for one in settings]
        pipeline.scheduler = scheduler = build(
            first.sampler or self.sampler, self._base_config, seed=seeds if len(seeds) > 1 else seeds[0]
        )
        pipeline.set_progress_bar_config(disable=True)
        arguments = family.arguments(self.pipeline, settings)
        asked = {k: v for k, v in arguments.items() if k in ("guidance_scale", "true_cfg_scale")}
        for trace in traces:
            trace.info["sampler"] = {"class": type(scheduler).__name__, "config": _plain(scheduler.config)}
            trace.info["asked"] = asked
            trace.info["batch"] = len(traces)
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        try:
            with (
                _without_truncation_warning(type(pipeline)),
                _reuse.prompts(pipeline, self.remembered, state),
                _reuse.evaluations([self._network], self.remembered, state),
                record(
                    pipeline,
                    [emit_to(trace) for trace in traces],
                    cancel,
                    guidance=[one.guidance for one in settings],
                    unpack=unpack,
                    generators=generators,
                    recombine=len({one.guidance for one in settings}) > 1 and family.guided(self.pipeline, first),
                    on_schedule=on_schedule,
                ),
            ):
                latents = pipeline(
                    **arguments,
                    generator=generators if len(generators) > 1 else generators[0],
                    output_type="latent",
                ).images
        finally:
            # The user's object, not the clone: with model offload this puts fresh hooks where the
            # user's pipeline expects them.
            self.pipeline.maybe_free_model_hooks()
            for trace in traces:
                for step in trace:
                    step.settle()
        for trace, final in zip(traces, unpack(latents), strict=True):
            if cancel.is_set():
                raise Cancelled
            with interruptible([getattr(self.pipeline, family.decoder)], cancel):
                # One at a time: decoders take far more memory than networks, and a batch would not be bit-identical.
                trace.image = self._decode(final[None], final=True)
            trace.final = final.to("cpu", torch.float32)

    # Adapters

    @property
    def adapters(self) -> list[str]:
        """Names of the LoRAs that were loaded here, for ``Settings.adapters``."""
        return list(self._adapters)

    @property
    def adapter_files(self) -> dict[str, Path]:
        """Name -> the file it was loaded from, of each of `adapters`."""
        return {name: file for name, (file, _) in self._adapters.items()}

    def load_lora(self, path: "str | os.PathLike[str]", name: str | None = None) -> str:
        """Load a LoRA into the pipeline, switched off: runs switch it on by ``adapters={name: scale}``.

        This is the one thing that adds to the pipeline which was handed in; :meth:`unload_loras` takes it out. Loading
        the same file under the same name again does nothing.

        Args:
            path: a ``.safetensors`` file in diffusers', peft's or kohya's layout.
            name: what to call it; its file name by default.

        Returns:
            Its name.

        Raises:
            ValueError: one sentence, for a file that cannot be read or does not fit, or a name that another one has.
            ImportError: without peft; says how to get it.
        """
        file = lora_file(os.fspath(path))
        chosen = re.sub(r"[^\w-]+", "_", name or file.stem)  # peft builds module names from it
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if chosen in self._adapters:
            if self._adapters[chosen][1] == digest:
                return chosen  # a cell that is run again
            raise ValueError(
                f"another adapter {chosen!r} is loaded already; give this one another name, or unload_loras() first"
            )
        if importlib.util.find_spec("peft") is None:
            raise ImportError("LoRA needs peft: pip install peft")
        with self._turn.taken(threading.Event()), quiet():
            try:
                self.pipeline.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=chosen)
            except Exception as error:
                self._drop_half_loaded(chosen)
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"{file.name!r} cannot be loaded into this model: {reason[:300]}") from error
            self._adapters[chosen] = file.resolve(), digest
            self._taught[chosen] = _taught(file)
            self.pipeline.disable_lora()
        return chosen

    def _drop_half_loaded(self, name: str) -> None:
        """Take out what of a refused LoRA is in already: the part for one network may fit and that for another not."""
        listed = getattr(self.pipeline, "get_list_adapters", dict)  # some pipelines take no LoRA at all
        if any(name in names for names in listed().values()):
            self.pipeline.delete_adapters(name)
            if any(listed().values()):
                self.pipeline.disable_lora()

    def unload_loras(self) -> None:
        """Take all LoRAs out of the pipeline again."""
        with self._turn.taken(threading.Event()):
            if self._adapters:
                self.pipeline.unload_lora_weights()
                self._adapters.clear()
                self._taught.clear()

    @contextmanager
    def _adapted(self, settings: Settings) -> Iterator[None]:
        """Within the block, the LoRAs of `settings` are on, at their scales, and no other."""
        chosen = {name: scale for name, scale in settings.adapters if scale}
        if not chosen:
            yield
            return
        self.pipeline.enable_lora()
        self.pipeline.set_adapters(list(chosen), list(chosen.values()))
        try:
            yield
        finally:
            self.pipeline.disable_lora()

    # Pictures

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (C, h, w) to a picture, (H, W, 3) uint8, exactly as a final picture is decoded; safe on any
        thread, during a run too.

        Args:
            latents: float tensor (C, h, w), as a step has it; C and the factor to pixels are the pipeline's own.

        Raises:
            ValueError: they have another number of dimensions.
        """
        if latents.ndim != 3:
            raise ValueError(f"latents to decode must be (C, h, w), got the shape {tuple(latents.shape)}")
        return np.asarray(self._decode(latents.unsqueeze(0)))

    def _decode(self, latents: torch.Tensor, final: bool = False) -> "Image.Image":
        """(1, C, h, w) to a picture; only a `final` one is checked or marked."""
        with self._decoding:
            latents = latents.to(self.pipeline._execution_device)
            if not final:
                latents = latents.to(self._network.dtype)
            return self._family.decode(self.pipeline, latents, final=final)[0]

    def matrix(self) -> np.ndarray:
        """Latents to RGB without the decoder: (C + 1, 3) float32, fitted to a few decodes on first use and
        kept.

        Each latent is one pixel: ``rgb = (latent channels, 1) @ matrix``, about 0 to 1. The fit decodes
        smooth random fields, drawn from a generator of its own: the same for every process, and no run's
        randomness is touched.
        """
        with self._fitting:
            if self._matrix is None:
                self._matrix = _fit_matrix(self.decode, self._family.channels(self.pipeline), self.factor)
            return self._matrix


def _fit_matrix(decode: Callable[[torch.Tensor], np.ndarray], channels: int, factor: int) -> np.ndarray:
    generator = torch.Generator("cpu").manual_seed(0)
    inputs, targets = [], []
    for cells in (2, 4, 8, 16):
        # From nearly one colour to a colour per latent; the scaled latents of pictures have about unit
        # variance.
        field = torch.randn(1, channels, cells, cells, generator=generator)
        field = torch.nn.functional.interpolate(field, size=(16, 16), mode="nearest")[0]
        pixels = decode(field).astype(np.float64) / 255
        targets.append(pixels.reshape(16, factor, 16, factor, 3).mean((1, 3)).reshape(-1, 3))
        inputs.append(field.flatten(1).T.double().numpy())
    x = np.concatenate(inputs)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    matrix: np.ndarray = np.linalg.lstsq(x, np.concatenate(targets), rcond=None)[0].astype(np.float32)
    return matrix


class _Turn:
    """Whose turn it is with a denoiser: a lock that can be waited for with a cancel in hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None

    @contextmanager
    def taken(self, cancel: threading.Event) -> Iterator[None]:
        me = threading.get_ident()
        if self._owner == me:
            raise RuntimeError("a run cannot start another run of the same model from its own on_step")
        while not self._lock.acquire(timeout=0.02):
            if cancel.is_set():
                raise Cancelled
        self._owner = me
        try:
            yield
        finally:
            self._owner = None
            self._lock.release()


_TURNS: "weakref.WeakKeyDictionary[torch.nn.Module, _Turn]" = weakref.WeakKeyDictionary()
_TURNS_LOCK = threading.Lock()


def _turn(denoiser: torch.nn.Module) -> _Turn:
    with _TURNS_LOCK:
        return _TURNS.setdefault(denoiser, _Turn())


@contextmanager
def _without_truncation_warning(pipeline: type) -> Iterator[None]:
    """Keep diffusers from logging the cut part of a long prompt on this thread: ``notes`` says it, and 10,000
    words would drown a page.
    """
    owner = threading.get_ident()

    def allowed(record: logging.LogRecord) -> bool:
        message = str(record.msg)
        about_length = "truncated" in message or "Token indices sequence length" in message
        return not (about_length and record.thread == owner)

    loggers = [
        logging.getLogger(pipeline.__module__),
        logging.getLogger("transformers.tokenization_utils_base"),
    ]
    for one in loggers:
        one.addFilter(allowed)
    try:
        yield
    finally:
        for one in loggers:
            one.removeFilter(allowed)


def _taught(file: Path) -> frozenset[str]:
    """The words that an adapter of ``diffexplore.pocket.lora`` says it teaches; none for other files."""
    from safetensors import safe_open

    with safe_open(file, "np") as opened:
        about = (opened.metadata() or {}).get("diffexplore", "{}")
    try:
        token = json.loads(about).get("token", "")
    except (ValueError, AttributeError):
        return frozenset()
    return frozenset(token.lower().split()) if isinstance(token, str) else frozenset()


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's config as JSON takes it, without diffusers' own marks."""
    return {
        k: v
        for k, v in config.items()
        if not k.startswith("_") and isinstance(v, (str, int, float, bool, list, type(None)))
    }
