"""The benchmark: pairs in turn, ratios from pairs, a table and JSON."""

import json
from pathlib import Path

import pytest
from tiny import make_pipeline

from diffexplore.bench import against, cost, pairs, rows, sweeps, table

ROOT = Path(__file__).parents[1]


def test_sides_are_measured_in_turn_and_ratios_come_from_pairs():
    order = []

    def side(name, values):
        values = iter(values)

        def measure():
            order.append(name)
            return next(values)

        return measure

    row = pairs.compare("x", "s", side("ours", [99, 2, 30, 4]), side("plain", [1, 1, 10, 4]), rounds=3)
    assert order == ["ours", "plain"] * 4
    assert (row.ratio, row.low, row.high) == (2, 1, 3)  # the first, uncounted pair had 99
    assert (row.ours, row.plain) == (4, 4)


def test_a_fresh_process_reports_seconds_and_memory():
    seconds, memory = rows.process("x = bytearray(60_000_000)")
    assert 0 < seconds < 60
    assert 60 < memory < 1000


def test_json_goes_to_standard_output(monkeypatch, capsys):
    monkeypatch.setattr(table, "rows", lambda rounds: [pairs.Row("x", "s", 1.0, 2.0, 0.5, 0.4, 0.6)])
    assert table.run(1, "-") == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["rows"][0]["ratio"] == 0.5
    assert figures["machine"]["torch"]


def test_the_table_is_printed_and_json_written(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(table, "rows", lambda rounds: [pairs.Row("x", "s", 1.0, 2.0, 0.5, 0.4, 0.6)])
    table.run(1, str(tmp_path / "out.json"))
    assert "0.500" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.json").read_text())["rows"]


@pytest.mark.parametrize("code", [rows.OURS, rows.PLAIN])
def test_both_sides_of_the_cold_start_run(code):
    from diffexplore.model import POCKET

    _, memory = rows.process(code.format(folder=str(POCKET)) if "{folder" in code else code)
    assert memory < 1024  # MiB; what the pocket model promises a small machine


def test_a_recorded_and_a_plain_run_are_both_timed():
    row = rows.recorded("x", make_pipeline(), steps=2, rounds=2, latents=16)
    assert row.low <= row.ratio <= row.high
    assert row.ours > 0 < row.plain


@pytest.mark.parametrize(
    "measure",
    [rows.first_frame, rows.stop, rows.preview, rows.growth, rows.size, rows.columns, rows.step, rows.mixed_anew],
)
def test_each_row_of_the_pocket_model_times_both_sides(measure):
    row = measure(1)
    assert row.ours > 0 < row.plain
    assert row.low <= row.ratio <= row.high
    assert len(row.name) <= 50  # the width of the table's first column


def test_the_rows_of_the_memory_time_both_sides():
    for row in rows.evaluations(1):
        assert row.ours > 0 < row.plain
        assert len(row.name) <= 50


def test_the_rows_of_sweeps_time_both_sides():
    for row in [*sweeps.beyond(1, cells=2), *sweeps.cluster(1, cells=2, instants=40)]:
        assert row.ours > 0 < row.plain
        assert len(row.name) <= 50


def test_a_linear_preview_does_not_profit_from_what_was_decoded_before():
    """Both sides start from nothing in every turn: a remembered picture would make the decoder look free."""
    assert rows.preview(3).ratio < 1


def test_free_memory_is_told_in_gib():
    assert 0.1 < rows.free_gib() < 10_000


def test_rows_of_cost_hold_what_is_foretold_and_shown_against_what_it_takes():
    made = [*cost.foretold(1, large=160, steps=2), *cost.on_show(1, steps=2)]
    for row in made:
        assert row.ours > 0 < row.plain
        assert row.low <= row.ratio <= row.high
        assert len(row.name) <= 50
    assert all(0 < len(row.name) <= 50 for row in cost.beside(1, steps=2))


def test_this_tree_is_measured_against_another(capsys):
    against.main([str(ROOT), "--rounds", "1", "--threads", "1", "--things", "run"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["quiet", "one"]
