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
    """

    name: str
    levels: str
    draws_noise: str = ""
    clips: bool = False
    edm: bool = False
    midpoint_offset: int = 0
    ancestral: bool = False
    unit: bool = False

    @property
    def velocity(self) -> bool:
        """Whether it reads a flow net's velocity and nothing else, and so has no word for the prediction type."""
        return self.levels == "flow"

    def noise(self, config: Mapping[str, Any]) -> str:
        """As `draws_noise`, with a `config` that may ask a solver of equations for its stochastic kind."""
        return self.draws_noise or ("fresh" if str(config.get("algorithm_type", "")).startswith("sde-") else "")


CLASSES: Mapping[str, SchedulerClass] = MappingProxyType(
    {
        row.name: row
        for row in (
            SchedulerClass("DDPMScheduler", "timestep", "fresh"),
            SchedulerClass("DDIMScheduler", "timestep"),
            SchedulerClass("PNDMScheduler", "timestep"),
            SchedulerClass("LCMScheduler", "timestep", "fresh"),
            SchedulerClass("TCDScheduler", "timestep", "fresh"),
            SchedulerClass("EulerDiscreteScheduler", "exploding"),
            SchedulerClass("EulerAncestralDiscreteScheduler", "exploding", "fresh", ancestral=True),
            SchedulerClass("LMSDiscreteScheduler", "exploding"),
            SchedulerClass("HeunDiscreteScheduler", "exploding"),
            SchedulerClass("DPMSolverSDEScheduler", "exploding", "path"),
            SchedulerClass("EDMEulerScheduler", "exploding", edm=True),
            SchedulerClass("EDMDPMSolverMultistepScheduler", "exploding", edm=True),
            SchedulerClass("KDPM2DiscreteScheduler", "midpoint"),
            SchedulerClass("KDPM2AncestralDiscreteScheduler", "midpoint", "fresh", midpoint_offset=-1, ancestral=True),
            SchedulerClass("DPMSolverMultistepScheduler", "preserving", clips=True),
            SchedulerClass("DPMSolverSinglestepScheduler", "preserving", clips=True),
            SchedulerClass("DEISMultistepScheduler", "preserving"),
            SchedulerClass("UniPCMultistepScheduler", "preserving"),
            SchedulerClass("SASolverScheduler", "preserving", "fresh", clips=True),
            SchedulerClass("FlowMatchEulerDiscreteScheduler", "flow"),
            SchedulerClass("FlowMatchHeunDiscreteScheduler", "flow"),
            SchedulerClass("FlowMatchLCMScheduler", "flow", "fresh"),
            # Those of pipelines that the menu has no entry for.
            SchedulerClass("DDIMParallelScheduler", "timestep"),
            SchedulerClass("DDPMParallelScheduler", "timestep", "fresh"),
            SchedulerClass("UnCLIPScheduler", "timestep", "fresh"),
            SchedulerClass("RePaintScheduler", "timestep", "fresh"),
            SchedulerClass("CogVideoXDDIMScheduler", "timestep"),
            SchedulerClass("CogVideoXDPMScheduler", "timestep", "fresh"),
            SchedulerClass("DDPMWuerstchenScheduler", "share", "fresh"),
            SchedulerClass("SCMScheduler", "angle", "fresh"),
            SchedulerClass("CosineDPMSolverMultistepScheduler", "exploding", "path", unit=True),
            SchedulerClass("FlowMapEulerDiscreteScheduler", "flow"),
            SchedulerClass("HeliosScheduler", "flow"),
            SchedulerClass("HeliosDMDScheduler", "flow"),
            SchedulerClass("LTXEulerAncestralRFScheduler", "flow", "fresh"),
            SchedulerClass("IPNDMScheduler", "circle"),
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
