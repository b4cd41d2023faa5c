"""What the scheduler config of a pipeline says of its net: which kind it is, what it predicts, how it was trained."""

import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from diffexplore.samplers.classes import facts_of

__all__ = [
    "DIFFUSION", "FLOW", "MODEL_FACTS", "SCALING", "SPACINGS", "blind", "cosine", "net_of", "prediction_of",
    "shift_of", "sigmas_of", "zero_snr",
]  # fmt: skip

SCALING = frozenset({"sd", "sdxl", "pixart"})  # pipelines that call scale_model_input before the net
DIFFUSION = SCALING | {"kandinsky3"}
"""Families of pipelines whose nets were trained on the discrete diffusion of DDPM."""
FLOW = frozenset({"sd3", "flux", "sana", "zimage", "qwen"})
"""Families of pipelines whose nets were trained by flow matching."""

_BETAS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
    "steps_offset",
    "set_alpha_to_one",
)
_DISTILLED = (*_BETAS, "original_inference_steps", "timestep_scaling")
MODEL_FACTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "diffusion": _BETAS,
        "lcm": _DISTILLED,
        "tcd": _DISTILLED,
        "edm": ("num_train_timesteps", "prediction_type", "sigma_min", "sigma_max", "sigma_data", "sigma_schedule",
                "rho"),
        # The shift itself goes by two names and is written by `build`. Pipelines read the four numbers of
        # the resolution from the config of whatever scheduler they hold.
        "flow": ("num_train_timesteps", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len",
                 "max_image_seq_len", "invert_sigmas", "shift_terminal", "time_shift_type", "stochastic_sampling"),
    }
)  # fmt: skip
"""For each kind of net, the keys of its pipeline's scheduler config that describe the net and not a way to
sample from it.
"""

SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
"""The words by which a class is asked to space its noise levels anew."""


def net_of(base_config: Mapping[str, Any]) -> str:
    """The kind of net behind a pipeline's own scheduler config, a key of :data:`MODEL_FACTS`."""
    name = str(base_config.get("_class_name", ""))
    facts = facts_of(name)
    if facts is not None and facts.edm:
        return "edm"
    if prediction_of(base_config) == "flow_prediction" or base_config.get("use_flow_sigmas"):
        return "flow"
    return {"LCMScheduler": "lcm", "TCDScheduler": "tcd"}.get(name, "diffusion")


def prediction_of(base_config: Mapping[str, Any]) -> str:
    """What the net answers with."""
    if _velocity(base_config):
        return "flow_prediction"
    return str(base_config.get("prediction_type", "epsilon"))


def zero_snr(base_config: Mapping[str, Any]) -> bool:
    """Whether the net was trained down to pure noise (zero terminal SNR; Lin et al. 2023, 2305.08891)."""
    return bool(base_config.get("rescale_betas_zero_snr"))


def blind(base_config: Mapping[str, Any]) -> bool:
    """Whether the net says nothing of the picture at its last timestep: it predicts the noise, and that is all there
    is, so that x0 = (x_t - b noise) / a is 0 / 0.
    """
    return zero_snr(base_config) and prediction_of(base_config) == "epsilon"


def sigmas_of(base_config: Mapping[str, Any]) -> tuple[float, ...]:
    """The noise level b / a of each timestep that a diffusion net was trained on, cleanest first; empty where its
    config does not tell.
    """
    trained = base_config.get("trained_betas")
    return _sigmas(
        str(base_config.get("beta_schedule", "linear")),
        float(base_config.get("beta_start", 0.0001)),
        float(base_config.get("beta_end", 0.02)),
        int(base_config.get("num_train_timesteps", 1000)),
        None if trained is None else tuple(float(beta) for beta in trained),
        zero_snr(base_config),
    )


@functools.lru_cache(maxsize=32)
def _sigmas(
    schedule: str, start: float, end: float, count: int, trained: tuple[float, ...] | None, rescaled: bool
) -> tuple[float, ...]:
    def even(first: float, last: float) -> list[float]:
        return [first + (last - first) * i / max(count - 1, 1) for i in range(count)]

    def share(part: float) -> float:  # Nichol & Dhariwal 2021 (2102.09672), eq. 17
        return math.cos((part + 0.008) / 1.008 * math.pi / 2) ** 2

    if trained is not None:
        betas = list(trained)
    elif schedule == "linear":
        betas = even(start, end)
    elif schedule == "scaled_linear":
        betas = [root**2 for root in even(start**0.5, end**0.5)]
    elif schedule == "squaredcos_cap_v2":
        betas = [min(1 - share((i + 1) / count) / share(i / count), 0.999) for i in range(count)]
    else:
        return ()
    shares, left = [], 1.0
    for beta in betas:
        left *= 1 - beta
        shares.append(left)
    if rescaled and len(shares) > 1:
        first, last = shares[0] ** 0.5, shares[-1] ** 0.5  # Lin et al. 2023, algorithm 1
        shares = [((one**0.5 - last) * first / (first - last)) ** 2 for one in shares]
        shares[-1] = 2.0**-24  # as diffusers: its root is still a number in half precision
    return tuple(math.sqrt((1 - one) / one) if 0 < one <= 1 else math.inf for one in shares)


def cosine(base_config: Mapping[str, Any]) -> bool:
    """Whether its noise schedule is the cosine one, which ends at a noise level of 20,000."""
    return base_config.get("beta_schedule") == "squaredcos_cap_v2" and not base_config.get("trained_betas")


def shift_of(base_config: Mapping[str, Any]) -> float:
    """The shift of a flow net's noise levels; 1 where none is told."""
    # A config may hold both words, one of them left over from a class before: its own class's word counts.
    own, other = ("shift", "flow_shift")
    if "_class_name" in base_config and not _velocity(base_config):
        own, other = other, own
    for key in (own, other):
        if base_config.get(key) is not None:
            return float(base_config[key])
    return 1.0


def _velocity(base_config: Mapping[str, Any]) -> bool:
    # A class of flow matching that has no row yet still tells itself by its name.
    name = str(base_config.get("_class_name", ""))
    facts = facts_of(name)
    return facts.velocity if facts is not None else name.startswith("FlowMatch")
