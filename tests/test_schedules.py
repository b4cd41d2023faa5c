"""What a pipeline came with: drawn to the bit, first in the menu, remembered like the named one it equals."""

import copy
import functools
import inspect
import types

import diffusers
import numpy as np
import pytest
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from tiny_families import MAKERS, SIZES, family, size

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.pipelines.family import FAMILIES
from diffexplore.runs.threads import working

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
SD_DDIM = {**SD, "clip_sample": False, "set_alpha_to_one": False}
SD_V = {**SD_DDIM, "prediction_type": "v_prediction"}
XL = {**SD, "timestep_spacing": "leading"}
DPM = {**SD, "algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"}
LINEAR = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
FLOWING = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
DYNAMIC = {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}
QWEN = {"base_shift": 0.5, "max_shift": 0.9, "base_image_seq_len": 256, "max_image_seq_len": 8192, "shift": 1.0,
        "shift_terminal": 0.02, "time_shift_type": "exponential", "use_dynamic_shifting": True}  # fmt: skip

CAME_WITH = [
    ("sd", "PNDM", {**SD, "skip_prk_steps": True, "set_alpha_to_one": False}),  # SD 1.5
    ("sd", "PNDM", {**SD, "skip_prk_steps": True, "timestep_spacing": "trailing"}),
    ("sd", "DDIM", SD_V),  # SD 2.1
    ("sd", "DDIM", {**SD_DDIM, "timestep_spacing": "linspace"}),
    ("sd", "DDIM", {**SD_V, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("sd", "EulerDiscrete", {**SD, "timestep_spacing": "trailing"}),  # SD-Turbo
    ("sd", "UniPCMultistep", {**SD, "solver_order": 3}),
    ("sd", "UniPCMultistep", {**SD, "predict_x0": False}),
    ("sd", "DEISMultistep", SD),
    ("sd", "LMSDiscrete", XL),
    ("sd", "HeunDiscrete", {**XL, "use_karras_sigmas": True}),
    ("sd", "KDPM2Discrete", XL),
    ("sd", "KDPM2AncestralDiscrete", {**SD, "timestep_spacing": "trailing"}),
    ("sd", "DDPM", {**SD, "clip_sample": False, "variance_type": "fixed_large"}),
    ("sd", "DDPM", {**SD, "clip_sample": False, "timestep_spacing": "trailing"}),
    ("sd", "IPNDM", {}),
    ("sd", "LCM", {**SD, "original_inference_steps": 50, "clip_sample": False}),  # an LCM-LoRA
    ("sd", "TCD", {**SD, "original_inference_steps": 50, "clip_sample": False}),
    ("sd", "SASolver", SD),
    ("sd", "DPMSolverMultistep", {**DPM, "euler_at_final": True}),
    ("sd", "DPMSolverMultistep", {**DPM, "use_karras_sigmas": True, "timestep_spacing": "leading"}),
    ("sd", "DPMSolverSinglestep", {**LINEAR, "solver_order": 2, "use_exponential_sigmas": True}),
    ("sdxl", "EulerDiscrete", XL),  # SDXL base 1.0
    ("sdxl", "EulerDiscrete", {**XL, "use_karras_sigmas": True}),
    ("sdxl", "EulerDiscrete", {**SD, "use_exponential_sigmas": True}),
    ("sdxl", "EulerAncestralDiscrete", {**SD, "timestep_spacing": "trailing"}),  # SDXL-Turbo
    ("sdxl", "EulerAncestralDiscrete", XL),
    ("sdxl", "DPMSolverMultistep", {**DPM, "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("sdxl", "EDMDPMSolverMultistep", {"sigma_max": 80.0, "sigma_min": 0.002, "solver_order": 2}),  # Playground 2.5
    ("sdxl", "EDMEuler", {"sigma_max": 80.0, "sigma_min": 0.002}),
    ("sdxl", "DPMSolverSDE", SD),
    ("pixart", "DPMSolverMultistep", {**LINEAR, "algorithm_type": "dpmsolver++", "solver_order": 2}),  # PixArt-Sigma
    ("kandinsky3", "DDPM", {"beta_schedule": "squaredcos_cap_v2", "clip_sample": True}),  # Kandinsky 3
    ("lcm", "LCM", {**SD, "original_inference_steps": 50, "clip_sample": False}),  # LCM Dreamshaper
    ("sd3", "FlowMatchEulerDiscrete", {"shift": 3.0}),  # SD 3
    ("sd3", "FlowMatchEulerDiscrete", {"shift": 3.0, "use_karras_sigmas": True}),
    ("sd3", "FlowMatchEulerDiscrete", {"shift": 3.0, "use_beta_sigmas": True}),
    ("sd3", "FlowMatchEulerDiscrete", {"shift": 3.0, "use_exponential_sigmas": True}),
    ("sd3", "FlowMatchEulerDiscrete", {"shift": 3.0, "stochastic_sampling": True}),
    ("sd3", "FlowMatchHeunDiscrete", {"shift": 3.0}),
    ("sd3", "FlowMatchLCM", {"shift": 3.0}),
    ("sd3", "UniPCMultistep", {**FLOWING, "flow_shift": 3.0}),
    ("flux", "FlowMatchEulerDiscrete", DYNAMIC),  # Flux dev
    ("flux", "FlowMatchEulerDiscrete", {"shift": 1.0}),  # Flux schnell
    ("flux", "FlowMatchLCM", {"shift": 1.0}),
    ("sana", "DPMSolverMultistep", {**FLOWING, "flow_shift": 3.0, "algorithm_type": "dpmsolver++", "solver_order": 2}),
    ("zimage", "FlowMatchEulerDiscrete", {"shift": 3.0}),  # Z-Image-Turbo
    ("qwen", "FlowMatchEulerDiscrete", QWEN),  # Qwen-Image
]
"""What released checkpoints, and their users, put beside the networks: family, class, config."""
IDS = [f"{name}-{cls}-{'-'.join(map(str, config.values()))[-60:]}" for name, cls, config in CAME_WITH]
ASKED = {"prompt": "a red fox", "negative_prompt": "blurry", "steps": 4, "guidance": 4.0, "seed": 3}


def with_scheduler(name, cls, config):
    """A pipeline of its own around the networks of a family."""
    pipeline = copy.copy(family(name))
    pipeline.scheduler = getattr(diffusers, f"{cls}Scheduler")(**config)
    return pipeline


def plain(pipeline, settings, scheduler=None):
    """The picture that diffusers alone makes with a pipeline as it came, and how often it asked its network."""
    name = next(name for name, one in FAMILIES.items() if type(pipeline).__name__ in one.pipelines)
    clone, asked = copy.copy(pipeline), []
    clone.scheduler = scheduler = copy.deepcopy(pipeline.scheduler) if scheduler is None else scheduler
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    step, takes = scheduler.step, inspect.signature(scheduler.step).parameters

    @functools.wraps(step)
    def stepped(*args, **options):
        asked.append(1)
        if "generator" in takes and options.get("generator") is None:
            options["generator"] = generator  # flow pipelines pass none: it would be torch's global one
        return step(*args, **options)

    scheduler.step = stepped
    if hasattr(scheduler, "noise_sampler_seed"):
        scheduler.noise_sampler_seed = settings.seed  # likewise
    clone.set_progress_bar_config(disable=True)
    made = clone(**FAMILIES[name].arguments(pipeline, [settings]), generator=generator)
    return np.asarray(made.images[0]), len(asked)


@pytest.mark.parametrize(("name", "cls", "config"), CAME_WITH, ids=IDS)
def test_the_default_picture_is_the_pipelines_own(name, cls, config):
    pipeline = with_scheduler(name, cls, config)
    model = Model(pipeline, reuse=0)
    trace = model.trace(**ASKED, **size(name))
    picture, asked = plain(pipeline, trace.settings)
    assert np.array_equal(np.asarray(trace.image), picture)
    assert (model.samplers[0], model.sampler, trace.settings.sampler) == ("as it came",) * 3
    assert trace.info["sampler"]["class"] == f"{cls}Scheduler"
    assert len(trace) == trace.expected == model.evaluations("as it came", 4) == asked
    assert all(step.finite and step.x0.shape == trace.final.shape for step in trace)


def test_the_list_is_that_of_released_checkpoints():
    assert len(CAME_WITH) >= 36
    assert {cls for _, cls, _ in CAME_WITH} >= {"IPNDM", "FlowMatchLCM", "EDMEuler", "LMSDiscrete", "PNDM"}
    spacings = {config.get("timestep_spacing") for _, _, config in CAME_WITH}
    assert spacings >= {"leading", "trailing", "linspace"}


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_any_number_of_steps_is_drawn_as_it_came(steps):
    pipeline = with_scheduler("sdxl", "EulerDiscrete", XL)
    trace = Model(pipeline, reuse=0).trace(**{**ASKED, "steps": steps}, **size("sdxl"))
    assert np.array_equal(np.asarray(trace.image), plain(pipeline, trace.settings)[0])


# What was set on it


def off(trace, pipeline):
    return int(np.abs(np.asarray(trace.image).astype(int) - plain(pipeline, trace.settings)[0]).max())


@pytest.mark.parametrize("late", [False, True])
def test_a_shift_that_was_set_counts_before_and_after_loading(late):
    pipeline = with_scheduler("sd3", "FlowMatchEulerDiscrete", {"shift": 3.0})
    model = Model(pipeline) if late else None
    before = model.trace(**ASKED, **size("sd3")) if late else None
    pipeline.scheduler.set_shift(7.0)
    model = model or Model(pipeline)
    trace = model.trace(**ASKED, **size("sd3"))
    assert off(trace, pipeline) == 0
    assert not trace.info.get("reused")
    assert model.label("as it came") == "as it came: Flow Euler, shift 7"
    if late:
        assert not np.array_equal(np.asarray(before.image), np.asarray(trace.image))
        pipeline.scheduler.set_shift(3.0)
        assert model.trace(**ASKED, **size("sd3")).info["reused"]


def test_another_scheduler_put_into_the_pipeline_later_is_drawn_with():
    pipeline = with_scheduler("sd", "DDIM", SD_DDIM)
    model = Model(pipeline)
    named = model.trace(**ASKED, sampler="DDIM", **size("sd"))
    pipeline.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipeline.scheduler.config)
    trace = model.trace(**ASKED, **size("sd"))
    assert off(trace, pipeline) == 0
    assert trace.info["sampler"]["class"] == "HeunDiscreteScheduler"
    again = Model(pipeline).trace(**ASKED, sampler="DDIM", **size("sd"))
    assert np.array_equal(np.asarray(again.image), np.asarray(named.image))


@pytest.mark.parametrize("way", ["bound", "closure", "default", "partial"])
def test_a_step_of_the_users_own_runs_on_the_copy(way):
    pipeline = with_scheduler("sd", "EulerDiscrete", XL)
    scheduler, original = pipeline.scheduler, pipeline.scheduler.step

    def weaker(self, model_output, timestep, sample, **options):
        return type(self).step(self, 0.5 * model_output, timestep, sample, **options)

    def closed(model_output, timestep, sample, **options):
        return original(0.5 * model_output, timestep, sample, **options)

    def defaulted(model_output, timestep, sample, inner=original, **options):
        return inner(0.5 * model_output, timestep, sample, **options)

    ways = {
        "bound": types.MethodType(weaker, scheduler),
        "closure": closed,
        "default": defaulted,
        "partial": functools.partial(weaker, scheduler),
    }
    scheduler.step = ways[way]
    trace = Model(pipeline).trace(**ASKED, **size("sd"))
    assert scheduler.step_index is None  # the user's own was not stepped
    by_hand = copy.copy(pipeline)
    by_hand.scheduler = diffusers.EulerDiscreteScheduler(**XL)
    by_hand.scheduler.step = types.MethodType(weaker, by_hand.scheduler)
    arguments = FAMILIES["sd"].arguments(by_hand, [trace.settings])
    made = by_hand(**arguments, generator=torch.Generator("cpu").manual_seed(3)).images[0]
    assert np.array_equal(np.asarray(trace.image), np.asarray(made))


# One that nobody knows


class Straight(SchedulerMixin, ConfigMixin):
    """A scheduler of somebody's own, which says nothing of noise levels."""

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(self, num_train_timesteps=1000):
        self.timesteps = None

    def set_timesteps(self, steps, device=None):
        self.timesteps = torch.linspace(self.config.num_train_timesteps - 1, 0, steps).round().long()

    def scale_model_input(self, sample, timestep=None):
        return sample

    def step(self, model_output, timestep, sample, return_dict=True):
        return (sample - model_output / len(self.timesteps),)


class Jumping(Straight):
    """Likewise, with noise on the way."""

    def step(self, model_output, timestep, sample, generator=None, return_dict=True):
        noise = torch.randn(sample.shape, generator=generator, dtype=sample.dtype)
        return (sample - model_output / len(self.timesteps) + 0.1 * noise,)


class Broken(diffusers.DDIMScheduler):
    """A subclass whose tables end early."""

    def set_timesteps(self, steps, device=None):
        super().set_timesteps(steps, device)
        self.timesteps[2:] -= 10 * self.config.num_train_timesteps

    def step(self, model_output, timestep, sample, **options):
        return (sample - 0.1 * model_output,)


@pytest.mark.parametrize("scheduler", [Straight, Jumping])
@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_a_scheduler_that_nobody_knows_draws_as_it_came_and_says_why_there_are_no_steps(name, scheduler):
    pipeline = copy.copy(family(name))
    pipeline.scheduler = scheduler()
    model = Model(pipeline)
    trace = model.trace(**ASKED, **size(name))
    assert np.array_equal(np.asarray(trace.image), plain(pipeline, trace.settings)[0])
    assert (len(trace), trace.expected, trace.cancelled) == (0, 0, False)
    said = f"Its steps could not be read: the noise levels of {scheduler.__name__} are not known."
    assert trace.info["notes"].count(said) == 1
    assert model.label("as it came") == f"as it came: {scheduler.__name__}"
    why = f"There are no steps to show: the noise levels of {scheduler.__name__} are not known."
    assert (model.abilities["steps"], model.abilities["split"]) == (why, why)
    again = model.trace(**ASKED, **size(name))
    assert again.info["reused"]
    assert again.info["notes"].count(said) == 1
    assert np.array_equal(np.asarray(again.image), np.asarray(trace.image))


class Telling(Straight):
    """One that says by `add_noise` how much noise there is, and keeps x_t in that form."""

    def add_noise(self, original_samples, noise, timesteps):
        share = ((timesteps + 1) / self.config.num_train_timesteps).reshape(-1, *[1] * (original_samples.ndim - 1))
        return (1 - share**2).clamp(min=0).sqrt() * original_samples + share * noise


class Elsewhere(Telling):
    """One whose runs start from far more noise than it adds."""

    init_noise_sigma = 14.6


class Twice(Telling):
    """One that evaluates its network twice a step."""

    order = 2


def test_a_scheduler_that_tells_what_noise_it_adds_is_recorded():
    pipeline = copy.copy(family("sd"))
    pipeline.scheduler = Telling()
    model = Model(pipeline)
    trace = model.trace(**ASKED, **size("sd"))
    assert np.array_equal(np.asarray(trace.image), plain(pipeline, trace.settings)[0])
    assert model.abilities["steps"] is True
    assert [step.b for step in trace] == pytest.approx([1.0, 0.667, 0.334, 0.001])
    step = trace[1]
    assert torch.allclose(step.a * step.x0 + step.b * step.noise, step.latents, atol=1e-5)
    assert step.guidance == pytest.approx(4.0, abs=1e-3)


@pytest.mark.parametrize("scheduler", [Elsewhere, Twice])
def test_what_a_scheduler_tells_is_not_believed_where_its_runs_are_kept_otherwise(scheduler):
    pipeline = copy.copy(family("sd"))
    pipeline.scheduler = scheduler()
    trace = Model(pipeline).trace(**ASKED, **size("sd"))
    assert np.array_equal(np.asarray(trace.image), plain(pipeline, trace.settings)[0])
    assert len(trace) == 0
    assert any(f"the noise levels of {scheduler.__name__} are not known" in note for note in trace.info["notes"])


def test_of_a_schedule_that_leaves_its_tables_the_steps_before_are_kept():
    pipeline = copy.copy(family("sd"))
    pipeline.scheduler = Broken(**SD_DDIM)
    trace = Model(pipeline).trace(**ASKED, **size("sd"))
    assert np.array_equal(np.asarray(trace.image), plain(pipeline, trace.settings)[0])
    assert len(trace) == trace.expected == 2
    assert any(note.startswith("Its steps could not be read: ") for note in trace.info["notes"])


def test_pictures_of_a_scheduler_that_nobody_knows_share_a_batch_each_with_its_guidance():
    pipeline = copy.copy(family("sd"))
    pipeline.scheduler = Straight()
    asked = [dx.Settings(**{**ASKED, "guidance": guidance}, **size("sd")) for guidance in (2.0, 9.0)]
    together = [job.result() for job in Model(pipeline).submit_many(asked)]
    assert [trace.info["batch"] for trace in together] == [2, 2]
    for settings, trace in zip(asked, together, strict=True):
        alone = plain(pipeline, settings)[0]
        assert np.abs(np.asarray(trace.image).astype(int) - alone).max() <= 2


# In the menu


@pytest.mark.parametrize(
    ("name", "cls", "config", "said"),
    [
        ("sdxl", "EulerDiscrete", XL, "Euler, leading"),
        ("sdxl", "EulerDiscrete", {**XL, "use_karras_sigmas": True}, "Euler Karras, leading"),
        ("sd", "PNDM", {**SD, "skip_prk_steps": True}, "PLMS, leading"),
        ("sd", "PNDM", SD, "PNDM, leading"),
        ("sd", "UniPCMultistep", {**SD, "solver_order": 3}, "UniPC of order 3, linspace"),
        ("sd", "DPMSolverMultistep", {**DPM, "use_karras_sigmas": True}, "DPM++ 2M Karras, linspace"),
        ("sd", "DPMSolverMultistep", {**DPM, "algorithm_type": "sde-dpmsolver++"}, "DPM++ 2M SDE, linspace"),
        ("sd", "DDPM", {**SD, "variance_type": "fixed_large"}, "DDPM, leading, fixed_large"),
        ("sd", "DDIM", {**SD_V, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
         "DDIM, trailing, zero terminal SNR"),
        ("sd", "IPNDM", {}, "IPNDM"),
        ("sd3", "FlowMatchLCM", {"shift": 3.0}, "FlowMatchLCM, shift 3"),
        ("sd3", "UniPCMultistep", {**FLOWING, "flow_shift": 3.0}, "UniPC flow, linspace, shift 3"),
        ("flux", "FlowMatchEulerDiscrete", DYNAMIC, "Flow Euler, shift by size"),
    ],
)  # fmt: skip
def test_the_menu_says_what_came(name, cls, config, said):
    model = Model(with_scheduler(name, cls, config))
    assert model.label(model.samplers[0]) == f"as it came: {said}"
    assert all(model.label(name) == name for name in model.samplers[1:])


def test_a_name_from_the_menu_is_a_setting_and_goes_round():
    for written in ("as it came", "As it came", "as_it_came", "as it came: Euler, leading"):
        settings = dx.Settings(sampler=written)
        assert settings.sampler == "as it came"
        assert dx.Settings.from_json(settings.to_json()) == settings


def test_the_pocket_model_keeps_its_menu_and_takes_what_came_too():
    model = dx.load()
    assert "as it came" not in model.samplers
    trace = model.trace(prompt="a fox", steps=3, sampler="as it came")
    arguments = {"num_inference_steps": 3, "guidance_scale": 5.0, "width": 128, "height": 128}
    made = copy.copy(model.pipeline)
    made.scheduler = copy.deepcopy(model.pipeline.scheduler)
    with working(1):  # as the pocket model computes, whatever torch is set to
        picture = made("a fox", **arguments, generator=torch.Generator("cpu").manual_seed(0)).images[0]
    assert np.array_equal(np.asarray(trace.image), np.asarray(picture))


def test_a_named_sampler_that_equals_what_came_shares_its_runs():
    model = Model(with_scheduler("sd", "DDIM", SD_DDIM))
    first = model.trace(**ASKED, **size("sd"))
    named = model.trace(**ASKED, sampler="DDIM", **size("sd"))
    assert named.info["reused"]
    assert named.settings.sampler == "DDIM"
    assert np.array_equal(np.asarray(named.image), np.asarray(first.image))
    other = Model(with_scheduler("sdxl", "EulerDiscrete", XL))
    other.trace(**ASKED, **size("sdxl"))
    assert not other.trace(**ASKED, sampler="Euler", **size("sdxl")).info.get("reused")


@pytest.mark.parametrize(
    ("cls", "config", "sampler", "said"),
    [
        ("EulerDiscrete", XL, "Euler", "its steps are spaced linspace, those that came leading"),
        ("EulerDiscrete", XL, "Euler Karras", "its steps are spaced Karras, those that came leading"),
        ("UniPCMultistep", {**SD, "solver_order": 3}, "UniPC", "it is of order 2, what came of order 3"),
        ("DDIM", SD_DDIM, "DDIM", ""),
        ("EulerDiscrete", XL, None, ""),
    ],
)
def test_a_sampler_that_is_spaced_otherwise_says_so(cls, config, sampler, said):
    model = Model(with_scheduler("sd", cls, config))
    notes = model.notes(dx.Settings(prompt="a fox", sampler=sampler))
    about = [note for note in notes if "what came with this model" in note]
    assert len(about) == bool(said)
    assert said in "".join(about)


@pytest.mark.parametrize(
    ("name", "cls", "config", "said"),
    [
        ("sd3", "FlowMatchEulerDiscrete", {"shift": 3.0, "stochastic_sampling": True}, True),
        ("sd3", "FlowMatchLCM", {"shift": 3.0}, True),
        ("sd3", "FlowMatchEulerDiscrete", {"shift": 3.0}, False),
        ("sana", "DPMSolverMultistep", {**FLOWING, "algorithm_type": "sde-dpmsolver++"}, False),
        ("sd", "EulerAncestralDiscrete", SD, False),
        ("sd", "DPMSolverSDE", SD, True),
        ("sd", "DPMSolverSDE", {**SD, "noise_sampler_seed": 5}, False),
    ],
)
def test_noise_that_a_plain_call_would_not_take_from_its_generator_is_said_to_be_of_the_seed(name, cls, config, said):
    pipeline = with_scheduler(name, cls, config)
    model = Model(pipeline, reuse=0)
    first = model.trace(**ASKED, **size(name))
    assert sum("drawn from the run's seed" in note for note in first.info["notes"]) == said
    torch.manual_seed(99)
    again = model.trace(**ASKED, **size(name))
    assert np.array_equal(np.asarray(again.image), np.asarray(first.image))
    # What is said is so: without help, plain calls differ exactly where the note stands.
    made = []
    for k in range(2):
        torch.manual_seed(k)
        clone = copy.copy(pipeline)
        clone.scheduler = copy.deepcopy(pipeline.scheduler)
        arguments = FAMILIES[name].arguments(pipeline, [first.settings])
        made.append(np.asarray(clone(**arguments, generator=torch.Generator("cpu").manual_seed(3)).images[0]))
    assert np.array_equal(*made) is not said


# Steps it cannot take


@pytest.mark.parametrize(
    ("name", "cls", "config", "steps", "said"),
    [
        ("sd", "DDIM", SD_DDIM, 1000, "at most 999 steps"),
        ("sd", "DDIM", {**SD_DDIM, "clip_sample": True}, 1000, "begin at timestep 1000"),
        ("lcm", "LCM", {**SD, "original_inference_steps": 50}, 60, "60 steps"),
    ],
)
def test_steps_that_what_came_cannot_take_are_refused(name, cls, config, steps, said):
    model = Model(with_scheduler(name, cls, config))
    with pytest.raises(ValueError, match=said) as caught:
        model.resolve(dx.Settings(steps=steps, **size(name)))
    assert "\n" not in str(caught.value)


def test_every_family_is_in_the_list():
    assert {name for name, _, _ in CAME_WITH} == set(MAKERS) >= set(SIZES)
