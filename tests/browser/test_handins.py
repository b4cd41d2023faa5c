"""Notebooks that are handed in: saved, opened again without a kernel or trust, exported, read without scripts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hands import other, resting, shown, until, write
from nbconvert import HTMLExporter
from nbconvert.preprocessors import ExecutePreprocessor
from playwright.sync_api import expect

HERE = Path(__file__).parent
SHOTS = HERE / "shots"
STATE = "application/vnd.jupyter.widget-state+json"

CELLS = [
    "from tiny import make_pipeline\nimport diffexplore as dx\nmodel = dx.load(make_pipeline())",
    'explorer = dx.Explorer(model, prompt="a red <b>fox</b>", steps=6, seed=1)\nexplorer',
    'compare = dx.Compare({"plain": {}, "more": {"steps": 9}}, model, steps=5)\ncompare',
    "trace = explorer.run()\nruns = compare.run()",
    "dx.Replay(trace)",
]
FOX = "“a red <b>fox</b>” · 6 steps"
MORE = "more: 9 steps"


@contextmanager
def read(fresh: Any, page: Path, *, scripts: bool) -> Iterator[Any]:
    """A page from a disk, on a machine with no network."""
    with fresh(java_script_enabled=scripts) as context:
        context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        tab = context.new_page()
        tab.goto(page.as_uri())
        yield tab


def drawn(picture: Any) -> None:
    """That an `<img>` shows something."""

    def check() -> None:
        assert picture.evaluate("one => one.complete && one.naturalWidth") > 100

    until(picture.page, check)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``nbconvert --execute --to html`` leaves, and the notebook."""
    folder = tmp_path_factory.mktemp("handins")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    ExecutePreprocessor(timeout=600, startup_timeout=600, kernel_name="python3").preprocess(
        notebook, {"metadata": {"path": str(HERE.parent)}}
    )
    nbformat.write(notebook, folder / "executed.ipynb")
    (folder / "page.html").write_text(HTMLExporter().from_notebook_node(notebook)[0], "utf-8")
    del notebook.metadata["widgets"]  # as JupyterLab saves where nobody asked it for more
    (folder / "stateless.html").write_text(HTMLExporter().from_notebook_node(notebook)[0], "utf-8")
    return folder


@pytest.mark.parametrize("name", ["page.html", "stateless.html"])
def test_a_page_without_scripts_shows_a_picture_and_its_caption(fresh: Any, executed: Path, name: str) -> None:
    with read(fresh, executed / name, scripts=False) as page:
        figures = page.locator(".dx-handin figure")
        expect(figures).to_have_count(3)
        for k, said in enumerate((FOX, MORE, FOX)):
            expect(figures.nth(k)).to_be_visible()
            expect(figures.nth(k)).to_contain_text(said)
            drawn(figures.nth(k).locator("img"))
        SHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SHOTS / "handin-no-scripts.png", full_page=True)


def test_a_page_with_scripts_shows_the_film_with_no_network(fresh: Any, executed: Path) -> None:
    with read(fresh, executed / "page.html", scripts=True) as page:
        boxes = page.locator(".dx-handin")
        expect(boxes).to_have_count(3)
        for k, (steps, said) in enumerate(((6, FOX), (9, MORE), (6, FOX))):
            boxes.nth(k).scroll_into_view_if_needed()
            expect(boxes.nth(k)).to_contain_text(said)
            film = boxes.nth(k).frame_locator("iframe")
            step = film.get_by_label("step", exact=True)
            expect(step).to_have_attribute("max", str(steps))
            viewer = film.locator(".dx-viewer")
            before = resting(page, lambda viewer=viewer: shown(viewer))
            step.fill("2")
            expect(film.locator(".dx-count").first).to_contain_text("2 of")
            other(viewer, than=before)
            until(page, partial(whole, boxes.nth(k).locator("iframe")))
        page.screenshot(path=SHOTS / "handin-scripts.png", full_page=True)


def whole(frame: Any) -> None:
    high, needed = frame.evaluate("one => [one.clientHeight, one.contentDocument.body.scrollHeight]")
    assert high >= needed, "nothing of the film is cut off"


def test_a_page_with_scripts_and_no_state_shows_the_picture(fresh: Any, executed: Path) -> None:
    with read(fresh, executed / "stateless.html", scripts=True) as page:
        picture = page.locator(".dx-handin img").first
        expect(picture).to_be_visible()
        drawn(picture)


# --- JupyterLab


def opened(lab: Any, page: Any, name: str) -> None:
    """Open a notebook that gets no kernel."""
    page.goto(f"{lab.url}lab/tree/{name}?reset")
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context")
    page.evaluate("async () => { await jupyterapp.restored; await jupyterapp.shell.currentWidget.context.ready; }")


def no_kernel(path: Path) -> None:
    """Let JupyterLab find no kernel for it, as on the machine of somebody who has none."""
    book = json.loads(path.read_text())
    book["metadata"]["kernelspec"] = {"name": "none", "display_name": "none"}
    path.write_text(json.dumps(book))


@pytest.fixture(scope="module")
def saved(lab: Any, fresh: Any) -> dict[str, Any]:
    """A notebook run in JupyterLab, looked at, then saved by it, with what was seen meanwhile."""
    write(lab.folder / "work.ipynb", CELLS)
    with fresh() as context:
        return worked(lab, context.new_page())


def worked(lab: Any, page: Any) -> dict[str, Any]:
    lab.open(page, "work.ipynb")
    lab.run_all(page)
    viewer = page.locator(".dx-viewer").first
    expect(viewer.locator(".dx-status")).to_contain_text("6 steps")
    seen = {"beside": beside(page)}
    # In the background, by the button, with other settings: what is handed in is what was seen last.
    lab.run(page, "explorer.prompt, explorer.steps = 'a blue cat', 7")
    page.locator(".dx-explorer").first.locator("button.dx-run").click()
    expect(viewer.locator("p.dx-about")).to_contain_text("7 steps")
    page.wait_for_function(
        """said => {
            const cell = jupyterapp.shell.currentWidget.content.widgets[1];
            return JSON.stringify(cell.model.outputs.toJSON()).includes(said);
        }""",
        arg="“a blue cat” · 7 steps",
    )
    seen["after"] = beside(page)
    page.evaluate("jupyterapp.shell.currentWidget.context.save()")
    page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    return seen


def beside(page: Any) -> int:
    """How many pictures stand beside their widgets, once those are there."""
    pictures = page.locator(".dx-handin:visible")
    with suppress(AssertionError):
        expect(pictures).to_have_count(0)
    return int(pictures.count())


def test_where_the_widget_lives_its_picture_steps_aside(saved: dict[str, Any]) -> None:
    assert saved == {"beside": 0, "after": 0}


def test_jupyterlab_saves_the_films_and_pictures_that_were_seen_last(lab: Any, saved: dict[str, Any]) -> None:
    book = json.loads((lab.folder / "work.ipynb").read_text())
    state = book["metadata"]["widgets"][STATE]["state"]
    films = [one["state"]["_film"]["films"] for one in state.values() if one["state"].get("_film")]
    assert sorted(len(film) for film in films) == [1, 1, 2]
    text = "".join(json.dumps(book["cells"][1]["outputs"], ensure_ascii=False))
    assert "“a blue cat” · 7 steps" in text
    assert "a red" not in text
    print(f"{(lab.folder / 'work.ipynb').stat().st_size:,} bytes saved")


def test_opened_again_without_a_kernel_the_films_are_there(lab: Any, tab: Any, saved: dict[str, Any]) -> None:
    page = tab.page
    shutil.copy(lab.folder / "work.ipynb", lab.folder / "again.ipynb")
    no_kernel(lab.folder / "again.ipynb")
    opened(lab, page, "again.ipynb")
    trust(page)
    viewers = page.locator(".dx-viewer")
    expect(viewers).to_have_count(3)
    expect(page.get_by_text("model not found")).to_have_count(0)
    expect(page.locator(".dx-handin:visible")).to_have_count(0)
    viewer = viewers.first
    before = shown(viewer)
    viewer.get_by_label("step", exact=True).fill("2")
    other(viewer, than=before)
    tab.errors.clear()  # JupyterLab's own, about the kernel that is not there


def trust(page: Any) -> None:
    """Trust the notebook, as its owner, and show it again."""
    page.evaluate(
        """async () => {
            const panel = jupyterapp.shell.currentWidget;
            for (const cell of panel.content.model.cells) cell.trusted = true;
        }"""
    )


def test_not_trusted_a_picture_and_its_caption_stand_there(lab: Any, tab: Any, saved: dict[str, Any]) -> None:
    page = tab.page
    shutil.copy(lab.folder / "work.ipynb", lab.folder / "pupil.ipynb")
    book = json.loads((lab.folder / "pupil.ipynb").read_text())
    book["cells"][0]["source"] += "  # of somebody else"
    (lab.folder / "pupil.ipynb").write_text(json.dumps(book))
    no_kernel(lab.folder / "pupil.ipynb")
    opened(lab, page, "pupil.ipynb")
    figures = page.locator(".dx-handin figure")
    expect(figures).to_have_count(3)
    for k, said in enumerate(("“a blue cat” · 7 steps", MORE, FOX)):
        expect(figures.nth(k)).to_be_visible()
        expect(figures.nth(k)).to_contain_text(said)
        drawn(figures.nth(k).locator("img"))
    expect(page.locator(".dx-viewer")).to_have_count(0)
    expect(page.get_by_text("model not found")).to_have_count(0)
    page.screenshot(path=SHOTS / "handin-untrusted.png")
    tab.errors.clear()


def test_a_notebook_without_state_shows_no_error_where_its_widgets_were(
    lab: Any, tab: Any, saved: dict[str, Any]
) -> None:
    page = tab.page
    book = json.loads((lab.folder / "work.ipynb").read_text())
    del book["metadata"]["widgets"]
    (lab.folder / "bare.ipynb").write_text(json.dumps(book))
    no_kernel(lab.folder / "bare.ipynb")
    opened(lab, page, "bare.ipynb")
    trust(page)
    figures = page.locator(".dx-handin figure")
    expect(figures).to_have_count(3)
    expect(figures.first).to_be_visible()
    expect(page.get_by_text("model not found").locator("visible=true")).to_have_count(0)
    tab.errors.clear()
