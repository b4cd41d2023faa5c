"""Which of the vectors that a network reads belong to which word."""

import pytest
from tiny import make_tokenizer
from tiny_families import characters

from diffexplore.pipelines.texts import Text, places, words_in


def of(text, tokenizer=None, **more):
    return Text(tokenizer or make_tokenizer(), text, **({"begins": 0, "ends": len(text)} | more))


def spelled(found):
    """Each word with the number of its vectors."""
    return {word: found.owners.count(k) for k, word in enumerate(found.words)}


def test_sub_tokens_are_one_word_and_what_stands_around_is_said():
    assert spelled(places([of("a zyx fox, in")], 16)) == {
        "<begin>": 1, "a": 1, "zyx": 3, "fox": 1, ",": 1, "in": 1, "<end>": 8
    }  # fmt: skip
    assert spelled(places([of("")], 16)) == {"<begin>": 1, "<end>": 15}
    assert spelled(places([of("fox", characters())], 8)) == {"fox": 3, "<end>": 5}
    # A space is a token to some: it goes with the word before it.
    assert spelled(places([of("a fox", characters())], 8)) == {"a": 2, "fox": 3, "<end>": 3}


def test_the_same_word_twice_has_a_place_each_and_what_is_cut_has_none():
    found = places([of("a fox and a fox " + "red " * 20)], 16)
    assert found.words[:4] == ("<begin>", "a", "fox", "and")
    assert found.words.count("fox") == 2
    assert found.owners[-1] == len(found.words) - 1, "the end token takes the last place of a prompt that is cut"
    assert len(found.owners) == 16


def test_a_template_around_it_dropped_tokens_and_several_encoders():
    whole = Text(characters(), "say: a fox!", 5, 10, skips=2)
    found = places([whole], 10)
    assert spelled(found) == {"<begin>": 3, "a": 2, "fox": 3, "<end>": 2}
    kept = Text(characters(), "say: a fox", 5, 10, skips=3, after=1)
    assert spelled(places([kept], 10)) == {"<begin>": 2, "a": 2, "fox": 3, "<end>": 3}
    both = places([of("a fox", room=8), of("a fox", characters())], 16)
    assert spelled(both) == {"<begin>": 1, "a": 3, "fox": 4, "<end>": 8}
    with pytest.raises(ValueError, match="its network reads 4 vectors, 8 were expected"):
        places([of("a fox", room=8)], 4)


def test_words_are_read_off_where_tokens_stand():
    found = words_in("snow-white fox.", [(0, 4), (4, 5), (5, 10), (11, 14), (14, 15)])
    assert [tuple(word) for word in found] == [("snow-white", (0, 1, 2)), ("fox", (3,)), (".", (4,))]
    assert words_in("", []) == []
