"""``load()`` and ``Model``: a pipeline, what it can do, and running it one picture at a time.

A run works on a shallow clone of the pipeline with a scheduler of its own, so the user's object is never
changed. Runs take turns: one lock per denoiser, shared by all models around it. ``trace`` runs on the calling
thread; ``submit`` runs on one worker thread per model, where the newest settings win.

The latents are decoded here, through the same calls as the pipeline's own, so the picture is bit-identical to
plain diffusers and a cancelled run never decodes.
"""

import contextvars
import copy
import functools
import json
import logging
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .recorder import Cancelled, denoisers, interruptible, record
from .samplers import SAMPLERS, build, suitable
from .settings import Settings, shown
from .trace import Step, Trace

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["POCKET", "Job", "Model", "load"]

logger = logging.getLogger(__name__)

POCKET = Path(__file__).parent / "pocket" / "weights"
"""The embedded model: a standard StableDiffusionPipeline folder."""

FAMILIES = {"StableDiffusionPipeline": "sd", "StableDiffusionXLPipeline": "sdxl"}
SOURCES = "None (the pocket model), a diffusers folder, a hub id such as 'org/name' or a ready pipeline"
DEFAULT_SAMPLER = "DPM++ 2M Karras"
IDLE_SECONDS = 10.0  # a worker with nothing to do ends after this, so that it does not keep its model in memory

OnStep = Callable[[Step], None]


def load(
    source: Any = None,
    device: "str | torch.device | None" = None,
    dtype: "str | torch.dtype | None" = None,
) -> "Model":
    """Open a model.

    Args:
        source: None for the pocket model that comes with the package; a diffusers folder; a hub id
            ("org/name"); or a ready StableDiffusionPipeline or StableDiffusionXLPipeline, which is used as it
            is and never changed.
        device: where to run; None: CUDA if there is one, else the CPU (a ready pipeline stays where it is).
        dtype: a torch dtype or its name, such as "float16"; None: float32 (a ready pipeline stays as it is).

    Only safetensors weights are read, and no code that comes with a model is ever run.

    Raises:
        ValueError: one sentence, for a source that is none of these or that cannot be opened.
    """
    place, kind = _device(device), _dtype(dtype)
    if source is not None and not isinstance(source, (str, os.PathLike)):
        if isinstance(source, type) or not hasattr(source, "scheduler") or not hasattr(source, "components"):
            raise ValueError(f"a model is {SOURCES}, got {shown(source)}")
        _family(type(source))
        for target in (place, kind):
            source = source if target is None else source.to(target)
        return Model(source)
    pocket = source is None
    where = POCKET if source is None else os.fspath(source)
    pipeline = _open(where, kind or torch.float32)
    pipeline.to(place or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Model(
        pipeline,
        name="pocket" if pocket else Path(where).name,
        sampler=DEFAULT_SAMPLER if pocket else None,
        words=_words(Path(where)),
        fixed_size=pocket,
    )


class Job:
    """One submitted run.

    Attributes:
        trace: the run so far; it grows while the run goes.
        error: what a failed run raised, else None.
    """

    def __init__(self, trace: Trace, on_step: OnStep | None = None) -> None:
        self.trace = trace
        self.error: BaseException | None = None
        self._on_step = on_step
        self._status = "queued"
        self._cancel = threading.Event()
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
        """Claim a queued job for running; False if it was cancelled meanwhile."""
        with self._lock:
            if self._status != "queued":
                return False
            self._status = "running"
            return True

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


class Model:
    """A pipeline opened up: what it can do, and its runs as traces.

    Attributes:
        pipeline: the diffusers pipeline; never changed by a run.
        name: what to call it.
        family: which kind of pipeline it is ("sd", "sdxl").
        factor: pixels per latent.
        size: (width, height) it draws if nothing else is asked for.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        name: str | None = None,
        sampler: str | None = None,
        words: frozenset[str] = frozenset(),
        fixed_size: bool = False,
    ) -> None:
        """Args:

        pipeline: a ready StableDiffusionPipeline or StableDiffusionXLPipeline.
        name: what to call it; its class by default.
        sampler: which one it uses if none is asked for; None: the one it came with where the menu has it.
        words: all words it was trained on, lower case; empty if that is not known.
        fixed_size: refuse every other size than its own.

        Raises:
            ValueError: for a pipeline of another family, or one that cannot read prompts.
        """
        self.family = _family(type(pipeline))
        if getattr(pipeline, "tokenizer", None) is None or getattr(pipeline, "text_encoder", None) is None:
            raise ValueError(
                f"a pipeline needs a tokenizer and a text encoder, got a {type(pipeline).__name__} without"
            )
        self.pipeline = pipeline
        self.name = name or type(pipeline).__name__
        self.factor = int(pipeline.vae_scale_factor)
        sample = pipeline.unet.config.sample_size
        rows, columns = (sample, sample) if isinstance(sample, int) else sample
        self.size = (columns * self.factor, rows * self.factor)
        self._sampler = sampler
        self._words = words
        self._fixed_size = fixed_size
        # What the model is, as opposed to how somebody samples from it: kept as it came, however often
        # samplers change.
        self._base_config = dict(pipeline.scheduler.config)
        self._base_class = type(pipeline.scheduler).__name__
        self._turn = _turn(denoisers(pipeline)[0])
        self._decoding = threading.Lock()
        self._fitting = threading.Lock()
        self._matrix: np.ndarray | None = None
        self._jobs = threading.Condition()
        self._queued: Job | None = None
        self._running: Job | None = None
        self._worker: threading.Thread | None = None

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
        keys = ("algorithm_type", "solver_order", "use_karras_sigmas")
        came = {key: self._base_config[key] for key in keys if self._base_config.get(key) is not None}
        for name in self.samplers:
            entry = SAMPLERS[name]
            if entry.cls == self._base_class and all(entry.config.get(k, v) == v for k, v in came.items()):
                return name
        return DEFAULT_SAMPLER if DEFAULT_SAMPLER in self.samplers else self.samplers[0]

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
        for name, value in (("width", width), ("height", height)):
            if value % self.factor:
                raise ValueError(f"{name} must be a multiple of {self.factor} for this model, got {value}")
        self._check_steps(sampler, settings.steps)
        return settings.replace(sampler=sampler, width=width, height=height)

    def _check_steps(self, sampler: str, steps: int) -> None:
        """Refuse more steps than there are timesteps; diffusers would run off its table in the middle of a run."""
        leading = SAMPLERS[sampler].config.get("timestep_spacing") == "leading"
        offset = int(self._base_config.get("steps_offset", 0)) if leading else 0
        most = int(self._base_config.get("num_train_timesteps", 1000)) - offset
        if steps > most:
            raise ValueError(f"{sampler} takes at most {most} steps with this model, got {steps}")

    def tokens(self, prompt: str) -> dict[str, list[str]]:
        """What the text encoder reads of a prompt, and what it never sees for want of room.

        Returns:
            ``{"tokens": [...], "cut": [...]}``, each token as the piece of the prompt that it stands for.
        """
        pieces, room = self._pieces(prompt)
        texts = [prompt[start:end] for start, end in pieces]
        return {"tokens": texts[:room], "cut": texts[room:]}

    def _pieces(self, prompt: str) -> tuple[list[tuple[int, int]], int]:
        """Where in the prompt each of its tokens stands, and for how many there is room."""
        tokenizer = self.pipeline.tokenizer
        read = tokenizer(prompt, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False)
        return read["offset_mapping"], tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of a prompt which this model never saw in training, each once, in order, in lower case.

        Always [] where the training vocabulary is not known.
        """
        if not self._words:
            return []
        # A compound ("snow-white") counts as known if its parts are.
        found = dict.fromkeys(re.findall(r"[^\W_]+(?:['-][^\W_]+)*", prompt.lower()))
        return [w for w in found if w not in self._words and not self._words.issuperset(re.split("['-]", w))]

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
                notes.append(f"The {title} has words this model never saw: {', '.join(unknown[:8])}{more}.")
        if settings.guidance <= 1:
            guidance = f"{settings.guidance:g}"
            if settings.negative_prompt:
                notes.append(f"The negative prompt is ignored: it needs a guidance above 1, here it is {guidance}.")
            if settings.guidance < 1:
                notes.append(f"A guidance of {guidance} acts as 1: this pipeline turns it off at 1 and below.")
        return notes

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
        self._run(trace, threading.Event(), None)
        return trace

    def trace_many(self, settings: Sequence[Settings]) -> list[Trace]:
        """Run several, one after the other; all are checked before the first starts."""
        traces = [self._new(one, {}) for one in settings]
        for trace in traces:
            self._run(trace, threading.Event(), None)
        return traces

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
        job = Job(self._new(settings, values), on_step)
        with self._jobs:
            replaced, running, self._queued = self._queued, self._running, job
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name=f"diffexplore {self.name}", daemon=True)
                self._worker.start()
            self._jobs.notify()
        # Outside the lock: a cancelled job calls its callbacks, and those may submit.
        for old in (replaced, running):
            if old is not None:
                old.cancel()
        return job

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
            "family": self.family,
            "pipeline": type(self.pipeline).__name__,
            "tokens": {
                "prompt": prompt["tokens"],
                "cut": prompt["cut"],
                "negative": negative["tokens"],
                "negative_cut": negative["cut"],
            },
            "notes": self.notes(settings),
            "versions": {
                "torch": torch.__version__,
                "diffusers": diffusers.__version__,
                "transformers": transformers.__version__,
            },
        }

    def _work(self) -> None:
        """The worker thread: take the newest job until there is none for a while."""
        while True:
            with self._jobs:
                if self._queued is None:
                    self._jobs.wait(IDLE_SECONDS)
                job, self._queued = self._queued, None
                if job is None:
                    self._worker = None
                    return
                self._running = job
            job._context.run(self._run_job, job)
            with self._jobs:
                self._running = None
            del job  # or an idle worker would keep the last trace

    def _run_job(self, job: Job) -> None:
        def started() -> None:
            if not job._start():
                raise Cancelled

        try:
            self._run(job.trace, job._cancel, job._on_step, started)
        except BaseException as error:
            job._finish("failed", error)
        else:
            job._finish("cancelled" if job.trace.cancelled else "done")

    def _run(
        self,
        trace: Trace,
        cancel: threading.Event,
        on_step: OnStep | None,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Fill `trace`; on a cancel mark it so."""
        settings = trace.settings

        def emit(step: Step) -> None:
            trace.append(step)
            if on_step is not None:
                on_step(step)

        def on_schedule(schedule: list[float]) -> None:
            trace.info["schedule"] = schedule
            trace.expected = len(schedule)

        begun = time.perf_counter()
        try:
            with self._turn.taken(cancel):
                begun = time.perf_counter()
                started()
                pipeline = copy.copy(self.pipeline)
                pipeline.scheduler = scheduler = build(settings.sampler or self.sampler, self._base_config)
                pipeline.set_progress_bar_config(disable=True)
                trace.info["sampler"] = {
                    "class": type(scheduler).__name__,
                    "config": _plain(scheduler.config),
                }
                try:
                    with (
                        _without_truncation_warning(type(pipeline)),
                        record(pipeline, emit, cancel, guidance=settings.guidance, on_schedule=on_schedule),
                    ):
                        latents = pipeline(
                            prompt=settings.prompt,
                            negative_prompt=settings.negative_prompt or None,
                            num_inference_steps=settings.steps,
                            guidance_scale=settings.guidance,
                            width=settings.width,
                            height=settings.height,
                            generator=torch.Generator("cpu").manual_seed(settings.seed),
                            output_type="latent",
                        ).images
                finally:
                    # The user's object, not the clone: with model offload this puts fresh hooks where the
                    # user's pipeline expects them.
                    self.pipeline.maybe_free_model_hooks()
                    for step in trace:
                        step.settle()
                if cancel.is_set():
                    raise Cancelled
                with interruptible([self.pipeline.vae], cancel):
                    image = self._decode(latents, final=True)
            trace.final = latents[0].to("cpu", torch.float32)
            trace.image = image
        except Cancelled:
            trace.cancelled = True
        finally:
            trace.seconds = time.perf_counter() - begun

    # Pictures

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (C, h, w) to a picture, (H, W, 3) uint8, exactly as a final picture is decoded; safe on any
        thread, during a run too.
        """
        if latents.ndim != 3:
            raise ValueError(f"latents to decode must be (C, h, w), got the shape {tuple(latents.shape)}")
        return np.asarray(self._decode(latents.unsqueeze(0)))

    @torch.no_grad()
    def _decode(self, latents: torch.Tensor, final: bool = False) -> "Image.Image":
        """(1, C, h, w) to a picture, by the very calls of the pipeline's own end; only a `final` one is
        checked or marked.
        """
        pipeline, vae = self.pipeline, self.pipeline.vae
        with self._decoding:
            device = pipeline._execution_device
            latents = latents.to(device, pipeline.unet.dtype)
            flags = None
            if self.family == "sd":
                pixels = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
                if final:
                    pixels, flags = pipeline.run_safety_checker(pixels, device, latents.dtype)
            else:
                pixels = self._decode_sdxl(latents)
                if final and pipeline.watermark is not None:
                    pixels = pipeline.watermark.apply_watermark(pixels)
            clear = [True] if flags is None else [not flag for flag in flags]
            images: list[Image.Image] = pipeline.image_processor.postprocess(
                pixels, output_type="pil", do_denormalize=clear
            )
            return images[0]

    def _decode_sdxl(self, latents: torch.Tensor) -> torch.Tensor:
        pipeline, vae = self.pipeline, self.pipeline.vae
        # SDXL's own VAE overflows in half precision.
        upcast = vae.dtype == torch.float16 and vae.config.force_upcast
        if upcast:
            pipeline.upcast_vae()
            latents = latents.to(next(iter(vae.post_quant_conv.parameters())).dtype)
        try:
            mean, std = getattr(vae.config, "latents_mean", None), getattr(vae.config, "latents_std", None)
            if mean is not None and std is not None:
                mean = torch.tensor(mean).view(1, -1, 1, 1).to(latents.device, latents.dtype)
                std = torch.tensor(std).view(1, -1, 1, 1).to(latents.device, latents.dtype)
                latents = latents * std / vae.config.scaling_factor + mean
            else:
                latents = latents / vae.config.scaling_factor
            pixels: torch.Tensor = vae.decode(latents, return_dict=False)[0]
            return pixels
        finally:
            if upcast:
                vae.to(dtype=torch.float16)

    def matrix(self) -> np.ndarray:
        """Latents to RGB without the decoder: (C + 1, 3) float32, fitted to a few decodes on first use and
        kept.

        Each latent is one pixel: ``rgb = (latent channels, 1) @ matrix``, about 0 to 1. The fit decodes
        smooth random fields, drawn from a generator of its own: the same for every process, and no run's
        randomness is touched.
        """
        with self._fitting:
            if self._matrix is None:
                self._matrix = _fit_matrix(self.decode, int(self.pipeline.vae.config.latent_channels), self.factor)
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


def _family(pipeline: type) -> str:
    for cls in pipeline.__mro__:
        if cls.__name__ in FAMILIES:
            return FAMILIES[cls.__name__]
    raise ValueError(f"a pipeline must be one of {', '.join(FAMILIES)}, got {shown(pipeline.__name__)}")


def _open(source: Path | str, dtype: torch.dtype) -> Any:
    """A pipeline from a diffusers folder or a hub id, with nothing written to the terminal."""
    where = str(source)
    folder = Path(where)
    if folder.is_file():
        raise ValueError(f"a model is {SOURCES}, got the single file {shown(where, 200)}")
    if where and folder.is_dir() and not (folder / "model_index.json").is_file():
        raise ValueError(f"a model folder needs a model_index.json, {shown(where, 200)} has none")
    if not where or (not folder.is_dir() and not re.fullmatch(r"[\w.-]+/[\w.-]+", where)):
        raise ValueError(f"a model is {SOURCES}, got {shown(where, 200)}")
    with _quiet():
        import diffusers

        try:
            name = diffusers.DiffusionPipeline.load_config(where, local_files_only=folder.is_dir())["_class_name"]
            if name not in FAMILIES:
                raise ValueError(f"its pipeline must be one of {', '.join(FAMILIES)}, it is {shown(name)}")
            # use_safetensors, since a pickle can run code; diffusers itself refuses a model's own Python
            # files.
            return getattr(diffusers, name).from_pretrained(
                where, dtype=dtype, use_safetensors=True, local_files_only=folder.is_dir()
            )
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"{shown(where, 200)} cannot be opened as a model: {reason[:300]}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars, and no advice on torchvision (which nothing here needs), while a pipeline loads."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    with ExitStack() as undo:
        for log in (diffusers_logging, transformers_logging):
            undo.callback(log.set_verbosity, log.get_verbosity())
            log.set_verbosity_error()
            if log.is_progress_bar_enabled():
                undo.callback(log.enable_progress_bar)
                log.disable_progress_bar()
        yield


def _device(device: "str | torch.device | None") -> torch.device | None:
    try:
        return None if device is None else torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be a torch device such as 'cpu' or 'cuda', got {shown(device)}") from None


def _dtype(dtype: "str | torch.dtype | None") -> torch.dtype | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is None or (isinstance(found, torch.dtype) and found.is_floating_point):
        return found
    raise ValueError(f"dtype must be a floating torch dtype or its name, such as 'float16', got {shown(dtype)}")


def _words(folder: Path) -> frozenset[str]:
    """The training vocabulary beside a model, lower case; empty where there is none."""
    file = folder / "words.json"
    return frozenset(word.lower() for word in json.loads(file.read_text("utf-8"))) if file.is_file() else frozenset()


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's config as JSON takes it, without diffusers' own marks."""
    return {
        k: v
        for k, v in config.items()
        if not k.startswith("_") and isinstance(v, (str, int, float, bool, list, type(None)))
    }
