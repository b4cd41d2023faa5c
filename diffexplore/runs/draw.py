"""One run: the pipeline's call for one picture or a batch, watched by probes, remembered, and decoded.

A run works on a shallow clone of the pipeline with a scheduler of its own, so the user's object is never changed. The
latents are decoded here, through the same calls as the pipeline's own, so the picture is bit-identical to plain
diffusers and a cancelled run never decodes.
"""

import copy
import logging
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch

from diffexplore.pipelines.base import denoisers
from diffexplore.pipelines.family import Family, Looked
from diffexplore.pipelines.signature import described
from diffexplore.record.step import Step
from diffexplore.runs import memory
from diffexplore.runs.adapters import Adapters
from diffexplore.runs.branch import Replay
from diffexplore.runs.decode import PictureDecoder
from diffexplore.runs.estimate import Clock, Ledger
from diffexplore.runs.handed import REFUSALS, refused
from diffexplore.runs.jobs import OnStep, Turn
from diffexplore.runs.mirror import Mirror
from diffexplore.runs.probes import Cancel, Cancelled, Probe, Stop, attached, interruptible, run_through
from diffexplore.runs.recorder import Recorder
from diffexplore.runs.repaint import Repaint
from diffexplore.runs.sampling import asked_otherwise
from diffexplore.runs.schedules import Schedules
from diffexplore.runs.skips import Skips
from diffexplore.runs.start import Start, encoded
from diffexplore.runs.steer import Ahead, Steering, steered
from diffexplore.runs.threads import AUTO, Threads, working
from diffexplore.runs.variation import Variation
from diffexplore.runs.watermark import Watermark
from diffexplore.runs.whole import Whole, broken
from diffexplore.samplers import AS_IT_CAME
from diffexplore.settings import Settings
from diffexplore.trace import Trace

__all__ = ["Artist"]

BLACKED = "The picture is black: the safety checker that came with this pipeline took it for one that must not be seen."


_TODAY = secrets.token_bytes(8)


class Artist:
    """Draws with one pipeline, whoever asks for it, one run at a time."""

    def __init__(
        self,
        family: Family,
        pipeline: Any,
        schedules: Schedules,
        turn: Turn,
        adapters: Adapters,
        decoder: PictureDecoder,
        store: memory.Store,
        ledger: Ledger,
        threads: Threads,
    ) -> None:
        """What it draws with: a `pipeline` of `family`, the `schedules` it is sampled by; the `turn` at its denoiser,
        the `adapters` it may switch on, the `decoder`, the `store` where results are kept, the `ledger` of what
        runs cost, and on how many `threads` they are computed.
        """
        self._family = family
        self._pipeline = pipeline
        self._schedules = schedules
        self._turn = turn
        self._adapters = adapters
        self._decoder = decoder
        self._store = store
        self._ledger = ledger
        self._threads = threads
        self._network: Any = getattr(pipeline, family.network)
        self._whole = Whole(family, pipeline, threads) if isinstance(family, Looked) else None

    @property
    def whole(self) -> Whole | None:
        """What draws and decodes in place of a named family's ways; None where there is one."""
        return self._whole

    def run(
        self,
        traces: Sequence[Trace],
        stop: Stop,
        on_step: OnStep | None = None,
        started: Callable[[], None] = lambda: None,
        probes: Sequence[Probe] = (),
    ) -> None:
        """Fill `traces`, all in one batch; where `stop` is set meanwhile, mark them as cancelled.

        Args:
            traces: empty ones, whose settings can share a batch.
            stop: ends the run.
            on_step: called with each step after it was added to its trace.
            started: called when the turn has come; may raise `Cancelled`.
            probes: attached for this run.
        """
        begun, clock, whole = time.perf_counter(), Clock(), False
        try:
            with self._turn.taken(stop):
                clock, begun = self._ledger.clock(), time.perf_counter()
                started()
                with self._adapters.on(traces[0].settings.adapters), working(self._count(traces)):
                    self._answer(traces, stop, on_step, probes, clock)
            whole = True
        except Cancelled:
            for trace in traces:
                trace.cancelled = True
        finally:
            for trace in traces:
                trace.seconds = time.perf_counter() - begun
            self._ledger.settle(clock, traces, whole)

    def _count(self, traces: Sequence[Trace]) -> int | None:
        """On how many threads such traces are drawn."""
        if self._threads.asked != AUTO:
            return self._threads.asked
        first = traces[0].settings

        def trial() -> float:
            few = Settings(
                steps=4, guidance=first.guidance, width=first.width, height=first.height, sampler=first.sampler
            )
            made = [Trace(few, info={"notes": []}) for _ in traces]
            self._draw(Clock(drawn=made), None, Stop(), None, ())
            return sum(step.seconds for step in made[0])

        size = first.width or 0, first.height or 0
        tried = self._whole is None and not any(trace.extra for trace in traces)
        return self._threads.count(self._ledger.place(first), size, trial if tried else None)

    def _answer(
        self, traces: Sequence[Trace], stop: Stop, on_step: OnStep | None, probes: Sequence[Probe], clock: Clock
    ) -> None:
        """Fill `traces` from memory where it knows them, else by drawing."""
        clock.plain = not probes
        if traces[0].settings.skips:  # a batch shares them
            probes = [*probes, Skips(traces[0].settings.skips)]
        looked = self._whole is not None
        state = memory.fingerprint(self._pipeline, scheduler=looked) if self._store.keeps else None
        said = [probe.key() for probe in probes]
        if any(probe.changes and key is None for probe, key in zip(probes, said, strict=True)):
            state = None
        # What somebody's own probe says of itself is good while its code is the same: in this session.
        added = [
            (_TODAY, key) if _foreign(one) else key for one, key in zip(probes, said, strict=True) if key is not None
        ]
        name = str(traces[0].settings.sampler)  # a batch shares one
        # Of a pipeline found by looking, the fingerprint covers the scheduler.
        sampler = None if state is None else AS_IT_CAME if looked else self._schedules.key(name)
        keys = [memory.run_key(state, trace.settings, sampler, *added, *self._asked_beside(trace)) for trace in traces]
        planned = {id(trace): len(trace.info["notes"]) for trace in traces}
        left = [
            (trace, key)
            for trace, key in zip(traces, keys, strict=True)
            if not self._replay(trace, key, stop, on_step, probes, batched=len(traces) > 1)
        ]
        clock.drawn = [trace for trace, _ in left]
        if left and self._whole is not None:
            for trace, _ in left:
                self._whole.draw(trace, stop, on_step, probes)
            # What the run has taught, such as from where guidance is counted, is asked for from now on; and networks
            # may have got what diffusers sets up in them at their first call.
            state = state and memory.fingerprint(self._pipeline, scheduler=True)
            keys = [
                memory.run_key(state, trace.settings, sampler, *added, *self._asked_beside(trace)) for trace, _ in left
            ]
            left = [(trace, key) for (trace, _), key in zip(left, keys, strict=True)]
        elif left:
            self._draw(clock, state, stop, on_step, probes)
        for trace, key in left:
            # Rounding differs between a batch and a picture alone: a run alone is never answered with one of a batch.
            kept = memory.copy_of(trace)
            kept.info["told"] = trace.info["notes"][planned[id(trace)] :]
            self._store.put(key and (key, len(left) > 1), kept, memory.size_of(kept))

    def _asked_beside(self, trace: Trace) -> list[Any]:
        """What decides a run beside its settings."""
        if isinstance(self._family, Looked):
            return [memory.as_plain(self._family.arguments(self._pipeline, [trace.settings], trace.extra))]
        return [memory.as_plain(dict(trace.extra))] if trace.extra else []

    def _replay(
        self,
        trace: Trace,
        key: Hashable,
        stop: Stop,
        on_step: OnStep | None,
        probes: Sequence[Probe],
        *,
        batched: bool,
    ) -> bool:
        """Fill a trace from a remembered run of the same settings; False if there is none."""
        kept = self._store.get(key and (key, False))
        if kept is None and batched:
            kept = self._store.get(key and (key, True))
        if kept is None:
            return False
        made = memory.copy_of(kept)
        # What the run itself has shown stays true; what there is to say of its settings is said of the present ones.
        notes = trace.info["notes"]
        told = [note for note in made.info.pop("told") if note not in notes]
        trace.info |= made.info | {"notes": [*notes, *told], "reused": True}
        trace.expected = made.expected
        watching = [probe for probe in probes if probe.key() is None]  # the others are in the steps already
        for step in made:
            if stop.is_set():
                raise Cancelled
            trace.append(step)
            run_through(watching, step)
            if on_step is not None:
                on_step(step)
        trace.final, trace.image, trace.output = made.final, made.image, made.output
        if self._whole is not None:
            trace.tape = made.tape
            self._whole.lend(trace)
        return True

    def _draw(
        self,
        clock: Clock,
        state: bytes | None,
        stop: Stop,
        on_step: OnStep | None,
        probes: Sequence[Probe],
    ) -> None:
        """Run the pipeline once for all traces that are to be drawn, and decode."""
        traces = clock.drawn
        family, settings = self._family, [trace.settings for trace in traces]
        first = settings[0]
        if len({stage.adapters for _, stage in first.stages()}) > 1:
            state = None  # the fingerprint is of the LoRAs that a run begins with
        unseen = state
        width, height = first.width, first.height
        assert width is not None, "settings are resolved before they are drawn"
        assert height is not None

        def emit_to(trace: Trace) -> Callable[[Step], None]:
            def emit(step: Step) -> None:
                run_through(sorted(probes, key=lambda probe: not probe.outermost), step)
                trace.append(step)
                if on_step is not None:
                    on_step(step)

            return emit

        def on_schedule(schedule: list[float]) -> None:
            for trace in traces:
                trace.info["schedule"] = list(schedule)
                trace.expected = len(schedule)

        def unpack(latents: torch.Tensor) -> torch.Tensor:
            return family.unpack(self._pipeline, latents, width, height)

        pipeline = copy.copy(self._pipeline)
        seeds = [one.seed for one in settings]
        pipeline.scheduler = scheduler = self._schedules.make(str(first.sampler), seeds)
        pipeline.set_progress_bar_config(disable=True)
        extra = dict(traces[0].extra)
        start: Start | None = None
        if first.strength is not None:
            clean = encoded(family, self._pipeline, extra.pop("image"), width, height)
            mask = extra.pop("mask", None)
            start = Start(clean, first.strength) if mask is None else Repaint(clean, first.strength, mask)
        own = extra.get("latents")
        if isinstance(own, torch.Tensor) and own.ndim == 3 and len(own) == family.channels(self._pipeline):
            # As traces have them; a pipeline takes them as its loop keeps them.
            extra["latents"] = family.pack(self._pipeline, own.unsqueeze(0).to(self._network.dtype))
        arguments = family.arguments(self._pipeline, settings) | extra
        asked = {k: v for k, v in arguments.items() if k in ("guidance_scale", "true_cfg_scale")}
        for trace in traces:
            trace.info["sampler"] = {"class": type(scheduler).__name__, "config": _plain(scheduler.config)}
            trace.info["asked"] = asked
            trace.info["batch"] = len(traces)
            if self._ledger.device().type == "cpu":
                trace.info["threads"] = torch.get_num_threads()  # bits depend on it
            if trace.extra:
                trace.info["extra"] = described(dict(trace.extra))
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        recorder = Recorder(
            [emit_to(trace) for trace in traces],
            guidance=[one.guidance for one in settings],
            unpack=unpack,
            generators=generators,
            recombine=len({one.guidance for one in settings}) > 1 and family.guided(self._pipeline, first),
            on_schedule=on_schedule,
            guiders=[one.guider if family.guided(self._pipeline, one) else None for one in settings],
            order=family.order,
            replayed=next((probe.replayed for probe in probes if isinstance(probe, Replay)), ()),
            pack=lambda latents: family.pack(self._pipeline, latents),
        )
        networks = denoisers(pipeline)
        unseen = None if any(probe.inside for probe in probes) else unseen
        for probe in probes:
            probe.begin(traces)
        try:
            if first.strength == 0:  # nothing is drawn: the picture as its encoder keeps it
                on_schedule([])
                finals = clean.unsqueeze(0).to(pipeline._execution_device, self._network.dtype)
            else:
                with ExitStack() as held:
                    held.enter_context(_without_truncation_warning(type(pipeline)))
                    held.enter_context(memory.prompts(pipeline, self._store, state))
                    outer = [probe for probe in probes if probe.outermost]
                    if len(first.stages()) > 1:
                        arguments, steering = self._steered(pipeline, traces, extra, recorder, probes)
                        outer.append(steering)
                    clock.known = held.enter_context(memory.evaluations([self._network], self._store, unseen))
                    leading = [probe for probe in probes if probe.leads]
                    if start is not None:
                        leading.insert(0, start)
                        outer.append(Ahead(family.network, start.restore))
                    if any(one.variation for one in settings):  # below all that look at the noise
                        leading.insert(0, Variation([one.variation for one in settings]))
                    if any(one.watermark for one in settings):  # and below that: it turns marked noise
                        leading.insert(0, Watermark([(one.watermark, one.seed) for one in settings], (width, height)))
                    leading = [*asked_otherwise(first), *leading]
                    inner = [*leading, Mirror(self._pipeline, networks), recorder, Cancel(stop, networks)]
                    inner += [probe for probe in probes if not (probe.outermost or probe.leads)]
                    held.enter_context(attached(pipeline, [*inner, *outer]))
                    latents = pipeline(
                        **arguments,
                        generator=generators if len(generators) > 1 else generators[0],
                        output_type="latent",
                    ).images
                finals = unpack(latents)
        except REFUSALS as error:
            told = refused(self._pipeline, traces[0], error)
            if told is None:
                raise
            raise told from error
        finally:
            # The user's object, not the clone: with model offload this puts fresh hooks where the
            # user's pipeline expects them.
            self._pipeline.maybe_free_model_hooks()
            for trace in traces:
                for step in trace:
                    step.settle()
        for trace, final in zip(traces, finals, strict=True):
            if recorder.trouble:
                trace.info["notes"] = [*trace.info["notes"], recorder.trouble]
                trace.expected = len(trace)
            if stop.is_set():
                raise Cancelled
            if start is not None and first.strength:
                trace.info["start"] = {"share": start.share, "skipped": start.skipped}
            with interruptible([self._decoder.module], stop), clock.decoding():
                # One at a time: decoders take far more memory than networks, and a batch would not be bit-identical.
                trace.image = trace.output = self._decoder.image(final, final=True)
            checked = getattr(self._pipeline, "safety_checker", None) is not None
            if checked and not np.asarray(trace.image).any():
                trace.info["notes"] = [*trace.info["notes"], BLACKED]
            trace.final = final.to("cpu", torch.float32)
            trace.info["notes"] = [*trace.info["notes"], *broken(trace)]

    def _steered(
        self,
        pipeline: Any,
        traces: Sequence[Trace],
        extra: Mapping[str, Any],
        recorder: Recorder,
        probes: Sequence[Probe],
    ) -> tuple[dict[str, Any], Probe]:
        """Arguments of the call that draws what changes on its way, and the probe that changes it."""
        settings = [trace.settings for trace in traces]
        first, wearing = settings[0], self._adapters.on
        seeds = [one.seed for one in settings]

        def scheduler() -> Any:
            return self._schedules.make(str(first.sampler), seeds)

        arguments, stages, dial = steered(self._family, pipeline, settings, extra, scheduler, wearing)
        since = next((probe.since for probe in probes if isinstance(probe, Replay)), None)
        return arguments, Steering(self._family.network, stages, dial, wearing, recorder.ask, since)


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


def _foreign(probe: Probe) -> bool:
    return type(probe).__module__.partition(".")[0] != "diffexplore"


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's config as JSON takes it, without diffusers' own marks."""
    return {
        k: v
        for k, v in config.items()
        if not k.startswith("_") and isinstance(v, (str, int, float, bool, list, type(None)))
    }
