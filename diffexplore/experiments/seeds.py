"""What the seed decides: one prompt, many seeds, and a count of what the pictures show, each share with its interval.

What a picture shows is read by the pocket model's judge, by a function of one's own, or by eye: marked in
``Seeds.marked``, by clicking in `widgets.tally`.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.experiments.counts import Difference, paired, wilson
from diffexplore.experiments.shared import a_model, own_fields, whole, write_csv
from diffexplore.looks.figures import Cell, Figure, plot_sheet
from diffexplore.looks.figures.kit import Plotted
from diffexplore.pocket.judge import judge_many
from diffexplore.settings import MAX_SEED, Settings
from diffexplore.trace import Trace
from diffexplore.values import is_writable, members
from diffexplore.words import near, sentence, shown

if TYPE_CHECKING:
    from PIL import Image

    from diffexplore.model import Model

__all__ = ["MOST", "Read", "Seeds", "Share", "drawn", "numbers_of", "read_all", "seeds"]

MOST = 2000
_AT_ONCE = 32  # settings that are handed to a model together
_SHEET = 48  # pictures that a sheet shows

Read = Callable[[Any], Any]
"""Says what a picture (PIL) shows: a dict of names to values, or one value, such as True."""


@dataclass(frozen=True)
class Share:
    """How many pictures show a value.

    Attributes:
        value: of the attribute.
        count: how many show it.
        of: of how many.
        low, high: its interval, 0 to 1, which holds the share of all seeds in 95 of 100 cases (`counts.wilson`).
    """

    value: str
    count: int
    of: int
    low: float
    high: float

    def __str__(self) -> str:
        told = f"{self.count} of {self.of}, {100 * self.count / max(self.of, 1):.0f} %"
        return f"{self.value}: {told} ({100 * self.low:.0f} to {100 * self.high:.0f})"


class Seeds(Plotted):
    """Pictures of many seeds, and what they show.

    Attributes:
        settings: what was drawn, but for the seed.
        seeds: of the pictures.
        images: the pictures, in that order.
        read: what each shows, attribute -> value; empty where nobody has read it.
    """

    def __init__(
        self, settings: Settings, seeds: Sequence[int], images: Sequence[Image.Image], read: Sequence[Mapping[str, str]]
    ) -> None:
        """As :func:`seeds` makes it: a picture and what was read in it for each seed."""
        self.settings, self.seeds, self.images = settings, tuple(seeds), list(images)
        self.read: list[dict[str, str]] = [dict(one) for one in read]

    def __len__(self) -> int:
        return len(self.seeds)

    def __repr__(self) -> str:
        return (
            f"Seeds({self.settings.prompt[:40]!r}, {len(self)} seeds, reads {', '.join(self.attributes) or 'nothing'})"
        )

    @property
    def attributes(self) -> list[str]:
        """What can be counted."""
        return list(dict.fromkeys(name for one in self.read for name in one))

    def mark(self, name: str, seeds: Iterable[int], *, yes: str = "yes", no: str = "no") -> None:
        """Count by hand: an attribute `name` that is `yes` in the pictures of `seeds`, and `no` in all others.

        Raises:
            ValueError: one sentence, for a name that is no text or the seeds' own, for a seed that was not drawn, and
                for a `yes` and `no` that are no two texts.
        """
        if not isinstance(name, str) or not name.strip() or not is_writable(name):
            raise ValueError(f"what is counted needs a name, got {shown(name)}")
        _not_the_seeds(name)
        for word in (yes, no):
            if not isinstance(word, str) or not word.strip() or not is_writable(word) or yes == no:
                raise ValueError(f"yes and no must be two texts, got {shown(yes)} and {shown(no)}")
        if isinstance(seeds, (str, bytes)) or not isinstance(seeds, Iterable):
            raise ValueError(f"the seeds that are marked must be a list, got {shown(seeds)}")
        chosen = members("the seeds that are marked", seeds)
        strange = [seed for seed in chosen if seed not in self.seeds]
        if strange:
            raise ValueError(f"the seeds are {shown(list(self.seeds))}, got {shown(strange[0])}")
        for seed, one in zip(self.seeds, self.read, strict=True):
            one[name] = yes if seed in chosen else no

    def marked(self, name: str, value: str = "yes") -> list[int]:
        """The seeds whose pictures show a value."""
        return [seed for seed, one in zip(self.seeds, self.read, strict=True) if one.get(name) == value]

    def shares(self, name: str) -> list[Share]:
        """How many pictures show each value of an attribute, the most frequent first.

        Raises:
            ValueError: one sentence, for an attribute that nobody has read.
        """
        self._known(name)
        values = Counter(one[name] for one in self.read if name in one)
        of = sum(values.values())
        return [Share(value, count, of, *wilson(count, of)) for value, count in values.most_common()]

    def compare(self, other: Seeds, name: str, value: str = "yes") -> Difference:
        """Whether another prompt shows a value more often, over the seeds that both have drawn: as pairs, since one
        seed is the same starting noise for both.

        It speaks of these two prompts in this model with these settings. Where no difference was shown there may still
        be one, and one that is shown says nothing of why.

        Args:
            other: the pictures of the other prompt.
            name: of the attribute.
            value: what is counted.

        Raises:
            ValueError: one sentence, where they share no seeds or one of them has not read it.
        """
        if not isinstance(other, Seeds):
            raise ValueError(f"what it is compared with must be pictures of seeds too, got {shown(other)}")
        self._known(name)
        other._known(name)
        theirs = dict(zip(other.seeds, other.read, strict=True))
        pairs = [
            (one[name] == value, theirs[seed][name] == value)
            for seed, one in zip(self.seeds, self.read, strict=True)
            if name in one and name in theirs.get(seed, {})
        ]
        if not pairs:
            raise ValueError(f"{name} was read in no picture of a seed that both have")
        return paired([one for one, _ in pairs], [two for _, two in pairs])

    def table(self) -> list[dict[str, Any]]:
        """One row for each picture: its ``seed``, and what was read in it."""
        return [{"seed": seed} | one for seed, one in zip(self.seeds, self.read, strict=True)]

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write :meth:`table` as CSV, in UTF-8, with a first line of names.

        A text that a spreadsheet would take for a formula gets an apostrophe in front.

        Args:
            path: the file; one that exists is replaced.

        Raises:
            OSError: the file cannot be written.
        """
        write_csv(path, ["seed", *self.attributes], self.table())

    def plot(self, name: str | None = None) -> Figure:
        """The pictures, each with its seed; with `name`, and what it shows of that attribute.

        Raises:
            ValueError: one sentence, for an attribute that nobody has read.
        """
        if name is not None:
            self._known(name)
        words = [
            f"seed {seed}" if name is None else f"{seed}: {one.get(name, '?')}"
            for seed, one in zip(self.seeds, self.read, strict=True)
        ]
        first = self.settings
        told = [f"{first.sampler} · {first.steps} steps · guidance {first.guidance:g}"]
        if name is not None:
            told = [f"{name}: " + "; ".join(map(str, self.shares(name)[:4]))]
        if len(self) > _SHEET:
            told.append(f"the first {_SHEET} of {len(self)}")
        cells = [Cell(image, line) for image, line in zip(self.images[:_SHEET], words[:_SHEET], strict=True)]
        return plot_sheet(cells, first.prompt or "(no prompt)", " · ".join(told), across=8)

    def _known(self, name: str) -> None:
        known = self.attributes
        if name not in known:
            have = f"one of {', '.join(known)}" if known else "marked first: nothing was read in these pictures"
            raise ValueError(f"what is counted must be {have}; got {shown(name)}{near(name, known)}")


def seeds(model: Model, n: int | Sequence[int] = 24, *, read: Read | None = None, **settings: Any) -> Seeds:
    """Draw one prompt from many seeds, and read what the pictures show; blocking.

    Args:
        model: what draws.
        n: how many seeds, from 0, 1 to 2,000; or a list of them.
        read: says what a picture shows: a dict of names to values, or one value, which is called "shows". None: the
            judge reads the pictures of the pocket model; of other models nothing is read, and one counts by hand.
        **settings: the other fields of ``Settings``.

    Raises:
        ValueError: one sentence, before any work, for what is refused; for a picture that `read` fails on, after.
    """
    model = a_model(model)
    own_fields(settings, ("seed",))
    if read is not None and not callable(read):
        raise ValueError(f"read must be a function of a picture, got {shown(read)}")
    numbers = numbers_of("n", n)
    base = model.plan(Settings(**settings)).settings
    traces = drawn(model, [base.replace(seed=seed) for seed in numbers])
    images = [trace.image for trace in traces if trace.image is not None]
    if len(images) < len(traces):
        raise ValueError("this model makes no pictures, so there is nothing to look at")
    return Seeds(traces[0].settings, numbers, images, read_all(images, read, traces[0].info.get("world") == "pocket"))


def drawn(model: Model, asked: Sequence[Settings]) -> list[Trace]:
    """Runs of which little is kept: many at once would not fit into memory with all that they recorded."""
    made: list[Trace] = []
    for k in range(0, len(asked), _AT_ONCE):
        for trace in model.trace_many(asked[k : k + _AT_ONCE]):
            trace.clear()
            made.append(trace)
    return made


def numbers_of(name: str, value: Any) -> list[int]:
    """The seeds that were asked for: how many, from 0, or a list.

    Raises:
        ValueError: one sentence, for neither.
    """
    if isinstance(value, (str, bytes, Settings)) or not isinstance(value, Iterable):
        return list(range(whole(name, value, 1, MOST)))
    found = list(dict.fromkeys(whole("a seed", seed, 0, MAX_SEED) for seed in members(name, value, MOST)))
    if not 1 <= len(found) <= MOST:
        raise ValueError(f"{name} must be 1 to {MOST} seeds, got {len(found)}")
    return found


def read_all(images: Sequence[Image.Image], read: Read | None, pocket: bool) -> list[dict[str, str]]:
    """What pictures show: by a function of the user's, by the judge, or nothing.

    Raises:
        ValueError: one sentence, for a picture that `read` fails on.
    """
    if read is not None:
        return [_told(read, image, k) for k, image in enumerate(images)]
    if not pocket:
        return [{} for _ in images]
    judged = judge_many(images)
    return [{name: max(values, key=values.__getitem__) for name, values in one.items()} for one in judged]


def _told(read: Read, image: Image.Image, k: int) -> dict[str, str]:
    try:
        found = read(image)
        table = found if isinstance(found, Mapping) else {"shows": found}
        told = {_word(name): _word(value) for name, value in table.items()}
        _not_the_seeds(*told)
        return told
    except Exception as error:
        raise ValueError(f"read failed on picture {k + 1}: {sentence(error)}") from error


def _word(value: Any) -> str:
    told = ("yes" if value else "no") if isinstance(value, bool | np.bool_) else str(value)
    return told.encode(errors="backslashreplace").decode()  # half a surrogate pair can be neither shown nor saved


def _not_the_seeds(*names: str) -> None:
    if "seed" in names:
        raise ValueError("what is counted cannot be called 'seed': a table has the seeds by that name")
