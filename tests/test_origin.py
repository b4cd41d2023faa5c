"""Where models come from: what is known of it, how it travels, and that it opens the very same again."""

import functools
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.pipelines.open import POCKETS
from diffexplore.pipelines.origin import (
    Origin,
    features_of,
    open_pipeline,
    scheduler_facts,
    weights_of,
)

POCKET = POCKETS["pocket"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    make_pipeline().save_pretrained(path)
    return path


@pytest.fixture
def snapshot(tmp_path, folder, monkeypatch):
    """The tiny model in a cache of the hub, as org/tiny."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("diffusers.utils.constants.HF_MODULES_CACHE", str(tmp_path))
    path = tmp_path / "models--org--tiny" / "snapshots" / COMMIT
    shutil.copytree(folder, path)
    (path.parents[1] / "refs").mkdir()
    (path.parents[1] / "refs" / "main").write_text(COMMIT)
    return path


# Kinds


def test_the_pocket_model_is_that_by_kind_and_no_folder_is(tmp_path):
    opened = open_pipeline()
    assert (opened.origin.kind, opened.origin.where, opened.name) == ("pocket", "pocket", "pocket")
    shutil.copytree(POCKET, tmp_path / "pocket")
    other = open_pipeline(tmp_path / "pocket")
    assert (other.origin.kind, other.name) == ("folder", "pocket")
    assert other.words == opened.words


def test_a_folder_is_known_by_its_absolute_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    origin = open_pipeline("tiny").origin
    assert (origin.kind, origin.where, origin.revision, origin.portable) == ("folder", str(folder), None, "")


def test_a_hub_id_is_known_by_its_commit_and_never_by_its_cache(snapshot):
    origin = open_pipeline("org/tiny", dtype="bfloat16").origin
    assert (origin.kind, origin.where, origin.revision) == ("hub", "org/tiny", COMMIT)
    assert origin.code() == f"model = dx.load('org/tiny@{COMMIT}', dtype='bfloat16')\n"
    assert str(snapshot.parents[2]) not in origin.to_json()


def test_a_hub_id_reads_no_words_of_the_working_directory(snapshot, tmp_path, monkeypatch):
    beside = tmp_path / "work" / "org" / "tiny"
    beside.mkdir(parents=True)
    (beside / "words.json").write_text('["fox"]')
    monkeypatch.chdir(tmp_path / "work")
    (snapshot / "words.json").write_text('["Cat"]')
    opened = open_pipeline(f"org/tiny@{COMMIT}")
    assert opened.words == {"cat"}


def test_a_pipeline_by_hand_says_why_it_cannot_travel():
    origin = Origin.of(make_pipeline())
    assert (origin.kind, origin.where) == ("pipeline", "")
    assert "was made from a ready pipeline" in origin.portable
    assert origin.code() == "model = dx.load(pipeline)\n"
    with pytest.raises(ValueError, match="cannot be opened again: it was made from a ready pipeline"):
        origin.open()


@pytest.mark.parametrize("by", ["id", "path"])
def test_a_pipeline_by_hand_from_the_hub_knows_id_and_commit(snapshot, by):
    pipeline = StableDiffusionPipeline.from_pretrained("org/tiny" if by == "id" else snapshot, dtype=torch.bfloat16)
    origin = Origin.of(pipeline)
    assert (origin.kind, origin.where, origin.revision, origin.portable) == ("pipeline", "org/tiny", COMMIT, "")
    assert origin.code() == f"model = dx.load('org/tiny@{COMMIT}', dtype='bfloat16')\n"
    assert weights_of(origin.open().pipeline) == weights_of(pipeline)


def test_a_pipeline_by_hand_from_a_folder_knows_it(folder, tmp_path):
    assert Origin.of(StableDiffusionPipeline.from_pretrained(folder)).where == str(folder)
    shutil.copytree(folder, tmp_path / "gone")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    assert Origin.of(pipeline).portable


# As data


def test_json_and_pickle_bring_it_back(folder):
    opened = open_pipeline(folder, "cpu", "float64")
    origin = opened.origin.now(opened.pipeline, (("a.safetensors", "style", "0" * 64),))
    assert Origin.from_json(origin.to_json()) == origin
    assert pickle.loads(pickle.dumps(origin)) == origin
    assert hash(Origin.from_json(origin.to_json())) == hash(origin)
    assert origin.options == {"device": "cpu", "dtype": "float64"}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"kind": "moon"}', '{"kind": "hub", "more": 1}', '{"kind": "hub", "where": 3}',
     '{"kind": "hub", "loras": [[1]]}', '{"kind": "hub", "options": {"x": "y"}}', "[" * 100_000, b"\xff"],
)  # fmt: skip
def test_other_text_is_no_origin(text):
    with pytest.raises(ValueError, match=r"an origin must be JSON as Origin\.to_json writes it"):
        Origin.from_json(text)


def test_another_process_opens_the_same(folder, tmp_path):
    opened = open_pipeline(folder, dtype="float64")
    opened.pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    origin = opened.origin.now(opened.pipeline)
    script = (
        "import sys; from diffexplore.pipelines.origin import Origin, weights_of\n"
        "opened = Origin.from_json(sys.stdin.read()).open(); print(opened.origin.to_json())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=origin.to_json(), capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert Origin.from_json(done.stdout) == origin
    assert json.loads(done.stdout)["weights"] == weights_of(opened.pipeline)


# Features


def drawn(pipeline):
    generator = torch.Generator().manual_seed(1)
    return pipeline("a fox", num_inference_steps=2, generator=generator, output_type="latent").images


def test_what_is_switched_on_is_switched_on_again(folder):
    pipeline = open_pipeline(folder).pipeline
    before = drawn(pipeline)
    pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    pipeline.vae.enable_tiling()
    pipeline.scheduler = DDPMScheduler.from_config(pipeline.scheduler.config, prediction_type="v_prediction")
    again = open_pipeline(folder).origin.now(pipeline).open()
    assert features_of(again.pipeline) == features_of(pipeline)
    assert again.pipeline.vae.use_tiling
    again.pipeline.set_progress_bar_config(disable=True)
    assert torch.equal(drawn(again.pipeline), drawn(pipeline))
    assert not torch.equal(drawn(pipeline), before)
    assert "enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)" in again.origin.code()


def test_the_key_changes_with_whatever_changes_pictures(folder):
    opened = open_pipeline(folder)
    pipeline = opened.pipeline

    def key():
        return opened.origin.now(pipeline).key()

    first, seen = key(), set()
    assert open_pipeline(folder).origin.now(pipeline).key() == first
    changes = [
        lambda: pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
        lambda: pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.5),
        lambda: pipeline.scheduler.register_to_config(prediction_type="v_prediction"),
        lambda: pipeline.scheduler.register_to_config(beta_end=0.02),
        lambda: pipeline.vae.enable_tiling(),
        lambda: pipeline.enable_attention_slicing(1),
        lambda: next(pipeline.unet.parameters()).data.add_(1),
        lambda: pipeline.to(torch.bfloat16),
    ]
    for change in changes:
        change()
        seen.add(key())
    assert len(seen - {first}) == len(changes)


def test_a_feature_that_is_switched_off_again_leaves_the_key_as_it_was(folder):
    opened = open_pipeline(folder)
    before = opened.origin.now(opened.pipeline).key()
    opened.pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    opened.pipeline.disable_freeu()
    assert opened.origin.now(opened.pipeline).key() == before


def test_a_shift_that_no_config_knows_counts():
    pipeline = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0))
    before = scheduler_facts(pipeline)
    pipeline.scheduler.set_shift(7.0)
    assert (before["shift"], scheduler_facts(pipeline)["shift"]) == (3.0, 7.0)


def test_a_shift_that_was_set_is_set_again_elsewhere(folder):
    opened = open_pipeline(folder)
    opened.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    opened.pipeline.scheduler.set_shift(7.0)
    origin = Origin.from_json(opened.origin.now(opened.pipeline).to_json())
    assert origin.portable == ""
    made = origin.open().pipeline.scheduler
    assert (made.shift, made.config.shift) == (7.0, 3.0)
    for one in (made, opened.pipeline.scheduler):
        one.set_timesteps(5)
    assert torch.equal(made.sigmas, opened.pipeline.scheduler.sigmas)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("final_alpha_cumprod", lambda scheduler: setattr(scheduler, "final_alpha_cumprod", torch.tensor(0.25))),
        ("alphas_cumprod", lambda scheduler: setattr(scheduler, "alphas_cumprod", scheduler.alphas_cumprod * 0.9)),
        ("step", lambda scheduler: setattr(scheduler, "step", functools.partial(DDIMScheduler.step, scheduler))),
    ],
)
def test_a_scheduler_that_was_changed_by_hand_is_refused_elsewhere(folder, name, change):
    opened = open_pipeline(folder)
    opened.pipeline.scheduler = DDIMScheduler.from_config(opened.pipeline.scheduler.config)
    assert opened.origin.now(opened.pipeline).portable == ""
    change(opened.pipeline.scheduler)
    origin = opened.origin.now(opened.pipeline)
    with pytest.raises(ValueError, match=rf"scheduler was changed by hand \('{name}'\)") as caught:
        Origin.from_json(origin.to_json()).open()
    assert "\n" not in str(caught.value)
    model, executor = dx.load(folder), ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    model.pipeline.scheduler = opened.pipeline.scheduler
    with executor, pytest.raises(ValueError, match=rf"scheduler was changed by hand \('{name}'\)"):
        dx.sweep(model, x=("seed", [1, 2]), executor=executor, prompt="a fox", steps=2)


def test_samplers_of_the_menu_are_elsewhere_what_they_were_when_the_model_was_opened(folder):
    model = dx.load(folder)
    asked = {"prompt": "a fox", "steps": 3}
    named, menu = model.trace(**asked, sampler="DDIM"), model.samplers
    config = model.pipeline.scheduler.config
    model.pipeline.scheduler = EulerDiscreteScheduler.from_config(config, beta_end=0.02, timestep_spacing="trailing")
    own = model.trace(**asked)
    assert model.samplers == menu
    assert torch.equal(model.trace(**asked, sampler="DDIM").final, named.final)
    opened = Origin.from_json(model.origin.to_json()).open()
    there = Model(opened.pipeline, origin=opened.origin)
    assert there.origin == model.origin
    assert there.samplers == menu
    assert torch.equal(there.trace(**asked, sampler="DDIM").final, named.final)
    assert torch.equal(there.trace(**asked).final, own.final)
    assert not torch.equal(Model(opened.pipeline).trace(**asked, sampler="DDIM").final, named.final)


def test_a_lora_of_the_user_counts_while_it_is_on_and_cannot_travel(folder, lora):
    opened = open_pipeline(folder)
    pipeline = opened.pipeline
    before = opened.origin.now(pipeline)
    pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="mine")
    keys = set()
    for scale in (0.5, 1.0):
        pipeline.set_adapters(["mine"], [scale])
        keys.add(opened.origin.now(pipeline).key())
    assert len(keys - {before.key()}) == 2
    assert "LoRAs switched on by hand ('mine')" in opened.origin.now(pipeline).portable
    pipeline.disable_lora()
    assert opened.origin.now(pipeline) == before


def test_other_weights_are_refused(folder):
    opened = open_pipeline(folder)
    origin = opened.origin.now(opened.pipeline)
    with pytest.raises(ValueError, match="holds other weights, or in another dtype"):
        replace(origin, weights="0" * 64).open()


def test_what_cannot_be_set_up_again_is_named(folder):
    opened = open_pipeline(folder)
    opened.pipeline.enable_attention_slicing(1)
    with pytest.raises(ValueError, match="cannot be set up as it was: its attention would be"):
        opened.origin.now(opened.pipeline).open()


def test_a_model_says_where_it_is_from(folder, lora):
    model = dx.load(folder)
    model.load_lora(lora, "style")
    assert [name for _, name, _ in model.origin.loras] == ["style"]
    assert model.origin.code() == model.code()


def test_what_a_network_predicts_can_be_said_where_its_files_do_not(folder):
    model = dx.load(folder, prediction_type="v_prediction")
    assert model.code() == f"model = dx.load({str(folder)!r}, prediction_type='v_prediction')\n"
    assert scheduler_facts(model.pipeline)["prediction_type"] == "v_prediction"
    asked = {"prompt": "a fox", "steps": 3, "sampler": "DDIM"}
    trace = model.trace(**asked)
    by_hand = StableDiffusionPipeline.from_pretrained(folder)
    by_hand.scheduler.register_to_config(prediction_type="v_prediction")
    assert torch.equal(dx.load(by_hand).trace(**asked).final, trace.final)
    assert not torch.equal(dx.load(folder).trace(**asked).final, trace.final)
    again = Origin.from_json(model.origin.to_json()).open().pipeline
    assert scheduler_facts(again) == scheduler_facts(model.pipeline)


def test_what_a_network_cannot_predict_is_refused(folder):
    from tiny_families import family

    with pytest.raises(ValueError, match=r"prediction_type must be None, 'epsilon' or .* got 'velocity'"):
        dx.load(folder, prediction_type="velocity")
    with pytest.raises(ValueError, match="of another kind, for networks of flow matching"):
        dx.load(family("sd3"), prediction_type="v_prediction")
