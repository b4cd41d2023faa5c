"""What stands for a widget where it cannot run: a picture of the right run, words that are text, in a few kilobytes."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbconvert import HTMLExporter, MarkdownExporter
from nbconvert.preprocessors import ExecutePreprocessor
from PIL import Image

from diffexplore.trace import Trace
from diffexplore.widgets.film import Film
from diffexplore.widgets.handin import bundle_of, captions, moments, poster
from diffexplore.widgets.viewer import Replay

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \"quoted\" 'too'"
VIEW = "application/vnd.jupyter.widget-view+json"


def film(trace: Trace, label: str = "") -> Film:
    return Film.of(trace, label)


def picture_of(bundle: dict[str, str]) -> Image.Image:
    found = re.search(r'src="data:image/jpeg;base64,([^"]+)"', bundle["text/html"])
    assert found is not None
    return Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB")


def width_of(sheet: Image.Image, trace: Trace) -> int:
    """How wide the large picture of one run is."""
    assert trace.image is not None
    return round(sheet.height * trace.image.width / trace.image.height)


def end_of(sheet: Image.Image, trace: Trace) -> Image.Image:
    return sheet.crop((0, 0, width_of(sheet, trace), sheet.height))


def near(one: Image.Image, other: Image.Image) -> bool:
    """Whether two pictures are one but for the losses of JPEG."""
    a, b = (im.convert("RGB").resize((8, 8)).tobytes() for im in (one, other))
    return sum(abs(x - y) for x, y in zip(a, b, strict=True)) / len(a) < 8


def test_before_any_run_a_sentence_says_so() -> None:
    bundle = bundle_of("Explorer", [])
    assert "Explorer: nothing had been run when this was saved." in bundle["text/html"]
    assert bundle["text/plain"] == "Explorer: nothing had been run when this was saved."
    assert "image/png" not in bundle
    assert "<img" not in bundle["text/html"]


def test_the_picture_shows_the_end_of_the_run_and_its_moments(tiny_trace: Trace) -> None:
    one = film(tiny_trace)
    bundle = bundle_of("Explorer", [one])
    for sheet in (picture_of(bundle), Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))):
        assert sheet.height <= 256
        assert sheet.width <= 768
        assert tiny_trace.image is not None
        assert near(end_of(sheet, tiny_trace), tiny_trace.image)
        left, half = width_of(sheet, tiny_trace), sheet.height // 2
        for k in range(4):
            small = sheet.crop((left + k * (left // 2), 0, left + (k + 1) * (left // 2), half))
            assert near(small, tiny_trace.view("x0", k))
    settings = tiny_trace.settings
    for said in (settings.prompt, f"{settings.steps} steps", "guidance 5", "seed 3", "DDIM", "step", "1, 2, 3, 4 of 4"):
        assert said in bundle["text/plain"]
        assert said in bundle["text/html"]


def test_of_many_steps_the_moments_are_spread_from_the_first_to_the_last(tiny_trace: Trace) -> None:
    one = film(tiny_trace)
    one.steps = [one.steps[0]] * 20
    one.frames = {("x0", i): one.frames["x0", 0] for i in range(20)}
    assert list(moments(one, 8)) == [0, 3, 5, 8, 11, 14, 16, 19]


def test_several_runs_stand_side_by_side_with_what_each_has_of_its_own(tiny_trace: Trace, broken_trace: Trace) -> None:
    films = [film(tiny_trace, "plain"), film(broken_trace, "broken")]
    first, *rest = captions("Compare", films)
    assert first.startswith("2 runs from left to right")
    assert "“a red fox”" in first, "what all share is said once"
    assert rest[0].startswith("plain: ")
    assert "4 steps" in rest[0]
    assert rest[1].startswith("broken: ")
    assert "3 steps" in rest[1]
    sheet = poster(films)
    assert sheet is not None
    assert tiny_trace.image is not None
    assert broken_trace.image is not None
    half = (sheet.width + 4) // 2
    for k, trace in enumerate((tiny_trace, broken_trace)):
        height = round((half - 4) * trace.image.height / trace.image.width)
        assert near(sheet.crop((k * half, 0, k * half + half - 4, height)), trace.image)


def test_a_run_that_was_stopped_says_so_and_shows_its_newest_estimate(tiny_trace: Trace) -> None:
    one = film(tiny_trace)
    one.status, one.final, one.expected = "cancelled", None, 12
    text = "\n".join(captions("Explorer", [one]))
    assert "stopped after 4 of 12 steps" in text
    assert "The newest estimate" in text
    sheet = poster([one])
    assert sheet is not None
    assert near(end_of(sheet, tiny_trace), tiny_trace.view("x0", 3))


def test_a_run_without_a_picture_still_has_its_words(tiny_trace: Trace) -> None:
    one = film(tiny_trace)
    one.final, one.frames = None, {}
    bundle = bundle_of("Explorer", [one])
    assert "<img" not in bundle["text/html"]
    assert "a red fox" in bundle["text/html"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_hostile_prompt_and_label_stay_text(tiny_trace: Trace, count: int) -> None:
    trace = Trace(tiny_trace.settings.replace(prompt=EVIL), list(tiny_trace), image=tiny_trace.image)
    text = bundle_of("Compare", [film(trace, EVIL + str(k)) for k in range(count)], model_id=EVIL)["text/html"]
    assert text.count("<script") == text.count("</script>") == 1
    assert text.count("<img") == 1
    assert "onerror=alert(2)>" not in text
    assert html.escape(EVIL, quote=False) in text


def test_it_takes_little_room() -> None:
    from diffexplore.model import load

    model = load()
    films = [film(model.trace(prompt="a fox in the snow at noon", steps=20, seed=k), str(k)) for k in range(6)]
    for some, most in (([films[0]], 120_000), (films, 200_000)):
        size = len(json.dumps(bundle_of("Compare", some)))
        print(f"{len(some)} films: {size:,} bytes")
        assert size < most


# --- in a notebook


CELLS = [
    "from tiny import make_pipeline\nimport diffexplore as dx\nmodel = dx.load(make_pipeline())",
    'explorer = dx.Explorer(model, prompt="a red <b>fox</b>", steps=6, seed=1)\nexplorer',
    "trace = explorer.run()",
    'compare = dx.Compare({"plain": {}, "<i>more</i>": {"steps": 9}}, model, steps=5)\ndisplay(compare)\n'
    "runs = compare.run()",
    "dx.Replay(trace)",
    'later = dx.Explorer(model, prompt="nobody ran this")\nlater',
]


@pytest.fixture(scope="module")
def executed() -> Any:
    """A notebook as ``nbconvert --execute`` makes it."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    here = str(Path(__file__).parent)
    ExecutePreprocessor(timeout=600, kernel_name="python3").preprocess(notebook, {"metadata": {"path": here}})
    nbformat.validate(notebook)
    return notebook


def outputs(notebook: Any, cell: int) -> list[dict[str, Any]]:
    return [one["data"] for one in notebook.cells[cell].outputs if "data" in one]


def test_beside_every_widget_of_an_executed_notebook_stands_what_it_showed_last(executed: Any) -> None:
    for cell, said in ((1, "“a red <b>fox</b>” · 6 steps"), (3, "<i>more</i>: 9 steps"), (4, "6 steps")):
        widget, stands_in = outputs(executed, cell)
        assert VIEW in widget
        assert said in stands_in["text/plain"]
        assert "data:image/jpeg" in stands_in["text/html"]
        assert stands_in["image/png"]
    assert "nothing had been run" in outputs(executed, 5)[1]["text/plain"]


def test_its_state_is_in_the_notebook_with_the_whole_film(executed: Any) -> None:
    state = executed.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    films = [one.state._film for one in state.values() if one.state.get("_film")]
    assert [[film.expected for film in document.films] for document in films] == [[6], [5, 9], [6]]
    for cell in (1, 3, 4, 5):
        assert outputs(executed, cell)[0][VIEW]["model_id"] in state


def test_as_markdown_it_is_a_picture_with_its_caption(executed: Any) -> None:
    text, _ = MarkdownExporter().from_notebook_node(executed)
    assert "a red &lt;b&gt;fox&lt;/b&gt;" in text


@pytest.mark.parametrize("template", ["lab", "classic", "basic"])
def test_as_a_page_it_holds_no_markup_of_a_prompt(executed: Any, template: str) -> None:
    page, _ = HTMLExporter(template_name=template).from_notebook_node(executed)
    assert page.count('<div class="dx-handin">') == 4
    assert "a red &lt;b&gt;fox&lt;/b&gt;" in page


def test_a_closed_widget_displays_what_it_showed(tiny_trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    replay = Replay(tiny_trace)
    replay.close()
    assert replay.shown()[0].expected == 4
