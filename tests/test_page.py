"""The page of its own: it runs our script and nothing else, holds any prompt as text, and is written whole."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffexplore.settings import Settings
from diffexplore.trace import Step, Trace
from diffexplore.widgets.page import to_html


def noisy(steps: int) -> Trace:
    """A trace of 64 x 64 pixels whose every frame is white noise: the hardest there is to encode."""
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(0)

    def step(i: int) -> Step:
        x, output = torch.randn(2, 4, 16, 16, generator=generator)
        b = math.cos(0.5 * math.pi * i / steps)
        why = "No second half here."
        return Step(
            index=i,
            timestep=999.0 - i,
            seconds=0.04,
            a=math.sqrt(1 - b * b),
            b=b,
            kind="epsilon",
            latents=x,
            output=output,
            split=why,
        )

    settings = Settings(prompt="noise", steps=steps, sampler="DDIM", width=64, height=64)
    noise = lambda _: rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)  # noqa: E731
    return Trace(settings, [step(i) for i in range(steps)], image=Image.fromarray(noise(None)), decode=noise)


def test_the_page_runs_our_script_and_nothing_else(tiny_trace: Trace, tmp_path: Path) -> None:
    page = to_html(tiny_trace, tmp_path / "run.html").read_text("utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    for tag, directive in (("style", "style-src"), ('script type="module"', "script-src")):
        content = re.search(rf"<{tag}>(.*?)</{tag.split()[0]}>", page, re.DOTALL)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}';" in policy[1]
    assert policy[1].startswith("default-src 'none'; ")
    assert not re.search(r"(?:src|href)=|https?://(?!www\.w3\.org)", page)


def test_a_hostile_prompt_stays_text_in_the_page(tiny_trace: Trace, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>\u2028&amp;"
    trace = Trace(tiny_trace.settings.replace(prompt=evil), list(tiny_trace), image=tiny_trace.image)
    page = to_html(trace, tmp_path / "run.html").read_text("utf-8")
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    data = re.search(r'id="dx-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["traits"]["_film"]["films"][0]["about"]["prompt"] == evil


def test_fifty_steps_of_small_pictures_fit_in_one_and_a_half_megabytes_even_as_pure_noise(
    tmp_path: Path,
) -> None:
    trace = noisy(50)
    # White noise does not compress: 2 x 50 frames of 64 x 64 x 3 alone are 1.2 MB before base64. Real pictures take
    # under half of that.
    noise = to_html(trace, tmp_path / "noise.html").stat().st_size
    assert noise < 2.3e6
    trace = noisy(50)
    ramp = np.linspace(0, 255, 64)
    real = np.stack(
        [ramp[:, None] + 0 * ramp, 60 + 0.5 * ramp + 0 * ramp[:, None], 255 - ramp[:, None] + 0 * ramp], -1
    ).astype(np.uint8)
    rng = np.random.default_rng(1)
    trace.decode = lambda _: (
        real // 2 + rng.integers(0, 4, real.shape, dtype=np.uint8)
    )  # smooth, with the grain of a decoder
    assert to_html(trace, tmp_path / "real.html").stat().st_size < 1.5e6


def test_fifty_real_steps_of_the_pocket_model_fit_in_three_megabytes(tmp_path: Path) -> None:
    from diffexplore.model import load

    trace = load().trace(prompt="a red fox in the snow at night", steps=50, seed=7)
    size = to_html(trace, tmp_path / "run.html").stat().st_size
    trace.save(tmp_path / "run.safetensors")
    saved = to_html(tmp_path / "run.safetensors", tmp_path / "saved.html").stat().st_size
    print(f"{size:,} bytes decoded, {saved:,} bytes from the saved run")
    assert max(size, saved) < 3e6


def test_a_mark_in_the_text_of_the_page_is_not_filled(tiny_trace: Trace, tmp_path: Path) -> None:
    trace = Trace(tiny_trace.settings.replace(prompt="@script@ @data@"), list(tiny_trace), image=tiny_trace.image)
    written = to_html(trace, tmp_path / "run.html").read_text("utf-8")
    assert "<title>@script@ @data@ - diffexplore</title>" in written


def test_an_unknown_view_is_refused_before_anything_is_written(tiny_trace: Trace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="view must be one of x0, latents, noise, guidance, change; got 'sharp'"):
        to_html(tiny_trace, tmp_path / "run.html", view="sharp")
    assert not (tmp_path / "run.html").exists()


TOO_SMALL = """
import resource, signal, sys
from diffexplore.widgets.page import to_html
signal.signal(signal.SIGXFSZ, signal.SIG_DFL if sys.argv[3] == "killed" else signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # the disk has no more room than that
try:
    to_html(sys.argv[1], sys.argv[2])
except OSError:
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
@pytest.mark.parametrize("how", ["refused", "killed"])
def test_a_page_that_cannot_be_written_whole_leaves_the_old_one(tiny_trace: Trace, tmp_path: Path, how: str) -> None:
    tiny_trace.save(tmp_path / "run.safetensors")
    page = to_html(tiny_trace, tmp_path / "run.html")
    before = page.read_bytes()
    assert len(before) > 10_000
    command = [sys.executable, "-c", TOO_SMALL, tmp_path / "run.safetensors", page, how]
    code = subprocess.run(command, timeout=600, check=False).returncode
    assert code == 7 if how == "refused" else code < 0, "it did fail in the middle"
    assert page.read_bytes() == before
    if how == "refused":
        assert sorted(one.name for one in tmp_path.iterdir()) == ["run.html", "run.safetensors"], "nothing is left over"


def test_a_page_takes_the_place_of_the_old_one_also_in_the_home_folder(
    tiny_trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "run.html").write_text("old")
    assert to_html(tiny_trace, "~/run.html") == tmp_path / "run.html"
    assert "<!doctype html>" in (tmp_path / "run.html").read_text("utf-8")


def test_a_broken_run_has_a_page(broken_trace: Trace, tmp_path: Path) -> None:
    page = to_html(broken_trace, tmp_path / "run.html").read_text("utf-8")
    data = re.search(r'id="dx-data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    (film,) = json.loads(data[1], parse_constant=lambda name: pytest.fail(name))["traits"]["_film"]["films"]
    assert [step[3] for step in film["steps"]] == [None] * 3
    assert all(film["frames"]["x0"])
