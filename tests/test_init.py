"""The front door: what `import diffexplore` gives and what it must not cost."""

import json
import subprocess
import sys
from collections.abc import Mapping

import pytest

import diffexplore


def test_import_leaves_the_heavy_libraries_alone():
    code = "import sys, json, diffexplore; print(json.dumps([m for m in sys.modules if '.' not in m]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(json.loads(out))
    assert not loaded & {
        "torch",
        "diffusers",
        "transformers",
        "matplotlib",
        "ipywidgets",
        "anywidget",
        "numpy",
        "PIL",
    }


@pytest.mark.parametrize("name", diffexplore.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(diffexplore, name)
    assert isinstance(value, (tuple, Mapping)) or value.__doc__


def test_public_names_survive_the_import_of_their_rooms():
    code = (
        "import diffexplore as dx, importlib, types\n"
        "for room in set(dx._HOMES.values()): importlib.import_module('diffexplore.' + room)\n"
        "assert not [n for n in dx.__all__ if isinstance(getattr(dx, n), types.ModuleType)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"'Explode'; it has .*Explorer"):
        diffexplore.Explode  # noqa: B018
