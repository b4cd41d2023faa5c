"""A widget's life in a notebook, in a real kernel: it goes when its cell is run again, and nothing stays behind."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client import KernelManager
from patience import PATIENCE

HERE = Path(__file__).parent

START = """
import gc
from comm import get_comm_manager
from tiny import make_pipeline
import diffexplore as dx
from knobs import press
from patience import wait
model = dx.load(make_pipeline())

def left():
    gc.collect()
    kinds = [type(one) for one in gc.get_objects()]
    return len(get_comm_manager().comms), *(kinds.count(kind) for kind in (dx.Explorer, dx.Compare, dx.Replay))
"""


class Page:
    """What a page of a notebook is to its kernel: it runs cells, and says which."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def run(self, cell: str | None, code: str) -> str:
        """Run code as a cell and return what it prints; an error fails."""
        session, channel = self.client.session, self.client.shell_channel
        content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
        message = session.msg("execute_request", content, metadata={} if cell is None else {"cellId": cell})
        channel.send(message)
        asked, printed = message["header"]["msg_id"], ""
        while True:
            news = self.client.get_iopub_msg(timeout=PATIENCE)
            if news["parent_header"].get("msg_id") != asked:
                continue
            content = news["content"]
            if news["msg_type"] == "stream" and content["name"] == "stdout":
                printed += content["text"]
            assert news["msg_type"] != "error", "\n".join(content["traceback"])
            if news["msg_type"] == "status" and content["execution_state"] == "idle":
                return printed.strip()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(HERE))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=PATIENCE)
        page = Page(client)
        page.run("start", START)
        yield page
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def nothing_left(page: Page) -> bool:
    """Whether all widgets are gone, once the threads of the last have ended."""
    return page.run(None, "print(wait(lambda: not any(left())))") == "True"


@pytest.mark.parametrize(
    "code",
    [
        'explorer = dx.Explorer(model, prompt="a fox", steps=3)\nexplorer.run()\nexplorer',
        "dx.Explorer(model, steps=3)",
        "display(dx.Explorer(model, steps=3))",
        'compare = dx.Compare("guidance", model, steps=2)\n_ = compare.run()\ncompare',
        "dx.Replay(model.trace(steps=2))",
    ],
)
def test_ten_runs_of_a_cell_leave_no_more_than_one(page: Page, code: str) -> None:
    counts = []
    for _ in range(10):
        page.run("again", code)
        counts.append(ast.literal_eval(page.run(None, "print(left())")))
    assert len({comms for comms, *_ in counts}) == 1, counts
    assert all(sum(objects) <= 2 for _, *objects in counts), "one, and one that a thread is about to let go"
    page.run("again", "explorer = compare = None")
    assert nothing_left(page)


def test_widgets_of_two_cells_leave_each_other_alone(page: Page) -> None:
    page.run("one", 'one = dx.Explorer(model, prompt="one", steps=3)\none')
    for _ in range(2):
        page.run("two", 'two = dx.Explorer(model, prompt="two", steps=3)\ntwo')
    assert page.run("three", "print(one.comm is not None, two.comm is not None)") == "True True"
    assert page.run("three", "print(len(one.run()), len(two.run()))") == "3 3"
    assert page.run("show it once more", "one") == ""
    page.run("show it once more", "one")
    assert page.run(None, "print(one.comm is not None)") == "True", "it was made elsewhere"
    page.run("one", "one = None")
    page.run("two", "two = None")


def test_what_somebody_keeps_is_still_there_as_data(page: Page) -> None:
    page.run("cell", "explorer = dx.Explorer(model, prompt='a fox', steps=3)\ntrace = explorer.run()\nexplorer")
    page.run("keep", "kept = explorer")
    page.run("cell", "explorer = dx.Explorer(model, prompt='a cat', steps=4)\nexplorer")
    assert page.run(None, "print(kept.comm, kept.trace is trace, kept.settings.prompt)") == "None True a fox"
    assert page.run(None, "print(explorer.comm is not None, len(explorer.run()))") == "True 4"
    page.run("cell", "kept = explorer = trace = None")


def test_a_run_that_was_going_is_stopped_and_the_next_one_need_not_wait_for_it(page: Page) -> None:
    page.run("cell", "old = explorer = dx.Explorer(model, steps=900)\npress(explorer, 'Run')\nexplorer")
    page.run("cell", "explorer = dx.Explorer(model, steps=3, seed=2)\nprint(len(explorer.run()))")
    assert page.run(None, "print(old.status, len(old.trace or []) < 900)") == "cancelled True"
    page.run("cell", "old = explorer = None")


def test_where_no_page_says_which_cell_it_runs_nothing_is_closed(page: Page) -> None:
    for _ in range(2):
        page.run(None, "several = [*globals().get('several', []), dx.Explorer(model, steps=3)]")
    assert page.run(None, "print([one.comm is not None for one in several])") == "[True, True]"
    page.run(None, "for one in several: one.close()\ndel several, one")


def test_what_was_refused_was_never_there(page: Page) -> None:
    page.run("cell", "try:\n    dx.Explorer(model, steps=0)\nexcept ValueError:\n    pass")
    page.run("cell", "pass")
    assert nothing_left(page)
