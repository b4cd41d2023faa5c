"""The forward process on a real picture: exact noise at every level of the schedule a model was trained on.

Training shows a network x_t = a x0 + b noise and asks which noise that was; :func:`forward` makes such x_t
from a picture of yours. Nothing is predicted: the network never runs, only the encoder that turns the picture
into latents.
"""

import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from diffexplore.experiments.shared import a_model, pipeline_of
from diffexplore.looks.pictures import Picture, fit
from diffexplore.samplers.nets import net_of, shift_of
from diffexplore.settings import Settings
from diffexplore.trace import Step, Trace
from diffexplore.words import shown

if TYPE_CHECKING:
    from diffexplore.model import Model

__all__ = ["Level", "forward", "levels"]

SPLIT = "This is the forward process: the noise is known exactly, and no prompt has a part in it."
NOTE = "The forward process, cleanest level first: noise is added to a picture, nothing is predicted."


class Level(NamedTuple):
    """One noise level, ``x_t = a * x0 + b * noise``, and the timestep by which the network knows it."""

    timestep: float
    a: float
    b: float


def forward(model: "Model", image: Picture, steps: int = 10, seed: int = 0) -> Trace:
    """Add noise to a picture, level by level.

    The trace runs forward in time: step 0 is the cleanest level of the model's training schedule, the last
    step its noisiest, and the others are evenly spaced in timesteps between (see :func:`levels`). Every step
    has the same noise, only more of it, so that neighbours can be compared; it is the noise that a run with
    this seed starts from.

    Args:
        model: what ``diffexplore.load`` returns.
        image: a picture as ``looks.pictures.read_picture`` takes it: a PIL image of any mode, an array (H, W),
            (H, W, 3) or (H, W, 4) of uint8, uint16, or floats from 0 to 1, or the path of a file. One that is not
            of the model's size is cropped around its centre to the model's shape, then resampled; what is
            transparent becomes white (see :func:`fit`).
        steps: how many levels, 1 to the length of the training schedule (1,000 as a rule); 1 gives the
            noisiest alone.
        seed: of the noise, 0 to 2**63 - 1. It is drawn from a generator of its own: no global one is touched.

    Returns:
        A trace in which ``step.noise`` is the noise that was added and ``step.x0`` the encoded picture, up to
        rounding; ``final`` is the encoded picture, ``image`` the picture that was encoded, and
        ``info["forward"]`` is True.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence, for what is no model or has no encoder for pictures, and for steps, a seed or a
            picture that cannot be used.
    """
    model = a_model(model)
    begun = time.perf_counter()
    width, height = model.size
    settings = Settings(steps=steps, seed=seed, guidance=1.0, width=width, height=height)
    schedule = levels(pipeline_of(model).scheduler, settings.steps)
    picture = fit(image, width, height)
    clean = model.encode(picture)
    noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(settings.seed))
    made = []
    for index, (timestep, a, b) in enumerate(schedule):
        started = time.perf_counter()
        latents = a * clean + b * noise
        made.append(
            Step(
                index=index,
                timestep=timestep,
                seconds=time.perf_counter() - started,
                a=a,
                b=b,
                # Kept as the velocity: x0 and noise follow from it with no division by a or b, even 0.
                kind="flow_prediction",
                latents=latents,
                output=noise - clean,
                split=SPLIT,
            )
        )
    return Trace(
        settings,
        made,
        final=clean,
        image=picture,
        decode=model.decode,
        matrix=model.matrix,
        seconds=time.perf_counter() - begun,
        info={
            "forward": True,
            "model": model.name,
            "family": model.family,
            "notes": [NOTE],
            "schedule": [level.timestep for level in schedule],
        },
    )


def levels(scheduler: Any, count: int) -> list[Level]:
    """Levels of the schedule a model was trained on, evenly spaced in timesteps, cleanest first.

    Read from the configuration of the scheduler that came with the model. Which sampler that is does not
    matter, only what its configuration says about the training:

    - flow matching: b = s and a = 1 - s (Lipman et al. 2023, arXiv 2210.02747) for s = 1/T, 2/T ... 1, moved
      by the configured shift to shift s / (1 + (shift - 1) s) (Esser et al. 2024, arXiv 2403.03206, eq. 23);
    - EDM: a = 1 and b = sigma from the scheduler's own table (Karras et al. 2022, arXiv 2206.00364, eq. 5);
    - all others: a^2 = alphas_cumprod[t] and b^2 = 1 - a^2 (Ho et al. 2020, arXiv 2006.11239, eq. 4).

    Args:
        scheduler: a diffusers scheduler; it is only read.
        count: how many levels, 1 to the length of the training schedule; 1 gives the noisiest alone.

    Raises:
        ValueError: for a count out of range, or a scheduler that does not tell how the model was trained.
    """
    config = scheduler.config
    total = int(config.get("num_train_timesteps", 1000))
    if not 1 <= count <= total:
        raise ValueError(f"steps must be from 1 to {total}, the levels this model was trained on, got {shown(count)}")
    name = type(scheduler).__name__
    own = {**config, "_class_name": name}
    net = net_of(own)
    if net == "flow":
        # Dynamic shifting depends on the picture's size and is up to the pipeline; training levels are plain.
        shift = 1.0 if config.get("use_dynamic_shifting") else shift_of(own)
        shifted = [shift * s / (1 + (shift - 1) * s) for s in ((k + 1) / total for k in _spread(total, count))]
        return [Level(s * total, 1 - s, s) for s in shifted]
    fresh = type(scheduler).from_config(config)  # a run may have moved the tables of the one at hand
    if net == "edm":
        # The tables begin with the noisiest level; the last sigma, where sampling ends, belongs to no timestep.
        table = list(zip(fresh.timesteps.tolist(), fresh.sigmas.tolist(), strict=False))[::-1]
        return [Level(table[k][0], 1.0, table[k][1]) for k in _spread(len(table), count)]
    if not hasattr(fresh, "alphas_cumprod"):
        raise ValueError(f"a {name} does not tell the noise levels this model was trained on")
    shares = fresh.alphas_cumprod.tolist()
    return [Level(float(t), math.sqrt(shares[t]), math.sqrt(1 - shares[t])) for t in _spread(total, count)]


def _spread(total: int, count: int) -> list[int]:
    """Evenly spaced indices from 0 to total - 1, both among them; of a single one, the last."""
    return [total - 1] if count == 1 else [round(k * (total - 1) / (count - 1)) for k in range(count)]
