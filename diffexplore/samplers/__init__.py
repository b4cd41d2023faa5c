"""The samplers: the menu of names people use, the diffusers schedulers behind them, and what is right for what."""

from diffexplore.samplers.build import build as build
from diffexplore.samplers.came import AS_IT_CAME
from diffexplore.samplers.classes import SchedulerClass, facts_of
from diffexplore.samplers.fitness import native, suitable
from diffexplore.samplers.menu import SAMPLERS
from diffexplore.samplers.names import named, unknown
from diffexplore.samplers.nets import DIFFUSION, FLOW, MODEL_FACTS
from diffexplore.samplers.sampler import Sampler
from diffexplore.samplers.spacings import WAYS

__all__ = [
    "AS_IT_CAME", "DIFFUSION", "FLOW", "MODEL_FACTS", "SAMPLERS", "WAYS", "Sampler", "SchedulerClass", "build",
    "facts_of", "named", "native", "suitable", "unknown",
]  # fmt: skip
