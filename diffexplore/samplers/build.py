"""From a name of the menu to a new diffusers scheduler: what the model says of itself, and what the entry says."""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from diffexplore.samplers.classes import facts_of
from diffexplore.samplers.menu import SAMPLERS
from diffexplore.samplers.names import unknown
from diffexplore.samplers.nets import MODEL_FACTS, cosine, shift_of
from diffexplore.samplers.sampler import Sampler

__all__ = ["build"]


def build(name: str, base_config: Mapping[str, Any], *, seed: int | Sequence[int] = 0) -> Any:
    """A new diffusers scheduler for a sampler of the menu.

    Args:
        name: a key of :data:`SAMPLERS`.
        base_config: the ``scheduler.config`` that came with the pipeline.
        seed: of the Brownian path of "DPM++ SDE", which takes no generator; one per picture of a batch, or one
            for all. The other samplers do not read it.

    Raises:
        ValueError: for an unknown name.
        ImportError: if a module which the sampler needs is not installed; names it.
    """
    entry = SAMPLERS.get(name)
    if entry is None:
        raise ValueError(unknown(name))
    if entry.missing:
        raise ImportError(
            f"the sampler {name} needs {' and '.join(entry.missing)}: pip install {' '.join(entry.missing)}"
        )
    import diffusers

    facts = {key: base_config[key] for key in MODEL_FACTS[entry.net] if key in base_config}
    if entry.net == "flow":
        facts |= _flow_facts(entry, base_config)
    config = facts | dict(entry.config)
    if "timestep_spacing" in config:
        config["timestep_spacing"] = entry.spacing(base_config)
    row = facts_of(entry.cls)
    if entry.net == "diffusion" and row is not None and row.clips and cosine(base_config):
        # The last few timesteps of a cosine schedule jump to a noise level of 20,000, where the logarithms that
        # these solvers step by say nothing; -5.1 is what diffusers advises.
        config["lambda_min_clipped"] = -5.1
    if row is not None and row.draws_noise == "path":
        # Without one, the path would be seeded from torch's global generator.
        config["noise_sampler_seed"] = seed if isinstance(seed, int) else [int(one) for one in seed]
    scheduler_class = getattr(diffusers, entry.cls)
    known = inspect.signature(scheduler_class.__init__).parameters
    scheduler = scheduler_class(**{key: value for key, value in config.items() if key in known})
    # What only the pipeline reads (the resolutions of a flow net's shift) goes into the config beside the rest.
    # from_config would do both, and warn about it.
    scheduler.register_to_config(**{key: value for key, value in config.items() if key not in known})
    return scheduler


def _flow_facts(entry: Sampler, base_config: Mapping[str, Any]) -> dict[str, Any]:
    """The shift of a flow net's noise levels, in the words of an entry's class."""
    shift = shift_of(base_config)
    row = facts_of(entry.cls)
    if row is not None and row.velocity:
        return {"shift": shift}
    facts = {"flow_shift": shift}
    if entry.cls == "DPMSolverMultistepScheduler" and not base_config.get("use_dynamic_shifting"):
        # Flux computes a shift from the size of the picture and passes it on in any case (mu, the logarithm of
        # the shift); this class takes it only if the shift is a dynamic one. With both ends of the range at
        # this model's own shift, the one computed is that very shift, at any size.
        dynamic = {"use_dynamic_shifting": True, "time_shift_type": "exponential"}
        return {**facts, **dynamic, "base_shift": math.log(shift), "max_shift": math.log(shift)}
    return facts
