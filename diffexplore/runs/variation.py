"""Variations of a seed: a run whose starting noise is turned a part of the way towards that of another seed.

Mixed in a straight line, two noises make a weaker one, which no network was trained on. They are turned instead, along
the arc between them (Shoemake 1985, Animating rotation with quaternion curves), and the length goes evenly from one to
the other's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch

from diffexplore.runs.probes import Probe, going_on, tapped

__all__ = ["Variation", "turned"]


def turned(a: torch.Tensor, b: torch.Tensor, amount: float) -> torch.Tensor:
    """`a`, turned towards `b` by a part of the angle between them.

    Args:
        a: noise of any shape, taken as one vector.
        b: other noise of that shape.
        amount: 0 (`a`) to 1 (`b`).

    Returns:
        Of a's dtype and device. Its length is ``(1 - amount) |a| + amount |b|``. Of opposite vectors, which have no
        arc between them, the straight mix.
    """
    if amount <= 0 or amount >= 1:
        return (a if amount <= 0 else b).clone()
    one, other = a.to(torch.float64), b.to(torch.float64)
    length, far = one.norm(), other.norm()
    if length == 0 or far == 0:
        return torch.lerp(one, other, amount).to(a)
    one, other = one / length, other / far
    angle = torch.acos((one * other).sum().clamp(-1, 1))
    across = torch.sin(angle)
    if across < 1e-6:
        return torch.lerp(length * one, far * other, amount).to(a)
    made = (torch.sin((1 - amount) * angle) * one + torch.sin(amount * angle) * other) / across
    return (torch.lerp(length, far, amount) * made).to(a)


class Variation(Probe):
    """Turns the noise that each picture starts from, as its settings say.

    The pipeline draws its noise as ever, and once more with the generator of the other seed: whatever that is in this
    pipeline, at an amount of 1 the run starts where the other seed does.
    """

    leads = True

    def __init__(self, turns: Sequence[tuple[int, float] | None]) -> None:
        """`turns`: ``Settings.variation`` of each picture of the batch."""
        self._turns = list(turns)
        self._undo = ExitStack()

    def attach(self, pipeline: Any) -> None:
        self._inputs = inspect.signature(pipeline.prepare_latents)
        self._undo.enter_context(tapped(pipeline, "prepare_latents", self._prepare))

    def detach(self) -> None:
        self._undo.close()

    @torch.no_grad()
    def _prepare(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        made = inner(*args, **kwargs)
        given = self._inputs.bind(*args, **kwargs)
        own = given.arguments["generator"]
        several = isinstance(own, list)
        device = (own[0] if several else own).device
        # Of a picture that is not turned, what is drawn here is thrown away.
        others = [torch.Generator(device).manual_seed(0 if turn is None else turn[0]) for turn in self._turns]
        given.arguments["generator"] = others if several else others[0]
        again = inner(*given.args, **given.kwargs)
        far = again[0] if isinstance(again, tuple) else again

        def turn(near: torch.Tensor) -> torch.Tensor:
            amounts = [0.0 if one is None else one[1] for one in self._turns]
            return torch.stack([turned(a, b, amount) for a, b, amount in zip(near, far, amounts, strict=True)])

        return going_on(made, turn)
