"""Callbacks that a user gave to a network read the pipeline they know while its runs go on in a clone."""

import copy

import diffusers
import numpy as np
import pytest
import torch
from tiny import make_pipeline
from tiny_families import MAKERS, size

from diffexplore.model import Model
from diffexplore.pipelines.family import FAMILIES
from diffexplore.runs.mirror import Mirror
from diffexplore.runs.probes import Probe

ASKED = {"prompt": "a red fox", "steps": 5, "guidance": 4.0, "seed": 3}
BROADCAST = {"spatial_attention_block_skip_range": 2, "spatial_attention_timestep_skip_range": (-1, 10**6)}
FASTER = {**BROADCAST, "is_guidance_distilled": True, "spatial_attention_timestep_skip_range": (-1, 950)}


def flux():
    torch.manual_seed(7)
    pipeline = MAKERS["flux"]()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("config", "options"), [("PyramidAttentionBroadcastConfig", BROADCAST), ("FasterCacheConfig", FASTER)]
)
def test_a_cache_that_asks_for_the_timestep_draws_what_it_draws_plainly(config, options, late):
    pipeline = flux()
    told = []

    def timestep():
        told.append(pipeline._current_timestep)
        return pipeline._current_timestep

    cache = getattr(diffusers, config)(**options, current_timestep_callback=timestep)
    model = Model(pipeline)
    if late:
        uncached = model.trace(**ASKED, **size("flux"))
    pipeline.transformer.enable_cache(cache)
    if not late:
        model = Model(pipeline)
    trace = model.trace(**ASKED, **size("flux"))
    assert set(map(float, told)) <= set(trace.info["schedule"])
    asked = len(told)
    arguments = FAMILIES["flux"].arguments(pipeline, [trace.settings])
    plain = pipeline(**arguments, generator=torch.Generator("cpu").manual_seed(3)).images[0]
    assert np.array_equal(np.asarray(trace.image), np.asarray(plain))
    assert len(told) == 2 * asked > 0
    if late:
        assert not np.array_equal(np.asarray(trace.image), np.asarray(uncached.image))


def test_the_users_pipeline_is_afterwards_as_it_was_even_if_the_run_fails():
    pipeline = flux()
    seen = []

    def timestep():
        seen.append((pipeline._current_timestep, pipeline.guidance_scale))
        return pipeline._current_timestep

    cache = diffusers.PyramidAttentionBroadcastConfig(**BROADCAST, current_timestep_callback=timestep)
    pipeline.transformer.enable_cache(cache)
    before = dict(vars(pipeline))

    class Breaks(Probe):
        def on_step(self, step):
            if step.index == 2:
                raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        Model(pipeline).trace(**ASKED, **size("flux"), probes=[Breaks()])
    assert seen[-1][0] is not None
    assert seen[-1][1] == 4.0  # whatever else the call keeps in its pipeline is there too
    assert vars(pipeline) == before


def test_of_a_pipeline_that_nobody_watches_only_the_timestep_is_shown():
    pipeline = make_pipeline()
    pipeline._guidance_scale = 9.0  # as a call of the user's on another thread would have left it
    clone, seen = copy.copy(pipeline), []
    mirror = Mirror(pipeline, [pipeline.unet])
    mirror.attach(clone)
    try:
        clone._guidance_scale, clone._current_timestep = 5.0, 7
        hook = pipeline.unet.register_forward_hook(
            lambda *_: seen.append((pipeline._guidance_scale, getattr(pipeline, "_current_timestep", None)))
        )
        pipeline.unet(torch.zeros(1, 4, 8, 12), 7, torch.zeros(1, 16, 16))
        hook.remove()
    finally:
        mirror.detach()
    assert seen == [(9.0, 7)]
    assert not hasattr(pipeline, "_current_timestep")
    assert not pipeline.unet._forward_pre_hooks
