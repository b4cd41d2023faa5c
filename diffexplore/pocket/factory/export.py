"""Trained denoisers as diffusers folders, and what they draw as sheets and strips to look at.

python -m diffexplore.pocket.factory.export sheet --out FOLDER  # the prompts of sheet.txt, by an exported model
python -m diffexplore.pocket.factory.export psnr --art FOLDER   # how well its VAE keeps pictures it never saw
python -m diffexplore.pocket.factory.export adopt --out FOLDER  # exported weights as checkpoints to go on from
python -m diffexplore.pocket.factory.export examples --art FOLDER  # the composed pictures that ship
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexplore.pocket import EXAMPLES, examples
from diffexplore.pocket.factory import flow, scenes, unet, vae
from diffexplore.pocket.factory.critic import make_heads
from diffexplore.pocket.factory.sheets import save_grid
from diffexplore.pocket.factory.stage import Budget, Stage
from diffexplore.pocket.judge import named
from diffexplore.pocket.world import NEAR, Scene, vocabulary
from diffexplore.words import sentence

if TYPE_CHECKING:
    import torch

SHEET = Path(__file__).parents[1] / "sheet.txt"
WEIGHTS = Path(__file__).parents[1] / "weights"
CELL = 128
"""Pixels a side of a picture on a sheet."""
SMALL = 64
"""And on a strip of how a model learned."""
SEED = 2026

LEARN = (
    "a fox in the snow", "a red car in a city at noon", "a castle in the mountains at dawn",
    "a penguin in the snow at night", "a silhouette of a tree at golden hour", "a blue dog in a forest",
    "a sketch of a cat", "a sailboat by the sea at golden hour",
)  # fmt: skip
"""What is drawn again and again while a model learns, with the same seeds."""


# --- folders -------------------------------------------------------------------------------------------------------


def write_folder(pipeline: Any, out: Path) -> None:
    """A pipeline as a diffusers folder in fp16, loadable with no argument but its path.

    Whatever lay there before is replaced; the pipeline stays as it is.
    """
    import torch

    made = type(pipeline)(**{name: _copied(part) for name, part in _components(pipeline).items()})
    part_of = out.with_name(f"{out.name}.part")
    shutil.rmtree(part_of, ignore_errors=True)
    for part in made.components.values():
        if isinstance(part, torch.nn.Module):
            torch.nn.Module.half(part)
    made.save_pretrained(part_of, safe_serialization=True)
    for config in part_of.glob("text_encoder*/config.json"):
        # transformers would otherwise load text encoders as they are stored (fp16) and diffusers the rest in fp32.
        fields = json.loads(config.read_text())
        fields["dtype"] = "float32"
        config.write_text(json.dumps(fields, indent=2) + "\n")
    for config in part_of.glob("*/config.json"):  # where it was read from says nothing to others
        fields = json.loads(config.read_text())
        if fields.pop("_name_or_path", None) is not None:
            config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    for file in part_of.rglob("*.safetensors"):
        file.chmod(0o644)
    (part_of / "words.json").write_text(json.dumps(vocabulary(), indent=0) + "\n")
    (part_of / "near.json").write_text(json.dumps(NEAR, indent=0) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    part_of.replace(out)


def _components(pipeline: Any) -> dict[str, Any]:
    extra = {}
    if "requires_safety_checker" in pipeline.config:
        extra["requires_safety_checker"] = False
    return {**pipeline.components, **extra}


def _copied(part: Any) -> Any:
    import torch

    return copy.deepcopy(part).cpu() if isinstance(part, torch.nn.Module) else part


# --- sheets --------------------------------------------------------------------------------------------------------


def samples(pipeline: Any, prompts: Sequence[str], steps: int, guidance: float = 5.0, at_once: int = 8) -> torch.Tensor:
    """(N, 3, H, W) in -1..1: a picture of each prompt, with its place as its seed."""
    import torch

    made = []
    # The flow model's T5 answers with zeros, of which the start and end of an empty text say as much as 256 tokens.
    short = {"max_sequence_length": 2} if hasattr(pipeline, "text_encoder_3") else {}
    for start in range(0, len(prompts), at_once):
        batch = list(prompts[start : start + at_once])
        generators = [torch.Generator("cpu").manual_seed(start + k) for k in range(len(batch))]
        out = pipeline(
            batch, num_inference_steps=steps, guidance_scale=guidance, generator=generators, output_type="pt", **short
        )
        made.append((out.images * 2 - 1).float().cpu())
    return torch.cat(made)


def draw_sheet(pipeline: Any, path: Path, steps: int, guidance: float = 5.0) -> None:
    """The prompts of ``sheet.txt``, eight to a row."""
    on_gpu = str(pipeline.device).startswith("cuda")
    made = samples(pipeline, SHEET.read_text().splitlines(), steps, guidance, at_once=64 if on_gpu else 8)
    save_grid(made, path, columns=8, side=CELL)


def learn_row(pipeline: Any, work: Path, name: str, step: int, steps: int) -> None:
    """What a model draws of `LEARN` after so many steps of training, kept in ``work/learn``."""
    (work / "learn").mkdir(exist_ok=True)
    save_grid(samples(pipeline, LEARN, steps), work / "learn" / f"{name}-{step:08}.png", len(LEARN), CELL)


def learn_strip(work: Path, name: str, out: Path) -> None:
    """The rows of `learn_row`, the earliest first, small, as one picture. Nothing is written where there are none."""
    from PIL import Image

    wide = SMALL * len(LEARN)
    rows = [Image.open(path).convert("RGB") for path in sorted((work / "learn").glob(f"{name}-*.png"))]
    strip = Image.new("RGB", (wide, SMALL * len(rows)))
    for place, row in enumerate(rows):
        strip.paste(row.resize((wide, SMALL), Image.Resampling.LANCZOS), (0, SMALL * place))
    if rows:
        strip.save(out)


def open_folder(folder: Path) -> Any:
    """An exported folder as whatever pipeline it is, silent.

    Raises:
        OSError: it is no diffusers folder.
    """
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def steps_of(pipeline: Any) -> int:
    """How many steps a model is looked at with."""
    return 4 if type(pipeline).__name__ == "LatentConsistencyModelPipeline" else 20


def draw_examples(art: str, out: Path = EXAMPLES) -> None:
    """Compose the pictures of `pocket.example` anew: those that their captions say, each with its place as its seed."""
    import numpy as np
    from PIL import Image

    cutouts = scenes.Art(art)
    for seed, name in enumerate(examples()):
        told = named(name)
        flaws = (told.pop("quality"),) if "quality" in told else ()
        pixels = scenes.draw(Scene(**told, flaws=flaws), cutouts, np.random.default_rng([SEED, seed]))
        Image.fromarray(pixels).save(out / f"{name.replace(' ', '_')}.png", optimize=True)


# --- exported weights, measured and taken up again -------------------------------------------------------------------


def psnr(folder: Path, art: str, count: int = 256, side: int | None = None) -> float:
    """Peak signal-to-noise ratio in dB (mean over pictures) of an exported VAE on clean pictures it never saw.

    Args:
        folder: the exported model.
        art: unpacked npm package of the subjects' cut-outs.
        count: how many pictures.
        side: pixels a side of them; None: as many as it draws. Others it is given made smaller, see `vae.psnr`.
    """
    from diffusers import AutoencoderKL

    made: Any = AutoencoderKL.from_pretrained(folder / "vae")
    return vae.psnr(made.eval(), art, side or made.config.sample_size, count)


def adopt(work: Path, folder: Path, of: Path | None = None) -> None:
    """Take an exported model as the checkpoint of a stage that begins, so that training goes on from its weights.

    A checkpoint that the stage has is replaced.

    Args:
        work: folder of the checkpoints.
        folder: the exported model.
        of: folder of the teacher that a fast model was distilled from, where `work` has another now: what
            distilling changed is then put on top of the new teacher, and nearly makes that one's fast model
            (arithmetic of tasks, https://arxiv.org/abs/2212.04089).

    Raises:
        FileNotFoundError: with `of`, if `work` has no teacher.
        ValueError: `of` is given beside a model that is no fast one.
    """
    import torch

    pipeline = open_folder(folder)
    fast = hasattr(pipeline, "unet") and pipeline.unet.config.time_cond_proj_dim is not None
    if of is not None and not fast:
        raise ValueError(f"only a fast model has a teacher, {folder.name} was not distilled")
    if of is not None:
        _move(pipeline.unet, open_folder(of).unet, work)
    work.mkdir(parents=True, exist_ok=True)
    pipeline.tokenizer.save_pretrained(work / "tokenizer")
    pipeline.vae.save_pretrained(work / "vae")
    parts: dict[str, Any]
    if hasattr(pipeline, "transformer"):
        name, rate = "flow", flow.RECIPE.rate
        parts = {"text": pipeline.text_encoder, "text_2": pipeline.text_encoder_2, "transformer": pipeline.transformer}
    elif fast:
        name, rate, parts = "turbo", unet.RECIPE.rate, {"unet": pipeline.unet}
        parts["critic"] = make_heads(tuple(pipeline.unet.config.block_out_channels))
    else:
        name, rate, parts = "unet", unet.RECIPE.rate, {"text": pipeline.text_encoder, "unet": pipeline.unet}
    for suffix in ("", "-stable"):  # or the stage would go on from there
        (work / f"{name}{suffix}.pt").unlink(missing_ok=True)
    parts = {key: part.to(torch.float32) for key, part in parts.items()}
    turned = flow.matrices(parts["transformer"]) if name == "flow" else []
    stage = Stage(work, name, parts, steps=1, budget=Budget(), rate=rate, ema=0.0, turned=turned, turn=flow.RECIPE.turn)
    stage.save("-stable")
    stage.save()


def _move(fast: torch.nn.Module, teacher: torch.nn.Module, work: Path) -> None:
    """Put what tells `fast` from its `teacher` on top of the teacher of `work`, in place."""
    import torch

    theirs = torch.load(work / "unet.pt", weights_only=True, map_location="cpu")["average"]["unet"]
    with torch.no_grad():
        for name, value in teacher.named_parameters():
            own = fast.get_parameter(name)
            own.copy_(theirs[name] + (own.float() - value.float()))


def main(argv: list[str] | None = None) -> None:
    """Draw a sheet or the examples, measure a VAE, or take weights up again."""
    parser = argparse.ArgumentParser(
        prog="python -m diffexplore.pocket.factory.export", description=__doc__.splitlines()[0]
    )
    parser.add_argument("what", choices=["sheet", "psnr", "adopt", "examples"])
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder of checkpoints (for adopt)")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the exported folder")
    parser.add_argument("--art", help="unpacked npm package @lobehub/fluent-emoji-3d (for psnr, examples)")
    parser.add_argument("--side", type=int, help="pixels a side of its pictures (for psnr; default: as it draws)")
    parser.add_argument(
        "--of", type=Path, metavar="FOLDER", help="the teacher that --out had; --work has another (for adopt)"
    )
    args = parser.parse_args(argv)
    if args.what in ("psnr", "examples") and not args.art:
        parser.error(f"{args.what} needs --art FOLDER: npm pack @lobehub/fluent-emoji-3d, then unpack it")
    if args.what == "sheet":
        pipeline = open_folder(args.out)
        suffix = re.sub("weights-?", "", args.out.name)
        name = f"sheet-{suffix}.png" if suffix else "sheet.png"
        draw_sheet(pipeline, args.out.with_name(name), steps_of(pipeline))
    elif args.what == "psnr":
        print(f"{psnr(args.out, args.art, side=args.side):.2f} dB")
    elif args.what == "examples":
        draw_examples(args.art)
    else:
        try:
            adopt(args.work, args.out, args.of)
        except (OSError, ValueError) as error:
            parser.error(sentence(error))


if __name__ == "__main__":
    main()
