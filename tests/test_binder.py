"""Binder, as far as it can be checked without Docker: what would be built, and that its scripts run and draw."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BINDER = ROOT / "binder"


def environment():
    return yaml.safe_load((BINDER / "environment.yml").read_text())


def pins():
    (pip,) = [entry["pip"] for entry in environment()["dependencies"] if isinstance(entry, dict)]
    return [line for line in pip if not line.startswith("--")]


@pytest.mark.parametrize("name", ["postBuild", "start"])
def test_scripts_are_executable_and_stop_at_the_first_error(name):
    script = BINDER / name
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/bin/bash"
    assert "set -euo pipefail" in lines
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_torch_is_the_cpu_build_that_the_tests_use():
    (torch,) = [pin for pin in pins() if pin.startswith("torch")]
    tested = re.search(r"^torch==(\S+)$", (ROOT / "tests" / "constraints.txt").read_text(), re.MULTILINE)
    assert torch == f"torch=={tested[1].split('+')[0]}+cpu"


def test_python_is_one_the_package_takes():
    (python,) = [d for d in environment()["dependencies"] if isinstance(d, str) and d.startswith("python=")]
    assert tuple(map(int, python.split("=")[1].split("."))) >= (3, 11)


def test_start_hands_over_to_the_server_with_its_variables():
    out = subprocess.run(
        [BINDER / "start", sys.executable, "-c", "import os; print(os.environ['HF_HUB_OFFLINE'], 'last')"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert out.stdout.split() == ["1", "last"]


def test_the_smoke_picture_is_drawn_and_its_memory_printed(tmp_path):
    """postBuild as it is, but with a pip that does nothing: the package is installed here already."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/bash\nif [ "$1" = -m ]; then exit 0; fi\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    out = subprocess.run(
        [BINDER / "postBuild"], env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(re.search(r"peak memory (\d+) MiB", out.stdout)[1]) < 1024


def test_the_first_notebook_is_where_the_links_point():
    link = re.search(r"urlpath=lab/tree/(\S+)", (BINDER / "README.md").read_text())
    assert (ROOT / link[1]).is_file()


def test_repo2docker_finds_everything():
    out = subprocess.run(
        [str(Path(sys.executable).with_name("jupyter-repo2docker")), "--no-build", "--debug", str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
    )
    plan = out.stdout + out.stderr
    assert "python=3.12" in plan
    assert "binder/postBuild" in plan
    assert "binder/start" in plan
