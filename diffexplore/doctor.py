"""``diffexplore doctor``: what is here, what is missing, and how to get it.

Every finding is one line with a mark: ``ok``, ``note`` (works, but you may want more) or ``FAIL`` (something that this
package needs does not work here). Nothing is changed and nothing is fetched.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from diffexplore import __version__
from diffexplore.words import sentence

__all__ = ["Finding", "examine", "memory_limit", "run"]

MARKS = ("ok", "note", "FAIL")
LEAST_SEEN = 0.6  # of what a prompt says; a picture of nothing has about 0.2
LEAST_MEMORY = 2**30  # bytes; a run of the pocket model peaks at about half of it, a notebook server needs the rest

# Optional module -> what it brings
OPTIONAL = {
    "jupyterlab": "JupyterLab, which `diffexplore` opens",
    "scipy": "the samplers LMS and those with beta schedules",
    "torchsde": "the sampler DPM++ SDE",
    "peft": "LoRA files",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line: its mark, what was looked at, what was found, and what to do about it ("" where nothing)."""

    mark: str
    what: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.mark:5} {self.what:14} {self.found}" + (f"\n{'':20} {self.advice}" if self.advice else "")


def memory_limit(root: Path = Path("/")) -> int | None:
    """Bytes this process may use: the smallest of the machine's memory and the container's limits; None if unknown.

    Args:
        root: where ``proc`` and ``sys`` are looked for.
    """
    limits = []
    for name in ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"):
        file = root / name
        text = file.read_text().strip() if file.is_file() else ""
        if text.isdigit():
            limits.append(int(text))
    info = root / "proc" / "meminfo"
    if info.is_file():
        total = re.search(r"MemTotal:\s+(\d+) kB", info.read_text())
        if total:
            limits.append(int(total[1]) * 1024)
    return min(limits, default=None)


def examine() -> Iterator[Finding]:
    """All findings, each as soon as it is known."""
    for check in (_python, _packages, _optional, _memory, _devices, _torchvision, _browser, _picture):
        try:
            yield from check()
        except Exception as error:
            yield Finding(
                "FAIL",
                check.__name__.strip("_"),
                f"could not be examined: {type(error).__name__}: {sentence(error, 200)}",
            )


def _python() -> Iterator[Finding]:
    yield Finding("ok", "Python", f"{platform.python_version()} in {sys.prefix}")


def _packages() -> Iterator[Finding]:
    yield Finding("ok", "diffexplore", __version__)
    for name, least in _required():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("FAIL", name, "not installed", f'pip install "{name}>={least}"')
            continue
        if _numbers(version) < _numbers(least):
            yield Finding("FAIL", name, f"{version}, {least} or newer is needed", f'pip install "{name}>={least}"')
        else:
            yield Finding("ok", name, version)


def _required() -> list[tuple[str, str]]:
    """(distribution, least version) of everything that diffexplore says it needs."""
    lines = importlib.metadata.requires("diffexplore") or []
    wanted = (re.match(r"([\w.-]+)[^;]*?>=([\d.]+)", line) for line in lines if "extra ==" not in line)
    return [(match[1], match[2]) for match in wanted if match]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _optional() -> Iterator[Finding]:
    for name, brings in OPTIONAL.items():
        if importlib.util.find_spec(name) is None:
            yield Finding("note", name, f"not installed: it brings {brings}", f"pip install {name}")
        else:
            yield Finding("ok", name, importlib.metadata.version(name))


def _memory() -> Iterator[Finding]:
    limit = memory_limit()
    if limit is None:
        yield Finding("note", "memory", "the limit cannot be told here")
    elif limit < LEAST_MEMORY:
        yield Finding(
            "note", "memory", f"{limit / 2**30:.1f} GiB", "the pocket model needs about 0.5, a notebook server 0.3 more"
        )
    else:
        yield Finding("ok", "memory", f"{limit / 2**30:.1f} GiB, {os.cpu_count()} processor cores")


def _devices() -> Iterator[Finding]:
    import torch

    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        yield Finding("ok", "GPU", f"{about.name}, {about.total_memory / 2**30:.0f} GiB (cuda:{index})")
    if torch.backends.mps.is_available():
        yield Finding("ok", "GPU", 'Apple GPU: dx.load(..., device="mps")')
    elif not torch.cuda.is_available():
        yield Finding("note", "GPU", "none that torch can use: the pocket model runs well on the CPU, SD 1.5 slowly")


def _torchvision() -> Iterator[Finding]:
    if importlib.util.find_spec("torchvision") is None:
        return  # nothing here needs it
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        yield Finding(
            "note",
            "torchvision",
            f"does not fit this torch ({type(error).__name__})",
            "nothing here needs it, but other packages that import it fail: pip uninstall torchvision",
        )


def _browser() -> Iterator[Finding]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        yield Finding("note", "Chromium", "not found: only the browser tests need it", "apt-get install chromium")


def _picture() -> Iterator[Finding]:
    """Draws a picture, the one thing that all the rest is for, and has the judge look at it: libraries of the wrong
    version have drawn nonsense without a word.
    """
    from diffexplore.model import load
    from diffexplore.pocket.judge import adherence

    prompt = "a fox in the snow at noon"
    trace = load(device="cpu").trace(prompt=prompt, steps=10, seed=7)
    assert trace.image is not None, "an uncancelled run ends with a picture"
    drew = f"drew {trace.image.width}x{trace.image.height} pixels in {trace.seconds:.1f} s"
    seen = adherence(trace.image, prompt)
    if seen >= LEAST_SEEN:
        yield Finding("ok", "pocket model", f"{drew}, and they show {prompt}")
    else:
        yield Finding(
            "FAIL",
            "pocket model",
            f"{drew}, but they do not show {prompt} (the judge finds {seen:.0%} of it)",
            "a library of another version may have changed the weights: pip install -U transformers diffusers",
        )


def run(out: Callable[[str], object] = print) -> int:
    """Print all findings and what they come to; 0 if everything needed works, else 1."""
    marks = []
    for finding in examine():
        out(str(finding))
        marks.append(finding.mark)
    failed = marks.count("FAIL")
    out("\nEverything needed works here." if not failed else f"\n{failed} of these must be put right first.")
    return 1 if failed else 0
