"""decides.py: equal marks where equal bits come out, in every session; another mark for whatever moves one."""

import pytest
import torch
from tiny import make_pipeline

from diffexplore.runs.decides import arithmetic, standing, versions


def test_equal_pipelines_have_equal_marks() -> None:  # in other sessions too: test_cluster.py resumes in them
    mark = standing(make_pipeline())
    assert mark == standing(make_pipeline()) != standing(make_pipeline(1))
    assert mark is not None
    assert len(mark) == 64
    assert f"torch {torch.__version__.split('+')[0]}" in versions()


def one_weight(pipeline) -> None:
    weight = pipeline.unet.conv_out.weight.data.view(-1)
    weight[11] = torch.nextafter(weight[11], torch.tensor(9.0))


def swapped(pipeline) -> None:
    weight = pipeline.unet.conv_in.weight.data.view(-1)
    weight[[3, 4]] = weight[[4, 3]]


class Own(torch.nn.SiLU):
    """Of nobody's library."""


@pytest.mark.parametrize(
    "change",
    [
        one_weight,
        swapped,
        lambda pipeline: pipeline.vae.to(torch.float64),
        lambda pipeline: pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
        lambda pipeline: pipeline.vae.enable_tiling(),
        lambda pipeline: pipeline.scheduler.register_to_config(prediction_type="v_prediction"),
        lambda pipeline: setattr(pipeline.unet, "conv_act", Own()),
    ],
)
def test_whatever_moves_a_bit_makes_another_mark(change) -> None:
    pipeline = make_pipeline()
    before = standing(pipeline)
    change(pipeline)
    assert standing(pipeline) not in (None, before)


def test_what_cannot_be_seen_has_no_mark() -> None:
    pipeline = make_pipeline()
    pipeline.unet.conv_act = type("Unseen", (torch.nn.SiLU,), {"__module__": "nowhere"})()
    assert standing(pipeline) is None
    pipeline = make_pipeline()
    pipeline.unet.conv_out.to("meta")
    assert standing(pipeline) is None


def test_threads_count_on_a_cpu_alone() -> None:
    assert arithmetic("cpu", 1) != arithmetic("cpu", 2)
    assert arithmetic("cuda", 1) == arithmetic("cuda:1", 2) != arithmetic("cpu", 1)
