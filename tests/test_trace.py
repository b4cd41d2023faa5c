"""Step and Trace: what a run holds, that it cannot be spoilt, saved and loaded."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diffexplore.settings import Settings
from diffexplore.trace import Step, Trace


def test_every_named_attribute_is_there(tiny_trace):
    step = tiny_trace[1]
    assert (step.index, step.kind, step.half, step.split) == (1, "epsilon", False, "")
    assert step.timestep == 501.0
    assert step.seconds > 0
    assert step.sigma == pytest.approx(step.b / step.a)
    for name in ("latents", "output", "noise", "noise_cond", "noise_uncond", "x0", "x0_cond", "x0_uncond"):
        tensor = getattr(step, name)
        assert (tensor.shape, tensor.dtype, tensor.device.type) == ((4, 8, 12), torch.float32, "cpu"), name


def test_x_t_is_the_mix_of_x0_and_noise(tiny_trace):
    for step in tiny_trace:
        for x0, noise in ((step.x0, step.noise), (step.x0_cond, step.noise_cond), (step.x0_uncond, step.noise_uncond)):
            assert torch.allclose(step.a * x0 + step.b * noise, step.latents, atol=1e-4)


def test_guided_is_uncond_plus_g_times_the_difference(tiny_trace):
    for step in tiny_trace:
        assert step.guidance == pytest.approx(5.0, rel=1e-3)
        mixed = step.noise_uncond + 5.0 * (step.noise_cond - step.noise_uncond)
        assert torch.allclose(mixed, step.noise, atol=1e-5)


def test_what_if_recombines_without_the_model(tiny_trace):
    step = tiny_trace[2]
    assert torch.allclose(step.what_if(5.0).noise, step.noise, atol=1e-5)
    assert torch.allclose(step.what_if(1.0).x0, step.x0_cond, atol=1e-5)
    assert torch.allclose(step.what_if(0.0).x0, step.x0_uncond, atol=1e-5)
    with pytest.raises(ValueError, match="finite number, got nan"):
        step.what_if(float("nan"))


def test_without_a_split_the_reason_is_said(tiny_model):
    step = tiny_model.trace(prompt="a fox", steps=2, guidance=1.0)[0]
    assert (step.noise_cond, step.x0_uncond, step.guidance) == (None, None, None)
    assert "Guidance is off" in step.split
    with pytest.raises(ValueError, match="step 0 cannot be guided anew: Guidance is off"):
        step.what_if(3.0)


def test_changing_what_a_step_hands_out_does_not_change_the_trace(tiny_trace):
    before = tiny_trace[0].latents.clone()
    tiny_trace[0].latents.zero_()
    tiny_trace[0].x0.zero_()
    assert torch.equal(tiny_trace[0].latents, before)


def test_a_trace_is_a_sequence(tiny_trace):
    assert len(tiny_trace) == tiny_trace.expected == 4
    assert [step.index for step in tiny_trace] == [0, 1, 2, 3]
    assert tiny_trace[-1] is tiny_trace[3]
    assert tiny_trace[1:3] == [tiny_trace[1], tiny_trace[2]]
    with pytest.raises(IndexError, match="the trace has 4 steps, there is no step 4"):
        tiny_trace[4]


def test_the_last_x0_decodes_to_the_picture(tiny_trace):
    picture = np.asarray(tiny_trace.image).astype(int)
    assert np.abs(tiny_trace.decode(tiny_trace.final).astype(int) - picture).max() == 0


def test_sigma_is_finite_at_pure_noise():
    step = Step(index=0, timestep=999, seconds=0, a=0.0, b=1.0, kind="v_prediction",
                latents=torch.zeros(4, 2, 2), output=torch.zeros(4, 2, 2))  # fmt: skip
    assert step.sigma == 4096


def test_save_and_load(tiny_trace, tmp_path):
    tiny_trace.save(tmp_path / "run.safetensors")
    again = Trace.load(tmp_path / "run.safetensors")
    assert again.settings == tiny_trace.settings
    assert again.info == json.loads(json.dumps(tiny_trace.info))
    assert (len(again), again.expected, again.cancelled) == (4, 4, False)
    assert again.decode is None
    assert np.array_equal(np.asarray(again.image), np.asarray(tiny_trace.image))
    assert np.array_equal(again.matrix, tiny_trace.matrix)
    for mine, theirs in zip(again, tiny_trace, strict=True):
        assert torch.equal(mine.latents, theirs.latents)
        assert torch.equal(mine.x0, theirs.x0)
        assert torch.equal(mine.noise_cond, theirs.noise_cond)
        assert (mine.timestep, mine.sigma, mine.guidance) == (theirs.timestep, theirs.sigma, theirs.guidance)
    assert again.view("x0", 2).size == tiny_trace.view("x0", 2).size


def test_a_saved_run_keeps_the_pictures_of_its_steps_however_often_it_is_saved(tiny_trace, tmp_path):
    tiny_trace.save(tmp_path / "one.safetensors")
    Trace.load(tmp_path / "one.safetensors").save(tmp_path / "two.safetensors")
    again = Trace.load(tmp_path / "two.safetensors")
    for i in range(4):
        assert np.array_equal(again.picture(i), tiny_trace.decode(tiny_trace[i].x0))
    assert tiny_trace.picture(0) is None, "it has a decoder"
    tiny_trace.save(tmp_path / "bare.safetensors", pictures=False)
    assert Trace.load(tmp_path / "bare.safetensors").picture(0) is None


def test_a_damaged_picture_is_refused_when_it_is_looked_at(tiny_trace, tmp_path):
    tiny_trace.save(tmp_path / "run.safetensors")
    trace = Trace.load(tmp_path / "run.safetensors")
    trace.pictures[1] = b"no picture"
    with pytest.raises(ValueError, match="the picture of step 1 is damaged"):
        trace.view("x0", 1)


def test_save_and_load_without_a_split(tiny_model, tmp_path):
    trace = tiny_model.trace(prompt="a fox", steps=2, guidance=1.0)
    trace.save(tmp_path / "run.safetensors")
    again = Trace.load(tmp_path / "run.safetensors")
    assert again[1].split == trace[1].split
    assert again[1].noise_cond is None


def test_an_empty_run_can_be_saved(tmp_path):
    Trace(Settings(prompt="a fox", sampler="DDIM"), cancelled=True).save(tmp_path / "run.safetensors")
    assert len(Trace.load(tmp_path / "run.safetensors")) == 0


def test_wrong_files_are_refused_in_one_sentence(tmp_path, tiny_trace):
    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no file"):
        Trace.load(path)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        Trace.load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a run saved by"):
        Trace.load(path)
    save_file({"a": torch.zeros(1)}, path, metadata={"diffexplore": '{"version": 99}'})
    with pytest.raises(ValueError, match="format 99"):
        Trace.load(path)


@pytest.mark.parametrize("spoil", ["settings", "steps", "expected", "latents", "pictures"])
def test_damaged_runs_are_refused(tmp_path, tiny_trace, spoil):
    from safetensors import safe_open

    tiny_trace.save(tmp_path / "good.safetensors")
    with safe_open(tmp_path / "good.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["diffexplore"])
    if spoil == "latents":
        tensors["latents"] = tensors["latents"][:2]
    else:
        facts[spoil] = {"settings": {"steps": 0}, "steps": [{}], "expected": "x", "pictures": [1, 2]}[spoil]
    save_file(tensors, tmp_path / "bad.safetensors", metadata={"diffexplore": json.dumps(facts)})
    with pytest.raises(ValueError, match="is a damaged run"):
        Trace.load(tmp_path / "bad.safetensors")


def test_repr_is_short(tiny_trace):
    assert repr(tiny_trace) == "Trace(4 of 4 evaluations, prompt='a red fox')"
