"""``connect()``: a model that is shared elsewhere, used as one of one's own.

    model = dx.connect("tcp://127.0.0.1:8790")
    dx.Explorer(model)

What it answers is what the shared model answers; runs are drawn there and come in step by step. Nothing of it is
loaded here. ``decode`` asks the room, with the latents: a picture that nobody looks at is never decoded or sent.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffexplore.looks.pictures import Picture, encode, read_picture
from diffexplore.model import Model
from diffexplore.pipelines.origin import Origin
from diffexplore.pipelines.signature import Extra
from diffexplore.rooms import wire
from diffexplore.rooms.far_desk import FarDesk
from diffexplore.rooms.far_planner import FarLedger, FarPlanner, Inverted
from diffexplore.rooms.line import Line
from diffexplore.rooms.parcels import tensor_of
from diffexplore.runs.memory import Store
from diffexplore.runs.skips import Stage
from diffexplore.runs.start import first_order
from diffexplore.samplers import AS_IT_CAME, SAMPLERS
from diffexplore.samplers.spacings import Levels
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.values import as_number, is_writable
from diffexplore.words import shown

__all__ = ["Connected", "connect"]


def connect(
    address: str | None = None, *, security: Any = None, name: str | None = None, timeout: float = 10.0
) -> Connected:
    """Open a model that somebody shares with :func:`diffexplore.share`.

    Args:
        address: what the room says, such as "tls://host:8790"; None: 127.0.0.1, at its usual port.
        security: a folder with ca.pem, cert.pem and key.pem, or a ``distributed.Security``; None: without TLS, which
            is on 127.0.0.1 alone.
        name: how you are called in the room; None: your name and machine.
        timeout: seconds to wait for somebody to share it.

    Returns:
        A `Model`. Where the room is gone for a while, its runs start again by themselves when it is back.

    Raises:
        ValueError: one sentence, for an address or certificates which cannot be; and, as a ConnectionError too, where
            nobody shares a model there.
        ImportError: without Dask; says how to get it.
    """
    patience = as_number(timeout)
    if patience is None or not patience >= 0:
        raise ValueError(f"timeout must be seconds, 0 or more, got {shown(timeout)}")
    if name is not None and (not isinstance(name, str) or not is_writable(name)):
        raise ValueError(f"name must be a text or None, got {shown(name)}")
    given = wire.security_of(security)
    place = wire.place_of(address, given)
    called = name
    if called is None:
        called = socket.gethostname()
        with suppress(Exception):  # a container may have no user of that number
            called = f"{getpass.getuser()} on {called}"
    return Connected(Line(place, given, called, patience), security)


class Connected(Model):
    """A model that lives elsewhere: its parts here are those at the other end of a line.

    Attributes:
        address: of the room.
    """

    def __init__(self, line: Line, security: Any = None) -> None:
        """At one end of a line that is open; `security` is what it was opened with, for :meth:`code`."""
        facts = line.facts
        self.address = line.address
        self.name = facts["name"]
        self.family = facts["family"]
        self.factor = facts["factor"]
        self.size = (facts["size"][0], facts["size"][1])
        self.remembered = Store(0)  # what is remembered, the room remembers, for all its learners
        self._line = line
        self._security = security
        self._planner = FarPlanner(line)
        self._desk = self._far = FarDesk(line)
        self.ledger = FarLedger(line)

    def __repr__(self) -> str:
        width, height = self.size
        return f"Connected({self.name!r} at {self.address!r}, family={self.family!r}, {width}x{height})"

    @property
    def pipeline(self) -> Any:
        """There is none here.

        Raises:
            AttributeError: one sentence.
        """
        raise AttributeError(f"the pipeline of {self.name} is where it is shared, at {self.address}, and not here")

    def close(self) -> None:
        """Leave the room: what is going is stopped."""
        self._line.close()

    @property
    def origin(self) -> Origin:
        """What opens the shared model, where the room's machine finds it by a name that others know too."""
        return Origin.from_json(self._line.facts["origin"])

    @property
    def revision(self) -> str | None:
        return self.origin.revision

    @property
    def options(self) -> Mapping[str, str]:
        return {}

    def code(self) -> str:
        given = self._security
        if given is None:
            return f"model = dx.connect({self.address!r})\n"
        # Of an object nobody knows how it was made: it is expected in ``security``.
        security = repr(os.fspath(given)) if isinstance(given, (str, os.PathLike)) else "security"
        return f"model = dx.connect({self.address!r}, security={security})\n"

    # What it can do: told when the line was opened, or asked for

    @property
    def samplers(self) -> list[str]:
        return list(self._line.facts["samplers"])

    def label(self, sampler: str) -> str:
        return str(self._line.facts["samplers"].get(sampler, sampler))

    @property
    def sampler(self) -> str:
        return str(self._line.facts["sampler"])

    @property
    def usual_steps(self) -> int:
        return int(self._line.facts.get("usual_steps", 20))

    def evaluations(self, sampler: str, steps: int) -> int:
        if sampler != AS_IT_CAME:
            return SAMPLERS[sampler].evaluations(steps)
        return int(self._line.ask("evaluations", sampler=sampler, steps=steps)["evaluations"])

    @property
    def extras(self) -> list[Extra]:
        return [Extra(**one) for one in self._line.facts["extras"]]

    @property
    def stages(self) -> list[Stage]:
        return [Stage(*one) for one in self._line.facts["stages"]]

    @property
    def abilities(self) -> dict[str, bool | str | None]:
        return dict(self._line.facts["abilities"])

    @property
    def guiders(self) -> list[str]:
        return list(self._line.facts["guiders"])

    def levels(
        self, name: str | None = None, steps: int = 20, *, sampler: str | None = None, **parameters: float
    ) -> Levels:
        told = self._line.ask("levels", name=name or "", steps=steps, sampler=sampler or "", parameters=parameters)
        return tuple(told["levels"])

    def fixed(self, sampler: str | None = None) -> dict[str, str]:
        return dict(self._line.ask("fixed", sampler=sampler or "")["fixed"])

    @property
    def adapters(self) -> list[str]:
        return list(self._line.facts["adapters"])

    @property
    def adapter_files(self) -> Mapping[str, Path]:
        return {}

    def load_lora(self, path: Any, name: str | None = None) -> str:
        """Not here.

        Args:
            path, name: as in `Model.load_lora`.

        Raises:
            ValueError: one sentence: LoRAs are loaded where the model is.
        """
        raise ValueError(f"LoRAs are loaded where the model is shared, not by a learner; got {path!r:.100}")

    def unload_loras(self) -> None:
        """Nothing: none was loaded here."""

    def tokens(self, prompt: str) -> dict[str, list[str]]:
        told = self._line.ask("tokens", prompt=prompt)
        return {"tokens": list(told["tokens"]), "cut": list(told["cut"])}

    def unknown_words(self, prompt: str) -> list[str]:
        return list(self._line.ask("unknown_words", prompt=prompt)["words"])

    def near_words(self, word: str) -> list[str]:
        return list(self._line.ask("near_words", word=word)["words"])

    # Pictures and latents

    def encode(self, image: Picture) -> torch.Tensor:
        return tensor_of(self._line.ask("encode", picture=encode(read_picture(image)))["latents"])

    def invert(self, image: Picture, prompt: str = "", steps: int = 50, refine: int = 0) -> Trace:
        settings = Settings(prompt=prompt, steps=steps, guidance=1.0, sampler=first_order(self.samplers))
        way = Inverted(encode(read_picture(image)), prompt, steps, refine)
        return self._desk.trace(replace(self._planner.plan(settings), probes=(way,)))

    def matrix(self) -> np.ndarray:
        found = self._far.matrix()
        if found is None:
            raise ValueError(f"the model {self.name} has no matrix from latents to colours")
        return found
