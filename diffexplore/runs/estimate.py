"""What a run will cost, before it is started, from what this machine's own runs took (`runs.past`); and what it did
cost, told to its trace and kept for the next guess.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import torch

from diffexplore.record.cost import Cost
from diffexplore.record.predictions import share_of_noise
from diffexplore.runs.batches import grouped
from diffexplore.runs.branch import Replay
from diffexplore.runs.decides import Placed, device_of
from diffexplore.runs.levels import Levels
from diffexplore.runs.meters import Meter
from diffexplore.runs.past import Law, Took, law_of, past, stamp, weights_of
from diffexplore.runs.plan import Plan, Planner
from diffexplore.samplers.came import begin
from diffexplore.settings import Settings
from diffexplore.words import shown

if TYPE_CHECKING:
    from diffexplore.pipelines.family import Family
    from diffexplore.runs.schedules import Schedules
    from diffexplore.runs.threads import Threads
    from diffexplore.trace import Trace

__all__ = ["Clock", "Estimate", "Estimated", "Ledger"]

ENOUGH: Final = 3
"""Runs after which a guess is one."""

_A_LAYER: Final = 8e-5  # seconds that a layer takes however little it is given: on a core, with torch's ways of calling


@dataclass(frozen=True)
class Estimate:
    """What runs will cost.

    Attributes:
        evaluations: how often the network will be asked, of all pictures together; both halves of guidance are one.
        rows: how much: a row for each half of guidance of each picture. The memory of results may spare some.
        seconds: from the start to the last picture; None where no run of this model is known on this machine.
        bytes: what the traces will keep in main memory; None likewise.
        memory: bytes on the card beyond the weights, at most; None likewise, and on the CPU.
        preview: seconds that decoding the estimates of all steps takes beside that, as widgets do; None likewise.
        runs: how many runs of this model on this machine that is taken from.
        basis: the same in words.
    """

    evaluations: int
    rows: int
    seconds: float | None
    bytes: int | None
    memory: int | None
    preview: float | None
    runs: int
    basis: str

    @property
    def said(self) -> str:
        """In a few words, as a widget says it before a run and after it: "about 1.2 s, 80 calls", one for each half of
        guidance.
        """
        count = f"{self.rows:,} call{'' if self.rows == 1 else 's'}"
        return count if self.seconds is None else f"about {_spoken(self.seconds)}, {count}"


def _spoken(seconds: float) -> str:
    """Two digits, or one where it is less than a second."""
    if seconds < 0.95:
        return f"{max(seconds, 0.01):.1g} s"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.2g} min" if minutes < 90 else f"{minutes / 60:.2g} h"


@dataclass
class Clock:
    """What one run takes, as it goes.

    Attributes:
        decode: seconds of decoding the final pictures.
        known: grows by one for each evaluation of the batch that the memory of results answered.
        drawn: the traces that were drawn, all in one batch; those that are not came out of the memory.
        meter: what the device counts meanwhile.
        plain: whether nothing but the house's own watched, so that the next such run will take as long.
    """

    decode: float = 0.0
    known: Sequence[int] = ()
    drawn: Sequence[Trace] = ()
    plain: bool = True
    meter: Meter | None = None

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Around the decoding of a final picture."""
        start = perf_counter()
        try:
            yield
        finally:
            self.decode += perf_counter() - start


@cache
def _machine() -> str:
    """What this machine is: homes may be shared by several."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()} x{os.cpu_count()}"


class Ledger:
    """What runs of one model cost, before and after."""

    def __init__(self, family: Family, pipeline: Any, schedules: Schedules, threads: Threads, place: str) -> None:
        """A `pipeline` of `family`, sampled by `schedules`, computed on `threads`; `place`: where it is from."""
        self._family = family
        self._pipeline = pipeline
        self._schedules = schedules
        self._threads = threads
        network: torch.nn.Module = getattr(pipeline, family.network)
        layers = [one for one in network.modules() if not any(True for _ in one.children())]
        weights = sum(one.numel() for one in network.parameters())
        self._network = network
        self._call = len(layers) * _A_LAYER
        self._model = f"{place} {type(network).__name__} {weights}"
        self._cold = True
        self.device: Placed[torch.device] = Placed(lambda: (network,), lambda: device_of(pipeline))

    def key(self, settings: Settings, threads: int | None = None) -> str:
        """What runs have to share so that one tells of the other."""
        return f"{self.place(settings)}, {threads or torch.get_num_threads()} threads"

    def place(self, settings: Settings) -> str:
        """The model, what it is on, and how."""
        device = self.device()
        card = torch.cuda.get_device_name(device) if device.type == "cuda" else _machine()
        loras = sum(1 for _, scale in settings.adapters if scale)
        offload = "offloaded " if getattr(self._pipeline, "_all_hooks", None) else ""
        dtype = str(next(self._network.parameters()).dtype).removeprefix("torch.")
        return f"{self._model}, {dtype}, {offload}{device.type} {card}, {loras} LoRAs"

    def clock(self) -> Clock:
        """Begin to count for one run."""
        return Clock(meter=Meter(self.device()))

    # Before

    def estimate(self, plans: Sequence[Plan]) -> Estimate:
        """What runs will cost, those together that are drawn together."""
        evaluations = rows = size = 0
        seconds: float | None = 0.0
        memory: int | None = 0
        kept = preview = 0.0
        known, fewest = False, 1_000_000
        for batch in grouped(plans, lambda plan: self._together(plan)):
            first, count = batch[0].settings, len(batch)
            parts = self._parts(batch[0])
            asked, calls, halves = sum(n for n, _ in parts), sum(n * m for n, m in parts), max(m for _, m in parts)
            evaluations, rows = evaluations + asked * count, rows + calls * count
            laws = self._laws(first)
            fewest = min(fewest, laws.runs)
            pixels = (first.width or 1) * (first.height or 1)
            if laws.steps is None:
                seconds = memory = None
                continue
            known = True
            if seconds is not None:
                steps = sum(laws.steps.of(n, pixels * m * count) for n, m in parts)
                seconds += laws.text + steps + laws.decode * pixels * count
            kept += laws.kept * calls * pixels * count
            preview += laws.decode * pixels * asked * count
            size = max(size, round(laws.memory.of(1, pixels * halves * count))) if laws.memory else size
        runs = 0 if fewest == 1_000_000 else fewest
        told = f"{runs} run{'' if runs == 1 else 's'} of this model on this machine" if runs else "no run yet"
        complete = known and seconds is not None
        return Estimate(
            evaluations, rows, seconds if complete else None, round(kept) if complete else None,
            size if complete and size and memory is not None else None,
            preview if complete and preview else None, runs, told,
        )  # fmt: skip

    def _together(self, plan: Plan) -> Any:
        alone = plan.extra or any(probe.changes for probe in plan.probes)
        return object() if alone else self._family.batch_key(self._pipeline, plan.settings)

    def _halves_of(self, trace: Trace) -> float:
        """Rows of an evaluation in the mean: guidance may have been off for a part of the run."""
        if not trace.settings.changes or not len(trace):
            return self._halves(trace.settings)
        return sum(1 if step.output_uncond is None else 2 for step in trace) / len(trace)

    def _halves(self, settings: Settings) -> int:
        return 2 if any(self._family.guided(self._pipeline, stage) for _, stage in settings.stages()) else 1

    def _parts(self, plan: Plan) -> list[tuple[int, int]]:
        """How often the network will be asked for each picture, and for how many halves of guidance: a pair for what a
        run begins with, and for each change on its way that matters here.
        """
        settings = plan.settings
        left, stages = self._evaluations(plan), settings.stages()
        halves = [2 if self._family.guided(self._pipeline, stage) else 1 for _, stage in stages]
        shares, order = self._shares(settings) if len(set(halves)) > 1 else ([], 1)
        if not left or len(shares) < left:
            return [(left, max(halves))]
        # Evaluations that only try a point further on belong to the step that they are made for.
        begun = [shares[k - k % order] for k in range(len(shares) - left, len(shares))]
        come = [sum(share <= mark for mark, _ in stages) - 1 for share in begun]
        return [(come.count(k), halves[k]) for k in range(len(stages)) if k in come]

    def _evaluations(self, plan: Plan) -> int:
        """How often the network will be asked for each picture."""
        settings = plan.settings
        whole = self._schedules.evaluations(str(settings.sampler), settings.steps)
        since = next((probe.at for probe in plan.probes if isinstance(probe, Replay)), 0)
        if settings.strength is None:
            return max(0, whole - since)
        if settings.strength == 0:
            return 0
        shares, order = self._shares(settings)
        for k in range(0, len(shares), order):
            if shares[k] <= settings.strength + 1e-6:
                return len(shares) - k
        return max(1, round(whole * settings.strength))

    def _shares(self, settings: Settings) -> tuple[list[float], int]:
        """The share of noise at each evaluation of a whole run, none where a scheduler does not tell beforehand; and
        how many of them a step takes.
        """
        try:
            made = self._schedules.make(str(settings.sampler))
            begin(made, settings.steps)
            levels = Levels(made)
            shares = [share_of_noise(*levels.at(k, t)[:2]) for k, t in enumerate(levels.schedule)]
            return shares, int(getattr(made, "order", 1))
        except Exception:  # a scheduler that wants to be told more, or taken step by step
            return [], 1

    def _laws(self, settings: Settings) -> _Laws:
        threads = self._threads.known(self.place(settings), (settings.width or 0, settings.height or 0))
        runs = past().runs(self.key(settings, threads))
        alone = self.device().type == "cpu" and (threads or torch.get_num_threads()) == 1
        return _laws(tuple(runs), self._call, 1 if alone else 2)

    # After

    def settle(self, clock: Clock, traces: Sequence[Trace], whole: bool) -> None:
        """Tell traces what they cost, and keep it for the next guess where the `whole` run was drawn.

        Never raises: a run does not fail for what is said of it.
        """
        try:
            self._settle(clock, traces, whole)
        except Exception:  # for instance a family whose pipeline has no size
            return

    def _settle(self, clock: Clock, traces: Sequence[Trace], whole: bool) -> None:
        drawn, meter = list(clock.drawn), clock.meter
        energy, memory = (None, None) if meter is None else (meter.energy, meter.memory)
        ids = {id(trace) for trace in drawn}
        for trace in traces:
            count, share = len(trace), max(1, len(drawn))
            if id(trace) not in ids:
                cost = Cost(0, 0, trace.seconds / len(traces), 0.0, 0.0, trace.seconds / len(traces), remembered=count)
            else:
                steps = sum(step.seconds for step in trace)
                seconds = trace.seconds
                asked = max(0, count - len(clock.known))
                cost = Cost(
                    asked, round(asked * self._halves_of(trace)), seconds / share, steps / share,
                    clock.decode / share, max(0.0, seconds - steps - clock.decode) / share,
                    remembered=min(count, len(clock.known)), memory=memory,
                    energy=None if energy is None else energy / share, meter=meter.name if meter and energy else "",
                )  # fmt: skip
            trace.info["cost"] = cost.told()
        if not (whole and drawn and clock.plain and len(drawn) == len(traces)) or len(clock.known):
            return
        first = drawn[0]
        width, height = first.image.size if first.image is not None else (1, 1)
        halves = self._halves_of(first)
        steps = sum(step.seconds for step in first)
        took = Took(
            evaluations=len(first), rows=halves * len(drawn), pixels=width * height, pictures=len(drawn), steps=steps,
            decode=clock.decode, text=max(0.0, first.seconds - steps - clock.decode),
            kept=max(trace.nbytes for trace in drawn), cold=int(self._cold), when=stamp(),
        )  # fmt: skip
        self._cold = False
        past().note(self.key(first.settings, first.info.get("threads")), took)


class Estimated:
    """The part of a `Model` that says beforehand what runs cost."""

    ledger: Ledger
    _planner: Planner

    def estimate(self, settings: Settings | Plan | Iterable[Settings | Plan] | None = None, **values: Any) -> Estimate:
        """What a run will cost, or several, as :meth:`trace_many` draws them: evaluations, seconds, bytes, from what
        this machine's own runs of this model took. Nothing is run.

        Args:
            settings: what to draw; several: of them all together; or
            **values: its fields, as in :meth:`plan`.

        Raises:
            ValueError: one sentence, for settings which are refused.
        """
        if settings is None or isinstance(settings, Settings | Plan):
            return self.ledger.estimate([self._planner.asked(settings, values)])
        if isinstance(settings, (str, bytes)) or not isinstance(settings, Iterable):
            raise ValueError(f"settings must be a Settings object, or several, got {shown(settings)}")
        return self.ledger.estimate([self._planner.asked(one, values) for one in settings])


@dataclass(frozen=True)
class _Laws:
    """What past runs say: the steps' law; seconds of the text, and a pixel's of decoding; bytes that a pixel of a row
    keeps at each evaluation; the law of memory."""

    runs: int
    steps: Law | None
    text: float
    decode: float
    kept: float
    memory: Law | None


@lru_cache(maxsize=64)
def _laws(runs: tuple[Took, ...], call: float, bend: int) -> _Laws:
    if not runs:
        return _Laws(0, None, 0.0, 0.0, 0.0, None)
    weights = weights_of(runs)
    steps = law_of([(one.evaluations, one.pixels * one.rows, one.steps) for one in runs], weights, call, bend)
    return _Laws(
        len(runs),
        steps,
        _middle([(one.text, weight) for one, weight in zip(runs, weights, strict=True)]),
        _middle([(one.decode / (one.pixels * one.pictures), w) for one, w in zip(runs, weights, strict=True)]),
        _middle([
            (one.kept / (one.evaluations * one.pixels * one.rows), 1.0) for one in runs if one.evaluations
        ]),
        law_of([(1, one.pixels * one.rows, one.memory) for one in runs], weights),
    )  # fmt: skip


def _middle(found: Sequence[tuple[float, float]]) -> float:
    """The weighted median of (value, weight); 0 of none."""
    half, passed = sum(weight for _, weight in found) / 2, 0.0
    for value, weight in sorted(found):
        passed += weight
        if passed >= half:
            return value
    return 0.0
