"""The newcomer's path, as somebody walks it who has the wheel and nothing else: install, start, run, look, move.

Everything is real: the built wheel in an environment of its own, the `diffexplore` command in an empty folder, the
notebook that it copies there, Chromium. Nothing of this checkout is in reach of it. How long each step took is printed
at the end of every run of the tests.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hands import other, resting, shown, slider, until
from labs import Lab, free_port, lab_environment, serving
from PIL import Image
from playwright.sync_api import expect

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "tests" / "constraints.txt"
# What would lead a newcomer's Python or Jupyter back to this checkout and its environment.
LEAKS = ("PYTHON", "VIRTUAL_ENV", "CONDA", "JUPYTER", "IPYTHON", "JPY_", "PYTEST", "COVERAGE")


def clean() -> dict[str, str]:
    """The environment of a person who has just opened a terminal."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(LEAKS)}
    here = str(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if part != here)
    return kept


def call(*command: str | Path, folder: Path) -> None:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=clean(), capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-1000:]}{done.stderr[-3000:]}"


def needs_a_registry(python: Path, pins: list[str], folder: Path) -> None:
    """Skip where pip finds nothing to install: no network, or another build of torch than the one in use here."""
    probe = [python, "-m", "pip", "install", "-q", "--dry-run", "--no-deps", "--retries=1", "--timeout=20", *pins]
    wanted = ["torch", "jupyterlab", "hatchling"]
    if subprocess.run([*probe, *wanted], cwd=folder, env=clean(), capture_output=True, timeout=300).returncode:
        pytest.skip(f"pip finds no torch {version('torch')}, JupyterLab or hatchling to install: is there a registry?")


def test_from_the_wheel_to_a_picture_that_a_slider_changes(
    tab: Any, timed: Callable[[str], AbstractContextManager[None]], tmp_path: Path
) -> None:
    work, wheels, home = tmp_path / "work", tmp_path / "wheels", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    # The very build of torch that is in use here, so that a machine with the CPU build is not sent several GB of CUDA.
    (tmp_path / "torch.txt").write_text(f"torch=={version('torch')}\n")
    pins = ["-c", str(CONSTRAINTS), "-c", str(tmp_path / "torch.txt")]
    python = tmp_path / "venv" / "bin" / "python"

    with timed("make an empty environment"):
        call(sys.executable, "-m", "venv", tmp_path / "venv", folder=work)
    needs_a_registry(python, pins, work)
    with timed("build the wheel"):
        call(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", wheels, ROOT, folder=work)
    (wheel,) = wheels.glob("diffexplore-*.whl")
    with timed("install it, with JupyterLab"):
        call(python, "-m", "pip", "install", "-q", *pins, f"diffexplore[lab] @ {wheel.as_uri()}", folder=work)

    port = free_port()
    command = [str(python.with_name("diffexplore")), "--no-browser", f"--port={port}", "--ServerApp.port_retries=0"]
    command += ["--LabApp.extension_manager=readonly", "--expose-app-in-browser"]
    environment = {**lab_environment(home, clean()), "HOME": str(home)}
    page, copies = tab.page, work / "diffexplore-notebooks"
    lab = Lab(f"http://localhost:{port}/", copies)
    with ExitStack() as running:
        running.callback(shutil.rmtree, tmp_path / "venv", ignore_errors=True)  # pytest would keep 1.6 GB, thrice
        with timed("start `diffexplore`, until it answers"):
            running.enter_context(serving(command, environment, work, lab.url + "api", tmp_path / "log.txt"))
        running.callback(page.close)  # before the server goes, or the page would complain of that

        with timed("open the first notebook"):
            # What the command opens where it may: a page in Jupyter's own folder that leads on to the notebook.
            page.goto(door(home, "/lab/tree/01_first_steps.ipynb?token=").as_uri())
            page.wait_for_url("**/lab/tree/01_first_steps.ipynb**")
            lab.ready(page)
        assert sorted(path.name for path in work.iterdir()) == ["diffexplore-notebooks"]
        with timed("wait for the first picture, with nothing pressed"):
            explorer = page.locator(".dx-explorer").first
            viewer = explorer.locator(".dx-viewer")
            expect(viewer.locator(".dx-status")).to_have_text(re.compile("^20 steps"))
            first = resting(page, lambda: shown(viewer))
        assert colours(first) > 1000, "that is no picture"
        installed = lab.run(page, "import diffexplore; print(diffexplore.__file__)")
        assert installed.startswith(str(python.parents[1])), "this is not the installed package"
        assert lab.run(page, "import peft, scipy, torchsde") == "", "the notebooks need these"

        with timed("move the step slider, see another picture"):
            viewer.get_by_label("step", exact=True).fill("5")
            other(viewer, than=first)
            viewer.get_by_label("step", exact=True).fill("20")
            expect(viewer.locator(".dx-count")).to_contain_text("step 20 of 20")
            until(page, lambda: same(shown(viewer), first))

        with timed("move the steps slider, see another picture"):
            handle = slider(explorer, "steps")
            handle.focus()
            for _ in range(5):
                handle.press("ArrowLeft")
            expect(viewer.locator(".dx-status")).to_have_text(re.compile("^15 steps"))
            other(viewer, than=first)

        with timed("run the rest of the notebook"):
            lab.run_from(page, 2)


def door(home: Path, link: str) -> Path:
    """The page that JupyterLab has written for a browser to open, which leads to `link`."""
    (found,) = [page for page in home.rglob("jpserver-*-open.html") if link in page.read_text()]
    return found


def same(now: bytes, first: bytes) -> None:
    assert now == first, "the last step is not what it was"


def colours(png: bytes) -> int:
    """How many colours a picture has."""
    return len(Image.open(io.BytesIO(png)).convert("RGB").getcolors(2**24) or [])
