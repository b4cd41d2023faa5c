"""What settings may say of a guider: names and numbers, one way to write each, and sentences for what is none."""

import json
import re

import pytest

import diffexplore as dx
from diffexplore.mixing import named_guider, parameters_of


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("CFG", "CFG"),
        ("apg", "APG"),
        (" cfg-zero ", "CFG-Zero*"),
        ("cfg zero*", "CFG-Zero*"),
        ("APG()", "APG"),
        ("APG(eta=0, momentum=-0.5)", "APG"),
        ("APG( norm = 2.5 , eta=1)", "APG(eta=1, norm=2.5)"),
        ({"APG": {"eta": 0.1}}, "APG(eta=0.1)"),
        ({"rescale": {}}, "rescale"),
        ("rescale(phi=1)", "rescale(phi=1)"),
        ("CFG-Zero*(zero=2)", "CFG-Zero*(zero=2)"),
        ({"APG": {"momentum": -0.1234567891234}}, "APG(momentum=-0.1234567891234)"),
    ],
)
def test_a_guider_is_kept_in_one_way_and_goes_through_json(said, kept):
    settings = dx.Settings(guider=said)
    assert settings.guider == kept
    again = dx.Settings.from_json(settings.to_json())
    assert again == settings
    assert hash(again) == hash(settings)
    assert named_guider(kept) == kept


def test_the_plain_one_is_not_written():
    assert "guider" not in json.loads(dx.Settings(guider="cfg").to_json())
    assert dx.Settings(guider="APG").diff(dx.Settings()) == {"guider": ("APG", "CFG")}


def test_numbers_that_are_not_told_are_the_papers():
    assert parameters_of("APG(eta=0.5)") == ("APG", {"eta": 0.5, "momentum": -0.5, "norm": 15.0})
    assert parameters_of("TCFG") == ("TCFG", {})
    for guider in dx.GUIDERS.values():
        assert re.fullmatch(r"\d{4}\.\d{5}", guider.paper)
        assert guider.sentence.endswith(".")


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ("APQ", "guider must be one of CFG, rescale, APG, CFG-Zero*, TCFG; got 'APQ', did you mean 'APG'?"),
        ("", "guider must be one of CFG, rescale, APG, CFG-Zero*, TCFG; got ''"),
        (7, "guider must be one of CFG, rescale, APG, CFG-Zero*, TCFG; got 7"),
        ({"APG": {}, "CFG": {}}, "guider must be one of"),
        ({"APG": 3}, "the numbers of a guider are a mapping, such as {'eta': 0.5}; got 3"),
        ("APG(ets=1)", "guider APG takes eta, momentum, norm; got 'ets', did you mean 'eta'?"),
        ("TCFG(eta=1)", "guider TCFG takes no numbers; got 'eta'"),
        ("APG(eta)", "numbers of a guider are written as in 'APG(eta=0.5)', each once; got 'APG(eta)'"),
        ("APG(eta=1, eta=1)", "each once"),
        ("APG(eta=x)", "eta of guider APG must be a number from 0 to 10, got 'x'"),
        ("APG(eta=nan)", "eta of guider APG must be a number from 0 to 10, got nan"),
        ({"APG": {"momentum": True}}, "momentum of guider APG must be a number from -1 to 1, got True"),
        ("rescale(phi=1.1)", "phi of guider rescale must be a number from 0 to 1, got 1.1"),
        ("CFG-Zero*(zero=0.5)", "zero of guider CFG-Zero* must be a whole number from 0 to 1000, got 0.5"),
        ("CFG++", "CFG++ (arXiv 2406.08070) takes its noise from the prediction without the prompt"),
        ("interval", "guidance on an interval is no mix of its own: diffexplore.interval(5.0, 0.8, 0.2)"),
        ("Perp-Neg", "perpendicular negative prompts (arXiv 2304.04968) need a third prediction"),
        ("APG(" * 100, "guider must be one of"),
    ],
)
def test_what_is_no_guider_gets_one_sentence(said, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        dx.Settings(guider=said)
    assert len(str(error.value)) < 300
    if isinstance(said, str):
        with pytest.raises(ValueError, match=r"changes at 0\.5: "):
            dx.Settings(changes={0.5: {"guider": said}})


def test_an_interval_is_changes_of_the_guidance():
    between = dx.Settings(guidance=1.0, changes=dx.interval(5.0, 0.8, 0.2))
    assert [(mark, stage.guidance) for mark, stage in between.stages()][1:] == [(0.8, 5.0), (0.2, 1.0)]
    assert dx.interval(5.0, 0.8) == {0.8: {"guidance": 5.0}}
    for wrong, says in [
        ((5.0, 0.2, 0.8), "an interval goes from the higher share of noise to the lower, got 0.2 to 0.8"),
        ((5.0, 1.2), "an interval is between two shares of noise from 0 to 1, got 1.2"),
        ((5.0, 0.5, "x"), "an interval is between two shares of noise from 0 to 1, got 'x'"),
    ]:
        with pytest.raises(ValueError, match=re.escape(says)):
            dx.interval(*wrong)
