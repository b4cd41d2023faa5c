"""What runs took, kept between sessions: the law that is fitted, and a file that never gets in anybody's way."""

import json
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from diffexplore.runs.past import RUNS, Past, Took, folder_of, law_of


def took(when, steps=1.0, **values):
    return Took(**({"evaluations": 20, "rows": 2, "pixels": 4096, "pictures": 1, "steps": steps, "decode": 0.01,
                    "text": 0.02, "kept": 1000, "when": when} | values))  # fmt: skip


@pytest.mark.parametrize(("call", "unit"), [(0.01, 1e-6), (0.0, 2e-6), (0.03, 0.0)])
def test_a_law_is_found_from_three_noisy_runs_for_sizes_and_counts_not_seen(call, unit):
    dice = random.Random(1)
    seen = [(10, 8192), (20, 8192), (15, 32_768)]
    found = [(n, x, n * (call + unit * x) * dice.uniform(0.97, 1.03)) for n, x in seen]
    for guess in (0.0, 0.05):  # what the price of a call is taken for, as long as nothing tells it
        law = law_of(found, call=guess)
        for n, x in ((50, 65_536), (3, 8192), (20, 16_384)):
            assert law.of(n, x) == pytest.approx(n * (call + unit * x), rel=0.1)
        assert law.call >= 0
        assert law.unit >= 0


def test_where_several_compute_side_by_side_small_sizes_cost_their_calls_and_large_ones_their_size():
    def seconds(size):
        return (0.018**2 + (1.2e-6 * size) ** 2) ** 0.5

    found = [(n, x, n * seconds(x)) for n, x in ((10, 8192), (20, 8192), (10, 16_384))]
    law = law_of(found, call=0.01, bend=2)
    for size in (8192, 24_576, 73_728):
        assert law.of(15, size) == pytest.approx(15 * seconds(size), rel=0.02)
    assert law_of(found, call=0.01).of(15, 73_728) < 0.8 * 15 * seconds(73_728)  # what a sum makes of it


def test_a_run_that_was_disturbed_spoils_nothing():
    found = [(20, x, 20 * (0.01 + 1e-6 * x)) for x in (8192, 16_384, 32_768, 8192)] + [(20, 8192, 5.0)]
    assert law_of(found).of(10, 65_536) == pytest.approx(10 * (0.01 + 1e-6 * 65_536), rel=0.1)


def test_where_all_runs_were_of_one_size_the_guess_decides_what_a_call_costs():
    found = [(20, 8192, 0.4)] * 3
    assert law_of(found, call=0.01).of(20, 8192) == pytest.approx(0.4, rel=0.01)
    assert law_of(found, call=0.01).call == pytest.approx(0.01, rel=0.05)
    assert law_of(found, call=5.0).of(20, 8192) == pytest.approx(0.4, rel=0.05)  # a guess beyond what was measured
    assert law_of([]) is None
    assert law_of([(0, 1, 1.0)]) is None


def test_runs_are_there_in_the_next_session_the_newest_of_them(tmp_path):
    first = Past(tmp_path / "new" / "folder")
    for when in range(RUNS + 5):
        first.note("model", took(float(when)))
    first.flush()
    again = Past(tmp_path / "new" / "folder").runs("model")
    assert [one.when for one in again] == [float(when) for when in range(5, RUNS + 5)]
    assert again[-1] == took(float(RUNS + 4))
    assert not list((tmp_path / "new" / "folder").glob(".*"))


def test_two_processes_keep_what_the_other_wrote(tmp_path):
    one, other = Past(tmp_path), Past(tmp_path)
    assert one.runs("a") == other.runs("a") == []
    one.note("a", took(1.0))
    other.note("a", took(2.0))
    other.note("b", took(3.0))
    one.flush()
    other.flush()
    assert [took.when for took in Past(tmp_path).runs("a")] == [1.0, 2.0]
    assert [took.when for took in other.runs("a")] == [1.0, 2.0]
    assert Past(tmp_path).runs("b") == [took(3.0)]


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"format": 1}', '{"format": 2, "runs": {}}', '{"format": 1, "runs": [3]}', "\x00" * 40,
        '{"format": 1, "runs": {"a": [["x"], [1, 2], null]}}', '{"format": 1, "runs": {"a": 3}}',
        '{"format": 1, "runs": {"a": [[NaN, 2, 4096, 1, 1, 1, 1, 1, 0, 0, 0, 1]]}}', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_file_is_as_none_and_is_replaced(tmp_path, text):
    (tmp_path / "runs.json").write_text(text)
    past = Past(tmp_path)
    assert past.runs("a") == []
    past.note("a", took(1.0))
    past.flush()
    assert Past(tmp_path).runs("a") == [took(1.0)]


def test_a_folder_that_cannot_be_written_is_no_trouble(tmp_path):
    (tmp_path / "file").write_text("in the way")
    past = Past(tmp_path / "file" / "folder")
    past.note("a", took(1.0))
    past.flush()
    assert past.runs("a") == [took(1.0)]
    nowhere = Past(None)
    nowhere.note("a", took(1.0))
    nowhere.flush()
    assert nowhere.runs("a") == [took(1.0)]


def test_it_stays_small(tmp_path):
    past = Past(tmp_path)
    for k in range(200):
        past.note(f"model {k}", took(float(k), steps=1 / 3))
    past.flush()
    kept = json.loads((tmp_path / "runs.json").read_bytes())["runs"]
    assert list(kept) == [f"model {k}" for k in range(136, 200)]
    (tmp_path / "runs.json").write_bytes(b" " * (2**20 + 1))
    assert Past(tmp_path).runs("model 199") == []


def test_threads_may_note_and_write_at_once(tmp_path):
    past = Past(tmp_path)

    def work(k):
        for n in range(10):
            past.note(f"model {k}", took(k + n / 100))
            past.flush()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    past.flush()
    assert all(len(Past(tmp_path).runs(f"model {k}")) == 10 for k in range(4))


def test_the_folder_is_the_users_cache_or_the_one_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for platform, said in (
        ("linux", ".cache/diffexplore"), ("darwin", "Library/Caches/diffexplore"),
        ("win32", "AppData/Local/diffexplore/Cache"),
    ):  # fmt: skip
        monkeypatch.setattr(sys, "platform", platform)
        assert folder_of({}) == tmp_path / said
    monkeypatch.setattr(sys, "platform", "linux")
    assert folder_of({"XDG_CACHE_HOME": "/x"}) == Path("/x/diffexplore")
    assert folder_of({"DIFFEXPLORE_TIMES": "/elsewhere"}) == Path("/elsewhere")
    for word in ("off", "OFF", "0", "no"):
        assert folder_of({"DIFFEXPLORE_TIMES": word}) is None

    def homeless():
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    assert folder_of({}) is None


def test_what_is_new_is_written_when_python_ends(tmp_path):
    code = (
        "from diffexplore.runs.past import past, Took\n"
        "past().note('a', Took(20, 2, 4096, 1, 1.0, 0.01, 0.02, 1000, when=5.0))\n"
    )
    environment = {**os.environ, "DIFFEXPLORE_TIMES": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert [one.when for one in Past(tmp_path).runs("a")] == [5.0]
