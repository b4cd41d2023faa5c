"""sweep.py: every cell is the run it says it is, wherever it was drawn; what is saved is used again, or not."""

import io
import os
import shutil
import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import chain
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from safetensors.torch import load_file, save_file
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.experiments.sweep import Grid, sweep
from diffexplore.looks.figures import Figure
from diffexplore.model import Model

STEPS = ("steps", [2, 3])
SAMPLER = ("sampler", ["DDIM", "Euler a", "Heun"])
SHARED = {"prompt": "a red fox", "seed": 3}


def words(figure: Figure) -> list[str]:
    """All texts of a figure, every one of them on the page; drawn without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=50)
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    own = [text for text in texts if text.figure is figure and text in figure.texts]
    for text in own:
        box = text.get_window_extent()
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text
    return [text.get_text() for text in own]


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
    assert [row["evaluations"] for row in grid.table()] == [2, 3, 2, 3, 3, 5]
    assert [(row["sampler"], row["steps"]) for row in grid.table()[:2]] == [("DDIM", 2), ("DDIM", 3)]
    assert all(row["error"] == "" and row["seconds"] > 0 for row in grid.table())


def test_one_axis_is_one_row_in_few_batches(tiny_model: Model) -> None:
    model = Model(tiny_model.pipeline, reuse=0)
    grid = sweep(model, x=("guidance", list(range(2, 12))), steps=2, sampler="DDIM")
    assert [len(line) for line in grid.traces] == [10]
    assert [row["batch"] for row in grid.table()] == [8] * 8 + [2] * 2
    assert [next(iter(row)) for row in grid.table()] == ["guidance"] * 10


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


def test_the_pocket_model_elsewhere_is_the_pocket_model() -> None:
    model = dx.load(device="cpu")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        grid = sweep(model, x=("steps", [2]), executor=executor, prompt="a fox at dusk", seed=1)
    (trace,) = grid.traces[0]
    assert trace is not None
    mine = model.trace(trace.settings)
    assert trace.info["world"] == "pocket"
    assert trace.info["unknown"] == mine.info["unknown"]
    assert torch.allclose(trace.final, mine.final, rtol=1e-4, atol=1e-4)
    assert not np.isnan(grid.adherence()).any()


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


def evaluations(model: Model, call: Callable[[], Any]) -> int:
    """How often the network ran in a call."""
    ran = []
    handle = model.pipeline.unet.register_forward_pre_hook(lambda *args: ran.append(1))
    try:
        call()
    finally:
        handle.remove()
    return len(ran)


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
    assert len(saved(tmp_path)) == 2


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
    for text, sentence in (("x" * 5000, "cannot be a path"), ("a\0b", "cannot be a path")):
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
        assert grid.table()[1]["seconds"] is None
        assert grid.table()[1]["error"] == grid.errors[0][1]
        assert repr(grid) == "Grid(steps (3), 1 failed)"
        shown = words(grid.plot())
        assert "failed" in shown
        assert "the network broke" in " ".join(" ".join(shown).split())
        assert sum("evaluations" in text for text in shown) == 2


def test_a_batch_that_fails_is_drawn_one_by_one() -> None:
    pipeline = make_pipeline()

    def fail(module: torch.nn.Module, args: tuple) -> None:
        if len(args[0]) > 2:  # more than both halves of one picture
            raise RuntimeError("too many")

    pipeline.unet.register_forward_pre_hook(fail)
    grid = sweep(Model(pipeline), x=("seed", [1, 2, 3]), steps=2, sampler="DDIM")
    assert grid.errors == [["", "", ""]]
    assert [row["batch"] for row in grid.table()] == [1, 1, 1]


def test_equal_cells_are_drawn_once(tiny_model: Model) -> None:
    model = Model(tiny_model.pipeline, reuse=0)
    grid = sweep(model, x=("sampler", [None, model.sampler]), steps=2)
    assert grid.traces[0][0] is grid.traces[0][1]
    assert grid.table()[0]["sampler"] == model.sampler


def test_the_figure_names_everything(tiny_model: Model) -> None:
    shown = words(sweep(tiny_model, x=STEPS, y=SAMPLER, **SHARED).plot())
    for text in ("steps →", "sampler ↓", "2", "3", "DDIM", "Euler a", "Heun", "a red fox"):
        assert shown.count(text) == 1, text
    assert sum(text.endswith("5 evaluations") for text in shown) == 1
    tall = sweep(tiny_model, x=("steps", [2, 3]), y=("guidance", [1, 2, 3, 4, 5.5]), sampler="DDIM")
    assert words(tall.plot()).count("3") == 3  # above, below, and a guidance
    data, size = tall._repr_png_()
    assert data.startswith(b"\x89PNG")
    assert size["width"] >= 500


@pytest.mark.parametrize("text", ["", "$5 and $6, a_b^c", r"$\frac{", "狐 🦊", "wide words " * 300, "x" * 5000])
def test_words_that_people_type_are_drawn_as_they_are(tiny_model: Model, text: str) -> None:
    words(sweep(tiny_model, x=("prompt", ["a cat", text]), y=("negative_prompt", [text]), steps=2).plot())
    words(sweep(tiny_model, x=("steps", [2]), prompt=text, negative_prompt=text).plot())


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
    grid = dx.sweep(dx.load(device="cpu"), x=STEPS, y=("sampler", ["Euler a", "DDIM"]), prompt="a fox")
    assert isinstance(grid, Grid)
    assert all(image.size == (64, 64) for line in grid.images for image in line)
    words(grid.plot())


# The judge


def test_adherence_over_a_setting_is_the_judges_word_on_each_picture():
    model = dx.load()
    prompts = ["a blue fox in the snow", "something nice", "a castle in the desert at night"]
    grid = sweep(model, x=("steps", [1, 8]), y=("prompt", prompts), seed=3)
    values = grid.adherence()
    assert values.shape == (3, 2)
    assert np.isnan(values[1]).all(), "nothing the judge could look for"
    for i in (0, 2):
        assert values[i].tolist() == [dx.adherence(image, prompts[i]) for image in grid.images[i]]
    figure = grid.plot_adherence()
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "8"]
    *rows, mean = axes.lines
    assert [line.get_ydata().tolist() for line in (rows[0], rows[2])] == [values[0].tolist(), values[2].tolist()]
    np.testing.assert_allclose(mean.get_ydata(), values[[0, 2]].mean(0))
    assert "sampler" in axes.get_xlabel()


def test_adherence_over_samplers_has_their_names_and_a_lone_row_no_mean():
    grid = sweep(dx.load(), x=("sampler", ["DDIM", "Euler a"]), prompt="a $fox$ in the snow", steps=2)
    (axes,) = grid.plot_adherence().axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["DDIM", "Euler a"]
    assert len(axes.lines) == 1
    assert axes.get_xlabel().startswith("a $fox$ in the snow")


def test_seeds_are_names_and_numbers_are_in_order():
    model = dx.load()
    (axes,) = sweep(model, x=("seed", [1234569, 1234567]), prompt="a fox", steps=1).plot_adherence().axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1234569", "1234567"]
    grid = sweep(model, x=("guidance", [5.0, 1.0]), prompt="a fox", steps=1)
    (axes,) = grid.plot_adherence().axes
    (line,) = axes.lines
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "5"]
    assert line.get_ydata().tolist() == grid.adherence()[0, ::-1].tolist()


def test_pictures_of_another_model_have_no_adherence(tiny_model):
    grid = sweep(tiny_model, x=("steps", [2, 3]), prompt="a fox")
    assert np.isnan(grid.adherence()).all()
    with pytest.raises(ValueError, match="none of these pictures can be judged"):
        grid.plot_adherence()
