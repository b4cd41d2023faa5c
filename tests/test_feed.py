"""A run on its way to a browser: how much goes at once, and what is made when."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffexplore.trace import Trace
from diffexplore.widgets.feed import LOST, RATE, WINDOW, Feed
from diffexplore.widgets.film import Film


def busy_feed(tiny_trace: Trace) -> tuple[Feed, Film]:
    """A feed that always has something to send, and its film: to be made news of by `film.steps.append`."""
    film = Film.begin(tiny_trace)
    return Feed(1, [Trace(tiny_trace.settings)], [film]), film


def test_at_most_a_few_pieces_are_on_their_way_and_a_lost_one_makes_room_in_time(tiny_trace: Trace) -> None:
    feed, film = busy_feed(tiny_trace)
    now, sent = 100.0, []
    while now < 101.0:
        film.steps.append((1.0, 1.0, 1.0))
        if feed.ready(now) == 0.0:
            feed.next_piece(now)
            sent.append(now)
        now += 0.005
    for k, moment in enumerate(sent):
        assert sum(moment - LOST < other <= moment for other in sent[: k + 1]) <= WINDOW
    assert len(sent) >= WINDOW * 3  # but it does not wait for an answer for ever


def test_with_answers_pieces_go_at_the_full_rate_and_no_faster(tiny_trace: Trace) -> None:
    feed, film = busy_feed(tiny_trace)
    now, sent = 100.0, []
    while now < 102.0:
        film.steps.append((1.0, 1.0, 1.0))
        if feed.ready(now) == 0.0:
            content, _ = feed.next_piece(now)
            sent.append(now)
            feed.acknowledge(content["piece"])
        now += 0.001
    assert len(sent) <= 2 * RATE + 1
    assert len(sent) >= 2 * RATE * 0.9


def waited(feed: Feed) -> list[float]:
    """Send all there is, and how long each piece but the first had to wait, nobody answering."""
    now, waits = 100.0, []
    while (wait := feed.ready(now)) is not None:
        now += wait
        waits.append(wait)
        feed.next_piece(now)
    return waits[1:]


def test_the_rest_of_a_finished_run_goes_at_the_full_rate_where_nobody_ever_answered(tiny_trace: Trace) -> None:
    pieces = 3 * WINDOW
    for answered in (False, True):
        feed = Feed(1, [tiny_trace], [Film.of(tiny_trace)])
        feed.ends[0] = "done"
        feed.take_in()
        for number in range(pieces):
            feed.next_piece(float(number))
        if answered:
            feed.acknowledge(0)
        feed.ask_again(range(pieces))
        assert (max(waited(feed)) > 1.5 / RATE) == answered


def test_each_estimate_is_decoded_once_whatever_view_is_looked_at(tiny_trace: Trace) -> None:
    for view in ("x0", "change"):
        decoded: list[Any] = []

        def decode(latents: Any, decoded: list[Any] = decoded) -> np.ndarray:
            decoded.append(latents)
            return np.zeros((2000, 3800, 3), np.uint8)  # three of these are more than is kept

        trace = Trace(tiny_trace.settings, list(tiny_trace), decode=decode, matrix=tiny_trace.matrix)
        feed = Feed(1, [trace], [Film.begin(trace)])
        feed.ends[0] = "done"
        feed.take_in()
        while feed.shoot(view):
            pass
        assert len(decoded) == len(trace)
        assert feed.films[0].complete


class Found(Trace):
    """How its latents lie is found out at the n-th time that somebody reads a step, as a run's end may do meanwhile."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads -= 1
        if self.reads == 0:
            self.relay(lambda one: one.reshape(one.shape[0], one.shape[1] // 2, -1))
        return super().__getitem__(index)


def test_latents_laid_out_anew_while_they_are_read_are_shown_as_they_lie_and_fail_nothing(tiny_trace: Trace) -> None:
    for n in range(1, 120):
        trace = Found(tiny_trace.settings, list(tiny_trace), matrix=tiny_trace.matrix)
        trace.reads = n
        feed = Feed(1, [trace], [Film.begin(trace)])
        for _ in range(2):
            feed.take_in()
            while feed.shoot("change"):
                pass
        trace.reads = min(trace.reads, 1)
        assert len(trace[0].shape) == 3
        feed.ends[0] = "done"
        feed.take_in()
        while feed.shoot("change"):
            pass
        there = Film.of(trace)
        assert feed.films[0].complete
        assert {key: shot.data for key, shot in feed.films[0].frames.items() if not isinstance(shot, str)} == {
            key: shot.data for key, shot in there.frames.items() if not isinstance(shot, str)
        }, n
