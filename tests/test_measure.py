"""The honest eye: distances with known answers, and what it says of good and bad pictures."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from diffexplore.pocket import judge
from diffexplore.pocket.factory import eyes, measure, sheets

RNG = np.random.default_rng(0)


def test_the_frechet_distance_of_normal_clouds_is_that_of_the_formula():
    cloud = RNG.normal(size=(4000, 6))
    assert measure.frechet(cloud, cloud) == pytest.approx(0, abs=1e-9)
    assert measure.frechet(cloud, cloud + np.array([3, 4, 0, 0, 0, 0])) == pytest.approx(25)
    # Twice as wide, deviations and all: (2 - 1)² of the variance in each direction, and the middle moves a little.
    wider = cloud.var(0, ddof=1).sum() + np.square(cloud.mean(0)).sum()
    assert measure.frechet(cloud, 2 * cloud) == pytest.approx(wider)
    turned = cloud * np.arange(1, 7)
    around = turned[:, ::-1]
    wanted = sum((a - b) ** 2 for a, b in zip(range(1, 7), range(6, 0, -1), strict=True))
    assert measure.frechet(turned, around) == pytest.approx(wanted, rel=0.1)


def test_precision_is_lost_by_pictures_of_nothing_and_recall_by_few_kinds():
    true = RNG.normal(size=(500, 4))
    fine, far, narrow = RNG.normal(size=(500, 4)), RNG.normal(size=(500, 4)) + 9, 0.3 * RNG.normal(size=(500, 4))
    assert measure.covered(fine, true) > 0.85
    assert measure.covered(true, fine) > 0.85
    assert measure.covered(far, true) == 0
    assert measure.covered(narrow, true) > 0.95  # all of them could be true
    assert measure.covered(true, narrow) < 0.5  # but not all that is true is there


def test_distances_are_those_of_the_plain_formula():
    one, other = RNG.normal(size=(7, 3)), RNG.normal(size=(5, 3))
    plain = [[np.linalg.norm(a - b) for b in other] for a in one]
    assert np.allclose(measure.distances(one, other), plain)
    near = np.stack([one + 3, one + 0.5, one - 2], 1)
    assert np.allclose(measure.nearest(one, near), [[1, 0.5 * 3**0.5]] * 7)


@pytest.fixture(scope="module")
def evidence(art_folder, tmp_path_factory):
    """Of the pocket model, drawn in a single step, which is no picture: written and read again."""
    made = measure.draw(None, str(art_folder), prompts=6, changed={"steps": 1}, subjects=("fox", "car"), device="cpu")
    path = tmp_path_factory.mktemp("runs") / "pocket.npz"
    made.save(path)
    again = measure.Evidence.open(path)
    for name in (*measure.Evidence.WORDS, *measure.Evidence.ARRAYS):
        assert np.array_equal(getattr(made, name), getattr(again, name)), name
    return path, again


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A second judge that has learned nothing: its random features tell noise from pictures all the same."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("eye") / "judge2.safetensors"
    save_file(eyes.make_second().to(memory_format=torch.contiguous_format).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def eye(weights):
    return measure.open_eye(weights)


def test_evidence_holds_what_was_asked_for(evidence):
    _, made = evidence
    side = made.drawn.shape[1]
    assert made.drawn.shape == made.composed.shape == made.again.shape == made.through.shape == (12, side, side, 3)
    assert made.kinds.tolist() == ["trained"] * 6 + ["held-out"] * 6
    assert made.near.shape == (12, measure.NEAR[1], side, side, 3)
    assert made.sheet.shape == (2, 8, side, side, 3)
    assert made.art.shape == (2, side, side, 3)
    assert all({"subject", "style", "quality"} <= set(one) for one in made.truths)
    assert not np.array_equal(made.composed, made.again)
    lost = np.abs(made.again.astype(float) - made.through).mean()
    assert 0 < lost < 15  # a VAE keeps nearly all
    assert lost < np.abs(made.composed.astype(float) - made.again).mean()


def test_composed_by_other_processes_it_is_the_same(evidence, art_folder):
    _, made = evidence
    asked = {"prompts": 6, "changed": {"steps": 1}, "subjects": ("fox",), "device": "cpu", "workers": 2}
    other = measure.draw(None, str(art_folder), **asked)
    for name in ("composed", "again", "near"):
        assert np.array_equal(getattr(made, name), getattr(other, name)), name


def test_no_picture_is_told_from_a_good_one(evidence, eye):
    _, made = evidence
    found = measure.compare(made, eye)
    drawn, kept, again = (found[name] for name in ("drawn", "through the VAE", "composed again"))
    assert again["frechet"] < drawn["frechet"]
    assert again["nearest"] < drawn["nearest"]
    assert kept["frechet"] < drawn["frechet"]
    assert "its own world" not in found
    other = measure.compare(made, eye, made)["its own world"]
    assert other["frechet"] == pytest.approx(0, abs=1e-6)
    assert (other["precision"], other["recall"]) == (1, 1)


def test_what_is_read_is_counted_against_what_was_said(evidence):
    _, made = evidence

    class Knows(measure.Eye):
        """Reads everything as it was said, but every third subject wrong."""

        def __init__(self):
            pass

        def look(self, pictures):
            rows = []
            for k in range(len(pictures)):
                known = made.truths[k % len(made.truths)]
                row = [values.index(known.get(name, values[0])) for name, values in judge.ATTRIBUTES.items()]
                rows.append([(row[0] + 1) % 72 if k % 3 == 0 else row[0], *row[1:]])
            return RNG.normal(size=(len(pictures), 3)), np.array(rows)

    found = measure.compare(made, Knows())["drawn"]
    assert (found["subject"], found["trained"], found["held-out"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))


def test_the_sheet_has_a_row_for_each_subject_and_blind_it_tells_nothing(evidence, tmp_path):
    path, made = evidence
    (page,) = sheets.subject_pages(made, tmp_path / "named")
    assert Image.open(page).size == (9 * 128, 2 * 128)
    measure.main(["sheet", str(path), "--out", str(tmp_path / "blind"), "--blind"])
    blind = Image.open(tmp_path / "blind" / "subjects-1.png")
    assert blind.size == (8 * 128, 2 * 128)
    assert np.array_equal(np.asarray(blind), np.asarray(Image.open(page))[:, 128:])


def test_the_command_prints_and_writes_what_was_found(evidence, weights, tmp_path, capsys):
    path, made = evidence
    asked = ["compare", str(path), "--eye", str(weights), "--world", str(path), "--pairs", str(tmp_path)]
    measure.main([*asked, "--json", str(tmp_path / "out.json")])
    printed = capsys.readouterr().out
    assert printed.startswith("pocket: pocket, its own sampler, 1 steps, guidance 5\n")
    head = printed.splitlines()[1].split()
    assert head == ["frechet", "precision", "recall", "nearest", "subject", "trained", "held-out"]
    result = json.loads((tmp_path / "out.json").read_text())["pocket"]
    assert list(result["sets"]) == ["drawn", "through the VAE", "composed again", "its own world"]
    assert f"{result['sets']['drawn']['frechet']:.2f}" in printed
    side = made.drawn.shape[1]
    assert Image.open(tmp_path / "pocket-nearest.png").size == (16 * side, 2 * side)


def test_each_guidance_has_its_row_and_that_of_the_evidence_is_what_it_says(evidence, weights, eye, tmp_path, capsys):
    path, made = evidence
    asked = ["guidance", str(path), "--at", "5", "12", "--eye", str(weights), "--steps", "1", "--device", "cpu"]
    measure.main([*asked, "--json", str(tmp_path / "out.json")])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[0] == "frechet"
    assert [row.split()[:2] for row in rows] == [["guidance", "5"], ["guidance", "12"]]
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["guidance 5"] == pytest.approx(measure.compare(made, eye)["drawn"], rel=1e-4)
    assert found["guidance 12"]["frechet"] > found["guidance 5"]["frechet"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            ["guidance", "{path}", "--at", "3", "nan", "--eye", "{eye}"],
            "guidance must be a number from 0 to 100 (1 is off), got nan",
        ),
        (["guidance", "{path}", "--at", "3", "--eye", "{eye}", "--at-once", "0"], "--at-once must be 1 or more, got 0"),
        (["guidance", "{strange}", "--at", "3", "--eye", "{eye}"], "is no file that `measure draw` wrote"),
        (["compare", "{strange}", "--eye", "{eye}"], "is no file that `measure draw` wrote"),
        (["compare", "{strange}", "--eye", "{strange}"], "holds no second judge"),
        (["compare", "{strange}", "--eye", "{judge}"], "holds no second judge"),
        (["compare", "{gone}", "--eye", "{eye}"], "No such file"),
        (["sheet", "{gone}", "--out", "x"], "No such file"),
        (["draw", "--art", "{gone}", "--out", "x.npz"], "fetch it with: npm pack @lobehub/fluent-emoji-3d"),
        (["draw", "--art", "{gone}", "--out", "x.npz", "--prompts", "0"], "--prompts must be 1 or more, got 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(asked, said, evidence, weights, tmp_path, capsys):
    strange, gone = tmp_path / "strange.npz", tmp_path / "gone"
    places = {"path": evidence[0], "strange": strange, "gone": gone, "eye": weights, "judge": judge.WEIGHTS}
    strange.write_bytes(b"no pictures")
    with pytest.raises(SystemExit):
        measure.main([part.format(**places) for part in asked])
    assert said in capsys.readouterr().err
