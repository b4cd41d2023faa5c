"""race.py: samplers raced at equal work, measured on real runs."""

import numpy as np
import pytest
from paper import words

from diffexplore.experiments.race import noise_added, race
from diffexplore.model import Model
from diffexplore.samplers import SAMPLERS

SHARED = {"prompt": "a red fox", "seed": 3}


# Equal work


@pytest.mark.parametrize("evaluations", [13, 20, 25])
def test_everybody_spends_the_same(tiny_model: Model, evaluations: int) -> None:
    found = race(tiny_model, evaluations, ["Euler", "Heun", "PLMS", "PNDM", "DPM2 a"], **SHARED)
    half = (evaluations + 1) // 2
    assert {row["sampler"]: row["steps"] for row in found.table()} == {
        "Euler": evaluations,
        "Heun": half,
        "PLMS": evaluations - 1,
        "PNDM": evaluations - 9,
        "DPM2 a": half,
    }
    for name, trace in found.traces.items():
        assert evaluations - 1 <= len(trace) <= evaluations, name
        assert trace.settings.sampler == name
        assert trace.settings.seed == 3
    assert [row["evaluations"] for row in found.table()] == [len(trace) for trace in found.traces.values()]


def test_the_most_steps_within_the_budget_are_taken(tiny_model: Model) -> None:
    for name in tiny_model.samplers:
        entry = SAMPLERS["DDIM" if name == "as it came" else name]
        (row,) = race(tiny_model, 14, [name], **SHARED).table()
        assert row["evaluations"] == entry.evaluations(row["steps"]) <= 14
        assert entry.evaluations(row["steps"] + 1) > 14 or "Trailing" in name


def test_what_came_tells_whether_it_adds_noise() -> None:
    from diffusers import EulerAncestralDiscreteScheduler
    from tiny import make_pipeline

    pipeline = make_pipeline()
    pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(pipeline.scheduler.config)
    rows = race(Model(pipeline), 6, ["as it came", "Euler"], **SHARED).table()
    assert [row["noise"] for row in rows] == ["fresh", ""]


def test_a_race_tells_noise_levels_and_noise(tiny_model: Model) -> None:
    rows = {row["sampler"]: row for row in race(tiny_model, 6, ["Euler", "Euler a", "DPM++ SDE"]).table()}
    assert [row["noise"] for row in rows.values()] == ["", "fresh", "path"]
    assert all(row["sigma_max"] > row["sigma_min"] > 0 for row in rows.values())
    assert not any(row["reused"] for row in rows.values())
    assert race(tiny_model, 6, ["Euler"]).table()[0]["reused"]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_figure_of_a_race(tiny_model: Model, count: int) -> None:
    names = ["Euler", "Heun", "DDIM", "Euler a", "UniPC"][:count]
    found = race(tiny_model, 7, names, prompt="$5 and $\\frac{ 狐" * 20)
    figure = found.plot()
    shown = words(figure)
    assert all(name in shown for name in names)
    assert sum("evaluations" in text and "steps" in text for text in shown) == count
    assert len([axes for axes in figure.axes if axes.images]) == count
    panels = [axes for axes in figure.axes if axes.lines]
    for axes, trace in zip(panels, found.traces.values(), strict=True):
        own = [line for line in axes.lines if line.get_zorder() == 3]
        assert len(axes.lines) == count
        assert np.array_equal(own[0].get_ydata(), trace.curve("sigma"))
    assert found._repr_png_()[0].startswith(b"\x89PNG")


def test_every_sampler_is_put_somewhere() -> None:
    told = {name for name, entry in SAMPLERS.items() if "fresh noise" in entry.sentence}
    fresh = {name for name in SAMPLERS if noise_added(name) == "fresh"}
    assert told <= fresh
    assert {name for name in SAMPLERS if noise_added(name) == "path"} == {"DPM++ SDE", "DPM++ SDE Karras"}
    with pytest.raises(ValueError, match="got 'Eular', did you mean 'Euler'"):
        noise_added("Eular")


# Refusals


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (lambda m: race(m, 0), "evaluations must be a whole number from 1 to 2000, got 0"),
        (lambda m: race(m, 2.5), "evaluations must be a whole number from 1 to 2000, got 2.5"),
        (lambda m: race(m, True), "evaluations must be a whole number from 1 to 2000, got True"),
        (lambda m: race(m, 9, "Euler"), "samplers must be a list of at least one name, got 'Euler'"),
        (lambda m: race(m, 9, []), r"samplers must be a list of at least one name, got \[\]"),
        (lambda m: race(m, 9, ["Eular"]), "sampler must be one of .*; got 'Eular', did you mean 'Euler'"),
        (lambda m: race(m, 9, ["Flow Euler"]), "sampler 'Flow Euler' cannot be used here"),
        (lambda m: race(m, 1, ["Heun"]), "Heun cannot spend 1 evaluations: Heun takes at least 2 steps .*, got 1"),
        (lambda m: race(m, 9, ["PNDM"]), "PNDM cannot spend 9 evaluations: 2 steps cost 11"),
        (lambda m: race(m, 1900, ["Euler"]), "Euler cannot spend 1900 evaluations: 1000 steps are the most there are"),
        (lambda m: race(m, 9, width=20), "width must be a multiple of 8 from 8 to 8192, .*, got 20"),
        (lambda m: race(m, 9, steps=4), "steps differs from run to run here and cannot be set, got 4"),
        (lambda m: race(m, 9, sampler="DDIM"), "sampler differs from run to run .*, got 'DDIM'"),
        (lambda m: race(m, 9, seed=-1), "seed must be a whole number from 0 .*, got -1"),
    ],
)
def test_refusals_before_any_work(tiny_pipeline, run, sentence: str) -> None:
    worked = []
    handle = tiny_pipeline.unet.register_forward_pre_hook(lambda *args: worked.append(1))
    try:
        with pytest.raises(ValueError, match=sentence) as error:
            run(Model(tiny_pipeline))
    finally:
        handle.remove()
    assert "\n" not in str(error.value)
    assert not worked
