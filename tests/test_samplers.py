"""The menu: every entry builds, starts from the model's facts only, costs what it says, and is offered where it
is right.
"""

import inspect
import math

import pytest
import torch

from diffexplore.samplers import DIFFUSION, FLOW, SAMPLERS, build, native, suitable

REQUIRED = (
    *("DDPM", "DDIM", "PLMS", "PNDM", "Euler", "Euler a", "Heun", "LMS", "DPM2", "DPM2 a", "DPM++ 2M", "DPM++ 2S"),
    *("DPM++ 2M SDE", "DPM++ 3M SDE", "DPM++ SDE", "UniPC", "DEIS", "SA-Solver", "LCM", "TCD"),
    *("DPM++ 2M Karras", "DPM++ 2M SDE Karras", "Flow Euler", "Flow Heun", "DPM++ 2M flow", "UniPC flow"),
)
FIRST = (
    *("DPM++ 2M Karras", "DPM++ 2M", "DPM++ 2M SDE Karras", "DPM++ 3M SDE Karras", "UniPC", "Euler", "Euler a"),
    *("Heun", "DPM2", "DPM2 a", "LMS", "DEIS", "DDIM", "DDPM", "PLMS"),
)

BASE = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "set_alpha_to_one": False,
}
V_ZERO = {**BASE, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
COSINE = {**BASE, "_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"}
SHIFTED = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
DYNAMIC = {**SHIFTED, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256,
           "max_image_seq_len": 4096, "time_shift_type": "exponential"}  # fmt: skip
STRETCHED = {**DYNAMIC, "shift": 1.0, "shift_terminal": 0.02}
SANA = {"_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 1000, "flow_shift": 3.0, "shift": 7.0,
        "use_flow_sigmas": True, "prediction_type": "flow_prediction"}  # fmt: skip
EDM = {"_class_name": "EDMEulerScheduler", "sigma_min": 0.004, "sigma_max": 70.0, "sigma_data": 0.5, "rho": 6.0,
       "num_train_timesteps": 1000, "prediction_type": "v_prediction", "sigma_schedule": "karras"}  # fmt: skip
BASES = {
    "diffusion": BASE,
    "lcm": {**BASE, "_class_name": "LCMScheduler", "original_inference_steps": 40, "timestep_scaling": 9.0},
    "tcd": {**BASE, "_class_name": "TCDScheduler", "original_inference_steps": 40, "timestep_scaling": 9.0},
    "edm": EDM,
    "flow": SHIFTED,
}
FOREIGN = {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++", "clip_sample": True, "solver_order": 3,
           "timestep_spacing": "trailing", "thresholding": True, "lambda_min_clipped": -2.0, "euler_at_final": True,
           "noise_sampler_seed": 9, "variance_type": "learned", "use_lu_lambdas": True}  # fmt: skip
STEPS = (1, 2, 3, 4, 10, 25)


def base_of(name):
    return BASES[SAMPLERS[name].net]


def of(*nets):
    return [name for name, entry in SAMPLERS.items() if entry.net in nets]


def scheduled(name, steps, base=None):
    scheduler = build(name, base_of(name) if base is None else base)
    scheduler.set_timesteps(steps)
    return scheduler


def test_the_menu_has_the_samplers_people_ask_for():
    assert set(REQUIRED) <= set(SAMPLERS)
    assert tuple(SAMPLERS)[: len(FIRST)] == FIRST


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_entry_says_what_it_does_in_one_sentence(name):
    entry = SAMPLERS[name]
    assert entry.name == name
    assert 20 < len(entry.sentence) < 140
    assert entry.sentence.endswith(".")
    assert sum(entry.sentence == other.sentence for other in SAMPLERS.values()) == 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_entry_asks_nothing_that_its_class_does_not_know(name):
    """diffusers keeps a key it does not know and says nothing: an Euler a "with Karras" would be plain Euler a."""
    known = inspect.signature(type(build(name, base_of(name))).__init__).parameters
    assert set(SAMPLERS[name].config) <= set(known)
    if SAMPLERS[name].net != "flow":
        assert SAMPLERS[name].zero_snr == ("rescale_betas_zero_snr" in known)


@pytest.mark.parametrize("name", SAMPLERS)
def test_evaluations_are_what_the_scheduler_does(name):
    entry = SAMPLERS[name]
    counts = [steps for steps in STEPS if not entry.refusal(steps, base_of(name))]
    assert {10, 25} <= set(counts)
    for steps in counts:
        assert len(scheduled(name, steps).timesteps) == entry.evaluations(steps)


@pytest.mark.parametrize("name", of("diffusion", "lcm", "tcd"))
def test_the_noise_schedule_is_the_models(name):
    scheduler = build(name, {**base_of(name), "beta_start": 0.001, "beta_end": 0.02, "beta_schedule": "linear"})
    expected = torch.cumprod(1 - torch.linspace(0.001, 0.02, 1000), 0)
    assert torch.allclose(scheduler.alphas_cumprod, expected, atol=1e-6)


@pytest.mark.parametrize("name", of("edm"))
def test_the_noise_levels_of_an_edm_net_are_its_own(name):
    roots = scheduled(name, 9).sigmas[:-1].double() ** (1 / 6)
    assert roots[0] == pytest.approx(70 ** (1 / 6), rel=1e-6)
    assert roots[-1] == pytest.approx(0.004 ** (1 / 6), rel=1e-6)
    assert (roots.diff() - roots.diff().mean()).abs().max() < 1e-5


@pytest.mark.parametrize("name", of("lcm", "tcd"))
def test_a_distilled_nets_own_steps_are_kept(name):
    config = build(name, base_of(name)).config
    assert (config.original_inference_steps, config.timestep_scaling) == (40, 9.0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_of_another_sampler_leaks_in(name):
    """diffusers' from_config keeps everything: Euler made from a Karras config would be Karras."""
    assert dict(build(name, {**base_of(name), **FOREIGN}).config) == dict(build(name, base_of(name)).config)


@pytest.mark.parametrize("name", SAMPLERS)
def test_building_warns_of_nothing(name, caplog):
    """diffusers logs a warning for what a class does not know, such as the resolutions that only pipelines read."""
    config = build(name, {**base_of(name), **DYNAMIC} if SAMPLERS[name].net == "flow" else base_of(name)).config
    assert caplog.text == ""
    assert SAMPLERS[name].net != "flow" or config.max_image_seq_len == 4096


# Spacing

VARIANTS = [name for name in SAMPLERS if name.split()[-1] in ("Karras", "Exponential", "Beta", "Trailing")]


def levels(scheduler):
    """The noise levels a scheduler steps through, each once, noisiest first, without the final zero."""
    if not hasattr(scheduler, "sigmas"):
        share = scheduler.alphas_cumprod[scheduler.timesteps.long()].double()
        return ((1 - share) / share).sqrt()
    found = scheduler.sigmas.double().unique_consecutive()
    return found[found > 0]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_differs_from_the_plain_sampler(name):
    own, plain = levels(scheduled(name, 12)), levels(scheduled(name.rpartition(" ")[0], 12))
    assert len(own) == len(plain) or name.startswith("DPM2")
    count = min(len(own), len(plain))
    assert ((own[:count] - plain[:count]).abs() / plain[:count]).max() > 0.05


@pytest.mark.parametrize("name", [name for name in VARIANTS if not name.endswith("Trailing")])
def test_a_variant_spaces_the_noise_levels_as_it_says(name):
    found = levels(scheduled(name, 12))
    assert len(found) == 12
    match name.split()[-1]:
        case "Karras":  # Karras et al. 2022 (2206.00364), eq. 5, rho = 7
            places = found ** (1 / 7)
        case "Exponential":
            places = found.log()
        case "Beta":  # Lee et al. 2024 (2407.12173): quantiles of Beta(0.6, 0.6)
            from scipy.stats import beta

            share = (found - found[-1]) / (found[0] - found[-1])
            places = torch.from_numpy(beta(0.6, 0.6).cdf(share.numpy()))
    gaps = places.diff()
    assert (gaps / gaps.mean() - 1).abs().max() < 1e-3


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith("Trailing")])
def test_trailing_starts_at_the_last_timestep_and_skips_the_first(name):
    assert scheduled(name, 5).timesteps.tolist() == [999, 799, 599, 399, 199]


def test_zero_snr_nets_start_at_the_last_timestep():
    for name in ("DDIM", "Euler", "DPM++ 2M"):
        assert int(scheduled(name, 10, V_ZERO).timesteps[0]) == 999


# Steps


@pytest.mark.parametrize(
    ("name", "base"),
    [(name, base) for name in SAMPLERS for base in ("own", "zero snr") if base == "own" or SAMPLERS[name].zero_snr],
)
def test_bounds_of_steps_are_where_the_tables_end(name, base):
    entry = SAMPLERS[name]
    config = base_of(name) if base == "own" else {**base_of(name), **V_ZERO}
    for steps in (entry.least(config), entry.most(config)):
        scheduler = scheduled(name, steps, config)
        assert len(scheduler.timesteps) == entry.evaluations(steps)
        assert scheduler.timesteps.isfinite().all()
        if entry.net != "edm":
            assert scheduler.timesteps.min() >= 0
            assert scheduler.timesteps.max() <= (1000 if entry.net == "flow" else 999)
        # A single step has to do with the noise: at timestep 0 or 1 there is none left to remove.
        if steps == 1 and entry.net != "edm":
            assert scheduler.timesteps[0] > 900
        if entry.families >= DIFFUSION and hasattr(scheduler, "sigmas"):
            assert (scheduler.sigmas.diff()[:-1] < 0).all()
        assert entry.refusal(steps, config) == ""
    assert "takes at least" in entry.refusal(entry.least(config) - 1, config)
    assert "takes at most" in entry.refusal(entry.most(config) + 1, config)


def test_refusals_name_sampler_and_numbers():
    assert SAMPLERS["PNDM"].refusal(3, BASE) == "PNDM takes at least 4 steps with this model, got 3"
    assert SAMPLERS["DDIM"].refusal(1000, BASE) == "DDIM takes at most 999 steps with this model, got 1000"
    assert SAMPLERS["LCM"].refusal(41, BASES["lcm"]) == "LCM takes at most 40 steps with this model, got 41"
    assert SAMPLERS["Flow Euler"].refusal(1, STRETCHED).endswith("at least 2 steps with this model, got 1")


@pytest.mark.parametrize(("name", "base"), [("DDIM Trailing", BASE), ("Euler", V_ZERO)])
def test_trailing_refuses_just_the_counts_that_diffusers_rounds_past_the_end(name, base):
    entry, scheduler = SAMPLERS[name], build(name, base)
    slips = 0
    for steps in range(1, 131):
        scheduler.set_timesteps(steps)
        slipped = len(scheduler.timesteps) != steps
        slips += slipped
        assert bool(entry.refusal(steps, base)) == slipped
    assert slips > 0
    assert entry.refusal(122, base).endswith("into 122 steps without a rounding slip; 120 works")


# Which pipelines


def offered(family, base):
    return [name for name in SAMPLERS if not suitable(name, family, base)]


@pytest.mark.parametrize("family", ["sd", "sdxl", "pixart"])
def test_diffusion_pipelines_get_all_that_is_made_for_diffusion(family):
    assert offered(family, BASE) == of("diffusion")
    assert offered(family, BASES["lcm"]) == of("diffusion", "lcm")
    assert offered(family, BASES["tcd"]) == of("diffusion", "tcd")
    assert offered(family, EDM) == ["EDM Euler", "EDM DPM++ 2M"]


def test_kandinsky_gets_only_what_needs_no_scaled_input():
    found = offered("kandinsky3", COSINE)
    assert {"DDPM", "DDIM", "PLMS", "PNDM", "DPM++ 2M", "DPM++ 2S", "UniPC", "DEIS", "SA-Solver"} <= set(found)
    for name in found:
        scheduler, x = scheduled(name, 4, COSINE), torch.ones(1, 4, 6, 5)
        scaled = getattr(scheduler, "scale_model_input", lambda x, t: x)(x, scheduler.timesteps[0])
        assert torch.equal(scaled, x)
        assert float(scheduler.init_noise_sigma) == 1.0
        assert "sigmas" not in vars(scheduler) or scheduler.sigmas.max() < 30_000
    assert "scaled" in suitable("Euler", "kandinsky3", COSINE)
    assert "cosine" in suitable("DPM++ 2M Karras", "kandinsky3", COSINE)


@pytest.mark.parametrize("name", ["DPM++ 2M", "DPM++ 2M SDE", "DPM++ 3M SDE", "DPM++ 2S", "SA-Solver"])
def test_cosine_schedules_are_clipped_before_they_run_away(name):
    assert scheduled(name, 10, COSINE).sigmas.max() < 200
    assert scheduled(name, SAMPLERS[name].most(COSINE), COSINE).sigmas.diff()[:-1].max() < 0


def test_the_lcm_pipeline_gets_lcm():
    assert offered("lcm", BASES["lcm"]) == ["LCM"]


@pytest.mark.parametrize(
    ("family", "base", "names"),
    [
        ("sd3", SHIFTED, ["Flow Euler", "Flow Heun", "DPM++ 2M flow", "UniPC flow"]),
        ("sana", SANA, ["Flow Euler", "Flow Heun", "DPM++ 2M flow", "UniPC flow"]),
        ("sd3", DYNAMIC, ["Flow Euler", "DPM++ 2M flow", "UniPC flow"]),
        ("flux", DYNAMIC, ["Flow Euler", "DPM++ 2M flow", "UniPC flow"]),
        ("flux", {**DYNAMIC, "time_shift_type": "linear"}, ["Flow Euler", "UniPC flow"]),
        ("qwen", STRETCHED, ["Flow Euler", "UniPC flow"]),
        ("sd3", STRETCHED, ["Flow Euler", "UniPC flow"]),
        ("zimage", SHIFTED, ["Flow Euler"]),
        ("flux", {**DYNAMIC, "invert_sigmas": True}, []),
        ("flux", BASE, []),
    ],
)
def test_flow_pipelines_get_what_can_step_as_their_net_needs(family, base, names):
    assert offered(family, base) == names


@pytest.mark.parametrize(
    ("name", "family", "base", "word"),
    [
        ("Euler", "flux", BASE, "flux"),
        ("Euler", "sd3", SHIFTED, "flow matching"),
        ("Euler", "sd", {**BASE, "prediction_type": "flow_prediction"}, "flow matching"),
        ("Flow Euler", "sd", BASE, "flow matching"),
        ("Flow Euler", "sd3", BASE, "does not tell"),
        ("UniPC flow", "zimage", SHIFTED, "does not take"),
        ("Flow Heun", "sd3", DYNAMIC, "size of the picture"),
        ("DPM++ 2M flow", "sd3", STRETCHED, "shift_terminal"),
        ("Euler a", "sd", {**BASE, "prediction_type": "sample"}, "'sample'"),
        ("Heun", "sd", V_ZERO, "zero terminal SNR"),
        ("Euler Trailing", "sd", V_ZERO, "Euler already steps that way"),
        ("LCM", "sd", BASE, "distilled for LCM"),
        ("TCD", "sdxl", BASES["lcm"], "distilled for TCD"),
        ("Euler", "lcm", BASES["lcm"], "only LCM"),
        ("Euler", "sdxl", EDM, "EDM"),
        ("EDM Euler", "sdxl", BASE, "EDM"),
        ("EDM Euler", "sdxl", {**EDM, "sigma_data": 1.0}, "standard deviation 0.5"),
        ("Euler", "cascade", BASE, "cascade"),
    ],
)
def test_samplers_that_would_be_wrong_say_why(name, family, base, word):
    reason = suitable(name, family, base)
    assert word in reason
    assert len(reason) < 120
    assert not reason.endswith(".")


def test_every_sampler_is_right_somewhere():
    families = {"diffusion": "sd", "lcm": "lcm", "tcd": "sd", "edm": "sdxl", "flow": "sd3"}
    for name, entry in SAMPLERS.items():
        assert suitable(name, families[entry.net], base_of(name)) == ""
        assert entry.families <= DIFFUSION | FLOW | {"lcm"}


@pytest.mark.parametrize(
    ("name", "family", "base"),
    [
        ("DDIM", "sd", {**BASE, "timestep_spacing": "leading"}),
        ("PLMS", "sd", {**BASE, "_class_name": "PNDMScheduler", "skip_prk_steps": True}),
        ("Euler", "sdxl", {**BASE, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}),
        ("Euler Trailing", "sd", {**BASE, "_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}),
        ("LCM", "lcm", BASES["lcm"]),
        ("DPM++ 2M flow", "sana", SANA),
        ("Flow Euler", "flux", DYNAMIC),
        ("EDM Euler", "sdxl", EDM),
        ("DPM++ 2M SDE Karras", "sd", {**BASE, "_class_name": "DPMSolverMultistepScheduler", "solver_order": 2,
                                       "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
        (None, "sd", {**BASE, "_class_name": "IPNDMScheduler"}),
        (None, "sd", {**BASE, "_class_name": "DPMSolverMultistepScheduler", "solver_order": 1}),
    ],
)  # fmt: skip
def test_the_sampler_a_pipeline_came_with_is_recognised(name, family, base):
    assert native(family, base) == name


# The shift of flow nets


def pushed(levels, shift):
    """Esser et al. 2024 (2403.03206), eq. 23."""
    return shift * levels / (1 + (shift - 1) * levels)


@pytest.mark.parametrize("base", [SHIFTED, SANA], ids=["shift", "flow_shift"])
@pytest.mark.parametrize("name", of("flow"))
def test_the_shift_of_a_flow_net_is_kept_whatever_it_is_called(name, base):
    even = torch.linspace(1, 0.001, 5, dtype=torch.float64)
    match name:
        case "UniPC flow" | "DPM++ 2M flow":  # these end before the level 0, diffusers' FlowMatch ones at 0.001
            even = (torch.linspace(1, 0.001, 6) if name == "UniPC flow" else torch.linspace(0.999, 0, 6))[:-1].double()
        case _:  # ... which they shift once when they are made, and again with the others
            even = torch.linspace(1, float(pushed(torch.tensor(0.001), 3.0)), 5, dtype=torch.float64)
    found = levels(scheduled(name, 5, base))
    assert (found - pushed(even, 3.0)).abs().max() < 2e-6


def mu_of(config, length):
    """What the flow pipelines compute from the size of the picture (calculate_shift)."""
    short, long = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    slope = (config.get("max_shift", 1.15) - config.get("base_shift", 0.5)) / (long - short)
    return config.get("base_shift", 0.5) + slope * (length - short)


@pytest.mark.parametrize(("base", "shift"), [(SHIFTED, 3.0), (DYNAMIC, math.exp(0.5 + 0.65 * 768 / 3840))])
@pytest.mark.parametrize("name", ["Flow Euler", "DPM++ 2M flow", "UniPC flow"])
def test_a_shift_by_the_size_of_the_picture_is_the_pipelines(name, base, shift):
    """Flux passes it to every scheduler, also for a net with a shift of its own."""
    scheduler = build(name, base)
    own = {"sigmas": [1.0, 0.75, 0.5, 0.25]} if name == "Flow Euler" else {"num_inference_steps": 4}
    even = {"DPM++ 2M flow": torch.linspace(0.999, 0, 5)[:-1], "UniPC flow": torch.linspace(1, 0.001, 5)[:-1]}
    scheduler.set_timesteps(**own, mu=mu_of(scheduler.config, 1024))
    expected = pushed(even.get(name, torch.tensor([1.0, 0.75, 0.5, 0.25])).double(), shift)
    assert (levels(scheduler) - expected).abs().max() < 2e-6


# Seeds, names, modules


def noise_of(seed, pictures):
    scheduler = build("DPM++ SDE", BASE, seed=seed)
    scheduler.set_timesteps(3)
    zero = torch.zeros(pictures, 4, 6, 5)
    return scheduler.step(zero, scheduler.timesteps[0], zero).prev_sample


def test_the_brownian_path_comes_from_the_seed_alone():
    before = torch.get_rng_state()
    assert torch.equal(noise_of(3, 1), noise_of(3, 1))
    assert not torch.equal(noise_of(3, 1), noise_of(4, 1))
    both = noise_of([3, 4], 2)
    for picture, seed in zip(both, (3, 4), strict=True):
        assert torch.allclose(picture, noise_of(seed, 1)[0], rtol=1e-5)
    assert torch.equal(torch.get_rng_state(), before)


def test_unknown_names_are_refused_with_the_near_match():
    with pytest.raises(ValueError, match=r"got 'Eular', did you mean 'Euler'\?"):
        build("Eular", BASE)


def test_a_missing_module_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="LMS needs scipy: pip install scipy"):
        build("LMS", BASE)
    assert suitable("LMS", "sd", BASE) == "it needs scipy, which is not installed"


# What is offered draws numbers

SCHEDULES = {
    "scaled": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "linear": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_offered_never_draws_nan(schedule, zero_snr):
    """Every sampler, at every few steps, with a net that knows the noise."""
    config = {
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": zero_snr,
        **SCHEDULES[schedule],
    }
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 4, 4, 4, generator=generator)
    ran = 0
    for name, entry in SAMPLERS.items():
        if suitable(name, "sd", config):
            continue
        for steps in range(1, 13):
            if entry.refusal(steps, config):
                continue
            scheduler = build(name, config, seed=1)
            scheduler.set_timesteps(steps)
            x = start * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                seen = scheduler.scale_model_input(x, t)
                takes = "generator" in inspect.signature(scheduler.step).parameters
                x = scheduler.step(seen * 0.9, t, x, **({"generator": generator} if takes else {})).prev_sample
            assert torch.isfinite(x).all(), (name, steps)
            ran += 1
    assert ran > (0 if zero_snr else 200)


def test_why_a_sampler_is_refused_where_it_would_draw_nan_is_said():
    blind = {"prediction_type": "epsilon", "rescale_betas_zero_snr": True, "num_train_timesteps": 1000}
    assert "pure noise" in suitable("Euler a", "sd", blind)
    assert not suitable("DDIM", "sd", blind)
    cosine = {"num_train_timesteps": 1000, **SCHEDULES["cosine"]}
    assert "cannot jump as far between noise levels as 4 steps" in SAMPLERS["Euler a"].refusal(4, cosine)
    assert SAMPLERS["Euler"].refusal(4, cosine) == ""
