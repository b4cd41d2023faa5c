"""Recipes that other programs write in a form of their own, as settings: ComfyUI, InvokeAI, Fooocus and SwarmUI.

The first three are read by the library ``sd-parsers``, which knows their forms. It is handed texts, never a picture,
and what it gives back is a stranger's all the same: every value is checked by `Settings`. SwarmUI's form is plain JSON
with a name for each value. What settings cannot hold is said in words: a second pass, a picture that was started from,
LoRAs that have to be loaded, a schedule that no sampler here has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from diffexplore.samplers.names import scheduled
from diffexplore.settings import Settings
from diffexplore.words import listed, shown

__all__ = ["KEYS", "from_json", "from_texts", "program_of"]

KEYS: Final[Mapping[str, str]] = {
    "workflow": "ComfyUI",
    "prompt": "ComfyUI",
    "invokeai_metadata": "InvokeAI",
    "invokeai_graph": "InvokeAI",
    "sd-metadata": "InvokeAI",
    "Dream": "InvokeAI",
    "fooocus_scheme": "Fooocus",
}
"""Key of a text -> the program that is known by it."""

_INSTALL: Final = "pip install 'diffexplore[recipes]'"
MAX_NODES: Final = 500
"""Nodes of a graph that are looked at, the nearest to the sampler; people's have some ten to two hundred."""

# Samplers' names that are no spelling of the menu's: what InvokeAI and SwarmUI's engines call them.
_NAMES: Final = {"kdpm_2": "DPM2", "kdpm_2_a": "DPM2 a", "dpmpp_2s": "DPM++ 2S a", "unipc": "UniPC", "uni_pc": "UniPC"}
# What ComfyUI calls a schedule -> the word for it elsewhere; "normal" and the like are a sampler's own.
_PLAIN: Final = ("", "normal", "none", "default")
# Records, and switches of the program itself: nothing that shaped the picture, or said elsewhere.
_RECORDS: Final = re.compile(
    r"id|.*(hash|version|date|model|vae|metadata|workflow|created_by|user)\w*|control_after_generate|batch_size|"
    r"filename_prefix|add_noise|return_with_leftover_noise|start_at_step|end_at_step|rand_device|images?|app_\w+|"
    r"full_(negative_)?prompt|(positive_|negative_)?style_prompt|type|device|aspectratio|generation_\w+|scheduler_?name"
)
# Nodes of a graph that are read, or that only open files.
_KNOWN: Final = re.compile(
    r"CLIPTextEncode|(Checkpoint|UNET|VAE|CLIP|\w*CLIP)Loader\w*|KSampler\w*|Empty\w*Latent\w*|LoraLoader\w*"
)
_NOTHING: Final[tuple[Any, ...]] = (None, "", False, 0, [], {}, "None")


def program_of(texts: Mapping[str, str]) -> str | None:
    """The program that writes texts with these keys, or None where it is none of `KEYS`."""
    return next((KEYS[key] for key in KEYS if key in texts), None)


def from_texts(texts: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Settings from texts of which :func:`program_of` knows the program, and what of them they cannot hold, in words.

    Raises:
        ValueError: one sentence: the text is not in the program's form, holds a value that is refused, or
            ``sd-parsers`` is not installed.
    """
    program = str(program_of(texts))
    if program == "Fooocus":
        return from_json(texts.get("parameters", ""))
    if program == "ComfyUI":
        graph, notes = _nearest(_parsed(texts.get("prompt", ""), program), program)
        info = _read_by("ComfyUIParser", program, {"prompt": graph, "workflow": {"links": _links(graph)}})
        return _settings(program, *_of_comfy(info, graph), notes)
    given = {key: text for key, text in texts.items() if KEYS.get(key) == program}
    if "Dream" in given:
        given["Dream"] = " ".join(given["Dream"].split())
    return _settings(program, *_of_info(_read_by("InvokeAIParser", program, given)), [])


def from_json(text: str) -> tuple[Settings, list[str]]:
    """Settings from a ``parameters`` text that is JSON: Fooocus and SwarmUI write such, told apart by what is in it.

    Raises:
        ValueError: as :func:`from_texts`.
    """
    values = _parsed(text, "another program")
    if "sui_image_params" in values:
        return _settings("SwarmUI", *_of_swarm(values["sui_image_params"]), [])
    if "base_model" in values or str(values.get("version")).startswith("Fooocus"):
        return _settings("Fooocus", *_of_info(_read_by("FooocusParser", "Fooocus", {"parameters": text})), [])
    raise ValueError("it is JSON in the form of another program, which is not read here")


def _parsed(text: Any, program: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"it must be a JSON object in the form of {program}, got {shown(text)}")
    return values


def _read_by(parser: str, program: str, texts: Mapping[str, Any]) -> Any:
    """What the library makes of the texts."""
    try:
        from sd_parsers import parsers
    except ImportError:
        raise ValueError(f"it is in the form of {program}, which is read by sd-parsers: {_INSTALL}") from None
    try:
        return getattr(parsers, parser)().parse(dict(texts))
    except Exception:  # it is made for friendly texts: a hostile one may end in any error
        raise ValueError(f"it is not in the form that {program} is known to write") from None


# A graph


def _nearest(graph: dict[str, Any], program: str) -> tuple[dict[str, Any], list[str]]:
    """The part of a ComfyUI graph that leads to its first pass, and what is said of the rest.

    The library walks a graph from each sampler anew, which for a graph made to be slow takes for ever: it gets one
    sampler and the `MAX_NODES` nodes that are nearest to it.
    """
    nodes = {str(name): node for name, node in graph.items() if isinstance(node, dict)}
    nodes = {name: node for name, node in nodes.items() if isinstance(node.get("inputs"), dict)}
    passes = [name for name, node in nodes.items() if {"sampler_name", "steps", "cfg"} <= node["inputs"].keys()]
    if not passes:
        raise ValueError(f"its {program} graph has no sampler that says steps, cfg and its name in one node")
    for first in passes[:20]:
        near = _reached(nodes, first)
        if not near & {*passes} - {first}:
            break  # no other pass comes before it
    # As the library knows links: what an input takes from another node is a list, its number first, as text.
    kept = {name: nodes[name] for name in nodes if name in near}
    kept |= {name: node for name, node in nodes.items() if "width" in node["inputs"] and len(kept) < MAX_NODES}
    left = [f"a second pass, of {len(passes)} in all" if len(passes) > 2 else "a second pass"] if passes[1:] else []
    kept = {name: node for name, node in kept.items() if name == first or name not in passes}
    return kept, [f"left out {one}" for one in left]


def _reached(nodes: Mapping[str, Any], start: str) -> set[str]:
    """The nodes from which something flows to one, the nearest first."""
    found, waiting = {start}, [start]
    for name in waiting:
        for value in nodes[name]["inputs"].values():
            source = str(value[0])[:100] if isinstance(value, list) and value else ""
            if source in nodes and source not in found and len(found) < MAX_NODES:
                found.add(source)
                waiting.append(source)
    return found


def _links(graph: Mapping[str, Any]) -> list[list[Any]]:
    """The graph's links as a workflow lists them; their kinds matter where a text encoder's own model is one."""
    return [
        [0, str(value[0])[:100], 0, name, 0, "CLIP" if key == "clip" else "*"]
        for name, node in graph.items()
        for key, value in node["inputs"].items()
        if isinstance(value, list) and value
    ]


# What each says


def _of_comfy(info: Any, graph: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, float], list[tuple[str, Any]]]:
    values, loras, rest = _of_info(info)
    seeds = [value for name, value in rest if name in ("seed", "noise_seed")]
    if "seed" not in values and seeds:
        values["seed"] = seeds[0]
    rest = [(name, value) for name, value in rest if name not in ("seed", "noise_seed")]
    for kind, nodes in info.metadata.items():
        for node in nodes:
            if "width" in node and "height" in node and "Latent" in str(kind):
                values["width"], values["height"] = node["width"], node["height"]
    for node in graph.values():
        if isinstance(node["inputs"].get("lora_name"), str):
            loras[node["inputs"]["lora_name"]] = node["inputs"].get("strength_model", 1.0)
    kinds = {str(node.get("class_type")) for node in graph.values()}
    rest += [("the node", kind) for kind in sorted(kinds) if not _KNOWN.fullmatch(kind)]
    return values, loras, [one for one in rest if one != ("denoise", 1)]


def _of_info(info: Any) -> tuple[dict[str, Any], dict[str, float], list[tuple[str, Any]]]:
    """Values by the names of `Settings`, LoRAs, and all else; of what the library gives."""
    if not info.samplers:
        raise ValueError(f"it names no sampler in the form of {info.generator.value}")
    first = info.samplers[0]
    said = dict(first.parameters)
    metadata = dict(info.metadata) if info.generator.value != "ComfyUI" else {}
    values: dict[str, Any] = {
        "prompt": "\n".join(str(one) for one in first.prompts),
        "negative_prompt": "\n".join(str(one) for one in first.negative_prompts),
        "sampler": (first.name, said.pop("scheduler", "")),
    }
    said.pop("sampler_name", None)
    for field, name in (("steps", "steps"), ("guidance", "cfg_scale"), ("seed", "seed")):
        if name in said:
            values[field] = said.pop(name)
    for field in ("width", "height"):
        if field in metadata:
            values[field] = metadata.pop(field)
    size = re.fullmatch(r"\((\d{1,5}), (\d{1,5})\)", str(metadata.pop("resolution", ""))[:40])
    if size:
        values["width"], values["height"] = int(size[1]), int(size[2])
    loras = dict(_loras(metadata.pop("loras", None)))
    return values, loras, [*said.items(), *metadata.items()]


def _of_swarm(given: Any) -> tuple[dict[str, Any], dict[str, float], list[tuple[str, Any]]]:
    if not isinstance(given, dict):
        raise ValueError(f"SwarmUI's values must be a JSON object, got {shown(given)}")
    said = dict(given)
    names = {"prompt": "prompt", "negativeprompt": "negative_prompt", "steps": "steps", "cfgscale": "guidance"}
    names |= {"seed": "seed", "width": "width", "height": "height"}
    values = {field: said.pop(name) for name, field in names.items() if name in said}
    if "sampler" in said:
        values["sampler"] = (said.pop("sampler"), said.pop("scheduler", ""))
    loras, weights = said.pop("loras", None), said.pop("loraweights", None)
    pairs = zip(loras, weights, strict=False) if isinstance(loras, list) and isinstance(weights, list) else ()
    return values, {str(name): weight for name, weight in pairs}, [*said.items()]


def _loras(value: Any) -> Iterable[tuple[str, Any]]:
    """LoRAs as InvokeAI (dicts) and Fooocus (lists) list them."""
    for one in value if isinstance(value, list) else ():
        if isinstance(one, dict):
            what = one.get("model") or one.get("lora")
            if isinstance(what, dict):
                yield str(what.get("name") or what.get("model_name")), one.get("weight", 1.0)
        elif isinstance(one, list) and len(one) >= 2:
            yield str(one[0]), one[1]


# As settings


def _settings(
    program: str, values: dict[str, Any], loras: Mapping[str, Any], rest: Iterable[tuple[str, Any]], notes: list[str]
) -> tuple[Settings, list[str]]:
    """Settings of values as a program writes them, some as text, and what is to be said."""
    if "steps" not in values:
        raise ValueError(f"it says no steps in the form of {program}")
    kinds: dict[str, Callable[[str], Any]] = {"steps": int, "seed": int, "guidance": float, "width": int, "height": int}
    for name, kind in kinds.items():
        value = values.get(name)
        if isinstance(value, list):
            raise ValueError(f"its {name} must be one number, got {shown(value)}")
        if isinstance(value, str):
            try:
                values[name] = kind(value[:400])
            except ValueError:
                raise ValueError(f"its {name} must be a number, got {shown(value)}") from None
    for side in ("width", "height"):
        if isinstance(values.get(side), int) and values[side] % 8:
            notes.append(f"{side} {values[side]} is no multiple of 8, the model's own is taken")
            values[side] = None
    name, schedule = values.pop("sampler", ("", ""))
    if name:
        values["sampler"], said = _sampler(name, schedule)
        notes += said
    if loras:
        try:
            values["adapters"] = {_stem(name): float(weight) for name, weight in loras.items()}
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"its LoRAs must have numbers for scales, got {shown(dict(loras))}") from None
        notes.append(f"load its LoRAs before you draw: {listed(shown(one) for one in values['adapters'])}")
    others = [
        f"{_plainly(key)} {shown(value, 20)}" for key, value in rest if not _RECORDS.fullmatch(str(key)[:60].lower())
        and not any(value is one or (type(value) is type(one) and value == one) for one in _NOTHING)
    ]  # fmt: skip
    if others:
        notes.append(f"left out {listed(others)}")
    return Settings(**values), notes


def _sampler(name: Any, schedule: Any) -> tuple[str, list[str]]:
    if not isinstance(name, str) or not isinstance(schedule, str):
        raise ValueError(f"its sampler must be a name, got {shown(name if not isinstance(name, str) else schedule)}")
    if name.endswith("_k"):  # InvokeAI's own way to say Karras
        name, schedule = name.removesuffix("_k"), "karras"
    name = _NAMES.get(name, name)
    return scheduled(name, "" if schedule.lower() in _PLAIN else schedule)


def _stem(name: str) -> str:
    """What a LoRA is called by whoever loads it: its file's name without folders and suffix."""
    return re.split(r"[\\/]", name[:400])[-1].removesuffix(".safetensors") or name[:400]


def _plainly(key: Any) -> str:
    text = str(key)[:40]
    return text if text.isprintable() else shown(text)
