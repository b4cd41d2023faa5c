"""looks/figures: figures for runs of any length, words that stay words, and nothing global touched."""

import io
import subprocess
import sys
import warnings
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from diffexplore.looks import views
from diffexplore.looks.curves import CURVES, spectrum
from diffexplore.looks.figures import (
    Cell,
    Figure,
    plot,
    plot_curves,
    plot_forward,
    plot_guidance,
    plot_parting,
    plot_rows,
    plot_sheet,
    plot_spectrum,
    plot_table,
)
from diffexplore.looks.figures.kit import heading
from diffexplore.record.numbers import NUMBERS, Number, declare
from diffexplore.settings import Settings
from diffexplore.trace import Step, Trace

C, H, W = 4, 8, 12


def decode(latents: torch.Tensor) -> np.ndarray:
    pixels = np.clip(latents.numpy()[:3].transpose(1, 2, 0) * 0.2 + 0.5, 0, 1)
    return (pixels.repeat(4, 0).repeat(4, 1) * 255).astype(np.uint8)


def run(count: int, shape: tuple[int, int] = (H, W), split: bool = True, **values) -> Trace:
    generator = torch.Generator().manual_seed(count)
    steps = []
    for i in range(count):
        b = 0.999 * (1 - i / count)
        names = ("latents", "output", "cond", "uncond") if split else ("latents", "output")
        tensors = {name: torch.randn(C, *shape, generator=generator) for name in names}
        facts = {"index": i, "timestep": 999 * b, "seconds": 0.1, "a": (1 - b * b) ** 0.5, "b": b}
        steps.append(Step(**facts, kind="epsilon", **tensors))
    image = Image.new("RGB", (shape[1] * 4, shape[0] * 4), "teal")
    given = {"image": image, "final": torch.zeros(C, *shape), "decode": decode}
    settings = Settings(prompt="a red fox", steps=max(count, 1), sampler="DDIM", seed=7)
    return Trace(values.pop("settings", settings), steps, **{**given, **values})


def test_guidance_is_drawn_as_arrows_and_over_the_share_of_noise() -> None:
    figure = plot_guidance(run(9), columns=4)
    draw(figure)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert [one for one in titles if one] == ["the pull in x0", "the pull in the noise", "how far the prompt turns it"]
    assert len(figure.axes) == 2 * 4 + 3
    share = run(9).curve("noise_share")
    for axes in figure.axes[-3:]:
        assert axes.get_xlim()[0] > axes.get_xlim()[1], "a run goes from much noise to little"
        assert all(line.get_xdata() == pytest.approx(share) for line in axes.lines)
    with pytest.raises(ValueError, match="no guidance to take apart: this pipeline makes no split"):
        plot_guidance(run(3, split=False))
    with pytest.raises(ValueError, match="columns must be a whole number from 2 to 12, got 1"):
        plot_guidance(run(3), columns=1)


def draw(figure: Figure) -> np.ndarray:
    """The figure's pixels; any warning is an error, since a notebook would show it above the figure."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(buffer, format="png", dpi=50)
    return np.asarray(Image.open(buffer).convert("RGB"))


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for image in figure.axes[0].images]


def places(figure: Figure) -> list[Bbox]:
    """Where pictures and panels are, in pixels."""
    figure.draw_without_rendering()
    images = [image.get_window_extent() for image in figure.axes[0].images]
    return images + [axes.get_window_extent() for axes in figure.axes[1:]]


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """Where each text of a drawn figure is, in pixels."""
    figure.draw_without_rendering()
    # Axes keep labels for ticks beyond their limits, which are never drawn.
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = {text for axis in axes for minor in (False, True) for text in axis.get_ticklabels(minor=minor)}
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in ticks]
    return [(text.get_text(), text.get_window_extent()) for text in texts]


def assert_readable(figure: Figure) -> None:
    """Every text lies on the page, and the names of rows, columns and pictures do not overlap."""
    page, texts = figure.bbox, boxes(figure)
    for text, box in texts:
        assert page.x0 <= box.x0 < box.x1 <= page.x1, text
        assert page.y0 <= box.y0 < box.y1 <= page.y1, text
    own = [(text.get_text(), text.get_window_extent()) for text in figure.texts]
    for i, (text, box) in enumerate(own):
        for other, second in own[:i]:
            assert Bbox.intersection(box, second) is None, (text, other)


def words(figure: Figure) -> list[str]:
    return [text for text, _ in boxes(figure)]


@pytest.mark.parametrize("count", [1, 2, 7, 9, 1000])
def test_any_number_of_steps(count: int) -> None:
    figure = plot(run(count))
    assert draw(figure).std() > 10
    assert_readable(figure)
    shown = min(count, 8)
    assert len(pictures(figure)) == 3 * shown + 1
    heads = [text for text in words(figure) if text.startswith("step ")]
    assert heads[0].startswith("step 1\n")
    assert heads[-1].startswith(f"step {count}\n")
    assert len(heads) == shown


def test_the_filmstrip_shows_the_views(tiny_trace: Trace) -> None:
    figure = plot(tiny_trace)
    draw(figure)
    drawn = pictures(figure)
    assert len(drawn) == 13
    for i in range(4):
        assert np.array_equal(drawn[i], views.frame(tiny_trace, "latents", i))
        assert np.array_equal(drawn[4 + i], views.frame(tiny_trace, "noise", i))
        # Decoded pictures are resampled to the page, so they are compared by what is left at low resolution.
        decoded = views.frame(tiny_trace, "x0", i)
        ours, theirs = (
            Image.fromarray(pixels).resize((6, 4), Image.Resampling.BOX) for pixels in (drawn[8 + i], decoded)
        )
        assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max() <= 6


@pytest.mark.parametrize("columns", [2, 5, 12])
def test_the_number_of_columns(columns: int) -> None:
    figure = plot(run(30), columns)
    assert len(pictures(figure)) == 3 * columns + 1
    assert_readable(figure)


@pytest.mark.parametrize("shape", [(8, 8), (16, 8), (8, 16), (24, 8)])
def test_pictures_keep_their_shape(shape: tuple[int, int]) -> None:
    for count in (1, 8):
        figure = plot(run(count, shape))
        assert_readable(figure)
        for box in places(figure)[: len(pictures(figure))]:
            assert box.width / box.height == pytest.approx(shape[1] / shape[0], rel=1e-6)


def test_no_picture_covers_another(tiny_trace: Trace) -> None:
    for figure in (plot(tiny_trace), plot(run(20), 12), plot_forward(run(9))):
        found = places(figure)
        for i, place in enumerate(found):
            assert all(Bbox.intersection(place, other) is None for other in found[:i])
            assert figure.bbox.x0 <= place.x0 < place.x1 <= figure.bbox.x1
            assert figure.bbox.y0 <= place.y0 < place.y1 <= figure.bbox.y1


@pytest.mark.parametrize(
    "prompt",
    [
        "$5 and $6, a_b^c",
        r"$\frac{",
        r"\alpha % & # {} ~ ^",
        "狐 🦊 a fox\x00\ttabs\nand lines",
        "x" * 10_000,
        "wide words " * 1_000,
        "",
    ],
)
def test_words_that_people_type_are_drawn_as_they_are(prompt: str) -> None:
    settings = Settings(prompt=prompt, negative_prompt=prompt, steps=3)
    figure = plot(run(3, settings=settings))
    draw(figure)
    assert_readable(figure)
    title = figure.texts[0].get_text()
    start = prompt.split("🦊")[-1].replace("\x00", "□").split()[:1]
    assert title.startswith("(no prompt)" if not prompt else ("□ □" if "🦊" in prompt else start[0][:90]))
    draw(plot_curves({prompt: run(3), "_other": run(4)}, ["sigma"]))


@pytest.mark.parametrize("label", ["$$", r"$\frac{1}$", r"$\undefined$", "$", "狐 🦊", "a_b^c $5 and $6"])
def test_labels_are_drawn_as_typed_in_every_figure(label: str) -> None:
    drawn = label.replace("狐", "□").replace("🦊", "□")
    figure = plot_parting({label: run(3), f"{label} too": run(4)})
    draw(figure)
    assert figure.axes[0].get_title(loc="left") == f"distance from {drawn}"
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [f"{drawn} too"]
    draw(plot_curves({label: run(3), "other": run(4)}, ["sigma"]))
    draw(plot_rows([label, "b"], np.ones((2, 2)), [label, "d"], label, label, label))
    cell, failed = Cell(Image.new("RGB", (8, 8)), label), Cell(None, error=label)
    draw(plot_table([[cell, failed]], label, label, (label, [label, label]), (label, [label])))
    draw(plot_sheet([cell, failed], label, label))
    blank = Figure()
    heading(blank.add_subplot(), label, "$x")
    draw(blank)


def test_a_figure_shows_itself_in_a_notebook(tiny_trace: Trace) -> None:
    data, size = plot(tiny_trace)._repr_png_()
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert image.size == pytest.approx((2 * size["width"], 2 * size["height"]), abs=1)  # whole pixels
    assert size["width"] == 1000


def test_the_settings_are_told() -> None:
    settings = Settings(prompt="a fox", steps=10, guidance=7.5, seed=42, sampler="Heun", negative_prompt="blurry")
    line = plot(run(19, settings=settings)).texts[1].get_text()
    assert line == "Heun · 10 steps · 19 evaluations · guidance 7.5 · seed 42 · negative prompt: blurry"


def test_a_run_cut_short_and_one_still_going() -> None:
    stopped = plot(run(5, image=None, final=None, cancelled=True))
    assert "the estimate when it was stopped" in words(stopped)
    assert any("stopped early" in text for text in words(stopped))
    assert "the estimate so far" in words(plot(run(5, image=None, final=None)))
    assert "the picture" in words(plot(run(5)))


def test_runs_without_a_split_or_a_decoder() -> None:
    plain = plot(run(6, split=False))
    draw(plain)
    assert not any("without" in text for text in words(plain))
    assert any("without" in text for text in words(plot(run(6))))
    draw(plot(run(6, decode=None)))


def test_a_run_with_broken_numbers_is_still_drawn() -> None:
    trace = run(4)
    broken = {"latents": torch.full((C, H, W), torch.nan), "output": torch.full((C, H, W), torch.inf)}
    trace.decode = None
    trace.append(Step(index=4, timestep=1.0, seconds=0.1, a=1.0, b=0.0, kind="epsilon", **broken))
    draw(plot(trace))
    draw(plot_curves(trace, ["snr", "log_snr", "x0_norm", "change"]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_run_of_nothing_but_nan_is_drawn_by_every_figure(bad: float) -> None:
    nothing = {name: torch.full((C, H, W), bad) for name in ("latents", "output", "cond", "uncond")}
    facts = {"timestep": 1.0, "seconds": 0.1, "a": 0.8, "b": 0.6, "kind": "epsilon"}
    trace = Trace(Settings(), [Step(index=i, **facts, **nothing) for i in range(3)], decode=decode)
    for figure in (
        plot(trace),
        plot_forward(trace),
        plot_curves(trace, list(CURVES)),
        plot_spectrum(trace),
        plot_parting({"good": run(3), "bad": trace}),
        plot_parting({"bad": trace, "good": run(3)}),
    ):
        draw(figure)


@pytest.mark.parametrize("shape", [(C, 5, H, W), (C, 40)])
def test_latents_of_other_layouts_are_drawn(shape: tuple[int, ...]) -> None:
    tensors = {name: torch.randn(shape) for name in ("latents", "output", "cond", "uncond")}
    facts = {"timestep": 1.0, "seconds": 0.1, "a": 0.8, "b": 0.6, "kind": "epsilon"}
    trace = Trace(Settings(), [Step(index=i, **facts, **tensors) for i in range(3)])
    for figure in (plot(trace), plot_forward(trace), plot_spectrum(trace), plot_parting({"a": trace, "b": trace})):
        draw(figure)


def forward_run(count: int, **values) -> Trace:
    """x_t = a x0 + b noise from clean to noise, as forward() makes it."""
    clean, noise = torch.randn(C, H, W, generator=torch.Generator().manual_seed(1)).cumsum(1), torch.randn(C, H, W)
    steps = []
    for i in range(count):
        b = 0.03 + 0.96 * i / max(count - 1, 1)
        a = (1 - b * b) ** 0.5
        facts = {"index": i, "timestep": 10.0 * i, "seconds": 0.0, "a": a, "b": b, "kind": "flow_prediction"}
        steps.append(Step(**facts, latents=a * clean + b * noise, output=noise - clean, split="Forward."))
    image = Image.new("RGB", (W * 4, H * 4), "teal")
    given = {"image": image, "final": clean, "decode": decode, "info": {"forward": True}}
    return Trace(Settings(steps=count), steps, **{**given, **values})


@pytest.mark.parametrize("count", [1, 2, 10, 1000])
def test_the_forward_story(count: int) -> None:
    figure = plot(forward_run(count))
    draw(figure)
    assert_readable(figure)
    assert len(pictures(figure)) == 2 * min(count, 8) + 2
    assert figure.texts[0].get_text() == "From a picture to noise"
    heads = [text for text in words(figure) if text.startswith("level ") and "\n" in text]
    assert heads[0] == "level 1\n0.1 % noise"
    shares = next(axes for axes in figure.axes if axes.get_title(loc="left") == "what the latents are made of")
    outline = np.concatenate([path.vertices for area in shares.collections for path in area.get_paths()])
    assert (outline[:, 0].min(), outline[:, 0].max()) == (1, count)  # each share above its own level
    if count > 1:
        assert heads[-1] == f"level {count}\n98 % noise"


def test_the_forward_story_without_a_decoder_or_with_an_even_picture() -> None:
    assert_readable(plot(forward_run(10, decode=None, image=None)))
    even = {"latents": torch.ones(C, H, W), "output": -torch.ones(C, H, W)}
    step = Step(index=0, timestep=0.0, seconds=0.0, a=1.0, b=0.0, kind="flow_prediction", split="Forward.", **even)
    draw(plot(Trace(Settings(), [step], info={"forward": True})))


def test_curves_side_by_side() -> None:
    runs = {"plain": run(20), "long": run(60)}
    figure = plot_curves(runs, ["sigma", "change", "snr", "guidance_norm"])
    draw(figure)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["sigma", "change", "snr", "guidance norm"]
    for axes, name in zip(figure.axes, ["sigma", "change", "snr", "guidance_norm"], strict=True):
        for line, trace in zip(axes.lines, runs.values(), strict=True):
            assert np.array_equal(line.get_ydata(), trace.curve(name), equal_nan=True)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["plain", "long"]
    assert len(plot_curves(run(3), "sigma").axes) == 1
    assert len(plot_curves(run(3)).axes) == 3


def ticks(axes: Any) -> list[float]:
    low, high = axes.get_xlim()
    return [one for one in axes.get_xticks() if low <= one <= high]


@pytest.mark.parametrize("count", [1, 2, 5, 20, 50, 1000])
def test_steps_are_counted_from_1_as_in_the_widgets(count: int) -> None:
    curves, page, story = plot_curves(run(count), "sigma"), plot(run(count)), plot(forward_run(count))
    for axes in (*curves.axes, *page.axes[1:], story.axes[1]):
        shown = ticks(axes)
        assert shown[0] == 1, "the first has a tick of its own"
        assert shown == sorted(set(shown))
        assert shown[-1] <= count
        assert axes.get_xlim()[0] < 1 <= count < axes.get_xlim()[1]
    for axes in (*curves.axes, *page.axes[1:]):
        assert axes.lines[0].get_xdata().tolist() == list(range(1, count + 1))
    (lines,) = plot_spectrum(run(count)).axes
    assert lines.lines[0].get_label() == "step 1"
    assert lines.lines[-1].get_label() == f"step {count}"


def test_what_is_declared_logarithmic_is_and_all_else_starts_at_0() -> None:
    trace = run(6)
    for step, value in zip(trace, [1e-9, 0.002, 0.4, 0.9, 1.0, 0.97], strict=True):
        step.numbers["share_of_something"] = value
    declare(Number("share_of_something", "share", "from 0 to 1", "A share that begins at nothing."))
    try:
        share, sigma, log_snr = plot_curves(trace, ["share_of_something", "sigma", "log_snr"]).axes
    finally:
        del NUMBERS["share_of_something"]
    assert (share.get_yscale(), share.get_ylim()[0]) == ("linear", 0)
    assert sigma.get_yscale() == "log"
    assert log_snr.get_yscale() == "linear"
    assert log_snr.get_ylim()[0] < 0


def test_rounding_errors_do_not_squeeze_a_logarithmic_axis() -> None:
    trace = run(6)
    trace.final = trace[-1].x0 + 1e-9  # what is left where the end was reached
    (axes,) = plot_curves(trace, "distance").axes
    drawn = trace.curve("distance")
    assert drawn[-1] < 1e-6 * drawn.max()
    low, high = axes.get_ylim()
    assert low > 1e-6 * high
    assert low < drawn[:-1].min() < drawn.max() < high


def test_a_share_is_drawn_on_the_whole_of_its_scale() -> None:
    (axes,) = plot_rows([1, 2], np.array([[0.7, 0.8]]), ["a"], "share", "from 0 to 1", limits=(0, 1)).axes
    assert axes.get_ylim() == pytest.approx((-0.02, 1.02))
    (own,) = plot_rows([1, 2], np.array([[0.7, 0.8]]), ["a"], "share", "from 0 to 1").axes
    assert own.get_ylim()[0] > 0.6


def test_a_distance_starts_at_0() -> None:
    (axes,) = plot_parting({"one": run(5), "two": run(9)}).axes
    assert axes.get_ylim()[0] == 0


def test_spectra(tiny_trace: Trace) -> None:
    figure = plot_spectrum(tiny_trace)
    draw(figure)
    assert len(figure.axes[0].lines) == 4
    for line, step in zip(figure.axes[0].lines, range(4), strict=True):
        assert np.array_equal(line.get_ydata(), spectrum(tiny_trace, step)[1:])


def test_refusals(tiny_trace: Trace) -> None:
    for draw_one in (plot, plot_forward, plot_curves, plot_spectrum):
        with pytest.raises(ValueError, match="no steps yet"):
            draw_one(Trace(Settings()))
    for columns in (1, 13, 2.5, True, "8"):
        with pytest.raises(ValueError, match="columns must be a whole number from 2 to 12") as error:
            plot(tiny_trace, columns)  # type: ignore[arg-type]
        assert repr(columns) in str(error.value)
    with pytest.raises(ValueError, match="got 0 traces and 1 names"):
        plot_curves({}, "sigma")
    with pytest.raises(ValueError, match="got 1 traces and 0 names"):
        plot_curves(tiny_trace, [])
    with pytest.raises(ValueError, match="did you mean 'sigma'"):
        plot_curves(tiny_trace, ["sigam"])


def test_nothing_global_is_touched(tiny_trace: Trace) -> None:
    before = dict(mpl.rcParams)
    for figure in (plot(tiny_trace), plot_curves(tiny_trace), plot_spectrum(tiny_trace), plot_forward(forward_run(3))):
        draw(figure)
    assert dict(mpl.rcParams) == before


def test_pyplot_is_not_imported() -> None:
    code = (
        "import sys, torch\n"
        "from diffexplore.trace import Step, Trace\n"
        "from diffexplore.settings import Settings\n"
        "x = torch.zeros(4, 8, 8)\n"
        "s = Step(index=0, timestep=1.0, seconds=0.0, a=0.8, b=0.6, kind='epsilon', latents=x, output=x)\n"
        "Trace(Settings(), [s]).plot()._repr_png_()\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert 'diffusers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


def test_a_user_who_sets_latex_and_a_dark_style_sees_the_same(tiny_trace: Trace) -> None:
    plain = draw(plot(tiny_trace))
    with mpl.rc_context({"figure.facecolor": "black", "axes.facecolor": "black", "text.color": "white"}):
        assert np.array_equal(draw(plot(tiny_trace)), plain)
