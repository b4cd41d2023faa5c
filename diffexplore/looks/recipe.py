"""Settings in and out of a picture file, so that it says how to draw it again.

Two texts are kept. ``diffexplore`` holds our own JSON and is what is read back. ``parameters`` holds the same in the
form that most other programs show and read: the prompt, the negative prompt, then ``Steps: 20, Sampler: ...``. It is
read where the first is missing, so that a picture from elsewhere can be a starting point; what programs write in forms
of their own is read in ``looks.foreign``. A PNG has them as text chunks; WebP and JPEG have them in EXIF, as the
description and the user comment.

Whatever is read comes from a stranger: sizes are capped, nothing is evaluated, and every problem is one sentence. What
cannot be carried over is said in a warning.
"""

import io
import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, BinaryIO, Final, NamedTuple

from diffexplore.looks import chunks, foreign
from diffexplore.samplers.names import scheduled
from diffexplore.settings import Settings
from diffexplore.values import a_file, a_path
from diffexplore.words import listed, shown

__all__ = [
    "KEY",
    "Drawer",
    "Recipe",
    "drawn_by",
    "from_parameters",
    "parameters",
    "read_recipe",
    "recipe_in",
    "texts_of",
]

KEY: Final = "diffexplore"

_VARIATION: Final = (("Variation seed", int), ("Variation seed strength", float))
_READ: Final = frozenset(
    {"Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Guider", *(name for name, _ in _VARIATION)}
)
# Which files it was drawn with, and records: nothing that settings could hold.
_RECORDS: Final = re.compile(
    r"(Model|VAE)( hash)?|(Lora|TI) hashes|Hashes|Module \d+|Version|User|RNG|Parser|Created Date|Civitai .*"
)
# A run of white space is looked at from its start alone, or a million of blanks would be looked at a million times.
_LORA: Final = re.compile(r"(?<!\s)\s*<lora:([^:<>\n]+)((?::[^:<>\n]*)*)>")
_UNSEEN: Final = "\u200b"  # has no width and is no white space; says that what follows is text and no markup
# Where it goes in: at the start of a line that would begin something else, and in a tag that would be a LoRA.
_MARKUP: Final = rf"(?m:^)(?={_UNSEEN}*[^\S\n]*(?:Negative prompt:|Steps: ))|<(?={_UNSEEN}*lora:)"
_GUARDED: Final = rf"(?m:^){_UNSEEN}(?={_UNSEEN}*[^\S\n]*(?:Negative prompt:|Steps: ))|<{_UNSEEN}(?={_UNSEEN}*lora:)"


def texts_of(settings: Settings, info: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The texts that a picture of these settings carries.

    Args:
        settings: what was asked for, with everything filled in.
        info: facts of the run: its ``model`` is named, its ``world`` if it comes with the package, and what its
            pipeline was given beyond the settings.
    """
    told = info or {}
    model = told.get("model")
    beside = {name: told[name] for name in ("world", "extra") if told.get(name)}
    return {
        KEY: json.dumps({"settings": settings.told(), "model": model, **beside}),
        # The name of a model may come from a folder whose name is no text: it is said as near as UTF-8 can.
        "parameters": parameters(settings, model).encode("utf-8", "replace").decode(),
    }


class Recipe(NamedTuple):
    """What a picture says of how it was drawn.

    Attributes:
        settings: that, checked.
        notes: what of it settings cannot hold, in words; empty where they hold all.
    """

    settings: Settings
    notes: list[str]


def read_recipe(picture: str | os.PathLike[str] | bytes) -> Settings:
    """The settings that a picture carries.

    Pictures of AUTOMATIC1111's program and its kin and of SwarmUI are read too; those of ComfyUI, InvokeAI and Fooocus
    where ``sd-parsers`` is installed. What settings cannot hold is said in a warning, such as a schedule that no
    sampler here has, a second pass, or LoRAs, which have to be loaded first.

    Args:
        picture: a PNG, WebP or JPEG that ``Trace.save_image`` or such a program wrote, or what is in such a file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence, if it is no such picture, carries no recipe, or a damaged one.
    """
    settings, notes = recipe_in(picture)
    if notes:
        name = _called(picture)
        warnings.warn(f"not all of the recipe in {name} can be carried over: {'; '.join(notes)}", stacklevel=2)
    return settings


def recipe_in(picture: str | os.PathLike[str] | bytes, name: str = "") -> Recipe:
    """The same, with what is to be said of it handed over and not warned of.

    Args:
        picture: as :func:`read_recipe` takes it.
        name: what sentences call it; "" for its own name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence, if it is no such picture, carries no recipe, or a damaged one.
    """
    name = shown(name, 200) if name else _called(picture)
    try:
        with _opened(picture) as file:
            texts = chunks.texts(file, frozenset({KEY, "parameters", *foreign.KEYS}))
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
    if not texts:
        raise ValueError(f"{name} carries no recipe: it has neither a {KEY!r} nor a 'parameters' text")
    try:
        return Recipe(*_from_texts(texts))
    except ValueError as error:
        raise ValueError(f"the recipe in {name} cannot be used: {error}") from None


class Drawer(NamedTuple):
    """Which model drew a picture, as ``Trace.save_image`` wrote it.

    Attributes:
        name: "" where it does not say.
        ours: whether it came with the package, whatever others are called.
    """

    name: str = ""
    ours: bool = False


def drawn_by(picture: str | os.PathLike[str] | bytes) -> Drawer:
    """Which model drew a picture.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence, if it is no such picture.
    """
    try:
        with _opened(picture) as file:
            text = chunks.texts(file, frozenset({KEY})).get(KEY, "{}")
    except ValueError as error:
        raise ValueError(f"{_called(picture)} {error}") from None
    try:
        told = json.loads(text)
        model, world = told.get("model"), told.get("world")
    except (AttributeError, RecursionError, ValueError):  # no JSON, or a number of thousands of digits
        return Drawer()
    return Drawer(model[:200], world == "pocket") if isinstance(model, str) else Drawer()


def _called(picture: str | os.PathLike[str] | bytes) -> str:
    return "the picture" if isinstance(picture, bytes) else shown(os.fspath(a_path(picture)), 200)


def _opened(picture: str | os.PathLike[str] | bytes) -> BinaryIO:
    if isinstance(picture, bytes):
        return io.BytesIO(picture)
    return a_file(picture).open("rb")


def _from_texts(texts: Mapping[str, str]) -> tuple[Settings, list[str]]:
    if KEY in texts:
        return _from_json(texts[KEY])
    common = texts.get("parameters", "")
    if common.lstrip().startswith("{"):
        return foreign.from_json(common)
    # Programs that write both mean the graph for themselves, and the common text for others.
    return from_parameters(common) if "parameters" in texts else foreign.from_texts(texts)


def _from_json(text: str) -> tuple[Settings, list[str]]:
    """Settings, and what of the text they cannot hold, in words."""
    try:
        values = json.loads(text)
        extra = values.get("extra") if isinstance(values.get("extra"), dict) else {}
        told = [f"{_plain(name, 40)} {_plain(value, 60)}" for name, value in extra.items()]
        notes = [f"to be handed over beside it: {listed(told)}"] if told else []
        return Settings(**values["settings"]), notes
    except (LookupError, TypeError, AttributeError, RecursionError, json.JSONDecodeError):
        raise ValueError(f"it must be a JSON object with settings, got {shown(text)}") from None


def _plain(value: Any, limit: int) -> str:
    """A text as it is where that is one short line, else as its repr."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= limit else shown(value, limit)


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
        "Variation seed": settings.variation[0] if settings.variation else None,
        "Variation seed strength": f"{settings.variation[1]:g}" if settings.variation else None,
        "Size": f"{settings.width}x{settings.height}" if settings.width and settings.height else None,
        "Model": model,
        "Guider": settings.guider if settings.mixed else None,
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
    if "Variation seed" in facts and "Variation seed strength" in facts:
        values["variation"] = tuple(_number(key, facts[key], convert) for key, convert in _VARIATION)
    if "Guider" in facts:
        values["guider"] = facts["Guider"]
    if "Sampler" in facts:
        values["sampler"], note = scheduled(facts["Sampler"], facts.get("Schedule type", ""))
        notes += note
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", facts.get("Size", ""))
    if size:
        values["width"], values["height"] = int(size[1]), int(size[2])
    elif "Size" in facts:
        raise ValueError(f"Size must be as in 512x768, got {shown(facts['Size'])}")
    others = [f"{key[:40]} {shown(value, 20)}" for key, value in facts.items() if _counts(key, value)]
    if others:
        notes.append(f"left out {listed(others)}")
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


def _loras(prompt: str) -> tuple[str, dict[str, float], list[str]]:
    """A prompt without its LoRAs, them, and what is to be said of them."""
    found: dict[str, float] = {}
    wrong: list[str] = []
    apart: list[str] = []

    def take(match: re.Match[str]) -> str:
        name, scales = match[1], match[2].split(":")[1:]
        try:
            found[name] = float(scales[0]) if scales else 1.0
        except ValueError:
            wrong.append(shown(match[0].strip()))
        if len(scales) > 1:
            apart.append(shown(name))
        return ""

    prompt = _LORA.sub(take, prompt)
    notes = [f"left out {listed(wrong)}"] if wrong else []
    notes += [f"LoRA {listed(apart)} has one scale here, for all parts of the model"] if apart else []
    notes += [f"load its LoRAs before you draw: {listed(shown(name) for name in found)}"] if found else []
    return prompt, found, notes


def _counts(key: str, value: str) -> bool:
    """Whether something that is not read may have shaped the picture."""
    return key not in _READ and not _RECORDS.fullmatch(key) and (key, value) != ("Clip skip", "1")
