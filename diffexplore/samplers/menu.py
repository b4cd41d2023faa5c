"""The sampler menu: the names people use, and the diffusers scheduler each of them is.

Importing this room costs nothing (no torch, no diffusers): ``Settings`` and the widgets read the table.
:func:`build` makes the scheduler itself; it is public, so that anybody can run a plain diffusers pipeline
with the very same one::

    pipe.scheduler = samplers.build("DPM++ 2M Karras", pipe.scheduler.config)

A scheduler is built from what the *model* says of itself (:data:`MODEL_FACTS`: betas, prediction type, the
shift of a flow net) plus what the *entry* says, and from nothing else. ``from_config`` of a whole foreign
config would carry old choices along: an Euler made from a Karras config stays Karras, a DPM++ 2M made from an
SDE config stays SDE, a DDIM made from a config without ``clip_sample`` clips latents to +-1.

:func:`suitable` says whether an entry is right for a pipeline, :meth:`Sampler.refusal` whether a number of
steps is. Both exist because diffusers checks neither: most wrong combinations run, and draw something.
"""

import importlib.util
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["MODEL_FACTS", "SAMPLERS", "Sampler", "build", "native", "suitable"]

_SCALING = frozenset({"sd", "sdxl", "pixart"})  # pipelines that call scale_model_input before the net
DIFFUSION = _SCALING | {"kandinsky3"}
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
        # The shift itself goes by two names and is written by _flow_facts. Pipelines read the four numbers of
        # the resolution from the config of whatever scheduler they hold.
        "flow": ("num_train_timesteps", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len",
                 "max_image_seq_len", "invert_sigmas", "shift_terminal", "time_shift_type", "stochastic_sampling"),
    }
)  # fmt: skip
"""For each kind of net, the keys of its pipeline's scheduler config that describe the net and not a way to
sample from it.
"""


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
        net: the kind of net it samples from, a key of :data:`MODEL_FACTS`.
        few: fewest steps its class can take.
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
    net: str = "diffusion"
    few: int = 1

    def evaluations(self, steps: int) -> int:
        """How often the model is evaluated for so many steps (both halves of guidance are one evaluation)."""
        # A single step leaves no room for a second stage or a warm-up.
        return 1 if steps == 1 else self.per_step * steps + self.extra

    @property
    def missing(self) -> tuple[str, ...]:
        """Modules it needs that are not installed."""
        return tuple(name for name in self.needs if importlib.util.find_spec(name) is None)

    def least(self, base_config: Mapping[str, Any]) -> int:
        """Fewest steps with which it is right for a model; `base_config` is what its pipeline's scheduler came with."""
        if self._spacing(base_config) == "trailing":
            return 1  # the others put the only step of one at timestep 0, where there is no noise left to remove
        # Stretching a schedule so that it ends at a given level divides by what its last level lacks to 1; the
        # last level of a single step is 1.
        stretched = self.net == "flow" and bool(base_config.get("shift_terminal"))
        return max(self.few, 2 if stretched else 1)

    def most(self, base_config: Mapping[str, Any]) -> int:
        """Most steps with which it is right for a model, whose scheduler came with `base_config`; with more, diffusers
        runs off its tables or divides by zero in the middle of a run.
        """
        train = int(base_config.get("num_train_timesteps", 1000))
        if self.net in ("lcm", "tcd"):
            return int(base_config.get("original_inference_steps") or 50)
        spacing = self._spacing(base_config)
        if spacing == "leading":
            return train - int(base_config.get("steps_offset") or 0)
        if self.cls in _PRESERVING and self.net == "diffusion" and not self._respaced and spacing != "trailing":
            # These leave out timestep 0, so the last of `train` steps would stand still: two equal noise levels,
            # and the slope between them is 0 / 0. A clipped cosine schedule has a few less.
            return train * 99 // 100 if _cosine(base_config) else train - 1
        return train

    def refusal(self, steps: int, base_config: Mapping[str, Any]) -> str:
        """Why it cannot take so many `steps` with a model, whose scheduler came with `base_config`.

        Returns:
            One sentence without a full stop; "" if it can.
        """
        for bound, number, wrong in (
            ("at least", self.least(base_config), steps < self.least(base_config)),
            ("at most", self.most(base_config), steps > self.most(base_config)),
        ):
            if wrong:
                return f"{self.name} takes {bound} {number} steps with this model, got {steps}"
        if self._spacing(base_config) != "trailing" or self._respaced:
            return ""
        train = int(base_config.get("num_train_timesteps", 1000))

        def slips(count: int) -> bool:
            # diffusers counts down from `train` in float steps; where those round badly it takes one too many,
            # past timestep 0.
            return math.ceil(train / (train / count)) != count

        if not slips(steps):
            return ""
        nearest = next(n for n in range(steps - 1, 0, -1) if not slips(n))
        return f"{self.name} cannot part {train} timesteps into {steps} steps without a rounding slip; {nearest} works"

    @property
    def _respaced(self) -> bool:
        """Whether the noise levels are spaced anew (Karras, exponential, beta), whatever the timesteps were."""
        return any(self.config.get(key) for key in _SPACINGS)

    def _spacing(self, base_config: Mapping[str, Any]) -> str:
        spacing = str(self.config.get("timestep_spacing", ""))
        # A net trained down to pure noise must start there; "leading" never visits the last timestep (Lin et al.
        # 2023, 2305.08891).
        return "trailing" if spacing and self.zero_snr and _zero_snr(base_config) else spacing


# Schedules. Every key is written out even where it is the class's default today: defaults differ between
# classes, and they move.
_SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
_EVEN = dict.fromkeys(_SPACINGS, False)
_LEADING = {"timestep_spacing": "leading"}  # t = 0, k, 2k, ... (+ steps_offset): what DDIM and PLMS step through
_LINSPACE = {"timestep_spacing": "linspace"}  # from the noisiest level down, as k-diffusion counts
_TRAILING = {"timestep_spacing": "trailing"}  # from the noisiest level down in equal parts (Lin et al. 2023)
_PLAIN = {**_LINSPACE, **_EVEN}
_KARRAS = {**_PLAIN, "use_karras_sigmas": True}
_EXPONENTIAL = {**_PLAIN, "use_exponential_sigmas": True}
_BETA = {**_PLAIN, "use_beta_sigmas": True}

_NOT_SAMPLE = frozenset({"epsilon", "v_prediction"})  # classes that raise, or have no formula, for nets that predict x0
_FLOWING = frozenset({"flow_prediction"})

# Classes that keep x_t at unit variance, and so need no scaling of the net's input, by noise levels alone.
_PRESERVING = frozenset(
    {
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "DEISMultistepScheduler",
        "UniPCMultistepScheduler",
        "SASolverScheduler",
    }
)
_CLIPPING = frozenset({"DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "SASolverScheduler"})

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
_DPM_2S = {**_DPM_2M, **_EVEN}  # this class knows one spacing and takes no word for it
_UNIPC = {
    "solver_order": 2,
    "solver_type": "bh2",
    "predict_x0": True,
    "thresholding": False,
    "lower_order_final": True,
    "final_sigmas_type": "zero",
    "use_flow_sigmas": False,
}
_EULER = {"interpolation_type": "linear", "final_sigmas_type": "zero"}
_FLOW_SIGMAS = {**_PLAIN, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}


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
        {**_UNIPC, **_PLAIN},
        "Predicts, then corrects itself with the next evaluation at no extra cost: made for 5 to 10 steps.",
        zero_snr=True,
    ),
    Sampler(
        "Euler",
        "EulerDiscreteScheduler",
        {**_EULER, **_PLAIN},
        "The simplest: walk straight along the current slope to the next noise level.",
        families=_SCALING,
        zero_snr=True,
        few=2,
    ),
    Sampler(
        "Euler a",
        "EulerAncestralDiscreteScheduler",
        {**_LINSPACE},
        "Euler that overshoots and adds fresh noise: more steps give another picture, not a finer one.",
        families=_SCALING,
        zero_snr=True,
        predictions=_NOT_SAMPLE,
        few=2,
    ),
    Sampler(
        "Heun",
        "HeunDiscreteScheduler",
        {**_PLAIN, "clip_sample": False},
        "Walks each step twice and averages both slopes: more exact than Euler for twice the work.",
        per_step=2,
        extra=-1,
        families=_SCALING,
        few=2,
    ),
    Sampler(
        "DPM2",
        "KDPM2DiscreteScheduler",
        {**_PLAIN},
        "Takes the slope from the middle of each step: second order, twice the work.",
        per_step=2,
        extra=-1,
        families=_SCALING,
        predictions=_NOT_SAMPLE,
        few=2,
    ),
    Sampler(
        "DPM2 a",
        "KDPM2AncestralDiscreteScheduler",
        {**_PLAIN},
        "DPM2 with fresh noise at every step.",
        per_step=2,
        extra=-1,
        families=_SCALING,
        predictions=_NOT_SAMPLE,
        few=2,
    ),
    Sampler(
        "LMS",
        "LMSDiscreteScheduler",
        {**_PLAIN},
        "Fits a curve through the last four slopes: cheap and smooth, at times unstable with few steps.",
        families=_SCALING,
        needs=("scipy",),
        few=2,
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
        few=2,
    ),
    Sampler(
        "DDPM",
        "DDPMScheduler",
        {**_LEADING, **_UNCLIPPED, "variance_type": "fixed_small"},
        "The original: a small step and fresh noise each time; wants hundreds of steps.",
        zero_snr=True,
        few=2,
    ),
    Sampler(
        "PLMS",
        "PNDMScheduler",
        {**_LEADING, "skip_prk_steps": True},
        "DDIM with a memory of four slopes; Stable Diffusion's first default. Evaluates one step twice.",
        extra=1,
        predictions=_NOT_SAMPLE,
        few=2,
    ),
    Sampler(
        "PNDM",
        "PNDMScheduler",
        {**_LEADING, "skip_prk_steps": False},
        "PLMS as first published: it earns its memory by three Runge-Kutta steps, nine evaluations more.",
        extra=9,
        predictions=_NOT_SAMPLE,
        few=4,
    ),
    Sampler(
        "DPM++ SDE Karras",
        "DPMSolverSDEScheduler",
        {**_KARRAS},
        "Two evaluations per step, noise from one Brownian path, small steps at the end: detail from 10 to 15 steps.",
        per_step=2,
        extra=-1,
        families=_SCALING,
        predictions=_NOT_SAMPLE,
        needs=("torchsde", "scipy"),
        few=2,
    ),
    Sampler(
        "DPM++ SDE",
        "DPMSolverSDEScheduler",
        {**_PLAIN},
        "Two evaluations per step and noise from one Brownian path, so that more steps refine the picture.",
        per_step=2,
        extra=-1,
        families=_SCALING,
        predictions=_NOT_SAMPLE,
        needs=("torchsde", "scipy"),
        few=2,
    ),
    Sampler(
        "DPM++ 2S Karras",
        "DPMSolverSinglestepScheduler",
        {**_DPM_2S, "use_karras_sigmas": True},
        "DPM++ 2S with small steps near the end.",
    ),
    Sampler(
        "DPM++ 2S",
        "DPMSolverSinglestepScheduler",
        {**_DPM_2S},
        "Second order by pairs of steps, the first a trial for the second, instead of by memory.",
    ),
    Sampler(
        "DPM++ 2M SDE",
        "DPMSolverMultistepScheduler",
        {**_DPM_2M_SDE, **_PLAIN},
        "DPM++ 2M that puts fresh noise back at every step, at evenly spaced timesteps.",
        zero_snr=True,
    ),
    Sampler(
        "DPM++ 2M SDE Exponential",
        "DPMSolverMultistepScheduler",
        {**_DPM_2M_SDE, **_EXPONENTIAL},
        "DPM++ 2M SDE that divides the noise level by the same factor at each step: soft, clean backgrounds.",
        zero_snr=True,
    ),
    Sampler(
        "DPM++ 3M SDE",
        "DPMSolverMultistepScheduler",
        {**_DPM_3M_SDE, **_PLAIN},
        "Looks two steps back and adds fresh noise, at evenly spaced timesteps.",
        zero_snr=True,
    ),
    Sampler(
        "DPM++ 3M SDE Exponential",
        "DPMSolverMultistepScheduler",
        {**_DPM_3M_SDE, **_EXPONENTIAL},
        "DPM++ 3M SDE that divides the noise level by the same factor at each step.",
        zero_snr=True,
    ),
    Sampler(
        "DPM++ 2M Beta",
        "DPMSolverMultistepScheduler",
        {**_DPM_2M, **_BETA},
        "DPM++ 2M with its steps crowded at both ends, where a picture's layout and its detail are decided.",
        zero_snr=True,
        needs=("scipy",),
    ),
    Sampler(
        "UniPC Karras",
        "UniPCMultistepScheduler",
        {**_UNIPC, **_KARRAS},
        "UniPC with small steps near the end.",
        zero_snr=True,
    ),
    Sampler(
        "Euler Karras",
        "EulerDiscreteScheduler",
        {**_EULER, **_KARRAS},
        "Euler with long steps through the noise and small ones near the end.",
        families=_SCALING,
        zero_snr=True,
        few=2,
    ),
    Sampler(
        "Euler Beta",
        "EulerDiscreteScheduler",
        {**_EULER, **_BETA},
        "Euler with its steps crowded at both ends, where a picture's layout and its detail are decided.",
        families=_SCALING,
        zero_snr=True,
        needs=("scipy",),
        few=2,
    ),
    Sampler(
        "Euler Trailing",
        "EulerDiscreteScheduler",
        {**_EULER, **_EVEN, **_TRAILING},
        "Euler that never wastes its last step on a clean picture: for Turbo and Lightning nets, 1 to 8 steps.",
        families=_SCALING,
        zero_snr=True,
    ),
    Sampler(
        "Euler a Trailing",
        "EulerAncestralDiscreteScheduler",
        {**_TRAILING},
        "Euler a that never wastes its last step on a clean picture: SDXL Turbo's own, 1 to 4 steps.",
        families=_SCALING,
        zero_snr=True,
        predictions=_NOT_SAMPLE,
    ),
    Sampler(
        "DDIM Trailing",
        "DDIMScheduler",
        {**_TRAILING, **_UNCLIPPED},
        "DDIM from the noisiest timestep the net was trained on, in even steps down to the one before clean.",
        zero_snr=True,
    ),
    Sampler(
        "Heun Karras",
        "HeunDiscreteScheduler",
        {**_KARRAS, "clip_sample": False},
        "Heun with small steps near the end: the sampler of the EDM paper.",
        per_step=2,
        extra=-1,
        families=_SCALING,
        few=2,
    ),
    Sampler(
        "DPM2 Karras",
        "KDPM2DiscreteScheduler",
        {**_KARRAS},
        "DPM2 with small steps near the end.",
        per_step=2,
        extra=-1,
        families=_SCALING,
        predictions=_NOT_SAMPLE,
        few=2,
    ),
    Sampler(
        "DPM2 a Karras",
        "KDPM2AncestralDiscreteScheduler",
        {**_KARRAS},
        "DPM2 a with small steps near the end.",
        per_step=2,
        extra=-1,
        families=_SCALING,
        predictions=_NOT_SAMPLE,
        few=2,
    ),
    Sampler(
        "LMS Karras",
        "LMSDiscreteScheduler",
        {**_KARRAS},
        "LMS with small steps near the end.",
        families=_SCALING,
        needs=("scipy",),
        few=2,
    ),
    Sampler(
        "SA-Solver",
        "SASolverScheduler",
        {
            **_PLAIN,
            "predictor_order": 2,
            "corrector_order": 2,
            "algorithm_type": "data_prediction",
            "thresholding": False,
            "lower_order_final": True,
            "use_flow_sigmas": False,
        },
        "Predicts and corrects like UniPC, and adds fresh noise in the middle of the way.",
    ),
    Sampler(
        "LCM",
        "LCMScheduler",
        {**_UNCLIPPED},
        "For nets distilled to jump to x0 at once: jump, add fresh noise, jump again; 1 to 8 steps.",
        families=DIFFUSION | {"lcm"},
        zero_snr=True,
        net="lcm",
    ),
    Sampler(
        "TCD",
        "TCDScheduler",
        {**_UNCLIPPED},
        "LCM that may land anywhere on the way instead of at its end, so that errors add up less.",
        zero_snr=True,
        net="tcd",
    ),
    Sampler(
        "EDM Euler",
        "EDMEulerScheduler",
        {"final_sigmas_type": "zero"},
        "Euler for nets trained by EDM, which know a continuous noise level instead of a timestep.",
        families=_SCALING,
        predictions=_NOT_SAMPLE,
        net="edm",
    ),
    Sampler(
        "EDM DPM++ 2M",
        "EDMDPMSolverMultistepScheduler",
        {
            "algorithm_type": "dpmsolver++",
            "solver_order": 2,
            "solver_type": "midpoint",
            "thresholding": False,
            "lower_order_final": True,
            "euler_at_final": False,
            "final_sigmas_type": "zero",
        },
        "DPM++ 2M for nets trained by EDM, which know a continuous noise level instead of a timestep.",
        families=_SCALING,
        predictions=_NOT_SAMPLE,
        net="edm",
    ),
    Sampler(
        "Flow Euler",
        "FlowMatchEulerDiscreteScheduler",
        {**_EVEN},
        "Flow nets answer with a velocity: follow it straight to the next level; the usual choice for them.",
        families=FLOW,
        predictions=_FLOWING,
        net="flow",
    ),
    Sampler(
        "Flow Heun",
        "FlowMatchHeunDiscreteScheduler",
        {},
        "Walks each step twice and averages both velocities: more exact than Flow Euler for twice the work.",
        per_step=2,
        extra=-1,
        families=frozenset({"sd3", "sana"}),
        predictions=_FLOWING,
        net="flow",
    ),
    Sampler(
        "DPM++ 2M flow",
        "DPMSolverMultistepScheduler",
        {**_DPM_2M, **_FLOW_SIGMAS},
        "DPM++ 2M on a flow net: a second-order step from the memory of the one before.",
        families=frozenset({"sd3", "sana", "flux"}),
        predictions=_FLOWING,
        net="flow",
    ),
    Sampler(
        "UniPC flow",
        "UniPCMultistepScheduler",
        {**_UNIPC, **_FLOW_SIGMAS},
        "UniPC on a flow net: predicts, then corrects itself with the next evaluation at no extra cost.",
        families=frozenset({"sd3", "sana", "flux", "qwen"}),
        predictions=_FLOWING,
        net="flow",
    ),
)


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
        from diffexplore.words import near, shown

        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}; got {shown(name)}{near(name, SAMPLERS)}")
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
        config["timestep_spacing"] = entry._spacing(base_config)
    if entry.net == "diffusion" and entry.cls in _CLIPPING and _cosine(base_config):
        # The last few timesteps of a cosine schedule jump to a noise level of 20,000, where the logarithms that
        # these solvers step by say nothing; -5.1 is what diffusers advises.
        config["lambda_min_clipped"] = -5.1
    if entry.cls == "DPMSolverSDEScheduler":
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
    shift = _shift(base_config)
    if entry.cls.startswith("FlowMatch"):
        return {"shift": shift}
    facts = {"flow_shift": shift}
    if entry.cls == "DPMSolverMultistepScheduler" and not base_config.get("use_dynamic_shifting"):
        # Flux computes a shift from the size of the picture and passes it on in any case (mu, the logarithm of
        # the shift); this class takes it only if the shift is a dynamic one. With both ends of the range at
        # this model's own shift, the one computed is that very shift, at any size.
        dynamic = {"use_dynamic_shifting": True, "time_shift_type": "exponential"}
        return {**facts, **dynamic, "base_shift": math.log(shift), "max_shift": math.log(shift)}
    return facts


def _shift(base_config: Mapping[str, Any]) -> float:
    # A config may hold both words, one of them left over from a class before: its own class's word counts.
    own, other = ("shift", "flow_shift")
    if not str(base_config.get("_class_name", "FlowMatch")).startswith("FlowMatch"):
        own, other = other, own
    for key in (own, other):
        if base_config.get(key) is not None:
            return float(base_config[key])
    return 1.0


def suitable(name: str, family: str, base_config: Mapping[str, Any]) -> str:
    """ "" if a sampler of the menu is right for a pipeline and can run here, else why not, in a few words.

    Args:
        name: a key of :data:`SAMPLERS`.
        family: of the pipeline: "sd", "sdxl", "pixart", "kandinsky3", "lcm", "sd3", "flux", "sana", "zimage" or
            "qwen".
        base_config: the ``scheduler.config`` that came with the pipeline, ``_class_name`` included: the class
            tells how its net was trained.
    """
    entry = SAMPLERS[name]
    reason = _wrong_net(entry, family, base_config) or _wrong_family(entry, family)
    if reason:
        return reason
    prediction = _prediction(base_config)
    if prediction not in entry.predictions:
        return f"it cannot read a net that predicts {prediction!r}"
    if entry.net == "diffusion":
        if _zero_snr(base_config) and not entry.zero_snr:
            return "it cannot start from the pure noise (zero terminal SNR) that this net was trained on"
        if _zero_snr(base_config) and entry.config.get("timestep_spacing") == "trailing":
            return f"for this net {name.removesuffix(' Trailing')} already steps that way"
        if _cosine(base_config) and entry._respaced:
            return "its spacing would spend most steps on the steep end of this net's cosine noise schedule"
    if entry.net == "edm" and float(base_config.get("sigma_data", 0.5)) != 0.5:
        return "it assumes data of standard deviation 0.5, which is not what this net was trained on"
    if entry.net == "flow":
        reason = _wrong_shift(entry, base_config)
        if reason:
            return reason
    if entry.missing:
        return f"it needs {' and '.join(entry.missing)}, which is not installed"
    return ""


def native(family: str, base_config: Mapping[str, Any]) -> str | None:
    """The name of the sampler that a pipeline of this `family` came with, going by the `base_config` of its scheduler;
    None where the menu has no such one.
    """
    keys = ("algorithm_type", "solver_order", "skip_prk_steps", *_SPACINGS)
    found = []
    for name, entry in SAMPLERS.items():
        same = all(
            entry.config.get(key, base_config.get(key)) == base_config.get(key, entry.config.get(key)) for key in keys
        )
        if entry.cls == base_config.get("_class_name") and same and not suitable(name, family, base_config):
            found.append(name)
    # Spacing last: SDXL's "leading" Euler is Euler, but the "trailing" one of a Turbo net is not.
    spacing = base_config.get("timestep_spacing")
    exact = [name for name in found if SAMPLERS[name].config.get("timestep_spacing") == spacing]
    return next(iter(exact or found), None)


def _wrong_net(entry: Sampler, family: str, base_config: Mapping[str, Any]) -> str:
    came = _net(base_config)
    if came == "diffusion" and family == "lcm":
        came = "lcm"
    if entry.net == came or (entry.net == "diffusion" and came in ("lcm", "tcd")):
        return ""
    if came == "edm":
        return "this net was trained by EDM, which counts noise in its own way"
    if came == "flow":
        return "this net was trained by flow matching, it steps through the noise levels of diffusion"
    if entry.net in ("lcm", "tcd"):
        return f"it needs a net distilled for {entry.name}, and this pipeline came with another sampler"
    if family in FLOW:
        return "the scheduler that came with this pipeline does not tell the noise levels of its flow net"
    return f"it is made for nets trained by {'EDM' if entry.net == 'edm' else 'flow matching'}"


def _wrong_family(entry: Sampler, family: str) -> str:
    if family in entry.families:
        return ""
    if family == "lcm":
        return "this pipeline asks its sampler for the steps of a distilled net, which only LCM knows"
    if family == "kandinsky3" and entry.families == _SCALING:
        return "it needs the net's input scaled to the noise level, which this pipeline leaves out"
    if family in FLOW and entry.net == "flow":
        return f"pipelines of the family {family!r} hand their sampler noise levels that it does not take"
    return f"it is not made for pipelines of the family {family!r}"


def _wrong_shift(entry: Sampler, base_config: Mapping[str, Any]) -> str:
    if base_config.get("invert_sigmas"):
        return "this net counts its noise levels upwards (invert_sigmas)"
    dynamic, terminal = base_config.get("use_dynamic_shifting"), base_config.get("shift_terminal")
    if entry.cls == "FlowMatchHeunDiscreteScheduler" and (dynamic or terminal):
        return "it cannot shift its noise levels with the size of the picture, as this net needs"
    if entry.cls == "DPMSolverMultistepScheduler":
        if terminal:
            return "it cannot end its noise levels where this net needs (shift_terminal)"
        if dynamic and base_config.get("time_shift_type", "exponential") != "exponential":
            return f"it cannot shift its noise levels the {base_config['time_shift_type']} way, as this net needs"
    return ""


def _net(base_config: Mapping[str, Any]) -> str:
    """The kind of net behind a pipeline's own scheduler config, a key of :data:`MODEL_FACTS`."""
    name = str(base_config.get("_class_name", ""))
    if name.startswith("EDM"):
        return "edm"
    if _prediction(base_config) == "flow_prediction" or base_config.get("use_flow_sigmas"):
        return "flow"
    return {"LCMScheduler": "lcm", "TCDScheduler": "tcd"}.get(name, "diffusion")


def _prediction(base_config: Mapping[str, Any]) -> str:
    # The FlowMatch classes read velocities and have no word for it.
    if str(base_config.get("_class_name", "")).startswith("FlowMatch"):
        return "flow_prediction"
    return str(base_config.get("prediction_type", "epsilon"))


def _zero_snr(base_config: Mapping[str, Any]) -> bool:
    return bool(base_config.get("rescale_betas_zero_snr"))


def _cosine(base_config: Mapping[str, Any]) -> bool:
    return base_config.get("beta_schedule") == "squaredcos_cap_v2" and not base_config.get("trained_betas")
