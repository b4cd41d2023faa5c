"""Weights of words and long prompts, by compel; a prompt that has neither keeps its picture."""

import importlib.util

import pytest
import torch
from tiny import make_pipeline
from tiny_families import family, size

import diffexplore as dx
from diffexplore.runs.weights import parts_of

S = dx.Settings(prompt="a red fox in the snow", negative_prompt="blurry", steps=2, seed=3)


def test_only_what_has_a_weight_is_taken_for_one():
    assert parts_of("a (red fox:1.3), in (the snow)") == [("a", 1.0), ("red fox", 1.3), (", in (the snow)", 1.0)]
    assert parts_of("a fox") == [("a fox", 1.0)]
    assert parts_of("") == [("", 1.0)]
    with pytest.raises(ValueError, match=r"from 0 to 3, got '\(fox:7\)'"):
        parts_of("a (fox:7)")


def test_without_compel_or_where_nothing_can_be_weighed_it_is_said(monkeypatch):
    model = dx.load(make_pipeline(), reuse=0)
    with pytest.raises(ValueError, match="weights must be True or False, got 2"):
        model.trace(S, weights=2)
    with pytest.raises(ValueError, match="not in pipelines of flux"):
        dx.load(family("flux"), reuse=0).trace(S.replace(**size("flux")), weights=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("diffexplore.runs.weights.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'diffexplore\[prompts\]'"):
        model.trace(S, weights=True)
    assert any("plain text here" in note for note in model.notes(S.replace(prompt="a (fox:1.3)")))


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_weight_moves_the_picture_and_none_leaves_its_bits(name):
    pytest.importorskip("compel")
    model = dx.load(family(name))
    settings = S.replace(**size(name))
    plain = model.trace(settings)
    assert torch.equal(model.trace(settings, weights=True).final, plain.final)
    assert torch.equal(
        model.trace(settings.replace(prompt="a red (fox:1) in the snow"), weights=True).final, plain.final
    )
    finals = [
        model.trace(settings.replace(prompt=f"a red (fox:{weight}) in the snow"), weights=True).final
        for weight in (0.5, 1.2, 2)
    ]
    apart = [float((final - plain.final).abs().mean()) for final in finals]
    assert 0 < apart[1] < apart[2]
    assert apart[0] > 0
    looked = model.trace(settings.replace(prompt="a red (fox:1.5) in the snow"), weights=True, attention=True)
    assert looked.words == ["<begin>", *S.prompt.split(), "<end>"]
    assert "Words were weighed by compel" in looked.info["notes"][-1]
    assert not any("plain text" in note for note in looked.info["notes"])


def test_a_prompt_that_is_too_long_is_read_to_its_end():
    pytest.importorskip("compel")
    model = dx.load(make_pipeline(), reuse=0)
    long = "a red fox in the snow at night in the blue desert in the snow a "
    ends = [S.replace(prompt=long + last) for last in ("cat", "fox")]
    cut, read = ([model.trace(one, weights=on) for one in ends] for on in (False, True))
    assert torch.equal(cut[0].final, cut[1].final), "the last word is not read"
    assert not torch.equal(read[0].final, read[1].final)
    assert "read in parts of 14 tokens" in read[0].info["notes"][-1]
    looked = model.trace(ends[0], weights=True, attention=True)
    assert looked.words == []
    assert "several parts" in looked.info["notes"][-1]
