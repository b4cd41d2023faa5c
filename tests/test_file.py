"""record/file.py: a run comes back bit by bit, a file that is none is refused in one sentence, and writing is all or
nothing."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from diffexplore.record.file import as_bytes, checksum, load, of_bytes, save, written
from diffexplore.record.record import Record
from diffexplore.record.step import Step
from diffexplore.settings import Settings
from diffexplore.trace import Trace


def run(shape=(4, 6, 8), count=3, split=True):
    noise = torch.Generator().manual_seed(0)
    steps = []
    for i in range(count):
        names = ("latents", "output", "cond", "uncond") if split else ("latents", "output")
        tensors = {name: torch.randn(shape, generator=noise) for name in names}
        facts = {"index": i, "timestep": 900.0 - i, "seconds": 0.1, "a": 0.8, "b": 0.6, "kind": "epsilon"}
        steps.append(Step(**facts, guidance=5.0 if split else None, **tensors))
    final = torch.randn(shape, generator=noise)
    return Trace(Settings(prompt="a fox"), steps, final=final, image=Image.new("RGB", (32, 24)), seconds=1.5)


@pytest.mark.parametrize("shape", [(4, 6, 8), (4, 3, 6, 8), (8, 50), (2, 3, 4, 6, 8)])
@pytest.mark.parametrize("split", [True, False])
def test_latents_of_any_layout_come_back_bit_by_bit(shape, split, tmp_path):
    trace = run(shape, split=split)
    save(trace, tmp_path / "run.safetensors")
    again = Record(**(load(tmp_path / "run.safetensors") if split else of_bytes(as_bytes(trace))))
    assert torch.equal(again.final, trace.final)
    assert again.axes == trace.axes
    assert len(again.axes) == len(shape)
    for mine, theirs in zip(again, trace, strict=True):
        assert mine.shape == shape
        for name in ("latents", "output", "noise", "x0"):
            assert torch.equal(getattr(mine, name), getattr(theirs, name))
        assert (mine.x0_cond is not None) == split
        assert mine.guidance == theirs.guidance


def spoilt(path, change):
    """The file of a run with `change`(facts, tensors) made to it, and a checksum that fits."""
    run().save(path)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        facts = json.loads(file.metadata()["diffexplore"])
    change(facts, tensors)
    text = json.dumps(facts)
    save_file(tensors, path, metadata={"diffexplore": text, "checksum": checksum(text, tensors)})
    return path


def setting(*path, to):
    def change(facts, tensors):
        *way, last = path
        for key in way:
            facts = facts[key]
        facts[last] = to

    return change


def tensor(name, to):
    return lambda facts, tensors: tensors.__setitem__(name, to)


def bomb(facts, tensors):
    buffer = io.BytesIO()
    Image.new("1", (13_000, 13_000)).save(buffer, "PNG")
    tensors["image"] = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


HOSTILE = {
    **{
        f"{name}={value!r:.20}": (setting("steps", 1, name, to=value), f"step 1: {name} must be")
        for name in ("a", "b", "timestep", "seconds")
        for value in (None, "x", [], True, float("nan"), float("inf"), 1e308, 10**400)
    },
    "final shape": (tensor("final", torch.zeros(4, 6, 7)), "final must be of shape"),
    "final bool": (tensor("final", torch.zeros(4, 6, 8, dtype=torch.bool)), "final must be of float32"),
    "final complex": (tensor("final", torch.zeros(4, 6, 8, dtype=torch.complex64)), "final must be of float32"),
    "latents": (tensor("latents", torch.zeros(2, 4, 6, 8)), "latents must be of shape"),
    "stray": (tensor("other", torch.zeros(1)), "no run has a tensor 'other'"),
    "tokens": (setting("info", "tokens", to=7), "info: tokens must be"),
    "expected -3": (setting("expected", to=-3), "expected must be a number of evaluations, got -3"),
    "expected inf": (setting("expected", to=float("inf")), "expected must be a number of evaluations"),
    "seconds of the run": (setting("seconds", to="x"), "seconds must be"),
    "cancelled": (setting("cancelled", to=3), "cancelled must be true or false"),
    "level": (lambda facts, _: facts["steps"][0].update(a=0, b=0), "step 0: x_t cannot have 0 of the picture"),
    "kind": (setting("steps", 0, "kind", to=[]), "step 0: kind must be one of"),
    "pieces": (setting("steps", 0, "pieces", to=[]), "step 0: it says more than"),
    "missing": (lambda facts, _: facts["steps"][0].pop("half"), "step 0: it does not say its half"),
    "settings": (setting("settings", to={"steps": 0}), "steps must be a whole number from 1"),
    "number": (setting("steps", 0, "numbers", to={"x": "y"}), "step 0: x must be a number"),
    "name": (setting("tensors", to={"../x": [0]}), "the name of a number or tensor"),
    "bomb": (bomb, "13000 x 13000 pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_a_run_cannot_hold_is_refused_before_it_is_used(name, tmp_path):
    change, sentence = HOSTILE[name]
    path = spoilt(tmp_path / "x.safetensors", change)
    for read in (lambda: Trace.load(path), lambda: of_bytes(path.read_bytes())):
        with pytest.raises(ValueError, match="is a damaged run") as error:
            read()
        assert sentence in str(error.value)
        assert len(str(error.value)) < 700


@pytest.mark.parametrize("data", [b"", b"\x80\x04N.", b"\xff" * 100, (2).to_bytes(8, "little") + b"{}"])
def test_bytes_that_are_no_run_are_refused(data):
    with pytest.raises(ValueError, match="what was sent is") as error:
        of_bytes(data)
    assert "\n" not in str(error.value)


def test_a_version_is_not_echoed_whole(tmp_path):
    with pytest.raises(ValueError, match="this version reads format") as error:
        Trace.load(spoilt(tmp_path / "x.safetensors", setting("version", to="9" * 10**6)))
    assert len(str(error.value)) < 700


@pytest.mark.parametrize("where", [0.5, 0.9])
def test_flipped_bytes_are_noticed(where, tmp_path):
    run().save(tmp_path / "x.safetensors")
    data = bytearray((tmp_path / "x.safetensors").read_bytes())
    data[int(len(data) * where)] ^= 1
    (tmp_path / "x.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged run|not a readable"):
        Trace.load(tmp_path / "x.safetensors")


def test_a_noise_level_that_is_no_number_is_refused_when_it_is_saved(tmp_path):
    trace = run()
    trace[1].b = float("nan")
    with pytest.raises(ValueError, match="step 1: b must be a finite number, got nan"):
        trace.save(tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


# Writing


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(failure, tmp_path):
    (tmp_path / "x").write_bytes(b"before")

    def fail():
        with written(tmp_path / "x") as file:
            file.write(b"half")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"before"}


def test_a_file_keeps_its_mode_and_a_link_its_target(tmp_path):
    (tmp_path / "real").write_bytes(b"before")
    (tmp_path / "real").chmod(0o640)
    (tmp_path / "link").symlink_to("real")
    with written(tmp_path / "link") as file:
        file.write(b"after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"after"
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o640


def test_where_it_cannot_be_written_the_path_asked_for_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no/x"), written(tmp_path / "no" / "x"):
        pass
    with pytest.raises(IsADirectoryError, match="directory"), written(tmp_path):
        pass
    with pytest.raises(ValueError, match="a file is said by its path, got None"), written(None):
        pass


def test_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run().save("~/run.safetensors")
    assert (tmp_path / "run.safetensors").is_file()
    assert len(Trace.load("~/run.safetensors")) == 3


def test_a_run_killed_while_it_is_saved_leaves_the_file_whole(tmp_path):
    path = tmp_path / "run.safetensors"
    run().save(path)
    code = (
        "import sys; from diffexplore.trace import Trace; trace = Trace.load(sys.argv[1]); print('go', flush=True)\n"
        "while True: trace.save(sys.argv[1])"
    )
    for pause in (0.02, 0.05):
        saving = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, env={**os.environ})
        assert saving.stdout.readline() == b"go\n"
        time.sleep(pause)
        saving.send_signal(signal.SIGKILL)
        saving.wait()
        saving.stdout.close()
        assert len(Trace.load(path)) == 3
