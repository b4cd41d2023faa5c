"""The picture world as data and language: captions say what is there, held-out pairs stay out."""

import numpy as np
import pytest

from diffexplore.pocket import example, examples, world

FLAW_WORDS = {
    word for phrases in (*world.QUALITIES.values(), world.BAD) for phrase in phrases for word in phrase.split()
}


def test_the_world_is_as_large_as_promised():
    assert len(world.SUBJECTS) >= 60
    assert (len(world.COLOURS), len(world.SETTINGS), len(world.LIGHTS), len(world.STYLES)) == (9, 8, 4, 4)


def test_held_out_pairs_are_never_sampled_for_training():
    rng = np.random.default_rng(1)
    kept = [world.sample_scene(rng) for _ in range(3000)]
    assert not any(world.held_out(scene) for scene in kept)
    assert all(world.held_out(world.sample_scene(rng, holdout=True)) for _ in range(100))


def test_every_subject_misses_one_setting_and_one_colour():
    for subject in world.SUBJECTS:
        assert sum(world.held_out(world.Scene(subject, setting=s)) for s in world.SETTINGS) == 1
        missing = [c for c in world.COLOURS if world.held_out(world.Scene(subject, colour=c, setting=None))]
        assert len(missing) == 1


def test_captions_use_only_the_vocabulary():
    rng = np.random.default_rng(2)
    known = set(world.vocabulary())
    for _ in range(2000):
        text = world.caption(world.sample_scene(rng), rng)
        assert set(text.replace(",", "").split()) <= known, text


def test_captions_always_say_what_cannot_be_guessed():
    rng = np.random.default_rng(3)
    for _ in range(2000):
        scene = world.sample_scene(rng)
        text = world.caption(scene, rng)
        for flaw in scene.flaws:
            assert any(word in text for word in world.QUALITIES[flaw]), (scene, text)
        if not set(text.replace(",", "").split()) - FLAW_WORDS:
            continue  # a caption that says nothing but the flaws
        if scene.style != "render":
            stems = {"flat": ("drawing", "cartoon", "illustration"), "silhouette": ("silhouette", "shadow"),
                     "line": ("line drawing", "sketch", "outline")}  # fmt: skip
            assert any(word in text for word in stems[scene.style]), (scene, text)
        if scene.backdrop:
            assert f"{scene.backdrop} background" in text


def test_some_captions_say_several_flaws_and_nothing_else():
    rng = np.random.default_rng(6)
    texts = [world.caption(world.Scene("fox", flaws=("blurry", "noisy", "pixelated")), rng) for _ in range(400)]
    alone = [text for text in texts if not set(text.replace(",", "").split()) - FLAW_WORDS]
    assert 40 < len(alone) < 140
    assert len({text.split(",")[0] for text in alone}) > 3  # in any order


def test_shipped_examples_are_64_pixel_pictures_of_the_world():
    assert len(examples()) >= 6
    for name in examples():
        assert example(name).size == (64, 64)


def test_an_unknown_example_lists_those_there_are():
    with pytest.raises(ValueError, match=r"no example called 'a yak'; there are: .*a fox in the snow at noon"):
        example("a yak")


def test_near_words_are_unknown_and_lead_to_known_ones():
    known = set(world.vocabulary())
    for word, near in world.NEAR.items():
        assert word not in known
        assert near, word
        assert {part for phrase in near for part in phrase.split()} <= known, word


def test_the_article_is_the_right_one():
    assert [world.article(noun) for noun in ("fox", "owl", "ice cream", "bus")] == ["a", "an", "an", "a"]
