"""looks/foreign.py: recipes of ComfyUI, InvokeAI, Fooocus and SwarmUI as settings, and a hundred hostile files."""

import io
import json
import struct
import sys
import zlib

import pytest
from PIL import Image, PngImagePlugin

from diffexplore.looks.chunks import MAX_TEXT
from diffexplore.looks.marks import sources
from diffexplore.looks.recipe import KEY, read_recipe, recipe_in
from diffexplore.settings import Settings


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(**texts):
    pieces = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        pieces.add_itxt(key.replace("_metadata_", "-metadata"), text)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=pieces)
    return buffer.getvalue()


def comfy(latent=(512, 768), **sampler):
    """A graph as ComfyUI's own example has it, with a LoRA between the checkpoint and the sampler."""
    inputs = {
        "seed": 156680208700286, "steps": 25, "cfg": 8, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1,
        "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
    }  # fmt: skip
    return {
        "3": {"inputs": inputs | sampler, "class_type": "KSampler"},
        "4": {"inputs": {"ckpt_name": "v1-5.safetensors"}, "class_type": "CheckpointLoaderSimple"},
        "5": {
            "inputs": {"width": latent[0], "height": latent[1], "batch_size": 1}, "class_type": "EmptyLatentImage",
        },
        "6": {"inputs": {"text": "a fox <b>", "clip": ["10", 1]}, "class_type": "CLIPTextEncode"},
        "7": {"inputs": {"text": "blurry", "clip": ["10", 1]}, "class_type": "CLIPTextEncode"},
        "8": {"inputs": {"samples": ["3", 0], "vae": ["4", 2]}, "class_type": "VAEDecode"},
        "9": {"inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}, "class_type": "SaveImage"},
        "10": {
            "inputs": {
                "lora_name": "styles/ink.safetensors", "strength_model": 0.75, "strength_clip": 1.0,
                "model": ["4", 0], "clip": ["4", 1],
            },
            "class_type": "LoraLoader",
        },
    }  # fmt: skip


FOX = Settings(
    prompt="a fox <b>", negative_prompt="blurry", steps=25, guidance=8.0, seed=156680208700286,
    sampler="DPM++ 2M Karras", width=512, height=768, adapters={"ink": 0.75},
)  # fmt: skip
LORA = "load its LoRAs before you draw: 'ink'"


def test_comfyui_with_its_graph_alone_or_with_a_workflow():
    for texts in ({"prompt": json.dumps(comfy())}, {"prompt": json.dumps(comfy()), "workflow": '{"nodes": []}'}):
        assert recipe_in(png(**texts)) == (FOX, [LORA])


def test_comfyui_in_a_webp_as_its_nodes_write_it():
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "workflow:{}", "prompt:" + json.dumps(comfy())
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "WEBP", exif=exif)
    assert recipe_in(buffer.getvalue()).settings == FOX


def test_of_two_passes_the_first_is_taken_and_the_second_said():
    graph = comfy()
    graph["11"] = {"inputs": {"samples": ["3", 0], "scale_by": 1.5}, "class_type": "LatentUpscaleBy"}
    graph = {"2": {"inputs": comfy()["3"]["inputs"] | {"latent_image": ["11", 0], "denoise": 0.5, "seed": 1}}} | graph
    graph["2"]["class_type"] = "KSampler"
    assert recipe_in(png(prompt=json.dumps(graph))) == (FOX, ["left out a second pass", LORA])
    graph["3"]["inputs"]["positive"] = ["12", 0]
    graph["12"] = {"inputs": {"conditioning": ["6", 0], "strength": 0.8}, "class_type": "ControlNetApply"}
    found = recipe_in(png(prompt=json.dumps(graph)))
    assert found == (FOX, ["left out a second pass", LORA, "left out the node 'ControlNetApply'"])


def test_what_a_comfyui_sampler_says_beyond_settings_is_said():
    settings, notes = recipe_in(png(prompt=json.dumps(comfy(scheduler="sgm_uniform", denoise=0.6, noise_seed=3))))
    assert settings.sampler == "DPM++ 2M"
    assert notes[0] == "no DPM++ 2M here has the noise levels 'sgm_uniform', it is drawn with its plain ones"
    assert "left out denoise 0.6" in notes


INVOKE = {
    "app_version": "5.4.0", "generation_mode": "sdxl_txt2img", "positive_prompt": "a fox", "negative_prompt": "blurry",
    "width": 832, "height": 1216, "seed": 77, "rand_device": "cpu", "cfg_scale": 5.5, "cfg_rescale_multiplier": 0,
    "steps": 30, "scheduler": "dpmpp_2m_k", "model": {"key": "1", "hash": "2", "name": "Juggernaut", "base": "sdxl"},
    "loras": [{"model": {"key": "3", "name": "ink"}, "weight": 0.75}], "clip_skip": 2,
}  # fmt: skip


def test_invokeai_of_today_and_of_before():
    settings, notes = recipe_in(png(invokeai_metadata=json.dumps(INVOKE)))
    assert settings == Settings(
        prompt="a fox", negative_prompt="blurry", steps=30, guidance=5.5, seed=77, sampler="DPM++ 2M Karras",
        width=832, height=1216, adapters={"ink": 0.75},
    )  # fmt: skip
    assert notes == [LORA, "left out clip_skip 2"]
    before = {"prompt": [{"prompt": "a fox [blurry]", "weight": 1}], "sampler": "k_euler_a", "steps": 9}
    image = before | {"cfg_scale": 7, "seed": 3, "width": 512, "height": 512, "type": "txt2img"}
    found = recipe_in(png(sd_metadata_=json.dumps({"model_weights": "sd-1.5", "image": image})))
    fox = Settings(
        prompt="a fox", negative_prompt="blurry", steps=9, guidance=7.0, seed=3, sampler="Euler a", width=512,
        height=512,
    )  # fmt: skip
    assert found == (fox, [])
    assert recipe_in(png(Dream='"a fox [blurry]" -s 9 -S 3 -W 512 -H 512 -C 7 -A k_euler_a')) == (fox, [])


def test_fooocus_in_its_own_form_and_in_the_common_one():
    own = {
        "adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "juggernautXL", "base_model_hash": "ab12", "clip_skip": 1,
        "guidance_scale": 4.0, "loras": [["ink.safetensors", 0.75, "ff"]], "metadata_scheme": "fooocus",
        "negative_prompt": "blurry", "performance": "Speed", "prompt": "a fox", "resolution": "(896, 1152)",
        "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "seed": "123", "sharpness": 2.0, "steps": 30,
        "styles": "['Fooocus V2']", "version": "Fooocus v2.5.5",
    }  # fmt: skip
    settings, notes = recipe_in(png(parameters=json.dumps(own), fooocus_scheme="fooocus"))
    assert settings == Settings(
        prompt="a fox", negative_prompt="blurry", steps=30, guidance=4.0, seed=123, sampler="DPM++ 2M SDE Karras",
        width=896, height=1152, adapters={"ink": 0.75},
    )  # fmt: skip
    assert notes[0] == LORA
    assert "styles \"['Fooocus V2']\"" in notes[1]
    common = png(parameters="a fox\nSteps: 30, Sampler: Euler, Seed: 1", fooocus_scheme="a1111")
    assert recipe_in(common) == (Settings(prompt="a fox", steps=30, sampler="Euler", seed=1), [])


def test_swarmui_in_a_png_and_in_a_jpeg():
    given = {
        "prompt": "a fox", "negativeprompt": "blurry", "model": "sdxl", "seed": 5, "steps": 20, "cfgscale": 7.0,
        "aspectratio": "1:1", "width": 1024, "height": 1024, "sampler": "euler_ancestral", "scheduler": "normal",
        "loras": ["ink"], "loraweights": ["0.75"], "swarm_version": "0.9.5.1", "refinerupscale": 1.5,
    }  # fmt: skip
    text = json.dumps({"sui_image_params": given, "sui_extra_data": {"date": "2026-01-01"}})
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode("utf-16-be")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG", exif=exif)
    for data in (png(parameters=text), buffer.getvalue()):
        assert recipe_in(data) == (
            Settings(
                prompt="a fox", negative_prompt="blurry", steps=20, guidance=7.0, seed=5, sampler="Euler a",
                width=1024, height=1024, adapters={"ink": 0.75},
            ),
            [LORA, "left out refinerupscale 1.5"],
        )  # fmt: skip


def test_without_the_library_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sd_parsers", None)
    with pytest.raises(ValueError, match=r"of ComfyUI, which is read by sd-parsers: pip install 'diffexplore\[recipes"):
        recipe_in(png(prompt=json.dumps(comfy())))
    assert recipe_in(png(parameters="a fox\nSteps: 3")) == (Settings(prompt="a fox", steps=3), [])


# What is hostile


def deep(n):
    return "[" * n + "]" * n


def exif(entries, inner=b"", tail=b"", order="<"):
    """A TIFF of one directory; entries are (tag, kind, count, where)."""
    packed = b"".join(struct.pack(f"{order}HHII", *one) for one in entries)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, min(len(entries), 65_535))
    return head + packed + inner + tail


def as_jpeg(tiff):
    data = b"Exif\0\0" + tiff
    return b"\xff\xd8\xff\xe1" + struct.pack(">H", len(data) + 2) + data + b"\xff\xd9"


def as_webp(tiff, said=None):
    body = b"WEBP" + b"EXIF" + struct.pack("<I", len(tiff) if said is None else said) + tiff
    return b"RIFF" + struct.pack("<I", len(body)) + body


def in_png(*pieces):
    data = png()
    return data[:-12] + b"".join(pieces) + data[-12:]


def graph_of(n, **more):
    """Samplers in a chain, each with a text of its own: a library that walks from each takes n cubed."""
    chain = {}
    for k in range(n):
        inputs = {"sampler_name": "euler", "scheduler": "", "steps": 3, "cfg": 2, "model": [str(k + 1), 0]} | more
        chain[str(k)] = {"class_type": "KSampler", "inputs": inputs | {"positive": [str(k + 1), 0]}}
    return json.dumps(chain)


BIDI = "\u202eevil\u2066\u200f\x1b[31m\0"
WRONG = ("true", "null", '"x"', "[1]", "{}", "-1", "1e999", "NaN", "1" * 5000, '"\\ud800"', "3.5")


def hostile():
    """Name -> bytes of a file."""
    graph = {name: json.dumps(comfy(**{name: 0})).replace(f'"{name}": 0', f'"{name}": %s') for name in ("steps", "cfg")}
    graph["seed"] = json.dumps(comfy(seed="%s")).replace('"%s"', "%s")
    for value in WRONG:
        for field in ("steps", "cfg", "seed"):
            yield f"ComfyUI {field} {value[:9]}", png(prompt=graph[field] % value)
        for field in ("scheduler", "cfg_scale", "width", "loras"):
            text = json.dumps(INVOKE | {field: "%s"}).replace('"%s"', value)
            yield f"InvokeAI {field} {value[:9]}", png(invokeai_metadata=text)
        yield f"ours {value[:9]}", png(**{KEY: f'{{"settings": {{"steps": {value}, "prompt": {value}}}}}'})
        yield f"ours whole {value[:9]}", png(**{KEY: value})
        yield f"SwarmUI {value[:9]}", png(parameters=f'{{"sui_image_params": {value}}}')
        yield f"Fooocus {value[:9]}", png(parameters=f'{{"base_model": {value}, "steps": {value}}}')
    for key in (
        KEY,
        "parameters",
        "prompt",
        "workflow",
        "invokeai_metadata",
        "sd_metadata_",
        "Dream",
        "fooocus_scheme",
    ):
        yield f"{key} deep", png(**{key: deep(100_000)})
        yield f"{key} deep in an object", png(**{key: '{"a":' * 50_000 + "1" + "}" * 50_000})
        yield f"{key} huge", png(**{key: "x" * (MAX_TEXT + 1)})
        yield f"{key} blanks", png(**{key: f'"a" {" " * 900_000}-'})
        yield f"{key} brackets", png(**{key: '"' + "[<lora:" * 120_000})
        yield f"{key} commas", png(**{key: "Steps: 3" + ', a"' * 200_000})
        yield f"{key} bidi", png(**{key: BIDI})
        yield f"{key} empty", png(**{key: ""})
        packed = zlib.compress(bytes(10**8))
        name = key.encode()
        yield f"{key} zTXt bomb", in_png(chunk(b"zTXt", name + b"\0\0" + packed))
        yield f"{key} iTXt bomb", in_png(chunk(b"iTXt", name + b"\0\1\0\0\0" + packed))
    yield "a million samplers", png(prompt=graph_of(4000))
    yield "a ring of nodes", png(prompt=graph_of(3).replace('"3"', '"0"'))
    yield "a graph with no sampler", png(prompt='{"1": {"inputs": {}}}')
    yield "nodes that are none", png(prompt='{"1": [], "2": {"inputs": 3}, "3": {"inputs": {"steps": 1}}}')
    yield "bidi in a LoRA", png(prompt=json.dumps(comfy()).replace("ink", "\\u202eink"), workflow="{}")
    yield "bidi in a key", png(invokeai_metadata=json.dumps(INVOKE | {BIDI: BIDI}))
    yield "100,000 keys", png(invokeai_metadata=json.dumps(INVOKE | {f"k{k}": k for k in range(50_000)}))
    yield "100,000 LoRAs", png(parameters="a" + "<lora:a:x>" * 50_000 + "\nSteps: 3")
    yield "many bombs", in_png(*[chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(4 * 2**20)))] * 1000)
    for name, wrap in (("JPEG", as_jpeg), ("WebP", as_webp), ("PNG", lambda tiff: in_png(chunk(b"eXIf", tiff)))):
        yield f"{name} no EXIF at all", wrap(b"")
        yield f"{name} EXIF of noise", wrap(bytes(range(256)) * 4)
        yield f"{name} a directory beyond the end", wrap(b"II*\0\xff\xff\xff\xff")
        yield f"{name} lying count of tags", wrap(exif([])[:8] + b"\xff\xff")
        yield f"{name} a directory that is its own", wrap(exif([(0x8769, 4, 1, 8)]))
        yield f"{name} lying length", wrap(exif([(0x010E, 2, 2**32 - 1, 8)]))
        many = exif([(k, 2, 2**32 - 1, 8) for k in range(5_000)])
        yield f"{name} many tags of one text", wrap(many)
        bad = exif(
            [(0x8769, 4, 1, 26)], struct.pack("<HHHII", 1, 0x9286, 7, 2000, 44), b"UNICODE\0" + b"\xff\xd8" * 996
        )
        yield f"{name} half surrogates", wrap(bad)
    big = b"".join([exif([(k, 2, 2**32 - 1, 8) for k in range(65_535)]), bytes(3 * 2**20)])
    yield "WebP 65,535 tags of four megabytes", as_webp(big)
    yield "WebP that lies about its EXIF", as_webp(b"II", 2**32 - 1)
    yield "WebP cut", as_webp(exif([]))[:-3]
    yield "PNG whose pieces are of no length", png()[:33] + bytes(12) * 9
    yield "PNG that lies about a text", png()[:33] + struct.pack(">I", 2**31 - 1) + b"tEXtprompt\0{}"
    yield "PNG with a broken sum", in_png(chunk(b"tEXt", b"prompt\0{}")[:-1] + b"x")
    yield "PNG with a text that is no UTF-8", in_png(chunk(b"iTXt", b"prompt\0\0\0\0\0\xff\xfe"))
    yield "PNG with a text that is not packed", in_png(chunk(b"zTXt", b"prompt\0\0nothing"))
    yield "JPEG of markers", b"\xff\xd8" + b"\xff" * 900_000
    yield "JPEG of empty pieces", b"\xff\xd8" + b"\xff\xe1\0\2" * 200_000


def said_of(data):
    """What is said of a file: the sentence that refuses it, or the notes beside settings that are checked."""
    try:
        settings, notes = recipe_in(data, BIDI)
    except ValueError as error:
        return str(error)
    assert Settings.from_json(settings.to_json()) == settings
    return "; ".join(notes)


def test_a_hostile_file_gets_one_sentence_or_settings_that_are_checked():
    """Whatever is in it; nothing that turns a line round, starts a new one or speaks to a terminal."""
    names, wrong = set(), []
    for name, data in hostile():
        names.add(name)
        assert sources(data) == [], f"{name}: nothing in it says that a model made it"
        said = said_of(data)
        if len(said) > 1500 or not said.isprintable():
            wrong.append((name, said[:300]))
    assert wrong == []
    assert len(names) > 200, "kinds"


def test_what_no_picture_is_is_refused_before_it_is_opened(tmp_path):
    for path in (tmp_path, "~nobody-at-all/a.png", "x" * 5000, "a\0.png"):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            read_recipe(path)
