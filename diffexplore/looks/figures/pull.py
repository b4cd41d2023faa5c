"""How guidance pulled in one run: its halves as arrows at some steps, and the parts of their difference over the share
of noise. From what was recorded; nothing is evaluated.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from diffexplore.looks.curves import curve
from diffexplore.looks.figures.kit import COLOURS, FAINT, INK, LABEL, QUIET, TEXT, WIDTH, Figure, bare, heading, legend
from diffexplore.mixing import CFG
from diffexplore.words import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from diffexplore.record.record import Record
    from diffexplore.record.step import Step

__all__ = ["plot_guidance"]

_SPACES: Final = (("_x0", "in x0", "RMS, latents"), ("", "in the noise", "RMS, noise"))


def plot_guidance(trace: "Record", columns: int = 6) -> Figure:
    """How guidance pulled: above, the prediction without the prompt (dashed), with it and guided, as arrows in the
    plane of the first two, which plain guidance never leaves; below, the pull with its parts along and across the
    prediction with the prompt, and the angle, over the share of noise.

    Args:
        trace: a run with a split.
        columns: how many steps have arrows, evenly spaced, 2 to 12.

    Raises:
        ValueError: the run has no step with both halves, in the sentence of ``step.split``; columns out of range.
    """
    if not isinstance(columns, int) or isinstance(columns, bool) or not 2 <= columns <= 12:
        raise ValueError(f"columns must be a whole number from 2 to 12, got {shown(columns)}")
    split = [i for i in range(len(trace)) if trace[i].geometry is not None]
    if not split:
        why = trace[0].split if len(trace) else "the trace has no steps yet"
        raise ValueError(f"there is no guidance to take apart: {why[:1].lower() + why[1:].rstrip('.')}")
    places = np.linspace(0, len(split) - 1, min(columns, len(split)))
    chosen = [split[round(float(place))] for place in places]
    fig = Figure(figsize=(WIDTH, 5.6), facecolor="white")
    above = fig.add_gridspec(2, len(chosen), left=0.06, right=0.99, top=0.91, bottom=0.5, wspace=0.3, hspace=0.3)
    below = fig.add_gridspec(1, 3, left=0.06, right=0.99, top=0.36, bottom=0.08, wspace=0.22)
    share = curve(trace, "noise_share")
    for row, (end, word, _) in enumerate(_SPACES):
        for column, i in enumerate(chosen):
            axes = fig.add_subplot(above[row, column])
            _arrows(axes, trace, i, end)
            if row == 0:  # in one line, however high the arrows under it are
                cell = above[row, column].get_position(fig)
                fig.text(cell.x0, 0.93, f"step {i + 1}\n{100 * share[i]:.3g} % noise", **LABEL)
            if column == 0:
                axes.set_ylabel(word, **LABEL)
    for place, (end, word, unit) in enumerate(_SPACES):
        axes = fig.add_subplot(below[place])
        heading(axes, f"the pull {word}", unit)
        parts = (("guidance_norm", "all of it"), ("guidance_along", "along: stronger"), ("guidance_across", "across"))
        for (name, label), colour in zip(parts, (INK, COLOURS[1], COLOURS[0]), strict=True):
            axes.plot(share, curve(trace, name + end), color=colour, lw=1.3, marker="o", ms=2.5, label=label)
        _over_share(axes)
        legend(axes)
    axes = fig.add_subplot(below[2])
    heading(axes, "how far the prompt turns it", "angle between with and without, degrees")
    for (end, word, _), colour in zip(_SPACES, (COLOURS[2], COLOURS[3]), strict=True):
        axes.plot(share, curve(trace, f"guidance_angle{end}"), color=colour, lw=1.3, marker="o", ms=2.5, label=word)
    axes.set_ylim(bottom=0)
    _over_share(axes)
    legend(axes)
    return fig


def _over_share(axes: "Axes") -> None:
    axes.set_xlim(1.02, -0.02)
    axes.set_xlabel("share of noise: a run goes from 1 to 0", **LABEL)


def _lies(step: "Step", x0: bool) -> tuple[float, float]:
    """Where the guided prediction of a step lies in the plane of its halves, whatever mixed it; one that leaves the
    plane, as with a momentum, by its shadow there.
    """
    guided, cond, uncond = (
        (step.x0, step.x0_cond, step.x0_uncond) if x0 else (step.noise, step.noise_cond, step.noise_uncond)
    )
    assert cond is not None
    assert uncond is not None
    c = cond.double().flatten()
    along = c / c.norm()
    pull = c - uncond.double().flatten()
    across = pull - (pull @ along) * along
    found = guided.double().flatten() / max(1, c.numel()) ** 0.5
    length = float(across.norm())
    return float(found @ along), float(found @ across) / length if length else 0.0


def _arrows(axes: "Axes", trace: "Record", i: int, end: str) -> None:
    """Both halves of a step, and their mix, from one origin."""
    geometry = trace[i].geometry
    assert geometry is not None, "only steps with a split are drawn"
    found, g = (geometry.x0 if end else geometry.noise), trace[i].guidance or 1.0
    tips = {
        "uncond": (found.cond - found.along, -found.across),
        "cond": (found.cond, 0.0),
        "guided": (found.cond + (g - 1) * found.along, (g - 1) * found.across),
    }
    if trace[i].guider != CFG:
        tips["guided"] = _lies(trace[i], bool(end))
    (x, y), (gx, gy) = tips["uncond"], tips["guided"]
    axes.plot([x, gx], [y, gy], color=FAINT, lw=1, ls=(0, (1, 2)))
    for name, colour, style, width in (
        ("uncond", QUIET, (0, (3, 2)), 1.0),
        ("cond", COLOURS[0], "solid", 1.3),
        ("guided", COLOURS[4], "solid", 1.8),
    ):
        arrow = {"arrowstyle": "->", "color": colour, "lw": width, "ls": style, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", tips[name], (0, 0), arrowprops=arrow)
    points = np.array([(0, 0), *tips.values()])
    (left, low), (right, high) = points.min(0), points.max(0)
    room = 0.08 * max(right - left, high - low, 1e-6)
    axes.set(xlim=(left - room, right + room), ylim=(low - room, high + room), aspect="equal", anchor="W")
    bare(axes, TEXT - 2.5)
    axes.grid(visible=False)
    axes.locator_params(nbins=3)
