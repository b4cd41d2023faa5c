"""Guiders as maths: from both predictions of a step to the guided one, by other formulas than the plain

    uncond + g (cond - uncond)                                                                        (CFG)

All take and give predictions in the meaning that the network has (noise, velocity, x0 ...), in tensors of one picture.
``c`` is the one with the prompt, ``u`` the one without, ``g`` the guidance; each is ``c`` at ``g = 1``.

``rescale`` (Lin et al. 2023, arXiv 2305.08891, eq. 14 to 16): ``m = u + g (c - u)``; then ``phi m std(c) / std(m) +
(1 - phi) m``, with standard deviations over all values of the picture. Of the prediction as the network makes it, as
in the paper and in diffusers' ``guidance_rescale``.

``APG`` (Sadat et al. 2024, arXiv 2410.02416, algorithm 1), on x0 as in the paper: ``d = x0_c - x0_u``; with
momentum, ``d <- d + momentum * (the d of the step before)``; ``d <- d min(1, norm / |d|)``; of it the part along x0_c
counts ``eta``, the part across 1; ``x0 = x0_c + (g - 1) d``. The norm is that of all latents together, which grows
with the picture: 15, the paper's for SDXL, is meant of its 4 x 128 x 128 latents, and of others in proportion to the
root of their number. diffusers' ``AdaptiveProjectedGuidance`` differs in four ways: it projects the network's raw
prediction, where the threshold means something else; it takes the threshold as it is, whatever the size; its default
``eta`` of 1 keeps both parts, that is, projects nothing; and it adds ``g d`` to ``u``, which is the same only where
nothing was shortened. Given x0, a threshold in proportion, and ``use_original_formulation`` with a scale of g - 1, it
computes what is computed here.

``CFG-Zero*`` (Fan et al. 2025, arXiv 2503.18886, eq. 7 and algorithm 1): ``s = <c, u> / |u|^2``; ``s u + g (c - s u)``;
and a velocity of 0 at the first steps ("zero-init"). That is of flow matching, where no velocity means no move; a
network that predicts noise or x0 would say something wild by it, so there the first steps are as the others.

``TCFG`` (Kwon et al. 2025, arXiv 2503.18137, algorithm 1): ``u' = <u, v> v`` with v the first right singular vector of
the two rows c and u, then ``u' + g (c - u')``. Of two rows it is found from their three dot products: with (p, q) the
unit eigenvector of the larger eigenvalue of [[<c,c>, <c,u>], [<c,u>, <u,u>]], ``u' = q (p c + q u)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

from diffexplore.mixing import parameters_of
from diffexplore.record import predictions

if TYPE_CHECKING:
    from diffexplore.record.step import Step

__all__ = ["At", "Mixer", "anew", "halved", "mixer"]

_FLOW: Final = ("flow_prediction", "reversed_flow_prediction")
_SDXL: Final = 4 * 128 * 128
"""Latents of a picture of 1024 x 1024 pixels."""
_TINY: Final = 1e-30


class At(NamedTuple):
    """Where in a run a mix is made.

    Attributes:
        latents: x_t, shaped as the predictions.
        a: its signal level.
        b: its noise level.
        kind: what the network predicts, one of ``predictions.KINDS``.
        step: how many steps went before; both evaluations of a two-stage step are one.
    """

    latents: torch.Tensor
    a: float
    b: float
    kind: str
    step: int


class Mixer:
    """One guider over the evaluations of one picture's run, in their order.

    Attributes:
        remembers: whether a mix depends on the steps before it.
    """

    remembers = False

    def __init__(self, numbers: Mapping[str, float]) -> None:
        """At the beginning of a run. `numbers` are the guider's, all of them."""
        self._numbers = numbers

    def see(self, cond: torch.Tensor, uncond: torch.Tensor, at: At) -> None:
        """Take notice of an evaluation that is mixed otherwise, or was mixed already; of any shape, in float32."""

    def mix(self, cond: torch.Tensor, uncond: torch.Tensor, guidance: float, at: At) -> torch.Tensor:
        """The guided prediction of the next evaluation; takes notice of it too."""
        self.see(cond, uncond, at)
        return self._mixed(cond, uncond, guidance, at)

    def _mixed(self, cond: torch.Tensor, uncond: torch.Tensor, guidance: float, at: At) -> torch.Tensor:
        return predictions.guide(cond, uncond, guidance)


class _Rescale(Mixer):
    def _mixed(self, cond: torch.Tensor, uncond: torch.Tensor, guidance: float, at: At) -> torch.Tensor:
        phi = self._numbers["phi"]
        mixed = predictions.guide(cond, uncond, guidance)
        scale = cond.std() / mixed.std().clamp_min(_TINY)
        return phi * (mixed * scale) + (1 - phi) * mixed


class _Projected(Mixer):
    remembers = True

    def __init__(self, numbers: Mapping[str, float]) -> None:
        super().__init__(numbers)
        self.remembers = numbers["momentum"] != 0
        self._running: torch.Tensor | None = None

    def see(self, cond: torch.Tensor, uncond: torch.Tensor, at: At) -> None:
        difference = predictions.affine(at.kind, at.a, at.b).x0_m * (cond - uncond)
        if self._running is not None and self.remembers:
            difference = difference + self._numbers["momentum"] * self._running
        self._running = difference

    def _mixed(self, cond: torch.Tensor, uncond: torch.Tensor, guidance: float, at: At) -> torch.Tensor:
        x0_x, x0_m, *_ = predictions.affine(at.kind, at.a, at.b)
        if not x0_m:  # no prediction matters to x0 here
            return cond
        assert self._running is not None, "it was seen"
        # In double: a difference that lies along the estimate all but cancels in what is across.
        change, along = _double(self._running), _double(x0_x * at.latents + x0_m * cond)
        if self._numbers["norm"]:
            longest = self._numbers["norm"] * math.sqrt(change.numel() / _SDXL)
            change = change * (longest / change.norm().clamp_min(_TINY)).clamp_max(1.0)
        part = (change * along).sum() / along.square().sum().clamp_min(_TINY) * along
        change = (change - part) + self._numbers["eta"] * part
        return cond + ((guidance - 1) / x0_m * change).to(cond.dtype)


class _Zero(Mixer):
    def _mixed(self, cond: torch.Tensor, uncond: torch.Tensor, guidance: float, at: At) -> torch.Tensor:
        if at.kind in _FLOW and at.step < self._numbers["zero"]:
            return torch.zeros_like(cond)
        scale = (cond * uncond).sum() / (uncond.square().sum() + 1e-8)
        return predictions.guide(cond, scale * uncond, guidance)


class _Tangential(Mixer):
    def _mixed(self, cond: torch.Tensor, uncond: torch.Tensor, guidance: float, at: At) -> torch.Tensor:
        c, u = _double(cond), _double(uncond)
        cc, cu, uu = c.square().sum(), (c * u).sum(), u.square().sum()
        largest = (cc + uu + ((cc - uu).square() + 4 * cu.square()).sqrt()) / 2
        # Two ways to write the eigenvector, of which the longer one does not cancel.
        first, second = torch.stack([largest - uu, cu]), torch.stack([cu, largest - cc])
        found = torch.where(cc >= uu, first, second)
        p, q = found / found.norm().clamp_min(_TINY)
        return predictions.guide(cond, (q * (p * c + q * u)).to(cond.dtype), guidance)


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.device.type == "mps" else tensor.double()  # which has no double


_MIXERS: Final[Mapping[str, Callable[[Mapping[str, float]], Mixer]]] = {
    "CFG": Mixer,
    "rescale": _Rescale,
    "APG": _Projected,
    "CFG-Zero*": _Zero,
    "TCFG": _Tangential,
}


def mixer(guider: str) -> Mixer:
    """A guider at the beginning of a run.

    Args:
        guider: as `Settings` say it, such as "APG(eta=0.5)".

    Raises:
        ValueError: one sentence, for one that is unknown.
    """
    name, numbers = parameters_of(guider)
    return _MIXERS[name](numbers)


def halved(step: Step, number: int = 0) -> tuple[torch.Tensor, torch.Tensor, At] | None:
    """The halves of a recorded evaluation, float32 on the CPU, and where they are; None where there are none.

    Args:
        step: the evaluation.
        number: how many steps went before.
    """
    cond, uncond = step.output_cond, step.output_uncond
    if cond is None or uncond is None:
        return None
    return cond, uncond, At(step.latents, step.a, step.b, step.kind, number)


def anew(step: Step, run: Sequence[Step] | None, guidance: float, guider: str) -> torch.Tensor:
    """What a recorded evaluation, which has halves, would have been mixed to: as its network predicts, float32 on the
    CPU. A guider that remembers has seen the evaluations before: all of them; where the run had it at this one too,
    those from where it began.

    Args:
        step: the evaluation.
        run: what it is of; None where that is not known.
        guidance: how much.
        guider: how, as `Settings` say it.

    Raises:
        ValueError: one sentence, for a guider that remembers, without a run.
    """
    made = mixer(guider)
    before = list(run[: step.index]) if run is not None else []
    if made.remembers and step.index and run is None:
        raise ValueError(
            f"guider {guider} goes by the steps before, and the run of this step is no more: keep its trace, or take a "
            "guider that goes by the step alone"
        )
    if made.remembers:
        seen = [(one.guider, found) for one in before if (found := halved(one)) is not None]
        if step.guider == guider:
            since = max((k + 1 for k, (other, _) in enumerate(seen) if other != guider), default=0)
            seen = seen[since:]
        for _, found in seen:
            made.see(*found)
    number = step.index if run is None else sum(not one.half for one in [*before, step]) - 1
    found = halved(step, number)
    assert found is not None, "it has halves"
    return made.mix(*found[:2], guidance, found[2])
