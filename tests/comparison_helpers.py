"""Models and a judge whose readings are known in closed form: brightness and greenness."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from hublatent.models import Eigenfaces
from hublatent.perception.classifier import AttributeClassifier

SIZE = 16
N_PIXELS = 3 * SIZE**2
GAIN = 20.0
THRESHOLD = 0.1  # brightness at which the judge says 1/2
BRIGHT_SIGMA = 2.0  # of the linear model, along its first component
ATTRIBUTES = ("Bright", "Green")


@torch.no_grad()
def known_judge() -> AttributeClassifier:
    """P(Bright) = sigmoid(GAIN * (brightness - THRESHOLD)), P(Green) likewise of greenness.

    Brightness is the mean of all pixels, greenness the mean of green - (red + blue) / 2.
    """
    judge = AttributeClassifier(SIZE, width=4, dropout=0.0, attributes=",".join(ATTRIBUTES)).eval()
    for name, parameter in judge.named_parameters():
        if "main" in name:
            parameter.zero_()  # each block only passes its input on
    look, norm, _, halve, *_ = judge.stem
    look.weight.zero_()
    look.weight[0, :, 1, 1] = 1 / 3
    look.weight[1, :, 1, 1] = torch.tensor([-0.5, 1.0, -0.5])
    norm.bias.fill_(2.0)  # above the kink of the ReLU
    halve.weight.zero_()
    for i in range(2):
        halve.weight[i, i, 1:3, 1:3] = 1 / 4
    for stage in judge.stages:
        for module in stage[0].shortcut:
            if isinstance(module, torch.nn.Conv2d):
                module.weight.copy_(torch.eye(*module.weight.shape[:2])[:, :, None, None])
    judge.head.weight.zero_()
    for i in range(2):
        judge.head.weight[i, i] = GAIN
        judge.head.bias[i] = -GAIN * (2.0 + THRESHOLD)
    return judge


def linear_model() -> Eigenfaces:
    """z0 is sqrt(N_PIXELS) times the brightness, z1 a multiple of the greenness, z2.. waves."""
    axis = torch.linspace(0, 3, SIZE)
    waves = [
        torch.outer(torch.cos(i * axis), torch.sin(i * axis)).expand(3, -1, -1) for i in (1, 2)
    ]
    green = torch.tensor([-0.5, 1.0, -0.5])[:, None, None].expand(3, SIZE, SIZE)
    rows = torch.stack([x.flatten() for x in (torch.ones(3, SIZE, SIZE), green, *waves)])
    components = torch.linalg.qr(rows.double().T)[0].T
    signs = torch.sign((components * rows).sum(dim=1, keepdim=True))
    model = Eigenfaces(SIZE, latent_dim=4)
    model.components.copy_(signs * components)
    model.latent_covariance.copy_(torch.diag(torch.tensor([BRIGHT_SIGMA**2, 4.0, 2.0, 1.0])))
    return model.eval()


def write_known_faces(
    folder: Path, n: int = 160, n_test: int = 40, attributes: Sequence[str] = ATTRIBUTES
) -> Path:
    """Grey pictures with noise: Bright ones brighter, Green ones greener; two of each person.

    Args:
        folder: where they go.
        n: training and validation pictures.
        n_test: test pictures.
        attributes: what the table calls these two; further ones are drawn.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    rows = [",".join(("name,identity,partition", *attributes))]
    for i in range(n + n_test):
        bright, green = rng.random(2) < 0.5
        pixels = rng.normal(112, 12, (SIZE, SIZE, 3)) + rng.normal(0, 6) + 30 * bright
        pixels[..., 1] += 24 * green
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03d}.png")
        partition = 2 if i >= n else int(i >= n // 2)
        drawn = [i // (2**k) % 2 for k in range(1, len(attributes) - 1)]
        labels = ",".join(str(int(label)) for label in (bright, green, *drawn))
        rows.append(f"{i:03d}.png,{i // 2},{partition},{labels}")
    (folder / "attributes.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder
