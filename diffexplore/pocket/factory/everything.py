"""Everything that ships, trained in one go and in a given time: judges, VAE, and the three denoisers.

    python -m diffexplore.pocket.factory.everything --art package --device cuda --minutes 10
    python -m diffexplore.pocket.factory.everything --art package --minutes 2000     # on two cores, at night

Processes compose pictures all the while; the stages follow each other, each with its share of the minutes, and each
goes on from what lies in ``--work``. So they can be called one by one, later or elsewhere::

    python -m diffexplore.pocket.factory.everything --art package --stages judges vae --minutes 4
    python -m diffexplore.pocket.factory.everything --art package --stages unet flow turbo --minutes 7

A fast and a flow model beside a pocket model that is there already: its folder becomes the work folder's VAE, U-Net and
text encoder, and the new ones learn in its latents and from it. Its VAE can grow to twice the side before (`grow`), so
that all of them draw larger pictures with what they have learned::

    python -m diffexplore.pocket.factory.everything --art package --teacher FOLDER --stages grow --minutes 45
    python -m diffexplore.pocket.factory.everything --art package --teacher FOLDER --stages flow turbo --minutes 200

After every stage its model is exported to ``WORK/export`` as a diffusers folder, with a sheet of what it draws and a
strip of how it learned. Where the environment names a folder ``OUT``, all of that also goes there as a few files
(`parcel`). Call it again with more minutes and it trains on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffexplore.pocket.factory import export, flow, grow, judge_training, parcel, turbo, unet, vae
from diffexplore.pocket.factory.latents import Latents, read_vae
from diffexplore.pocket.factory.pool import Pool
from diffexplore.pocket.factory.stage import Budget, spent, tell

BEGUN = time.monotonic()

SHARES = {"judges": 0.10, "vae": 0.24, "grow": 0.24, "unet": 0.34, "flow": 0.20, "turbo": 0.12}
"""The stages in their order, and what part of the minutes each takes."""

STAGES = tuple(name for name in SHARES if name != "grow")
"""Those that make all models from nothing; to grow is for a VAE that is there."""

EXPORTS = {"grow": "pocket", "unet": "pocket", "flow": "pocket-flow", "turbo": "pocket-turbo"}

KEPT = ("export/**/*", "vae/**/*", "tokenizer/**/*", "judge*.safetensors", "*.log", "*.png")
"""What of the work folder goes into parcels."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to train, on what, and how it is made.

    Attributes:
        work: folder of the state.
        art: unpacked npm package ``@lobehub/fluent-emoji-3d``.
        stages: which of `SHARES`.
        minutes: for all of them together.
        shares: what part of the minutes each stage takes, on top of `SHARES`.
        device, bf16, graph, compiled: as in `Budget`.
        reserve: seconds kept at the end for what must be written.
        pictures: how many the device holds.
        workers: processes that compose; None: as the pool thinks.
        judge_steps, vae_steps, grow_steps: how long those are trained at most; None: as long as their minutes last.
        vae, grow, pocket, flow, turbo: the recipes.
        sheets: draw a sheet of each model.
        teacher: folder of the model beside which others are made, see `beside`.
    """

    work: Path
    art: str
    stages: Sequence[str] = STAGES
    minutes: float = 10.0
    shares: dict[str, float] = dataclasses.field(default_factory=dict)
    device: str = "cpu"
    bf16: bool = False
    graph: bool = True
    compiled: bool = False
    reserve: float = 20.0
    pictures: int = 40_000
    workers: int | None = None
    judge_steps: int | None = None
    vae: vae.Recipe = vae.RECIPE
    vae_steps: int | None = None
    grow: grow.Recipe = grow.RECIPE
    grow_steps: int | None = None
    pocket: unet.Recipe = unet.RECIPE
    flow: flow.Recipe = flow.RECIPE
    turbo: turbo.Recipe = turbo.RECIPE
    sheets: bool = True
    teacher: Path | None = None


class Everything:
    """The stages of a plan, one after the other; what goes wrong in one is said, and the next one begins."""

    def __init__(self, plan: Plan, out: Path | None = None, begun: float | None = None) -> None:
        self.plan, self.out = plan, out
        self.end = (time.monotonic() if begun is None else begun) + 60 * plan.minutes - plan.reserve
        self.stages = [name for name in SHARES if name in plan.stages]
        self.failed: list[str] = []
        self._latents: Latents | None = None

    def run(self) -> list[str]:
        """Train what the plan says.

        Returns:
            The stages that failed.
        """
        self.plan.work.mkdir(parents=True, exist_ok=True)
        tokenizer = unet.make_tokenizer(self.plan.work, self.plan.pocket.text_tokens)
        early = [name for name in self.stages if name == "judges"]
        late = [name for name in self.stages if name != "judges"]
        for names, held_out in ((early, True), (late, False)):
            if not names:
                continue
            with self._pool(tokenizer, held_out) as pool:
                for name in names:
                    self._attempt(name, lambda name=name, pool=pool: self._stage(name, pool, tokenizer))  # type: ignore[misc]
        return self.failed

    def _attempt(self, name: str, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # a night's other stages are worth more than a clean end
            traceback.print_exc()
            tell(f"{name}: FAILED")
            self.failed.append(name)

    def _pool(self, tokenizer: Any, held_out: bool) -> Pool:
        plan = self.plan
        return Pool(
            plan.art, size=plan.vae.size, capacity=plan.pictures, tokenizer=tokenizer, device=plan.device,
            workers=plan.workers, held_out=held_out,
            seed=2026 + int(time.time()) % 100_000_000,  # another start, other pictures
        )  # fmt: skip

    def _budget(self, name: str) -> Budget:
        """A stage's part of what is left."""
        shares = {**SHARES, **self.plan.shares}
        rest = sum(shares[one] for one in self.stages[self.stages.index(name) :])
        left = max(0.0, self.end - time.monotonic())
        seconds = max(2.0, left * shares[name] / rest)
        if name in EXPORTS and self.plan.sheets:
            seconds = max(0.75 * seconds, seconds - 8)  # for what is drawn and written after it
        until = time.monotonic() + seconds
        tell(f"{name}: {seconds:.0f} s of {left:.0f} s")
        plan = self.plan
        minutes = (spent(plan.work, name) + seconds) / 60
        return Budget(
            minutes, bf16=plan.bf16, device=plan.device, until=until, graph=plan.graph, compiled=plan.compiled
        )

    def _stage(self, name: str, pool: Any, tokenizer: Any) -> None:
        budget = self._budget(name)
        if name == "judges":
            judge_training.train(self.plan.work, pool, budget, steps=self.plan.judge_steps)
        elif name == "vae":
            vae.train(self.plan.work, pool, budget, self.plan.vae, steps=self.plan.vae_steps)
        elif name == "grow":
            self._grow(budget, pool)
        else:
            self._denoiser(name, budget, pool, tokenizer)
        if self.out is not None:
            made = parcel.pack(self.plan.work, KEPT, self.out)
            tell(f"{len(made)} parcels in {self.out}")

    def _grow(self, budget: Budget, pool: Pool) -> None:
        """The teacher with a larger VAE, exported."""
        plan, work = self.plan, self.plan.work
        assert plan.teacher is not None
        old = export.open_folder(plan.teacher)
        grow.train(work, pool, budget, old, plan.grow, steps=plan.grow_steps)
        old.register_modules(vae=self._vae())
        self._export("grow", old)

    def _denoiser(self, name: str, budget: Budget, pool: Pool, tokenizer: Any) -> None:
        plan, work = self.plan, self.plan.work
        if self._latents is None or self._latents.pool is not pool:
            self._latents = Latents(pool, read_vae(work, plan.device), tokenizer, bf16=plan.bf16)
        latents, called = self._latents, EXPORTS[name]

        def show(pipeline: Any, step: int) -> None:
            export.learn_row(pipeline, work, called, step, self._steps(name))

        if name == "unet":
            unet.train(work, plan.pocket, budget, latents, show)
            made = unet.trained(work, plan.pocket, self._vae(), latents.shape)
        elif name == "flow":
            taught = plan.teacher and unet.trained(work, plan.pocket, self._vae(), latents.shape)
            flow.train(work, plan.flow, budget, latents, show, taught or None)
            made = flow.trained(work, plan.flow, self._vae(), latents.shape)
        else:
            turbo.train(work, plan.turbo, budget, latents, show)
            made = turbo.trained(work, plan.turbo, self._vae(), latents.shape)
        self._export(name, made)

    def _export(self, name: str, made: Any) -> None:
        """A stage's model as a folder, with what it drew on its way and its sheet."""
        called, out = EXPORTS[name], self.plan.work / "export"
        export.write_folder(made, out / called)
        export.learn_strip(self.plan.work, called, out / f"learn-{called}.png")
        tell(f"{name}: exported to {out / called}")
        if self.plan.sheets:
            made.to(self.plan.device)
            export.draw_sheet(made, out / f"sheet-{called}.png", self._steps(name))
            tell(f"{name}: drew its sheet")

    def _vae(self) -> Any:
        return read_vae(self.plan.work, "cpu")

    def _steps(self, name: str) -> int:
        plan = self.plan
        steps = {
            "grow": plan.pocket.sheet_steps,
            "unet": plan.pocket.sheet_steps,
            "flow": plan.flow.sheet_steps,
            "turbo": plan.turbo.sheet_steps,
        }
        return steps[name]


def gpu(plan: Plan) -> Plan:
    """The plan for a GPU: bfloat16, large batches, many pictures at hand."""
    return dataclasses.replace(plan, bf16=True, pictures=400_000, pocket=unet.GPU, flow=flow.GPU, turbo=turbo.GPU)


def beside(plan: Plan, folder: Path) -> Plan:
    """The plan for models beside one that is there: its size, layout and world of captions, which do not stray.

    Its weights are taken over into a work folder that has none; its U-Net goes on at half the rate, which shakes less
    of what it knows. Pictures are as large as the work folder's VAE draws them, twice as large where one is to grow.

    Raises:
        FileNotFoundError: `folder` is no diffusers folder.
    """
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError("it has no model_index.json")
    told = json.loads((folder / "unet" / "config.json").read_text())
    text = json.loads((folder / "text_encoder" / "config.json").read_text())
    pocket = dataclasses.replace(
        plan.pocket, channels=tuple(told["block_out_channels"]), heads=tuple(told["attention_head_dim"]),
        text_width=text["hidden_size"], text_layers=text["num_hidden_layers"],
        text_tokens=text["max_position_embeddings"], astray=0.0, rate=plan.pocket.rate / 2,
    )  # fmt: skip
    if not (plan.work / "unet.pt").is_file():
        export.adopt(plan.work, folder)
    growing = "grow" in plan.stages
    size = json.loads(((folder if growing else plan.work) / "vae" / "config.json").read_text())["sample_size"]
    size *= 2 if growing else 1
    return dataclasses.replace(
        plan, pocket=pocket, vae=dataclasses.replace(plan.vae, size=size),
        turbo=dataclasses.replace(plan.turbo, pocket=pocket), teacher=folder,
        flow=dataclasses.replace(plan.flow, astray=0.0, text_tokens=pocket.text_tokens),
    )  # fmt: skip


def _prepare(device: str) -> None:
    """The switches of the arithmetic."""
    import torch

    if device == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
        tell(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {os.cpu_count()} cores")
    else:
        torch.set_flush_denormal(True)


def _shares(texts: Sequence[str]) -> dict[str, float]:
    """``unet=0.5`` as a dict.

    Raises:
        ValueError: one is no share of a stage.
    """
    out = {}
    for text in ",".join(texts).split(","):
        name, _, value = text.partition("=")
        try:
            out[name] = float(value)
        except ValueError:
            out[name] = 0.0
        if name not in SHARES or not out[name] > 0:
            raise ValueError(f"a share is a stage and a number above 0, such as unet=0.5, got {text!r}")
    return out


def main(argv: list[str] | None = None) -> int:
    """Train the stages asked for; 1 if one of them failed."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.pocket.factory.everything", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--art", required=True, help="unpacked npm package @lobehub/fluent-emoji-3d")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder of checkpoints (default %(default)s)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), help="which, of " + ", ".join(SHARES))
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of it (default %(default)g)")
    parser.add_argument("--shares", nargs="+", default=[], metavar="STAGE=SHARE", help="parts of the minutes")
    parser.add_argument("--reserve", type=float, default=20.0, help="seconds kept for the end (default %(default)g)")
    parser.add_argument("--bf16", action="store_true", help="on a processor: compute in bfloat16 (AVX512-BF16, AMX)")
    parser.add_argument("--batch", type=int, help="of the denoisers")
    parser.add_argument("--compile", action="store_true", help="compile the flow model's transformer first (needs g++)")
    parser.add_argument(
        "--teacher", type=Path, metavar="FOLDER", help="a pocket model that flow and turbo learn beside, or that grows"
    )
    parser.add_argument("--workers", type=int, help="processes that compose")
    parser.add_argument("--step-by-step", action="store_true", help="on a GPU: no CUDA graphs")
    parser.add_argument("--contiguous", action="store_true", help="U-Nets in the plain layout, not channels last")
    args = parser.parse_args(argv)
    stages = [name for text in args.stages for name in text.split(",")]
    for name in stages:
        if name not in SHARES:
            parser.error(f"a stage is one of {', '.join(SHARES)}, got {name!r}")
    try:
        shares = _shares(args.shares) if args.shares else {}
    except ValueError as error:
        parser.error(str(error))
    if "grow" in stages and not args.teacher:
        parser.error("to grow needs --teacher FOLDER: the pocket model whose VAE it is")
    plan = Plan(
        args.work, args.art, stages, args.minutes, shares, args.device, args.bf16, not args.step_by_step,
        args.compile, args.reserve, workers=args.workers,
    )  # fmt: skip
    if args.device == "cuda":
        plan = gpu(plan)
    if args.teacher:
        try:
            plan = beside(plan, args.teacher)
        except FileNotFoundError as error:
            parser.error(f"--teacher needs the folder of a pocket model, got {str(args.teacher)!r}: {error}")
    pocket = dataclasses.replace(plan.pocket, channels_last=not args.contiguous)
    plan = dataclasses.replace(plan, pocket=pocket, turbo=dataclasses.replace(plan.turbo, pocket=pocket))
    if args.batch:
        plan = dataclasses.replace(
            plan,
            pocket=dataclasses.replace(plan.pocket, batch=args.batch),
            flow=dataclasses.replace(plan.flow, batch=args.batch),
            turbo=dataclasses.replace(plan.turbo, batch=args.batch),
        )
    _prepare(args.device)
    out = os.environ.get("OUT")
    failed = Everything(plan, Path(out) if out else None, BEGUN).run()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
