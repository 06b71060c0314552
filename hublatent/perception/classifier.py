"""AttributeClassifier: which attributes a face shows, and features to measure distances with."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hublatent.checkpoint import check_number
from hublatent.errors import CheckpointError, HublatentError, find_name, unknown_name
from hublatent.hub import HubModel
from hublatent.perception.features import check_square, unit_vectors

# CelebA's attributes in CelebA's order (Liu et al. 2015, arXiv:1411.7766).
CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow,Arched_Eyebrows,Attractive,Bags_Under_Eyes,Bald,Bangs,Big_Lips,Big_Nose,"
    "Black_Hair,Blond_Hair,Blurry,Brown_Hair,Bushy_Eyebrows,Chubby,Double_Chin,Eyeglasses,Goatee,"
    "Gray_Hair,Heavy_Makeup,High_Cheekbones,Male,Mouth_Slightly_Open,Mustache,Narrow_Eyes,No_Beard,"
    "Oval_Face,Pale_Skin,Pointy_Nose,Receding_Hairline,Rosy_Cheeks,Sideburns,Smiling,Straight_Hair,"
    "Wavy_Hair,Wearing_Earrings,Wearing_Hat,Wearing_Lipstick,Wearing_Necklace,Wearing_Necktie,Young"
)
N_STAGES = 4
MAX_ATTRIBUTES = 1000


class AttributeClassifier(nn.Module, HubModel):
    """A small residual network (He et al. 2015, arXiv:1512.03385) with one logit per attribute.

    The stem looks at every pixel, then halves the image; stage i of four has width * 2**i channels
    and `n_blocks` blocks, each but the first halves again. What is left is averaged, each channel
    with weights of its own. Images of another size than its own, which is divisible by 16, are
    resized first (bilinear, antialiased), so gradients flow to any size. Training drops a share
    `dropout` of the features; `attributes` are K names, separated by commas.
    """

    architecture = "attribute-classifier"
    temperature: Tensor

    def __init__(
        self, image_size: int = 64, channels: int = 3, width: int = 36, n_blocks: int = 1,
        dropout: float = 0.2, attributes: str = CELEBA_ATTRIBUTES,
    ) -> None:  # fmt: skip
        check_number("image_size", image_size, 16, 512)
        if image_size % 2**N_STAGES:
            raise CheckpointError(f"image_size = {image_size}; expected a multiple of 16.")
        check_number("channels", channels, 1, 4)
        check_number("width", width, 1, 128)
        check_number("n_blocks", n_blocks, 1, 4)
        check_number("dropout", dropout, 0, 0.95, float)
        names = split_names(attributes)
        super().__init__()
        self.image_size, self.channels = image_size, channels
        self.width, self.n_blocks, self.dropout = width, n_blocks, dropout
        self.attributes, self.attribute_names = attributes, names
        widths = [width * 2**i for i in range(N_STAGES)]
        # Frames of spectacles are about a pixel thin: something has to look before images shrink.
        first = max(width // 2, 1)
        self.stem = nn.Sequential(*_convolution(channels, first, 1), *_convolution(first, width, 2))
        strides = (1, 2, 2, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(_Block(a, b, stride), *(_Block(b, b, 1) for _ in range(n_blocks - 1)))
            for (a, b), stride in zip(pairwise([width, *widths]), strides, strict=True)
        )
        # Average each channel with weights of its own (Chen et al. 2018, arXiv:1804.07573, 3.1):
        # faces are aligned, so where something lies tells what it is.
        side = image_size // 2**N_STAGES
        average = nn.Conv2d(widths[-1], widths[-1], side, groups=widths[-1], bias=False)
        nn.init.constant_(average.weight, 1 / side**2)
        normal = nn.BatchNorm2d(widths[-1], affine=False)
        self.pool = nn.Sequential(average, normal, nn.Flatten())
        self.head = nn.Linear(widths[-1], len(names))
        # Logits are divided by it (Guo et al. 2017, arXiv:1706.04599); fitted on validation images.
        self.register_buffer("temperature", torch.ones(len(names)))

    def forward(self, images: Tensor) -> Tensor:
        """Calibrated logits (B, K) of images (B, C, H, H) in [-1, 1], of any size H.

        `sigmoid` of them are probabilities at the training data's prevalence.
        """
        features = functional.dropout(self.features(images), self.dropout, self.training)
        return self.head(features).float() / self.temperature  # (B, K)

    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities (B, K) of the attributes of images (B, C, H, H) in [-1, 1]."""
        return self(images).sigmoid()

    def features(self, images: Tensor) -> Tensor:
        """What the logits are linear in: the last stage, averaged over positions, float32 (B, F).

        Of mean 0 and variance 1 over the training images, so that all features weigh alike in
        kernel distances between sets of images and in distances between two.
        """
        return self.pool(self._activations(images)[-1]).float()  # (B, F)

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps for a perceptual loss (Johnson et al. 2016, arXiv:1603.08155).

        Each position's vector of channels has length 1, as in LPIPS (Zhang et al. 2018,
        arXiv:1801.03924, eq. 1), so that the stages weigh alike and contrast matters little.

        Returns:
            One float32 map per stage, (B, width * 2**i, S / 2**(i + 1), S / 2**(i + 1)) with S
            the network's own image_size.
        """
        return [unit_vectors(maps) for maps in self._activations(images)]

    def index(self, attribute: str) -> int:
        """Where an attribute stands among the logits; in any case, "glasses" is understood."""
        name = find_name(attribute, self.attribute_names)
        if name is None:
            raise HublatentError(unknown_name("attribute", attribute, self.attribute_names))
        return self.attribute_names.index(name)

    def _activations(self, images: Tensor) -> list[Tensor]:
        """Each stage's output (B, width * 2**i, S / 2**(i + 1), S / 2**(i + 1))."""
        check_square(self, images, self.channels)
        if images.shape[2] != self.image_size:
            size = (self.image_size, self.image_size)
            images = functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
        x = self.stem(images.contiguous(memory_format=torch.channels_last))  # (B, width, S/2, S/2)
        activations = []
        for stage in self.stages:
            x = stage(x)
            activations.append(x)
        return activations


class _Block(nn.Module):
    """relu(shortcut(x) + conv(relu(conv(x)))); the shortcut averages before it narrows."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            *_convolution(n_in, n_out, stride),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut = nn.Sequential()
        if stride > 1:
            # Not a strided 1x1 convolution, which would never see three quarters of the positions.
            self.shortcut.append(nn.AvgPool2d(stride))
        if n_in != n_out:
            self.shortcut.append(nn.Conv2d(n_in, n_out, 1, bias=False))
            self.shortcut.append(nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.main(x))  # (B, n_out, H/stride, W/stride)


def split_names(attributes: str) -> tuple[str, ...]:
    """The names in a list such as "Eyeglasses,Male,Smiling": some, all different, none empty."""
    names = tuple(attributes.split(",")) if isinstance(attributes, str) else ()
    clean = all(name and name == name.strip() for name in names)
    if not names or not clean or len(names) > MAX_ATTRIBUTES or len(set(names)) < len(names):
        raise CheckpointError(
            f"attributes = {attributes!r:.200}; expected 1 to {MAX_ATTRIBUTES} different names "
            "separated by commas, such as 'Eyeglasses,Male,Smiling'."
        )
    return names


def join_names(names: Iterable[str]) -> str:
    """The constructor's `attributes` for some names; the inverse of `split_names`."""
    joined = ",".join(names)
    split_names(joined)
    return joined


def _convolution(n_in: int, n_out: int, stride: int) -> tuple[nn.Module, ...]:
    """Convolve, normalise, rectify; an even kernel where the stride is 2, so no side is nearer."""
    kernel = 3 if stride == 1 else 2 * stride
    return (
        nn.Conv2d(n_in, n_out, kernel, stride, 1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )
