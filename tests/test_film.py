"""Films: what is encoded is what the views draw, and it survives packing and saving."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import diffexplore as dx
from diffexplore.looks.curves import spectrum
from diffexplore.looks.views import VIEWS, frame
from diffexplore.model import Model
from diffexplore.record.numbers import NUMBERS, Number, declare
from diffexplore.settings import Settings
from diffexplore.trace import Step, Trace
from diffexplore.widgets.film import BANDS, SIDE, TOKENS, Film, Frame, encode, films_of, pack, unpack


def pixels(shot: Frame | str | None) -> np.ndarray:
    assert isinstance(shot, Frame)
    return np.asarray(Image.open(io.BytesIO(shot.data)).convert("RGB"))


@pytest.fixture(scope="module")
def film(tiny_trace: Trace) -> Film:
    return Film.of(tiny_trace)


# --- encoding ---


def test_every_view_of_every_step_is_there_pixel_for_pixel(film: Film, tiny_trace: Trace) -> None:
    assert film.complete
    for kind in VIEWS:
        for i in range(len(tiny_trace)):
            if (kind, i) != ("change", 0):
                np.testing.assert_array_equal(pixels(film.frames[kind, i]), frame(tiny_trace, kind, i), f"{kind} {i}")


def test_the_finished_picture_is_kept_as_it_is(film: Film, tiny_trace: Trace) -> None:
    np.testing.assert_array_equal(pixels(film.final), np.asarray(tiny_trace.image))
    assert film.size == (48, 32)


def test_where_there_is_nothing_to_see_it_says_why(film: Film) -> None:
    assert film.frames["change", 0] == "This is the first evaluation: there is no earlier estimate to compare with."


def test_a_preview_gives_way_to_the_exact_frame_and_never_the_other_way(tiny_trace: Trace) -> None:
    film = Film.begin(tiny_trace)
    film.end(tiny_trace)
    film.shoot(tiny_trace, "x0", 1, exact=False)
    film.shoot(tiny_trace, "latents", 1, exact=False)
    assert pixels(film.frames["x0", 1]).shape == (8, 12, 3)
    assert not film.frames["x0", 1].exact
    assert film.frames["latents", 1].exact, "latents need no decoder, so there is no better frame to wait for"
    film.shoot(tiny_trace, "x0", 1)
    best = film.frames["x0", 1]
    assert pixels(best).shape == (32, 48, 3)
    film.shoot(tiny_trace, "x0", 1, exact=False)
    assert film.frames["x0", 1] is best


def test_large_frames_are_scaled_down_and_a_large_result_is_not(tiny_trace: Trace) -> None:
    picture = Image.effect_noise((1000, 600), 60).convert("RGB")
    shot = encode(picture)
    assert shot.format == "jpeg"
    assert pixels(shot).shape == (230, SIDE, 3)
    film = Film.begin(tiny_trace)
    film.end(Trace(tiny_trace.settings, list(tiny_trace), image=picture))
    assert pixels(film.final).shape == (600, 1000, 3)


def test_numbers_that_json_cannot_hold_are_left_out() -> None:
    step = Step(
        index=0,
        timestep=999.0,
        seconds=math.nan,
        a=1.0,
        b=math.inf,
        kind="epsilon",
        latents=torch.zeros(4, 2, 3),
        output=torch.zeros(4, 2, 3),
    )
    film = Film(status="done")
    film.grow(Trace(Settings(), [step]))
    assert film.steps == [(999.0, None, None, None, (None,), None)]


# --- numbers and words ---


def test_a_step_carries_what_the_curves_say(film: Film, tiny_trace: Trace) -> None:
    for i, (timestep, sigma, seconds, change, power, adherence, *_) in enumerate(film.steps):
        step = tiny_trace[i]
        assert (timestep, sigma, seconds) == pytest.approx((step.timestep, step.sigma, step.seconds), rel=1e-5)
        assert change == (pytest.approx(tiny_trace.curve("change")[i], rel=1e-5) if i else None)
        assert adherence is None, "nobody can judge the pictures of this model"
        # Latents of 8 x 12 have 4 rings beyond the mean, so each is a band of its own.
        np.testing.assert_allclose(power, np.log10(spectrum(tiny_trace, i)[1:]), atol=0.006)


def test_a_step_of_the_pocket_model_carries_its_adherence_once_its_picture_is_there() -> None:
    trace = dx.load().trace(prompt="a fox in the snow", steps=3)
    film = Film.begin(trace)
    film.end(trace)
    film.shoot(trace, "x0", 1, exact=False)
    assert [step[5] for step in film.steps] == [None] * 3
    film.shoot(trace, "x0", 1)
    assert film.steps[1][5] == pytest.approx(trace.curve("adherence")[1], rel=1e-5)
    assert [step[5] is None for step in film.steps] == [True, False, True]
    assert unpack(*pack([film]))[0].steps == film.steps
    document, data = pack([film])
    document["films"][0]["steps"] = [row[:5] for row in document["films"][0]["steps"]]
    assert [step[5] for step in unpack(document, data)[0].steps] == [None] * 3, "saved before there was a judge"


def test_every_number_of_a_step_has_a_column(film: Film) -> None:
    names = ["timestep", "sigma", "seconds", "change", "spectrum", "adherence"]
    assert [column["name"] for column in film.columns if "group" not in column] == names
    names += (pulls := [str(column["name"]) for column in film.columns if column.get("group") == "guidance"])
    assert "guidance_angle_x0" in pulls
    assert [column["name"] for column in film.columns] == names
    assert film.columns[1] == {"name": "sigma", "label": "σ", "unit": "ratio", "log": True}
    assert {len(step) for step in film.steps} == {len(names)}


def test_a_run_without_halves_has_no_columns_of_guidance(tiny_model: Model) -> None:
    trace = tiny_model.trace(prompt="a red fox", steps=2, guidance=1.0, sampler="DDIM")
    assert len(Film.of(trace).columns) == 6


def test_a_number_declared_in_python_travels_with_what_it_means(
    tiny_trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("film:entropy", "film:double"):
        monkeypatch.setitem(NUMBERS, name, Number(name, "", "", ""))  # so that they are forgotten afterwards
    declare(Number("film:entropy", "entropy", "bits", "How spread out the attention is.", log=True))
    declare(Number("film:double", "2 t", "", "Twice the timestep.", of=lambda trace, i: 2 * trace[i].timestep))
    trace = Trace(tiny_trace.settings, [step.copy() for step in tiny_trace])
    for i in (1, 3):
        trace[i].numbers["film:entropy"] = 0.5 + i
    trace[2].numbers["film:unsaid"] = math.inf
    document, data = pack([Film.of(trace)])
    (back,) = unpack(json.loads(json.dumps(document, allow_nan=False)), data)
    rows = {str(column["name"]): [step[k] for step in back.steps] for k, column in enumerate(back.columns)}
    assert rows["film:entropy"] == [None, 1.5, None, 3.5]
    assert rows["film:double"] == pytest.approx([2 * step.timestep for step in tiny_trace], rel=1e-5)
    assert rows["film:unsaid"] == [None] * 4
    told = {column["name"]: column for column in back.columns}["film:entropy"]
    assert told == {"name": "film:entropy", "label": "entropy", "unit": "bits", "log": True}


def test_only_the_shipped_world_is_judged_whatever_a_model_is_called(film: Film, tiny_trace: Trace) -> None:
    assert not film.judged
    for info, judged in (({"model": "pocket"}, ""), ({"model": "mine", "world": "pocket"}, "2 of 2 words")):
        begun = Film.begin(Trace(tiny_trace.settings, info=info))
        assert begun.judged == judged
        assert unpack(*pack([begun]))[0].judged == judged


@pytest.mark.parametrize(
    ("shape", "size"),
    [((4, 3, 5, 7), (7, 5)), ((4, 2, 3, 5, 7), (7, 5)), ((2, 6, 40), (40, 6)), ((2, 50), (50, 1)), ((9,), (1, 1))],
)
def test_latents_of_any_layout_make_a_film(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    latents, output = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    steps = [
        Step(
            index=i,
            timestep=9.0 - i,
            seconds=1.0,
            a=0.6,
            b=0.8,
            kind="epsilon",
            latents=latents,
            output=output / (i + 1),
        )
        for i in range(2)
    ]
    (film,) = unpack(*pack([Film.of(Trace(Settings(), steps))]))
    assert film.size == size
    assert pixels(film.frames["latents", 1]).shape == (size[1], size[0], 3)
    assert film.steps[1][3] == pytest.approx(0.8 / 0.6 * float(output.square().mean().sqrt()) / 2, rel=1e-4)


def test_a_long_spectrum_is_gathered_in_bands_of_about_equal_ratio() -> None:
    x = torch.randn(2, 4, 128, 128, generator=torch.Generator().manual_seed(0))
    step = Step(index=0, timestep=1.0, seconds=1.0, a=1.0, b=0.0, kind="sample", latents=x[0], output=x[1])
    film = Film()
    film.grow(Trace(Settings(), [step]))
    power = film.steps[0][4]
    assert 10 <= len(power) <= BANDS
    # White noise of variance 1 has power 1; the last bands are means of 3,000 numbers and more, this is five spreads.
    assert np.abs(power[-3:]).max() < 0.04


def test_a_run_that_was_looked_up_does_not_boast_with_its_speed(tiny_trace: Trace) -> None:
    trace = Trace(tiny_trace.settings, list(tiny_trace), image=tiny_trace.image, seconds=0.001, info={"reused": True})
    film = Film.of(trace)
    assert film.about["kept"] == "from an earlier run"
    assert film.seconds == 0
    assert film.steps[0][2] == pytest.approx(tiny_trace[0].seconds, rel=1e-5), "each step keeps the time it once took"
    assert "kept" not in Film.of(Trace(tiny_trace.settings, list(tiny_trace), seconds=2.0)).about


def test_runs_that_were_drawn_together_took_their_time_once(tiny_trace: Trace) -> None:
    info = {"batch": 3}
    films = [Film.of(Trace(tiny_trace.settings, list(tiny_trace), seconds=1.5, info=info)) for _ in range(3)]
    assert sum(film.seconds for film in films) == pytest.approx(1.5)


def test_tokens_are_named_as_read_cut_or_unknown(tiny_trace: Trace) -> None:
    prompt = "A Zyx-fox, zyx and a zyxx"
    info = {
        "tokens": {
            "prompt": ["A", "Zy", "x", "-", "fox", ",", "zyx", "and"],
            "cut": ["a", "zyxx"],
            "ids": ["1", "20", "21", "22", "3", "4", "5", "6", "1", "7"],
        },
        "unknown": ["zyx-fox", "zyx"],
    }
    film = Film.begin(Trace(tiny_trace.settings.replace(prompt=prompt), info=info))
    assert film.tokens == [
        ("A", "", "1"), ("Zyx-fox", "unknown", "20 21 22 3"), (",", "", "4"), ("zyx", "unknown", "5"), ("and", "", "6"),
        ("a", "cut", "1"), ("zyxx", "cut", "7"),
    ]  # fmt: skip


def test_a_prompt_of_ten_thousand_tokens_does_not_become_as_many_chips(tiny_trace: Trace) -> None:
    info = {"tokens": {"prompt": ["fox"] * 14, "cut": ["fox"] * 9986}}
    film = Film.begin(Trace(tiny_trace.settings.replace(prompt="fox " * 10_000), info=info))
    read, cut = [("fox", "", "")] * 14, [("fox", "cut", "")] * (TOKENS - 14)
    assert film.tokens == [*read, *cut, (f"{10_000 - TOKENS} more", "more", "")]


# --- packing ---


def test_packed_films_come_back_equal(film: Film) -> None:
    document, data = pack([film, film], run=4)
    document = json.loads(json.dumps(document, allow_nan=False))
    for back in unpack(document, data):
        assert vars(back) == vars(film)
    assert document["run"] == 4
    assert len(data) == len(pack([film])[1]), "the same pictures are not stored twice"


def test_a_seed_above_2_to_53_travels_as_text(tiny_trace: Trace) -> None:
    trace = Trace(tiny_trace.settings.replace(seed=2**63 - 1), list(tiny_trace))
    document, _ = pack([Film.of(trace)])
    assert document["films"][0]["about"]["seed"] == "9223372036854775807"


def test_a_torn_or_foreign_document_is_refused(film: Film) -> None:
    document, data = pack([film])
    with pytest.raises(ValueError, match=rf"should have {len(data)} bytes of pictures, got {len(data) - 1}"):
        unpack(document, data[:-1])
    with pytest.raises(ValueError, match="format 99"):
        unpack(document | {"format": 99}, data)


def test_films_are_made_of_whatever_holds_runs(film: Film, tiny_trace: Trace, tmp_path: Path) -> None:
    tiny_trace.save(tmp_path / "run.safetensors")
    several = films_of({"one": tiny_trace, "saved": tmp_path / "run.safetensors", "both": [film, tiny_trace]})
    assert [one.label for one in several] == ["one", "saved", "run 3", "both"]
    assert film.label == ""
    assert all(len(one.steps) == 4 for one in several)
    for wrong in (7, [], None):
        with pytest.raises(TypeError, match="give a trace"):
            films_of(wrong)


def test_a_saved_trace_shows_without_its_decoder(tiny_trace: Trace, tmp_path: Path) -> None:
    tiny_trace.save(tmp_path / "run.safetensors")
    (film,) = films_of(str(tmp_path / "run.safetensors"))
    assert film.complete
    np.testing.assert_array_equal(pixels(film.frames["x0", 2]), np.asarray(tiny_trace.view("x0", 2)))
    assert pixels(film.frames["latents", 2]).shape == (8, 12, 3)
    np.testing.assert_array_equal(pixels(film.final), np.asarray(tiny_trace.image))


@pytest.mark.parametrize(("prompt", "judged"), [("a dragon in a meadow", "1 of 2 words"), ("a fox", "1 of 1 word")])
def test_a_film_of_the_pocket_model_says_of_which_words_its_judge_speaks(prompt: str, judged: str) -> None:
    film = Film.of(dx.load().trace(prompt=prompt, steps=2))
    assert film.judged == judged
    assert [step[5] is None for step in film.steps] == [judged == "1 of 2 words"] * 2
    document, data = pack([film])
    assert unpack(document, data)[0].judged == judged
    document["films"][0]["judged"] = True  # as it was saved once
    assert unpack(document, data)[0].judged
