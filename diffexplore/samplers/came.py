"""The scheduler that came with a pipeline: its name in the menu, a copy of it for a run, and its state as data.

A named sampler is built from what the *model* says of itself (``build``). What came is taken as it stands, with
everything that was set on it since: a shift, a spacing, a class that the menu does not have.
"""

import contextlib
import copy
import functools
import hashlib
import inspect
import re
from collections.abc import Hashable, Mapping, Sequence
from types import MethodType
from typing import Any

from diffexplore.samplers.classes import facts_of
from diffexplore.samplers.menu import SAMPLERS
from diffexplore.samplers.nets import MODEL_FACTS, SPACINGS

__all__ = ["AS_IT_CAME", "begin", "changed", "copied", "described", "moved", "noise_of", "state_of"]

AS_IT_CAME = "as it came"
"""What ``Settings.sampler`` calls the pipeline's own scheduler."""

_RESPACED = {"use_karras_sigmas": "Karras", "use_exponential_sigmas": "Exponential", "use_beta_sigmas": "Beta"}
# Of a config, what pipelines themselves read: it counts also where the class of the scheduler has no such argument.
_READ = frozenset({*MODEL_FACTS["flow"], "steps_offset", "original_inference_steps", "sigma_data", "use_flow_sigmas"})
_FLAGS = ("is_scale_input_called",)  # whether to warn


# In words


def described(scheduler: Any) -> str:
    """What a scheduler is, in the menu's words: "Euler, leading"."""
    config, takes = _config(scheduler), _takes(scheduler)
    said = [_named(type(scheduler).__name__, config)]
    if "timestep_spacing" in takes and config.get("timestep_spacing"):
        said.append(str(config["timestep_spacing"]))
    if "variance_type" in takes and config.get("variance_type") not in (None, "fixed_small"):
        said.append(str(config["variance_type"]))
    if config.get("rescale_betas_zero_snr"):
        said.append("zero terminal SNR")
    shift = config.get("flow_shift") if config.get("use_flow_sigmas") else config.get("shift")
    shift = scheduler.shift if hasattr(type(scheduler), "shift") else shift
    if config.get("use_dynamic_shifting"):
        said.append("shift by size")
    elif isinstance(shift, int | float):
        said.append(f"shift {shift:g}")
    if config.get("stochastic_sampling"):
        said.append("stochastic")
    return ", ".join(said)


def _named(cls: str, config: Mapping[str, Any]) -> str:
    """The menu's name for a class with a config, and what is different about it."""
    kind, order, flow = config.get("algorithm_type"), config.get("solver_order"), bool(config.get("use_flow_sigmas"))
    respaced = [word for key, word in _RESPACED.items() if config.get(key)]
    rows = [entry for entry in SAMPLERS.values() if entry.cls == cls and not entry.respaced]
    rows = [entry for entry in rows if bool(entry.config.get("use_flow_sigmas")) == flow]
    of_kind = [entry for entry in rows if entry.config.get("algorithm_type") in (None, kind)]
    exact = [entry for entry in of_kind if entry.config.get("solver_order") in (None, order)]
    if cls == "PNDMScheduler":
        exact = [entry for entry in exact if bool(entry.config.get("skip_prk_steps")) == bool(config["skip_prk_steps"])]
    own = re.sub(r"(Discrete|Multistep|Singlestep)*Scheduler$", "", cls) or cls
    name = (exact or of_kind)[0].name if exact or of_kind else " ".join([own, *([str(kind)] if rows else [])])
    return " ".join([name, *respaced]) + ("" if exact or order is None else f" of order {order}")


def changed(name: str, built: Any, came: Any) -> str:
    """What a sampler of the menu does otherwise than the scheduler which came: its spacing and its order.

    Args:
        name: of the sampler.
        built: its scheduler.
        came: the pipeline's own.

    Returns:
        One sentence; "" where neither is another.
    """
    ours, theirs = _config(built), _config(came)
    both = _takes(built) & _takes(came)
    found = []
    spaced, spacing = (
        next((word for key, word in _RESPACED.items() if one.get(key)), one.get("timestep_spacing"))
        for one in (ours, theirs)
    )
    if both & {"timestep_spacing", *SPACINGS} and spaced != spacing and None not in (spaced, spacing):
        found.append(f"its steps are spaced {spaced}, those that came {spacing}")
    order = (ours.get("solver_order"), theirs.get("solver_order"))
    if type(built) is type(came) and "solver_order" in both and order[0] != order[1]:
        found.append(f"it is of order {order[0]}, what came of order {order[1]}")
    return f"{name} is not what came with this model: {' and '.join(found)}." if found else ""


def noise_of(cls: str, config: Mapping[str, Any]) -> str:
    """What a scheduler of a class and a config adds on the way, as :attr:`SchedulerClass.draws_noise` says it."""
    facts = facts_of(cls)
    if config.get("stochastic_sampling"):
        return "fresh"
    return "" if facts is None else facts.noise(config)


# For a run


def copied(scheduler: Any, *, seed: int | Sequence[int] = 0) -> Any:
    """A copy of a scheduler with all that was set on it, also by hand: methods put on it are then the copy's.

    Args:
        scheduler: any; left as it is.
        seed: of a Brownian path that nobody has given one, which would be drawn from torch's global generator.
    """
    made = copy.deepcopy(scheduler)
    for name, value in list(vars(made).items()):
        if inspect.isfunction(value):
            # A plain function is not copied: whatever it was bound to is still the original.
            vars(made)[name] = _rebound(value, {id(scheduler): made})
    facts = facts_of(made)
    if facts is not None and facts.draws_noise == "path" and getattr(made, "noise_sampler_seed", 0) is None:
        made.noise_sampler_seed = seed if isinstance(seed, int) else [int(one) for one in seed]
    return made


def _rebound(function: Any, instead: Mapping[int, Any]) -> Any:
    """The same function of other objects, wherever it has closed over one of them or over a method of it."""
    import types

    def other(value: Any) -> Any:
        if id(value) in instead:
            return instead[id(value)]
        if isinstance(value, MethodType) and id(value.__self__) in instead:
            return MethodType(value.__func__, instead[id(value.__self__)])
        if isinstance(value, functools.partial):
            words = {name: other(one) for name, one in value.keywords.items()}
            return functools.partial(other(value.func), *map(other, value.args), **words)
        if isinstance(value, types.FunctionType) and value.__closure__ and value is not function:
            return _rebound(value, instead)
        return value

    cells = function.__closure__ or ()
    try:
        held = [cell.cell_contents for cell in cells]
    except ValueError:  # an empty cell
        return function
    made = [other(value) for value in held]
    defaults = None if function.__defaults__ is None else tuple(map(other, function.__defaults__))
    same = all(a is b for a, b in zip(held, made, strict=True))
    if same and all(a is b for a, b in zip(function.__defaults__ or (), defaults or (), strict=True)):
        return function
    again = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, defaults, tuple(map(types.CellType, made))
    )
    again.__kwdefaults__ = function.__kwdefaults__
    vars(again).update({name: other(value) for name, value in vars(function).items()})
    return again


# As data


def state_of(scheduler: Any) -> Hashable | None:
    """All that decides what a scheduler does in a run: equal states, equal runs.

    What earlier runs left in it does not count: states are compared as they are after ``set_timesteps``.

    Returns:
        None where it holds something that cannot be seen from here, such as a function of the user's own.
    """
    made = copy.deepcopy(scheduler)
    with contextlib.suppress(Exception):  # where it wants to be told more, it is compared as it stands
        begin(made, 4)
    facts: list[Any] = [type(made).__module__, type(made).__qualname__, id(type(made))]
    config, takes = _config(made), _takes(made)
    facts += sorted((name, repr(value)) for name, value in config.items() if name in takes or name in _READ)
    try:
        for name, value in sorted(vars(made).items()):
            if name not in _FLAGS and name != "_internal_dict":
                facts.append((name, _seen(value)))
    except TypeError:
        return None
    return hashlib.blake2b(repr(facts).encode(), digest_size=16).digest()


def moved(scheduler: Any) -> list[str]:
    """What was set on a scheduler since it was made of its config: names of attributes, of those that the next run does
    not set anew."""
    try:
        given = {name: value for name, value in _config(scheduler).items() if name in _takes(scheduler)}
        fresh, now = type(scheduler)(**given), copy.deepcopy(scheduler)
        for one in (fresh, now):
            with contextlib.suppress(ValueError):
                begin(one, 4)
    except Exception:  # one that cannot be made of its config: nobody knows what was set
        return []
    before, after = vars(fresh), vars(now)
    put = {name for name, value in after.items() if name not in before and callable(value)}
    names = before.keys() - {"_internal_dict", *_FLAGS}
    return sorted(put | {name for name in names if _mark(before[name]) != _mark(after.get(name))})


def begin(scheduler: Any, steps: int, shift: float = 1.0) -> None:
    """Let it set its timesteps, as at the start of a run; with `shift`, where the size of a picture would tell one.

    Raises:
        Exception: whatever it says of so many steps.
    """
    takes = inspect.signature(scheduler.set_timesteps).parameters
    dynamic = "mu" in takes and _config(scheduler).get("use_dynamic_shifting")
    scheduler.set_timesteps(steps, **({"mu": shift} if dynamic else {}))


def _mark(value: Any) -> Any:
    try:
        return _seen(value)
    except TypeError:
        return "unseen"


def _seen(value: Any) -> Any:
    """A value as plain data.

    Raises:
        TypeError: for what it cannot be said of.
    """
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, list | tuple):
        return [_seen(one) for one in value]
    if isinstance(value, Mapping):
        return sorted((str(name), _seen(one)) for name, one in value.items())
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if hasattr(value, "detach"):  # a tensor; its device does not matter
        value = value.detach().cpu().double().numpy()
    if hasattr(value, "tobytes") and hasattr(value, "dtype") and value.dtype != object:
        return str(value.dtype), value.shape, hashlib.blake2b(value.tobytes(), digest_size=16).digest()
    if inspect.isfunction(value) and not value.__closure__:
        return value.__module__, value.__qualname__, hash(value.__code__), _seen(value.__defaults__)
    if isinstance(value, type) or (inspect.isbuiltin(value) and value.__self__ is None):
        return repr(value)
    raise TypeError(type(value).__name__)


def _config(scheduler: Any) -> Mapping[str, Any]:
    config: Mapping[str, Any] = getattr(scheduler, "config", {})
    return config


def _takes(scheduler: Any) -> set[str]:
    return set(inspect.signature(type(scheduler).__init__).parameters)
