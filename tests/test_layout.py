"""Ways to keep latents: each goes there and back, and is found by what a decoder was given."""

import pytest
import torch

from diffexplore.pipelines.layout import LAYOUTS, Grid, fitting, found, supposed

FLAT, DEEP = Grid(4, 0, 6, 8), Grid(4, 3, 6, 8)
BOTH = [(name, grid) for name, one in LAYOUTS.items() for grid in (FLAT, DEEP) if one.shape(grid) is not None]


def grid_of(grid):
    shape = (1, grid.channels, *((grid.frames,) if grid.frames else ()), grid.height, grid.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "grid"), BOTH)
def test_a_layout_goes_there_and_back(name, grid):
    layout, there = LAYOUTS[name], grid_of(grid)
    kept = layout.pack(there, grid)
    assert tuple(kept.shape[1:]) == layout.shape(grid)
    assert torch.equal(layout.unpack(kept, grid), there)
    assert layout in fitting(kept.shape[1:], grid)


@pytest.mark.parametrize(("name", "grid"), BOTH)
def test_a_layout_is_found_by_what_the_decoder_was_given(name, grid):
    there = grid_of(grid)
    scale = torch.tensor([0.5, -2.0, 1.0, 3.0]).reshape(1, 4, *[1] * (there.ndim - 2))
    layout, in_grid, agrees = found(LAYOUTS[name].pack(there, grid), there * scale + 0.1)
    assert (layout.name, in_grid, agrees) == (name, grid, True)


def test_frames_that_were_decoded_as_a_batch_are_frames():
    there = grid_of(DEEP)
    layout, grid, agrees = found(there.permute(0, 2, 1, 3, 4), there[0].movedim(1, 0))
    assert (layout.name, grid, agrees) == ("frames first", DEEP, True)


def test_what_was_painted_over_is_not_taken_for_a_layout_that_was_seen():
    there = grid_of(FLAT)
    painted = there.clone()
    painted[..., :4, :4] = 7.0
    assert found(there, painted)[2] is False
    assert found(torch.zeros(1, 5), there) is None


def test_before_a_decoder_was_seen_shapes_tell_what_they_can():
    assert supposed((12, 16), 4, 6, 8)[0].name.startswith("2x2 as one, channels first")
    assert supposed((48, 4), 4, 6, 8)[0].name == "rows"
    assert supposed((3, 4, 6, 8), 4, 6, 8)[0].name == "frames first"
    assert supposed((4, 6, 8), 4, 6, 8)[0].name == "as it is"
    assert supposed((32,), None, None, None)[0].name == "as it is"
