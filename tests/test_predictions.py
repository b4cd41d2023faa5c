"""The maths: every kind of output to x0 and noise and back, and guidance taken apart again."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffexplore.record import predictions as p

SHAPE = (4, 6, 5)


def pair(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=generator), torch.randn(SHAPE, generator=generator)


def levels(kind, share):
    """(a, b) of a sampler that keeps x_t as this kind wants it, `share` of the way to noise."""
    if kind.endswith("flow_prediction"):
        return 1 - share, share
    if kind.startswith("edm"):
        return 1.0, 80 * share
    return math.cos(share * math.pi / 2), math.sin(share * math.pi / 2)


def output(kind, x0, noise, a, b):
    """What a perfect network answers; written from the definitions in the papers, not from the code."""
    x = a * x0 + b * noise
    match kind:
        case "epsilon":
            return noise
        case "sample":
            return x0
        case "v_prediction":
            return a * noise - b * x0
        case "flow_prediction":
            return noise - x0
        case "reversed_flow_prediction":
            return x0 - noise
    data, s = 0.5, b
    skip, scale = data**2 / (s**2 + data**2), s * data / math.sqrt(s**2 + data**2)
    return (x0 - skip * x) / (scale if kind == "edm_epsilon" else -scale)


@pytest.mark.parametrize("kind", p.KINDS)
@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95])
def test_a_perfect_output_gives_back_x0_and_noise(kind, share):
    x0, noise = (t.double() for t in pair())
    a, b = levels(kind, share)
    x = a * x0 + b * noise
    out = output(kind, x0, noise, a, b)
    assert (p.x0_of(kind, x, out, a, b) - x0).abs().max() < 1e-9
    assert (p.noise_of(kind, x, out, a, b) - noise).abs().max() < 1e-9


@pytest.mark.parametrize("sigma", [0.03, 1.0, 14.6])
def test_v_is_the_same_whether_the_sampler_keeps_x_scaled_or_not(sigma):
    x0, noise = (t.double() for t in pair())
    a, b = 1 / math.sqrt(1 + sigma**2), sigma / math.sqrt(1 + sigma**2)
    v = output("v_prediction", x0, noise, a, b)
    exploding = x0 + sigma * noise
    assert (p.x0_of("v_prediction", exploding, v, 1.0, sigma) - x0).abs().max() < 1e-9


def test_x0_is_finite_at_pure_noise():
    _, noise = pair()
    assert p.x0_of("epsilon", noise, 0.99 * noise, 0.0, 1.0).isfinite().all()


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="got 'score'"):
        p.affine("score", 1, 1)


def test_rms_of_white_noise_is_one_and_of_large_values_exact():
    assert p.rms(torch.randn(100_000, generator=torch.Generator().manual_seed(0))) == pytest.approx(1, abs=0.01)
    assert p.rms(torch.full((4, 3), 1e30)) == pytest.approx(1e30)


@settings(deadline=None)
@given(turn=st.floats(1, 179), longer=st.floats(0.1, 10))
def test_two_predictions_in_their_plane(turn, longer):
    """One is the other turned by an angle and stretched, in a random plane of a large space."""
    first, second = (t.double() for t in pair())
    second -= (second * first).sum() / (first * first).sum() * first
    second *= first.norm() / second.norm()
    angle = math.radians(turn)
    found = p.plane(first, longer * (math.cos(angle) * first + math.sin(angle) * second))
    size = p.rms(first)
    assert found.angle == pytest.approx(turn, abs=1e-6)
    assert found.along == pytest.approx(size * (1 - longer * math.cos(angle)), abs=1e-6)
    assert found.across == pytest.approx(size * longer * math.sin(angle), rel=1e-6)
    assert (found.cond, found.uncond) == pytest.approx((size, size * longer), rel=1e-6)
    assert found.pull == pytest.approx(math.hypot(found.along, found.across), rel=1e-6)


def test_equal_predictions_do_not_pull():
    first, _ = pair()
    assert p.plane(first, first)[2:] == (0, 0, 0, 0)
    assert math.isnan(p.plane(torch.zeros_like(first), first).angle)


def close_pair(scale=0.05):
    """Two outputs as a network gives them: nearly the same noise, a little apart."""
    uncond, apart = pair(1)
    return uncond + scale * apart, uncond


@pytest.mark.parametrize("order", ["uncond first", "cond first"])
@settings(deadline=None)  # a busy machine proves nothing
@given(guidance=st.floats(1.5, 30))
def test_guidance_is_found_in_the_tensors(order, guidance):
    cond, uncond = close_pair()
    pieces = [uncond, cond] if order == "uncond first" else [cond, uncond]
    split = p.separate(p.guide(cond, uncond, guidance), pieces)
    assert split.reason == ""
    assert split.guidance == pytest.approx(guidance, rel=1e-3)
    assert torch.equal(split.cond, cond)
    assert torch.equal(split.uncond, uncond)


def test_a_negated_output_is_recognised():
    cond, uncond = close_pair()
    split = p.separate(-p.guide(cond, uncond, 5.0), [cond, uncond])
    assert torch.equal(split.cond, -cond)
    assert split.guidance == pytest.approx(5.0, rel=1e-3)


def test_one_output_means_guidance_is_off():
    out, _ = pair()
    split = p.separate(out, [out])
    assert (split.cond, split.uncond, split.guidance) == (None, None, None)
    assert "Guidance is off" in split.reason


def test_equal_halves_use_the_number_that_was_asked_for():
    out, _ = pair()
    split = p.separate(out, [out, out.clone()], guidance=7.0)
    assert split.guidance == 7.0
    assert split.reason == ""


def test_a_rescaled_mix_is_not_passed_off_as_guidance():
    cond, uncond = close_pair()
    mixed = p.guide(cond, uncond, 7.0)
    bent = mixed * (1 + 0.2 * torch.sin(mixed))
    split = p.separate(bent, [uncond, cond])
    assert split.cond is None
    assert "residual" in split.reason


def test_unseen_outputs_are_said():
    out, _ = pair()
    assert "not seen" in p.separate(out, []).reason


def test_built_in_guidance_is_told_from_none():
    out, _ = pair()
    assert "built in" in p.separate(out, [out], guidance=3.5).reason
    assert "Guidance is off" in p.separate(out, [out], guidance=1.0).reason


@pytest.mark.parametrize("strength", [0.5, 2.8])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_a_third_output_in_the_mix_is_said_and_not_taken_for_the_negative_prompts(strength, order):
    """Skip-layer guidance (SD 3): uncond + g (cond - uncond) + s (cond - skip)."""
    cond, uncond = close_pair()
    skip = cond + 0.05 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    pieces = [uncond, cond, skip]
    split = p.separate(p.guide(cond, uncond, 3.0) + strength * (cond - skip), [pieces[k] for k in order])
    assert (split.cond, split.uncond, split.guidance) == (None, None, None)
    assert "mixes 3 outputs" in split.reason


def test_a_third_output_that_is_not_in_the_mix_does_no_harm():
    cond, uncond = close_pair()
    skip = cond + 0.05 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    split = p.separate(p.guide(cond, uncond, 3.0), [uncond, cond, skip])
    assert torch.equal(split.cond, cond)
    assert torch.equal(split.uncond, uncond)
    assert split.guidance == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_mix_scaled_as_a_whole_still_tells_its_guidance(sign):
    """guidance_rescale (SD), norm clamps (Z-Image): one factor per picture."""
    cond, uncond = close_pair()
    split = p.separate(sign * 0.93 * p.guide(cond, uncond, 7.5), [uncond, cond])
    assert split.guidance == pytest.approx(7.5, rel=1e-3)
    assert torch.equal(split.cond, sign * cond)


def test_a_difference_alone_is_no_guided_prediction():
    cond, uncond = close_pair()
    assert p.separate(cond - uncond, [uncond, cond]).cond is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("apart", [0.02, 0.5])
@settings(deadline=None)  # a busy machine proves nothing
@given(guidance=st.floats(1.5, 15))
def test_guidance_is_found_in_half_precision_too(dtype, apart, guidance):
    cond, uncond = (half.to(dtype) for half in close_pair(apart))
    split = p.separate(p.guide(cond, uncond, guidance), [uncond, cond])
    assert split.guidance == pytest.approx(guidance, rel=2e-2)
    assert torch.equal(split.cond, cond)
