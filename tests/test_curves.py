"""curves.py: every curve against its formula written out, and the spectrum against fields whose spectrum is known."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import diffexplore as dx
from diffexplore.looks.curves import CURVES, SPECTRA, adherence_of, curve, parting, spectrum
from diffexplore.record.numbers import COMPUTED
from diffexplore.settings import Settings
from diffexplore.trace import Step, Trace

NAMES = [
    *("sigma", "timestep", "alpha", "snr", "log_snr", "noise_share", "seconds"),
    *("latents_norm", "noise_norm", "x0_norm", "guidance_norm", "change", "distance", "guidance"),
    *("cond_norm", "guidance_angle", "guidance_along", "guidance_across"),
    *("cond_norm_x0", "guidance_norm_x0", "guidance_angle_x0", "guidance_along_x0", "guidance_across_x0"),
]


NAMES_OF_ARROWS = ("cond_norm", "guidance_along", "guidance_across")


def step(index: int = 0, a: float = 0.8, b: float = 0.6, halves: bool = True, **values) -> Step:
    noise = torch.Generator().manual_seed(index)
    tensors = {name: torch.randn(4, 5, 7, generator=noise) for name in ("latents", "output", "cond", "uncond")}
    if not halves:
        del tensors["cond"], tensors["uncond"]
    facts = {"index": index, "timestep": 900.0 - index, "seconds": 0.1 * index, "kind": "epsilon"}
    return Step(**{**facts, "a": a, "b": b, **tensors, **values})


def flat(tensor: torch.Tensor | None) -> list[float]:
    assert tensor is not None
    return [float(value) for value in tensor.flatten()]


def rms(values: list[float]) -> float:
    return math.sqrt(math.fsum(value**2 for value in values) / len(values))


def test_every_curve_has_a_sentence_and_a_unit() -> None:
    # Who watches a run declares more, once its module has been opened.
    assert [name for name in CURVES if name in COMPUTED or name == "adherence"] == [*NAMES, "adherence"]
    assert all(sentence.endswith(".") and unit for sentence, unit in CURVES.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_curve_of_a_real_run(tiny_trace: Trace, name: str, tmp_path: Path) -> None:
    values = curve(tiny_trace, name)
    assert values.shape == (4,)
    assert values.dtype == np.float64
    assert np.isfinite(values[1:]).all()
    tiny_trace.save(tmp_path / "run.safetensors")
    assert np.array_equal(curve(Trace.load(tmp_path / "run.safetensors"), name), values, equal_nan=True)


def test_adherence_is_the_judges_word_on_every_estimate_and_rises_over_a_run() -> None:
    prompts = ["a blue dog in a forest at night", "a pink turtle in a city at golden hour", "an owl by the sea at dawn"]
    traces = dx.load().trace_many([dx.Settings(prompt=prompt, steps=8, seed=7) for prompt in prompts])
    values = np.stack([curve(trace, "adherence") for trace in traces])
    for trace, row in zip(traces, values, strict=True):
        assert row.tolist() == [dx.adherence(trace.view("x0", i), trace.settings.prompt) for i in range(8)]
    assert values[:, -1].mean() > values[:, 0].mean() + 0.15, "the first estimate is a blur"


def test_there_is_no_adherence_where_nothing_can_be_judged(tiny_trace: Trace, tmp_path: Path) -> None:
    assert np.isnan(curve(tiny_trace, "adherence")).all(), "the judge knows the pocket model's world alone"
    model = dx.load()
    unnamed = model.trace(prompt="something nice", steps=2)
    assert np.isnan(curve(unnamed, "adherence")).all()
    dragon = model.trace(prompt="a dragon in a meadow", steps=2)
    assert np.isnan(curve(dragon, "adherence")).all(), "a meadow says nothing of a dragon"
    assert math.isnan(adherence_of(dragon))
    trace = model.trace(prompt="a fox", steps=2)
    trace.save(tmp_path / "run.safetensors")
    kept = curve(Trace.load(tmp_path / "run.safetensors"), "adherence")
    assert kept.tolist() == curve(trace, "adherence").tolist()
    trace.save(tmp_path / "run.safetensors", pictures=False)
    assert np.isnan(curve(Trace.load(tmp_path / "run.safetensors"), "adherence")).all(), "it has no pictures"


def test_the_schedule() -> None:
    levels = [(0.1, 0.9), (0.6, 0.8), (1.0, 0.0)]
    trace = Trace(Settings(), [step(i, a, b) for i, (a, b) in enumerate(levels)])
    assert curve(trace, "alpha").tolist() == [0.1, 0.6, 1.0]
    assert curve(trace, "sigma").tolist() == pytest.approx([9.0, 4 / 3, 0.0])
    assert curve(trace, "snr").tolist() == pytest.approx([1 / 81, 9 / 16, math.inf])
    assert curve(trace, "log_snr").tolist() == pytest.approx([-math.log(81), math.log(9 / 16), math.inf])
    assert curve(trace, "timestep").tolist() == [900.0, 899.0, 898.0]
    assert curve(trace, "seconds").tolist() == [0.0, 0.1, 0.2]


def test_pure_noise_has_a_finite_sigma_and_no_signal() -> None:
    trace = Trace(Settings(), [step(a=0.0, b=1.0)])
    assert curve(trace, "sigma")[0] == 4096
    assert curve(trace, "snr")[0] == 0
    assert curve(trace, "log_snr")[0] == -math.inf


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(1e-3, 1e3))
def test_the_ratio_does_not_depend_on_how_x_t_is_scaled(a: float, b: float, scale: float) -> None:
    plain, scaled = Trace(Settings(), [step(0, a, b)]), Trace(Settings(), [step(0, a * scale, b * scale)])
    assert curve(scaled, "snr") == pytest.approx(curve(plain, "snr"))
    assert curve(scaled, "log_snr") == pytest.approx(np.log(curve(plain, "snr")), abs=1e-9)


def test_sizes_are_root_mean_squares() -> None:
    trace = Trace(Settings(), [step(0), step(1)], final=torch.randn(4, 5, 7))
    for name, attribute in (("latents_norm", "latents"), ("noise_norm", "noise"), ("x0_norm", "x0")):
        assert curve(trace, name).tolist() == pytest.approx([rms(flat(getattr(s, attribute))) for s in trace])
    pull = [rms(flat(s.noise_cond - s.noise_uncond)) for s in trace]
    assert curve(trace, "guidance_norm").tolist() == pytest.approx(pull)
    assert math.isnan(curve(trace, "change")[0])
    assert curve(trace, "change")[1] == pytest.approx(rms(flat(trace[1].x0 - trace[0].x0)))
    assert curve(trace, "distance").tolist() == pytest.approx([rms(flat(s.x0 - trace.final)) for s in trace])


def test_guidance_is_taken_apart_in_noise_and_in_x0(tiny_trace: Trace) -> None:
    trace = Trace(Settings(), [step(0, guidance=5.0), step(1, a=0.3, b=0.9, guidance=5.0), step(2, halves=False)])
    for end, space in (("", "noise"), ("_x0", "x0")):
        found = {name: curve(trace, name + end) for name in NAMES if name.startswith("guidance_") and "x0" not in name}
        size = curve(trace, f"cond_norm{end}")
        for i in (0, 1):
            cond, uncond = (getattr(trace[i], f"{space}_{half}").flatten().double() for half in ("cond", "uncond"))
            cosine = float(cond @ uncond / cond.norm() / uncond.norm())
            assert math.cos(math.radians(found["guidance_angle"][i])) == pytest.approx(cosine, abs=1e-6)
            assert size[i] == pytest.approx(rms(cond.tolist()))
            assert found["guidance_norm"][i] == pytest.approx(rms((cond - uncond).tolist()))
            along = float((cond - uncond) @ cond / cond.norm()) / math.sqrt(cond.numel())
            assert found["guidance_along"][i] == pytest.approx(along, abs=1e-9)
            assert math.hypot(along, found["guidance_across"][i]) == pytest.approx(found["guidance_norm"][i])
        assert all(math.isnan(values[2]) for values in (*found.values(), size)), "it has no halves"
    assert curve(trace, "noise_share").tolist() == pytest.approx([0.36, 0.9, 0.36])
    # The guided prediction lies where the numbers say.
    g, (cond, along, across) = 5.0, (curve(tiny_trace, f"{name}_x0") for name in NAMES_OF_ARROWS)
    assert curve(tiny_trace, "guidance").tolist() == pytest.approx([g] * 4, rel=1e-3)
    guided = np.hypot(cond + (g - 1) * along, (g - 1) * across)
    assert curve(tiny_trace, "x0_norm").tolist() == pytest.approx(guided.tolist(), rel=1e-3)


def test_a_run_settles_on_its_final_latents(tiny_trace: Trace) -> None:
    distance = curve(tiny_trace, "distance")
    assert distance[-1] < 0.1 * distance[0]


def test_a_run_cut_short_is_measured_against_its_last_estimate() -> None:
    trace = Trace(Settings(), [step(0), step(1)], cancelled=True)
    assert curve(trace, "distance").tolist() == pytest.approx([rms(flat(trace[1].x0 - trace[0].x0)), 0.0])


def test_no_split_is_no_number() -> None:
    trace = Trace(Settings(), [step(0), step(1, halves=False)])
    values = curve(trace, "guidance_norm")
    assert values[0] > 0
    assert math.isnan(values[1])


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_trace_has_empty_curves(name: str) -> None:
    assert curve(Trace(Settings()), name).shape == (0,)
    assert curve(Trace(Settings(), [step()]), name).shape == (1,)


@pytest.mark.parametrize(
    ("name", "hint"), [("sigmas", "'sigma'"), ("SNR", "'snr'"), ("guidance_size", "'guidance_"), ("", ""), (None, "")]
)
def test_an_unknown_curve_is_named(tiny_trace: Trace, name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="curve must be one of sigma, timestep") as error:
        curve(tiny_trace, name)
    assert repr(name) in str(error.value)
    assert hint in str(error.value).rsplit("got", 1)[1]


# The spectrum


def trace_with(latents: np.ndarray) -> Trace:
    tensor = torch.from_numpy(latents.astype(np.float32))
    return Trace(Settings(), [step(latents=tensor, output=torch.zeros_like(tensor), halves=False)])


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 20), (15, 9)])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_wave_has_its_power_at_its_own_scale(height: int, width: int, axis: int) -> None:
    shorter, length = min(height, width), (height, width)[axis]
    # The same fineness in pixels is a different number of cycles along the longer side.
    for waves in range(1, length // 2):
        where = np.arange(length) * 2 * np.pi * waves / length
        shape = (-1, 1) if axis == 0 else (1, -1)
        wave = np.broadcast_to(np.cos(where).reshape(shape), (2, height, width))
        power = spectrum(trace_with(wave), 0, "latents")
        assert len(power) == shorter // 2 + 1
        peak = math.floor(waves * shorter / length + 0.5)
        if peak < len(power):
            assert np.argmax(power) == peak
        assert np.delete(power, peak if peak < len(power) else []).max() < 1e-9


def test_noise_is_flat_and_has_power_one() -> None:
    power = spectrum(trace_with(np.random.default_rng(0).standard_normal((500, 32, 48))), 0, "latents")
    assert len(power) == 17
    assert power[1:] == pytest.approx(np.ones(16), abs=0.1)


def test_an_even_field_has_only_a_mean() -> None:
    power = spectrum(trace_with(np.full((3, 8, 10), 0.5)), 0, "latents")
    assert power[0] == pytest.approx(0.25 * 80)
    assert power[1:].max() < 1e-12


def test_the_rings_of_a_square_hold_all_the_power_but_the_corners() -> None:
    latents = np.random.default_rng(1).standard_normal((2, 9, 9))
    power = spectrum(trace_with(latents), 0, "latents")
    # On an odd square no frequency lies on the Nyquist line, so the rings are counted as plain lattice points.
    grid = np.hypot(*np.meshgrid(np.arange(-4, 5), np.arange(-4, 5)))
    counts = [np.sum((grid >= k - 0.5) & (grid < k + 0.5)) for k in range(5)]
    corners = np.abs(np.fft.fftshift(np.fft.fft2(latents, norm="ortho"), axes=(1, 2))) ** 2
    assert np.sum(power * counts) == pytest.approx(np.sum(latents**2) / 2 - np.sum(corners.mean(0)[grid >= 4.5]))


def test_every_tensor_has_a_spectrum(tiny_trace: Trace) -> None:
    for kind in SPECTRA:
        assert (spectrum(tiny_trace, -1, kind) > 0).all()
    assert np.array_equal(spectrum(tiny_trace, 1), spectrum(tiny_trace, 1, "x0"))


def test_spectra_that_are_refused(tiny_trace: Trace) -> None:
    with pytest.raises(ValueError, match="got 'latent', did you mean 'latents'"):
        spectrum(tiny_trace, 0, "latent")
    with pytest.raises(ValueError, match="step 0 has no noise_cond: Guidance is off"):
        spectrum(Trace(Settings(), [step(halves=False, split="Guidance is off.")]), 0, "noise_cond")
    with pytest.raises(IndexError):
        spectrum(tiny_trace, 4)


def test_runs_of_unequal_length_are_held_against_each_other_at_equal_noise(tiny_model: Any) -> None:
    short, long = (tiny_model.trace(prompt="a red fox", steps=n, seed=3, sampler="DDIM") for n in (5, 20))
    sigma, distance = parting(short, long)
    np.testing.assert_allclose(sigma, [step.sigma for step in short])
    assert parting(long, long)[1].max() == 0
    assert distance[-1] > 0
    index = int(np.abs(np.log([s.sigma for s in long]) - np.log(short[3].sigma)).argmin())
    expected = (short[3].x0 - long[index].x0).double().square().mean().sqrt()
    assert distance[3] == pytest.approx(float(expected), rel=1e-5)
    assert index > 8  # by place it would have been 3


@pytest.mark.parametrize("shape", [(4, 30), (4, 5, 6, 7), (2, 3, 4, 5, 6)])
def test_latents_of_any_layout_have_curves_spectra_and_a_parting(shape: tuple[int, ...]) -> None:
    def made(seed: int) -> Trace:
        noise = torch.Generator().manual_seed(seed)
        names = ("latents", "output", "cond", "uncond")
        steps = [
            step(i, b=0.9 - 0.2 * i, guidance=3.0, **{name: torch.randn(shape, generator=noise) for name in names})
            for i in range(3)
        ]
        return Trace(Settings(), steps, final=torch.zeros(shape))

    one, other = made(0), made(1)
    for name in NAMES:
        assert np.isfinite(curve(one, name)[1:]).all(), name
    for kind in SPECTRA:
        power = spectrum(one, 0, kind)
        assert len(power) == (min(shape[-2:]) if len(shape) > 2 else 30) // 2 + 1
        assert (power > 0).all()
    assert parting(one, other)[1].tolist() == pytest.approx(
        [rms(flat(a.x0 - b.x0)) for a, b in zip(one, other, strict=True)]
    )


def test_a_sound_has_the_power_of_a_wave_at_its_own_scale() -> None:
    wave = np.broadcast_to(np.cos(np.arange(40) * 2 * np.pi * 7 / 40), (3, 40))
    assert int(np.argmax(spectrum(trace_with(wave), 0, "latents"))) == 7


def test_the_planes_of_a_video_count_alike() -> None:
    noise = np.random.default_rng(0).standard_normal((2, 3, 8, 10))
    planes = [spectrum(trace_with(noise[:, k]), 0, "latents") for k in range(3)]
    assert spectrum(trace_with(noise), 0, "latents") == pytest.approx(np.mean(planes, axis=0))


def test_a_run_that_broke_has_numbers_that_are_no_numbers() -> None:
    nothing = dict.fromkeys(("latents", "output", "cond", "uncond"), torch.full((4, 5, 7), math.nan))
    info = {"world": "pocket", "model": "pocket"}
    decode = lambda latents: np.zeros((64, 64, 3), np.uint8)  # noqa: E731
    trace = Trace(Settings(prompt="a fox"), [step(0), step(1, **nothing)], decode=decode, info=info)
    for name in ("x0_norm", "noise_norm", "change", "adherence"):
        values = curve(trace, name)
        assert math.isnan(values[1]), name
    assert np.isfinite(curve(trace, "adherence")[0])
    assert np.isnan(spectrum(trace, 1)).all()


def test_a_model_that_is_only_called_pocket_is_not_judged() -> None:
    decode = lambda latents: np.zeros((64, 64, 3), np.uint8)  # noqa: E731
    named = Trace(Settings(prompt="a fox"), [step(0)], decode=decode, info={"model": "pocket"})
    assert np.isnan(curve(named, "adherence")).all()
    told = Trace(Settings(prompt="a fox"), [step(0)], decode=decode, info={"model": "mine", "world": "pocket"})
    assert np.isfinite(curve(told, "adherence")).all()


def test_runs_without_steps_do_not_part(tiny_trace: Any) -> None:
    with pytest.raises(ValueError, match="no"):
        parting(tiny_trace, type(tiny_trace)(tiny_trace.settings))
