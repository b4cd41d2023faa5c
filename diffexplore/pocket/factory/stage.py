"""The loop that all trainings share: on a GPU in bfloat16 as one recorded graph, on a CPU as it comes.

A stage can be stopped at any moment and goes on where it was when called again. The learning rate rises, stays, and
falls to almost nothing over the last part of the stage's budget (warmup-stable-decay), so a finished stage can be taken
up again with a longer budget: it resumes from the state before the fall.

On a GPU nothing waits for the processor: batches are picked on the device, the rate and the weight of the average are
numbers there, a step whose gradient is not finite changes nothing there, and the loss is fetched every 50 steps. The
whole step is captured as a CUDA graph where that works and is run as usual where it does not.

Matrices may be moved by Muon (https://kellerjordan.github.io/posts/muon/) instead of AdamW: by the nearest matrix all
of whose singular values are one to what their gradients were of late. It takes its rate from Python, so such a step is
not captured.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexplore.record.file import written

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a stage may use.

    Attributes:
        minutes: of all its runs together; None: as long as the recipe says.
        bf16: matrix arithmetic in bfloat16: twice as fast on processors that have it (AVX512-BF16, AMX) and many times
            on a GPU; slower on others.
        device: "cpu", or "cuda".
        until: the moment of the monotonic clock at which a run ends, whatever its minutes.
        graph: capture a step as a CUDA graph where the stage allows it.
        compiled: a stage that says so compiles its largest part before its first step, which takes two minutes and
            makes a step on a CPU a sixth shorter.
    """

    minutes: float | None = None
    bf16: bool = False
    device: str = "cpu"
    until: float | None = None
    graph: bool = True
    compiled: bool = False


def tell(line: str) -> None:
    """Say how far a training is: one line at once, that a log keeps."""
    print(f"[{time.strftime('%H:%M:%S')}] {line}", flush=True)


def spent(work: Path, name: str) -> float:
    """Seconds that the runs of a stage have taken so far, 0 where it never ran."""
    import torch

    path = work / f"{name}.pt"
    return float(torch.load(path, weights_only=True, mmap=True)["seconds"]) if path.is_file() else 0.0


class Stage:
    """A resumable training loop: parameters in, one optimiser, averaged weights, checkpoints, a log of the loss.

    Args:
        work: folder of the state, ``<name>.pt`` (newest) and ``<name>-stable.pt`` (before the rate falls).
        parts: modules by name, trained together; they are moved to the budget's device.
        steps, budget: the length; steps or minutes, whichever is used up first, end the stage. Without steps the
            minutes decide.
        rate: AdamW's learning rate.
        ema: weight of the past in the averaged copy, 0 for none.
        warm: steps over which the rate rises.
        decay: weight decay.
        turned: matrices that Muon moves, AdamW all the rest.
        turn: Muon's rate, such that its steps are as long as AdamW's of the same rate would be.

    Raises:
        ValueError: neither steps nor minutes say when it ends.
    """

    FALL = 0.30
    CLIP = 1.0
    """Norm of the gradient above which it is scaled down."""

    def __init__(
        self, work: Path, name: str, parts: dict[str, torch.nn.Module], *, steps: int | None, budget: Budget,
        rate: float, ema: float, warm: int = 200, decay: float = 0.01,
        turned: Sequence[torch.nn.Parameter] = (), turn: float = 0.0,
    ) -> None:  # fmt: skip
        import torch

        if not steps and not budget.minutes and budget.until is None:
            raise ValueError(f"{name}: say how long to train, in steps or in minutes")
        work.mkdir(parents=True, exist_ok=True)
        self.work, self.name, self.steps, self.budget = work, name, steps, budget
        self.rate, self.ema, self.warm = rate, ema, warm
        self.device = torch.device(budget.device)
        self.parts = {key: part.to(self.device) for key, part in parts.items()}
        self.average = {key: copy.deepcopy(part).eval().requires_grad_(False) for key, part in self.parts.items()}
        self.weights = [p for part in self.parts.values() for p in part.parameters() if p.requires_grad]
        on_gpu = self.device.type == "cuda"
        self._rate = torch.tensor(float(rate), device=self.device)
        self._blend = torch.tensor(1.0, device=self.device)
        self._mean = torch.zeros((), device=self.device)
        apart = {id(weight) for weight in turned}
        self.optimiser = torch.optim.AdamW(
            [weight for weight in self.weights if id(weight) not in apart], self._rate,
            betas=(0.9, 0.99), weight_decay=decay, fused=True, capturable=on_gpu,
        )  # fmt: skip
        self.turn, self.muon = turn, None
        if turned:
            self.muon = torch.optim.Muon(turned, turn, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        self.step, self.seconds, self.fallen = 0, 0.0, False
        self._limit = 60 * budget.minutes if budget.minutes else 0.0
        self._side: torch.cuda.Stream | None = None
        self._resume()
        torch.manual_seed(1_000_003 * self.step)

    # --- state -------------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "fallen": self.fallen,
            "parts": {k: p.state_dict() for k, p in self.parts.items()},
            "average": {k: p.state_dict() for k, p in self.average.items()},
            "optimiser": self.optimiser.state_dict(),
            **({"muon": self.muon.state_dict()} if self.muon else {}),
        }

    def _resume(self) -> None:
        import torch

        newest, stable = self.work / f"{self.name}.pt", self.work / f"{self.name}-stable.pt"
        for path in (newest, stable):
            if not path.is_file():
                continue
            state = torch.load(path, weights_only=True, map_location=self.device)
            if path == newest and state["fallen"] and self._share_of(state) < 1 - self.FALL and stable.is_file():
                continue  # a longer budget than last time: go on from before the rate fell
            for key, part in self.parts.items():
                part.load_state_dict(state["parts"][key])
                self.average[key].load_state_dict(state["average"][key])
            self.optimiser.load_state_dict(state["optimiser"])
            for group in self.optimiser.param_groups:
                group["lr"] = self._rate
                group["capturable"] = self.device.type == "cuda"
            if self.muon is not None:
                self.muon.load_state_dict(state["muon"])
            self.step, self.seconds, self.fallen = state["step"], state["seconds"], state["fallen"]
            return

    def _share_of(self, state: dict[str, Any]) -> float:
        share = float(state["step"] / self.steps) if self.steps else 0.0
        return max(share, state["seconds"] / self._limit) if self._limit else share

    @property
    def share(self) -> float:
        """How much of the budget is used up, 1 and more when the stage is at its end."""
        return self._share_of({"step": self.step, "seconds": self.seconds})

    def save(self, suffix: str = "") -> None:
        """Write the state, all of it or nothing."""
        import torch

        with torch.no_grad():
            for key, part in self.parts.items():  # what batch normalisation has seen is no parameter
                for mine, theirs in zip(self.average[key].buffers(), part.buffers(), strict=True):
                    mine.copy_(theirs)
        with written(self.work / f"{self.name}{suffix}.pt") as file:
            torch.save(self._state(), file)

    def _clear(self) -> None:
        for weight in self.weights:
            weight.grad = None

    # --- a step ------------------------------------------------------------------------------------------------------

    def _advance(self, loss_of: Callable[[int], torch.Tensor]) -> None:
        """One step, all of it on the device: nothing here waits for a number."""
        import torch

        # Without its cache, which would hand weights that were cast without a gradient to code that needs one.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.budget.bf16, cache_enabled=False):
            loss = loss_of(self.step)
        self._clear()
        loss.backward()
        with torch.no_grad():
            grads = [p.grad for p in self.weights if p.grad is not None]
            norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
            fine = torch.isfinite(norm) & torch.isfinite(loss)
            # What a gradient scaler tells the fused optimiser: divide by this; do nothing if that is not 0.
            self.optimiser.grad_scale = (norm / self.CLIP).clamp(min=1.0)  # type: ignore[attr-defined]
            self.optimiser.found_inf = (~fine).float()  # type: ignore[attr-defined]
            self.optimiser.step()
            if self.muon is not None and bool(fine):
                turned = [p.grad for p in self.muon.param_groups[0]["params"] if p.grad is not None]
                torch._foreach_div_(turned, self.optimiser.grad_scale)  # type: ignore[attr-defined]
                self.muon.step()
            self._follow()
            loss = torch.where(fine, loss.detach().float(), self._mean)
            self._mean.copy_(torch.where(self._mean == 0, loss, torch.lerp(self._mean, loss, 0.02)))

    def _follow(self) -> None:
        import torch

        for key, part in self.parts.items():
            mine: list[torch.Tensor] = list(self.average[key].parameters())
            change = torch._foreach_sub(list(part.parameters()), mine)
            torch._foreach_mul_(change, self._blend)
            torch._foreach_add_(mine, change)

    def _set_rates(self) -> None:
        """The rate and the weight of the average for the next step, as numbers on the device."""
        fall = min(1.0, (1 - self.share) / self.FALL) if self.fallen else 1.0
        share = min(1.0, (self.step + 1) / self.warm) * max(0.01, fall)
        self._rate.fill_(self.rate * share)
        if self.muon is not None:
            self.muon.param_groups[0]["lr"] = self.turn * share
        keep = min(self.ema, (1 + self.step) / (10 + self.step)) if self.ema else 0.0
        self._blend.fill_(1 - keep)

    def _captured(self, loss_of: Callable[[int], torch.Tensor]) -> Callable[[], None] | None:
        """A step as one CUDA graph, to be replayed; None where it cannot be captured."""
        import torch

        generator = torch.cuda.default_generators[self.device.index or 0]
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            self._clear()
            with torch.cuda.graph(graph):
                self._advance(loss_of)
        except Exception as error:  # whatever a kernel does not allow: it trains as well without, only slower
            tell(f"{self.name}: no CUDA graph ({str(error).splitlines()[0][:160]}); step by step instead")
            torch.cuda.set_stream(torch.cuda.default_stream())  # a capture that fails stays on its own
            torch.cuda.synchronize()
            fresh = torch.Generator(self.device)
            fresh.manual_seed(1_000_003 * self.step + 1)
            generator.graphsafe_set_state(fresh.graphsafe_get_state())  # the old one still believes in the capture
            self._clear()
            return None
        return graph.replay

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run(
        self, loss_of: Callable[[int], torch.Tensor], sheet: Callable[[Path], None] = lambda path: None,
        every: float = 240, *, feed: Callable[[], object] = lambda: None, graph: bool = False,
        shows: tuple[float, ...] = (), show: Callable[[int], None] = lambda step: None,
    ) -> None:  # fmt: skip
        """Train to the end of the budget and save.

        Args:
            loss_of: the loss of the step of that number.
            sheet: draws samples to look at into a file, when the state is saved.
            every: seconds between two savings.
            feed: called before each step, outside of what is captured: takes in new pictures.
            graph: `loss_of` does nothing but arithmetic on the device, in buffers that stay where they are, so a step
                can be captured once and replayed (on a GPU).
            shows, show: at these shares of the budget `show(step)` is called, in the order of the shares.
        """
        import torch

        on_gpu = self.device.type == "cuda"
        for part in self.parts.values():
            part.train()
        if self.budget.until is not None:
            # What was to be done before has taken its time; the rate shall have fallen all the same when it ends.
            left = self.seconds + max(1.0, self.budget.until - time.monotonic())
            self._limit = min(self._limit, left) if self._limit else left
        wanted = [share for share in sorted(shows) if share > self.share]
        begun = saved = marked = self._now()
        waited, counted, replay = 0.0, self.step, None
        tried = not (on_gpu and graph and self.budget.graph and self.muon is None)
        first = self.step
        while self.share < 1:
            if self.share >= 1 - self.FALL and not self.fallen:
                self.save("-stable")
                self.fallen = True
            lap = time.monotonic()
            feed()
            waited += time.monotonic() - lap
            self._set_rates()
            if not tried and self.step == first + 4:
                # The first steps, as usual, have settled which kernels are used and filled the optimiser's state.
                tried, replay = True, self._captured(loss_of)
            if replay is not None:
                replay()
            elif on_gpu and not tried:
                self._aside(loss_of)
            else:
                self._advance(loss_of)
            self.step += 1
            if on_gpu and self.step % 50 and self.step - first > 30:
                continue
            now = self._now()
            self.seconds += now - begun
            begun = now
            if now - marked > 10 or self.step - first == 30:
                pace = (self.step - counted) / (now - marked)
                wait = waited / (now - marked)
                self._report(pace, wait)
                marked, counted, waited = now, self.step, 0.0
            passed = [share for share in wanted if self.share >= share]
            if passed:
                wanted = wanted[len(passed) :]
                show(self.step)
            if now - saved > every:
                self.save()
                sheet(self.work / f"{self.name}.png")
                saved = self._now()
        self.seconds += self._now() - begun
        self.save()
        if wanted:
            show(self.step)
        sheet(self.work / f"{self.name}.png")
        tell(f"{self.name}: {self.step} steps, {self.seconds:.0f} s, loss {float(self._mean):.5f}, saved")
        self._clear()
        if on_gpu:
            del replay
            torch.cuda.empty_cache()

    def _aside(self, loss_of: Callable[[int], torch.Tensor]) -> None:
        """A step on a stream of its own, as what will be captured has to be warmed up."""
        import torch

        if self._side is None:
            self._side = torch.cuda.Stream()
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            self._advance(loss_of)
        torch.cuda.current_stream().wait_stream(self._side)

    def _now(self) -> float:
        """The moment at which everything asked of the device so far is done."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.monotonic()

    def _report(self, pace: float, wait: float) -> None:
        mean = float(self._mean)
        with (self.work / f"{self.name}.log").open("a") as log:
            log.write(f"{self.step} {self.seconds:.0f} {mean:.5f}\n")
        tell(
            f"{self.name}: step {self.step}, {self.seconds:.0f} s, {100 * min(1.0, self.share):.0f} %, "
            f"loss {mean:.4f}, rate {float(self._rate):.1e}, {pace:.1f} steps/s, "
            f"{100 * wait:.0f} % waiting for pictures"
        )
        if not math.isfinite(mean):
            raise RuntimeError(f"{self.name}: the loss is {mean} at step {self.step}; take a rate below {self.rate}")
