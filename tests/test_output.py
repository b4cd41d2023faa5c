"""What calls give back: pictures, frames and sounds, in whatever form pipelines have them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diffexplore.pipelines.output import made_of

PIXELS = np.linspace(0, 1, 4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)
PICTURE = Image.fromarray((PIXELS * 255).round().astype(np.uint8))


@pytest.mark.parametrize(
    "given",
    [
        {"images": [PICTURE]},
        {"images": PIXELS[None]},
        {"images": torch.from_numpy(PIXELS).permute(2, 0, 1)[None]},
        {"prediction": PIXELS[None]},
        SimpleNamespace(values={"latents": torch.zeros(1), "images": [PICTURE]}),
        ([PICTURE], None),
    ],
)
def test_a_picture_is_read_in_every_form(given):
    made = made_of(given, None)
    assert made.kind == "picture"
    assert np.array_equal(np.asarray(made.image), np.asarray(PICTURE))


@pytest.mark.parametrize(
    "given",
    [
        {"frames": [[PICTURE] * 3]},
        {"frames": np.stack([PIXELS] * 3)[None]},
        {"frames": torch.from_numpy(np.stack([PIXELS] * 3)).permute(0, 3, 1, 2)[None]},
        {"videos": torch.from_numpy(np.stack([PIXELS] * 3)).permute(3, 0, 1, 2)[None]},
        {"images": [[PICTURE] * 3]},
    ],
)
def test_a_video_is_a_list_of_pictures_with_the_middle_one_on_show(given):
    made = made_of(given, None)
    assert made.kind == "video"
    assert [one.size for one in made.output] == [(6, 4)] * 3
    assert made.image is made.output[1]


def test_a_sound_has_channels_samples_and_a_rate():
    pipeline = SimpleNamespace(vae=SimpleNamespace(config=SimpleNamespace(sampling_rate=44100)))
    made = made_of({"audios": torch.zeros(1, 2, 100)}, pipeline)
    assert (made.kind, made.output.shape, made.rate, made.image) == ("sound", (2, 100), 44100, None)


def test_directions_lie_between_minus_one_and_one():
    made = made_of({"prediction": PIXELS[None] * 2 - 1}, None)
    assert np.abs(np.asarray(made.image).astype(int) - np.asarray(PICTURE)).max() <= 1


def test_what_is_none_of_these_is_handed_on():
    given = {"image_embeds": torch.zeros(1, 32)}
    assert made_of(given, None) == ("numbers", None, given, None)
