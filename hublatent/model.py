"""LatentModel: the contract that each architecture fulfils."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from types import EllipsisType
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hublatent.checkpoint import check_number, init_parameters
from hublatent.errors import DataError, HublatentError
from hublatent.hub import HubModel

SAMPLE_BATCH = 32


class LatentModel(nn.Module, HubModel):
    """A generative model whose latents can be read, moved and decoded.

    A subclass names its `architecture` and `space`, builds itself from JSON scalars, and implements
    `decode`; with an encoder also `encode`, without one `sample_latents`.

    Attributes:
        architecture: its key in ARCHITECTURES and in config.json.
        space: name of the latent space, "z" or "w+".
        default_layers: the layers that directions move unless told otherwise; () for all.
        auxiliary: how names of tensors and arguments begin that lie beside the generator and do
            not define the latent space, such as "encoder".
        image_size: height and width of the images, in pixels.
        channels: channels of the images.
        latent_shape: shape of one latent, (D,) or (L, D); D is also its `latent_dim`.
        latent_mean: (D,), mean of the latents of real images.
        latent_covariance: (D, D), their covariance.
    """

    space: ClassVar[str] = "z"
    default_layers: ClassVar[tuple[int, ...]] = ()
    auxiliary: ClassVar[tuple[str, ...]] = ()
    latent_mean: Tensor
    latent_covariance: Tensor
    _known_fingerprints: tuple[list[Any], tuple[str, str]] | None = None

    def __init__(self, image_size: int, channels: int, latent_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.image_size = image_size
        self.channels = channels
        self.latent_shape = latent_shape
        self.latent_dim = latent_shape[-1]
        self.register_buffer("latent_mean", torch.zeros(self.latent_dim))
        # On the meta device torch.eye would import a large library.
        eye = torch.zeros(self.latent_dim, self.latent_dim).fill_diagonal_(1)
        self.register_buffer("latent_covariance", eye)

    @property
    def has_encoder(self) -> bool:
        """Whether `encode` reads an image directly; otherwise use hublatent.project()."""
        return True

    @property
    def encoder_estimates(self) -> bool:
        """Whether `encode` only estimates the latents, so that project() comes closer."""
        return self.has_encoder and "encoder" in self.auxiliary

    def encode(self, images: Tensor) -> Tensor:
        """The latents (B, *latent_shape) of images (B, C, H, W) in [-1, 1]; deterministic."""
        raise HublatentError(
            f"{type(self).__name__} has no encoder. Find latents of given images with "
            "hublatent.project(model, images)."
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [-1, 1] of latents (B, *latent_shape)."""
        raise NotImplementedError

    def synthesize(
        self, latents: Tensor, noise: Literal["const"] | Sequence[Tensor] = "const"
    ) -> Tensor:
        """Draw images with gradients, for projection; unclamped where an architecture can.

        Args:
            noise: "const" takes the model's own noise maps; or (B, 1, H, W) for each of them.
        """
        return self.decode(latents)

    def first_affine(self, layers: Sequence[int] | None = None) -> Tensor:
        """The weights (N, D) that first act on a latent, by default on its `default_layers`."""
        raise HublatentError(
            f"{type(self).__name__} names no weights that first act on a latent, so its "
            "directions cannot be found by factorisation; a subclass does so in first_affine()."
        )

    def moved_rows(self, layers: Iterable[int] | None = None) -> list[int] | EllipsisType:
        """An index of the rows of a latent that directions move; of all, where it has no layers.

        None takes the `default_layers`, or all where the model names none.
        """
        if len(self.latent_shape) == 1:
            if layers is not None:
                raise HublatentError(f"A latent of shape {self.latent_shape} has no layers.")
            return ...
        n_layers = self.latent_shape[0]
        usual = self.default_layers or range(n_layers)
        chosen = sorted(set(usual if layers is None else layers))
        if not chosen or chosen[0] < 0 or chosen[-1] >= n_layers:
            raise HublatentError(
                f"Layers {(*chosen,)} were given; the model has 0 to {n_layers - 1}."
            )
        return chosen

    def noise_maps(self) -> list[Tensor]:
        """The constant noise maps (H, W) that the images are drawn with; [] without any."""
        return []

    @torch.no_grad()
    def sample_latents(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents (n, *latent_shape) from the Gaussian of the latent statistics.

        With a calibrated decoder the prior N(0, I) is far from where real latents lie. A CPU
        generator of one seed gives the same latents on every device.
        """
        noise = torch.randn(n, self.latent_mean.numel(), generator=generator, dtype=torch.float64)
        covariance = self.latent_covariance.double().cpu()
        # A ridge keeps the factorisation possible when a latent dimension is unused. When hardly
        # any is used, the covariance's float32 digits end above the others' variance.
        variances, eye = covariance.diagonal(), torch.eye(len(covariance), dtype=torch.float64)
        for ridge in (1e-6 * variances.mean(), 1e-6 * variances.sum()):
            factor, failure = torch.linalg.cholesky_ex(covariance + ridge * eye)
            if not failure:
                break
        else:
            raise HublatentError(
                f"This {type(self).__name__}'s latent_covariance is no covariance (not positive "
                "definite), so nothing can be drawn from it; the checkpoint is damaged."
            )
        latents = self.latent_mean.double().cpu() + noise @ factor.T
        return latents.to(self.latent_mean).reshape(n, *self.latent_shape)

    @torch.no_grad()
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Draw images of nobody: (n, C, H, W), in [-1, 1], on the model's device."""
        latents = self.sample_latents(n, generator=torch.Generator().manual_seed(seed))
        return torch.cat([self.decode(part) for part in latents.split(SAMPLE_BATCH)])

    @torch.no_grad()
    def set_latent_statistics(self, latents: Tensor) -> None:
        """Fix the latent statistics from latents (N, D) of real images at natural prevalence."""
        values = latents.double()
        covariance = torch.cov(values.T).reshape(self.latent_covariance.shape)
        if not bool(torch.isfinite(covariance.to(self.latent_covariance.dtype)).all()):
            raise DataError("The latents hold NaN or values too large to have a covariance.")
        self.latent_mean.copy_(values.mean(dim=0))
        self.latent_covariance.copy_(covariance)

    def fingerprint(self) -> str:
        """Identify the latent space: sha256 over what defines it.

        That is the architecture, the arguments that differ from their defaults, and every tensor's
        name, type, shape and bytes; nothing that `auxiliary` names. It is computed once and anew
        when a weight has changed, unless the change was made through `.data`, which nobody sees.
        Two models with the same 64 hexadecimal digits edit alike.
        """
        return self._fingerprints()[0]

    def matches(self, fingerprint: str) -> bool:
        """Whether a fingerprint is this model's; files of format version 1 hash weights alone."""
        return fingerprint in self._fingerprints()

    def _fingerprints(self) -> tuple[str, str]:
        """Today's fingerprint, and the one that files of format version 1 name."""
        state = self.state_dict().items()
        tensors = {name: t for name, t in state if not name.startswith(self.auxiliary)}
        # Writing into a tensor raises its version, moving it to a device changes its address.
        versions = (0 if t.is_inference() else t._version for t in tensors.values())
        now = [(t.data_ptr(), v) for t, v in zip(tensors.values(), versions, strict=True)]
        if self._known_fingerprints is None or self._known_fingerprints[0] != now:
            weights = _digest(tensors)
            whole = hashlib.sha256(json.dumps(self._defining_config(), sort_keys=True).encode())
            whole.update(weights.digest())
            self._known_fingerprints = now, (whole.hexdigest(), weights.hexdigest())
        return self._known_fingerprints[1]

    def _defining_config(self) -> dict[str, Any]:
        """The architecture and what differs from the defaults.

        So an argument that is added later, with a default that changes nothing, changes no
        fingerprint; a default itself can never be changed.
        """
        config = self.config
        chosen = {
            name: float(config[name]) if isinstance(config[name], int) else config[name]
            for name, parameter in init_parameters(type(self)).items()
            if not name.startswith(self.auxiliary) and config[name] != parameter.default
        }
        return {"architecture": self.architecture, **chosen}

    def check_images(self, images: Tensor) -> None:
        """Refuse images that are not (B, C, H, W) of this model's size."""
        self._check("images", images, (self.channels, self.image_size, self.image_size))

    def check_latents(self, latents: Tensor) -> None:
        """Refuse latents that are not (B, *latent_shape)."""
        self._check("latents", latents, self.latent_shape)

    def _check(self, what: str, given: Tensor, shape: tuple[int, ...]) -> None:
        if given.ndim != 1 + len(shape) or given.shape[1:] != shape:
            raise HublatentError(
                f"{type(self).__name__} got {what} of shape {tuple(given.shape)}; "
                f"expected (B, {', '.join(map(str, shape))})."
            )


def check_image_arguments(image_size: int, channels: int) -> None:
    """Refuse image arguments that no architecture here draws."""
    check_number("image_size", image_size, 8, 1024)
    check_number("channels", channels, 1, 4)


def weights_digest(module: nn.Module) -> str:
    """sha256 over a module's sorted (name, dtype, shape, bytes), in hexadecimal digits."""
    return _digest(module.state_dict()).hexdigest()


def _digest(tensors: Mapping[str, Tensor]) -> Any:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest
