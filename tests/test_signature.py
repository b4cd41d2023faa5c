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
    ],
)
def test_what_cannot_be_handed_over_is_refused_in_one_sentence(extra, said):
    with pytest.raises(ValueError, match=said):
        check_extra(Takes(), extra, ["guidance_scale"])


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
