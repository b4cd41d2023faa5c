"""The watermark in the starting noise: what noise it makes, in every family, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from handmade import handmade
from PIL import Image
from tiny_families import model, size

import diffexplore as dx
from diffexplore.experiments.twice import checksum
from diffexplore.model import Model
from diffexplore.runs.watermark import chance, least, marked, pattern, place, places, scores
from diffexplore.settings import Settings

FEW = {"prompt": "a red fox", "steps": 2, "guidance": 3.0, "seed": 1}
SHAPE = (4, 16, 16)


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gap(values: np.ndarray) -> float:
    """Kolmogorov and Smirnov's: the largest difference between the distribution of values and the normal one."""
    ordered = torch.special.ndtr(torch.from_numpy(np.sort(values))).numpy()
    grid = np.arange(len(ordered) + 1) / len(ordered)
    return float(max(np.abs(ordered - grid[1:]).max(), np.abs(ordered - grid[:-1]).max()))


def test_marked_noise_is_standard_normal_over_keys_and_for_one_key() -> None:
    many = torch.stack([marked(noise(seed), f"key {seed}", seed) for seed in range(200)]).double().numpy()
    for values in (many.ravel(), pattern("a key", (64, 64, 64)).double().numpy().ravel()):
        assert abs(values.mean()) < 4 / np.sqrt(values.size)
        assert values.var() == pytest.approx(1, abs=4 * np.sqrt(2 / values.size))
        assert gap(values) < 1.95 / np.sqrt(values.size)  # exceeded by one in a thousand
    # No two places of a picture go together, and their lengths are those of noise.
    flat = many.reshape(200, -1)
    for shift in (1, 16, 128, 256):
        assert abs((flat * np.roll(flat, shift, 1)).mean()) < 4 / np.sqrt(flat.size)
    assert (flat**2).sum(1).std() == pytest.approx(np.sqrt(2 * flat.shape[1]), rel=0.25)


def test_key_and_seed_each_decide_it() -> None:
    one = marked(noise(1), "a", 1)
    assert torch.equal(one, marked(noise(1), "a", 1))
    assert not torch.equal(one, marked(noise(1), "b", 1))
    assert not torch.equal(one, marked(noise(2), "a", 2))
    seats = [place("a", seed, 1024) for seed in range(800)]
    assert np.bincount(seats, minlength=places(1024)).min() > 140
    assert (places(100), places(1024), places(16384), places(10**7)) == (1, 4, 64, 1024)
    assert marked(noise(1).half(), "a", 1).dtype == torch.float16


def test_the_bits_are_those_of_every_machine() -> None:
    # Whoever changes these makes every mark that was ever set unfindable.
    assert checksum(pattern("schlüssel", SHAPE)) == "e8783d173ff350e9"
    assert [place("schlüssel", seed, 1024) for seed in range(6)] == [0, 0, 0, 1, 3, 2]


def test_a_score_of_another_key_is_standard_normal_whatever_the_picture() -> None:
    rng = np.random.default_rng(5)
    for picture in (
        torch.from_numpy(np.cumsum(rng.standard_normal(SHAPE), axis=2)),  # as uneven as they come
        torch.full(SHAPE, 0.5).index_put((torch.tensor(0), torch.tensor(3), torch.tensor(4)), torch.tensor(90.0)),
    ):
        found = np.concatenate([scores(picture, f"key {k}") for k in range(400)])
        assert abs(found.mean()) < 4 / np.sqrt(found.size)
        assert found.std() == pytest.approx(1, abs=0.1)
        best = np.array([scores(picture, f"other {k}").max() for k in range(400)])
        ps = np.array([chance(one, 4) for one in best])
        assert np.mean(ps <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 / 400)
        assert np.mean(ps <= 0.5) > 0.2, "it is no looser than it has to be"
    own = marked(noise(3), "a", 3)
    assert int(scores(own, "a").argmax()) == place("a", 3, 1024)
    assert scores(own, "a").max() > 20
    assert np.array_equal(scores(torch.zeros(SHAPE), "a"), np.zeros(4))
    assert np.array_equal(scores(torch.full(SHAPE, torch.nan), "a"), np.zeros(4))
    assert chance(least(0.01, 4), 4) == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["sd", "flux", "sd3", "qwen", "kandinsky3"])
def test_families_draw_from_it(name: str) -> None:
    one, some = model(name), FEW | size(name)
    plain, made = one.trace(**some), one.trace(**some, watermark="a key")
    start = plain[0].latents
    unit = float(one.pipeline.scheduler.init_noise_sigma) if name in ("sd", "kandinsky3") else 1.0
    wanted = unit * marked(start / unit, "a key", some["seed"])
    torch.testing.assert_close(made[0].latents, wanted, rtol=1e-3, atol=1e-3)
    assert not torch.equal(made.final, plain.final)
    assert not torch.equal(one.trace(**some, watermark="another").final, made.final)
    assert torch.equal(one.trace(**some).final, plain.final), "nothing is left behind"


@pytest.fixture(scope="module")
def sd() -> Model:
    return model("sd")


def test_batches_variations_branches_and_pictures_have_it_too(sd: Model) -> None:
    keys = [None, "a", "b"]
    together = sd.trace_many([Settings(**FEW, watermark=key) for key in keys])
    for key, trace in zip(keys, together, strict=True):
        torch.testing.assert_close(trace.final, sd.trace(**FEW, watermark=key).final, rtol=0, atol=1e-4)
    for amount in (0.3, 1.0):  # marked all the way from one seed to another
        varied = sd.trace(**FEW, watermark="a", variation=(2, amount))[0].latents
        assert scores(varied, "a").max() > 6
    whole = sd.trace(**(FEW | {"steps": 4}), watermark="a")
    assert torch.equal(sd.branch(whole, 2).final, whole.final)
    picture = Image.new("RGB", (48, 48), (200, 40, 30))
    begun = sd.trace(**(FEW | {"steps": 6}), image=picture, strength=0.7, watermark="a")
    assert not torch.equal(begun.final, sd.trace(**(FEW | {"steps": 6}), image=picture, strength=0.7).final)
    assert any("the mark may not be found" in note for note in begun.info["notes"])


def test_a_pipeline_whose_noise_nobody_knows_refuses_it() -> None:
    one = dx.load(handmade())
    with pytest.raises(ValueError, match="a watermark is for pipelines of a named family: how Handmade"):
        one.plan(Settings(**FEW, watermark="a"))
    with pytest.raises(ValueError, match="run backwards"):
        dx.detect(one, Image.new("RGB", (64, 64)), "a")


def test_it_is_a_setting_and_what_makes_no_sense_is_refused(sd: Model, tmp_path) -> None:
    for wrong in ("", 3, "x" * 201, b"key", ("a",), "\ud800"):
        with pytest.raises(ValueError, match="watermark must be a text of 1 to 200 characters, got"):
            Settings(watermark=wrong)
    with pytest.raises(ValueError, match="a watermark is put into the noise that a seed draws, and latents are"):
        sd.trace(**FEW, watermark="a", latents=torch.zeros(1, 4, 8, 8))
    assert Settings(watermark="e\u0301").watermark == "\u00e9"
    made = Settings(prompt="a fox", watermark='a, key: "0"\n')
    assert Settings.from_json(made.to_json()) == made == Settings.from_text(made.to_text())
    assert hash(made) == hash(Settings.from_json(made.to_json()))
    assert "watermark" not in Settings().to_json()
    trace = sd.trace(**FEW, watermark="a key")
    trace.save_image(tmp_path / "a.png")
    again = sd.trace(dx.read_recipe(tmp_path / "a.png"))
    assert torch.equal(again.final, trace.final)
    assert np.array_equal(np.asarray(again.image), np.asarray(Image.open(tmp_path / "a.png")))
