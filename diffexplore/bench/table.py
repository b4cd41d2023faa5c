"""What was measured, as a table and as JSON, and on what machine."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path

from diffexplore.bench.rows import rows

__all__ = ["machine", "run"]


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
