"""What decides the bits of a run beside its settings, as text that is the same in every session and on every machine.

`runs.memory` has a quicker mark, which holds within one process only. What is kept on disk, a sweep's cells and the
results that `load(cache=)` remembers, goes by the one made here: the weights to the last bit, what is switched on, the
code of classes that are of no library, the versions of those that are, and what it is computed on.
"""

import functools
import hashlib
import inspect
import json
import re
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, TypeVar

import torch

from diffexplore.pipelines.origin import features_of

__all__ = ["Placed", "arithmetic", "device_of", "standing", "versions"]

Found = TypeVar("Found")

LIBRARIES = ("diffexplore", "torch", "diffusers", "transformers", "scipy", "torchsde", "peft", "compel")
_OURS = frozenset(LIBRARIES) | {"accelerate", "numpy", "builtins"}
_CHUNK = 2**22  # elements that are summed at once
_COLUMNS = 64
_ADAPTED = re.compile(r"\.lora_|\.lora_magnitude_vector\.|\.modules_to_save\.")
_WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@functools.cache
def versions() -> str:
    """The libraries that compute, each with its version ("2.13.0", whatever it was built for), in one line."""
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def arithmetic(device: str | torch.device | None, threads: int | str | None = None) -> str:
    """What it is computed on: the type of the device and, of the CPU, how many threads share the work, since sums are
    rounded in another order then.

    Args:
        device: where the model is; None: where `load` would put it here.
        threads: torch's, or "auto"; None: as they are set here.
    """
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu")).type
    return f"{kind}, {threads or torch.get_num_threads()} threads" if kind == "cpu" else kind


def device_of(pipeline: Any) -> torch.device:
    """Where a pipeline computes, wherever its weights wait meanwhile."""
    found = getattr(pipeline, "_execution_device", None) or getattr(pipeline, "device", None)
    return torch.device("cpu") if found is None else torch.device(found)


class Placed(Generic[Found]):
    """What is found out about where networks are, such as :func:`device_of`, which goes through all of them: looked up
    anew only where the first weight of one lies elsewhere, is another or has another hook.
    """

    def __init__(self, networks: Callable[[], Sequence[torch.nn.Module]], look: Callable[[], Found]) -> None:
        """Of which `networks`, and how it is found."""
        self._networks = networks
        self._look = look
        self._known: tuple[list[object], Found] | None = None

    def __call__(self) -> Found:
        """What `look` gives."""
        networks = self._networks()
        weights = [next(one.parameters(), None) for one in networks]
        now: list[object] = [None if one is None else (one.device, one.dtype) for one in weights]
        now += [id(getattr(one, "_hf_hook", None)) for one in networks]
        known = self._known
        if known is None or known[0] != now:
            known = self._known = now, self._look()
        return known[1]


@torch.no_grad()
def standing(pipeline: Any) -> str | None:
    """A mark of all that a pipeline computes with: equal marks, equal bits, in any session.

    Weights count to the last bit (as sums of their bits, column by column; on a card that is a matter of moments),
    LoRAs as :func:`~diffexplore.pipelines.origin.features_of` says them, classes that are of no known library by their
    source.

    Returns:
        64 hex digits; None where something in it cannot be seen from here: weights that are not there (sequential
        offload), a scheduler that was changed by hand, hooks, classes without a source.
    """
    features = features_of(pipeline)
    if features["scheduler"].get("set") or features.get("hooks"):
        return None
    digest = hashlib.sha256(json.dumps(features, sort_keys=True, default=str).encode())
    classes: set[type] = {type(pipeline), type(getattr(pipeline, "scheduler", None))}
    parts = getattr(pipeline, "components", {})
    for part, network in sorted(parts.items()):
        if not isinstance(network, torch.nn.Module):
            continue
        classes |= {type(module) for module in network.modules()}
        tensors = [*network.named_parameters(), *network.named_buffers()]
        for name, tensor in tensors:
            if _ADAPTED.search(f".{name}"):
                continue
            if tensor.device.type == "meta":
                return None
            said = f"{part}.{name.replace('.base_layer.', '.')} {tuple(tensor.shape)} {tensor.dtype}"
            digest.update(f"\n{said} {_sums(tensor)}".encode())
    for cls in sorted(classes, key=lambda one: f"{one.__module__}.{one.__qualname__}"):
        if cls.__module__.partition(".")[0] in _OURS:
            continue
        try:
            digest.update(f"\n{cls.__qualname__}\n{inspect.getsource(cls)}".encode())
        except (OSError, TypeError):
            return None
    return digest.hexdigest()


def _sums(tensor: torch.Tensor) -> list[int]:
    """Sums of the bits of a tensor, read as whole numbers, of every 64th element from the first, the second, ..."""
    flat = tensor.detach().contiguous().flatten()
    if flat.is_complex():
        flat = torch.view_as_real(flat).flatten()
    whole = flat.view(torch.uint8 if flat.dtype == torch.bool else _WHOLE[flat.element_size()])
    total = torch.zeros(_COLUMNS, dtype=torch.int64, device=flat.device)
    for chunk in whole.split(_CHUNK):
        even = len(chunk) // _COLUMNS * _COLUMNS
        total += chunk[:even].view(-1, _COLUMNS).sum(0, dtype=torch.int64)
        rest = chunk[even:]
        total[: len(rest)] += rest.to(torch.int64)
    return total.tolist()
