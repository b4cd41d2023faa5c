"""The nearest of known pictures to a drawn one, and whether it is nearer than what was drawn without knowing them.

A picture is held against each of a folder's, such as those that a LoRA was taught from, in two ways:

- *pixels*: both at 64 x 64, cut into 16 tiles; the root mean square difference (of values from 0 to 1) of the tile in
  which they differ most. Two pictures before one plain sky agree in most places, a copy agrees in all (Carlini et al.
  2023, arXiv 2301.13188, who compare so). A copy that is moved, mirrored or recoloured is not found.
- *features*: one less the cosine of what a network makes of either. What that finds alike is up to the network: one
  that was taught to name things finds two red cars alike though neither is a copy. For large models hand over one that
  was made to find copies (SSCD: Somepalli et al. 2022, arXiv 2212.03860), or CLIP's.

How near is near? That takes a scale: pictures of the same kind that are no copies, such as what the model draws of
the same prompts without the LoRA. Where a drawn picture is nearer than all of them, its being of that kind does not
explain it. Without such pictures the scale is how near the known ones are to each other, which is right where they are
of one kind. Where each shows something else, they lie far apart, and whatever shows the same as one of them is nearer
than that: no copy, only the same thing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffexplore.experiments.shared import Tabled
from diffexplore.looks.figures import Cell, Figure, plot_table
from diffexplore.looks.figures.kit import Plotted
from diffexplore.looks.pictures import Picture, fit, read_picture
from diffexplore.words import near, sentence, shown

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MOST", "SIDE", "Features", "Nearest", "nearest"]

SIDE = 64
"""Pixels to which pictures are brought before they are compared."""
MOST = 10_000
"""Pictures that one is looked for among."""
_TILES = 4
_SHOWN = 8  # drawn pictures in a figure

Features = Callable[[Any], Any]
"""What a network makes of a picture (PIL): numbers, as an array or tensor of any shape, always as many."""


@dataclass(frozen=True)
class Nearest(Plotted, Tabled):
    """What :func:`nearest` found.

    Attributes:
        images: the pictures that were looked for.
        among: those that they were looked for among, and
        names: what those are called.
        distances: "pixels", and "features" where there are: (images, among) float64.
        own: of either, (scale,) how far each picture of the scale is from the nearest known one.
        scaled: whether the scale was given; else it is the known pictures, each held against the others.
    """

    images: Sequence[Image.Image]
    among: Sequence[Image.Image]
    names: tuple[str, ...]
    distances: Mapping[str, np.ndarray]
    own: Mapping[str, np.ndarray]
    scaled: bool = False

    def __len__(self) -> int:
        return len(self.images)

    def which(self, by: str = "pixels") -> np.ndarray:
        """(images,) int, the place of the nearest known picture.

        Raises:
            ValueError: one sentence, for a way that they were not compared in.
        """
        made: np.ndarray = self.distances[self._known(by)].argmin(axis=1)
        return made

    def far(self, by: str = "pixels") -> np.ndarray:
        """(images,) float64, how far that is. Errors as in :meth:`which`."""
        made: np.ndarray = self.distances[self._known(by)].min(axis=1)
        return made

    def scale(self, by: str = "pixels") -> float:
        """How far the nearest picture of the scale is from a known one. Errors as in :meth:`which`."""
        return float(self.own[self._known(by)].min())

    def nearer(self, by: str = "pixels") -> np.ndarray:
        """(images,) bool, whether it is nearer to a known picture than all of the scale. Errors as in :meth:`which`."""
        made: np.ndarray = self.far(by) < self.scale(by)
        return made

    def table(self) -> list[dict[str, Any]]:
        """One row for each picture and way to compare: ``picture`` (from 1), ``by``, ``nearest`` (its name),
        ``distance``, ``scale``, ``nearer``, and ``as_near``, the share of the scale that is as near.
        """
        return [
            {"picture": k + 1, "by": by, "nearest": self.names[int(self.which(by)[k])], "distance": float(far),
             "scale": self.scale(by), "nearer": bool(far < self.scale(by)), "as_near": float((own <= far).mean())}
            for by, own in self.own.items()
            for k, far in enumerate(self.far(by))
        ]  # fmt: skip

    def __repr__(self) -> str:
        return f"Nearest({len(self)} pictures among {len(self.among)}, by {' and '.join(self.distances)})"

    def __str__(self) -> str:
        than = "all of the scale" if self.scaled else "any two of those are to each other"
        return "; ".join(
            f"by {by}: {int(self.nearer(by).sum())} of {len(self)} nearer to one of {len(self.among)} known pictures "
            f"than {than} ({self.scale(by):.3f}); in the middle at {np.median(self.far(by)):.3f}"
            for by in self.distances
        )

    def plot(self) -> Figure:
        """Each picture over the nearest known ones, with how far they are."""
        chosen = range(min(len(self), _SHOWN))
        rows = [[Cell(self.images[k], "") for k in chosen]]
        for by in self.distances:
            which, far = self.which(by), self.far(by)
            told = [f"{one:.3f}{' · nearer' if yes else ''}" for one, yes in zip(far, self.nearer(by), strict=True)]
            rows.append([Cell(self.among[which[k]], told[k]) for k in chosen])
        what = f"the nearest of {len(self.own['pixels'])} for scale" if self.scaled else "the nearest two of them"
        below = " · ".join(f"{by}: {what} {self.scale(by):.3f}" for by in self.distances)
        more = f" · the first {_SHOWN} of {len(self)}" if len(self) > _SHOWN else ""
        names = ["as drawn", *(f"nearest in {by}" for by in self.distances)]
        title = f"the nearest of {len(self.among)} known pictures"
        return plot_table(rows, title, below + more, ("picture", [str(k + 1) for k in chosen]), ("", names))

    def _known(self, by: str) -> str:
        if by not in self.distances:
            raise ValueError(
                f"they were compared by {', '.join(self.distances)}; got {shown(by)}{near(by, self.distances)}"
            )
        return by


def nearest(
    pictures: Picture | Sequence[Picture],
    among: str | os.PathLike[str] | Sequence[Picture] | Mapping[str, Picture],
    *,
    scale: Sequence[Picture] | None = None,
    features: Features | None = None,
) -> Nearest:
    """Look for the nearest known picture of each drawn one.

    Args:
        pictures: one, or several: whatever `read_picture` takes.
        among: a folder (its pictures; what is none is passed over), a list of pictures, or a dict of names to pictures;
            two or more.
        scale: pictures of the same kind that are no copies; None: the known ones, each held against the others.
        features: what a network makes of a picture, such as ``diffexplore.pocket.judge.seen`` of the pocket world's;
            None: they are compared by pixels alone.

    Raises:
        ValueError: one sentence, for what is no picture, a folder that is none or holds fewer than two, and `features`
            that fail or give no numbers.
        FileNotFoundError: there is no such file.
    """
    images = _several("pictures", pictures)
    if features is not None and not callable(features):
        raise ValueError(f"features must be a function of a picture, got {shown(features)}")
    known = _known_pictures(among)
    if not 2 <= len(known) <= MOST:
        raise ValueError(f"2 to {MOST:,} known pictures are needed, got {len(known)}")
    others, control = list(known.values()), None if scale is None else _several("scale", scale)
    ways: dict[str, tuple[Callable[[Sequence[Image.Image]], np.ndarray], Callable[..., np.ndarray]]]
    ways = {"pixels": (_pixels, _worst_tile)}
    if features is not None:
        ways["features"] = (lambda some: _features(some, features), _angle)
    distances, own = {}, {}
    for by, (look, apart) in ways.items():
        theirs = look(others)
        distances[by] = apart(look(images), theirs)
        if control is not None:
            own[by] = apart(look(control), theirs).min(axis=1)
        else:
            between = apart(theirs, theirs)
            np.fill_diagonal(between, np.inf)
            own[by] = between.min(axis=1)
    return Nearest(images, others, tuple(known), distances, own, control is not None)


def _several(name: str, pictures: Any) -> list[Image.Image]:
    several = isinstance(pictures, Sequence) and not isinstance(pictures, (str, bytes))
    images = [read_picture(image) for image in (pictures if several else [pictures])]
    if not images:
        raise ValueError(f"{name} must be a picture or several, got none")
    return images


def _known_pictures(among: Any) -> dict[str, Image.Image]:
    if isinstance(among, (str, os.PathLike)):
        folder = Path(among).expanduser()
        if not folder.is_dir():
            raise ValueError(f"the known pictures must be in a folder, {shown(os.fspath(among), 200)} is none")
        read = {}
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                try:
                    read[file.name] = read_picture(file)
                except (ValueError, OSError):
                    continue
        # Their names without what says the format, unless several would have one.
        stems = Counter(Path(name).stem for name in read)
        alone = all(count == 1 for count in stems.values())
        return {Path(name).stem if alone else name: image for name, image in read.items()}
    if isinstance(among, Mapping):
        named = {str(name): read_picture(image) for name, image in among.items()}
        if len(named) < len(among):
            raise ValueError("the known pictures need names that differ as text")
        return named
    if isinstance(among, (bytes, np.ndarray)) or not isinstance(among, Sequence):
        raise ValueError(f"the known pictures are a folder, a list or a dict of pictures, got {shown(among)}")
    return {str(k + 1): read_picture(image) for k, image in enumerate(among)}


def _pixels(images: Sequence[Image.Image]) -> np.ndarray:
    """(N, tiles, values) float32 from 0 to 1."""
    side = SIDE // _TILES
    made = np.stack([np.asarray(fit(image, SIDE, SIDE), dtype=np.float32) for image in images]) / 255
    tiles = made.reshape(-1, _TILES, side, _TILES, side, 3).transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(len(images), _TILES * _TILES, -1)


def _worst_tile(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N, tiles, values) and (M, tiles, values) -> (N, M)."""
    rows = [np.sqrt(np.square(others - one).mean(axis=-1, dtype=np.float64)).max(axis=-1) for one in some]
    return np.array(rows)


def _features(images: Sequence[Image.Image], features: Features) -> np.ndarray:
    """(N, D) float64, each of length 1."""
    rows: list[np.ndarray] = []
    for k, image in enumerate(images):
        try:
            got = features(image)
            row = np.asarray(got.detach().cpu() if hasattr(got, "detach") else got, dtype=np.float64).ravel()
        except Exception as error:
            raise ValueError(f"features failed on picture {k + 1}: {sentence(error)}") from error
        if not row.size or not np.isfinite(row).all() or row.size != (rows[0].size if rows else row.size):
            raise ValueError(
                f"features must give equally many finite numbers of each picture, got {shown(row.tolist())}"
            )
        rows.append(row)
    made = np.stack(rows)
    long: np.ndarray = made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)
    return long


def _angle(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    made: np.ndarray = 1 - (some @ others.T).clip(-1, 1)
    return made
