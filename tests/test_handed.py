"""Pictures handed to a pipeline: none is silently taken for latents, and what needs nothing is left as it is."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from handmade import DemandingPipeline, handmade
from PIL import Image
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.pipelines.signature import Extra
from diffexplore.runs.handed import made_right

TAKES = [Extra(name, "picture", None, False) for name in ("image", "mask_image")]
PLAIN = SimpleNamespace(vae=SimpleNamespace(config=SimpleNamespace(in_channels=3)))
CLEAR = Image.new("RGBA", (4, 2), (10, 20, 30, 0))


def right(value, name="image", pipeline=PLAIN):
    made, said = made_right(pipeline, TAKES, {name: value, "strength": 0.5})
    assert made["strength"] == 0.5
    return made[name], said


def test_transparent_parts_are_white_whatever_form_they_come_in():
    made, said = right(CLEAR)
    assert (made.mode, made.getpixel((0, 0)), said) == ("RGB", (255, 255, 255), ["image: transparent parts are white."])
    made, said = right([CLEAR, Image.new("RGB", (4, 2))])
    assert [one.mode for one in made] == ["RGB", "RGB"]
    assert right(np.asarray(CLEAR))[0].getpixel((0, 0)) == (255, 255, 255)
    half = np.full((1, 2, 4, 4), 0.5, np.float32)
    made, said = right(half)
    assert (made.shape, float(made.max()), said) == ((1, 2, 4, 3), 0.75, ["image: transparent parts are white."])
    made, said = right(CLEAR, "mask_image")
    assert made.mode == "RGB"


def test_bytes_of_an_array_and_single_planes_are_pictures():
    made, _ = right(np.full((2, 4, 3), 128, np.uint8))
    assert made.getpixel((0, 0)) == (128, 128, 128)
    assert right(np.full((2, 4), 128, np.uint8))[0].getpixel((0, 0)) == (128, 128, 128)
    assert right(np.full((2, 4), 0.5))[0].shape == (2, 4, 3)
    assert right(torch.full((2, 4), 0.5))[0].shape == (3, 2, 4)
    assert right(Image.new("L", (4, 2), 7))[0].mode == "RGB"


@pytest.mark.parametrize(("value", "name"), [
    (Image.new("RGB", (4, 2)), "image"), (Image.new("L", (4, 2)), "mask_image"), (np.zeros((2, 4)), "mask_image"),
    (np.zeros((2, 4, 3), np.float32), "image"), (torch.zeros(1, 4, 2, 4), "image"), (None, "image"),
])  # fmt: skip
def test_what_needs_nothing_is_the_very_object(value, name):
    made, said = right(value, name)
    assert made is value
    assert said == []


def test_a_pipeline_made_for_transparent_pictures_gets_them():
    layered = SimpleNamespace(vae=SimpleNamespace(config=SimpleNamespace(input_channels=4)))
    assert right(CLEAR, pipeline=layered) == (CLEAR, [])


def test_what_is_no_picture_is_refused_with_its_name():
    with pytest.raises(ValueError, match="image cannot be handed over: the picture is in LAB colours"):
        right(Image.new("LAB", (4, 2)))


FEW = {"prompt": "a red fox", "steps": 2}


def test_what_only_the_call_can_know_is_refused_in_one_sentence_too():
    model = dx.load(handmade(DemandingPipeline))
    red = Image.new("RGB", (48, 32), "red")
    with pytest.raises(ValueError, match=r"^DemandingPipeline refused image=, style=: KeyError: 'baroque'$"):
        model.trace(image=red, style="baroque", **FEW)
    for name, value, said in (("warmth", None, "a number, got None"), ("bright", "yes", "True or False, got 'yes'")):
        with pytest.raises(ValueError, match=f"{name} of DemandingPipeline must be {said}"):
            model.trace(image=red, **{name: value}, **FEW)
    named = dx.load(make_pipeline())
    with pytest.raises(ValueError, match="clip_skip of StableDiffusionPipeline must be a whole number from 0 to"):
        named.trace(clip_skip=99, **FEW)
    with pytest.raises(ValueError, match=r"^StableDiffusionPipeline refused cross_attention_kwargs="):
        named.trace(cross_attention_kwargs=7, **FEW)


def test_a_model_whose_numbers_are_none_says_so():
    for pipeline in (make_pipeline(), handmade()):
        weights = next((pipeline.unet if hasattr(pipeline, "unet") else pipeline.weaver).parameters())
        weights.data.fill_(float("nan"))
        trace = dx.load(pipeline).trace(**FEW)
        assert any("not finite from step 1 on" in note for note in trace.info["notes"])
    assert not any("finite" in note for note in dx.load(make_pipeline()).trace(**FEW).info["notes"])
