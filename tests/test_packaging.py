"""The README's two commands, the CI script and the built package agree with each other."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import metadata, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]


def commands() -> list[str]:
    """The lines of the README's `sh` blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    return [line for block in blocks for line in block.strip().splitlines() if "venv" in line]


def test_readme_has_two_set_up_commands_each_one_line():
    start, test = commands()
    assert start.endswith("diffexplore")
    assert re.search(r"pytest( -n 2 --dist loadfile)?$", test)
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
        "diffexplore/widgets/browser/viewer.js",
        "diffexplore/widgets/browser/viewer.css",
        "diffexplore/widgets/browser/page.js",
        "diffexplore/widgets/browser/panels/index.js",
        "diffexplore/widgets/browser/panels/stage.js",
        "diffexplore/widgets/browser/panels/stage.css",
        "diffexplore/pocket/weights/model_index.json",
        "diffexplore/pocket/weights/unet/diffusion_pytorch_model.safetensors",
        "diffexplore/pocket/weights-turbo/unet/diffusion_pytorch_model.safetensors",
        "diffexplore/pocket/weights-flow/transformer/diffusion_pytorch_model.safetensors",
        "diffexplore/pocket/MODEL_CARD.md",
        "diffexplore/notebooks/01_first_steps.ipynb",
        "diffexplore/notebooks/02_prompts.ipynb",
        "diffexplore/notebooks/02b_asked_and_shown.ipynb",
        "diffexplore/notebooks/03_samplers.ipynb",
        "diffexplore/notebooks/03b_steps_and_seeds.ipynb",
        "diffexplore/notebooks/04_your_own_model.ipynb",
        "diffexplore/notebooks/05_a_word_of_your_own.ipynb",
        "diffexplore/notebooks/glossary.md",
        "diffexplore/pocket/adapters/dragon.safetensors",
        "diffexplore/pocket/adapters/synthwave.safetensors",
    ):
        assert needed in names


# Dependencies

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
FOR_USERS = [extra for extra in EXTRAS if extra not in ("test", "docs")]

# Declared and never imported here: who needs it.
UNSEEN = {
    "torchsde": "diffusers' SDE samplers draw their noise with it",
    "jupyterlab": "the `diffexplore` command starts it as a program",
    "ipykernel": "JupyterLab starts it as a program",
}
# Imported where somebody has it, and declared by nobody: what it is for.
WHERE_THERE = {"pynvml": "NVIDIA's own counter of energy, which only its cards have"}

PERMISSIVE = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "LLVM-exception",
    "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib",
    # The same as classifiers and older metadata say it.
    "Apache 2.0", "Apache 2.0 License", "Apache License, Version 2.0", "Apache Software License", "BSD", "BSD License",
    "ISC License (ISCL)", "MIT License", "Python Software Foundation License",
}  # fmt: skip
# Copyleft by the file: it asks for nothing of those who use the package unchanged, as is done here.
BY_THE_FILE = {"certifi": "Mozilla Public License 2.0 (MPL 2.0)", "tqdm": "MPL-2.0"}
# What the CUDA build of torch brings; under NVIDIA's own terms, and chosen by whoever chooses that build.
CUDA = ("nvidia-", "cuda-")


def declared(*extras):
    """The requirements that the package states for itself and for some extras, without those on itself."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in EXTRAS[extra])]
    return [r for r in map(Requirement, texts) if r.name != "diffexplore"]


def imported():
    """Third-party module -> a file of the package that imports it, anywhere in it."""
    found = {}
    for file in sorted((ROOT / "diffexplore").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            found |= {name.split(".")[0]: file.name for name in names}
    return {name: file for name, file in found.items() if name not in {*sys.stdlib_module_names, "diffexplore"}}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    homes = packages_distributions()
    modules = imported()
    assert modules.keys() >= WHERE_THERE.keys()
    modules = {name: file for name, file in modules.items() if name not in WHERE_THERE}
    used = {canonicalize_name(home) for module in modules for home in homes[module]}
    stated = {canonicalize_name(r.name) for r in declared(*FOR_USERS)}
    assert {"torch", "pillow", "ipywidgets"} <= used
    assert used - stated == set(), imported()
    assert stated - used == set(UNSEEN)


def test_an_optional_package_is_not_needed_to_import_any_room():
    """What only an extra brings is imported inside the function that needs it."""
    optional = {r.name for r in declared(*FOR_USERS)} - {r.name for r in declared()}
    for file in (ROOT / "diffexplore").rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert not optional & {name.split(".")[0] for name in names}, file


def test_the_known_good_set_pins_all_that_is_declared_inside_the_declared_ranges():
    pins = {}
    for line in (ROOT / "tests" / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, pin = line.split("==")
            assert pins.setdefault(canonicalize_name(name), Version(pin)) == Version(pin), f"{name} is pinned twice"
    wanted = declared(*EXTRAS)
    assert len(wanted) > 20
    wrong = {str(r): pins.get(canonicalize_name(r.name)) for r in wanted}
    assert {r: pin for r, pin in wrong.items() if pin is None or pin not in Requirement(r).specifier} == {}


def test_the_lowest_versions_that_are_tested_are_those_that_are_declared():
    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    pairs = (line.partition("#")[0].split("==") for line in lines if "==" in line)
    pins = {canonicalize_name(name): Version(pin.strip()) for name, pin in pairs}
    floors = {
        canonicalize_name(r.name): Version(next(s.version for s in r.specifier if s.operator == ">="))
        for r in declared("samplers", "lora")
    }
    torch = floors.pop("torch")
    assert pins.pop("torch") >= torch
    assert pins.pop("pyparsing"), "matplotlib's own; see there"
    assert pins == floors


def licence(name):
    """What a package says of itself: the expression, else the classifiers, else the first line of the text."""
    facts = metadata(name)
    named = [c.split(" :: ")[-1] for c in facts.get_all("Classifier", []) if c.startswith("License :: ")]
    text = facts.get("License") or "none"
    return facts.get("License-Expression") or " AND ".join(named) or text.splitlines()[0].strip()


def test_everything_a_user_installs_is_under_a_permissive_licence():
    waiting, seen = declared(*FOR_USERS), {}
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in seen or name.startswith(CUDA):
            continue
        seen[name] = licence(name)
        for text in requires(name) or []:
            further = Requirement(text)
            if not further.marker or any(further.marker.evaluate({"extra": e}) for e in (*requirement.extras, "")):
                waiting.append(further)
    assert len(seen) > 80
    odd = {}
    for name, said in seen.items():
        rest = [part for part in re.split(r" AND | OR | WITH ", said) if part not in PERMISSIVE]
        odd |= {name: " AND ".join(rest)} if rest else {}
    assert odd == BY_THE_FILE
