"""The picture world: one seed rebuilds everything, captions say what is there, held-out pairs stay out."""

import dataclasses

import numpy as np
import pytest

from diffexplore.pocket import example, examples
from diffexplore.pocket.factory import scenes


@pytest.fixture(scope="module")
def art(art_folder):
    return scenes.Art(art_folder)


FLAW_WORDS = {
    word for phrases in (*scenes.QUALITIES.values(), scenes._BAD) for phrase in phrases for word in phrase.split()
}


def draw(scene, art, seed=0):
    return scenes.draw(scene, art, np.random.default_rng(seed))


def test_the_world_is_as_large_as_promised():
    assert len(scenes.SUBJECTS) >= 60
    assert (len(scenes.COLOURS), len(scenes.SETTINGS), len(scenes.LIGHTS), len(scenes.STYLES)) == (9, 8, 4, 4)


def test_one_seed_rebuilds_picture_and_caption(art):
    def make():
        rng = np.random.default_rng(5)
        out = []
        for _ in range(40):
            scene = scenes.sample_scene(rng)
            out.append((scene, scenes.draw(scene, art, rng).tobytes(), scenes.caption(scene, rng)))
        return out

    assert make() == make()


def test_pictures_are_64_pixel_rgb(art):
    picture = draw(scenes.Scene("fox"), art)
    assert (picture.shape, picture.dtype) == ((64, 64, 3), np.uint8)


def test_held_out_pairs_are_never_sampled_for_training():
    rng = np.random.default_rng(1)
    kept = [scenes.sample_scene(rng) for _ in range(3000)]
    assert not any(scenes.held_out(scene) for scene in kept)
    assert all(scenes.held_out(scenes.sample_scene(rng, holdout=True)) for _ in range(100))


def test_every_subject_misses_one_setting_and_one_colour():
    for subject in scenes.SUBJECTS:
        assert sum(scenes.held_out(scenes.Scene(subject, setting=s)) for s in scenes.SETTINGS) == 1
        missing = [c for c in scenes.COLOURS if scenes.held_out(scenes.Scene(subject, colour=c, setting=None))]
        assert len(missing) == 1


def test_captions_use_only_the_vocabulary():
    rng = np.random.default_rng(2)
    known = set(scenes.vocabulary())
    for _ in range(2000):
        text = scenes.caption(scenes.sample_scene(rng), rng)
        assert set(text.replace(",", "").split()) <= known, text


def test_captions_always_say_what_cannot_be_guessed():
    rng = np.random.default_rng(3)
    for _ in range(2000):
        scene = scenes.sample_scene(rng)
        text = scenes.caption(scene, rng)
        for flaw in scene.flaws:
            assert any(word in text for word in scenes.QUALITIES[flaw]), (scene, text)
        if not set(text.replace(",", "").split()) - FLAW_WORDS:
            continue  # a caption that says nothing but the flaws
        if scene.style != "render":
            stems = {"flat": ("drawing", "cartoon", "illustration"), "silhouette": ("silhouette", "shadow"),
                     "line": ("line drawing", "sketch", "outline")}  # fmt: skip
            assert any(word in text for word in stems[scene.style]), (scene, text)
        if scene.backdrop:
            assert f"{scene.backdrop} background" in text


@pytest.mark.parametrize("quality", scenes.QUALITIES)
def test_each_degradation_does_what_its_name_says(art, quality):
    clean = draw(scenes.Scene("fox", setting="city"), art).astype(float)
    bad = draw(scenes.Scene("fox", setting="city", flaws=(quality,)), art).astype(float)

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
    scene = scenes.Scene("fox", setting="city")
    sharp, rough = ("low contrast", "blurry"), ("blurry", "low contrast", "noisy")
    one, two, three = (
        draw(dataclasses.replace(scene, flaws=flaws), art).astype(float) for flaws in (("blurry",), sharp, rough)
    )
    assert two.std() < 0.5 * one.std()
    assert np.abs(np.diff(three, axis=0)).mean() > 2 * np.abs(np.diff(two, axis=0)).mean()


def test_some_captions_say_several_flaws_and_nothing_else():
    rng = np.random.default_rng(6)
    texts = [scenes.caption(scenes.Scene("fox", flaws=("blurry", "noisy", "pixelated")), rng) for _ in range(400)]
    alone = [text for text in texts if not set(text.replace(",", "").split()) - FLAW_WORDS]
    assert 40 < len(alone) < 140
    assert len({text.split(",")[0] for text in alone}) > 3  # in any order


def test_night_is_darker_than_noon_and_sunset_is_warmer(art):
    noon, night, sunset = (
        draw(scenes.Scene("fox", light=light), art).astype(float) for light in ("noon", "night", "golden hour")
    )
    assert night.mean() < 0.6 * noon.mean()
    assert (sunset[..., 0] - sunset[..., 2]).mean() > (noon[..., 0] - noon[..., 2]).mean() + 30


@pytest.mark.parametrize("colour", scenes.COLOURS)
def test_paint_gives_the_subject_its_colour(art, colour):
    picture = draw(scenes.Scene("fox", colour=colour, setting=None, light=None, backdrop="white"), art)
    middle = picture[26:38, 26:38].reshape(-1, 3).mean(0)
    if colour in ("black", "white"):
        assert np.ptp(middle) < 12  # no hue
        assert middle.mean() < 90 if colour == "black" else middle.mean() > 160
        return
    distances = {name: np.abs(middle - np.array(paint)).sum() for name, (paint, _) in scenes.COLOURS.items()}
    assert min(distances, key=distances.__getitem__) == colour, middle


def test_sides_move_the_subject(art):
    def centre(side):
        scene = scenes.Scene("fox", "black", None, None, side=side, backdrop="white", scale="small")
        dark = 255 - draw(scene, art).astype(float).mean(-1)
        return (dark * np.arange(64)).sum() / dark.sum()

    assert centre("left") < centre("centre") - 3 < centre("right") - 6


def test_missing_art_says_how_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="npm pack @lobehub/fluent-emoji-3d"):
        scenes.Art(tmp_path)


def test_shipped_examples_are_64_pixel_pictures_of_the_world():
    assert len(examples()) >= 6
    for name in examples():
        assert example(name).size == (64, 64)


def test_an_unknown_example_lists_those_there_are():
    with pytest.raises(ValueError, match=r"no example called 'a yak'; there are: .*a fox in the snow at noon"):
        example("a yak")


def test_near_words_are_unknown_and_lead_to_known_ones():
    known = set(scenes.vocabulary())
    for word, near in scenes.NEAR.items():
        assert word not in known
        assert near, word
        assert {part for phrase in near for part in phrase.split()} <= known, word
