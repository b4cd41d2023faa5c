"""cells.py: what is saved is used again, and only where all is equal; a folder that cannot be is noticed at once."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.experiments.sweep import sweep
from diffexplore.model import Model

STEPS = ("steps", [2, 3])
SHARED = {"prompt": "a red fox", "seed": 3}


def saved(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def evaluations(model: Model, call: Callable[[], Any]) -> int:
    """How often the network ran in a call."""
    ran = []
    handle = model.pipeline.unet.register_forward_pre_hook(lambda *args: ran.append(1))
    try:
        call()
    finally:
        handle.remove()
    return len(ran)


def test_finished_cells_are_loaded_instead_of_drawn(tiny_model: Model, tmp_path: Path) -> None:
    model, folder = Model(tiny_model.pipeline, reuse=0), tmp_path / "a" / "b"
    first = sweep(model, x=("steps", [2]), out=folder, sampler="DDIM", **SHARED)
    before = saved(folder)
    assert len(before) == 1
    second = sweep(model, x=("steps", [2, 3]), out=folder, sampler="DDIM", **SHARED)
    after = saved(folder)
    assert len(after) == 2
    assert before.items() <= after.items()
    assert second.traces[0][0].seconds == first.traces[0][0].seconds
    assert torch.equal(second.traces[0][0].final, first.traces[0][0].final)
    assert np.array_equal(np.asarray(second.traces[0][0].image), np.asarray(first.traces[0][0].image))
    assert second.traces[0][0].view("x0", 0).size == first.traces[0][0].view("x0", 0).size
    # Another seed, another name and other weights are other cells.
    sweep(model, x=("steps", [2, 3]), out=folder, sampler="DDIM", prompt="a red fox", seed=4)
    assert len(saved(folder)) == 4
    sweep(Model(tiny_model.pipeline, name="else"), x=("steps", [2]), out=folder, sampler="DDIM", **SHARED)
    assert len(saved(folder)) == 5
    sweep(Model(make_pipeline(1), name=model.name), x=("steps", [2]), out=folder, sampler="DDIM", **SHARED)
    assert len(saved(folder)) == 6
    assert after.items() <= saved(folder).items()


def test_what_was_switched_on_since_makes_other_cells(tmp_path: Path) -> None:
    model, asked = Model(make_pipeline(), reuse=0), {"x": ("steps", [3]), "out": tmp_path, "sampler": "DDIM", **SHARED}
    plain = sweep(model, **asked).traces[0][0]
    model.pipeline.enable_freeu(s1=0.2, s2=0.2, b1=1.8, b2=1.9)
    freed = sweep(model, **asked).traces[0][0]
    assert torch.equal(freed.final, model.trace(freed.settings).final)
    assert not torch.allclose(freed.final, plain.final, rtol=1e-2, atol=1e-2)
    model.pipeline.disable_freeu()
    assert evaluations(model, lambda: sweep(model, **asked)) == 0
    assert len(saved(tmp_path)) == 2


def test_another_prediction_type_makes_other_cells(tmp_path: Path) -> None:
    pipeline = make_pipeline()
    model, asked = Model(pipeline, reuse=0), {"x": ("steps", [3]), "out": tmp_path, "sampler": "DDIM", **SHARED}
    plain = sweep(model, **asked).traces[0][0]
    pipeline.scheduler.register_to_config(prediction_type="v_prediction")
    later = Model(pipeline, reuse=0)
    other = sweep(later, **asked).traces[0][0]
    assert torch.equal(other.final, later.trace(other.settings).final)
    assert not torch.allclose(other.final, plain.final, rtol=1e-2, atol=1e-2)
    # A model goes by the scheduler that its pipeline came with: its cells are what it would draw.
    again = sweep(model, **asked).traces[0][0]
    assert torch.equal(again.final, model.trace(again.settings).final)
    # It has another scheduler of its own now, which a run as it came would use: another model, with cells of its own.
    assert len(saved(tmp_path)) == 3


@pytest.mark.parametrize("threads", [False, True])
def test_two_sweeps_on_one_folder_share_the_work(tmp_path: Path, threads: bool) -> None:
    asked = {"x": ("steps", [2, 3, 4]), "out": tmp_path, "sampler": "DDIM", **SHARED}
    slow, quick = Model(make_pipeline(), reuse=0), Model(make_pipeline(), reuse=0)
    ran: list[int] = []

    def meanwhile(*args: Any) -> None:
        ran.append(1)
        if len(ran) == 1:
            sweep(quick, **asked)

    slow.pipeline.unet.register_forward_pre_hook(meanwhile)
    with ThreadPoolExecutor(1) as executor:
        grid = sweep(slow, executor=executor if threads else None, **asked)
    assert grid.errors == [["", "", ""]]
    assert len(ran) == 2  # the two steps of the cell that it was at
    for trace in grid.traces[0]:
        assert torch.equal(trace.final, quick.trace(trace.settings).final)
        assert trace.view("x0", 0).size == (48, 32)
    assert len(saved(tmp_path)) == 3


def test_a_folder_that_cannot_be_is_noticed_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    readonly = tmp_path / "readonly"
    readonly.mkdir(0o500)
    model = Model(make_pipeline(), reuse=0)
    places = [
        tmp_path / "file" / "cells",
        *([] if os.access(readonly, os.W_OK) else [readonly]),
    ]  # root writes anywhere

    def refused() -> None:
        for place in places:
            for executor in (None, ThreadPoolExecutor(1)):
                with pytest.raises(OSError, match=r"file|readonly"):
                    sweep(model, x=STEPS, out=place, executor=executor, sampler="DDIM", **SHARED)

    assert evaluations(model, refused) == 0
    for text, sentence in (("x" * 5000, "cannot be a path"), ("a\0b", "cannot be a path"), ("", "got ''")):
        with pytest.raises(ValueError, match=sentence):
            sweep(model, x=STEPS, out=text)


def test_a_folder_in_the_place_of_a_cell_is_noticed_before_any_work(tmp_path: Path) -> None:
    model, asked = Model(make_pipeline(), reuse=0), {"x": STEPS, "out": tmp_path, "sampler": "DDIM", **SHARED}
    sweep(model, **asked)
    for path in list(tmp_path.iterdir()):
        path.unlink()
    path.mkdir()

    def refused() -> None:
        with pytest.raises(IsADirectoryError, match=path.name):
            sweep(model, **asked)

    assert evaluations(model, refused) == 0


@pytest.mark.parametrize("threads", [False, True])
def test_a_full_disk_is_an_error_of_the_system_and_leaves_nothing_half(tmp_path: Path, threads: bool) -> None:
    resource = pytest.importorskip("resource", reason="no limits here")
    model = Model(make_pipeline(), reuse=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with ThreadPoolExecutor(1) as executor, pytest.raises(OSError, match=r"\S") as error:
            sweep(model, x=STEPS, out=tmp_path, sampler="DDIM", executor=executor if threads else None, **SHARED)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno
    assert not saved(tmp_path)


def test_a_damaged_or_foreign_file_is_drawn_again(tiny_model: Model, tmp_path: Path) -> None:
    first = sweep(tiny_model, x=STEPS, out=tmp_path, sampler="DDIM", **SHARED)
    paths = {dx.Trace.load(path).settings.steps: path for path in tmp_path.iterdir()}
    paths[2].write_bytes(b"torn")
    tiny_model.trace(prompt="a cat", steps=3, sampler="DDIM").save(paths[3])
    second = sweep(tiny_model, x=STEPS, out=tmp_path, sampler="DDIM", **SHARED)
    for mine, theirs in zip(first.traces[0], second.traces[0], strict=True):
        assert mine.settings == theirs.settings == dx.Trace.load(paths[mine.settings.steps]).settings
        assert torch.allclose(mine.final, theirs.final, rtol=1e-4, atol=1e-5)
