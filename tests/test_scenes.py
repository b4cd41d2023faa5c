"""The picture world, drawn: one seed rebuilds everything, and what a scene says is what is seen."""

import dataclasses

import numpy as np
import pytest

from diffexplore.pocket import world
from diffexplore.pocket.factory import scenes


@pytest.fixture(scope="module")
def art(art_folder):
    return scenes.Art(art_folder)


def draw(scene, art, seed=0):
    return scenes.draw(scene, art, np.random.default_rng(seed), 64)


def test_one_seed_rebuilds_picture_and_caption(art):
    def make():
        rng = np.random.default_rng(5)
        out = []
        for _ in range(40):
            scene = world.sample_scene(rng)
            out.append((scene, scenes.draw(scene, art, rng).tobytes(), world.caption(scene, rng)))
        return out

    assert make() == make()


def test_pictures_are_rgb_as_large_as_the_model_draws(art):
    large = scenes.draw(world.Scene("fox"), art, np.random.default_rng(0))
    assert (large.shape, large.dtype) == ((128, 128, 3), np.uint8)
    halved = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(halved - draw(world.Scene("fox"), art)).mean() < 4, "and the same at any size"


def test_it_is_told_where_the_subject_is(art):
    """The place told is where the picture differs from the same one with the subject in another paint."""
    one, two = (
        world.Scene("apple", setting=None, light=None, backdrop="blue", side="left", colour=c) for c in ("red", "green")
    )
    first, where = scenes.painted(one, art, np.random.default_rng(3), 64)
    second, _ = scenes.painted(two, art, np.random.default_rng(3), 64)
    differs = (np.abs(first.astype(int) - second).sum(-1) > 60).reshape(scenes.GRID, -1, scenes.GRID, 4).mean((1, 3))
    assert where.shape == (scenes.GRID, scenes.GRID)
    assert np.corrcoef(differs.ravel(), where.ravel())[0, 1] > 0.9
    assert where[:, :8].mean() > 2 * where[:, 8:].mean()


@pytest.mark.parametrize("quality", world.QUALITIES)
def test_each_degradation_does_what_its_name_says(art, quality):
    clean = draw(world.Scene("fox", setting="city"), art).astype(float)
    bad = draw(world.Scene("fox", setting="city", flaws=(quality,)), art).astype(float)

    def roughness(p):
        return np.abs(np.diff(p, axis=0)).mean()

    match quality:
        case "blurry":
            assert roughness(bad) < 0.6 * roughness(clean)
        case "noisy":
            assert roughness(bad) > 1.3 * roughness(clean)
        case "pixelated":
            assert (np.diff(bad, axis=0) == 0).mean() > 0.5
        case "low contrast":
            assert bad.std() < 0.5 * clean.std()


def test_several_flaws_befall_a_picture_in_their_order(art):
    scene = world.Scene("fox", setting="city")
    sharp, rough = ("low contrast", "blurry"), ("blurry", "low contrast", "noisy")
    one, two, three = (
        draw(dataclasses.replace(scene, flaws=flaws), art).astype(float) for flaws in (("blurry",), sharp, rough)
    )
    assert two.std() < 0.5 * one.std()
    assert np.abs(np.diff(three, axis=0)).mean() > 2 * np.abs(np.diff(two, axis=0)).mean()


def test_night_is_darker_than_noon_and_sunset_is_warmer(art):
    noon, night, sunset = (
        draw(world.Scene("fox", light=light), art).astype(float) for light in ("noon", "night", "golden hour")
    )
    assert night.mean() < 0.6 * noon.mean()
    assert (sunset[..., 0] - sunset[..., 2]).mean() > (noon[..., 0] - noon[..., 2]).mean() + 30


@pytest.mark.parametrize("colour", world.COLOURS)
def test_paint_gives_the_subject_its_colour(art, colour):
    picture = draw(world.Scene("fox", colour=colour, setting=None, light=None, backdrop="white"), art)
    middle = picture[26:38, 26:38].reshape(-1, 3).mean(0)
    if colour in ("black", "white"):
        assert np.ptp(middle) < 12  # no hue
        assert middle.mean() < 90 if colour == "black" else middle.mean() > 160
        return
    distances = {name: np.abs(middle - np.array(paint)).sum() for name, (paint, _) in world.COLOURS.items()}
    assert min(distances, key=distances.__getitem__) == colour, middle


def test_sides_move_the_subject(art):
    def centre(side):
        scene = world.Scene("fox", "black", None, None, side=side, backdrop="white", scale="small")
        dark = 255 - draw(scene, art).astype(float).mean(-1)
        return (dark * np.arange(64)).sum() / dark.sum()

    assert centre("left") < centre("centre") - 3 < centre("right") - 6


def test_missing_art_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="npm pack @lobehub/fluent-emoji-3d"):
        scenes.Art(tmp_path)
