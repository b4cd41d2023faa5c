"""What the decoder makes of a field of a step, kept for a while: it is the one dear map (a pass of a VAE, or a call
made again), and the same estimate is asked for as "x0", twice as "change", and frame by frame.
"""

import math
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from diffexplore.record.record import Record
    from diffexplore.record.step import Step

__all__ = ["estimate", "field_of", "finite", "forget", "unit"]

_CACHE_BYTES: Final = 64 * 2**20

# Decoded fields are kept per trace, the least recently used go first, and all go with the trace.
_decoded: "WeakKeyDictionary[Record, OrderedDict[tuple[str, int], np.ndarray]]" = WeakKeyDictionary()
_decoded_lock = threading.Lock()


def estimate(trace: "Record", kind: str, i: int) -> np.ndarray | None:
    """A field of a step, decoded.

    Args:
        trace: finished, or still growing.
        kind: "x0", "x0_cond", "x0_uncond" or "latents_decoded".
        i: the evaluation, from 0.

    Returns:
        (H, W, 3) uint8, of a video (frames, H, W, 3), of a sound (channels, samples) float32; not to be written to.
        None where there is neither a decoder nor what one made, where the step has no such field, or that is not
        finite.
    """
    i = range(len(trace))[i]
    with _decoded_lock:
        cache = _decoded.setdefault(trace, OrderedDict())
        if (kind, i) in cache:
            cache.move_to_end((kind, i))
            return cache[kind, i]
    made = _made(trace, kind, i)  # outside the lock, since this may take seconds
    if made is not None:
        made.flags.writeable = False
        with _decoded_lock:
            cache[kind, i] = made
            while len(cache) > 2 and sum(kept.nbytes for kept in cache.values()) > _CACHE_BYTES:
                cache.popitem(last=False)
    return made


def _made(trace: "Record", kind: str, i: int) -> np.ndarray | None:
    if trace.decode is None:
        kept = trace.picture(i) if kind == "x0" else None
        return None if kept is None else np.array(kept)
    field = field_of(trace[i], kind)
    return None if field is None or not finite(field) else np.array(trace.decode(field))


def field_of(step: "Step", kind: str) -> "Tensor | None":
    """The tensor of a step that a kind of picture shows; None where it has none."""
    made: Tensor | None = unit(step) if kind in ("latents", "latents_decoded") else getattr(step, kind)
    return made


def unit(step: "Step") -> "Tensor":
    """x_t divided by its expected standard deviation, sqrt(a^2 + b^2)."""
    return step.latents / (math.hypot(step.a, step.b) or 1.0)


def finite(field: "Tensor") -> bool:
    """Whether all numbers of a field are."""
    return bool(np.isfinite(field.numpy()).all())


def forget(trace: "Record") -> None:
    """Let go of what was decoded for a trace; it is made again when asked for."""
    with _decoded_lock:
        _decoded.pop(trace, None)
