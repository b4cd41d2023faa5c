"""shared.py: a study needs a model, and says so in one sentence before any work."""

import re
from collections.abc import Callable
from typing import Any

import pytest

import diffexplore as dx

STUDIES: dict[str, Callable[[Any], Any]] = {
    "forward": lambda model: dx.forward(model, "nowhere.png"),
    "race": dx.race,
    "diminishing_returns": dx.diminishing_returns,
    "sweep": lambda model: dx.sweep(model, x=("steps", [2])),
    "negative_words": lambda model: dx.negative_words(model, negative_prompt="blurry, night"),
}


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("value", ["a fox", None, 3, dx.Settings(), object])
def test_what_is_no_model_is_named(study: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^a model is needed, such as diffexplore\.load\(\), got ") as error:
        STUDIES[study](value)
    assert repr(value)[:50] in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("study", STUDIES)
def test_a_pipeline_is_told_what_makes_a_model_of_it(study: str, tiny_pipeline: Any) -> None:
    told = "a model is needed, got a pipeline, StableDiffusionPipeline: diffexplore.load(pipeline) makes a model of it"
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        STUDIES[study](tiny_pipeline)
