"""What a pipeline takes beyond settings, by its signature."""

import numpy as np
import pytest
import torch
from PIL import Image

from diffexplore.pipelines.signature import arguments_of, check_extra, described, extras_of


class Takes:
    def __call__(
        self,
        prompt: str,
        image: Image.Image,
        strength: float = 0.8,
        frames: int | None = None,
        loop: bool = False,
        style: str = "plain",
        mask: Image.Image | str | None = None,
        weights: list | None = None,
        guidance_scale: float = 5.0,
        num_inference_steps: int = 20,
        **more: object,
    ) -> None: ...


def test_each_argument_has_a_kind_a_default_and_whether_it_is_required():
    assert [tuple(one) for one in extras_of(Takes(), ["guidance_scale"])] == [
        ("image", "picture", None, True),
        ("strength", "number", 0.8, False),
        ("frames", "whole", None, False),
        ("loop", "switch", False, False),
        ("style", "text", "plain", False),
        ("mask", "picture", None, False),
        ("weights", "other", None, False),
    ]
    assert arguments_of(Takes())["num_inference_steps"].default == 20


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({}, "Takes needs image= beside the settings"),
        ({"image": 1, "strenght": 1}, "Takes takes no argument 'strenght', did you mean 'strength'"),
        ({"image": 1, "prompt": "a"}, "prompt cannot be handed to Takes here: settings have it"),
        ({"image": 1, "guidance_scale": 1}, "guidance_scale cannot be handed to Takes here: it is guidance="),
        ({"image": 1, "more": 1}, "Takes takes no argument 'more'"),
        ({"image": "fox.png"}, "image of Takes must be a picture or an array of one, not a path or a number, got 'fox"),
        ({"image": 7}, "image of Takes must be a picture"),
        ({"image": []}, r"image of Takes must be a picture of finite numbers, got \[\]"),
        ({"image": np.full((4, 4, 3), np.nan)}, "finite numbers, got 'numbers of shape 4x4x3'"),
        ({"image": [torch.full((3, 4, 4), torch.inf)]}, "finite numbers"),
        ({"image": np.array([None])}, "finite numbers"),
        ({"image": Image.new("RGB", (8, 8)), "strength": "much"}, "strength of Takes must be a number, got 'much'"),
        ({"image": Image.new("RGB", (8, 8)), "strength": float("nan")}, "strength of Takes must be a number, got nan"),
        ({"image": Image.new("RGB", (8, 8)), "frames": "3"}, "frames of Takes must be a whole number, got '3'"),
    ],
)
def test_what_cannot_be_handed_over_is_refused_in_one_sentence(extra, said):
    with pytest.raises(ValueError, match=said):
        check_extra(Takes(), extra, ["guidance_scale"])


@pytest.mark.parametrize(
    "image",
    [Image.new("RGB", (8, 8)), [Image.new("RGB", (8, 8))] * 2, np.zeros((8, 8, 3), np.uint8), torch.zeros(3, 8, 8)],
)
def test_pictures_of_any_form_are_handed_over(image):
    check_extra(Takes(), {"image": image, "strength": [0.5, 1.0], "mask": "a path that its call says it opens"})


def test_arguments_are_described_as_plain_data():
    given = {
        "image": Image.new("RGB", (48, 32)),
        "t": torch.zeros(2, 3),
        "a": np.zeros(4),
        "n": [1, 2.5, None],
        "f": len,
    }
    assert described(given) == {
        "image": "a picture of 48x32 pixels",
        "t": "numbers of shape 2x3",
        "a": "numbers of shape 4",
        "n": [1, 2.5, None],
        "f": "a builtin_function_or_method",
    }
