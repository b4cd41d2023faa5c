"""Whose turn it is: lanes in the order they came, the newest of each, and nobody waits for what cannot come."""

import gc
import os
import signal
import threading
import time
import weakref

import pytest
from patience import PATIENCE

from diffexplore.runs.jobs import ASKED, REPLACED, Job, Lanes, Turn, turn_at
from diffexplore.runs.probes import Cancelled, Stop
from diffexplore.settings import Settings
from diffexplore.trace import Trace


def wait_for(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.001)


def job(name="", **more):
    return Job(Trace(Settings(prompt=name)), **more)


class Bench:
    """Lanes whose work takes until it is let go, and notes what it did."""

    def __init__(self):
        self.order, self.go = [], threading.Semaphore(0)
        self.lanes = Lanes(self.work, "test")

    def work(self, jobs):
        for one in jobs:
            if not one.start():
                continue
            self.order.append(one.trace.settings.prompt)
            woken = threading.Event()
            with one.stop.calling(woken.set):
                while not woken.is_set() and not self.go.acquire(timeout=0.01):
                    pass
            one.finish("cancelled" if one.stop.is_set() else "done")

    def submit(self, name, lane=None):
        made = job(name)
        self.lanes.submit([made], lane)
        return made


def test_lanes_are_served_in_the_order_they_came():
    bench = Bench()
    jobs = [bench.submit(name, lane=name) for name in "abcd"]
    wait_for(lambda: bench.order == ["a"])
    assert [bench.lanes.waiting(name) for name in "abcd"] == [0, 1, 2, 3]
    for _ in jobs:
        bench.go.release()
    for one in jobs:
        one.result(PATIENCE)
    assert bench.order == ["a", "b", "c", "d"]
    assert [one.status for one in jobs] == ["done"] * 4


def test_within_a_lane_the_newest_wins_and_keeps_the_place():
    bench = Bench()
    running = bench.submit("a1", lane="a")
    wait_for(lambda: bench.order == ["a1"])
    old = bench.submit("b1", lane="b")
    other = bench.submit("c1", lane="c")
    newer = bench.submit("b2", lane="b")
    assert (old.status, old.reason, len(old.trace)) == ("cancelled", REPLACED, 0)
    assert running.status == "running", "another client's submission leaves it alone"
    for _ in range(3):
        bench.go.release()
    for one in (running, newer, other):
        assert one.result(PATIENCE) is one.trace
    assert bench.order == ["a1", "b2", "c1"]


def test_what_runs_in_a_lane_is_stopped_by_the_lanes_next_and_goes_behind_the_others():
    bench = Bench()
    first = bench.submit("a1", lane="a")
    wait_for(lambda: bench.order == ["a1"])
    other = bench.submit("b1", lane="b")
    second = bench.submit("a2", lane="a")
    assert first.result(PATIENCE).settings.prompt == "a1"
    assert (first.status, first.reason) == ("cancelled", REPLACED)
    for _ in range(2):
        bench.go.release()
    other.result(PATIENCE), second.result(PATIENCE)
    assert bench.order == ["a1", "b1", "a2"]
    assert (second.reason, second.status) == ("", "done")


def test_a_client_who_never_stops_asking_starves_nobody():
    bench = Bench()
    bench.submit("start", lane="start")
    wait_for(lambda: bench.order == ["start"])
    patient = bench.submit("patient", lane="patient")
    for number in range(200):
        last = bench.submit(f"eager {number}", lane="eager")
    bench.go.release(), bench.go.release()
    patient.result(PATIENCE)
    bench.go.release()
    last.result(PATIENCE)
    assert bench.order == ["start", "patient", "eager 199"]


def test_a_job_says_why_it_was_stopped():
    bench = Bench()
    one, waiting = bench.submit("a", lane=1), bench.submit("b", lane=2)
    wait_for(lambda: bench.order == ["a"])
    waiting.cancel(), one.cancel()
    assert [x.result(PATIENCE).settings.prompt for x in (one, waiting)] == ["a", "b"]
    assert [(x.status, x.reason) for x in (one, waiting)] == [("cancelled", ASKED)] * 2
    assert waiting.trace.cancelled


def test_work_that_breaks_fails_its_jobs_and_the_next_are_served(caplog):
    def work(jobs):
        if jobs[0].trace.settings.prompt == "bad":
            raise MemoryError("no more room")
        jobs[0].start(), jobs[0].finish("done")

    lanes = Lanes(work, "test")
    bad, good = job("bad"), job("good")
    lanes.submit([bad], 1), lanes.submit([good], 2)
    assert good.result(PATIENCE) is good.trace
    with pytest.raises(MemoryError, match="no more room"):
        bad.result(PATIENCE)
    assert bad.status == "failed"


def test_idle_lanes_keep_nobody_alive():
    bench = Bench()
    gone = weakref.ref(bench)
    last = bench.submit("a")
    bench.go.release()
    last.result(PATIENCE)
    del bench, last
    wait_for(lambda: gc.collect() >= 0 and gone() is None)


# The turn


def test_the_turn_is_taken_in_the_order_in_which_it_was_asked_for():
    turn, order, threads = Turn(), [], []

    def take(number):
        with turn.taken():
            order.append(number)

    with turn.taken():
        for number in range(8):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            wait_for(lambda number=number: turn.waiting == number + 1)
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_a_stop_ends_the_wait_at_once_and_leaves_the_turn_to_the_next():
    turn, stop, ended = Turn(), Stop(), []

    def wait(stop):
        try:
            with turn.taken(stop):
                ended.append("taken")
        except Cancelled:
            ended.append("stopped")

    with turn.taken():
        threads = [threading.Thread(target=wait, args=(one,)) for one in (stop, Stop())]
        threads[0].start()
        wait_for(lambda: turn.waiting == 1)
        threads[1].start()
        wait_for(lambda: turn.waiting == 2)
        stop.set()
        threads[0].join(PATIENCE)
        assert ended == ["stopped"]
    threads[1].join(PATIENCE)
    assert ended == ["stopped", "taken"]
    with turn.taken():
        pass


def test_a_stop_that_is_set_already_gets_no_turn():
    turn, stop = Turn(), Stop()
    stop.set()
    with pytest.raises(Cancelled), turn.taken(stop):
        pytest.fail("it was stopped")
    with turn.taken():
        pass


def test_who_has_the_turn_cannot_wait_for_it():
    turn = Turn()
    with turn.taken():
        with pytest.raises(RuntimeError, match="own on_step"), turn.taken():
            pytest.fail("this would never end")
        with pytest.raises(RuntimeError, match="cannot wait for another run"):
            job(turn=turn).result()
    with turn.taken():
        pass


def test_an_interrupt_while_waiting_gives_the_place_up():
    turn, held, release = Turn(), threading.Event(), threading.Event()

    def hold():
        with turn.taken():
            held.set()
            release.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(PATIENCE)

    def interrupt():
        wait_for(lambda: turn.waiting == 1)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt), turn.taken():
            pytest.fail("it is not free")
    finally:
        signal.signal(signal.SIGINT, before)
    assert turn.waiting == 0
    release.set()
    thread.join()
    with turn.taken():
        pass


def test_a_network_has_one_turn_and_takes_it_along():
    import torch

    network = torch.nn.Linear(1, 1)
    gone = weakref.ref(turn_at(network))
    assert gone() is turn_at(network) is not turn_at(torch.nn.Linear(1, 1))
    del network
    gc.collect()
    assert gone() is None
