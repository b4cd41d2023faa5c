"""The switch of where words look, in an Explorer and a Compare."""

import numpy as np
import pytest
from tiny import make_pipeline
from tiny_families import family

import diffexplore as dx


def test_turned_on_the_runs_on_show_are_drawn_again_to_the_same_bits():
    model = dx.load(make_pipeline())
    explorer = dx.Explorer(model, prompt="a red fox", steps=2, sampler="DDIM")
    before = explorer.run()
    assert before.words == []
    explorer.attention = True
    for job in explorer._runner.jobs.values():
        job.result()
    assert explorer.trace.words[1:-1] == ["a", "red", "fox"]
    assert np.array_equal(np.asarray(explorer.trace.image), np.asarray(before.image))
    assert "attention=True" in explorer.code()
    assert dx.Explorer(model, attention=True).attention
    explorer.close()

    compare = dx.Compare({"fox": {"prompt": "a fox"}, "cat": {"prompt": "a cat"}}, model, attention=True, steps=2)
    traces = compare.run()
    assert {label: trace.words[2] for label, trace in traces.items()} == {"fox": "fox", "cat": "cat"}
    compare.close()


def test_where_nobody_can_tell_there_is_no_switch_and_a_sentence():
    explorer = dx.Explorer(dx.load(family("zimage"), reuse=0))
    with pytest.raises(ValueError, match="where words look cannot be shown: no attention"):
        explorer.attention = True
    assert not explorer.attention
    assert "cannot be shown" in explorer.viewer.error
