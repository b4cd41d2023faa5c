"""What people give, as the numbers and pairs that it is meant as."""

import math

import numpy as np
import pytest

from diffexplore.values import a_file, a_path, as_int, as_key, as_number, as_pairs, is_writable, whole_number


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


@pytest.mark.parametrize("value", [None, 5, b"a.png", []])
def test_what_is_no_path_is_refused_where_a_file_is_read_or_written(value: object) -> None:
    for said in (a_path, a_file):
        with pytest.raises(ValueError, match="a file is said by its path, got"):
            said(value)


@pytest.mark.parametrize("name", ["none.png", "x" * 5000, "a\0b", "~nobody_of_that_name/a.png", ".", ""])
def test_a_file_that_is_not_there_or_can_be_none_is_named(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file '"):
        a_file(name)
