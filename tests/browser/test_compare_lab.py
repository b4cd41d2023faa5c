"""Compare from end to end in a real JupyterLab: run, locked scrubbing, another column, a refused one, a picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hands import resting, until, write
from playwright.sync_api import expect

SHOTS = Path(__file__).with_name("shots")

CELLS = [
    "import diffexplore as dx\nmodel = dx.load()",
    'compare = dx.Compare({"plain": {}, "negative": {"negative_prompt": "blurry, low quality"}},\n'
    '    model=model, prompt="a fox in the snow at noon, blurry", seed=7)\ncompare',
]


def test_columns_run_scrub_together_and_change(lab: Any, tab: Any) -> None:
    write(lab.folder / "compare.ipynb", CELLS)
    page = tab.page
    page.set_viewport_size({"width": 1400, "height": 1000})
    lab.open(page, "compare.ipynb")
    lab.run_all(page)
    compare = page.locator(".dx-explorer").first
    viewer = compare.locator(".dx-viewer")
    films = viewer.locator(".dx-film")

    compare.locator("button.dx-run").click()
    expect(films).to_have_count(2)
    lab.run(page, "import time\nwhile compare.status == 'running': time.sleep(0.05)")
    assert lab.run(page, "print(compare.status, sorted(compare.traces))") == "done ['negative', 'plain']"
    expect(viewer).to_contain_text("plain")
    expect(viewer).to_contain_text("negative")

    # One scrubber moves both.
    def shown() -> list[str]:
        found: list[str] = films.locator("canvas").evaluate_all("all => all.map(one => one.toDataURL())")
        return found

    def moved() -> None:
        now = shown()
        assert len(now) == 2
        assert all(one != before for one, before in zip(now, last, strict=True))

    expect(compare.locator(".dx-truth")).to_have_attribute("data-state", "match")
    last = resting(page, shown)
    viewer.get_by_label("step", exact=True).fill("6")
    until(page, moved)

    # Controls: a column's own negative prompt; Enter runs what changed, and only that.
    field = compare.locator(".dx-row").get_by_placeholder("without").last
    field.fill("night")
    field.press("Enter")
    assert lab.run(page, "print(compare.columns['negative'])") == "{'negative_prompt': 'night'}"
    lab.run(page, "while compare.status == 'running': time.sleep(0.05)")
    assert lab.run(page, "print([bool(t.info.get('reused')) for t in compare.traces.values()])") == "[True, False]"

    # A column that is refused says why as text, and the other is shown.
    lab.run(page, "compare.columns = {'fine': {}, '<i>wrong</i>': {'sampler': 'Flow Euler'}}")
    compare.locator("button.dx-run").click()
    expect(viewer.get_by_role("alert")).to_contain_text("<i>wrong</i>: Sampler 'Flow Euler' cannot be used here")
    expect(films).to_have_count(1)

    # A picture to look at.
    lab.run(
        page,
        "compare.columns = {f'{n} steps': {'steps': n} for n in (4, 10, 30)}\n"
        "compare.shared = {'prompt': 'a castle in the mountains at dawn', 'seed': 3}\n"
        "compare.run()",
    )
    expect(films).to_have_count(3)
    expect(compare.locator(".dx-truth")).to_have_attribute("data-state", "match")
    viewer.get_by_label("step", exact=True).fill("20")
    expect(viewer.locator(".dx-count").first).to_contain_text(re.compile("20"))
    SHOTS.mkdir(exist_ok=True)
    page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    page.set_viewport_size({"width": 1060, "height": 900})
    resting(page, compare.bounding_box)
    resting(page, shown)
    compare.screenshot(path=SHOTS / "compare.png")
    assert (SHOTS / "compare.png").stat().st_size > 10_000
