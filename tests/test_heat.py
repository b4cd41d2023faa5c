"""Where a word looked, as a run that kept it says: by word, by step, by part of the network, in a file."""

import numpy as np
import pytest
import torch

import diffexplore as dx

WORDS = ["<begin>", "a", "fox", "and", "a", "cat", "<end>"]


def run():
    """Three steps of attention that is known: word k has k + i everywhere, over 100; of 2 x 2 places twice that."""
    steps = []
    for i in range(3):
        base = (torch.arange(7.0) + i).reshape(7, 1, 1) / 100
        tensors = {
            "attention": base.expand(7, 4, 6).clone(),
            "attention:2x2": 2 * base.expand(7, 2, 2).clone(),
            "attention_negative": torch.full((3, 4, 6), 0.25),
        }
        steps.append(
            dx.Step(
                index=i, timestep=9.0 - i, seconds=0.1, a=1.0, b=1.0, kind="epsilon", latents=torch.zeros(4, 8, 12),
                output=torch.zeros(4, 8, 12), tensors=tensors,
            )
        )  # fmt: skip
    words = {"prompt": WORDS, "negative": ["<begin>", "blurry", "<end>"]}
    return dx.Trace(dx.Settings(prompt="a fox and a cat", steps=3), steps, info={"words": words}, expected=3)


def test_the_map_of_a_word_is_found_by_its_name():
    trace = run()
    assert trace.words == WORDS
    assert trace.negative_words == ["<begin>", "blurry", "<end>"]
    assert trace[1].attention.shape == (7, 4, 6)
    assert trace.heat("fox", 0) == pytest.approx(np.full((4, 6), 0.02))
    assert trace.heat("FOX ", 2) == pytest.approx(np.full((4, 6), 0.04))
    assert trace.heat("fox") == pytest.approx(np.full((4, 6), 0.03)), "the mean over the steps"
    assert trace.heat("a", 0) == pytest.approx(np.full((4, 6), 0.05)), "a word that stands there twice is both"
    assert trace.heat(4, 0) == pytest.approx(np.full((4, 6), 0.04))
    assert trace.heat(["fox", "cat"], 0) == pytest.approx(np.full((4, 6), 0.07))
    assert trace.heat("fox", 0, at="2x2") == pytest.approx(np.full((2, 2), 0.04))
    assert trace.heat("blurry", -1, negative=True) == pytest.approx(np.full((4, 6), 0.25))


def test_what_is_not_there_is_refused_with_what_there_is():
    trace = run()
    with pytest.raises(ValueError, match="a word must be one of <begin>, a, fox, and, cat, <end>; got 'foks', did you"):
        trace.heat("foks")
    with pytest.raises(ValueError, match="there are maps of 2x2; got '3x3'"):
        trace.heat("fox", at="3x3")
    with pytest.raises(ValueError, match="a word must be one of"):
        trace.heat(7)
    with pytest.raises(IndexError):
        trace.heat("fox", 3)
    with pytest.raises(ValueError, match="draw it with attention=True"):
        dx.Trace(trace.settings, [dx.Step(**FACTS)]).heat("fox")


FACTS = {
    "index": 0, "timestep": 1.0, "seconds": 0.0, "a": 1.0, "b": 1.0, "kind": "epsilon",
    "latents": torch.zeros(4, 2, 2), "output": torch.zeros(4, 2, 2),
}  # fmt: skip


def test_it_goes_into_the_file_and_comes_back(tmp_path):
    trace = run()
    trace.save(tmp_path / "run.safetensors")
    again = dx.Trace.load(tmp_path / "run.safetensors")
    assert again.words == trace.words
    assert torch.equal(again[2].attention, trace[2].attention)
    assert np.array_equal(again.heat("fox", at="2x2"), trace.heat("fox", at="2x2"))
    trace.info["words"] = {"prompt": ["fox"]}
    with pytest.raises(ValueError, match="attention must have a map for each of 1 words, got 7"):
        trace.save(tmp_path / "other.safetensors")
