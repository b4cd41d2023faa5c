"""Settings in and out of a picture file: a PNG that says how to draw it again.

Two text chunks are written. ``diffexplore`` holds our own JSON and is what is read back. ``parameters`` holds
the same in the form that most other programs show and read (prompt, negative prompt, then ``Steps: 20,
Sampler: ...``); it is also read where the first is missing, so that a picture from elsewhere can be a
starting point.

Whatever is read comes from a stranger: sizes are capped, nothing is evaluated, and every problem is one
sentence.
"""

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin

from diffexplore.samplers import SAMPLERS
from diffexplore.settings import Settings
from diffexplore.words import shown

if TYPE_CHECKING:
    from diffexplore.trace import Trace

__all__ = ["read_recipe", "write_recipe"]

KEY = "diffexplore"
MAX_TEXT = 2**20  # characters of one text chunk; a prompt of 10,000 words is about 60,000


def write_recipe(path: str | os.PathLike[str], trace: "Trace") -> None:
    """Write the final picture of a trace as PNG, with its settings inside.

    Raises:
        ValueError: if the trace has no final picture (a cancelled run).
    """
    if trace.image is None:
        raise ValueError(f"the run has no final picture to save: it has {len(trace)} of {trace.expected} steps")
    facts = {"settings": trace.settings.model_dump(), "model": trace.info.get("model")}
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(KEY, json.dumps(facts))
    chunks.add_itxt("parameters", _parameters(trace.settings, trace.info.get("model")))
    trace.image.save(path, "PNG", pnginfo=chunks)


def read_recipe(path: str | os.PathLike[str]) -> Settings:
    """The settings that a PNG carries.

    Args:
        path: a PNG that ``Trace.save_image`` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: one sentence, if it is no PNG, carries no recipe, or a damaged one.
    """
    name = shown(os.fspath(path), 200)
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {name}")
    try:
        # Only the chunks before the pixels are read; Pillow bounds what a compressed chunk may unpack to.
        with Image.open(path, formats=["PNG"]) as image:
            texts = {key: str(image.info[key]) for key in (KEY, "parameters") if key in image.info}
    except (
        Exception
    ) as error:  # Pillow raises almost anything for a hostile file: OSError, SyntaxError, struct.error, ...
        raise ValueError(f"{name} is not a readable PNG ({type(error).__name__}: {error})") from None
    if not texts:
        raise ValueError(f"{name} carries no recipe: it has neither a {KEY!r} nor a 'parameters' text")
    key, text = next(iter(texts.items()))
    if len(text) > MAX_TEXT:
        raise ValueError(f"the recipe in {name} has {len(text):,} characters, at most {MAX_TEXT:,} are read")
    try:
        return _from_json(text) if key == KEY else _from_parameters(text)
    except ValueError as error:
        raise ValueError(f"the recipe in {name} cannot be used: {error}") from None


def _from_json(text: str) -> Settings:
    try:
        values = json.loads(text)["settings"]
        return Settings(**values)
    except (KeyError, TypeError, RecursionError, json.JSONDecodeError):
        raise ValueError(f"it must be a JSON object with settings, got {shown(text)}") from None


def _parameters(settings: Settings, model: Any) -> str:
    """Settings as other programs write them."""
    lines = [settings.prompt]
    if settings.negative_prompt:
        lines.append(f"Negative prompt: {settings.negative_prompt}")
    facts = {
        "Steps": settings.steps,
        "Sampler": settings.sampler,
        "CFG scale": f"{settings.guidance:g}",
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}" if settings.width and settings.height else None,
        "Model": model,
    }
    lines.append(", ".join(f"{key}: {value}" for key, value in facts.items() if value is not None))
    return "\n".join(lines)


def _from_parameters(text: str) -> Settings:
    """Settings from the last line and the prompts above it; what other programs add is passed over."""
    *head, last = text.strip().split("\n")
    facts = dict(re.findall(r"(Steps|Sampler|Schedule type|CFG scale|Seed|Size): ([^,]{1,60})", last))
    if "Steps" not in facts:
        raise ValueError("its last line must name Steps, as in 'Steps: 20, Sampler: Euler a, CFG scale: 7'")
    prompt, _, negative = "\n".join(head).partition("Negative prompt:")
    values: dict[str, Any] = {"prompt": prompt.strip(), "negative_prompt": negative.strip()}
    for field, key, convert in (
        ("steps", "Steps", int),
        ("guidance", "CFG scale", float),
        ("seed", "Seed", int),
    ):
        if key in facts:
            try:
                values[field] = convert(facts[key])
            except ValueError:
                raise ValueError(f"{key} must be a number, got {shown(facts[key])}") from None
    if "Sampler" in facts:
        # Newer programs write the schedule apart: "DPM++ 2M" and "Karras".
        full = f"{facts['Sampler']} {facts.get('Schedule type', '')}".strip()
        values["sampler"] = full if full in SAMPLERS else facts["Sampler"]
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", facts.get("Size", ""))
    if size:
        values["width"], values["height"] = int(size[1]), int(size[2])
    return Settings(**values)
