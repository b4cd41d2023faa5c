"""Pictures side by side: each in its place, at the size asked for."""

import numpy as np
import torch
from PIL import Image

from diffexplore.pocket.factory.sheets import pair_page, save_grid


def test_a_row_that_is_not_full_is_filled_with_white(tmp_path):
    save_grid(torch.zeros(3, 3, 8, 8) - 1, tmp_path / "grid.png", columns=2)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (16, 16, 3)
    assert (pixels[8:, 8:] == 255).all()
    assert (pixels[:8] == 0).all()


def test_pictures_stand_row_by_row_and_as_large_as_asked(tmp_path):
    pictures = torch.linspace(-1, 1, 4).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    save_grid(pictures, tmp_path / "grid.png", columns=2, side=6)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))[..., 0]
    assert pixels.shape == (12, 12)
    assert pixels[3::6, 3::6].tolist() == [[0, 85], [170, 255]]


def test_a_pair_stands_one_above_the_other(tmp_path):
    above, below = (np.full((3, 2, 2, 3), shade, np.uint8) for shade in (50, 200))
    pair_page(above, below, tmp_path / "pairs.png", columns=2)
    pixels = np.asarray(Image.open(tmp_path / "pairs.png"))[::2, ::2, 0]
    assert pixels.tolist() == [[50, 50], [200, 200], [50, 255], [200, 255]]
