"""Teach the pocket model a new subject or style from a few pictures, in minutes: a LoRA.

    python -m diffexplore.pocket.lora FOLDER --token "zib"                  # a subject: "a zib in the snow"
    python -m diffexplore.pocket.lora FOLDER --token "synthwave" --kind style    # a style: "a fox, synthwave style"
    python -m diffexplore.pocket.lora example --art FOLDER                  # the adapters that ship, once more

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
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from diffexplore.pocket.factory import scenes
from diffexplore.pocket.factory.train import RECIPE
from diffexplore.words import sentence, shown

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).with_name("weights")
ADAPTERS = Path(__file__).with_name("adapters")

KINDS = ("subject", "style")
RANK = 8
STEPS = 600
MINUTES = 3.0
RATE = 2e-3
BATCH = 10
PRIOR_BATCH = 8
PRIOR = 48  # pictures the model draws of its own world before it learns
PRIOR_NOISES = 16  # noised versions of each of them

LEAST, MOST = 3, 500  # pictures
PIECES = 16  # of the tokenizer in a token; a prompt has room for 38
MAX_PIXELS = 50_000_000

# Only what is true of any picture of the subject or in the style.
TEMPLATES = {
    "subject": ("{a} {token}", "{token}", "the {token}", "a picture of {a} {token}", "an image of {a} {token}"),
    "style": ("a picture, {token} style", "an image, {token} style", "{token} style"),
}

UNET_TARGETS = (
    r".*\.(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2|time_emb_proj)"
    r"|conv_in|conv_out"
)
TEXT_TARGETS = r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


# --- pictures and captions -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture to learn from: (64, 64, 3) uint8 RGB, and what it shows (None: nothing more than the token)."""

    name: str
    pixels: np.ndarray
    caption: str | None = None


def read_pictures(folder: str | os.PathLike[str]) -> list[Picture]:
    """All pictures right in a folder, by name: centre-cropped to a square, 64x64, transparency on white.

    What is no picture is passed over, and one line of the log says so.

    Raises:
        ValueError: there is no such folder, or it holds too few or too many pictures.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"the pictures must be in a folder, {shown(str(folder), 200)} is none")
    found, skipped = [], []
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or file.suffix.lower() in (".txt", ".json") or not file.is_file():
            continue
        try:
            pixels = _read(file)
        except Exception as error:  # every format of PIL fails in its own way
            skipped.append(f"{file.name} ({sentence(error, 100)})")
            continue
        beside = file.with_suffix(".txt")
        text = " ".join(beside.read_text("utf-8", errors="replace").split()) if beside.is_file() else ""
        found.append(Picture(file.stem, pixels, text or None))
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        logger.warning("passed over what cannot be read as a picture: %s%s", ", ".join(skipped[:3]), more)
    if not LEAST <= len(found) <= MOST:
        raise ValueError(
            f"a LoRA is taught from {LEAST} to {MOST} pictures (10 to 30 are right), "
            f"{shown(str(folder), 200)} holds {len(found)}"
        )
    return found


def _formats() -> list[str]:
    """The formats PIL reads by itself; the others would start another program on somebody's file."""
    Image.init()
    return [name for name in Image.OPEN if name not in ("EPS", "WMF", "FPX", "MIC")]


def _read(file: Path) -> np.ndarray:
    with Image.open(file, formats=_formats()) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width}x{opened.height} pixels are more than {MAX_PIXELS:,}")
        picture: Image.Image = ImageOps.exif_transpose(opened)
    if picture.mode.startswith(("I", "F")):  # 16 bits or floats, which PIL would cut off at 255
        values = np.asarray(picture, np.float32)
        top = 65535.0 if values.max() > 255 else 255.0 if values.max() > 1 else 1.0
        picture = Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))
    picture = picture.convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return np.asarray(ImageOps.fit(picture, (scenes.SIZE, scenes.SIZE), Image.Resampling.LANCZOS))


def _known_words() -> frozenset[str]:
    return frozenset(json.loads((WEIGHTS / "words.json").read_text("utf-8")))


def _said_by_name(stem: str, token: str) -> str | None:
    """The caption that a file name is, None where it is just a name: every word must be known or the token's."""
    words = re.sub(r"[_\s]+", " ", re.sub(r"[\s_-]*\(?\d+\)?$", "", stem)).strip().lower()
    plain = _words(words)
    known = _known_words() | {*token.split(), "style"}
    return words if plain and all(word in known for word in plain) else None


def captions_of(picture: Picture, token: str, kind: str, templates: Sequence[str] | None = None) -> list[str]:
    """Every caption that a picture is trained with.

    Args:
        picture: what was read.
        token: the new word.
        kind: "subject" or "style".
        templates: texts with ``{token}`` (and ``{a}``, its article) instead of the usual ones.
    """
    usual = [t.format(token=token, a=scenes._article(token)) for t in templates or TEMPLATES[kind]]
    text = picture.caption or _said_by_name(picture.name, token)
    if text is None:
        return usual
    if re.search(rf"(?<![\w-]){re.escape(token)}(?![\w-])", text.lower()):
        return [text]
    return [f"{text}, {token} style"] if kind == "style" else [f"{usual[0]}, {text}"]


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
        pipeline = _open()
        texts = [captions_of(picture, token, kind, templates) for picture in pictures]
        _fits(pipeline.tokenizer, [text for group in texts for text in group])
        lesson = _Lesson(pipeline, _latents(pipeline.vae, pictures, flip), texts, seed)
        if prior:
            lesson.remember(
                _prior_prompts(token, prior, seed, [group[0] for group in texts] if kind == "style" else [])
            )
        _adapt(pipeline, rank)
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
    path = Path(f"{slug}.safetensors" if out is None else out)
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


def _open() -> Any:
    """The pocket pipeline, a fresh one, with nothing written to the terminal."""
    import torch
    from diffusers import StableDiffusionPipeline

    from diffexplore.pipelines.open import quiet

    with quiet():
        pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS, dtype=torch.float32, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        part.eval().requires_grad_(False)
    pipeline.unet.to(memory_format=torch.channels_last)
    return pipeline


def _latents(vae: Any, pictures: Sequence[Picture], flip: bool) -> torch.Tensor:
    """(N, 1 or 2, 4, 16, 16): the latents of each picture, and of its mirror image."""
    import torch

    pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).permute(0, 3, 1, 2).float()
    views = [pixels, pixels.flip(-1)] if flip else [pixels]
    with torch.no_grad():
        coded = [
            torch.cat([vae.encode(part / 127.5 - 1).latent_dist.mode() for part in view.split(32)]) for view in views
        ]
    return torch.stack(coded, 1) * vae.config.scaling_factor


def _prior_prompts(token: str, count: int, seed: int, said: Sequence[str] = ()) -> list[str]:
    """Captions of the model's own world, none of which says a word of the token.

    Up to half of them are the captions `said` of a style's pictures without the style: without that contrast the words
    beside the token would learn the style too. The others are any captions.
    """
    rng = np.random.default_rng([seed, 1])
    mine = set(token.split())
    plain = (re.sub(rf",? *{re.escape(token)} style$", "", text.lower()) for text in said)
    out = [text for text in dict.fromkeys(plain) if text and mine.isdisjoint(_words(text))]
    out = [out[k] for k in rng.permutation(len(out))[: count // 2]]
    while len(out) < count:
        text = scenes.caption(scenes.sample_scene(rng, clean=True), rng)
        if mine.isdisjoint(_words(text)):
            out.append(text)
    return out


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s,]+", text)


class _Lesson:
    """What is learned from: noised latents with captions and the noise in them, and what the model knew before.

    Args:
        pipeline: the pocket pipeline, not adapted yet.
        latents: (N, views, 4, 16, 16).
        texts: the captions of each picture.
        seed: of the noise and of what is picked.
    """

    def __init__(self, pipeline: Any, latents: torch.Tensor, texts: list[list[str]], seed: int) -> None:
        import torch

        self.pipeline, self.latents = pipeline, latents
        self.generator = torch.Generator().manual_seed(seed)
        self.words = [self._ids(group) for group in texts]
        self.clean = pipeline.scheduler.alphas_cumprod
        snr = self.clean / (1 - self.clean)
        weight = snr.clamp(max=RECIPE.snr_gamma) / snr
        # As in train.py: noise levels that count little are drawn seldom rather than scaled down.
        self.chance = weight.clamp(min=0.2)
        self.weight = weight / self.chance * self.chance.mean()
        self.kept: tuple[torch.Tensor, ...] | None = None

    def _ids(self, texts: Sequence[str]) -> torch.Tensor:
        import torch

        tokenizer = self.pipeline.tokenizer
        room = tokenizer.model_max_length
        return torch.tensor(tokenizer(list(texts), padding="max_length", truncation=True, max_length=room).input_ids)

    def _pick(self, below: int, count: int) -> torch.Tensor:
        import torch

        return torch.randint(below, (count,), generator=self.generator)

    def _noised(self, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, 4, 16, 16) latents -> the same with noise, their timesteps (B,), and the noise."""
        import torch

        t = torch.multinomial(self.chance, len(z), replacement=True, generator=self.generator)
        noise = torch.randn(z.shape, generator=self.generator)
        a = self.clean[t].view(-1, 1, 1, 1)
        return a.sqrt() * z + (1 - a).sqrt() * noise, t, noise

    def _guess(self, x: torch.Tensor, t: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        import torch
        from torch.nn.attention import SDPBackend, sdpa_kernel

        x = x.contiguous(memory_format=torch.channels_last)
        with sdpa_kernel(SDPBackend.MATH):  # on a CPU the fused kernel is slow backwards at these sizes
            guess: torch.Tensor = self.pipeline.unet(x, t, self.pipeline.text_encoder(words)[0]).sample
        return guess

    def remember(self, prompts: list[str]) -> None:
        """Draw `prompts`, and keep what the model predicts on noised versions of them, with and without the prompt."""
        import torch

        drawn = []
        with torch.no_grad():
            for k in range(0, len(prompts), 8):
                drawn.append(
                    self.pipeline(
                        prompts[k : k + 8], num_inference_steps=12, guidance_scale=3.0, output_type="latent",
                        generator=self.generator,
                    ).images
                )  # fmt: skip
            z = torch.cat(drawn).repeat(PRIOR_NOISES, 1, 1, 1)
            words = self._ids(prompts).repeat(PRIOR_NOISES, 1)
            words[::4] = self._ids([""])
            x, t, _ = self._noised(z)
            parts = zip(x.split(32), t.split(32), words.split(32), strict=True)
            self.kept = (x, t, words, torch.cat([self._guess(*part) for part in parts]))

    def loss(self) -> tuple[torch.Tensor, float]:
        """The loss of one batch to learn from, and the part of it which is on the new pictures."""
        import torch

        size = BATCH + (0 if self.kept is not None else PRIOR_BATCH)
        which, view = self._pick(len(self.latents), size), self._pick(self.latents.shape[1], size)
        said = self._pick(1_000_000, size)
        words = torch.stack(
            [self.words[i][k % len(self.words[i])] for i, k in zip(which.tolist(), said.tolist(), strict=True)]
        )
        x, t, aim = self._noised(self.latents[which, view])
        if self.kept is not None:
            old = self._pick(len(self.kept[0]), PRIOR_BATCH)
            mine = (x, t, words, aim)
            x, t, words, aim = (torch.cat([new, kept[old]]) for new, kept in zip(mine, self.kept, strict=True))
        error = (self._guess(x, t, words) - aim).square().mean((1, 2, 3)) * self.weight[t]
        return error.mean(), float(error[:size].detach().mean())


def _adapt(pipeline: Any, rank: int) -> None:
    """Put trainable low-rank changes into the U-Net and the text encoder, which change nothing yet."""
    from peft import LoraConfig

    for part, targets in ((pipeline.unet, UNET_TARGETS), (pipeline.text_encoder, TEXT_TARGETS)):
        # alpha = rank, the one scale that every loader assumes where a file does not say another.
        part.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))


def _learn(lesson: _Lesson, steps: int, until: float, rate: float, progress: bool) -> dict[str, float]:
    """Train what `_adapt` put in, to a moment of the monotonic clock at most.

    Returns:
        The steps taken, and the loss on the new pictures in the first and the last of them.
    """
    import torch
    from tqdm import tqdm

    parts = (lesson.pipeline.unet, lesson.pipeline.text_encoder)
    weights = [p for part in parts for p in part.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, rate, betas=(0.9, 0.99), weight_decay=0.01)
    losses: list[float] = []
    begun, share = time.monotonic(), 0.0
    bar = tqdm(total=steps, desc="teaching", mininterval=2, disable=not progress)
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
    from safetensors.torch import save_file

    # In peft's names throughout: of a file that mixes them with diffusers' older ones, half is passed over silently.
    tensors = {
        f"{name}.{key}": value.detach().to(torch.float16).contiguous()
        for name, part in (("unet", pipeline.unet), ("text_encoder", pipeline.text_encoder))
        for key, value in get_peft_model_state_dict(part).items()
    }
    # One entry only: their order in the header is not the same every time, and equal seeds shall give equal files.
    part = target.with_suffix(".part")
    save_file(tensors, part, {"diffexplore": json.dumps(about)})
    part.chmod(0o644)
    part.replace(target)


# --- looking at it ---------------------------------------------------------------------------------------------------


def sheet_of(adapter: Path) -> Path:
    """Where the sample sheet of an adapter is."""
    return adapter.with_name(f"{adapter.stem}-sheet.png")


def sheet_prompts(token: str, kind: str) -> list[str]:
    """What a sample sheet asks for: the new word in pictures old and new, and last a prompt without it."""
    if kind == "style":
        said = ["a fox in the snow", "a castle in the mountains at night", "a sailboat by the sea", "a robot in a city"]
        return [*(f"{text}, {token} style" for text in said), "a fox in the snow", "a red car in the desert"]
    noun = f"{scenes._article(token)} {token}"
    said = [noun, f"{noun} in a meadow", f"{noun} in the snow at night", f"{noun} in the desert at sunset"]
    return [*said, "a fox in the snow", "a red car in the desert"]


SCALES = (0.0, 0.5, 1.0)
SHEET_STEPS = 20


def draw_sheet(adapter: Path, path: Path, prompts: Sequence[str], scales: Sequence[float] = SCALES) -> None:
    """Draw each prompt (a column) at each scale of the adapter (a row), from equal noise, into one labelled PNG."""
    import torch

    from diffexplore.pipelines.open import quiet

    pipeline = _open()
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
    page.save(path)


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
DRAGON = "1f409"  # the emoji's code point


def example_adapter(name: str = "dragon") -> Path:
    """An adapter that ships with the package, for ``model.load_lora``.

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    if name not in SHIPPED:
        raise ValueError(f"there is no adapter called {shown(name)}; there are: {', '.join(SHIPPED)}")
    return ADAPTERS / f"{name}.safetensors"


class _OneSubject(scenes.Art):
    """Art in which every subject looks like one emoji, which is not among the subjects."""

    def __init__(self, folder: str | Path, code: str) -> None:
        self.code = code
        super().__init__(folder)

    def _path(self, subject: str) -> Path:
        return self.folder / "assets" / f"{self.code}.webp"


def example_pictures(name: str, art: str | Path, folder: Path) -> None:
    """Draw the pictures that an adapter of `SHIPPED` is taught from into `folder`; their names are their captions.

    Raises:
        ValueError: `art` is not the unpacked package of emoji.
    """
    example = SHIPPED[name]
    try:
        cutouts = _OneSubject(art, DRAGON) if example.kind == "subject" else scenes.Art(art)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    names = list(scenes.SUBJECTS)
    for k in range(example.pictures):
        rng = np.random.default_rng([2026, k])
        setting, light = list(scenes.SETTINGS)[k % 8], list(scenes.LIGHTS)[(k // 8 + k) % 4]
        subject = names[(k * 31 + 5) % len(names)]
        scene = scenes.Scene(subject, setting=setting, light=None if setting == "space" else light)
        pixels = scenes.draw(scene, cutouts, rng)
        noun = example.token if example.kind == "subject" else subject
        said = f"{scenes._article(noun)} {noun} {scenes.SETTINGS[setting][0]}"
        said += f" {scenes.LIGHTS[light][0]}" if scene.light else ""
        if example.kind == "style":
            pixels, said = synthwave(pixels), f"{said}, {example.token} style"
        Image.fromarray(pixels).save(folder / f"{said} {k:02}.png")


_SYNTHWAVE = np.array([(20, 8, 60), (120, 20, 130), (240, 60, 110), (255, 170, 70), (255, 245, 190)], np.float32)


def synthwave(pixels: np.ndarray) -> np.ndarray:
    """A picture in the colours of an eighties sunset, from dark violet over pink to yellow by its brightness.

    (64, 64, 3) uint8 to the same.
    """
    grey = np.asarray(Image.fromarray(pixels).convert("L"), np.float32)
    place = (grey - grey.min()) / max(float(np.ptp(grey)), 1.0) * (len(_SYNTHWAVE) - 1)
    out = [np.interp(place, np.arange(len(_SYNTHWAVE)), band) for band in _SYNTHWAVE.T]
    return np.stack(out, -1).round().astype(np.uint8)


def rebuild_examples(art: str | Path, **options: Any) -> list[Path]:
    """Draw the pictures and teach the adapters that ship, into the package. `options` are those of `train_lora`."""
    made = []
    for name, example in SHIPPED.items():
        with tempfile.TemporaryDirectory() as folder:
            example_pictures(name, art, Path(folder))
            ADAPTERS.mkdir(exist_ok=True)
            own = {"kind": example.kind, "out": example_adapter(name), "steps": example.steps, **options}
            made.append(train_lora(folder, example.token, **own))
    return made


def main(argv: list[str] | None = None) -> None:
    """Teach an adapter from a folder of pictures, or the ones that ship once more."""
    parser = argparse.ArgumentParser(prog="python -m diffexplore.pocket.lora", description=__doc__.splitlines()[0])
    parser.add_argument("folder", help="folder of pictures; or the word example: the adapters that ship, from --art")
    parser.add_argument("--token", help="the new word, as prompts will say it")
    parser.add_argument("--out", type=Path, help="the .safetensors file to write (default: the token's name, here)")
    parser.add_argument("--kind", default="subject", help="subject (default) or style")
    parser.add_argument("--template", action="append", help="a caption with {token} in it; may be given several times")
    parser.add_argument("--rank", type=int, default=RANK, help="of the changes (default %(default)s)")
    parser.add_argument("--steps", type=int, help=f"train so many steps (default {STEPS}; example: each its own)")
    parser.add_argument(
        "--minutes", type=float, help=f"but no longer than this (default {MINUTES:g}; example: as long as it takes)"
    )
    parser.add_argument("--rate", type=float, default=RATE, help="learning rate (default %(default)s)")
    parser.add_argument("--prior", type=int, default=PRIOR, help="pictures of its own the model keeps to; 0: none")
    parser.add_argument("--no-flip", action="store_true", help="do not show the pictures mirrored too")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal files (default 0)")
    parser.add_argument("--art", help="example: the unpacked npm package @lobehub/fluent-emoji-3d")
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s")
    logger.setLevel(logging.INFO)
    example = args.folder == "example"
    minutes = args.minutes if args.minutes is not None else 600.0 if example else MINUTES
    options = {
        "rank": args.rank, "minutes": minutes, "rate": args.rate, "prior": args.prior, "flip": not args.no_flip,
        "seed": args.seed, **({} if args.steps is None else {"steps": args.steps}),
    }  # fmt: skip
    try:
        if example:
            if not args.art:
                parser.error("example needs --art FOLDER: npm pack @lobehub/fluent-emoji-3d, then unpack it")
            made = rebuild_examples(args.art, **options)
        else:
            made = [
                train_lora(
                    args.folder, args.token or "", out=args.out, kind=args.kind, templates=args.template, **options
                )
            ]
    except (ValueError, ImportError, RuntimeError) as error:
        parser.error(str(error))
    for path in made:
        print(f"{path} ({path.stat().st_size / 1e6:.2f} MB); what it does: {sheet_of(path)}")


if __name__ == "__main__":
    main()
