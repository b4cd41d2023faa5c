"""Model and Job: the same picture as plain diffusers, refusals before work, newest wins, cancel, turns."""

import gc
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from patience import PATIENCE
from tiny import make_pipeline

import diffexplore as dx
from diffexplore.model import POCKET, Model
from diffexplore.pocket.lora import example_adapter
from diffexplore.runs.threads import working
from diffexplore.samplers import SAMPLERS, build

NINE = ("Euler", "Euler a", "Heun", "DDIM", "PLMS", "DPM++ 2M", "DPM++ 2M Karras", "DPM++ 2M SDE Karras", "UniPC")


def plain(pipeline, base, settings):
    """The picture that diffusers alone makes, as pixels; `base` is the scheduler config the pipeline came with."""
    pipeline.scheduler = build(settings.sampler, base)
    images = pipeline(
        settings.prompt,
        negative_prompt=settings.negative_prompt or None,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance,
        width=settings.width,
        height=settings.height,
        generator=torch.Generator("cpu").manual_seed(settings.seed),
    ).images
    return np.asarray(images[0])


@pytest.fixture(scope="module")
def pocket():
    return dx.load()


@pytest.fixture(scope="module")
def plain_pocket():
    pipeline = StableDiffusionPipeline.from_pretrained(POCKET)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, dict(pipeline.scheduler.config)


@pytest.mark.parametrize("sampler", NINE)
@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_traced_picture_is_bit_identical_to_plain_diffusers(pocket, plain_pocket, sampler, guidance):
    options = {"prompt": "a fox in the snow", "negative_prompt": "blurry", "steps": 6, "seed": 11}
    trace = pocket.trace(**options, guidance=guidance, sampler=sampler)
    with working(1):  # as the pocket model computes, whatever torch is set to
        assert np.array_equal(np.asarray(trace.image), plain(*plain_pocket, trace.settings))
    assert len(trace) == trace.expected == SAMPLERS[sampler].evaluations(6)


def test_the_pocket_model_needs_no_network_and_says_nothing(capfd):
    model = dx.load()
    trace = model.trace(prompt="a cat in a meadow", steps=2)
    assert (model.name, model.sampler) == ("pocket", "DPM++ 2M Karras")
    assert trace.image.size == model.size
    assert capfd.readouterr() == ("", "")


def test_the_last_x0_is_the_final_picture(pocket):
    trace = pocket.trace(prompt="a robot in the city at night", steps=12, sampler="DPM++ 2M")
    last, picture = trace.decode(trace[-1].x0), np.asarray(trace.image)
    assert np.abs(last.astype(int) - picture.astype(int)).max() <= 1


def test_none_is_resolved_to_the_models_own(pocket):
    settings = pocket.trace(prompt="a fox", steps=1).settings
    assert (settings.sampler, settings.width, settings.height) == ("DPM++ 2M Karras", *pocket.size)


# Refusals


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"width": 96}, r"the pocket model draws (\d+)x\1 pixels, got 96x\1$"),
        ({"steps": 0}, "steps must be a whole number from 1 to 1000, got 0"),
        ({"sampler": "Eulr"}, "got 'Eulr', did you mean 'Euler'"),
    ],
)
def test_what_the_model_cannot_do_is_refused_before_any_work(pocket, values, sentence):
    called = []
    hook = pocket.pipeline.unet.register_forward_pre_hook(lambda *_: called.append(1))
    try:
        for ask in (pocket.trace, pocket.submit):
            with pytest.raises(ValueError, match=sentence):
                ask(prompt="a fox", **values)
    finally:
        hook.remove()
    assert called == []


def test_more_steps_than_timesteps_are_refused(tiny_model):
    with pytest.raises(ValueError, match="DDIM takes at most 999 steps with this model, got 1000"):
        tiny_model.trace(prompt="a fox", sampler="DDIM", steps=1000)
    tiny_model.resolve(dx.Settings(sampler="DDIM", steps=999))
    tiny_model.resolve(dx.Settings(sampler="Euler", steps=1000))


def test_999_steps_really_run(tiny_model):
    assert len(tiny_model.trace(prompt="a fox", sampler="DDIM", steps=999, guidance=1.0)) == 999


@pytest.mark.parametrize(("option", "value"), [("device", "gpuu"), ("dtype", "int8"), ("dtype", "floaty")])
def test_bad_device_and_dtype_are_named(tiny_pipeline, option, value):
    with pytest.raises(ValueError, match=f"{option} must be .* got '{value}'"):
        dx.load(tiny_pipeline, **{option: value})


def test_a_device_that_is_not_here_is_refused_before_anything_is_opened(monkeypatch):
    def opened(*arguments):
        raise AssertionError("a model was opened")

    monkeypatch.setattr("diffexplore.pipelines.origin.read_pipeline", opened)
    with pytest.raises(ValueError, match=r"^device 'mtia:0' cannot be used here: \S"):
        dx.load(device="mtia:0")


def test_its_code_opens_the_same(tiny_pipeline, tmp_path):
    tiny_pipeline.save_pretrained(tmp_path / "mine")
    assert dx.load().code() == "model = dx.load()\n"
    assert dx.load(tiny_pipeline).code() == "model = dx.load(pipeline)\n"
    assert dx.load(tiny_pipeline, threads=1).code() == "model = dx.load(pipeline, threads=1)\n"
    model = dx.load(tmp_path / "mine", device="cpu", dtype=torch.bfloat16)
    assert model.code() == f"model = dx.load({str(tmp_path / 'mine')!r}, device='cpu', dtype='bfloat16')\n"
    names = {"dx": dx}
    exec(model.code(), names)
    assert names["model"].pipeline.unet.dtype == torch.bfloat16


def test_its_code_loads_its_loras(fresh, lora):
    fresh.load_lora(lora, "style")
    assert fresh.code() == f"model = dx.load(pipeline)\nmodel.load_lora({str(lora)!r}, 'style')\n"


# What it says


def test_words_it_never_saw(pocket):
    assert pocket.unknown_words("a purple DRAGON in the snow, unicorn-like dragon") == ["dragon", "unicorn-like"]
    assert pocket.unknown_words("a fox in the snow") == []


def test_near_words_are_of_like_meaning_else_of_like_spelling(pocket):
    assert pocket.near_words("Wolf") == ["dog", "fox"]
    assert pocket.near_words("wolfs") == ["dog", "fox"]
    assert pocket.near_words("pengiun") == ["penguin"]
    assert pocket.near_words("fox") == [], "it is known"
    assert pocket.near_words("xylophone") == []
    (note,) = pocket.notes(dx.Settings(prompt="a wolf, a pengiun and a xylophone in the snow"))
    assert note == (
        "The prompt has words this model never saw: wolf (near: dog, fox), pengiun (near: penguin), xylophone."
    )


def test_a_word_that_a_loaded_adapter_teaches_is_known():
    model = dx.load()
    assert model.unknown_words("a dragon in synthwave") == ["dragon", "synthwave"]
    model.load_lora(example_adapter("dragon"))
    assert model.unknown_words("a dragon in synthwave") == ["synthwave"]
    model.unload_loras()
    assert model.unknown_words("a dragon") == ["dragon"]


def test_where_the_vocabulary_is_not_known_nothing_is_near(tiny_model):
    assert tiny_model.near_words("wolf") == []


def test_what_is_cut_is_said(pocket):
    prompt = "a fox in the snow " * 2500
    (note,) = [n for n in pocket.notes(dx.Settings(prompt=prompt)) if "tokens" in n]
    assert "12500 tokens and this model reads 38; it does not see: " in note
    assert len(note) < 400
    trace = pocket.trace(prompt=prompt, steps=1)
    assert len(trace.info["tokens"]["cut"]) == 12500 - 38


def test_an_ignored_negative_prompt_is_said(pocket):
    notes = pocket.notes(dx.Settings(prompt="a fox", negative_prompt="blurry", guidance=1.0))
    assert notes == ["The negative prompt is ignored: it needs a guidance above 1, here it is 1."]


@pytest.mark.parametrize("mark", ["(fox:1.3)", "[fox:0.5]", "<lora:style:0.8>", "BREAK"])
def test_marks_of_other_programs_are_said_to_be_plain_text(tiny_model, mark):
    said = f"The prompt has marks of other programs, which are plain text here, weights and all: {mark}"
    assert said in tiny_model.notes(dx.Settings(prompt=f"a red {mark}"))
    assert tiny_model.notes(dx.Settings(prompt="a fox (in the snow), 5:3")) == []


def test_a_picture_that_a_safety_checker_blacked_is_said():
    class Checker(torch.nn.Module):
        dtype, device = torch.float32, torch.device("cpu")

        def forward(self, clip_input, images):
            return torch.zeros_like(torch.as_tensor(images)), [True] * len(images)

    class Features:
        def __call__(self, images, return_tensors):
            import types

            made = types.SimpleNamespace(pixel_values=torch.zeros(1))
            made.to = lambda device: made
            return made

    pipeline = make_pipeline()
    pipeline.register_modules(safety_checker=Checker(), feature_extractor=Features())
    trace = Model(pipeline, reuse=0).trace(prompt="a fox", steps=2)
    assert "safety checker" in trace.info["notes"][-1]


def test_an_empty_prompt_draws_something(pocket):
    assert pocket.trace(prompt="", steps=2).image.size == pocket.size


# Jobs


def test_a_job_gives_the_same_trace_as_a_blocking_run(tiny_model, tiny_trace):
    seen = []
    job = tiny_model.submit(tiny_trace.settings, on_step=seen.append)
    trace = job.result(PATIENCE)
    assert (job.status, job.done(), trace is job.trace) == ("done", True, True)
    assert trace.image.tobytes() == tiny_trace.image.tobytes()
    assert [step.index for step in seen] == [0, 1, 2, 3]


def wait_for(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.002)


def test_cancel_keeps_the_steps_so_far_and_decodes_nothing(tiny_model):
    decoded = []
    hook = tiny_model.pipeline.vae.decoder.register_forward_pre_hook(lambda *_: decoded.append(1))
    try:
        job = tiny_model.submit(prompt="a fox", steps=500)
        wait_for(lambda: len(job.trace) >= 3)
        job.cancel()
        trace = job.result(PATIENCE)
    finally:
        hook.remove()
    assert job.status == "cancelled"
    assert trace.cancelled
    assert 3 <= len(trace) < 500
    assert trace.image is None
    assert decoded == []
    assert trace[0].x0.shape == (4, 8, 12)


def test_the_newest_job_wins(tiny_model):
    first = tiny_model.submit(prompt="a fox", steps=500)
    wait_for(lambda: first.status == "running")
    second = tiny_model.submit(prompt="a fox", steps=500)
    third = tiny_model.submit(prompt="a cat", steps=3)
    assert third.result(PATIENCE).settings.prompt == "a cat"
    assert (first.result(PATIENCE).cancelled, second.result(PATIENCE).cancelled) == (True, True)
    assert len(second.trace) == 0


def test_a_run_after_a_cancel_is_as_if_nothing_had_been(tiny_model, tiny_trace):
    for after in (0, 1, 2):
        job = tiny_model.submit(tiny_trace.settings.replace(steps=300))
        wait_for(lambda job=job, after=after: len(job.trace) >= after)
        job.cancel()
        job.result(PATIENCE)
        assert tiny_model.trace(tiny_trace.settings).image.tobytes() == tiny_trace.image.tobytes()


def test_a_failed_job_raises_where_its_result_is_asked_for(tiny_model):
    def fail(step):
        raise RuntimeError("no more room")

    job = tiny_model.submit(prompt="a fox", steps=3, on_step=fail)
    with pytest.raises(RuntimeError, match="no more room"):
        job.result(PATIENCE)
    assert job.status == "failed"
    assert tiny_model.trace(prompt="a fox", steps=2).image


def test_result_can_give_up_waiting(tiny_model):
    job = tiny_model.submit(prompt="a fox", steps=900)
    with pytest.raises(TimeoutError, match=r"not ended within 0\.01 s"):
        job.result(timeout=0.01)
    job.cancel()
    job.result(PATIENCE)


def test_callbacks_at_the_end(tiny_model):
    called = []
    job = tiny_model.submit(prompt="a fox", steps=2)
    job.add_done_callback(called.append)
    job.result(PATIENCE)
    wait_for(lambda: called == [job])
    job.add_done_callback(called.append)
    assert called == [job, job]


def test_threads_take_turns_and_both_are_right(tiny_model, tiny_trace):
    other = Model(tiny_model.pipeline)  # a second model around the same pipeline
    results = {}

    def run(key, model):
        results[key] = [model.trace(tiny_trace.settings).image.tobytes() for _ in range(4)]

    threads = [threading.Thread(target=run, args=(i, model)) for i, model in enumerate((tiny_model, other, tiny_model))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {data for each in results.values() for data in each} == {tiny_trace.image.tobytes()}


def test_clients_do_not_stop_each_other(tiny_model):
    """Two lanes, 30 random moves in each at once: of each the last is drawn, as it would be alone."""
    rng = np.random.default_rng(3)
    last = {}

    def client(lane, moves):
        for steps, seed, wait in moves:
            last[lane] = tiny_model.submit(prompt=f"a {lane} fox", steps=steps, seed=seed, lane=lane)
            time.sleep(wait)

    moves = {
        lane: [(int(rng.integers(2, 9)), int(rng.integers(99)), float(rng.uniform(0, 0.03))) for _ in range(30)]
        for lane in ("red", "blue")
    }
    threads = [threading.Thread(target=client, args=item) for item in moves.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for lane, job in last.items():
        trace = job.result(PATIENCE)
        steps, seed, _ = moves[lane][-1]
        assert (job.status, trace.settings.steps, trace.settings.seed) == ("done", steps, seed)
        alone = Model(tiny_model.pipeline, reuse=0).trace(trace.settings)
        assert torch.equal(trace.final, alone.final)


def test_a_run_cannot_wait_for_another_in_its_own_step(tiny_model):
    def wait(step):
        tiny_model.submit(prompt="a cat", steps=2, lane="another").result()

    job = tiny_model.submit(prompt="a fox", steps=2, on_step=wait)
    with pytest.raises(RuntimeError, match="cannot wait for another run of the same model in its own on_step"):
        job.result(PATIENCE)
    assert tiny_model.trace(prompt="a fox", steps=2).image, "the turn is free again"


def test_a_plan_is_made_once(tiny_model):
    plan = tiny_model.plan(prompt="a red fox in the snow", negative_prompt="blurry", guidance=1.0)
    assert plan.settings == tiny_model.resolve(dx.Settings(prompt="a red fox in the snow", negative_prompt="blurry",
                                                           guidance=1.0))  # fmt: skip
    assert plan.tokens["prompt"] == ["a", "red", "fox", "in", "the", "snow"]
    assert plan.tokens["negative"] == ["blurry"]
    assert "ignored" in plan.notes[0]
    assert tiny_model.plan(plan) is plan
    trace = tiny_model.trace(plan, steps=2)
    assert (trace.settings.steps, trace.info["tokens"]["prompt"]) == (2, plan.tokens["prompt"])
    assert tiny_model.resolve(plan.settings) is plan.settings, "what is filled in already is left as it is"


def test_a_run_cannot_start_another_from_its_own_step(tiny_model):
    def again(step):
        tiny_model.trace(prompt="a cat", steps=2)

    job = tiny_model.submit(prompt="a fox", steps=2, on_step=again)
    with pytest.raises(RuntimeError, match="cannot start another run"):
        job.result(PATIENCE)


def test_many_are_checked_before_the_first_starts(tiny_model, tiny_trace):
    one = tiny_trace.settings
    first, second = tiny_model.trace_many([one, one.replace(seed=9)])
    assert first.image.tobytes() == tiny_trace.image.tobytes() != second.image.tobytes()
    with pytest.raises(ValueError, match="settings must be a Settings object, got 'a fox'"):
        tiny_model.trace_many([one, "a fox"])


def test_a_dropped_model_frees_its_memory():
    model = Model(make_pipeline())
    model.trace(prompt="a fox", steps=2)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_the_matrix_resembles_the_decoder(pocket):
    trace = pocket.trace(prompt="a fox in the snow at noon", steps=8)
    cells = trace.final.flatten(1).T.numpy()
    guess = np.concatenate([cells, np.ones((len(cells), 1))], 1) @ trace.matrix
    true = np.asarray(trace.image, float).reshape(16, 8, 16, 8, 3).mean((1, 3)).reshape(-1, 3) / 255
    assert np.corrcoef(guess.ravel(), true.ravel())[0, 1] > 0.8


def test_a_preview_is_the_same_under_autocast(tiny_model, tiny_trace):
    plain = tiny_model.decode(tiny_trace[2].x0)
    with torch.autocast("cpu", torch.bfloat16):
        assert (tiny_model.decode(tiny_trace[2].x0) == plain).all()


values = st.fixed_dictionaries(
    {},
    optional={
        "prompt": st.text(st.characters(codec="utf-8"), max_size=60),
        "negative_prompt": st.text(max_size=20),
        "steps": st.integers(-1, 6) | st.sampled_from(["many", None, 2.5]),
        "guidance": st.floats(-1, 30) | st.sampled_from([float("nan"), float("inf")]),
        "seed": st.integers(-1, 2**64),
        "sampler": st.sampled_from([*SAMPLERS, "Eulr", 3]),
        "width": st.sampled_from([None, 8, 40, 48, 50]),
    },
)


@given(values)
@limits(max_examples=40, deadline=None)
def test_random_settings_run_or_say_why_not(values):
    try:
        trace = TINY.trace(**values)
    except ValueError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert trace.image is not None
        assert len(trace) == trace.expected


TINY = Model(make_pipeline())


# Reuse


@pytest.fixture
def fresh():
    return Model(make_pipeline())


def count_evaluations(model):
    """A list that grows by one whenever the network itself (not what is remembered of it) computes."""
    calls = []
    block = model.pipeline.unet.mid_block
    original = block.forward

    def forward(*args, **options):
        calls.append(1)
        return original(*args, **options)

    block.forward = forward
    return calls


def test_asked_for_the_same_again_it_answers_with_the_run_it_has(fresh):
    first = fresh.trace(prompt="a red fox", steps=3, seed=5)
    steps = []
    job = fresh.submit(first.settings, on_step=steps.append)
    again = job.result(PATIENCE)
    assert "reused" not in first.info
    assert again.info["reused"] is True
    assert [step.index for step in steps] == [0, 1, 2]
    assert again.image.tobytes() == first.image.tobytes()
    assert all(torch.equal(a.x0, b.x0) for a, b in zip(again, first, strict=True))
    again.image.putpixel((0, 0), (1, 2, 3))
    again.info["notes"].append("mine")
    third = fresh.trace(first.settings)
    assert third.image.tobytes() == first.image.tobytes()
    assert third.info["notes"] == first.info["notes"]


def test_nothing_is_remembered_where_that_is_asked_for():
    model = Model(make_pipeline(), reuse=0)
    first, second = (model.trace(prompt="a fox", steps=2) for _ in range(2))
    assert "reused" not in second.info
    assert second.image.tobytes() == first.image.tobytes()
    assert model.remembered.used == 0


def test_a_changed_network_is_run_anew(fresh):
    first = fresh.trace(prompt="a fox", steps=2)
    with torch.no_grad():
        fresh.pipeline.unet.conv_out.weight.mul_(1.1)
    second = fresh.trace(prompt="a fox", steps=2)
    assert "reused" not in second.info
    assert second.image.tobytes() != first.image.tobytes()


def test_another_guidance_reuses_the_first_evaluation(fresh):
    before = fresh.trace(prompt="a fox", steps=4, guidance=3.0)
    hits = fresh.remembered.hits
    after = fresh.trace(prompt="a fox", steps=4, guidance=6.0)
    assert fresh.remembered.hits - hits == 2  # the prompts, and the network at x_T
    assert torch.equal(before[0].noise_cond, after[0].noise_cond)
    assert after.image.tobytes() == Model(fresh.pipeline, reuse=0).trace(after.settings).image.tobytes()


def test_a_cancelled_run_is_taken_up_where_it_stopped(fresh):
    settings = fresh.resolve(dx.Settings(prompt="a fox", steps=12, sampler="Euler a"))
    calls = count_evaluations(fresh)
    jobs = []

    def stop(step):
        if step.index == 5:
            jobs[0].cancel()

    jobs.append(fresh.submit(settings, on_step=stop))
    assert len(jobs[0].result(PATIENCE)) == 6
    whole = fresh.trace(settings)
    # A network whose forward somebody replaced has a state that cannot be seen, so nothing of it is reused.
    assert len(calls) == 6 + 12
    assert whole.image.tobytes() == Model(make_pipeline(), reuse=0).trace(settings).image.tobytes()


def test_a_batch_never_answers_for_a_run_alone(fresh):
    asked = [dx.Settings(prompt="a fox", steps=2, seed=seed) for seed in (1, 2)]
    together = fresh.trace_many(asked)
    again = fresh.trace_many(asked)
    assert [trace.info.get("reused") for trace in [*together, *again]] == [None, None, True, True]
    assert "reused" not in fresh.trace(asked[0]).info
    # The other way round, a run alone is as good as it gets.
    fresh.remembered.clear()
    fresh.trace(asked[0])
    assert [trace.info.get("reused") for trace in fresh.trace_many(asked)] == [True, None]


def test_a_batch_too_large_for_memory_is_split(fresh, caplog):
    sizes = []

    def limited(module, args, kwargs):
        sizes.append(len(args[0]))
        if len(args[0]) > 4:  # rows: two pictures with both halves of guidance
            raise torch.OutOfMemoryError("no more room")

    with fresh.pipeline.unet.register_forward_pre_hook(limited, with_kwargs=True):
        traces = fresh.trace_many([dx.Settings(prompt="a fox", steps=2, seed=seed) for seed in range(4)])
    assert sizes == [8, 4, 4, 4, 4]
    assert [len(trace) for trace in traces] == [2, 2, 2, 2]
    assert all(trace.image for trace in traces)
    assert "trying halves" in caplog.text


# Adapters


def test_a_lora_is_switched_on_by_its_scale(fresh, lora):
    plain_trace = fresh.trace(prompt="a fox", steps=3)
    name = fresh.load_lora(lora)
    assert (name, fresh.adapters) == ("my_style", ["my_style"])
    off = fresh.trace(prompt="a fox", steps=3)
    half, full = (fresh.trace(prompt="a fox", steps=3, adapters={name: scale}) for scale in (0.5, 1.0))
    none = fresh.trace(prompt="a fox", steps=3, adapters={name: 0})
    pictures = [trace.image.tobytes() for trace in (plain_trace, off, none, half, full)]
    assert pictures[0] == pictures[1] == pictures[2]
    assert len(set(pictures)) == 3
    fresh.unload_loras()
    assert fresh.adapters == []
    assert fresh.trace(prompt="a fox", steps=3).image.tobytes() == pictures[0]


def test_a_lora_that_is_not_loaded_is_refused(fresh, lora):
    with pytest.raises(ValueError, match="this model has no adapter 'style': none is loaded"):
        fresh.trace(prompt="a fox", adapters={"style": 1.0})
    fresh.load_lora(lora, "style")
    with pytest.raises(ValueError, match="another adapter 'style' is loaded already"):
        fresh.load_lora(example_adapter("dragon"), "style")
    with pytest.raises(ValueError, match="adapters must map names to scales"):
        fresh.trace(prompt="a fox", adapters={"style": "much"})


def test_a_lora_of_which_one_part_fits_leaves_nothing_behind(fresh, lora, tmp_path):
    from safetensors.torch import load_file, save_file

    before = fresh.trace(prompt="a fox", steps=2).final
    tensors = load_file(lora)
    tensors["text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight"] = torch.zeros(2, 5)
    tensors["text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_B.weight"] = torch.zeros(5, 2)
    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match=r"'half\.safetensors' cannot be loaded"):
        fresh.load_lora(tmp_path / "half.safetensors", "style")
    fresh.remembered.clear()
    assert torch.equal(fresh.trace(prompt="a fox", steps=2).final, before)
    fresh.load_lora(lora, "style")
    assert not torch.equal(fresh.trace(prompt="a fox", steps=2, adapters={"style": 1.0}).final, before)


def test_loading_a_lora_again_does_nothing(fresh, lora):
    assert [fresh.load_lora(lora, "style"), fresh.load_lora(str(lora), "style")] == ["style", "style"]
    assert fresh.adapters == ["style"]
    assert fresh.trace(prompt="a fox", steps=2, adapters={"style": 1.0}).image


def test_a_lora_of_another_model_is_refused(fresh, tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file({"unet.nowhere.to_q.lora_A.weight": torch.zeros(2, 5)}, file)
    with pytest.raises(ValueError, match=r"'other\.safetensors' cannot be loaded into this model"):
        fresh.load_lora(file)
    assert fresh.trace(prompt="a fox", steps=2).image


# Cancel, threads, memory


def test_a_program_that_ends_in_the_middle_of_a_run_ends_in_peace():
    code = "import time, diffexplore as dx; job = dx.load().submit(steps=999, sampler='Euler')\n"
    code += "while not len(job.trace): time.sleep(0.01)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")


def test_200_random_cancels_leave_nothing_behind():
    """At random moments of random runs, from another thread; what follows is as in a process of its own."""
    rng = np.random.default_rng(0)
    model, reference = Model(make_pipeline(), reuse=0), Model(make_pipeline(), reuse=0)
    names = model.samplers
    expected = {}
    state = torch.get_rng_state()
    for number in range(200):
        sampler = names[int(rng.integers(len(names)))]
        job = model.submit(prompt="a fox", steps=int(rng.integers(4, 30)), sampler=sampler, seed=number)
        time.sleep(float(rng.uniform(0, 0.08)))
        job.cancel()
        trace = job.result(PATIENCE)
        assert trace.cancelled == (job.status == "cancelled")
        assert (trace.image is None) == trace.cancelled
        if number % 10 == 0:
            follower = names[number // 10 % len(names)]
            settings = dx.Settings(prompt="a cat", steps=5, sampler=follower)
            if follower not in expected:
                expected[follower] = reference.trace(settings).image.tobytes()
            assert model.trace(settings).image.tobytes() == expected[follower], (number, sampler, follower)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_50_step_guided_trace_of_sdxl_size_holds_under_80_mb():
    from diffexplore.runs.memory import size_of
    from diffexplore.trace import Step, Trace

    def latents():
        return torch.zeros(2, 4, 128, 128)

    steps = []
    for index in range(50):
        pieces = latents()
        steps.append(
            Step(index=index, timestep=0, seconds=0, a=0.7, b=0.7, kind="epsilon", latents=latents()[0].clone(),
                 output=latents()[0].clone(), pieces=list(pieces), guidance=5.0)
        )  # fmt: skip
    assert size_of(Trace(dx.Settings(), steps)) < 80e6


# --- several at once on the worker ---


def test_runs_submitted_together_equal_the_same_runs_alone(tiny_model):
    alone = [tiny_model.trace(prompt=p, steps=3, seed=4, sampler="DDIM") for p in ("a red fox", "a blue cat")]
    tiny_model.remembered.clear()
    seen = []
    jobs = tiny_model.submit_many([trace.settings for trace in alone], on_step=seen.append)
    for job, expected in zip(jobs, alone, strict=True):
        trace = job.result(PATIENCE)
        assert (job.status, trace.info["batch"]) == ("done", 2)
        assert torch.allclose(trace.final, expected.final, rtol=1e-4, atol=1e-5)
    assert len(seen) == 6


def test_cancelling_one_of_those_submitted_together_stops_all(tiny_model):
    tiny_model.remembered.clear()
    settings = [dx.Settings(prompt="a red fox", steps=900, seed=s, sampler="DDIM") for s in (1, 2)]
    begun = threading.Event()
    jobs = tiny_model.submit_many(settings, on_step=lambda _: begun.set())
    assert begun.wait(PATIENCE)
    jobs[1].cancel()
    assert [job.result(PATIENCE).cancelled for job in jobs] == [True, True]
    assert [job.status for job in jobs] == ["cancelled", "cancelled"]


def test_of_a_batch_that_breaks_only_what_fails_by_itself_is_failed(fresh):
    blue = fresh.pipeline.tokenizer("blue", add_special_tokens=False).input_ids[0]

    def breaks_on_blue(module, args, kwargs):
        if (args[0] == blue).any():
            raise MemoryError("no room for blue")

    settings = [dx.Settings(prompt=p, steps=2, sampler="DDIM") for p in ("a red fox", "a blue cat", "snow")]
    with fresh.pipeline.text_encoder.register_forward_pre_hook(breaks_on_blue, with_kwargs=True):
        jobs = fresh.submit_many(settings)
        wait_for(lambda: all(job.done() for job in jobs))
    assert [job.status for job in jobs] == ["done", "failed", "done"]
    assert "blue" in str(jobs[1].error)
    assert [len(job.trace) for job in jobs] == [2, 0, 2]


def test_nothing_at_all_is_refused(tiny_model):
    with pytest.raises(ValueError, match="at least one"):
        tiny_model.submit_many([])


def test_looking_at_a_prompt_leaves_the_pipelines_tokenizer_alone(fresh):
    """Truncation and padding are state of a fast tokenizer: changed while a run reads its prompt, they change the
    picture."""
    tokenizer = fresh.pipeline.tokenizer
    tokenizer("a fox", padding="max_length", truncation=True, max_length=16)
    rust = tokenizer.backend_tokenizer
    before = (rust.padding, rust.truncation)
    assert None not in before
    assert fresh.tokens("a red fox")["tokens"] == ["a", "red", "fox"]
    assert fresh.notes(dx.Settings(prompt="a red fox " * 20))
    assert (rust.padding, rust.truncation) == before
