"""forward.py: the noise is exact, the levels are the model's own, and any picture is taken."""

import copy
import random
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from diffexplore.experiments.forward import forward, levels
from diffexplore.looks.pictures import fit
from diffexplore.trace import Trace

if TYPE_CHECKING:
    from diffexplore.model import Model

WIDTH, HEIGHT = 48, 32


def picture(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Not the same in any two directions."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, (x * y) % 256], axis=-1).astype(np.uint8))


def scaled_linear() -> np.ndarray:
    """alphas_cumprod of the tiny pipeline's schedule, from its definition."""
    return np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)


def encode(model: "Model", image: Image.Image) -> torch.Tensor:
    """What diffusers' image-to-image pipelines do."""
    vae = model.pipeline.vae
    values = model.pipeline.image_processor.preprocess(image)
    with torch.no_grad():
        return vae.encode(values).latent_dist.mode()[0] * vae.config.scaling_factor


def test_noise_and_picture_are_exact(tiny_model: "Model") -> None:
    trace = forward(tiny_model, picture(), steps=7, seed=5)
    clean = encode(tiny_model, picture())
    noise = torch.randn(1, 4, 8, 12, generator=torch.Generator().manual_seed(5))[0]
    assert len(trace) == trace.expected == 7
    torch.testing.assert_close(trace.final, clean, rtol=0, atol=1e-5)
    for step in trace:
        torch.testing.assert_close(step.noise, noise, rtol=0, atol=1e-5)
        torch.testing.assert_close(step.x0, clean, rtol=0, atol=1e-5)
        torch.testing.assert_close(step.latents, step.a * clean + step.b * noise, rtol=0, atol=1e-5)


def test_the_package_lends_the_function() -> None:
    import diffexplore as dx

    assert dx.forward is forward


def test_it_runs_from_the_cleanest_level_to_the_noisiest(tiny_model: "Model") -> None:
    trace = forward(tiny_model, picture(), steps=4)
    assert trace.curve("timestep").tolist() == [0, 333, 666, 999]
    shares = scaled_linear()[[0, 333, 666, 999]]
    assert trace.curve("alpha").tolist() == pytest.approx(np.sqrt(shares), rel=1e-4)
    assert trace.curve("snr").tolist() == pytest.approx(shares / (1 - shares), rel=1e-3)
    assert [step.index for step in trace] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("steps", "expected"), [(1, [999]), (2, [0, 999]), (3, [0, 500, 999]), (1000, list(range(1000)))]
)
def test_any_number_of_levels(tiny_model: "Model", steps: int, expected: list[int]) -> None:
    assert [level.timestep for level in levels(tiny_model.pipeline.scheduler, steps)] == expected


def test_the_noise_is_what_a_run_with_this_seed_starts_from(tiny_model: "Model", tiny_trace: Trace) -> None:
    trace = forward(tiny_model, picture(), seed=tiny_trace.settings.seed)
    torch.testing.assert_close(trace[0].noise, tiny_trace[0].latents, rtol=0, atol=1e-5)


def test_the_same_seed_gives_the_same_and_nothing_global_moves(tiny_model: "Model") -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    one, two, other = (forward(tiny_model, picture(), seed=seed) for seed in (3, 3, 4))
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])
    assert states[2] == random.getstate()
    assert all(torch.equal(a.latents, b.latents) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[-1].latents, other[-1].latents)


def test_the_trace_is_a_trace(tiny_model: "Model", tmp_path: Path) -> None:
    trace = forward(tiny_model, picture(), steps=5, seed=2)
    assert trace.settings.prompt == ""
    assert (trace.settings.width, trace.settings.height, trace.settings.seed) == (WIDTH, HEIGHT, 2)
    assert trace.info["forward"] is True
    assert trace.info["schedule"] == [0, 250, 500, 749, 999]
    assert not trace.cancelled
    assert trace.image is not None
    assert np.array_equal(np.asarray(trace.image), np.asarray(picture()))
    assert trace.decode is not None
    assert np.array_equal(np.asarray(trace.view("x0", 0)), trace.decode(trace[0].x0))
    assert trace.curve("distance").max() < 1e-5
    assert trace[0].noise_cond is None
    assert "forward process" in trace[0].split
    with pytest.raises(ValueError, match="forward process"):
        trace[0].what_if(guidance=3.0)
    trace.save(tmp_path / "forward.safetensors")
    loaded = Trace.load(tmp_path / "forward.safetensors")
    assert all(torch.equal(a.noise, b.noise) for a, b in zip(trace, loaded, strict=True))
    assert loaded.plot().texts[0].get_text() == trace.plot().texts[0].get_text() == "From a picture to noise"


def test_what_was_encoded_can_be_decoded(tiny_model: "Model") -> None:
    """The latents carry the scale that the decoder expects: both ends agree with the autoencoder alone."""
    trace = forward(tiny_model, picture(), steps=2)
    vae, processor = tiny_model.pipeline.vae, tiny_model.pipeline.image_processor
    with torch.no_grad():
        plain = vae(processor.preprocess(picture()), sample_posterior=False).sample
    expected = np.asarray(processor.postprocess(plain, output_type="pil")[0]).astype(int)
    assert trace.decode is not None
    assert np.abs(trace.decode(trace.final).astype(int) - expected).max() <= 1


# Levels of other kinds of models


def test_flow_matching_levels_are_those_of_diffusers() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    for shift in (1.0, 3.0):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        made = levels(scheduler, 1000)[::-1]
        assert [level.b for level in made] == pytest.approx(scheduler.sigmas.tolist()[:1000], abs=1e-6)
        assert [level.timestep for level in made] == pytest.approx(scheduler.timesteps.tolist(), abs=1e-3)
        assert all(level.a == 1 - level.b for level in made)
        assert (made[0].a, made[0].b) == (0, 1)


def test_flow_levels_of_a_multistep_sampler() -> None:
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    assert levels(scheduler, 2)[1] == (1000.0, 0.0, 1.0)
    assert levels(scheduler, 1000)[499].b == pytest.approx(3 * 0.5 / (1 + 2 * 0.5))


def test_edm_levels_are_those_of_diffusers() -> None:
    from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler

    for kind in (EDMDPMSolverMultistepScheduler, EDMEulerScheduler):
        scheduler = kind(sigma_min=0.002, sigma_max=80.0)
        made = levels(scheduler, 1000)
        assert {level.a for level in made} == {1.0}
        assert (made[0].b, made[-1].b) == pytest.approx((0.002, 80.0))
        # The network is told a quarter of the logarithm (Karras et al. 2022, table 1).
        assert [level.timestep for level in made] == pytest.approx([np.log(level.b) / 4 for level in made], abs=1e-5)
        known = scheduler.sigmas.tolist()
        assert all(min(abs(level.b - sigma) for sigma in known) == 0 for level in made[::100])


def test_levels_do_not_depend_on_the_sampler_nor_on_earlier_runs(tiny_model: "Model") -> None:
    from diffusers import EulerDiscreteScheduler, UniPCMultistepScheduler

    scheduler = tiny_model.pipeline.scheduler
    expected = levels(scheduler, 10)
    for kind in (EulerDiscreteScheduler, UniPCMultistepScheduler):
        other = kind.from_config(scheduler.config)
        other.set_timesteps(3)
        assert levels(other, 10) == expected
        assert len(other.timesteps) == 3, "the scheduler at hand is only read"


def test_a_schedule_that_ends_in_pure_noise(tiny_model: "Model") -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", rescale_betas_zero_snr=True, prediction_type="v_prediction"
    )
    assert levels(scheduler, 5)[-1] == (999, 0.0, 1.0)
    trace = forward(stand_in(tiny_model, scheduler=scheduler), picture(), steps=5)
    torch.testing.assert_close(trace[-1].x0, trace.final, rtol=0, atol=1e-5)
    torch.testing.assert_close(trace[-1].noise, trace[-1].latents, rtol=0, atol=1e-5)


def test_a_scheduler_that_does_not_tell() -> None:
    class Mute:
        config: dict[str, Any] = {}  # noqa: RUF012

        @classmethod
        def from_config(cls, config: dict[str, Any]) -> "Mute":
            return cls()

    with pytest.raises(ValueError, match="a Mute does not tell the noise levels"):
        levels(Mute(), 3)


# Other autoencoders


def stand_in(model: "Model", **parts: Any) -> Any:
    """The model with some parts of its pipeline exchanged, the rest real."""
    pipeline = {name: getattr(model.pipeline, name) for name in ("vae", "scheduler", "_execution_device")}
    other = copy.copy(model)
    other.pipeline = SimpleNamespace(**{**pipeline, **parts})
    return other


def autoencoder(**config: Any) -> Any:
    from diffusers import AutoencoderKL

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return AutoencoderKL(
            block_out_channels=(8, 8, 16), down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3, latent_channels=4, norm_num_groups=4, **config,
        )  # fmt: skip


def test_shift_and_scale_are_the_inverse_of_what_pipelines_undo(tiny_model: "Model") -> None:
    values = tiny_model.pipeline.image_processor.preprocess(picture())
    plain = autoencoder(scaling_factor=1.5)
    with torch.no_grad():
        raw = plain.encode(values).latent_dist.mode()[0]
    shifted = forward(stand_in(tiny_model, vae=autoencoder(scaling_factor=1.5, shift_factor=0.25)), picture(), 1)
    torch.testing.assert_close(shifted.final / 1.5 + 0.25, raw, rtol=0, atol=1e-5)

    mean, std = [0.1, -0.2, 0.3, 0.4], [0.5, 2.0, 1.0, 4.0]
    by_channel = forward(
        stand_in(tiny_model, vae=autoencoder(scaling_factor=1.5, latents_mean=mean, latents_std=std)), picture(), 1
    )
    column = (-1, 1, 1)
    undone = by_channel.final * torch.tensor(std).view(column) / 1.5 + torch.tensor(mean).view(column)
    torch.testing.assert_close(undone, raw, rtol=0, atol=1e-5)


def test_half_precision_is_encoded_in_full_where_it_would_overflow(tiny_model: "Model") -> None:
    half = autoencoder(force_upcast=True).half()
    before = {name: value.clone() for name, value in half.state_dict().items()}
    trace = forward(stand_in(tiny_model, vae=half), picture(), 1)
    expected = forward(stand_in(tiny_model, vae=autoencoder(force_upcast=True).half().float()), picture(), 1)
    assert torch.equal(trace.final, expected.final)
    assert half.dtype == torch.float16
    assert all(torch.equal(value, before[name]) for name, value in half.state_dict().items())


def test_a_tiny_autoencoder(tiny_model: "Model") -> None:
    from diffusers import AutoencoderTiny

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1), scaling_factor=2.0,
        )  # fmt: skip
    trace = forward(stand_in(tiny_model, vae=vae), picture(), 1)
    values = tiny_model.pipeline.image_processor.preprocess(picture())
    with torch.no_grad():
        torch.testing.assert_close(trace.final, vae.encode(values).latents[0] * 2.0, rtol=0, atol=1e-5)


def test_a_pipeline_without_an_encoder(tiny_model: "Model") -> None:
    with pytest.raises(ValueError, match="no encoder for pictures"):
        forward(stand_in(tiny_model, vae=None), picture())


# Pictures


@pytest.mark.parametrize("size", [(96, 64), (200, 100), (10, 300), (1, 1)])
def test_another_size_is_cropped_around_its_centre_and_resampled(size: tuple[int, int]) -> None:
    fitted = fit(picture(*size), WIDTH, HEIGHT)
    assert fitted.size == (WIDTH, HEIGHT)
    assert fitted.mode == "RGB"
    if size == (200, 100):  # a shape of 2:1 into one of 3:2 loses 25 columns on either side
        cropped = picture(200, 100).crop((25, 0, 175, 100)).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        # Resampling looks a little beyond the edge of the crop, so only the inside is exactly the same.
        assert np.array_equal(np.asarray(fitted)[:, 3:-3], np.asarray(cropped)[:, 3:-3])


def test_a_picture_of_the_right_size_is_left_as_it_is(tiny_model: "Model") -> None:
    before = picture()
    assert np.array_equal(np.asarray(fit(before, WIDTH, HEIGHT)), np.asarray(before))
    forward(tiny_model, before, 1)
    assert np.array_equal(np.asarray(before), np.asarray(picture()))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16", "F", "HSV"])
def test_every_mode_is_taken(mode: str) -> None:
    given = (
        Image.new("L", (WIDTH, HEIGHT), 100).convert(mode)
        if mode != "I;16"
        else Image.new("I;16", (WIDTH, HEIGHT), 100 * 257)
    )
    fitted = np.asarray(fit(given, WIDTH, HEIGHT))
    assert fitted.shape == (HEIGHT, WIDTH, 3)
    if mode not in ("1", "HSV"):
        assert np.abs(fitted.astype(int) - 100).max() <= 1


def test_what_is_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (WIDTH, HEIGHT), (255, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 10, HEIGHT))
    fitted = np.asarray(fit(clear, WIDTH, HEIGHT))
    assert np.all(fitted[:, :10] == (255, 0, 0))
    assert np.all(fitted[:, 10:] == 255)


def test_a_camera_held_upright() -> None:
    turned = picture(HEIGHT, WIDTH)
    turned.getexif()[0x0112] = 6  # stored on its side: turn clockwise to see it
    assert np.array_equal(np.asarray(fit(turned, WIDTH, HEIGHT)), np.asarray(ImageOps.exif_transpose(turned)))
    assert turned.size == (HEIGHT, WIDTH)


def test_arrays_are_taken() -> None:
    pixels = np.asarray(picture())
    for array in (pixels, pixels / 255, (pixels / 255).astype(np.float32), pixels[:, ::-1][:, ::-1]):
        assert np.array_equal(np.asarray(fit(array, WIDTH, HEIGHT)), pixels)
    grey = np.asarray(fit(pixels[..., 0], WIDTH, HEIGHT))
    assert np.array_equal(grey, pixels[..., [0, 0, 0]])
    clear = np.concatenate([pixels, np.zeros_like(pixels[..., :1])], axis=-1)
    assert np.all(np.asarray(fit(clear, WIDTH, HEIGHT)) == 255)


def test_a_file_is_taken(tiny_model: "Model", tmp_path: Path) -> None:
    picture().save(tmp_path / "photo.png")
    trace = forward(tiny_model, tmp_path / "photo.png", 1)
    assert trace.image is not None
    assert np.array_equal(np.asarray(trace.image), np.asarray(picture()))
    with pytest.raises(FileNotFoundError, match=r"there is no file 'nowhere\.png'"):
        forward(tiny_model, "nowhere.png")


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (None, "None"),
        (torch.zeros(3, 4, 4), "tensor"),
        (np.zeros((3, 8, 8), np.uint8), r"\(3, 8, 8\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
        (np.zeros((8, 8), np.int64), "int64"),
        (np.full((8, 8), 200.0), "200"),
        (np.full((8, 8), np.nan), "nan"),
        (np.full((8, 8), -0.5), "-0.5"),
    ],
)
def test_what_is_no_picture_is_refused(tiny_model: "Model", image: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"image must be a PIL image or an array .*got .*{named}"):
        forward(tiny_model, image)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps must be a whole number from 1 to 1000, got 0"),
        ({"steps": 1001}, "steps must be a whole number from 1 to 1000, got 1001"),
        ({"steps": "many"}, "steps must be .* got 'many'"),
        ({"seed": -1}, "seed must be .* got -1"),
    ],
)
def test_settings_are_checked_before_any_work(tiny_model: "Model", values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forward(tiny_model, "never looked at", **values)  # type: ignore[arg-type]


def test_a_short_schedule_has_only_so_many_levels() -> None:
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=50)
    assert len(levels(scheduler, 50)) == 50
    with pytest.raises(ValueError, match=r"steps must be from 1 to 50, .* got 51"):
        levels(scheduler, 51)
