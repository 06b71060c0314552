"""StyleGAN2's generator (Karras et al. 2020, arXiv:1912.04958) in pure PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.errors import HublatentError
from hublatent.models.layers import EqualLinear, channels_by_height, largest_map
from hublatent.models.style_generator import StyleGenerator
from hublatent.models.stylegan2_layers import SynthesisBlock


class StyleGAN2(StyleGenerator):
    """StyleGAN2's generator with skip-RGB synthesis; its latents (L, D) lie in W+.

    Feature maps of height r have max(channel_min, min(channel_base // r, channel_max)) channels;
    with channel_min = 1 this is NVIDIA's rule.

    Args:
        image_size: height and width in pixels, a power of two from 16 to 1024.
        channels: image channels.
        latent_dim: D, width of a layer's latent.
        z_dim: width of the mapping network's input.
        mapping_layers: depth of the mapping network.
        mapping_lr_multiplier: learning rate of the mapping network relative to the rest.
        channel_base: channels times height of the feature maps.
        channel_max: channels never exceed this.
        channel_min: channels never fall below this.
        conv_clamp: activations are clamped to +-conv_clamp; 0 leaves them free.
        encoder_width: channels of the encoder's first stage; 0 for no encoder.
        encoder_of: the fingerprint of the generator that the encoder was trained for.
    """

    architecture = "stylegan2"
    default_layers = (0, 1, 2)

    def __init__(
        self,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 256,
        z_dim: int = 256,
        mapping_layers: int = 4,
        mapping_lr_multiplier: float = 0.01,
        channel_base: int = 2048,
        channel_max: int = 256,
        channel_min: int = 48,
        conv_clamp: float = 0.0,
        encoder_width: int = 0,
        encoder_of: str = "",
    ) -> None:
        check_number("encoder_width", encoder_width, 0, 256)
        check_number("conv_clamp", conv_clamp, 0, 1e9, float)
        widths = channels_by_height(image_size, channels, channel_base, channel_max, channel_min)
        super().__init__(
            image_size, channels, 2 * len(widths), largest_map(widths),
            latent_dim, z_dim, mapping_layers, mapping_lr_multiplier,
        )  # fmt: skip
        self.channel_base = channel_base
        self.channel_max = channel_max
        self.channel_min = channel_min
        self.conv_clamp = conv_clamp
        self.const = nn.Parameter(torch.randn(widths[4], 4, 4))
        self.blocks = nn.ModuleDict(
            {
                str(height): SynthesisBlock(
                    widths.get(height // 2, 0), width, height, latent_dim, channels, conv_clamp
                )
                for height, width in widths.items()
            }
        )
        self.add_encoder(encoder_width, encoder_of)

    def to_styles(self, latents: Tensor) -> Tensor:
        """The styles of latents: what the layers make of them (StyleSpace, Wu et al. 2021).

        Args:
            latents: (B, L, D).

        Returns:
            (B, S), one number per channel of each layer's input, in the network's order: the
            layers of each block, then its ToRGB.
        """
        self.check_latents(latents)
        return torch.cat([affine(latents[:, row]) for affine, row in self.style_layers()], dim=1)

    def decode_styles(self, styles: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [-1, 1] of styles (B, S), with constant noise.

        Raises:
            HublatentError: the styles have another shape.
        """
        widths = [len(affine.bias) for affine, _ in self.style_layers()]
        if styles.ndim != 2 or styles.shape[1] != sum(widths):
            raise HublatentError(
                f"decode_styles got styles of shape {tuple(styles.shape)}; expected "
                f"(B, {sum(widths)})."
            )
        images = self._in_pieces(self._draw_styles, styles, self.noise_maps())
        return images.clamp(-1, 1)

    def style_layers(self) -> list[tuple[EqualLinear, int]]:
        """Each style's affine layer, and the row of the latent that it reads.

        A ToRGB shares its row with the first layer of the next block.
        """
        found = []
        for i, block in enumerate(self._blocks()):
            first = max(2 * i - 1, 0)
            found += [(affine, first + j) for j, affine in enumerate(block.affines())]
        return found

    def _affines(self) -> list[EqualLinear]:
        return [
            *(conv.affine for block in self._blocks() for conv in block.convs()),
            self._blocks()[-1].to_rgb.affine,
        ]

    def _draw(self, latents: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        return self._draw_styles(self.to_styles(latents), noise)

    def _draw_styles(self, styles: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        # A copy in any case: without gradients the layers work in place.
        x = self.const.expand(len(styles), -1, -1, -1)
        x = x.clone(memory_format=torch.channels_last)  # (B, C0, 4, 4)
        scale = torch.ones_like(x[:, :, 0, 0])  # (B, C0)
        image = None
        for i, block in enumerate(self._blocks()):
            widths = [len(affine.bias) for affine in block.affines()]
            own, styles = styles.split([sum(widths), styles.shape[1] - sum(widths)], dim=1)
            own_noise = noise[max(2 * i - 1, 0) : 2 * i + 1]
            x, scale, image = block(x, scale, image, own.split(widths, dim=1), own_noise)
        assert image is not None, "every size has a block"
        return image  # (B, C, H, W)

    def noise_maps(self) -> list[Tensor]:
        """The constant noise maps, (H, W) each; the last, L-th, row has none."""
        return [conv.noise_const for block in self._blocks() for conv in block.convs()]

    def _blocks(self) -> list[SynthesisBlock]:
        return list(self.blocks.values())  # type: ignore[arg-type]


def mix_styles(first: Tensor, second: Tensor, crossover: int | Tensor) -> Tensor:
    """Take coarse layers of one latent and fine layers of another (Karras et al. 2019, 3.1).

    Args:
        first: (B, L, D), for the layers before the crossover.
        second: (B, L, D), for the layers from the crossover on.
        crossover: layer number, or one for each latent (B,).

    Returns:
        Codes (B, L, D).
    """
    layers = torch.arange(first.shape[1], device=first.device)
    crossover = torch.as_tensor(crossover, device=first.device).reshape(-1, 1)
    return torch.where((layers < crossover).unsqueeze(2), first, second)
