"""Trained models become folders that plain diffusers opens, sheets and strips; exported weights can be taken up."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from tiny_factory import FLOW, TURBO, UNET, Arriving, write_vae

from diffexplore.pocket import examples
from diffexplore.pocket.factory import export, flow, turbo, unet
from diffexplore.pocket.factory.latents import Latents, read_vae
from diffexplore.pocket.factory.stage import Budget

KINDS = ("pocket", "pocket-flow", "pocket-turbo")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A work folder in which every denoiser was trained for a few steps, and all three were exported."""
    folder = tmp_path_factory.mktemp("runs")
    write_vae(folder)
    tokenizer = unet.make_tokenizer(folder)
    vae = read_vae(folder, "cpu")
    latents = Latents(Arriving(tokenizer), vae, tokenizer, bf16=False, block=8)

    def row(name):
        return lambda pipeline, step: export.learn_row(pipeline, folder, name, step, 1)

    unet.train(folder, UNET, Budget(), latents, row("pocket"))
    flow.train(folder, FLOW, Budget(), latents)
    turbo.train(folder, TURBO, Budget(), latents)
    made = (
        unet.trained(folder, UNET, vae, latents.shape),
        flow.trained(folder, FLOW, vae, latents.shape),
        turbo.trained(folder, TURBO, vae, latents.shape),
    )
    for name, pipeline in zip(KINDS, made, strict=True):
        export.write_folder(pipeline, folder / "export" / name)
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_plain_diffusers_opens_the_folder_with_nothing_but_its_path(work, name):
    folder = work / "export" / name
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a fox in the snow", num_inference_steps=2, guidance_scale=3.0).images[0].size == (32, 32)
    modules = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
    assert {p.dtype for part in modules for p in part.parameters()} == {torch.float32}
    assert json.loads((folder / "words.json").read_text())
    assert json.loads((folder / "near.json").read_text())
    assert not any(str(work) in file.read_text() for file in folder.rglob("*.json"))  # where it was made is nobody's


def test_weights_are_kept_in_half_precision_and_training_goes_on_in_full(work):
    from safetensors.torch import load_file

    for file in (work / "export").rglob("*.safetensors"):
        assert {value.dtype for value in load_file(file).values() if value.is_floating_point()} == {torch.float16}
    state = torch.load(work / "unet.pt", weights_only=True)["average"]["unet"]
    assert {value.dtype for value in state.values()} == {torch.float32}


def test_the_strip_shows_every_look_that_was_taken(work, tmp_path):
    export.learn_strip(work, "pocket", tmp_path / "strip.png")
    with Image.open(tmp_path / "strip.png") as strip:
        assert strip.size == (8 * 64, 4 * 64)
    export.learn_strip(work, "nothing", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_the_sheet_has_all_prompts_in_rows_of_eight(work, tmp_path):
    pipeline = export.open_folder(work / "export" / "pocket-turbo")
    export.draw_sheet(pipeline, tmp_path / "sheet.png", 1)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (8 * 128, 8 * 128)


def test_the_examples_are_composed_as_their_captions_say(art_folder, tmp_path, capsys):
    export.draw_examples(str(art_folder), tmp_path)
    made = {path.stem.replace("_", " "): np.asarray(Image.open(path), float) for path in tmp_path.glob("*.png")}
    assert sorted(made) == examples()
    assert {pixels.shape for pixels in made.values()} == {(128, 128, 3)}
    edges = {name: np.abs(np.diff(pixels, axis=0)).max() for name, pixels in made.items()}
    assert min(edges, key=edges.__getitem__) == "a blurry pineapple in the desert"
    assert max(made, key=lambda name: made[name].mean()) == "a line drawing of a snail in a forest"
    with pytest.raises(SystemExit):
        export.main(["examples"])
    assert "examples needs --art FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "stage", "part"), [("pocket", "unet", "unet"), ("pocket-flow", "flow", "transformer"),
                                                     ("pocket-turbo", "turbo", "unet")])  # fmt: skip
def test_exported_weights_can_be_adopted(work, tmp_path, name, stage, part):
    export.adopt(tmp_path, work / "export" / name)
    ours = torch.load(tmp_path / f"{stage}.pt", weights_only=True)
    assert (ours["step"], ours["fallen"]) == (0, False)
    theirs = torch.load(work / f"{stage}.pt", weights_only=True)["average"][part]
    for key, value in theirs.items():
        assert torch.allclose(ours["parts"][part][key], value, rtol=2e-3, atol=1e-4), key


@pytest.mark.parametrize(("name", "stage"), [("pocket", "unet"), ("pocket-flow", "flow"), ("pocket-turbo", "turbo")])
def test_training_goes_on_from_adopted_weights(work, tmp_path, name, stage):
    if name == "pocket-turbo":
        export.adopt(tmp_path, work / "export" / "pocket")  # it needs its teacher
    export.adopt(tmp_path, work / "export" / name)
    before = torch.load(tmp_path / f"{stage}.pt", weights_only=True)["parts"]
    vae = read_vae(tmp_path, "cpu")
    tokenizer = unet.make_tokenizer(tmp_path)
    latents = Latents(Arriving(tokenizer), vae, tokenizer, bf16=False, block=4)
    recipe, module = {"unet": (UNET, unet), "flow": (FLOW, flow), "turbo": (TURBO, turbo)}[stage]
    module.train(tmp_path, dataclasses.replace(recipe, steps=3), Budget(), latents)
    after = torch.load(tmp_path / f"{stage}.pt", weights_only=True)
    assert after["step"] == 3
    moved = [
        float((after["parts"][part][key].float() - value.float()).abs().max())
        for part, values in before.items() for key, value in values.items() if value.is_floating_point()
    ]  # fmt: skip
    assert 0 < max(moved) < 0.2  # on from there, not anew


def test_what_distilling_changed_moves_onto_another_teacher(work, tmp_path, capsys):
    """Of a teacher that has moved by a tenth everywhere, the fast model has moved as far."""
    told = work / "export"
    for name, said in (("pocket-turbo", "unet.pt"), ("pocket", "pocket was not distilled")):
        with pytest.raises(SystemExit):
            export.main(["adopt", "--work", str(tmp_path), "--out", str(told / name), "--of", str(told / "pocket")])
        assert said in capsys.readouterr().err
        assert not list(tmp_path.iterdir())
    export.adopt(tmp_path, told / "pocket")
    state = torch.load(tmp_path / "unet.pt", weights_only=True)
    for value in state["average"]["unet"].values():
        value += 0.1
    torch.save(state, tmp_path / "unet.pt")
    export.adopt(tmp_path, told / "pocket-turbo")
    before = torch.load(tmp_path / "turbo.pt", weights_only=True)["parts"]["unet"]
    export.adopt(tmp_path, told / "pocket-turbo", of=told / "pocket")
    after = torch.load(tmp_path / "turbo.pt", weights_only=True)["parts"]["unet"]
    for key, value in before.items():
        moved = 0.1 if key in state["average"]["unet"] else 0.0
        assert torch.allclose(after[key], value + moved, atol=1e-4), key


def test_how_well_a_vae_keeps_pictures_is_a_number_of_decibels(work, art_folder):
    assert 0 < export.psnr(work / "export" / "pocket", str(art_folder), count=2) < 60
