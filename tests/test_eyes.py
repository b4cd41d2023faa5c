"""What looks at pictures in the factory: shapes, and that shaking leaves what is to be read."""

import numpy as np
import torch
from safetensors.torch import save_file

from diffexplore.pocket.factory import eyes
from diffexplore.pocket.judge import ATTRIBUTES

VALUES = sum(len(values) for values in ATTRIBUTES.values())


def test_the_second_judge_scores_every_value_at_any_size():
    network = eyes.make_second()
    for side in (32, 64):
        x = torch.rand(2, 3, side, side) * 2 - 1
        assert network(x).shape == (2, VALUES)
        assert torch.allclose(network(x), network.head(network.features(x)))


def test_shaken_pictures_are_of_the_same_kind_and_differ():
    torch.manual_seed(0)
    x = (torch.rand(1, 3, 8, 8) * 2 - 1).repeat_interleave(8, 2).repeat_interleave(8, 3).expand(16, -1, -1, -1)
    y = eyes.shaken(x)
    assert y.shape == x.shape
    assert torch.isfinite(y).all()
    assert (y - x).abs().mean((1, 2, 3)).min() > 0.05
    assert (y.mean((2, 3)) - x.mean((2, 3))).abs().mean() < 0.25  # its colours are about the same


def test_what_the_sight_sees_has_length_one_and_a_gradient():
    sight = eyes.make_sight().eval().requires_grad_(False)
    x = torch.randn(2, 3, 64, 64, requires_grad=True)
    seen = eyes.sees(sight, x)
    assert [tuple(one.shape[1:]) for one in seen] == [(32, 32, 32), (64, 16, 16), (96, 8, 8), (128, 8, 8)]
    assert all(one.square().sum(1).max().item() < 1.001 for one in seen)
    sum(one.sum() for one in seen).backward()
    assert x.grad.abs().sum() > 0


def test_features_bring_pictures_of_any_size_to_one(tmp_path):
    torch.manual_seed(0)
    network = eyes.make_second().eval()
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, tmp_path / "second.safetensors")
    read = eyes.read_second(tmp_path / "second.safetensors")
    rng = np.random.default_rng(0)
    small = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(3)]
    seen, scores = eyes.features(read, small, 64)
    assert (seen.shape, scores.shape) == ((3, 192), (3, VALUES))
    large = [np.kron(one, np.ones((2, 2, 1), np.uint8)) for one in small]
    assert np.isfinite(eyes.features(read, large, 64)[0]).all()
