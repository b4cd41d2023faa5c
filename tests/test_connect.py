"""rooms/connect.py and what stands behind it: a shared model, used over a real wire, is the model."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from handmade import handmade
from patience import PATIENCE
from tiny import make_pipeline

pytest.importorskip("distributed")

from peer import Peer

import diffexplore as dx
from diffexplore.model import Model
from diffexplore.rooms.connect import Connected
from diffexplore.rooms.share import Room

CERTIFICATES = Path(__file__).parent / "certificates"
ASKED = {"prompt": "a red fox", "negative_prompt": "blurry", "steps": 4, "seed": 3, "sampler": "DPM++ 2M Karras"}


def until(true: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Wait for something that has to come true."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module")
def local() -> Model:
    return Model(make_pipeline(), name="tiny")


@pytest.fixture(scope="module")
def room(local: Model) -> Iterator[Room]:
    with dx.share(local, "127.0.0.1:0") as room:
        yield room


@pytest.fixture(scope="module")
def model(room: Room) -> Iterator[Connected]:
    model = dx.connect(room.address, name="a learner")
    yield model
    model.close()


def same(mine: dx.Trace, theirs: dx.Trace) -> None:
    """Two runs are the same, to the bit."""
    assert mine.settings == theirs.settings
    assert len(mine) == len(theirs) == mine.expected
    assert torch.equal(mine.final, theirs.final)
    assert np.array_equal(np.asarray(mine.image), np.asarray(theirs.image))
    for one, other in zip(mine, theirs, strict=True):
        assert (one.index, one.timestep, one.a, one.b, one.kind) == (
            other.index, other.timestep, other.a, other.b, other.kind,
        )  # fmt: skip
        assert one.guidance == other.guidance
        for name in ("latents", "output", "x0", "noise_cond", "noise_uncond"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    told = [json.loads(json.dumps({**one.info, "reused": None, "cost": None})) for one in (mine, theirs)]
    assert told[0] == told[1]


def test_a_run_is_the_run_to_the_bit(model: Connected, local: Model) -> None:
    mine, theirs = model.trace(**ASKED), local.trace(**ASKED)
    same(mine, theirs)
    for kind in ("x0", "x0_cond", "noise"):
        assert np.array_equal(np.asarray(mine.view(kind, 2)), np.asarray(theirs.view(kind, 2)))
    assert np.array_equal(mine.matrix, theirs.matrix)
    looking = [one.trace(attention=True, **ASKED) for one in (model, local)]
    assert np.array_equal(looking[0].heat("fox"), looking[1].heat("fox"))
    for one, other in zip(
        model.trace_many([dx.Settings(**ASKED | {"seed": seed}) for seed in (1, 2)]),
        local.trace_many([dx.Settings(**ASKED | {"seed": seed}) for seed in (1, 2)]),
        strict=True,
    ):
        same(one, other)


def test_branches_pictures_and_inversions_are_the_same(model: Connected, local: Model) -> None:
    mine, theirs = model.trace(**ASKED), local.trace(**ASKED)
    brighter = [one.branch(trace, 2, latents=lambda x: x * 1.1, guidance=9.0) for one, trace in
                ((model, mine), (local, theirs))]  # fmt: skip
    assert torch.equal(brighter[0].final, brighter[1].final)
    assert brighter[0].info["parent"]["at"] == 2
    same(model.branch(brighter[0], 1, prompt="a car"), local.branch(brighter[1], 1, prompt="a car"))
    noisy = dx.edits.noise((0.2, 0.2, 0.7, 0.7), seed=4)
    same(model.branch(mine, 2, latents=noisy), local.branch(theirs, 2, latents=noisy))
    assert model.levels("karras", 5, sampler="Euler") == local.levels("karras", 5, sampler="Euler")
    there, here = model.planner.schedules, local.planner.schedules
    for name in ("Euler a", "DPM++ 2M Karras"):
        assert there.range(name) == here.range(name)
        assert there.levels(name, 4) == here.levels(name, 4)
        assert (there.adds(name), there.no_fresh(name, 1.5)) == (here.adds(name), here.no_fresh(name, 1.5))
    picture = theirs.image
    assert torch.equal(model.encode(picture), local.encode(picture))
    assert np.array_equal(model.decode(mine.final), local.decode(theirs.final))
    started = [one.trace(image=picture, strength=0.5, **ASKED) for one in (model, local)]
    assert torch.equal(started[0].final, started[1].final)
    assert started[0].settings == started[1].settings
    back = [one.invert(picture, "a fox", steps=4, refine=1) for one in (model, local)]
    assert torch.equal(back[0].final, back[1].final)


PUBLIC = [name for name in dir(Model) if not name.startswith("_")]
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "label": ("Euler",), "evaluations": ("Heun", 7), "resolve": (dx.Settings(),), "tokens": ("a fox",),
    "unknown_words": ("zyx",), "near_words": ("foxx",), "notes": (dx.Settings(prompt="(a fox:1.2)"),),
    "estimate": ([dx.Settings(**ASKED), dx.Settings(**ASKED | {"seed": 9})],),
    "fixed": ("DDIM",),
    "batches": ([dx.Settings(**ASKED), dx.Settings(**ASKED | {"steps": 2})],),
}  # fmt: skip
ELSEWHERE = {"code", "origin", "load_lora", "unload_loras", "adapter_files", "options", "pipeline", "remembered"}
"""What is another thing where the model is not."""
RUNS = {
    "trace",
    "ledger",
    "levels",
    "trace_many",
    "submit",
    "submit_many",
    "branch",
    "invert",
    "decode",
    "encode",
    "output",
    "planner",
}
"""What the other tests are about."""


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in ELSEWHERE | RUNS])
def test_whatever_a_model_answers_a_shared_one_answers(name: str, model: Connected, local: Model) -> None:
    """Whoever gives `Model` another method is told so here: CONTRIBUTING.md says how it gets over the wire."""
    mine, theirs = getattr(model, name), getattr(local, name)
    if callable(theirs):
        arguments = ARGUMENTS.get(name, ())
        mine, theirs = mine(*arguments), theirs(*arguments)
    if isinstance(theirs, np.ndarray):
        assert np.array_equal(mine, theirs)
    elif isinstance(theirs, list) and theirs and hasattr(theirs[0], "_asdict"):
        assert [one.name for one in mine] == [one.name for one in theirs]
    else:
        assert mine == theirs


def test_what_is_elsewhere_is_said_to_be(model: Connected, room: Room) -> None:
    assert isinstance(model, dx.Model)
    assert model.code() == f"model = dx.connect({room.address!r})\n"
    assert not hasattr(model, "pipeline")
    with pytest.raises(AttributeError, match="is where it is shared"):
        model.pipeline  # noqa: B018
    with pytest.raises(ValueError, match="LoRAs are loaded where the model is shared"):
        model.load_lora("style.safetensors")
    with pytest.raises(ValueError, match="probes watch a network, which is not here"):
        model.trace(probes=[dx.model.Probe()], **ASKED)


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"sampler": "Flow Euler"}, {"imag": 3}, {"image": 3}, {"strength": 0.5}, {"width": 12}]
)
def test_refusals_are_those_of_the_model(wrong: dict[str, Any], model: Connected, local: Model) -> None:
    said = []
    for one in (model, local):
        with pytest.raises(ValueError, match=r".") as error:
            one.trace(**wrong)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_steps_come_in_while_the_run_goes(model: Connected, local: Model) -> None:
    """The room's own clock stands still at step 1 until the learner has it."""
    seen, reached = [], threading.Event()

    def on_step(step: Any) -> None:
        seen.append((step.index, len(job.trace), job.status))
        reached.set()
        if len(seen) == 1:
            with pytest.raises(RuntimeError, match="cannot wait for another run"):
                job.result()
            with pytest.raises(RuntimeError, match="cannot start another run"):
                model.trace(**ASKED)

    started = threading.Event()
    job = model.submit(
        prompt="frames", steps=300, sampler="DDIM", on_step=lambda step: started.wait() and on_step(step)
    )
    started.set()
    assert reached.wait(PATIENCE)
    job.cancel()
    assert job.done()
    assert job.status == "cancelled"
    assert seen[0][0] == 0
    assert seen[0][2] == "running"
    assert 0 < len(job.result()) < 300
    assert job.trace.cancelled
    failing = model.submit(on_step=lambda step: 1 / 0, **ASKED)
    with pytest.raises(ZeroDivisionError):
        failing.result(PATIENCE)


def test_the_newest_wins_in_a_lane_and_lanes_stand_beside_each_other(model: Connected) -> None:
    first = [model.submit(prompt=f"{k}", steps=200, sampler="DDIM", lane="mine") for k in range(4)]
    other = model.submit(lane="another", **ASKED)
    last = model.submit(lane="mine", **ASKED)
    assert len(last.result(PATIENCE)) == len(other.result(PATIENCE)) == 4
    assert {job.status for job in first} == {"cancelled"}
    assert all("newer run" in job.reason for job in first)


LONG = dx.Settings(prompt="for ever", steps=900, sampler="DDIM").to_json()


def test_a_learner_who_is_killed_leaves_a_free_lane(room: Room, model: Connected, local: Model) -> None:
    command = [sys.executable, Path(__file__).with_name("peer.py"), room.address, LONG]
    learner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert learner.stdout is not None
    assert learner.stdout.readline() == "running\n"
    assert "a peer" in room.learners
    learner.kill()
    learner.wait()
    assert len(model.trace(**ASKED)) == 4  # not after nine hundred steps of somebody who is gone
    until(lambda: "a peer" not in room.learners)


def test_strangers_get_one_sentence_and_the_room_goes_on(room: Room, model: Connected) -> None:
    peer = Peer(room.address)
    bad: list[dict[str, Any]] = [
        {"ask": "submit"},
        {"ask": "submit", "lane": 1, "runs": [{"settings": LONG}] * 99},
        {"ask": "submit", "lane": 1, "runs": [{"settings": b"\x80\x04N."}]},
        {"ask": "submit", "lane": 1, "runs": [{"settings": "{}"}], "asked": {"probes": 1}},
        {"ask": "submit", "lane": 1, "runs": [{"settings": "{}"}], "waited": "long"},
        {"ask": "submit", "lane": [], "runs": [{"settings": "{}"}]},
        {"ask": "submit", "lane": 1, "runs": [{"branch": {"parent": b"\x80\x04N.", "at": 1, "changes": "{}"}}]},
        {"ask": "submit", "lane": 1, "runs": [{"settings": "{}", "extra": {"image": {"picture": b"x"}}}]},
        {"ask": "plan", "settings": "[]"},
        {"ask": "plan", "settings": '{"steps": 1e99}'},
        {"ask": "decode", "latents": b"\x80\x04N."},
        {"ask": "evaluations", "sampler": "no such", "steps": 3},
        {"ask": "__class__"},
        {"ask": 7},
    ]
    for number, message in enumerate(bad):
        peer.say(id=number, **message)
    told = {}
    while len(told) < len(bad):
        message = peer.hear()
        told[message["id"]] = message
    assert all("error" in one and one["says"] and "\n" not in one["says"] for one in told.values())
    peer.say(ping=True)
    assert peer.hear() == {"pong": True}
    for k in range(40):
        peer.say(id=100 + k, ask="submit", lane=k, runs=[{"settings": LONG}])
    refused = [one for one in (peer.hear() for _ in range(40)) if one.get("error")]
    assert refused
    assert "a learner may have 16 things waiting" in refused[0]["says"]
    peer.socket.close()
    assert len(model.trace(**ASKED)) == 4


def test_nobody_gets_anothers_frames(room: Room, local: Model) -> None:
    """Eight learners drag sliders at one moment: what each gets is what they asked for last."""
    wrong: list[str] = []
    firsts = {seed: local.trace(**ASKED | {"seed": seed})[0].latents for seed in range(8)}

    def learn(seed: int) -> None:
        mine = dx.connect(room.address, name=f"learner {seed}")
        try:
            for move in range(6):
                asked = ASKED | {"seed": seed, "prompt": f"{seed} {move}", "steps": 4 + move % 3}
                job = mine.submit(lane="explorer", **asked)
                if move % 2:
                    continue  # replaced at once
                trace = job.result(PATIENCE)
                right = len(trace) == asked["steps"] and trace.settings.prompt == asked["prompt"]
                if not right or (asked["steps"] == 4 and not torch.equal(trace[0].latents, firsts[seed])):
                    wrong.append(f"{seed}: {trace}")
        except Exception as error:
            wrong.append(f"{seed}: {error!r}")
        finally:
            mine.close()

    threads = [threading.Thread(target=learn, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert wrong == []
    until(lambda: not [name for name in room.learners if name.startswith("learner")])


def test_runs_go_on_when_the_room_is_back(local: Model) -> None:
    room = dx.share(local, "127.0.0.1:0")
    model = dx.connect(room.address)
    try:
        job = model.submit(prompt="on and on", steps=150, sampler="DDIM", seed=5)
        said: list[str] = []
        job.add_news_callback(lambda job: said.append(job.news))
        until(lambda: len(job.trace) > 2)
        room.close()
        until(lambda: said, 5)
        assert said[0].startswith(f"the room at {room.address} is gone; runs start again")
        assert not job.done()
        with pytest.raises(ConnectionError, match="is gone"):
            model.resolve(dx.Settings())
        with dx.share(local, room.address):
            trace = job.result(PATIENCE)
            assert said[-1] == ""
            assert [step.index for step in trace] == list(range(150))
            later = model.submit(prompt="closed", steps=900, sampler="DDIM")
            until(lambda: len(later.trace))
            model.close()
            with pytest.raises(ConnectionError, match="closed"):
                later.result(PATIENCE)
    finally:
        room.close()
        model.close()


def test_another_model_at_the_address_is_not_taken_for_the_first(local: Model) -> None:
    pipeline = make_pipeline()
    pipeline.unet.conv_out.bias.data[0] += 1
    room = dx.share(local, "127.0.0.1:0")
    model = dx.connect(room.address)
    room.close()
    with dx.share(Model(pipeline, name="other"), room.address):
        until(lambda: "another model is shared by now" in str(refused(model)))
    model.close()


def refused(model: Connected) -> Exception | None:
    try:
        model.resolve(dx.Settings())
    except ConnectionError as error:
        return error
    return None


def test_where_nobody_shares_it_is_said() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ValueError, match=rf"^nobody shares a model at tcp://{address} \([^<>]+\)$"):
        dx.connect(address, timeout=0.2)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with pytest.raises(ConnectionError, match=r"nobody shares a model at .*what is there does not answer"):
            dx.connect(f"127.0.0.1:{mute.getsockname()[1]}", timeout=0.2)
    for wrong, told in (
        ({"timeout": "x"}, "timeout must be seconds"),
        ({"timeout": float("nan")}, "got nan"),
        ({"name": 5}, "name must be a text"),
        ({"name": "\ud800"}, "name must be a text"),
    ):
        with pytest.raises(ValueError, match=told):
            dx.connect(address, **wrong)


def test_what_needs_the_model_itself_says_so_before_any_work(model: Connected, tmp_path: Path) -> None:
    picture = np.zeros((32, 48, 3), np.uint8)
    for study, told in (
        (lambda: dx.twice(model, **ASKED), "needs the model itself, .* got one that is shared"),
        (lambda: dx.forward(model, picture), "needs the model itself"),
        (lambda: dx.loss_by_level(model, picture, "a fox"), "needs the model itself"),
        (lambda: dx.ForwardProcess(model), "needs the model itself"),
        (lambda: dx.share(model, "127.0.0.1:0"), "that is here, got one that is shared already"),
        *(
            (lambda one=one: dx.sweep(model, ("seed", [1]), executor=one, out=tmp_path), "is not known here")
            for one in (None, ThreadPoolExecutor(1))
        ),
    ):
        with pytest.raises(ValueError, match=told):
            study()
    assert not list(tmp_path.iterdir())


def test_where_the_address_is_taken_it_is_named(local: Model) -> None:
    with (
        dx.share(local, "127.0.0.1:0") as first,
        pytest.raises(OSError, match=f"no model can be shared at {first.address}: "),
    ):
        dx.share(local, first.address)


def test_only_who_has_a_certificate_of_the_room_is_let_in(local: Model) -> None:
    with dx.share(local, "tls://127.0.0.1:0", security=CERTIFICATES / "room") as room:
        assert room.address.startswith("tls://")
        model = dx.connect(room.address, security=CERTIFICATES / "room")
        same(model.trace(**ASKED), local.trace(**ASKED))
        assert model.code() == f"model = dx.connect({room.address!r}, security={str(CERTIFICATES / 'room')!r})\n"
        assert len(room.learners) == 1
        del model  # nobody has it any more, as in a notebook whose cell is run again
        until(lambda: not room.learners)
        with pytest.raises(ConnectionError, match=r"nobody shares a model at .*, or not with these certificates"):
            dx.connect(room.address, security=CERTIFICATES / "stranger", timeout=0.5)
        with pytest.raises(ValueError, match="speaks TLS"):
            dx.connect(room.address)
        with pytest.raises(ConnectionError, match="nobody shares a model at"):
            dx.connect(room.address.replace("tls", "tcp"), timeout=0.5)
        until(lambda: not room.learners)
    with pytest.raises(ValueError, match=r"without TLS a model is shared on 127\.0\.0\.1 alone"):
        dx.share(local, "0.0.0.0:0")


def test_a_pipeline_found_by_looking_sends_the_pictures_of_its_runs() -> None:
    local = dx.load(handmade(), reuse=0)
    with dx.share(local, "127.0.0.1:0") as room:
        model = dx.connect(room.address)
        asked = {"prompt": "a red fox", "steps": 3, "seed": 3}
        mine, theirs = model.trace(**asked), local.trace(**asked)
        assert torch.equal(mine.final, theirs.final)
        assert mine.decode is None
        for i in range(3):
            assert np.array_equal(np.asarray(mine.view("x0", i)), np.asarray(theirs.view("x0", i)))
        model.close()


def test_an_explorer_and_a_compare_draw_with_a_shared_model(model: Connected, local: Model) -> None:
    explorer = dx.Explorer(model, **ASKED)
    try:
        same(explorer.run(), local.trace(**ASKED))
        assert explorer.status == "done"
        explorer.branch(2, prompt="a car")
        until(lambda: explorer.status == "done" and explorer.trace.info.get("parent"))
    finally:
        explorer.close()
    compare = dx.Compare({"few": {"steps": 2}, "more": {"steps": 3}}, model=model, prompt="a fox", sampler="DDIM")
    try:
        traces = compare.run()
        assert [len(trace) for trace in traces.values()] == [2, 3]
    finally:
        compare.close()


def test_widgets_begin_with_a_shared_model_as_with_their_own(model: Connected, local: Model) -> None:
    for make in (lambda one: dx.Explorer(one), lambda one: dx.Compare(model=one), lambda one: dx.Compare("seeds", one)):
        mine, theirs = make(model), make(local)
        try:
            assert mine.settings == theirs.settings
        finally:
            mine.close()
            theirs.close()


def test_who_waits_reads_where_they_stand(room: Room, model: Connected) -> None:
    other = dx.connect(room.address, name="another learner")
    long = other.submit(dx.Settings.from_json(LONG))
    until(lambda: len(long.trace))
    explorer = dx.Explorer(model, prompt="after that", steps=2, sampler="DDIM")
    try:
        explorer.live = True
        explorer.seed = 8
        until(lambda: str(explorer.viewer.truth["text"]).startswith("next in line"))
        assert explorer.viewer.truth["state"] == "busy"
        assert explorer.viewer.error == ""
        long.cancel()
        until(lambda: explorer.status == "done")
        assert explorer.viewer.truth["state"] == "match"
    finally:
        explorer.close()
        other.close()


def test_loras_that_come_later_are_there_for_who_is_there(lora: Path) -> None:
    local = Model(make_pipeline(), name="tiny")
    with dx.share(local, "127.0.0.1:0") as room:
        model = dx.connect(room.address)
        assert model.adapters == []
        local.load_lora(lora)
        until(lambda: model.adapters == ["my_style"])
        asked = ASKED | {"adapters": {"my_style": 0.5}}
        explorer = dx.Explorer(model, **asked)
        same(explorer.run(), local.trace(**asked))
    with dx.share(Model(make_pipeline(), name="tiny"), room.address):  # back, as it was at first
        until(lambda: model.adapters == [])
        with pytest.raises(ValueError, match="my_style"):
            model.trace(**asked)
        assert len(model.trace(**ASKED)) == 4
    model.close()
    explorer.close()  # of a room that is gone


def test_it_is_swept_where_it_is(model: Connected, local: Model, tmp_path: Path) -> None:
    grid = dx.sweep(model, ("seed", [1, 2]), steps=2, sampler="DDIM")
    assert grid.errors == [["", ""]]
    assert np.allclose(np.asarray(grid.images[0][1]), np.asarray(local.trace(grid.settings[0][1]).image), atol=2)
    with pytest.raises(ValueError, match="of a shared model is not known here"):
        dx.sweep(model, ("seed", [1, 2]), out=tmp_path / "cells")
    assert dx.sweep(model, ("seed", [1, 2]), steps=2, sampler="DDIM", dry=True).evaluations == 4
