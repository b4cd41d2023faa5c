"""What is drawn together, and that a failure costs only what fails by itself."""

import pytest

from diffexplore.runs.batches import grouped, in_halves


def test_equal_keys_go_together_in_the_order_they_came():
    assert grouped("abcABdc", str.lower) == [["a", "A"], ["b", "B"], ["c", "c"], ["d"]]
    assert grouped(range(7), lambda _: 0, most=3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert grouped([], len) == []


@pytest.mark.parametrize("bad", [set(), {0}, {3, 4}, set(range(7))])
def test_only_what_fails_by_itself_is_failed(bad, caplog):
    done, failed, sizes = [], [], []

    def draw(batch):
        sizes.append(len(batch))
        if bad & set(batch):
            raise MemoryError(f"no room for {min(bad & set(batch))}")
        done.extend(batch)

    in_halves(list(range(7)), draw, lambda item, error: failed.append((item, str(error))))
    assert sorted(done) == sorted(set(range(7)) - bad)
    assert failed == [(item, f"no room for {item}") for item in sorted(bad)]
    assert sizes[0] == 7
    assert ("trying halves" in caplog.text) == bool(bad)


def test_who_wants_all_or_nothing_raises():
    drawn = []

    def draw(batch):
        if 1 in batch:
            raise ValueError("not this one")
        drawn.extend(batch)

    def failed(item, error):
        raise error

    with pytest.raises(ValueError, match="not this one"):
        in_halves([0, 1, 2, 3], draw, failed)
    assert drawn == [0]


def test_an_interrupt_is_no_failure():
    def draw(batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_halves([1, 2], draw, lambda item, error: pytest.fail("nothing failed"))
