"""What recording costs on this machine: ratios measured side by side, never a lone time.

Every row runs its two sides in turn (ours, plain, ours, plain, ...) so that a machine whose speed drifts slows both,
and reports the median of the pairs' ratios with the smallest and largest. Plain means diffusers alone, with the same
weights, sampler, seed and settings.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PROMPT = "a fox in the snow at noon"

_OURS = f"""
import diffexplore as dx
trace = dx.load().trace(prompt={PROMPT!r}, steps=20, guidance=5.0, seed=7)
assert len(trace) == 20 and trace.image.size == (64, 64)
"""
_PLAIN = f"""
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({{folder!r}})
pipe.set_progress_bar_config(disable=True)
seed = torch.Generator("cpu").manual_seed(7)
image = pipe({PROMPT!r}, num_inference_steps=20, guidance_scale=5.0, generator=seed).images[0]
assert image.size == (64, 64)
"""
_PEAK = "\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison. `ours` and `plain` are medians in `unit`; `ratio` is the median over pairs of ours / plain."""

    name: str
    unit: str
    ours: float
    plain: float | None
    ratio: float | None
    low: float | None
    high: float | None


def compare(name: str, unit: str, ours: Callable[[], float], plain: Callable[[], float], rounds: int) -> Row:
    """Measure both sides in turn, `rounds` times each, after one uncounted turn."""
    ours(), plain()
    pairs = [(ours(), plain()) for _ in range(rounds)]
    ratios = [a / b for a, b in pairs]
    return Row(
        name,
        unit,
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def _process(code: str) -> tuple[float, float]:
    """Seconds and peak memory (MiB) of a fresh interpreter that runs `code`."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code + _PEAK], env=env, capture_output=True, text=True, check=True)
    return time.perf_counter() - start, float(out.stdout.split()[-1])


def rows(rounds: int) -> list[Row]:
    """All rows, in the order of the table."""
    from diffexplore.model import POCKET

    plain_code = _PLAIN.format(folder=str(POCKET))
    return [
        compare(
            "cold start: load and 20 guided steps",
            "s",
            lambda: _process(_OURS)[0],
            lambda: _process(plain_code)[0],
            rounds,
        ),
        compare(
            "cold start: peak memory",
            "MiB",
            lambda: _process(_OURS)[1],
            lambda: _process(plain_code)[1],
            min(rounds, 3),
        ),
        compare(
            "import diffexplore (plain: an empty interpreter)",
            "s",
            lambda: _process("import diffexplore")[0],
            lambda: _process("")[0],
            rounds,
        ),
        _recording(rounds),
    ]


def _recording(rounds: int) -> Row:
    """CPU seconds of a recorded run over those of the same plain call, model loaded, prompt not cached."""
    import torch
    from diffusers import StableDiffusionPipeline

    import diffexplore as dx
    from diffexplore.model import POCKET

    model = dx.load()
    settings = model.resolve(dx.Settings(prompt=PROMPT, steps=20, guidance=5.0, seed=7))
    plain = StableDiffusionPipeline.from_pretrained(POCKET)
    plain.set_progress_bar_config(disable=True)

    def recorded() -> float:
        start = time.process_time()
        model.trace(settings)
        return time.process_time() - start

    def unrecorded() -> float:
        start = time.process_time()
        generator = torch.Generator("cpu").manual_seed(settings.seed)
        plain(
            settings.prompt,
            negative_prompt=settings.negative_prompt,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=generator,
        )
        return time.process_time() - start

    return compare("recording 20 guided steps (CPU time)", "s", recorded, unrecorded, 3 * rounds)


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    from importlib.metadata import version

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line] if (
        info.is_file()
    ) else []  # fmt: skip
    return names[0] if names else platform.processor() or platform.machine()


def run(rounds: int, to: str | None) -> int:
    """Print the table, write JSON to the file `to` (``-``: standard output, instead of the table)."""
    table = rows(rounds)
    about = machine()
    figures = json.dumps({"machine": about, "rows": [dataclasses.asdict(row) for row in table]}, indent=2)
    if to == "-":
        print(figures)
        return 0
    print(" · ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'':50} {'ours':>9} {'plain':>9} {'ratio':>7}   (from .. to)")
    for row in table:
        print(
            f"{row.name:50} {row.ours:7.2f} {row.unit:3}{row.plain:7.2f} {row.unit:3}{row.ratio:6.3f}"
            f"   ({row.low:.3f} .. {row.high:.3f})"
        )
    if to:
        Path(to).write_text(figures + "\n")
    return 0
