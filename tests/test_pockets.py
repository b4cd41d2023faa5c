"""The models that ship beside the pocket model: plain diffusers' pictures to the bit, their steps, the same world."""

import functools
import json
import shutil

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

import diffexplore as dx
from diffexplore.pipelines.open import POCKETS
from diffexplore.pipelines.origin import Origin, open_pipeline
from diffexplore.pocket.judge import adherence
from diffexplore.runs.threads import asked_of, working

BESIDE = {"pocket-turbo": ("LatentConsistencyModelPipeline", 4), "pocket-flow": ("StableDiffusion3Pipeline", 20)}

SHORT = {"pocket-flow": {"max_sequence_length": 2}}
"""What plain diffusers is told to ask its third reader, which says nothing, for no more than the recorder does."""


@functools.cache
def model(name):
    return dx.load(name)


@functools.cache
def plain(name):
    made = DiffusionPipeline.from_pretrained(POCKETS[name], local_files_only=True)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("name", BESIDE)
def test_it_opens_by_its_name_and_says_so(name):
    kind, steps = BESIDE[name]
    opened = model(name)
    assert (opened.name, opened.origin.kind, opened.origin.where) == (name, "pocket", name)
    assert type(opened.pipeline).__name__ == kind
    assert opened.usual_steps == steps
    assert asked_of(opened.origin) is None
    assert opened.threads.decoding() == 1
    assert opened.size == model("pocket").size
    assert f"dx.load({name!r})" in opened.code()
    assert Origin.from_json(opened.origin.to_json()).open().name == name


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_its_picture_is_bit_identical_to_plain_diffusers(name, guidance):
    steps = BESIDE[name][1]
    trace = model(name).trace(prompt="a fox in the snow at noon", steps=steps, guidance=guidance, seed=5)
    with working(1):
        made = plain(name)(
            "a fox in the snow at noon", num_inference_steps=steps, guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(5), **SHORT.get(name, {}),
        ).images[0]  # fmt: skip
    assert np.array_equal(np.asarray(trace.image), np.asarray(made))
    assert len(trace) == steps


@pytest.mark.parametrize("name", BESIDE)
def test_it_knows_the_same_words_and_draws_in_the_same_latents(name):
    first, other = model("pocket"), model(name)
    assert other.unknown_words("a zebra on the moon in a zib") == first.unknown_words("a zebra on the moon in a zib")
    assert other.near_words("dragon") == first.near_words("dragon") != []
    vaes = first.pipeline.vae.state_dict(), other.pipeline.vae.state_dict()
    assert all(torch.equal(one, two) for one, two in zip(*(vae.values() for vae in vaes), strict=True))


@pytest.mark.parametrize("name", BESIDE)
def test_it_draws_what_the_prompt_says(name):
    said = ("a red car in the city at noon", "a castle in the snow at night", "a sunflower in a meadow at dawn")
    steps = BESIDE[name][1]
    seen = [
        adherence(model(name).trace(prompt=prompt, steps=steps, seed=k).image, prompt) for k, prompt in enumerate(said)
    ]
    assert np.mean(seen) > 0.8


def test_a_run_of_the_fast_one_begins_as_its_teachers_does():
    """The same seed is the same noise, so the two can be laid side by side."""
    fast = model("pocket-turbo").trace(prompt="a fox in the snow", steps=4, seed=3)
    slow = model("pocket").trace(prompt="a fox in the snow", steps=20, seed=3, sampler="DDIM")
    assert torch.allclose(fast[0].latents / fast[0].latents.std(), slow[0].latents / slow[0].latents.std(), atol=1e-3)


@pytest.fixture
def closing():
    made = []
    yield lambda one: made.append(one) or one
    for one in made:
        one.close()


def test_widgets_begin_with_the_steps_that_a_model_is_made_for(closing):
    fast = model("pocket-turbo")

    def steps(*given, **shared):
        return [one.steps for one in closing(dx.Compare(*given, model=fast, **shared)).settings.values()]

    assert closing(dx.Explorer(fast)).steps == 4
    assert closing(dx.Explorer(fast, steps=8)).steps == 8
    assert closing(dx.Explorer(model("pocket"))).steps == 20
    assert steps({"a": {"seed": 1}, "b": {"seed": 2}}) == [4, 4]
    assert steps({"a": {"seed": 1}, "b": {"seed": 2}}, steps=3) == [3, 3]
    assert steps({"a": {"steps": 2}, "b": {"guidance": 3.0}}) == [2, 4]
    assert steps("steps") == [1, 2, 4, 8]
    assert steps("seeds") == [4] * 4


def test_noise_levels_of_ones_own_are_as_many_steps_as_they_are(closing):
    opened = model("pocket")
    way = {"sampler": "Euler", "sigmas": (10.0, 4.0, 1.0)}
    assert closing(dx.Explorer(opened, **way)).steps == 3
    both = closing(dx.Compare({"a": {"seed": 1}, "b": {"seed": 2}}, opened, **way))
    assert {one.steps for one in both.settings.values()} == {3}
    mine = closing(dx.Compare({"a": {"sigmas": (9.0, 3.0)}, "b": {"seed": 2}}, opened, sampler="Euler"))
    assert mine.settings["a"].steps == 2


def test_a_path_is_a_folder_whatever_it_is_called(tmp_path, monkeypatch):
    shutil.copytree(POCKETS["pocket"], tmp_path / "pocket-turbo")
    monkeypatch.chdir(tmp_path)
    opened = open_pipeline((tmp_path / "pocket-turbo").relative_to(tmp_path))
    assert (opened.origin.kind, type(opened.pipeline).__name__) == ("folder", "StableDiffusionPipeline")


@pytest.mark.parametrize("name", POCKETS)
def test_its_folder_is_small_and_in_half_precision(name):
    size = sum(path.stat().st_size for path in POCKETS[name].rglob("*") if path.is_file())
    assert size < 30e6
    for path in POCKETS[name].rglob("*.safetensors"):
        if path.name == "judge.safetensors":
            continue
        length = int.from_bytes(path.read_bytes()[:8], "little")
        kinds = {one["dtype"] for key, one in json.loads(path.read_bytes()[8 : 8 + length]).items() if key[0] != "_"}
        assert kinds <= {"F16", "I64"}, path


@pytest.mark.parametrize("name", POCKETS)
def test_its_folder_says_nothing_of_where_it_was_made(name):
    for path in POCKETS[name].rglob("*.json"):
        assert "name_or_path" not in path.read_text(), path
