"""The scheduler that came with a pipeline, said in words, copied with all that is on it, compared as data."""

import copy
import functools
import types

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler, HeunDiscreteScheduler

from diffexplore.samplers import SAMPLERS, build
from diffexplore.samplers.came import begin, changed, copied, described, moved, noise_of, state_of

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
LEADING = {**SD, "timestep_spacing": "leading"}


# In words


@pytest.mark.parametrize(
    ("cls", "config", "said"),
    [
        ("EulerDiscrete", LEADING, "Euler, leading"),
        ("EulerDiscrete", {**SD, "use_beta_sigmas": True}, "Euler Beta, linspace"),
        ("DPMSolverMultistep", {**SD, "algorithm_type": "sde-dpmsolver++"}, "DPM++ 2M SDE, linspace"),
        ("DPMSolverMultistep", {**SD, "solver_order": 1}, "DPM++ 2M of order 1, linspace"),
        ("DDIM", {**SD, "rescale_betas_zero_snr": True}, "DDIM, leading, zero terminal SNR"),
        ("UnCLIP", {"variance_type": "learned_range"}, "UnCLIP, learned_range"),
        ("FlowMatchEulerDiscrete", {"shift": 3.0}, "Flow Euler, shift 3"),
        ("FlowMatchEulerDiscrete", {"shift": 3.0, "use_dynamic_shifting": True}, "Flow Euler, shift by size"),
        ("FlowMatchEulerDiscrete", {"shift": 1.5, "stochastic_sampling": True}, "Flow Euler, shift 1.5, stochastic"),
    ],
)
def test_a_scheduler_is_said_in_the_menus_words(cls, config, said):
    assert described(getattr(diffusers, f"{cls}Scheduler")(**config)) == said


def test_a_shift_that_was_set_later_is_the_one_that_is_said():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_shift(2.0)
    assert described(scheduler) == "Flow Euler, shift 2"


def test_one_that_is_no_diffusers_scheduler_has_its_own_name():
    class MyOwn:
        pass

    assert described(MyOwn()) == "MyOwn"


@pytest.mark.parametrize("name", [name for name, entry in SAMPLERS.items() if not entry.missing])
def test_what_equals_what_came_is_not_called_otherwise(name):
    base = {**SD, "_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "prediction_type": "epsilon"}
    if SAMPLERS[name].net == "flow":
        base = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}
    built = build(name, base)
    assert changed(name, built, copy.deepcopy(built)) == ""
    assert described(built).startswith(name.removesuffix(" Trailing").removesuffix(" flow"))


def test_spacing_and_order_are_what_is_said_to_be_otherwise():
    came = diffusers.UniPCMultistepScheduler(**SD, solver_order=3, timestep_spacing="trailing")
    built = diffusers.UniPCMultistepScheduler(**SD, solver_order=2)
    assert changed("UniPC", built, came) == (
        "UniPC is not what came with this model: its steps are spaced linspace, those that came trailing and it is of "
        "order 2, what came of order 3."
    )


@pytest.mark.parametrize(
    ("cls", "config", "noise"),
    [
        ("EulerDiscreteScheduler", {}, ""),
        ("EulerAncestralDiscreteScheduler", {}, "fresh"),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, "fresh"),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "fresh"),
        ("DPMSolverSDEScheduler", {}, "path"),
        ("NobodysScheduler", {}, ""),
    ],
)
def test_what_noise_it_adds(cls, config, noise):
    assert noise_of(cls, config) == noise


# Copies


def test_a_copy_has_all_that_was_set_and_shares_nothing():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_shift(7.0)
    scheduler.mine = [1, 2]
    made = copied(scheduler)
    made.set_timesteps(4)
    made.mine.append(3)
    assert (made.shift, len(made.timesteps), made.mine) == (7.0, 4, [1, 2, 3])
    assert (len(scheduler.timesteps), scheduler.mine) == (1000, [1, 2])


def test_methods_that_were_put_on_it_are_the_copys():
    seen = []

    def marked(self, tag):
        seen.append((tag, self))

    scheduler = EulerDiscreteScheduler(**SD)
    original = scheduler.scale_model_input
    scheduler.bound = types.MethodType(marked, scheduler)
    scheduler.partly = partly = functools.partial(marked, scheduler)
    scheduler.partly_inside = lambda tag, inner=partly: inner(tag)
    scheduler.closed = lambda tag: marked(scheduler, tag)
    scheduler.scale_model_input = lambda *given: original(*given)
    made = copied(scheduler)
    for tag in ("bound", "partly", "partly_inside", "closed"):
        getattr(made, tag)(tag)
    assert [tag for tag, _ in seen] == ["bound", "partly", "partly_inside", "closed"]
    assert all(owner is made for _, owner in seen)
    made.set_timesteps(2)
    made.scale_model_input(torch.zeros(1), made.timesteps[0])
    assert (made.step_index, scheduler.step_index) == (0, None)


def test_a_brownian_path_that_nobody_gave_a_seed_has_the_runs():
    given = diffusers.DPMSolverSDEScheduler(**SD, noise_sampler_seed=5)
    free = diffusers.DPMSolverSDEScheduler(**SD)
    assert copied(given, seed=8).noise_sampler_seed == 5
    assert copied(free, seed=8).noise_sampler_seed == 8
    assert copied(free, seed=(8, 9)).noise_sampler_seed == [8, 9]
    assert free.noise_sampler_seed is None


# As data


def test_equal_states_are_of_schedulers_that_do_the_same():
    one, other = EulerDiscreteScheduler(**LEADING), EulerDiscreteScheduler(**LEADING)
    other.set_timesteps(7)  # what a run left in it
    other.scale_model_input(torch.zeros(1), other.timesteps[0])
    assert state_of(one) == state_of(other) is not None
    others = [
        EulerDiscreteScheduler(**SD),
        EulerDiscreteScheduler(**LEADING, use_karras_sigmas=True),
        HeunDiscreteScheduler(**LEADING),
        type("EulerDiscreteScheduler", (EulerDiscreteScheduler,), {})(**LEADING),
    ]
    assert len({state_of(one), *map(state_of, others)}) == 1 + len(others)


def test_what_was_set_by_hand_is_part_of_the_state():
    scheduler = DDIMScheduler(**SD)
    states = {state_of(scheduler)}
    scheduler.alphas_cumprod[3] *= 0.5
    states.add(state_of(scheduler))
    scheduler.final_alpha_cumprod = torch.tensor(0.25)
    states.add(state_of(scheduler))
    scheduler.register_to_config(clip_sample=False)
    states.add(state_of(scheduler))
    assert len(states) == 4


def test_what_cannot_be_seen_has_no_state():
    scheduler = DDIMScheduler(**SD)
    secret = [1]
    scheduler.step = lambda *given, **options: DDIMScheduler.step(scheduler, *given, **options, eta=secret[0])
    assert state_of(scheduler) is None


def test_what_was_moved_is_named():
    scheduler = DDIMScheduler(**SD)
    assert moved(scheduler) == []
    scheduler.set_timesteps(9)
    assert moved(scheduler) == []
    scheduler.final_alpha_cumprod = torch.tensor(0.25)
    scheduler.step = functools.partial(DDIMScheduler.step, scheduler)
    assert moved(scheduler) == ["final_alpha_cumprod", "step"]


def test_it_begins_also_where_only_the_size_tells_the_shift():
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    begin(scheduler, 5)
    assert len(scheduler.timesteps) == 5
    with pytest.raises(ValueError, match="cannot be larger"):
        begin(DDIMScheduler(**SD), 2000)
