"""Each guider against diffusers' own class where that is right, and against the paper's formula: as a mix of one step,
as what-if over the steps of a run, and as the run itself."""

import pickle
from itertools import pairwise

import pytest
import torch
from diffusers import guiders as theirs
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer
from tiny_families import model, size

import diffexplore as dx
from diffexplore.record.guiders import At, mixer
from diffexplore.record.predictions import affine, x0_of

G = 7.5
GUIDED = ["rescale", "rescale(phi=1)", "APG", "APG(eta=0.3, momentum=0.4, norm=2)", "APG(norm=0)", "CFG-Zero*", "TCFG"]


def close(mine, other):
    return float((mine - other).abs().max()) <= 1e-5 * float(other.abs().max())


class Reference:
    """diffusers' guider, asked by hand; predictions come with one batch axis."""

    def __init__(self, guider: str, flow: bool, numel: int) -> None:
        name, _, rest = guider.partition("(")
        told = dict(pair.split("=") for pair in rest.rstrip(")").replace(" ", "").split(",") if pair)
        self.x0 = name == "APG"
        if name == "rescale":
            self.made = theirs.ClassifierFreeGuidance(G, guidance_rescale=float(told.get("phi", 0.7)))
        elif name == "APG":
            # On x0, and from the prediction with the prompt, it computes what the paper says.
            self.made = theirs.AdaptiveProjectedGuidance(
                G - 1,
                eta=float(told.get("eta", 0)),
                adaptive_projected_guidance_rescale=float(told.get("norm", 15)) * (numel / 65536) ** 0.5,
                use_original_formulation=True,
            )
            self.made.momentum_buffer = MomentumBuffer(float(told.get("momentum", -0.5)))
        elif name == "CFG-Zero*":
            self.made = theirs.ClassifierFreeZeroStarGuidance(G, zero_init_steps=1 if flow else 0)
        else:
            self.made = None  # diffusers finds its singular vectors in float32, and is 3e-5 off

    def __call__(self, cond, uncond, latents, kind, a, b, step, steps):
        if self.made is None:
            return tangential(cond, uncond)
        self.made.set_state(step=step, num_inference_steps=steps, timestep=torch.tensor(500))
        if not self.x0:
            return self.made.forward(cond[None], uncond[None]).pred[0]
        # There and back in double: near the end an estimate hardly says what its prediction was.
        latents, cond, uncond = latents.double(), cond.double(), uncond.double()
        x0 = [x0_of(kind, latents, one, a, b)[None] for one in (cond, uncond)]
        c = affine(kind, a, b)
        return ((self.made.forward(*x0).pred[0] - c.x0_x * latents) / c.x0_m).float()

    def of(self, step, number, steps):
        parts = (step.output_cond, step.output_uncond, step.latents)
        return self(*parts, step.kind, step.a, step.b, number, steps)


@pytest.mark.parametrize("guider", GUIDED)
@pytest.mark.parametrize(
    ("kind", "a", "b"),
    [("epsilon", 0.6, 0.8), ("v_prediction", 1.0, 3.0), ("sample", 0.8, 0.6), ("flow_prediction", 0.3, 0.7)],
)
def test_three_steps_are_mixed_as_by_diffusers(guider, kind, a, b):
    random = torch.Generator().manual_seed(3)
    made, other = mixer(guider), Reference(guider, kind == "flow_prediction", 4 * 8 * 8)
    for step in range(3):
        latents, cond, more = torch.randn(3, 4, 8, 8, generator=random)
        uncond = cond + 0.3 * more
        mine = made.mix(cond, uncond, G, At(latents, a, b, kind, step))
        assert close(mine, other(cond, uncond, latents, kind, a, b, step, 3)), step
        assert close(mixer(guider).mix(cond, uncond, 1.0, At(latents, a, b, kind, 9)), cond)


def tangential(cond, uncond):
    """As the paper writes it."""
    rows = torch.stack([cond, uncond]).flatten(1).double()
    first = torch.linalg.svd(rows, full_matrices=False).Vh[0]
    damped = ((rows[1] @ first) * first).reshape(cond.shape)
    return (damped + G * (cond - damped)).to(cond.dtype)


def test_tangential_damping_is_that_of_the_singular_vectors():
    random = torch.Generator().manual_seed(0)
    for scale in (1e-3, 0.5, 3.0):
        cond, more = torch.randn(2, 300, generator=random, dtype=torch.float64)
        uncond = scale * cond + more
        mine = mixer("TCFG").mix(cond, uncond, G, At(cond, 0.6, 0.8, "epsilon", 0))
        assert torch.allclose(mine, tangential(cond, uncond), rtol=1e-9, atol=1e-9)
        other = theirs.TangentialClassifierFreeGuidance(G).forward(cond[None].float(), uncond[None].float()).pred[0]
        assert torch.allclose(mine.float(), other, rtol=0, atol=1e-4 * float(mine.abs().max()))


def test_projected_guidance_never_lengthens_the_estimate_along_itself():
    """What is added lies across the estimate with the prompt (eta 0), and is no longer than it may be."""
    random = torch.Generator().manual_seed(1)
    latents, cond, uncond = torch.randn(3, 4, 8, 8, generator=random)
    mine = mixer("APG(norm=2)").mix(cond, uncond, G, At(latents, 0.6, 0.8, "epsilon", 0))
    with_prompt, guided = (x0_of("epsilon", latents, one, 0.6, 0.8) for one in (cond, mine))
    added = guided - with_prompt
    assert abs(float((added * with_prompt).sum())) <= 1e-4 * float(added.norm() * with_prompt.norm())
    # Of 256 latents, a sixteenth of the root of those that the number is meant of.
    assert float(added.norm()) == pytest.approx((G - 1) * float(_across(latents, cond, uncond, 2 / 16)), rel=1e-4)


def _across(latents, cond, uncond, longest):
    """How long a difference of x0, cut to a length, is across the estimate with the prompt."""
    x0, other = (x0_of("epsilon", latents, one, 0.6, 0.8).flatten() for one in (cond, uncond))
    change = (x0 - other) * longest / (x0 - other).norm()
    return (change - (change @ x0) / (x0 @ x0) * x0).norm()


@pytest.mark.parametrize("name", ["sd", "sd3", "zimage", "qwen"])
@pytest.mark.parametrize("guider", GUIDED)
def test_a_run_and_a_what_if_are_those_of_the_reference(name, guider):
    one, asked = model(name), {"prompt": "a red fox", "negative_prompt": "cat", "steps": 3, "guidance": G, "seed": 3}
    run = one.trace(**asked, guider=guider, **size(name))
    flow = name != "sd"
    other = Reference(guider, flow, run.final.numel())
    for i, step in enumerate(run):
        assert step.guider == dx.Settings(guider=guider).guider
        wanted = other.of(step, i, 3)
        assert close(step.output, wanted), i
        assert close(step.guided(G, guider).x0, x0_of(step.kind, step.latents, wanted, step.a, step.b))
    if name == "qwen":
        return  # its own mix cannot be taken apart
    # On the halves of a plain run: as if it had been guided so up to there.
    plain = one.trace(**asked, **size(name))
    other = Reference(guider, flow, run.final.numel())
    for i, step in enumerate(plain):
        assert close(step.guided(G, guider).noise, step.noise + _noise_of(step, other.of(step, i, 3) - step.output)), i


def _noise_of(step, change):
    return affine(step.kind, step.a, step.b).noise_m * change


def test_a_run_goes_where_its_guided_predictions_lead():
    """Rescaled, it is the run of diffusers' own pipeline, which has a word for that; and the others step as ever."""
    one = model("sd")
    asked = {"prompt": "a red fox", "steps": 4, "guidance": G, "seed": 3, "sampler": "DDIM"}
    mine = one.trace(**asked, guider="rescale", **size("sd"))
    rescaled = one.trace(**asked, guidance_rescale=0.7, **size("sd"))
    assert close(mine.final, rescaled.final)
    run = one.trace(**asked, guider="APG", **size("sd"))
    for step, after in pairwise(run):
        assert torch.allclose(after.latents, after.a * step.x0 + after.b * step.noise, atol=1e-4)


def test_what_a_guider_remembers_is_asked_of_the_run():
    plain = model("sd").trace(prompt="a red fox", steps=3, guidance=G, seed=3, **size("sd"))
    wanted = plain[2].guided(9.0, "APG").x0
    again = pickle.loads(pickle.dumps(plain))
    assert torch.equal(again[2].guided(9.0, "APG").x0, wanted)
    copied = plain.copy()
    assert torch.equal(copied[2].guided(9.0, {"APG": {}}).x0, wanted)
    assert not torch.equal(plain[2].guided(9.0, "APG(momentum=0)").x0, wanted)
    alone = pickle.loads(pickle.dumps(plain[2]))
    with pytest.raises(ValueError, match="guider APG goes by the steps before, and the run of this step is no more"):
        alone.guided(9.0, "APG")
    assert torch.equal(alone.guided(9.0, "TCFG").x0, plain[2].guided(9.0, "TCFG").x0)
    with pytest.raises(ValueError, match="did you mean 'APG'"):
        plain[0].guided(9.0, "APQ")
