"""A newcomer who has read CONTRIBUTING adds one of each: a sampler, a family, a view, a number, a panel, a probe.

Each is one row or one file in a copy of the package; nothing else is touched, and a fresh process uses all of them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SAMPLER = """
    Sampler(
        "Half Karras",
        "EulerDiscreteScheduler",
        {**_EULER, **_KARRAS},
        "Euler with small steps at the end.",
        families=SCALING,
        few=2,
    ),
"""
FAMILY = '''

class Mine(Family):
    """Pipelines of my own, which call their guidance otherwise."""

    name = "sd"
    pipelines = ("MyPipeline",)

    def _guidance(self, pipeline: Any, settings: Settings) -> dict[str, Any]:
        return {"strength_of_prompt": settings.guidance}
'''
VIEW = """    "twice": View("twice", "The latents, once more.", _latents, offered=True),
"""
NUMBER = """_built_in("loudest", "loudest", "latents", lambda record, i: float(record[i].latents.max()),
          "The largest latent.", log=False)
"""
PANEL = """// Says one word.
import { h, say } from "../dom.js";
import { panel } from "../panel.js";

panel("shout", () => {
	const shout = h("p.dx-shout");
	return { nodes: { text: [shout] }, draw() { say(shout, "shouted"); } };
});
"""
USE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from diffusers import StableDiffusionPipeline
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.record.numbers import Number, declare
from diffexplore.runs.probes import Probe


class MyPipeline(StableDiffusionPipeline):
    def __call__(self, *args, strength_of_prompt=1.0, **options):
        return super().__call__(*args, guidance_scale=strength_of_prompt, **options)


class Loudness(Probe):
    def on_step(self, step):
        step.numbers["loudness"] = float(step.latents.abs().mean())


declare(Number("loudness", "loudness", "latents", "The mean size of a latent."))
pipeline = make_pipeline()
mine = MyPipeline(**pipeline.components, requires_safety_checker=False)
model = dx.load(mine)
assert "Half Karras" in model.samplers
trace = model.trace(prompt="a fox", steps=3, guidance=4.0, sampler="Half Karras", probes=[Loudness()])
assert trace[0].guidance == 4.0 or abs(trace[0].guidance - 4.0) < 1e-2
assert "twice" in dx.VIEWS and trace.view("twice", 1).size == trace.image.size
assert (trace.curve("loudest") == [float(step.latents.max()) for step in trace]).all()
assert (trace.curve("loudness") > 0).all()
assert {"loudest", "loudness"} <= {column["name"] for column in trace.columns()}
replay = dx.Replay(trace)
assert "shouted" in replay._esm
trace.save("run.safetensors")
assert (dx.Trace.load("run.safetensors").curve("loudness") == trace.curve("loudness")).all()
print("all of them")
"""


def insert(file, after, text):
    source = file.read_text("utf-8")
    assert source.count(after) == 1, (file.name, after, source.count(after))
    file.write_text(source.replace(after, after + text), "utf-8")


@pytest.fixture
def copy(tmp_path):
    """The package as a newcomer has it; the weights are not looked at."""
    ignore = shutil.ignore_patterns("weights", "adapters", "examples", "__pycache__", "*.png")
    shutil.copytree(ROOT / "diffexplore", tmp_path / "diffexplore", ignore=ignore)
    os.symlink(ROOT / "diffexplore" / "pocket" / "weights", tmp_path / "diffexplore" / "pocket" / "weights")
    return tmp_path


def test_one_of_each_is_one_row_or_one_file(copy):
    package = copy / "diffexplore"
    insert(package / "samplers" / "menu.py", "SAMPLERS: Mapping[str, Sampler] = _menu(", SAMPLER)
    with (package / "pipelines" / "stable.py").open("a", encoding="utf-8") as file:
        file.write(FAMILY)
    family = package / "pipelines" / "family.py"
    insert(family, "_ALL: tuple[Family, ...] = (\n    ", "Mine(), ")
    family.write_text(family.read_text("utf-8").replace("stable import LCM,", "stable import LCM, Mine,"), "utf-8")
    insert(package / "looks" / "views.py", "KINDS: Final[dict[str, View]] = {\n", VIEW)
    insert(
        package / "record" / "numbers.py",
        '          "How far the estimate is from the final latents.", log=True)\n',
        NUMBER,
    )
    (package / "widgets" / "browser" / "panels" / "shout.js").write_text(PANEL, "utf-8")
    insert(
        package / "widgets" / "browser" / "panels" / "index.js", 'import "./caption.js";\n', 'import "./shout.js";\n'
    )
    env = {**os.environ, "PYTHONPATH": str(copy), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", USE, str(ROOT / "tests")], cwd=copy, env=env, capture_output=True, text=True, timeout=600
    )
    assert done.stdout.strip() == "all of them", done.stderr[-3000:]
