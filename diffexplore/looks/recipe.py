"""Settings in and out of a picture file, so that it says how to draw it again.

Two texts are kept. ``diffexplore`` holds our own JSON and is what is read back. ``parameters`` holds the same in the
form that most other programs show and read: the prompt, the negative prompt, then ``Steps: 20, Sampler: ...``. It is
read where the first is missing, so that a picture from elsewhere can be a starting point. A PNG has them as text
chunks; WebP and JPEG have them in EXIF, as the description and the user comment.

Whatever is read comes from a stranger: sizes are capped, nothing is evaluated, and every problem is one sentence. What
cannot be carried over is said in a warning.
"""

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from diffexplore.looks import chunks
from diffexplore.samplers import SAMPLERS, named
from diffexplore.settings import Settings
from diffexplore.words import shown

__all__ = ["KEY", "from_parameters", "parameters", "read_recipe", "texts_of"]

KEY: Final = "diffexplore"

# Texts by which other programs are known whose form is their own: a graph, or names that only they give meaning.
_FOREIGN: Final = {
    "workflow": "ComfyUI",
    "prompt": "ComfyUI",
    "invokeai_metadata": "InvokeAI",
    "invokeai_graph": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "fooocus_scheme": "Fooocus",
}

# What "Automatic" stands for in AUTOMATIC1111's program and its kin: the schedule each of its samplers was published
# with (modules/sd_samplers_kdiffusion.py); for all others it is the plain one.
_AUTOMATIC: Final = {
    "DPM++ 2M": "Karras",
    "DPM++ SDE": "Karras",
    "DPM++ 2S a": "Karras",
    "DPM++ 2M SDE": "Exponential",
    "DPM++ 2M SDE Heun": "Exponential",
    "DPM++ 3M SDE": "Exponential",
    "DPM2": "Karras",
    "DPM2 a": "Karras",
    "Restart": "Karras",
}

_SCHEDULES: Final = ("Automatic", "Uniform", "Karras", "Exponential", "Beta")

_READ: Final = frozenset({"Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size"})
# Which files it was drawn with, and records: nothing that settings could hold.
_RECORDS: Final = re.compile(
    r"(Model|VAE)( hash)?|(Lora|TI) hashes|Hashes|Module \d+|Version|User|RNG|Parser|Created Date|Civitai .*"
)
_LORA: Final = re.compile(r"\s*<lora:([^:<>\n]+)((?::[^:<>\n]*)*)>")
_UNSEEN: Final = "\u200b"  # has no width and is no white space; says that what follows is text and no markup
# Where it goes in: at the start of a line that would begin something else, and in a tag that would be a LoRA.
_MARKUP: Final = rf"(?m:^)(?={_UNSEEN}*[^\S\n]*(?:Negative prompt:|Steps: ))|<(?={_UNSEEN}*lora:)"
_GUARDED: Final = rf"(?m:^){_UNSEEN}(?={_UNSEEN}*[^\S\n]*(?:Negative prompt:|Steps: ))|<{_UNSEEN}(?={_UNSEEN}*lora:)"
_MOST: Final = 6  # things that a warning names


def texts_of(settings: Settings, info: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The texts that a picture of these settings carries.

    Args:
        settings: what was asked for, with everything filled in.
        info: facts of the run; its ``model`` is named, and what its pipeline was given beyond the settings.
    """
    model, extra = (info or {}).get("model"), (info or {}).get("extra")
    beside = {"extra": extra} if extra else {}
    return {
        KEY: json.dumps({"settings": settings.told(), "model": model, **beside}),
        "parameters": parameters(settings, model),
    }


def read_recipe(path: str | os.PathLike[str]) -> Settings:
    """The settings that a picture carries.

    Pictures of AUTOMATIC1111's program and its kin are read too. What settings cannot hold is said in a warning, such
    as a schedule that no sampler here has, a second pass, or LoRAs, which have to be loaded first.

    Args:
        path: a PNG, WebP or JPEG that ``Trace.save_image`` or such a program wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence, if it is no such picture, carries no recipe, or a damaged one.
    """
    name, place = shown(os.fspath(path), 200), Path(path).expanduser()
    try:
        found = place.is_file()
    except ValueError:  # a NUL in the name
        found = False
    if not found:
        raise FileNotFoundError(f"there is no file {name}")
    try:
        texts = chunks.texts(place, frozenset({KEY, "parameters", *_FOREIGN}))
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
    notes: list[str] = []
    try:
        if KEY in texts:
            settings, notes = _from_json(texts[KEY])
        elif "parameters" in texts:
            settings, notes = from_parameters(texts["parameters"])
        else:
            programs = sorted({_FOREIGN[key] for key in texts})
            if programs:
                raise ValueError(f"it is in the form of {programs[0]}, which is not read here")
    except ValueError as error:
        raise ValueError(f"the recipe in {name} cannot be used: {error}") from None
    if not texts:
        raise ValueError(f"{name} carries no recipe: it has neither a {KEY!r} nor a 'parameters' text")
    if notes:
        warnings.warn(f"not all of the recipe in {name} can be carried over: {'; '.join(notes)}", stacklevel=2)
    return settings


def _from_json(text: str) -> tuple[Settings, list[str]]:
    """Settings, and what of the text they cannot hold, in words."""
    try:
        values = json.loads(text)
        extra = values.get("extra") if isinstance(values.get("extra"), dict) else {}
        told = [
            f"{name[:40]} {value if isinstance(value, str) else shown(value)}"[:80] for name, value in extra.items()
        ]
        notes = [f"to be handed over beside it: {', '.join(told[:_MOST])}"] if told else []
        return Settings(**values["settings"]), notes
    except (LookupError, TypeError, AttributeError, RecursionError, json.JSONDecodeError):
        raise ValueError(f"it must be a JSON object with settings, got {shown(text)}") from None


# The common text


def parameters(settings: Settings, model: Any = None) -> str:
    """Settings as other programs write them: LoRAs as ``<lora:name:0.8>`` behind the prompt, lines ended by ``\\n``."""
    prompt = _as_text(settings.prompt)
    for name, scale in settings.adapters:
        if scale and not re.search(r"[:<>\n]", name):
            prompt += f" <lora:{name}:{scale:g}>"
    lines = [prompt]
    if settings.negative_prompt:
        lines.append(f"Negative prompt: {_as_text(settings.negative_prompt)}")
    facts = {
        "Steps": settings.steps,
        "Sampler": settings.sampler,
        "CFG scale": f"{settings.guidance:g}",
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}" if settings.width and settings.height else None,
        "Model": model,
    }
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in facts.items() if value is not None))
    return "\n".join(lines)


def _as_text(prompt: str) -> str:
    """A prompt whose words nobody takes for markup."""
    return re.sub(_MARKUP, lambda match: f"{match[0]}{_UNSEEN}", prompt)


def _typed(text: str) -> str:
    """The prompt of which `_as_text` made this."""
    return re.sub(_GUARDED, lambda match: match[0][:-1], text)


def _quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if re.search(r'[,:\n"]', text) else text


def from_parameters(text: str) -> tuple[Settings, list[str]]:
    """Settings from the common text, and what of it they cannot hold, in words.

    Raises:
        ValueError: one sentence, for a text with no line of ``Steps: ...``, or with a value that is refused.
    """
    lines = text.strip().split("\n")
    last = max((k for k, line in enumerate(lines) if line.startswith("Steps: ")), default=len(lines) - 1)
    facts: dict[str, str] = {}
    for key, value in _facts(lines[last]):
        facts.setdefault(key, value)  # of two with one name the first counts
    if "Steps" not in facts:
        if text.lstrip().startswith("{"):
            raise ValueError("it is JSON in the form of another program, which is not read here")
        raise ValueError("its last line must name Steps, as in 'Steps: 20, Sampler: Euler a, CFG scale: 7'")
    cut = next((k for k, line in enumerate(lines[:last]) if line.strip().startswith("Negative prompt:")), last)
    negative = "\n".join(lines[cut:last]).strip().removeprefix("Negative prompt:").strip()
    prompt, adapters, notes = _loras("\n".join(lines[:cut]))
    values: dict[str, Any] = {"prompt": _typed(prompt.strip()), "negative_prompt": _typed(negative)}
    if adapters:
        values["adapters"] = adapters
    for field, key, convert in (("steps", "Steps", int), ("guidance", "CFG scale", float), ("seed", "Seed", int)):
        if key in facts:
            values[field] = _number(key, facts[key], convert)
    if "Sampler" in facts:
        values["sampler"], note = _sampler(facts["Sampler"], facts.get("Schedule type", ""))
        notes += note
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", facts.get("Size", ""))
    if size:
        values["width"], values["height"] = int(size[1]), int(size[2])
    elif "Size" in facts:
        raise ValueError(f"Size must be as in 512x768, got {shown(facts['Size'])}")
    others = [f"{key[:40]} {shown(value, 20)}" for key, value in facts.items() if _counts(key, value)]
    if others:
        more = f" and {len(others) - _MOST} more" if len(others) > _MOST else ""
        notes.append(f"left out {', '.join(others[:_MOST])}{more}")
    return Settings(**values), notes


def _facts(line: str) -> Iterator[tuple[str, str]]:
    """``Key: value`` pairs, separated by commas; a value with a comma in it may stand in quotes, as a JSON string."""
    key, value = "", ""
    for piece in re.finditer(r'\s*(?:(\w[\w \-/]*):\s*)?((?:"(?:\\.|[^\\"])*"(?=\s*(?:,|$)))|[^,]*)(?:,|$)', line):
        if piece[1] is None:
            if piece[2].strip():  # the comma stood in the value itself
                value += f",{line[piece.start() : piece.end(2)]}"
            continue
        if key:
            yield key, value.strip()
        key, value = piece[1], piece[2]
        if value[:1] == '"':
            with suppress(ValueError):
                value = str(json.loads(value))
    if key:
        yield key, value.strip()


def _number(key: str, text: str, convert: type[int] | type[float]) -> int | float:
    if re.fullmatch(r"-?\d+,\d+", text):  # a decimal comma
        text = text.replace(",", ".")
    try:
        return convert(text)
    except ValueError:
        raise ValueError(f"{key} must be a number, got {shown(text)}") from None


def _sampler(name: str, schedule: str) -> tuple[str, list[str]]:
    """A sampler of the menu for a name and, in newer programs, the schedule apart: "DPM++ 2M" and "Karras"."""
    name = named(name) or name
    wanted = next((one for one in _SCHEDULES if one.lower() == schedule.lower()), schedule)
    if wanted == "Automatic":
        wanted = _AUTOMATIC.get(name, "")
    if wanted in ("", "Uniform"):
        return name, []
    if f"{name} {wanted}" in SAMPLERS:
        return f"{name} {wanted}", []
    if name.endswith(f" {wanted}"):  # told twice
        return name, []
    return name, [f"no {name} here has the noise levels {shown(wanted)}, it is drawn with its plain ones"]


def _loras(prompt: str) -> tuple[str, dict[str, float], list[str]]:
    """A prompt without its LoRAs, them, and what is to be said of them."""
    found: dict[str, float] = {}
    notes: list[str] = []

    def take(match: re.Match[str]) -> str:
        name, scales = match[1], match[2].split(":")[1:]
        try:
            found[name] = float(scales[0]) if scales else 1.0
        except ValueError:
            notes.append(f"left out {shown(match[0].strip())}")
        if len(scales) > 1:
            notes.append(f"LoRA {shown(name)} has one scale here, for all parts of the model")
        return ""

    prompt = _LORA.sub(take, prompt)
    if found:
        notes.append(f"load its LoRAs before you draw: {', '.join(shown(name) for name in found)}")
    return prompt, found, notes


def _counts(key: str, value: str) -> bool:
    """Whether something that is not read may have shaped the picture."""
    return key not in _READ and not _RECORDS.fullmatch(key) and (key, value) != ("Clip skip", "1")
