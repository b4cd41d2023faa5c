"""shelf.py: what was drawn in one session is there in the next, to the bit, and nothing that is not whole and ours."""

import subprocess
import sys
from pathlib import Path

import diskcache
import numpy as np
import pytest
import torch
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.record.numbers import Number, declare
from diffexplore.runs.memory import Store
from diffexplore.runs.probes import Probe
from diffexplore.runs.shelf import LIMIT, Shelf

WHAT = dx.Settings(prompt="a red fox", seed=3, steps=3, sampler="DDIM")

SESSION = """
import sys
import torch
import diffexplore as dx
torch.set_num_threads(int(sys.argv[2]))
model = dx.load(device="cpu", cache=sys.argv[1])
print("ready", flush=True)
for seed in map(int, sys.argv[3:]):
    model.trace(prompt="a fox", steps=3, sampler="DDIM", seed=seed)
"""


def equal(one: dx.Trace, other: dx.Trace) -> bool:
    steps = all(
        torch.equal(getattr(mine, name), getattr(theirs, name))
        for mine, theirs in zip(one, other, strict=True)
        for name in ("latents", "noise", "noise_cond", "x0")
    )
    same = one.settings == other.settings and torch.equal(one.final, other.final) and steps
    told = [{**trace.info, "reused": None, "cost": None} for trace in (one, other)]
    return same and np.array_equal(np.asarray(one.image), np.asarray(other.image)) and told[0] == told[1]


def shelves(folder: Path, **options) -> Model:
    return Model(make_pipeline(), **{"reuse": 0, "cache": folder, **options})


def test_a_later_model_has_what_an_earlier_one_drew(tmp_path: Path) -> None:
    first = shelves(tmp_path / "new" / "cache").trace(WHAT, attention=True)
    later = shelves(tmp_path / "new" / "cache")
    steps: list[int] = []
    again = later.submit(WHAT, lambda step: steps.append(step.index), attention=True).result()
    assert again.info["reused"]
    assert steps == [0, 1, 2]
    assert equal(first, again)
    assert torch.equal(first[1].attention, again[1].attention)
    assert again.view("x0", 1).size == first.view("x0", 1).size
    assert later.remembered.found == 1
    # One by one is never answered with what a batch rounded otherwise.
    batch = shelves(tmp_path / "new" / "cache").trace_many([WHAT.replace(seed=seed) for seed in (5, 6)])
    alone = shelves(tmp_path / "new" / "cache").trace(batch[0].settings)
    assert not alone.info.get("reused")


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.pipeline.unet.conv_out.bias.data.add_(1e-6),
        lambda model: model.pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
        lambda model: model.pipeline.vae.enable_tiling(),
        lambda model: torch.set_num_threads(3),
    ],
)
def test_another_pipeline_draws_itself(tmp_path: Path, change) -> None:
    threads = torch.get_num_threads()
    try:
        shelves(tmp_path).trace(WHAT)
        later = shelves(tmp_path)
        change(later)
        assert not later.trace(WHAT).info.get("reused")
        assert shelves(tmp_path).remembered.found == 0
    finally:
        torch.set_num_threads(threads)


class Loud(Probe):
    changes = True

    def key(self):
        return "loud"

    def on_step(self, step):
        step.numbers["loud"] = 1.0


def test_what_probes_of_ones_own_left_is_not_kept_for_other_sessions(tmp_path: Path, monkeypatch) -> None:
    declare(Number("loud", "loud", "", "How loud."))
    model = shelves(tmp_path)
    model.trace(WHAT, probes=[Loud()])
    assert model.trace(WHAT, probes=[Loud()]).info["reused"]
    monkeypatch.setattr("diffexplore.runs.draw._TODAY", b"tomorrow")
    assert not shelves(tmp_path).trace(WHAT, probes=[Loud()]).info.get("reused")


def spoilt(data: bytes) -> bytes:
    return data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


@pytest.mark.parametrize(
    "damage", [spoilt, lambda data: data[:-1], lambda data: b"", lambda data: Bomb(), lambda data: 4]
)
def test_what_is_damaged_or_not_ours_is_computed_anew(tmp_path: Path, damage) -> None:
    first = shelves(tmp_path).trace(WHAT)
    with diskcache.Cache(str(tmp_path)) as cache:
        (name,) = cache
        whole = cache[name]
        cache[name] = damage(whole)
        cache[Bomb()] = 4
        cache["another's"] = whole
    again = shelves(tmp_path).trace(WHAT)
    assert not again.info.get("reused")
    assert equal(first, again)
    assert shelves(tmp_path).trace(WHAT).info["reused"]


def test_a_run_under_anothers_name_is_not_taken(tmp_path: Path) -> None:
    shelves(tmp_path).trace(WHAT)
    other = shelves(tmp_path).trace(WHAT, seed=4)
    with diskcache.Cache(str(tmp_path)) as cache:
        one, two = cache
        cache[one], cache[two] = cache[two], cache[one]
    again = shelves(tmp_path).trace(WHAT, seed=4)
    assert not again.info.get("reused")
    assert equal(again, other)


def test_the_folder_is_bounded(tmp_path: Path) -> None:
    pipeline = make_pipeline()
    model = Model(pipeline, reuse=0, cache=tmp_path)
    trace = model.trace(WHAT)
    with diskcache.Cache(str(tmp_path)) as cache:
        each = cache.volume() / len(cache)
        assert cache.size_limit == LIMIT
    small = Shelf(0, tmp_path, pipeline, {}, limit=int(6 * each))
    for seed in range(40):
        small.put((("run", b"state", str(seed), "DDIM", b""), False), trace, 1)
    assert small.get((("run", b"state", "39", "DDIM", b""), False)) is not None
    with diskcache.Cache(str(tmp_path)) as cache:
        assert cache.volume() <= small.limit + each
        assert len(cache) < 40


def test_sessions_share_a_folder_at_the_same_time(tmp_path: Path) -> None:
    """Two processes on one folder, from both ends: what either has drawn, the other has."""
    threads, seeds = torch.get_num_threads(), range(6)
    command = [sys.executable, "-c", SESSION, str(tmp_path), str(threads), *map(str, seeds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        mine = dx.load(device="cpu", cache=tmp_path)
        asked = [dx.Settings(prompt="a fox", steps=3, sampler="DDIM", seed=seed) for seed in reversed(seeds)]
        drawn = [mine.trace(one) for one in asked]
    assert other.returncode == 0
    later = dx.load(device="cpu", cache=tmp_path)
    alone = dx.load(device="cpu", reuse=0)
    assert isinstance(later.remembered, Shelf)
    for trace in drawn:
        again = later.trace(trace.settings)
        assert again.info["reused"]
        assert equal(again, trace)
        assert equal(again, alone.trace(trace.settings))
    assert later.remembered.found == len(seeds)


def test_what_can_be_no_folder_is_refused_before_anything_is_opened(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("x")
    for cache, said in (
        (4, "cache must be the path of a folder, got 4"),
        ("", "got ''"),
        (tmp_path / "file", "file' is a file"),
    ):
        with pytest.raises(ValueError, match=said):
            dx.load("nobody/has-this", cache=cache)
    (tmp_path / "cache.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(ValueError, match="holds something else, or is damaged"):
        Model(make_pipeline(), cache=tmp_path)
    monkeypatch.setitem(sys.modules, "diskcache", None)
    with pytest.raises(ImportError, match=r"pip install 'diffexplore\[cache\]'"):
        dx.load("nobody/has-this", cache=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert type(dx.load(device="cpu").remembered) is Store
