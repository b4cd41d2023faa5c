"""What the pocket model is taught from: pictures with captions, noise put on them, and what the model knew before.

`lora` learns from it, the factory trains whole models with the same noise levels.

Sources: min-SNR weights, https://arxiv.org/abs/2303.09556; keeping what the model knew by its own pictures (prior
preservation), https://arxiv.org/abs/2208.12242.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from diffexplore.looks.pictures import read_picture
from diffexplore.pocket.world import article, caption, sample_scene
from diffexplore.words import sentence, shown

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).with_name("weights")

SNR_GAMMA = 5.0
BATCH = 10
PRIOR_BATCH = 8
PRIOR_NOISES = 16  # noised versions of each picture that the model draws of its own world

LEAST, MOST = 3, 500  # pictures

# Only what is true of any picture of the subject or in the style.
TEMPLATES = {
    "subject": ("{a} {token}", "{token}", "the {token}", "a picture of {a} {token}", "an image of {a} {token}"),
    "style": ("a picture, {token} style", "an image, {token} style", "{token} style"),
}


def noise_levels(clean: torch.Tensor, gamma: float = SNR_GAMMA) -> tuple[torch.Tensor, torch.Tensor]:
    """How often each noise level is drawn and how much it then counts: min-SNR weights, cheaply.

    Levels that count little are drawn seldom rather than computed and scaled down: same loss, fewer samples.

    Args:
        clean: a^2 of each level, ``alphas_cumprod``.
        gamma: the signal-to-noise ratio above which a level counts less.

    Returns:
        Chances to draw from with ``multinomial``, and the weights of the loss, one for each level.
    """
    snr = clean / (1 - clean)
    weight = snr.clamp(max=gamma) / snr
    chance = weight.clamp(min=0.2)
    return chance, weight / chance * chance.mean()


# --- pictures and captions -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture to learn from, uint8 RGB as large as the model draws, and what it shows (None: just the token)."""

    name: str
    pixels: np.ndarray
    caption: str | None = None


def read_pictures(folder: str | os.PathLike[str]) -> list[Picture]:
    """All pictures right in a folder, by name: centre-cropped to the square that the model draws, transparency on
    white.

    What is no picture is passed over, and one line of the log says so.

    Raises:
        ValueError: there is no such folder, or it holds too few or too many pictures.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ValueError(f"the pictures must be in a folder, {shown(str(folder), 200)} is none")
    found, skipped, side = [], [], _side()
    for file in sorted(path.iterdir()):
        if file.name.startswith(".") or file.suffix.lower() in (".txt", ".json") or not file.is_file():
            continue
        try:
            picture = read_picture(file)
        except (ValueError, OSError) as error:
            # It begins with the whole path.
            skipped.append(file.name + sentence(error).removeprefix(shown(str(file), 200))[:100])
            continue
        pixels = np.asarray(ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS))
        beside = file.with_suffix(".txt")
        text = " ".join(beside.read_text("utf-8", errors="replace").split()) if beside.is_file() else ""
        found.append(Picture(file.stem, pixels, text or None))
    if skipped:
        more = f" and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        logger.warning("passed over what cannot be read as a picture: %s%s", "; ".join(skipped[:3]), more)
    if not LEAST <= len(found) <= MOST:
        raise ValueError(
            f"a LoRA is taught from {LEAST} to {MOST} pictures (10 to 30 are right), "
            f"{shown(str(folder), 200)} holds {len(found)}"
        )
    return found


def _side() -> int:
    """Pixels a side of what the pocket model draws."""
    told: int = json.loads((WEIGHTS / "vae" / "config.json").read_text("utf-8"))["sample_size"]
    return told


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
    usual = [t.format(token=token, a=article(token)) for t in templates or TEMPLATES[kind]]
    text = picture.caption or _said_by_name(picture.name, token)
    if text is None:
        return usual
    if re.search(rf"(?<![\w-]){re.escape(token)}(?![\w-])", text.lower()):
        return [text]
    return [f"{text}, {token} style"] if kind == "style" else [f"{usual[0]}, {text}"]


# --- noise and loss --------------------------------------------------------------------------------------------------


def latents_of(vae: Any, pictures: Sequence[Picture], flip: bool) -> torch.Tensor:
    """(N, 1 or 2, 4, 16, 16): the latents of each picture, and of its mirror image."""
    import torch

    pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).permute(0, 3, 1, 2).float()
    views = [pixels, pixels.flip(-1)] if flip else [pixels]
    with torch.no_grad():
        coded = [
            torch.cat([vae.encode(part / 127.5 - 1).latent_dist.mode() for part in view.split(32)]) for view in views
        ]
    return torch.stack(coded, 1) * vae.config.scaling_factor


def prior_prompts(token: str, count: int, seed: int, said: Sequence[str] = ()) -> list[str]:
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
        text = caption(sample_scene(rng, clean=True), rng)
        if mine.isdisjoint(_words(text)):
            out.append(text)
    return out


def _words(text: str) -> list[str]:
    return re.findall(r"[^\s,]+", text)


class Lesson:
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
        self.chance, self.weight = noise_levels(self.clean)
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

    def guess(self, x: torch.Tensor, t: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """The noise that the model, as it is now, sees in `x` (B, 4, 16, 16) at `t` (B,) with `words` (B, tokens)."""
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
            self.kept = (x, t, words, torch.cat([self.guess(*part) for part in parts]))

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
        error = (self.guess(x, t, words) - aim).square().mean((1, 2, 3)) * self.weight[t]
        return error.mean(), float(error[:size].detach().mean())
