"""Teach the pocket model a new subject or style from a few pictures, in minutes: a LoRA.

    python -m diffexplore.pocket.lora FOLDER --token "zib"                  # a subject: "a zib in the snow"
    python -m diffexplore.pocket.lora FOLDER --token "synthwave" --kind style    # a style: "a fox, synthwave style"

FOLDER holds 10 to 30 pictures. What is written, ``zib.safetensors``, is loaded by ``model.load_lora`` here and by
``pipeline.load_lora_weights`` in plain diffusers; ``zib-sheet.png`` beside it shows what it does to a few prompts.

A picture's caption is, in this order, the text of ``NAME.txt`` beside it; its own file name where that is made of words
the model knows and the token ("a zib in the snow 2.png"); or one of a few plain templates around the token. The more a
caption says of what else is in the picture, the less of that ends up in the token.

Sources: LoRA, https://arxiv.org/abs/2106.09685; learning a subject from a few pictures while keeping what the model
knew by its own pictures (prior preservation), https://arxiv.org/abs/2208.12242; min-SNR weights,
https://arxiv.org/abs/2303.09556. The prior's target here is what the unadapted model predicts, not the noise: that asks
the adapted model to stay as it was rather than to learn its own pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import logging
import math
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffexplore.pipelines.open import quiet
from diffexplore.pocket.lesson import (
    WEIGHTS,
    Lesson,
    captions_of,
    latents_of,
    prior_prompts,
    read_pictures,
)  # fmt: skip
from diffexplore.pocket.world import article
from diffexplore.progress import progress as progress_bar
from diffexplore.record.file import written
from diffexplore.words import sentence, shown

logger = logging.getLogger(__name__)

ADAPTERS = Path(__file__).with_name("adapters")

KINDS = ("subject", "style")
RANK = 8
STEPS = 600
MINUTES = 3.0
RATE = 2e-3
PRIOR = 48  # pictures the model draws of its own world before it learns

PIECES = 16  # of the tokenizer in a token; a prompt has room for 38

UNET_TARGETS = (
    r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2|time_emb_proj)"
    r"|conv_in|conv_out"
)
TEXT_TARGETS = r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


# --- training --------------------------------------------------------------------------------------------------------


def train_lora(
    folder: str | os.PathLike[str],
    token: str,
    *,
    out: str | os.PathLike[str] | None = None,
    kind: str = "subject",
    templates: Sequence[str] | None = None,
    rank: int = RANK,
    steps: int = STEPS,
    minutes: float = MINUTES,
    rate: float = RATE,
    prior: int = PRIOR,
    flip: bool = True,
    seed: int = 0,
    sheet: bool = True,
    progress: bool = True,
) -> Path:
    """Teach the pocket model a new word from pictures, and write what it learned as a LoRA.

    Low-rank changes are trained for the attention, the convolutions and the projections of the U-Net and for the
    text encoder; all else stays as it ships, and the shipped weights are not changed. Each batch is `BATCH` noised
    pictures and `PRIOR_BATCH` of the model's own world, on which the adapted model is asked to predict what it
    predicted before.

    Args:
        folder: 3 to 500 pictures (10 to 30 are right) of any size, in any format that PIL reads by itself.
        token: the new word or words, as it will be said in prompts; letters, digits and plain punctuation. A made-up
            word is best: a word that the model knows changes its meaning.
        out: the ``.safetensors`` file to write, in a folder that exists; by default the token's name, here.
        kind: "subject" ("a zib in the snow") or "style" ("a fox in the snow, synthwave style").
        templates: captions for pictures that say nothing themselves, each with ``{token}`` in it.
        rank: of the changes; the file's size is proportional to it.
        steps, minutes: the length; whichever is used up first ends the training. The minutes count from the call on;
            writing the file and drawing the sheet come to it.
        rate: AdamW's learning rate; it rises over 20 steps and falls to a fiftieth over the second half.
        prior: how many pictures the model draws of its own world, to keep what it knows; 0: none.
        flip: show each picture mirrored too. Turn it off where left and right matter.
        seed: decides all randomness. Equal seeds give equal files on one machine as long as the steps, not the
            minutes, end the training.
        sheet: draw ``OUT-sheet.png``, a few prompts without, with half of and with all of the adapter.
        progress: show a progress bar.

    Returns:
        The file: fp16 safetensors, loadable by ``pipeline.load_lora_weights`` and ``Model.load_lora``.

    Raises:
        ValueError: one sentence, before any work, for each argument that cannot be used.
        ImportError: without peft; says how to get it.
        RuntimeError: the loss is no longer a number, as the rate is too high.
    """
    begun = time.monotonic()
    target = _check(token, out, kind, templates, rank, steps, minutes, rate, prior, seed)
    token = " ".join(token.lower().split())
    pictures = read_pictures(folder)
    if target.resolve().parent == Path(folder).resolve():
        # The sheet would be one of the pictures next time.
        raise ValueError(f"{shown(str(target), 200)} is in the folder of pictures: name a file elsewhere")
    if importlib.util.find_spec("peft") is None:
        raise ImportError("teaching a LoRA needs peft: pip install peft")
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = pocket_pipeline()
        texts = [captions_of(picture, token, kind, templates) for picture in pictures]
        _fits(pipeline.tokenizer, [text for group in texts for text in group])
        lesson = Lesson(pipeline, latents_of(pipeline.vae, pictures, flip), texts, seed)
        if prior:
            lesson.remember(prior_prompts(token, prior, seed, [group[0] for group in texts] if kind == "style" else []))
        adapt(pipeline, rank)
        loss = _learn(lesson, steps, begun + 60 * minutes, rate, progress)
        about = {"token": token, "kind": kind, "pictures": len(pictures), "seed": seed, **loss}
        _write(pipeline, target, about)
        if sheet:
            draw_sheet(target, sheet_of(target), sheet_prompts(token, kind))
    return target


def _check(
    token: object, out: str | os.PathLike[str] | None, kind: str, templates: Sequence[str] | None, rank: int,
    steps: int, minutes: float, rate: float, prior: int, seed: int,
) -> Path:  # fmt: skip
    """The file to write; a ValueError in one sentence for what cannot be used."""
    if not isinstance(token, str) or not token.strip():
        raise ValueError(f"the token must be a word to be said in prompts, such as 'zib', got {shown(token)}")
    if kind not in KINDS:
        raise ValueError(f"kind must be 'subject' or 'style', got {shown(kind)}")
    for name, value, least, most in (("rank", rank, 1, 64), ("steps", steps, 1, 100_000), ("prior", prior, 0, 1000)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{name} must be a whole number from {least} to {most}, got {shown(value)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"seed must be a whole number from 0 to {2**32 - 1}, got {shown(seed)}")
    for name, number, highest in (("minutes", minutes, 10_000), ("rate", rate, 0.1)):
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number <= highest:
            raise ValueError(f"{name} must be a number above 0 and at most {highest}, got {shown(number)}")
    if templates is not None:
        _check_templates(templates)
    _check_token(token)
    return _target(out, token)


def _check_templates(templates: Sequence[str]) -> None:
    if isinstance(templates, str) or not templates:
        raise ValueError(f"templates must be a list of texts with {{token}} in them, got {shown(templates)}")
    for text in templates:
        try:
            fine = "zib" in text.format(token="zib", a="a")
        except (AttributeError, IndexError, KeyError, ValueError):
            fine = False
        if not fine:
            raise ValueError(f"a template must have {{token}} in it and no other field than {{a}}, got {shown(text)}")


def _check_token(token: str) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    pieces = tokenizer(token, add_special_tokens=False, truncation=False, verbose=False).input_ids
    if not pieces or tokenizer.unk_token_id in pieces:
        raise ValueError(
            f"the token must be of letters a to z, digits and plain punctuation, all the tokenizer knows, "
            f"got {shown(token)}"
        )
    if len(pieces) > PIECES:
        raise ValueError(f"the token {shown(token)} has {len(pieces)} pieces for the tokenizer, at most {PIECES} fit")


def _target(out: str | os.PathLike[str] | None, token: str) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "_", token.lower()).strip("_") or "adapter"
    path = Path(f"{slug}.safetensors" if out is None else out).expanduser()
    if path.suffix != ".safetensors":
        raise ValueError(f"the file to write must end in .safetensors, got {shown(str(path), 200)}")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{shown(str(path), 200)} cannot be written: name a file in a folder that can be written to")
    return path


def _fits(tokenizer: Any, texts: list[str]) -> None:
    room = tokenizer.model_max_length - 2
    for text in texts:
        count = len(tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids)
        if count > room:
            raise ValueError(f"a caption must fit into {room} tokens, {shown(text, 200)} has {count}")


def pocket_pipeline() -> Any:
    """The pocket pipeline, a fresh one, with nothing written to the terminal."""
    import torch
    from diffusers import StableDiffusionPipeline

    with quiet():
        pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        part.eval().requires_grad_(False)
    pipeline.unet.to(memory_format=torch.channels_last)
    return pipeline


def adapt(pipeline: Any, rank: int) -> None:
    """Put trainable low-rank changes into the U-Net and the text encoder, which change nothing yet."""
    from peft import LoraConfig

    for part, targets in ((pipeline.unet, UNET_TARGETS), (pipeline.text_encoder, TEXT_TARGETS)):
        # alpha = rank, the one scale that every loader assumes where a file does not say another.
        part.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))


def _learn(lesson: Lesson, steps: int, until: float, rate: float, progress: bool) -> dict[str, float]:
    """Train what `adapt` put in, to a moment of the monotonic clock at most.

    Returns:
        The steps taken, and the loss on the new pictures in the first and the last of them.
    """
    import torch

    parts = (lesson.pipeline.unet, lesson.pipeline.text_encoder)
    weights = [p for part in parts for p in part.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, rate, betas=(0.9, 0.99), weight_decay=0.01)
    losses: list[float] = []
    begun, share = time.monotonic(), 0.0
    bar = progress_bar(steps, "teaching", quiet=not progress)
    while share < 1:
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (len(losses) + 1) / 20) * max(0.02, min(1.0, 2 * (1 - share)))
        loss, mine = lesson.loss()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        losses.append(mine)
        if not math.isfinite(mine):
            raise RuntimeError(f"the loss is {mine} after {len(losses)} steps; take a rate below {rate}")
        # Time counts only where it would end the training, so that equal seeds give equal adapters elsewhere.
        spent = (time.monotonic() - begun) / max(until - begun, 1e-9)
        share = max(len(losses) / steps, spent if spent > 0.5 else 0.0)
        bar.update()
        if len(losses) % 50 == 0 or share >= 1:
            bar.set_postfix_str(f"loss {np.mean(losses[-50:]):.4f}")
    bar.close()
    few = max(1, min(50, len(losses) // 4))
    early, late = float(np.mean(losses[:few])), float(np.mean(losses[-few:]))
    seconds = time.monotonic() - begun
    logger.info("%d steps in %.0f s, loss %.4f at first, %.4f at last", len(losses), seconds, early, late)
    return {"steps": len(losses), "first_loss": round(early, 4), "last_loss": round(late, 4)}


def _write(pipeline: Any, target: Path, about: dict[str, Any]) -> None:
    """The trained changes in diffusers' layout, fp16, with what they are about in the header."""
    import torch
    from peft.utils import get_peft_model_state_dict
    from safetensors.torch import save

    # In peft's names throughout: of a file that mixes them with diffusers' older ones, half is passed over silently.
    tensors = {
        f"{name}.{key}": value.detach().to(torch.float16).contiguous()
        for name, part in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder))
        for key, value in get_peft_model_state_dict(part).items()
    }
    # One entry only: their order in the header is not the same every time, and equal seeds shall give equal files.
    with written(target) as file:
        file.write(save(tensors, {"diffexplore": json.dumps(about)}))


# --- looking at it ---------------------------------------------------------------------------------------------------


def sheet_of(adapter: Path) -> Path:
    """Where the sample sheet of an adapter is."""
    return adapter.with_name(f"{adapter.stem}-sheet.png")


def sheet_prompts(token: str, kind: str) -> list[str]:
    """What a sample sheet asks for: the new word in pictures old and new, and last a prompt without it."""
    if kind == "style":
        said = ["a fox in the snow", "a castle in the mountains at night", "a sailboat by the sea", "a robot in a city"]
        return [*(f"{text}, {token} style" for text in said), "a fox in the snow", "a red car in the desert"]
    noun = f"{article(token)} {token}"
    said = [noun, f"{noun} in a meadow", f"{noun} in the snow at night", f"{noun} in the desert at sunset"]
    return [*said, "a fox in the snow", "a red car in the desert"]


SCALES = (0.0, 0.5, 1.0)
SHEET_STEPS = 20


def draw_sheet(adapter: Path, path: Path, prompts: Sequence[str], scales: Sequence[float] = SCALES) -> None:
    """Draw each prompt (a column) at each scale of the adapter (a row), from equal noise, into one labelled PNG."""
    import torch

    pipeline = pocket_pipeline()
    with quiet():
        pipeline.load_lora_weights(str(adapter.parent), weight_name=adapter.name, adapter_name="new")
    side, left, top = 128, 34, 40
    page = Image.new("RGB", (left + side * len(prompts), top + side * len(scales)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for row, scale in enumerate(scales):
        pipeline.set_adapters(["new"], [scale])
        generators = [torch.Generator().manual_seed(7 + k) for k in range(len(prompts))]
        images = pipeline(
            list(prompts), num_inference_steps=SHEET_STEPS, guidance_scale=5.0, generator=generators
        ).images
        pen.text((4, top + side * row + side // 2 - 6), f"{scale:g}", "black", font)
        for k, image in enumerate(images):
            page.paste(image.resize((side, side), Image.Resampling.NEAREST), (left + side * k, top + side * row))
    for k, prompt in enumerate(prompts):
        pen.multiline_text((left + side * k + 2, 2), _wrapped(prompt, 20), "black", font, spacing=1)
    with written(path) as file:
        page.save(file, "PNG")


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:3])


# --- the adapters that ship ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Example:
    """An adapter taught from pictures drawn here: its token and kind, how many they are, and for how many steps."""

    token: str
    kind: str
    steps: int = STEPS
    pictures: int = 24


SHIPPED = {"dragon": Example("dragon", "subject"), "synthwave": Example("synthwave", "style", steps=700)}


def example_adapter(name: str = "dragon") -> Path:
    """An adapter that ships with the package, for ``model.load_lora``.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    if name not in SHIPPED:
        raise ValueError(f"there is no adapter called {shown(name)}; there are: {', '.join(SHIPPED)}")
    return ADAPTERS / f"{name}.safetensors"


def main(argv: list[str] | None = None) -> None:
    """Teach an adapter from a folder of pictures."""
    parser = argparse.ArgumentParser(prog="python -m diffexplore.pocket.lora", description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder of pictures")
    parser.add_argument("--token", help="the new word, as prompts will say it")
    parser.add_argument("--out", type=Path, help="the .safetensors file to write (default: the token's name, here)")
    parser.add_argument("--kind", default="subject", help="subject (default) or style")
    parser.add_argument("--template", action="append", help="a caption with {token} in it; may be given several times")
    parser.add_argument("--rank", type=int, default=RANK, help="of the changes (default %(default)s)")
    parser.add_argument("--steps", type=int, default=STEPS, help="train so many steps (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="but no longer than this (default %(default)g)")
    parser.add_argument("--rate", type=float, default=RATE, help="learning rate (default %(default)s)")
    parser.add_argument("--prior", type=int, default=PRIOR, help="pictures of its own the model keeps to; 0: none")
    parser.add_argument("--no-flip", action="store_true", help="do not show the pictures mirrored too")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal files (default 0)")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("diffexplore.pocket").setLevel(logging.INFO)
    try:
        path = train_lora(
            args.folder, args.token or "", out=args.out, kind=args.kind, templates=args.template, rank=args.rank,
            steps=args.steps, minutes=args.minutes, rate=args.rate, prior=args.prior, flip=not args.no_flip,
            seed=args.seed,
        )  # fmt: skip
    except (ValueError, ImportError, RuntimeError, OSError) as error:
        parser.error(sentence(error))
    print(told(path))


def told(adapter: Path) -> str:
    """One line about an adapter that was made."""
    return f"{adapter} ({adapter.stat().st_size / 1e6:.2f} MB); what it does: {sheet_of(adapter)}"


if __name__ == "__main__":
    main()
