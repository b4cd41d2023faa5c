"""The sampler menu: the names people use, and the diffusers scheduler each of them is.

Importing this room costs nothing (no torch, no diffusers): ``Settings`` and the widgets read the table.
:func:`build` makes the scheduler itself; it is public, so that anybody can run a plain diffusers pipeline
with the very same one::

    pipe.scheduler = samplers.build("DPM++ 2M Karras", pipe.scheduler.config)

A scheduler is built from what the *model* says of itself (betas, prediction type: :data:`MODEL_FACTS`) plus
what the *entry* says, and from nothing else. ``from_config`` of a whole foreign config would carry old
choices along: an Euler made from a Karras config stays Karras, a DPM++ 2M made from an SDE config stays SDE,
a DDIM made from a config without ``clip_sample`` clips latents to +-1.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["MODEL_FACTS", "SAMPLERS", "Sampler", "build", "suitable"]

DIFFUSION = frozenset({"sd", "sdxl"})
"""Families of pipelines whose nets were trained on the discrete diffusion of DDPM and which scale the net's
input as asked.
"""

MODEL_FACTS = (
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
"""Keys of a pipeline's scheduler config that describe its net, not a way to sample from it."""


@dataclass(frozen=True)
class Sampler:
    """One line of the menu.

    Attributes:
        name: what the menu, ``Settings.sampler`` and papers call it.
        cls: diffusers class name.
        config: what is set on top of the model's own facts.
        sentence: one sentence for learners.
        per_step: model evaluations per step ...
        extra: ... and how many more in all; see :meth:`evaluations`.
        families: pipeline families for which it is mathematically right.
        predictions: prediction types that the class can read.
        zero_snr: whether the class can rescale the betas to zero terminal SNR, for nets trained that way.
        needs: modules beyond diffusers that it imports.
    """

    name: str
    cls: str
    config: Mapping[str, Any]
    sentence: str
    per_step: int = 1
    extra: int = 0
    families: frozenset[str] = DIFFUSION
    predictions: frozenset[str] = frozenset({"epsilon", "v_prediction", "sample"})
    zero_snr: bool = False
    needs: tuple[str, ...] = field(default=())

    def evaluations(self, steps: int) -> int:
        """How often the model is evaluated for so many steps (both halves of guidance are one evaluation)."""
        # A single step leaves no room for a second stage or a warm-up.
        return 1 if steps == 1 else self.per_step * steps + self.extra

    @property
    def missing(self) -> tuple[str, ...]:
        """Modules it needs that are not installed."""
        return tuple(name for name in self.needs if importlib.util.find_spec(name) is None)


# Schedules. Every key is written out even where it is the class's default today: defaults differ between
# classes, and they move.
_LEADING = {"timestep_spacing": "leading"}  # t = 0, k, 2k, ... (+ steps_offset): what DDIM and PLMS step through
_LINSPACE = {"timestep_spacing": "linspace"}  # from the noisiest level down, as k-diffusion counts
_PLAIN = {**_LINSPACE, "use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_KARRAS = {**_PLAIN, "use_karras_sigmas": True}

_NOT_SAMPLE = frozenset({"epsilon", "v_prediction"})  # classes that raise, or have no formula, for nets that predict x0

_UNCLIPPED = {"clip_sample": False, "thresholding": False}  # clipping to +-1 is for pixels, latents are wider
_DPM = {
    "thresholding": False,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "use_flow_sigmas": False,
}
_DPM_2M = {**_DPM, "algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}
_DPM_2M_SDE = {**_DPM_2M, "algorithm_type": "sde-dpmsolver++"}
_DPM_3M_SDE = {**_DPM_2M_SDE, "solver_order": 3}


def _menu(*entries: Sampler) -> Mapping[str, Sampler]:
    return MappingProxyType({entry.name: entry for entry in entries})


SAMPLERS: Mapping[str, Sampler] = _menu(
    Sampler(
        "DPM++ 2M Karras",
        "DPMSolverMultistepScheduler",
        {**_DPM_2M, **_KARRAS},
        "Remembers the step before, and takes small ones near the end: good pictures in about 20 steps.",
        zero_snr=True,
    ),
    Sampler(
        "DPM++ 2M",
        "DPMSolverMultistepScheduler",
        {**_DPM_2M, **_PLAIN},
        "Remembers the step before for a second-order one, at evenly spaced timesteps.",
        zero_snr=True,
    ),
    Sampler(
        "DPM++ 2M SDE Karras",
        "DPMSolverMultistepScheduler",
        {**_DPM_2M_SDE, **_KARRAS},
        "DPM++ 2M that puts fresh noise back at every step: more texture, and more steps change the picture.",
        zero_snr=True,
    ),
    Sampler(
        "DPM++ 3M SDE Karras",
        "DPMSolverMultistepScheduler",
        {**_DPM_3M_SDE, **_KARRAS},
        "Looks two steps back and adds fresh noise: wants more steps (30 or so) and rewards them.",
        zero_snr=True,
    ),
    Sampler(
        "UniPC",
        "UniPCMultistepScheduler",
        {
            **_PLAIN,
            "solver_order": 2,
            "solver_type": "bh2",
            "predict_x0": True,
            "thresholding": False,
            "lower_order_final": True,
            "final_sigmas_type": "zero",
            "use_flow_sigmas": False,
        },
        "Predicts, then corrects itself with the next evaluation at no extra cost: made for 5 to 10 steps.",
        zero_snr=True,
    ),
    Sampler(
        "Euler",
        "EulerDiscreteScheduler",
        {**_PLAIN, "interpolation_type": "linear", "final_sigmas_type": "zero"},
        "The simplest: walk straight along the current slope to the next noise level.",
        zero_snr=True,
    ),
    Sampler(
        "Euler a",
        "EulerAncestralDiscreteScheduler",
        {**_LINSPACE},
        "Euler that overshoots and adds fresh noise: more steps give another picture, not a finer one.",
        zero_snr=True,
        predictions=_NOT_SAMPLE,
    ),
    Sampler(
        "Heun",
        "HeunDiscreteScheduler",
        {**_PLAIN, "clip_sample": False},
        "Walks each step twice and averages both slopes: more exact than Euler for twice the work.",
        per_step=2,
        extra=-1,
    ),
    Sampler(
        "DPM2",
        "KDPM2DiscreteScheduler",
        {**_PLAIN},
        "Takes the slope from the middle of each step: second order, twice the work.",
        per_step=2,
        extra=-1,
        predictions=_NOT_SAMPLE,
    ),
    Sampler(
        "DPM2 a",
        "KDPM2AncestralDiscreteScheduler",
        {**_PLAIN},
        "DPM2 with fresh noise at every step.",
        per_step=2,
        extra=-1,
        predictions=_NOT_SAMPLE,
    ),
    Sampler(
        "LMS",
        "LMSDiscreteScheduler",
        {**_PLAIN},
        "Fits a curve through the last four slopes: cheap and smooth, at times unstable with few steps.",
        needs=("scipy",),
    ),
    Sampler(
        "DEIS",
        "DEISMultistepScheduler",
        {
            **_PLAIN,
            "solver_order": 2,
            "algorithm_type": "deis",
            "solver_type": "logrho",
            "thresholding": False,
            "lower_order_final": True,
            "use_flow_sigmas": False,
        },
        "Solves the easy half of the equation exactly and extrapolates the rest: made for few steps.",
    ),
    Sampler(
        "DDIM",
        "DDIMScheduler",
        {**_LEADING, **_UNCLIPPED},
        "The first fast one: jumps to the x0 estimate and back to the next noise level; nothing is random.",
        zero_snr=True,
    ),
    Sampler(
        "DDPM",
        "DDPMScheduler",
        {**_LEADING, **_UNCLIPPED, "variance_type": "fixed_small"},
        "The original: a small step and fresh noise each time; wants hundreds of steps.",
        zero_snr=True,
    ),
    Sampler(
        "PLMS",
        "PNDMScheduler",
        {**_LEADING, "skip_prk_steps": True},
        "DDIM with a memory of four slopes; Stable Diffusion's first default. Evaluates one step twice.",
        extra=1,
        predictions=_NOT_SAMPLE,
    ),
)


def build(name: str, base_config: Mapping[str, Any]) -> Any:
    """A new diffusers scheduler for a sampler of the menu.

    Args:
        name: a key of :data:`SAMPLERS`.
        base_config: the ``scheduler.config`` that came with the pipeline.

    Raises:
        ValueError: for an unknown name.
        ImportError: if a module which the sampler needs is not installed; names it.
    """
    entry = SAMPLERS.get(name)
    if entry is None:
        from .settings import near, shown

        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}; got {shown(name)}{near(name, SAMPLERS)}")
    if entry.missing:
        raise ImportError(
            f"the sampler {name} needs {' and '.join(entry.missing)}: pip install {' '.join(entry.missing)}"
        )
    import diffusers

    scheduler = getattr(diffusers, entry.cls)
    config = {key: base_config[key] for key in MODEL_FACTS if key in base_config} | dict(entry.config)
    if config.get("rescale_betas_zero_snr"):
        # A net trained down to pure noise must start there; "leading" never visits the last timestep (Lin et
        # al. 2023, 2305.08891).
        config["timestep_spacing"] = "trailing"
    return scheduler.from_config(config)


def suitable(name: str, family: str, base_config: Mapping[str, Any]) -> str:
    """ "" if a sampler of the menu is right for a pipeline and can run here, else why not, in a few words."""
    entry = SAMPLERS[name]
    prediction = base_config.get("prediction_type", "epsilon")
    if family not in entry.families:
        return f"it is not made for pipelines of the family {family!r}"
    if prediction not in entry.predictions:
        return f"it cannot read a net that predicts {prediction!r}"
    if base_config.get("rescale_betas_zero_snr") and not entry.zero_snr:
        return "it cannot start from the pure noise (zero terminal SNR) that this net was trained on"
    if entry.missing:
        return f"it needs {' and '.join(entry.missing)}, which is not installed"
    return ""
