"""The samplers: the menu of names people use, the diffusers schedulers behind them, and what is right for what."""

from diffexplore.samplers.menu import DIFFUSION, FLOW, MODEL_FACTS, SAMPLERS, Sampler, build, native, suitable

__all__ = ["DIFFUSION", "FLOW", "MODEL_FACTS", "SAMPLERS", "Sampler", "build", "native", "suitable"]
