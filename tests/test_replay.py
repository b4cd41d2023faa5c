"""A call made again from its record: the same picture with no network asked, and nothing left behind."""

import numpy as np
import torch
from handmade import handmade

import diffexplore as dx
from diffexplore.pipelines.any import Looked
from diffexplore.runs.replay import clone_of, dice, play

FEW = {"prompt": "a red fox", "steps": 3, "guidance": 4.0, "seed": 3}


def test_the_networks_answer_from_the_record_and_other_latents_make_another_picture():
    pipeline = handmade()
    model = dx.load(pipeline)
    trace = model.trace(**FEW)
    before = sorted(vars(pipeline)), sorted(vars(pipeline.scheduler)), sorted(vars(pipeline.weaver))
    wrong = [parameter.data.clone() for parameter in pipeline.weaver.parameters()]
    for parameter in pipeline.weaver.parameters():
        parameter.data.zero_()  # nothing it would answer now could make the picture
    family = Looked(pipeline)
    again = play(family, pipeline, trace.tape, trace.final)
    assert np.array_equal(again.image, trace.image)
    assert not np.array_equal(play(family, pipeline, trace.tape, trace.final / 2).image, trace.image)
    for parameter, value in zip(pipeline.weaver.parameters(), wrong, strict=True):
        parameter.data.copy_(value)
    assert (sorted(vars(pipeline)), sorted(vars(pipeline.scheduler)), sorted(vars(pipeline.weaver))) == before
    assert trace.tape.nbytes > 0


def test_a_clone_has_schedulers_of_its_own_with_all_that_was_set_on_them():
    pipeline = handmade()
    pipeline.scheduler.set_shift(7.0)
    clone = clone_of(pipeline)
    assert clone.scheduler is not pipeline.scheduler
    assert clone.scheduler.shift == 7.0
    assert clone.weaver is pipeline.weaver


def test_global_generators_begin_at_the_seed_and_are_then_as_they_were():
    before = torch.get_rng_state()
    with dice(3, torch.device("cpu")) as drawn:
        assert not drawn()
        first = torch.rand(2)
        assert drawn()
    with dice(3, torch.device("cpu")):
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.get_rng_state(), before)
