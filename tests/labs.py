"""JupyterLab servers for the tests: started with folders of their own, driven through their page."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE


class Lab:
    """A running JupyterLab server with a folder of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    def open(self, page: Any, name: str) -> None:
        """Open a notebook and wait for the application itself: the page looks ready well before its kernel listens."""
        page.goto(f"{self.url}lab/tree/{name}?reset")
        self.ready(page)

    def ready(self, page: Any) -> None:
        """Wait until the notebook that a page is opening is there and its kernel listens."""
        page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context")
        page.evaluate(
            """async () => {
                const app = window.jupyterapp;
                await app.restored;
                const panel = app.shell.currentWidget;
                await panel.revealed;
                await panel.context.ready;
                await panel.sessionContext.ready;
                await panel.sessionContext.session.kernel.info;
            }"""
        )

    def run_all(self, page: Any) -> None:
        """Run every cell, one after the other; returns when the last is done. An error in a cell fails the test."""
        self._run_cells(page, "notebook:run-all-cells", 0)

    def run_through(self, page: Any, text: str) -> int:
        """Run the cells down to the first that has `text` in it; returns how many that are."""
        count: int = page.evaluate(
            """text => 1 + window.jupyterapp.shell.currentWidget.content.widgets
                .findIndex(cell => cell.model.sharedModel.getSource().includes(text))""",
            text,
        )
        assert count > 0, f"no cell has {text}"
        self._run_cells(page, "notebook:run-all-above", count)
        return count

    def run_from(self, page: Any, index: int) -> None:
        """Run the cells from number `index`, counted from 0, to the last."""
        self._run_cells(page, "notebook:run-all-below", index)

    def _run_cells(self, page: Any, command: str, active: int) -> None:
        page.evaluate(
            """async ([command, active]) => {
                window.jupyterapp.shell.currentWidget.content.activeCellIndex = active;
                await window.jupyterapp.commands.execute(command);
            }""",
            [command, active],
        )
        found = self.errors(page)
        assert not found, found

    def errors(self, page: Any) -> list[str]:
        """The error outputs in the notebook."""
        found: list[str] = page.evaluate(
            """() => window.jupyterapp.shell.currentWidget.content.widgets
                .filter(cell => cell.model.type === 'code')
                .flatMap(cell => cell.model.outputs.toJSON())
                .filter(output => output.output_type === 'error')
                .map(output => output.ename + ': ' + output.evalue)"""
        )
        return found

    def run(self, page: Any, code: str) -> str:
        """Run code in the notebook's kernel, outside its cells, and return what it prints. Moves that hands made on
        the page before have come to the kernel by then."""
        printed: str = page.evaluate(
            """async code => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                // ipywidgets sends the next move when the kernel is done with the last: here it is.
                await kernel.requestExecute({ code: '', silent: true, store_history: false }).done;
                const future = kernel.requestExecute({ code, store_history: false });
                let text = '';
                future.onIOPub = message => {
                    if (message.header.msg_type === 'stream') text += message.content.text;
                    if (message.header.msg_type === 'error') text += message.content.ename + ': ' +
                    message.content.evalue;
                };
                await future.done;
                return text.trim();
            }""",
            code,
        )
        return printed

    def until(self, page: Any, code: str, said: str) -> None:
        """Run code, see `run`, again until it prints this."""
        deadline = time.monotonic() + PATIENCE
        while (now := self.run(page, code)) != said:
            assert time.monotonic() < deadline, f"{code} prints {now!r}, not {said!r}"
            page.wait_for_timeout(20)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def lab_environment(home: Path, base: Mapping[str, str]) -> dict[str, str]:
    """`base` for a JupyterLab that keeps everything in `home` and asks nobody for news."""
    places = (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "JUPYTERLAB_SETTINGS_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
        "IPYTHONDIR",
    )
    settings = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, values in settings.items():
        file = home / "jupyterlab_settings_dir" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    own = {name: str(home / name.lower()) for name in places}
    return {**base, **own, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@contextmanager
def serving(
    command: list[str], environment: Mapping[str, str], folder: Path, answers: str, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, with what it says in `log`, from the moment `answers` (a URL) does; ends it with all it started."""
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            _wait_for(answers, server, log)
            yield server
        finally:
            _end(server, signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                _end(server, signal.SIGKILL)


def _end(server: subprocess.Popen[bytes], how: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, how)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("JupyterLab did not start:\n" + log.read_text("utf-8", "replace")[-3000:])
