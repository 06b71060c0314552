"""Our VAE training against pythae's: python tests/benchmarks/vae_training_speed.py

Both train the same network with their objective of the same name on the same images, each in its
own process. They take turns, so that other load on the machine meets both alike, and the fastest
round of each counts. Encoding takes its turns too, and so do the step's convolutions by themselves,
forward and backward: what no better code around them could save. Without pythae
(pip install pythae) only our own rates are shown.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import numpy as np
import torch
from torch import nn

from hublatent.data import FaceDataset
from hublatent.inversion.optimiser import autocast
from training.recipes import RECIPES, VAERecipe
from training.train_vae import Trainer
from training.trainers.loop import batches, start_accelerator

TARGET_TRAINING, TARGET_ENCODING, TARGET_CONVOLUTIONS = 2.0, 3.0, 0.85
Action = Callable[[], object]


def main() -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", default=["betavae-celeba", "btcvae-celeba"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=20, help="steps per round")
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {arguments.threads} thread(s); images/s")
    if importlib.util.find_spec("pythae") is None:
        print("pythae is not installed (pip install pythae): no ratio against it.")
    for name in arguments.recipes:
        measure(name, arguments.threads, arguments.steps, arguments.rounds)


def measure(name: str, n_threads: int, n_steps: int, rounds: int) -> None:
    """Print one recipe's rates and ratios."""
    context = multiprocessing.get_context("spawn")
    has_pythae = importlib.util.find_spec("pythae") is not None
    workers, processes = {}, []
    for kind in ("ours", "pythae") if has_pythae else ("ours",):
        here, there = context.Pipe()
        words = (there, kind, replace(RECIPES[name], epochs=1_000), n_threads, n_steps)
        process = context.Process(target=serve, args=words, daemon=True)
        process.start()
        workers[kind] = here
        processes.append(process)
    print(f"{name}: {workers['ours'].recv()}")
    if has_pythae:
        workers["pythae"].recv()
    ours_actions = ("training", "encoding", "convolutions")
    turns = [*(("ours", action) for action in ours_actions), ("pythae", "training")]
    best = {turn: 0.0 for turn in turns if turn[0] in workers}
    for _ in range(rounds + 1):  # the first round warms up as well
        for kind, action in best:
            workers[kind].send(action)
            best[kind, action] = max(best[kind, action], workers[kind].recv())
    ours = best["ours", "training"]
    print("  " + ", ".join(f"{k} {a} {rate:.0f}" for (k, a), rate in best.items()))
    if has_pythae:
        _verdict("training, ours / pythae", ours / best["pythae", "training"], TARGET_TRAINING)
    _verdict("encoding / training", best["ours", "encoding"] / ours, TARGET_ENCODING)
    share = ours / best["ours", "convolutions"]
    _verdict("bare convolutions' share of a step", share, TARGET_CONVOLUTIONS)
    for worker in workers.values():
        worker.send("")
    for process in processes:
        process.join()


def _verdict(what: str, ratio: float, target: float) -> None:
    print(f"  {what}: {ratio:.2f} (target {target:.1f}: {'met' if ratio >= target else 'MISSED'})")


def serve(
    connection: Connection, kind: str, recipe: VAERecipe, n_threads: int, n_steps: int
) -> None:
    """One process: build a trainer, say what it is, and measure whenever it is asked to."""
    torch.set_num_threads(n_threads)
    with Path(os.devnull).open("w") as nowhere, tempfile.TemporaryDirectory() as folder:
        sys.stdout = sys.stderr = nowhere  # progress bars and advice
        os.chdir(folder)  # pythae writes into it
        dataset = smooth_images(n_steps * recipe.batch_size, recipe.image_size)
        build = our_actions if kind == "ours" else pythae_actions
        description, actions = build(recipe, dataset, n_steps)
        connection.send(description)
        while action := connection.recv():
            start = time.perf_counter()
            actions[action]()
            connection.send(len(dataset) / (time.perf_counter() - start))


def smooth_images(n: int, size: int) -> FaceDataset:
    """Random pictures about as smooth as faces, so that posteriors are about as narrow."""
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    pictures = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return FaceDataset(
        images=pictures,
        labels=np.zeros((n, 0), bool),
        attributes=(),
        identities=np.arange(n),
        partition=np.zeros(n, np.uint8),
        names=tuple(map(str, range(n))),
        skipped=(),
        digest="",
        preprocessing="",
    )


def our_actions(
    recipe: VAERecipe, dataset: FaceDataset, n_steps: int
) -> tuple[str, dict[str, Action]]:
    """Our trainer's description and what it can be asked to do."""
    asked = {"precision": "auto", "memory_format": "auto"}
    settings: Any = SimpleNamespace(settings=recipe, **asked)
    trainer = Trainer(settings, dataset, start_accelerator())
    trainer.choose_arithmetic(None)
    n_parameters = sum(p.numel() for p in trainer.model.parameters())
    return f"{n_parameters:,} parameters, {trainer.precision}, {trainer.memory_format}", {
        "training": lambda: [trainer.step() for _ in range(n_steps)],
        "encoding": lambda: [trainer.model.encode(x) for x in batches(dataset, trainer.indices)],
        "convolutions": bare_convolutions(trainer, n_steps),
    }


def bare_convolutions(trainer: Trainer, n_steps: int) -> Action:
    """The convolutions of so many steps, forward and backward, and nothing between them."""
    seen: list[tuple[nn.Module, torch.Tensor]] = []
    layers = [m for m in trainer.model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [m.register_forward_hook(lambda m, x, y: seen.append((m, x[0]))) for m in layers]
    with autocast(trainer.precision):
        trainer.objective.terms(trainer.model, trainer.batch(trainer.draws()))
    for hook in hooks:
        hook.remove()
    passes = [(m, x.detach().requires_grad_(x.requires_grad)) for m, x in seen]
    with autocast(trainer.precision):
        gradients = [torch.ones_like(layer(x)) for layer, x in passes]

    def act() -> None:
        for _ in range(n_steps):
            for (layer, x), gradient in zip(passes, gradients, strict=True):
                with autocast(trainer.precision):
                    drawn = layer(x)
                wanted = [*layer.parameters(), *([x] if x.requires_grad else [])]
                torch.autograd.grad(drawn, wanted, gradient)

    return act


def pythae_actions(
    recipe: VAERecipe, dataset: FaceDataset, n_steps: int
) -> tuple[str, dict[str, Action]]:
    """pythae's trainer, with the recipe's network and pythae's version of its objective.

    pythae has no calibrated likelihood; its squared error costs the same.
    """
    from pythae.data.datasets import BaseDataset
    from pythae.models import BetaTCVAE, BetaTCVAEConfig, BetaVAE, BetaVAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    shape = (3, recipe.image_size, recipe.image_size)
    sizes = {"input_dim": shape, "latent_dim": recipe.latent_dim, "beta": recipe.beta}
    coders = _pythae_coders(recipe)
    model: Any
    if recipe.objective == "beta-tcvae":
        model = BetaTCVAE(BetaTCVAEConfig(use_mss=recipe.estimator == "mss", **sizes), *coders)
    else:
        model = BetaVAE(BetaVAEConfig(**sizes), *coders)
    images = dataset.batch(np.arange(len(dataset))).contiguous()
    config = BaseTrainerConfig(
        output_dir=".",
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        no_cuda=not torch.cuda.is_available(),
    )
    data = BaseDataset(images, torch.zeros(len(images)))
    trainer = BaseTrainer(model, data, training_config=config)
    trainer.prepare_training()
    return "pythae", {"training": lambda: trainer.train_step(1)}


def _pythae_coders(recipe: VAERecipe) -> tuple[nn.Module, nn.Module]:
    """The recipe's encoder and decoder as pythae wants them."""
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    network = recipe.build()

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network.encoder

        def forward(self, x: torch.Tensor) -> Any:
            mean, log_variance = self.layers(x).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = network.decoder

        def forward(self, z: torch.Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z))

    return Encoder(), Decoder()


if __name__ == "__main__":
    main()
