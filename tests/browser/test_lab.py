"""The whole way, in a real JupyterLab: notebook, kernel, widget, browser."""

from __future__ import annotations

import io
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

from hands import FRAMES, other, resting, shown, slider, until, write
from PIL import Image
from playwright.sync_api import expect

FIRST_STEPS = Path(__file__).parents[2] / "notebooks" / "01_first_steps.ipynb"
SHOTS = Path(__file__).with_name("shots")

# A model that needs no weights: what is under test is the way from a hand on a slider to pixels on a screen.
SMALL = [
    "from tiny import make_pipeline\nimport diffexplore as dx\nmodel = dx.load(make_pipeline())",
    'explorer = dx.Explorer(model, prompt="a red fox", steps=12)\nexplorer',
    "trace = explorer.run()\nlen(trace)",
]


def explore(lab: Any, tab: Any) -> None:
    """In an open notebook: run it, move, scrub, stop."""
    page = tab.page
    lab.run_all(page)
    explorer = page.locator(".dx-explorer").first
    viewer = explorer.locator(".dx-viewer")
    kernel = "explorer = next(one for one in list(globals().values()) if type(one).__name__ == 'Explorer'); "
    expect(viewer.locator(".dx-status")).to_have_text(re.compile(r"^\d+ steps"))

    # A setting moves, the kernel hears of it, Run makes other pictures.
    lab.run(page, kernel + "explorer.live = False")
    before = shown(viewer)
    steps = int(lab.run(page, kernel + "print(explorer.steps)"))
    handle = slider(explorer, "steps")
    handle.focus()
    for _ in range(3):
        handle.press("ArrowLeft")
    expect(explorer.get_by_title("steps", exact=True)).to_have_value(str(steps - 3))
    explorer.locator("button.dx-run").click()
    expect(viewer.locator("p.dx-about")).to_contain_text(f" {steps - 3} steps ")
    expect(viewer.locator(".dx-status")).to_have_text(re.compile(r"^\d+ steps"))
    lab.until(page, kernel + "print(explorer.status, explorer.trace.settings.steps)", f"done {steps - 3}")
    last = other(viewer, than=before)

    # The pictures of its steps are there to be scrubbed, with keys too, and the notebook hears none of these.
    cells = page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length")
    step = viewer.get_by_label("step", exact=True)
    step.fill("2")
    expect(viewer.locator(".dx-count")).to_contain_text("step 2 of ")
    second = other(viewer, than=last)
    step.press("ArrowRight")
    expect(viewer.locator(".dx-count")).to_contain_text("step 3 of ")
    other(viewer, than=second)
    for where in (step, handle, viewer.get_by_role("radio", name="Latents")):
        where.focus()
        for key in ("x", "b", "d", "d"):
            page.keyboard.press(key)
    assert page.evaluate("window.jupyterapp.shell.currentWidget.content.widgets.length") == cells
    viewer.get_by_role("radio", name="Latents").check()
    expect(viewer.locator(".dx-caption")).to_contain_text("latents")

    # A long run is stopped, and what it made is kept. However slow the page is, it has not come to its end by then.
    brake = "brake = explorer.model.pipeline.unet.register_forward_pre_hook(lambda *_: time.sleep(0.1))"
    lab.run(page, kernel + f"import time; {brake}; explorer.steps = 900")
    explorer.locator("button.dx-run").click()
    expect(viewer.locator(".dx-status")).to_have_text(re.compile("^running: "))
    explorer.get_by_role("button", name="Stop").click()
    expect(viewer.locator(".dx-status")).to_have_text(re.compile(r"^stopped after \d+ step"))
    lab.until(page, kernel + "print(explorer.status, explorer.trace.cancelled)", "cancelled True")
    made = lab.run(page, kernel + "brake.remove(); print(len(explorer.trace))")
    expect(step).to_have_attribute("max", made)
    assert int(made) < 900


def test_a_notebook_is_run_moved_scrubbed_and_stopped(lab: Any, tab: Any) -> None:
    write(lab.folder / "small.ipynb", SMALL)
    lab.open(tab.page, "small.ipynb")
    explore(lab, tab)

    # Bad input is explained in place, and costs nothing that is shown.
    page = tab.page
    explorer = page.locator(".dx-explorer").first
    before = resting(page, lambda: shown(explorer))
    field = explorer.get_by_label("seed", exact=True)
    field.fill("a <b>seed</b>")
    field.press("Enter")
    expect(explorer.get_by_role("alert")).to_have_text(
        "Seed must be a whole number from 0 to 2**63 - 1, got 'a <b>seed</b>'."
    )
    assert shown(explorer) == before
    field.fill("9223372036854775807")
    field.press("Enter")
    expect(explorer.get_by_role("alert")).to_be_hidden()
    assert lab.run(page, "print(explorer.seed)") == "9223372036854775807"

    # So beside a slider, which would move what is typed into its range and say nothing.
    field = explorer.get_by_title("steps", exact=True)
    for text, got in (("0", "0"), ("7,5", "'7,5'")):
        field.fill(text)
        field.press("Enter")
        expect(explorer.get_by_role("alert")).to_have_text(f"Steps must be a whole number from 1 to 1000, got {got}.")
        expect(field).to_have_value(text)
    field.fill("200")
    field.press("Enter")
    expect(explorer.get_by_role("alert")).to_be_hidden()
    assert lab.run(page, "print(explorer.steps)") == "200"
    field = explorer.get_by_title("guidance", exact=True)
    for text in ("10", "5.5"):
        field.fill(text)
        field.press("Enter")
        # Whatever the slider may send back.
        assert resting(page, lambda: lab.run(page, "print(explorer.guidance)")) == str(float(text))
    lab.run(page, "explorer.guidance = 5.0")
    expect(slider(explorer, "guidance")).to_have_attribute("aria-valuenow", "5.0")

    # Live: a slider alone starts a run.
    lab.run(page, "explorer.steps = 6")
    explorer.get_by_label("live").check()
    slider(explorer, "guidance").press("ArrowRight")
    expect(explorer.locator("p.dx-about")).to_contain_text(" 6 steps \u00b7 guidance 5.5")


def test_a_reload_in_the_middle_of_a_run_and_a_kernel_that_restarts(lab: Any, tab: Any) -> None:
    # The run has to outlast the page that is opened anew.
    slow = "import time\nmodel.pipeline.unet.register_forward_pre_hook(lambda *_: time.sleep(0.3))"
    write(lab.folder / "reload.ipynb", [SMALL[0], slow, "explorer = dx.Explorer(model, steps=900)\nexplorer"])
    page = tab.page
    lab.open(page, "reload.ipynb")
    lab.run_all(page)
    viewer = page.locator(".dx-viewer").first
    status = viewer.locator(".dx-status")

    def steps() -> int:
        expect(status).to_have_text(re.compile(r"^running: \d+ of 900 "))
        found = re.search(r"\d+", status.inner_text())
        assert found is not None
        return int(found[0])

    page.locator(".dx-explorer").locator("button.dx-run").click()
    before = steps()
    page.evaluate("window.jupyterapp.shell.currentWidget.context.save()")
    lab.open(page, "reload.ipynb")

    def further() -> int:
        now = steps()
        assert now > before, "the run does not go on in the page that was opened anew"
        return now

    after = until(page, further)  # the pieces of the run come again from its first
    expect(status).not_to_have_text(f"running: {after} of 900 steps")
    viewer.get_by_label("step", exact=True).fill("2")
    expect(viewer.locator(".dx-count")).to_contain_text("step 2 of ")

    # A kernel that goes is noticed, and what is there can still be looked at.
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    expect(viewer.get_by_role("alert")).to_contain_text("The kernel was restarted or has ended")
    expect(status).to_have_text(re.compile(r"^stopped after \d+ steps"))
    viewer.get_by_label("step", exact=True).fill("3")
    expect(viewer.locator(".dx-count")).to_contain_text("step 3 of ")


def test_five_hundred_moves_of_a_slider_leave_the_kernel_answering(lab: Any, tab: Any) -> None:
    """In live mode: at most one run in flight and one waiting, and what is shown in the end is what was asked last."""
    count = """jobs, most, submit = [], 0, model.submit
def counted(*arguments, **options):
    global most
    jobs.append(submit(*arguments, **options))
    most = max(most, sum(not job.done() for job in jobs))
    return jobs[-1]
model.submit = counted"""
    write(lab.folder / "storm.ipynb", [SMALL[0], count, "explorer = dx.Explorer(model, steps=12, live=True)\nexplorer"])
    page = tab.page
    lab.open(page, "storm.ipynb")
    lab.run_all(page)
    explorer = page.locator(".dx-explorer").first
    handle = slider(explorer, "guidance")
    handle.focus()
    dice = random.Random(0)
    begun = time.monotonic()

    def press() -> None:
        page.keyboard.press(dice.choice(("ArrowLeft", "ArrowRight")))

    def follow() -> None:
        press()
        assert int(lab.run(page, "print(len(jobs))")) > 10, "runs follow the hand"

    for k in range(500):
        press()
        page.wait_for_timeout(max(0.0, 1000 * (begun + k / 50 - time.monotonic())))
        if k % 100 == 50:
            assert lab.run(page, "print(6 * 7)") == "42"
    print(f"500 moves in {time.monotonic() - begun:.1f} s")
    until(page, follow)  # on a slow machine in more of them
    # The walk comes back to values it had: that a run of the last one is shown does not say that none is on its way.
    lab.until(page, "print(explorer.status)", "done")
    readout = explorer.get_by_title("guidance", exact=True).input_value()
    expect(explorer.locator("p.dx-about")).to_contain_text(f" guidance {float(readout):g} ")
    expect(explorer.locator(".dx-status")).to_have_text(re.compile(r"^12 steps"))
    told = lab.run(page, "print(explorer.guidance, explorer.settings == explorer.trace.settings, most)")
    assert told.split()[1] == "True", "what was shown last is what was asked last"
    assert float(told.split()[0]) == float(readout)
    assert int(told.split()[2]) <= 2


def test_axe_finds_no_serious_fault_in_either_theme_of_jupyterlab(lab: Any, tab: Any, axe: Any) -> None:
    write(lab.folder / "themes.ipynb", SMALL)
    page = tab.page
    lab.open(page, "themes.ipynb")
    lab.run_all(page)
    expect(page.locator(".dx-status")).to_have_text(re.compile(r"^12 steps"))
    page.get_by_role("tab", name="Numbers").click()
    for theme, light in (("JupyterLab Dark", "false"), ("JupyterLab Light", "true")):
        page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', { theme })", theme)
        expect(page.locator("body")).to_have_attribute("data-jp-theme-light", light)
        assert axe(page) == []


def test_the_first_notebook_is_run_moved_scrubbed_and_stopped(lab: Any, tab: Any) -> None:
    shutil.copy(FIRST_STEPS, lab.folder)
    lab.open(tab.page, FIRST_STEPS.name)
    explore(lab, tab)

    # A picture of the widget as people meet it, to look at and for the README.
    page = tab.page
    page.set_viewport_size({"width": 1060, "height": 900})
    page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    lab.run(page, "model.remembered.clear(); explorer.steps = 20; trace = explorer.run()")
    explorer = page.locator(".dx-explorer").first
    viewer = explorer.locator(".dx-viewer")
    viewer.get_by_role("radio", name="Estimate").check()
    expect(viewer.locator(".dx-status")).to_have_text(re.compile(r"^20 steps"))
    viewer.get_by_label("step", exact=True).fill("9")
    expect(viewer.locator(".dx-count")).to_contain_text("step 9 of 20")
    SHOTS.mkdir(exist_ok=True)
    explorer.screenshot(path=SHOTS / "explorer.png")
    assert (SHOTS / "explorer.png").stat().st_size > 10_000

    # The same in motion.
    frames = animate(explorer, SHOTS / "explorer.webp")
    assert len({frame.tobytes() for frame in frames}) == len(frames) > 15
    assert (SHOTS / "explorer.webp").stat().st_size < 900_000, "too heavy for the top of a README"


def animate(explorer: Any, path: Path) -> list[Image.Image]:
    """The Explorer in motion: the estimate from noise to picture, then back through what the run itself was."""
    viewer = explorer.locator(".dx-viewer")
    step = viewer.get_by_label("step", exact=True)
    last = int(step.get_attribute("max"))
    plan = [("Estimate", k, 160) for k in range(1, last + 1) if k <= 12 or k % 2 == 0]
    plan += [("Latents", k, 360) for k in (last, 14, 10, 7, 5, 3, 1)]
    frames, waits = [], []
    for view, position, wait in plan:
        before = shown(viewer)
        viewer.get_by_role("radio", name=view).check()
        step.fill(str(position))
        step.blur()
        expect(viewer.locator(".dx-count")).to_contain_text(f"step {position} of {last}")
        other(viewer, than=before)
        explorer.page.evaluate(FRAMES)  # the small pictures above the scrubber are drawn after the large one
        frames.append(Image.open(io.BytesIO(explorer.screenshot())).convert("RGB"))
        waits.append(wait if view == "Latents" or position < last else 1800)
    waits[0] = waits[-1] = 900
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=waits, loop=0, quality=78)
    return frames
