"""Guiders in a real JupyterLab: chosen for a run, and for what was recorded; several side by side."""

from __future__ import annotations

from typing import Any

from hands import write
from playwright.sync_api import expect

CELL = """import diffexplore as dx
from tiny import make_pipeline
model = dx.load(make_pipeline())
explorer = dx.Explorer(model, prompt="a red fox", steps=4, guidance=12.0)
explorer.run()
explorer"""


def test_a_guider_is_chosen_for_a_run_and_for_what_was_recorded(lab: Any, tab: Any, axe: Any) -> None:
    write(lab.folder / "guiders.ipynb", [CELL, "compare = dx.Compare('guiders', model=model, steps=4)\ncompare"])
    page = tab.page
    page.set_viewport_size({"width": 1280, "height": 720})
    lab.open(page, "guiders.ipynb")
    lab.run_all(page)
    app = page.locator(".dx-app").first
    # What if: the run itself stays as it was.
    app.get_by_role("tab", name="What if").click()
    menu = app.locator(".dx-ask").get_by_label("guider")
    expect(menu.locator("option")).to_have_text(["CFG", "rescale", "APG", "CFG-Zero*", "TCFG"])
    menu.select_option("APG")
    expect(app.locator(".dx-whatif .dx-says")).to_contain_text("with guidance 12 by APG in place of 12")
    expect(app.locator(".dx-whatifs canvas")).to_be_visible()
    app.get_by_role("button", name="the run's own").click()
    expect(app.locator(".dx-whatif .dx-says")).to_contain_text("with guidance 12 in place of 12")
    # The next run: its tab of arrows draws no plain guidance where another guider was.
    chosen = app.locator(".dx-guider select")
    chosen.select_option("rescale")
    app.locator("button.dx-run").click()
    expect(app.locator(".dx-truth")).to_contain_text("match")
    expect(menu.locator("option").first).to_have_text("rescale")
    app.get_by_role("tab", name="Arrows").click()
    expect(app.locator(".dx-pull-table ~ p")).to_contain_text("The guider rescale mixes")
    app.get_by_role("tab", name="Reach in").click()
    app.get_by_label("step", exact=True).fill("3")
    from_here = app.get_by_label("guider from this step on")
    expect(from_here).to_have_value("rescale")
    from_here.select_option("TCFG")
    app.get_by_role("button", name="put a mark").click()
    expect(app.locator(".dx-flag")).to_have_text("guider TCFG")
    expect(app.locator(".dx-truth")).to_contain_text("match")
    assert axe(page) == []
    assert lab.run(page, "print(explorer.trace.settings.guider, explorer.guider)") == "rescale rescale"
    assert lab.run(page, "print(*compare.columns)") == "CFG rescale APG CFG-Zero* TCFG interval"
    expect(page.locator(".dx-app").nth(1).locator(".dx-column")).to_have_count(6)
