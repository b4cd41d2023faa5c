"""The same settings twice: whether the same picture comes out, and what may break that, found by trying."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from diffexplore.experiments.shared import a_model, pipeline_of
from diffexplore.model import Model
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.words import sentence

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Again", "Twice", "checksum", "twice"]

FIRST: Final = "the first time"


def checksum(value: Any) -> str:
    """Sixteen hexadecimal digits that stand for a tensor (its type, shape and bits) or a picture (size and pixels)."""
    if isinstance(value, torch.Tensor):
        kept = value.detach().cpu().contiguous()
        head, body = (
            f"{kept.dtype}{tuple(kept.shape)}",
            kept.view(torch.uint8).numpy().tobytes() if kept.numel() else b"",
        )
    else:
        pixels = np.asarray(value)
        head, body = f"{pixels.dtype}{pixels.shape}", pixels.tobytes()
    return hashlib.blake2b(head.encode() + body, digest_size=8).hexdigest()


@dataclass(frozen=True)
class Again:
    """One more time.

    Attributes:
        how: what was otherwise, in words.
        latents, picture: checksums of the final latents and of the picture; "" where there was no run.
        apart: the largest difference of the final latents from the first run's.
        levels: the largest difference of the pictures, of 255.
        why: why it could not be tried; "" where it was.
    """

    how: str
    latents: str = ""
    picture: str = ""
    apart: float = float("nan")
    levels: float = float("nan")
    why: str = ""


@dataclass(frozen=True)
class Twice:
    """What :func:`twice` found.

    Attributes:
        settings: what was drawn.
        first: the run that the others are held against.
        again: the other times.
    """

    settings: Settings
    first: Trace
    again: Sequence[Again]

    def table(self) -> list[dict[str, Any]]:
        """One row for each time: ``how``, ``latents`` and ``picture`` (checksums), ``same`` (bit for bit, both; None
        where it was not tried), ``apart``, ``levels``, ``why``.
        """
        final = checksum(self.first.final), checksum(self.first.image)
        rows: list[dict[str, Any]] = [
            {"how": FIRST, "latents": final[0], "picture": final[1], "same": True, "apart": 0.0,
             "levels": 0.0, "why": ""}
        ]  # fmt: skip
        for one in self.again:
            same = None if one.why else (one.latents, one.picture) == final
            rows.append({"how": one.how, "same": same} | {k: v for k, v in vars(one).items() if k != "how"})
        return rows

    def __str__(self) -> str:
        lines = []
        for row in self.table():
            verdict = (
                ""
                if row["how"] == FIRST
                else f"not tried: {row['why']}"
                if row["why"]
                else "the same bits"
                if row["same"]
                else f"latents off by up to {row['apart']:.2g}, pixels by up to {row['levels']:.0f} of 255"
            )
            lines.append(f"{row['how']:<36} {row['latents']:<17} {row['picture']:<17} {verdict}")
        return "\n".join([f"{'':<36} {'latents':<17} picture", *(line.rstrip() for line in lines)])

    def __repr__(self) -> str:
        return str(self)


def twice(model: Model, **settings: Any) -> Twice:
    """Draw the same settings again and again, each time with one thing about the computation otherwise, and say what
    came out otherwise; blocking. Nothing is taken from memory.

    Tried: the same once more; a batch of four; another number of threads (on the CPU); the model opened anew; half
    precision; the CPU in place of a GPU. Other versions of the libraries cannot be tried from here; ``trace.info``
    says which a picture was drawn with.

    Args:
        model: what draws.
        **settings: fields of ``Settings``.

    Raises:
        ValueError: one sentence, before any work, for what is refused.
    """
    model = a_model(model)
    pipeline = pipeline_of(model)
    wanted = model.plan(Settings(**settings)).settings
    here = Model(pipeline, origin=model.origin, reuse=0)
    first = here.trace(wanted)
    parameter = next(_network(model).parameters())
    count = 2 if first.info.get("threads", torch.get_num_threads()) == 1 else 1

    def in_a_batch() -> Trace:
        return here.trace_many([wanted, *(wanted.replace(seed=wanted.seed + k) for k in (1, 2, 3))])[0]

    def with_threads() -> Trace:
        return Model(pipeline, origin=model.origin, reuse=0, threads=count).trace(wanted)

    def anew(device: str | None = None, dtype: str | None = None) -> Callable[[], Trace]:
        origin = model.origin
        if dtype:
            # Opened in it, not cast afterwards: what a network keeps in float32 on purpose stays so. The mark of the
            # weights is of the dtype they had.
            origin = replace(origin, options={**origin.options, "dtype": dtype}, weights="")

        def run() -> Trace:
            pipeline = origin.open().pipeline
            other = Model(pipeline if device is None else pipeline.to(device), origin=origin, reuse=0)
            for path, name, _ in model.origin.loras:
                other.load_lora(path, name)
            return other.trace(wanted)

        return run

    on_cpu = parameter.device.type == "cpu"
    half = "bfloat16" if parameter.dtype == torch.float32 else "float32"
    tried: list[tuple[str, Callable[[], Trace]]] = [
        ("once more", lambda: here.trace(wanted)),
        ("with three others, in a batch", in_a_batch),
        *([(f"with {count} thread(s)", with_threads)] if on_cpu else []),
        ("the model opened anew", anew()),
        (f"in {half}", anew(dtype=half)),
        *([] if on_cpu else [("on the CPU", anew(device="cpu"))]),
    ]
    return Twice(first.settings, first, [_again(how, run, first) for how, run in tried])


def _network(model: Model) -> torch.nn.Module:
    parts = [one for one in model.pipeline.components.values() if isinstance(one, torch.nn.Module)]
    return max(parts, key=lambda part: sum(one.numel() for one in part.parameters()))


def _again(how: str, run: Callable[[], Trace], first: Trace) -> Again:
    try:
        trace = run()
    except Exception as error:
        return Again(how, why=sentence(error))
    assert trace.final is not None
    assert first.final is not None
    pixels, before = (np.asarray(one.image, dtype=np.float64) for one in (trace, first))
    return Again(
        how, checksum(trace.final), checksum(trace.image),
        float((trace.final - first.final).abs().max()), float(np.abs(pixels - before).max()),
    )  # fmt: skip
