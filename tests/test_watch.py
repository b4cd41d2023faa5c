"""The recorder of a pipeline that nobody knows: what it keeps of a call, whatever the call does with its tensors."""

import torch
from handmade import HandmadePipeline, handmade

import diffexplore as dx
from diffexplore.runs.watch import cloned, first_tensor

FEW = {"prompt": "a red fox", "steps": 3, "guidance": 4.0, "seed": 3}


class Overwriting(HandmadePipeline):
    def next_of(self, x, made):
        x[:] = made
        return x


class TwoStages(HandmadePipeline):
    def __call__(self, prompt: str, num_inference_steps: int = 8, guidance_scale: float = 3.0, generator=None):
        super().__call__(prompt, "", num_inference_steps, guidance_scale, width=24, height=16, generator=generator)
        return super().__call__(prompt, "", num_inference_steps, guidance_scale, generator=generator)


def test_latents_that_the_call_writes_over_stay_those_of_their_step():
    trace = dx.load(handmade(Overwriting)).trace(**FEW)
    plain = dx.load(handmade()).trace(**FEW)
    for step, other in zip(trace, plain, strict=True):
        assert torch.equal(step.latents, other.latents)
    assert float((trace[-1].x0 - trace.final).abs().max()) <= 1e-4 * float(trace.final.abs().max())


def test_of_several_stages_the_last_is_kept_and_the_others_are_said():
    trace = dx.load(handmade(TwoStages)).trace(**FEW)
    assert len(trace) == trace.expected == 3
    assert tuple(trace[0].shape) == (4, 8, 12)
    assert "Before these steps the pipeline took 3 evaluations at 6x16." in trace.info["notes"]
    assert trace.info["looked"]["stages"] == ["3 evaluations at 6x16"]


def test_answers_are_copies_of_their_own_form():
    one = torch.ones(2)
    given = {"a": (one, [one]), "b": None}
    made = cloned(given)
    one.zero_()
    assert torch.equal(made["a"][0], torch.ones(2))
    assert torch.equal(made["a"][1][0], torch.ones(2))
    assert made["b"] is None
    assert first_tensor((None, one)) is one
    assert first_tensor("no tensor") is None
