"""The rows for a GPU, tried out with small networks on the processor: what they do is the same."""

import pytest
import torch

from diffexplore.bench import card
from diffexplore.bench.nets import NETS


def test_every_row_times_both_sides_of_every_size():
    rows = card.rows(1, "cpu", small=True)
    for row in rows:
        assert row.ours > 0 < row.plain
        assert row.low <= row.ratio <= row.high
        assert len(row.name) <= 50  # the width of the table's first column
    assert {row.name.split(":")[0] for row in rows} == {net.name for net in NETS}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_without_a_card_it_is_said():
    with pytest.raises(ValueError, match="torch sees none here"):
        card.rows(1)
