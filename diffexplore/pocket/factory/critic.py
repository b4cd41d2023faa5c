"""Critics: how real pictures look, patch by patch, and how real latents do, to somebody who can denoise.

What learns to be near gets soft; a critic that learns to tell drawn from real pulls the other way. That of pictures
looks at patches (https://arxiv.org/abs/1611.07004). That of latents noises them and looks through the frozen first half
of a trained U-Net that is told what they show, so that only small heads learn (adversarial distillation in the features
of the teacher, https://arxiv.org/abs/2403.12015). Both learn by a hinge (https://arxiv.org/abs/1705.02894).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Critic", "along", "hinge", "make_critic", "make_heads", "set_against"]

WIDTH = 64


def hinge(drawn: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """A critic's own loss, from what it says of both: what it is sure of no longer counts."""
    loss: torch.Tensor = ((1 + drawn).clamp(min=0).mean() + (1 - real).clamp(min=0).mean()).float()
    return loss


def set_against(first: torch.Tensor, other: torch.Tensor, share: float | torch.Tensor) -> torch.Tensor:
    """The gradient `other`, made `share` times as long as `first` (https://arxiv.org/abs/2012.09841)."""
    return other * (share * first.norm() / other.norm().clamp(min=1e-12))


def along(made: torch.Tensor, pull: torch.Tensor) -> torch.Tensor:
    """Zero, whose gradient at `made` is `pull`: to be added to a loss."""
    pulled = (made * pull).sum()
    return pulled - pulled.detach()


def make_critic() -> torch.nn.Sequential:
    """(N, 3, S, S) to (N, 1, S / 8, S / 8): how real each patch looks."""
    from torch import nn

    def block(wide: int, out: int) -> list[nn.Module]:
        return [nn.Conv2d(wide, out, 4, 2, 1), nn.GroupNorm(8, out), nn.LeakyReLU(0.2)]

    layers = [nn.Conv2d(3, 48, 4, 2, 1), nn.LeakyReLU(0.2), *block(48, 96), *block(96, 128), nn.Conv2d(128, 1, 3, 1, 1)]
    return nn.Sequential(*layers)


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

    def judged(self, z: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """(B, places): how real latents (B, C, h, w) look, each noised to a level of its own."""
        import torch

        t = torch.randint(*self.noise, (len(z),), device=z.device)
        a = self.clean[t].view(-1, 1, 1, 1)
        x = a.sqrt() * z + (1 - a).sqrt() * torch.randn_like(z)
        seen = self._sees(x, t, text)
        return torch.cat([head(one).flatten(1).float() for head, one in zip(self.heads, seen, strict=True)], 1)

    def pull(self, z: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The gradient, at latents (B, C, h, w), of how unreal they look; the heads learn nothing from it."""
        import torch

        asked = z.detach().requires_grad_(True)
        return torch.autograd.grad(-self.judged(asked, text).mean(), asked)[0].float()

    def learn(self, drawn: torch.Tensor, real: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """The heads' own loss, see `hinge`."""
        return hinge(self.judged(drawn.detach(), text), self.judged(real, text))
