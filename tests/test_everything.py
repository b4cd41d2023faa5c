"""Everything in one go and in a given time: stages one after the other, taken up again elsewhere, in parcels."""

import dataclasses
import time

import pytest
import torch
from tiny_factory import FLOW, SIDE, TURBO, UNET, VAE, write_vae

from diffexplore.pocket.factory import everything, export, parcel


def plan(work, art, **options):
    tiny = {"pocket": UNET, "flow": FLOW, "turbo": TURBO}
    recipes = {name: dataclasses.replace(recipe, steps=4) for name, recipe in tiny.items()}
    return everything.Plan(
        work, str(art), minutes=5, vae=VAE, pictures=64, workers=1, sheets=False, **{**recipes, **options}
    )


def test_denoisers_are_trained_exported_and_come_back_in_parcels(art_folder, tmp_path, capsys):
    work, out = tmp_path / "runs", tmp_path / "out"
    write_vae(work)
    made = everything.Everything(plan(work, art_folder, stages=("unet", "flow", "turbo")), out)
    assert made.run() == []
    said = capsys.readouterr().out
    assert "unet: 4 steps" in said
    assert "turbo: exported" in said
    parcel.unpack(out, tmp_path / "elsewhere")
    for name in ("pocket", "pocket-flow", "pocket-turbo"):
        pipeline = export.open_folder(tmp_path / "elsewhere" / "export" / name)
        assert pipeline("a fox", num_inference_steps=2).images[0].size == (SIDE, SIDE)
    assert (tmp_path / "elsewhere" / "export" / "learn-pocket.png").is_file()
    assert (tmp_path / "elsewhere" / "vae" / "config.json").is_file()
    assert not list((tmp_path / "elsewhere").rglob("*.pt"))


def test_judges_and_vae_come_first_and_the_rest_goes_on_elsewhere(art_folder, tmp_path):
    first = plan(tmp_path / "here", art_folder, stages=("vae", "judges"), judge_steps=2, vae_steps=4)
    assert everything.Everything(first, tmp_path / "out").run() == []
    parcel.unpack(tmp_path / "out", tmp_path / "there")
    assert (tmp_path / "there" / "judge.safetensors").is_file()
    second = plan(tmp_path / "there", art_folder, stages=("unet",))
    assert everything.Everything(second).run() == []
    assert (tmp_path / "there" / "export" / "pocket" / "model_index.json").is_file()


def test_what_fails_is_said_and_the_next_stage_begins(art_folder, tmp_path, capsys):
    write_vae(tmp_path)
    made = everything.Everything(plan(tmp_path, art_folder, stages=("flow", "turbo")))
    assert made.run() == ["turbo"]  # it has no teacher
    assert "turbo: FAILED" in capsys.readouterr().out
    assert (tmp_path / "export" / "pocket-flow" / "model_index.json").is_file()


def test_it_ends_in_time_and_goes_on_when_called_again(art_folder, tmp_path):
    write_vae(tmp_path)
    short = plan(tmp_path, art_folder, stages=("unet",), pocket=dataclasses.replace(UNET, steps=None), reserve=1.0)
    short = dataclasses.replace(short, minutes=0.3)
    assert everything.Everything(short).run() == []
    first = torch.load(tmp_path / "unet.pt", weights_only=True)
    assert everything.Everything(short).run() == []
    second = torch.load(tmp_path / "unet.pt", weights_only=True)
    assert 0 < first["step"] < second["step"]
    assert first["seconds"] < second["seconds"]


def test_stages_share_what_is_left(art_folder, tmp_path):
    made = everything.Everything(plan(tmp_path, art_folder, stages=("unet", "flow"), shares={"unet": 3.0, "flow": 1.0}))
    made.end = time.monotonic() + 100
    assert made._budget("unet").minutes == pytest.approx(1.25, abs=0.05)
    assert made._budget("flow").minutes == pytest.approx(100 / 60, abs=0.05)


def test_a_fast_and_a_flow_model_learn_beside_one_that_is_there(art_folder, tmp_path):
    """Its folder alone says its size and layout, and they draw in its latents with its words."""
    write_vae(tmp_path / "there")
    assert everything.Everything(plan(tmp_path / "there", art_folder, stages=("unet",))).run() == []
    folder = tmp_path / "there" / "export" / "pocket"
    bare = everything.Plan(
        tmp_path / "here", str(art_folder), ("flow", "turbo"), 5, pictures=64, workers=1, sheets=False,
        flow=dataclasses.replace(FLOW, steps=4, astray=0.5), turbo=dataclasses.replace(TURBO, steps=4),
    )  # fmt: skip
    made = everything.beside(bare, folder)
    assert made.vae.size == SIDE
    assert made.pocket.channels == UNET.channels
    assert made.flow.astray == 0.0
    assert everything.Everything(made).run() == []
    teacher = export.open_folder(folder)
    for name in ("pocket-flow", "pocket-turbo"):
        pipeline = export.open_folder(tmp_path / "here" / "export" / name)
        assert pipeline("a fox", num_inference_steps=2).images[0].size == (SIDE, SIDE)
        for key, value in teacher.vae.state_dict().items():
            assert torch.equal(pipeline.vae.state_dict()[key], value)
    assert torch.load(tmp_path / "here" / "flow.pt", weights_only=True)["step"] == 4


def test_a_teacher_that_is_none_is_refused_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit):
        everything.main(["--art", "nowhere", "--work", str(tmp_path), "--teacher", str(tmp_path / "none")])
    assert "--teacher needs the folder of a pocket model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--stages", "unet", "decoder"], "got 'decoder'"),
        (["--shares", "unet=lots"], "got 'unet=lots'"),
        (["--shares", "unet=0.5", "cake=1"], "got 'cake=1'"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_in_one_sentence(given, said, capsys):
    with pytest.raises(SystemExit):
        everything.main(["--art", "nowhere", *given])
    assert said in capsys.readouterr().err
