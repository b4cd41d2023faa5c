"""A critic of latents: how real they look to somebody who can denoise, at some level of noise, told what they show.

A denoiser that predicts the mean of all that may come is soft by nature, and what learns from it inherits that. A
critic asks for one picture instead of a mean. It is cheap: it looks through the frozen first half of a trained U-Net,
and only small heads learn. Sources: adversarial distillation in the features of the teacher,
https://arxiv.org/abs/2403.12015; a hinge, https://arxiv.org/abs/1705.02894.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Critic", "make_heads"]

WIDTH = 64


def make_heads(channels: tuple[int, ...]) -> torch.nn.ModuleList:
    """For each level of a U-Net (its channels), maps (B, C, h, w) to (B, 1, h, w): how real each place looks."""
    from torch import nn

    def head(wide: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(wide, WIDTH, 1),
            nn.GroupNorm(8, WIDTH),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.GroupNorm(8, WIDTH),
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, 1, 1),
        )

    return nn.ModuleList(head(wide) for wide in channels)


class Critic:
    """Trained heads on a frozen U-Net.

    Args:
        unet: the denoiser whose first half looks.
        heads: as `make_heads` makes them, which learn.
        clean: (T,) the share of the signal in the square of a noised latent at each training step.
        noise: first and last training step at which it looks.
    """

    def __init__(
        self, unet: Any, heads: torch.nn.ModuleList, clean: torch.Tensor, noise: tuple[int, int] = (20, 600)
    ) -> None:
        self.unet, self.heads, self.clean, self.noise = unet, heads, clean, noise

    def _sees(self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> list[torch.Tensor]:
        """What the U-Net's levels hold on the way down, before each is made smaller."""
        unet = self.unet
        emb = unet.time_embedding(unet.time_proj(t).to(x.dtype))
        h, found = unet.conv_in(x), []
        for block in unet.down_blocks:
            more = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
            h, kept = block(hidden_states=h, temb=emb, **more)
            found.append(kept[0])
        return found

    def _judged(self, z: torch.Tensor, text: torch.Tensor, heads: Any) -> torch.Tensor:
        """(B, places): how real latents look, noised to one level for all of them."""
        import torch

        t = torch.randint(*self.noise, (len(z),), device=z.device)
        a = self.clean[t].view(-1, 1, 1, 1)
        x = a.sqrt() * z + (1 - a).sqrt() * torch.randn_like(z)
        seen = self._sees(x, t, text)
        return torch.cat([head(one).flatten(1).float() for head, one in zip(heads, seen, strict=True)], 1)

    def pull(self, z: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The gradient, at latents (B, C, h, w), of how unreal they look; the heads learn nothing from it."""
        import torch

        asked = z.detach().requires_grad_(True)
        wanted = [one.requires_grad for one in self.heads.parameters()]
        self.heads.requires_grad_(False)
        unreal = -self._judged(asked, text, self.heads).mean()
        found = torch.autograd.grad(unreal, asked)[0].float()
        for one, before in zip(self.heads.parameters(), wanted, strict=True):
            one.requires_grad_(before)
        return found

    def learn(self, drawn: torch.Tensor, real: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The heads' own loss: hinge, so that what they are sure of no longer counts."""
        said = self._judged(drawn.detach(), text, self.heads)
        true = self._judged(real, text, self.heads)
        return (1 + said).clamp(min=0).mean() + (1 - true).clamp(min=0).mean()
