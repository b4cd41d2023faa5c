"""Records on paper: a run on one page, the forward story, curves, spectra and where runs part.

Steps and levels are counted from 1, as people do and the widgets; Python's indices are one less.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib import colormaps

from diffexplore.looks import sounds, views
from diffexplore.looks.curves import CURVES, curve, parting, spectrum
from diffexplore.looks.estimates import estimate
from diffexplore.looks.figures import lines
from diffexplore.looks.figures.heard import Heard
from diffexplore.looks.figures.kit import COLOURS, FAINT, PALE_BLUE, Figure, heading, legend
from diffexplore.looks.figures.strip import Strip
from diffexplore.record.numbers import NUMBERS
from diffexplore.record.predictions import share_of_noise
from diffexplore.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from diffexplore.record.record import Record

__all__ = ["plot", "plot_curves", "plot_forward", "plot_parting", "plot_spectrum"]

_MOST_COLUMNS: Final = 12
_MOST_ROWS: Final = 5  # steps of a video, or of a sound


def plot(trace: "Record", columns: int = 8) -> Figure:
    """The run on one page: x_t, noise and x0 along the way, the noise levels, and how the estimate settled. Of a video
    the frames of a few steps, a row each; of a sound the latents, the waveform and the spectrogram of a few steps.

    Args:
        trace: any trace with at least one step; one cut short, or still growing, is drawn as far as it went.
            The traces of ``diffexplore.forward`` get :func:`plot_forward`.
        columns: how many evaluations to show, evenly spaced, the first and the last among them: 2 to 12. Of a video as
            many frames, and of evaluations up to 5; of those of a sound up to 5.

    Raises:
        ValueError: for a trace with no steps, or columns out of range.
    """
    if trace.info.get("forward"):
        return plot_forward(trace, columns)
    if trace.kind == "sound":
        return _plot_sound(trace, columns)
    if trace.frames:
        return _plot_video(trace, columns)
    chosen = _chosen(trace, columns)
    page = Strip(views.native(trace[0]), len(chosen), rows=3, beside=1)
    page.title(trace.settings.prompt or "(no prompt)", _recipe(trace))
    page.heads([f"step {i + 1}\nσ {_short(trace[i].sigma)}" for i in chosen])
    page.row(0, "what goes in", "noisy latents $x_t$", [views.frame(trace, "latents", i) for i in chosen])
    page.row(1, "what comes out", "predicted noise", [views.frame(trace, "noise", i) for i in chosen])
    page.row(2, "what it means", "picture estimate $x_0$", [views.frame(trace, "x0", i) for i in chosen])
    if trace.image is not None:
        page.beside(trace.image.convert("RGB"), "the picture", at_end=True)
    else:
        caption = "the estimate when it was stopped" if trace.cancelled else "the estimate so far"
        page.beside(views.frame(trace, "x0", chosen[-1]), caption, at_end=True)

    _settling(trace, chosen, *page.panels())
    return page.figure


def _plot_video(trace: "Record", columns: int) -> Figure:
    """The frames of the estimate at a few steps, a row each, and of the video in the last."""
    count = trace.frames
    chosen = _chosen(trace, min(columns, _MOST_ROWS))
    numbers = sorted({round(float(k)) for k in np.linspace(0, count - 1, min(columns, count))})
    moments = [views.Moment(k, count) for k in numbers]
    made = trace.output if isinstance(trace.output, list) else []
    page = Strip(views.native(trace[0]), len(numbers), rows=len(chosen) + 1 + bool(made), beside=0)
    page.title(trace.settings.prompt or "(no prompt)", f"{_recipe(trace)} · {count} frames")
    page.heads([f"frame {k + 1}" for k in numbers])
    page.row(
        0, f"step {chosen[0] + 1}", "what goes in: $x_t$", [_frame(trace, "latents", chosen[0], m) for m in moments]
    )
    for row, i in enumerate(chosen, 1):
        tail = f"$x_0$ at σ {_short(trace[i].sigma)}"
        page.row(row, f"step {i + 1}", tail, [_frame(trace, "x0", i, moment) for moment in moments])
    if made:
        frames = [np.asarray(made[k].convert("RGB")) for k in numbers]
        page.row(len(chosen) + 1, "the video", "as it was made", frames)
    _settling(trace, chosen, *page.panels())
    return page.figure


def _plot_sound(trace: "Record", columns: int) -> Figure:
    """Latents, waveform and spectrogram of a few steps, side by side, and of the sound at the end."""
    chosen = _chosen(trace, min(columns, _MOST_ROWS))
    rate = sounds.rate_of(trace)
    heads = [f"step {i + 1} · σ {_short(trace[i].sigma)}" for i in chosen]
    latents = [sounds.table(trace, "latents", i) for i in chosen]
    heard = [estimate(trace, "x0", i) for i in chosen]
    if isinstance(trace.output, np.ndarray):
        heads, heard = [*heads, "the sound"], [*heard, trace.output]
    page = Heard(len(heads))
    page.title(trace.settings.prompt or "(no prompt)", _recipe(trace))
    for column, head in enumerate(heads):
        samples = heard[column]
        page.column(
            column, head, rate, samples, None if samples is None else sounds.mel_spectrogram(samples, rate, 160),
            latents[column] if column < len(latents) else None,
        )  # fmt: skip
    _settling(trace, chosen, *page.panels())
    return page.figure


def _frame(trace: "Record", kind: str, i: int, moment: views.Moment) -> np.ndarray:
    return views.frame(trace, kind, i, plane=moment)


def _settling(trace: "Record", chosen: "Sequence[int]", noisiness: "Axes", settling: "Axes") -> None:
    """The two panels below a run: how noisy its latents are, and how its estimate settles."""
    sigma = curve(trace, "sigma")
    heading(noisiness, "how noisy the latents are", "noise level σ: noise per unit of picture")
    lines.line(noisiness, sigma, COLOURS[0])
    if (sigma > 0).any():
        noisiness.set_yscale("log")
    heading(
        settling,
        f"how the {trace.kind if trace.kind in ('video', 'sound') else 'picture'} settles",
        "RMS over the latents",
    )
    lines.line(settling, curve(trace, "distance"), COLOURS[0], "x0: distance to the end")
    lines.line(settling, curve(trace, "change"), COLOURS[4], "x0: change since the step before")
    lines.line(settling, curve(trace, "guidance_norm"), COLOURS[1], "noise: with the prompt minus without")
    settling.set_ylim(bottom=0)
    legend(settling)
    for axes in (noisiness, settling):
        lines.over_steps(axes, len(sigma), chosen)


def plot_forward(trace: "Record", columns: int = 8) -> Figure:
    """The forward story on one page: a picture drowns in noise, and which of its details go first.

    The panel on the right compares, scale by scale, the power of the picture's latents with that of the noise
    per unit of picture, (b / a)^2, at the levels shown above: where a level's line lies above the picture's
    curve, that scale has drowned.

    Args:
        trace: what ``diffexplore.forward`` returns.
        columns: as in :func:`plot`.

    Raises:
        ValueError: as :func:`plot`.
    """
    chosen = _chosen(trace, columns)
    rows = 2 if trace.decode is not None else 1
    page = Strip(views.native(trace[0]), len(chosen), rows=rows, beside=2)
    noise = np.array([share_of_noise(step.a, step.b) for step in trace])
    page.title(
        "From a picture to noise",
        f"x_t = a x0 + b noise, at {len(noise)} levels · seed {trace.settings.seed}",
    )
    page.heads([f"level {i + 1}\n{_percent(noise[i])} noise" for i in chosen])
    page.row(0, "what goes in", "noisy latents $x_t$", [views.frame(trace, "latents", i) for i in chosen])
    if rows == 2:
        page.row(1, "the same", "decoded", [views.frame(trace, "latents_decoded", i) for i in chosen])
    if trace.image is not None:
        page.beside(trace.image.convert("RGB"), "the picture", at_end=False)
    page.beside(views.frame(trace, "noise", 0), "the noise", at_end=True)

    mix, scales = page.panels()
    heading(mix, "what the latents are made of", "share of the variance")
    x = np.arange(len(noise)) + 1  # as the axis counts
    mix.stackplot(x, 1 - noise, noise, colors=(PALE_BLUE, FAINT), labels=("picture", "noise"))
    mix.set_ylim(0, 1)
    lines.over_steps(mix, len(noise), chosen, "level")
    legend(mix)

    heading(scales, "fine detail drowns first", "power, log scale")
    power = lines.power_line(scales, spectrum(trace, 0), COLOURS[0], "the picture")
    if power.size:
        levels = [(f"noise at level {i + 1}", trace[i].sigma ** 2) for i in chosen]
        lines.power_levels(scales, levels, low=power.min() / 4, high=power.max() * 10)
    legend(scales)
    return page.figure


def plot_curves(
    traces: "Record | Mapping[str, Record]", names: str | Iterable[str] = ("sigma", "change", "distance")
) -> Figure:
    """Curves, one panel each; several runs share the panels.

    Args:
        traces: one trace, or label -> trace to compare runs.
        names: one name or several, of ``diffexplore.looks.curves.CURVES``.

    Raises:
        ValueError: for an unknown name, no name, no trace, or a trace with no steps.
    """
    runs = dict(traces) if isinstance(traces, Mapping) else {"": traces}
    wanted = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if not runs or not wanted:
        raise ValueError(f"nothing to plot: got {len(runs)} traces and {len(wanted)} names of curves")
    for trace in runs.values():
        _chosen(trace, 2)  # refuses a trace with no steps
    data = {name: [curve(trace, name) for trace in runs.values()] for name in wanted}
    return lines.panels(
        list(runs),
        {(name.replace("_", " "), CURVES[name].unit, NUMBERS[name].log): values for name, values in data.items()},
    )


def plot_parting(traces: "Mapping[str, Record]") -> Figure:
    """Where runs part: how far each one's x0 is from the first one's at the same noise level (`curves.parting`).

    Args:
        traces: label -> trace, two or more; the first is the one the others are held against.

    Raises:
        ValueError: for fewer than two, a trace with no steps, or latents of different shapes.
    """
    if len(traces) < 2:
        raise ValueError(f"runs part only from one another: give two or more, got {len(traces)}")
    (first, reference), *others = traces.items()
    data = {label: parting(trace, reference) for label, trace in others}
    return lines.distances(first, data, "RMS of the difference of x0, latent units")


def plot_spectrum(trace: "Record", columns: int = 8, kind: str = "x0") -> Figure:
    """Power by scale at evenly spaced evaluations, early ones dark and late ones bright.

    Args:
        trace: any trace with at least one step.
        columns: how many evaluations, as in :func:`plot`.
        kind: which tensor, as in :func:`diffexplore.looks.curves.spectrum`.

    Raises:
        ValueError: as :func:`plot` and :func:`diffexplore.looks.curves.spectrum`.
    """
    chosen = _chosen(trace, columns)
    fig = Figure(figsize=(5.2, 3.2), facecolor="white", layout="constrained")
    axes = fig.add_subplot()
    heading(axes, f"{kind.replace('_', ' ')}: power at each scale", "power, log scale")
    for colour, i in zip(colormaps["viridis"](np.linspace(0, 0.9, len(chosen))), chosen, strict=True):
        lines.power_line(axes, spectrum(trace, i, kind), colour, f"step {i + 1}")
    legend(axes)
    return fig


def _chosen(trace: "Record", columns: int) -> list[int]:
    """Evenly spaced evaluations, the first and the last among them."""
    if not isinstance(columns, int) or isinstance(columns, bool) or not 2 <= columns <= _MOST_COLUMNS:
        raise ValueError(f"columns must be a whole number from 2 to {_MOST_COLUMNS}, got {shown(columns)}")
    count = len(trace)
    if not count:
        raise ValueError("nothing to plot: the trace has no steps yet")
    return [round(float(i)) for i in np.linspace(0, count - 1, min(columns, count))]


def _recipe(trace: "Record") -> str:
    """The settings in one line."""
    s = trace.settings
    parts = [s.sampler, f"{s.steps} steps", f"guidance {s.guidance:g}", f"seed {s.seed}"]
    if len(trace) != s.steps:
        parts.insert(2, f"{len(trace)} evaluations")
    if trace.cancelled:
        parts.append("stopped early")
    parts += [s.mixed, *s.loras, *s.skipped]
    if s.negative_prompt:
        parts.append(f"negative prompt: {s.negative_prompt}")
    return " · ".join(part for part in parts if part)


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _percent(share: float) -> str:
    # Most schedules leave a trace of picture in the noisiest level, and of noise in the cleanest: show it.
    return f"{100 * share:.0f} %" if 0.01 <= share <= 0.99 or share in (0, 1) else f"{100 * share:.1f} %"
