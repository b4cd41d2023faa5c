"""views.py: every kind of picture, its scale, its errors. Sizes are 5x7 with 4 channels, so that mix-ups show."""

import gc
import math
import timeit
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from diffexplore.looks import estimates, views
from diffexplore.settings import Settings
from diffexplore.trace import Step, Trace

C, H, W = 4, 5, 7
MATRIX = np.array(
    [[0.3, 0.1, 0.0], [-0.1, 0.2, 0.05], [0.02, 0.0, 0.25], [0.1, -0.2, 0.1], [0.5, 0.45, 0.4]], np.float32
)


def field(seed: int) -> torch.Tensor:
    return torch.randn(C, H, W, generator=torch.Generator().manual_seed(seed))


def step(index: int = 0, a: float = 0.8, b: float = 0.6, halves: bool = True, **values) -> Step:
    tensors = {"latents": field(10 * index), "output": field(10 * index + 1)}
    if halves:
        tensors |= {"cond": field(10 * index + 2), "uncond": field(10 * index + 3), "guidance": 3.0}
    return Step(
        **{"index": index, "timestep": 1.0, "seconds": 0.0, "a": a, "b": b, "kind": "epsilon", **tensors, **values}
    )


def trace_of(*steps: Step, **values) -> Trace:
    return Trace(Settings(), steps, **{"matrix": MATRIX, **values})


def enlarge(latents: torch.Tensor) -> np.ndarray:
    """A decoder with nothing random in it: twice the size, the first three channels."""
    pixels = np.clip(latents.numpy()[:3].transpose(1, 2, 0) * 0.2 + 0.5, 0, 1)
    return (pixels.repeat(2, 0).repeat(2, 1) * 255).astype(np.uint8)


def linear(latents: torch.Tensor, bias: bool = True) -> np.ndarray:
    """Linear colours, written out pixel by pixel."""
    out = np.empty((H, W, 3))
    for y in range(H):
        for x in range(W):
            for c in range(3):
                out[y, x, c] = sum(float(latents[k, y, x]) * MATRIX[k, c] for k in range(C)) + bias * MATRIX[C, c]
    return out


def to_bytes(colours: np.ndarray) -> np.ndarray:
    return np.round(np.clip(colours, 0, 1) * 255)


def signed(difference: np.ndarray) -> np.ndarray:
    """The stretch of the module's docstring by logarithms: asinh(x) = ln(x + sqrt(x^2 + 1))."""

    def asinh(x: np.ndarray) -> np.ndarray:
        return np.sign(x) * np.log(np.abs(x) + np.sqrt(x**2 + 1))

    return to_bytes(0.5 + 0.5 * asinh(difference * 50) / asinh(np.array(50.0)))


def assert_close(pixels: np.ndarray, expected: np.ndarray) -> None:
    """Equal up to the rounding of float32 against float64, one level at most."""
    assert pixels.dtype == np.uint8
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= 1


def test_the_kinds_are_those_of_the_package() -> None:
    assert views.VIEWS == ("x0", "latents", "noise", "guidance", "change")
    assert tuple(views.KINDS)[:5] == views.VIEWS
    assert set(views.KINDS) >= {"noise_cond", "noise_uncond", "x0_cond", "x0_uncond"}
    assert all(caption.endswith(".") for caption in views.CAPTIONS.values())


@pytest.mark.parametrize("kind", views.KINDS)
def test_every_kind_of_a_real_run(tiny_trace: Trace, kind: str) -> None:
    decoded = kind.startswith("x0") or kind in ("change", "latents_decoded")
    exact, plain = (views.frame(tiny_trace, kind, 2, exact=exact) for exact in (True, False))
    assert exact.shape == ((32, 48, 3) if decoded else (8, 12, 3))
    assert plain.shape == (8, 12, 3)
    assert exact.dtype == plain.dtype == np.uint8
    assert exact.std() > 0, "an even picture shows nothing"
    assert plain.std() > 0
    assert views.view(tiny_trace, kind, 2).size == (48, 32)


def test_x0_is_decoded_exactly(tiny_trace: Trace) -> None:
    for i, one in enumerate(tiny_trace):
        assert tiny_trace.decode is not None
        assert np.array_equal(views.frame(tiny_trace, "x0", i), tiny_trace.decode(one.x0))
        assert np.array_equal(views.frame(tiny_trace, "x0_cond", i), tiny_trace.decode(one.x0_cond))
        assert np.array_equal(views.frame(tiny_trace, "x0_uncond", i), tiny_trace.decode(one.x0_uncond))


def test_linear_colours() -> None:
    trace = trace_of(step())
    assert_close(views.frame(trace, "x0", 0), to_bytes(linear(trace[0].x0)))
    assert_close(views.frame(trace, "x0_uncond", 0), to_bytes(linear(trace[0].x0_uncond)))


def test_exact_false_does_not_decode() -> None:
    def refuse(latents: torch.Tensor) -> np.ndarray:
        raise AssertionError("decoded")

    trace = trace_of(step(0), step(1), decode=refuse)
    for kind in views.KINDS:
        assert views.frame(trace, kind, 1, exact=False).shape == (H, W, 3)
    with pytest.raises(AssertionError, match="decoded"):
        views.frame(trace, "x0", 1)


def test_latents_look_alike_whatever_the_sampler_keeps() -> None:
    clean, noise, sigma = field(5), field(6), 14.6
    a = 1 / math.sqrt(1 + sigma**2)
    preserving = trace_of(step(a=a, b=sigma * a, latents=a * clean + sigma * a * noise))
    exploding = trace_of(step(a=1.0, b=sigma, latents=clean + sigma * noise))
    shown = views.frame(preserving, "latents", 0)
    assert_close(views.frame(exploding, "latents", 0), shown.astype(float))
    assert_close(shown, to_bytes(linear(a * clean + sigma * a * noise)))
    assert 20 < shown.std() < 80, "neither washed out nor clipped away"


def test_noise_has_one_scale() -> None:
    zero, one, two = (
        trace_of(step(latents=torch.zeros(C, 40, 50), output=scale * torch.randn(C, 40, 50), halves=False))
        for scale in (0, 1, 2)
    )
    assert np.all(views.frame(zero, "noise", 0) == 128)
    # Contrast 0.2 of the range, shared by three colours of unequal strength.
    assert math.sqrt((views.frame(one, "noise", 0) / 255.0).var(axis=(0, 1)).mean()) == pytest.approx(0.2, abs=0.01)
    assert views.frame(two, "noise", 0).std() > 1.5 * views.frame(one, "noise", 0).std()


def test_noise_with_and_without_the_prompt() -> None:
    trace = trace_of(step())
    scale = 0.2 / math.sqrt(np.mean(np.sum(MATRIX[:C].astype(float) ** 2, axis=0)))
    for kind in ("noise", "noise_cond", "noise_uncond"):
        expected = to_bytes(0.5 + scale * linear(getattr(trace[0], kind), bias=False))
        assert_close(views.frame(trace, kind, 0), expected)
    assert not np.array_equal(views.frame(trace, "noise_cond", 0), views.frame(trace, "noise_uncond", 0))


def test_guidance_is_signed() -> None:
    trace = trace_of(step())
    assert_close(views.frame(trace, "guidance", 0), signed(linear(trace[0].x0_cond - trace[0].x0_uncond, bias=False)))
    # The prompt asks for more of channel 0, which is mostly red: x0 falls where the predicted noise rises.
    more = torch.zeros(C, H, W)
    more[0, 1, 2] = -0.5
    pixels = views.frame(trace_of(step(cond=more, uncond=torch.zeros(C, H, W))), "guidance", 0)
    assert pixels[1, 2, 0] > pixels[1, 2, 1] > 128 == pixels[1, 2, 2]
    assert np.all(np.delete(pixels.reshape(-1, 3), 1 * W + 2, axis=0) == 128)


def test_change_is_signed_and_decoded_where_it_can_be() -> None:
    steps = (step(0), step(1))
    assert_close(views.frame(trace_of(*steps), "change", 1), signed(linear(steps[1].x0 - steps[0].x0, bias=False)))
    decoded = trace_of(*steps, decode=enlarge)
    now, before = enlarge(steps[1].x0).astype(float), enlarge(steps[0].x0).astype(float)
    assert_close(views.frame(decoded, "change", 1), signed((now - before) / 255))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("kind", views.KINDS)
def test_a_frame_never_changes_when_more_steps_come(kind: str, exact: bool) -> None:
    steps = [step(0), step(1), step(2, latents=1000 * field(1)), step(3, output=1000 * field(2))]
    full, live = trace_of(*steps, decode=enlarge), trace_of(decode=enlarge)
    for i, one in enumerate(steps):
        live.append(one)
        assert np.array_equal(views.frame(live, kind, i, exact), views.frame(full, kind, i, exact))


@pytest.mark.parametrize("kind", ["guidance", "noise_cond", "noise_uncond", "x0_cond", "x0_uncond"])
def test_plain_grey_and_a_reason_without_a_split(kind: str) -> None:
    trace = trace_of(step(halves=False, split="Guidance is off."))
    assert np.all(views.frame(trace, kind, 0) == 128)
    assert views.why_blank(trace, kind, 0) == trace[0].split != ""
    assert views.why_blank(trace_of(step()), kind, 0) == ""


def test_there_is_no_change_at_the_first_evaluation() -> None:
    trace = trace_of(step(0), step(1))
    assert np.all(views.frame(trace, "change", 0) == 128)
    assert "first evaluation" in views.why_blank(trace, "change", 0)
    assert "first evaluation" in views.why_blank(trace, "change", -2)
    assert views.why_blank(trace, "change", 1) == ""


def test_each_estimate_is_decoded_once() -> None:
    calls: list[int] = []

    def counted(latents: torch.Tensor) -> np.ndarray:
        calls.append(1)
        return enlarge(latents)

    trace = trace_of(*(step(i) for i in range(4)), decode=counted)
    for kind in views.VIEWS:
        for i in range(4):
            views.frame(trace, kind, i)
            views.view(trace, kind, i, size=20)
    assert len(calls) == 4
    trace_of(*trace, decode=counted).view("x0", 0)
    assert len(calls) == 5, "another trace has pictures of its own"


def test_pictures_that_are_forgotten_are_made_again() -> None:
    calls: list[int] = []

    def counted(latents: torch.Tensor) -> np.ndarray:
        calls.append(1)
        return enlarge(latents)

    trace = trace_of(step(), decode=counted)
    for _ in range(2):
        before = views.frame(trace, "x0", 0)
        views.forget(trace)
        assert np.array_equal(views.frame(trace, "x0", 0), before)
    assert len(calls) == 3


def test_kept_pictures_are_bounded_and_go_with_the_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(latents: torch.Tensor) -> np.ndarray:
        calls.append(1)
        return enlarge(latents)

    monkeypatch.setattr(estimates, "_CACHE_BYTES", 3 * enlarge(field(0)).nbytes)
    trace = trace_of(*(step(i) for i in range(5)), decode=counted)
    for i in (0, 1, 2, 0, 3, 0, 4, 0):
        assert np.array_equal(views.frame(trace, "x0", i), enlarge(trace[i].x0))
    assert len(calls) == 5, "0 was used again and again, so it stays"
    views.frame(trace, "x0", 1)
    assert len(calls) == 6, "1 had to go"
    alive = weakref.ref(trace)
    del trace
    gc.collect()
    assert alive() is None


def test_a_picture_cannot_be_spoilt_by_its_reader() -> None:
    trace = trace_of(step(), decode=enlarge)
    with pytest.raises(ValueError, match="read-only"):
        views.frame(trace, "x0", 0)[:] = 0
    before = trace[0].latents.clone()
    for kind in views.KINDS:
        views.frame(trace, kind, 0, exact=False)[:] = 0
    assert torch.equal(trace[0].latents, before)


def test_numbers_that_are_not_finite_are_magenta() -> None:
    latents = field(0)
    latents[2, 1, 3] = math.nan
    latents[0, 4, 6] = math.inf
    pixels = views.frame(trace_of(step(latents=latents)), "latents", 0)
    magenta = np.all(pixels == (255, 0, 255), axis=-1)
    assert sorted(zip(*np.nonzero(magenta), strict=True)) == [(1, 3), (4, 6)]


def test_a_broken_estimate_is_magenta_where_a_decoder_would_make_it_black() -> None:
    latents = field(0)
    latents[2, 1, 3] = math.nan
    pixels = views.frame(trace_of(step(latents=latents), decode=enlarge), "x0", 0)
    magenta = np.all(pixels == (255, 0, 255), axis=-1)
    assert list(zip(*np.nonzero(magenta), strict=True)) == [(1, 3)]
    trace = trace_of(step(0), step(1, latents=latents), step(2), decode=enlarge)
    assert [views.frame(trace, "change", i).shape[:2] for i in (1, 2)] == [(H, W)] * 2


@pytest.mark.parametrize("channels", [1, 2, 3, 16])
def test_a_trace_without_a_matrix_shows_channels(channels: int) -> None:
    latents = torch.zeros(channels, H, W)
    latents[0, 0, 0] = 1.0
    trace = Trace(Settings(), [step(latents=latents, output=latents, halves=False, a=1.0, b=0.0)])
    pixels = views.frame(trace, "latents", 0)
    assert pixels.shape == (H, W, 3)
    assert tuple(pixels[0, 0]) == ((191,) * 3 if channels == 1 else (191, 128, 128))


def test_size_is_the_longest_side() -> None:
    trace = Trace(Settings(width=56, height=40), [step(0), step(1)], matrix=MATRIX, decode=enlarge)
    for kind in views.KINDS:
        assert views.view(trace, kind, 1).size == (56, 40), "all kinds of a run in one size"
        assert views.view(trace, kind, 1, size=70).size == (70, 50)
        assert views.view(trace, kind, 1, size=1).size == (1, 1)
    squares = np.asarray(views.view(trace, "noise", 0, size=28))
    assert np.array_equal(squares, views.frame(trace, "noise", 0).repeat(4, 0).repeat(4, 1))
    assert views.view(trace_of(step()), "noise", 0).size == (7, 5), "a run that tells no size: one pixel per latent"


@pytest.mark.parametrize("pictures", [True, False])
def test_a_saved_run_still_has_pictures(tiny_trace: Trace, tmp_path: Path, pictures: bool) -> None:
    tiny_trace.save(tmp_path / "run.safetensors", pictures=pictures)
    loaded = Trace.load(tmp_path / "run.safetensors")
    for kind in views.KINDS:
        exact = pictures and kind in ("x0", "change")
        for i in range(len(tiny_trace)):
            assert np.array_equal(views.frame(loaded, kind, i), views.frame(tiny_trace, kind, i, exact=exact))
    assert loaded.view("x0", 0).size == (48, 32)


def test_steps_count_from_the_end_too() -> None:
    trace = trace_of(step(0), step(1), step(2), decode=enlarge)
    for kind in views.KINDS:
        assert np.array_equal(views.frame(trace, kind, -1), views.frame(trace, kind, np.int64(2)))


@pytest.mark.parametrize(
    ("kind", "hint"), [("X0", "'x0'"), ("lattents", "'latents'"), ("noise_cnod", "'noise_cond'"), ("", ""), (3, "")]
)
def test_an_unknown_kind_is_named(kind: str, hint: str) -> None:
    with pytest.raises(ValueError, match="view must be one of x0, latents, noise, guidance, change") as error:
        views.view(trace_of(step()), kind, 0)
    assert repr(kind) in str(error.value)
    assert hint in str(error.value).rsplit("got", 1)[1]


@pytest.mark.parametrize("i", [2, -3, 10**30])
def test_a_step_that_is_not_there(i: int) -> None:
    with pytest.raises(IndexError, match=rf"from 0 to 1, .*got {i}$"):
        views.view(trace_of(step(0), step(1)), "x0", i)


def test_other_wrong_steps() -> None:
    with pytest.raises(IndexError, match="no steps yet"):
        views.view(trace_of(), "x0", 0)
    with pytest.raises(TypeError, match=r"whole number, got 0\.5"):
        views.view(trace_of(step()), "x0", 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [0, -1, 8193, 2.5, "64", True])
def test_a_size_that_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match="size must be a whole number of pixels from 1 to 8192") as error:
        views.view(trace_of(step()), "x0", 0, size=size)  # type: ignore[arg-type]
    assert repr(size) in str(error.value)


# Latents of other layouts


def video(seed: int) -> torch.Tensor:
    return torch.randn(C, 6, H, W, generator=torch.Generator().manual_seed(seed))


def plane_of(one: Step, k: int) -> Step:
    """A step whose latents are one plane of those of another."""
    tensors = {"latents": one.latents[:, k], "output": one.output[:, k]}
    tensors |= {"cond": one.noise_cond[:, k], "uncond": one.noise_uncond[:, k], "guidance": 3.0}
    return Step(index=one.index, timestep=1.0, seconds=0.0, a=one.a, b=one.b, kind="epsilon", **tensors)


@pytest.mark.parametrize("kind", views.KINDS)
def test_a_frame_of_a_video_is_one_plane_the_middle_one_if_none_is_asked_for(kind: str) -> None:
    steps = [
        step(i, latents=video(4 * i), output=video(4 * i + 1), cond=video(4 * i + 2), uncond=video(4 * i + 3))
        for i in range(2)
    ]
    trace = trace_of(*steps)
    for plane, k in ((None, 3), (0, 0), (5, 5), (-1, 5), ((2,), 2)):
        flat = trace_of(*(plane_of(one, k) for one in steps))
        assert np.array_equal(views.frame(trace, kind, 1, plane=plane), views.frame(flat, kind, 1))
    assert views.view(trace, kind, 1, size=14, plane=1).size == (14, 10)


def test_a_plane_that_is_not_there_is_named() -> None:
    trace = trace_of(step(latents=video(0), output=video(1), halves=False))
    for plane in (6, -7, (1, 2), "3"):
        with pytest.raises(ValueError, match=r"plane must be one of the planes \(6,\), a number for each axis; got"):
            views.frame(trace, "latents", 0, plane=plane)
    with pytest.raises(ValueError, match="plane must be one of the planes"):
        views.frame(trace_of(step()), "latents", 0, plane=(1,))


def test_a_decoder_of_videos_gives_a_picture_for_every_plane_or_one_for_all() -> None:
    def every(latents: torch.Tensor) -> np.ndarray:
        return np.stack([enlarge(latents[:, k // 2]) for k in range(12)])  # two pictures for each plane

    one = step(latents=video(0), output=video(1), halves=False)
    trace = trace_of(one, decode=every)
    assert np.array_equal(views.frame(trace, "x0", 0, plane=0), enlarge(one.x0[:, 0]))
    assert np.array_equal(views.frame(trace, "x0", 0, plane=5), enlarge(one.x0[:, 5]))
    single = trace_of(one, decode=lambda latents: enlarge(latents[:, 3]))
    assert np.array_equal(views.frame(single, "x0", 0), enlarge(one.x0[:, 3]))
    assert views.frame(single, "x0", 0, plane=1).shape == (H, W, 3), "linear colours of that plane"


@pytest.mark.parametrize("kind", views.KINDS)
def test_latents_of_a_sound_are_one_line(kind: str) -> None:
    steps = [step(i, **{name: torch.randn(C, 30) for name in ("latents", "output", "cond", "uncond")}) for i in (0, 1)]
    assert views.frame(trace_of(*steps), kind, 1).shape == (1, 30, 3)


@pytest.mark.parametrize("kind", views.KINDS)
def test_a_run_of_nothing_but_nan_is_magenta_or_says_why_not(kind: str) -> None:
    nothing = dict.fromkeys(("latents", "output", "cond", "uncond"), torch.full((C, H, W), math.nan))
    trace = trace_of(step(0, **nothing), step(1, **nothing), decode=enlarge)
    pixels = views.frame(trace, kind, 1)
    blank = views.why_blank(trace, kind, 1)
    assert np.all(pixels == (128 if blank else (255, 0, 255)))


@pytest.mark.parametrize("kind", views.VIEWS)
def test_linear_frames_are_cheap(kind: str) -> None:
    """About 0.5 ms at 64x64 latents; the bound allows for a busy machine."""
    big = {name: torch.randn(C, 64, 64) for name in ("latents", "output", "cond", "uncond")}
    trace = trace_of(step(0, **big), step(1, **big))
    assert min(timeit.repeat(lambda: views.frame(trace, kind, 1, exact=False), number=1, repeat=30)) < 0.005
