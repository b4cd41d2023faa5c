"""``load()`` and ``Model``: a pipeline, what it can do, and running it.

``trace`` runs on the calling thread; ``submit`` runs on one worker thread per model, in lanes (see `runs.jobs`). Runs
take turns at a denoiser, whoever asked for them. What was computed is remembered (see `runs.memory`): asked for the
same again, a model answers with the run it has, and says so in ``trace.info["reused"]``.

`Model` is a facade. Behind it, each in a file of its own: planning a run, drawing it, the probes that watch it, jobs
and lanes, batches, LoRAs, the memory of results, and the origin, which opens the model anywhere.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diffexplore.pipelines.family import family_of
from diffexplore.pipelines.open import POCKETS
from diffexplore.pipelines.origin import Origin, open_pipeline, scheduler_facts
from diffexplore.pipelines.signature import Extra
from diffexplore.runs import guided
from diffexplore.runs.adapters import Adapters
from diffexplore.runs.attention import ability
from diffexplore.runs.batches import BATCH
from diffexplore.runs.branch import Edit
from diffexplore.runs.decode import PictureDecoder
from diffexplore.runs.desk import Desk
from diffexplore.runs.draw import Artist
from diffexplore.runs.estimate import Estimated, Ledger
from diffexplore.runs.jobs import Job, OnStep, turn_at
from diffexplore.runs.memory import Store
from diffexplore.runs.pictured import Pictured
from diffexplore.runs.plan import Plan, Planner
from diffexplore.runs.probes import Probe
from diffexplore.runs.prompt import Reader, Vocabulary
from diffexplore.runs.sampling import Sampled
from diffexplore.runs.schedules import Schedules
from diffexplore.runs.shelf import Shelf, check_cache
from diffexplore.runs.skips import Stage, stages_of
from diffexplore.runs.skips import refused as no_skips
from diffexplore.runs.threads import Asked, Threads, asking, checked
from diffexplore.settings import Settings
from diffexplore.trace import Trace
from diffexplore.words import shown

__all__ = ["BATCH", "POCKET", "Job", "Model", "Plan", "Probe", "load"]

POCKET = POCKETS["pocket"]
"""The embedded model: a standard StableDiffusionPipeline folder."""

POCKET_SAMPLERS = {"pocket": "DPM++ 2M Karras"}
"""What those models that come with the package draw by, if nothing else is asked for, whose scheduler says another."""
REUSE = 256 * 2**20  # bytes of results that a model remembers


def load(
    source: Any = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    offload: str | None = None,
    reuse: int = REUSE,
    prediction_type: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    threads: Asked = None,
) -> Model:
    """Open a model.

    Args:
        source: None for the pocket model that comes with the package, "pocket-turbo" for its fast copy, "pocket-flow"
            for a flow transformer of the same world (a folder of such a name is "./pocket-turbo"); a diffusers folder;
            a single ``.safetensors`` checkpoint; a hub id, "org/name" or "org/name@revision"; or a ready pipeline of a
            known family, which is watched and never changed but for what `device`, `dtype` and `offload` ask.
        device: where to run; None: CUDA if there is one, else the CPU (a ready pipeline stays where it is).
        dtype: a torch dtype or its name, such as "float16"; None: float32 (a ready pipeline stays as it is).
        offload: "model" or "sequential": keep the networks in main memory and take each to the GPU only while
            it works (diffusers' ``enable_model_cpu_offload`` and ``enable_sequential_cpu_offload``), for models
            that do not fit; slower, the second by far.
        reuse: bytes of results to remember; 0: compute everything anew.
        prediction_type: what the network predicts, "epsilon", "v_prediction" or "sample", where its files do not say:
            a single checkpoint has no word for it, and drawn by the wrong one is noise. None: as the files say.
        cache: a folder where results stay between sessions, for this process and others (see `runs.shelf`); it never
            holds more than 2 GiB. Runs of pipelines found by looking are not kept. Needs the extra ``cache``.
        threads: on how many threads torch computes its runs on the CPU; "torch": as torch is set; "auto": as many as
            turn out well here; None: on one for the pocket models, so that the other cores show meanwhile what it does,
            and as torch is set for every other. The bits of a picture depend on it (see `runs.threads`).

    Only safetensors weights are read, and no code that comes with a model is ever run. A single file names no layout
    of its networks: diffusers fetches that from the hub, once.

    Raises:
        ValueError: one sentence, for a source that is none of these or that cannot be opened, a device that is not
            here, and a `dtype`, `offload`, `reuse`, `cache` or `threads` that is none. Before anything is fetched.
        ImportError: for a `cache` without diskcache; says how to get it.
    """
    if not isinstance(reuse, int) or isinstance(reuse, bool) or reuse < 0:
        raise ValueError(f"reuse must be a number of bytes, 0 or more, got {shown(reuse)}")
    folder, threads = None if cache is None else check_cache(cache), checked(threads)
    opened = open_pipeline(source, device, dtype, offload=offload, prediction_type=prediction_type)
    vocabulary = Vocabulary(opened.words, opened.near)
    return Model(
        opened.pipeline, name=opened.name, origin=opened.origin, vocabulary=vocabulary, reuse=reuse, cache=folder,
        threads=threads,
    )  # fmt: skip


class Model(Pictured, Sampled, Estimated):
    """A pipeline opened up: what it can do, and its runs as traces.

    Attributes:
        pipeline: the diffusers pipeline; never changed by a run.
        name: what to call it; for people, nothing is decided by it.
        family: which kind of pipeline it is ("sd", "sdxl", "sd3", "flux", ...).
        factor: pixels per latent.
        size: (width, height) it draws if nothing else is asked for.
        remembered: the results it keeps.
        threads: on how many threads its runs are computed.
        ledger: what its runs cost, before and after; `estimate` asks it.
    """

    def __init__(
        self,
        pipeline: Any,
        *,
        name: str | None = None,
        origin: Origin | None = None,
        vocabulary: Vocabulary | None = None,
        reuse: int = REUSE,
        cache: str | os.PathLike[str] | None = None,
        threads: Asked = None,
    ) -> None:
        """A model around a pipeline; `load` makes one from a file, a folder or a hub id too.

        Args:
            pipeline: a ready pipeline of a known family.
            name: what to call it; its class by default.
            origin: where it is from; None: what the pipeline says of itself.
            vocabulary: what is known of its training words.
            reuse: bytes of results to remember.
            cache: a folder where they stay, and
            threads: on how many threads runs are computed, both as `load` takes them; None: as `origin` says.

        Raises:
            ValueError: for a pipeline of another family, or one that cannot read prompts; for a folder or threads that
                are none.
        """
        family = family_of(pipeline)
        lacking = family.lacking(pipeline)
        if lacking:
            raise ValueError(lacking)
        read: tuple[Any, int] = family.reader(pipeline) or (None, 0)  # nobody may know how one found by looking reads
        self.pipeline = pipeline
        self.name = name or type(pipeline).__name__
        self.family = family.name
        self.factor = family.factor(pipeline)
        self._family = family
        self._origin = asking(origin or Origin.of(pipeline), threads)
        self._pocket = self._origin.kind == "pocket"
        came = self._origin.features.get("came_with")
        self._schedules = Schedules(
            family, pipeline, POCKET_SAMPLERS.get(self._origin.where) if self._pocket else None, came
        )
        self._came_with = came or scheduler_facts(pipeline)
        stays = cache is not None and not family.looked
        self.remembered = Shelf(reuse, cache, pipeline, self._schedules.came) if stays else Store(reuse)
        self._turn = turn_at(getattr(pipeline, family.network))
        self._adapters = Adapters(pipeline)
        self._reader = Reader(*read, vocabulary or Vocabulary(), lambda: self._adapters.taught)
        self._planner = Planner(
            family, pipeline, self._schedules, self._reader, lambda: self._adapters.names,
            name=self.name, fixed_size=self._pocket,
        )  # fmt: skip
        self.size = self._planner.size
        self.threads = several = Threads.of(self._origin)
        self._decoder = decoder = PictureDecoder(family, pipeline, several)
        self.ledger = ledger = Ledger(family, pipeline, self._schedules, several, self._origin.place)
        artist = Artist(
            family, pipeline, self._schedules, self._turn, self._adapters, decoder, self.remembered, ledger, several
        )
        self._desk = Desk(
            family, pipeline, artist, decoder, self._turn,
            name=lambda: self.name, revision=self._origin.revision, pocket=self._pocket,
        )  # fmt: skip

    def __repr__(self) -> str:
        width, height = self.size
        return f"Model({self.name!r}, family={self.family!r}, {width}x{height}, {len(self.samplers)} samplers)"

    @property
    def origin(self) -> Origin:
        """What opens this very model again, anywhere: its place, options, features and LoRAs as they are now."""
        with self._turn.taken():  # a LoRA that a run has switched on is not the pipeline's own
            now = self._origin.now(self.pipeline, self._adapters.loras)
        # Samplers of the menu go by the scheduler that the pipeline came with, whatever it has since.
        same = now.features["scheduler"] == self._came_with
        return now if same else replace(now, features={**now.features, "came_with": self._came_with})

    @property
    def revision(self) -> str | None:
        """The commit of the hub it is; None where it came from elsewhere."""
        return self._origin.revision

    @property
    def options(self) -> Mapping[str, str]:
        """What `load` was asked for of device, dtype, offload and threads, by name."""
        return self._origin.options

    def code(self) -> str:
        """Python that opens this model again and loads its LoRAs, in lines that end in a newline.

        The commit of a hub's model is in it. A ready pipeline that has no name is expected in ``pipeline``.
        """
        return replace(self._origin, loras=self._adapters.loras).code()

    # What it can do

    @property
    def samplers(self) -> list[str]:
        """Names of the samplers that are right for this pipeline, in menu order; first "as it came", its own scheduler
        as it stands, but for the pocket model.
        """
        return self._schedules.names

    def label(self, sampler: str) -> str:
        """How a menu says a sampler: its name; for "as it came" also what came, as in "as it came: Euler, leading"."""
        return self._schedules.label(sampler)

    def evaluations(self, sampler: str, steps: int) -> int:
        """How often the model is evaluated for so many steps of a sampler (both halves of guidance are one)."""
        return self._schedules.evaluations(sampler, steps)

    @property
    def sampler(self) -> str:
        """The sampler it uses if none is asked for."""
        return self._schedules.default

    @property
    def usual_steps(self) -> int:
        """How many steps the widgets begin with: 4 for models that were distilled to a few (LCM), else 20."""
        return self._family.usual_steps

    def resolve(self, settings: Settings) -> Settings:
        """The same `settings` with every None filled in.

        Raises:
            ValueError: one sentence, for what this model cannot do: a sampler that is wrong for it, a size it
                cannot draw.
        """
        return self._planner.resolve(settings)

    def plan(self, settings: Settings | Plan | None = None, **values: Any) -> Plan:
        """All that is known of a run before it starts; `trace` and `submit` take it in place of settings.

        Args:
            settings: what to draw; or
            **values: its fields (with `settings`: what to change in it).

        Raises:
            ValueError: one sentence, for settings which are refused.
        """
        return self._planner.asked(settings, values)

    @property
    def planner(self) -> Planner:
        """What checks all that it is asked for; :meth:`Planner.branch` plans a branch, for `trace` and `submit`."""
        return self._planner

    @property
    def extras(self) -> list[Extra]:
        """What the pipeline takes beyond settings, to be handed to `trace` by name: each with its kind ("number",
        "whole", "switch", "text", "picture" or "other"), its default, and whether it is required.
        """
        return self._family.extras(self.pipeline)

    @property
    def abilities(self) -> dict[str, bool | str | None]:
        """What it can do: True, or one sentence why not; None for what its first run will tell. ``attention``: how it
        is known where words look, "cross" or "joint", or one sentence why it is not. ``sigmas`` and ``fresh_noise``:
        whether its own sampler takes them; `fixed` asks any.
        """
        reason = no_skips(self.pipeline)
        skips = f"{reason[0].upper()}{reason[1:]}." if reason else True
        own = {"attention": ability(self._family, self.pipeline), "skips": skips}
        own |= {"guiders": guided.ability(self._family, self.pipeline), "sigmas": True, "fresh_noise": True}
        own |= self.fixed()
        return self._family.abilities(self.pipeline) | self._schedules.abilities() | own

    @property
    def guiders(self) -> list[str]:
        """Names of the guiders that are right for this pipeline, for ``Settings.guider``; CFG alone where `abilities`
        says why.
        """
        return guided.offered(self._family, self.pipeline)

    @property
    def stages(self) -> list[Stage]:
        """The stages of a U-Net, the coarsest first, for ``Settings.skips``; [] where `abilities` says why."""
        return [] if no_skips(self.pipeline) else list(stages_of(self.pipeline))

    def tokens(self, prompt: str) -> dict[str, list[str]]:
        """What the text encoder reads of a `prompt`, and what it never sees for want of room.

        Returns:
            ``{"tokens": [...], "cut": [...]}``, each token as the piece of the prompt that it stands for.
        """
        reading = self._reader.read(prompt)
        return {"tokens": reading.tokens, "cut": reading.cut}

    def unknown_words(self, prompt: str) -> list[str]:
        """Words of a `prompt` which this model never saw in training, each once, in order, in lower case.

        A word that a loaded adapter of ``diffexplore.pocket.lora`` teaches counts as seen. Always [] where the training
        vocabulary is not known.
        """
        return self._reader.unknown(prompt)

    def near_words(self, word: str) -> list[str]:
        """Words this model knows that come nearest to a `word` which it does not, at most three.

        Of like meaning where the model's folder lists some (``near.json``), else of like spelling; [] for a known word,
        where nothing is near, and where the training vocabulary is not known.
        """
        return self._reader.near(word)

    def notes(self, settings: Settings) -> list[str]:
        """Plain sentences on what of these `settings` will be cut or ignored."""
        return self._planner.notes(settings)

    def trace(
        self,
        settings: Settings | Plan | None = None,
        *,
        attention: bool | str = False,
        weights: bool = False,
        probes: Sequence[Probe] = (),
        **values: Any,
    ) -> Trace:
        """Run on this thread and return the trace; waits for its turn if another run is on.

        Args:
            settings: what to draw; or
            attention: whether to keep where each word looks, as ``step.attention`` and `Trace.heat`; "layers": of each
                layer too. The picture keeps its bits; time and memory are told in `runs.attention`.
            weights: whether ``(fox:1.3)`` in a prompt weighs the word, and a prompt longer than what is read at once is
                read in parts: see `runs.weights`; needs the extra ``prompts``.
            probes: what watches or changes the run, in this order; see `runs.probes.Probe`.
            **values: its fields (with `settings`: what to change in it), and arguments that the pipeline takes beyond
                them, such as ``image=``; see `extras`. With a picture, ``mask=`` says what of it is drawn anew: white
                in a picture, or a region as `dx.edits` takes it; the rest is held to it (`runs.repaint`).

        Raises:
            ValueError: one sentence, before any work, for settings which are refused.
            RuntimeError: on a thread that is in a run of this model already (an ``on_step``).
        """
        return self._desk.trace(self.plan(settings, **values), probes, attention=attention, weights=weights)

    def trace_many(self, settings: Sequence[Settings | Plan], *, attention: bool | str = False) -> list[Trace]:
        """Run several `settings`, those that can share a batch together; all are checked before the first starts.

        Pictures of one batch have generators of their own and, where the pipeline allows it, guidance of their own.
        Batched arithmetic rounds otherwise than that of one picture, and a run can amplify it: the final latents of the
        pocket model then differ by up to one part in a thousand, its pixels by 1 of 255. A batch that does not fit into
        memory is split and tried again.

        Args:
            settings: what to draw.
            attention: as in :meth:`trace`.

        Raises:
            ValueError: one sentence, before any work, for settings which are refused.
        """
        return self._desk.together([self.plan(one) for one in settings], attention=attention)

    def branch(self, trace: Trace, at: int, latents: Edit = None, **changes: Any) -> Trace:
        """Run what is `trace` up to evaluation `at`, and goes its own way from there. What is before is replayed from
        the record, with the sampler's history and all noise as they were, and no model call.

        Args:
            trace: a run, finished or not, of this model; a loaded one too.
            at: the first evaluation that is made anew, from 0.
            latents: what it is made of, as ``trace[at].latents``, or a function of those, such as those of `dx.edits`:
                ``dx.edits.noise((0.3, 0.3, 0.7, 0.7), seed=1)``; None: as they are.
            **changes: of `settings.CHANGING`, what holds from there on.

        Returns:
            The run; ``info["parent"]`` says ``at``, ``changes``, whether ``latents`` were edited, and how where
            `dx.edits` did (``edit``), the parent's ``settings`` and its ``parent``.

        Raises:
            ValueError: one sentence, before any work, for what cannot be branched or changed so.
            RuntimeError: where the replay comes out otherwise than recorded, as in another model.
        """
        return self._desk.trace(self._planner.branch(trace, at, latents, **changes))

    def batches(self, settings: Iterable[Settings]) -> list[list[Settings]]:
        """`settings`, with every None filled in, in lists of those that :meth:`trace_many` draws together."""
        return self._desk.batches(list(settings))

    def submit(
        self,
        settings: Settings | Plan | None = None,
        on_step: OnStep | None = None,
        *,
        lane: Hashable = None,
        attention: bool | str = False,
        weights: bool = False,
        probes: Sequence[Probe] = (),
        **values: Any,
    ) -> Job:
        """Run on the model's worker thread. Within a `lane` the newest wins: a running job is cancelled, a queued one
        replaced. Between lanes it is first come, first served.

        Args:
            settings: what to draw; or `values`, as in :meth:`trace`.
            on_step: called on the worker thread with each step, after it was added to ``job.trace``; an
                exception in it fails the job.
            lane: whose run this is: any hashable object, one for each client. None: the model's own lane.
            attention, weights, probes: as in :meth:`trace`.

        Raises:
            ValueError: one sentence, before any work, for settings which are refused; the running job goes
                on.
        """
        plans = [self.plan(settings, **values)]
        return self._desk.submit(plans, on_step, lane, probes, attention=attention, weights=weights)[0]

    def submit_many(
        self,
        settings: Sequence[Settings | Plan],
        on_step: OnStep | None = None,
        *,
        lane: Hashable = None,
        attention: bool | str = False,
    ) -> list[Job]:
        """Run several on the worker thread, those that can share a batch together, in place of what their lane has.

        The jobs were submitted together and are cancelled together: `cancel` on one stops all that have not ended.
        One that fails leaves the others alone: of a batch that breaks the halves are drawn, and only what fails by
        itself is failed.

        Args:
            settings: what to draw.
            on_step: called on the worker thread with each step of each run.
            lane: as in :meth:`submit`.
            attention: as in :meth:`trace`.

        Returns:
            A job for each, in the same order.

        Raises:
            ValueError: one sentence, before any work, for settings which are refused, or for none at all.
        """
        if not settings:
            raise ValueError("submit_many takes at least one Settings object, got none")
        return self._desk.submit([self.plan(one) for one in settings], on_step, lane, attention=attention)

    @property
    def adapters(self) -> list[str]:
        """Names of the LoRAs that were loaded here, for ``Settings.adapters``."""
        return self._adapters.names

    @property
    def adapter_files(self) -> Mapping[str, Path]:
        """Name -> the file it was loaded from, of each of `adapters`."""
        return self._adapters.files

    def load_lora(self, path: str | os.PathLike[str], name: str | None = None) -> str:
        """Load a LoRA into the pipeline, switched off: runs switch it on by ``adapters={name: scale}``.

        This is the one thing that adds to the pipeline which was handed in; :meth:`unload_loras` takes it out. Loading
        the same file under the same name again does nothing.

        Args:
            path: a ``.safetensors`` file in diffusers', peft's or kohya's layout.
            name: what to call it; its file name by default.

        Returns:
            Its name.

        Raises:
            ValueError: one sentence, for a file that cannot be read or does not fit, or a name that another one has.
            ImportError: without peft; says how to get it.
        """
        with self._turn.taken():
            return self._adapters.load(path, name)

    def unload_loras(self) -> None:
        """Take the LoRAs that were loaded here out of the pipeline again."""
        with self._turn.taken():
            self._adapters.unload()
