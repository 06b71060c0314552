"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958) in pure PyTorch, arranged for speed without a GPU.

Every forward pass equals the usual formulation (a modulated weight per sample), but
- the activations are modulated instead of the weights (section 2.2's equivalence), so that one
  ordinary convolution serves the whole batch;
- the activation's gain of sqrt(2) is multiplied into the next layer's styles: leaky ReLU is
  positively homogeneous;
- demodulation, noise and bias are one fused multiply-add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hublatent.checkpoint import check_number
from hublatent.errors import CheckpointError, HublatentError
from hublatent.model import LatentModel

Noise = Literal["const", "random", "none"]
SLOPE = 0.2
GAIN = math.sqrt(2)  # keeps the variance through a leaky ReLU
MAX_MAP_ELEMENTS = 2**26  # channels * pixels of the largest feature map; NVIDIA's 1024 has 2**25


class StyleGAN2(LatentModel):
    """StyleGAN2's generator with skip-RGB synthesis; its latents are W+ codes (L, D).

    The feature maps of height r have max(channel_min, min(channel_base // r, channel_max)) channels,
    which with channel_min = 1 is NVIDIA's rule.

    Args:
        image_size: height and width in pixels, a power of two from 16 to 1024.
        channels: image channels.
        latent_dim: D, width of a style code.
        z_dim: width of the mapping network's input.
        mapping_layers: depth of the mapping network.
        mapping_lr_multiplier: learning rate of the mapping network relative to the rest.
        channel_base: channels times height of the feature maps.
        channel_max: channels never exceed this.
        channel_min: channels never fall below this.
        conv_clamp: activations are clamped to +-conv_clamp; 0 leaves them free.
    """

    architecture = "stylegan2"
    space = "w+"
    has_encoder = False
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
    ) -> None:
        check_number("latent_dim", latent_dim, 1, 4096)
        check_number("z_dim", z_dim, 1, 4096)
        check_number("mapping_layers", mapping_layers, 1, 32)
        check_number("mapping_lr_multiplier", mapping_lr_multiplier, 1e-6, 100, float)
        check_number("conv_clamp", conv_clamp, 0, 1e9, float)
        widths = channels_by_height(image_size, channels, channel_base, channel_max, channel_min)
        n_layers = 2 * len(widths)
        super().__init__(image_size, channels, (n_layers, latent_dim))
        self.latent_dim = latent_dim
        self.z_dim = z_dim
        self.mapping_layers = mapping_layers
        self.mapping_lr_multiplier = mapping_lr_multiplier
        self.channel_base = channel_base
        self.channel_max = channel_max
        self.channel_min = channel_min
        self.conv_clamp = conv_clamp
        inputs = [z_dim] + [latent_dim] * (mapping_layers - 1)
        self.mapping_network = nn.ModuleList(
            EqualLinear(n, latent_dim, lr_multiplier=mapping_lr_multiplier) for n in inputs
        )
        self.const = nn.Parameter(torch.randn(widths[4], 4, 4))
        self.blocks = nn.ModuleDict(
            {
                str(height): SynthesisBlock(
                    widths.get(height // 2, 0), width, height, latent_dim, channels, conv_clamp
                )
                for height, width in widths.items()
            }
        )

    def mapping(
        self,
        z: Tensor,
        truncation: float = 1.0,
        cutoff: int | None = None,
        n_layers: int | None = None,
    ) -> Tensor:
        """Map Gaussian inputs to W and repeat them for every layer (Karras et al. 2019).

        Args:
            z: (B, z_dim), from N(0, I).
            truncation: psi; w is pulled towards latent_mean, fully at 0 and not at all at 1.
            cutoff: truncate only the first so many layers; None truncates all.

        Returns:
            W+ codes (B, L, D).

        Raises:
            HublatentError: z has another shape.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise HublatentError(
                f"mapping got z of shape {tuple(z.shape)}; expected (B, {self.z_dim})."
            )
        x = z.float() * (z.float().square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping_network:
            x = F.leaky_relu(layer(x), SLOPE) * GAIN  # (B, D)
        w = x.unsqueeze(1).repeat(1, self.latent_shape[0], 1)  # (B, L, D)
        if truncation == 1:
            return w
        truncated = self.latent_mean.lerp(w[:, :cutoff], truncation)
        return truncated if cutoff is None else torch.cat([truncated, w[:, cutoff:]], dim=1)

    def sample_latents(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """Draw n W+ codes (n, L, D) through the mapping network, z on the CPU from `generator`."""
        z = torch.randn(n, self.z_dim, generator=generator)
        with torch.no_grad():
            return self.mapping(z.to(self.latent_mean.device))

    def synthesize(
        self,
        latents: Tensor,
        noise: Noise | Sequence[Tensor] = "const",
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw images without clamping them, with gradients; for training and projection.

        Args:
            latents: (B, L, D).
            noise: "const" takes the model's own noise maps, "random" draws new ones per image,
                "none" leaves noise out; or one map per layer, shaped as in `noise_maps`.
            generator: draws the random noise.

        Returns:
            Images (B, C, H, W), float32, unbounded.
        """
        self.check_latents(latents)
        maps = self._noise_maps_for(noise, len(latents), generator)
        x = self.const.expand(len(latents), -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)  # (B, C0, 4, 4)
        image = None
        for i, block in enumerate(self.blocks.values()):
            first = max(2 * i - 1, 0)  # a ToRGB shares its code with the next block's first layer
            x, image = block(x, image, latents[:, first : 2 * i + 2], maps[first : 2 * i + 1])
        assert image is not None
        return image  # (B, C, H, W)

    def decode(self, latents: Tensor) -> Tensor:
        """Draw the images (B, C, H, W) in [-1, 1] of W+ codes (B, L, D), with constant noise."""
        return self.synthesize(latents).clamp(-1, 1)

    @torch.no_grad()
    def measure_latents(self, n: int = 10_000, seed: int = 0, keep_mean: bool = False) -> None:
        """Fix the latent statistics from samples of W; every layer shares them.

        Args:
            n: number of samples.
            seed: of the samples.
            keep_mean: keep latent_mean, such as a foreign checkpoint's own average.
        """
        mean = self.latent_mean.clone()
        generator = torch.Generator().manual_seed(seed)
        batches = torch.arange(n).split(1000)
        samples = [self.sample_latents(len(b), generator=generator)[:, 0] for b in batches]
        self.set_latent_statistics(torch.cat(samples))
        if keep_mean:
            self.latent_mean.copy_(mean)

    def noise_maps(self) -> list[Tensor]:
        """The constant noise maps, (H, W) each; the last L-th code has none."""
        return [conv.noise_const for block in self.blocks.values() for conv in block.convs()]

    def _noise_maps_for(
        self, noise: Noise | Sequence[Tensor], n: int, generator: torch.Generator | None
    ) -> list[Tensor | None]:
        constant = self.noise_maps()
        if not isinstance(noise, str):
            if len(noise) != len(constant):
                raise HublatentError(
                    f"synthesize got {len(noise)} noise maps; expected {len(constant)}, one a layer."
                )
            return list(noise)
        if noise == "none":
            return [None] * len(constant)
        if noise == "const":
            return list(constant)
        if noise == "random":
            device = self.const.device
            source = device if generator is None else generator.device
            return [
                torch.randn(n, 1, *m.shape, generator=generator, device=source).to(device)
                for m in constant
            ]
        raise HublatentError(
            f"synthesize got noise {noise!r}; expected 'const', 'random', 'none' or a list of maps."
        )


def mix_styles(first: Tensor, second: Tensor, crossover: int | Tensor) -> Tensor:
    """Take the coarse layers of one code and the fine layers of another (Karras et al. 2019, 3.1).

    Args:
        first: (B, L, D), for the layers before the crossover.
        second: (B, L, D), for the layers from the crossover on.
        crossover: layer number, or one for each code (B,).

    Returns:
        Codes (B, L, D).
    """
    layers = torch.arange(first.shape[1], device=first.device)
    crossover = torch.as_tensor(crossover, device=first.device).reshape(-1, 1)
    return torch.where((layers < crossover).unsqueeze(2), first, second)


def channels_by_height(
    image_size: int, channels: int, channel_base: int, channel_max: int, channel_min: int
) -> dict[int, int]:
    """The number of channels at each height from 4 to image_size, after checking the arguments."""
    check_number("image_size", image_size, 16, 1024)
    check_number("channels", channels, 1, 4)
    check_number("channel_base", channel_base, 1, 2**20)
    check_number("channel_max", channel_max, 1, 4096)
    check_number("channel_min", channel_min, 1, 4096)
    if image_size & (image_size - 1):
        raise CheckpointError(
            f"image_size = {image_size}; expected a power of two from 16 to 1024."
        )
    heights = [2**i for i in range(2, image_size.bit_length())]
    widths = {h: max(channel_min, min(channel_base // h, channel_max)) for h in heights}
    if max(width * height**2 for height, width in widths.items()) > MAX_MAP_ELEMENTS:
        raise CheckpointError(
            f"channel_base = {channel_base}, channel_max = {channel_max} and channel_min = "
            f"{channel_min} make feature maps of more than {MAX_MAP_ELEMENTS:,} numbers an image."
        )
    return widths


class EqualLinear(nn.Module):
    """Linear layer with equalised learning rate (Karras et al. 2018, section 4.1)."""

    def __init__(
        self, n_in: int, n_out: int, bias_init: float = 0.0, lr_multiplier: float = 1.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((n_out,), float(bias_init)))
        self.lr_multiplier = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        # A style scales a whole channel, so it stays in float32 where the convolutions do not.
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight * (self.lr_multiplier / math.sqrt(self.weight.shape[1]))
            return F.linear(x.float(), weight, self.bias * self.lr_multiplier)


class SynthesisBlock(nn.Module):
    """The layers of one height: an up-sampling and a plain convolution, and the way to RGB."""

    def __init__(
        self, n_in: int, n_out: int, height: int, latent_dim: int, channels: int, clamp: float
    ) -> None:
        super().__init__()
        if n_in:
            self.conv0: StyledConv | None = StyledConv(
                n_in, n_out, height, latent_dim, clamp, up=True
            )
        else:
            self.conv0 = None
        self.conv1 = StyledConv(n_out, n_out, height, latent_dim, clamp)
        self.to_rgb = ToRGB(n_out, channels, latent_dim, clamp)

    def convs(self) -> list[StyledConv]:
        """The styled convolutions, in order."""
        return [self.conv1] if self.conv0 is None else [self.conv0, self.conv1]

    def forward(
        self, x: Tensor, image: Tensor | None, w: Tensor, noise: Sequence[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        # The learned constant has not passed through an activation, all later inputs have.
        gains = (1.0,) if self.conv0 is None else (GAIN, GAIN)
        for i, (conv, gain) in enumerate(zip(self.convs(), gains, strict=True)):
            x = conv(x, w[:, i], noise[i], gain)  # (B, n_out, H, W)
        rgb = self.to_rgb(x, w[:, -1])
        return x, rgb if image is None else upsample(image) + rgb  # (B, C, H, W)


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias and leaky ReLU; the gain sqrt(2) is left to the next layer."""

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

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None, gain: float) -> Tensor:
        style = self.affine(w)  # (B, n_in)
        # Demodulation (eq. 3); summing the squared kernel first makes it a matrix product.
        energy = self.weight.square().sum(dim=(2, 3))  # (n_out, n_in)
        demodulation = (style.square() @ energy.T + 1e-8).rsqrt()  # (B, n_out)
        x = x * _per_channel(style * gain, x)
        if self.up:
            x = upsampling_conv(x, self.weight)  # (B, n_out, 2H, 2W)
        else:
            x = F.conv2d(x, self.weight, padding=1)  # (B, n_out, H, W)
        bias = self.bias[:, None, None].to(x.dtype)
        x = torch.addcmul(bias, x, _per_channel(demodulation, x))
        if noise is not None:
            x.add_((noise * self.noise_strength).to(x.dtype))
        x = F.leaky_relu_(x, SLOPE)
        return x.clamp(-self.clamp, self.clamp) if self.clamp else x


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to image channels, without demodulation."""

    def __init__(self, n_in: int, channels: int, latent_dim: int, clamp: float) -> None:
        super().__init__()
        self.affine = EqualLinear(latent_dim, n_in, bias_init=1)
        self.weight = nn.Parameter(torch.randn(channels, n_in, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.clamp = clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        batch, n_in, height, width = x.shape
        style = self.affine(w) * (GAIN / math.sqrt(n_in))  # (B, n_in)
        weight = style[:, :, None] * self.weight.flatten(1).T  # (B, n_in, C)
        pixels = x.permute(0, 2, 3, 1).reshape(
            batch, height * width, n_in
        )  # no copy: channels_last
        rgb = torch.bmm(pixels, weight.to(x.dtype)).float() + self.bias  # (B, HW, C)
        rgb = rgb.reshape(batch, height, width, -1).permute(0, 3, 1, 2)  # (B, C, H, W)
        return rgb.clamp(-self.clamp, self.clamp) if self.clamp else rgb


def upsampling_conv(x: Tensor, weight: Tensor) -> Tensor:
    """Double the size, convolve and blur with [1, 3, 3, 1]: (B, I, H, W) -> (B, O, 2H, 2W).

    The blur stays a depthwise convolution of its own: folded into the weight it would cost four
    times the multiplications.
    """
    x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)  # (B, O, 2H + 1, 2W + 1)
    return F.conv2d(x, blur_kernel(x, gain=4), padding=1, groups=x.shape[1])  # (B, O, 2H, 2W)


def upsample(x: Tensor) -> Tensor:
    """Double the size of images with the filter [1, 3, 3, 1], zero outside, in float32."""
    with torch.autocast(x.device.type, enabled=False):
        kernel = blur_kernel(x, gain=4)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def blur_kernel(x: Tensor, gain: float = 1.0) -> Tensor:
    """The depthwise kernel (C, 1, 4, 4) of the filter [1, 3, 3, 1] for the channels of x."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps) * (gain / 64)
    return kernel.expand(x.shape[1], 1, 4, 4)


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """Shape (B, C) values to scale the channels of x, in its type."""
    return values[:, :, None, None].to(x.dtype)
