"""What every training shares: the order of examples, steps, log, states, and going on after a kill.

Everything a step does follows from the recipe, the step's number and the process's index. A state
therefore holds no random generators, and a resumed run ends with the weights of an unbroken one.
"""

from __future__ import annotations

import copy
import ctypes
import itertools
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import accelerate
import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.utils import make_grid
from tqdm import tqdm

from hublatent.data import FaceDataset
from hublatent.errors import DataError, HublatentError
from hublatent.images import to_float, to_pil
from hublatent.inversion.optimiser import autocast
from training.trainers.commands import DataArguments, changes, command_of
from training.trainers.run import Run

# Streams of randomness apart from the processes' own, which count from 0.
ORDER_STREAM = 1_000_003
FLIP_STREAM = 2_000_003
N_MEASURED = 5  # steps of each kind that are timed
LARGEST_SHARE = 0.25  # of a GPU's free memory, for images
StepValues = Mapping[str, Any]  # name -> float, or a scalar tensor that nobody has waited for


@dataclass(frozen=True, kw_only=True)
class TrainingArguments(DataArguments):
    """What the command line of every training asks for, beside its recipe in `settings`."""

    out: Path  # the run's folder
    recipe: str  # where the values that are not given come from
    # auto measures which is faster; a resumed run keeps it
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    state_seconds: float = 60.0  # time between two states on disk, and so what a kill can cost

    def command(self, script: str, recipes: Mapping[str, Any], **others: Any) -> str:
        """The command that trains the same again: the recipe's name, and what differs from it."""
        settings: Any = getattr(self, "settings")  # noqa: B009
        different = changes(asdict(settings), asdict(recipes[self.recipe]))
        out = f"runs/{self.out.resolve().name}"
        return command_of(script, self, recipe=self.recipe, out=out, **others, **different)


class Trainer(ABC):
    """One training: its networks, a step of them, what a run shows of it and leaves behind.

    A subclass fills `parts` and implements `update`, `report` and `finish`.

    Attributes:
        arithmetic: names of what "auto" chooses between by the stopwatch, and the choices.
        precision: of the networks' passes, "fp32" or "bf16".
        parts: what a state holds, by name; each has state_dict and load_state_dict.
        indices: the training images' positions in the dataset.
        n_steps: steps done.
        reads_each_step: whether a step waits for its numbers, which on a CPU costs nothing.
    """

    arithmetic: ClassVar[dict[str, tuple[str, ...]]] = {"precision": ("fp32", "bf16")}
    precision = "fp32"

    def __init__(
        self, arguments: Any, dataset: FaceDataset, accelerator: accelerate.Accelerator
    ) -> None:
        self.arguments, self.recipe = arguments, arguments.settings
        self.accelerator, self.device = accelerator, accelerator.device
        self.dataset, self.indices = dataset, dataset.indices("train")
        self.parts: dict[str, Any] = {}
        self.n_steps = 0
        self.reads_each_step = self.device.type == "cpu"

    @classmethod
    def check_data(cls, recipe: Any, dataset: FaceDataset, n_processes: int) -> None:
        """Refuse, with a DataError, data that cannot be trained on."""
        if not len(dataset.indices("train")):
            raise DataError("The data has no training images.")

    def begin(self) -> None:
        """Take up what a new run starts from; by default, nothing."""
        return

    @abstractmethod
    def update(self) -> StepValues:
        """Update the networks once; returns losses and statistics, averaged over the processes."""

    @abstractmethod
    def report(self, journal: Journal) -> None:
        """On the main process, log and draw what is due after a step."""

    @abstractmethod
    def finish(self, journal: Journal) -> dict[str, Any]:
        """On the main process, write what the end of the run leaves behind; returns the results."""

    @property
    def n_images(self) -> int:
        """Images after which the training ends; a step begun before is finished."""
        return int(self.recipe.epochs * len(self.indices))

    @property
    def n_total_steps(self) -> int:
        """Steps of the whole training."""
        return math.ceil(self.n_images / self.recipe.batch_size)

    @property
    def images_seen(self) -> int:
        """Images seen so far, over all processes."""
        return self.n_steps * self.recipe.batch_size

    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return cosine_rate(self.recipe, self.n_steps, self.n_total_steps)

    def step(self) -> StepValues:
        """Update the networks once, and count it."""
        values = self.update()
        self.n_steps += 1
        return values

    def draws(self, stream: int = 0) -> torch.Generator:
        """This process's generator of the step; streams tell independent uses apart."""
        process, n = self.accelerator.process_index, self.accelerator.num_processes
        return step_generator(self.recipe.seed, self.n_steps, stream * n + process)

    def noise_draws(self, draws: torch.Generator) -> torch.Generator:
        """A generator for millions of numbers, which a GPU draws itself from the same seed."""
        if self.device.type == "cpu":
            return draws
        return torch.Generator(self.device).manual_seed(draws.initial_seed())

    def positions(self, order: int = 0) -> np.ndarray:
        """Which training images (B,) are this process's in the step; every epoch is in a random
        order of its own, and another `order` gives independent ones.
        """
        n, seed = len(self.indices), self.recipe.seed
        whole = np.arange(self.recipe.batch_size) + self.images_seen
        mine = whole[self.accelerator.process_index :: self.accelerator.num_processes]
        return np.array([_epoch_order(n, seed, int(p) // n, order)[p % n] for p in mine])

    @cached_property
    def pixels(self) -> Tensor | None:
        """The training images (N, H, W, C), uint8, on a GPU that has room for them, else None."""
        if self.device.type != "cuda":
            return None
        n_bytes = len(self.indices) * self.dataset.images[0].nbytes
        if n_bytes > torch.cuda.mem_get_info(self.device)[0] * LARGEST_SHARE:
            return None
        return torch.from_numpy(self.dataset.images[self.indices]).to(self.device)

    def images_at(self, positions: np.ndarray, flip: bool) -> Tensor:
        """Training images (B, C, H, W) on the device, in [-1, 1]; `flip` mirrors half of them."""
        if self.pixels is None:
            images = self.dataset.batch(self.indices[positions]).to(self.device)
        else:
            images = to_float(self.pixels[self.on_device(positions)])
        if flip:
            stream = FLIP_STREAM + self.accelerator.process_index
            draws = step_generator(self.recipe.seed, self.n_steps, stream)
            mirrored = self.on_device((torch.rand(len(images), generator=draws) < 0.5).numpy())
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        return images

    def on_device(self, values: np.ndarray) -> Tensor:
        """A small array on the device, without waiting for what that is doing."""
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def step_values(self, terms: Mapping[str, Tensor]) -> StepValues:
        """Scalars averaged over the processes, checked before any of them reaches the weights.

        Where that would stop the device, the journal checks their sums before it writes a state.
        """
        stacked = torch.stack([term.detach().float().to(self.device) for term in terms.values()])
        means = self.accelerator.reduce(stacked, reduction="mean")
        if not self.reads_each_step:
            return dict(zip(terms, means, strict=True))
        values = dict(zip(terms, means.tolist(), strict=True))
        check_finite(values, self.images_seen)
        return values

    def descend(
        self, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float | None = None
    ) -> None:
        """Let an optimiser take one step down a loss; no other parameter gets a gradient."""
        if rate is not None:
            set_rate(optimizer, rate)
        loss.backward(inputs=parameters_of(optimizer))
        self.apply(optimizer)

    def apply(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimiser take one step along its parameters' gradients.

        They are averaged over the processes here, as one flat tensor: second derivatives and two
        losses over one network fit no wrapper that averages during the backward pass.
        """
        if self.accelerator.num_processes > 1:
            gradients = [p.grad for p in parameters_of(optimizer) if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            flat = self.accelerator.reduce(flat, reduction="mean")
            parts = flat.split([gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def use(self, **choice: str) -> None:
        """Take up an arithmetic."""
        vars(self).update(choice)

    def choose_arithmetic(self, state: Mapping[str, Any] | None) -> None:
        """Use what the command line asks for; for "auto" the state's, or the fastest.

        Steps are timed, in turns, so that other load on the machine meets all choices alike, and
        undone. All processes take the first one's stopwatch.
        """
        asked = {name: getattr(self.arguments, name) for name in self.arithmetic}
        known = {name: value for name, value in asked.items() if value != "auto"}
        if state is not None:
            known = {name: state[name] for name in asked} | known
        free = [(known[name],) if name in known else self.arithmetic[name] for name in asked]
        choices = list(itertools.product(*free))
        seconds = dict.fromkeys(choices, math.inf)
        before = copy.deepcopy(self.state())
        if len(choices) > 1:
            tried = " or ".join(" ".join(choice) for choice in choices)
            self.accelerator.print(f"measuring which is faster: {tried}", flush=True)
        for turn in range(N_MEASURED + 1 if len(choices) > 1 else 0):
            for choice in choices:
                self.use(**dict(zip(asked, choice, strict=True)))
                start = time.perf_counter()
                self.update()
                if self.device.type == "cuda":
                    torch.cuda.synchronize()
                if turn:  # the first one warms up
                    seconds[choice] = min(seconds[choice], time.perf_counter() - start)
                self.load_state(before)
        if len(choices) > 1:
            found = ", ".join(f"{' '.join(choice)} {s:.3f}" for choice, s in seconds.items())
            self.accelerator.print(f"measured seconds per step: {found}")
        (best,) = broadcast_object_list([min(seconds, key=seconds.__getitem__)])
        self.use(**dict(zip(asked, best, strict=True)))

    def autocast(self) -> AbstractContextManager[Any]:
        """The passes of networks belong in here."""
        return autocast(self.precision, self.device.type)

    @property
    def choice(self) -> dict[str, str]:
        """The arithmetic in use."""
        return {name: getattr(self, name) for name in self.arithmetic}

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        return {**parts, "n_steps": self.n_steps, **self.choice}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        for name, part in self.parts.items():
            if isinstance(part, torch.optim.Optimizer):
                _load_optimizer(part, state[name])
            else:
                part.load_state_dict(state[name])
        self.n_steps = state["n_steps"]

    def results(self, model: nn.Module) -> dict[str, Any]:
        """What results.json says of any training, and of the model that it leaves."""
        return {
            "recipe": asdict(self.recipe),
            **described(self.dataset, parameter_count(model)),
            "images_seen": self.images_seen,
            "n_processes": self.accelerator.num_processes,
            **self.choice,
        }


class Journal:
    """Counts a run's steps, and writes its log and its states.

    Its `progress` goes into the state, so that a resumed run goes on counting.
    """

    def __init__(self, run: Run, trainer: Trainer, progress: dict[str, Any] | None = None) -> None:
        self.run = run
        self.trainer = trainer
        empty = {"sums": {}, "counts": {}, "n_steps": 0, "interval_seconds": 0.0, "seconds": 0.0}
        self.progress: dict[str, Any] = progress or empty
        self.saved = self.started = time.monotonic()

    def after_step(self, values: StepValues) -> None:
        """Take in a step's values; report and save what is due."""
        progress = self.progress
        for name, value in values.items():
            progress["sums"][name] = progress["sums"].get(name, 0.0) + value
            progress["counts"][name] = progress["counts"].get(name, 0) + 1
        progress["n_steps"] += 1
        self._count_seconds(self.started)
        self.trainer.report(self)
        if time.monotonic() - self.saved >= self.trainer.arguments.state_seconds:
            self.save_state()
        self.started = time.monotonic()  # what was written does not count as training

    def settle(self) -> None:
        """Read the sums that still lie on the device, and refuse what is no longer a number."""
        start, sums = time.monotonic(), self.progress["sums"]
        self.progress["sums"] = {name: float(total) for name, total in sums.items()}
        self._count_seconds(start)  # that the device was behind
        check_finite(self.progress["sums"], self.trainer.images_seen)

    def _count_seconds(self, start: float) -> None:
        for name in ("interval_seconds", "seconds"):
            self.progress[name] += time.monotonic() - start

    def save_state(self) -> None:
        """Write the state that a killed run goes on from."""
        self.settle()
        self.run.save_state({**self.trainer.state(), "progress": self.progress})
        self.saved = time.monotonic()

    def is_due(self, every: int) -> bool:
        """Whether the last step completed another `every` images."""
        seen = self.trainer.images_seen
        return seen // every > (seen - self.trainer.recipe.batch_size) // every

    def log(self, **values: Any) -> None:
        """Write a line of the steps' mean values since the last one, and of the given ones."""
        self.settle()
        progress = self.progress
        means = {name: total / progress["counts"][name] for name, total in progress["sums"].items()}
        n_images = progress["n_steps"] * self.trainer.recipe.batch_size
        rate = n_images / max(progress["interval_seconds"], 1e-9)
        self.run.log(
            images=self.trainer.images_seen,
            **{name: float(f"{mean:.6g}") for name, mean in means.items()},
            **values,
            images_per_second=round(rate, 1),
        )
        progress.update(sums={}, counts={}, n_steps=0, interval_seconds=0.0)


def train(
    arguments: Any, trainer_class: Any, settings: Mapping[str, Any] = {}, **options: Any
) -> dict[str, Any] | None:
    """Train, or go on training, until the trainer's end.

    Args:
        arguments: TrainingArguments with a recipe in `settings`.
        trainer_class: a subclass of Trainer.
        settings: what else has to be the same when the run is resumed.
        options: what else the trainer is given.

    Returns:
        On the main process, what the trainer's `finish` returns.
    """
    recipe = arguments.settings
    recipe.check()
    accelerator = start_accelerator()
    dataset = arguments.load(recipe.image_size, accelerator.is_main_process)
    n = accelerator.num_processes
    if recipe.batch_size % n:
        raise DataError(f"--batch-size {recipe.batch_size} is not divisible by {n} processes.")
    trainer_class.check_data(recipe, dataset, n)
    settings = {**asdict(recipe), "data": dataset.digest, **settings}
    run, results = Run(arguments.out), None
    usual = {f.name: f.default for f in fields(recipe) if f.default is not MISSING}
    with run.open(settings, accelerator.is_main_process, recipe.may_change, usual):
        accelerator.wait_for_everyone()
        state = run.load_state()
        trainer: Trainer = trainer_class(arguments, dataset, accelerator, **options)
        trainer.choose_arithmetic(state)
        if state is None:
            trainer.begin()
        else:
            trainer.load_state(state)
        accelerator.print(_announcement(arguments.recipe, trainer), flush=True)
        journal = None
        if accelerator.is_main_process:
            run.trim_log(trainer.images_seen)
            journal = Journal(run, trainer, state and state["progress"])
        _run_steps(trainer, journal)
        if journal is not None:
            journal.save_state()
            results = trainer.finish(journal)
        accelerator.wait_for_everyone()
    accelerator.end_training()
    return results


def _run_steps(trainer: Trainer, journal: Journal | None) -> None:
    often = 1.0 if sys.stderr.isatty() else 10.0
    seen, total = trainer.images_seen, trainer.n_images
    with tqdm(
        total=total, initial=seen, unit="image", mininterval=often, disable=journal is None
    ) as bar:
        while trainer.images_seen < total:
            values = trainer.step()
            bar.update(trainer.images_seen - bar.n)
            if journal is not None:
                journal.after_step(values)
                if trainer.reads_each_step:
                    shown = {name: f"{value:.4g}" for name, value in list(values.items())[:3]}
                    bar.set_postfix(shown, refresh=False)


def _announcement(name: str, trainer: Trainer) -> str:
    start = f"resumes at {trainer.images_seen:,} images" if trainer.n_steps else "starts"
    networks = ", ".join(
        f"{part} {parameter_count(network):,}"
        for part, network in trainer.parts.items()
        if isinstance(network, nn.Module) and part != "average"
    )
    return (
        f"{name} {start}: parameters: {networks}; {len(trainer.indices):,} training images; "
        f"{trainer.n_images:,} to see in steps of {trainer.recipe.batch_size}; "
        f"{trainer.precision}; seed {trainer.recipe.seed}; "
        f"{trainer.accelerator.num_processes} process(es) on {trainer.device.type}"
    )


def step_generator(seed: int, step: int, stream: int = 0) -> torch.Generator:
    """A generator that depends on nothing but (seed, step, stream)."""
    # Three odd 64-bit constants spread neighbouring numbers over the whole range of seeds.
    mixed = seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + stream * 0x94D049BB133111EB
    return torch.Generator().manual_seed(mixed % (1 << 63))


@lru_cache(maxsize=4)
def _epoch_order(n: int, seed: int, epoch: int, order: int) -> np.ndarray:
    draws = step_generator(seed, epoch, ORDER_STREAM + order)
    return torch.randperm(n, generator=draws).numpy()


def check_finite(values: Mapping[str, float], images_seen: int) -> None:
    """Refuse losses and statistics, or sums of them, of a training that diverged."""
    if all(map(math.isfinite, values.values())):
        return
    found = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    raise HublatentError(
        f"The training diverged after {images_seen:,} images ({found}). Its last state is whole: "
        "try a lower --learning-rate with another --out."
    )


def cosine_rate(recipe: Any, n_steps: int, n_total_steps: int) -> float:
    """Linear warm-up to the recipe's rate over a share of the steps, then half a cosine down to 0
    (Loshchilov & Hutter, arXiv:1608.03983).
    """
    n_warm = recipe.warm_up * n_total_steps
    if n_steps < n_warm:
        return recipe.learning_rate * (n_steps + 1) / (n_warm + 1)
    progress = (n_steps - n_warm) / max(1.0, n_total_steps - n_warm)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def exponential_average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a model's weights and statistics."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set an optimiser's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters that an optimiser moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def parameter_count(model: nn.Module) -> int:
    """How many trained numbers a model has."""
    return sum(parameter.numel() for parameter in model.parameters())


def batches(
    dataset: FaceDataset, indices: np.ndarray, device: torch.device | str = "cpu", size: int = 256
) -> Iterator[Tensor]:
    """Some images of a dataset on a device, (B, C, H, W) in [-1, 1], B at most a size."""
    for start in range(0, len(indices), size):
        yield dataset.batch(indices[start : start + size]).to(device)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """A model in evaluation, without gradients, and then as it was; yields where it lies."""
    was_training = model.training
    with torch.no_grad():
        yield next(itertools.chain(model.eval().buffers(), model.parameters())).device
    model.train(was_training)


def contact_sheet(images: Tensor, n_columns: int) -> Image.Image:
    """Images (B, C, H, W) in [-1, 1] in rows, from the top left; the last may end in black."""
    return to_pil(make_grid(images, n_columns, padding=0, pad_value=-1.0)[None])[0]


def described(dataset: FaceDataset, n_parameters: int) -> dict[str, Any]:
    """What any results.json says of a model's size and of the data that it was trained on."""
    return {
        "dataset": dataset.name,
        "data": dataset.digest,
        "preprocessing": dataset.preprocessing,
        "n_train": len(dataset.indices("train")),
        "n_skipped": len(dataset.skipped),
        "n_parameters": n_parameters,
        "torch": torch.__version__,
    }


def start_accelerator() -> accelerate.Accelerator:
    """Accelerate for this process, on the GPU where there is one."""
    keep_freed_memory()
    # All steps have the same shapes: cuDNN tries its algorithms once, and keeps the fastest.
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    # Without this, processes launched on a machine without a GPU would each train on their own.
    on_cpu = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    return accelerate.Accelerator(cpu=on_cpu, mixed_precision="no")


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step; elsewhere nothing happens.

    By default it gives each step's activations back to the system and has them paged in again,
    zeroed: a tenth of a CPU step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    # Parameters of glibc's mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD.
    for parameter, value in ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 26)):
        if mallopt is not None:  # other C libraries lack it
            mallopt(parameter, value)


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up a saved optimiser; fused steps expect moments to lie as their parameters do."""
    optimizer.load_state_dict(state)
    for parameter, moments in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            moments[name] = torch.empty_like(parameter).copy_(moments[name])
