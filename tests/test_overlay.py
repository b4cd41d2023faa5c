"""Where words look as pictures: over the estimate, in a film, and on paper."""

import base64

import numpy as np
import pytest
import torch
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.looks.overlay import FULL, RANGE, SIDE, packed, strength
from diffexplore.widgets.film import Film, pack, unpack


@pytest.fixture(scope="module")
def trace():
    model = dx.load(make_pipeline(), reuse=0)
    return model.trace(prompt="a red fox", negative_prompt="blurry", steps=3, seed=1, attention=True)


def planted(trace, word, peak):
    """The run, with a map of one word that is `peak` times its mean in one corner."""
    made = trace.copy(decode=None, matrix=None)
    for step in made:
        maps = step.attention
        row = maps[made.words.index(word)]
        row[:] = 0.1
        row[:2, :2] = 0.1 * peak
        step.tensors["attention"] = maps
    return made


def test_it_lights_what_a_word_looks_at_and_nothing_else(trace):
    lit = planted(trace, "fox", 50.0)
    plain = np.asarray(lit.view("x0", 1, 96)).astype(float)
    seen = np.asarray(lit.view("attention:fox", 1, 96)).astype(float)
    assert seen.shape == plain.shape
    assert np.abs(seen[:16, :16] - [255, 176, 32]).mean() < np.abs(plain[:16, :16] - [255, 176, 32]).mean() / 2
    far = plain[40:, 60:] * 0.55
    assert np.abs(seen[40:, 60:] - far).max() <= 1, "dimmed, and in its own colours"
    assert lit.view("attention_negative:blurry", -1).size == lit.view("x0", -1).size
    with pytest.raises(ValueError, match="a word must be one of <begin>, a, red, fox, <end>; got 'cat'"):
        trace.view("attention:cat", 0)


def test_the_scale_is_fixed_and_a_broken_map_is_none():
    flat = np.full((4, 4), 0.3, np.float32)
    assert not strength(flat).any()
    peak = flat.copy()
    peak[0, 0] = 0.3 * 200
    assert strength(peak)[0, 0] == 1
    assert np.allclose(strength(peak * 0.01), strength(peak)), "how much it looks is told by its share"
    assert not strength(np.full((2, 2), np.nan, np.float32)).any()
    assert FULL < RANGE


def test_a_film_holds_its_maps_and_shares_live_packed_and_unpacked(trace):
    film = Film.of(trace)
    (column,) = [one for one in film.columns if one["name"] == "attention"]
    assert column["words"] == trace.words
    at = [one["name"] for one in film.columns].index("attention")
    for i, row in enumerate(film.steps):
        told = row[at]
        maps = np.frombuffer(base64.b64decode(told["maps"]), np.uint8).reshape(len(trace.words), *told["size"])
        assert told["shares"] == pytest.approx(trace[i].attention.mean((1, 2)).tolist(), rel=1e-3)
        ratio = trace.heat("fox", i) / trace.heat("fox", i).mean()
        assert np.allclose((maps[3] / 255.0) ** 2 * RANGE, ratio, atol=0.05)
    (again,) = unpack(*pack([film]))
    assert again.steps[1][at] == film.steps[1][at]
    assert [one["name"] for one in Film.of(dx.Trace(trace.settings, [dx.Step(**PLAIN)])).columns].count(
        "attention"
    ) == 0
    large = planted(trace, "fox", 3.0)
    large[0].tensors["attention"] = torch.rand(5, 64, 96)
    assert max(packed(large, 0)["size"]) <= SIDE


PLAIN = {
    "index": 0, "timestep": 1.0, "seconds": 0.0, "a": 1.0, "b": 1.0, "kind": "epsilon",
    "latents": torch.zeros(4, 2, 2), "output": torch.zeros(4, 2, 2),
}  # fmt: skip


def test_on_paper_there_is_a_row_for_each_word_and_a_curve_of_its_share(trace):
    figure = trace.plot_attention(columns=3)
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert [label for label in labels if label] == ["a", "red", "fox"]
    shares = {line.get_label(): line.get_ydata() for line in figure.axes[-1].lines}
    assert shares["fox"] == pytest.approx([trace.heat("fox", i).mean() for i in range(3)])
    assert len(trace.plot_attention(["<end>"], negative=True).axes) == 4
    for wrong, said in (({"words": ["cat"]}, "a word must be"), ({"words": []}, "1 to 8"), ({"columns": 1}, "2 to 12")):
        with pytest.raises(ValueError, match=said):
            trace.plot_attention(**wrong)
