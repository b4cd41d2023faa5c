"""The critic of latents: it learns to tell real ones from others, and its pull makes others more real."""

import torch
from tiny_factory import UNET

from diffexplore.pocket.factory import turbo, unet
from diffexplore.pocket.factory.critic import Critic, make_heads


def made():
    torch.manual_seed(0)
    network = unet.make_unet(UNET, (6, 8, 8)).eval().requires_grad_(False)
    return Critic(network, make_heads(UNET.channels), turbo.make_scheduler().alphas_cumprod, noise=(20, 200))


def batch(real):
    """Latents whose halves are alike, or not."""
    half = torch.randn(16, 6, 4, 8)
    return torch.cat([half, half if real else torch.randn(16, 6, 4, 8)], 2)


def test_it_looks_at_every_level_on_the_way_down():
    critic, text = made(), torch.randn(16, 40, 32)
    said = critic.judged(batch(True), text)
    assert said.shape == (16, 8 * 8 + 4 * 4 + 2 * 2)


def test_it_learns_to_tell_real_latents_from_others_and_only_its_heads_do():
    critic, text = made(), torch.zeros(16, 40, 32)
    before = {name: value.clone() for name, value in critic.unet.state_dict().items()}
    optimiser = torch.optim.AdamW(critic.heads.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        loss = critic.learn(torch.zeros(16, 6, 8, 8), batch(True), text)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 < 1.5 < losses[0], "2 is what knowing nothing costs"
    assert all(torch.equal(value, before[name]) for name, value in critic.unet.state_dict().items())
    # What it says of latents goes up along its pull.
    z = torch.zeros(16, 6, 8, 8)
    pull = critic.pull(z, text)
    with torch.no_grad():
        torch.manual_seed(3)
        now = critic.judged(z, text).mean()
        torch.manual_seed(3)
        then = critic.judged(z - pull * (3 / pull.norm()), text).mean()
    assert then > now


def test_a_pull_teaches_the_heads_nothing_and_leaves_them_as_they_were():
    critic, text = made(), torch.zeros(16, 40, 32)
    z = torch.randn(16, 6, 8, 8, requires_grad=True)
    assert critic.pull(z, text).shape == z.shape
    assert z.grad is None
    assert all(one.grad is None and one.requires_grad for one in critic.heads.parameters())
