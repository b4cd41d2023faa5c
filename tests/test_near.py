"""widgets/near.py: a picture near that of the seed, in an Explorer and as columns of a Compare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ipywidgets import Button
from knobs import find, has, move, press, type_in
from tiny import make_pipeline
from tiny_any import CASES

import diffexplore as dx
from diffexplore.model import Model


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(make_pipeline())


def test_a_slider_turns_the_noise_of_the_next_run(model: Model) -> None:
    explorer = dx.Explorer(model, prompt="a red fox", steps=2, seed=3)
    button = find(explorer, "near this seed: a picture a little like it; or a hidden mark", Button)
    plain = explorer.run()
    move(explorer, "how far", 0.3)
    type_in(explorer, "towards seed", "9")
    assert explorer.variation == (9, 0.3)
    assert "dx-on" in button._dom_classes
    assert button.tooltip == "near this seed: 0.3 of the way to seed 9; or a hidden mark"
    near = explorer.run()
    assert torch.equal(near.final, model.trace(prompt="a red fox", steps=2, seed=3, variation=(9, 0.3)).final)
    assert explorer.viewer.shown()[0].about["variation"] == "0.3 of the way to seed 9"
    assert "variation=(9, 0.3)" in explorer.code()
    press(explorer, "another seed to go towards")
    assert explorer.variation[0] != 9
    move(explorer, "how far", 0.0)
    assert (explorer.variation, button.tooltip[:17]) == (None, "near this seed: a")
    assert "dx-on" not in button._dom_classes
    assert torch.equal(explorer.run().final, plain.final)
    explorer.close()


def test_what_is_typed_wrong_is_said_and_stays_and_what_code_says_is_shown(model: Model) -> None:
    explorer = dx.Explorer(model, steps=2, variation=(4, 0.25))
    control: Any = find(explorer, "how far").value
    assert control == 0.25
    type_in(explorer, "towards seed", "a cat")
    assert "The seed of a variation must be a whole number" in explorer.viewer.error
    with pytest.raises(ValueError, match="a cat"):
        explorer.run()
    explorer.variation = (5, 0.5)
    assert (explorer.viewer.error, find(explorer, "how far").value) == ("", 0.5)
    explorer.close()


def test_a_model_whose_noise_cannot_be_turned_has_no_button(model: Model) -> None:
    looked = Model(CASES["StableDiffusionPAGPipeline"].make())  # how it draws its noise, nobody knows
    explorer = dx.Explorer(looked, prompt="a red fox")
    assert not has(explorer, "how far")
    explorer.close()
    compare = dx.Compare("steps", looked, prompt="a red fox")
    assert "variation" not in find(compare, "compare").options
    compare.close()


def test_columns_go_from_one_seed_to_the_other(model: Model) -> None:
    compare = dx.Compare("near a seed", model, prompt="a red fox", steps=2, seed=3)
    assert list(compare.columns) == ["as the seed", "0.1 to seed 4", "0.3 to seed 4", "0.6 to seed 4"]
    runs = compare.run()
    starts = [trace[0].latents for trace in runs.values()]
    apart = [float((one - starts[0]).norm()) for one in starts]
    assert apart == sorted(apart)
    assert 0 == apart[0] < apart[1]
    # What all share of it is under the seed's.
    compare.columns = {"a": {"guidance": 2.0}, "b": {"guidance": 9.0}}
    assert find(compare, "seed, shared by all").description == "seed 3"
    move(compare, "how far", 0.2)
    assert compare.shared["variation"][1] == 0.2
    assert find(compare, "seed, shared by all").description == f"seed 3, 0.2 to {compare.shared['variation'][0]}"
    compare.from_json(compare.to_json())
    assert all(one.variation[1] == 0.2 for one in compare.settings.values())
    move(compare, "how far", 0.0)
    assert "variation" not in compare.shared
    assert not has(compare, "variation, shared by all")
    compare.close()


def test_a_hidden_mark_is_asked_for_by_its_key_and_its_run_says_that_it_has_one(model: Model) -> None:
    explorer = dx.Explorer(model, prompt="a red fox", steps=2, seed=3)
    plain = explorer.run()
    type_in(explorer, "hidden mark", "my key")
    assert explorer.watermark == "my key"
    marked = explorer.run()
    assert torch.equal(marked.final, model.trace(prompt="a red fox", steps=2, seed=3, watermark="my key").final)
    assert not torch.equal(marked.final, plain.final)
    assert find(explorer, "near this seed: a picture a little like it; with a hidden mark", Button)
    about = explorer.viewer.shown()[0].about
    assert about["hidden mark"] == "by a key"
    assert "my key" not in str(about)
    type_in(explorer, "hidden mark", "x" * 201)
    assert "Watermark must be a text of 1 to 200 characters" in explorer.viewer.error
    type_in(explorer, "hidden mark", "")
    assert (explorer.watermark, explorer.viewer.error) == (None, "")
    explorer.close()
    compare = dx.Compare({"a": {"watermark": None}, "b": {"watermark": "my key"}}, model, steps=2)
    assert [find(compare, f"the starting noise of column {k}").description for k in (1, 2)] == ["no mark", "marked"]
    type_in(compare, "hidden mark", "my key", nth=0)
    assert [own["watermark"] for own in compare.columns.values()] == ["my key", "my key"]
    compare.columns = {"a": {"seed": 1}, "b": {"seed": 2}}
    assert find(compare, "noise, shared by all").description == "noise"
    compare.close()
