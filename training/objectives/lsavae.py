"""LSA-VAE's objective (Li et al. 2018, ICPR), as a reading of the paper's abstract.

The abstract says: style and one dimension per attribute; no third network; the encoder is at once
discriminator and attribute classifier. The losses here follow introspective VAEs (Huang et al.
2018, arXiv:1807.06358), whose encoder tells real from drawn images by the KL divergence. With
s, a the posterior's style and attributes, x_r a reconstruction and x_p an image drawn from another
image's style and a third one's attributes y':

    encoder: rec + KL_s(x) + KL_a(x | y) + lambda BCE(a, y) + w sum_f [m - KL_s(f)]_+
    decoder: rec + w sum_f KL_s(f) + lambda (BCE(a(x_r), y) + BCE(a(x_p), y')),   f in {x_r, x_p}

Introspective VAEs draw x_p's style from N(0, I). With a calibrated decoder that is far from where
faces lie, so a style of the same batch is taken, which is a draw of the aggregate posterior.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from hublatent.evaluation.rate import kl_divergence
from hublatent.models.lsavae import LSAVAE
from hublatent.models.vae import LOG_VARIANCE_RANGE
from training.objectives.objective import Batch, Objective, pixel_mse, sample_posterior


def attribute_kl(mean: Tensor, log_variance: Tensor, labels: Tensor) -> Tensor:
    """KL(q(a|x) || N(2y - 1, 1)) of the attributes' dimensions; all (B, K), labels 0 or 1."""
    return kl_divergence(mean - (2 * labels - 1), log_variance)


def attribute_cross_entropy(values: Tensor, labels: Tensor) -> Tensor:
    """How badly the attributes' dimensions a (B, K) tell the labels, in nats over all attributes.

    Under the priors N(1, 1) and N(-1, 1) the log odds of presence are exactly 2a.
    """
    total = functional.binary_cross_entropy_with_logits(2 * values, labels, reduction="sum")
    return total / len(values)


class LSAVAEObjective(Objective):
    """Encoder and decoder against each other, in one loss.

    The encoder reads copies of the drawn images without a gradient into them; the decoder is
    judged by the encoder's weights as constants. So one sum serves both.
    """

    def terms(self, model: LSAVAE, batch: Batch) -> dict[str, Tensor]:
        recipe, n, images, labels = self.recipe, model.style_dim, batch.images, batch.labels
        mean, log_variance = model.encode_distribution(images)  # (B, D) each
        z = sample_posterior(mean, log_variance, batch.draws)
        decoded = model.decode_unclamped(z)  # (B, C, H, W)
        swapped, wanted = self._swapped(z[:, :n].detach(), labels, batch.draws)
        drawn = torch.cat([decoded, model.decode_unclamped(swapped)])  # (2B, C, H, W)
        asked = torch.cat([labels, wanted])  # (2B, K)
        with frozen_statistics(model.encoder):
            seen_mean, seen_log_variance = model.encode_distribution(drawn.detach())
            judged_mean, judged_log_variance = encode_by_constants(model, drawn)
        reconstruction = self.reconstruction(decoded, images)
        style_kl = kl_divergence(mean[:, :n], log_variance[:, :n])
        label_kl = attribute_kl(mean[:, n:], log_variance[:, n:], labels)
        read = attribute_cross_entropy(mean[:, n:], labels)
        drawn_read = attribute_cross_entropy(judged_mean[:, n:], asked)
        drawn_kl = kl_divergence(judged_mean[:, :n], judged_log_variance[:, :n])
        below = recipe.margin - kl_divergence(seen_mean[:, :n], seen_log_variance[:, :n])
        adversarial = functional.relu(below) + drawn_kl
        weighted = recipe.attribute_weight * (read + drawn_read)
        loss = reconstruction + style_kl + label_kl + weighted
        return {
            "loss": loss + recipe.adversarial_weight * adversarial,
            "reconstruction": reconstruction,
            "style_kl": style_kl,
            "attribute_kl": label_kl,
            "attribute_cross_entropy": read,
            "drawn_attribute_cross_entropy": drawn_read,
            "drawn_style_kl": drawn_kl,
            "mse": pixel_mse(decoded, images).detach(),
        }

    @staticmethod
    def _swapped(style: Tensor, labels: Tensor, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Styles (B, D - K) with the attributes of others: latents (B, D), and labels (B, K)."""
        order = torch.randperm(len(labels), generator=draws, device=draws.device)
        noise = torch.randn(labels.shape, generator=draws, device=draws.device).to(labels.device)
        wanted = labels[order.to(labels.device)]
        return torch.cat([style, 2 * wanted - 1 + noise], dim=1), wanted


def encode_by_constants(model: LSAVAE, images: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior's mean and log variance, with gradients to the images but not the encoder."""
    constants = {
        name: value.detach()
        for name, value in (*model.encoder.named_parameters(), *model.encoder.named_buffers())
    }
    numbers = torch.func.functional_call(model.encoder, constants, images).float()  # (B, 2D)
    mean, log_variance = numbers.chunk(2, dim=1)
    return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)


@contextmanager
def frozen_statistics(network: nn.Module) -> Iterator[None]:
    """Keep drawn images out of the running statistics, which serve real ones after training."""
    layers = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
