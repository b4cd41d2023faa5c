"""Attention as maps: what is rounded, enlarged and laid out keeps its mass."""

import pytest
import torch

from diffexplore.runs.maps import LARGE, enlarged, grid_of, small, softmaxed


def test_a_map_keeps_its_mass_in_half_the_bytes_and_at_another_size():
    torch.manual_seed(0)
    flat = torch.full((1, 64, 64), 0.0123456)
    wild = torch.rand(3, 64, 64) ** 4 / 50
    for maps in (flat, wild, flat / 1000):
        kept = small(maps)
        assert kept.dtype == torch.float16
        assert kept.double().sum((1, 2)) == pytest.approx(maps.double().sum((1, 2)), rel=2e-5)
        assert torch.allclose(kept.float(), maps, rtol=2e-3, atol=1e-7)
    assert small(wild[:, :8, :8]).dtype == torch.float32, "a small one costs nothing"
    assert LARGE > 8 * 8
    for size in ((8, 12), (9, 13), (16, 6)):
        large = enlarged(wild[:, :4, :6], size)
        assert large.shape[1:] == size
        assert large.mean((1, 2)) == pytest.approx(wild[:, :4, :6].mean((1, 2)), rel=1e-5)


def test_the_places_of_layers_are_those_of_strided_latents():
    assert [grid_of(n, (8, 12)) for n in (96, 24, 6, 25)] == [(8, 12), (4, 6), (2, 3), None]
    assert grid_of(35, (9, 13)) == (5, 7), "odd sides are rounded up"


def test_the_softmax_is_that_of_torch_with_mask_groups_and_in_parts(monkeypatch):
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 5, 8)
    mask = torch.tensor([True, True, True, False, True]).expand(2, 1, 6, 5)
    whole = key.repeat_interleave(2, dim=1)
    scores = (query @ whole.transpose(-1, -2) * 0.3).masked_fill(~mask, -torch.inf).softmax(-1).mean(1)
    for elements in (2**25, 1):
        monkeypatch.setattr("diffexplore.runs.maps.ELEMENTS", elements)
        assert torch.allclose(softmaxed(query, key, 0.3, mask, slice(1, 4)), scores[..., 1:4], atol=1e-6)
