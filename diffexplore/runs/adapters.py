"""LoRAs in a pipeline: loaded switched off, on for the length of a run, taken out again without a trace.

The pipeline is somebody's own and may have LoRAs of theirs, on or off; another :class:`Adapters` may be at work on it
too. So each file goes in under a name that nobody else has, every switch is set back to what it was before, and
whatever fails, in whatever way, leaves the pipeline as it was.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import re
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffexplore.pipelines.lora_file import LoraFile, arranged, lora_networks, read_lora
from diffexplore.pipelines.open import quiet
from diffexplore.words import sentence, shown

__all__ = ["Adapters"]

_FUSED = "LoRAs are fused into its pipeline, so others cannot act beside them; unfuse_lora() first"
_NUMBERS = itertools.count(1)
_OURS = re.compile(r"dx\d+_\w*")
# Switches that a run has set and not set back yet, by network: an interrupt in the wrong place may leave some.
_LEFT: weakref.WeakKeyDictionary[torch.nn.Module, _Switches] = weakref.WeakKeyDictionary()
# The attributes of networks from before any LoRA was in them.
_BARE: weakref.WeakKeyDictionary[torch.nn.Module, dict[str, Any]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class _Loaded:
    file: LoraFile
    inner: str  # its name in the pipeline


class Adapters:
    """The LoRAs that one model loaded into its pipeline.

    LoRAs that the pipeline had already, or gets from others, stay as they are: they are part of the pipeline. None of
    its methods may run while a run is on in the pipeline.
    """

    def __init__(self, pipeline: Any) -> None:
        """None is loaded yet.

        Args:
            pipeline: a diffusers pipeline; changed by :meth:`load` alone, and by :meth:`unload` changed back.
        """
        self._pipeline = pipeline
        self._loaded: dict[str, _Loaded] = {}

    def __repr__(self) -> str:
        return f"Adapters({self.names})"

    @property
    def names(self) -> list[str]:
        """What is loaded, for ``Settings.adapters``."""
        return list(self._loaded)

    @property
    def files(self) -> dict[str, Path]:
        """Name -> the file it was loaded from."""
        return {name: one.file.path for name, one in self._loaded.items()}

    @property
    def loras(self) -> tuple[tuple[str, str, str], ...]:
        """(path, name, sha256) of each, as an ``Origin`` has them."""
        return tuple((str(one.file.path), name, one.file.sha256) for name, one in self._loaded.items())

    @property
    def taught(self) -> frozenset[str]:
        """The words that they say they teach, lower case."""
        return frozenset().union(*(one.file.words for one in self._loaded.values()))

    # In and out

    def load(self, path: str | os.PathLike[str], name: str | None = None) -> str:
        """Put a LoRA into the pipeline, switched off. The same file under the same name again does nothing.

        Args:
            path: a ``.safetensors`` file in diffusers', peft's or kohya's layout.
            name: what to call it; its file name by default. All but letters, digits, "-" and "_" becomes "_".

        Returns:
            Its name.

        Raises:
            ValueError: one sentence, for a file that cannot be read or of which any tensor has no place in this
                pipeline, or a name that another one has. The pipeline is as it was.
            ImportError: without peft; says how to get it.
        """
        if name is not None and not isinstance(name, str):
            raise ValueError(f"the name of a LoRA must be text, got {shown(name)}")
        file = read_lora(path)
        chosen = re.sub(r"[^\w-]+", "_", name or file.path.stem)
        known = self._loaded.get(chosen)
        if known is not None and self._layers([known.inner]):
            if known.file.sha256 == file.sha256:
                return chosen  # a cell that is run again
            raise ValueError(
                f"another adapter {chosen!r} is loaded already; give this one another name, or unload_loras() first"
            )
        if importlib.util.find_spec("peft") is None:
            raise ImportError("LoRA needs peft: pip install peft")
        if not hasattr(self._pipeline, "load_lora_weights"):
            raise ValueError(
                f"{file.path.name!r} cannot be loaded into this model: a {type(self._pipeline).__name__} takes no LoRA"
            )
        self._settle()
        if any(layer.merged for layer in _tuner_layers(self._pipeline)):
            raise ValueError(f"{file.path.name!r} cannot be loaded into this model: {_FUSED}")
        # Never a name that a module of torch has as an attribute, nor one that somebody else uses.
        inner = f"dx{next(_NUMBERS)}_{re.sub(r'[^a-zA-Z0-9_]', '_', chosen)}"
        before = _Before(self._pipeline)
        try:
            self._put(file, inner)
            before.settings()
            self._loaded[chosen] = _Loaded(file, inner)
        except BaseException as error:
            _surely(lambda: self._undo(inner, before))
            if not isinstance(error, Exception):
                raise
            raise ValueError(f"{file.path.name!r} cannot be loaded into this model: {sentence(error)}") from error
        return chosen

    def unload(self) -> None:
        """Take out all that was loaded here, and nothing else."""
        self._settle()
        before = _Switches(_tuner_layers(self._pipeline))
        for name, one in list(self._loaded.items()):
            self._drop(one.inner)
            del self._loaded[name]
        _surely(before.restore)

    def _drop(self, inner: str) -> None:
        _surely(lambda: _take_out(self._pipeline, inner))

    def _put(self, file: LoraFile, inner: str) -> None:
        with quiet(), arranged(file, self._pipeline) as path, _watched(self._pipeline) as read:
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            warnings.filterwarnings("ignore", message=f"Adapter {inner} was active")  # when it is taken out again
            self._pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=inner)
        strays = _strays(self._pipeline, read, inner)
        if not strays and not self._layers([inner]):
            strays = list(file.tensors)
        if strays:
            many = f"{len(strays)} of its {max(len(file.tensors), len(strays))} tensors have"
            what = "one of its tensors has" if len(strays) == 1 else many
            raise ValueError(f"{what} no place in it, such as {shown(strays[0], 150)}")

    def _undo(self, inner: str, before: _Before) -> None:
        _take_out(self._pipeline, inner, before.layers)
        before.settings()
        before.hooks()

    # On and off

    @contextmanager
    def on(self, adapters: Mapping[str, float] | Iterable[tuple[str, float]]) -> Iterator[None]:
        """Within the block, of the LoRAs loaded here and by others of this class exactly these are on; those that are
        the pipeline's own stay as they are. After it, all are as before, however it ends.

        Args:
            adapters: name -> scale; 0 is off.

        Raises:
            ValueError: one sentence, for a name that is not loaded, or whose layers were taken out or fused by hand.
        """
        pairs = adapters.items() if isinstance(adapters, Mapping) else adapters
        chosen = {name: scale for name, scale in pairs if scale}
        self._settle()
        if not chosen:
            yield
            return
        scales: dict[str, float] = {}
        for name, scale in chosen.items():
            if name not in self._loaded:
                raise ValueError(f"this model has no adapter {shown(name)}: {self.names or 'none is loaded'}")
            inner = self._loaded[name].inner
            if not self._layers([inner]):
                raise ValueError(f"the adapter {name!r} was taken out of the pipeline by hand: load it again")
            scales[inner] = scale
        layers = self._layers(scales)
        if any(layer.merged for layer in layers):
            raise ValueError(f"no adapter can be switched on: {_FUSED}")
        denoiser = next(iter(lora_networks(self._pipeline).values()))
        try:
            _LEFT[denoiser] = before = _Switches(layers)
            for layer, active in zip(layers, before.active, strict=True):
                own = [] if layer.disable_adapters else [one for one in active if not _OURS.fullmatch(one)]
                layer.set_adapter([*own, *(inner for inner in scales if inner in layer.scaling)])
                layer.enable_adapters(True)
                for inner, scale in scales.items():
                    if inner in layer.scaling:
                        layer.set_scale(inner, scale)
            before.grads()
            yield
        finally:
            self._settle()

    def _settle(self) -> None:
        """Set back what is left of a run."""
        for network in lora_networks(self._pipeline).values():
            if network in _LEFT:
                _surely(_LEFT[network].restore)
                _LEFT.pop(network, None)

    def _layers(self, inner: Iterable[str]) -> list[Any]:
        """The layers that have any of these."""
        wanted = set(inner)
        return [layer for layer in _tuner_layers(self._pipeline) if not wanted.isdisjoint(layer.scaling)]


def _surely(call: Callable[[], None]) -> None:
    """Call something that may be called twice, to its end, whatever interrupts it."""
    try:
        call()
    except BaseException:
        call()
        raise


# What a pipeline was before


def _tuner_layers(pipeline: Any) -> Iterator[Any]:
    """The layers around those of the network that peft puts adapters into."""
    for network in lora_networks(pipeline).values():
        if hasattr(network, "peft_config"):
            for layer in network.modules():
                if hasattr(layer, "set_adapter") and hasattr(layer, "scaling") and hasattr(layer, "base_layer"):
                    yield layer


class _Switches:
    """Which adapters are on in layers, and at what scales."""

    def __init__(self, layers: Iterable[Any]) -> None:
        self.layers = list(layers)
        self.active = [list(layer.active_adapters) for layer in self.layers]
        self._disabled = [layer.disable_adapters for layer in self.layers]
        self._scales = [dict(layer.scaling) for layer in self.layers]
        self._grads = [(weight, weight.requires_grad) for layer in self.layers for weight in layer.parameters()]

    def restore(self) -> None:
        """Set all of it as it was; layers that have been taken out since are let be."""
        for layer, active, disabled, scales in zip(self.layers, self.active, self._disabled, self._scales, strict=True):
            layer.set_adapter(list(active))
            layer.enable_adapters(not disabled)
            layer.scaling.update({name: scale for name, scale in scales.items() if name in layer.scaling})
        self.grads()

    def grads(self) -> None:
        """Set which weights are trained as it was: peft changes that with every switch."""
        for weight, wanted in self._grads:
            weight.requires_grad_(wanted)


class _Before:
    """What loading changes in a pipeline besides what it loads."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._switches = _Switches(_tuner_layers(pipeline))
        self._active = list(pipeline.get_active_adapters())
        for network in lora_networks(pipeline).values():
            if not hasattr(network, "peft_config"):
                kept = ("_weight_conversions",)  # others may hold the network itself, which must be free to go
                _BARE[network] = {name: value if name in kept else None for name, value in vars(network).items()}
        networks = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
        self._grads = [(weight, weight.requires_grad) for part in networks for weight in part.parameters()]
        self._modes = [(module, module.training) for part in networks for module in part.modules()]
        hooked = [module for module, _ in self._modes if hasattr(module, "_hf_hook")]
        self._hooks = [(module, module._hf_hook) for module in hooked]
        self.layers = {id(layer) for layer in self._switches.layers}

    def settings(self) -> None:
        """Set back what is on, what is trained and in which mode; layers that are new are off."""
        for layer in _tuner_layers(self._pipeline):
            if id(layer) not in self.layers:
                layer.set_adapter(list(self._active))  # none that is there, but what diffusers takes for the pipeline's
        self._switches.restore()
        for weight, wanted in self._grads:
            weight.requires_grad_(wanted)
        for module, mode in self._modes:
            module.training = mode

    def hooks(self) -> None:
        """Put back the hooks of offloading, where loading has taken them away and not come to putting them back."""
        if any(not hasattr(module, "_hf_hook") for module, _ in self._hooks):
            from accelerate.hooks import add_hook_to_module  # type: ignore[import-untyped]

            for module, hook in self._hooks:
                if not hasattr(module, "_hf_hook"):
                    add_hook_to_module(module, hook)


def _take_out(pipeline: Any, inner: str, old: Collection[int] | None = None) -> None:
    """Remove an adapter, or what there is of it, and each layer that held nothing else.

    Args:
        pipeline: that has it.
        inner: its name there.
        old: ids of the layers that are to stay in any case; None: those that do not have it.
    """
    for network in lora_networks(pipeline).values():
        layers: list[tuple[torch.nn.Module, str, Any]] = [
            (parent, name, child) for parent in network.modules() for name, child in parent.named_children()
        ]
        for parent, name, layer in layers:
            if not (hasattr(layer, "delete_adapter") and hasattr(layer, "base_layer")):
                continue
            kinds = [getattr(layer, kind) for kind in layer.adapter_layer_names]
            new = any(inner in kind for kind in kinds) if old is None else id(layer) not in old
            if inner in layer.active_adapters:
                layer.set_adapter([one for one in layer.active_adapters if one != inner])
            layer.delete_adapter(inner)
            if new and not any(map(len, kinds)):
                setattr(parent, name, layer.get_base_layer())
        configs = getattr(network, "peft_config", None)
        if isinstance(configs, dict):
            configs.pop(inner, None)
        if not configs and network in _BARE:
            # What diffusers and transformers note down for themselves at the first of a network.
            for name in set(vars(network)) - set(_BARE[network]) - set(vars(torch.nn.Module())):
                delattr(network, name)
            if "_weight_conversions" in _BARE[network]:
                network._weight_conversions = _BARE[network]["_weight_conversions"]


# Whether all of a file has arrived


@contextmanager
def _watched(pipeline: Any) -> Iterator[dict[str, torch.Tensor]]:
    """What diffusers reads of a LoRA file within the block: its tensors, by the names that it loads them by."""
    read: dict[str, torch.Tensor] = {}
    original = pipeline.lora_state_dict

    def lora_state_dict(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        tensors = found[0] if isinstance(found, tuple) else found
        read.update(tensors)
        return found

    with ExitStack() as undo:
        vars(pipeline)["lora_state_dict"] = lora_state_dict
        undo.callback(vars(pipeline).pop, "lora_state_dict", None)
        yield read


def _strays(pipeline: Any, read: Mapping[str, torch.Tensor], inner: str) -> list[str]:
    """Names of the tensors of a file that are not in the pipeline now, and of those in it that are not in the file."""
    strays = []
    networks = lora_networks(pipeline)
    homes = {name: name.partition(".")[0] for name in read}
    strays += [name for name, home in homes.items() if home not in networks]
    for home, network in networks.items():
        placed = {
            path: weight
            for path, weight in network.named_parameters()
            if f".{inner}." in f"{path}." and ".lora_" in path
        }
        there = Counter(map(_content, placed.values()))
        kinds = {weight.dtype for weight in placed.values()} or {torch.float32}
        unseen = any(weight.device.type == "meta" for weight in placed.values())  # offloaded: only shapes are known
        for name, tensor in read.items():
            if homes[name] != home:
                continue
            marks = {_content(tensor.to("meta") if unseen else tensor.to(kind)) for kind in kinds}
            found = next((mark for mark in marks if there[mark] > 0), None)
            if found is None:
                strays.append(name)
            else:
                there[found] -= 1
        strays += [f"{home}.{path}" for path, weight in placed.items() if not strays and there[_content(weight)] > 0]
    return strays


def _content(tensor: torch.Tensor) -> tuple[tuple[int, ...], bytes]:
    shape = tuple(tensor.shape)
    if tensor.device.type == "meta":
        return shape, b""
    raw: Any = tensor.detach().to("cpu").contiguous().view(-1).view(torch.uint8).numpy()
    return shape, hashlib.blake2b(raw, digest_size=16).digest()
