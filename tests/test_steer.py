"""Changes on the way: at 1.0 and 0.0 they are the plain runs, to the bit; guidance that is off costs nothing."""

import numpy as np
import pytest
import torch
from tiny import make_pipeline
from tiny_any import CASES
from tiny_families import MAKERS, model, size

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.record.predictions import share_of_noise
from diffexplore.runs.plan import Plan

CAR = "a long blue car on a road"


def some() -> list[tuple[str, str]]:
    """Every family, with its first sampler and one that evaluates twice a step or adds noise, where it has one."""
    wanted = {"sd": ("DPM++ SDE Karras", "Heun"), "pixart": ("Euler a",)}
    return [(name, one) for name in MAKERS for one in (model(name).samplers[0], *wanted.get(name, ()))]


def same(a: dx.Trace, b: dx.Trace) -> bool:
    return torch.equal(a.final, b.final) and np.array_equal(np.asarray(a.image), np.asarray(b.image))


def rows(one: Model, settings: dx.Settings) -> int:
    """How many pictures the network was given in all: a half of guidance is one."""
    counted: list[int] = []
    network = one.pipeline.unet
    hook = network.register_forward_pre_hook(lambda module, args: counted.append(len(args[0])))
    one.trace(settings)
    hook.remove()
    return sum(counted)


@pytest.mark.parametrize(("name", "sampler"), some())
def test_at_one_it_is_the_second_run_and_at_zero_the_first(name, sampler):
    one = model(name)
    first = dx.Settings(
        prompt="a red fox", negative_prompt="blurry", steps=4, guidance=4.0, seed=3, sampler=sampler, **size(name)
    )
    fox, car = one.trace(first), one.trace(first, prompt=CAR)
    assert not same(fox, car)
    assert same(one.trace(first, changes={1.0: {"prompt": CAR}}), car)
    assert same(one.trace(first, changes={0.0: {"prompt": CAR}}), fox)
    mark = share_of_noise(fox[1].a, fox[1].b)
    both = one.trace(first, changes={mark: {"prompt": CAR}})
    assert torch.equal(both[0].output, fox[0].output)
    assert not same(both, fox)
    assert not same(both, car)
    # Guidance on all the way is guidance, whatever it was before, and off is off.
    constant = {1.0: {"guidance": 4.0, "negative_prompt": "blurry"}}
    assert same(one.trace(first, guidance=2.5, negative_prompt="cat", changes=constant), fox)
    assert same(one.trace(first, guidance=1.0, changes=constant), fox)
    assert same(one.trace(first, changes={1.0: {"guidance": 1.0}}), one.trace(first, guidance=1.0))


def test_a_step_without_guidance_is_not_asked_for_its_second_half():
    one = model("sd")
    settings = dx.Settings(prompt="a fox", steps=8, guidance=4.0, sampler="Euler", **size("sd"))
    plain = one.trace(settings)
    mark = share_of_noise(plain[4].a, plain[4].b)
    assert (rows(one, settings), rows(one, settings.replace(changes={mark: {"guidance": 1.0}}))) == (16, 12)
    half = one.trace(settings, changes={mark: {"guidance": 1.0}})
    assert [step.split == "" for step in half] == [True] * 4 + [False] * 4
    assert torch.equal(half[4].latents, plain[4].latents)
    stronger = one.trace(settings, changes={mark: {"guidance": 9.0}})
    assert [step.guidance for step in stronger] == pytest.approx([4.0] * 4 + [9.0] * 4, rel=1e-3)


def test_a_trial_within_a_step_belongs_to_its_step():
    """Heun tries the next level before it goes there: what changes at that level changes with the step that goes."""
    one = model("sd")
    settings = dx.Settings(prompt="a fox", steps=3, guidance=4.0, sampler="Heun", **size("sd"))
    plain = one.trace(settings)
    assert [step.half for step in plain] == [False, True, False, True, False]
    changed = one.trace(settings, changes={share_of_noise(plain[2].a, plain[2].b): {"prompt": CAR}})
    equal = [torch.equal(a.output, b.output) for a, b in zip(changed, plain, strict=True)]
    assert equal == [True, True, False, False, False]


def test_loras_change_on_the_way(lora):
    one = Model(make_pipeline())
    one.load_lora(lora, "style")
    first = dx.Settings(prompt="a fox", steps=4, guidance=4.0, seed=3, sampler="DDIM")
    without, worn = one.trace(first), one.trace(first, adapters={"style": 1.0})
    assert same(one.trace(first, changes={1.0: {"adapters": {"style": 1.0}}}), worn)
    assert same(one.trace(first, changes={0.0: {"adapters": {"style": 1.0}}}), without)
    half = one.trace(first, changes={0.5: {"adapters": {"style": 1.0}}})
    assert torch.equal(half[0].output, without[0].output)
    assert not same(half, without)
    assert same(one.trace(first), without)  # it is off again


def test_pictures_that_change_alike_share_a_batch():
    one = model("sd")
    first = dx.Settings(prompt="a fox", steps=3, guidance=4.0, sampler="DDIM", changes={0.9: {"prompt": CAR}})
    others = [first.replace(seed=1), first.replace(seed=2), first.replace(changes={0.5: {"prompt": CAR}})]
    assert [len(batch) for batch in one.batches(others)] == [2, 1]
    for trace in one.trace_many(others):
        alone = one.trace(trace.settings)
        assert float((trace.final - alone.final).abs().max()) < 1e-3 * float(alone.final.abs().max())


def test_what_cannot_change_on_the_way_is_refused_before_any_work():
    one = model("sd")
    assert isinstance(one.plan(prompt="a fox", changes={0.5: {"prompt": "a fox"}}), Plan)  # nothing changes
    with pytest.raises(ValueError, match="this model has no adapter 'style'"):
        one.plan(prompt="a fox", changes={0.5: {"adapters": {"style": 1.0}}})
    with pytest.raises(ValueError, match="where prompt_embeds is handed over in its place"):
        one.plan(changes={0.5: {"prompt": "a cat"}}, prompt_embeds=torch.zeros(1, 2, 16))
    looked = next(iter(CASES.values())).make()
    with pytest.raises(ValueError, match=r"changes on the way are for pipelines of a named family: what .* gives"):
        Model(looked).plan(changes={0.5: {"prompt": "a cat"}})
