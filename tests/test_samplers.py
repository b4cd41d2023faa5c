"""The menu: every entry builds, starts from the model's facts only, and costs what it says."""

import pytest
import torch

from diffexplore.samplers import SAMPLERS, build, suitable

REQUIRED = ("Euler", "Euler a", "Heun", "DDIM", "PLMS", "DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE Karras", "UniPC")

BASE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}


def test_the_menu_has_the_samplers_people_ask_for():
    assert set(REQUIRED) <= set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_entry_says_what_it_does_in_one_sentence(name):
    entry = SAMPLERS[name]
    assert entry.name == name
    assert 20 < len(entry.sentence) < 140
    assert entry.sentence.endswith(".")


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 10, 25])
def test_evaluations_are_what_the_scheduler_does(name, steps):
    scheduler = build(name, BASE)
    scheduler.set_timesteps(steps)
    assert len(scheduler.timesteps) == SAMPLERS[name].evaluations(steps)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_noise_schedule_is_the_models(name):
    scheduler = build(name, {**BASE, "beta_start": 0.001, "beta_end": 0.02, "beta_schedule": "linear"})
    expected = torch.cumprod(1 - torch.linspace(0.001, 0.02, 1000), 0)
    assert torch.allclose(scheduler.alphas_cumprod, expected, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_of_another_sampler_leaks_in(name):
    """diffusers' from_config keeps everything: Euler made from a Karras config would be Karras."""
    foreign = {**BASE, "use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++", "clip_sample": True,
               "solver_order": 3, "timestep_spacing": "trailing", "thresholding": True}  # fmt: skip
    assert dict(build(name, foreign).config) == dict(build(name, BASE).config)


def test_karras_spaces_the_noise_levels_by_the_seventh_root():
    scheduler = build("DPM++ 2M Karras", BASE)
    scheduler.set_timesteps(12)
    roots = scheduler.sigmas[:-1].double() ** (1 / 7)
    gaps = roots.diff()
    assert (gaps - gaps.mean()).abs().max() < 1e-4


def test_unknown_names_are_refused_with_the_near_match():
    with pytest.raises(ValueError, match=r"got 'Eular', did you mean 'Euler'\?"):
        build("Eular", BASE)


def test_a_missing_module_is_named(monkeypatch):
    monkeypatch.setattr("diffexplore.samplers.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="LMS needs scipy: pip install scipy"):
        build("LMS", BASE)
    assert suitable("LMS", "sd", BASE) == "it needs scipy, which is not installed"


def test_samplers_that_would_be_wrong_say_why():
    assert "flux" in suitable("Euler", "flux", BASE)
    assert "sample" in suitable("Euler a", "sd", {**BASE, "prediction_type": "sample"})
    assert suitable("Heun", "sd", {**BASE, "rescale_betas_zero_snr": True})
    assert suitable("Euler", "sd", BASE) == ""


def test_zero_snr_nets_start_at_the_last_timestep():
    scheduler = build("DDIM", {**BASE, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True})
    scheduler.set_timesteps(10)
    assert int(scheduler.timesteps[0]) == 999
