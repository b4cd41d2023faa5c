"""The measure of where words look: its masks are the subjects', its captions say the scene, its overlaps are shares."""

import numpy as np
import pytest

import diffexplore as dx
from diffexplore.pocket import world
from diffexplore.pocket.factory import gaze, scenes


@pytest.fixture(scope="module")
def art(art_folder):
    return scenes.Art(art_folder)


def test_the_mask_is_where_the_subject_is_and_the_picture_is_the_scene(art):
    left = world.Scene("fox", setting="snow", side="left", scale="small", colour="red")
    picture, mask = gaze.masked(left, art, 3)
    assert np.array_equal(np.asarray(picture), scenes.draw(left, art, np.random.default_rng(3)))
    assert mask.max() == 1
    assert mask.min() == 0
    half = mask.shape[1] // 2
    assert mask[:, :half].sum() > 4 * mask[:, half:].sum()
    _, other = gaze.masked(world.Scene("fox", setting="snow", side="right", scale="small"), art, 3)
    assert other[:, half:].sum() > 4 * other[:, :half].sum()
    assert gaze.caption(left) == "a red fox in the snow at noon"


def test_the_pocket_models_words_look_at_their_subject(art):
    found = gaze.measure(dx.load(), art, 2, seed=1)
    again = gaze.measure(dx.load(), art, 2, seed=1)
    assert found == again
    for one in found:
        assert 0 < one.area < 1
        assert 0 <= one.other <= 1
        assert one.subject > one.area, "the subjects of these two are looked at"
        assert one.word in one.prompt.split()
    assert "2 pictures" in gaze.told(found)
