"""Where pipelines come from: what is opened, and what is refused with which sentence."""

import json
import shutil
import socket
import struct

import pytest
import torch
from diffusers import StableDiffusionPipeline
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import POCKET
from diffexplore.pipelines.open import header
from diffexplore.pipelines.origin import open_pipeline
from diffexplore.pipelines.whole import check_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("source", ["", "not a folder", 3, StableDiffusionPipeline, "../../etc/passwd", ["a"]])
def test_sources_that_are_no_model_are_refused(source):
    with pytest.raises(ValueError, match=r"a model is None|only, got '\.\./\.\./etc/passwd'"):  # where there is one
        dx.load(source)


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt", "model.bin"])
def test_pickles_are_refused_by_name_there_or_not(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    for where in (name, str(tmp_path / name)):
        with pytest.raises(ValueError, match=r"may be a pickle, .* only \.safetensors files are opened"):
            dx.load(where)


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match=r"there is no file 'nowhere/model\.safetensors'"):
        dx.load("nowhere/model.safetensors")


def test_a_folder_without_an_index_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"needs a model_index\.json"):
        dx.load(tmp_path)


def test_a_folder_of_another_pipeline_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "SomebodysPipeline"}))
    with pytest.raises(ValueError, match=r"its pipeline must be one of .* it is 'SomebodysPipeline'"):
        dx.load(tmp_path)


def test_a_folder_that_brings_code_runs_none_of_it(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(POCKET, folder)
    (folder / "evil.py").write_text("raise SystemExit('code of a model ran')")
    index = json.loads((folder / "model_index.json").read_text())
    index["unet"] = ["evil", "UNet2DConditionModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="cannot be opened as a model"):
        dx.load(folder)


def test_pickled_weights_are_never_read(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(POCKET, folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(weights), folder / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ValueError, match="cannot be opened as a model"):
        dx.load(folder)


def test_a_local_folder_draws_the_same(tmp_path):
    shutil.copytree(POCKET, tmp_path / "copy")
    pocket = dx.load()
    settings = pocket.resolve(dx.Settings(prompt="a fox", steps=3))
    theirs = dx.load(tmp_path / "copy", threads=1).trace(settings).image  # as the pocket model
    assert theirs.tobytes() == pocket.trace(settings).image.tobytes()


def test_a_folder_in_another_dtype(tmp_path):
    model = dx.load(POCKET, dtype="bfloat16")
    assert {p.dtype for p in model.pipeline.unet.parameters()} == {torch.bfloat16}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub cache, laid out as huggingface_hub does, which holds the pocket model as org/pocket, tag v1."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("diffusers.utils.constants.HF_MODULES_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--pocket"
    shutil.copytree(POCKET, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    for ref in ("main", "v1"):
        (repository / "refs" / ref).write_text(COMMIT)


@pytest.mark.parametrize("where", ["org/pocket", "org/pocket@v1", f"org/pocket@{COMMIT}"])
def test_a_hub_id_is_opened_and_its_commit_recorded(hub, where):
    model = dx.load(where)
    assert (model.name, model.revision) == ("pocket", COMMIT)
    assert model.trace(prompt="a fox", steps=2).info["revision"] == COMMIT
    assert model.code() == f"model = dx.load('org/pocket@{COMMIT}')\n"


OFFLINE = (
    "not all of it is on this machine, and offline mode forbids to fetch the rest; "
    "unset HF_HUB_OFFLINE and restart the kernel"
)


def test_in_offline_mode_a_hub_id_says_that_it_is_that():
    with pytest.raises(ValueError, match="cannot be opened") as caught:
        dx.load("nobody/nothing")
    assert str(caught.value) == f"'nobody/nothing' cannot be opened as a model: {OFFLINE}"


def test_in_offline_mode_a_model_of_which_files_are_missing_says_that_too(hub, tmp_path):
    (tmp_path / "models--org--pocket" / "snapshots" / COMMIT / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be opened") as caught:
        dx.load("org/pocket")
    assert str(caught.value) == f"'org/pocket' cannot be opened as a model: {OFFLINE}"


NO_HUB = "not all of it is on this machine, and the hub cannot be reached; is there a network?"


@pytest.fixture
def unreachable(tmp_path, monkeypatch):
    """A hub that is asked, with an empty cache, and never answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        closed = probe.getsockname()[1]  # free again after this, so nobody listens there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{closed}")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the client's retries


def test_without_a_network_a_hub_id_says_so_and_nothing_else_is_printed(unreachable, capfd, recwarn):
    with pytest.raises(ValueError, match="cannot be opened") as caught:
        dx.load("nobody/nothing")
    assert str(caught.value) == f"'nobody/nothing' cannot be opened as a model: {NO_HUB}"
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn if "huggingface_hub" in warning.filename] == []


def test_without_a_network_what_is_in_the_cache_opens(unreachable, hub):
    assert dx.load("org/pocket").revision == COMMIT


def test_without_a_network_a_model_of_which_files_are_missing_says_that(unreachable, hub, tmp_path):
    (tmp_path / "models--org--pocket" / "snapshots" / COMMIT / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be opened") as caught:
        dx.load("org/pocket")
    assert str(caught.value) == f"'org/pocket' cannot be opened as a model: {NO_HUB}"


# Weights that are not all there


def damaged(tmp_path, part, change):
    """A copy of the pocket model of which the weights of one part are changed."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(POCKET, folder)
    (file,) = (folder / part).glob("*.safetensors")
    save_file(change(load_file(file)), file, {"format": "pt"})
    return folder


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
@pytest.mark.parametrize("which", [0, -1, "half"])
def test_a_model_with_tensors_missing_is_refused_and_nothing_is_made_up(tmp_path, part, which):
    def without(tensors):
        names = sorted(tensors)
        gone = names[::2] if which == "half" else [names[which]]
        return {name: tensor for name, tensor in tensors.items() if name not in gone}

    with pytest.raises(ValueError, match=rf"cannot be opened as a model: of its {part} .* missing, such as") as caught:
        dx.load(damaged(tmp_path, part, without))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_a_tensor_of_another_shape_is_refused(tmp_path, part):
    def cut(tensors):
        name = next(name for name in sorted(tensors) if tensors[name].ndim > 1)
        return tensors | {name: tensors[name][:-1].contiguous()}

    with pytest.raises(ValueError, match="cannot be opened as a model"):
        dx.load(damaged(tmp_path, part, cut))


def test_a_loader_that_puts_in_numbers_of_its_own_is_noticed(tmp_path):
    pipeline = StableDiffusionPipeline.from_pretrained(POCKET)
    check_weights(pipeline, POCKET)
    for weight in pipeline.text_encoder.parameters():
        torch.nn.init.normal_(weight)
    with pytest.raises(ValueError, match=r"its text_encoder was not loaded: .* are not those of the file"):
        check_weights(pipeline, POCKET)


def test_other_variants_of_the_weights_may_lie_beside(tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(POCKET, tmp_path / "model")
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (tmp_path / "model" / part).glob("*.safetensors")
        tensors = {name: tensor + 1 for name, tensor in load_file(file).items()}
        for kind in ("fp16", "non_ema"):
            save_file(tensors, file.with_name(f"{file.stem}.{kind}.safetensors"))
    assert dx.load(tmp_path / "model").name == "model"


def test_a_loader_that_passes_over_the_dtype_is_mended(monkeypatch):
    original = StableDiffusionPipeline.from_pretrained

    def from_pretrained(where, *, dtype, **options):
        return original(where, **options)

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", from_pretrained)
    pipeline = open_pipeline(POCKET, dtype="float16").pipeline
    monkeypatch.undo()
    right = original(POCKET, dtype=torch.float16)
    for part in ("unet", "vae", "text_encoder"):
        for ours, theirs in zip(getattr(pipeline, part).parameters(), getattr(right, part).parameters(), strict=True):
            assert ours.dtype == torch.float16
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", ["words.json", "near.json"])
@pytest.mark.parametrize("data", [b"3", b"[1]", b'{"a": 1}', b"null", b"\xff\x00", b"", b"[" * 100_000, b'{"a": [1]}'])
def test_broken_word_lists_are_refused_in_a_sentence(tmp_path, name, data):
    shutil.copytree(POCKET, tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}' (is no JSON|must be a JSON)"):
        dx.load(tmp_path / "model")


def test_paths_are_taken_as_people_type_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    make_pipeline().save_pretrained(tmp_path / "mine")
    assert dx.load("~/mine").code() == f"model = dx.load({str(tmp_path / 'mine')!r})\n"


@pytest.mark.parametrize("where", ["a" * 5000, "a/" * 2500, "a\0b", "~nobody-of-that-name/a"])
def test_what_cannot_be_a_path_is_refused_in_a_sentence(where):
    with pytest.raises(ValueError, match=r"cannot be a path|a model is None") as caught:
        dx.load(where)
    assert len(str(caught.value)) < 500


# Single files


def safetensors(path, names):
    header = {name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i, name in enumerate(names)}
    raw = json.dumps({**header, "__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4 * len(names)))
    return path


@pytest.mark.parametrize(
    ("mark", "cls"),
    [
        ("cond_stage_model.transformer.text_model.embeddings.position_ids", "StableDiffusionPipeline"),
        ("conditioner.embedders.0.transformer.text_model.embeddings.position_ids", "StableDiffusionXLPipeline"),
        ("model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "StableDiffusion3Pipeline"),
        ("double_blocks.0.img_attn.proj.weight", "FluxPipeline"),
    ],
)
def test_a_single_file_is_read_by_the_class_its_tensors_tell(tmp_path, monkeypatch, mark, cls):
    import diffusers

    asked = []

    def from_single_file(where, **options):
        asked.append((where, options))
        return make_pipeline()

    monkeypatch.setattr(getattr(diffusers, cls), "from_single_file", from_single_file)
    file = safetensors(tmp_path / "mine.safetensors", ["model.diffusion_model.input_blocks.0.0.weight", mark])
    opened = open_pipeline(str(file), dtype=torch.float16)
    assert asked == [(str(file), {"torch_dtype": torch.float16})]
    assert (opened.name, opened.revision) == ("mine", None)


def test_a_single_file_of_something_else_is_refused(tmp_path):
    file = safetensors(tmp_path / "other.safetensors", ["encoder.weight"])
    with pytest.raises(ValueError, match="holds no checkpoint of Stable Diffusion"):
        dx.load(file)


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 4, b"\xff" * 64, struct.pack("<Q", 2) + b"[]", struct.pack("<Q", 9) + b"{"]
)
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, data):
    file = tmp_path / "broken.safetensors"
    file.write_bytes(data)
    with pytest.raises(ValueError, match="it is no safetensors file"):
        header(file)
    with pytest.raises(ValueError, match="cannot be opened as a model: it is no safetensors file"):
        dx.load(file)


# Places


def test_offload_without_a_gpu_is_refused(tiny_pipeline):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match=r"offload='model' moves networks to a GPU .* none here"):
        dx.load(tiny_pipeline, offload="model")
    with pytest.raises(ValueError, match="offload must be None, 'model' or 'sequential', got 'disk'"):
        dx.load(tiny_pipeline, offload="disk")


@pytest.mark.parametrize("value", [-1, 1.5, "all", True])
def test_reuse_must_be_a_number_of_bytes(tiny_pipeline, value):
    with pytest.raises(ValueError, match="reuse must be a number of bytes"):
        dx.load(tiny_pipeline, reuse=value)
