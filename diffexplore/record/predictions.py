"""What a denoiser's output means: pure maths from (x_t, output, a, b, kind) to x0 and noise.

Every sampler call is described by two numbers, ``x_t = a * x0 + b * noise``: a variance-preserving sampler
has ``a**2 + b**2 = 1``, a variance-exploding one ``a = 1, b = sigma``, flow matching ``a = 1 - s, b = s``.
Given those, x0 and the noise are both *affine* in the pair (x_t, output), so this room hands out four
coefficients and nothing else. Guidance (``uncond + g (cond - uncond)``) is affine too; :func:`separate`
undoes it by least squares, so that no table of the batch orders and conventions of the pipelines is needed.

Sources: Ho et al. 2020 (arXiv 2006.11239) for epsilon; Salimans & Ho 2022 (2202.00512) for v; Karras et al.
2022 (2206.00364) for the EDM preconditioning; Lipman et al. 2023 (2210.02747) for flow matching; Ho &
Salimans 2022 (2207.12598) for guidance.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

__all__ = [
    "KINDS", "Affine", "Plane", "Split", "affine", "guide", "noise_of", "plane", "rms", "separate", "share_of_noise",
    "x0_of",
]  # fmt: skip

KINDS = (
    "epsilon", "v_prediction", "sample", "flow_prediction", "reversed_flow_prediction", "edm_epsilon",
    "edm_v_prediction",
)  # fmt: skip
"""The prediction types known here, in diffusers' words; ``edm_*`` are nets with EDM preconditioning, ``reversed_*``
those that answer with the negative (a velocity from the noise to the picture).
"""

SIGMA_DATA = 0.5
"""Standard deviation of the data that the EDM preconditioning assumes (diffusers' default)."""

TINY = 2.0**-12
"""Smallest signal level that is divided by. diffusers patches zero-terminal-SNR schedules to this same level
(alphas_cumprod 2**-24), so an epsilon net at pure noise gets a large but finite x0 instead of a division by
zero.
"""


class Affine(NamedTuple):
    """Coefficients of ``x0 = x0_x * x_t + x0_m * output`` and of ``noise = noise_x * x_t + noise_m *
    output``.
    """

    x0_x: float
    x0_m: float
    noise_x: float
    noise_m: float


def affine(kind: str, a: float, b: float, sigma_data: float = SIGMA_DATA) -> Affine:
    """Coefficients that turn (x_t, output) into x0 and noise.

    Args:
        kind: prediction type of the output, one of :data:`KINDS`.
        a: signal level of x_t.
        b: noise level of x_t.
        sigma_data: only for the ``edm_*`` kinds.

    Raises:
        ValueError: for a kind that is not known.
    """
    if kind == "epsilon":
        signal = max(a, TINY)
        return Affine(1 / signal, -b / signal, 0.0, 1.0)
    if kind == "v_prediction":
        # The net sees x_t scaled to unit variance, whatever the sampler keeps: v is defined on that circle.
        r2 = a * a + b * b
        r = math.sqrt(r2)
        return Affine(a / r2, -b / r, b / r2, a / r)
    if kind == "sample":
        level = max(b, TINY)
        return Affine(0.0, 1.0, 1 / level, -a / level)
    if kind == "flow_prediction":
        # output = noise - x0 (a velocity); a + b is 1 in every flow schedule, kept here so that the formula
        # is exact for any.
        total = a + b
        return Affine(1 / total, -b / total, 1 / total, a / total)
    if kind == "reversed_flow_prediction":
        total = a + b
        return Affine(1 / total, b / total, 1 / total, -a / total)
    if kind in ("edm_epsilon", "edm_v_prediction"):
        variance = b * b + sigma_data**2
        sign = 1.0 if kind == "edm_epsilon" else -1.0
        skip = sigma_data**2 / variance
        out = sign * b * sigma_data / math.sqrt(variance)
        # noise = (x_t - x0) / b with b cancelled by hand, so that b = 0 is harmless.
        return Affine(skip, out, b / variance, -sign * sigma_data / math.sqrt(variance))
    raise ValueError(f"prediction type must be one of {', '.join(KINDS)}, got {kind!r}")


def x0_of(kind: str, latents: torch.Tensor, output: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """The clean latents which a model output stands for; same shape as `latents`."""
    c = affine(kind, a, b)
    return c.x0_x * latents + c.x0_m * output


def noise_of(kind: str, latents: torch.Tensor, output: torch.Tensor, a: float, b: float) -> torch.Tensor:
    """The noise which a model output stands for, of unit variance; same shape as `latents`."""
    c = affine(kind, a, b)
    return c.noise_x * latents + c.noise_m * output


def share_of_noise(a: float, b: float) -> float:
    """``b**2 / (a**2 + b**2)`` of ``x_t = a * x0 + b * noise``: 1 at pure noise, 0 at a clean picture; the one axis on
    which runs of any length, sampler and family line up. NaN where there is neither.
    """
    total = a * a + b * b
    return b * b / total if total else math.nan


def guide(cond: torch.Tensor, uncond: torch.Tensor, guidance: float) -> torch.Tensor:
    """Classifier-free guidance, ``uncond + g (cond - uncond)``: 1 is the prompt alone, 0 the negative prompt
    alone.
    """
    return uncond + guidance * (cond - uncond)


def rms(field: torch.Tensor) -> float:
    """Root mean square of all values of `field`, of any shape; white noise of variance 1 has 1."""
    # In double: in single precision the sum of squares of a large latent loses digits.
    return math.sqrt(float(field.detach().double().square().mean()))


class Plane(NamedTuple):
    """Two predictions in the plane that they span: the one with the prompt lies along its first axis.

    In these coordinates they are (cond, 0) and (cond - along, -across), and what guidance g makes of them, uncond +
    g (cond - uncond), is (cond + (g - 1) along, (g - 1) across): it never leaves the plane. Sizes are root mean squares
    over the values of the tensors.

    Attributes:
        cond: size of the prediction with the prompt.
        uncond: size of the one without.
        pull: size of their difference, cond - uncond.
        along: its part along cond; negative where it points against it. It makes the prediction larger or smaller.
        across: its part across cond, never negative. It turns the prediction.
        angle: between both, in degrees from 0 to 180.
    """

    cond: float
    uncond: float
    pull: float
    along: float
    across: float
    angle: float


def plane(cond: torch.Tensor, uncond: torch.Tensor) -> Plane:
    """How two predictions of one shape lie to each other.

    The split of their difference into a part along the conditional prediction and one across it is that of adaptive
    projected guidance (Sadat et al. 2024, arXiv 2410.02416, eq. 6), who damp the first.
    """
    c, u = cond.detach().double().flatten(), uncond.detach().double().flatten()
    root = math.sqrt(max(1, c.numel()))
    difference = c - u
    size = float(c.norm())
    along = float((difference * c).sum()) / size if size else 0.0
    # From the rest itself: as a difference of squares, a small part across would drown in rounding.
    across = float((difference - along / size * c).norm()) if size else float(difference.norm())
    angle = math.degrees(math.atan2(across, size - along)) if size else math.nan
    return Plane(
        size / root, float(u.norm()) / root, float(difference.norm()) / root, along / root, across / root, angle
    )


class Split(NamedTuple):
    """Both halves of a guided output, in the sign convention of that output, or the reason why there are
    none.
    """

    cond: torch.Tensor | None
    uncond: torch.Tensor | None
    guidance: float | None
    residual: float
    reason: str


def separate(
    output: torch.Tensor,
    pieces: Sequence[torch.Tensor],
    guidance: float | None = None,
    latents: torch.Tensor | None = None,
) -> Split:
    """Find which denoiser outputs were combined into `output`, and how strongly.

    Solves ``output ~ sum_k coef_k * pieces_k``. Of the coefficients, each taken as its share of their sum, the
    largest marks the prompt's half and is the guidance, the negative one marks the negative prompt's. A
    negative sum tells that the pipeline negates its output (Z-Image), a sum other than 1 that it rescales the
    mix. The residual says whether any of it can be trusted.

    Args:
        output: what the pipeline handed to the scheduler.
        pieces: the denoiser's outputs for this picture since the last step, each shaped like `output`.
        guidance: what the pipeline was asked for; only used where nothing can be measured: where both halves
            are equal, and to tell built-in guidance from none.

    Returns:
        A :class:`Split`; ``reason`` is "" where the halves were found, else one plain sentence.
    """
    nothing = Split(None, None, None, math.nan, "")
    if not pieces:
        return nothing._replace(reason="The denoiser's own outputs were not seen at this step.")
    if len(pieces) == 1:
        if guidance is not None and guidance > 1:
            built_in = "The model ran with the prompt only: its guidance is built in, or was off at this step."
            return nothing._replace(reason=built_in)
        return nothing._replace(reason="Guidance is off here (1 or less), so the model ran with the prompt only.")

    m = output.detach().double().flatten()
    flat = [p.detach().double().flatten() for p in pieces]
    # First of all: the least squares below say nothing of broken numbers, or say it with an error of the library.
    if not all(bool(torch.isfinite(v).all()) for v in flat):
        return nothing._replace(reason="The model's outputs hold numbers that are not finite at this step.")
    if not bool(torch.isfinite(m).all()):
        return nothing._replace(reason="The guided prediction holds numbers that are not finite at this step.")
    size = float(m.norm()) or 1.0
    # Differences to the first piece instead of the pieces themselves: the halves are nearly parallel (they
    # agree on most of the noise), and the normal equations square that conditioning.
    basis = [flat[0], *(p - flat[0] for p in flat[1:])]
    if latents is not None:
        basis.append(latents.detach().double().flatten())
    scale = [float(v.norm()) for v in basis]
    if not all(map(math.isfinite, (size, *scale))):
        return nothing._replace(reason="The model's outputs hold numbers too large to compare at this step.")
    if len(flat) == 2 and scale[1] <= 1e-6 * max(scale[0], 1e-30):
        # Same words on both sides: the order diffusers uses everywhere but in a few pipelines, and the number
        # that was asked for.
        return Split(pieces[1], pieces[0], guidance, 0.0, "")
    if min(scale) == 0.0:
        return nothing._replace(reason="The denoiser's outputs cannot be told apart at this step.")

    unit = torch.stack([v / s for v, s in zip(basis, scale, strict=True)])
    solved = torch.linalg.lstsq((unit @ unit.T).cpu(), (unit @ m).cpu().unsqueeze(1), driver="gelsd").solution[:, 0]
    weights = [float(c) / s for c, s in zip(solved, scale, strict=True)]
    rest = weights.pop() if latents is not None else 0.0
    coefs = [weights[0] - sum(weights[1:]), *weights[1:]]
    mix = sum(c * p for c, p in zip(coefs, flat, strict=True))
    if latents is not None:
        mix = mix + rest * basis[-1]
    residual = float((m - mix).norm()) / size

    # Half precision rounds each product: bfloat16 leaves up to 3e-3, float16 an eighth of that. A per-token
    # rescale (Qwen) leaves about 1e-2 and is no longer one number.
    allowed = {torch.float16: 3e-3, torch.bfloat16: 6e-3}.get(output.dtype, 1e-4)
    if not residual <= allowed:
        return nothing._replace(
            residual=residual,
            reason=f"The guided prediction is no plain mix of the model's outputs (residual {residual:.1e}).",
        )
    # A pipeline that negates its output negates the sum of the coefficients, one that rescales the mix scales it.
    total = weights[0]
    if abs(total) <= 1e-3 * max(map(abs, coefs)):
        return nothing._replace(residual=residual, reason="The guided prediction has no part of either output alone.")
    shares = [c / total for c in coefs]
    top = max(range(len(shares)), key=shares.__getitem__)
    other = min((k for k in range(len(shares)) if k != top), key=shares.__getitem__)
    strong = [k for k in range(len(shares)) if abs(shares[k]) > 1e-3 * shares[top]]
    if len(strong) > 2:
        # Skip-layer (SD 3) and perturbed-attention guidance push away from a third output. Which of the two negative
        # ones is the negative prompt's only the number that was asked for can tell: it has a share of 1 - g.
        told = [k for k in strong if k != top and guidance is not None and abs(shares[k] - (1 - guidance)) < 1e-2]
        if len(strong) > 3 or len(told) != 1 or guidance is None:
            return nothing._replace(
                residual=residual,
                reason=f"The guided prediction mixes {len(pieces)} outputs of the model, not just one with and one "
                "without the prompt.",
            )
        other = told[0]
    elif shares[other] > 0 and len(pieces) == 2:
        # Guidance between 0 and 1 weighs both halves positively: the size no longer tells them apart, so go
        # by the usual order.
        top, other = 1, 0
    found = float(guidance) if len(strong) > 2 and guidance is not None else shares[top]
    if latents is not None:
        cond, uncond = (total * pieces[k] + rest * latents for k in (top, other))
        return Split(cond, uncond, found, residual, "")
    sign = math.copysign(1.0, total)
    return Split(sign * pieces[top], sign * pieces[other], found, residual, "")
