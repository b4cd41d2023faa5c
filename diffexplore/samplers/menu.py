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

from collections.abc import Mapping
from types import MappingProxyType

from diffexplore.samplers.nets import DIFFUSION, FLOW, SCALING, SPACINGS
from diffexplore.samplers.sampler import Sampler

__all__ = ["SAMPLERS"]

# Schedules. Every key is written out even where it is the class's default today: defaults differ between
# classes, and they move.
_EVEN = dict.fromkeys(SPACINGS, False)
_LEADING = {"timestep_spacing": "leading"}  # t = 0, k, 2k, ... (+ steps_offset): what DDIM and PLMS step through
_LINSPACE = {"timestep_spacing": "linspace"}  # from the noisiest level down, as k-diffusion counts
_TRAILING = {"timestep_spacing": "trailing"}  # from the noisiest level down in equal parts (Lin et al. 2023)
_PLAIN = {**_LINSPACE, **_EVEN}
_KARRAS = {**_PLAIN, "use_karras_sigmas": True}
_EXPONENTIAL = {**_PLAIN, "use_exponential_sigmas": True}
_BETA = {**_PLAIN, "use_beta_sigmas": True}

_NOT_SAMPLE = frozenset({"epsilon", "v_prediction"})  # classes that raise, or have no formula, for nets that predict x0
_FLOWING = frozenset({"flow_prediction"})

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
        families=SCALING,
        zero_snr=True,
        few=2,
    ),
    Sampler(
        "Euler a",
        "EulerAncestralDiscreteScheduler",
        {**_LINSPACE},
        "Euler that overshoots and adds fresh noise: more steps give another picture, not a finer one.",
        families=SCALING,
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
        families=SCALING,
        few=2,
    ),
    Sampler(
        "DPM2",
        "KDPM2DiscreteScheduler",
        {**_PLAIN},
        "Takes the slope from the middle of each step: second order, twice the work.",
        per_step=2,
        extra=-1,
        families=SCALING,
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
        families=SCALING,
        predictions=_NOT_SAMPLE,
        few=2,
    ),
    Sampler(
        "LMS",
        "LMSDiscreteScheduler",
        {**_PLAIN},
        "Fits a curve through the last four slopes: cheap and smooth, at times unstable with few steps.",
        families=SCALING,
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
        families=SCALING,
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
        families=SCALING,
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
        families=SCALING,
        zero_snr=True,
        few=2,
    ),
    Sampler(
        "Euler Beta",
        "EulerDiscreteScheduler",
        {**_EULER, **_BETA},
        "Euler with its steps crowded at both ends, where a picture's layout and its detail are decided.",
        families=SCALING,
        zero_snr=True,
        needs=("scipy",),
        few=2,
    ),
    Sampler(
        "Euler Trailing",
        "EulerDiscreteScheduler",
        {**_EULER, **_EVEN, **_TRAILING},
        "Euler that never wastes its last step on a clean picture: for Turbo and Lightning nets, 1 to 8 steps.",
        families=SCALING,
        zero_snr=True,
    ),
    Sampler(
        "Euler a Trailing",
        "EulerAncestralDiscreteScheduler",
        {**_TRAILING},
        "Euler a that never wastes its last step on a clean picture: SDXL Turbo's own, 1 to 4 steps.",
        families=SCALING,
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
        families=SCALING,
        few=2,
    ),
    Sampler(
        "DPM2 Karras",
        "KDPM2DiscreteScheduler",
        {**_KARRAS},
        "DPM2 with small steps near the end.",
        per_step=2,
        extra=-1,
        families=SCALING,
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
        families=SCALING,
        predictions=_NOT_SAMPLE,
        few=2,
    ),
    Sampler(
        "LMS Karras",
        "LMSDiscreteScheduler",
        {**_KARRAS},
        "LMS with small steps near the end.",
        families=SCALING,
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
        families=SCALING,
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
        families=SCALING,
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
