"""The doctor: it finds what is missing, says how to get it, and never fails itself."""

import importlib.metadata
import importlib.util

import pytest

from diffexplore import doctor, load


def test_a_whole_installation_is_well(capsys):
    assert doctor.run() == 0
    printed = capsys.readouterr().out
    side = load().size[0]
    assert f"drew {side}x{side} pixels" in printed
    assert "FAIL" not in printed
    assert printed.rstrip().endswith("Everything needed works here.")


def test_what_is_required_is_read_from_the_package_itself():
    names = dict(doctor._required())
    assert {"torch", "diffusers", "transformers", "ipywidgets", "anywidget"} <= set(names)
    assert "jupyterlab" not in names


def test_a_missing_package_fails_with_the_command_that_helps(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "anywidget":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    (finding,) = [f for f in doctor._packages() if f.what == "anywidget"]
    assert finding.mark == "FAIL"
    assert finding.advice.startswith('pip install "anywidget>=')


@pytest.mark.parametrize(
    ("version", "mark"), [("0.9.20", "FAIL"), ("0.9.21", "ok"), ("0.10.0+local", "ok"), ("1.0rc1", "ok")]
)
def test_versions_are_compared_as_numbers(monkeypatch, version, mark):
    monkeypatch.setattr(doctor, "_required", lambda: [("anywidget", "0.9.21")])
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert [f.mark for f in doctor._packages()][1] == mark


def test_an_optional_module_is_only_noted(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    findings = list(doctor._optional())
    assert {f.mark for f in findings} == {"note"}
    assert {f.advice for f in findings} >= {"pip install peft", "pip install scipy"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal:       2048 kB\n"}, 2 * 2**20),
        ({"proc/meminfo": "MemTotal: 4096 kB\n", "sys/fs/cgroup/memory.max": "1048576\n"}, 2**20),
        ({"proc/meminfo": "MemTotal: 4096 kB\n", "sys/fs/cgroup/memory.max": "max\n"}, 4 * 2**20),
        ({"sys/fs/cgroup/memory/memory.limit_in_bytes": "1234"}, 1234),
    ],
)
def test_the_memory_limit_is_the_smallest_that_holds(tmp_path, files, expected):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert doctor.memory_limit(tmp_path) == expected


def test_little_memory_is_said(monkeypatch):
    monkeypatch.setattr(doctor, "memory_limit", lambda: 2**29)
    (finding,) = doctor._memory()
    assert (finding.mark, finding.found) == ("note", "0.5 GiB")


def test_a_check_that_breaks_is_a_finding_of_its_own(monkeypatch):
    def broken():
        raise OSError("no such\ndevice")

    broken.__name__ = "_devices"
    monkeypatch.setattr(doctor, "_devices", broken)
    monkeypatch.setattr(doctor, "_picture", lambda: iter(()))
    (finding,) = [f for f in doctor.examine() if f.what == "devices"]
    assert finding.mark == "FAIL"
    assert "OSError: no such device" in finding.found
    assert doctor.run(lambda line: None) == 1


def test_a_picture_of_something_else_is_a_failure(monkeypatch):
    """What libraries of the wrong version have done: they drew, with weights of their own, and said nothing."""
    import torch

    import diffexplore.model as room

    def spoiled(*args, **options):
        model = load(*args, **options)
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for weight in model.pipeline.text_encoder.parameters():
                weight.copy_(torch.randn_like(weight) * 0.02)
        return model

    load = room.load
    assert [f.mark for f in doctor.examine() if f.what == "pocket model"] == ["ok"]
    monkeypatch.setattr(room, "load", spoiled)
    (finding,) = [f for f in doctor.examine() if f.what == "pocket model"]
    assert finding.mark == "FAIL"
    assert "do not show a fox in the snow at noon" in finding.found
