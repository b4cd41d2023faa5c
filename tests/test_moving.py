"""Video and sound from end to end: small real pipelines, through the views, files, films and pages, as a user goes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from moving import sound, video
from PIL import Image
from tiny_any import CASES, of, pipeline, short, t5
from tiny_families import characters, ddim

import diffexplore as dx
from diffexplore import read_recipe
from diffexplore.looks import sounds
from diffexplore.looks.views import VIEWS, plane_of
from diffexplore.record.kept import frames_of, samples_of
from diffexplore.trace import Trace
from diffexplore.widgets.film import Film, pack, unpack
from diffexplore.widgets.handin import captions, poster
from diffexplore.widgets.viewer import Viewer
from diffexplore.widgets.what_if import WhatIf

RATE = 8000


def opened(name: str) -> Trace:
    case = CASES[name]
    width, height = case.sized
    settings = dx.Settings(prompt="a red fox", steps=3, guidance=5.0, seed=3, width=width, height=height)
    return dx.load(pipeline(name), reuse=0).trace(settings, **case.extra())


@pytest.fixture(scope="module")
def ltx() -> Trace:
    return opened("LTXPipeline")


@pytest.fixture(scope="module")
def audio() -> Trace:
    """Half a second of a real sound pipeline with random weights."""

    def transformer():
        from diffusers import StableAudioDiTModel

        return StableAudioDiTModel(
            sample_size=128,
            in_channels=3,
            num_layers=1,
            attention_head_dim=4,
            num_attention_heads=2,
            num_key_value_attention_heads=2,
            out_channels=3,
            cross_attention_dim=4,
            time_proj_dim=8,
            global_states_input_dim=8,
            cross_attention_input_dim=4,
        ).eval()

    def vae():
        from diffusers import AutoencoderOobleck

        return AutoencoderOobleck(
            encoder_hidden_size=6,
            downsampling_ratios=[4, 8],
            decoder_channels=3,
            decoder_input_channels=3,
            audio_channels=2,
            channel_multiples=[2, 4],
            sampling_rate=RATE,
        ).eval()

    from tiny_any import cosine, sound_words

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        made = of(
            "StableAudioPipeline",
            "",
            transformer=transformer,
            vae=vae,
            scheduler=cosine,
            projection_model=sound_words,
            text_encoder=t5,
            tokenizer=short,
        )()
    made.set_progress_bar_config(disable=True)
    return dx.load(made, reuse=0).trace(dx.Settings(prompt="rain", steps=3, guidance=5.0, seed=3))


# --- video ---


def test_every_frame_of_a_step_is_what_its_call_makes_of_it(ltx: Trace) -> None:
    assert ltx.frames == len(ltx.output) == 9
    decoded = ltx.decode(ltx[0].x0)
    for k in (0, 4, 8, -1):
        assert np.array_equal(np.asarray(ltx.view("x0", 0, frame=k)), decoded[k])
    assert np.array_equal(np.asarray(ltx.view("x0", 2, frame=3)), np.asarray(ltx.output[3]))
    assert np.array_equal(np.asarray(ltx.view("x0", 0)), decoded[4]), "the middle one"
    assert ltx.view("latents", 0, frame=0).size == (64, 32)
    assert not np.array_equal(ltx.view("latents", 0, frame=0), ltx.view("latents", 0, frame=8))


def test_frames_lie_in_the_planes_of_the_latents_as_autoencoders_pack_them() -> None:
    assert [plane_of(k, 9, 3) for k in range(9)] == [0, 1, 1, 1, 1, 2, 2, 2, 2]  # causal: LTX, Wan
    assert [plane_of(k, 8, 2) for k in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [plane_of(k, 5, 5) for k in range(5)] == list(range(5))
    assert [plane_of(k, 49, 13) for k in (0, 1, 4, 5, 48)] == [0, 1, 1, 2, 12]
    assert {plane_of(k, 7, 1) for k in range(7)} == {0}


def test_a_frame_that_is_not_there_is_named(ltx: Trace, audio: Trace, tiny_trace: Trace) -> None:
    for wrong in (9, -10, 1.5, "3", True):
        with pytest.raises(ValueError, match="frame must be from 0 to 8, or from -9 counted from the end; got"):
            ltx.view("x0", 0, frame=wrong)
    with pytest.raises(ValueError, match="this run made a sound, which has no frames: got frame 0"):
        audio.view("x0", 0, frame=0)
    with pytest.raises(ValueError, match="this run made a picture, which has no frames"):
        tiny_trace.view("x0", 0, frame=0)


@pytest.mark.parametrize("name", ["WanPipeline", "CogVideoXPipeline", "AnimateDiffPipeline"])
def test_other_video_pipelines_have_films_of_all_their_frames(name: str) -> None:
    trace = opened(name)
    film = Film.of(trace)
    assert film.complete
    assert film.reel["shown"] == list(range(len(trace.output)))
    for k in range(len(trace.output)):
        key = "x0" if k == film.reel["middle"] else f"x0@{k}"
        assert ("change", 2) in film.frames
        assert (key, 2) in film.frames


def test_a_film_survives_packing_and_a_saved_run_looks_as_the_run_did(ltx: Trace, tmp_path: Path) -> None:
    film = Film.of(ltx)
    document, data = pack([film])
    (back,) = unpack(json.loads(json.dumps(document)), data)
    assert (back.frames, back.reel, back.digest) == (film.frames, film.reel, film.digest)
    ltx.save(tmp_path / "run.safetensors")
    loaded = Trace.load(tmp_path / "run.safetensors")
    assert (loaded.kind, loaded.frames, loaded.info["fps"]) == ("video", 9, 25)
    assert all(np.array_equal(a, b) for a, b in zip(loaded.output, ltx.output, strict=True))
    assert Film.of(loaded).frames == film.frames, "kept without loss at this size"
    ltx.save(tmp_path / "small.safetensors", pictures=False)
    plain = Trace.load(tmp_path / "small.safetensors")
    assert plain.view("x0", 0, frame=8).size == (64, 32), "linear colours"


def test_a_run_that_was_stopped_has_the_frames_of_its_latents() -> None:
    trace = video()
    stopped = Trace(trace.settings, list(trace)[:2], cancelled=True)
    assert stopped.frames == 3
    film = Film.of(stopped)
    assert film.reel["shown"] == [0, 1, 2]
    assert film.complete


# --- sound ---


def test_a_sound_is_seen_and_heard_at_every_step(audio: Trace) -> None:
    assert audio.output.shape[0] == 2
    assert audio.info["rate"] == RATE
    np.testing.assert_array_equal(audio.decode(audio.final), audio.output)
    assert audio.view("x0", 0).size == audio.view("latents", 0).size == (640, 320)
    film = Film.of(audio)
    assert film.complete
    assert film.sound["seconds"] == pytest.approx(audio.output.shape[1] / RATE)
    assert {film.frames["sound", i].format for i in range(3)} == {film.frames["end", 0].format} == {"wav"}
    assert film.final is not None
    assert [step[4] for step in film.steps] == [()] * 3, "no spectrum of scales: one axis is time"


def test_a_saved_sound_is_the_same_sound(audio: Trace, tmp_path: Path) -> None:
    audio.save(tmp_path / "run.safetensors")
    loaded = Trace.load(tmp_path / "run.safetensors")
    np.testing.assert_array_equal(loaded.output, audio.output)
    np.testing.assert_allclose(loaded.picture(1), np.clip(audio.decode(audio[1].x0), -1, 1), atol=2e-5)
    film, again = Film.of(audio), Film.of(loaded)
    assert film.digest == again.digest
    assert film.frames["end", 0] == again.frames["end", 0]


def test_a_spectrogram_that_a_vocoder_plays_has_time_from_left_to_right_and_frequencies_upwards() -> None:
    """AudioLDM: the latents are those of a mel spectrogram, (channels, time, frequency)."""
    from diffusers import AudioLDMPipeline, AutoencoderKL, UNet2DConditionModel
    from transformers import ClapTextConfig, ClapTextModelWithProjection, SpeechT5HifiGan, SpeechT5HifiGanConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        unet = UNet2DConditionModel(
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=8,
            sample_size=32,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=(8, 16),
            class_embed_type="simple_projection",
            projection_class_embeddings_input_dim=8,
            class_embeddings_concat=True,
        )
        vae = AutoencoderKL(
            block_out_channels=[8, 16],
            in_channels=1,
            out_channels=1,
            norm_num_groups=8,
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
        )
        words = ClapTextModelWithProjection(
            ClapTextConfig(
                hidden_size=8, intermediate_size=16, num_attention_heads=1, num_hidden_layers=1, projection_dim=8
            )
        )
        vocoder = SpeechT5HifiGan(
            SpeechT5HifiGanConfig(
                model_in_dim=8,
                sampling_rate=16_000,
                upsample_initial_channel=16,
                upsample_rates=[2, 2],
                upsample_kernel_sizes=[4, 4],
                normalize_before=False,
            )
        )
    parts = {"unet": unet.eval(), "vae": vae.eval(), "text_encoder": words.eval(), "vocoder": vocoder.eval()}
    made = AudioLDMPipeline(**parts, tokenizer=characters(64), scheduler=ddim())
    made.set_progress_bar_config(disable=True)
    asked = dx.Settings(prompt="rain", steps=2, guidance=3.0, seed=1)
    trace = dx.load(made, reuse=0).trace(asked, audio_length_in_s=0.1)
    assert trace.axes == ("channels", "time", "frequency")
    assert (trace.output.shape, trace.info["rate"]) == ((1, 1600), 16_000)
    np.testing.assert_array_equal(trace.decode(trace.final), trace.output)
    (channels, time, frequencies) = trace[0].shape
    assert sounds.table(trace, "latents", 0).shape == (channels, frequencies, time)
    assert Film.of(trace).complete


def test_an_explorer_of_a_video_model_has_all_frames_and_its_code_plays_them() -> None:
    model = dx.load(pipeline("LTXPipeline"))
    explorer = dx.Explorer(model, prompt="a fox", steps=2, width=64, height=32, num_frames=9)
    explorer.run()
    (film,) = explorer.viewer.shown()
    assert film.complete
    assert film.reel["shown"] == list(range(9))
    assert explorer.code().endswith("num_frames=9,\n)\ndx.Replay(trace)\n")
    explorer.close()
    columns = {"weak": {"guidance": 1.5}, "strong": {"guidance": 6.0}}
    compare = dx.Compare(columns, model, prompt="a fox", steps=2, width=64, height=32, num_frames=9)
    compare.run()
    weak, strong = compare.viewer.shown()
    assert weak.reel == strong.reel
    assert weak.digest != strong.digest
    compare.close()


# --- both ---


def test_a_page_of_each_carries_all_of_it(tmp_path: Path) -> None:
    for made in (video(), sound()):
        made.to_html(tmp_path / "run.html")
        page = (tmp_path / "run.html").read_text("utf-8")
        data = re.search(r'id="dx-data">(.*?)</script>', page, re.DOTALL)
        (film,) = json.loads(data[1])["traits"]["_film"]["films"]
        rows = {name: [one for one in row if one] for name, row in film["frames"].items()}
        assert all(len(rows[kind]) == 3 for kind in VIEWS)
        if made.frames:
            assert len([name for name in rows if name.startswith("x0@")]) == 8
            assert len([name for name in rows if name.startswith("latents@")]) == 3, "as many as there are planes"
        else:
            assert (len(rows["sound"]), len(rows["end"])) == (3, 1)


def test_a_video_is_saved_as_an_animation_or_as_a_sheet_with_its_recipe(tmp_path: Path) -> None:
    trace = video()
    for name in ("run.webp", "run.png", "run.jpg", "run.gif"):
        trace.save_image(tmp_path / name)
        if name != "run.gif":
            assert read_recipe(tmp_path / name).prompt == "a square"
    with Image.open(tmp_path / "run.webp") as animation:
        assert (animation.n_frames, animation.info["loop"]) == (9, 0)
        for k in range(9):
            animation.seek(k)
            assert np.array_equal(np.asarray(animation.convert("RGB")), np.asarray(trace.output[k]))
            assert animation.info["duration"] == 125
    assert Image.open(tmp_path / "run.gif").n_frames == 9
    pixels = np.asarray(Image.open(tmp_path / "run.png").convert("RGB"))
    assert np.array_equal(frames_of(pixels, 9), np.stack([np.asarray(one) for one in trace.output]))
    with pytest.raises(ValueError, match=r"a video is saved as .webp or .gif, an animation, or as .png"):
        trace.save_image(tmp_path / "run.mp4")
    with pytest.raises(ValueError, match="the run made a video, not a sound: save_image writes it"):
        trace.save_sound(tmp_path / "run.wav")


def test_a_sound_is_saved_as_wav_and_never_as_a_picture(tmp_path: Path) -> None:
    trace = sound()
    trace.save_sound(tmp_path / "run.wav")
    samples, rate = samples_of((tmp_path / "run.wav").read_bytes())
    assert rate == 16_000
    np.testing.assert_allclose(samples, trace.output, atol=2e-5)
    with pytest.raises(ValueError, match="the run made a sound, not a picture: save_sound writes it"):
        trace.save_image(tmp_path / "run.png")
    with pytest.raises(ValueError, match=r"a sound is saved as .wav; got '.*run.mp3'"):
        trace.save_sound(tmp_path / "run.mp3")
    with pytest.raises(ValueError, match="no final sound to save: it has 2 of 3 steps"):
        Trace(trace.settings, list(trace)[:2], info=trace.info, expected=3).save_sound(tmp_path / "no.wav")


def texts(figure) -> set[str]:
    return {one.get_text() for one in figure.findobj(lambda one: hasattr(one, "get_text"))}


def test_a_figure_has_a_row_of_frames_for_each_step_or_what_was_heard(audio: Trace) -> None:
    assert {"frame 1", "frame 9", "step 1", "step 3", "the video", "how the video settles"} <= texts(video().plot())
    for trace in (sound(), audio):
        figure = trace.plot()
        assert {"waveform", "the sound", "kHz", "dBFS", "how the sound settles"} <= texts(figure)
        assert figure._repr_png_()[0][:4] == b"\x89PNG"


def test_what_stands_for_a_widget_that_is_handed_in_shows_frames_of_each_step() -> None:
    film = Film.of(video())
    picture = np.asarray(poster([film])).astype(int)
    first, *_, last = captions("Replay", [film])
    assert "a square" in first
    assert (
        last
        == "Frames 1, 3, 4, 6, 7, 9 of 9, from left to right; from top to bottom the estimate at steps 1, 2, 3 of 3."
    )
    bright = (picture[:60].max(axis=(0, 2)) > 170).nonzero()[0]
    assert bright.max() - bright.min() > 600, "the square is at the left in the first frame, at the right in the last"
    assert "spectrogram of the finished sound" in captions("Replay", [Film.of(sound())])[-1]


@pytest.mark.parametrize("k", [0, 8])
def test_what_if_is_asked_of_the_frame_on_show(k: int) -> None:
    trace = video()
    told, (data,) = WhatIf(Viewer(), {1: [trace]}.get).answer(1, 0.5, [2], [k])
    assert told == [""]
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(shown - np.asarray(trace.view("x0", 2, 160, frame=k))).max() <= 1
    told, _ = WhatIf(Viewer(), {1: [trace]}.get).answer(1, 0.5, [2], [99])
    assert "frame must be from 0 to 8" in told[0]


def test_a_run_that_goes_shows_its_middle_frame_and_has_them_all_at_its_end() -> None:
    whole = video()
    going = Trace(whole.settings, info=dict(whole.info))
    viewer = Viewer()
    feed = viewer.feed({"": going}, here=True)
    for step in whole:
        going.append(step)
        viewer._turn()
    assert {kind for kind, _ in feed.films[0].frames} <= set(VIEWS)
    going.output, going.image = whole.output, whole.image
    going.lend(whole.decode, None)
    viewer.end(feed, "done")
    viewer.drive(feed.complete.is_set)
    (film,) = viewer.shown()
    assert film.frames["x0@8", 0].data == Film.of(whole).frames["x0@8", 0].data
    assert film.reel["shown"] == list(range(9))


def test_files_that_say_what_cannot_be_are_refused(tmp_path: Path) -> None:
    trace = video()
    trace.info["frames"] = -1
    with pytest.raises(ValueError, match="frames must be a number of frames up to 10000, got -1"):
        trace.save(tmp_path / "run.safetensors")
    trace = sound()
    trace.output = np.zeros((0, 0), np.float32)
    with pytest.raises(ValueError, match=r"sound must be float32 \(channels, samples\)"):
        trace.save(tmp_path / "run.safetensors")
