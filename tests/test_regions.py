"""Regions: what latents are inside of a rectangle or a mask, as text and back, and what is none."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from diffexplore.runs.regions import Region


def test_a_rectangle_holds_every_latent_that_it_touches():
    inside = Region((0.25, 0.5, 0.75, 1.0)).of((4, 8, 16))
    assert inside.shape == (8, 16)
    assert inside[4:, 4:12].all()
    assert int(inside.sum()) == 32
    assert int(Region((0.3, 0.3, 0.31, 0.31)).of((4, 10, 10)).sum()) == 1
    assert torch.equal(Region((0.25, 0.5, 0.75, 1.0)).of((4, 3, 8, 16)), inside)
    assert Region().whole
    assert Region().of((4, 8, 16)).all()


def test_a_mask_of_the_pictures_size_is_reduced_and_text_gives_it_back():
    mask = np.zeros((32, 64), bool)
    mask[:8, :16] = True
    mask[31, 63] = True  # a pixel of an eighth of a latent is not inside
    region = Region(mask)
    expected = torch.zeros(4, 8, dtype=torch.bool)
    expected[0, :2] = True
    assert torch.equal(region.of((4, 4, 8)), expected)
    assert torch.equal(region.of((4, 32, 64)), torch.from_numpy(mask))
    assert np.array_equal(Region(region.told).mask, mask)
    assert region.share == pytest.approx(129 / 2048)
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    assert np.array_equal(Region(picture).mask, mask)
    assert Region(np.ones((4, 4), bool)).told is None
    assert Region(torch.from_numpy(expected.numpy())).of((4, 8, 16)).sum() == 8  # each place four times


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ((0.2, 0.2, 0.1, 1), "a rectangle is (left, top, right, bottom) in shares of the picture, each from 0 to 1"),
        ((0, 0, 32, 32), "each from 0 to 1, got (0, 0, 32, 32)"),
        (np.zeros((4, 4)), "a region must have something in it"),
        (np.full((4, 4), 7), "a mask (height, width) of True and False"),
        (np.ones(4, bool), "a mask (height, width) of True and False"),
        ([[1, 0], [1]], "a mask (height, width) of True and False"),
        ("everywhere", "a region is None for all of the picture"),
        ("4x4:!!!", "a region is None for all of the picture"),
        ("9999x9999:eJwDAAAAAAE=", "a region is None for all of the picture"),
        ("64x64:eJwDAAAAAAE=", "a region is None for all of the picture"),
        (object(), "a region is None for all of the picture"),
    ],
)
def test_what_is_no_region_is_refused_in_a_sentence(given, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        Region(given)


def test_a_region_that_does_not_fit_is_refused_where_it_is_used():
    with pytest.raises(
        ValueError, match=re.escape("the proportions of the latents, 4 x 8 (height x width), got 4 x 4")
    ):
        Region(np.eye(4, dtype=bool)).of((4, 4, 8))
    with pytest.raises(ValueError, match="of latents with a height and a width"):
        Region((0, 0, 0.5, 0.5)).of((4, 100))
