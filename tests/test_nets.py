"""The pipelines that a card is measured with: of the size they say, and the same every time."""

import numpy as np
import pytest
import torch

from diffexplore.bench.nets import NETS

SIZES = {"SD 1.5": 0.86e9, "SDXL": 2.57e9, "flow 2 B": 2.03e9}


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_the_network_that_denoises_is_as_large_as_it_says(net):
    scheduler = net.scheduler()
    with torch.device("meta"):
        pipeline = net.make(False, scheduler)
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(SIZES[net.name], rel=0.01)


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.name)
def test_the_same_random_weights_every_time_and_nobody_elses_random_numbers(net):
    def draw():
        pipeline = net.build("cpu", small=True)
        generator = torch.Generator("cpu").manual_seed(7)
        return np.asarray(pipeline("a fox", num_inference_steps=2, width=64, height=64, generator=generator).images[0])

    before = torch.get_rng_state()
    first = draw()
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(first, draw())
    assert first.std() > 1
    assert torch.get_default_dtype() == torch.float32
