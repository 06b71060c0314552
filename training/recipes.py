"""Recipes of VAEs and autoencoders: what each model is and how it is trained."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from hublatent.checkpoint import init_parameters
from hublatent.models import ARCHITECTURES
from hublatent.models.vae import ConvolutionalModel
from hublatent.perception.classifier import join_names
from training.trainers.commands import Ranges, Recipe


@dataclass(frozen=True)
class VAERecipe(Recipe):
    """What a VAE or an autoencoder is and how it is trained; terms in nats."""

    # the class that is trained, as in config.json
    architecture: Literal["vae", "betavae", "btcvae", "factorvae", "autoencoder", "lsavae"]
    image_size: int = 64  # height and width of the images, in pixels
    latent_dim: int = 128  # D, width of the latent
    width: int = 32  # channels of the network's first stage
    max_width: int = 106  # channels never exceed this
    n_stages: int = 4  # number of downsampling stages
    # what the network is made of (hublatent/models/vae.py, BLOCKS)
    blocks: Literal["standard", "plain", "vanilla"] = "standard"
    # of an LSA-VAE, the width of the latent's style part, instead of latent_dim
    style_dim: int = 88
    # what is minimised (training/objectives/); "beta-vae" with beta 1 is the ELBO
    objective: Literal[
        "beta-vae", "capacity-vae", "beta-tcvae", "penalised-tc", "factorvae", "autoencoder",
        "lsavae",
    ] = "beta-vae"  # fmt: skip
    # of the pixels
    likelihood: Literal["calibrated-gaussian", "gaussian"] = "calibrated-gaussian"
    sigma: float = 1.0  # standard deviation of the likelihood "gaussian", for pixels in [0, 1]
    # weight of the KL divergence in "beta-vae", of the total correlation in "beta-tcvae" and
    # "penalised-tc"
    beta: float = 1.0
    alpha: float = 1.0  # weight of the mutual information in "beta-tcvae"
    # weight of the dimension-wise KL in "beta-tcvae", of the total correlation in "factorvae"
    gamma: float = 1.0
    # of the three terms in "beta-tcvae" and "penalised-tc"
    estimator: Literal["mss", "mws"] = "mss"
    capacity: float = 25.0  # C_max of "capacity-vae"
    capacity_images: int = 100_000  # images after which C has risen from 0 to its maximum
    # weight of the distance between the KL and C (Burgess et al.'s gamma)
    capacity_weight: float = 1000.0
    discriminator_width: int = 1000  # of the layers of "factorvae"'s discriminator
    discriminator_learning_rate: float = 1e-4  # of its Adam
    attribute_weight: float = 5.0  # of how well attributes are read, in "lsavae"
    adversarial_weight: float = 0.25  # of encoder and decoder against each other, in "lsavae"
    # nats of KL above which "lsavae"'s encoder no longer pushes drawn images
    margin: float = 250.0
    epochs: int = 60  # passes over the training images
    batch_size: int = 64  # images per step, over all processes
    learning_rate: float = 1e-3  # of Adam, the highest
    warm_up: float = 0.05  # share of the steps over which it rises from 0
    # then it falls to 0 as a cosine, or stays where it is
    schedule: Literal["cosine", "constant"] = "cosine"
    # decay per step of the averaged weights; 0 publishes the last weights instead
    ema: float = 0.0
    flip: bool = True  # mirror half of the training images
    seed: int = 0  # everything random follows from it

    ranges: ClassVar[Ranges] = {
        "at least 1": ("epochs", "batch_size", "capacity_images", "discriminator_width"),
        "a number above 0": ("learning_rate", "discriminator_learning_rate", "sigma"),
        "0 or more": ("beta", "alpha", "gamma", "attribute_weight", "adversarial_weight",
                      "margin", "capacity", "capacity_weight", "seed"),
        "from 0 to below 1": ("warm_up", "ema"),
    }  # fmt: skip

    def build(self, attributes: tuple[str, ...] = ()) -> ConvolutionalModel:
        """The model, initialised from torch's global generator; some have dimensions for labels."""
        model_class: Any = ARCHITECTURES[self.architecture]
        names = init_parameters(model_class)
        arguments = {f.name: getattr(self, f.name) for f in fields(self) if f.name in names}
        if "attributes" in names and attributes:
            arguments["attributes"] = join_names(attributes)
        return model_class(**arguments)


SPRITES = VAERecipe(
    "vae", latent_dim=10, max_width=64, likelihood="gaussian", sigma=0.75, epochs=6, flip=False
)
# The grid: one network, and the summed squared error of the paper's code as the likelihood.
# 17 epochs of CelebA's subset are 122,000 images. beta = 1, or gamma = 0, is the same for all.
# Rates in nats, with the total correlation: 47 (39) at beta 1; beta-VAE 34 (26), 21 (14), 12 (6);
# beta-TCVAE 33 (25), 21 (13), 10 (2); FactorVAE 43 (35), 37 (24), 32 (10).
GRID = VAERecipe("vae", latent_dim=32, likelihood="gaussian", sigma=0.5**0.5, epochs=17)
GRID_OBJECTIVES: dict[str, tuple[dict[str, Any], str, tuple[float, ...]]] = {
    "grid-vae": ({}, "beta", (1,)),
    "grid-betavae": ({"architecture": "betavae"}, "beta", (2, 4, 8)),
    "grid-btcvae": (
        {"architecture": "btcvae", "objective": "beta-tcvae"}, "beta", (2, 4, 16),
    ),
    "grid-factorvae": (
        {"architecture": "factorvae", "objective": "factorvae"}, "gamma", (10, 40, 160),
    ),
}  # fmt: skip
# The paper's trainings as its code has them: the squared error summed over pixels in [0, 1], Adam
# at a constant rate. In its beta-TCVAE the total correlation is a mean over the batch of 128
# beside sums, so that of beta - 1 = 5 an image gets 5 / 128. How its VAE was configured was not
# kept; beta is the default of the code that it came with, in the same unit.
PAPER = VAERecipe(
    "vae", latent_dim=512, max_width=128, n_stages=3, blocks="plain", likelihood="gaussian",
    sigma=0.5**0.5, estimator="mws", batch_size=128, warm_up=0.0, schedule="constant",
)  # fmt: skip
# beta was fixed before any score was seen, and is the same for both small networks.
RECIPES: dict[str, VAERecipe] = {
    "vae-celeba": VAERecipe("vae", width=52, max_width=416, epochs=40),
    "betavae-celeba": VAERecipe("betavae", beta=2.0),
    "btcvae-celeba": VAERecipe("btcvae", objective="beta-tcvae", beta=2.0),
    # The paper's gamma for CelebA. Its discriminator's rate, 1e-5, is for a million steps.
    "factorvae-celeba": VAERecipe("factorvae", objective="factorvae", gamma=6.4, epochs=40),
    "ae-celeba": VAERecipe("autoencoder", objective="autoencoder", epochs=40),
    "lsavae-celeba": VAERecipe("lsavae", objective="lsavae", attribute_weight=40.0, epochs=14),
    # Drawn factors (--data sprites), 300,000 images, with dSprites' weights in the papers: 4, 6
    # and 35. At sigma 0.75 a doubtful pixel of the three channels costs what it costs there.
    "sprites-betavae": replace(SPRITES, architecture="betavae", beta=4.0),
    "sprites-btcvae": replace(SPRITES, architecture="btcvae", objective="beta-tcvae", beta=6.0),
    "sprites-factorvae": replace(
        SPRITES, architecture="factorvae", objective="factorvae", gamma=35.0
    ),
    "paper-vae": replace(PAPER, max_width=512, n_stages=5, blocks="vanilla", beta=3.07),
    "paper-betavae": replace(PAPER, architecture="betavae", beta=4.0),
    "paper-btcvae-as-coded": replace(
        PAPER, architecture="btcvae", objective="penalised-tc", beta=1 + 5 / 128
    ),
    "paper-btcvae": replace(PAPER, architecture="btcvae", objective="penalised-tc", beta=6.0),
    **{
        f"{name}-{weight:g}": replace(GRID, **{**values, field: float(weight)})
        for name, (values, field, weights) in GRID_OBJECTIVES.items()
        for weight in weights
    },
}
