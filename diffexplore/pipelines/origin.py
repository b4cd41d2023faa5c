"""Where a model comes from: enough to open the very same one in another process or on another machine.

An :class:`Origin` is plain data: it goes through JSON, a pickle or a saved run, and :meth:`Origin.open` makes the
pipeline of it again, with what was switched on in it (FreeU, tiling, another scheduler). What it says of a hub's model
is the repository and the commit, never a path of this machine's cache.

    opened = open_pipeline("org/name", dtype="float16")
    opened.origin.open()                    # the same again
    opened.origin.now(opened.pipeline)      # with what the pipeline's features and scheduler are by now
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from diffexplore.pipelines.family import family_of
from diffexplore.pipelines.open import POCKETS, SOURCES, folder_words, near_words, read_pipeline
from diffexplore.samplers.came import moved
from diffexplore.words import shown

__all__ = ["OFFLOADS", "Opened", "Origin", "features_of", "open_pipeline", "scheduler_facts", "weights_of"]

OFFLOADS = ("model", "sequential")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")
_OF_SHIFT = ("sigmas", "timesteps")  # what a run computes by it
_KINDS = ("pocket", "hub", "folder", "file", "pipeline")
_SNAPSHOT = re.compile(r"(?:^|[\\/])models--([^\\/]+?)--([^\\/]+)[\\/]snapshots[\\/]([0-9a-f]{40})(?=$|[\\/])")
_ADAPTED = re.compile(r"\.lora_|\.lora_magnitude_vector\.|\.modules_to_save\.")


@dataclass(frozen=True)
class Origin:
    """What opens a model again, anywhere.

    Attributes:
        kind: "pocket" (one that comes with the package), "hub", "folder", "file" or "pipeline" (made by hand).
        where: its name among the pocket models, "org/name", or an absolute path; for a ready pipeline what it says it
            was opened from, "" if it does not say.
        revision: the commit of the hub it is; None where it is from elsewhere.
        options: the device, dtype, offload, prediction type and threads that were asked for, by name.
        loras: (path, name, sha256) of each that was loaded for ``Settings.adapters``.
        features: what is switched on in the pipeline and what its scheduler is, see :func:`features_of`.
        weights: a mark of the weights, see :func:`weights_of`; "" where nobody looked.
    """

    kind: str
    where: str = ""
    revision: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    loras: tuple[tuple[str, str, str], ...] = ()
    features: Mapping[str, Any] = field(default_factory=dict)
    weights: str = ""

    def __hash__(self) -> int:
        return hash(self.to_json())

    @classmethod
    def of(cls, pipeline: Any) -> Origin:
        """Where a ready pipeline was opened from, as far as it says so itself.

        A folder of the hub's cache becomes the id and the commit, so that it can be opened elsewhere.
        """
        where, revision = _named(pipeline)
        dtype = str(getattr(pipeline, "dtype", torch.float32)).removeprefix("torch.")
        options = {"dtype": dtype} if where and dtype != "float32" else {}
        return cls("pipeline", where, revision, options, features=features_of(pipeline))

    @property
    def place(self) -> str:
        """Where it is from, in a few words: "hub org/name@commit"."""
        commit = f"@{self.revision}" if self.revision else ""
        return f"{self.kind} {self.where}{commit}"

    def now(self, pipeline: Any, loras: tuple[tuple[str, str, str], ...] | None = None) -> Origin:
        """The same with what `pipeline`, which was opened from here, has come to.

        Take it outside of runs: a LoRA that a run switched on would pass for one of the user's.

        Args:
            pipeline: what was opened.
            loras: (path, name, sha256) of those that were loaded; None: those known already.
        """
        given = self.loras if loras is None else loras
        return replace(self, loras=given, features=features_of(pipeline), weights=weights_of(pipeline))

    # Opening it

    @property
    def portable(self) -> str:
        """Why it cannot be opened elsewhere; "" if it can."""
        if self.kind == "pipeline" and not self.where:
            return (
                "it was made from a ready pipeline, which other processes cannot open: "
                "save it to a folder and load that, or use an executor of threads"
            )
        by_hand = self.features.get("scheduler", {}).get("set")
        if by_hand:
            said = ", ".join(map(shown, by_hand))
            return f"its scheduler was changed by hand ({said}), which other processes do not know"
        if self.features.get("adapters"):
            names = {name for active in self.features["adapters"].values() for name in active}
            return (
                f"its pipeline has LoRAs switched on by hand ({', '.join(map(shown, sorted(names)))}), "
                "which other processes do not know: load them with load_lora"
            )
        if self.features.get("hooks"):
            names = {name for hooks in self.features["hooks"].values() for name in hooks}
            return f"its pipeline has hooks ({', '.join(sorted(names))}), which cannot be set up in other processes"
        return ""

    @property
    def source(self) -> str | None:
        """What `load` takes: an id with its commit, a path, or a pocket model's name; None for the first of those."""
        if self.kind == "pocket" and self.where == "pocket":
            return None
        return f"{self.where}@{self.revision}" if self.revision else self.where

    def open(self) -> Opened:
        """The pipeline, opened anew, with the features it had. Its LoRAs are not loaded: they are the model's.

        Raises:
            ValueError: one sentence, where it is not :attr:`portable`, cannot be opened here, or has come out
                otherwise: other weights, or a feature that cannot be set up again.
        """
        if self.portable:
            raise ValueError(f"this model cannot be opened again: {self.portable}")
        opened = open_pipeline(self.source, **{name: one for name, one in self.options.items() if name != "threads"})
        _restore(opened.pipeline, self.features)
        made = opened.origin.now(opened.pipeline)
        if "came_with" in self.features:  # not of the pipeline: of the model that was made of it
            made = replace(made, features={**made.features, "came_with": self.features["came_with"]})
        if self.weights and made.weights != self.weights:
            raise ValueError(f"{shown(self.source or self.where, 200)} holds other weights, or in another dtype")
        for name in sorted(self.features.keys() | made.features.keys()) if self.features else ():
            if self.features.get(name) != made.features.get(name):
                raise ValueError(
                    f"{shown(self.source or self.where, 200)} cannot be set up as it was: its {name} "
                    f"would be {shown(made.features.get(name))} instead of {shown(self.features.get(name))}"
                )
        return opened._replace(origin=replace(self, weights=made.weights, features=made.features))

    def code(self) -> str:
        """Python that opens this model and loads its LoRAs, in lines that end in a newline.

        A ready pipeline that does not say where it is from is expected in ``pipeline``.
        """
        unsaid = self.kind == "pipeline" and not self.where
        source = ["pipeline"] if unsaid else [] if self.source is None else [repr(self.source)]
        arguments = [*source, *(f"{k}={int(one) if one.isdecimal() else one!r}" for k, one in self.options.items())]
        lines = [f"model = dx.load({', '.join(arguments)})"]
        if not unsaid:
            for values in self.features.get("freeu", {}).values():
                if isinstance(values, Mapping):
                    given = ", ".join(f"{name}={value!r}" for name, value in values.items())
                    lines.append(f"model.pipeline.enable_freeu({given})")
        lines += [f"model.load_lora({path!r}, {name!r})" for path, name, _ in self.loras]
        return "".join(f"{line}\n" for line in lines)

    # As data

    def key(self) -> str:
        """A hash of what decides the bits of a picture, the settings aside: weights, dtype, features, LoRAs.

        Where the :attr:`weights` are known, those count instead of the place they were found at.
        """
        dtype = self.options.get("dtype", "float32")
        what = [self.weights] if self.weights else [self.kind, self.where, self.revision, dtype]
        decides = [what, dict(self.features), sorted((name, sha) for _, name, sha in self.loras)]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """As text: a JSON object with a field for each attribute."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Origin:
        """What :meth:`to_json` made.

        Raises:
            ValueError: one sentence, for anything else.
        """
        try:
            made = json.loads(text)
            names = {one.name for one in fields(cls)}
            if not isinstance(made, dict) or not {"kind"} <= made.keys() <= names or made["kind"] not in _KINDS:
                raise ValueError
            origin = cls(**{**made, "loras": tuple((str(a), str(b), str(c)) for a, b, c in made.get("loras", ()))})
            texts = [origin.where, origin.weights, origin.revision or "", *origin.options, *origin.options.values()]
            right = all(isinstance(one, str) for one in texts) and isinstance(origin.features, dict)
            if not right or not set(origin.options) <= {"device", "dtype", "offload", "prediction_type", "threads"}:
                raise ValueError
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise ValueError(f"an origin must be JSON as Origin.to_json writes it, got {shown(text)}") from None
        return origin


class Opened(NamedTuple):
    """A pipeline, opened.

    Attributes:
        pipeline: ready to run, on its device.
        name: what to call it.
        origin: what opens it again.
        words: all words it was trained on, lower case; empty where that is not known.
        near: other words -> the known ones nearest in meaning.
    """

    pipeline: Any
    name: str
    origin: Origin
    words: frozenset[str] = frozenset()
    near: Mapping[str, Sequence[str]] = {}

    @property
    def revision(self) -> str | None:
        """The commit of the hub it is; None where it is from elsewhere."""
        return self.origin.revision


def open_pipeline(
    source: Any = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    offload: str | None = None,
    prediction_type: str | None = None,
) -> Opened:
    """Open what :func:`diffexplore.load` takes; see there.

    Raises:
        ValueError: one sentence, for a source that is none or that cannot be opened, and for a `device` that is not
            here, a `dtype`, an `offload` or a `prediction_type` that is none. Before anything is fetched.
    """
    place, kind = _device(device), _dtype(dtype)
    if offload is not None and offload not in OFFLOADS:
        raise ValueError(f"offload must be None, {' or '.join(map(repr, OFFLOADS))}, got {shown(offload)}")
    if prediction_type is not None and prediction_type not in PREDICTION_TYPES:
        right = " or ".join(map(repr, PREDICTION_TYPES))
        raise ValueError(f"prediction_type must be None, {right}, got {shown(prediction_type)}")
    target = _offloaded(offload, place)
    given = {"device": place, "dtype": kind, "offload": offload, "prediction_type": prediction_type}
    options = {name: str(value).removeprefix("torch.") for name, value in given.items() if value is not None}
    if source is not None and not isinstance(source, str | os.PathLike):
        if isinstance(source, type) or not hasattr(source, "components"):
            raise ValueError(f"a model is {SOURCES}, got {shown(source)}")
        family_of(source)
        _predicts(source, prediction_type)
        for wanted in (place if offload is None else None, kind):
            source = source if wanted is None else source.to(wanted)
        _offload(source, offload, target)
        own = Origin.of(source)
        return Opened(source, type(source).__name__, replace(own, options={**own.options, **options}))
    where = "pocket" if source is None else os.fspath(source)
    if not isinstance(where, str):
        raise ValueError(f"a model is {SOURCES}, got {shown(source)}")
    ours = None if isinstance(source, os.PathLike) else POCKETS.get(where)
    found = read_pipeline(where if ours is None else str(ours), kind or torch.float32)
    _predicts(found.pipeline, prediction_type)
    if offload is None:
        found.pipeline.to(place or ("cuda" if torch.cuda.is_available() else "cpu"))
    _offload(found.pipeline, offload, target)
    features = features_of(found.pipeline)
    if ours is not None:
        origin, name = Origin("pocket", where, None, options, features=features), where
    else:
        origin, name = Origin(found.kind, found.where, found.revision, options, features=features), found.name
    if found.folder is None:
        return Opened(found.pipeline, name, origin)
    return Opened(found.pipeline, name, origin, folder_words(found.folder), near_words(found.folder))


def _predicts(pipeline: Any, kind: str | None) -> None:
    """Say what the network predicts, where the files do not: single checkpoints have no word for it."""
    if kind is None:
        return
    scheduler = pipeline.scheduler
    if "prediction_type" not in scheduler.config:
        raise ValueError(
            f"prediction_type={kind!r} says what networks of diffusion predict; a {type(scheduler).__name__} is of "
            "another kind, for networks of flow matching"
        )
    if scheduler.config.prediction_type != kind:
        pipeline.scheduler = type(scheduler).from_config(scheduler.config, prediction_type=kind)


def _offloaded(offload: str | None, place: torch.device | None) -> torch.device | None:
    """The device that networks are moved to while they work."""
    if offload is None:
        return None
    device = place or torch.device("cuda")
    if device.type == "cpu" or (device.type == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"offload={offload!r} moves networks to a GPU while they work, and there is none here")
    return device


def _offload(pipeline: Any, offload: str | None, device: torch.device | None) -> None:
    if offload is not None:
        enable = pipeline.enable_model_cpu_offload if offload == "model" else pipeline.enable_sequential_cpu_offload
        enable(device=device)


def _device(device: str | torch.device | None) -> torch.device | None:
    if device is None:
        return None
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be a torch device such as 'cpu' or 'cuda', got {shown(device)}") from None
    try:
        torch.empty(1, device=place)
    except Exception as error:  # an AssertionError, a RuntimeError, a driver's own: each device has another
        reason = " ".join(str(error).split()).split(". ")[0].rstrip(".")
        raise ValueError(f"device {shown(str(place))} cannot be used here: {reason[:200]}") from error
    return place


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is None or (isinstance(found, torch.dtype) and found.is_floating_point):
        return found
    raise ValueError(f"dtype must be a floating torch dtype or its name, such as 'float16', got {shown(dtype)}")


# What a ready pipeline says of itself


def _named(pipeline: Any) -> tuple[str, str | None]:
    """(hub id, commit) or (absolute path, None) that a pipeline was opened from; ("", None) where it does not say.

    A pipeline opened by its id alone does not know the commit, but its parts lie in the commit's folder.
    """
    parts = [getattr(getattr(part, "config", None), "_name_or_path", None) for part in _networks(pipeline).values()]
    said, *more = (
        os.fspath(one) if isinstance(one, str | os.PathLike) else ""  # diffusers keeps what it was given
        for one in (getattr(pipeline, "name_or_path", None), *parts)
    )
    if not said or not isinstance(said, str):
        return "", None
    for text in (said, *more):
        match = _SNAPSHOT.search(text)
        if match and (text is said or said == f"{match[1]}/{match[2]}"):
            return f"{match[1]}/{match[2]}", match[3]
    path = Path(said).expanduser()
    return (str(path.absolute()), None) if path.exists() else ("", None)


def _networks(pipeline: Any) -> dict[str, torch.nn.Module]:
    parts = getattr(pipeline, "components", {})
    return {name: part for name, part in sorted(parts.items()) if isinstance(part, torch.nn.Module)}


def scheduler_facts(pipeline: Any) -> dict[str, Any]:
    """What the pipeline's scheduler is right now, as JSON takes it: its class, its config, and where it was moved since
    it was made of that, ``shift_of_config`` (``shift`` is what ``set_shift`` has made of it) and ``set``, the names of
    what else was set on it.
    """
    scheduler = getattr(pipeline, "scheduler", None)
    if scheduler is None:
        return {}
    config = getattr(scheduler, "config", {})
    facts = {name: _plain(value) for name, value in config.items() if not name.startswith("_")}
    by_hand = moved(scheduler) if hasattr(scheduler, "set_timesteps") else []
    if hasattr(type(scheduler), "shift"):  # else it is the config that answers
        shift = _plain(scheduler.shift)
        if facts.get("shift", shift) != shift and hasattr(scheduler, "set_shift"):
            facts["shift_of_config"] = facts["shift"]
            by_hand = [name for name in by_hand if name not in ("_shift", *_OF_SHIFT)]
        facts["shift"] = shift
    if by_hand:
        facts["set"] = by_hand
    return {**facts, "_class_name": type(scheduler).__name__}


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "tolist"):  # arrays and tensors
        return _plain(value.tolist())
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def features_of(pipeline: Any) -> dict[str, Any]:
    """What is switched on in a pipeline, and changes pictures though no weight changes: plain data, for JSON.

    Returns:
        - "scheduler": :func:`scheduler_facts`; with a model also "came_with", what they were when it was opened, where
          they are others now;
        - "freeu": network -> what ``enable_freeu`` was given (a list of these, where blocks differ);
        - "tiling", "slicing": parts that decode in pieces;
        - "attention": network -> the classes of its attention processors;
        - "adapters": network -> LoRAs that are on, with their scales and a mark of their weights;
        - "hooks": network -> hooks of diffusers (caches, layerwise casting);
        - "watermark": whether its pictures are marked.

        What is off is left out.
    """
    found: dict[str, Any] = {"scheduler": scheduler_facts(pipeline)}

    def add(kind: str, name: str, value: Any) -> None:
        if value:
            found.setdefault(kind, {})[name] = value

    for name, network in _networks(pipeline).items():
        add("freeu", name, _freeu(network))
        add("adapters", name, _active(network))
        for kind in ("tiling", "slicing"):
            add(kind, name, bool(getattr(network, f"use_{kind}", False)))
        processors: Any = getattr(network, "attn_processors", None)
        if isinstance(processors, Mapping):
            add("attention", name, sorted({type(one).__name__ for one in processors.values()}))
        hooks = [getattr(module, "_diffusers_hook", None) for module in network.modules()]
        add("hooks", name, sorted({hook for registry in hooks if registry is not None for hook in registry.hooks}))
    if getattr(pipeline, "watermark", None) is not None:
        found["watermark"] = True
    return found


def _freeu(network: torch.nn.Module) -> Any:
    blocks: Any = getattr(network, "up_blocks", None)
    if not isinstance(blocks, torch.nn.ModuleList):
        return None
    given = [{name: getattr(block, name, None) for name in ("s1", "s2", "b1", "b2")} for block in blocks]
    if not any(value is not None for one in given for value in one.values()):
        return None
    return given[0] if all(one == given[0] for one in given) else given


def _active(network: torch.nn.Module) -> dict[str, list[Any]]:
    """Adapter -> [scales, mark of its weights], of those that are on in a network."""
    scales: dict[str, set[float]] = {}
    marks: dict[str, Any] = {}
    for path, layer in network.named_modules():
        if not hasattr(layer, "active_adapters") or not hasattr(layer, "scaling") or layer.disable_adapters:
            continue
        for name in layer.active_adapters:
            if name in layer.scaling:
                scales.setdefault(name, set()).add(float(layer.scaling[name]))
                digest = marks.setdefault(name, hashlib.sha256())
                for key, weight in layer.named_parameters():
                    if _ADAPTED.search(f".{key}") and f".{name}." in f"{key}.":
                        _mark(digest, f"{path}.{key}", weight)
    return {name: [sorted(scales[name]), marks[name].hexdigest()] for name in sorted(scales)}


def weights_of(pipeline: Any) -> str:
    """A mark of a pipeline's weights, the same in every process: of each, its shape, type and a few elements.

    LoRAs do not count, whether on or off: those are said by :func:`features_of` and ``Origin.loras``.
    """
    digest = hashlib.sha256()
    for part, network in _networks(pipeline).items():
        for name, weight in network.named_parameters():
            if not _ADAPTED.search(f".{name}"):
                _mark(digest, f"{part}.{name.replace('.base_layer.', '.')}", weight)
    return digest.hexdigest()


def _mark(digest: Any, name: str, weight: torch.Tensor) -> None:
    digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
    if weight.device.type != "meta":  # offloaded weights lie elsewhere until they are used
        few = weight.detach().flatten()[:: max(1, weight.numel() // 4)]
        digest.update(few.to("cpu", torch.float32).numpy().tobytes())


def _restore(pipeline: Any, features: Mapping[str, Any]) -> None:
    """Switch on in a pipeline what can be; what cannot shows in :func:`features_of` afterwards."""
    import diffusers

    facts = features.get("scheduler")
    if facts and facts != scheduler_facts(pipeline):
        cls = getattr(diffusers, str(facts.get("_class_name")), None)
        if isinstance(cls, type) and issubclass(cls, diffusers.SchedulerMixin):
            own = {name: value for name, value in facts.items() if name not in ("_class_name", "shift_of_config")}
            own |= {"shift": facts["shift_of_config"]} if "shift_of_config" in facts else {}
            pipeline.scheduler = made = cls.from_config(own)  # type: ignore[attr-defined]
            if "shift_of_config" in facts and hasattr(made, "set_shift"):
                made.set_shift(facts["shift"])
    networks = _networks(pipeline)
    for name, values in features.get("freeu", {}).items():
        if isinstance(values, Mapping) and hasattr(networks.get(name), "enable_freeu"):
            networks[name].enable_freeu(**values)  # type: ignore[operator]
    for kind in ("tiling", "slicing"):
        for name in features.get(kind, {}):
            if hasattr(networks.get(name), f"enable_{kind}"):
                getattr(networks[name], f"enable_{kind}")()
