"""sweep.py: every cell is the run it says it is; what is wrong is refused before any work."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from paper import own_words
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.experiments.sweep import Grid, sweep
from diffexplore.model import Model

STEPS = ("steps", [2, 3])
SAMPLER = ("sampler", ["DDIM", "Euler a", "Heun"])
SHARED = {"prompt": "a red fox", "seed": 3}


def broken_on(steps: int) -> Model:
    """A model whose network fails in the first evaluation of a run of so many DDIM steps."""
    pipeline = make_pipeline()
    pipeline.scheduler.set_timesteps(steps)
    fatal = int(pipeline.scheduler.timesteps[0])

    def fail(module: torch.nn.Module, args: tuple) -> None:
        if int(args[1]) == fatal:
            raise RuntimeError(f"the network broke\nat timestep {fatal}")

    pipeline.unet.register_forward_pre_hook(fail)
    return Model(pipeline)


def saved(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_every_cell_is_the_run_it_says(tiny_model: Model) -> None:
    grid = dx.sweep(tiny_model, x=STEPS, y=SAMPLER, **SHARED)
    assert [[(s.sampler, s.steps) for s in line] for line in grid.settings] == [
        [(sampler, steps) for steps in (2, 3)] for sampler in SAMPLER[1]
    ]
    alone = Model(tiny_model.pipeline, reuse=0)
    for line, images in zip(grid.traces, grid.images, strict=True):
        for trace, image in zip(line, images, strict=True):
            assert trace is not None
            assert trace.settings.seed == 3
            assert trace.image is image
            assert torch.allclose(trace.final, alone.trace(trace.settings).final, rtol=1e-4, atol=1e-5)
    assert [row["evaluations"] for row in grid.rows()] == [2, 3, 2, 3, 3, 5]
    assert [(row["sampler"], row["steps"]) for row in grid.rows()[:2]] == [("DDIM", 2), ("DDIM", 3)]
    assert all(row["error"] == "" and row["seconds"] > 0 for row in grid.rows())


def test_one_axis_is_one_row_in_few_batches(tiny_model: Model) -> None:
    model = Model(tiny_model.pipeline, reuse=0)
    grid = sweep(model, x=("guidance", list(range(2, 12))), steps=2, sampler="DDIM")
    assert [len(line) for line in grid.traces] == [10]
    assert [row["batch"] for row in grid.rows()] == [8] * 8 + [2] * 2
    assert [next(iter(row)) for row in grid.rows()] == ["guidance"] * 10


def test_a_cell_that_fails_leaves_the_others_alone(tmp_path: Path) -> None:
    model = broken_on(4)
    with ThreadPoolExecutor(2) as executor:
        grids = [sweep(model, x=("steps", [3, 4, 5]), executor=one, sampler="DDIM") for one in (None, executor)]
    kept = sweep(model, x=("steps", [3, 4]), out=tmp_path, sampler="DDIM")
    assert len(saved(tmp_path)) == 1
    assert kept.traces[0][1] is None
    for grid in grids:
        assert [trace is None for trace in grid.traces[0]] == [False, True, False]
        assert [image is None for image in grid.images[0]] == [False, True, False]
        assert grid.errors[0][1].startswith("RuntimeError: the network broke at timestep ")
        assert grid.errors[0][::2] == ["", ""]
        assert grid.rows()[1]["seconds"] is None
        assert grid.rows()[1]["error"] == grid.errors[0][1]
        assert repr(grid) == "Grid(steps (3), 1 failed)"
        shown = own_words(grid.plot())
        assert "failed" in shown
        assert "the network broke" in " ".join(" ".join(shown).split())
        assert sum("evaluations" in text for text in shown) == 2


@pytest.mark.parametrize("threads", [False, True])
def test_interrupted_it_keeps_what_is_done_and_goes_on_from_there(tmp_path: Path, threads: bool) -> None:
    pipeline, ran = make_pipeline(), []
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in a shell's background is deaf to it

    def interrupt(module: torch.nn.Module, args: tuple) -> None:
        ran.append(1)
        if len(ran) == 3:  # in the second cell
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # as long as it takes to notice it; then the run ends where it is

    pipeline.unet.register_forward_pre_hook(interrupt)
    model, asked = Model(pipeline, reuse=0), {"x": ("seed", [1, 2, 3]), "steps": 2, "sampler": "DDIM", "out": tmp_path}
    with ThreadPoolExecutor(1) as executor:
        grid = sweep(model, executor=executor if threads else None, **asked)
        assert grid.errors == [["", "stopped before it was drawn", "stopped before it was drawn"]]
        assert grid.traces[0][0] is not None
        assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
        evaluated = len(ran)
        grid = sweep(model, executor=executor if threads else None, **asked)
    assert grid.errors == [["", "", ""]]
    assert len(ran) == evaluated + 2 * 2


def test_a_batch_that_fails_is_drawn_one_by_one() -> None:
    pipeline = make_pipeline()

    def fail(module: torch.nn.Module, args: tuple) -> None:
        if len(args[0]) > 2:  # more than both halves of one picture
            raise RuntimeError("too many")

    pipeline.unet.register_forward_pre_hook(fail)
    grid = sweep(Model(pipeline), x=("seed", [1, 2, 3]), steps=2, sampler="DDIM")
    assert grid.errors == [["", "", ""]]
    assert [row["batch"] for row in grid.rows()] == [1, 1, 1]


def test_equal_cells_are_drawn_once(tiny_model: Model) -> None:
    model = Model(tiny_model.pipeline, reuse=0)
    grid = sweep(model, x=("sampler", [None, model.sampler]), steps=2)
    assert grid.traces[0][0] is grid.traces[0][1]
    assert grid.rows()[0]["sampler"] == model.sampler


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"x": ("step", [2])}, "x must name one of .*; got 'step', did you mean 'steps'"),
        ({"x": "steps"}, r"x must be a setting and its values, such as \('steps', \[5, 10\]\), got 'steps'"),
        ({"x": ("steps", [])}, r"the values of x must be a list of at least one, got \[\]"),
        ({"x": ("prompt", "fox")}, "the values of x must be a list, got 'fox'"),
        ({"x": ("steps", 5)}, "the values of x must be a list, got 5"),
        ({"x": STEPS, "y": STEPS}, "x and y must vary different settings, both name 'steps'"),
        ({"x": STEPS, "steps": 4}, "steps is the x axis and cannot be set for all cells too, got 4"),
        ({"x": STEPS, "seed": -1}, "seed must be a whole number from 0 .*, got -1"),
        ({"x": STEPS, "seed": None}, "seed must be a whole number from 0 .*, got None"),
        ({"x": STEPS, "sede": 1}, "settings are .*; got 'sede', did you mean 'seed'"),
        ({"x": ("steps", [2, 0])}, "steps must be a whole number from 1 to 1000, got 0"),
        ({"x": STEPS, "y": ("sampler", ["DDIM", "Flow Euler"])}, "sampler 'Flow Euler' cannot be used here"),
        ({"x": ("steps", [2, 1]), "sampler": "Heun"}, "Heun takes at least 2 steps with this model, got 1"),
        ({"x": STEPS, "executor": 4}, "executor must be a concurrent.futures.Executor .*, got 4"),
        ({"x": STEPS, "out": 4}, "out must be the path of a folder, got 4"),
        ({"x": STEPS, "out": __file__}, "out must be a folder, .* is a file"),
    ],
)
def test_refusals_before_any_work(tiny_pipeline, wrong: dict, sentence: str, tmp_path: Path) -> None:
    worked = []
    model = Model(tiny_pipeline)
    handle = tiny_pipeline.unet.register_forward_pre_hook(lambda *args: worked.append(1))
    try:
        with pytest.raises(ValueError, match=sentence):
            sweep(model, **{"out": tmp_path / "cells", **wrong})
    finally:
        handle.remove()
    assert not worked
    assert not (tmp_path / "cells").exists()


def test_the_pocket_model() -> None:
    model = dx.load(device="cpu")
    grid = dx.sweep(model, x=STEPS, y=("sampler", ["Euler a", "DDIM"]), prompt="a fox")
    assert isinstance(grid, Grid)
    assert all(image.size == model.size for line in grid.images for image in line)
    own_words(grid.plot())
