"""What was measured, as a table and as JSON, and on what machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path

from diffexplore.bench import card
from diffexplore.bench.rows import rows

__all__ = ["machine", "run"]


def machine(*, gpu: bool = False) -> dict[str, object]:
    """What the figures were measured on; with its card where `gpu`."""
    from importlib.metadata import version

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
        **(_card() if gpu else {}),
    }


def _card() -> dict[str, object]:
    import torch

    about = torch.cuda.get_device_properties(0)
    return {"card": f"{about.name}, {about.total_memory / 2**30:.0f} GiB", "CUDA": torch.version.cuda}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line] if (
        info.is_file()
    ) else []  # fmt: skip
    return names[0] if names else platform.processor() or platform.machine()


def run(rounds: int, to: str | None, *, gpu: bool = False) -> int:
    """Print the table, write JSON to the file `to` (``-``: standard output, instead of the table).

    Args:
        rounds: repetitions of every row.
        to: a file, or None.
        gpu: measure the card in place of the processor.

    Raises:
        ValueError: where `gpu` is asked for and torch sees none.
    """
    table = card.rows(rounds) if gpu else rows(rounds)
    about = machine(gpu=gpu)
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
