"""Settings: what is accepted, what is refused in which sentence, JSON out and in."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffexplore.samplers import SAMPLERS
from diffexplore.settings import Settings


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 1000, got 0"),
        ({"steps": "many"}, "steps must be a whole number from 1 to 1000, got 'many'"),
        ({"steps": True}, "steps must be a whole number from 1 to 1000, got True"),
        ({"steps": 4.5}, "steps must be a whole number from 1 to 1000, got 4.5"),
        ({"steps": 1001}, "steps must be a whole number from 1 to 1000, got 1001"),
        ({"guidance": float("nan")}, "guidance must be a number from 0 to 100 (1 is off), got nan"),
        ({"guidance": float("inf")}, "guidance must be a number from 0 to 100 (1 is off), got inf"),
        ({"guidance": -1}, "guidance must be a number from 0 to 100 (1 is off), got -1"),
        ({"seed": -1}, "seed must be a whole number from 0 to 2**63 - 1, got -1"),
        ({"seed": 2**63}, "seed must be a whole number from 0 to 2**63 - 1, got 9223372036854775808"),
        ({"width": 63}, "width must be a multiple of 8 from 8 to 8192, or None for the model's own, got 63"),
        ({"prompt": None}, "prompt must be text, got None"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(values, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole sentence is compared below
        Settings(**values)
    assert str(caught.value) == sentence


def test_an_unknown_sampler_is_refused_with_the_near_match():
    with pytest.raises(ValueError, match=r"got 'dpm\+\+ 2m karas', did you mean 'DPM\+\+ 2M Karras'\?"):
        Settings(sampler="dpm++ 2m karas")


@pytest.mark.parametrize(
    ("given", "menu"),
    [
        ("dpmpp_2m_karras", "DPM++ 2M Karras"),
        ("dpmpp_2m", "DPM++ 2M"),
        ("dpm++ 2m sde", "DPM++ 2M SDE"),
        ("dpmpp_2m_sde_gpu", "DPM++ 2M SDE"),
        ("dpmpp_3m_sde_exponential", "DPM++ 3M SDE Exponential"),
        ("dpmpp_sde", "DPM++ SDE"),
        ("sample_euler_ancestral", "Euler a"),
        ("euler_ancestral", "Euler a"),
        ("k_euler_a", "Euler a"),
        ("dpm_2_ancestral", "DPM2 a"),
        ("uni_pc", "UniPC"),
        ("uni_pc_bh2", "UniPC"),
        ("EULER", "Euler"),
        *((name, name) for name in SAMPLERS),
    ],
)
def test_the_spellings_of_other_programs_become_the_menus_name(given, menu):
    assert Settings(sampler=given).sampler == menu
    assert Settings(sampler=menu.lower().replace(" ", "_")).sampler == menu


@pytest.mark.parametrize(
    "name", ["dpmpp_2s_ancestral", "heunpp2", "ipndm", "er_sde", "automatic", "", "_", 3, ["Euler"]]
)
def test_what_the_menu_has_not_is_never_taken_for_a_similar_one(name):
    with pytest.raises(ValueError, match=r"^sampler must be one of the names in diffexplore\.SAMPLERS") as caught:
        Settings(sampler=name)
    assert len(str(caught.value)) < 200


def test_an_unknown_field_is_refused_with_the_near_match():
    with pytest.raises(ValueError, match=r"got 'guidence', did you mean 'guidance'\?"):
        Settings(guidence=3)


def test_a_long_value_does_not_flood_the_sentence():
    with pytest.raises(ValueError, match=r"^sampler") as caught:
        Settings(sampler="x" * 100_000)
    with pytest.raises(ValueError, match=r"^sampler") as short:
        Settings(sampler="x")
    # What is accepted is listed in both; of the value only a beginning is shown.
    assert len(str(caught.value)) < len(str(short.value)) + 100


@pytest.mark.parametrize("field", ["self", "/", "", "\ud800", "x" * 1000, "__init__", "model_config"])
def test_fields_of_any_name_are_refused_in_one_sentence(field):
    for make in (lambda: Settings.from_json(json.dumps({field: 1})), lambda: Settings().replace(**{field: 1})):
        with pytest.raises(ValueError, match=r"^settings are prompt, ") as caught:
            make()
        str(caught.value).encode()


def test_a_prompt_of_a_megabyte_is_refused_by_its_length():
    Settings(prompt="x" * 200_000)
    with pytest.raises(ValueError, match=r"^negative_prompt must have at most 200,000 characters, got 1,000,000$"):
        Settings(negative_prompt="x" * 1_000_000)


def test_an_adapter_has_a_name_that_can_be_written():
    with pytest.raises(ValueError, match="adapters must map names"):
        Settings(adapters={"\ud800": 1})


def test_numbers_keep_the_digits_that_were_given():
    assert repr(Settings(guidance=10).guidance) == "10.0"
    assert Settings(guidance=np.float32(7.1)).guidance == 7.1
    assert Settings(adapters={"style": np.float16(0.7)}).adapters == (("style", 0.7),)
    assert json.loads(Settings(guidance=7.1).to_json())["guidance"] == 7.1


def test_prompts_may_be_empty_or_very_long():
    assert Settings(prompt="").prompt == ""
    assert len(Settings(prompt="fox " * 10_000).prompt) == 40_000


def test_numbers_from_numpy_and_sliders_are_taken_where_exact():
    settings = Settings(steps=np.int64(7), seed=np.uint32(9), guidance=np.float32(2.5))
    assert (settings.steps, settings.seed, settings.guidance) == (7, 9, 2.5)
    assert [type(v) for v in (settings.steps, settings.seed, settings.guidance)] == [int, int, float]


def test_settings_cannot_be_changed_but_replaced():
    settings = Settings(prompt="a fox")
    with pytest.raises(ValueError, match="frozen"):
        settings.steps = 5
    assert settings.replace(steps=5) == Settings(prompt="a fox", steps=5)
    with pytest.raises(ValueError, match="got 0"):
        settings.replace(steps=0)


def test_diff_names_what_differs():
    a, b = Settings(steps=5), Settings(steps=9, seed=1)
    assert a.diff(b) == {"steps": (5, 9), "seed": (0, 1)}
    assert a.diff(a) == {}


settings = st.builds(
    Settings,
    prompt=st.text(st.characters(codec="utf-8")),
    negative_prompt=st.text(st.characters(codec="utf-8")),
    steps=st.integers(1, 1000),
    guidance=st.floats(0, 100),
    seed=st.integers(0, 2**63 - 1),
    sampler=st.none() | st.sampled_from(list(SAMPLERS)),
    width=st.none() | st.integers(1, 1024).map(lambda n: 8 * n),
    height=st.none() | st.integers(1, 1024).map(lambda n: 8 * n),
)


@given(settings)
def test_json_round_trip(value):
    assert Settings.from_json(value.to_json()) == value


@given(st.dictionaries(st.sampled_from([*Settings.model_fields, "other"]), st.from_type(object) | st.floats()))
def test_any_values_give_settings_or_one_sentence(values):
    try:
        Settings(**values)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
        assert type(error) is ValueError  # noqa: PT017


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "null", '{"steps": "x"}', json.dumps({"a": 1})])
def test_bad_json_is_refused(text):
    with pytest.raises(ValueError, match="got"):
        Settings.from_json(text)


def test_changes_are_kept_in_the_order_of_the_run():
    told = {0.3: {"guidance": 1}, "0.6": {"adapters": {"b": 1, "a": 0.5}, "prompt": "a car"}, 0.2: {}}
    settings = Settings(prompt="a fox", changes=told)
    first, second = settings.changes
    assert first == (0.6, (("prompt", "a car"), ("adapters", (("a", 0.5), ("b", 1.0)))))
    assert second == (0.3, (("guidance", 1.0),))
    assert {settings: 1}[Settings(prompt="a fox", changes=settings.changes)] == 1
    assert Settings.from_json(settings.to_json()) == settings.replace(steps=9).replace(steps=20) == settings
    assert json.loads(settings.to_json())["changes"]["0.3"] == {"guidance": 1.0}
    assert "changes" not in json.loads(Settings().to_json())
    whole = [(mark, one.prompt, one.guidance) for mark, one in settings.stages()]
    assert whole == [(float("inf"), "a fox", 5.0), (0.6, "a car", 5.0), (0.3, "a car", 1.0)]
    assert len(Settings(prompt="a fox", changes={0.5: {"prompt": "a fox"}}).stages()) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({2: {}}, "changes are placed by a share of noise from 0 to 1, got 2"),
        ({float("nan"): {}}, "changes are placed by a share of noise from 0 to 1, got nan"),
        ({"soon": {}}, "changes are placed by a share of noise from 0 to 1, got 'soon'"),
        ({0.5: {"steps": 3}}, "changes may be of prompt, negative_prompt, guidance, adapters, guider; got 'steps'"),
        (
            {0.5: {"promt": ""}},
            "changes may be of prompt, negative_prompt, guidance, adapters, guider; got 'promt', "
            "did you mean 'prompt'?",
        ),
        ({0.5: {"guidance": -1}}, "changes at 0.5: guidance must be a number from 0 to 100 (1 is off), got -1"),
        (
            {0.5: 7},
            "changes must map settings at 0.5 to values, of prompt, negative_prompt, guidance, adapters, guider; got 7",
        ),
        (7, "changes must map shares of noise to settings, such as {0.6: {'prompt': 'a car'}}; got 7"),
        (
            [(0.3, {"guidance": 1}), (0.6, {"guidance": 2})],
            "changes must be in the order of the run, from 1 down to 0, got [0.3, 0.6]",
        ),
        ({0.5: {"guidance": 1}, "0.5": {"guidance": 2}}, "changes have two entries at 0.5: put them into one"),
        ({k / 200: {"guidance": 1} for k in range(101)}, "changes have at most 100 marks, got 101"),
    ],
)
def test_nonsense_on_the_way_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole sentence is compared below
        Settings(changes=changes)
    assert str(caught.value) == sentence


@given(settings)
def test_a_line_for_a_chat_round_trips(value):
    text = value.to_text()
    assert text.isprintable()
    assert Settings.from_text(f"> look: “{text}” {{ok}}") == Settings.from_text(value.to_json()) == value
