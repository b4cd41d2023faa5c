"""widgets/stages.py: the sliders of a U-Net's stages, in an Explorer and as columns of a Compare."""

from __future__ import annotations

import pytest
import torch
from tiny import make_pipeline
from tiny_families import MAKERS

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.widgets.stages import Stages


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(make_pipeline())


def test_sliders_and_settings_say_the_same(model: Model) -> None:
    explorer = dx.Explorer(model, prompt="a red fox", steps=2, skips={0: {"skip": 0.5}})
    (stages,) = (one for one in explorer._controls.values() if isinstance(one, Stages))
    chip = stages.children[0]
    face, (*numbers, back) = chip.children[0], chip.children[1].children
    assert [one.children[0].description for one in numbers] == [
        f"{part} {k}, {word}" for k, word in ((1, "coarsest"), (2, "finest")) for part in ("skip", "backbone")
    ]
    assert [one.value for one in numbers] == [0.5, 1, 1, 1]
    assert face.description == "skips (1)"
    numbers[2].children[0].value = 0.0  # the slider
    assert explorer.settings.skips == (("0", (("skip", 0.5),)), ("1", (("skip", 0.0),)))
    trace = explorer.run()
    assert trace.settings.skips == explorer.settings.skips
    assert "skips={'0': {'skip': 0.5}, '1': {'skip': 0.0}}" in explorer.code()
    assert explorer.viewer.shown()[0].about["skips"] == "stage 1 skip 0.5, stage 2 skip 0"
    numbers[2].children[1].value = "much"  # the field
    with pytest.raises(ValueError, match=r"(?i)skips must map stages .* 'much'"):
        explorer.run()
    back.click()
    assert explorer.skips == ()
    assert explorer.viewer.error == ""
    assert [one.value for one in numbers] == [1, 1, 1, 1]
    assert face.description == "skips"
    free = {"s1": 0.9, "s2": 0.2, "b1": 1.2, "b2": 1.4}
    explorer.skips = {"freeu": free}
    assert face.description == "FreeU"
    assert explorer.run().settings.skips == (("freeu", tuple(sorted(free.items()))),)
    explorer.close()


def test_each_stage_without_its_skip_beside_the_untouched_run(model: Model) -> None:
    compare = dx.Compare("skips", model, prompt="a red fox", steps=2)
    assert list(compare.columns) == ["as trained", "stage 1 without skip", "stage 2 without skip"]
    compare.from_json(compare.to_json())
    runs = compare.run()
    plain = model.trace(prompt="a red fox", steps=2)
    finals = [one.final for one in runs.values()]
    assert torch.equal(finals[0], plain.final)
    assert not any(torch.equal(finals[0], one) for one in finals[1:])
    compare.close()


def test_where_there_are_no_stages_there_are_no_sliders() -> None:
    other = Model(MAKERS["pixart"]())
    explorer = dx.Explorer(other, prompt="a")
    assert not any(isinstance(one, Stages) for one in explorer._controls.values())
    with pytest.raises(ValueError, match="PixArtTransformer2DModel, is no U-Net"):
        explorer.skips = {0: {"skip": 0.5}}
    with pytest.raises(ValueError, match="PixArtTransformer2DModel, is no U-Net"):
        dx.Compare("skips", other)
    explorer.close()
