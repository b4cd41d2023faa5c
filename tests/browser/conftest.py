"""A real browser, a page that hosts the viewer without Jupyter, and a real JupyterLab.

Debian's Chromium is used as it is installed; nothing is downloaded. Every tab notes what it asks for over the network
and every error, and the test fails at its end if a request left the machine or an error was thrown.
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from labs import Lab, free_port, lab_environment, serving
from patience import PATIENCE

from diffexplore.widgets.viewer import Viewer

if find_spec("playwright") is None:
    collect_ignore_glob = ["test_*.py"]

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
HERE = Path(__file__).parent
HOST_URL = "http://host.invalid/"  # served by the test itself, through `route`
# Where `npm install --prefix build axe-core typescript` puts them; `build` is nobody's but this machine's.
NODE_MODULES = Path(os.environ.get("NODE_MODULES", HERE.parents[1] / "build" / "node_modules"))
# JupyterLab's own complaints where a reload or a restart cuts a request of its debugger short, or a message in two.
CUT_SHORT = ("Could not restore the debugger state", "Kernel message validation error")
LOCAL = {"127.0.0.1", "localhost", "host.invalid"}


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip(f"there is no Chromium at {CHROMIUM}")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=1000 * PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--disable-gpu", "--disable-dev-shm-usage"], timeout=1000 * PATIENCE
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def fresh(chromium: Any) -> Callable[..., AbstractContextManager[Any]]:
    """Opens a context, 1000 x 900 if nothing else is said, that is as patient as all tests are."""

    @contextmanager
    def opened(**options: Any) -> Iterator[Any]:
        context = chromium.new_context(**{"viewport": {"width": 1000, "height": 900}} | options)
        context.set_default_timeout(1000 * PATIENCE)
        try:
            yield context
        finally:
            context.close()

    return opened


class Tab:
    """A page, and what went wrong in it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.away: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._asked)
        page.on("pageerror", lambda error: self._heard(str(error)))
        page.on("console", lambda message: self._heard(message.text) if message.type == "error" else None)

    def _heard(self, text: str) -> None:
        if not any(own in text for own in CUT_SHORT):
            self.errors.append(text)

    def _asked(self, request: Any) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("blob", "data", "file", "about") and url.hostname not in LOCAL:
            self.away.append(request.url)


@pytest.fixture
def tab(fresh: Any) -> Iterator[Tab]:
    """A fresh tab, 1000 x 900, that must end with no error and with no request off the machine."""
    with fresh() as context:
        tab = Tab(context.new_page())
        yield tab
    assert tab.away == []
    assert tab.errors == []


@pytest.fixture(scope="session")
def axe() -> Callable[[Any], list[str]]:
    """Finds what axe-core calls serious or critical in every viewer of a page, with the controls around it."""
    file = NODE_MODULES / "axe-core" / "axe.min.js"
    if not file.exists():
        pytest.skip(f"there is no axe-core in {NODE_MODULES}: npm install --prefix build axe-core")
    source = file.read_text("utf-8")

    def violations(page: Any) -> list[str]:
        page.evaluate(source)
        found: list[str] = page.evaluate(
            """async () => (await axe.run(['.dx-app', '.dx-sheet', '.dx-viewer'].find((one) =>
                document.querySelector(one)))).violations
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
        self.owner = threading.get_ident()
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
        kind, body = {
            "host.html": ("text/html", (HERE / "host.html").read_text("utf-8")),
            "viewer.js": ("text/javascript", self.viewer._esm),
            "viewer.css": ("text/css", self.viewer._css),
        }[name]
        route.fulfill(body=body, content_type=f"{kind}; charset=utf-8")

    def _send(self, content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        self.sent.append(content)
        # What the viewer's own thread says cannot reach a page that is bound to another: it is lost, as any message is.
        if threading.get_ident() == self.owner and not self.lose(content):
            self.page.evaluate(
                "([content, buffers]) => deliver(content, buffers)", [content, [_text(b) for b in buffers or []]]
            )

    def _hear(self, content: dict[str, Any]) -> None:
        self.heard.append(content)
        self.viewer._handle_custom_msg(content, [])

    def push(self) -> None:
        """Send the viewer's traits, as a kernel does when they are set."""
        names = (
            "_film",
            "view",
            "step",
            "_notes",
            "_error",
            "_page",
            "_outlook",
            "_marks",
            "truth",
            "branches",
            "levels",
            "code",
            "_esm",
            "_css",
        )
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


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One server for all tests, all of its folders temporary."""
    pytest.importorskip("jupyterlab")
    home, folder = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("notebooks")
    port = free_port()
    environment = lab_environment(home, os.environ)
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = os.pathsep.join([str(root), str(root / "tests"), environment.get("PYTHONPATH", "")])
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
    with serving(command, environment, folder, url + "api/status", home / "log.txt"):
        yield Lab(url, folder)
    shutil.rmtree(folder, ignore_errors=True)


# --- what a step of the newcomer's path takes

STEPS = pytest.StashKey[list[tuple[str, float]]]()


@pytest.fixture
def timed(request: pytest.FixtureRequest) -> Callable[[str], AbstractContextManager[None]]:
    """Times a step; every run of the tests prints the steps as a table, and says which one did not end."""
    rows = request.config.stash.setdefault(STEPS, [])

    @contextmanager
    def step(name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        except BaseException:
            name += " (failed)"
            raise
        finally:
            rows.append((name, time.monotonic() - begun))

    return step


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(STEPS, [])
    if rows:
        terminalreporter.section("the newcomer's path")
        for name, seconds in [*rows, ("all of it", sum(seconds for _, seconds in rows))]:
            terminalreporter.write_line(f"{name:<56}{seconds:7.1f} s")
