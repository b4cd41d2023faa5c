"""elsewhere.py: a run is the same wherever an executor draws it, or its executor is refused."""

import shutil
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import chain
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.experiments.sweep import sweep
from diffexplore.model import Model

STEPS = ("steps", [2, 3])
SAMPLER = ("sampler", ["DDIM", "Euler a", "Heun"])
SHARED = {"prompt": "a red fox", "seed": 3}


@pytest.mark.parametrize("count", [1, 3])
def test_threads_draw_the_same(tiny_model: Model, count: int) -> None:
    here = sweep(Model(tiny_model.pipeline, reuse=0), x=STEPS, y=SAMPLER, **SHARED)
    with ThreadPoolExecutor(count) as executor:
        there = sweep(Model(tiny_model.pipeline, reuse=0), x=STEPS, y=SAMPLER, executor=executor, **SHARED)
    for mine, theirs in zip(chain(*here.traces), chain(*there.traces), strict=True):
        assert mine.settings == theirs.settings
        assert torch.allclose(mine.final, theirs.final, rtol=1e-4, atol=1e-5)


def test_another_process_opens_the_model_anew(tmp_path: Path) -> None:
    make_pipeline().save_pretrained(tmp_path / "tiny")
    model = dx.load(tmp_path / "tiny", device="cpu")
    ready = Model(make_pipeline())
    other = dx.load(tmp_path / "tiny", device="cpu")
    with torch.no_grad():
        next(other.pipeline.unet.parameters()).add_(1)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        grid = sweep(model, x=STEPS, executor=executor, sampler="DDIM", **SHARED)
        with pytest.raises(ValueError, match="made from a ready pipeline"):
            sweep(ready, x=STEPS, executor=executor, sampler="DDIM", **SHARED)
        changed = sweep(other, x=STEPS, executor=executor, sampler="DDIM", **SHARED)
    assert grid.errors == [["", ""]]
    for trace in grid.traces[0]:
        mine = model.trace(trace.settings)
        assert torch.allclose(trace.final, mine.final, rtol=1e-4, atol=1e-5)
        assert trace.info["model"] == "tiny"
        assert np.asarray(trace.view("x0", 0)).shape == np.asarray(mine.view("x0", 0)).shape
    assert all("holds other weights" in error for error in changed.errors[0])


def test_another_process_has_its_dtype_and_its_loras(tmp_path: Path, lora: Path) -> None:
    make_pipeline().save_pretrained(tmp_path / "tiny")
    model = dx.load(tmp_path / "tiny", device="cpu", dtype="bfloat16")
    file = Path(shutil.copy(lora, tmp_path))
    model.load_lora(file, "style")
    asked = {"x": ("adapters", [{}, {"style": 1.0}]), "sampler": "DDIM", "steps": 2, **SHARED}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        grid = sweep(model, executor=executor, **asked)
        model.name = "once more"
        save_file({name: 2 * weight for name, weight in load_file(file).items()}, file)
        changed = sweep(model, executor=executor, **asked)
    assert grid.errors == [["", ""]]
    assert all("has a LoRA's file changed?" in error for error in changed.errors[0])
    off, on = grid.traces[0]
    assert not torch.equal(off.final, on.final)


def test_another_process_has_what_is_switched_on(tmp_path: Path) -> None:
    make_pipeline().save_pretrained(tmp_path / "tiny")
    model = dx.load(tmp_path / "tiny", device="cpu", reuse=0)
    plain = model.trace(steps=2, sampler="DDIM", **SHARED).final
    model.pipeline.enable_freeu(s1=0.2, s2=0.2, b1=1.8, b2=1.9)
    model.pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    later = Model(model.pipeline, origin=model.origin, reuse=0)  # the other is as it was when it was made
    assert not torch.allclose(later.trace(steps=2, sampler="DDIM", **SHARED).final, plain, rtol=1e-2, atol=1e-2)
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=torch.set_num_threads, initargs=(2,)) as executor:
        for one in (model, later):
            grid = sweep(one, x=("steps", [2]), executor=executor, sampler="DDIM", **SHARED)
            mine = one.trace(steps=2, sampler="DDIM", **SHARED)
            assert grid.errors == [[""]]
            assert torch.allclose(grid.traces[0][0].final, mine.final, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(mine.final, plain, rtol=1e-2, atol=1e-2)
        assert executor.submit(torch.get_num_threads).result() == 1
        two = Model(model.pipeline, origin=model.origin, reuse=0, threads=2)
        asked = {"x": ("steps", [2]), "sampler": "DDIM", **SHARED}
        for one, count in ((model, 1), (two, 2)):
            found = sweep(one, executor=executor, out=tmp_path / "cells", **asked).traces[0][0]
            assert found.info["threads"] == count
        assert torch.equal(found.final, two.trace(steps=2, sampler="DDIM", **SHARED).final)
        assert len(list((tmp_path / "cells").glob("*.safetensors"))) == 2  # each under a name of its own


@pytest.mark.skipif("fork" not in get_all_start_methods(), reason="nothing forks here")
def test_forked_processes_are_refused(tmp_path: Path) -> None:
    executor = ProcessPoolExecutor(2, mp_context=get_context("fork"))
    with executor, pytest.raises(ValueError, match=r'mp_context=multiprocessing\.get_context\("spawn"\)') as error:
        sweep(dx.load(device="cpu"), x=STEPS, executor=executor, out=tmp_path / "cells")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "cells").exists()


def test_a_ready_pipeline_is_drawn_on_any_threads(tiny_model: Model) -> None:
    class Threads(Executor):
        """Of somebody else."""

        def __init__(self) -> None:
            self.own = ThreadPoolExecutor(1)

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            return self.own.submit(*args, **kwargs)

    assert sweep(tiny_model, x=STEPS, executor=Threads(), sampler="DDIM", **SHARED).errors == [["", ""]]
