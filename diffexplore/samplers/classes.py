"""What has to be known of each diffusers scheduler class, one row for each, and is written in no config of theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["CLASSES", "SchedulerClass", "facts_of"]


@dataclass(frozen=True)
class SchedulerClass:
    """The facts of one class.

    Attributes:
        name: of the diffusers class.
        levels: how it keeps x_t, and so where its noise levels stand. "timestep": unit variance, by a table over
            timesteps; "preserving": unit variance, by sigmas alone; "exploding": a = 1, by sigmas; "midpoint": the
            same, with a second table for the middle of each step; "flow": a = 1 - b, by sigmas; "share": unit variance,
            by a formula over timesteps from 1 to 0 (Wuerstchen); "angle": the timestep is the angle whose cosine is a
            (TrigFlow); "circle": unit variance, by the tables ``alphas`` and ``betas`` of a and b, of nets that answer
            with a v-prediction.
        draws_noise: what it adds on the way: "" for nothing, "fresh" for independent noise at every step, "path" for
            increments of one Brownian path.
        clips: whether it steps by log-SNR and takes a bound for it (``lambda_min_clipped``).
        edm: whether its nets were trained by EDM, with a continuous noise level for a timestep.
        midpoint_offset: where the middle's sigma lies in its table, relative to ``step_index``.
        ancestral: whether it steps below the next level, to add noise up to it.
        unit: whether its EDM preconditioning is for data of standard deviation 1, where it is the v-prediction.
        laid: how its tables hold the noise levels of a schedule, so that others can be put in their place: "once" each;
            "twice", the first aside, for the two evaluations of a step; "halfway": the same, with timesteps between
            them; "middle" and "below": the same, with a table of the levels between, of the next or of the one below
            it; "timesteps": only those of whole timesteps. "" where they cannot be put there.
        stays: why they cannot, in a few words that go on from its name.
        fresh: how it can be asked for more or less fresh noise: "step" where its step is the one of DDIM or Euler (or
            of their ancestral form), which can be taken with any share of it; "eta" where its step takes the share
            itself; "" where it cannot.
        adds: the share of fresh noise that it adds if nobody asks.
        dry: why it cannot be asked, in a few words that go on from its name.
    """

    name: str
    levels: str
    draws_noise: str = ""
    clips: bool = False
    edm: bool = False
    midpoint_offset: int = 0
    ancestral: bool = False
    unit: bool = False
    laid: str = ""
    stays: str = "counts its timesteps off in equal parts"
    fresh: str = ""
    adds: float = 0.0
    dry: str = "adds nothing on the way, and its step has no room for noise"

    @property
    def velocity(self) -> bool:
        """Whether it reads a flow net's velocity and nothing else, and so has no word for the prediction type."""
        return self.levels == "flow"

    def noise(self, config: Mapping[str, Any]) -> str:
        """As `draws_noise`, with a `config` that may ask a solver of equations for its stochastic kind."""
        return self.draws_noise or ("fresh" if str(config.get("algorithm_type", "")).startswith("sde-") else "")


# Why a class cannot be asked for a share of fresh noise, where its own step is not the one that takes it.
_REMEMBERS = "remembers steps that had none of it"
_PAIRS = "takes its steps in pairs, the first as a trial"
_ALL = "draws all of its noise afresh"
_SOLVES = "solves for its own share of it"
_CHURNS = "has room for it in front of a step only, where diffusers adds it without asking the network anew"
_FORMULA = "makes its levels by a formula of its own"

CLASSES: Mapping[str, SchedulerClass] = MappingProxyType(
    {
        row.name: row
        for row in (
            SchedulerClass("DDPMScheduler", "timestep", "fresh", laid="timesteps", fresh="step", adds=1.0),
            SchedulerClass("DDIMScheduler", "timestep", fresh="eta"),
            SchedulerClass("PNDMScheduler", "timestep", dry=_REMEMBERS),
            SchedulerClass("LCMScheduler", "timestep", "fresh", laid="timesteps", dry=_ALL),
            SchedulerClass("TCDScheduler", "timestep", "fresh", laid="timesteps", fresh="eta", adds=0.3),
            SchedulerClass("EulerDiscreteScheduler", "exploding", laid="once", fresh="step"),
            SchedulerClass(
                "EulerAncestralDiscreteScheduler",
                "exploding",
                "fresh",
                ancestral=True,
                laid="once",
                fresh="step",
                adds=1.0,
            ),
            SchedulerClass("LMSDiscreteScheduler", "exploding", laid="once", dry=_REMEMBERS),
            SchedulerClass("HeunDiscreteScheduler", "exploding", laid="twice"),
            SchedulerClass("DPMSolverSDEScheduler", "exploding", "path", laid="halfway", dry=_SOLVES),
            SchedulerClass("EDMEulerScheduler", "exploding", edm=True, laid="once", fresh="step"),
            SchedulerClass("EDMDPMSolverMultistepScheduler", "exploding", edm=True, laid="once", dry=_REMEMBERS),
            SchedulerClass("KDPM2DiscreteScheduler", "midpoint", laid="middle"),
            SchedulerClass(
                "KDPM2AncestralDiscreteScheduler",
                "midpoint",
                "fresh",
                midpoint_offset=-1,
                ancestral=True,
                laid="below",
                dry=_SOLVES,
            ),
            SchedulerClass("DPMSolverMultistepScheduler", "preserving", clips=True, laid="once", dry=_REMEMBERS),
            SchedulerClass("DPMSolverSinglestepScheduler", "preserving", clips=True, laid="once", dry=_PAIRS),
            SchedulerClass("DEISMultistepScheduler", "preserving", laid="once", dry=_REMEMBERS),
            SchedulerClass("UniPCMultistepScheduler", "preserving", laid="once", dry=_REMEMBERS),
            SchedulerClass("SASolverScheduler", "preserving", "fresh", clips=True, laid="once", dry=_SOLVES),
            SchedulerClass("FlowMatchEulerDiscreteScheduler", "flow", laid="once", fresh="step"),
            SchedulerClass("FlowMatchHeunDiscreteScheduler", "flow", laid="twice", dry=_CHURNS),
            SchedulerClass("FlowMatchLCMScheduler", "flow", "fresh", laid="once", dry=_ALL),
            # Those of pipelines that the menu has no entry for.
            SchedulerClass("DDIMParallelScheduler", "timestep", fresh="eta"),
            SchedulerClass("DDPMParallelScheduler", "timestep", "fresh"),
            SchedulerClass("UnCLIPScheduler", "timestep", "fresh"),
            SchedulerClass("RePaintScheduler", "timestep", "fresh"),
            SchedulerClass("CogVideoXDDIMScheduler", "timestep"),
            SchedulerClass("CogVideoXDPMScheduler", "timestep", "fresh"),
            SchedulerClass("DDPMWuerstchenScheduler", "share", "fresh", stays=_FORMULA),
            SchedulerClass("SCMScheduler", "angle", "fresh", stays=_FORMULA),
            SchedulerClass("CosineDPMSolverMultistepScheduler", "exploding", "path", unit=True, stays=_FORMULA),
            SchedulerClass("FlowMapEulerDiscreteScheduler", "flow", stays=_FORMULA),
            SchedulerClass("HeliosScheduler", "flow", stays=_FORMULA),
            SchedulerClass("HeliosDMDScheduler", "flow", stays=_FORMULA),
            SchedulerClass("LTXEulerAncestralRFScheduler", "flow", "fresh", stays=_FORMULA),
            SchedulerClass("IPNDMScheduler", "circle", stays=_FORMULA),
        )
    }
)
"""The rows by name."""


def facts_of(scheduler: Any) -> SchedulerClass | None:
    """The row of a scheduler, or of the name of its class; None for a class that is not known. A subclass has the row
    of the class it is made from.
    """
    if isinstance(scheduler, str):
        return CLASSES.get(scheduler)
    return next((CLASSES[cls.__name__] for cls in type(scheduler).__mro__ if cls.__name__ in CLASSES), None)
