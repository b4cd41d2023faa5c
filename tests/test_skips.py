"""runs/skips.py: skips and backbones scaled while a run goes, FreeU as diffusers does it, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import make_pipeline
from tiny_families import MAKERS, SIZES

from diffexplore.model import Model
from diffexplore.runs.probes import Probe
from diffexplore.settings import Settings
from diffexplore.trace import Trace

ASKED = Settings(prompt="a red fox", steps=3, guidance=5.0, seed=3, sampler="DDIM")
FREEU = {"s1": 0.6, "s2": 0.4, "b1": 1.1, "b2": 1.2}


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(make_pipeline())


@pytest.fixture(scope="module")
def plain(model: Model) -> Trace:
    return model.trace(ASKED)


def final(trace: Trace) -> torch.Tensor:
    assert trace.final is not None
    return trace.final


def hooks(pipeline: Any) -> int:
    return sum(len(part._forward_pre_hooks) + len(part._forward_hooks) for part in pipeline.unet.modules())


def test_a_skip_of_a_stage_is_that_of_its_block_scaled(model: Model, plain: Trace) -> None:
    """The same by another way: the tuple of skips that diffusers hands to the block."""
    for number, block in enumerate(model.pipeline.unet.up_blocks):

        def scale(_: Any, args: Any, given: dict[str, Any]) -> Any:
            return args, given | {
                "res_hidden_states_tuple": tuple(0.25 * one for one in given["res_hidden_states_tuple"])
            }

        hook = block.register_forward_pre_hook(scale, with_kwargs=True)
        expected = model.trace(ASKED)
        hook.remove()
        found = model.trace(ASKED, skips={number: {"skip": 0.25}})
        assert torch.equal(final(found), final(expected))
        assert not torch.equal(final(found), final(plain))
        assert found.settings.skipped == [f"stage {number + 1} skip 0.25"]


def test_a_backbone_of_nothing_leaves_the_skips_alone_and_the_other_way_round(model: Model) -> None:
    """A first layer is linear in what it is given: what comes of both is the sum of what comes of each."""
    seen: list[torch.Tensor] = []
    layer = model.pipeline.unet.up_blocks[0].resnets[0]
    for strengths in ({}, {"skip": 0.0}, {"backbone": 0.0}):

        class Look(Probe):
            changes = True

            def attach(self, pipeline: Any) -> None:
                self.hook = layer.norm1.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))

            def detach(self) -> None:
                self.hook.remove()

        begun = len(seen)
        model.trace(ASKED, steps=2, skips={0: strengths}, probes=[Look()])
        del seen[begun + 1 :]
    both, below, beside = seen
    stage = model.stages[0]
    assert (stage.backbone, both.shape[1]) == (32, layer.in_channels)
    assert torch.equal(both, below + beside)
    assert not below[:, stage.backbone :].any()
    assert not beside[:, : stage.backbone].any()


def test_strengths_of_one_are_none_and_nothing_is_left_behind(model: Model, plain: Trace) -> None:
    ones = {0: {"skip": 1, "backbone": 1.0}, "1": {"skip": 1}}
    assert Settings(skips=ones) == Settings()
    assert model.trace(ASKED, skips=ones).info.get("reused"), "it is the same run"
    before = hooks(model.pipeline)
    odd = model.trace(ASKED, skips={1: {"skip": 0.0}})
    assert not odd.info.get("reused"), "what was computed without is not taken for it"
    assert model.trace(ASKED, skips={1: {"skip": 0.0}}).info.get("reused")
    assert hooks(model.pipeline) == before

    class Broken(Probe):
        changes = True

        def on_step(self, step: Any) -> None:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        model.trace(ASKED, skips={1: {"skip": 0.5}}, probes=[Broken()])
    assert hooks(model.pipeline) == before
    fresh = Model(model.pipeline, reuse=0).trace(ASKED)
    assert torch.equal(final(fresh), final(plain))


def test_freeu_is_that_of_diffusers_to_the_bit(model: Model, plain: Trace) -> None:
    found = model.trace(ASKED, skips={"freeu": FREEU})
    assert not any(hasattr(block, "s1") and block.s1 for block in model.pipeline.unet.up_blocks)
    model.pipeline.enable_freeu(**FREEU)
    try:
        expected = Model(model.pipeline, reuse=0).trace(ASKED)
    finally:
        model.pipeline.disable_freeu()
    assert torch.equal(final(found), final(expected))
    assert not torch.equal(final(found), final(plain))


def test_runs_of_other_skips_share_no_batch(model: Model) -> None:
    asked = [ASKED.replace(seed=9, skips=skips) for skips in ({}, {0: {"skip": 0.0}}, {})]
    assert [len(batch) for batch in model.batches(asked)] == [2, 1]


@pytest.mark.parametrize("family", ["sdxl", "lcm", "kandinsky3"])
def test_every_stage_of_every_unet(family: str) -> None:
    other = Model(MAKERS[family]())
    width, height = SIZES.get(family, (None, None))
    asked = Settings(prompt="a", steps=2 if family != "kandinsky3" else 3, seed=1, width=width, height=height)
    before = final(other.trace(asked))
    assert other.abilities["skips"] is True
    assert [stage.name for stage in other.stages] == ["stage 1, coarsest", "stage 2, finest"]
    for stage in other.stages:
        for part in ("skip", "backbone"):
            skips = {stage.number: {part: 0.2}}
            if part == "skip" and not stage.skip:
                with pytest.raises(ValueError, match="stage 0 of this network has no skip connection"):
                    other.plan(asked, skips=skips)
            else:
                assert not torch.equal(final(other.trace(asked, skips=skips)), before)
    with pytest.raises(ValueError, match="skips are for stages 0 to 1 of this network, got '5'"):
        other.plan(asked, skips={5: {"skip": 0}})


def test_what_has_no_stages_says_so_before_any_work() -> None:
    other = Model(MAKERS["pixart"]())
    assert other.stages == []
    assert (
        other.abilities["skips"]
        == "Its network, PixArtTransformer2DModel, is no U-Net with stages: it has no skip connections."
    )
    with pytest.raises(ValueError, match="its network, PixArtTransformer2DModel, is no U-Net with stages"):
        other.plan(prompt="a", skips={0: {"skip": 0.5}})
    kandinsky = Model(MAKERS["kandinsky3"]())
    with pytest.raises(
        ValueError, match="FreeU is for the blocks CrossAttnUpBlock2D and UpBlock2D, this network has Kand"
    ):
        kandinsky.plan(prompt="a", steps=3, skips={"freeu": FREEU})


def test_settings_keep_skips_as_json_and_refuse_nonsense() -> None:
    made = Settings(skips={1: {"skip": 0, "backbone": 1.5}, "0": {"skip": 0.25}})
    assert made.skips == (("0", (("skip", 0.25),)), ("1", (("backbone", 1.5), ("skip", 0.0))))
    assert Settings.from_json(made.to_json()) == made
    assert hash(made) == hash(Settings.from_json(made.to_json()))
    assert "skips" not in Settings().to_json()
    assert made.skipped == ["stage 1 skip 0.25", "stage 2 backbone 1.5 skip 0"]
    free = Settings(skips={"freeu": FREEU})
    assert Settings.from_json(free.to_json()) == free
    for wrong in (
        {0: {"skip": -1}}, {0: {"skip": "x"}}, {0: {"skips": 1}}, {-1: {"skip": 1}}, {"a": {"skip": 1}}, {0: 3}, 7,
        None, {0: {"skip": float("nan")}}, {"freeu": {"s1": 1}}, {"freeu": FREEU | {"s1": 0}},
        {0: {"skip": 2}, "0": {"skip": 3}},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="skips must map stages of a U-Net, from 0, to strengths"):
            Settings(skips=wrong)
    with pytest.raises(ValueError, match="either FreeU or strengths of stages"):
        Settings(skips={"freeu": FREEU, 0: {"skip": 0.5}})
