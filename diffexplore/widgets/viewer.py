"""The viewer: films on one timeline, in a browser. This docstring is the wire protocol; `browser` is the other side.

**Traits** hold what a reader of a saved notebook must see, and travel once per run, when it is over:

``_film``, ``_frames``
    The newest complete run as `film.pack` makes it. A reopened notebook, a second view or an exported page scrubs it
    with no kernel.
``view``, ``step``
    The view and the step it opens with; -1 is the last. Set in Python, followed by every view; the browser never writes
    them back, its playhead is its own. So scrubbing, playing and switching views send nothing.
``_notes``, ``_error``
    Sentences to show beside the pictures, as text.
``truth``
    Whether what is on show is what the controls say: ``state``, one of "match", "stale", "busy" and "none", and
    ``text``, what to say of it. The page itself says that settings have changed as soon as a hand is on a control of
    its ``.dx-app``, until a newer value comes; what else the dict holds, such as a count, makes it newer.
``code``
    Python that makes what is shown, for the tab where it is copied; "" for no such tab.
``_outlook``
    What the next run will have, so that its places are there before it is: ``labels``, ``steps``, ``shape`` (width over
    height), and what it will ``cost``, in words, "" where nobody knows; see `Viewer.expect`.
``_marks``
    What changes on the way of the next run, where a run can be reached into (see `reach`); None elsewhere.
``branches``
    The runs that are kept since a branch parted them, see `reach`; empty elsewhere.
``guiders``
    Name -> sentence of each guider that can mix anew what was recorded, see `what_if`; empty where nobody answers.
``levels``
    The noise levels of the next run, and what may be asked of them, see `leveled`; None where there is none.
``_page``
    The page that the Export button fills with the film, see `page.page`. Always the same.

**Custom messages** carry a run while it goes. From the kernel:

``{"kind": "piece", "run": r, "piece": n, "films": [...], "shots": [...], "blanks": [...], "captions": {...}}`` + one
buffer per shot
    Piece n of run r, counted from 0. ``films``: for each film its ``label``, ``about``, ``judged``, ``size``,
    ``status``, ``expected``, ``seconds``, ``tokens``, ``columns``, ``reel``, ``sound`` and ``digest``, and ``steps``,
    the numbers of the evaluations from ``first`` on, all as in a packed film. ``shots``: [film, kind, evaluation,
    format, exact], where kind may be "final"; ``blanks``: [film, kind, evaluation, sentence]. Each piece is complete in
    itself, so one lost costs only what it held.
``{"kind": "state", "run": r, "pieces": n}``
    The answer to "hello": n pieces of run r have been sent.
``{"kind": "here"}``
    The answer to "ping".

From the browser:

``{"kind": "hello", "run": r, "complete": bool}``
    A page has opened, or has heard nothing for a while of a run that is not complete; it has run r, -1 for none. Where
    the kernel has a complete run that the page lacks, it sends the traits again as well.
``{"kind": "ack", "run": r, "piece": n, "view": kind}``
    Piece n is here, and this is the view looked at.
``{"kind": "again", "run": r, "pieces": [n, ...]}``
    These never came.
``{"kind": "look", "view": kind}``
    Another view is looked at. Sent only while a run goes.
``{"kind": "ping"}``
    A hand is on the controls: does the kernel listen? The page says that it is busy where no answer comes in a second.

What stands behind the tab "What if" is in `what_if`, behind "Reach in" in `reach`.

That a kernel was restarted or died is no message: ipywidgets marks its views as disconnected, and the viewer says so.

**Threads.** Handlers and the run's own thread only note and notify. One thread per viewer encodes and sends
(`Viewer.drive`), started in a copy of the caller's context (ipykernel 7.0 needs that); a blocking caller may drive in
its own thread instead, which is what makes the final traits part of an executed notebook, and what hosts without
background messages need. One lock is held around all publishing.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anywidget
import traitlets

from diffexplore.looks.views import VIEWS
from diffexplore.runs.threads import working
from diffexplore.widgets.browser import CSS, ESM
from diffexplore.widgets.feed import ACK, AGAIN, HELLO, HERE, LOOK, PING, STATE, Feed, spare
from diffexplore.widgets.film import Film, Status, films_of, pack, unpack
from diffexplore.widgets.handin import HandIns
from diffexplore.widgets.notebook import InNotebook
from diffexplore.widgets.page import page, to_html
from diffexplore.words import near, sentence, shown

if TYPE_CHECKING:
    from os import PathLike

    from diffexplore.record.record import Record

__all__ = ["Replay", "Viewer"]

log = logging.getLogger(__name__)
log.addHandler(logging.NullHandler())

_IDLE: Final = 2.0  # seconds without work after which the thread ends


class Viewer(InNotebook, anywidget.AnyWidget):  # type: ignore[misc]
    """Films on one timeline. Shows what it is given: `show` for finished traces, `feed` for runs that are going."""

    # As text: anywidget watches files that are given by their path, and its watcher keeps every widget alive.
    _esm = ESM
    _css = CSS

    view = traitlets.Unicode("x0").tag(sync=True)
    """The view to open with, one of ``diffexplore.VIEWS``; setting it later switches every view of the widget."""
    step = traitlets.Int(-1).tag(sync=True)
    """The place on the timeline to open at, counted from 0; negative numbers count from the end."""

    truth = traitlets.Dict({"state": "none", "text": ""}).tag(sync=True)
    """Whether what is on show is what the controls say: ``state`` ("match", "stale", "busy", "none") and ``text``."""
    branches = traitlets.Dict().tag(sync=True)
    """The runs that are kept since a branch parted them, see `reach`."""
    code = traitlets.Unicode().tag(sync=True)
    """Python that makes what is shown, to be copied; "" for none."""
    guiders = traitlets.Dict().tag(sync=True)
    """Name -> sentence of each guider that can mix anew what was recorded, see `what_if`."""

    _film = traitlets.Dict().tag(sync=True, echo_update=False)
    _frames = traitlets.Bytes().tag(sync=True, echo_update=False)
    _notes = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _error = traitlets.Unicode().tag(sync=True)
    _outlook = traitlets.Dict().tag(sync=True)
    levels = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    _marks = traitlets.List(allow_none=True, default_value=None).tag(sync=True)
    _page = traitlets.Unicode().tag(sync=True)

    _closed = True  # until there is something to close: Python closes also what was refused while being made

    def __init__(self, **traits: Any) -> None:
        self._publishing = threading.RLock()  # around everything that is sent or set
        self._changed = threading.Condition()  # around the fields below
        self._runs = 0
        self._feed: Feed | None = None  # the newest run with a first step: what is being shown
        self._next: Feed | None = None  # a newer run that has none yet
        self._looked_at = traits.get("view", "x0")
        self._hello: tuple[int, bool] | None = None
        self._pinged = False
        self._woken = False
        self._closed = False
        self._claimed = False  # a caller is going to drive: the thread makes way
        self._driving = threading.Lock()  # whoever holds it encodes and sends
        self._thread: threading.Thread | None = None
        self.hand_ins = HandIns(self)
        super().__init__(**{"_page": page()} | traits)
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @traitlets.validate("view")
    def _known_view(self, proposal: Any) -> str:
        if proposal["value"] not in VIEWS:
            got = proposal["value"]
            raise ValueError(f"view must be one of {', '.join(VIEWS)}; got {shown(got)}{near(got, VIEWS)}")
        return str(proposal["value"])

    # --- what others call ---

    def shown(self) -> list[Film]:
        """The films of the newest complete run, as a saved notebook keeps them; none before there is one."""
        with self._publishing:
            document, frames = self._film, self._frames
        return unpack(document, frames) if document else []

    @property
    def shown_run(self) -> int:
        """The number of that run, counted from 1; 0 where none is complete."""
        return int(self._film.get("run", 0))

    @property
    def notes(self) -> list[str]:
        """The sentences beside the pictures."""
        return list(self._notes)

    @property
    def error(self) -> str:
        """The sentence that says what went wrong; "" where nothing did."""
        return str(self._error)

    def show(self, source: Any) -> None:
        """Show finished runs: whatever `film.films_of` takes. Encodes in the caller's thread."""
        films = films_of(source)
        with self._changed:
            self._runs += 1
            run = self._runs
            self._drop()
        self._commit(films, run)
        self.hand_ins.update()

    def feed(self, traces: Sequence[Record] | Mapping[str, Record], here: bool = False) -> Feed:
        """Show runs while they grow, in place of what is shown, from their first step on.

        Args:
            traces: Live traces, by label where there are several. Call `wake` when one has grown and `end` when it is
                over.
            here: The caller will `drive` itself; otherwise a thread of the viewer does.
        """
        labelled = list(traces.items()) if isinstance(traces, Mapping) else [("", trace) for trace in traces]
        films = [Film.begin(trace, label) for label, trace in labelled]
        with self._changed:
            self._runs += 1
            feed = Feed(self._runs, [trace for _, trace in labelled], films)
            self._take_over()
            if self._next is not None:
                self._next.complete.set()  # replaced before it began: nothing of it will be shown
            self._next = feed
            self._claimed = self._claimed or here
        self.wake()
        return feed

    @property
    def on_show(self) -> Feed | None:
        """The newest run that is shown, or will be as it has a step; None where runs that were fed are not on show."""
        with self._changed:
            self._take_over()
            return self._feed

    def _take_over(self) -> None:
        """Let the newest run be what is shown, if it has a step: from then on it is, whatever comes after it."""
        if self._next is not None and self._next.started:
            if self._feed is not None:
                self._feed.complete.set()
                self._next.follow(self._feed)
            self._feed, self._next = self._next, None

    def wake(self) -> None:
        """Something has grown. Costs microseconds: for callbacks of a running model."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()
            if self._thread is not None and self._thread.is_alive():
                return
            if self._claimed or self._closed:
                return
            context = contextvars.copy_context()
            self._thread = threading.Thread(
                target=context.run, args=(self.drive,), name="diffexplore viewer", daemon=True
            )
            self._thread.start()

    def release(self) -> None:
        """A caller that was going to drive will not, after all."""
        with self._changed:
            self._claimed = False
        self.wake()

    def end(self, feed: Feed, status: Status, k: int = 0) -> None:
        """The run of film `k` is over."""
        with self._changed:
            feed.ends[k] = status
        self.wake()

    def close(self) -> None:
        if not self._closed:
            with self._changed:
                self._closed = True
                self._drop()
                self._changed.notify_all()
            self.hand_ins.update()  # it is all that stays
            self.hand_ins.close()
            self.layout.close()
        super().close()

    def _drop(self) -> None:
        """Let go of what is being shown, and of the runs in it; whoever waits for it need not."""
        for feed in (self._feed, self._next):
            if feed is not None:
                feed.complete.set()
        self._feed = self._next = None

    # --- the wire ---

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        """Note what the browser says, and no more: this runs on whatever thread the kernel likes, perhaps beside a
        cell."""
        if not isinstance(content, dict):
            return
        kind, run = content.get("kind"), content.get("run")
        with self._changed:
            feed = self._feed if self._feed is not None and run == self._feed.run else None  # None: an older run
            if kind in (ACK, LOOK):
                self._note_view(content.get("view"))
            if kind == ACK and feed is not None and isinstance(content.get("piece"), int):
                feed.acknowledge(content["piece"])
            elif kind == AGAIN and feed is not None and isinstance(content.get("pieces"), list):
                feed.ask_again(content["pieces"])
            elif kind == HELLO and isinstance(run, int):
                self._hello = (run, bool(content.get("complete")))
            elif kind == PING:
                self._pinged = True
        self.wake()

    def _note_view(self, view: object) -> None:
        if view in VIEWS:
            self._looked_at = str(view)

    def drive(self, done: Callable[[], bool] | None = None) -> None:
        """Encode and send, in the calling thread, until `done()`, or without one until there has been nothing to do for
        a while.

        One thread drives at a time; where another does already, this waits its turn when there is a `done` and returns
        otherwise.
        """
        # The thread that takes the place of one which is just leaving waits until that has left.
        if not self._driving.acquire(blocking=done is not None or threading.current_thread() is self._thread):
            return
        try:
            idle_since = time.monotonic()
            while not self._closed and not (done is not None and done()):
                wait = self._turn(here=done is not None)
                if wait is not None:
                    idle_since = time.monotonic()
                with self._changed:
                    if done is None and (self._claimed or self._idle(wait, idle_since)):
                        self._thread = None
                        break
                    if not self._woken:
                        # A blocked caller looks up now and then: at `done`, and so that an interrupt gets through.
                        longest = 0.1 if done is not None else _IDLE
                        self._changed.wait(longest if wait is None else min(longest, wait))
                    self._woken = False
        finally:
            self._driving.release()
            if done is not None:
                self.release()  # for what may be left to do
        self.hand_ins.update()

    def _idle(self, wait: float | None, since: float) -> bool:
        return wait is None and not self._woken and time.monotonic() - since >= _IDLE

    def _turn(self, here: bool = True) -> float | None:
        """Do a little of what there is to do. Returns seconds to wait before the next turn, None where only news can
        bring one. `here`: for a caller that drives; the thread takes up nothing once there is one."""
        with self._changed:
            if self._claimed and not here:
                return None
            self._take_over()
            if self._next is not None and self._next.over and not self._next.started:
                self._next.complete.set()  # it ended with nothing to show; what is shown stays
                self._next = None
            feed, newer = self._feed, self._next
            hello, self._hello = self._hello, None
            pinged, self._pinged = self._pinged, False
        if pinged:
            with self._publishing:
                self.send({"kind": HERE})
        if hello is not None:
            self._answer(hello, feed)
        if feed is None:
            return None
        try:
            # A run on one thread leaves the other cores to all else: more threads here would take its own.
            with working(1 if any(map(spare, feed.traces)) else None):
                feed.take_in(replaced=newer is not None)
                # While a newer run prepares its first step, the processor is its own.
                busy = newer is None and feed.shoot(self._looked_at)
            with self._changed:  # what the browser says changes what is on its way
                wait = feed.ready(time.monotonic())
                piece = feed.next_piece(time.monotonic()) if wait == 0.0 else None
            if piece is not None:
                with self._publishing:
                    self.send(*piece)
            with self._changed:
                wait = feed.ready(time.monotonic())
                finished = feed.finished
            if finished and not feed.complete.is_set():
                feed.tell_cost()
                self._commit(feed.films, feed.run)
                feed.complete.set()
        except Exception as error:  # a picture that cannot be made must not leave a caller waiting, nor fail unseen
            log.exception("the viewer could not show run %d", feed.run)
            feed.error = error
            feed.complete.set()
            with self._changed:
                self._feed = None
            self.tell(error=f"The pictures of this run could not be made: {sentence(error)}")
            return None
        return 0.0 if busy else wait

    def _answer(self, hello: tuple[int, bool], feed: Feed | None) -> None:
        """A page has opened, or missed something."""
        run, complete = hello
        with self._publishing:
            if feed is not None:
                self.send({"kind": STATE, "run": feed.run, "pieces": len(feed.pieces)})
            if self._film and (run < self._film["run"] or (run == self._film["run"] and not complete)):
                self.send_state(["_film", "_frames"])

    def _commit(self, films: Sequence[Film], run: int) -> None:
        document, data = pack(films, run)
        with self._publishing, self.hold_sync():
            self._film = document
            self._frames = data

    def expect(self, labels: Sequence[str] = (), steps: int = 20, shape: float = 1.0, cost: str = "") -> None:
        """Say what the next run will have: its places are there from the first paint, and nothing jumps when it comes.

        Args:
            labels: Of its columns, where there are several.
            steps: How many it takes.
            shape: Width over height of its pictures.
            cost: What it will cost, in a few words; "" where nobody knows.
        """
        with self._publishing:
            self._outlook = {"labels": list(labels), "steps": steps, "shape": shape, "cost": cost}

    def mark(self, marks: Sequence[Any]) -> None:
        """Say what changes on the way of the next run; from then on the page can ask for more."""
        with self._publishing:
            self._marks = list(marks)

    def offer(self, levels: Mapping[str, Any]) -> None:
        """Say what the noise levels of the next run are, and what may be done to them; see `leveled`."""
        with self._publishing:
            self.levels = dict(levels)

    def tell(self, *, notes: Sequence[str] | None = None, error: str | None = None) -> None:
        """Sentences to show beside the pictures, as plain text; None leaves what is there."""
        with self._publishing:
            if notes is not None:
                self._notes = list(notes)
            if error is not None:
                self._error = error


class Replay(Viewer):
    """The viewer alone: plays saved or finished runs, with no model.

    Args:
        source: A `Trace`, the path of a saved one, or a list or dict (by label) of them: several share one timeline.
        view: The view it opens with, one of ``diffexplore.VIEWS``.

    Raises:
        ValueError: One sentence, for a run without steps, a file that is no saved run, or an unknown view.
        TypeError: `source` is nothing of the above.
        FileNotFoundError: There is no such file.

    Examples:
        >>> Replay({"5 steps": short, "20 steps": long}, view="latents")  # doctest: +SKIP
    """

    def __init__(self, source: Any, *, view: str = "x0") -> None:
        """The finished widget; the class says what the arguments are."""
        films = films_of(source)
        super().__init__(view=view)
        self._commit(films, 1)
        self.settle_in()

    def to_html(self, path: str | PathLike[str]) -> Path:
        """Write what is shown as one page that needs no kernel and no network.

        Args:
            path: Where to write; an existing file is replaced once the new one is whole.

        Returns:
            The file written.
        """
        return to_html(self.shown(), path, view=self.view)
