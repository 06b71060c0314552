"""The architectures: one file each, one line each in ARCHITECTURES."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hublatent.checkpoint import CONFIG_NAME, WEIGHTS_NAME, init_parameters, read_config
from hublatent.errors import CheckpointError, HublatentError, unknown_name
from hublatent.hub import HubOptions, Snapshot, snapshot
from hublatent.model import LatentModel
from hublatent.models.eigenfaces import Eigenfaces
from hublatent.models.lsavae import LSAVAE
from hublatent.models.progan import ProGAN
from hublatent.models.stylegan import StyleGAN
from hublatent.models.stylegan2 import StyleGAN2
from hublatent.models.stylegan3 import StyleGAN3
from hublatent.models.vae import VAE, Autoencoder, BetaTCVAE, BetaVAE, FactorVAE

if TYPE_CHECKING:
    from typing_extensions import Unpack

Model = TypeVar("Model", bound=LatentModel)

ARCHITECTURES: dict[str, type[LatentModel]] = {
    "vae": VAE,
    "betavae": BetaVAE,
    "btcvae": BetaTCVAE,
    "factorvae": FactorVAE,
    "lsavae": LSAVAE,
    "autoencoder": Autoencoder,
    "eigenfaces": Eigenfaces,
    "progan": ProGAN,
    "stylegan": StyleGAN,
    "stylegan2": StyleGAN2,
    "stylegan3": StyleGAN3,
}

# What else a config.json here may name, none of which draws.
OTHER_NETWORKS = {
    "attribute-classifier": "a classifier, which reads attributes in pictures",
    "image-features": "a network whose features compare pictures",
    "face-detector": "a face detector",
    "face-identity": "a network that tells people apart",
}


def register(model_class: type[Model]) -> type[Model]:
    """Make an architecture of one's own known to `load`, direction files, cards, commands and app.

    Also a decorator of its class, whose `__init__` takes named numbers, texts and truth values:
    they are its config.json.
    """
    name = getattr(model_class, "architecture", None)
    if not issubclass(model_class, LatentModel) or not isinstance(name, str) or not name:
        raise HublatentError(
            f"{model_class.__name__} cannot be registered; expected a subclass of "
            "hublatent.model.LatentModel with the class attribute architecture = 'its-name'."
        )
    known = ARCHITECTURES.get(name)
    # A notebook's cell that is run again defines the same class anew.
    if known is not None and known.__qualname__ != model_class.__qualname__:
        raise HublatentError(f"The architecture {name!r} is {known.__name__}'s; choose another.")
    kinds = {parameter.kind for parameter in init_parameters(model_class).values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        raise HublatentError(
            f"{model_class.__name__}.__init__ takes *args or **kwargs; name every argument, for "
            "they are the keys of config.json."
        )
    ARCHITECTURES[name] = model_class
    return model_class


def why_no_latent_model(folder: Path) -> str:
    """Why a folder holds no latent model; "" where it holds one, as far as config.json says."""
    missing = [name for name in (CONFIG_NAME, WEIGHTS_NAME) if not (folder / name).is_file()]
    if missing:
        return "no model." if len(missing) == 2 else f"it has no {missing[0]}."
    try:
        architecture = read_config(folder)["architecture"]
    except CheckpointError as error:
        return str(error)
    if architecture not in ARCHITECTURES:
        return f"its architecture {architecture} is no latent model."
    return ""


def load(
    source: str | Path, *, device: str | None = None, **options: Unpack[HubOptions]
) -> LatentModel:
    """Load any latent model from a folder or the Hub, in evaluation mode.

    Args:
        source: an existing folder, which wins, or a Hub id such as "user/btcvae-celeba".
        device: where to put the model; None leaves it on the CPU.
        options: revision (branch, tag or commit), token (None takes the stored one), cache_dir, and
            local_files_only (ask nobody).

    Raises:
        HubError: the source cannot be had.
        CheckpointError: it is no latent model, or incomplete or damaged.
    """
    where = snapshot(source, **options)
    return architecture_of(where).from_snapshot(where, device=device)


def architecture_of(where: Snapshot) -> type[LatentModel]:
    """The class that a model's config names; a CheckpointError offers the known ones."""
    name = read_config(where.folder)["architecture"]
    if name in OTHER_NETWORKS:
        raise CheckpointError(
            f"{where.source} is {OTHER_NETWORKS[name]}, and draws none; expected a generative "
            f"model: {', '.join(ARCHITECTURES)}."
        )
    if name not in ARCHITECTURES:
        raise CheckpointError(
            f"{where.source}: {unknown_name('architecture', name, ARCHITECTURES)}"
        )
    return ARCHITECTURES[name]
