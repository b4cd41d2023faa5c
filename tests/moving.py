"""Runs that make videos and sounds, made by hand: what they show is known, and no model is needed."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from diffexplore.settings import Settings
from diffexplore.trace import Step, Trace

RATE = 16_000
SETTINGS = {"steps": 3, "seed": 0, "sampler": "DDIM"}


def steps(shape: tuple[int, ...], count: int = 3, seed: int = 0) -> list[Step]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(count):
        x, output = torch.randn(2, *shape, generator=generator)
        b = (count - i) / (count + 1)
        made.append(
            Step(
                index=i,
                timestep=900.0 - 300 * i,
                seconds=0.1,
                a=1 - b,
                b=b,
                kind="epsilon",
                latents=x,
                output=output,
                cond=output + 0.1 * x,
                uncond=output - 0.1 * x,
                guidance=0.5,
            )
        )
    return made


def which(made: list[Step], latents: torch.Tensor) -> int:
    """The step whose estimate this is, else the last."""
    return next((i for i, one in enumerate(made) if torch.equal(one.x0, latents)), -1)


def square(frames: int, at: int, colour: int, width: int = 64, height: int = 32) -> np.ndarray:
    """(frames, H, W, 3): a square that goes from left to right on grey."""
    made = np.full((frames, height, width, 3), 90, np.uint8)
    for k in range(frames):
        left = round((width - 8) * k / (frames - 1))
        made[k, 8 + at : 16 + at, left : left + 8] = colour
    return made


def video(frames: int = 9, seed: int = 0, colour: int = 230) -> Trace:
    """A run of three steps: step i shows the square 4 i pixels lower."""
    made = steps((4, (frames - 1) // 4 + 1, 8, 16), seed=seed)
    trace = Trace(Settings(prompt="a square", **(SETTINGS | {"seed": seed}), width=64, height=32), made)
    shown = [square(frames, 4 * i, colour - 20 * (2 - i)) for i in range(3)]

    def decode(latents: torch.Tensor) -> np.ndarray:
        return shown[which(made, latents)].copy()

    trace.decode = decode
    trace.output = [Image.fromarray(one) for one in shown[2]]
    trace.image, trace.final = trace.output[frames // 2], made[2].x0
    trace.info |= {"kind": "video", "frames": frames, "fps": 8}
    return trace


def tone(hertz: float, seconds: float = 1.0, loud: float = 0.5) -> np.ndarray:
    """(1, samples) float32."""
    return (loud * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE))[None].astype(np.float32)


def sound(seed: int = 0, hertz: float = 1000.0, seconds: float = 1.0) -> Trace:
    """A run of three steps: a tone that grows louder out of noise."""
    made = steps((8, 25, 16), seed=seed)
    trace = Trace(Settings(prompt="a tone", **(SETTINGS | {"seed": seed})), made)
    noise = np.random.default_rng(seed).normal(0, 0.1, (1, int(seconds * RATE)))
    heard = [(tone(hertz, seconds, 0.25 * (i + 1)) * 2 / 3 + noise * (2 - i) / 2).astype(np.float32) for i in range(3)]
    trace.decode = lambda latents: heard[which(made, latents)]
    trace.output, trace.final = heard[2], made[2].x0
    trace.info |= {"kind": "sound", "rate": RATE, "axes": ["channels", "time", "frequency"]}
    return trace
