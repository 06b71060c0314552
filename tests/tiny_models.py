"""Tiny random models with directions, in folders as they lie in model_cards/."""

from __future__ import annotations

from pathlib import Path

import torch

from hublatent.direction import Direction
from hublatent.direction_set import DirectionSet
from hublatent.model import LatentModel
from hublatent.models import VAE, BetaVAE, Eigenfaces, StyleGAN2
from hublatent.perception.classifier import AttributeClassifier

ATTRIBUTES = ("Eyeglasses", "Smiling", "Male")
METHODS = ("svm", "joint")
SIZE = 32


def random_directions(model: LatentModel, seed: int = 0) -> DirectionSet:
    """Random directions for every attribute and method, with made-up thresholds and gains."""
    generator = torch.Generator().manual_seed(seed)
    directions = []
    for attribute in ATTRIBUTES:
        for method in METHODS:
            vector = torch.randn(model.latent_shape, generator=generator)
            vector = vector / vector.norm(dim=-1, keepdim=True)
            direction = Direction(attribute, method, vector, threshold=0.5, gain=2.0)
            directions.append(direction.with_sigma(model))
    return DirectionSet.of(model, directions)


def tiny_vae(model_class: type[VAE] = VAE, size: int = SIZE) -> VAE:
    """A VAE of random weights, scaled up so that its latents and pictures differ visibly."""
    model = model_class(size, latent_dim=8, width=8, max_width=8, n_stages=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.eval()


def tiny_eigenfaces(size: int = SIZE) -> Eigenfaces:
    """Eigenfaces whose components are smooth waves."""
    model = Eigenfaces(size, latent_dim=6)
    axis = torch.linspace(0, 3, size)
    waves = [
        torch.outer(torch.cos(axis * (i + 1)), torch.sin(axis * (i % 3 + 1))).expand(3, -1, -1)
        for i in range(6)
    ]
    components = torch.linalg.qr(torch.stack([w.flatten() for w in waves]).T)[0].T
    model.components.copy_(components)
    model.latent_covariance.copy_(60 * torch.eye(6))
    return model.eval()


def tiny_stylegan2(size: int = SIZE) -> StyleGAN2:
    """A StyleGAN2 of random weights: a model without an encoder."""
    return StyleGAN2(
        size, latent_dim=16, z_dim=16, mapping_layers=2, channel_base=256, channel_max=16
    ).eval()


def save_model(model: LatentModel, folder: Path, directions: DirectionSet | None = None) -> Path:
    """Write a model folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    if directions is not None:
        directions.save(folder / "directions.safetensors")
    return folder


def build_model_folders(root: Path) -> dict[str, str]:
    """Four model folders with directions, one of them without an encoder: name -> folder."""
    torch.manual_seed(0)
    built: dict[str, LatentModel] = {
        "vae-tiny": tiny_vae(),
        "betavae-tiny": tiny_vae(BetaVAE),
        "eigenfaces-tiny": tiny_eigenfaces(),
        "stylegan2-tiny": tiny_stylegan2(),
    }
    return {
        name: str(save_model(model, root / name, random_directions(model, seed)))
        for seed, (name, model) in enumerate(built.items())
    }


@torch.no_grad()
def divided_judge(model: LatentModel, attributes: str) -> AttributeClassifier:
    """A judge of random weights that sees the first attribute on half of a model's samples."""
    torch.manual_seed(0)
    judge = AttributeClassifier(32, width=4, dropout=0.0, attributes=attributes).eval()
    torch.nn.init.normal_(judge.head.weight)
    logits = judge(model.sample(100, seed=5))
    judge.head.bias[0] -= logits[:, 0].median()
    return judge
