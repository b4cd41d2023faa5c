"""The pool: pictures come from processes, whole and with their own captions, and stay as they came."""

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer

from diffexplore.model import POCKET
from diffexplore.pocket import judge, world
from diffexplore.pocket.factory import scenes
from diffexplore.pocket.factory.pool import BLOCK, Pool, compose, labels_of, reader_of


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(POCKET / "tokenizer")


@pytest.fixture(scope="module")
def art(art_folder):
    return str(art_folder)


def test_labels_are_what_can_be_read_and_nothing_else():
    def labels(**scene):
        known = labels_of(world.Scene("fox", **scene))
        pairs = zip(judge.ATTRIBUTES.items(), known, strict=True)
        return {attribute: values[label] for (attribute, values), label in pairs if label >= 0}

    everything = {"subject": "fox", "colour": "red", "setting": "sea", "light": "night", "style": "flat"}
    assert labels(colour="red", setting="sea", light="night", style="flat") == everything | {"quality": "clean"}
    assert labels(setting=None, light=None, backdrop="red", flaws=("noisy",)) == {
        "subject": "fox", "colour": "own", "setting": "none", "style": "render", "quality": "noisy",
    }  # fmt: skip
    assert labels(style="line") == {"subject": "fox", "setting": "meadow", "style": "line", "quality": "clean"}
    assert "colour" not in labels(style="silhouette")
    assert "quality" not in labels(flaws=("blurry", "noisy"))  # which of them shows most, nobody can say


def test_a_picture_depends_on_its_number_alone(art):
    one, same, other = (compose(scenes.Art(art), 5, index, 32) for index in (7, 7, 8))
    assert np.array_equal(one.pixels, same.pixels)
    assert (one.captions, one.labels) == (same.captions, same.labels)
    assert np.array_equal(one.subject, same.subject)
    assert not np.array_equal(one.pixels, other.pixels)
    assert one.pixels.shape == (32, 32, 3)
    assert len(one.captions) == 4


def test_a_process_reads_captions_as_the_tokenizer_does(tokenizer):
    rng = np.random.default_rng(0)
    texts = [world.caption(world.sample_scene(rng), rng) for _ in range(50)] + ["", "word " * 90]
    room = tokenizer.model_max_length
    wanted = tokenizer(texts, padding="max_length", truncation=True, max_length=room).input_ids
    assert [one.ids for one in reader_of(tokenizer).encode_batch(texts)] == wanted


def test_pictures_arrive_with_their_captions_until_all_places_are_taken(art, tokenizer):
    with Pool(art, size=32, capacity=3 * BLOCK - 5, tokenizer=tokenizer, workers=2, seed=11, held_out=True) as pool:
        seen = []
        pool.wait(3 * BLOCK, seen.append)
        assert pool.count == len(pool.pictures) == 3 * BLOCK
        assert pool.take() == 3 * BLOCK
        pictures, ids, subjects = pool.pictures, pool.ids, pool.subjects
    assert sorted(seen) == seen
    expected = {}
    for index in range(8 * BLOCK):  # which of two processes was faster, nobody knows
        one = compose(scenes.Art(art), 11, index, 32, holdout=index % 3 == 0)
        expected[one.pixels.tobytes()] = one
    room = tokenizer.model_max_length
    for k in range(0, 3 * BLOCK, 7):
        one = expected[pictures[k].permute(1, 2, 0).contiguous().numpy().tobytes()]
        read = tokenizer(one.captions, padding="max_length", truncation=True, max_length=room).input_ids
        assert ids[k].tolist() == read
        assert [int(values[k]) for values in pool.labels.values()] == one.labels
        assert np.array_equal(subjects[k].numpy(), one.subject)


def test_processes_that_die_are_said(tmp_path, art, tokenizer):
    pool = Pool(art, size=32, capacity=64, tokenizer=tokenizer, workers=1)
    with pool:
        for process in pool._processes:
            process.terminate()
            process.join()
        with pytest.raises(RuntimeError, match="have ended"):
            pool.take(wait=0.2)


def test_a_folder_without_the_art_is_refused_before_anything_starts(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match="npm pack @lobehub"):
        Pool(str(tmp_path), size=32, capacity=32, tokenizer=tokenizer)


def test_on_the_cpu_everything_is_on_the_cpu(art, tokenizer):
    pool = Pool(art, size=32, capacity=32, tokenizer=tokenizer, workers=1)
    with pool:
        assert {one.device for one in (pool.pictures, pool.ids, *pool.labels.values())} == {torch.device("cpu")}
