"""A real browser, a page that hosts the viewer without Jupyter, and a real JupyterLab.

Debian's Chromium is used as it is installed; nothing is downloaded. Every tab notes what it asks for over the network
and every error, and the test fails at its end if a request left the machine or an error was thrown.
"""

from __future__ import annotations

import base64
import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from diffexplore.widgets.viewer import Viewer

if find_spec("playwright") is None:
    collect_ignore_glob = ["test_*.py"]

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
HERE = Path(__file__).parent
WIDGETS = Path(inspect.getfile(Viewer)).parent
HOST_URL = "http://host.invalid/"  # served by the test itself, through `route`
# Where `npm install --prefix build axe-core typescript` puts them; `build` is nobody's but this machine's.
NODE_MODULES = Path(os.environ.get("NODE_MODULES", HERE.parents[1] / "build" / "node_modules"))
LOCAL = {"127.0.0.1", "localhost", "host.invalid"}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no Chromium at {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield browser
        browser.close()


class Tab:
    """A page, and what went wrong in it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.away: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._said)

    def _said(self, message: Any) -> None:
        # JupyterLab's own debugger, where a reload or a restart cuts one of its requests short.
        if message.type == "error" and "Could not restore the debugger state" not in message.text:
            self.errors.append(message.text)

    def _asked(self, request: Any) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("blob", "data", "file", "about") and url.hostname not in LOCAL:
            self.away.append(request.url)


@pytest.fixture
def tab(chromium: Any) -> Iterator[Tab]:
    """A fresh tab, 1000 x 900, that must end with no error and with no request off the machine."""
    context = chromium.new_context(viewport={"width": 1000, "height": 900})
    context.set_default_timeout(10_000)
    tab = Tab(context.new_page())
    yield tab
    context.close()
    assert tab.away == []
    assert tab.errors == []


@pytest.fixture(scope="session")
def axe() -> Callable[[Any], list[str]]:
    """Finds what axe-core calls serious or critical in every viewer of a page."""
    file = NODE_MODULES / "axe-core" / "axe.min.js"
    if not file.exists():
        pytest.skip(f"there is no axe-core in {NODE_MODULES}: npm install --prefix build axe-core")
    source = file.read_text("utf-8")

    def violations(page: Any) -> list[str]:
        page.evaluate(source)
        found: list[str] = page.evaluate(
            """async () => (await axe.run('.dx-viewer')).violations
                .filter(({ impact }) => impact === 'serious' || impact === 'critical')
                .flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) =>
                    `${id}: ${html.slice(0, 120)} ${failureSummary}`))"""
        )
        return found

    return violations


# --- the viewer without Jupyter
# -----------------------------------------------------------------------------------------------------------


class Host:
    """host.html with a Python `Viewer` on the other end: the whole wire, with the test in the middle.

    Messages go through Playwright, which is bound to the test's own thread; so the test drives the viewer
    (`Viewer.drive`).
    """

    def __init__(self, page: Any, viewer: Viewer) -> None:
        self.page = page
        self.viewer = viewer
        self.sent: list[dict[str, Any]] = []  # kernel to page
        self.heard: list[dict[str, Any]] = []  # page to kernel
        self.lose: Callable[[dict[str, Any]], bool] = lambda content: False
        viewer.send = self._send  # type: ignore[method-assign]
        viewer.send_state = lambda key=None: self.push()  # type: ignore[method-assign]
        page.route(HOST_URL + "**", self._serve)
        page.expose_function("toKernel", self._hear)
        page.goto(HOST_URL + "host.html")
        self.push()
        page.evaluate("open_widget()")
        self.views = 0
        self.add_view()

    def _serve(self, route: Any) -> None:
        name = urlsplit(route.request.url).path.lstrip("/")
        file = (HERE if name == "host.html" else WIDGETS) / name
        kind = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}[file.suffix]
        route.fulfill(body=file.read_text("utf-8"), content_type=f"{kind}; charset=utf-8")

    def _send(self, content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        self.sent.append(content)
        if not self.lose(content):
            self.page.evaluate(
                "([content, buffers]) => deliver(content, buffers)", [content, [_text(b) for b in buffers or []]]
            )

    def _hear(self, content: dict[str, Any]) -> None:
        self.heard.append(content)
        self.viewer._handle_custom_msg(content, [])

    def push(self) -> None:
        """Send the viewer's traits, as a kernel does when they are set."""
        names = ("_film", "view", "step", "_notes", "_error", "_page", "_esm", "_css")
        traits = self.viewer.get_state(names)
        self.page.evaluate("([traits, frames]) => set_traits(traits, frames)", [traits, _text(self.viewer._frames)])

    def add_view(self) -> Any:
        """Show the widget in one more place; returns a locator of its root."""
        self.page.evaluate("add_view()")
        self.views += 1
        return self.page.locator(".dx-viewer").nth(self.views - 1)

    @property
    def root(self) -> Any:
        return self.page.locator(".dx-viewer").first

    @property
    def step(self) -> Any:
        return self.root.get_by_label("step", exact=True)

    def settle(self) -> None:
        """Wait until what is on show is drawn: two frames of the page, and no picture still being decoded."""
        self.page.evaluate("settle()")

    def pixels(self, selector: str = ".dx-film canvas") -> bytes:
        """What a canvas shows, as PNG bytes."""
        self.settle()
        return base64.b64decode(
            self.page.evaluate("selector => document.querySelector(selector).toDataURL().split(',')[1]", selector)
        )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def host(tab: Tab) -> Callable[[Viewer], Host]:
    return lambda viewer: Host(tab.page, viewer)


# --- JupyterLab ---


class Lab:
    """A running JupyterLab server with a folder of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    def open(self, page: Any, name: str) -> None:
        """Open a notebook and wait for the application itself: the page looks ready well before its kernel listens."""
        page.goto(f"{self.url}lab/tree/{name}?reset")
        page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context", timeout=60_000)
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
        page.evaluate(
            """async () => {
                const panel = window.jupyterapp.shell.currentWidget;
                panel.content.activeCellIndex = 0;
                await window.jupyterapp.commands.execute('notebook:run-all-cells');
            }"""
        )
        assert self.errors(page) == []

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
        """Run code in the notebook's kernel, outside its cells, and return what it prints."""
        printed: str = page.evaluate(
            """async code => {
                const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
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


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One server for all tests, all of its folders temporary."""
    pytest.importorskip("jupyterlab")
    home, folder = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("notebooks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    places = (
        "JUPYTER_CONFIG_DIR",
        "JUPYTER_DATA_DIR",
        "JUPYTER_RUNTIME_DIR",
        "JUPYTERLAB_SETTINGS_DIR",
        "JUPYTERLAB_WORKSPACES_DIR",
        "IPYTHONDIR",
    )
    environment = (
        os.environ
        | {name: str(home / name.lower()) for name in places}
        | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    )
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "tests"), environment.get("PYTHONPATH", "")])
    settings = {
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, values in settings.items():
        file = home / "jupyterlab_settings_dir" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        f"--port={port}",
    ]
    command += ["--ServerApp.port_retries=0", "--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    command += [f"--ServerApp.root_dir={folder}", "--LabApp.extension_manager=readonly", "--expose-app-in-browser"]
    url = f"http://127.0.0.1:{port}/"
    with (home / "log.txt").open("wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_for(url + "api/status", server, home / "log.txt")
            yield Lab(url, folder)
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    pytest.fail("JupyterLab did not start:\n" + log.read_text("utf-8", "replace")[-3000:])
