"""Work that is remembered, so that nothing is computed twice; what comes back is bit for bit what computing
anew would give.

One :class:`Store` holds three kinds of results under one byte budget: prompt embeddings (:func:`prompts`),
evaluations of the denoiser (:func:`evaluations`) and whole runs (:func:`run_key`, :func:`size_of`,
:func:`copy_of`). Every key starts with the :func:`fingerprint` of the pipeline: a model that changes in any way
gets another one, and what was kept of it before simply matches no longer.

Whatever is not understood (an argument of an unknown type, a hook with a state of its own, an evaluation that
draws random numbers) is computed as if this room were not there: less is reused, nothing is ever wrong.

Results are copied on the way in and on the way out, so nobody who writes into one can reach the kept one. A copy
of an output costs a few microseconds where making it took milliseconds.
"""

import dataclasses
import functools
import hashlib
import inspect
import pickle
import sys
import threading
import types
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.modules import module as torch_module

from diffexplore.settings import Settings
from diffexplore.trace import Decoder, Trace

__all__ = ["Store", "as_plain", "copy_of", "evaluations", "fingerprint", "prompts", "run_key", "size_of"]

PROBES = 16  # elements of each weight that a fingerprint reads
_PLAIN = frozenset({int, float, bool, str, bytes, type(None)})
# What torch keeps in every module, but the weights, the children and the mode; and that it was run before.
_IRRELEVANT = (
    frozenset(vars(torch.nn.Module())) - {"training", "_parameters", "_buffers", "_modules"}
    | {"forward", "_output_capturing_hooks_installed"}
)  # fmt: skip


class Store:
    """Values with sizes under one byte budget; the one that was not used for longest goes first. Safe on any
    thread.

    Attributes:
        budget: bytes it may hold.
        hits: how many times :meth:`get` found something, and
        misses: how many times it did not; both since it was made or cleared.
    """

    def __init__(self, budget: int = 256 * 2**20) -> None:
        if budget < 0:
            raise ValueError(f"a budget must be 0 bytes or more, got {budget}")
        self.budget = budget
        self.hits = self.misses = 0
        self._used = 0
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Store({len(self._values)} values, {self.used:,} of {self.budget:,} bytes, {self.hits} hits)"

    @property
    def used(self) -> int:
        """Bytes held; never more than the budget."""
        return self._used

    @property
    def keeps(self) -> bool:
        """Whether anything is remembered."""
        return self.budget > 0

    def get(self, key: Hashable | None) -> Any:
        """The value kept for `key`, or None; a key of None (nothing to go by) finds nothing and counts
        nothing.
        """
        if key is None:
            return None
        with self._lock:
            found = self._values.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._values.move_to_end(key)
            return found[0]

    def put(self, key: Hashable | None, value: Any, size: int) -> None:
        """Keep `value` (not None), of `size` bytes, for `key`, in place of what was kept for it. One that is
        larger than the budget is not kept, nor is any for the key None.

        Raises:
            ValueError: for a size below 1.
        """
        if size < 1:
            raise ValueError(f"a value takes 1 byte or more, got {size}")
        if key is None:
            return
        with self._lock:
            self._used -= self._values.pop(key, (None, 0))[1]
            if size > self.budget:
                return
            while self._used + size > self.budget:
                self._used -= self._values.popitem(last=False)[1][1]
            self._values[key] = value, size
            self._used += size

    def clear(self) -> None:
        """Forget everything, the counts too."""
        with self._lock:
            self._values.clear()
            self._used = self.hits = self.misses = 0


class _UnknownError(Exception):
    """Something that cannot be keyed, kept or fingerprinted."""


@contextmanager
def prompts(pipeline: Any, store: Store, state: bytes | None) -> Iterator[None]:
    """Within the block, ``pipeline.encode_prompt`` computes the embeddings of equal arguments once.

    Calls with a LoRA scale are left alone, since they also set that scale on the pipeline.

    Args:
        pipeline: a shallow clone: its ``encode_prompt`` is shadowed by an instance attribute until the end.
        store: where results are kept, on the device they were made on.
        state: the fingerprint of the pipeline; None: nothing is reused.
    """
    original = getattr(pipeline, "encode_prompt", None)
    if state is None or original is None:
        yield
        return
    signature = inspect.signature(original)
    device = getattr(pipeline, "_execution_device", torch.device("cpu"))

    @functools.wraps(original)
    def encode_prompt(*args: Any, **kwargs: Any) -> Any:
        key = None
        try:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = chain(bound.arguments.items(), kwargs.items())  # names in **kwargs too
            scaled = any("lora_scale" in name and value is not None for name, value in given)
            if not scaled:
                key = ("prompt", state, _digest(bound.arguments))
        except (_UnknownError, TypeError):  # TypeError: a wrong call, which says best itself what is wrong
            pass
        return _remembered(store, key, functools.partial(original, *args, **kwargs), device)

    with _shadowed(pipeline, "encode_prompt", encode_prompt):
        yield


@contextmanager
def evaluations(networks: Iterable[torch.nn.Module], store: Store, state: bytes | None) -> Iterator[list[int]]:
    """Within the block, on this thread, an evaluation with exactly equal inputs is computed once. Gives a list, which
    gets the number of the network of each evaluation that was known.

    Forward hooks and pre-hooks of a network itself run on a hit as ever; what is inside it does not run, so
    leave this out where something in there is to be watched. Only inputs on the CPU are compared: elsewhere the
    comparison would make the device's queue wait.

    Args:
        networks: what a pipeline's loop evaluates; their ``forward`` is shadowed until the end.
        store: where outputs are kept.
        state: the fingerprint of the pipeline, taken before any other hook; None: nothing is reused.
    """
    owner = threading.get_ident()
    known: list[int] = []

    def remembering(number: int, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != owner:
                return original(*args, **kwargs)
            try:
                key = ("evaluation", state, number, _digest(args, kwargs))
            except _UnknownError:
                return original(*args, **kwargs)
            known.append(number)

            def call() -> Any:
                known.pop()
                return original(*args, **kwargs)

            return _remembered(store, key, call)

        return forward

    with ExitStack() as undo:
        if state is not None:
            for number, network in enumerate(networks):
                undo.enter_context(_shadowed(network, "forward", remembering(number, network.forward)))
        yield known


@contextmanager
def _shadowed(owner: Any, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Put `function` over a method of one object, and what was there before back at the end."""
    attributes = vars(owner)
    before = attributes.get(name)
    attributes[name] = function
    try:
        yield
    finally:
        if before is None:
            attributes.pop(name, None)
        else:
            attributes[name] = before


def _remembered(store: Store, key: Hashable | None, call: Callable[[], Any], device: Any = None) -> Any:
    """What is kept for `key`, else the result of `call`, which is then kept."""
    # With gradients on, a result carries its history, which a kept one could not.
    if key is None or torch.is_grad_enabled():
        return call()
    found = store.get(key)
    if found is not None:
        return _copy(found, [])
    before = _randomness(device)
    result = call()
    # Whatever draws random numbers (dropout in training mode) must draw them every time.
    if all(map(torch.equal, before, _randomness(device))):
        sizes: list[int] = []
        try:
            kept = _copy(result, sizes)
        except _UnknownError:
            return result
        if sum(sizes):
            store.put(key, kept, sum(sizes))
    return result


def _randomness(device: torch.device | None) -> list[torch.Tensor]:
    """The states of the global generators of the CPU and of `device`."""
    states = [torch.get_rng_state()]
    if device is not None and device.type not in ("cpu", "meta"):
        states.append(torch.get_device_module(device.type).get_rng_state(device))
    return states


def _copy(value: Any, sizes: list[int]) -> Any:
    """A result that shares no memory with the given one; the bytes of its tensors are added to `sizes`.

    Raises:
        _UnknownError: for anything but tensors and plain values in tuples, lists, dicts and diffusers' outputs.
    """
    kind = type(value)
    if kind is torch.Tensor and value.layout == torch.strided and not (value.is_conj() or value.is_neg()):
        # The whole storage, so that strides and alignment, which the bits of later results may depend on, stay.
        storage = value.untyped_storage().clone()
        sizes.append(storage.nbytes())
        made = torch.empty(0, dtype=value.dtype, device=value.device)
        return made.set_(storage, value.storage_offset(), value.size(), value.stride())
    if kind in _PLAIN:
        return value
    if kind in (tuple, list):
        return kind(_copy(item, sizes) for item in value)
    if kind is dict:
        return {key: _copy(item, sizes) for key, item in value.items()}
    if dataclasses.is_dataclass(kind) and isinstance(value, OrderedDict):  # diffusers' BaseOutput
        fields = (field.name for field in dataclasses.fields(kind))
        return kind(**{name: _copy(getattr(value, name), sizes) for name in fields})
    raise _UnknownError


def _digest(*values: Any) -> bytes:
    """16 bytes that stand for these values alone: plain ones, tensors on the CPU, and both nested in tuples,
    lists and dicts. A tensor counts with its bytes, shape, dtype, strides and alignment.

    Raises:
        _UnknownError: for anything else.
    """
    hasher = hashlib.blake2b(digest_size=16)
    facts: list[object] = []

    def add(value: Any) -> None:
        kind = type(value)
        if kind in _PLAIN:
            facts.append(value)
        elif kind in (torch.Tensor, torch.nn.Parameter):
            # Complex ones are refused, since they may be conjugated without their bytes telling.
            if value.device.type != "cpu" or value.layout != torch.strided or value.is_complex() or value.is_neg():
                raise _UnknownError
            hasher.update(_raw(value))
            # Vectorised kernels choose their path by strides and alignment; one number has neither.
            place = (value.stride(), value.data_ptr() % 64) if value.ndim else ()
            facts.append((value.dtype, tuple(value.shape), place))
        elif kind in (tuple, list):
            facts.append((kind, len(value)))
            for item in value:
                add(item)
        elif isinstance(value, dict):
            facts.append((dict, len(value)))
            for item in chain.from_iterable(value.items()):
                add(item)
        elif kind in (torch.device, torch.dtype):
            facts.append(value)
        else:
            raise _UnknownError

    add(values)
    # Lengths and shapes stand before what they count, so no two structures read alike.
    hasher.update(repr(facts).encode(errors="surrogatepass"))
    return hasher.digest()


def _raw(tensor: torch.Tensor) -> Any:
    """The elements of a tensor on the CPU as one row of bytes."""
    whole = tensor.detach().contiguous()  # one element of an expanded tensor counts as that, with a stride of 0
    return whole.as_strided((whole.numel(),), (1,)).view(torch.uint8).numpy()


@torch.no_grad()
def fingerprint(pipeline: Any, *, scheduler: bool = False) -> bytes | None:
    """All that a result depends on besides its arguments: 16 bytes, equal only within this process and only
    while nothing changes.

    They cover, of every network, the modules with their types, plain attributes, attention processors, configs
    and training mode, and of each weight where it lies, how many times torch saw it change, and a few of its
    elements (code that writes through ``.data``, as fusing a LoRA does, goes round that count, but changes
    them); the tokenizers; and torch's own switches: threads, autocast, determinism. The scheduler is left out,
    since every run has one of its own, unless `scheduler` asks for it: where runs use a copy of it.

    Take it on the thread that runs, before hooks are set; it takes some milliseconds. A weight changed
    afterwards is not noticed until the next one is taken.

    Returns:
        None where a part has a state that cannot be seen from here (hooks of others, caches inside a network,
        weights that are not there, compiled networks): nothing may be reused then.
    """
    if torch_module._global_forward_hooks or torch_module._global_forward_pre_hooks:
        return None
    walk = _Walk()
    try:
        parts = pipeline.components
        # An underscore marks what a call leaves behind for itself, such as its guidance; of the config, what is
        # said of the components would bring the scheduler in.
        own = {name: value for name, value in vars(pipeline).items() if not name.startswith("_")}
        config = dict(getattr(pipeline, "config", {}))
        for name in parts:
            own.pop(name, None), config.pop(name, None)
        counted = {name: parts[name] for name in parts if scheduler or name != "scheduler"}
        walk.dump((_switches(), counted, own, config))
        return walk.digest()
    except Exception:  # whatever refuses to be read, in any way, has a state that cannot be seen
        return None


def _switches() -> tuple[object, ...]:
    """What torch computes by, as opposed to what it computes."""
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.is_inference_mode_enabled(),
        *((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")),
        torch.backends.mkldnn.enabled,
        torch.backends.cudnn.enabled,
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.deterministic,
        torch.backends.cuda.flash_sdp_enabled(),
        torch.backends.cuda.mem_efficient_sdp_enabled(),
        torch.backends.cuda.math_sdp_enabled(),
        torch.backends.cuda.cudnn_sdp_enabled(),
        # Flushing of denormal numbers cannot be asked for, but Python's own arithmetic obeys it as well.
        sys.float_info.min / 2,
    )


class _Walk(pickle.Pickler):
    """Walks through all that objects are made of, each once, and hashes it. Pickle has the quickest walk there is;
    nothing is ever read back. What it cannot take (locks, files) has a state that cannot be seen.
    """

    def __init__(self) -> None:
        self._hasher = hashlib.blake2b(digest_size=16)
        self._probes: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
        super().__init__(types.SimpleNamespace(write=self._hasher.update), protocol=5)

    def digest(self) -> bytes:
        """The hash of everything dumped so far."""
        for (_, device), probes in self._probes.items():
            self._hasher.update(str(device).encode())
            # One trip per device and type: a trip per weight would cost more than all the rest.
            self._hasher.update(_raw(torch.cat(probes).cpu()))
        return self._hasher.digest()

    def reducer_override(self, value: Any) -> Any:
        """What stands for a value, in pickle's terms: a function (never called, any builtin does), its arguments,
        a state.
        """
        if isinstance(value, torch.Tensor):
            return id, self._tensor(value)
        if isinstance(value, torch.nn.Module):
            return id, (type(value),), self._module(value)
        if isinstance(value, type):
            # With the code it runs, since notebooks define classes anew under the old name.
            runs = (getattr(getattr(value, name, None), "__code__", None) for name in ("forward", "__call__"))
            return id, (value.__module__, value.__qualname__, id(value), *map(hash, runs))
        if isinstance(value, types.FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            state = (cells, value.__defaults__, value.__kwdefaults__)
            return id, (value.__module__, value.__qualname__, hash(value.__code__)), state
        if hasattr(value, "get_vocab"):
            # A tokenizer: reading all its words would take longer than a run.
            return id, (type(value), id(value), len(value), value.model_max_length)
        return NotImplemented

    def _module(self, module: torch.nn.Module) -> dict[str, Any]:
        """The attributes that say what a module computes."""
        attributes = vars(module)
        forward = attributes.get("forward", type(module).forward)
        replaced = getattr(forward, "__func__", forward) is not type(module).forward
        if replaced or attributes.get("_compiled_call_impl") is not None:
            raise _UnknownError
        for hook in chain(module._forward_hooks.values(), module._forward_pre_hooks.values()):
            # transformers watches its own layers, and changes nothing.
            if getattr(hook, "__module__", None) != "transformers.utils.output_capturing":
                raise _UnknownError
        return {name: value for name, value in attributes.items() if name not in _IRRELEVANT}

    def _tensor(self, tensor: torch.Tensor) -> tuple[object, ...]:
        """Where a tensor lies, in which form, and how many times torch saw it change; its probes are noted."""
        count, device, dtype = tensor.numel(), tensor.device, tensor.dtype
        if device.type == "meta":
            raise _UnknownError
        facts = (tensor.data_ptr(), tensor._version, tuple(tensor.shape), tensor.stride(), str(dtype))
        if not tensor.is_contiguous():
            tensor = tensor.flatten()
        # All of a small one; an odd step walks through rows and columns alike.
        taken, step = (count, 1) if count <= PROBES**2 else (PROBES, count // (PROBES + 1) | 1)
        probe = tensor.as_strided((taken,), (step,))
        self._probes.setdefault((dtype, device), []).append(probe)
        return facts


def run_key(state: bytes | None, settings: Settings, sampler: Hashable | None, *more: Any) -> Hashable | None:
    """The key of a whole run.

    Args:
        state: the fingerprint of the pipeline.
        settings: what the run draws, with every None filled in.
        sampler: what stands for its scheduler; the name that settings have for it does not count.
        more: plain values and dicts of what else decides.

    Returns:
        None where the run may not be reused.
    """
    if state is None or sampler is None:
        return None
    try:
        return "run", state, settings.model_copy(update={"sampler": None}).to_json(), sampler, _digest(more)
    except _UnknownError:
        return None


def as_plain(value: Any) -> Any:
    """An argument of a call as :func:`run_key` takes it: pictures and arrays by what is in them."""
    if isinstance(value, Image.Image):
        return "picture", value.mode, value.size, value.getpalette(), value.tobytes()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return "array", str(value.dtype), value.shape, value.tobytes()
    if type(value) in (list, tuple):
        return type(value)(as_plain(one) for one in value)
    if type(value) is dict:
        return {name: as_plain(one) for name, one in value.items()}
    return value


def size_of(trace: Trace) -> int:
    """Bytes a trace keeps in memory: its tensors, each storage once and whole, and its picture."""
    return trace.nbytes


def copy_of(
    trace: Trace,
    decode: Decoder | None = None,
    matrix: np.ndarray | Callable[[], np.ndarray | None] | None = None,
) -> Trace:
    """A new trace of the same run, of the same (unchangeable) steps: changes to its info, picture or final latents
    do not reach the other.

    Args:
        trace: a finished run.
        decode: the decoder of the new one. None for a copy to be kept: a decoder holds its model.
        matrix: likewise its latents-to-RGB matrix, or what computes it.
    """
    return trace.copy(decode=decode, matrix=matrix)
