"""Where each word looks: the probe that reads what of the prompt each place of a picture attends to.

*Cross-attention* (U-Nets, PixArt, Sana, Kandinsky 3): softmax(q k^T / sqrt(d)) of the picture's queries over the
prompt's keys, computed here beside the network from what its ``to_q`` and ``to_k`` gave, with its own norms, scale and
mask. Whatever processor is set makes the output, so the picture keeps its bits, and processors that change what they
attend to (those of IP-Adapters add another attention) are read as if they did not.

*Joint attention* (Stable Diffusion 3, Flux, Qwen-Image and the like): picture and prompt are one row. Read from the
very queries and keys that torch's attention was given; of each picture place the part of the softmax over the whole row
that falls on the prompt, so that it is below 1. What is text is told by the values, which are neither normed nor
turned. A row's whole softmax is dear: of pictures above `PLACES` places a regular grid is read, whole.

Kept for each evaluation, large ones in float16: the probabilities averaged over heads, summed over the tokens of each
word, averaged over the layers at the size of the largest (each layer's own mass is kept), as ``attention``, (words, h,
w); those of each size of layer, as ``attention:8x8``; with ``"layers"`` each layer, as ``attention:<its name>``; and
the same of the negative prompt, as ``attention_negative``. Reading cross-attention takes a few hundredths of a run's
time, joint attention more, since whole rows are summed; memory is words x h x w x 2 bytes a step, 80 KB for ten words
at 64 x 64. After DAAM (Tang et al. 2022, arXiv 2210.04885), whose maps are sums of what is read here.
"""

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from diffexplore.pipelines.base import Family, denoisers
from diffexplore.pipelines.texts import Places, Text, places
from diffexplore.record.heat import NEGATIVE, PROMPT
from diffexplore.record.predictions import share_of_noise
from diffexplore.record.record import Record
from diffexplore.record.step import Step
from diffexplore.runs.maps import crossed, enlarged, grid_of, joined, small, softmaxed
from diffexplore.runs.probes import Probe, hooked, tapped
from diffexplore.settings import Settings
from diffexplore.words import sentence, shown

__all__ = ["ASKED", "Attention", "ability", "looking"]

ASKED = (False, True, "layers")
PLACES = 1024  # of a picture, that joint attention is read for
_TORCHS = F.scaled_dot_product_attention  # the very one: some put another in its place
_CALLS = 8  # of a network between two steps, at most


def ability(family: Family, pipeline: Any) -> str:
    """How it is known where a word looks: "cross", "joint", or one sentence why not."""
    networks = _networks(family, pipeline)
    if getattr(family, "kind", "") not in ("", "picture"):
        return "What it makes is not one picture."
    if any(_compiled(network) for network in networks):
        return "Its network was compiled: what happens inside cannot be read."
    found = {kind for network in networks for *_, kind in _layers(network)}
    for kind in ("joint", "cross"):
        if kind in found:
            return kind
    return "No attention between picture and prompt is known in this network."


def looking(asked: Any, family: Family, pipeline: Any) -> list[Probe]:
    """The probe that answers ``attention=``: none for False.

    Raises:
        ValueError: one sentence, for a value that is none of `ASKED`, and where it cannot be known.
    """
    if asked not in ASKED:
        raise ValueError(f'attention must be True, False or "layers", got {shown(asked)}')
    if not asked:
        return []
    found = ability(family, pipeline)
    if found not in ("cross", "joint"):
        raise ValueError(f"where words look cannot be shown: {found[0].lower()}{found[1:].rstrip('.')}")
    return [Attention(family, asked == "layers")]


class _Call:
    """One evaluation of a network: for each size of layer the sum of its layers and their number, and each layer.

    Every map is (rows, places of the picture, vectors of the prompt).
    """

    def __init__(self) -> None:
        self.sizes: dict[int, tuple[torch.Tensor, int]] = {}
        self.layers: dict[str, torch.Tensor] = {}
        self.grids: dict[int, tuple[int, int]] = {}  # places -> (height, width), where a part was read
        self.joint: tuple[int, int, bool] | None = None  # vectors of text and picture, and whether text comes first

    def add(self, name: str, found: torch.Tensor, keep: bool) -> None:
        size = found.shape[1]
        before = self.sizes.get(size)
        # In place: the sum is nobody else's.
        self.sizes[size] = (
            (found.clone() if keep else found, 1) if before is None else (before[0].add_(found), before[1] + 1)
        )
        if keep:
            self.layers[name] = found


class Attention(Probe):
    """Leaves in every step where each word of its picture's prompts looks; see the head of this file."""

    inside = True

    def __init__(self, family: Family, layers: bool = False) -> None:
        """Of a pipeline of `family`; with `layers`, each layer is kept too."""
        self._family = family
        self._layers = layers
        self._undo = ExitStack()
        self._traces: Sequence[Record] = ()

    def key(self) -> Hashable:
        return "attention", self._layers

    def begin(self, records: Sequence[Record]) -> None:
        self._traces = records

    def attach(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._owner = threading.get_ident()
        self._calls: deque[_Call] = deque(maxlen=_CALLS)
        self._picture = 0  # which of the batch a step is of
        self._places: dict[tuple[int, bool, int], tuple[Places, torch.Tensor]] = {}
        self._orders: dict[int, list[bool]] = {}  # of so many pieces of a step, which are of the prompt
        self._answers: list[torch.Tensor] = []
        self._aspect = 1.0
        self._trouble = ""
        networks = _networks(self._family, pipeline)
        enter = self._undo.enter_context
        enter(hooked(networks, before=self._before, after=self._after))
        for network in networks:
            layers = _layers(network)
            joint = any(kind == "joint" for *_, kind in layers)
            for name, module, kind in layers:
                if kind == "cross":
                    self._cross(name, module)
                elif kind == "joint":
                    self._joint(name, module)
                elif joint:
                    self._single(name, module)

    def detach(self) -> None:
        self._undo.close()
        self._calls, self._answers, self._places = deque(), [], {}

    # What is seen

    def _before(self, module: torch.nn.Module, args: Any) -> None:
        self._calls.append(_Call())

    def _after(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
        self._answers = [*self._answers[1 - _CALLS :], first]

    def _cross(self, name: str, module: Any) -> None:
        taken: dict[str, torch.Tensor] = {}

        def take(which: str, half: bool = False) -> Callable[..., None]:
            def after(_: torch.nn.Module, __: Any, output: torch.Tensor) -> None:
                taken.setdefault(which, output.chunk(2, dim=-1)[0] if half else output)

            return after

        def around(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            taken.clear()
            made = inner(*args, **kwargs)
            hidden = args[0] if args else kwargs.get("hidden_states")
            words = args[1] if len(args) > 1 else kwargs.get("encoder_hidden_states")
            mask = args[2] if len(args) > 2 else kwargs.get("attention_mask")
            if threading.get_ident() == self._owner and self._calls and words is not None and words is not hidden:
                self._note(name, lambda: crossed(module, taken["query"], taken["key"], mask))
            taken.clear()
            return made

        enter = self._undo.enter_context
        enter(hooked([module.to_q], after=take("query")))
        enter(hooked([module.to_k], after=take("key")))
        if isinstance(getattr(module, "to_kv", None), torch.nn.Module):
            enter(hooked([module.to_kv], after=take("key", True)))
        enter(tapped(module, "forward", around))

    def _joint(self, name: str, module: Any) -> None:
        values: list[torch.Tensor] = []

        def around(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != self._owner or not self._calls:
                return inner(*args, **kwargs)
            values.clear()
            seen = _Watch()
            with seen:
                made = inner(*args, **kwargs)
            if seen.count != 1 or seen.given is None or not values:
                self._fail("its attention is computed by other means, or in several parts")
            else:
                given, call = seen.given, self._calls[-1]
                text, whole = values[0].shape[1], given.key.shape[2]
                first = torch.equal(joined(given.value[:, :, :text]), values[0])
                call.joint = text, whole - text, first
                self._note(name, lambda: self._parts(given, call))
            values.clear()
            return made

        enter = self._undo.enter_context
        enter(hooked([module.add_v_proj], after=lambda _, __, output: values.append(output)))
        if isinstance(getattr(module, "to_added_qkv", None), torch.nn.Module):
            enter(hooked([module.to_added_qkv], after=lambda _, __, output: values.append(output.chunk(3, -1)[2])))
        enter(tapped(module, "forward", around))

    def _single(self, name: str, module: Any) -> None:
        """Blocks that get picture and prompt as one row, behind those that get them apart."""

        def around(inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            call = self._calls[-1] if self._calls and threading.get_ident() == self._owner else None
            if call is None or call.joint is None:
                return inner(*args, **kwargs)
            seen = _Watch()
            with seen:
                made = inner(*args, **kwargs)
            given = seen.given
            if given is not None and given.query.shape[2] == given.key.shape[2] == call.joint[0] + call.joint[1]:
                self._note(name, lambda: self._parts(given, call))
            return made

        self._undo.enter_context(tapped(module, "forward", around))

    def _note(self, name: str, compute: Callable[[], torch.Tensor | None]) -> None:
        try:
            with torch.no_grad():
                found = compute()
            if found is not None and found.shape[1] > 1:  # one query is no picture
                self._calls[-1].add(name, found, self._layers)
        except Exception as error:  # the run is the user's: it goes on
            self._fail(sentence(error).rstrip("."))

    def _fail(self, why: str) -> None:
        if not self._trouble:
            self._trouble = f"Where words look is not known here: {why}."
            for k in range(len(self._traces)):
                self._say(k, self._trouble)

    def _say(self, k: int, note: str) -> None:
        info = self._traces[k].info
        if note not in info.get("notes", ()):
            info["notes"] = [*info.get("notes", ()), note]

    def _parts(self, given: "_Given", call: _Call) -> torch.Tensor | None:
        """What of a joint softmax falls on the prompt, (rows, places, vectors)."""
        assert call.joint is not None
        text, picture, first = call.joint
        if given.query.shape[2] == text + picture:
            queries = slice(text, None) if first else slice(0, picture)
        elif given.query.shape[2] == picture:
            queries = slice(None)
        else:
            return None
        keys = slice(0, text) if first else slice(picture, None)
        query = given.query[:, :, queries]
        mask = given.mask
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., queries, :]
        # Behind the picture that is drawn may stand others which it is drawn after (Flux Kontext).
        for others in range(1, 9):
            grid = grid_of(picture // others, self._sides()) if picture % others == 0 else None
            if grid is not None:
                break
        else:
            return None
        stride = 1
        while -(-grid[0] // stride) * -(-grid[1] // stride) > PLACES:
            stride += 1
        rows, columns = (torch.arange(stride // 2, side, stride) for side in grid)
        wanted = (rows[:, None] * grid[1] + columns).flatten()
        if len(wanted) < picture:
            wanted = wanted.to(query.device)
            query = query.index_select(2, wanted)
            if mask is not None and mask.shape[-2] > 1:
                mask = mask.index_select(-2, wanted)
        call.grids[len(wanted)] = len(rows), len(columns)
        return softmaxed(query, given.key, given.scale, mask, keys)

    # What is made of it

    def on_step(self, step: Step) -> None:
        k, count = self._picture, max(1, len(self._traces))
        self._picture = (k + 1) % count
        calls = [call for call in self._calls if call.sizes]
        try:
            if calls and not self._trouble:
                with torch.no_grad():
                    self._leave(step, k, count, calls)
        except Exception as error:
            self._fail(sentence(error).rstrip("."))
        if self._picture == 0:
            self._calls.clear()
            self._answers.clear()

    def _leave(self, step: Step, k: int, count: int, calls: Sequence[_Call]) -> None:
        if len(step.shape) != 3:
            raise ValueError("what it makes is not one picture")
        rows = [next(iter(call.sizes.values()))[0].shape[0] for call in calls]
        if any(one % count for one in rows):
            raise ValueError(f"{rows} rows are read for {count} pictures")
        pieces = [(call, k + n * count) for call, one in zip(calls, rows, strict=True) for n in range(one // count)]
        # Guidance may change on the way, and with it how many there are.
        order = self._orders.get(len(pieces)) or self._ordered(step, len(pieces), len(calls))
        self._orders[len(pieces)] = order
        settings = self._traces[k].settings
        now = _in_force(settings, step)
        for wanted, negative in ((True, False), (False, True)):
            name = "negative_prompt" if negative else "prompt"
            if wanted not in order:
                continue
            if getattr(now, name) == getattr(settings, name):
                self._keep(step, k, negative, *pieces[order.index(wanted)])
            else:
                self._say(k, f"Where words look is kept until the {name.replace('_', ' ')} changes on the way.")

    def _ordered(self, step: Step, pieces: int, calls: int) -> list[bool]:
        """Which pieces are of the prompt. diffusers stacks the negative prompt before it, and calls for it behind it;
        of pipelines found by looking, the answers tell.
        """
        usual = [
            n == (pieces - 1 if calls == 1 and pieces == 2 else 0 if calls > 1 else min(1, pieces - 1))
            for n in range(pieces)
        ]
        answers = [row for answer in self._answers if isinstance(answer, torch.Tensor) for row in answer]
        if not self._family.looked or pieces < 2 or len(answers) != pieces:
            return usual
        halves = step.output_cond, step.output_uncond
        if halves[0] is None or halves[1] is None:
            return usual
        sizes = [half.double().norm().item() for half in halves if half is not None]
        found = [answer.double().norm().item() for answer in answers]
        near = [abs(one - sizes[0]) < abs(one - sizes[1]) for one in found]
        return near if sum(near) == 1 or (any(near) and not all(near)) else usual

    def _keep(self, step: Step, k: int, negative: bool, call: _Call, row: int) -> None:
        name = NEGATIVE if negative else PROMPT
        maps: dict[tuple[int, int], tuple[torch.Tensor, int]] = {}
        for size, (total, layers) in call.sizes.items():
            grid = call.grids.get(size) or grid_of(size, step.shape[-2:])
            if grid is None:
                continue
            merged = total[row] @ self._owners(k, negative, total.shape[-1], total) / layers
            maps[grid] = merged.T.unflatten(1, grid), layers
        if not maps:
            raise ValueError("the places that its layers read are no grid of its latents")
        largest = max(maps)
        weight = sum(layers for _, layers in maps.values())
        whole = sum(enlarged(one, largest) * (layers / weight) for one, layers in maps.values())
        assert isinstance(whole, torch.Tensor)
        step.tensors[name] = small(whole)
        for (height, width), (one, _) in maps.items() if len(maps) > 1 else ():
            step.tensors[f"{name}:{height}x{width}"] = small(one)
        for layer, found in call.layers.items():
            grid = call.grids.get(found.shape[1]) or grid_of(found.shape[1], step.shape[-2:])
            if grid is not None:
                merged = found[row] @ self._owners(k, negative, found.shape[-1], found)
                step.tensors[f"{name}:{layer}"[:100]] = small(merged.T.unflatten(1, grid))

    def _owners(self, k: int, negative: bool, count: int, like: torch.Tensor) -> torch.Tensor:
        """(vectors, words): which vector is of which word; also tells the record of its words."""
        known = self._places.get((k, negative, count))
        if known is None:
            trace = self._traces[k]
            if any(name.endswith("prompt_embeds") for name in trace.extra):
                raise ValueError("the prompt was handed over as numbers")
            if "parts" in trace.info:
                raise ValueError("the prompt was read in several parts")
            prompt = trace.settings.negative_prompt if negative else trace.settings.prompt
            prompt = trace.info.get("weights", {}).get(name_of(negative), prompt)  # without its marks
            texts = self._family.texts(self._pipeline, prompt, trace.extra, negative=negative)
            if not texts:
                raise ValueError("how its prompts are read is not known")
            found = places(texts, count)
            self._check(texts, count)
            matrix = F.one_hot(torch.tensor(found.owners), len(found.words)).to(like.device, torch.float32)
            known = self._places[k, negative, count] = found, matrix
            trace.info["words"] = {**trace.info.get("words", {}), name_of(negative): list(found.words)}
        return known[1]

    def _check(self, texts: Sequence[Text], count: int) -> None:
        """Of a pipeline found by looking: whether the vectors can be those of these texts."""
        *before, last = texts
        if not self._family.looked or last.tokenizer is None:
            return
        left = count - sum(one.room for one in before)
        whole = len(last.tokenizer(last.text, truncation=False, verbose=False)["input_ids"]) - last.skips
        reader = self._family.reader(self._pipeline)
        room = 0 if reader is None else reader[1] + int(reader[0].num_special_tokens_to_add())
        if left != whole and not min(whole, room) <= left <= room:
            raise ValueError(f"its network reads {left} vectors, of a prompt of {whole} tokens {room} were expected")

    def _sides(self) -> tuple[int, int]:
        """(height, width) of the picture in pixels."""
        settings = self._traces[0].settings if self._traces else None
        width, height = self._family.size(self._pipeline)
        return (settings and settings.height) or height, (settings and settings.width) or width


def _in_force(settings: Settings, step: Step) -> Settings:
    """What holds at a step, of settings that may change on the way."""
    share = share_of_noise(step.a, step.b)
    return next(held for mark, held in reversed(settings.stages()) if share <= mark)


def name_of(negative: bool) -> str:
    """What the words of a prompt are called in ``info["words"]``."""
    return "negative" if negative else "prompt"


class _Given:
    """What torch's attention was given: each (rows, heads, length, numbers of a head)."""

    def __init__(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
    ) -> None:  # fmt: skip
        self.query, self.key, self.value, self.mask = query, key, value, attn_mask
        self.scale = query.shape[-1] ** -0.5 if scale is None else scale


class _Watch(TorchFunctionMode):
    """Within the block, on this thread, what torch's attention is given."""

    given: _Given | None = None
    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _TORCHS:
            self.given = _Given(*args, **(kwargs or {}))
            self.count += 1
        return func(*args, **(kwargs or {}))


# The networks


def _networks(family: Family, pipeline: Any) -> list[torch.nn.Module]:
    return denoisers(pipeline) or family.networks(pipeline)[:1]


def _compiled(network: torch.nn.Module) -> bool:
    return any("_orig_mod" in one._modules or one._compiled_call_impl is not None for one in network.modules())


def _layers(network: torch.nn.Module) -> list[tuple[str, Any, str]]:
    """Name, module and kind of every layer of attention, as diffusers builds them: "cross", "joint", or "" where it
    does not read the prompt by itself.
    """
    found = []
    for name, module in network.named_modules():
        parts = module._modules
        if "to_q" not in parts or "to_k" not in parts or not isinstance(module.__dict__.get("heads"), int):
            continue
        joint = parts.get("add_k_proj") is not None and parts.get("add_v_proj") is not None
        crosses = parts["to_k"] is not None and getattr(module, "is_cross_attention", False)
        found.append((name, module, "joint" if joint else "cross" if crosses else ""))
    return found
