"""kinds.py: several models at one prompt and seed, with few and many steps, compared by what they cost."""

import csv

import pytest
from paper import words
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.experiments.kinds import kinds
from diffexplore.model import Model

SAID = {"prompt": "a castle in the snow at night", "seed": 3}


@pytest.fixture(scope="module")
def found():
    models = {"the classic": dx.load(), "the fast one": dx.load("pocket-turbo")}
    return kinds(models, [4, 2, 4], **SAID)


def test_each_draws_from_the_same_seed_by_its_own_sampler(found):
    assert found.models == ["the classic", "the fast one"]
    assert found.steps == [2, 4]
    assert list(found.traces) == [(name, steps) for name in found.models for steps in (2, 4)]
    for (_, steps), trace in found.traces.items():
        assert (trace.settings.prompt, trace.settings.seed, trace.settings.steps) == (SAID["prompt"], 3, steps)
    assert [trace.settings.sampler for trace in found.traces.values()] == ["DPM++ 2M Karras"] * 2 + ["as it came"] * 2
    assert set(found.images) == set(found.traces)


def test_work_is_counted_in_calls_of_the_network(found):
    """Guidance that is mixed takes two of them a step, guidance that is an input one."""
    assert [row["calls"] for row in found.table()] == [4, 8, 2, 4]
    (plain,) = kinds({"one": dx.load()}, [3], guidance=1.0, **SAID).table()
    assert plain["calls"] == 3


def test_calls_are_counted_step_by_step():
    """Guidance that is switched off on the way asks the network once from there on."""
    way = {"guidance": 5.0, "changes": {0.5: {"guidance": 1.0}}}
    found = kinds({"one": dx.load(reuse=0)}, [10], **way, **SAID)
    (row,), (trace,) = found.table(), found.traces.values()
    assert row["calls"] == trace.cost.rows
    assert 10 < row["calls"] < 20


def test_what_the_prompt_names_is_read_where_the_judge_can(found, tmp_path):
    rows = {(row["model"], row["steps"]): row["adherence"] for row in found.table()}
    assert all(0 <= value <= 1 for value in rows.values())
    assert rows["the fast one", 4] > 0.7
    assert rows["the fast one", 4] > rows["the classic", 4]
    found.to_csv(tmp_path / "out.csv")
    read = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert [row["model"] for row in read] == [row["model"] for row in found.table()]


def test_other_models_are_not_read_and_say_so():
    tiny = kinds([Model(make_pipeline(), name="tiny")], [5, 6], prompt="a red fox")
    assert [row["adherence"] for row in tiny.table()] == [None, None]
    assert "tiny" in words(tiny.plot())
    with pytest.raises(ValueError, match="nobody reads these pictures"):
        tiny.plot_adherence()


def test_the_figures_name_models_steps_and_calls(found):
    said = " ".join(words(found.plot()))
    for word in ("the classic", "the fast one", "steps", "8 calls", "seed 3", SAID["prompt"]):
        assert word in said
    said = " ".join(words(found.plot_adherence()))
    assert "calls of the network" in said
    assert "the fast one" in said
    assert found._repr_png_()[0].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"steps": []}, "steps must be a list of at least one whole number"),
        ({"steps": 4}, "steps must be a list"),
        ({"steps": [0]}, "each of steps must be a whole number from 1 to 1000, got 0"),
        ({"models": []}, "at least one model, got none"),
        ({"models": 3}, "models must be a list of models, or models by name, got 3"),
        ({"models": "pocket"}, "models must be a list of models, or models by name, got 'pocket'"),
        ({"models": [3]}, "a model is needed"),
        ({"models": ["pocket", "pocket"]}, "two models are called 'pocket'"),
        ({"sampler": "DDIM"}, "sampler differs from run to run here"),
        ({"guidance": -1}, "guidance"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_drawn(given, why, monkeypatch):
    monkeypatch.setattr(Model, "trace", lambda *_, **__: pytest.fail("something was drawn"))
    with pytest.raises(ValueError, match=why):
        kinds(**{"models": ["pocket"], "steps": [1], **given})
