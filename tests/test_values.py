"""What people give, as the numbers and pairs that it is meant as."""

import itertools
import math

import numpy as np
import pytest

import diffexplore as dx
from diffexplore.values import (
    a_file,
    a_path,
    as_int,
    as_key,
    as_number,
    as_pairs,
    is_writable,
    members,
    whole_number,
)


def test_numbers_of_any_library_keep_the_digits_that_were_given() -> None:
    assert [as_number(one) for one in (3, 2.5, np.float32(7.1), np.int64(4))] == [3.0, 2.5, 7.1, 4.0]
    assert [as_number(one) for one in (True, "3", None, 1j)] == [None] * 4
    assert as_number(10**400) == math.inf
    assert [as_int(one) for one in (20.0, np.uint8(3), 2.5, True)] == [20, 3, None, None]
    assert [as_key("0.5"), as_key("half")] == [0.5, None]


def test_what_is_none_is_refused_by_name() -> None:
    assert whole_number("n", 7, 1, 9, "nine") == 7
    with pytest.raises(ValueError, match="n must be a whole number from 1 to nine, got 10"):
        whole_number("n", 10, 1, 9, "nine")
    assert list(as_pairs("x", [(1, 2), (1, 3)], "numbers")) == [(1, 2), (1, 3)], "equal keys are both there"
    with pytest.raises(ValueError, match="x must map numbers; got 3"):
        as_pairs("x", 3, "numbers")
    assert is_writable("狐")
    assert not is_writable("\ud800")


def test_what_has_no_end_is_not_waited_for() -> None:
    assert members("x", range(3)) == [0, 1, 2]
    with pytest.raises(ValueError, match="x may be at most 100,000, got more"):
        members("x", itertools.count())
    with pytest.raises(ValueError, match="x must map numbers; got repeat"):
        as_pairs("x", itertools.repeat((1, 2)), "numbers")
    with pytest.raises(ValueError, match="sigmas must be finite noise levels, 1 to 1000 of them"):
        dx.Settings(sigmas=itertools.count(1))
    with pytest.raises(ValueError, match="n may be at most 2,000, got more"):
        dx.seeds(dx.load(), range(10**12), prompt="a fox")
    with pytest.raises(ValueError, match="the values of x may be at most 100,000, got more"):
        dx.sweep(dx.load(), ("seed", itertools.count()), prompt="a fox")


@pytest.mark.parametrize("value", [None, 5, b"a.png", []])
def test_what_is_no_path_is_refused_where_a_file_is_read_or_written(value: object) -> None:
    for said in (a_path, a_file):
        with pytest.raises(ValueError, match="a file is said by its path, got"):
            said(value)


@pytest.mark.parametrize("name", ["none.png", "x" * 5000, "a\0b", "~nobody_of_that_name/a.png", ".", ""])
def test_a_file_that_is_not_there_or_can_be_none_is_named(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file '"):
        a_file(name)
