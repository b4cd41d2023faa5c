"""The README's two commands, the CI script and the built package agree with each other."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def commands() -> list[str]:
    """The lines of the README's `sh` blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return [line for block in blocks for line in block.strip().splitlines() if "venv" in line]


def test_readme_has_two_set_up_commands_each_one_line():
    start, test = commands()
    assert start.endswith("diffexplore")
    assert test.endswith("pytest")
    assert all("-c tests/constraints.txt" in line for line in (start, test))


def test_ci_calls_the_readme_test_command():
    assert commands()[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_constraints_pin_torch_and_leave_torchvision_out():
    pins = (ROOT / "tests" / "constraints.txt").read_text()
    assert "torch==2.13.0\n" in pins
    assert "torchvision" not in pins


def test_version_is_said_once():
    import diffexplore

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == diffexplore.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_carries_everything_the_package_reads(wheel):
    names = set(wheel.namelist())
    for needed in (
        "diffexplore/widgets/viewer.js",
        "diffexplore/widgets/viewer.css",
        "diffexplore/pocket/weights/model_index.json",
        "diffexplore/pocket/weights/unet/diffusion_pytorch_model.safetensors",
        "diffexplore/pocket/MODEL_CARD.md",
        "diffexplore/notebooks/01_first_steps.ipynb",
        "diffexplore/notebooks/02_prompts.ipynb",
        "diffexplore/notebooks/03_samplers.ipynb",
        "diffexplore/notebooks/04_your_own_model.ipynb",
    ):
        assert needed in names
