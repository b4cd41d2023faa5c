"""Planning a run: settings checked against one model and filled in, and what is known of the run before it starts."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from diffexplore.looks.pictures import fit
from diffexplore.pipelines.family import Family, Looked
from diffexplore.pipelines.signature import arguments_of, check_extra
from diffexplore.runs.prompt import Reader
from diffexplore.runs.schedules import Schedules
from diffexplore.runs.start import STRENGTH
from diffexplore.settings import Settings
from diffexplore.words import shown

__all__ = ["Plan", "Planner"]


@dataclass(frozen=True)
class Plan:
    """A run that can start: what will be drawn, and what is known of it already.

    Attributes:
        settings: with every None filled in.
        tokens: what the text encoder reads, and what it does not: ``{"prompt": [...], "cut": [...], "negative": [...],
            "negative_cut": [...]}``.
        notes: plain sentences on what of the settings will be cut or ignored.
        unknown: words of the prompt which the model never saw.
        ignored: settings that the pipeline passes over, by name, and why, one sentence each.
        extra: arguments that the pipeline takes beyond settings, by name.
    """

    settings: Settings
    tokens: Mapping[str, list[str]]
    notes: Sequence[str]
    unknown: Sequence[str]
    ignored: Mapping[str, str]
    extra: Mapping[str, Any] = field(default_factory=dict)


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
        least = self._family.least(self._pipeline)
        if settings.steps < least:
            raise ValueError(f"this pipeline takes at least {least} steps, got {settings.steps}")
        refused = self._schedules.refusal(sampler, settings.steps)
        if refused:
            raise ValueError(refused)
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
        assert isinstance(self._family, Looked)
        if not self._family.sized() and (settings.width or settings.height):
            raise ValueError("this pipeline takes no width and height: its pictures have a size of their own")
        return settings.model_copy(update={"sampler": self._schedules.default})

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

    def plan(self, settings: Settings, extra: Mapping[str, Any] | None = None) -> Plan:
        """All that is known of a run before it starts.

        Args:
            settings: what to draw.
            extra: arguments of the pipeline beyond settings.

        Raises:
            ValueError: one sentence, for what this model cannot do.
        """
        settings, extra = self.resolve(settings), dict(extra or {})
        wanting = self._family.wanting(self._pipeline, extra)
        if wanting:
            raise ValueError(wanting)
        settings, extra = self._started(settings, extra)
        theirs = extra if isinstance(self._family, Looked) else {k: v for k, v in extra.items() if k != "image"}
        if isinstance(self._family, Looked):
            self._family.check(self._pipeline, extra)
        elif theirs:
            arguments = self._family.arguments(self._pipeline, [settings])
            check_extra(self._pipeline, theirs, [name for name in arguments if "guidance" in name or "cfg" in name])
        prompt, negative = self._reader.read(settings.prompt), self._reader.read(settings.negative_prompt)
        tokens = {
            "prompt": prompt.tokens,
            "cut": prompt.cut,
            "negative": negative.tokens,
            "negative_cut": negative.cut,
        }
        ignored = self._family.ignored(self._pipeline, settings)
        return Plan(settings, tokens, self.notes(settings), self._reader.unknown(settings.prompt), ignored, extra)

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
            return settings, {name: value for name, value in extra.items() if name != "image"}
        blind = self._family.blind(self._pipeline)
        if blind:
            raise ValueError(f"{blind}, so no run can start from one")
        assert settings.width is not None, "they are resolved"
        assert settings.height is not None
        picture = fit(extra["image"], settings.width, settings.height)
        if strength is None:
            settings = settings.model_copy(update={"strength": STRENGTH})
        return settings, {**extra, "image": picture}

    def notes(self, settings: Settings) -> list[str]:
        """Plain sentences on what of these settings will be cut or ignored."""
        notes = []
        for name in ("prompt", "negative_prompt"):
            notes += self._reader.notes(getattr(settings, name), name.replace("_", " "))
        notes += self._family.notes(self._pipeline, settings)
        return notes + self._schedules.notes(settings.sampler or self._schedules.default)
