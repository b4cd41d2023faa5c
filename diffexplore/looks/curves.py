"""A :class:`~diffexplore.trace.Trace` as numbers: one value per evaluation of the denoiser.

:data:`CURVES` names every curve, with a sentence and its unit; :func:`curve` computes one; :func:`spectrum`
looks at the scales within one estimate. Sizes are root mean squares (RMS): the Euclidean norm over the root
of the number of values, so they do not depend on the size of the picture, and white noise of variance 1 has
RMS 1. Where a value does not exist it is NaN, which matplotlib leaves out, never 0.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from diffexplore.looks.views import frame
from diffexplore.pocket.judge import adherence, coverage, named
from diffexplore.record.numbers import NUMBERS, Number, declare
from diffexplore.record.predictions import rms
from diffexplore.words import near, shown

if TYPE_CHECKING:
    from PIL import Image

    from diffexplore.record.record import Record

__all__ = ["CURVES", "SPECTRA", "Curve", "adherence_at", "adherence_of", "curve", "parting", "spectrum"]


class Curve(NamedTuple):
    """What a curve says, for a reader."""

    sentence: str
    unit: str


class _Curves(Mapping[str, Curve]):
    def __getitem__(self, name: str) -> Curve:
        number = NUMBERS[name]
        return Curve(number.sentence, number.unit)

    def __iter__(self) -> Iterator[str]:
        return iter(NUMBERS)

    def __len__(self) -> int:
        return len(NUMBERS)


CURVES: Final[Mapping[str, Curve]] = _Curves()
"""Name -> sentence and unit, in menu order: whatever is declared in ``record.numbers``."""

SPECTRA: Final = ("x0", "latents", "noise", "x0_cond", "x0_uncond", "noise_cond", "noise_uncond")
"""The tensors of a step that :func:`spectrum` accepts."""


def curve(trace: "Record", name: str) -> np.ndarray:
    """One number per evaluation.

    - ``sigma``: b / a with x_t = a x0 + b noise; the sigma of Karras et al. 2022 (arXiv 2206.00364). At most
      4096, see ``Step.sigma``.
    - ``timestep``: as told to the network; fractional with some samplers.
    - ``alpha``: a. Where the variance is kept, the root of diffusers' ``alphas_cumprod`` (Ho et al. 2020,
      arXiv 2006.11239, eq. 4); 1 throughout where the sampler lets the variance grow; 1 - s for flow models.
    - ``snr``: a^2 / b^2 (Kingma et al. 2021, arXiv 2107.00630, eq. 2); the same however the sampler scales
      x_t.
    - ``log_snr``: its natural logarithm; infinite where there is no noise, or nothing else.
    - ``seconds``: wall time.
    - ``latents_norm``: RMS(x_t), not rescaled: near sqrt(a^2 + b^2).
    - ``noise_norm``: RMS(noise), guided. Well above 1 says that guidance overshoots.
    - ``x0_norm``: RMS(x0).
    - ``guidance_norm``: RMS(noise_cond - noise_uncond): how much the prompt matters, whatever the guidance.
      NaN without a split.
    - ``change``: RMS(x0[i] - x0[i - 1]). NaN at the first evaluation.
    - ``distance``: RMS(x0[i] - final). A run that was cut short has no final latents: its last estimate
      stands in.
    - ``adherence``: :func:`diffexplore.adherence` of the decoded estimate; NaN where :func:`adherence_at` is.
    - and whatever else is declared in ``record.numbers``, or left in the steps by a probe.

    Returns:
        (evaluations,) float64; of a live trace, those so far.

    Raises:
        ValueError: for an unknown name.
    """
    return trace.measure(name)


def adherence_at(trace: "Record", i: int) -> float:
    """How far the estimate of evaluation `i` shows what the run's prompt names, 0 to 1, by the pocket model's judge.

    The judge learned from finished pictures. An early estimate is a blur that it was never shown, so there it guesses
    what the blur resembles; from the middle of a run on, the number means what it says.

    Costs one pass of the decoder, unless that estimate has been looked at already, and one of the judge (about 2 ms).

    Returns:
        :func:`diffexplore.adherence` of the decoded x0. NaN where there is nothing to judge: a run of another model, a
        prompt that names nothing the judge knows, a trace saved without its pictures. And where the prompt has words
        that the judge cannot know: a meadow does not show that there is a dragon in it.

    Raises:
        IndexError: for an evaluation that is not there.
    """
    if not trace.decoded or not np.isfinite(trace[i].x0.numpy()).all():
        return math.nan
    return _judged(trace, lambda: frame(trace, "x0", i))


def adherence_of(trace: "Record") -> float:
    """How far the finished picture of a `trace` shows what its prompt names, 0 to 1; NaN as :func:`adherence_at`, and
    where a run has no picture."""
    image = trace.image
    return math.nan if image is None else _judged(trace, lambda: image)


def _judged(trace: "Record", picture: "Callable[[], Image.Image | np.ndarray]") -> float:
    prompt = trace.settings.prompt
    # The name of a model is for people: any folder may be called "pocket".
    if trace.info.get("world") != "pocket" or not named(prompt) or coverage(prompt).unknown:
        return math.nan
    return adherence(picture(), prompt)


def spectrum(trace: "Record", i: int, kind: str = "x0") -> np.ndarray:
    """Power of one field at each scale, coarse to fine: its radially averaged power spectrum.

    P[k] is the mean of |F|^2 over the channels, over all further axes such as frames, and over all frequencies
    whose distance from zero rounds to k cycles per shorter side, F being the unitary 2-D Fourier transform. White
    noise of variance 1 has P = 1 at every k; pictures fall off towards the fine end, roughly as 1 / k^2 (Field
    1987, J. Opt. Soc. Am. A 4:2379). Noise therefore hides fine scales first, and a run finds the coarse ones first.

    Args:
        trace: finished, or still growing.
        i: the evaluation.
        kind: which tensor of the step, one of :data:`SPECTRA`.

    Returns:
        (n // 2 + 1,) float64, n being the shorter side in latents. P[0] is the power of the mean. The
        corners, beyond n / 2 cycles, are left out.

    Raises:
        ValueError: for an unknown kind, or one that this step does not have.
        IndexError: for an evaluation that is not there.
    """
    if kind not in SPECTRA:
        raise ValueError(f"spectrum must be of one of {', '.join(SPECTRA)}; got {shown(kind)}{near(kind, SPECTRA)}")
    field = getattr(trace[i], kind)
    if field is None:
        raise ValueError(f"step {i} has no {kind}: {trace[i].split}")
    values = field.numpy().astype(np.float64)
    values = values.reshape(-1, *(values.shape[-2:] if values.ndim > 2 else (1, math.prod(values.shape[1:]))))
    height, width = values.shape[1:]
    power = np.mean(np.abs(np.fft.fft2(values, norm="ortho")) ** 2, axis=0)  # (h, w)
    shorter = min((side for side in (height, width) if side > 1), default=1)
    cycles = shorter * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    ring = np.floor(cycles + 0.5).astype(int)
    count = shorter // 2 + 1
    inside = ring < count
    total = np.bincount(ring[inside], weights=power[inside], minlength=count)
    return total / np.bincount(ring[inside], minlength=count)


def parting(trace: "Record", reference: "Record") -> tuple[np.ndarray, np.ndarray]:
    """How far a run's estimate is from another run's at the same noise level.

    Each evaluation is held against the one of the reference whose log sigma is nearest, so runs of different lengths
    line up.

    Returns:
        sigma and distance, two 1-D arrays over the evaluations of `trace`; the distance is the root mean square of the
        difference of the two x0, in latent units.

    Raises:
        ValueError: one of the two has no steps, or their latents differ in shape.
    """
    if not len(trace) or not len(reference):
        raise ValueError("two runs part only where both have steps; one of these has none")
    if trace[0].latents.shape != reference[0].latents.shape:
        shapes = [tuple(one[0].latents.shape) for one in (trace, reference)]
        raise ValueError(f"runs are compared at one size of latents, got {shapes[0]} and {shapes[1]}")
    levels = np.log([max(step.sigma, 1e-6) for step in reference])
    sigma, distance = [], []
    for step in trace:
        twin = reference[int(np.abs(levels - math.log(max(step.sigma, 1e-6))).argmin())]
        sigma.append(step.sigma)
        distance.append(rms(step.x0 - twin.x0))
    return np.array(sigma), np.array(distance)


declare(
    Number(
        "adherence",
        "adherence",
        "mean probability",
        "How far the estimate shows what the prompt names (pocket model).",
        of=adherence_at,
        decodes=True,
    )
)
