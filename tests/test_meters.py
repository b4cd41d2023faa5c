"""What a device counts of itself."""

import pytest
import torch

from diffexplore.runs.meters import Meter

CPU = torch.device("cpu")


@pytest.fixture
def counters(tmp_path):
    """The counters of a machine with two processors, as Linux keeps them."""
    for name, count in (("intel-rapl:0", 5_000_000), ("intel-rapl:0:0", 900), ("intel-rapl:1", 1_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{count}\n")
    return tmp_path


def test_joules_are_those_of_all_processors_since_then_and_of_nothing_within_them(counters):
    meter = Meter(CPU, counters)
    (counters / "intel-rapl:0" / "energy_uj").write_text("8500000\n")
    (counters / "intel-rapl:0:0" / "energy_uj").write_text("9000000\n")
    assert (meter.energy, meter.name, meter.memory) == (3.5, "RAPL", None)
    (counters / "intel-rapl:0" / "energy_uj").write_text("3\n")  # it began anew
    assert meter.energy is None


def test_where_nobody_counts_nothing_is_said(tmp_path, counters):
    none = Meter(CPU, tmp_path / "nowhere")
    assert (none.energy, none.name) == (None, "")
    (counters / "intel-rapl:1" / "energy_uj").write_text("")
    damaged = Meter(CPU, counters)
    assert (damaged.energy, damaged.name) == (None, "")
    assert Meter(torch.device("meta")).energy is None
