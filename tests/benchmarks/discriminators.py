"""How well StyleGAN2's discriminator, with its blur and without, and a plain convolutional network
learn to tell a generator's samples from photographs: the AUROC on unseen ones of both."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import hublatent
from hublatent.data import load_dataset
from hublatent.models.layers import SLOPE
from hublatent.models.stylegan2 import StyleGAN2
from training.trainers.stylegan2.adversarial import discriminator_loss, lazy_adam
from training.trainers.stylegan2.discriminator import Discriminator

BATCH = 32
N_UNSEEN = 704  # of either kind, in whole batches
PLAIN_WIDTHS = (3, 32, 64, 128, 256, 256)


def plain_network() -> nn.Sequential:
    """Strided convolutions down to 2x2 and a linear layer; no blur, residual or equalised rate."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(PLAIN_WIDTHS):
        conv = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
        nn.init.kaiming_normal_(conv.weight, SLOPE)
        layers += [conv, nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(PLAIN_WIDTHS[-1] * 4, 1))


def auroc(network: nn.Module, real: Tensor, drawn: Tensor) -> float:
    """Of the logits of both, (N, 3, H, W) each; 1 where every real one is higher."""
    with torch.no_grad():
        parts = [network(part) for images in (real, drawn) for part in images.split(BATCH)]
    labels = np.repeat([1, 0], [len(real), len(drawn)])
    return float(roc_auc_score(labels, torch.cat(parts).flatten().numpy()))


def learn(
    network: nn.Module, optimizer: torch.optim.Optimizer, real: Tensor, drawn: Tensor, n: int
) -> None:
    """Let a network see n of real and as many of drawn images, without augmentation or R1."""
    draws = torch.Generator().manual_seed(0)
    for _ in range(n // BATCH):
        some, others = (x[torch.randint(len(x), (BATCH,), generator=draws)] for x in (real, drawn))
        loss = discriminator_loss(network(others), network(some))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="model_cards/stylegan2-celeba")
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", type=int, default=8000, help="that each network sees")
    given = parser.parse_args()
    model = hublatent.load(given.model)
    assert isinstance(model, StyleGAN2)
    dataset = load_dataset(given.data, model.image_size)
    real = dataset.batch(dataset.indices("train"))
    unseen = dataset.batch(dataset.indices("validation")[:N_UNSEEN])
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        latents = model.sample_latents(given.images + N_UNSEEN, generator=draws)
        # Noise of their own, as in training.
        parts = [model.synthesize(part, "random", draws) for part in latents.split(BATCH)]
    drawn = torch.cat(parts).clamp(-1, 1)  # no colour gives them away
    widths = {f: getattr(model, f) for f in ("channel_base", "channel_max", "channel_min")}
    for name, build, rate in (
        ("with the blur", lambda: Discriminator(model.image_size, **widths), 0.0025),
        ("without", lambda: Discriminator(model.image_size, **widths, blurs=False), 0.0025),
        ("plain network", plain_network, 0.0003),
    ):
        torch.manual_seed(0)
        network = build()
        learn(network, lazy_adam(list(network.parameters()), rate, 0), real, drawn[N_UNSEEN:],
              given.images)  # fmt: skip
        print(f"{name}: AUROC {auroc(network, unseen, drawn[:N_UNSEEN]):.3f}", flush=True)


if __name__ == "__main__":
    main()
