"""Reuse: what comes back is bit for bit what computing anew gives, within one budget, and never a stale result."""

import contextlib
import copy
import functools
import gc
import inspect
import sys
import threading
import types
import weakref
from collections import OrderedDict

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_pipeline, record

from diffexplore.pipelines.base import denoisers
from diffexplore.runs.memory import Store, copy_of, evaluations, fingerprint, prompts, run_key, size_of
from diffexplore.runs.probes import Cancelled
from diffexplore.samplers import build
from diffexplore.settings import Settings
from diffexplore.trace import Trace


@pytest.fixture
def pipeline():
    """One of its own for each test that changes it."""
    return make_pipeline()


def draw(pipeline, store=None, on_step=None, cancel=None, sampler="Euler a", use=(prompts, evaluations), **options):
    """Latents and steps of a recorded run; with a store, through this room."""
    clone = copy.copy(pipeline)
    clone.scheduler = build(sampler, dict(pipeline.scheduler.config))
    steps, cancel = [], cancel or threading.Event()

    def emit(step):
        steps.append(step)
        if on_step is not None:
            on_step(step)

    values = {"prompt": "a red fox", "guidance": 5.0, "seed": 4, "steps": 4, **options}
    state = fingerprint(pipeline) if store is not None else None
    with contextlib.ExitStack() as stack:
        if prompts in use:
            stack.enter_context(prompts(clone, store, state))
        if evaluations in use:
            stack.enter_context(evaluations(denoisers(clone), store, state))
        stack.enter_context(record(clone, [emit], cancel, guidance=[values["guidance"]]))
        latents = clone(
            values["prompt"],
            num_inference_steps=values["steps"],
            guidance_scale=values["guidance"],
            generator=torch.Generator().manual_seed(values["seed"]),
            output_type="latent",
        ).images
    return latents, steps


def counted(store, call):
    """The result of a call, and the hits and misses it made."""
    before = store.hits, store.misses
    result = call()
    return result, (store.hits - before[0], store.misses - before[1])


# The store


@given(
    st.integers(0, 24),
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 6), st.integers(1, 12)),
            st.tuples(st.just("get"), st.integers(0, 6), st.just(0)),
        ),
        max_size=40,
    ),
)
def test_the_store_forgets_what_was_unused_longest_and_never_passes_its_budget(budget, actions):
    store, expected, hits = Store(budget), OrderedDict(), 0
    for number, (action, key, size) in enumerate(actions):
        if action == "put":
            store.put(key, number, size)
            expected.pop(key, None)
            if size <= budget:
                while sum(s for _, s in expected.values()) + size > budget:
                    expected.popitem(last=False)
                expected[key] = number, size
        else:
            hits += key in expected
            assert store.get(key) == expected.get(key, (None, 0))[0]
            if key in expected:
                expected.move_to_end(key)
        assert store.used == sum(s for _, s in expected.values()) <= budget
    assert store.hits == hits
    assert store.hits + store.misses == sum(action == "get" for action, _, _ in actions)
    store.clear()
    assert (store.used, store.hits, store.misses) == (0, 0, 0)
    assert all(store.get(key) is None for key in range(7))


def test_what_was_asked_for_stays_longer():
    store = Store(20)
    store.put("a", "A", 10)
    store.put("b", "B", 10)
    assert store.get("a") == "A"
    store.put("c", "C", 10)
    assert [store.get(key) for key in "abc"] == ["A", None, "C"]


def test_a_store_refuses_sizes_that_are_none():
    with pytest.raises(ValueError, match="got -1"):
        Store(-1)
    with pytest.raises(ValueError, match="got 0"):
        Store().put("key", "value", 0)


def test_without_a_key_nothing_is_kept_or_counted():
    store = Store()
    store.put(None, "value", 1)
    assert store.get(None) is None
    assert (store.used, store.hits, store.misses) == (0, 0, 0)


def test_many_threads_share_a_store():
    store = Store(1000)
    errors = []

    def work(seed):
        numbers = np.random.default_rng(seed)
        try:
            for _ in range(2000):
                key, size = (int(n) for n in numbers.integers(1, 60, 2))
                found = store.get(key)
                assert found in (None, key)
                store.put(key, key, size)
                assert store.used <= 1000
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # or threads would hardly ever meet
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert store.hits + store.misses == 8000
    assert store.used == sum(size for _, size in store._values.values())


# Runs


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M Karras", "Heun", "PLMS"])
def test_pictures_and_steps_are_bit_identical(tiny_pipeline, sampler):
    store = Store()
    draw(tiny_pipeline, store, sampler=sampler, guidance=3.0)
    for guidance in (5.0, 3.0, 1.0, 5.0):
        plain, plain_steps = draw(tiny_pipeline, sampler=sampler, guidance=guidance)
        (reused, steps), (hits, _) = counted(
            store, functools.partial(draw, tiny_pipeline, store, sampler=sampler, guidance=guidance)
        )
        assert torch.equal(reused, plain)
        assert hits > 0 or guidance == 1.0
        for step, other in zip(steps, plain_steps, strict=True):
            assert torch.equal(step.latents, other.latents)
            assert torch.equal(step.output, other.output)
            assert step.split == other.split
            if not step.split:
                assert torch.equal(step.noise_cond, other.noise_cond)
                assert torch.equal(step.noise_uncond, other.noise_uncond)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (4, 0)),  # the same again
        ({"guidance": 7.0}, (1, 3)),  # the first evaluation does not know the guidance yet
        ({"guidance": 1.0}, (0, 4)),  # half a batch
        ({"seed": 5}, (0, 4)),
        ({"prompt": "a blue cat"}, (0, 4)),
        ({"sampler": "Euler"}, (1, 3)),  # from the same noise at the same level
        ({"steps": 3}, (1, 2)),
    ],
)
def test_evaluations_are_shared_as_far_as_their_inputs_are_equal(tiny_pipeline, change, expected):
    store = Store()
    (latents, _), first = counted(store, lambda: draw(tiny_pipeline, store, use=(evaluations,)))
    assert first == (0, 4)
    (again, _), found = counted(store, lambda: draw(tiny_pipeline, store, use=(evaluations,), **change))
    assert found == expected
    assert torch.equal(again, draw(tiny_pipeline, **change)[0])
    assert torch.equal(again, latents) == (not change)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, (1, 0)),
        ({"guidance": 7.0}, (1, 0)),
        ({"seed": 5, "steps": 2}, (1, 0)),
        ({"guidance": 1.0}, (0, 1)),  # asks for no negative half
        ({"prompt": "a blue cat"}, (0, 1)),
    ],
)
def test_prompts_are_encoded_once(tiny_pipeline, change, expected):
    store = Store()
    assert counted(store, lambda: draw(tiny_pipeline, store, use=(prompts,)))[1] == (0, 1)
    (latents, _), found = counted(store, lambda: draw(tiny_pipeline, store, use=(prompts,), **change))
    assert found == expected
    assert torch.equal(latents, draw(tiny_pipeline, **change)[0])


@pytest.mark.parametrize("seen", [1, 3])
def test_a_run_goes_on_after_a_cancel(tiny_pipeline, seen):
    store, cancel = Store(), threading.Event()

    def stop(step):
        if step.index == seen - 1:
            cancel.set()

    with pytest.raises(Cancelled):
        draw(tiny_pipeline, store, on_step=stop, cancel=cancel)
    (latents, steps), found = counted(store, lambda: draw(tiny_pipeline, store))
    assert found == (1 + seen, 4 - seen)  # 1: the prompt
    assert len(steps) == 4
    assert torch.equal(latents, draw(tiny_pipeline)[0])


def test_a_cancel_takes_effect_on_a_hit(tiny_pipeline):
    store, cancel, later = Store(), threading.Event(), []
    draw(tiny_pipeline, store)

    def stop(step):
        later.append(step.index)
        cancel.set()

    with pytest.raises(Cancelled):
        draw(tiny_pipeline, store, on_step=stop, cancel=cancel)
    assert later == [0]


@pytest.mark.parametrize("budget", [0, 4000, 8000])
def test_a_small_budget_changes_nothing_but_the_time(tiny_pipeline, budget):
    store = Store(budget)
    for guidance in (5.0, 7.0, 5.0):
        latents, _ = draw(tiny_pipeline, store, guidance=guidance)
        assert store.used <= budget
        assert torch.equal(latents, draw(tiny_pipeline, guidance=guidance)[0])
    assert (store.used > 0) == (budget > 0)


def test_hooks_of_the_network_fire_on_hits(tiny_pipeline):
    store, seen = Store(), []
    state = fingerprint(tiny_pipeline)
    inputs = torch.zeros(1, 4, 8, 12), 10, torch.zeros(1, 16, 16)
    unet = tiny_pipeline.unet
    with torch.no_grad(), evaluations([unet], store, state):
        hooks = [
            unet.register_forward_pre_hook(lambda *_: seen.append("before")),
            unet.register_forward_hook(lambda module, args, output: seen.append(output.sample)),
        ]
        try:
            unet(*inputs), unet(*inputs)
        finally:
            for hook in hooks:
                hook.remove()
    assert (store.hits, store.misses) == (1, 1)
    assert seen[::2] == ["before", "before"]
    assert torch.equal(seen[1], seen[3])
    assert seen[1] is not seen[3]


def test_other_threads_compute_for_themselves(tiny_pipeline):
    store, outputs = Store(), []
    inputs = torch.zeros(1, 4, 8, 12), 10, torch.zeros(1, 16, 16)

    @torch.no_grad()
    def other():
        outputs.append(tiny_pipeline.unet(*inputs).sample)

    with torch.no_grad(), evaluations([tiny_pipeline.unet], store, b"state"):
        outputs.append(tiny_pipeline.unet(*inputs).sample)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert torch.equal(*outputs)
    assert (store.hits, store.misses) == (0, 1)


@pytest.mark.parametrize("end", ["finished", "cancelled", "failed"])
def test_everything_is_as_before_at_the_end(pipeline, end):
    store, cancel = Store(), threading.Event()
    clone = copy.copy(pipeline)
    attributes = {name: sorted(vars(part)) for name, part in (("clone", clone), ("unet", pipeline.unet))}
    error = {"finished": None, "cancelled": Cancelled, "failed": MemoryError}[end]
    state = fingerprint(pipeline)
    with (
        pytest.raises(error) if error else contextlib.nullcontext(),
        prompts(clone, store, state),
        evaluations([clone.unet], store, state),
    ):
        assert "forward" in vars(pipeline.unet)
        assert "encode_prompt" in vars(clone)
        assert "encode_prompt" not in vars(pipeline)
        if error:
            raise error
    assert {name: sorted(vars(part)) for name, part in (("clone", clone), ("unet", pipeline.unet))} == attributes
    assert fingerprint(pipeline) == state

    def fail(step):
        if end == "cancelled":
            cancel.set()
        elif end == "failed":
            raise MemoryError

    with pytest.raises(error) if error else contextlib.nullcontext():
        draw(pipeline, store, on_step=fail, cancel=cancel)
    assert fingerprint(pipeline) == state


def test_what_shadowed_forward_before_does_so_again(pipeline):
    unet = pipeline.unet
    unet.forward = before = functools.partial(type(unet).forward, unet)
    with evaluations([unet], Store(), b"state"):
        assert vars(unet)["forward"] is not before
    assert vars(unet)["forward"] is before


def test_signatures_are_kept(tiny_pipeline):
    clone = copy.copy(tiny_pipeline)
    expected = [inspect.signature(f) for f in (clone.encode_prompt, clone.unet.forward)]
    with prompts(clone, Store(), b"state"), evaluations([clone.unet], Store(), b"state"):
        assert [inspect.signature(f) for f in (clone.encode_prompt, clone.unet.forward)] == expected


def test_nothing_keeps_a_model_alive():
    pipeline, store = make_pipeline(), Store()
    _, steps = draw(pipeline, store)
    trace = Trace(Settings(), steps, decode=pipeline.vae.decode)
    store.put("run", copy_of(trace), size_of(trace))
    parts = [weakref.ref(part) for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)]
    del pipeline, trace, steps
    gc.collect()
    assert [part() for part in parts] == [None, None, None]
    assert store.get("run") is not None


# What is understood, and what is not


class Network(torch.nn.Module):
    """Counts its evaluations and gives what it is told to."""

    def __init__(self, make):
        super().__init__()
        self.make, self.calls = make, 0

    def forward(self, *args, **kwargs):
        self.calls += 1
        return self.make(*args, **kwargs)


def evaluated(make, *calls):
    """The outputs of a network for several inputs, and how often it ran."""
    network = Network(make)
    with torch.no_grad(), evaluations([network], Store(), b"state"):
        outputs = [network(*args) for args in calls]
    return outputs, network.calls


X = torch.arange(24.0).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "other",
    [
        (X + 1,),
        (X.double(),),
        (X.view(torch.int32),),  # the same bytes
        (X.reshape(2, 4, 3),),
        (X.permute(1, 0, 2).contiguous().permute(1, 0, 2),),  # equal numbers that lie otherwise
        (torch.cat([X.flatten(), X.flatten()])[1:25].reshape(2, 3, 4).copy_(X),),  # on another alignment
        ([X],),
        (X, None),
        (X, {"scale": 1}),
        (X, {"scale": 1.0}),
        (X, {"scale": True}),
        (X, {"scale": X}),
        (X, [X, X], "a"),
        (X, "[X]"),
        (torch.where(X == 0, -0.0, X),),
    ],
)
def test_inputs_that_differ_in_any_way_are_not_confused(other):
    _, calls = evaluated(lambda *args: torch.zeros(1), (X,), other, (X,), other)
    assert calls == 2


def test_lists_of_tensors_and_nested_inputs_are_matched():
    a = ([X, X + 1], 3, {"text_embeds": X, "time_ids": [X, (None, "a", b"b", torch.float16)]})
    b = copy.deepcopy(a)
    (first, second), calls = evaluated(lambda x, t, added: ([x[0] * 2, x[1]], {}), a, b)
    assert calls == 1
    assert torch.equal(first[0][0], second[0][0])


def test_a_step_that_was_expanded_is_read_like_any_other():
    """Pipelines expand one number to a batch: of one picture that leaves a tensor whose elements are 0 bytes apart."""
    batch = torch.tensor(7.0).expand(1)
    assert evaluated(lambda x, t: x + 1, (X, batch), (X, batch.clone()))[1] == 1
    assert evaluated(lambda x, t: x + 1, (X, batch), (X, torch.full((1,), 8.0)))[1] == 2


def test_inputs_nobody_understands_are_computed_every_time():
    for strange in (object(), X.to_sparse(), torch.complex(X, X), lambda: 0, np.zeros(3), X.to("meta")):
        assert evaluated(lambda x: torch.zeros(1), (strange,), (strange,))[1] == 2


@pytest.mark.parametrize(
    "make",
    [
        lambda x: (x + 1, None, 3),
        lambda x: [x + 1, (x + 2).bfloat16()],
        lambda x: {"sample": x + 1},
        lambda x: UNet2DConditionOutput(sample=x + 1),
        lambda x: (x + 1).permute(2, 0, 1),
        lambda x: torch.zeros(1).expand(3, 4),
        lambda x: torch.cat([x, x])[1:],
        lambda x: torch.complex(x, x),
    ],
)
def test_outputs_come_back_as_they_were_and_cannot_be_spoilt(make):
    def tensors(output):
        items = output.values() if isinstance(output, dict) else [output] if torch.is_tensor(output) else output
        return [item for item in items if torch.is_tensor(item)]

    network, store, expected = Network(make), Store(), make(X)
    with torch.no_grad(), evaluations([network], store, b"state"):
        for _ in range(3):
            output = network(X)
            assert type(output) is type(expected)
            for mine, theirs in zip(tensors(output), tensors(expected), strict=True):
                assert torch.equal(mine, theirs)
                assert (mine.dtype, mine.stride(), mine.storage_offset()) == (
                    theirs.dtype,
                    theirs.stride(),
                    theirs.storage_offset(),
                )
                mine.untyped_storage().fill_(7)
    assert network.calls == 1
    assert store.used == sum(tensor.untyped_storage().nbytes() for tensor in tensors(expected))


def test_outputs_nobody_understands_are_not_kept():
    assert evaluated(lambda x: (x, object()), (X,), (X,))[1] == 2
    assert evaluated(lambda x: None, (X,), (X,))[1] == 2
    # Its numbers are conjugates of what lies in memory.
    assert evaluated(lambda x: torch.complex(x, x).conj(), (X,), (X,))[1] == 2


def test_random_evaluations_are_drawn_every_time():
    torch.manual_seed(0)
    (a, b), calls = evaluated(lambda x: torch.nn.functional.dropout(x, 0.5, training=True), (X,), (X,))
    assert calls == 2
    assert not torch.equal(a, b)


def test_gradients_are_left_alone():
    network, x = Network(lambda x: x * 2), X.clone().requires_grad_()
    with evaluations([network], Store(), b"state"):
        network(x), network(x).sum().backward()
    assert network.calls == 2
    assert torch.equal(x.grad, torch.full_like(X, 2))


def test_several_networks_are_told_apart():
    networks = [Network(lambda x: x + 1), Network(lambda x: x + 2)]
    with torch.no_grad(), evaluations(networks, Store(), b"state"):
        for _ in range(2):
            assert torch.equal(networks[0](X), X + 1)
            assert torch.equal(networks[1](X), X + 2)
    assert [network.calls for network in networks] == [1, 1]


class Encoder:
    """A pipeline that only encodes, with a signature like Stable Diffusion's."""

    def __init__(self):
        self.calls = 0

    def encode_prompt(self, prompt, device=None, embeds=None, lora_scale=None, **kwargs):
        self.calls += 1
        return (torch.full((1, 2), float(self.calls)), None, [torch.ones(3)], "text")


def test_prompts_are_matched_by_their_bound_arguments():
    pipeline, store = Encoder(), Store()
    with torch.no_grad(), prompts(pipeline, store, b"state"):
        first = pipeline.encode_prompt(["a", "b"], torch.device("cpu"))
        first[0].fill_(9)
        second = pipeline.encode_prompt(device=torch.device("cpu"), prompt=["a", "b"], embeds=None)
        assert pipeline.calls == 1
        assert second[0].tolist() == [[1.0, 1.0]]
        assert (second[1], second[2][0].tolist(), second[3]) == (None, [1.0, 1.0, 1.0], "text")
        for count, arguments in enumerate(
            [
                {"prompt": ["a", "c"]},
                {"prompt": ("a", "b")},
                {"prompt": "a", "embeds": torch.zeros(3)},
                {"prompt": "a", "embeds": torch.ones(3)},
                {"prompt": "a", "clip_skip": 1},
                {"prompt": "a", "clip_skip": 2},
            ],
            start=2,
        ):
            pipeline.encode_prompt(**arguments), pipeline.encode_prompt(**arguments)
            assert pipeline.calls == count


@pytest.mark.parametrize("arguments", [{"lora_scale": 0.5}, {"text_lora_scale": 0.5}, {"strange": object()}])
def test_prompts_with_a_scale_or_something_strange_are_encoded_every_time(arguments):
    pipeline, store = Encoder(), Store()
    with torch.no_grad(), prompts(pipeline, store, b"state"):
        pipeline.encode_prompt("a", **arguments), pipeline.encode_prompt("a", **arguments)
    assert pipeline.calls == 2
    assert (store.used, store.misses) == (0, 0)


def test_a_wrong_call_fails_as_ever():
    with prompts(pipeline := Encoder(), Store(), b"state"), pytest.raises(TypeError, match="prompt"):
        pipeline.encode_prompt()


def test_without_a_state_nothing_is_touched(tiny_pipeline):
    clone = copy.copy(tiny_pipeline)
    with prompts(clone, Store(), None), evaluations([clone.unet], Store(), None):
        assert "encode_prompt" not in vars(clone)
        assert "forward" not in vars(clone.unet)


def test_a_pipeline_that_encodes_nothing_is_left_alone():
    with prompts(pipeline := types.SimpleNamespace(), Store(), b"state"):
        assert vars(pipeline) == {}


# The fingerprint


def weight_in_place(pipeline):
    with torch.no_grad():
        next(pipeline.unet.parameters()).view(-1)[3] += 1


def weight_behind_torchs_back(pipeline):
    next(pipeline.unet.mid_block.parameters()).data.mul_(1.001)


def weight_replaced(pipeline):
    pipeline.unet.conv_in.weight = torch.nn.Parameter(pipeline.unet.conv_in.weight.clone())


def new_processors(pipeline):
    pipeline.unet.set_attn_processor(AttnProcessor())


def processor_attribute(pipeline):
    next(iter(pipeline.unet.attn_processors.values())).scale = 0.5


def layer_wrapped(pipeline):
    pipeline.unet.conv_out = torch.nn.Sequential(pipeline.unet.conv_out)


def new_token(pipeline):
    pipeline.tokenizer.add_tokens(["<fox>"])


CHANGES = [
    weight_in_place,
    weight_behind_torchs_back,
    weight_replaced,
    new_processors,
    processor_attribute,
    layer_wrapped,
    new_token,
    lambda p: p.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
    lambda p: p.to(torch.float64),
    lambda p: p.unet.eval(),
    lambda p: p.vae.enable_slicing(),
    lambda p: p.unet.mid_block.attentions[0].register_buffer("extra", torch.zeros(1)),
    lambda p: p.unet.register_to_config(center_input_sample=True),
    lambda p: setattr(p.unet, "conv_act", torch.nn.ReLU()),
    lambda p: setattr(p, "unet", make_pipeline(1).unet),
    lambda p: setattr(p, "vae_scale_factor", 8),
    lambda p: setattr(p.text_encoder.config, "use_attention_mask", True),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_gives_another_fingerprint(pipeline, change):
    before = fingerprint(pipeline)
    assert before is not None
    assert fingerprint(pipeline) == before
    change(pipeline)
    after = fingerprint(pipeline)
    assert after is not None
    assert after != before
    assert fingerprint(pipeline) == after


def test_a_class_defined_anew_gives_another_fingerprint(pipeline):
    seen = set()
    for scale in (1, 2, 3):
        space = {}
        exec(f"class Processor:\n    def __call__(self, *args): return {scale}", {"__name__": "cell"}, space)
        pipeline.unet.mid_block.chosen = space["Processor"]()
        seen.add(fingerprint(pipeline))
    assert None not in seen
    assert len(seen) == 3


def test_what_a_function_closes_over_is_seen(pipeline):
    def scaled(by):
        return lambda x: x * by

    seen = set()
    for by in (1, 2):
        pipeline.unet.chosen = scaled(by)
        seen.add(fingerprint(pipeline))
    pipeline.unet.chosen = scaled(1)
    assert fingerprint(pipeline) in seen
    assert len(seen) == 2


def test_a_run_and_another_sampler_change_no_fingerprint(pipeline):
    before = fingerprint(pipeline)
    draw(pipeline)
    pipeline.scheduler = build("Euler", dict(pipeline.scheduler.config))
    assert fingerprint(pipeline) == before
    assert fingerprint(copy.copy(pipeline)) == before


@contextlib.contextmanager
def threads(count):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def coarse():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    "switch",
    [
        lambda: threads(torch.get_num_threads() + 1),
        deterministic,
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        coarse,
        lambda: torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ],
)
def test_torchs_own_switches_count(tiny_pipeline, switch):
    before = fingerprint(tiny_pipeline)
    with switch():
        assert fingerprint(tiny_pipeline) not in (before, None)
    assert fingerprint(tiny_pipeline) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.unet.mid_block.register_forward_hook(lambda *_: None),
        lambda p: p.vae.register_forward_pre_hook(lambda *_: None),
        lambda p: setattr(p.unet.mid_block, "forward", lambda *args: args[0]),
        lambda p: setattr(p.unet, "state", threading.Lock()),
        lambda p: p.unet.to("meta"),
        lambda p: setattr(p.unet, "_compiled_call_impl", len),  # as compile() does
    ],
)
def test_a_state_that_cannot_be_seen_has_no_fingerprint(pipeline, change):
    assert fingerprint(pipeline) is not None
    change(pipeline)
    assert fingerprint(pipeline) is None


def test_a_hook_on_every_module_has_no_fingerprint(tiny_pipeline):
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert fingerprint(tiny_pipeline) is None
    finally:
        hook.remove()
    assert fingerprint(tiny_pipeline) is not None


def test_a_changed_model_gets_no_old_results(pipeline):
    store = Store()
    before, _ = draw(pipeline, store)
    pipeline.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    (after, _), found = counted(store, lambda: draw(pipeline, store))
    assert found == (0, 5)
    assert torch.equal(after, draw(pipeline)[0])
    assert not torch.equal(after, before)
    pipeline.disable_freeu()
    assert torch.equal(draw(pipeline, store)[0], before)


def test_a_fused_and_removed_adapter_is_noticed(pipeline):
    # Fusing writes through .data, which torch does not count, and leaves no module behind.
    store = Store()
    draw(pipeline, store)
    for name, weight in pipeline.unet.named_parameters():
        if "attn2.to_k" in name:
            weight.data += 0.5 * torch.ones(weight.shape[0], 1) @ torch.ones(1, weight.shape[1])
    (latents, _), found = counted(store, lambda: draw(pipeline, store))
    assert found == (0, 5)
    assert torch.equal(latents, draw(pipeline)[0])


# Whole runs


def test_keys_of_runs():
    settings = Settings(prompt="a red fox", sampler="DDIM")
    key = run_key(b"state", settings, "DDIM", {"beta_start": 0.1})
    assert key == run_key(b"state", settings.replace(), "DDIM", {"beta_start": 0.1})
    assert key == run_key(b"state", settings.replace(sampler="as it came"), "DDIM", {"beta_start": 0.1})
    others = [
        run_key(b"other", settings, "DDIM", {"beta_start": 0.1}),
        run_key(b"state", settings.replace(seed=1), "DDIM", {"beta_start": 0.1}),
        run_key(b"state", settings, "DDIM", {"beta_start": 0.2}),
        run_key(b"state", settings, b"another", {"beta_start": 0.1}),
        run_key(b"state", settings, "DDIM"),
    ]
    assert len({key, *others}) == 6
    assert run_key(None, settings, "DDIM") is None
    assert run_key(b"state", settings, None) is None
    assert run_key(b"state", settings, "DDIM", object()) is None


def test_the_size_of_a_trace_counts_each_storage_once(tiny_trace):
    latents = 4 * 8 * 12 * 4
    # Each step: x_t, the guided output, and both halves of it in one storage.
    expected = len(tiny_trace) * 4 * latents + latents + 48 * 32 * 4
    assert tiny_trace.matrix.shape == (5, 3)
    assert size_of(tiny_trace) == expected + 5 * 3 * 4
    assert size_of(copy_of(tiny_trace)) == expected
    for step in tiny_trace:
        assert step.x0_cond is not None  # finds the halves
    assert size_of(copy_of(tiny_trace)) <= expected


def test_a_copy_of_a_trace_is_on_its_own(tiny_trace):
    kept = copy_of(tiny_trace)
    assert kept.decode is None
    assert kept.matrix is None
    matrix = np.zeros((5, 3), np.float32)
    mine, theirs = (copy_of(kept, decode=tiny_trace.decode, matrix=matrix) for _ in range(2))
    assert mine.decode == tiny_trace.decode
    assert mine.matrix is matrix
    assert all(torch.equal(one.x0, other.x0) for one, other in zip(mine, tiny_trace, strict=True))
    for name in ("settings", "cancelled", "seconds", "expected", "info"):
        assert getattr(mine, name) == getattr(tiny_trace, name)
    mine.info["notes"].append("mine")
    mine.final.fill_(0)
    mine.image.putpixel((0, 0), (1, 2, 3))
    mine.append(mine[0])
    for other in (kept, theirs, tiny_trace):
        assert "mine" not in other.info["notes"]
        assert len(other) == len(mine) - 1
        assert other.final.abs().max() > 0
        assert other.image.getpixel((0, 0)) != (1, 2, 3)
    assert torch.equal(theirs.final, tiny_trace.final)


def test_a_cancelled_or_empty_trace_can_be_copied_and_measured():
    trace = Trace(Settings(), cancelled=True, info={"a": 1})
    assert size_of(trace) == 0
    assert copy_of(trace).cancelled
    assert copy_of(trace).image is None
