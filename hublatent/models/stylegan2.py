"""StyleGAN2's generator (Karras et al. 2020, arXiv:1912.04958), arranged for speed without a GPU.

Every layer equals its usual formulation (a modulated weight per sample), but
- the activations are modulated instead of the weights (section 2.2's equivalence), so that one
  ordinary convolution serves the whole batch;
- demodulation and the activation's gain of sqrt(2) wait for the next layer's styles and are
  multiplied into them: leaky ReLU is positively homogeneous, so that
  leaky(d x + b) = d leaky(x + b / d), and one pass over the feature map does for two.
Feature maps are channels_last in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.errors import HublatentError
from hublatent.models.layers import (
    GAIN,
    SLOPE,
    EqualLinear,
    channels_by_height,
    chunk_size,
    largest_map,
    per_channel,
    start,
)
from hublatent.models.style_generator import StyleGenerator


class StyleGAN2(StyleGenerator):
    """StyleGAN2's generator with skip-RGB synthesis; its latents (L, D) lie in W+.

    Feature maps of height r have max(channel_min, min(channel_base // r, channel_max)) channels;
    with channel_min = 1 this is NVIDIA's rule.

    Args:
        image_size to mapping_lr_multiplier: as in StyleGenerator.
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
        self, image_size: int = 64, channels: int = 3, latent_dim: int = 256, z_dim: int = 256,
        mapping_layers: int = 4, mapping_lr_multiplier: float = 0.01, channel_base: int = 2048,
        channel_max: int = 256, channel_min: int = 48, conv_clamp: float = 0.0,
        encoder_width: int = 0, encoder_of: str = "",
    ) -> None:  # fmt: skip
        check_number("encoder_width", encoder_width, 0, 256)
        widths = channels_by_height(image_size, channels, channel_base, channel_max, channel_min)
        super().__init__(
            image_size, channels, latent_dim, z_dim, mapping_layers, mapping_lr_multiplier,
            n_layers=2 * len(widths),
        )  # fmt: skip
        self._chunk_size = chunk_size(largest_map(widths))
        self.channel_base, self.channel_max = channel_base, channel_max
        self.channel_min = channel_min
        self.conv_clamp = check_number("conv_clamp", conv_clamp, 0, 1e9, float)
        self.const = nn.Parameter(torch.randn(widths[4], 4, 4))
        self.blocks = nn.ModuleDict()
        for height, width in widths.items():
            self.blocks[str(height)] = SynthesisBlock(
                widths.get(height // 2, 0), width, height, latent_dim, channels, conv_clamp
            )
        self.add_encoder(encoder_width, encoder_of)

    def to_styles(self, latents: Tensor) -> Tensor:
        """The styles (B, S) that the layers make of latents (B, L, D) (StyleSpace, Wu et al. 2021).

        One number per channel of each layer's input: of each block's layers, then of its ToRGB.
        """
        self.check_latents(latents)
        return torch.cat([affine(latents[:, row]) for affine, row in self.style_layers()], dim=1)

    def decode_styles(self, styles: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [-1, 1] of styles (B, S), with constant noise."""
        width = sum(len(affine.bias) for affine, _ in self.style_layers())
        if styles.ndim != 2 or styles.shape[1] != width:
            raise HublatentError(
                f"decode_styles got styles of shape {tuple(styles.shape)}; expected (B, {width})."
            )
        images = self._in_pieces(self._draw_styles, styles, self.noise_maps())
        return images.clamp(-1, 1)

    def style_layers(self) -> list[tuple[EqualLinear, int]]:
        """Each style's affine layer, and the row of the latent that it reads.

        A ToRGB shares its row with the first layer of the next block.
        """
        return [
            (affine, max(2 * i - 1, 0) + j)
            for i, block in enumerate(self._blocks())
            for j, affine in enumerate(block.affines())
        ]

    def _affines(self) -> list[EqualLinear]:
        return list({row: affine for affine, row in self.style_layers()}.values())

    def _draw(self, latents: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        return self._draw_styles(self.to_styles(latents), noise)

    def _draw_styles(self, styles: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        x = start(self.const, len(styles))  # (B, C0, 4, 4)
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
    """Style mixing of latents (B, L, D) at one layer, or at one for each (B,): the first latents'
    layers before the crossover, the second ones' from it on (Karras et al. 2019, section 3.1).
    """
    layers = torch.arange(first.shape[1], device=first.device)
    crossover = torch.as_tensor(crossover, device=first.device).reshape(-1, 1)
    return torch.where((layers < crossover).unsqueeze(2), first, second)


class SynthesisBlock(nn.Module):
    """The layers of one height: an up-sampling and a plain convolution, and the way to RGB."""

    def __init__(
        self, n_in: int, n_out: int, height: int, latent_dim: int, channels: int, clamp: float
    ) -> None:
        super().__init__()
        up = StyledConv(n_in, n_out, height, latent_dim, clamp, up=True) if n_in else None
        self.conv0: StyledConv | None = up
        self.conv1 = StyledConv(n_out, n_out, height, latent_dim, clamp)
        self.to_rgb = ToRGB(n_out, channels, latent_dim, clamp)

    def convs(self) -> list[StyledConv]:
        return [self.conv1] if self.conv0 is None else [self.conv0, self.conv1]

    def affines(self) -> list[EqualLinear]:
        return [*(conv.affine for conv in self.convs()), self.to_rgb.affine]

    def forward(
        self, x: Tensor, scale: Tensor, image: Tensor | None, styles: Sequence[Tensor],
        noise: Sequence[Tensor | None],
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        for i, conv in enumerate(self.convs()):
            x, scale = conv(x, scale, styles[i], noise[i])  # (B, n_out, H, W), (B, n_out)
        rgb = self.to_rgb(x, scale, styles[-1])
        return x, scale, rgb if image is None else upsample(image) + rgb  # (B, C, H, W)


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias and leaky ReLU; a scale is left to the next layer."""

    def __init__(
        self, n_in: int, n_out: int, height: int, latent_dim: int, clamp: float, up: bool = False
    ) -> None:
        super().__init__()
        self.affine = EqualLinear(latent_dim, n_in, bias_init=1)
        self.weight = nn.Parameter(torch.randn(n_out, n_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.noise_const: Tensor
        self.register_buffer("noise_const", torch.randn(height, height))
        self.clamp = clamp / GAIN
        self.up = up

    def forward(
        self, x: Tensor, scale: Tensor, style: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Maps (B, n_in, H, W) with scale and style (B, n_in) -> maps and scale of n_out."""
        # Demodulation (eq. 3); summing the squared kernel first makes it a matrix product.
        energy = self.weight.square().sum(dim=(2, 3))  # (n_out, n_in)
        strength = (style.square() @ energy.T + 1e-8).sqrt()  # (B, n_out)
        # Without gradients nobody needs the input again, and large new tensors cost page faults.
        modulation = per_channel(style * scale, x)
        x = x * modulation if torch.is_grad_enabled() else x.mul_(modulation)
        # (B, n_out, 2H, 2W) or (B, n_out, H, W)
        x = upsampling_conv(x, self.weight) if self.up else F.conv2d(x, self.weight, padding=1)
        x.add_(per_channel(self.bias * strength, x))
        if noise is not None:
            x.addcmul_((noise * self.noise_strength).to(x.dtype), per_channel(strength, x))
        x = F.leaky_relu_(x, SLOPE)
        if self.clamp:
            bound = per_channel(strength * self.clamp, x)
            x = x.clamp(-bound, bound)
        return x, GAIN / strength


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(self, n_in: int, channels: int, latent_dim: int, clamp: float) -> None:
        super().__init__()
        self.affine = EqualLinear(latent_dim, n_in, bias_init=1)
        self.weight = nn.Parameter(torch.randn(channels, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.clamp = clamp

    def forward(self, x: Tensor, scale: Tensor, style: Tensor) -> Tensor:
        batch, n_in, height, width = x.shape
        style = style * scale / math.sqrt(n_in)  # (B, n_in)
        weight = style[:, :, None] * self.weight.flatten(1).T  # (B, n_in, C)
        # No copy: channels_last.
        pixels = x.permute(0, 2, 3, 1).reshape(batch, height * width, n_in)
        rgb = torch.bmm(pixels, weight.to(x.dtype)).float() + self.bias  # (B, HW, C)
        rgb = rgb.unflatten(1, (height, width)).permute(0, 3, 1, 2)  # (B, C, H, W)
        return rgb.clamp(-self.clamp, self.clamp) if self.clamp else rgb


def upsampling_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Double the size, convolve and blur with [1, 3, 3, 1]: (B, I, H, W) -> (B, O, 2H, 2W).

    On a CPU the blur stays a depthwise convolution of its own: folded into the weight it costs four
    times the multiplications. On a GPU those are cheaper than another pass over the maps.
    """
    if x.is_cuda:
        return F.conv_transpose2d(x, blurred(weight.transpose(0, 1), 4), stride=2, padding=2)
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (B, O, 2H + 1, 2W + 1)
    return F.conv2d(x, blur_kernel(x, gain=4), padding=1, groups=x.shape[1])  # (B, O, 2H, 2W)


def upsample(x: Tensor) -> Tensor:
    """Double the size of images with the filter [1, 3, 3, 1], zero outside, in float32."""
    with torch.autocast(x.device.type, enabled=False):
        kernel = blur_kernel(x, gain=4)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def blur_kernel(x: Tensor, gain: float = 1.0) -> Tensor:
    """The depthwise kernel (C, 1, 4, 4) of the filter [1, 3, 3, 1] for the channels of x."""
    return _blur_taps(x.dtype, x.device, gain).expand(x.shape[1], 1, 4, 4)


def blurred(weight: Tensor, gain: float = 1.0) -> Tensor:
    """A convolution's kernels with the blur in them: (A, B, K, K) -> (A, B, K + 3, K + 3)."""
    # In float32: the sums of a bfloat16 kernel would be rounded once more.
    with torch.autocast(weight.device.type, enabled=False):
        planes = weight.float().flatten(0, 1).unsqueeze(1)  # (A * B, 1, K, K)
        wide = F.conv2d(planes, _blur_taps(planes.dtype, planes.device, gain), padding=3)
    return wide.squeeze(1).unflatten(0, weight.shape[:2])


@lru_cache(maxsize=32)
def _blur_taps(dtype: torch.dtype, device: torch.device, gain: float) -> Tensor:
    """The filter's kernel (1, 1, 4, 4); kept, since a GPU waits for each small copy."""
    with torch.inference_mode(False):  # gradients may flow past it later
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=dtype, device=device)
        return (torch.outer(taps, taps) * (gain / 64)).reshape(1, 1, 4, 4)
