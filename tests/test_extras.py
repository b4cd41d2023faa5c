"""What a pipeline takes beyond settings, in an Explorer and a Compare: by its kind, and as true as any setting."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from handmade import DemandingPipeline, handmade
from ipywidgets import Checkbox, FileUpload, Text
from knobs import error, find, has, move, notes, on, parts, press, truth, type_in
from patience import wait
from PIL import Image

import diffexplore as dx
from diffexplore.widgets.film import Film

RED = Image.new("RGB", (48, 32), (250, 20, 20))
FEW: dict[str, Any] = {"prompt": "a red fox", "steps": 2, "guidance": 4.0}


@pytest.fixture(scope="module")
def model() -> dx.Model:
    return dx.load(handmade(DemandingPipeline))


@pytest.fixture
def explorer(model: dx.Model) -> Iterator[dx.Explorer]:
    made = dx.Explorer(model, image=RED, strength=0.6, **FEW)
    yield made
    made.close()


def upload(widget: Any, name: str, data: bytes) -> None:
    """Choose a file, as a page does."""
    one = find(widget, f"a picture for {name}", FileUpload)
    if one.has_trait("data"):  # ipywidgets 7
        one.set_state({"data": [data], "metadata": [{"name": "a.png"}], "_counter": 1})
    else:
        file = {"name": "a.png", "type": "image/png", "size": len(data), "last_modified": 0}
        one.set_state({"value": [{**file, "content": memoryview(data)}]})


def written(picture: Image.Image, **more: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **more)
    return buffer.getvalue()


def said(widget: Any) -> list[str]:
    return [str(getattr(one, "value", "")) for one in parts(widget)]


def test_each_argument_has_the_control_of_its_kind(explorer: dx.Explorer) -> None:
    assert on(explorer, "strength") == 0.6
    assert [on(explorer, name, Text) for name in ("warmth", "repeats", "style")] == ["", "", ""]
    assert find(explorer, "style", Text).placeholder == "plain"
    assert on(explorer, "bright", Checkbox) is False
    assert "48 × 32" in said(explorer)
    assert "weights" in said(explorer), "named, as what only code can say"
    assert has(explorer, "image, strength 0.6"), "folded away, the button says what is handed over"


def test_they_are_part_of_the_run_of_the_tick_and_of_the_code(explorer: dx.Explorer, model: dx.Model) -> None:
    trace = explorer.run()
    assert np.array_equal(trace.image, model.trace(image=RED, strength=0.6, **FEW).image)
    assert truth(explorer)[0] == "match"
    move(explorer, "strength", 0.9)
    assert explorer.extra == {"image": RED, "strength": 0.9}
    assert truth(explorer) == ("stale", "settings changed: Run")
    move(explorer, "strength", 0.6)
    assert truth(explorer)[0] == "match"
    code = explorer.code()
    assert "strength=0.6,\n" in code
    assert "image = Image.open('image.png').convert('RGB')  # a picture of 48x32 pixels\n" in code
    compile(code, "code", "exec")
    (film,) = explorer.viewer.shown()
    assert (film.about["strength"], film.about["image"]) == (0.6, "a picture of 48x32 pixels")


def test_a_changed_one_starts_a_run_where_any_change_does(explorer: dx.Explorer) -> None:
    explorer.live = True
    find(explorer, "bright", Checkbox).value = True
    assert wait(lambda: explorer.trace is not None and explorer.trace.extra.get("bright") is True)
    assert wait(lambda: truth(explorer)[0] == "match")


def test_what_is_refused_is_said_and_stays_to_be_put_right(explorer: dx.Explorer) -> None:
    for name, text, reason in (
        ("warmth", "hot", "must be a number, got 'hot'"),
        ("repeats", "2.5", "must be a whole number, got '2.5'"),
        ("strength", "1.5", "must be a share of noise from 0 to 1, or None, got 1.5"),
    ):
        type_in(explorer, name, text)
        assert reason in error(explorer)
        press(explorer, "Run")
        assert reason in error(explorer), "nothing runs with the value before"
        type_in(explorer, name, "0.5" if name != "repeats" else "")
        assert error(explorer) == ""
    assert explorer.extra == {"image": RED, "strength": 0.5, "warmth": 0.5}
    with pytest.raises(ValueError, match="takes no argument 'warmht', did you mean 'warmth'"):
        explorer.extra = {"image": RED, "warmht": 1}
    with pytest.raises(ValueError, match="settings are prompt"):
        dx.Explorer(explorer.model, image=RED, promt="a fox")


def test_a_picture_is_uploaded_in_any_form_and_what_is_none_takes_nothing_away(explorer: dx.Explorer) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    upload(explorer, "image", written(Image.new("RGBA", (30, 20), (9, 9, 9, 0)), exif=turned))
    taken = explorer.extra["image"]
    assert (taken.mode, taken.size, taken.getpixel((0, 0))) == ("RGB", (20, 30), (255, 255, 255))
    assert "20 × 30" in said(explorer)
    upload(explorer, "image", b"no picture at all")
    assert "is no picture in a format that is read" in error(explorer)
    assert explorer.extra["image"] is taken
    assert not find(explorer, "a picture for image", FileUpload).value, "the file does not go back to the page"


def test_a_pipeline_that_cannot_do_without_a_picture_says_so_and_waits(model: dx.Model) -> None:
    waits = dx.Explorer(model, live=True, **FEW)
    assert error(waits) == "Nothing can be drawn yet: DemandingPipeline needs image= beside the settings."
    assert truth(waits) == ("none", "waits for image")
    with pytest.raises(ValueError, match="DemandingPipeline needs image="):
        waits.run()
    press(waits, "Run")
    waits.steps = 3
    assert waits.status == "idle"
    assert "needs image=" in error(waits)
    upload(waits, "image", written(RED))
    assert wait(lambda: truth(waits)[0] == "match")
    assert error(waits) == ""
    press(waits, "without image")
    assert "needs image=" in error(waits)
    assert truth(waits) == ("stale", "waits for image")
    waits.close()


def test_columns_of_a_comparison_share_them(model: dx.Model) -> None:
    compare = dx.Compare({"a": {"seed": 1}, "b": {"seed": 2}}, model, image=RED, bright=True, **FEW)
    traces = compare.run()
    assert [trace.extra for trace in traces.values()] == [{"image": RED, "bright": True}] * 2
    assert truth(compare)[0] == "match"
    assert "bright=True," in compare.code()
    compare.close()
    with pytest.raises(ValueError, match="DemandingPipeline needs image="):
        dx.Compare({"a": {"seed": 1}, "b": {"seed": 2}}, model, bright=True, **FEW)


def test_a_model_that_can_start_from_a_picture_offers_it_with_its_share_of_noise(tiny_model: dx.Model) -> None:
    explorer = dx.Explorer(tiny_model, sampler="DDIM", image=RED, strength=0.5, **FEW)
    trace = explorer.run()
    assert np.array_equal(trace.image, tiny_model.trace(image=RED, strength=0.5, sampler="DDIM", **FEW).image)
    assert truth(explorer)[0] == "match"
    assert explorer.code().count("strength=") == 1
    explorer.steps = 3
    move(explorer, "strength", 0.75)
    assert explorer.extra == {"image": RED}, "what is taken anyway need not be said"
    assert explorer.settings.strength == 0.75
    press(explorer, "without image")
    assert (explorer.extra, explorer.settings.strength, error(explorer)) == ({}, None, "")
    explorer.close()


def test_the_first_run_is_shown_as_it_was_found_to_be(model: dx.Model) -> None:
    """How latents lie and are decoded is known only at the end of a pipeline's first run, when steps were shown."""
    explorer = dx.Explorer(dx.load(handmade(DemandingPipeline), reuse=0), image=RED, **FEW)
    trace = explorer.run()
    (film,) = explorer.viewer.shown()
    assert film.frames == Film.of(trace).frames
    explorer.close()


def test_a_run_without_steps_shows_its_picture_and_why(tiny_model: dx.Model) -> None:
    explorer = dx.Explorer(tiny_model, image=RED, strength=0.0, **FEW)
    trace = explorer.run()
    assert (len(trace), explorer.trace) == (0, trace)
    (film,) = explorer.viewer.shown()
    assert film.final is not None
    assert truth(explorer)[0] == "match"
    assert any("draws nothing" in note for note in notes(explorer))
    explorer.close()
