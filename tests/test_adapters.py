"""LoRAs in a pipeline: which files go in whole, what is refused, and that the pipeline is as before after all."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.pocket.lora import example_adapter
from diffexplore.runs.adapters import Adapters

TEXT = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


@pytest.fixture
def pipeline():
    return make_pipeline()


@pytest.fixture
def adapters(pipeline):
    return Adapters(pipeline)


@pytest.fixture(scope="module")
def tensors(lora):
    """Those of the fixture's LoRA: of the U-Net alone, as diffusers saves them."""
    return load_file(lora)


@pytest.fixture(scope="module")
def both(tensors):
    """With some of the text encoder too."""
    generator = torch.Generator().manual_seed(1)
    return tensors | {
        f"{TEXT}.lora_A.weight": torch.randn(2, 16, generator=generator),
        f"{TEXT}.lora_B.weight": torch.randn(16, 2, generator=generator),
    }


def written(folder, tensors, name="some", metadata=None):
    file = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, file, metadata)
    return file


def drawn(pipeline):
    generator = torch.Generator().manual_seed(1)
    return pipeline("a fox", num_inference_steps=2, generator=generator, output_type="latent").images


def state(pipeline):
    """All of a pipeline that a LoRA could change."""
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    layers = {}
    for name, part in parts.items():
        for path, module in part.named_modules():
            switches: tuple[object, ...] = ()
            if hasattr(module, "scaling"):
                switches = list(module.active_adapters), module.disable_adapters, dict(module.scaling)
            layers[f"{name}.{path}"] = type(module), module.training, sorted(vars(module)), switches
    weights = {
        f"{name}.{path}": (weight.data_ptr(), weight.dtype, weight.requires_grad)
        for name, part in parts.items()
        for path, weight in part.named_parameters()
    }
    return layers, weights, sorted(vars(pipeline)), pipeline.get_list_adapters()


def bare(pipeline):
    """The same, of a pipeline that has run once: transformers sets up hooks of its own then."""
    drawn(pipeline)
    return state(pipeline)


# In, on, off, out


def test_one_is_off_until_it_is_on_and_gone_when_taken_out(pipeline, adapters, lora):
    before, plain = bare(pipeline), drawn(pipeline)
    assert (adapters.load(lora), adapters.names, adapters.files) == ("my_style", ["my_style"], {"my_style": lora})
    assert torch.equal(drawn(pipeline), plain)
    pictures = []
    for scale in (0.5, 1.0):
        with adapters.on({"my_style": scale}):
            pictures.append(drawn(pipeline))
        assert torch.equal(drawn(pipeline), plain)
    assert not torch.equal(*pictures)
    with adapters.on((("my_style", 0),)):
        assert torch.equal(drawn(pipeline), plain)
    adapters.unload()
    assert adapters.names == []
    assert state(pipeline) == before


def test_it_draws_what_plain_diffusers_draws_with_it(pipeline, adapters, lora):
    adapters.load(lora, "style")
    with adapters.on({"style": 0.7}):
        ours = drawn(pipeline)
    plain = make_pipeline()
    plain.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="theirs")
    plain.set_adapters(["theirs"], [0.7])
    assert torch.equal(ours, drawn(plain))


def test_the_shipped_adapters_go_in_whole_and_say_what_they_teach():
    model = dx.load(reuse=0)
    adapters = Adapters(model.pipeline)
    plain = model.trace(prompt="a dragon", steps=2).final
    for name in ("dragon", "synthwave"):
        assert adapters.load(example_adapter(name)) == name
    assert adapters.taught == {"dragon", "synthwave", "style"}, "a style is asked for as 'synthwave style'"
    with adapters.on({"dragon": 1.0, "synthwave": 0.5}):
        assert not torch.equal(drawn(model.pipeline), plain)
        with safe_open(example_adapter("dragon"), "pt") as file:
            theirs = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no dict
        inner = next(name for name in model.pipeline.get_list_adapters()["unet"] if "dragon" in name)
        found = {
            f"{part}.{key.replace(f'.{inner}', '')}": weight
            for part in ("unet", "text_encoder")
            for key, weight in getattr(model.pipeline, part).named_parameters()
            if f".{inner}." in key
        }
        assert found.keys() == theirs.keys()
        assert all(torch.equal(found[key].half(), theirs[key]) for key in found)
    assert torch.equal(model.trace(prompt="a dragon", steps=2).final, plain)


@pytest.mark.parametrize("name", ["train", "half", "type", "keys", "forward", "lora", "a.b", "weight", "ä"])
def test_any_name_will_do(adapters, lora, tmp_path, name):
    shutil.copy(lora, tmp_path / f"{name}.safetensors")
    assert adapters.load(tmp_path / f"{name}.safetensors") == name.replace(".", "_")
    with adapters.on({name.replace(".", "_"): 1.0}):
        pass


def test_a_name_is_text(adapters, lora):
    with pytest.raises(ValueError, match="the name of a LoRA must be text, got 3"):
        adapters.load(lora, name=3)


# Layouts: every tensor arrives


def renamed(tensors, change):
    return {change(key): value for key, value in tensors.items()}


LAYOUTS = {
    "peft": lambda key: f"base_model.model.{key.removeprefix('unet.')}",
    "peft with the name of its adapter": lambda key: f"base_model.model.{key.removeprefix('unet.')}".replace(
        ".weight", ".default.weight"
    ),
    "transformer": lambda key: f"transformer.{key.removeprefix('unet.')}",
    "comfy": lambda key: f"diffusion_model.{key.removeprefix('unet.')}",
    "bare": lambda key: key.removeprefix("unet."),
    "old": lambda key: key.replace("lora_A", "lora.down").replace("lora_B", "lora.up"),
    "kohya": lambda key: (
        "lora_unet_"
        + key.removeprefix("unet.").split(".lora_")[0].replace(".", "_")
        + (".lora_down.weight" if "lora_A" in key else ".lora_up.weight")
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_of_another_tool_is_read_whole(pipeline, adapters, tensors, tmp_path, lora, layout):
    adapters.load(lora, "style")
    adapters.load(written(tmp_path, renamed(tensors, LAYOUTS[layout])), "other")
    pictures = []
    for name in ("style", "other"):
        with adapters.on({name: 0.7}):
            pictures.append(drawn(pipeline))
    assert torch.equal(*pictures)


def test_the_strength_that_peft_saves_beside_is_read(pipeline, adapters, tmp_path):
    taught = make_pipeline()
    taught.unet.add_adapter(
        LoraConfig(r=2, lora_alpha=8, target_modules=["to_q", "to_v"], init_lora_weights=False), "default"
    )
    expected = drawn(taught)
    layers = get_peft_model_state_dict(taught.unet)
    file = written(tmp_path, {f"base_model.model.{key}": value for key, value in layers.items()}, "adapter_model")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 8, "peft_type": "LORA"}))
    adapters.load(file, "style")
    with adapters.on({"style": 1.0}):
        assert torch.equal(drawn(pipeline), expected)


def test_text_encoder_and_network_both_arrive(pipeline, adapters, both, tmp_path):
    adapters.load(written(tmp_path, both), "style")
    assert {part for part, names in pipeline.get_list_adapters().items() if names} == {"unet", "text_encoder"}


# Refused: the pipeline is as before


def without_b(tensors):
    return {key: value for key, value in tensors.items() if "to_v.lora_B" not in key}


REFUSED = {
    "a wrong prefix": (lambda t: renamed(t, lambda key: key.replace("unet.", "nowhere.")), "no place in it, such as"),
    "a wrong prefix beside right keys": (
        lambda t: renamed(t, lambda key: key.replace("unet.", "nowhere.") if "to_q" in key else key),
        r"no place in it, such as 'nowhere\.",
    ),
    "another model": (lambda t: {"unet.nowhere.to_q.lora_A.weight": torch.zeros(2, 5)}, "cannot be loaded into"),
    "a key too many": (
        lambda t: t | {"unet.nowhere.to_q.lora_A.weight": torch.ones(2, 16)},
        "cannot be loaded into this model",
    ),
    "half a pair": (without_b, "cannot be loaded into this model"),
    "a text encoder's shape": (
        lambda t: t | {f"{TEXT}.lora_A.weight": torch.zeros(2, 5), f"{TEXT}.lora_B.weight": torch.zeros(5, 2)},
        "cannot be loaded into this model",
    ),
    "a network's shape": (lambda t: {key: value[..., :1] for key, value in t.items()}, "cannot be loaded into"),
    "DoRA": (
        lambda t: renamed(t, LAYOUTS["kohya"]) | {"lora_unet_mid_block.dora_scale": torch.ones(3)},
        "it is a DoRA .* only plain LoRA is read",
    ),
    "LoHa": (lambda t: {"lora_unet_mid_block.hada_w1_a": torch.ones(3)}, "it is a LoHa .* only plain LoRA is read"),
    "LoKr": (lambda t: {"lora_unet_mid_block.lokr_w1": torch.ones(3)}, "it is a LoKr .* only plain LoRA is read"),
    "no LoRA": (lambda t: {"encoder.weight": torch.ones(3)}, "cannot be opened as a LoRA: none of its tensors is one"),
    "kohya of another model": (
        lambda t: {"lora_unet_nowhere_to_q.lora_down.weight": torch.ones(2, 4),
                   "lora_unet_nowhere_to_q.lora_up.weight": torch.ones(4, 2)},
        "cannot be loaded into this model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("others", [False, True])
def test_what_does_not_go_in_whole_is_refused_and_leaves_no_trace(pipeline, adapters, lora, tmp_path, case, others):
    make, message = REFUSED[case]
    if others:
        pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="theirs")
        pipeline.set_adapters(["theirs"], [0.3])
        adapters.load(lora, "ours")
    before, names, plain = bare(pipeline), adapters.names, drawn(pipeline)
    file = written(tmp_path, make(load_file(lora)))
    with pytest.raises(ValueError, match=message) as caught:
        adapters.load(file)
    assert "\n" not in str(caught.value)
    assert state(pipeline) == before
    assert adapters.names == names
    assert torch.equal(drawn(pipeline), plain)


def test_metadata_is_read_before_anything_is_loaded(pipeline, adapters, tensors, tmp_path):
    before = bare(pipeline)
    deep = "[" * 100_000 + "]" * 100_000
    with pytest.raises(ValueError, match="cannot be loaded into this model"):
        adapters.load(written(tmp_path, tensors, "a", {"lora_adapter_metadata": deep}))
    assert state(pipeline) == before
    adapters.load(written(tmp_path, tensors, "b", {"diffexplore": deep}))
    assert adapters.taught == frozenset()


@pytest.mark.parametrize("path", [None, 3, "", b"a.safetensors", ["a"]])
def test_a_lora_is_a_path(adapters, path):
    with pytest.raises(ValueError, match=r"a LoRA is the path of a \.safetensors file, got"):
        adapters.load(path)


def test_paths_that_cannot_be_are_refused(adapters, tmp_path, monkeypatch, lora):
    with pytest.raises(ValueError, match="cannot be a path"):
        adapters.load("a" * 5000 + ".safetensors")
    with pytest.raises(ValueError, match="there is no file"):
        adapters.load("nowhere/a.safetensors")
    monkeypatch.setenv("HOME", str(lora.parent))
    assert adapters.load(f"~/{lora.name}", "style") == "style"


class Stop(BaseException):
    pass


@pytest.mark.parametrize("when", range(1, 60, 4))
def test_an_interrupt_while_loading_leaves_no_trace(pipeline, adapters, both, tmp_path, monkeypatch, when):
    from peft.tuners.lora import LoraLayer

    before = bare(pipeline)
    file = written(tmp_path, both)
    calls = 0
    original = torch.nn.Module.__setattr__

    def interrupted(self, name, value):
        nonlocal calls
        if isinstance(self, LoraLayer) or isinstance(value, LoraLayer):
            calls += 1
            if calls == when:
                raise Stop
        original(self, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "__setattr__", interrupted)
        with pytest.raises(Stop):
            adapters.load(file)
    assert state(pipeline) == before
    assert adapters.names == []


@pytest.mark.parametrize("when", range(1, 30, 3))
def test_an_interrupt_anywhere_leaves_no_lora_on(pipeline, adapters, both, tmp_path, monkeypatch, when):
    """On its way in, within the block and on its way out: what is drawn next is plain."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapters.load(written(tmp_path, both), "style")
    before, plain = bare(pipeline), drawn(pipeline)
    calls = 0

    def interrupted(method):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == when:
                raise Stop
            return method(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("set_adapter", "enable_adapters"):
            patch.setattr(BaseTunerLayer, name, interrupted(getattr(BaseTunerLayer, name)))
        with pytest.raises(Stop), adapters.on({"style": 1.0}):
            pass
    assert state(pipeline) == before
    assert torch.equal(drawn(pipeline), plain)


def test_an_error_within_the_block_leaves_no_lora_on(pipeline, adapters, lora):
    adapters.load(lora, "style")
    before = bare(pipeline)
    with pytest.raises(RuntimeError, match="broken"), adapters.on({"style": 1.0}):
        raise RuntimeError("broken")
    assert state(pipeline) == before


# Others


def test_loras_of_the_user_stay_as_they_are(pipeline, adapters, lora, both, tmp_path):
    pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="theirs")
    pipeline.set_adapters(["theirs"], [0.3])
    before, theirs = bare(pipeline), drawn(pipeline)
    adapters.load(written(tmp_path, both), "theirs")  # the same name, which is nobody's concern
    assert pipeline.get_active_adapters() == ["theirs"]
    assert torch.equal(drawn(pipeline), theirs)
    with adapters.on({"theirs": 1.0}):
        assert not torch.equal(drawn(pipeline), theirs)
    assert torch.equal(drawn(pipeline), theirs)
    adapters.unload()
    assert state(pipeline) == before


def test_a_lora_that_the_user_has_switched_off_stays_off(pipeline, adapters, lora, both, tmp_path):
    plain = drawn(pipeline)
    pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="theirs")
    pipeline.disable_lora()
    before = bare(pipeline)
    file = written(tmp_path, both)
    adapters.load(file, "style")
    assert torch.equal(drawn(pipeline), plain)
    with adapters.on({"style": 1.0}):
        on = drawn(pipeline)
    alone = make_pipeline()
    others = Adapters(alone)
    others.load(file, "style")
    with others.on({"style": 1.0}):
        assert torch.equal(drawn(alone), on)
    assert torch.equal(drawn(pipeline), plain)
    adapters.unload()
    assert state(pipeline) == before


def test_two_on_one_pipeline_never_touch_each_others(pipeline, lora, both, tmp_path):
    first, second = Adapters(pipeline), Adapters(pipeline)
    first.load(lora, "style")
    with first.on({"style": 1.0}):
        expected = drawn(pipeline)
    second.load(written(tmp_path, both), "style")
    with pytest.raises(ValueError, match="another adapter 'style' is loaded already"):
        second.load(lora, "style")
    with first.on({"style": 1.0}):
        assert torch.equal(drawn(pipeline), expected)
    second.unload()
    assert first.names == ["style"]
    with first.on({"style": 1.0}):
        assert torch.equal(drawn(pipeline), expected)


def test_two_models_on_one_pipeline_keep_their_own(lora, both, tmp_path):
    pipeline = make_pipeline()
    one, other = Model(pipeline, reuse=0), Model(pipeline, reuse=0)
    one.load_lora(lora, "style")
    on = one.trace(prompt="a fox", steps=2, adapters={"style": 1}).final
    other.load_lora(written(tmp_path, both), "style")
    other.unload_loras()
    assert torch.equal(one.trace(prompt="a fox", steps=2, adapters={"style": 1}).final, on)


def test_what_was_taken_out_by_hand_is_said_and_can_be_loaded_again(pipeline, adapters, lora):
    adapters.load(lora, "style")
    pipeline.unload_lora_weights()
    with pytest.raises(ValueError, match="'style' was taken out of the pipeline by hand"), adapters.on({"style": 1}):
        pass
    adapters.load(lora, "style")
    with adapters.on({"style": 1}):
        pass


def test_loras_that_are_fused_stay_so_and_others_are_refused_beside_them(pipeline, adapters, lora, both, tmp_path):
    pipeline.load_lora_weights(str(lora.parent), weight_name=lora.name, adapter_name="theirs")
    pipeline.fuse_lora()
    fused = drawn(pipeline)
    with pytest.raises(ValueError, match="cannot be loaded into this model: LoRAs are fused"):
        adapters.load(written(tmp_path, both))
    assert torch.equal(drawn(pipeline), fused)
    pipeline.unfuse_lora()
    adapters.load(lora, "style")
    pipeline.fuse_lora(adapter_names=["theirs"])
    with pytest.raises(ValueError, match="switched on: LoRAs are fused"), adapters.on({"style": 1}):
        pass


def test_one_that_is_not_loaded_is_refused(adapters, lora):
    adapters.load(lora, "style")
    with pytest.raises(ValueError, match=r"has no adapter 'other': \['style'\]"), adapters.on({"other": 1}):
        pass
