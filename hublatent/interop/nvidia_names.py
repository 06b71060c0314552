"""NVIDIA's names of StyleGAN2's weights (stylegan2-ada-pytorch, stylegan3) and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_RULES = (
    (r"mapping\.fc(\d+)\.(weight|bias)", r"mapping_network.\1.\2"),
    (r"mapping\.w_avg", r"latent_mean"),
    (r"synthesis\.b4\.const", r"const"),
    (r"synthesis\.b(\d+)\.(conv[01])\.(.+)", r"blocks.\1.\2.\3"),
    (r"synthesis\.b(\d+)\.torgb\.(.+)", r"blocks.\1.to_rgb.\2"),
)


def our_name(nvidia_name: str) -> str | None:
    """Our name of a generator's weight.

    Args:
        nvidia_name: its name in NVIDIA's state dict, without a leading "G.".

    Returns:
        The name in StyleGAN2's state dict, or None where it has no counterpart.
    """
    for pattern, replacement in _RULES:
        if re.fullmatch(pattern, nvidia_name):
            return re.sub(pattern, replacement, nvidia_name)
    return None


def rename_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a generator's state dict to ours.

    The resampling filters are left out: ours is fixed to [1, 3, 3, 1], NVIDIA's default, which the
    caller has to check. Unknown names are kept, so that strict loading reports them.

    Args:
        weights: NVIDIA's names -> tensors.

    Returns:
        Our names -> tensors; latent_covariance is not among NVIDIA's weights.
    """
    return {
        our_name(name) or name: tensor
        for name, tensor in weights.items()
        if not name.endswith("resample_filter")
    }
