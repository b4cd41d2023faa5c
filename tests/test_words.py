"""Words: an error, a value and a near name, each as a piece of one sentence."""

import pytest

from diffexplore.words import near, sentence, shown


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("steps must be a whole number"), "steps must be a whole number"),
        (RuntimeError("the network broke\n  at timestep 9"), "the network broke at timestep 9"),
        (MemoryError(), "MemoryError"),
        (OSError("   "), "OSError"),
        (KeyError("prompt"), "KeyError: 'prompt'"),
        (KeyError("there is no step 'x'"), "there is no step 'x'"),
        (FileNotFoundError(2, "No such file", "a.png"), "[Errno 2] No such file: 'a.png'"),
        (ValueError("a lone \ud800 half"), "a lone \\ud800 half"),
        (MuteError(), "MuteError"),
    ],
)
def test_an_error_is_one_plain_line(error, text):
    assert sentence(error) == text


def test_a_long_error_is_cut():
    assert sentence(ValueError("x" * 100_000)) == "x" * 300 + "..."
    assert sentence(ValueError("x" * 100_000), 10) == "x" * 10 + "..."


def test_a_value_is_shown_on_one_line_whatever_it_is():
    class Loud:
        def __repr__(self):
            raise ValueError

    assert shown("a\nfox") == "'a\\nfox'"
    assert shown("x" * 100) == repr("x" * 60) + "..."
    assert shown([1, "\n"]) == "[1, '\\n']"
    assert shown(Loud()) == "an unprintable Loud"
    assert shown(10**5000) == "an unprintable int"


def test_the_near_name_is_suggested_and_no_other():
    assert near("eular", ["Euler", "Heun"]) == ", did you mean 'Euler'?"
    assert near("zzz", ["Euler", "Heun"]) == near(3, ["Euler"]) == near("x" * 200, ["Euler"]) == ""
