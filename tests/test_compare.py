"""Compare: what differs differs, what is shared is shared to the bit, a failing column leaves the others alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.settings import Settings
from diffexplore.widgets.compare import PRESETS, Compare

SHARED: dict[str, Any] = {"prompt": "a red fox", "steps": 4, "seed": 3, "sampler": "DDIM"}
PAIR: dict[str, dict[str, Any]] = {"plain": {}, "negative": {"negative_prompt": "blurry, low quality"}}


@pytest.fixture
def compare(tiny_model: Model) -> Iterator[Compare]:
    tiny_model.remembered.clear()
    compare = Compare(PAIR, model=tiny_model, **SHARED)
    yield compare
    compare.close()


def wait(condition: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        time.sleep(0.005)
    return condition()


# --- runs ---


def test_columns_start_from_the_same_noise_to_the_bit_and_end_elsewhere(compare: Compare) -> None:
    traces = compare.run()
    assert list(traces) == ["plain", "negative"]
    assert torch.equal(traces["plain"][0].latents, traces["negative"][0].latents)
    assert not torch.equal(traces["plain"].final, traces["negative"].final)
    assert compare.status == "done"
    assert compare.errors == {}


def test_every_column_equals_the_same_run_alone_and_the_text_says_how_nearly(
    compare: Compare, tiny_model: Model
) -> None:
    traces = compare.run()
    assert {trace.info["batch"] for trace in traces.values()} == {2}
    tiny_model.remembered.clear()
    for trace in traces.values():
        alone = tiny_model.trace(trace.settings)
        error = torch.linalg.vector_norm(trace.final - alone.final) / torch.linalg.vector_norm(alone.final)
        assert error < 1e-4
    assert any("share a batch" in note for note in compare.viewer.notes)


def test_all_films_reach_the_viewer_complete(compare: Compare) -> None:
    compare.run()
    films = compare.viewer.shown()
    assert [film.label for film in films] == ["plain", "negative"]
    assert all(film.complete and film.status == "done" for film in films)


def test_columns_that_did_not_change_are_not_drawn_again(compare: Compare) -> None:
    compare.run()
    compare.columns = {**PAIR, "negative": {"negative_prompt": "night"}}
    traces = compare.run()
    assert traces["plain"].info.get("reused") is True
    assert traces["negative"].info.get("reused") is None


def test_columns_of_unequal_length_run_too(tiny_model: Model) -> None:
    compare = Compare({"short": {"steps": 2}, "long": {"steps": 5}}, model=tiny_model, **SHARED)
    assert [len(trace) for trace in compare.run().values()] == [2, 5]
    compare.close()


def test_a_refused_column_says_why_and_the_others_finish(tiny_model: Model) -> None:
    compare = Compare({"good": {}, "wide": {"width": 8 * 33, "height": 8}, "bad": {"sampler": "Flow Euler"}},
                      model=tiny_model, **SHARED)  # fmt: skip
    traces = compare.run()
    assert "good" in traces
    assert "Flow Euler" in compare.errors["bad"]
    assert "bad: " in compare.viewer.error
    assert compare.status == "done"
    compare.close()


def test_a_failing_column_says_why_and_the_others_finish(compare: Compare, tiny_model: Model) -> None:
    negative = compare.columns["negative"]["negative_prompt"]
    tokenizer, encoder = tiny_model.pipeline.tokenizer, tiny_model.pipeline.text_encoder
    bad = tokenizer(negative, padding="max_length", truncation=True).input_ids
    tiny_model.remembered.clear()

    def no_room(module: Any, args: Any, kwargs: Any) -> None:
        if any(row.tolist() == bad for row in args[0]):
            raise torch.OutOfMemoryError("tried to allocate 9 GiB")

    with encoder.register_forward_pre_hook(no_room, with_kwargs=True):
        made = list(compare.run())
    assert made == ["plain"]
    assert "Memory ran out" in compare.errors["negative"]
    assert "negative: Memory ran out" in compare.viewer.error


def test_where_every_column_is_refused_nothing_starts(tiny_model: Model) -> None:
    compare = Compare({"a": {"sampler": "Flow Euler"}, "b": {"sampler": "Flow Heun"}}, model=tiny_model, **SHARED)
    with pytest.raises(ValueError, match="Flow Euler"):
        compare.run()
    assert compare.status == "idle"
    compare.close()


def test_cancel_stops_all_columns_and_keeps_what_they_made(tiny_model: Model) -> None:
    tiny_model.remembered.clear()
    compare = Compare(PAIR, model=tiny_model, **{**SHARED, "steps": 900})
    compare._go.click()
    assert wait(lambda: len(compare.traces) == 2)
    compare.cancel()
    assert wait(lambda: compare.status == "cancelled")
    assert all(trace.cancelled and 0 < len(trace) < 900 for trace in compare.traces.values())
    compare.close()


# --- settings ---


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"one": {}}, "1 columns"),
        ({str(k): {} for k in range(7)}, "7 columns"),
        ({"a": {}, " ": {}}, "label"),
        ({"a": {}, "b": 3}, "must map"),
        ({"a": {}, "b": {"stepz": 3}}, "did you mean 'steps'"),
        ({"a": {}, "b": {"guidance": -1}}, "guidance must be"),
        ("everything", "a preset is one of"),
    ],
)
def test_what_is_no_comparison_is_refused_in_one_sentence(columns: Any, says: str, tiny_model: Model) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        Compare(columns, model=tiny_model)
    assert "\n" not in str(refused.value)


def test_a_refused_assignment_changes_nothing(compare: Compare) -> None:
    with pytest.raises(ValueError, match="2 to 6"):
        compare.columns = {"only": {}}
    assert compare.columns == PAIR


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_differs_in_what_it_says_and_can_run(preset: str, tiny_model: Model) -> None:
    columns = PRESETS[preset](tiny_model, Settings(**SHARED))
    plan = [tiny_model.resolve(Settings(**SHARED).replace(**own)) for own in columns.values()]
    assert len({one.to_json() for one in plan}) == len(columns) >= 2
    names = {name for one in plan[1:] for name in one.diff(plan[0])}
    assert len(names) == 1


def test_dead_controls_are_named_before_a_run(tiny_model: Model) -> None:
    compare = Compare({"off": {"guidance": 1.0}, "on": {"guidance": 5.0}}, model=tiny_model,
                      negative_prompt="blurry", **SHARED)  # fmt: skip
    dead = [note for note in compare.viewer.notes if "negative prompt is ignored" in note]
    assert len(dead) == 1
    assert dead[0].startswith("off: ")
    compare.close()


def test_json_goes_from_one_comparison_to_another(compare: Compare, tiny_model: Model) -> None:
    other = Compare("steps", model=tiny_model)
    other.from_json(compare.to_json())
    assert (other.columns, other.shared) == (compare.columns, compare.shared)
    for bad in ("", "[]", "{}", json.dumps({"shared": {}, "columns": {"a": {}}}), '{"shared": 3, "columns": {}}'):
        with pytest.raises(ValueError, match=r"comparison|columns"):
            other.from_json(bad)
    assert other.columns == compare.columns
    other.close()


def test_code_makes_the_same_comparison(compare: Compare, tiny_model: Model) -> None:
    traces = compare.run()
    space: dict[str, Any] = {"pipeline": tiny_model.pipeline}
    exec(compare.code(), space)
    for label, trace in space["traces"].items():
        np.testing.assert_allclose(trace.final, traces[label].final, rtol=1e-4, atol=1e-5)
    space["compare"].close()


# --- controls ---


def test_controls_and_traits_say_the_same(compare: Compare) -> None:
    compare._shared_controls["steps"].value = 7
    assert compare.shared["steps"] == 7
    compare._own_controls["negative", "negative_prompt"].value = "night"
    assert compare.columns["negative"] == {"negative_prompt": "night"}
    compare.shared = {**compare.shared, "guidance": 2.5}
    assert compare._shared_controls["guidance"].value == 2.5
    assert "negative_prompt" not in compare._shared_controls


def test_columns_are_added_renamed_and_removed(compare: Compare) -> None:
    compare._more.click()
    assert list(compare.columns) == ["plain", "negative", "blurry, low quality"]
    compare._rename("plain", "without")
    assert next(iter(compare.columns)) == "without"
    compare._fewer.click()
    assert list(compare.columns) == ["without", "negative"]


def test_a_label_that_says_the_value_follows_it(tiny_model: Model) -> None:
    compare = Compare("steps", model=tiny_model, **{k: v for k, v in SHARED.items() if k != "steps"})
    compare._own_controls["4", "steps"].value = 6
    assert list(compare.columns) == ["6", "10", "20", "50"]
    compare.close()


def test_a_numbered_label_follows_its_value_too(tiny_model: Model) -> None:
    compare = Compare("steps", model=tiny_model, **{k: v for k, v in SHARED.items() if k != "steps"})
    compare._more.click()
    assert list(compare.columns)[-1] == "50 (2)"
    compare._own_controls["50 (2)", "steps"].value = 30
    assert list(compare.columns) == ["4", "10", "20", "50", "30"]
    compare.close()


def test_numbers_of_numpy_are_numbers(tiny_model: Model) -> None:
    compare = Compare({str(k): {"seed": k} for k in np.arange(3)}, model=tiny_model, steps=np.int64(4))
    assert json.loads(compare.to_json())["columns"] == {"0": {"seed": 0}, "1": {"seed": 1}, "2": {"seed": 2}}
    compare.close()


def test_what_is_left_to_the_model_is_no_entry_of_a_menu(tiny_model: Model) -> None:
    compare = Compare("steps", model=tiny_model, sampler=None)
    assert compare._shared_controls["sampler"].value == tiny_model.sampler
    assert None not in compare._shared_controls["sampler"].options
    compare.close()


def test_columns_that_differ_in_a_lora_say_so(lora: Path) -> None:
    model = Model(make_pipeline())
    model.load_lora(lora, "style")
    compare = Compare({"off": {}, "on": {"adapters": {"style": 0.5}}}, model=model, **SHARED)
    compare.run()
    assert [film.about.get("adapters") for film in compare.viewer.shown()] == [None, "style 0.5"]
    compare.close()


def test_another_setting_to_compare_is_chosen_by_a_control(compare: Compare) -> None:
    compare._vary.value = "guidance"
    assert [list(own) for own in compare.columns.values()] == [["guidance"], ["guidance"]]
    compare._preset.value = "samplers"
    assert all(list(own) == ["sampler"] for own in compare.columns.values())


def test_what_a_control_says_wrongly_is_refused_in_the_widget(compare: Compare) -> None:
    compare._json.value = "nonsense"
    compare._quietly(lambda: compare.from_json(compare._json.value))
    assert "comparison is a JSON object" in compare.viewer.error


def test_plot_shows_when_the_runs_part(compare: Compare) -> None:
    with pytest.raises(ValueError, match="two or more"):
        compare.plot()
    compare.run()
    (line,) = compare.plot().axes[0].get_lines()
    assert line.get_label() == "negative"
    assert len(line.get_xdata()) == 4


def test_it_is_a_public_name() -> None:
    assert dx.Compare is Compare
