"""What recording costs on this machine: ratios measured side by side, never a lone time.

Every row runs its two sides in turn (ours, plain, ours, plain, ...) so that a machine whose speed drifts slows both,
and reports the median of the pairs' ratios with the smallest and largest. Plain means diffusers alone, with the same
weights, sampler, seed and settings.
"""

from diffexplore.bench.table import run

__all__ = ["run"]
