"""The command line: where the notebooks come from, what is started, what is refused."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from labs import free_port, lab_environment, serving
from patience import PATIENCE

from diffexplore import cli


def test_in_a_clone_the_notebooks_that_a_learner_edits_are_copies(tmp_path):
    folder = cli.notebooks(tmp_path / "copies")
    assert folder == tmp_path / "copies"
    tracked = Path(cli.__file__).resolve().parents[1] / "notebooks"
    sources = [*tracked.glob("*.ipynb"), tracked / "glossary.md"]
    assert len(sources) > 5
    for source in sources:
        copy = folder / source.name
        assert copy.read_bytes() == source.read_bytes()
        assert not copy.samefile(source)


def installed(tmp_path, monkeypatch):
    """Make the command believe it was installed from a wheel."""
    package = tmp_path / "site-packages" / "diffexplore"
    (package / "notebooks").mkdir(parents=True)
    (package / "notebooks" / cli.FIRST).write_text("{}")
    monkeypatch.setattr(cli, "__file__", str(package / "cli.py"))
    return tmp_path / "mine"


def test_an_installed_package_copies_its_notebooks(tmp_path, monkeypatch):
    folder = installed(tmp_path, monkeypatch)
    assert cli.notebooks(folder) == folder
    assert (folder / cli.FIRST).read_text() == "{}"


def test_copies_people_changed_are_never_overwritten(tmp_path, monkeypatch):
    folder = installed(tmp_path, monkeypatch)
    folder.mkdir()
    (folder / cli.FIRST).write_text("mine")
    cli.notebooks(folder)
    assert (folder / cli.FIRST).read_text() == "mine"


def test_other_options_reach_jupyterlab(monkeypatch):
    started = []
    monkeypatch.setattr(cli, "_become", lambda command: started.append(command) or 0)
    cli.main(["--no-browser", "--port=9999", "--ip", "0.0.0.0"])
    (command,) = started
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert command[-4:] == ["--no-browser", "--port=9999", "--ip", "0.0.0.0"]


def test_a_word_that_is_no_command_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["docter"])
    assert "invalid choice: 'docter'" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="elsewhere JupyterLab is a child process")
def test_the_printed_link_leads_to_the_notebook_and_ending_the_command_ends_jupyterlab(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "diffexplore.cli", "--no-browser", f"--port={port}", "--ServerApp.port_retries=0"]
    log = tmp_path / "log.txt"
    with serving(
        command, lab_environment(tmp_path, os.environ), tmp_path, f"http://localhost:{port}/api", log
    ) as server:
        assert f"http://localhost:{port}/lab/tree/{cli.FIRST}?token=" in log.read_text()
        server.terminate()
        server.wait(PATIENCE)
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_without_jupyterlab_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    assert cli.main([]) == 1
    assert "pip install jupyterlab" in capsys.readouterr().err


def test_bench_refuses_what_it_does_not_know(capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", "--fast"])
    assert "--fast" in capsys.readouterr().err


def test_notebooks_are_valid_json_with_a_title(tmp_path):
    for path in cli.notebooks(tmp_path / "copies").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        first = next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        assert first.startswith("# "), path.name
