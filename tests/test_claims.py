"""record/claims.py: what a file of a run may say. That strangers' files are refused stands in tests/test_file.py."""

import pytest
import torch

from diffexplore.record.claims import check
from diffexplore.record.file import FORMAT

FACTS = {
    "version": FORMAT, "settings": {}, "steps": [], "cancelled": False, "seconds": 0.0, "expected": 4, "info": {},
    "pictures": [], "tensors": {}, "numbers": [],
}  # fmt: skip


def test_a_run_without_steps_may_have_its_final_latents():
    check(FACTS, {"final": torch.zeros(4, 6, 8), "matrix": torch.zeros(5, 3)})


@pytest.mark.parametrize("name", [name for name in FACTS if name != "version"])
def test_what_is_left_out_is_named(name):
    with pytest.raises(ValueError, match=f"it does not say its {name}"):
        check({key: value for key, value in FACTS.items() if key != name}, {})
