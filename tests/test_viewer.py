"""The viewer's Python half: the wire's promises, with the test in place of the browser (tests/browser has the real
one)."""

from __future__ import annotations

import gc
import io
import os
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from patience import PATIENCE
from PIL import Image

from diffexplore.looks.views import VIEWS
from diffexplore.trace import Trace
from diffexplore.widgets import viewer as room
from diffexplore.widgets.feed import RATE, WINDOW, Feed
from diffexplore.widgets.film import Film, Frame
from diffexplore.widgets.viewer import Replay, Viewer


class Wire:
    """A viewer whose messages are caught on their way to the browser."""

    def __init__(self) -> None:
        self.viewer = Viewer()
        self.sent: list[dict[str, Any]] = []
        self.buffers: list[list[bytes]] = []
        self.times: list[float] = []
        self.traits_sent = 0
        self.viewer.send = self._send  # type: ignore[method-assign]
        self.viewer.send_state = self._send_state  # type: ignore[method-assign]

    def _send(self, content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        self.sent.append(content)
        self.buffers.append(list(buffers or []))
        self.times.append(time.monotonic())

    def _send_state(self, key: Any = None) -> None:
        self.traits_sent += "_film" in (key or ())

    def hear(self, **content: Any) -> None:
        self.viewer._handle_custom_msg(content, [])

    @property
    def pieces(self) -> list[dict[str, Any]]:
        return [content for content in self.sent if content["kind"] == "piece"]

    def drive(self, feed: Feed) -> None:
        deadline = time.monotonic() + PATIENCE
        self.viewer.drive(lambda: feed.complete.is_set() or time.monotonic() > deadline)
        assert feed.complete.is_set()


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.viewer.close()


def growing(trace: Trace) -> Trace:
    """An empty trace that can be grown into a copy of `trace`, of a run that takes all cores."""
    info = {**trace.info, "threads": 2}
    return Trace(trace.settings, decode=trace.decode, matrix=trace.matrix, info=info)


def grow(trace: Trace, whole: Trace, upto: int | None = None) -> None:
    for i in range(len(trace), len(whole) if upto is None else upto):
        trace.append(whole[i])
    if len(trace) == len(whole):
        trace.image = whole.image


# --- a run, from its first step to the traits
# ---------------------------------------------------------------------------------------------


def test_a_run_ends_up_in_the_traits_complete_though_nobody_ever_answers(wire: Wire, tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)
    feed = wire.viewer.feed([trace], here=True)
    grow(trace, tiny_trace)
    wire.viewer.end(feed, "done")
    wire.drive(feed)
    (film,) = wire.viewer.shown()
    assert vars(film) == vars(Film.of(tiny_trace)) | {"seconds": film.seconds}
    assert film.complete


def test_pieces_are_numbered_and_together_hold_every_frame_and_every_step(wire: Wire, tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)
    feed = wire.viewer.feed([trace], here=True)
    for upto in (1, 3, 4):
        grow(trace, tiny_trace, upto)
        wire.viewer._turn()
        time.sleep(1.2 / RATE)
    wire.viewer.end(feed, "done")
    wire.drive(feed)
    assert [content["piece"] for content in wire.pieces] == list(range(len(wire.pieces)))
    steps: dict[int, Any] = {}
    got: dict[tuple[str, int], bool] = {}
    for content, buffers in zip(wire.sent, wire.buffers, strict=True):
        (film,) = content["films"]
        steps |= dict(enumerate(film["steps"], film["first"]))
        assert len(buffers) == len(content["shots"])
        got |= {(kind, i): exact for _, kind, i, _, exact in content["shots"]}
        got |= {(kind, i): True for _, kind, i, _ in content["blanks"]}
    assert sorted(steps) == [0, 1, 2, 3]
    assert got == {(kind, i): True for kind in VIEWS for i in range(4)} | {("final", 0): True}
    assert wire.pieces[-1]["films"][0]["status"] == "done"


def test_a_number_left_in_a_step_goes_over_the_wire_as_a_column(wire: Wire, tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)
    feed = wire.viewer.feed([trace], here=True)
    for step in tiny_trace:
        trace.append(step.copy())
        trace[-1].numbers["wire:odd"] = 2.0 * step.index + 1
    wire.viewer.end(feed, "done")
    wire.drive(feed)
    (told,) = wire.pieces[-1]["films"]
    where = [column["name"] for column in told["columns"]].index("wire:odd")
    rows = [row for content in wire.pieces for row in content["films"][0]["steps"]]
    assert [row[where] for row in rows] == [1, 3, 5, 7]
    assert told["judged"] == ""


@pytest.mark.parametrize(("threads", "cores", "free"), [(2, 2, False), (1, 1, False), (1, 2, True), (None, 2, False)])
def test_while_the_run_goes_frames_are_decoded_only_where_it_leaves_a_core(
    wire: Wire, tiny_trace: Trace, monkeypatch: pytest.MonkeyPatch, threads: int | None, cores: int, free: bool
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    decoded: list[Any] = []
    trace = growing(tiny_trace)
    trace.info = {**tiny_trace.info, "threads": threads}
    trace.decode = lambda latents: decoded.append(latents) or tiny_trace.decode(latents)  # type: ignore[misc,func-returns-value]
    feed = wire.viewer.feed([trace], here=True)
    grow(trace, tiny_trace, 3)
    for _ in range(100):
        wire.viewer._turn()
    made = feed.films[0].frames
    assert made["x0", 2].exact == free
    assert len(decoded) == (3 if free else 0)
    if free:
        assert all(isinstance(one, str) or one.exact for one in made.values())
        assert len(made) == 3 * len(VIEWS)
    wire.viewer.end(feed, "cancelled")
    wire.drive(feed)
    assert len(decoded) == 3


def test_the_view_looked_at_comes_first_newest_step_first(wire: Wire, tiny_trace: Trace) -> None:
    wire.hear(kind="look", view="noise")
    trace = growing(tiny_trace)
    feed = wire.viewer.feed([trace], here=True)
    grow(trace, tiny_trace, 3)
    for _ in range(3):  # a turn ends after a while of encoding, on a busy machine after one frame
        wire.viewer._turn()
    order = list(feed.films[0].frames)
    assert order[:3] == [("noise", 2), ("noise", 1), ("noise", 0)]


def test_several_runs_share_one_feed(wire: Wire, tiny_trace: Trace) -> None:
    first, second = growing(tiny_trace), growing(tiny_trace)
    feed = wire.viewer.feed({"first": first, "second": second}, here=True)
    grow(first, tiny_trace)
    wire.viewer.end(feed, "done", 0)
    grow(second, tiny_trace, 2)
    wire.viewer.end(feed, "cancelled", 1)
    wire.drive(feed)
    films = wire.viewer.shown()
    assert [(film.label, film.status, len(film.steps)) for film in films] == [
        ("first", "done", 4),
        ("second", "cancelled", 2),
    ]


# --- flow ---


def test_a_piece_asked_for_again_comes_with_its_number_and_its_frames(wire: Wire, tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)
    feed = wire.viewer.feed([trace], here=True)
    grow(trace, tiny_trace, 2)
    for _ in range(5):
        wire.viewer._turn()
    lost, frames = wire.sent[0], wire.buffers[0]
    wire.hear(kind="again", run=feed.run, pieces=[0, 99, "x"])
    time.sleep(WINDOW / RATE)
    for _ in range(5):
        wire.viewer._turn()
    again = next(k for k in range(1, len(wire.sent)) if wire.sent[k]["piece"] == 0)
    assert wire.sent[again]["shots"] == lost["shots"]
    assert wire.sent[again]["films"][0]["steps"] == lost["films"][0]["steps"]
    assert wire.buffers[again] == frames


def test_a_page_that_opens_late_is_told_what_there_is(wire: Wire, tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)
    feed = wire.viewer.feed([trace], here=True)
    grow(trace, tiny_trace, 2)
    for _ in range(5):
        wire.viewer._turn()
    wire.hear(kind="hello", run=-1, complete=False)
    wire.viewer._turn()
    state = next(content for content in wire.sent if content["kind"] == "state")
    assert state == {"kind": "state", "run": feed.run, "pieces": len(feed.pieces)}
    grow(trace, tiny_trace)
    wire.viewer.end(feed, "done")
    wire.drive(feed)
    for run, complete, resent in ((feed.run, True, 0), (feed.run, False, 1), (-1, False, 1)):
        wire.traits_sent = 0
        wire.hear(kind="hello", run=run, complete=complete)
        wire.viewer._turn()
        assert wire.traits_sent == resent


def test_nonsense_from_the_browser_changes_nothing(wire: Wire, tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)
    feed = wire.viewer.feed([trace], here=True)
    grow(trace, tiny_trace)
    wire.viewer._turn()
    for content in (
        {},
        {"kind": "ack"},
        {"kind": "ack", "run": feed.run, "piece": {}, "view": ["x0"]},
        {"kind": "ack", "run": feed.run, "piece": "0", "view": "nonsense"},
        {"kind": "again", "run": feed.run, "pieces": "all"},
        {"kind": "again", "run": feed.run, "pieces": [-1, 1.5, None, [0]]},
        {"kind": "hello", "run": "x", "complete": "y"},
        {"kind": ["look"], "view": {}},
        {"kind": "look", "view": 3},
    ):
        wire.viewer._on_message(wire.viewer, content, [])  # not through ipywidgets, which would swallow an error
    wire.viewer._on_message(wire.viewer, "text", [])
    wire.viewer.end(feed, "done")
    wire.drive(feed)
    assert wire.viewer.error == ""


# --- the newest run wins
# ------------------------------------------------------------------------------------------------------------------


def test_a_newer_run_takes_over_with_its_first_step(wire: Wire, tiny_trace: Trace) -> None:
    old, new = growing(tiny_trace), growing(tiny_trace)
    first = wire.viewer.feed([old], here=True)
    grow(old, tiny_trace, 2)
    wire.viewer._turn()
    second = wire.viewer.feed([new], here=True)
    wire.viewer._turn()
    assert not first.complete.is_set(), "nothing of the newer run can be shown yet"
    grow(new, tiny_trace, 1)
    wire.viewer._turn()
    assert first.complete.is_set()
    grow(old, tiny_trace)
    grow(new, tiny_trace)
    wire.viewer.end(first, "cancelled")
    wire.viewer.end(second, "done")
    wire.drive(second)
    runs = [content["run"] for content in wire.pieces]
    assert runs == sorted(runs)
    assert wire.viewer._film["run"] == second.run


def test_a_run_with_a_step_is_shown_though_another_takes_its_place_at_once(wire: Wire, tiny_trace: Trace) -> None:
    """The newest run that has a step is what is on show, even where nothing was sent of it before it was replaced."""
    known = growing(tiny_trace)
    grow(known, tiny_trace)  # out of the memory: whole at once
    first = wire.viewer.feed([known], here=True)
    assert wire.viewer.on_show is first
    wire.viewer.end(first, "done")
    second = wire.viewer.feed([growing(tiny_trace)], here=True)
    assert wire.viewer.on_show is first
    wire.viewer.end(second, "cancelled")
    wire.drive(first)
    assert wire.viewer.shown_run == first.run
    assert wire.pieces[-1]["films"][0]["status"] == "done"
    assert wire.viewer.on_show is first


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_run_that_ends_without_a_step_leaves_what_is_shown(wire: Wire, tiny_trace: Trace, status: Any) -> None:
    wire.viewer.show(tiny_trace)
    shown = wire.viewer._film
    feed = wire.viewer.feed([growing(tiny_trace)], here=True)
    wire.viewer.end(feed, status)
    wire.drive(feed)
    assert wire.viewer._film is shown
    assert wire.pieces == []


def test_of_a_thousand_runs_begun_in_a_moment_only_the_last_is_finished(wire: Wire, tiny_trace: Trace) -> None:
    feeds = []
    for _ in range(1000):
        trace = growing(tiny_trace)
        feeds.append(wire.viewer.feed([trace]))
        grow(trace, tiny_trace, 1)
        wire.viewer.wake()
    grow(trace, tiny_trace)
    wire.viewer.end(feeds[-1], "done")
    assert feeds[-1].complete.wait(PATIENCE)
    assert all(feed.complete.is_set() for feed in feeds)
    assert wire.viewer._film["run"] == feeds[-1].run
    seconds = wire.times[-1] - wire.times[0]
    assert len(wire.sent) <= RATE * seconds + WINDOW + 1


# --- threads ---


def test_the_thread_ends_when_there_is_nothing_to_do_and_comes_back(
    wire: Wire, tiny_trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_IDLE", 0.05)
    for _ in range(2):
        trace = growing(tiny_trace)
        feed = wire.viewer.feed([trace])
        grow(trace, tiny_trace)
        wire.viewer.end(feed, "done")
        assert feed.complete.wait(PATIENCE)
        thread = wire.viewer._thread
        if thread is not None:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_a_caller_that_drives_itself_is_the_one_who_publishes(wire: Wire, tiny_trace: Trace) -> None:
    publishers = set()
    wire.viewer.observe(lambda _: publishers.add(threading.get_ident()), names="_film")
    first, second = growing(tiny_trace), growing(tiny_trace)
    background = wire.viewer.feed([first])  # a thread is at work when the caller steps in
    grow(first, tiny_trace, 2)
    wire.viewer.end(background, "cancelled")
    feed = wire.viewer.feed([second], here=True)
    grow(second, tiny_trace)
    wire.viewer.end(feed, "done")
    wire.drive(feed)
    assert wire.viewer._film["run"] == feed.run
    assert threading.get_ident() in publishers


def test_pictures_that_cannot_be_made_are_said_and_nobody_waits_for_them(wire: Wire, tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)

    def broken(_: Any) -> Any:
        raise MemoryError("no room for a picture")

    trace.decode = broken
    feed = wire.viewer.feed([trace], here=True)
    grow(trace, tiny_trace)
    wire.viewer.end(feed, "done")
    wire.drive(feed)
    assert wire.viewer.error == "The pictures of this run could not be made: no room for a picture"


def test_a_run_that_is_tried_again_from_its_first_step_is_shown_whole(wire: Wire, tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)
    feed = wire.viewer.feed([trace], here=True)
    grow(trace, tiny_trace)
    deadline = time.monotonic() + PATIENCE
    wire.viewer.drive(lambda: len(feed.films[0].frames) > 3 or time.monotonic() > deadline)
    trace.clear()
    wire.viewer.drive(lambda: not feed.films[0].steps or time.monotonic() > deadline)
    assert feed.error is None
    grow(trace, tiny_trace)
    wire.viewer.end(feed, "done")
    wire.drive(feed)
    (film,) = wire.viewer.shown()
    assert film.frames == Film.of(trace).frames


def test_who_waits_for_a_run_that_is_replaced_by_a_finished_one_waits_no_longer(wire: Wire, tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)
    feed = wire.viewer.feed([trace], here=True)
    grow(trace, tiny_trace, 2)
    wire.viewer._turn()
    wire.viewer.show(tiny_trace)
    wire.drive(feed)
    assert wire.viewer.shown()[0].status == "done"


def test_answers_from_another_thread_may_come_at_any_moment(wire: Wire, tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)
    feed = wire.viewer.feed([trace], here=True)
    over = threading.Event()

    def answer() -> None:
        while not over.is_set():
            wire.hear(kind="ack", run=feed.run, piece=len(feed.pieces) - 1, view="x0")

    threads = [threading.Thread(target=answer) for _ in range(3)]
    for thread in threads:
        thread.start()
    grow(trace, tiny_trace)
    wire.viewer.end(feed, "done")
    wire.drive(feed)
    over.set()
    for thread in threads:
        thread.join()
    assert feed.error is None


# --- the widget ---


def test_a_closed_viewer_lets_go_of_its_runs(tiny_trace: Trace) -> None:
    trace = growing(tiny_trace)
    viewer = Viewer()
    feed = viewer.feed([trace], here=True)
    grow(trace, tiny_trace)
    viewer.end(feed, "done")
    viewer.drive(feed.complete.is_set)
    gone = [weakref.ref(trace), weakref.ref(viewer)]
    viewer.close()
    del trace, feed, viewer
    deadline = time.monotonic() + PATIENCE
    while any(ref() for ref in gone) and time.monotonic() < deadline:  # its thread has to notice
        gc.collect()
        time.sleep(0.01)
    assert [ref() for ref in gone] == [None, None]


def test_runs_without_names_are_numbered(tiny_trace: Trace) -> None:
    assert [film.label for film in Replay([tiny_trace, tiny_trace]).shown()] == ["run 1", "run 2"]
    assert [film.label for film in Replay(tiny_trace).shown()] == [""]


def test_a_run_without_steps_is_refused(tiny_trace: Trace) -> None:
    with pytest.raises(ValueError, match="nothing to show of a run without steps"):
        Replay(growing(tiny_trace))


def test_replay_shows_a_saved_run_with_no_model_and_writes_it_as_a_page(tiny_trace: Trace, tmp_path: Path) -> None:
    tiny_trace.save(tmp_path / "run.safetensors")
    replay = Replay(tmp_path / "run.safetensors", view="latents")
    state = replay.get_state()
    assert state["view"] == "latents"
    assert state["_film"]["films"][0]["status"] == "done"
    assert len(state["_frames"]) == state["_film"]["bytes"]
    assert replay.to_html(tmp_path / "run.html").stat().st_size > state["_film"]["bytes"]


def test_a_broken_run_is_replayed_in_magenta(broken_trace: Trace) -> None:
    replay = Replay(broken_trace)
    (film,) = replay.shown()
    assert film.complete
    for kind in ("x0", "noise", "change"):
        shot = film.frames[kind, 1]
        assert isinstance(shot, Frame)
        pixels = np.asarray(Image.open(io.BytesIO(shot.data)).convert("RGB"))
        assert (pixels == (255, 0, 255)).all(), kind
    assert "not finite" in str(film.frames["guidance", 1])
    assert replay.error == ""


def test_what_is_shown_can_be_asked_for(tiny_trace: Trace) -> None:
    viewer = Viewer()
    assert (viewer.shown(), viewer.notes, viewer.error) == ([], [], "")
    viewer.show({"one": tiny_trace, "two": tiny_trace})
    viewer.tell(notes=["slow"], error="no")
    assert [film.label for film in viewer.shown()] == ["one", "two"]
    assert viewer.shown()[0].frames == Film.of(tiny_trace).frames
    assert (viewer.notes, viewer.error) == (["slow"], "no")


def test_an_unknown_view_is_refused_with_the_views_there_are(tiny_trace: Trace) -> None:
    with pytest.raises(ValueError, match="view must be one of x0, latents, noise, guidance, change; got 'x1'"):
        Replay(tiny_trace, view="x1")
