"""One run of a pipeline that nobody knows: its own call, watched; and what can be decoded of it afterwards."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from diffexplore.pipelines.any import Looked, schedulers_of
from diffexplore.pipelines.output import Made, made_of
from diffexplore.pipelines.signature import described, extras_of
from diffexplore.record.step import Step
from diffexplore.runs.handed import REFUSALS, refused
from diffexplore.runs.jobs import OnStep
from diffexplore.runs.mirror import Mirror
from diffexplore.runs.probes import Cancel, Cancelled, Probe, Stop, attached, interruptible, run_through
from diffexplore.runs.replay import Tape, clone_of, dice, play
from diffexplore.runs.sampling import asked_otherwise
from diffexplore.runs.schedules import OF_THE_SEED
from diffexplore.runs.threads import Threads, working
from diffexplore.runs.watch import Recount, UnmixedError, Watcher
from diffexplore.trace import Trace
from diffexplore.words import sentence

__all__ = ["Whole", "broken"]

DICED = (
    "Something in this pipeline draws from torch's global generator, anew each time; here that begins at the run's "
    "seed, so that runs can be repeated."
)

_FPS = ("frame_rate", "fps")


class Whole:
    """Draws with one pipeline of no named family, and decodes what it drew."""

    def __init__(self, family: Looked, pipeline: Any, threads: Threads) -> None:
        """A `pipeline`, and what is known of it; its calls are made again on as many `threads` as its runs."""
        self._family = family
        self._pipeline = pipeline
        self._threads = threads
        self._tape: Tape | None = None  # of the last run
        self._final: tuple[torch.Tensor, Made] | None = None

    def draw(self, trace: Trace, stop: Stop, on_step: OnStep | None, probes: Sequence[Probe]) -> None:
        """Fill an empty trace.

        Raises:
            ValueError: one sentence, where the pipeline wants pictures that it was not given, or refuses what it was
                given.
        """
        try:
            self._draw(trace, stop, on_step, probes)
        except Recount:
            trace.clear()
            trace.info["notes"] = [*trace.info["notes"], *self._family.counted(trace.settings)]
            self._draw(trace, stop, on_step, probes)
        except UnmixedError:
            raise
        except REFUSALS as error:
            wanted = [one.name for one in extras_of(self._pipeline) if one.kind == "picture"]
            wanted = [name for name in wanted if trace.extra.get(name) is None]
            if wanted and not trace.extra and not len(trace):
                names = " or ".join(f"{name}=" for name in wanted)
                title = type(self._pipeline).__name__
                raise ValueError(f"{title} may need {names} beside the settings: {sentence(error)}") from error
            told = refused(self._pipeline, trace, error)
            if told is None:
                raise
            raise told from error

    def _draw(self, trace: Trace, stop: Stop, on_step: OnStep | None, probes: Sequence[Probe]) -> None:
        family, settings = self._family, trace.settings
        arguments = family.arguments(self._pipeline, [settings], trace.extra)
        guidance = max(0.0, settings.guidance - family.offset)
        modular = guidance if family.guider else None
        clone = clone_of(self._pipeline, modular)
        scheduler = schedulers_of(clone)[family.scheduler]
        trace.info["sampler"] = {"class": type(scheduler).__name__, "config": _plain(getattr(scheduler, "config", {}))}
        asked = family.asked(arguments)
        trace.info["asked"] = {name: value for name, value in asked.items() if name not in trace.extra}
        trace.info["batch"] = 1
        if family.kind:
            trace.info["kind"] = family.kind  # as far as is known before its end

        def emit(step: Step) -> None:
            run_through(probes, step)
            trace.append(step)
            if on_step is not None:
                on_step(step)

        def on_schedule(schedule: list[float], calls: int) -> None:
            trace.info["schedule"] = schedule[-calls:] if calls < len(schedule) else schedule
            trace.expected = calls

        counted = next((asked[name] for name in family.ours if name in asked), modular)
        watcher = Watcher(
            family, emit, guidance=counted, width=settings.width, height=settings.height,
            on_schedule=on_schedule, on_stage=trace.clear, guider=settings.guider,
        )  # fmt: skip
        networks = family.networks(self._pipeline)
        own = asked_otherwise(settings, family.scheduler)
        for probe in probes:
            probe.begin([trace])
        call = dict(arguments)
        if "generator" in family.takes:
            call["generator"] = torch.Generator("cpu").manual_seed(settings.seed)
        device = getattr(self._pipeline, "_execution_device", torch.device("cpu"))
        if torch.device(device).type == "cpu":
            trace.info["threads"] = torch.get_num_threads()  # bits depend on it
        decoder = getattr(self._pipeline, family.decoder, None) if family.decoder else None
        try:
            with (
                dice(settings.seed, device) as diced,
                attached(clone, [*own, Mirror(self._pipeline, networks), watcher, Cancel(stop, networks), *probes]),
                interruptible([decoder] if isinstance(decoder, torch.nn.Module) else [], stop),
            ):
                given = clone(**call)
                drew = diced()
        finally:
            # The user's object, not the clone: with model offload this puts fresh hooks where they are expected.
            free = getattr(self._pipeline, "maybe_free_model_hooks", None)
            if free is not None:
                free()
            for step in trace:
                step.settle()
        if stop.is_set():
            raise Cancelled
        made = made_of(given, self._pipeline)
        trace.image, trace.output = made.image, made.output
        self._learn(trace, watcher, made)
        if watcher.final is not None:
            self._keep(trace, watcher, arguments, modular, drew, made)
        trace.expected = len(trace)
        trace.info["kind"] = made.kind
        if made.rate:
            trace.info["rate"] = made.rate
        if made.kind == "video":
            trace.info["frames"] = len(made.output)
            fps = next((value for name in _FPS if (value := self._said(arguments, name)) is not None), None)
            if fps is not None:
                trace.info["fps"] = fps
        trace.info["looked"] = family.looks(self._pipeline)
        if trace.extra:
            trace.info["extra"] = described(dict(trace.extra))
        told = [*family.told(trace, watcher.trouble), *broken(trace)]
        if drew and OF_THE_SEED not in trace.info["notes"]:
            told.append(DICED)
        trace.info["notes"] = [*trace.info["notes"], *told]

    def _said(self, arguments: Mapping[str, Any], name: str) -> float | None:
        """A number above 0 that the call was given, or has by itself; None where it takes none of that name."""
        takes = self._family.takes
        value = arguments.get(name, takes[name].default if name in takes else None)
        return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None

    def _learn(self, trace: Trace, watcher: Watcher, made: Made) -> None:
        family, width, height = self._family, trace.settings.width, trace.settings.height
        family.kind = made.kind
        family.denoising = tuple(watcher.found) or family.denoising
        family.stages = tuple(watcher.earlier)
        if watcher.final is None:
            return
        kept = watcher.final.detach()[:1]
        before, grid = family.layout(self._pipeline, kept, width, height)
        if family.learn_layout(kept, watcher.taken):
            after, to = family.layout(self._pipeline, kept, width, height)
            if (after, to) != (before, grid):
                trace.relay(lambda one: after.unpack(before.pack(one.unsqueeze(0), grid), to)[0])
        trace.final = family.unpack(self._pipeline, kept, width, height)[0].to("cpu", torch.float32)
        trace.info["axes"] = list(family.axes_of(tuple(trace.final.shape)))

    def _keep(
        self,
        trace: Trace,
        watcher: Watcher,
        arguments: Mapping[str, Any],
        guidance: float | None,
        diced: bool,
        made: Made,
    ) -> None:
        """Keep what it takes to make the call again, and see once whether that ends on the same picture."""
        family, kept = self._family, watcher.final
        assert kept is not None, "there were steps"
        layout, grid = family.layout(self._pipeline, kept, trace.settings.width, trace.settings.height)
        tape = Tape(
            arguments, trace.settings.seed, watcher.answers, watcher.helpers, watcher.steps, layout, grid,
            kept.dtype, diced, guidance, str(kept.device), made.kind,
        )  # fmt: skip
        tape.settle()
        trace.tape = self._tape = tape
        self.lend(trace)

    def lend(self, trace: Trace) -> None:
        """Give a trace of this pipeline what it decodes its estimates with."""
        tape = trace.tape
        if not isinstance(tape, Tape) or tape.kind not in ("picture", "video", "sound"):
            trace.lend(None, None)  # what it makes is neither seen nor heard: views have linear colours
        elif tape.kind == "sound":
            trace.lend(lambda latents: np.asarray(self.made(latents, tape).output), None)
        else:
            trace.lend(lambda latents: self.pixels(latents, tape), lambda: _fitted(trace))

    def made(self, latents: torch.Tensor, tape: Tape | None = None) -> Made:
        """What the pipeline makes of latents after its last step: a picture, frames or a sound.

        Args:
            latents: (C, *axes, h, w), of the shape that a run's steps have.
            tape: of that run; None: the last one.

        Raises:
            ValueError: one sentence, before any run, or for latents of another shape.
        """
        tape = tape or self._tape
        if tape is None:
            raise ValueError("this pipeline decodes by making a call again: draw with it first")
        shape = (tape.grid.channels, *((tape.grid.frames,) if tape.grid.frames else ()), tape.grid.height)
        if latents.ndim > 2 and tuple(latents.shape[: len(shape)]) != shape:
            raise ValueError(f"latents to decode must be those of its run, {shape}, got {tuple(latents.shape)}")
        with np.errstate(invalid="ignore"), working(self._threads.decoding()):
            return play(self._family, self._pipeline, tape, latents)

    def pixels(self, latents: torch.Tensor, tape: Tape | None = None) -> np.ndarray:
        """As :meth:`made`, as pixels: (H, W, 3) uint8, or (frames, H, W, 3) of a video.

        Raises:
            ValueError: also where what it makes is no picture.
        """
        made = self.made(latents, tape)
        if made.kind == "video":
            return np.stack([np.asarray(one.convert("RGB")) for one in made.output])
        if made.image is None:
            raise ValueError(f"what this pipeline makes of latents is no picture: {made.kind}")
        return np.asarray(made.image.convert("RGB"))


def _fitted(trace: Trace) -> np.ndarray | None:
    """Latents to RGB without the decoder: (C + 1, 3), fitted to the run's last latents and its picture."""
    final, image = trace.final, trace.image
    if final is None or image is None or final.ndim not in (3, 4):
        return None
    field = final if final.ndim == 3 else final[:, final.shape[1] // 2]
    channels, height, width = field.shape
    small = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BOX), dtype=np.float64) / 255
    x = np.concatenate([field.reshape(channels, -1).T.double().numpy(), np.ones((height * width, 1))], axis=1)
    if not np.isfinite(x).all():
        return None
    # A picture has few cells: what they do not tell stays at nothing.
    ridge = 1e-2 * len(x) * np.eye(channels + 1)
    ridge[-1, -1] = 1e-9
    made: np.ndarray = np.linalg.solve(x.T @ x + ridge, x.T @ small.reshape(-1, 3)).astype(np.float32)
    return made


def broken(trace: Trace) -> list[str]:
    """What there is to say of a finished run whose latents are no numbers any more. Its steps are looked at only then,
    and on the CPU, where they are at the end of a run.
    """
    if trace.final is None or bool(torch.isfinite(trace.final).all()):
        return []
    first = trace.first_bad()
    where = "at its end" if first is None else f"from step {first + 1} on"
    return [
        f"The latents hold numbers that are not finite {where}, so the picture is none of this model's: its weights "
        'are damaged, or too much for their type, where dx.load(..., dtype="float32") helps.'
    ]


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A scheduler's config as JSON takes it, without diffusers' own marks."""
    return {
        k: v
        for k, v in config.items()
        if not k.startswith("_") and isinstance(v, (str, int, float, bool, list, type(None)))
    }
