"""returns.py: what more steps bring, measured on real runs."""

from typing import Any

import numpy as np
import pytest
from paper import words

import diffexplore as dx
from diffexplore.experiments.race import noise_added
from diffexplore.experiments.returns import diminishing_returns, knee
from diffexplore.model import Model


@pytest.fixture(scope="module")
def pocket() -> Model:
    return dx.load(device="cpu")


def test_a_kneedle_in_a_haystack() -> None:
    # y = 1 / x has its largest distance below the chord where the slopes agree: x = sqrt(first * last).
    x = np.arange(1, 101)
    assert x[knee(x, 1 / x)] == 10
    assert knee(x, 7 + 3 / x) == knee(x, 1 / x)
    assert knee([1, 2, 10], [5.0, 1.0, 0.0]) == 1
    for flat in ([3, 2, 1], [1, 1, 1], [1, 2, 3], [3, 2.5, 1], [3, np.nan, 1]):
        assert knee([1, 2, 3], flat) is None
    assert knee([1, 2], [2, 1]) is None
    for x_wrong in ([1, 1, 2], [1, 2], [3, 2, 1]):
        with pytest.raises(ValueError, match="a knee needs ascending x and as many y"):
            knee(x_wrong, [3, 2, 1])


# All said, and little guidance: of a vague prompt with much of it, two solvers' errors may end in two pictures.
SETTLED: dict[str, Any] = {"prompt": "a fox in the snow at noon", "guidance": 2.0}


def test_solvers_converge_and_fresh_noise_does_not(pocket: Model) -> None:
    found = diminishing_returns(
        pocket, ["Euler", "DPM++ 2M Karras", "Euler a"], steps=[24, 4, 8, 12, 4], reference=60, seed=1, **SETTLED
    )
    euler, second, ancestral = found.returns.values()
    for one in found.returns.values():
        assert one.steps.tolist() == [4, 8, 12, 24]
        assert one.evaluations.tolist() == [4, 8, 12, 24]
        assert one.reference.settings.steps == 60
        gap = np.asarray(one.traces[0].image, float) - np.asarray(one.reference.image, float)
        assert one.picture[0] == pytest.approx(np.sqrt((gap**2).mean()) / 255)
        assert one.latents[-1] == pytest.approx(
            float((one.traces[-1].final - one.reference.final).square().mean().sqrt()), rel=1e-5
        )
    assert euler.falls
    assert second.falls
    assert euler.latents[-1] < euler.latents[0] / 4
    assert second.latents[-1] < euler.latents[-1]
    assert euler.knee in (8, 12)
    assert euler.note == f"Euler gains little after {euler.knee} steps."
    assert ancestral.knee is None
    assert "nothing to converge to" in ancestral.note
    assert ancestral.latents[-1] > 3 * euler.latents[-1]
    marked = [row for row in found.table() if row["knee"]]
    assert {(row["sampler"], row["steps"]) for row in marked} == {
        (one.sampler, one.knee) for one in (euler, second) if one.knee
    }
    figure = found.plot()
    shown = words(figure)
    assert f"Euler: knee at {euler.knee}" in shown
    assert "Euler a (fresh noise)" in shown
    assert any("nothing to converge to" in " ".join(text.split()) for text in shown)
    linear, logs = figure.axes
    assert np.array_equal(logs.lines[0].get_ydata(), euler.latents)
    assert np.array_equal(linear.lines[0].get_ydata(), euler.picture)


@pytest.mark.parametrize("name", ["Euler", "DDIM", "UniPC", "Heun", "Euler a", "DPM++ 2M SDE", "DDPM", "SA-Solver"])
def test_who_adds_fresh_noise_is_measured(pocket: Model, name: str) -> None:
    # Twice the steps are the same picture but for the solver's error, unless they draw other noise.
    found = diminishing_returns(pocket, [name], steps=[20], reference=40, **SETTLED).returns[name]
    assert (found.latents[0] > 0.1) == (noise_added(name) == "fresh")


def test_one_step_count_has_no_knee_and_is_drawn(tiny_model: Model) -> None:
    found = diminishing_returns(tiny_model, ["Euler"], steps=[2], reference=3, prompt="$\\frac{ 狐 x" * 99)
    assert found.returns["Euler"].knee is None
    assert not found.returns["Euler"].falls
    assert found.notes == ["Euler does not settle on its 3 steps within the steps tried."]
    words(found.plot())
    assert found._repr_png_()[0].startswith(b"\x89PNG")


# Refusals


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        (lambda m: diminishing_returns(m, steps=[]), r"steps must be a list of at least one whole number, got \[\]"),
        (lambda m: diminishing_returns(m, steps=7), "steps must be a list of at least one whole number, got 7"),
        (lambda m: diminishing_returns(m, steps=[4, 0]), "each of steps must be a whole number from 1 to 99, got 0"),
        (lambda m: diminishing_returns(m, steps=[100]), "each of steps must be a whole number from 1 to 99, got 100"),
        (lambda m: diminishing_returns(m, reference=1), "reference must be a whole number from 2 to 1000, got 1"),
        (lambda m: diminishing_returns(m, ["Heun"], [1]), "Heun takes at least 2 steps with this model, got 1"),
        (lambda m: diminishing_returns(m, ["Eular"]), "sampler must be one of .*; got 'Eular'"),
        (lambda m: diminishing_returns(m, sede=1), "settings are .*; got 'sede', did you mean 'seed'"),
    ],
)
def test_refusals_before_any_work(tiny_pipeline, run, sentence: str) -> None:
    worked = []
    handle = tiny_pipeline.unet.register_forward_pre_hook(lambda *args: worked.append(1))
    try:
        with pytest.raises(ValueError, match=sentence) as error:
            run(Model(tiny_pipeline))
    finally:
        handle.remove()
    assert "\n" not in str(error.value)
    assert not worked
