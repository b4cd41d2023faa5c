"""The Explorer: code and controls do the same thing, the newest settings win, and nothing shown is lost."""

from __future__ import annotations

import gc
import itertools
import math
import random
import re
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ipywidgets import Text
from knobs import choose, enter, error, find, has, move, notes, on, press, registered, truth, type_in
from patience import wait
from tiny import make_pipeline

from diffexplore.model import Model
from diffexplore.runs.plan import Plan
from diffexplore.runs.prompt import Vocabulary
from diffexplore.settings import Settings
from diffexplore.widgets.explorer import Explorer
from diffexplore.widgets.film import Film


@pytest.fixture
def explorer(tiny_model: Model) -> Iterator[Explorer]:
    tiny_model.remembered.clear()  # a run that is remembered takes no time, and could not be stopped
    explorer = Explorer(tiny_model, prompt="a red fox", steps=4, guidance=5.0, seed=3, sampler="DDIM")
    yield explorer
    explorer.close()
    assert wait(lambda: explorer.status != "running")


def film(explorer: Explorer) -> Film:
    (film,) = explorer.viewer.shown()
    return film


# --- running ---


def test_run_returns_the_run_that_the_model_makes_and_shows_all_of_it(explorer: Explorer, tiny_model: Model) -> None:
    trace = explorer.run()
    expected = tiny_model.trace(explorer.settings)
    np.testing.assert_array_equal(np.asarray(trace.image), np.asarray(expected.image))
    assert trace.settings == expected.settings == explorer.settings
    assert explorer.trace is trace
    assert explorer.status == "done"
    assert film(explorer).frames == Film.of(trace).frames
    assert film(explorer).complete


def test_the_button_runs_in_the_background_and_ends_up_the_same(explorer: Explorer) -> None:
    press(explorer, "Run")
    assert explorer.status == "running"
    assert not find(explorer, "Stop").disabled
    assert wait(lambda: explorer.status == "done" and bool(explorer.viewer.shown()))
    assert find(explorer, "Stop").disabled
    assert len(film(explorer).steps) == len(explorer.trace or ()) == 4


def test_stop_keeps_what_was_made(explorer: Explorer) -> None:
    explorer.steps = 500
    press(explorer, "Run")
    assert wait(lambda: len(explorer.trace or ()) >= 3)
    press(explorer, "Stop")
    assert wait(lambda: explorer.status == "cancelled")
    assert wait(lambda: bool(explorer.viewer.shown()))
    assert explorer.trace is not None
    assert explorer.trace.cancelled
    assert 3 <= len(film(explorer).steps) == len(explorer.trace) < 500
    assert film(explorer).status == "cancelled"


def test_stop_ends_the_step_that_is_going_and_no_later_one() -> None:
    explorer = Explorer(prompt="a red fox", steps=400, guidance=5.0)
    try:
        for _ in range(5):
            press(explorer, "Run")
            assert wait(lambda: explorer.status == "running" and 2 <= len(explorer.trace or ()) < 400)
            before, explorer_trace = len(explorer.trace or ()), explorer.trace
            press(explorer, "Stop")
            assert wait(lambda: explorer.status == "cancelled")
            assert explorer.trace is explorer_trace
            assert len(explorer.trace or ()) <= before + 1
            assert wait(lambda: [len(one.steps) for one in explorer.viewer.shown()] == [len(explorer.trace or ())])
            explorer.seed += 1
    finally:
        explorer.close()


def test_an_interrupted_cell_stops_the_run_and_keeps_what_was_made(explorer: Explorer) -> None:
    explorer.steps = 500

    def interrupt() -> None:
        wait(lambda: len(explorer.trace or ()) >= 3)
        signal.raise_signal(
            signal.SIGINT
        ) if threading.current_thread() is threading.main_thread() else signal.pthread_kill(
            threading.main_thread().ident or 0, signal.SIGINT
        )

    # As every kernel has it; a shell that starts the tests in the background would have them ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            explorer.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert explorer.status == "cancelled"
    assert explorer.trace is not None
    assert 3 <= len(explorer.trace) == len(film(explorer).steps) < 500
    explorer.steps = 2
    assert len(explorer.run()) == 2, "the next run goes as if nothing had happened"


def test_a_waiting_cell_is_told_how_to_stop(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffexplore.widgets.runner.HINT_AFTER", 0.0)
    told: list[list[str]] = []
    explorer.viewer.observe(lambda change: told.append(change["new"]), names="_notes")
    explorer.run()
    assert any("interrupt the kernel" in note for notes in told for note in notes)
    assert notes(explorer) == []


def test_a_failing_model_is_said_in_place_and_what_was_shown_stays(explorer: Explorer) -> None:
    explorer.run()
    shown = film(explorer).frames

    def fail(*_: Any) -> None:
        raise RuntimeError("out of <b>paint</b>")

    handle = explorer.model.pipeline.unet.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="out of <b>paint</b>"):
            explorer.run()
    finally:
        handle.remove()
    assert explorer.status == "failed"
    assert error(explorer) == "The run failed: RuntimeError: out of <b>paint</b>."
    assert film(explorer).frames == shown
    explorer.run()
    assert explorer.status == "done"
    assert error(explorer) == ""


# --- settings ---


def test_when_memory_runs_out_it_says_what_to_do(explorer: Explorer) -> None:
    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has ...\nand more")

    handle = explorer.model.pipeline.unet.register_forward_pre_hook(fail)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            explorer.run()
    finally:
        handle.remove()
    assert error(explorer) == (
        "The run failed: Memory ran out (CUDA out of memory). "
        "Make the picture smaller, close other notebooks, or restart the kernel."
    )


def test_words_that_the_model_does_not_know_reach_the_viewer(tiny_model: Model) -> None:
    model = Model(tiny_model.pipeline, vocabulary=Vocabulary(frozenset({"a", "red"})))
    explorer = Explorer(model, prompt="a red fox", steps=2, sampler="DDIM")
    explorer.run()
    assert [token[:2] for token in film(explorer).tokens] == [("a", ""), ("red", ""), ("fox", "unknown")]


def test_no_sampler_is_the_models_own(explorer: Explorer) -> None:
    explorer.sampler = None
    assert explorer.sampler == explorer.model.sampler == find(explorer, "sampler").value


def test_a_sampler_that_does_not_suit_leads_to_some_that_do(explorer: Explorer) -> None:
    with pytest.raises(ValueError, match="cannot be used here") as refused:
        explorer.sampler = "UniPC flow"
    near = re.findall(r"near it are (.*), and all", str(refused.value))[0].split(", ")
    assert near[0] == "UniPC"
    assert set(near) <= set(explorer.model.samplers)
    assert len(str(refused.value)) < 300
    with pytest.raises(ValueError, match="did you mean 'Euler'"):
        explorer.sampler = "Flow Eulr"


def test_a_range_widens_for_what_code_asks_and_goes_back(explorer: Explorer) -> None:
    steps = find(explorer, "steps")
    explorer.steps = 900
    assert (steps.min, steps.max, steps.value) == (1, 900, 900)
    move(explorer, "steps", 700)
    assert steps.max == 900, "a slider that is in somebody's hand keeps its range"
    explorer.steps = 20
    assert (steps.min, steps.max, steps.value) == (1, 50, 20)
    guidance = find(explorer, "guidance")
    explorer.guidance = 0.5
    assert (guidance.min, guidance.max, guidance.value) == (0.5, 15, 0.5)
    explorer.guidance = 40
    assert (guidance.min, guidance.max, guidance.value) == (1, 40, 40)
    explorer.guidance = 5
    assert (guidance.min, guidance.max, guidance.value) == (1, 15, 5)
    assert (explorer.steps, explorer.guidance) == (20, 5), "moving a bound moves no setting"


def test_outside_live_mode_a_change_waits_for_run(explorer: Explorer) -> None:
    trace = explorer.run()
    move(explorer, "steps", 7)
    assert explorer.steps == 7
    assert explorer.status == "done"
    assert explorer.trace is trace


def test_in_live_mode_a_change_runs(explorer: Explorer) -> None:
    explorer.live = True
    move(explorer, "guidance", 2.5)
    assert wait(lambda: explorer.status == "done" and bool(explorer.viewer.shown()))
    assert film(explorer).about["guidance"] == 2.5


def test_a_change_during_a_run_replaces_it(explorer: Explorer) -> None:
    explorer.steps = 400
    press(explorer, "Run")
    assert wait(lambda: len(explorer.trace or ()) >= 2)
    first = explorer.trace
    move(explorer, "steps", 5)
    assert wait(lambda: explorer.status == "done" and bool(explorer.viewer.shown()))
    assert first is not None
    assert wait(lambda: first.cancelled)
    assert len(film(explorer).steps) == 5


def test_a_slider_that_is_dragged_shows_pictures_on_the_way(explorer: Explorer) -> None:
    explorer.steps = 30
    shown: set[int] = set()
    explorer.viewer.send = lambda content, buffers=None: shown.add(content.get("run", 0))
    explorer.live = True
    for k in range(100):
        move(explorer, "guidance", 2 + (k % 20) / 2)
        time.sleep(0.01)
    again = itertools.count()

    def follows() -> bool:
        move(explorer, "guidance", 2 + (next(again) % 20) / 2)
        return len(shown) >= 3

    assert wait(follows), "on a slow machine it is dragged for longer"
    assert wait(lambda: explorer.status == "done")
    assert explorer.trace is not None
    assert explorer.trace.settings == explorer.settings


def test_a_run_that_is_about_to_start_can_be_stopped(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffexplore.widgets.runner.HEAD_START", 60.0)  # however slow the machine: the first one has it
    explorer.live = True
    explorer.steps = 2
    assert wait(lambda: explorer.status == "done")
    trace = explorer.trace
    explorer.seed = 4  # within the head start of the first
    assert explorer.status == "running"
    explorer.cancel()
    assert explorer.status == "done"
    time.sleep(0.3)
    assert explorer.trace is trace
    assert explorer.status == "done"


def test_of_five_hundred_changes_in_ten_seconds_the_last_one_is_what_is_shown(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most one run is in flight and one waits."""
    jobs: list[Any] = []
    most = 0
    submit = explorer.model.submit

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal most
        jobs.append(submit(*arguments, **options))
        most = max(most, sum(not job.done() for job in jobs))
        return jobs[-1]

    monkeypatch.setattr(explorer.model, "submit", counted)
    explorer.live = True
    dice = random.Random(0)
    begun = time.monotonic()
    for k in range(500):
        name, value = dice.choice(
            [
                ("steps", dice.randint(1, 12)),
                ("guidance", dice.randint(2, 30) / 2),
                ("seed", str(dice.randrange(2**63))),
            ]
        )
        move(explorer, name, value)
        time.sleep(max(0.0, begun + k / 50 - time.monotonic()))
    assert wait(lambda: explorer.status == "done")
    assert wait(lambda: [one.about["seed"] for one in explorer.viewer.shown()] == [str(explorer.seed)])
    assert most <= 2
    assert len(jobs) > 10
    about = film(explorer).about
    assert (about["steps"], about["guidance"], about["seed"]) == (explorer.steps, explorer.guidance, str(explorer.seed))
    assert explorer.trace is not None
    assert explorer.trace.settings == explorer.settings


def test_code_and_controls_show_the_same(explorer: Explorer) -> None:
    explorer.prompt, explorer.negative_prompt, explorer.sampler = "a blue cat", "blurry", "Euler"
    explorer.steps, explorer.guidance, explorer.seed = 120, 20.0, 2**63 - 1
    names = ("prompt", "negative", "steps", "guidance", "sampler", "seed")
    assert {name: on(explorer, name) for name in names} == {
        "prompt": "a blue cat",
        "negative": "blurry",
        "steps": 120,
        "guidance": 20.0,
        "sampler": "Euler",
        "seed": "9223372036854775807",
    }
    assert (on(explorer, "steps", Text), on(explorer, "guidance", Text)) == ("120", "20"), (
        "in figures beside the sliders"
    )
    move(explorer, "prompt", "a fox")
    assert explorer.settings.prompt == "a fox"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("steps", 0, "steps must be a whole number from 1 to 1000, got 0"),
        ("steps", "many", "steps must be a whole number from 1 to 1000, got 'many'"),
        ("guidance", math.nan, r"guidance must be a number from 0 to 100 \(1 is off\), got nan"),
        ("seed", -1, r"seed must be a whole number from 0 to 2\*\*63 - 1, got -1"),
        ("sampler", "Eular", "sampler must be one of .*; got 'Eular', did you mean 'Euler'?"),
        ("prompt", 5, "prompt must be text, got 5"),
        ("prompt", None, "prompt must be text, got None"),
        ("steps", None, "steps must be a whole number from 1 to 1000, got None"),
        ("guidance", None, r"guidance must be a number from 0 to 100 \(1 is off\), got None"),
        ("seed", None, r"seed must be a whole number from 0 to 2\*\*63 - 1, got None"),
    ],
)
def test_nonsense_is_refused_said_in_place_and_changes_nothing(
    explorer: Explorer, name: str, value: Any, sentence: str
) -> None:
    trace, shown, before = explorer.run(), film(explorer).frames, getattr(explorer, name)
    with pytest.raises(ValueError, match=sentence):
        setattr(explorer, name, value)
    assert error(explorer).lower().startswith(sentence[:20].lower().replace("\\", ""))
    assert getattr(explorer, name) == before
    assert film(explorer).frames == shown
    assert explorer.trace is trace
    with pytest.raises(ValueError, match=sentence):
        Explorer(explorer.model, **{name: value})
    explorer.steps = 5
    assert error(explorer) == ""


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("steps", "0", "steps must be a whole number from 1 to 1000, got 0"),
        ("steps", "7,5", "steps must be a whole number from 1 to 1000, got '7,5'"),
        ("steps", "7.5", "steps must be a whole number from 1 to 1000, got 7.5"),
        ("steps", "", "steps must be a whole number from 1 to 1000, got ''"),
        ("guidance", "7,5", "guidance must be a number from 0 to 100 (1 is off), got '7,5'"),
        ("guidance", "101", "guidance must be a number from 0 to 100 (1 is off), got 101"),
        ("guidance", "1e999", "guidance must be a number from 0 to 100 (1 is off), got inf"),
        ("guidance", "nan", "guidance must be a number from 0 to 100 (1 is off), got nan"),
    ],
)
def test_a_number_that_is_none_stays_in_its_field_and_nothing_runs(
    explorer: Explorer, name: str, text: str, said: str
) -> None:
    before = getattr(explorer, name)
    type_in(explorer, name, text)
    assert error(explorer).lower() == f"{said}.".lower()
    assert on(explorer, name, Text) == text
    press(explorer, "Run")
    assert (explorer.status, getattr(explorer, name)) == ("idle", before)
    assert error(explorer).lower() == f"{said}.".lower()
    type_in(explorer, name, f"{before:g}")
    assert error(explorer) == ""
    explorer.run()
    assert explorer.status == "done"


def test_a_number_beyond_the_slider_is_taken_from_its_field(explorer: Explorer) -> None:
    type_in(explorer, "steps", "200")
    slider = find(explorer, "steps")
    assert (explorer.steps, slider.value, slider.max) == (200, 200, 200)
    type_in(explorer, "guidance", " 7.25 ")
    assert (explorer.guidance, on(explorer, "guidance")) == (7.25, 7.25)


def test_code_mends_a_field_as_a_hand_does(explorer: Explorer) -> None:
    type_in(explorer, "steps", "many")
    explorer.steps = 4
    assert (on(explorer, "steps", Text), error(explorer)) == ("4", "")
    type_in(explorer, "steps", "many")
    move(explorer, "steps", 6)
    assert (on(explorer, "steps", Text), explorer.steps, error(explorer)) == ("6", 6, "")


def test_of_two_fields_that_are_wrong_both_are_said_until_they_are_right(explorer: Explorer) -> None:
    type_in(explorer, "steps", "many")
    type_in(explorer, "seed", "abc")
    assert "steps must be" in error(explorer).lower()
    assert "seed must be" in error(explorer).lower()
    type_in(explorer, "steps", "5")
    assert "steps must be" not in error(explorer).lower()
    assert "seed must be" in error(explorer).lower()


def test_what_was_refused_beside_another_setting_is_taken_when_that_has_changed(explorer: Explorer) -> None:
    move(explorer, "steps", 2)
    choose(explorer, "sampler", "PNDM")
    before = explorer.sampler
    assert error(explorer) == "PNDM takes at least 4 steps with this model, got 2."
    move(explorer, "steps", 3)
    assert (explorer.sampler, error(explorer)) == (before, "PNDM takes at least 4 steps with this model, got 3.")
    move(explorer, "steps", 6)
    assert (explorer.sampler, on(explorer, "sampler"), error(explorer)) == ("PNDM", "PNDM", "")
    # And the other way round: the steps are refused, and then the sampler is another.
    move(explorer, "steps", 2)
    assert (explorer.steps, error(explorer)) == (6, "PNDM takes at least 4 steps with this model, got 2.")
    choose(explorer, "sampler", "DDIM")
    assert (explorer.steps, explorer.sampler, error(explorer)) == (2, "DDIM", "")
    assert explorer.run().settings.steps == 2


@pytest.mark.parametrize("text", ["", "abc", "-3", "1.5", "9223372036854775808", "--5", "9" * 5000])
def test_a_seed_that_is_none_stays_in_its_field_and_is_explained(explorer: Explorer, text: str) -> None:
    type_in(explorer, "seed", text)
    assert explorer.seed == 3
    assert on(explorer, "seed") == text
    assert error(explorer).startswith("Seed must be a whole number from 0 to 2**63 - 1, got ")
    assert len(error(explorer)) < 200
    type_in(explorer, "seed", " 9007199254740993 ")
    assert explorer.seed == 2**53 + 1
    assert error(explorer) == ""


def test_the_dice_throw_another_seed(explorer: Explorer) -> None:
    seeds = set()
    for _ in range(4):
        press(explorer, "another seed")
        seeds.add(explorer.seed)
        assert on(explorer, "seed") == str(explorer.seed)
    assert len(seeds) == 4


def test_what_is_cut_or_ignored_is_said_as_plain_text(explorer: Explorer) -> None:
    move(explorer, "guidance", 1.0)
    move(explorer, "negative", "blurry")
    assert notes(explorer) == explorer.model.notes(explorer.settings)
    assert any("negative prompt is ignored" in note for note in notes(explorer))
    move(explorer, "guidance", 5.0)
    move(explorer, "prompt", "fox " * 10_000)
    assert notes(explorer) == explorer.model.notes(explorer.settings)
    assert any("it does not see" in note for note in notes(explorer))
    assert all(len(note) < 1000 for note in notes(explorer))


def test_an_unknown_setting_is_refused_with_the_near_name(tiny_model: Model) -> None:
    with pytest.raises(ValueError, match="did you mean 'prompt'"):
        Explorer(tiny_model, promt="a fox")


def test_the_code_makes_the_same_picture(explorer: Explorer) -> None:
    explorer.prompt, explorer.negative_prompt, explorer.seed = 'a "fox"\nat night', "blurry", 2**60 + 1
    trace = explorer.run()
    names: dict[str, Any] = {"pipeline": explorer.model.pipeline}
    exec(explorer.code(), names)
    assert names["trace"].settings == trace.settings
    np.testing.assert_array_equal(np.asarray(names["trace"].image), np.asarray(trace.image))


def test_its_repr_is_stable_and_short(explorer: Explorer) -> None:
    assert repr(explorer) == "Explorer(prompt='a red fox', steps=4, guidance=5, seed=3, sampler='DDIM')"
    explorer.prompt = "fox " * 1000
    assert len(repr(explorer)) < 200


def test_what_the_model_refuses_is_refused_as_every_value_is_and_changes_nothing(tiny_model: Model) -> None:
    explorer = Explorer(tiny_model, sampler="DDIM", steps=10)
    with pytest.raises(ValueError, match="at most 999 steps"):
        explorer.steps = 1000
    assert explorer.steps == 10
    assert "at most 999 steps" in error(explorer)
    assert explorer.settings.steps == 10
    explorer.close()


def test_an_interrupt_while_a_run_is_started_leaves_a_widget_that_runs(explorer: Explorer) -> None:
    tell, interrupted = explorer.viewer.tell, []

    def interrupt(**said: Any) -> None:
        if not interrupted:
            interrupted.append(said)
            raise KeyboardInterrupt
        tell(**said)

    explorer.viewer.tell = interrupt  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        explorer.run()
    assert wait(lambda: explorer.status != "running")
    explorer.seed = 4
    press(explorer, "Run")
    assert wait(lambda: explorer.status == "done")
    assert wait(lambda: bool(explorer.viewer.shown()))


def test_a_closed_explorer_lets_go_of_its_run_and_its_model() -> None:
    explorer = Explorer(Model(make_pipeline()), prompt="a red fox", steps=2, sampler="DDIM")
    gone = [weakref.ref(explorer.run()), weakref.ref(explorer.model), weakref.ref(explorer)]
    explorer.model.remembered.clear()
    explorer.close()
    del explorer

    def let_go() -> bool:  # the model's thread ends some seconds after its last run
        gc.collect()
        return [ref() for ref in gone] == [None, None, None]

    assert wait(let_go)


def test_a_closed_explorer_leaves_no_widget_behind(tiny_model: Model) -> None:
    before = registered()
    explorer = Explorer(tiny_model, prompt="a red fox", steps=2, sampler="DDIM")
    explorer.run()
    explorer.close()
    assert registered() == before


@pytest.mark.parametrize("given", ["a fox", make_pipeline(), 3])
def test_what_is_no_model_is_refused_in_one_sentence(given: Any) -> None:
    with pytest.raises(ValueError, match=r"Explorer takes a model") as refused:
        Explorer(given)
    assert ("Explorer(prompt='a fox')" in str(refused.value)) == (given == "a fox")


def test_run_refuses_while_a_field_holds_nonsense(explorer: Explorer) -> None:
    type_in(explorer, "seed", "abc")
    said = error(explorer)
    press(explorer, "Run")
    assert (explorer.status, explorer.trace, error(explorer)) == ("idle", None, said)
    with pytest.raises(ValueError, match="got 'abc'"):
        explorer.run()
    type_in(explorer, "seed", "3")
    assert error(explorer) == "", "the value that was there before is right again"
    assert explorer.run().settings.seed == 3


def test_in_live_mode_what_a_wrong_field_held_up_runs_when_it_is_right_again(explorer: Explorer) -> None:
    explorer.live = True
    explorer.run()
    type_in(explorer, "seed", "abc")
    move(explorer, "steps", 5)
    time.sleep(0.3)
    assert len(explorer.trace or ()) == 4, "nothing runs with a seed that is not the one in the field"
    type_in(explorer, "seed", "3")
    assert wait(lambda: len(explorer.trace or ()) == 5 and explorer.status == "done")


def test_a_slider_that_gives_back_what_it_shows_changes_no_digit(explorer: Explorer) -> None:
    explorer.guidance = 10
    move(explorer, "guidance", 10.000000000000002)
    assert explorer.guidance == 10
    explorer.guidance = 1 / 3
    move(explorer, "guidance", 0.333333333333)
    assert explorer.guidance == 1 / 3


def test_a_move_makes_one_settings_and_reads_each_prompt_once(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way from a hand to the run; moving back to what was planned before costs no plan."""
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
    explorer.live = True
    for name, value in (("guidance", 7.5), ("steps", 5), ("prompt", "a blue cat"), ("seed", "8"), ("sampler", "Euler")):
        made.clear()
        planned.clear()
        if name == "sampler":
            choose(explorer, name, value)
        else:
            move(explorer, name, value)
        assert wait(lambda: explorer.status == "done")
        assert explorer.trace is not None
        assert explorer.trace.settings == explorer.settings
        assert (len(made), len(planned)) == (1, 1), name
    move(explorer, "seed", "3")
    planned.clear()
    move(explorer, "seed", "8")
    assert planned == []


def test_two_explorers_of_one_model_both_end_with_their_last_settings(tiny_model: Model) -> None:
    both = [Explorer(tiny_model, prompt="a red fox", steps=2, sampler="DDIM", live=True) for _ in range(2)]
    dice = random.Random(1)
    for _ in range(200):
        for one in both:
            move(one, *dice.choice([("steps", dice.randint(2, 6)), ("seed", str(dice.randrange(2**63)))]))
    assert wait(lambda: all(one.status == "done" for one in both))
    for one in both:
        assert one.trace is not None
        assert one.trace.settings == one.settings
        one.close()


# --- what is true ---


def test_the_tick_stands_exactly_while_the_picture_is_what_the_controls_say(explorer: Explorer) -> None:
    assert truth(explorer) == ("none", "press Run")
    explorer.run()
    match = ("match", "picture matches the controls")
    assert truth(explorer) == match
    moves = (("steps", 7, 4), ("guidance", 2.5, 5.0), ("prompt", "a fox", "a red fox"), ("seed", "4", "3"))
    for name, other, back in moves:
        move(explorer, name, other)
        assert truth(explorer) == ("stale", "settings changed: Run"), name
        move(explorer, name, back)
        assert truth(explorer) == match, name
    choose(explorer, "sampler", "Euler")
    assert truth(explorer)[0] == "stale"
    explorer.run()
    assert truth(explorer) == match


def test_a_field_that_is_refused_is_no_match(explorer: Explorer) -> None:
    explorer.run()
    type_in(explorer, "seed", "abc")
    assert truth(explorer) == ("stale", "not accepted, see above: put it right")
    type_in(explorer, "seed", "3")
    assert truth(explorer)[0] == "match"


def test_a_run_that_goes_that_was_stopped_or_that_failed_is_said_at_once(explorer: Explorer) -> None:
    explorer.steps = 500
    press(explorer, "Run")
    assert truth(explorer) == ("busy", "drawing")
    assert wait(lambda: len(explorer.trace or ()) >= 3)
    press(explorer, "Stop")
    assert wait(lambda: explorer.status == "cancelled")
    assert truth(explorer) == ("stale", f"stopped after {len(explorer.trace or ())} of 500 steps: Run")

    def fail(*_: Any) -> None:
        raise RuntimeError("no paint")

    handle = explorer.model.pipeline.unet.register_forward_pre_hook(fail)
    explorer.steps = 4
    press(explorer, "Run")
    assert wait(lambda: explorer.status == "failed")
    handle.remove()
    assert truth(explorer) == ("stale", "the newest run failed: settings changed: Run")


def test_a_page_that_asks_is_told_again_what_is_true(explorer: Explorer) -> None:
    """It has said that settings changed as soon as a hand was on a control, which may have left them as they were."""
    explorer.run()
    before = explorer.viewer.truth
    explorer.viewer._handle_custom_msg({"kind": "ping"}, [])
    assert explorer.viewer.truth != before
    assert explorer.viewer.truth["state"] == before["state"] == "match"


def test_a_text_waits_for_a_pause_in_the_typing_and_for_nothing_after_enter(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    submit = explorer.model.submit

    def noted(plan: Any, *arguments: Any, **options: Any) -> Any:
        drawn.append(plan.settings.prompt)
        return submit(plan, *arguments, **options)

    monkeypatch.setattr(explorer.model, "submit", noted)
    monkeypatch.setattr("diffexplore.widgets.explorer.TYPING", 1.5)  # a slow machine is no pause
    explorer.live = True
    for length in range(1, 12):
        type_in(explorer, "prompt", "a large fox"[:length])
        time.sleep(0.03)
    assert drawn == [], "each key counts the pause anew"
    assert wait(lambda: explorer.status == "done")
    assert drawn == ["a large fox"]
    type_in(explorer, "prompt", "a large cat")
    enter(explorer, "prompt")
    assert drawn == ["a large fox", "a large cat"]
    assert wait(lambda: explorer.status == "done")
    explorer.live = False
    type_in(explorer, "negative", "blurry")
    enter(explorer, "negative")
    assert wait(lambda: truth(explorer)[0] == "match")
    assert drawn[2:] == ["a large cat"], "once"


# --- adapters ---


def test_every_lora_has_a_slider_that_is_heard(lora: Path) -> None:
    model = Model(make_pipeline())
    model.load_lora(lora, "style")
    explorer = Explorer(model, prompt="a red fox", steps=2, seed=3)
    off = explorer.run()
    move(explorer, "style", 0.75)
    assert explorer.settings.adapters == (("style", 0.75),)
    with_it = explorer.run()
    assert with_it.settings.adapters == (("style", 0.75),)
    assert not torch.equal(off.final, with_it.final)
    explorer.adapters = {"style": 3}
    assert on(explorer, "style") == 3
    with pytest.raises(ValueError, match="no adapter 'other'"):
        explorer.adapters = {"other": 1}
    assert explorer.adapters == (("style", 3.0),)
    explorer.close()


def test_a_lora_that_was_taken_out_does_not_bind_the_other_settings(lora: Path) -> None:
    model = Model(make_pipeline())
    model.load_lora(lora, "style")
    explorer = Explorer(model, steps=2, adapters={"style": 0.5})
    model.unload_loras()
    move(explorer, "style", 0)
    explorer.steps = 3
    assert explorer.settings.steps == 3
    explorer.close()


def test_without_loras_there_is_no_slider_for_them(explorer: Explorer) -> None:
    assert not has(explorer, "style")
