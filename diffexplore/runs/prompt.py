"""Reading prompts: what the text encoder sees of one, which words the model never saw, and what is nearest to those."""

import copy
import difflib
import functools
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Reader", "Reading", "Vocabulary"]

TOLD = 8  # unknown words that a note names
_WEIGHTED = re.compile(
    r"[(\[][^()\[\]]{1,60}:\s*-?\d+(?:\.\d+)?\s*[)\]]|<(?:lora|lyco|hypernet):[^<>]{1,80}>|\bBREAK\b|\bAND\b"
)


class Vocabulary(NamedTuple):
    """What is known of a model's training words; empty where nothing is.

    Attributes:
        words: all words it was trained on, lower case.
        near: other words -> the known ones nearest in meaning.
    """

    words: frozenset[str] = frozenset()
    near: Mapping[str, Sequence[str]] = {}


class Reading(NamedTuple):
    """A prompt as the text encoder reads it.

    Attributes:
        text: the prompt.
        pieces: where in it each of its tokens stands.
        ids: the number of each in the tokenizer's vocabulary.
        room: for how many tokens there is room.
    """

    text: str
    pieces: tuple[tuple[int, int], ...]
    room: int
    ids: tuple[int, ...] = ()

    @property
    def tokens(self) -> list[str]:
        """What is read, each token as the piece of the prompt that it stands for."""
        return [self.text[start:end] for start, end in self.pieces[: self.room]]

    @property
    def cut(self) -> list[str]:
        """What is never seen, for want of room."""
        return [self.text[start:end] for start, end in self.pieces[self.room :]]

    @property
    def rest(self) -> str:
        """The prompt from the first token that is not read on."""
        return self.text[self.pieces[self.room][0] :].strip() if len(self.pieces) > self.room else ""


class Reader:
    """Reads prompts as one model does; safe on any thread."""

    def __init__(self, tokenizer: Any, room: int, vocabulary: Vocabulary, taught: Callable[[], frozenset[str]]) -> None:
        """The tokenizer that decides (None where none is known: then no token is told), how many tokens fit, the
        training words, and what tells the words that loaded adapters teach.
        """
        self._given = tokenizer
        self._room = room
        self._vocabulary = vocabulary
        self._taught = taught
        self._lock = threading.Lock()  # a fast tokenizer is not to be used by two threads at once
        self.read = functools.lru_cache(maxsize=32)(self._read)  # one move of a slider reads nothing anew

    @functools.cached_property
    def _tokenizer(self) -> Any:
        # A tokenizer of our own. Fast ones keep truncation and padding as state: sharing the pipeline's would change
        # what a run on another thread reads.
        return copy.deepcopy(self._given)

    def _read(self, text: str) -> Reading:
        if self._given is None:
            return Reading(text, (), 0)
        with self._lock:
            found = self._tokenizer(
                text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
            )
        return Reading(text, tuple(found["offset_mapping"]), self._room, tuple(found["input_ids"]))

    def unknown(self, text: str) -> list[str]:
        """Words which the model never saw in training, each once, in order, in lower case; [] where its training
        vocabulary is not known.
        """
        if not self._vocabulary.words:
            return []
        known = self._vocabulary.words | self._taught()
        # A compound ("snow-white") counts as known if its parts are.
        found = dict.fromkeys(re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower()))
        return [w for w in found if w not in known and not known.issuperset(re.split("['-]", w))]

    def near(self, word: str) -> list[str]:
        """At most three known words that come nearest to an unknown one: of like meaning where some are listed, else of
        like spelling.
        """
        word = word.lower()
        if not self.unknown(word):
            return []
        meant = self._vocabulary.near.get(word) or self._vocabulary.near.get(word.removesuffix("s"))
        return list(meant or difflib.get_close_matches(word, sorted(self._vocabulary.words), 3, 0.75))

    def notes(self, text: str, title: str) -> list[str]:
        """Plain sentences on what of a prompt, called `title` in them, is cut or unknown."""
        notes, reading = [], self.read(text)
        if reading.rest:
            rest = reading.rest
            notes.append(
                f"The {title} has {len(reading.pieces)} tokens and this model reads {reading.room}; "
                f"it does not see: {rest[:200]}{'...' if len(rest) > 200 else ''}"
            )
        marks = list(dict.fromkeys(_WEIGHTED.findall(text)))
        if marks:
            notes.append(
                f"The {title} has marks of other programs, which are plain text here, weights and all: "
                f"{', '.join(marks[:3])}{' ...' if len(marks) > 3 else ''}"
            )
        unknown = self.unknown(text)
        if unknown:
            more = f" and {len(unknown) - TOLD} more" if len(unknown) > TOLD else ""
            told = [(word, self.near(word)) for word in unknown[:TOLD]]
            words = [f"{word} (near: {', '.join(near)})" if near else word for word, near in told]
            notes.append(f"The {title} has words this model never saw: {', '.join(words)}{more}.")
        return notes
