"""What training showed under a caption that leaves something open."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from diffexplore.pocket import world
from diffexplore.pocket.judge import named


def test_it_is_what_scenes_and_captions_come_to() -> None:
    rng = np.random.default_rng(5)
    pairs = [
        (scene, world.caption(scene, rng)) for scene in (world.sample_scene(rng, clean=True) for _ in range(25_000))
    ]
    seen = {}
    for scene, text in pairs:
        said = {name: value for name, value in named(text).items() if name not in ("subject", "quality")}
        seen.setdefault(tuple(sorted(said.items())), []).append(scene)
    for said, attribute in (
        ({"light": "night"}, "setting"), ({"setting": "sea"}, "light"), ({}, "light"), ({"light": "dawn"}, "style"),
    ):  # fmt: skip
        scenes = seen[tuple(sorted(said.items()))]
        values = Counter(
            "none" if attribute == "setting" and scene.setting is None else getattr(scene, attribute)
            for scene in scenes
            if attribute != "light" or (scene.light and scene.style != "line")
        )
        of = sum(values.values())
        assert of > 50
        for value, share in world.taught(said)[attribute].items():
            assert values[value] / of == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / of) + 0.01), value


def test_of_a_subject_it_leaves_out_what_training_held_back() -> None:
    found = world.taught({"subject": "fox"})
    scene = world.Scene("fox")
    held = [s for s in world.SETTINGS if world.held_out(world.Scene("fox", setting=s))]
    assert not world.held_out(scene)
    assert not set(held) & set(found["setting"])
    assert len(found["setting"]) == 7
    assert found["colour"] == {"own": pytest.approx(1.0)}
    assert all(sum(values.values()) == pytest.approx(1.0) for values in found.values())
    with pytest.raises(ValueError, match="training showed nothing with subject fox, setting"):
        world.taught({"subject": "fox", "setting": held[0]})
    some = world.taught({}, ["fox", "owl"])["subject"]
    assert set(some) == {"fox", "owl"}
