"""experiments/arrival.py: scales against fields whose arrival is known, and what a real model shows over seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import diffexplore as dx
from diffexplore.experiments.arrival import bands_of
from diffexplore.model import Model
from diffexplore.pocket.judge import readable


def test_bands_part_all_frequencies_into_octaves() -> None:
    for shape, names in (
        ((16, 16), ["mean colour", "1 cycle", "2 to 3 cycles", "4 to 7 cycles", "8 cycles"]),
        ((8, 12), ["mean colour", "1 cycle", "2 to 3 cycles", "4 cycles"]),
    ):
        found = bands_of(shape)
        assert [name.removesuffix(" per picture") for name in found] == names
        assert (sum(band.astype(int) for band in found.values()) == 1).all()
    wave = np.cos(2 * np.pi * 3 * np.arange(16) / 16)[None, :] * np.ones((16, 1))
    power = np.abs(np.fft.fft2(wave)) ** 2
    assert power[bands_of((16, 16))["2 to 3 cycles per picture"]].sum() == pytest.approx(power.sum())


def test_a_run_finds_the_coarse_before_the_fine_and_the_setting_before_the_subject() -> None:
    found = dx.arrival(dx.load(), prompt="a red fox in the snow at night", steps=20, seeds=4)
    assert found.seeds == (0, 1, 2, 3)
    medians = [np.median(steps) for steps in found.scales.values()]
    assert medians == sorted(medians), "coarse to fine"
    assert medians[0] + 3 < medians[-1]
    assert set(found.things) == {"subject", "colour", "setting", "light"}
    assert found.before("setting", "subject") > 0.5
    assert found.before("subject", "setting") == pytest.approx(1 - found.before("setting", "subject"))
    assert all(0 <= share <= 1 for share in found.shown.values())
    rows = {row["what"]: row for row in found.table()}
    assert len(rows) == 9
    fine = rows["8 cycles per picture"]
    assert fine["step_low"] <= fine["step"] <= fine["step_high"]
    assert found.share[-1] <= fine["share"] <= found.share[0]
    labels = [label.get_text() for label in found.plot().axes[0].get_yticklabels()]
    assert labels[0] == "mean colour"
    assert labels[-1].startswith("light: shown in ")


def test_a_scale_is_there_where_it_stays(tiny_model: Model) -> None:
    found = dx.arrival(tiny_model, prompt="a red fox", steps=4, seeds=[3, 5], sampler="DDIM")
    assert found.things == {}, "nobody can read the pictures of this model"
    band = bands_of((8, 12))["4 cycles per picture"]
    for k, seed in enumerate(found.seeds):
        trace = tiny_model.trace(prompt="a red fox", steps=4, seed=seed, sampler="DDIM")
        end = torch.fft.fft2(trace.final.double()).numpy()[:, band]
        fields = [torch.fft.fft2(step.x0.double()).numpy()[:, band] for step in trace]
        there = [(np.abs(one - end) ** 2).sum() <= 0.25 * (np.abs(end) ** 2).sum() for one in fields]
        expected = next((i + 1 for i in range(4) if all(there[i:])), 5)
        assert found.scales["4 cycles per picture"][k] == expected


def test_what_cannot_be_measured_is_refused(tiny_model: Model) -> None:
    for seeds in (1, 0, 1001, [3], [3, 3], "7", None, 2.5):
        with pytest.raises(ValueError, match="seeds must be"):
            dx.arrival(tiny_model, prompt="a", steps=2, seeds=seeds)
    with pytest.raises(ValueError, match="a model is needed"):
        dx.arrival(None)
    found = dx.arrival(tiny_model, prompt="a", steps=2, seeds=2, sampler="DDIM")
    with pytest.raises(ValueError, match="it must be one of mean colour"):
        found.before("subject", "mean colour")


def test_what_a_prompt_makes_unreadable_is_left_out() -> None:
    assert readable("a silhouette of a red fox in space at night") == {
        "subject": "fox",
        "setting": "space",
        "style": "silhouette",
    }
