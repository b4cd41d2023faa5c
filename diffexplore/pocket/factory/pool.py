"""Pictures that are composed while something trains on them: processes draw, the device keeps.

Composing takes milliseconds of a core and no two pictures are alike, so nothing is stored: processes fill blocks of
memory that they share with the training, which moves whatever has arrived to its device between two steps, until
`capacity` pictures are there.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable
from multiprocessing import connection, shared_memory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffexplore.pocket.factory import scenes
from diffexplore.pocket.judge import ATTRIBUTES
from diffexplore.pocket.world import Scene, caption, sample_scene, with_filler

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import CLIPTokenizer

__all__ = ["Composed", "Pool", "compose", "labels_of", "truth"]

CAPTIONS = 4
BLOCK = 32
"""Pictures that travel together."""


class Composed(NamedTuple):
    """One picture: (size, size, 3) uint8, its captions, what a judge should read, -1 for what nobody could, and where
    its subject is, as `scenes.painted` says."""

    pixels: np.ndarray
    captions: list[str]
    labels: list[int]
    subject: np.ndarray


def truth(scene: Scene) -> dict[str, str]:
    """What a judge should read off the picture of a scene; what nobody could read is left out.

    On top of `Scene.attributes`, a subject in its own colours is "own" and a plain background is "none".
    """
    out = scene.attributes
    if not scene.colour and scene.style in ("render", "flat"):
        out["colour"] = "own"
    if not scene.setting:
        out["setting"] = "none"
    return out


def labels_of(scene: Scene) -> list[int]:
    """`truth` as indices into the values of `ATTRIBUTES`, -1 for what nobody could read."""
    known = truth(scene)
    return [values.index(known[name]) if name in known else -1 for name, values in ATTRIBUTES.items()]


def compose(
    art: scenes.Art, seed: int, index: int, size: int, *, holdout: bool = False, clean: bool = False
) -> Composed:
    """Picture number `index` of the set that `seed` stands for.

    Args:
        art: the subjects.
        seed, index: decide all of it.
        size: pixels a side.
        holdout: only pairs of subject and setting or colour that no denoiser is trained on; else only the others.
        clean: without flaws.
    """
    rng = np.random.default_rng([seed, index])
    scene = sample_scene(rng, holdout=holdout, clean=clean)
    pixels, subject = scenes.painted(scene, art, rng, size)
    texts = []
    for _ in range(CAPTIONS):
        text = caption(scene, rng)
        texts.append(with_filler(text, rng) if rng.random() < 0.08 else text)
    return Composed(pixels, texts, labels_of(scene), subject)


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however that ended: a kill asks nobody."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def reader_of(tokenizer: CLIPTokenizer) -> Tokenizer:
    """The part of a tokenizer that does the work, filled up to its length: a process that only draws can load it
    without transformers, which takes many times as long.
    """
    from tokenizers import Tokenizer

    room = tokenizer.model_max_length
    reader = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    reader.enable_truncation(room)
    reader.enable_padding(length=room, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    return reader


def _fill(
    name: str, shape: tuple[int, ...], art: str, reader: Tokenizer, room: int, seed: int, first: int, stride: int,
    held_out: bool, free: Any, full: Any,
) -> None:  # fmt: skip
    """Draw blocks number `first`, `first` + `stride`, ... into the places that are free, for ever."""
    end_with_parent()
    memory = shared_memory.SharedMemory(name)
    blocks: np.ndarray = np.ndarray(shape, np.uint8, memory.buf)
    size = shape[2]
    cutouts = scenes.Art(art)
    number = first
    while True:
        place = free.get()
        made = [
            # A judge has to know all pairs; a denoiser must not see those that it is tested on.
            compose(cutouts, seed, index, size, holdout=held_out and index % 3 == 0)
            for index in range(number * BLOCK, (number + 1) * BLOCK)
        ]
        blocks[place] = np.stack([one.pixels for one in made])
        texts = [text for one in made for text in one.captions]
        ids = [one.ids for one in reader.encode_batch(texts)]
        labels = np.array([one.labels for one in made], np.int8)
        subjects = np.stack([one.subject for one in made])
        full.put((place, np.array(ids, np.int16).reshape(BLOCK, CAPTIONS, room), labels, subjects))
        number += stride


class Pool:
    """Composed pictures on a device, more of them at every :meth:`take`; a context manager.

    Args:
        art: folder of the subjects' package.
        size: pixels a side.
        capacity: how many the device holds; a whole number of blocks, rounded up.
        tokenizer: of the captions.
        device: where they go.
        workers: processes that draw; None: one for each core but one.
        seed: another seed, other pictures.
        held_out: every third picture pairs what a denoiser is tested on: for judges.

    Attributes:
        pictures: (capacity, 3, size, size) uint8 on the device.
        ids: (capacity, 4, tokens) int16 on the device: the captions.
        labels: attribute -> (capacity,) int8 on the device: which of its values, -1 for what nobody could read.
        subjects: (capacity, 16, 16) uint8 on the device: where each one's subject is.
        count: how many are there.

    Raises:
        FileNotFoundError: `art` lacks a subject.
    """

    def __init__(
        self, art: str, *, size: int, capacity: int, tokenizer: CLIPTokenizer, device: str = "cpu",
        workers: int | None = None, seed: int = 2026, held_out: bool = False,
    ) -> None:  # fmt: skip
        import torch

        scenes.Art(art)
        self._workers = workers or max(1, (os.cpu_count() or 2) - 1)
        capacity = -(-capacity // BLOCK) * BLOCK
        self._stream = torch.cuda.Stream() if torch.device(device).type == "cuda" else None
        self.pictures = torch.zeros((capacity, 3, size, size), dtype=torch.uint8, device=device)
        self.ids = torch.zeros((capacity, CAPTIONS, tokenizer.model_max_length), dtype=torch.int16, device=device)
        self.subjects = torch.zeros((capacity, scenes.GRID, scenes.GRID), dtype=torch.uint8, device=device)
        self.labels = {name: torch.full((capacity,), -1, dtype=torch.int8, device=device) for name in ATTRIBUTES}
        self.count = 0
        context = multiprocessing.get_context("spawn")
        queues = self._free, self._full = context.Queue(), context.Queue()
        reader, room = reader_of(tokenizer), tokenizer.model_max_length
        places = 2 * self._workers
        shape = (places, BLOCK, size, size, 3)
        self._memory = shared_memory.SharedMemory(create=True, size=int(np.prod(shape)))
        self._blocks: np.ndarray = np.ndarray(shape, np.uint8, self._memory.buf)
        for place in range(places):
            self._free.put(place)
        self._processes = [
            context.Process(
                target=_fill, daemon=True,
                args=(
                    self._memory.name, shape, art, reader, room, seed, k, self._workers, held_out, *queues,
                ),
            )
            for k in range(self._workers)
        ]  # fmt: skip

    def __enter__(self) -> Pool:
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"  # of those that are started now
        try:
            for process in self._processes:
                process.start()
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = before
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(5)
        for one in (self._free, self._full):
            one.cancel_join_thread()
            one.close()
        del self._blocks
        self._memory.close()
        self._memory.unlink()

    def take(self, wait: float = 0.0, most: int = 64) -> int:
        """Let in what has arrived, `most` blocks of it, until all places are taken.

        Args:
            wait: seconds to wait for a first block where none has come.
            most: blocks; what is more stays for the next time, so that no step has to wait for long.

        Returns:
            How many pictures are there.

        Raises:
            RuntimeError: the processes that draw have died.
        """
        import torch

        # On a stream of its own, so that a copy from common memory waits for no step that is on its way.
        with torch.cuda.stream(self._stream):  # does nothing for None
            for k in range(most):
                if self.count == len(self.pictures):
                    break
                try:
                    arrived = self._full.get(timeout=wait) if wait and not k else self._full.get_nowait()
                except queue.Empty:
                    if not any(process.is_alive() for process in self._processes):
                        said = "the processes that draw pictures have ended; their errors stand above"
                        raise RuntimeError(said) from None
                    break
                self._let_in(*arrived)
        if self._stream is not None:
            torch.cuda.current_stream().wait_stream(self._stream)
        return self.count

    def wait(self, least: int, told: Callable[[int], object] = lambda count: None) -> None:
        """Until at least so many pictures are there, or all that fit; `told(count)` is called on the way."""
        while self.count < min(least, len(self.pictures)):
            told(self.take(wait=1.0))

    def _let_in(self, place: int, ids: np.ndarray, labels: np.ndarray, subjects: np.ndarray) -> None:
        import torch

        rows = slice(self.count, self.count + BLOCK)
        pixels = torch.from_numpy(self._blocks[place]).to(self.pictures.device, copy=True)
        self._free.put(place)
        self.pictures[rows] = pixels.permute(0, 3, 1, 2)
        self.ids[rows] = torch.from_numpy(ids).to(self.ids.device)
        self.subjects[rows] = torch.from_numpy(subjects).to(self.subjects.device)
        values = torch.from_numpy(labels).to(self.pictures.device)
        for k, kept in enumerate(self.labels.values()):
            kept[rows] = values[:, k]
        self.count += BLOCK
