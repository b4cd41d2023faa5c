"""Compare: what differs differs, what is shared is shared to the bit, a failing column leaves the others alone."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ipywidgets import Text
from knobs import choose, enter, error, find, move, notes, on, parts, press, registered, title, truth, type_in
from patience import wait
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.runs.plan import Plan
from diffexplore.settings import Settings
from diffexplore.widgets.compare import Compare

SHARED: dict[str, Any] = {"prompt": "a red fox", "steps": 4, "seed": 3, "sampler": "DDIM"}
PAIR: dict[str, dict[str, Any]] = {"plain": {}, "negative": {"negative_prompt": "blurry, low quality"}}


@pytest.fixture
def compare(tiny_model: Model) -> Iterator[Compare]:
    tiny_model.remembered.clear()
    compare = Compare(PAIR, model=tiny_model, **SHARED)
    yield compare
    compare.close()


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
    assert any("share a batch" in note for note in notes(compare))


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
    tiny_model.remembered.clear()
    compare = Compare({"good": {}, "wide": {"width": 8 * 33, "height": 8}, "bad": {"sampler": "Flow Euler"}},
                      model=tiny_model, **SHARED)  # fmt: skip
    said: list[str] = []
    with tiny_model.pipeline.unet.register_forward_pre_hook(lambda *_: said.append(error(compare))):
        traces = compare.run()
    assert "good" in traces
    assert said
    assert all("bad: Sampler 'Flow Euler' cannot be used" in one for one in said), "while the others are drawn"
    assert "Flow Euler" in compare.errors["bad"]
    assert "bad: " in error(compare)
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
    assert "negative: Memory ran out" in error(compare)


def test_where_every_column_is_refused_nothing_starts(tiny_model: Model) -> None:
    compare = Compare({"a": {"sampler": "Flow Euler"}, "b": {"sampler": "Flow Heun"}}, model=tiny_model, **SHARED)
    with pytest.raises(ValueError, match="Flow Euler"):
        compare.run()
    assert compare.status == "idle"
    compare.close()


def test_cancel_stops_all_columns_and_keeps_what_they_made(tiny_model: Model) -> None:
    tiny_model.remembered.clear()
    compare = Compare(PAIR, model=tiny_model, **{**SHARED, "steps": 900})
    press(compare, "Run")
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
        ("a fox", r"a prompt is given as Compare\(prompt=...\)"),
        (["a", "b"], r"label -> settings, or the name of a preset; got \['a', 'b'\]"),
        ({"a": {}, "b": {"self": 1}}, "settings are .*; got 'self'"),
        ({"a": {}, "b": {"\ud800": 1}}, "settings are .*; got '.ud800'"),
        ({"a": {}, "\ud800": {}}, "label must be text"),
        ({"a": {}, "b": {"prompt": "\ud800"}}, "valid Unicode"),
        ({"a": {}, "b": {3: 1}}, "settings are .*; got 3"),
    ],
)
def test_what_is_no_comparison_is_refused_in_one_sentence(columns: Any, says: str, tiny_model: Model) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        Compare(columns, model=tiny_model)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("given", ["a fox", make_pipeline(), 3])
def test_what_is_no_model_is_refused_in_one_sentence(given: Any) -> None:
    with pytest.raises(ValueError, match="Compare takes a model"):
        Compare("steps", given)


def test_a_model_in_the_place_of_columns_is_told_where_it_belongs(tiny_model: Model) -> None:
    with pytest.raises(ValueError, match=r"a model is given as Compare\(model=...\)"):
        Compare(tiny_model)  # type: ignore[arg-type]


def test_a_refused_assignment_changes_nothing(compare: Compare) -> None:
    for wrong in ({"a": 3, "b": {}}, {"a": {}, "b": {"self": 1}}, {"a": {}, "b": {"steps": 0}}):
        with pytest.raises(ValueError, match=r"must map|settings are|steps must be"):
            compare.columns = wrong
    with pytest.raises(ValueError, match="settings are"):
        compare.shared = {"self": 1}
    with pytest.raises(ValueError, match="2 to 6"):
        compare.columns = {"only": {}}
    assert compare.columns == PAIR


def test_dead_controls_are_named_before_a_run(tiny_model: Model) -> None:
    compare = Compare({"off": {"guidance": 1.0}, "on": {"guidance": 5.0}}, model=tiny_model,
                      negative_prompt="blurry", **SHARED)  # fmt: skip
    dead = [note for note in notes(compare) if "negative prompt is ignored" in note]
    assert len(dead) == 1
    assert dead[0].startswith("off: ")
    compare.close()


def test_json_goes_from_one_comparison_to_another(compare: Compare, tiny_model: Model) -> None:
    other = Compare("steps", model=tiny_model)
    other.from_json(compare.to_json())
    assert (other.columns, other.shared) == (compare.columns, compare.shared)
    surrogates = (
        '{"shared": {"\\ud800": 1}, "columns": {"a": {}, "b": {}}}',
        '{"shared": {}, "columns": {"a": {}, "\\ud800": {}}}',
        '{"shared": {}, "columns": {"a": {"prompt": "\\ud800"}, "b": {}}}',
        '{"shared": {}, "columns": {"a": {"adapters": {"\\ud800": 0}}, "b": {}}}',
    )
    own = '{"shared": {"self": 1}, "columns": {"a": {}, "b": {}}}'
    for bad in (own, own.replace("1", "{}"), *surrogates, "[" * 100_000, '"shared columns"'):
        with pytest.raises(
            ValueError, match=r"settings are|label must be|Unicode|JSON object|adapters must"
        ) as refused:
            other.from_json(bad)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 300
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
    move(compare, "steps", 7)
    assert compare.shared["steps"] == 7
    type_in(compare, "negative", "night", nth=1)
    assert compare.columns["negative"] == {"negative_prompt": "night"}
    compare.shared = {**compare.shared, "guidance": 2.5}
    assert on(compare, "guidance") == 2.5
    assert [on(compare, "negative", nth=k) for k in range(2)] == ["", "night"], "a field for each column, none for all"
    assert len([one for one in parts(compare) if title(one) == "negative"]) == 2


def test_a_field_whose_column_is_gone_may_still_speak_and_changes_nothing(compare: Compare) -> None:
    """A field says what was typed when the hand leaves it: by then its column may be no more, and a page that speaks
    for a closed control ends with an error."""
    press(compare, "add a column")
    count = len(compare.columns)
    field = find(compare, f"column {count}", Text)
    press(compare, "remove the last column")
    columns = dict(compare.columns)
    assert field.comm is not None
    field.value = "late"
    assert compare.columns == columns
    compare.close()
    assert field.comm is None


def test_columns_are_added_renamed_and_removed(compare: Compare) -> None:
    press(compare, "add a column")
    assert list(compare.columns) == ["plain", "negative", "blurry, low quality"]
    type_in(compare, "column 1", "without")
    assert next(iter(compare.columns)) == "without"
    press(compare, "remove the last column")
    assert list(compare.columns) == ["without", "negative"]


def test_a_label_that_says_the_value_follows_it(tiny_model: Model) -> None:
    compare = Compare("steps", model=tiny_model, **{k: v for k, v in SHARED.items() if k != "steps"})
    move(compare, "steps", 6)
    assert list(compare.columns) == [f"steps {n}" for n in (6, 10, 20, 50)]
    compare.close()


def test_a_numbered_label_follows_its_value_too(tiny_model: Model) -> None:
    compare = Compare("steps", model=tiny_model, **{k: v for k, v in SHARED.items() if k != "steps"})
    press(compare, "add a column")
    assert list(compare.columns)[-1] == "steps 50 (2)"
    move(compare, "steps", 30, nth=4)
    assert list(compare.columns) == [f"steps {n}" for n in (4, 10, 20, 50, 30)]
    compare.close()


def test_numbers_of_numpy_are_numbers(tiny_model: Model) -> None:
    compare = Compare({str(k): {"seed": k} for k in np.arange(3)}, model=tiny_model, steps=np.int64(4))
    assert json.loads(compare.to_json())["columns"] == {"0": {"seed": 0}, "1": {"seed": 1}, "2": {"seed": 2}}
    compare.close()


def test_what_is_left_to_the_model_is_no_entry_of_a_menu(tiny_model: Model) -> None:
    compare = Compare("steps", model=tiny_model, sampler=None)
    assert on(compare, "sampler") == tiny_model.sampler
    assert None not in find(compare, "sampler").options
    compare.close()


def test_columns_that_differ_in_a_lora_say_so(lora: Path) -> None:
    model = Model(make_pipeline())
    model.load_lora(lora, "style")
    compare = Compare({"off": {}, "on": {"adapters": {"style": 0.5}}}, model=model, **SHARED)
    compare.run()
    assert [film.about.get("adapters") for film in compare.viewer.shown()] == [None, "style 0.5"]
    compare.close()


def test_another_setting_to_compare_is_chosen_by_a_control(compare: Compare) -> None:
    choose(compare, "compare", "guidance")
    assert [list(own) for own in compare.columns.values()] == [["guidance"], ["guidance"]]
    choose(compare, "start from", "samplers")
    assert all(list(own) == ["sampler"] for own in compare.columns.values())


def test_what_a_control_says_wrongly_is_refused_in_the_widget(compare: Compare) -> None:
    move(compare, "settings as JSON", "nonsense")
    press(compare, "Use this")
    assert on(compare, "settings as JSON") == "nonsense", "it stays, to be put right"
    assert "comparison is a JSON object" in error(compare)


def test_plot_shows_when_the_runs_part(compare: Compare) -> None:
    with pytest.raises(ValueError, match="two or more"):
        compare.plot()
    compare.run()
    (line,) = compare.plot().axes[0].get_lines()
    assert line.get_label() == "negative"
    assert len(line.get_xdata()) == 4


def test_a_slider_in_a_column_is_the_same_slider_after_its_label_followed(tiny_model: Model) -> None:
    compare = Compare("steps", model=tiny_model)
    slider = find(compare, "steps", nth=1)
    for value in (11, 12, 13):
        slider.set_state({"value": value})
    assert find(compare, "steps", nth=1) is slider, "it is in somebody's hand"
    assert list(compare.columns) == [f"steps {n}" for n in (4, 13, 20, 50)]
    compare.close()


def test_what_is_typed_wrongly_is_said_and_the_field_goes_back_to_what_runs(compare: Compare) -> None:
    before = (compare.shared, compare.columns)
    for name, text in (("steps", "7,5"), ("steps", "0"), ("seed", "abc"), ("guidance", "200")):
        was = on(compare, name, Text)
        type_in(compare, name, text)
        assert f"{name} must be" in error(compare).lower()
        assert on(compare, name, Text) == was
        type_in(compare, "column 1", "another")
        assert error(compare) == ""
        type_in(compare, "column 1", "plain")
    type_in(compare, "column 1", " ")
    assert on(compare, "column 1") == "plain"
    assert (compare.shared, compare.columns) == ({**SHARED, **before[0]}, before[1])


def test_a_move_plans_only_the_columns_that_it_changes(tiny_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    compare = Compare("steps", model=tiny_model, prompt="a red fox", sampler="DDIM")
    made: list[Any] = []
    planned: list[Any] = []
    init, plan = Settings.__init__, Model.plan

    def counted_init(self: Settings, **values: Any) -> None:
        made.append(values)
        init(self, **values)

    def counted_plan(self: Model, settings: Any = None, **values: Any) -> Any:
        if not isinstance(settings, Plan):
            planned.append(settings)
        return plan(self, settings, **values)

    monkeypatch.setattr(Settings, "__init__", counted_init)
    monkeypatch.setattr(Model, "plan", counted_plan)
    move(compare, "steps", 6, nth=2)
    assert len(planned) == 1
    assert len(made) == 4, "the settings of each column, once"
    planned.clear()
    made.clear()
    move(compare, "guidance", 3.0)
    assert len(planned) == 4
    assert len(made) == 5, "what is shared, and each column"
    planned.clear()
    assert len(compare.run()) == 4
    assert planned == []
    compare.close()


def test_a_closed_comparison_leaves_no_widget_behind_and_lets_go_of_its_model() -> None:
    before = registered()
    model = Model(make_pipeline())
    compare = Compare(PAIR, model=model, **SHARED)
    compare.run()
    press(compare, "add a column")
    press(compare, "remove the last column")
    choose(compare, "compare", "guidance")
    model.remembered.clear()
    compare.close()
    assert registered() == before
    gone = [weakref.ref(model), weakref.ref(compare)]
    del model, compare

    def let_go() -> bool:  # the model's thread ends some seconds after its last run
        gc.collect()
        return [ref() for ref in gone] == [None, None]

    assert wait(let_go)


def test_loras_have_a_control_for_all_and_for_each(lora: Path) -> None:
    model = Model(make_pipeline())
    model.load_lora(lora, "style")
    compare = Compare({"off": {}, "on": {}}, model=model, **SHARED)
    move(compare, "style", 0.5)
    assert compare.shared["adapters"] == {"style": 0.5}
    choose(compare, "compare", "adapters")
    assert list(compare.columns) == ["style 0.5", "style 0.5 (2)"]
    move(compare, "style", 0, nth=1)
    assert [own["adapters"] for own in compare.columns.values()] == [{"style": 0.5}, {"style": 0.0}]
    assert json.loads(compare.to_json())["shared"]["adapters"] == {"style": 0.5}
    compare.close()


def test_what_if_answers_for_the_runs_on_show_and_for_no_others(compare: Compare) -> None:
    compare.run()
    answers: list[Any] = []
    compare.viewer.send = lambda content, buffers=None: answers.append((content, buffers))
    first = compare.viewer.truth["run"]

    def ask(run: int, steps: list[int]) -> Any:
        answers.clear()
        compare.viewer._handle_custom_msg({"kind": "what if", "run": run, "guidance": 9.0, "steps": steps}, [])
        ((content, pictures),) = [one for one in answers if one[0]["kind"] == "what if"]
        return content["told"], pictures

    told, pictures = ask(first, [1, 3])
    assert told == ["", ""]
    assert all(picture[:4] == b"\x89PNG" for picture in pictures)
    compare.columns = {"short": {"steps": 2}, "long": {}}
    compare.run()
    told, pictures = ask(compare.viewer.truth["run"], [1, 3])
    assert told == ["", ""]
    told, pictures = ask(compare.viewer.truth["run"], [2, 3])
    assert told[0] == "Step must be a whole number from 1 to 2, got 3."
    assert (bool(pictures[0]), bool(pictures[1])) == (False, True)
    for run in range(10):
        if run not in (first, compare.viewer.truth["run"]):
            told, pictures = ask(run, [0, 0])
            assert told == ["The kernel no longer has this run: press Run."] * 2
            assert pictures == [b"", b""], "pictures of another run would be taken for it"


# --- what is true ---


def test_pictures_match_the_controls_where_every_column_has_its_settings(compare: Compare) -> None:
    assert truth(compare) == ("none", "press Run")
    compare.run()
    assert truth(compare) == ("match", "pictures match the controls · same starting noise")
    move(compare, "steps", 7)
    assert truth(compare) == ("stale", "settings changed: Run")
    move(compare, "steps", 4)
    assert truth(compare)[0] == "match", "back where it was"
    choose(compare, "start from", "guidance")
    assert truth(compare) == ("stale", "settings changed: Run")
    compare.columns = {"bad": {"sampler": "Flow Euler"}, "good": {}}
    compare.run()
    assert truth(compare) == ("match", "picture matches the controls"), "of those that are not refused"
    compare.columns = {"a": {"seed": 1}, "b": {"seed": 2}}
    compare.run()
    assert truth(compare) == ("match", "pictures match the controls")


def test_in_live_mode_a_change_runs_and_a_text_waits_for_a_pause(compare: Compare) -> None:
    compare.live = True
    move(compare, "steps", 5)
    assert wait(lambda: truth(compare)[0] == "match")
    before = compare.viewer.truth["run"]
    for length in range(1, 12):
        type_in(compare, "prompt", "a large fox"[:length])
    enter(compare, "prompt")
    assert wait(lambda: truth(compare)[0] == "match")
    assert [trace.settings.prompt for trace in compare.traces.values()] == ["a large fox"] * 2
    assert compare.viewer.truth["run"] == before + 1, "not one for each key"


def test_two_comparisons_of_one_model_both_finish(tiny_model: Model) -> None:
    tiny_model.remembered.clear()
    both = [Compare(PAIR, model=tiny_model, **{**SHARED, "seed": seed, "steps": 20}) for seed in (11, 12)]
    for one in both:
        press(one, "Run")
    assert wait(lambda: all(one.status == "done" for one in both))
    for one in both:
        assert [len(trace) for trace in one.traces.values()] == [20, 20]
        assert {label: trace.settings for label, trace in one.traces.items()} == one.settings
        one.close()


def test_a_long_text_is_read_once_for_all_columns_or_refused_before_any_work(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Any] = []
    plan = Model.plan
    monkeypatch.setattr(Model, "plan", lambda self, *args, **more: planned.append(args) or plan(self, *args, **more))
    for words, plans in ((100_000, 0), (2000, 1)):
        text = " ".join(f"w{k}" for k in range(words))
        asked = {"shared": {**SHARED, "prompt": text}, "columns": {str(k): {} for k in range(6)}}
        move(compare, "settings as JSON", json.dumps(asked))
        planned.clear()
        press(compare, "Use this")
        assert len(planned) == plans, "six columns that ask for the same are one plan"
        assert ("at most" in error(compare)) == (plans == 0)
        assert (compare.shared["prompt"] == text) == (plans == 1)


def test_it_opens_without_matplotlib() -> None:
    code = "import sys; from diffexplore.widgets import compare; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout == "False\n"


def test_it_is_a_public_name() -> None:
    assert dx.Compare is Compare
