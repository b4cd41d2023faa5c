"""Where each word looked, of a run that kept it: the words there are, and the map of one of them.

A map is (h, w): for each place of the picture the share of its attention that the word has, from 0 to 1, a mean over
heads and layers. In cross-attention the shares of all words and of the begin and end of the prompt are 1 together; in
joint attention, where picture and prompt are one row, they are less.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from diffexplore.words import near, shown

if TYPE_CHECKING:
    from diffexplore.record.record import Record

__all__ = ["NEGATIVE", "PROMPT", "SINKS", "heat", "where", "words_of"]

PROMPT: Final = "attention"
"""The name of the tensor of a step that holds the maps of the prompt's words."""
NEGATIVE: Final = "attention_negative"
"""That of the negative prompt's."""
SINKS: Final = {
    "<begin>": "what stands before the prompt",
    "<end>": "what stands behind the prompt: its end, and padding",
}
"""What is no word and takes attention all the same: most of it, where there is nothing to look for."""


def words_of(record: "Record", negative: bool = False) -> list[str]:
    """The words that have a map, in order, with those of `SINKS` first and last; [] of a run that kept none.

    Args:
        record: the run.
        negative: those of its negative prompt.
    """
    return list((record.info.get("words") or {}).get("negative" if negative else "prompt", ()))


def where(record: "Record", negative: bool = False) -> list[str]:
    """What parts of the network there are maps of beside the mean over all: sizes as "8x8", and layers, if those were
    kept.
    """
    prefix = f"{NEGATIVE if negative else PROMPT}:"
    steps = list(record)
    return [name.removeprefix(prefix) for name in (steps[0].tensors if steps else ()) if name.startswith(prefix)]


def heat(
    record: "Record",
    word: str | int | Sequence[str | int],
    i: int | None = None,
    *,
    at: str | None = None,
    negative: bool = False,
) -> np.ndarray:
    """Where a word looked.

    Args:
        record: a run that kept it.
        word: a word of the prompt, in any case; or its place among `words_of`; or several, whose maps are added. One
            that stands there more than once is all of them.
        i: which evaluation, from 0; None: the mean over all.
        at: only layers of one size, or one layer, as `where` names them; None: all layers.
        negative: of the negative prompt.

    Returns:
        (h, w) float32, from 0 to 1.

    Raises:
        ValueError: one sentence, for a word that is not there, or a run that kept no maps.
        IndexError: for an evaluation that is not there.
    """
    name = (NEGATIVE if negative else PROMPT) + (f":{at}" if at else "")
    steps = [record[i]] if i is not None else list(record)
    if not any(PROMPT in step.tensors or NEGATIVE in step.tensors for step in steps):
        raise ValueError("this run did not keep where its words look: draw it with attention=True")
    found = [step.tensors[name] for step in steps if name in step.tensors]
    if not found:
        if at:
            known = where(record, negative)
            raise ValueError(
                f"there are maps of {', '.join(known) or 'all layers alone'}; got {shown(at)}{near(at, known)}"
            )
        raise ValueError("this run had no negative prompt to look at: it needs a guidance above 1")
    wanted = _indices(word, words_of(record, negative))
    total = sum(one[wanted].float().sum(0).numpy() for one in found)
    return np.asarray(total / len(found), dtype=np.float32)


def _indices(word: object, words: Sequence[str]) -> list[int]:
    if isinstance(word, (list, tuple)) and word:
        return list(dict.fromkeys(k for one in word for k in _indices(one, words)))
    if isinstance(word, int) and not isinstance(word, bool) and 0 <= word < len(words):
        return [word]
    if isinstance(word, str):
        found = [k for k, one in enumerate(words) if one.lower() == word.strip().lower()]
        if found:
            return found
    known = list(dict.fromkeys(words))
    raise ValueError(f"a word must be one of {', '.join(known)}; got {shown(word)}{near(word, known)}")
