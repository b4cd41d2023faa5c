"""What a `Compare` compares, as data: columns of settings, their labels, presets to start from, JSON in and out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from diffexplore.experiments.axes import axis_of
from diffexplore.mixing import interval
from diffexplore.settings import Settings, as_dict, joined
from diffexplore.words import near, shown

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = [
    "FEWEST",
    "MOST",
    "PRESETS",
    "Columns",
    "Values",
    "checked",
    "free",
    "from_json",
    "label_of",
    "plain",
    "preset",
    "relabelled",
    "settings_of",
    "to_json",
    "with_one",
]

FEWEST: Final = 2
MOST: Final = 6
_LADDER: Final = (
    "a dog",
    "a dog in a meadow",
    "a dog in a meadow at golden hour",
    "a large dog in a meadow at golden hour, sharp, detailed",
)

Values = dict[str, Any]
"""Settings by name."""
Columns = dict[str, Values]
"""Label -> what a column has of its own."""


def _samplers(model: Model) -> list[str]:
    usual: list[str] = [name for name in ("DPM++ 2M Karras", "Euler", "Euler a", "DDIM") if name in model.samplers]
    return usual if len(usual) >= FEWEST else model.samplers[:4]


def _skips(model: Model) -> Columns:
    """As the network was trained, and without the skip connections of each stage."""
    if not any(stage.skip for stage in model.stages):
        raise ValueError(str(model.abilities["skips"]).rstrip("."))
    without = [stage for stage in model.stages if stage.skip][: MOST - 1]
    return {"as trained": {}} | {
        f"{one.name.partition(',')[0]} without skip": {"skips": {str(one.number): {"skip": 0.0}}} for one in without
    }


def _guiders(model: Model, shared: Settings) -> Columns:
    """Each way to mix that is right here; and the plain one on the interval that its paper found for SDXL, which is
    sigma from 5.42 down to 0.28.
    """
    if len(model.guiders) < FEWEST:
        raise ValueError(str(model.abilities["guiders"]).rstrip("."))
    mixed: Columns = {name: {"guider": name} for name in model.guiders[: MOST - 1]}
    between = {1.0: {"guidance": 1.0}} | interval(shared.guidance, 0.967, 0.073)
    return mixed | {"interval": {"changes": {str(mark): fields for mark, fields in between.items()}}}


def _taking(model: Model, shared: Settings, what: str) -> Values:
    """A sampler that takes "sigmas" or "fresh_noise", as a column has it: nothing where that of all does."""
    now = shared.sampler or model.sampler
    names = [now, "Euler", "DPM++ 2M", "Flow Euler", "DDIM"]
    found = next((one for one in names if one in model.samplers and what not in model.fixed(one)), None)
    if found is None:
        raise ValueError(model.fixed(now)[what].rstrip("."))
    return {} if found == now else {"sampler": found}


def _schedules(model: Model, shared: Settings) -> Columns:
    """The sampler's own noise levels, and as many in other ways."""
    more = _taking(model, shared, "sigmas")
    sampler = more.get("sampler", shared.sampler)
    ways = ("linear", "karras", "exponential", "cosine")
    return {"its own levels": more} | {
        way: {"sigmas": list(model.levels(way, shared.steps, sampler=sampler)), **more} for way in ways
    }


def _fresh(model: Model, shared: Settings) -> Columns:
    """From nothing random on the way to as much as in DDPM."""
    more = _taking(model, shared, "fresh_noise")
    return {f"fresh noise {share:g}": {"fresh_noise": share, **more} for share in (0.0, 0.3, 0.7, 1.0)}


PRESETS: Final[dict[str, Callable[[Model, Settings], Columns]]] = {
    "prompts": lambda _, s: with_one(
        "prompt", [s.prompt or "a fox in the snow at noon", "a castle in the desert at night"]
    ),
    "negative prompt": lambda _, s: {
        "without": {"negative_prompt": ""},
        "with": {"negative_prompt": s.negative_prompt or "blurry, noisy, low quality"},
    },
    "samplers": lambda model, _: with_one("sampler", _samplers(model)),
    "steps": lambda model, _: with_one("steps", [1, 2, 4, 8] if model.usual_steps < 10 else [4, 10, 20, 50]),
    "guidance": lambda _, __: with_one("guidance", [1.0, 3.0, 5.0, 10.0]),
    "guiders": _guiders,
    "schedules": _schedules,
    "fresh noise": _fresh,
    "seeds": lambda _, s: with_one("seed", [s.seed + k for k in range(4)]),
    "near a seed": lambda _, s: with_one("variation", [None, *(((s.seed + 1) % 2**63, a) for a in (0.1, 0.3, 0.6))]),
    "skips": lambda model, _: _skips(model),
    "specificity": lambda _, __: with_one("prompt", _LADDER),
}
"""Comparisons to start from: name -> what differs, for a model and the shared settings."""


def preset(name: str) -> Callable[[Model, Settings], Columns]:
    """The preset of a name; a ValueError in one sentence where there is none."""
    if name not in PRESETS:
        raise ValueError(
            f"a preset is one of {', '.join(PRESETS)}; got {shown(name)}{near(name, PRESETS)}; "
            "a prompt is given as Compare(prompt=...)"
        )
    return PRESETS[name]


# --- checking ---


def settings_of(values: Mapping[Any, Any]) -> Settings:
    """Settings of values by name, where the names may come from a file and be anything; what is within a setting has a
    path, see `experiments.axes`.

    Raises:
        ValueError: One sentence, for a name that is no setting, and for a value that makes no sense.
    """
    axes = [(axis_of(name), name, value) for name, value in values.items()]
    made = Settings(**{name: value for axis, name, value in axes if axis.field == name})
    for axis, name, value in axes:
        made = made if axis.field == name else axis.put(made, value)
    return made


def checked(shared: Mapping[Any, Any], columns: Any) -> dict[str, Settings]:
    """What each column asks for, by label.

    Raises:
        ValueError: One sentence, for what cannot be a comparison.
    """
    if not isinstance(columns, Mapping):
        raise ValueError(
            f"a comparison has {FEWEST} to {MOST} columns, label -> settings, or the name of a preset; got "
            f"{shown(columns)}; a model is given as Compare(model=...)"
        )
    if not FEWEST <= len(columns) <= MOST:
        raise ValueError(f"a comparison has {FEWEST} to {MOST} columns, label -> settings; got {len(columns)} columns")
    made = {}
    for label, own in columns.items():
        if not isinstance(label, str) or not label.strip() or not _written(label):
            raise ValueError(f"a column's label must be text, got {shown(label)}")
        if not isinstance(own, Mapping):
            raise ValueError(f"column {shown(label)} must map settings to values, got {shown(own)}")
        made[label] = settings_of(joined(shared, own))
    return made


def _written(text: str) -> bool:
    """Whether it can be sent and saved: lone surrogates cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain(values: Mapping[str, Any], read: Settings) -> Values:
    """Values as `read` from them, but for what is left to the model; plain numbers, which go into JSON."""
    given = {axis_of(name).field: value for name, value in values.items()}
    found = {name: getattr(read, name) for name, value in given.items() if value is not None}
    made = {name: as_dict(found[name]) if name in ("adapters", "skips") else found.get(name) for name in given}
    if made.get("changes"):
        made["changes"] = read.told()["changes"]
    if made.get("sigmas"):
        made["sigmas"] = list(read.sigmas or ())
    return made


# --- labels ---

_NUMBER: Final = re.compile(r" \(\d+\)$")


def label_of(own: Mapping[str, Any]) -> str:
    """A label that says what a column has of its own; numbers, which say nothing alone, with their names."""
    said = []
    for name, value in own.items():
        if name == "variation":
            said.append(f"{value[1]:.3g} to seed {value[0]}" if value else "as the seed")
        elif name == "watermark":  # the key is nobody's business
            said.append("with a mark" if value else "no mark")
        elif name == "sigmas" and value:
            said.append(f"{len(value)} levels from {value[0]:.3g}")
        elif name == "changes":
            said += Settings(changes=value).changing
        elif isinstance(value, Mapping):
            said += [f"{one} {_brief(number)}" for one, number in value.items()]
        elif isinstance(value, (int, float)):
            said.append(f"{name.replace('_', ' ')} {_brief(value)}")
        else:
            said.append(_brief(value))
    return " ".join(", ".join(said).split())[:48].rstrip() or "plain"


def _brief(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[:200]


def free(label: str, taken: Iterable[str]) -> str:
    """The label, numbered where it is taken."""
    found, number = label, 2
    while found in taken:
        found, number = f"{label} ({number})", number + 1
    return found


def relabelled(label: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The label of a column that changed: one that only said its values follows them, one that a person wrote stays."""
    return label_of(now) if _NUMBER.sub("", label) == label_of(before) else label


def with_one(name: str, values: Iterable[Any]) -> Columns:
    """Columns that differ in one setting."""
    made: Columns = {}
    for value in values:
        made[free(label_of({name: value}), made)] = {name: value}
    return made


# --- JSON ---


def to_json(shared: Mapping[str, Any], columns: Mapping[str, Any]) -> str:
    """Both as JSON for `from_json`."""
    return json.dumps({"shared": shared, "columns": columns}, indent=2, ensure_ascii=False)


def from_json(text: str) -> tuple[Values, Columns]:
    """Shared settings and columns, checked.

    Raises:
        ValueError: One sentence, for text that is none.
    """
    try:
        found = json.loads(text)
        shared, columns = found["shared"], found["columns"]
    except (ValueError, TypeError, KeyError, RecursionError):
        shared = columns = None
    if not isinstance(shared, dict) or not isinstance(columns, dict):
        raise ValueError(f"a comparison is a JSON object with 'shared' and 'columns', both objects; got {shown(text)}")
    settings_of(shared)
    checked(shared, columns)
    return shared, columns
