"""The same settings twice: what comes out otherwise, and by what."""

from __future__ import annotations

import logging

import torch
from tiny_families import model

import diffexplore as dx
from diffexplore.experiments.twice import checksum


def test_the_pocket_model_draws_the_same_bits_again_and_says_what_changes_them(caplog) -> None:
    one = dx.load()
    logging.getLogger("diffusers").addHandler(caplog.handler)  # its records go no further up
    try:
        found = dx.twice(one, prompt="a red fox in the snow", steps=4, seed=3)
    finally:
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert "float32" not in caplog.text  # nothing is cast, so there is nothing to warn of
    rows = {row["how"]: row for row in found.table()}
    assert rows["the first time"]["picture"] == checksum(found.first.image)
    for how in ("once more", "the model opened anew"):
        assert rows[how]["same"], how
    half = rows["in bfloat16"]
    assert half["same"] is False
    assert 0 < half["apart"] < 3
    assert half["levels"] > 0
    batch = rows["with three others, in a batch"]
    assert batch["same"] or 0 < batch["apart"] < 0.1
    assert "the same bits" in str(found)
    assert torch.equal(found.first.final, one.trace(prompt="a red fox in the snow", steps=4, seed=3).final)


def test_what_cannot_be_tried_says_why() -> None:
    found = dx.twice(model("sd"), prompt="a red fox", steps=2)
    rows = {row["how"]: row for row in found.table()}
    assert rows["the model opened anew"]["same"] is None
    assert "made from a ready pipeline" in rows["the model opened anew"]["why"]
    assert rows["once more"]["same"]


def test_a_checksum_stands_for_type_shape_and_bits() -> None:
    one = torch.arange(4.0)
    assert checksum(one) == checksum(one.clone())
    others = (one.reshape(2, 2), one.half(), one + 1, -one, one[::2], torch.empty(0))
    assert len({checksum(one), *map(checksum, others)}) == 7
