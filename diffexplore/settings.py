"""``Settings``: what to draw. Frozen, checked when made, JSON in and out; no torch, no diffusers.

Every refusal is a plain ``ValueError`` of one sentence that names the value and what is accepted, so that a
notebook, a widget and a log can all show it as it is.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from diffexplore.mixing import CFG, named_guider
from diffexplore.samplers import named, unknown
from diffexplore.samplers.spacings import counted
from diffexplore.values import as_int, as_key, as_number, as_pairs, as_secret, is_writable, whole_number
from diffexplore.words import near, shown

__all__ = ["CHANGING", "Settings", "as_dict", "in_words", "joined"]

MAX_PROMPT = 200_000
MAX_STEPS = 1000
MAX_GUIDANCE = 100.0
MAX_SEED = 2**63 - 1
MAX_SIDE = 8192
MAX_SCALE = 10.0
MAX_MARKS = 100
MAX_FRESH = 2.0
MAX_KEY = 200
FREEU = ("b1", "b2", "s1", "s2")

CHANGING = ("prompt", "negative_prompt", "guidance", "adapters", "guider")
"""What may change on the way."""


class Settings(BaseModel):
    """What to draw and how. Immutable and hashable; ``None`` means "the model's own", filled in
    ``trace.settings``.

    Attributes:
        prompt: what the picture should show; up to 200,000 characters (a model says what it cuts).
        negative_prompt: what it should not show; only works with a guidance above 1.
        steps: denoising steps, 1 to 1000. Some samplers evaluate the model more than once per step.
        guidance: 0 to 100. ``noise = uncond + guidance * (cond - uncond)``, so 1 is off, and less than 1 acts as 1;
            Kandinsky 3 is off up to 2. Where guidance is an input of the network (Flux, LCM) or the mix is rescaled
            (Qwen-Image), the number is passed on and the formula does not hold.
        seed: 0 to 2**63 - 1; decides the starting noise, and all noise that a sampler adds on its way.
        sampler: a name from ``diffexplore.SAMPLERS``; the spellings of other programs, such as ``dpmpp_2m_karras``,
            become the menu's.
        width: pixels, a multiple of 8 up to 8192.
        height: as width.
        adapters: LoRAs and their scales, ``{"name": 0.8}``, of those which the model has loaded; kept as sorted pairs,
            and left out of the picture where the scale is 0.
        strength: with a picture to start from, how much noise it gets: the share of noise, b^2 / (a^2 + b^2), from 0
            (nothing is drawn) to 1.
        changes: what changes on the way, by share of noise: ``{0.6: {"prompt": "a car"}, 0.3: {"guidance": 1.0}}``
            draws with that prompt from the step on whose share of noise, b^2 / (a^2 + b^2), is at or below 0.6, and
            from 0.3 on without guidance. Marks are from 1 (all of the run) to 0 (none of it); `CHANGING` may change.
            Kept as pairs, the highest mark first; :meth:`stages` says what holds from where.
        skips: for U-Nets, how strongly each stage on the way up takes what comes from below (the backbone) and from the
            side (its skip connections): ``{0: {"skip": 0.0, "backbone": 1.2}}``, stage 0 being the coarsest, each
            strength from 0 to 10; what is left out is 1, as the network was trained. Or FreeU, with diffusers' own
            names: ``{"freeu": {"s1": 0.9, "s2": 0.2, "b1": 1.2, "b2": 1.4}}``. Kept as sorted pairs, without what is 1.
        guider: how both predictions of a step are mixed, one of ``diffexplore.GUIDERS``; with numbers of its own where
            they are not the paper's, ``"APG(eta=0.5)"`` or ``{"APG": {"eta": 0.5}}``. Kept as such a text.
        sigmas: noise levels to step through in place of the sampler's own, the highest first, for samplers that can:
            finite numbers, each below the one before; where the last is 0 it is left out, as every run ends where its
            sampler does. For diffusion b / a of ``x_t = a x0 + b noise``, which ``step.sigma`` shows; for flow models
            their own, b of ``x_t = (1 - b) x0 + b noise``, from 1 down. ``steps`` is then the number of levels: it is
            to be left out, or to say the same.
        fresh_noise: how much of the noise of each next level is drawn anew, for samplers that can be asked: 0 is
            nothing random on the way (DDIM, Euler), 1 as much as in DDPM or Euler a (of TCD all of it), up to 2; see
            `runs.fresh`. None: as the sampler is.
        watermark: a key of up to 200 characters, of whose noise the starting noise has a part (`runs.watermark`), so
            that `dx.detect` with the same key finds the picture again; another seed is another picture. It is part of
            what draws the picture, so recipes, saved traces and ``code()`` have it in plain text: whoever gets those
            can find the mark, and put it on pictures of their own. None: no mark.

    Raises:
        ValueError: one sentence that names the value and what is accepted.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=False)

    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 20
    guidance: float = 5.0
    seed: int = 0
    sampler: str | None = None
    width: int | None = None
    height: int | None = None
    adapters: tuple[tuple[str, float], ...] = ()
    strength: float | None = None
    changes: tuple[tuple[float, tuple[tuple[str, Any], ...]], ...] = ()
    skips: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
    variation: tuple[int, float] | None = None
    guider: str = CFG
    sigmas: tuple[float, ...] | None = None
    fresh_noise: float | None = None
    watermark: str | None = None

    def __init__(self, /, **values: Any) -> None:  # a file may have a field "self"
        """Check the `values` of the fields that are given; the others have their defaults."""
        known = type(self).model_fields
        for name in values:
            if name not in known:
                raise ValueError(f"settings are {', '.join(known)}; got {shown(name)}{near(name, known)}")
        try:
            super().__init__(**counted(values, MAX_STEPS))
        except ValidationError as error:
            raise ValueError(_sentence(error)) from None

    @field_validator("prompt", "negative_prompt", mode="before")
    @classmethod
    def _check_text(cls, value: object, info: Any) -> str:
        if not isinstance(value, str):
            raise ValueError(f"{info.field_name} must be text, got {shown(value)}")
        if len(value) > MAX_PROMPT:
            raise ValueError(f"{info.field_name} must have at most {MAX_PROMPT:,} characters, got {len(value):,}")
        if not is_writable(value):
            raise ValueError(f"{info.field_name} must be valid Unicode text, got {shown(value)}")
        return str(value)

    @field_validator("steps", mode="before")
    @classmethod
    def _check_steps(cls, value: object) -> int:
        return whole_number("steps", value, 1, MAX_STEPS, str(MAX_STEPS))

    @field_validator("seed", mode="before")
    @classmethod
    def _check_seed(cls, value: object) -> int:
        return whole_number("seed", value, 0, MAX_SEED, "2**63 - 1")

    @field_validator("guidance", mode="before")
    @classmethod
    def _check_guidance(cls, value: object) -> float:
        number = as_number(value)
        # "not within" rather than "below or above": nan compares false with everything.
        if number is None or not 0 <= number <= MAX_GUIDANCE:
            raise ValueError(f"guidance must be a number from 0 to {MAX_GUIDANCE:g} (1 is off), got {shown(value)}")
        return number

    @field_validator("strength", mode="before")
    @classmethod
    def _check_strength(cls, value: object) -> float | None:
        number = as_number(value)
        if value is not None and (number is None or not 0 <= number <= 1):
            raise ValueError(f"strength must be a share of noise from 0 to 1, or None, got {shown(value)}")
        return number

    @field_validator("variation", mode="before")
    @classmethod
    def _check_variation(cls, value: object) -> tuple[int, float] | None:
        if value is None:
            return None
        pair = tuple(value) if isinstance(value, (tuple, list)) else ()
        amount = as_number(pair[1]) if len(pair) == 2 else None
        if amount is None or not 0 <= amount <= 1:
            raise ValueError(
                f"variation must be another seed and an amount from 0 to 1, as (7, 0.2), got {shown(value)}"
            )
        seed = whole_number("the seed of a variation", pair[0], 0, MAX_SEED, "2**63 - 1")
        return (seed, amount) if amount else None

    @field_validator("fresh_noise", mode="before")
    @classmethod
    def _check_fresh(cls, value: object) -> float | None:
        number = as_number(value)
        if value is not None and (number is None or not 0 <= number <= MAX_FRESH):
            raise ValueError(f"fresh_noise must be a number from 0 to {MAX_FRESH:g}, or None, got {shown(value)}")
        return number

    @field_validator("watermark", mode="before")
    @classmethod
    def _check_watermark(cls, value: object) -> str | None:
        return None if value is None else as_secret("watermark", value, MAX_KEY)

    @field_validator("sampler", mode="before")
    @classmethod
    def _check_sampler(cls, value: object) -> str | None:
        found = named(value)
        if found is None and value is not None:
            raise ValueError(unknown(value))
        return found

    @field_validator("width", "height", mode="before")
    @classmethod
    def _check_side(cls, value: object, info: Any) -> int | None:
        if value is None:
            return None
        whole = as_int(value)
        if whole is None or not 8 <= whole <= MAX_SIDE or whole % 8:
            raise ValueError(
                f"{info.field_name} must be a multiple of 8 from 8 to {MAX_SIDE}, "
                f"or None for the model's own, got {shown(value)}"
            )
        return whole

    @field_validator("guider", mode="before")
    @classmethod
    def _check_guider(cls, value: object) -> str:
        return named_guider(value)

    @field_validator("skips", mode="before")
    @classmethod
    def _check_skips(cls, value: object) -> tuple[tuple[str, tuple[tuple[str, float], ...]], ...]:
        wrong = ValueError(
            f"skips must map stages of a U-Net, from 0, to strengths from 0 to {MAX_SCALE:g}, such as "
            "{0: {'skip': 0.5, 'backbone': 1.2}}, or 'freeu' to its s1, s2, b1 and b2, each above 0; "
            f"got {shown(value)}"
        )
        try:
            stages = [(name, dict(strengths)) for name, strengths in dict(value).items()]  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise wrong from None
        made: dict[str, tuple[tuple[str, float], ...]] = {}
        for name, strengths in stages:
            free = name == "freeu"
            stage = as_int(int(name) if isinstance(name, str) and name.isdecimal() and len(name) < 4 else name)
            numbers = {key: as_number(one) for key, one in strengths.items()}
            fits = all(
                one is not None and (one > 0 if free else one >= 0) and one <= MAX_SCALE for one in numbers.values()
            )
            known = sorted(map(str, numbers)) == list(FREEU) if free else set(numbers) <= {"backbone", "skip"}
            if not fits or not known or not (free or (stage is not None and 0 <= stage < 100)):
                raise wrong
            key = "freeu" if free else str(stage)
            if key in made:
                raise wrong
            made[key] = tuple((key, float(one)) for key, one in sorted(numbers.items()) if one is not None)
        if "freeu" in made and len(made) > 1:
            raise ValueError(f"skips are either FreeU or strengths of stages, not both; got {shown(value)}")
        # A strength of 1 changes nothing, so two ways to ask for the same are the same.
        plain = {k: v if k == "freeu" else tuple(one for one in v if one[1] != 1) for k, v in made.items()}
        return tuple(sorted(((k, v) for k, v in plain.items() if v), key=lambda one: (len(one[0]), one[0])))

    @field_validator("adapters", mode="before")
    @classmethod
    def _check_adapters(cls, value: object) -> tuple[tuple[str, float], ...]:
        wrong = ValueError(
            f"adapters must map names to scales from -{MAX_SCALE:g} to {MAX_SCALE:g}, such as {{'style': 0.8}}; "
            f"got {shown(value)}"
        )
        try:
            pairs = dict(value).items()  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise wrong from None
        made = []
        for name, scale in pairs:
            number = as_number(scale)
            if (
                not isinstance(name, str)
                or not name
                or not is_writable(name)
                or number is None
                or not abs(number) <= MAX_SCALE
            ):
                raise wrong
            made.append((name, number))
        return tuple(sorted(made))

    @field_validator("changes", mode="before")
    @classmethod
    def _check_changes(cls, value: object) -> tuple[tuple[float, tuple[tuple[str, Any], ...]], ...]:
        made: list[tuple[float, tuple[tuple[str, Any], ...]]] = []
        for mark, fields in as_pairs(
            "changes", value, "shares of noise to settings, such as {0.6: {'prompt': 'a car'}}"
        ):
            share = as_number(as_key(mark) if isinstance(mark, str) else mark)
            if share is None or not 0 <= share <= 1:
                raise ValueError(f"changes are placed by a share of noise from 0 to 1, got {shown(mark)}")
            share += 0.0  # of -0.0
            what = f"settings at {share:g} to values, of {', '.join(CHANGING)}"
            told = dict(as_pairs("changes", fields, what))
            for name in told:
                if name not in CHANGING:
                    raise ValueError(
                        f"changes may be of {', '.join(CHANGING)}; got {shown(name)}{near(name, CHANGING)}"
                    )
            try:
                checked = cls(**told)
            except ValueError as error:
                raise ValueError(f"changes at {share:g}: {error}") from None
            if told:
                made.append((share, tuple((name, getattr(checked, name)) for name in CHANGING if name in told)))
        if len(made) > MAX_MARKS:
            raise ValueError(f"changes have at most {MAX_MARKS} marks, got {len(made)}")
        marks = [share for share, _ in made]
        if isinstance(value, Mapping):
            made.sort(key=lambda pair: -pair[0])
        elif marks != sorted(marks, reverse=True):
            raise ValueError(f"changes must be in the order of the run, from 1 down to 0, got {shown(marks)}")
        for share in marks:
            if marks.count(share) > 1:
                raise ValueError(f"changes have two entries at {share:g}: put them into one")
        return tuple(made)

    def replace(self, /, **values: Any) -> Self:
        """A copy with some values changed, checked like new ones; with other ``sigmas``, ``steps`` follow."""
        return type(self)(**joined(self.model_dump(), values))

    def stages(self) -> "list[tuple[float, Settings]]":
        """What holds from where: (mark, settings without changes), in the order of the run; the first at infinity, and
        each from the step on whose share of noise is at or below its mark. Those that differ from the one before.
        """
        now: Settings = self.model_copy(update={"changes": ()})
        found = [(math.inf, now)]
        for mark, fields in self.changes:
            later = now.model_copy(update=dict(fields))
            if later != now:
                found.append((mark, later))
            now = later
        return found

    @property
    def changing(self) -> list[str]:
        """What changes on the way, mark by mark, in words."""
        return [f"from {mark:.3g}: {in_words(fields)}" for mark, fields in self.changes]

    def told(self) -> dict[str, Any]:
        """The values of the fields, as JSON takes them. Of fields newer than `adapters` only those that are not as they
        are by themselves: what was written without them stays as it was.
        """
        values = self.model_dump()
        names = list(values)
        fields = type(self).model_fields
        for name in names[names.index("adapters") + 1 :]:
            if values[name] == fields[name].default:
                del values[name]
        if self.changes:
            values["changes"] = {
                str(mark): {name: dict(one) if name == "adapters" else one for name, one in told}
                for mark, told in self.changes
            }
        if self.skips:
            values["skips"] = as_dict(self.skips)
        if self.sigmas:
            values["sigmas"] = list(self.sigmas)
        return values

    @property
    def varied(self) -> str:
        """What the variation is, in words; "" without one."""
        return f"{self.variation[1]:.3g} of the way to seed {self.variation[0]}" if self.variation else ""

    @property
    def leveled(self) -> str:
        """Noise levels of one's own, in words; "" where they are the sampler's."""
        levels = self.sigmas
        return f"{len(levels)} of its own, {levels[0]:.3g} to {levels[-1]:.3g}" if levels else ""

    @property
    def mixed(self) -> str:
        """How predictions are mixed, in words; "" where that is the plain way."""
        return "" if self.guider == CFG else f"guider {self.guider}"

    @property
    def loras(self) -> list[str]:
        """The LoRAs that are on, each with its scale, in words."""
        return [f"{name} {scale:g}" for name, scale in self.adapters if scale]

    @property
    def skipped(self) -> list[str]:
        """What of :attr:`skips` is not as the network was trained, in words; stages are counted from 1."""
        return [
            f"{'FreeU' if stage == 'freeu' else f'stage {int(stage) + 1}'} "
            + " ".join(f"{name} {strength:g}" for name, strength in strengths)
            for stage, strengths in self.skips
        ]

    def diff(self, other: "Settings") -> dict[str, tuple[Any, Any]]:
        """What differs.

        Args:
            other: the settings to compare with.

        Returns:
            Field name -> (mine, theirs), in field order; empty where both ask for the same.
        """
        mine, theirs = self.model_dump(), other.model_dump()
        return {name: (value, theirs[name]) for name, value in mine.items() if value != theirs[name]}

    def to_json(self) -> str:
        """One line of JSON that :meth:`from_json` reads back to an equal object."""
        return json.dumps(self.told())

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Settings from :meth:`to_json`. Missing fields take their defaults, unknown ones are refused.

        Raises:
            ValueError: one sentence, for text that is no JSON object or that holds a value out of range.
        """
        try:
            values = json.loads(text)
        except (ValueError, TypeError, RecursionError):
            raise ValueError(f"settings must be a JSON object, got {shown(text)}") from None
        if not isinstance(values, dict):
            raise ValueError(f"settings must be a JSON object, got {shown(text)}")
        return cls(**values)

    def to_text(self) -> str:
        """One short line that fits a chat, read back by :meth:`from_text`: what differs from the defaults, as JSON
        behind ``dx1``. What cannot be seen, such as a line's end, is written as an escape.
        """
        own = {name: value for name, value in self.told().items() if value != type(self).model_fields[name].default}
        text = json.dumps(own, ensure_ascii=False, separators=(",", ":"))
        return "dx1" + "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Settings from :meth:`to_text` or :meth:`to_json`, wherever they stand in a message.

        Raises:
            ValueError: one sentence, for a text that holds no settings, or a value that is refused.
        """
        if not isinstance(text, str) or len(text) > 8 * MAX_PROMPT:
            raise ValueError(f'settings as text must be one line such as dx1{{"prompt":"a fox"}}, got {shown(text)}')
        found = re.search(r"dx(\d{0,3})\s*(?=\{)", text)
        if found and found[1] != "1":
            raise ValueError(
                f"these settings are of the form {found[0].strip()}, this version reads dx1: update diffexplore"
            )
        start = found.end() if found else text.find("{")
        try:
            values, _ = json.JSONDecoder().raw_decode(text, start if start >= 0 else len(text))
        except (ValueError, RecursionError):
            raise ValueError(f'no settings such as dx1{{"prompt":"a fox"}} can be read in {shown(text)}') from None
        return cls(**values)


def joined(values: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Values of settings with others in their place: where these say ``sigmas`` or ``steps`` and not both, what there
    was of the other no longer holds.
    """
    dropped = {"steps"} if more.get("sigmas") is not None and "steps" not in more else set()
    return {name: value for name, value in values.items() if name not in dropped} | dict(more)


def in_words(fields: Iterable[tuple[str, Any]]) -> str:
    """Settings that change at a mark, by name and value, in a few words."""
    said = []
    for name, value in fields:
        if name == "adapters":
            said += [f"{one} {scale:g}" for one, scale in value] or ["no LoRA"]
        elif name == "guidance":
            said.append(f"guidance {value:g}")
        elif name == "guider":
            said.append(f"guider {value}")
        else:
            said.append((f"without {value}" if value else "no negative") if name == "negative_prompt" else value)
    return ", ".join(" ".join(one.split()) or "(no prompt)" for one in said)


def as_dict(pairs: Any) -> Any:
    """Pairs as `Settings` keeps them as a dict, pairs within pairs too; anything else as it is."""
    if isinstance(pairs, (tuple, list)) and all(isinstance(one, (tuple, list)) and len(one) == 2 for one in pairs):
        return {name: as_dict(one) for name, one in pairs}
    return pairs


def _sentence(error: ValidationError) -> str:
    """The first complaint of a pydantic error as one sentence."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if cause is not None:
        return str(cause)
    return f"{first['loc'][0]}: {first['msg']}, got {shown(first['input'])}"
