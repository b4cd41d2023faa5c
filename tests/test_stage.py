"""The training loop: budgets, the fall of the rate, resuming, steps that are not finite."""

import time

import pytest
import torch

from diffexplore.pocket.factory.stage import Budget, Stage, spent


def line():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 1)


def lesson(part):
    def loss_of(step):
        x = torch.randn(16, 3)
        return (part(x)[:, 0] - x.sum(1)).square().mean()

    return loss_of


def stage(work, steps=40, budget=None, **options):
    return Stage(work, "line", {"line": line()}, steps=steps, budget=budget or Budget(), rate=0.05, ema=0.9, **options)


def test_it_learns_and_its_average_follows(tmp_path):
    one = stage(tmp_path, steps=400, warm=10)
    one.run(lesson(one.parts["line"]))
    for part in (one.parts["line"], one.average["line"]):
        assert torch.allclose(part.weight, torch.ones(1, 3), atol=0.05)
    kept = torch.load(tmp_path / "line.pt", weights_only=True)
    assert torch.equal(kept["average"]["line"]["weight"], one.average["line"].weight)


def test_a_finished_stage_does_nothing_more(tmp_path):
    one = stage(tmp_path)
    one.run(lesson(one.parts["line"]))
    again = stage(tmp_path)
    again.run(lesson(again.parts["line"]))
    assert again.step == 40
    assert torch.equal(again.parts["line"].weight, one.parts["line"].weight)


def test_a_longer_budget_goes_on_from_before_the_rate_fell(tmp_path):
    one = stage(tmp_path)
    one.run(lesson(one.parts["line"]))
    longer = stage(tmp_path, steps=100)
    assert (longer.step, longer.fallen) == (28, False)
    longer.run(lesson(longer.parts["line"]))
    assert torch.load(tmp_path / "line.pt", weights_only=True)["step"] == 100


def test_a_step_that_is_not_finite_changes_nothing(tmp_path):
    one = stage(tmp_path, steps=60)
    right, seen = lesson(one.parts["line"]), []

    def loss_of(step):
        seen.append(one.parts["line"].weight.detach().clone())
        return right(step) * (float("nan") if step == 30 else 1.0)

    one.run(loss_of)
    assert torch.equal(seen[30], seen[31])
    assert not torch.equal(seen[31], seen[32])
    assert torch.isfinite(one.parts["line"].weight).all()
    assert torch.isfinite(one.average["line"].weight).all()


def muon(work, steps=60):
    """A line after a square matrix that Muon moves."""
    torch.manual_seed(0)
    part = torch.nn.Sequential(torch.nn.Linear(3, 3, bias=False), line())
    options = {"turned": [part[0].weight], "turn": 0.05}
    return Stage(work, "line", {"line": part}, steps=steps, budget=Budget(), rate=0.01, ema=0.9, warm=1, **options)


def test_muon_moves_matrices_as_far_in_every_direction_and_another_optimiser_the_rest(tmp_path):
    torch.manual_seed(0)
    part, strengths = torch.nn.Linear(3, 3), torch.tensor([1.0, 10.0, 100.0])
    before = [weight.detach().clone() for weight in part.parameters()]
    options = {"turned": [part.weight], "turn": 0.1}
    one = Stage(tmp_path, "line", {"line": part}, steps=1, budget=Budget(), rate=0.01, ema=0.9, warm=1, **options)

    def loss_of(step):
        x = torch.randn(64, 3)
        return (part(x) - strengths * x).square().mean()

    one.run(loss_of)
    moved = [now.detach() - then for now, then in zip(part.parameters(), before, strict=True)]
    stretch = torch.linalg.svdvals(moved[0])
    assert stretch.max() < 4 * stretch.min()  # where the gradient is a hundred times as long in one direction
    assert moved[1].abs().max() == pytest.approx(0.01, rel=0.01)  # AdamW's first step is its rate


def test_muon_learns_goes_on_and_passes_over_what_is_not_finite(tmp_path):
    one, seen = muon(tmp_path, steps=300), []
    right = lesson(one.parts["line"])

    def loss_of(step):
        seen.append(one.parts["line"][0].weight.detach().clone())
        return right(step) * (float("nan") if step == 30 else 1.0)

    first = float(right(0).detach())
    one.run(loss_of)
    assert float(right(0).detach()) < 0.1 * first
    assert torch.equal(seen[30], seen[31])
    again = muon(tmp_path, steps=600)
    assert again.step == 210  # from before the rate fell
    kept = torch.load(tmp_path / "line-stable.pt", weights_only=True)["muon"]["state"][0]["momentum_buffer"]
    assert torch.equal(again.muon.state_dict()["state"][0]["momentum_buffer"], kept)


def test_minutes_and_a_moment_end_it(tmp_path):
    one = stage(tmp_path / "a", steps=None, budget=Budget(minutes=0.01))
    one.run(lesson(one.parts["line"]))
    assert one.step > 10
    assert spent(tmp_path / "a", "line") >= 0.6
    other = stage(tmp_path / "b", steps=None, budget=Budget(minutes=9, until=time.monotonic() + 1))
    other.run(lesson(other.parts["line"]))
    assert (tmp_path / "b" / "line.pt").is_file()
    assert spent(tmp_path / "b", "line") < 60
    with pytest.raises(ValueError, match="in steps or in minutes"):
        stage(tmp_path, steps=None)


def test_it_is_looked_at_in_between_and_at_the_end(tmp_path, capsys):
    looked = []
    one = stage(tmp_path)
    one.run(lesson(one.parts["line"]), shows=(0.25, 0.5, 1.0), show=looked.append)
    assert looked == [10, 20, 40]
    assert "line: 40 steps" in capsys.readouterr().out


@pytest.mark.parametrize("bf16", [False, True])
def test_batch_normalisation_is_kept_with_the_average(tmp_path, bf16):
    part = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
    one = Stage(tmp_path, "norm", {"norm": part}, steps=20, budget=Budget(bf16=bf16), rate=0.01, ema=0.9)
    one.run(lambda step: part(torch.randn(8, 3) + 2).float().square().mean())
    kept = torch.load(tmp_path / "norm.pt", weights_only=True)
    assert torch.equal(kept["average"]["norm"]["0.running_mean"], part[0].running_mean)
    assert part[0].running_mean.mean() > 1
