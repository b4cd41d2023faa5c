"""crew.py: few jobs in flight, all of them done, whatever dies on the way."""

import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from diffexplore.experiments.crew import Crew, LostError


def double(job):
    return 2 * job


def fails_at_three(job):
    if job == 3:
        raise ValueError("three is too many")
    return job


def dies_once(job):
    """Kills its worker, the first time that it is asked for this."""
    number, mark = job
    if mark and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def kills(job):
    """Kills its worker whenever it is asked for three."""
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


@pytest.fixture
def pool():
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield executor


def test_no_more_jobs_are_taken_than_there_is_room_for():
    taken, full = [], threading.Event()

    def work(job):
        full.wait()
        return job

    def jobs():
        for job in range(40):
            taken.append(job)
            if len(taken) == 2 * 3:
                full.set()  # nothing is done before as many are taken as three workers may have
            yield job

    with ThreadPoolExecutor(3) as executor:
        seen = 0
        for job, made, error in Crew(executor).work(work, jobs()):
            assert (made, error) == (job, None)
            seen += 1
            assert len(taken) <= seen - 1 + 2 * 3
    assert sorted(taken) == list(range(40))
    assert seen == 40


def test_what_cannot_start_yet_is_asked_for_again():
    jobs = [1, None, None, 2, None]
    with ThreadPoolExecutor(1) as executor:
        assert [made for _, made, _ in Crew(executor).work(double, jobs)] == [2, 4]


def test_a_job_that_fails_leaves_the_others_alone():
    with ThreadPoolExecutor(2) as executor:
        results = {job: (made, str(error)) for job, made, error in Crew(executor).work(fails_at_three, range(6))}
    assert results == {job: (job, "None") for job in (0, 1, 2, 4, 5)} | {3: (None, "three is too many")}


def test_jobs_of_a_worker_that_dies_are_done_again(pool, tmp_path):
    jobs = [(number, str(tmp_path / "died") if number == 5 else "") for number in range(12)]
    results = [(made, error) for _, made, error in Crew(pool).work(dies_once, jobs)]
    assert sorted(results) == [(number, None) for number in range(12)]
    assert (tmp_path / "died").exists()


def test_a_job_that_kills_every_worker_is_given_up_and_no_other_is(pool):
    results = {job: (made, error) for job, made, error in Crew(pool).work(kills, range(8))}
    made, error = results.pop(3)
    assert made is None
    assert isinstance(error, LostError)
    assert results == {job: (job, None) for job in (0, 1, 2, 4, 5, 6, 7)}


def broken():
    os._exit(1)


def test_workers_that_cannot_start_are_said():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=broken) as executor:
        try:
            errors = [error for _, _, error in Crew(executor).work(double, range(2))]
        except RuntimeError as error:
            errors = [error]
    assert errors
    assert all("die" in str(error) for error in errors)
