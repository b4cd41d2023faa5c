"""The U-Net's two ways up: the backbone, which comes from below, and the skip connections, which come from the side.

A U-Net goes down to few, wide channels and up again. Each of its stages on the way up puts together what came up from
the coarser stage (the backbone) and what was kept on the way down at its own resolution (the skips). :class:`Skips`
multiplies either of them, stage by stage, while a run goes: a skip of 0 shows what a picture looks like without it.

FreeU (Si et al. 2023, arXiv 2309.11497) does this with a filter: half of the backbone's channels in the two coarsest
stages are made stronger, the low frequencies of their skips weaker. Here its numbers go to diffusers' own function, at
the place where its blocks would call it, so the picture is that of ``pipeline.enable_freeu`` to the bit; nothing is
written on the network.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch

from diffexplore.pipelines.base import denoisers
from diffexplore.runs.probes import Probe, hooked
from diffexplore.settings import as_dict
from diffexplore.words import shown

__all__ = ["Skips", "Stage", "refused", "stages_of"]

_FREE = ("CrossAttnUpBlock2D", "UpBlock2D")  # those of diffusers' blocks that do FreeU


class Stage(NamedTuple):
    """A stage of a U-Net on its way up.

    Attributes:
        number: its key in ``Settings.skips``, from 0, the coarsest.
        name: what to call it, counted from 1: "stage 1, coarsest".
        backbone: channels that come up from below, and
        skip: from the side; 0 where it has no skip connection.
    """

    number: int
    name: str
    backbone: int
    skip: int


class _Place(NamedTuple):
    """Where backbone and skip come in side by side: a module whose first argument holds the channels of both."""

    module: torch.nn.Module
    backbone: int


def stages_of(pipeline: Any) -> tuple[Stage, ...]:
    """The stages of a pipeline's U-Net, the coarsest first.

    Raises:
        ValueError: one sentence without a full stop, for a network that has none.
    """
    return tuple(stage for stage, _ in _found(pipeline)[1])


def refused(pipeline: Any, skips: Sequence[tuple[str, Any]] = ()) -> str:
    """Why a pipeline cannot be asked for these ``Settings.skips``, a sentence without a full stop; "" where it can."""
    try:
        network, found = _found(pipeline)
    except ValueError as error:
        return str(error)
    for name, strengths in skips:
        if name == "freeu":
            blocks = [type(block).__name__ for block in network.up_blocks]
            if not hasattr(network, "enable_freeu") or not set(blocks[:2]) <= set(_FREE):
                return f"FreeU is for the blocks {' and '.join(_FREE)}, this network has {', '.join(blocks[:2])}"
            continue
        if int(name) >= len(found):
            return f"skips are for stages 0 to {len(found) - 1} of this network, got {shown(name)}"
        if "skip" in dict(strengths) and not found[int(name)][0].skip:
            return f"stage {name} of this network has no skip connection"
    return ""


def _found(pipeline: Any) -> tuple[Any, list[tuple[Stage, list[_Place]]]]:
    """The network with stages, and where in each of them backbone and skip meet."""
    networks = denoisers(pipeline)
    network: Any = next((one for one in networks if len(getattr(one, "up_blocks", ()))), None)
    if network is None:
        what = type(networks[0]).__name__ if networks else type(pipeline).__name__
        raise ValueError(f"its network, {what}, is no U-Net with stages: it has no skip connections")
    if hasattr(network, "_orig_mod") or getattr(network, "_compiled_call_impl", None) is not None:
        raise ValueError("this network is compiled: what happens inside it cannot be changed")
    found: list[tuple[Stage, list[_Place]]] = []
    below = _channels_below(network)
    count = len(network.up_blocks)
    for number, block in enumerate(network.up_blocks):
        where = "coarsest" if number == 0 else "finest" if number == count - 1 else ""
        title = f"stage {number + 1}{f', {where}' if where else ''}"
        places: list[_Place] = []
        # Kandinsky 3 puts them together in front of its blocks, all others in front of each layer.
        layers = [block] if hasattr(block, "resnets_in") else list(getattr(block, "resnets", ()))
        skip = 0
        for layer in layers:
            wide, out = _widths(layer)
            if below > wide > 0 or not wide:
                layers = []
                break
            places.append(_Place(layer, below))
            skip, below = skip + wide - below, out
        if not layers:
            raise ValueError(f"the stages of a {type(network).__name__} are not known here")
        found.append((Stage(number, title, places[0].backbone, skip), places))
    return network, found


def _channels_below(network: Any) -> int:
    """Channels of what the first stage gets from below: those in which the way down ends."""
    last = network.down_blocks[-1]
    layers: Sequence[Any] = getattr(last, "resnets", None) or getattr(last, "resnets_out", None) or ()
    return _widths(layers[-1])[1] if len(layers) else 0


def _widths(layer: Any) -> tuple[int, int]:
    """Channels that go into a layer and come out of it, by its first and last convolution; 0 where nobody knows."""
    if hasattr(layer, "resnets_in"):
        return _widths(layer.resnets_in[0])[0], _widths(layer.resnets_out[-1])[1]
    if hasattr(layer, "in_channels") and hasattr(layer, "out_channels"):
        return int(layer.in_channels), int(layer.out_channels)
    convolutions = [part for part in layer.modules() if isinstance(part, torch.nn.Conv2d)]
    shortcut = getattr(layer, "shortcut_projection", None)
    inner = [part for part in convolutions if part is not shortcut]
    return (int(inner[0].in_channels), int(inner[-1].out_channels)) if inner else (0, 0)


class Skips(Probe):
    """Multiplies backbone and skips of stages while a run goes."""

    changes = True
    inside = True

    def __init__(self, skips: tuple[tuple[str, Any], ...]) -> None:
        """What to do, as ``Settings.skips`` has it."""
        self._skips = skips
        self._undo = ExitStack()

    def key(self) -> Hashable | None:
        return ("skips", repr(self._skips))

    def attach(self, pipeline: Any) -> None:
        reason = refused(pipeline, self._skips)
        if reason:
            raise ValueError(reason)
        asked: Mapping[str, Any] = as_dict(self._skips)
        for stage, places in _found(pipeline)[1]:
            if "freeu" in asked:
                change = _freed(stage.number, asked["freeu"])
            else:
                strengths = asked.get(str(stage.number), {})
                change = _scaled(strengths.get("backbone", 1.0), strengths.get("skip", 1.0)) if strengths else None
            if change is None:
                continue
            for module, backbone in places:
                self._undo.enter_context(hooked([module], before=_parted(backbone, change)))

    def detach(self) -> None:
        self._undo.close()


_Change = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _parted(backbone: int, change: _Change) -> Callable[..., Any]:
    """A hook before a module that changes what comes in side by side."""

    def before(_: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        both, *others = given
        parts = change(both[:, :backbone], both[:, backbone:])
        return torch.cat(parts, dim=1), *others

    return before


def _scaled(backbone: float, skip: float) -> _Change:
    # A factor of 1 is left out, although it would change no bit: there may be infinities, and half precision.
    return lambda below, beside: (
        below if backbone == 1 else below * backbone,
        beside if skip == 1 else beside * skip,
    )


def _freed(stage: int, strengths: Mapping[str, float]) -> _Change | None:
    from diffusers.utils.torch_utils import apply_freeu

    if stage > 1:
        return None
    # Its function writes into the backbone.
    return lambda below, beside: apply_freeu(stage, below.clone(), beside.clone(), **strengths)
