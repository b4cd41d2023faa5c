"""Weights of words, as in ``a (fox:1.3) in the snow``, and prompts longer than what an encoder reads at once.

Both by `compel`, which scales what the encoder gave for a word away from what it gives for nothing, and reads a long
prompt in parts. The prompt that has neither is not touched: its picture keeps its bits.
"""

import re
from collections.abc import Callable, Hashable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from importlib.util import find_spec
from inspect import signature
from typing import Any, NamedTuple

import torch

from diffexplore.pipelines.base import Family
from diffexplore.record.record import Record
from diffexplore.runs.probes import Probe, tapped
from diffexplore.words import shown

__all__ = ["Part", "Weights", "parts_of", "plain_text", "weighing"]

READERS = {
    "sd": (("tokenizer", "text_encoder"),),
    "sdxl": (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")),
}
MOST = 3.0
_MARK = re.compile(r"\(([^()]+):\s*(-?\d+(?:\.\d+)?)\s*\)")


class Part(NamedTuple):
    """A part of a prompt and its weight; 1 is none."""

    text: str
    weight: float


def parts_of(prompt: str) -> list[Part]:
    """A prompt taken apart at its weights, which are written ``(words:1.3)``; all else is text.

    Raises:
        ValueError: a weight is out of range.
    """
    found, at = [], 0
    for mark in _MARK.finditer(prompt):
        weight = float(mark[2])
        if not 0 <= weight <= MOST:
            raise ValueError(f"the weight of words must be from 0 to {MOST:g}, got {shown(mark[0])}")
        found += [Part(prompt[at : mark.start()].strip(), 1.0), Part(mark[1].strip(), weight)]
        at = mark.end()
    return [part for part in [*found, Part(prompt[at:].strip(), 1.0)] if part.text] or [Part("", 1.0)]


def weighing(asked: Any, family: Family) -> list[Probe]:
    """The probe that answers ``weights=``: none for False.

    Raises:
        ValueError: one sentence, for another value, and for a family whose prompts cannot be weighed.
        ImportError: without compel; says how to get it.
    """
    if not isinstance(asked, bool):
        raise ValueError(f"weights must be True or False, got {shown(asked)}")
    if not asked:
        return []
    if family.name not in READERS:
        raise ValueError(f"words can be weighed in Stable Diffusion 1.x, 2.x and XL, not in pipelines of {family.name}")
    if find_spec("compel") is None:
        raise ImportError("weights of words need compel: pip install 'diffexplore[prompts]'")
    return [Weights(family)]


class Weights(Probe):
    """Reads the weights in the prompts of a run, and all of a long one."""

    changes = True

    def __init__(self, family: Family) -> None:
        """Of a pipeline of `family`."""
        self._family = family
        self._undo = ExitStack()

    def key(self) -> Hashable:
        return "weights", version("compel")

    def begin(self, records: Sequence[Record]) -> None:
        self._records = records
        for record in records:
            asked = {"prompt": record.settings.prompt, "negative": record.settings.negative_prompt}
            parts = {name: parts_of(text) for name, text in asked.items()}
            weighed = [part for found in parts.values() for part in found if part.weight != 1]
            if not weighed:
                continue
            record.info["weights"] = {name: plain_text(text) for name, text in asked.items()}
            told = ", ".join(f"{part.text} {part.weight:g}" for part in weighed)
            kept = [note for note in record.info.get("notes", ()) if "marks of other programs" not in note]
            record.info["notes"] = [*kept, f"Words were weighed by compel {version('compel')}: {told}."]

    def attach(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._undo.enter_context(tapped(pipeline, "encode_prompt", self._encode))

    def detach(self) -> None:
        self._undo.close()

    def _encode(self, inner: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        bound = signature(inner).bind(*args, **kwargs)
        texts = [_listed(bound.arguments.get(name)) for name in ("prompt", "negative_prompt")]
        parts = [[parts_of(text) for text in some] for some in texts]
        room = self._room()
        long = [any(self._count(_joined(one)) > room for one in some) for some in parts]
        weighed = [any(part.weight != 1 for one in some for part in one) for some in parts]
        for name, given in zip(("prompt", "negative_prompt"), texts, strict=True):
            if any(map(_MARK.search, given)):
                plain = [plain_text(text) for text in given]
                bound.arguments[name] = plain if isinstance(bound.arguments[name], list) else plain[0]
        read = inner(*bound.args, **bound.kwargs)
        if not any((*long, *weighed)):
            return read
        made = list(read)
        with torch.no_grad():
            for k, some in enumerate(parts):
                if made[k] is not None and some and (weighed[k] or long[k]):
                    made[k] = torch.cat([self._read(one) for one in some]).to(made[k])
            self._even(made)
        if any(long):
            self._tell_long(room)
        return tuple(made)

    def _read(self, parts: Sequence[Part]) -> torch.Tensor:
        """(1, vectors, numbers) of one prompt, as every encoder reads it."""
        text, weights = [part.text for part in parts], [part.weight for part in parts]
        device = self._pipeline._execution_device
        found = [
            provider.get_embeddings_for_weighted_prompt_fragments([text], [weights], device=device)
            for provider in self._providers()
        ]
        longest = max(one.shape[1] for one in found)
        return torch.cat([self._padded(one, longest, k) for k, one in enumerate(found)], -1)

    def _providers(self) -> list[Any]:
        from compel import ReturnedEmbeddingsType
        from compel.embeddings_provider import EmbeddingsProvider

        kinds = ReturnedEmbeddingsType
        wanted = kinds.LAST_HIDDEN_STATES_NORMALIZED
        if self._family.name == "sdxl":
            wanted = kinds.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED
        return [
            EmbeddingsProvider(
                tokenizer=getattr(self._pipeline, reader), text_encoder=getattr(self._pipeline, encoder),
                truncate=False, returned_embeddings_type=wanted,
            )
            for reader, encoder in READERS[self._family.name]
            if getattr(self._pipeline, encoder, None) is not None
        ]  # fmt: skip

    def _padded(self, found: torch.Tensor, length: int, k: int) -> torch.Tensor:
        """One reading as long as the longest: parts of nothing are added."""
        if found.shape[1] >= length:
            return found
        device = self._pipeline._execution_device
        nothing = self._providers()[k].get_embeddings_for_weighted_prompt_fragments([[""]], [[1.0]], device=device)
        return torch.cat([found, nothing.repeat(1, -(-(length - found.shape[1]) // nothing.shape[1]), 1)], 1)[
            :, :length
        ]

    def _even(self, made: list[Any]) -> None:
        """Prompt and negative prompt of one length: the shorter is followed by parts of nothing."""
        lengths = [one.shape[1] for one in made[:2] if one is not None]
        for k in range(2):
            if made[k] is not None and made[k].shape[1] < max(lengths):
                missing = max(lengths) - made[k].shape[1]
                if not made[k].any():  # SDXL without a negative prompt: zeros
                    more = made[k].new_zeros(1, missing, made[k].shape[2])
                else:
                    nothing = self._read([Part("", 1.0)]).to(made[k])
                    more = nothing.repeat(1, -(-missing // nothing.shape[1]), 1)[:, :missing]
                made[k] = torch.cat([made[k], more.expand(len(made[k]), -1, -1)], 1)

    def _room(self) -> int:
        reader = self._family.reader(self._pipeline)
        assert reader is not None, "its family has one"
        return reader[1]

    def _count(self, text: str) -> int:
        tokenizer = self._family.reader(self._pipeline)
        assert tokenizer is not None, "its family has one"
        return len(tokenizer[0](text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])

    def _tell_long(self, room: int) -> None:
        for record in self._records:
            record.info["parts"] = room
            kept = [note for note in record.info.get("notes", ()) if "it does not see" not in note]
            record.info["notes"] = [
                *kept,
                f"The prompt was read in parts of {room} tokens by compel {version('compel')}.",
            ]


def plain_text(prompt: str) -> str:
    """A prompt without its marks; one that has none as it is."""
    return _joined(parts_of(prompt)) if _MARK.search(prompt) else prompt


def _joined(parts: Sequence[Part]) -> str:
    """The text without its marks."""
    return " ".join(part.text for part in parts)


def _listed(value: Any) -> list[str]:
    return list(value) if isinstance(value, (list, tuple)) else [value] if isinstance(value, str) else []
