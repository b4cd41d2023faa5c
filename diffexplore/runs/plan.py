"""Planning a run: settings checked against one model and filled in, and what is known of the run before it starts."""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from diffexplore.looks.pictures import fit
from diffexplore.pipelines.family import Family, Looked
from diffexplore.pipelines.signature import LackingError, arguments_of, check_extra
from diffexplore.record.record import Record
from diffexplore.runs.branch import Edit, Replay, branched, edited
from diffexplore.runs.edits import Touch
from diffexplore.runs.guided import refused as no_guider
from diffexplore.runs.handed import made_right
from diffexplore.runs.probes import Probe
from diffexplore.runs.prompt import Reader
from diffexplore.runs.repaint import mask_of
from diffexplore.runs.schedules import Schedules
from diffexplore.runs.skips import refused as no_skips
from diffexplore.runs.start import STRENGTH, Invert, first_order
from diffexplore.runs.watermark import faint
from diffexplore.settings import Settings
from diffexplore.words import shown

__all__ = ["Plan", "Planner", "inversion"]


@dataclass(frozen=True)
class Plan:
    """A run that can start: what will be drawn, and what is known of it already.

    Attributes:
        settings: with every None filled in.
        tokens: what the text encoder reads, and what it does not: ``{"prompt": [...], "cut": [...], "negative": [...],
            "negative_cut": [...]}``; and ``"ids"``, the numbers of the prompt's tokens, as text.
        notes: plain sentences on what of the settings will be cut or ignored.
        unknown: words of the prompt which the model never saw.
        ignored: settings that the pipeline passes over, by name, and why, one sentence each.
        extra: arguments that the pipeline takes beyond settings, by name.
        probes: what changes the run beside settings, such as the replay of a branch.
        info: what its trace says beside what all say.
    """

    settings: Settings
    tokens: Mapping[str, list[str]]
    notes: Sequence[str]
    unknown: Sequence[str]
    ignored: Mapping[str, str]
    extra: Mapping[str, Any] = field(default_factory=dict)
    probes: Sequence[Probe] = ()
    info: Mapping[str, Any] = field(default_factory=dict)


class Planner:
    """Checks what one model is asked for."""

    def __init__(
        self,
        family: Family,
        pipeline: Any,
        schedules: Schedules,
        reader: Reader,
        adapters: Callable[[], Sequence[str]],
        *,
        name: str,
        fixed_size: bool,
    ) -> None:
        """What plans depend on.

        Args:
            family: of the `pipeline`.
            pipeline: the pipeline.
            schedules: what it can be sampled with.
            reader: reads its prompts.
            adapters: gives the names of the LoRAs that are loaded.
            name: what the model is called.
            fixed_size: refuse every other size than its own.
        """
        self._family = family
        self._pipeline = pipeline
        self._schedules = schedules
        self._reader = reader
        self._adapters = adapters
        self._name = name
        self._fixed_size = fixed_size
        self.size = family.size(pipeline)
        self.schedules = schedules

    def resolve(self, settings: Settings) -> Settings:
        """The same settings with every None filled in.

        Raises:
            ValueError: one sentence, for what this model cannot do.
        """
        if isinstance(self._family, Looked):
            return self._looked(settings)
        lacking = self._family.lacking(self._pipeline)
        if lacking:
            raise ValueError(lacking)
        sampler = settings.sampler or self._schedules.default
        reason = self._schedules.wrong(sampler)
        if reason:
            names = list(self._schedules.names)
            alike = difflib.get_close_matches(sampler, names, 3, 0.3) or names[:3]
            raise ValueError(
                f"sampler {sampler!r} cannot be used here: {reason}; near it are {', '.join(alike)}, and all that this "
                "model takes are in its `samplers`"
            )
        width, height = settings.width or self.size[0], settings.height or self.size[1]
        if self._fixed_size and (width, height) != self.size:
            raise ValueError(f"the {self._name} model draws {self.size[0]}x{self.size[1]} pixels, got {width}x{height}")
        multiple = self._family.multiple(self._pipeline)
        for name, value in (("width", width), ("height", height)):
            if value % multiple:
                raise ValueError(f"{name} must be a multiple of {multiple} for this model, got {value}")
        self._check_adapters(settings)
        self._check_skips(settings)
        self._check_guiders(settings)
        least = self._family.least(self._pipeline)
        if settings.steps < least:
            raise ValueError(f"this pipeline takes at least {least} steps, got {settings.steps}")
        refused = self._schedules.refusal(sampler, settings.steps)
        if refused:
            raise ValueError(refused)
        self._check_sampling(sampler, settings)
        filled = {"sampler": sampler, "width": width, "height": height}
        # All three are right, so nothing needs to be checked again.
        return settings if filled.items() <= dict(settings).items() else settings.model_copy(update=filled)

    def _looked(self, settings: Settings) -> Settings:
        """The settings of a pipeline that draws with its own scheduler, and has sizes of its own."""
        if settings.sampler not in (None, self._schedules.default):
            raise ValueError(
                f"sampler {settings.sampler!r} cannot be used here: this model draws with its own scheduler"
            )
        if settings.adapters:
            self._check_adapters(settings)
        self._check_skips(settings)
        self._check_guiders(settings)
        self._check_sampling(self._schedules.default, settings)
        assert isinstance(self._family, Looked)
        if not self._family.sized() and (settings.width or settings.height):
            raise ValueError("this pipeline takes no width and height: its pictures have a size of their own")
        return settings.model_copy(update={"sampler": self._schedules.default})

    def _check_skips(self, settings: Settings) -> None:
        reason = no_skips(self._pipeline, settings.skips) if settings.skips else ""
        if reason:
            raise ValueError(reason)

    def _check_guiders(self, settings: Settings, extra: Mapping[str, Any] | None = None) -> None:
        reason = no_guider(self._family, self._pipeline, settings, extra or {})
        if reason:
            raise ValueError(reason)

    def _check_sampling(self, sampler: str, settings: Settings) -> None:
        """Refuse noise levels and fresh noise that a sampler does not take."""
        refused, sigmas, share = "", settings.sigmas, settings.fresh_noise
        if sigmas is not None:
            refused = self._schedules.no_sigmas(sampler) or self._schedules.unfit(sampler, sigmas)
        if share is not None:
            refused = refused or self._schedules.no_fresh(sampler, share)
        if refused:
            raise ValueError(refused)

    def _check_adapters(self, settings: Settings) -> None:
        loaded = self._adapters()
        for name, scale in settings.adapters:
            if scale and name not in loaded:
                raise ValueError(f"this model has no adapter {shown(name)}: {list(loaded) or 'none is loaded'}")

    def told_apart(self, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Those of `values` that are fields of settings, and those that the pipeline's call has a word for.

        Raises:
            ValueError: one sentence, for a name that neither has.
        """
        ours = {name: value for name, value in values.items() if name in Settings.model_fields}
        extra = {name: value for name, value in values.items() if name not in ours}
        known = [one.name for one in self._family.extras(self._pipeline)] if extra else []
        for name in extra:
            if name not in known and name not in arguments_of(self._pipeline):
                meant = difflib.get_close_matches(name, [*Settings.model_fields, *known], 1, 0.5)
                if not set(meant) & set(known):
                    Settings(**{name: extra[name]})  # says which settings there are
        return ours, extra

    def asked(self, settings: Settings | Plan | None, values: Mapping[str, Any]) -> Plan:
        """The plan of what somebody asks for: settings, or a plan that was made already; or fields of settings and
        arguments of the pipeline by name, with the former what is changed in it.

        Raises:
            ValueError: one sentence, for settings which are refused.
        """
        values, extra = self.told_apart(values)
        if isinstance(settings, Plan):
            if not values and not extra:
                return settings
            extra = {**settings.extra, **extra}
            settings = settings.settings
        if settings is None:
            settings = Settings(**values)
        elif not isinstance(settings, Settings):
            raise ValueError(f"settings must be a Settings object, got {shown(settings)}")
        elif values:
            settings = settings.replace(**values)
        return self.plan(settings, extra)

    def plan(self, settings: Settings, extra: Mapping[str, Any] | None = None) -> Plan:
        """All that is known of a run before it starts.

        Args:
            settings: what to draw.
            extra: arguments of the pipeline beyond settings.

        Raises:
            ValueError: one sentence, for what this model cannot do.
            LackingError: one sentence, where all is right but that the pipeline needs something more.
        """
        settings, extra = self.resolve(settings), dict(extra or {})
        if extra:
            self._check_guiders(settings, extra)
        self._check_changes(settings, extra)
        self._check_noise(settings, extra)
        wanting = self._family.wanting(self._pipeline, extra)
        if wanting:
            lacking = wanting == self._family.wanting(self._pipeline)
            raise LackingError(wanting, ["ip_adapter_image"]) if lacking else ValueError(wanting)
        settings, extra = self._started(settings, extra)
        theirs = (
            extra
            if isinstance(self._family, Looked)
            else {k: v for k, v in extra.items() if k not in ("image", "mask")}
        )
        if isinstance(self._family, Looked):
            self._family.check(self._pipeline, extra)
        elif theirs:
            arguments = self._family.arguments(self._pipeline, [settings])
            check_extra(self._pipeline, theirs, [name for name in arguments if "guidance" in name or "cfg" in name])
        notes = self.notes(settings)
        if settings.strength == 0 and not isinstance(self._family, Looked):
            notes.append("A strength of 0 draws nothing: this is the picture as the encoder keeps it.")
        elif settings.watermark and settings.strength is not None and settings.strength < 1:
            notes.append(faint(settings.strength))
        if extra:
            extra, said = made_right(self._pipeline, self._family.extras(self._pipeline), extra)
            notes += said
        prompt, negative = self._reader.read(settings.prompt), self._reader.read(settings.negative_prompt)
        tokens = {
            "prompt": prompt.tokens,
            "cut": prompt.cut,
            "negative": negative.tokens,
            "negative_cut": negative.cut,
            "ids": [str(number) for number in prompt.ids],
        }
        ignored = self._family.ignored(self._pipeline, settings)
        unknown = [word for _, stage in settings.stages() for word in self._reader.unknown(stage.prompt)]
        return Plan(settings, tokens, notes, list(dict.fromkeys(unknown)), ignored, extra)

    def _check_changes(self, settings: Settings, extra: Mapping[str, Any]) -> None:
        """Refuse what cannot change on the way here."""
        stages = [stage for _, stage in settings.stages()]
        if len(stages) == 1:
            return
        for stage in stages[1:]:
            self._check_adapters(stage)
        lacking = self.still("changes on the way")
        if lacking:
            raise ValueError(lacking)
        prompts = {(stage.prompt, stage.negative_prompt) for stage in stages}
        encoded = [name for name in extra if "embeds" in name or "prompt" in name]
        if len(prompts) > 1 and encoded:
            raise ValueError(f"the prompt cannot change on the way where {encoded[0]} is handed over in its place")

    def _check_noise(self, settings: Settings, extra: Mapping[str, Any]) -> None:
        """Refuse to turn or to mark noise that is not drawn from a seed in a way that is known."""
        if settings.variation is None and settings.watermark is None:
            return
        what, does = ("a variation", "turns") if settings.watermark is None else ("a watermark", "is put into")
        if isinstance(self._family, Looked) or not hasattr(self._pipeline, "prepare_latents"):
            name = type(self._pipeline).__name__
            raise ValueError(f"{what} is for pipelines of a named family: how {name} draws its noise, nobody knows")
        if extra.get("latents") is not None:
            raise ValueError(f"{what} {does} the noise that a seed draws, and latents are handed over in its place")

    def still(self, what: str) -> str:
        """Why nothing can be placed on the way of a run, one sentence without a full stop; "" where it can.

        Args:
            what: what would be, in the plural.
        """
        if isinstance(self._family, Looked):
            name = type(self._pipeline).__name__
            return f"{what} are for pipelines of a named family: what {name} gives its network, nobody knows here"
        steps = self._schedules.abilities()["steps"]
        return f"{what} are placed by noise levels. {steps.rstrip('.')}" if isinstance(steps, str) else ""

    def _leaving(self, parent: Any, at: int, changes: Mapping[str, Any]) -> Settings:
        """The settings of a branch, where there can be one."""
        lacking = self.still("branches")
        if lacking:
            raise ValueError(lacking)
        if not isinstance(parent, Record):
            raise ValueError(f"a branch is of a trace, got {shown(parent)}")
        if parent.info.get("extra") and not parent.extra:
            raise ValueError(
                f"this run was given {', '.join(parent.info['extra'])}, which a loaded trace no longer has"
            )
        return branched(parent, at, **changes)

    def branch(self, parent: Record, at: int, latents: Edit = None, **changes: Any) -> Plan:
        """A run that is `parent` up to an evaluation, and goes on otherwise.

        Args:
            parent: the run; of this model, or of one with the same latents.
            at: the first evaluation that is made anew.
            latents: what it is made of, or a function of those of the run, see `edits`; None: as they are.
            changes: settings that are others from there on.

        Raises:
            ValueError: one sentence, for what this model cannot do.
        """
        settings = self._leaving(parent, at, changes)
        edit = None if latents is None else edited(parent, at, latents)
        plan = self.plan(settings, parent.extra)
        told = {
            "at": int(at),
            "changes": {name: dict(value) if name == "adapters" else value for name, value in changes.items()},
            "latents": edit is not None,
            "settings": parent.settings.told(),
            "parent": parent.info.get("parent"),
        }
        if isinstance(latents, Touch):
            told["edit"] = latents.told
        how = json.dumps(told.get("edit", ""))
        replay = Replay(self._family, parent, int(at), edit, turns=bool(changes), told=how)
        words = {"words": dict(parent.info["words"])} if "words" in parent.info else {}  # of the steps it shares
        return replace(plan, probes=(replay,), info={"parent": told, **words})

    def _started(self, settings: Settings, extra: dict[str, Any]) -> tuple[Settings, dict[str, Any]]:
        """What starts from a picture: with the picture at its size, and how much noise it gets."""
        strength, title = settings.strength, type(self._pipeline).__name__
        if isinstance(self._family, Looked):
            if strength is None:
                return settings, extra
            if "strength" not in arguments_of(self._pipeline):
                raise ValueError(f"strength is for runs that start from a picture, which {title} does not take here")
            return settings, {"strength": strength, **extra}  # its own meaning of the word, said by its pipeline
        if extra.get("image") is None:
            if strength is not None:
                raise ValueError(f"a strength of {strength:g} needs a picture to start from: hand over image= as well")
            if extra.get("mask") is not None:
                raise ValueError("a mask needs a picture to start from: hand over image= as well")
            return settings, {name: value for name, value in extra.items() if name not in ("image", "mask")}
        blind = self._family.blind(self._pipeline)
        if blind:
            raise ValueError(f"{blind}, so no run can start from one")
        assert settings.width is not None, "they are resolved"
        assert settings.height is not None
        picture = fit(extra["image"], settings.width, settings.height)
        if strength is None:
            settings = settings.model_copy(update={"strength": STRENGTH})
        mask = extra.pop("mask", None)
        held = {} if mask is None else {"mask": mask_of(mask, *picture.size)}
        return settings, {**extra, "image": picture, **held}

    def notes(self, settings: Settings) -> list[str]:
        """Plain sentences on what of these settings will be cut or ignored."""
        notes: list[str] = []
        for _, stage in settings.stages():
            notes += [note for note in self._notes(stage) if note not in notes]
        sampler = settings.sampler or self._schedules.default
        return (
            notes
            + (self._schedules.said(sampler, settings.sigmas) if settings.sigmas else [])
            + self._schedules.notes(sampler)
        )

    def _notes(self, settings: Settings) -> list[str]:
        notes = []
        for name in ("prompt", "negative_prompt"):
            notes += self._reader.notes(getattr(settings, name), name.replace("_", " "))
        return notes + self._family.notes(self._pipeline, settings)


def inversion(
    planner: Planner, samplers: Sequence[str], clean: torch.Tensor, prompt: str, steps: int
) -> tuple[Plan, list[Probe]]:
    """The run that goes the other way, from an encoded picture (C, h, w) to its noise, and what leads it."""
    settings = Settings(prompt=prompt, steps=steps, guidance=1.0, sampler=first_order(samplers))
    return planner.plan(settings), [Invert(clean)]
