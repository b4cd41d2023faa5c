"""How a prompt reaches a network: as which text each tokenizer gets it, and which places its words take there.

A network attends to a row of vectors, one for each token that an encoder was given, more or less: a template may stand
around the prompt, tokens may be dropped, padding follows. :func:`places` says which of them belong to which word.
"""

import copy
import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

__all__ = ["BEGIN", "END", "Places", "Text", "Word", "places", "texts_of", "words_in"]

BEGIN = "<begin>"
"""What stands before the prompt: the begin token, the end of a template."""
END = "<end>"
"""What stands behind it: the end token, and the padding."""

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]|_")

_own: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()


class Word(NamedTuple):
    """A word of a text and the tokens that it consists of.

    Attributes:
        text: the word, as it was written.
        tokens: which tokens of the text, from 0.
    """

    text: str
    tokens: tuple[int, ...]


class Text(NamedTuple):
    """What one tokenizer of a pipeline is given, and what of it reaches the network.

    Attributes:
        tokenizer: the tokenizer; None for vectors of the network's own, which stand for no text.
        text: the whole of what it is given.
        begins: where in it the prompt begins, and
        ends: where that ends.
        skips: how many tokens are dropped
        after: behind so many which are kept.
        room: how many vectors of the row are its own, padding included; 0: all that are left.
    """

    tokenizer: Any
    text: str
    begins: int
    ends: int
    skips: int = 0
    after: int = 0
    room: int = 0


class Places(NamedTuple):
    """Which vectors of a row belong to what.

    Attributes:
        words: the words in order, :data:`BEGIN` before and :data:`END` behind them where there are such vectors.
        owners: for each vector, which of the words it belongs to.
    """

    words: tuple[str, ...]
    owners: tuple[int, ...]


def words_in(text: str, pieces: Sequence[tuple[int, int]]) -> list[Word]:
    """The words of a text, each with its tokens.

    Args:
        text: a prompt. A word is letters and digits with what joins them (snow-white), or one other character.
        pieces: where in it each token stands. One that is in no word, such as a space, belongs to the word before.

    Returns:
        The words that have a token, in order.
    """
    spans = [(found.start(), found.end(), found.group()) for found in _WORD.finditer(text)]
    owned: dict[int, list[int]] = {}
    at = 0
    for k, (start, end) in enumerate(pieces):
        while at + 1 < len(spans) and spans[at][1] <= start and spans[at + 1][0] < max(end, start + 1):
            at += 1
        if spans:
            owned.setdefault(at, []).append(k)
    return [Word(spans[n][2], tuple(tokens)) for n, tokens in owned.items()]


def texts_of(
    pipeline: Any, network: Any, tokenizer: Any, prompt: str, extra: Mapping[str, Any], *, negative: bool
) -> list[Text]:
    """What a pipeline's encoders are given of a prompt, as its parts tell.

    Args:
        pipeline: the pipeline.
        network: the network that denoises.
        tokenizer: the one that decides how much of a prompt is read.
        prompt: a prompt.
        extra: arguments of the call beyond settings.
        negative: whether it is a negative one.
    """
    template = getattr(pipeline, "prompt_template_encode", None)
    if isinstance(template, str) and template.count("{}") == 1:  # Qwen-Image
        before, behind = template.split("{}")
        skips = int(getattr(pipeline, "prompt_template_encode_start_idx", 0))
        return [Text(tokenizer, before + prompt + behind, len(before), len(before) + len(prompt), skips)]
    if type(network).__name__ == "SD3Transformer2DModel":  # both CLIPs share their vectors, T5 has what follows
        own = ((pipeline.tokenizer, int(pipeline.tokenizer_max_length)), (getattr(pipeline, "tokenizer_3", None), 0))
        return [Text(one, prompt, 0, len(prompt), room=room) for one, room in own if one is not None]
    if hasattr(pipeline, "_text_preprocessing"):  # PixArt, Sana: what it does to a text in any case
        prompt = prompt.lower().strip()
    default = inspect.signature(pipeline.__call__).parameters.get("complex_human_instruction")
    said = extra.get("complex_human_instruction", getattr(default, "default", None))
    if said and not negative:
        # Sana's instruction stands before the prompt; of all that, the first token and the last ones are kept.
        before = "\n".join(said)
        skips = max(0, len(tokenizer.encode(before)) - 2)
        return [Text(tokenizer, before + prompt, len(before), len(before) + len(prompt), skips, 1)]
    registers = getattr(network, "register_tokens", None)  # AuraFlow
    first = [] if registers is None else [Text(None, "", 0, 0, room=int(registers.shape[1]))]
    return [*first, Text(tokenizer, prompt, 0, len(prompt))]


def places(texts: Sequence[Text], count: int) -> Places:
    """Which of the `count` vectors that a network attends to belong to which word.

    Args:
        texts: what was encoded, in the order of the row; a word that several encoders read has vectors of each.
        count: how many there are.

    Raises:
        ValueError: one sentence, for a tokenizer that does not say where its tokens stand, or a row too short.
    """
    begin, end = -1, -2
    owners: list[int] = []
    words: dict[int, str] = {}
    for one in texts:
        room = one.room or count - len(owners)
        if room > count - len(owners) or room < 1:
            raise ValueError(f"its network reads {count} vectors, {len(owners) + room} were expected")
        if one.tokenizer is None:
            owners += [begin] * room
            continue
        found = _tokenizer(one.tokenizer)(
            one.text, return_offsets_mapping=True, return_special_tokens_mask=True, truncation=False, verbose=False
        )
        offsets, special = found["offset_mapping"], found["special_tokens_mask"]
        trailing = next((n for n, mark in enumerate(reversed(special)) if not mark), len(special))
        row = [end] * room
        inside = [
            (k, start - one.begins, stop - one.begins)
            for k, ((start, stop), mark) in enumerate(zip(offsets, special, strict=True))
            if not mark and stop > one.begins and start < one.ends
        ]
        first = room
        kept = {k: k if k < one.after else k - one.skips for k in range(len(special))}
        last = room - trailing if max(kept.values(), default=0) >= room else room
        prompt = one.text[one.begins : one.ends]
        for number, word in enumerate(_numbered(prompt, [(max(start, 0), stop) for _, start, stop in inside])):
            for token in word.tokens:
                k = inside[token][0]
                place = kept[k]
                if (k < one.after or k >= one.after + one.skips) and 0 <= place < last:
                    row[place] = number
                    words[number] = word.text
                    first = min(first, place)
        if not inside:  # an empty prompt
            before = sum(1 for k, (_, stop) in enumerate(offsets) if stop <= one.begins and not special[k])
            first = min(max(0, before - one.skips) if one.begins else _leading(one.tokenizer), room)
        row[:first] = [begin] * first
        owners += row
    owners += [end] * (count - len(owners))
    order = [*([begin] if begin in owners else []), *sorted(words), *([end] if end in owners else [])]
    named = {begin: BEGIN, end: END} | words
    where = {number: k for k, number in enumerate(order)}
    return Places(tuple(named[number] for number in order), tuple(where[number] for number in owners))


def _numbered(prompt: str, pieces: Sequence[tuple[int, int]]) -> list[Word]:
    """All words of a prompt, those without a token too: they count alike whatever the tokenizer."""
    there = words_in(prompt, pieces)
    spans = [found.group() for found in _WORD.finditer(prompt)]
    full, at = [], 0
    for word in spans:
        if at < len(there) and there[at].text == word:
            full.append(there[at])
            at += 1
        else:
            full.append(Word(word, ()))
    return full


def _leading(tokenizer: Any) -> int:
    """How many tokens of its own a tokenizer puts before a text."""
    found = _tokenizer(tokenizer)("a", return_special_tokens_mask=True)["special_tokens_mask"]
    return next((n for n, mark in enumerate(found) if not mark), 0)


def _tokenizer(given: Any) -> Any:
    """One of our own: fast tokenizers keep truncation and padding as state, which a run reads."""
    if not getattr(given, "is_fast", False):
        raise ValueError("its tokenizer does not say where in a text its tokens stand")
    found = _own.get(given)
    if found is None:
        found = _own[given] = copy.deepcopy(given)
    return found
