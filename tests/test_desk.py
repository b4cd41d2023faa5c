"""What a model is asked to draw: empty traces, batches, and jobs that outlive whoever asked."""

import gc

from patience import PATIENCE
from tiny import make_pipeline

import diffexplore as dx


def test_a_run_that_waits_is_not_lost_with_its_model():
    """Nobody needs to hold on to a model for a run of it to end, nor for its pictures."""
    job = dx.load(make_pipeline(), device="cpu").submit(prompt="a fox", steps=2)
    gc.collect()
    trace = job.result(PATIENCE)
    assert len(trace) == 2
    assert (trace.view("x0", 1).size, trace.info["model"]) == (trace.image.size, "StableDiffusionPipeline")
