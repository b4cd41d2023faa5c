"""The flow model: a small transformer of Stable Diffusion 3's kind (MMDiT), trained by flow matching.

Text and picture are two streams of tokens that attend to each other in every block. The network is told a point on the
straight line from a latent to noise and answers with the direction of the line. Two small CLIP encoders read the
prompt, as two large ones do in Stable Diffusion 3. The third there, T5, is one of no layers here: it answers with
zeros, as diffusers does in its place where it is left out, so that a folder opens with no argument.

Diffusers asks T5 for 256 tokens unless told otherwise (``max_sequence_length``), and to compute them costs several
times the picture. Zeros have no position, so they stay equal through all blocks: n of them are one whose attention is
heavier by log n. Trained is a handful, with a weight that stands for any number from 1 to 256, and the model draws
alike with two (no tokenizer gives fewer) and with 256.

On few cores it may begin with a teacher, a pocket model in whose latents it learns: then the first part of the
training aims at the direction that the teacher expects at a point instead of that of one latent. The two are equal in
the mean, and the first is far less scattered. The first reader begins as the teacher's. The rest is flow matching.

The matrices of its blocks are moved by Muon, after which the error of the direction is two thirds of what AdamW reaches
in the same four minutes of a core.

Sources: flow matching, https://arxiv.org/abs/2210.02747 and https://arxiv.org/abs/2209.03003; MMDiT and logit-normal
times, https://arxiv.org/abs/2403.03206; blocks that begin as the identity, https://arxiv.org/abs/2212.09748.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffexplore.pocket.factory.latents import Latents
from diffexplore.pocket.factory.stage import Budget, Stage
from diffexplore.pocket.factory.unet import RECIPE as POCKET
from diffexplore.pocket.factory.unet import SHOWS, attention, make_tokenizer, text_config

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

ZEROS = 2
"""Tokens of zeros in training."""
MOST_ZEROS = 256
"""What plain diffusers puts in, and the most they stand for in training."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out; `steps` None: as long as the budget's minutes last.

    `taught` is the part of the training that aims at what a teacher expects, where there is one; `subject` is what an
    error in the subject weighs, of one around it; `turn` is Muon's rate. In nine of ten steps `short` tokens of the
    captions are read instead of all `text_tokens`: few are longer, and what nobody wrote costs as much as what somebody
    did.
    """

    seed: int = 2026
    width: int = 160
    heads: int = 5
    layers: int = 6
    text_widths: tuple[int, int] = (128, 64)
    text_layers: tuple[int, int] = (4, 2)
    text_tokens: int = POCKET.text_tokens
    short: int = 24
    batch: int = 32
    steps: int | None = None
    rate: float = 1e-3
    turn: float = 5e-3
    warm: int = 100
    dropout: float = 0.12
    astray: float = 0.12
    even: float = 0.2
    taught: float = 0.8
    shift: float = 1.0
    subject: float = 3.0
    ema: float = 0.998
    sheet_steps: int = 20
    least: int = 2_000


RECIPE = Recipe()
GPU = dataclasses.replace(RECIPE, width=192, heads=6, batch=384, rate=1.2e-3, warm=400, ema=0.999, least=10_000)
"""What changes where a batch costs no more than a single picture."""


def make_text_encoders(
    recipe: Recipe, tokenizer: CLIPTokenizer
) -> tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection]:
    """The two readers. Their last layer but one goes to the transformer word by word, the last as one vector."""
    from transformers import CLIPTextModelWithProjection

    first, second = (
        CLIPTextModelWithProjection(text_config(tokenizer, width, layers))
        for width, layers in zip(recipe.text_widths, recipe.text_layers, strict=True)
    )
    return first, second


def make_silence(recipe: Recipe, tokenizer: CLIPTokenizer) -> T5EncoderModel:
    """A T5 of no layers, which answers every token with zeros."""
    import torch
    from transformers import T5Config, T5EncoderModel

    made = T5EncoderModel(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=sum(recipe.text_widths),
            d_kv=1,
            d_ff=1,
            num_layers=0,
            num_heads=1,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    with torch.no_grad():
        for weight in made.parameters():
            weight.zero_()
    return made.eval().requires_grad_(False)


def make_transformer(recipe: Recipe, shape: tuple[int, int, int]) -> SD3Transformer2DModel:
    """The transformer for latents of `shape` (channels, height, width), 2x2 of them a token."""
    import torch
    from diffusers import SD3Transformer2DModel

    read = sum(recipe.text_widths)
    made = SD3Transformer2DModel(
        sample_size=shape[1],
        patch_size=2,
        in_channels=shape[0],
        out_channels=shape[0],
        num_layers=recipe.layers,
        attention_head_dim=recipe.width // recipe.heads,
        num_attention_heads=recipe.heads,
        joint_attention_dim=read,
        caption_projection_dim=recipe.width,
        pooled_projection_dim=read,
        pos_embed_max_size=2 * shape[1],
        qk_norm="rms_norm",
    )
    with torch.no_grad():
        still = [made.proj_out, made.norm_out.linear]
        for block in made.transformer_blocks:
            still += [block.norm1.linear, block.norm1_context.linear]
        for layer in still:
            layer.weight.zero_()
            layer.bias.zero_()
    return made


def make_scheduler(recipe: Recipe) -> FlowMatchEulerDiscreteScheduler:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=recipe.shift)


class Weighted:
    """Joint attention, as diffusers computes it for Stable Diffusion 3, in which some tokens of the text count more.

    `bias`, (B, text tokens) or None, is added to what every token sees of them before the softmax.
    """

    def __init__(self) -> None:
        self.bias: torch.Tensor | None = None

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: torch.Tensor, *rest: Any, **others: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch
        from torch.nn.functional import scaled_dot_product_attention

        def split(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(2, (attn.heads, -1)).transpose(1, 2)

        picture, text = hidden_states, encoder_hidden_states
        v = torch.cat([split(attn.to_v(picture)), split(attn.add_v_proj(text))], 2)
        q = [split(attn.to_q(picture)), split(attn.add_q_proj(text))]
        k = [split(attn.to_k(picture)), split(attn.add_k_proj(text))]
        if attn.norm_q is not None:
            q = [attn.norm_q(q[0]), attn.norm_added_q(q[1])]
            k = [attn.norm_k(k[0]), attn.norm_added_k(k[1])]
        mask = None
        if self.bias is not None:
            among = self.bias.new_zeros(len(self.bias), picture.shape[1])
            mask = torch.cat([among, self.bias], 1)[:, None, None].to(v.dtype)
            mask = mask.expand(-1, 1, v.shape[2], -1)
        mixed = scaled_dot_product_attention(torch.cat(q, 2).to(v.dtype), torch.cat(k, 2).to(v.dtype), v, mask)
        mixed = mixed.transpose(1, 2).flatten(2)
        seen, read = mixed[:, : picture.shape[1]], mixed[:, picture.shape[1] :]
        if not attn.context_pre_only:
            read = attn.to_add_out(read)
        return attn.to_out[1](attn.to_out[0](seen)), read


def read_prompts(first: Any, second: Any, words: torch.Tensor, zeros: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, tokens) as diffusers' pipeline reads them with a T5 that says nothing.

    Returns:
        (B, tokens + zeros, width), the last `zeros` of them zeros, and the pooled (B, width).
    """
    import torch

    one, two = (encoder(words, output_hidden_states=True) for encoder in (first, second))
    text = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], 2)
    text = torch.nn.functional.pad(text, (0, 0, 0, zeros))
    return text, torch.cat([one.text_embeds, two.text_embeds], 1)


def pipeline_of(recipe: Recipe, vae: AutoencoderKL, tokenizer: CLIPTokenizer, parts: dict[str, Any]) -> Any:
    """The parts as a StableDiffusion3Pipeline."""
    from diffusers import StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline(
        transformer=parts["transformer"],
        scheduler=make_scheduler(recipe),
        vae=vae,
        text_encoder=parts["text"],
        tokenizer=tokenizer,
        text_encoder_2=parts["text_2"],
        tokenizer_2=tokenizer,
        text_encoder_3=make_silence(recipe, tokenizer).to(parts["transformer"].device),  # type: ignore[arg-type]
        tokenizer_3=tokenizer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _parts(recipe: Recipe, tokenizer: CLIPTokenizer, shape: tuple[int, int, int]) -> dict[str, Any]:
    first, second = make_text_encoders(recipe, tokenizer)
    return {"text": first, "text_2": second, "transformer": make_transformer(recipe, shape)}


def trained(work: Path, recipe: Recipe, vae: AutoencoderKL, shape: tuple[int, int, int]) -> Any:
    """The averaged weights of ``flow.pt`` as a pipeline on the CPU.

    Raises:
        FileNotFoundError: there is no checkpoint.
    """
    import torch

    tokenizer = make_tokenizer(work, recipe.text_tokens)
    state = torch.load(work / "flow.pt", weights_only=True, map_location="cpu")["average"]
    parts = _parts(recipe, tokenizer, shape)
    for name, part in parts.items():
        part.load_state_dict(state[name])
        part.eval()
    return pipeline_of(recipe, vae, tokenizer, parts)


class Teacher:
    """What a noise-predicting model expects on the line from a latent to noise, and its reader's weights.

    Its noised latents are shorter: they keep their deviation. A point of the line, divided by the root of
    (1 - sigma)^2 + sigma^2, is one of them, at the level with the same ratio of signal to noise.

    Args:
        pipeline: a pocket model, see `unet.trained`.
        device: where it looks.
    """

    NEAR, FAR = 0.05, 0.93
    """Sigmas between which it is asked; beyond the second it was never shown so much noise."""

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        self.text = pipeline.text_encoder.to(device).eval().requires_grad_(False)
        self.unet = pipeline.unet.to(device).eval().requires_grad_(False)
        self.ratios = pipeline.scheduler.alphas_cumprod.to(device).logit().flip(0).contiguous()

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """The expected direction from latent to noise, (B, C, h, w), at points `x` of the line, sigma (B,)."""
        import torch

        with torch.no_grad():
            sigma = sigma.clamp(self.NEAR, self.FAR)
            length = ((1 - sigma).square() + sigma.square()).sqrt().view(-1, 1, 1, 1)
            noise = self.unet(x / length, self.level(sigma), self.text(words)[0]).sample.float()
            s = sigma.view(-1, 1, 1, 1)
            return (noise - x) / (1 - s)

    def level(self, sigma: torch.Tensor) -> torch.Tensor:
        """The training step, with fractions, whose ratio of signal to noise is that at sigma (B,)."""
        import torch

        wanted = 2 * ((1 - sigma).log() - sigma.log())
        above = torch.searchsorted(self.ratios, wanted).clamp(1, len(self.ratios) - 1)
        low, high = self.ratios[above - 1], self.ratios[above]
        place = above - 1 + ((wanted - low) / (high - low)).clamp(0, 1)
        return len(self.ratios) - 1 - place

    def teach(self, reader: Any) -> None:
        """Give a reader the weights of the teacher's, as many of its layers as there are; other widths stay as made."""
        mine, theirs = reader.text_model, getattr(self.text, "text_model", self.text)
        if mine.config.hidden_size != theirs.config.hidden_size:
            return
        mine.embeddings.load_state_dict(theirs.embeddings.state_dict())
        for layer, known in zip(mine.encoder.layers, theirs.encoder.layers, strict=False):
            layer.load_state_dict(known.state_dict())


def matrices(transformer: Any) -> list[torch.nn.Parameter]:
    """What Muon moves of a transformer: the matrices of its blocks, but for those that say how a block is modulated."""
    named = transformer.transformer_blocks.named_parameters()
    return [weight for name, weight in named if weight.ndim == 2 and "norm" not in name]


def train(
    work: Path, recipe: Recipe, budget: Budget, latents: Latents,
    show: Callable[[Any, int], None] = lambda pipeline, step: None, teacher: Any = None,
) -> None:  # fmt: skip
    """Both readers and the transformer together: predict the direction from latent to noise, at any point between.

    `show(pipeline, step)` is called at the shares `SHOWS` of the training with the averaged weights as they are then.
    `teacher` is a pocket model in the same latents with the same tokenizer, or None.
    """
    import torch

    torch.manual_seed(recipe.seed + 4)
    parts = _parts(recipe, latents.tokenizer, latents.shape)
    tutor = None if teacher is None else Teacher(teacher, torch.device(budget.device))
    if tutor is not None:
        tutor.teach(parts["text"])
    first, second, transformer = parts["text"], parts["text_2"], parts["transformer"]
    stage = Stage(
        work, "flow", parts, steps=recipe.steps, budget=budget, rate=recipe.rate, ema=recipe.ema, warm=recipe.warm,
        turned=matrices(transformer), turn=recipe.turn,
    )  # fmt: skip
    weighted, size, device = Weighted(), recipe.batch, stage.device
    transformer.set_attn_processor(weighted)
    if budget.compiled:
        transformer.compile(dynamic=False)  # two lengths of text, each as fast as it can be
        if tutor is not None:
            tutor.unet.compile(dynamic=False)
    room = latents.tokenizer.model_max_length
    latents.wait(recipe.least)

    def loss_of(step: int) -> torch.Tensor:
        z, words, places = latents.batch(size, dropout=recipe.dropout, astray=recipe.astray, subject=recipe.subject)
        middle = torch.sigmoid(torch.randn(size, device=device))
        sigma = torch.where(torch.rand(size, device=device) < recipe.even, torch.rand(size, device=device), middle)
        noise = torch.randn_like(z)
        x = torch.lerp(z, noise, sigma.view(-1, 1, 1, 1))
        aim = noise - z
        if tutor is not None and stage.share < recipe.taught:
            asked = (sigma > tutor.NEAR) & (sigma < tutor.FAR)
            aim = torch.where(asked.view(-1, 1, 1, 1), tutor(x, sigma, words), aim)
        read = room if step % 10 == 0 else min(recipe.short, room)
        zero = torch.arange(read + ZEROS, device=device) >= read
        many = (torch.rand(size, device=device) * 1.2 - 0.1).clamp(0, 1) * math.log(MOST_ZEROS)
        weighted.bias = zero * (many - math.log(ZEROS))[:, None]
        text, pooled = read_prompts(first, second, words[:, :read], ZEROS)
        with attention(device):
            guess = transformer(
                hidden_states=x, timestep=1000 * sigma, encoder_hidden_states=text, pooled_projections=pooled
            ).sample.float()
        return (places * (guess - aim).square()).mean()

    def look(step: int) -> None:
        show(pipeline_of(recipe, latents.vae, latents.tokenizer, stage.average), step)

    # With a teacher the steps of the first part are others than those of the rest, so they are not captured.
    stage.run(loss_of, feed=latents.feed, graph=tutor is None, shows=SHOWS, show=look, every=120)
