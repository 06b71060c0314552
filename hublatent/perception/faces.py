"""Judges that others trained: where a face is, whether it is one, and whose it is.

Neither network ever saw a generated picture or learned an attribute, so an edit cannot have been
fitted to them.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from hublatent.errors import ImageError
from hublatent.hub import HubModel
from hublatent.images import open_image, to_float
from hublatent.perception.features import check_square

# Where CelebA's crop has eyes, nose and mouth corners, as (x, y) in shares of its side: the mean
# of what the detector finds in CelebA's training pictures.
CELEBA_POINTS = np.array(
    [(0.368, 0.520), (0.633, 0.519), (0.496, 0.683), (0.385, 0.797), (0.616, 0.796)]
)
# The square of it that is asked for a face, as (left, top, right, bottom): tighter than the box
# that the detector finds, so that what surrounds a broken face cannot speak for it.
CONFIDENCE_BOX = (1 / 6, 1 / 3, 5 / 6, 1.0)
# MTCNN sees pixels p of 0 to 255 as (p - 127.5) / 128.
PIXEL_SCALE = 127.5 / 128
PROPOSAL_SIDE, REFINE_SIDE, OUTPUT_SIDE = 12, 24, 48
PROPOSAL_STRIDE = 2
PYRAMID_STEP = 0.709
# What passes each network: these probabilities, as logits.
PROPOSED, REFINED, LOCATED = (math.log(p / (1 - p)) for p in (0.6, 0.7, 0.7))
MAX_SIDE = 640  # larger pictures are searched at this size
MAX_ALIGNED = 2048

# dlib's mean pixel (red, green, blue), of 0 to 255.
MEAN_PIXEL = (122.782, 117.001, 104.298)
# The network knows tight chips of 150 pixels; this is where they lie in CelebA's crop of 198.
CHIP_SIDE, CHIP_SOURCE, CHIP_LEFT, CHIP_TOP = 150, 198, 25, 46
EMBEDDING_WIDTH = 128
SAME_PERSON_DISTANCE = 0.6  # dlib's own threshold of the Euclidean distance


class Face(NamedTuple):
    """A face in a picture, in pixels from its left upper corner."""

    box: tuple[float, float, float, float]  # left, top, right, bottom
    # (5, 2), x and y of left and right eye, nose, left and right corner of the mouth, as seen
    points: NDArray[np.floating]
    confidence: float  # the probability that it is a face


class FaceDetector(nn.Module, HubModel):
    """MTCNN: three small networks, each looking closer at what the one before let through.

    Zhang et al. 2016, arXiv:1604.02878. Each network gives a face's logit and how far the box has
    to move, in shares of its size; the last one also gives five points.
    """

    architecture = "face-detector"

    def __init__(self) -> None:
        super().__init__()
        self.proposal = nn.Sequential(
            *_convolution(3, 10, 3), _pool(2), *_convolution(10, 16, 3), *_convolution(16, 32, 3),
            nn.Conv2d(32, 5, 1),
        )  # fmt: skip
        self.refinement = nn.Sequential(
            *_convolution(3, 28, 3), _pool(3), *_convolution(28, 48, 3), _pool(3),
            *_convolution(48, 64, 2), nn.Flatten(), nn.Linear(576, 128), nn.PReLU(128),
            nn.Linear(128, 5),
        )  # fmt: skip
        self.output = nn.Sequential(
            *_convolution(3, 32, 3), _pool(3), *_convolution(32, 64, 3), _pool(3),
            *_convolution(64, 64, 3), _pool(2), *_convolution(64, 128, 2), nn.Flatten(),
            nn.Linear(1152, 256), nn.PReLU(256), nn.Linear(256, 15),
        )  # fmt: skip

    @torch.inference_mode()
    def find(self, image: Image.Image, min_size: int = 20) -> Face:
        """Find the largest face of a picture, searched at no more than 640 pixels a side.

        `min_size` is the smallest face looked for, in pixels of the searched picture. An ImageError
        says that there is none.
        """
        rgb = open_image(image)
        scale = min(1.0, MAX_SIDE / max(rgb.size))
        size = (max(1, round(rgb.width * scale)), max(1, round(rgb.height * scale)))
        searched = rgb if scale == 1 else rgb.resize(size, Image.Resampling.LANCZOS)
        pictures = torch.from_numpy(np.array(searched)[None])
        pixels = to_float(pictures).to(next(self.parameters()).device) * PIXEL_SCALE
        boxes, points, logits = self._faces(pixels, min_size)
        if not len(boxes):
            raise ImageError(
                f"No face was found in the picture of {rgb.width} x {rgb.height} pixels. Choose "
                "one that shows a whole face from the front, or cut it by hand."
            )
        boxes, points = boxes / scale, points / scale
        largest = int((boxes[:, 2:] - boxes[:, :2]).prod(dim=1).argmax())
        left, top, right, bottom = boxes[largest].tolist()
        found = points[largest].cpu().numpy().astype(np.float64)
        return Face((left, top, right, bottom), found, float(logits[largest].sigmoid()))

    def align(self, image: Image.Image, size: int, face: Face | None = None) -> Image.Image:
        """Turn, scale and cut a picture so that its face lies as in CelebA's crop.

        Args:
            size: side of the result, in pixels.
            face: the face, as `find` gives it; None finds it.

        Returns:
            A square RGB picture; what lies beyond the picture's edge repeats the edge.
        """
        if size < 1:
            raise ImageError(f"size {size}; expected at least 1.")
        rgb = open_image(image)
        # In complex numbers a turn and a shift bring CelebA's points, in least squares, to these.
        wanted, found = (p @ (1, 1j) for p in (CELEBA_POINTS, (face or self.find(rgb)).points))
        design = np.column_stack([wanted, np.ones(len(wanted))])
        turn, shift = map(complex, np.linalg.lstsq(design, found, rcond=None)[0])
        side = min(max(size, round(abs(turn))), MAX_ALIGNED)  # no coarser than the picture itself
        margin = _overhang(turn, shift, rgb.size)
        padded = Image.fromarray(np.pad(np.asarray(rgb), ((margin,), (margin,), (0,)), mode="edge"))
        a, b = turn / side, shift + margin * (1 + 1j)
        matrix = (a.real, -a.imag, b.real, a.imag, a.real, b.imag)
        affine, bicubic = Image.Transform.AFFINE, Image.Resampling.BICUBIC
        cut = padded.transform((side, side), affine, matrix, bicubic)
        return cut.resize((size, size), Image.Resampling.LANCZOS)

    def confidence(self, images: Tensor) -> Tensor:
        """The logits (B,) that images (B, 3, H, H) in CelebA's crop show a face."""
        return self._look_at_crop(images)[:, 0]

    def points(self, images: Tensor) -> Tensor:
        """Eyes, nose and mouth (B, 5, 2) of images (B, 3, H, H) in CelebA's crop.

        x and y are in shares of the side, in the order of `Face.points`.
        """
        low, high = images.new_tensor(CONFIDENCE_BOX).reshape(2, 2)
        return low + _as_points(self._look_at_crop(images)) * (high - low)

    def _look_at_crop(self, images: Tensor) -> Tensor:
        """(B, 15): what the last network says of CONFIDENCE_BOX in aligned images."""
        check_square(self, images)
        pixels = images.float() * PIXEL_SCALE
        box = pixels.new_tensor([CONFIDENCE_BOX]) * images.shape[-1]
        return self.output(_chips(pixels, box, OUTPUT_SIDE))

    def _propose(self, pixels: Tensor, min_size: int) -> Tensor:
        """Boxes (K, 4) that the first network, slid over a pyramid of pixels, takes for faces."""
        height, width = pixels.shape[2:]
        scale = PROPOSAL_SIDE / min_size
        boxes, logits = pixels.new_zeros(0, 4), pixels.new_zeros(0)
        while min(height, width) * scale >= PROPOSAL_SIDE:
            shape = (int(height * scale + 1), int(width * scale + 1))
            level = self.proposal(functional.interpolate(pixels, shape, mode="area"))[0]
            row, column = torch.nonzero(level[0] > PROPOSED, as_tuple=True)
            corner = torch.stack([column, row], dim=1) * PROPOSAL_STRIDE  # (K, 2)
            found = torch.cat([corner, corner + PROPOSAL_SIDE], dim=1) / scale  # (K, 4)
            sure = level[0, row, column]
            kept = _kept(found, sure, 0.5)
            boxes = torch.cat([boxes, _moved(found, level[1:, row, column].T)[kept]])
            logits = torch.cat([logits, sure[kept]])
            scale *= PYRAMID_STEP
        return boxes[_kept(boxes, logits, 0.7)]

    def _seen_closer(
        self, network: nn.Module, pixels: Tensor, boxes: Tensor, side: int, least: float
    ) -> tuple[Tensor, Tensor]:
        """The squares (K, 4) around boxes in which a network sees a face, and its outputs there."""
        boxes = _squares(boxes)
        found = network(_chips(pixels, boxes, side))
        sure = found[:, 0] > least
        return boxes[sure], found[sure]

    def _faces(self, pixels: Tensor, min_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (K, 4), points (K, 5, 2) and logits (K,) of the faces in pixels (1, 3, H, W)."""
        boxes = self._propose(pixels, min_size)
        boxes, found = self._seen_closer(self.refinement, pixels, boxes, REFINE_SIDE, REFINED)
        kept = _kept(boxes, found[:, 0], 0.7)
        boxes = _moved(boxes[kept], found[kept, 1:])
        boxes, found = self._seen_closer(self.output, pixels, boxes, OUTPUT_SIDE, LOCATED)
        points = boxes[:, None, :2] + _as_points(found) * (boxes[:, 2:] - boxes[:, :2])[:, None]
        boxes = _moved(boxes, found[:, 1:5])
        kept = _kept(boxes, found[:, 0], 0.7)
        return boxes[kept], points[kept], found[kept, 0]


class FaceIdentity(nn.Module, HubModel):
    """dlib's face network: pictures of one person lie near each other (Davis King, 2017).

    A residual network (He et al. 2015, arXiv:1512.03385) of 29 convolutions; the affine layers
    that follow each of dlib's are folded into their weights.
    """

    architecture = "face-identity"
    mean_pixel: Tensor

    def __init__(self) -> None:
        super().__init__()
        widths = [32] * 4 + [64] * 4 + [128] * 3 + [256] * 4
        steps = enumerate(pairwise(widths), start=1)
        self.network = nn.Sequential(
            nn.Conv2d(3, 32, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
            *(_Residual(a, b, 2 if i in (4, 8, 11, 14) else 1) for i, (a, b) in steps),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, EMBEDDING_WIDTH, bias=False),
        )  # fmt: skip
        self.register_buffer("mean_pixel", torch.tensor(MEAN_PIXEL)[:, None, None], False)

    def embed(self, images: Tensor) -> Tensor:
        """Where faces, images (B, 3, H, H) in [-1, 1] in CelebA's crop, lie: (B, 128).

        Two nearer than 0.6 (Euclidean) are one person by dlib's threshold.
        """
        check_square(self, images)
        size = (CHIP_SOURCE, CHIP_SOURCE)
        whole = functional.interpolate(images.float(), size, mode="bicubic", antialias=True)
        chips = whole[..., CHIP_TOP:, CHIP_LEFT:][..., :CHIP_SIDE, :CHIP_SIDE]  # (B, 3, 150, 150)
        centred = ((chips + 1) * 127.5 - self.mean_pixel) / 256
        return self.network(centred.contiguous(memory_format=torch.channels_last))  # (B, 128)


class _Residual(nn.Module):
    """relu(shortcut(x) + conv(relu(conv(x)))); the shortcut averages, new channels start at 0."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(n_in, n_out, 3, stride, 1 if stride == 1 else 0)
        self.second = nn.Conv2d(n_out, n_out, 3, 1, 1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        main = self.second(functional.relu(self.first(x)))
        skip = functional.avg_pool2d(x, 2) if self.stride == 2 else x
        # dlib adds what differs in size as if the smaller were followed by zeros.
        missing_rows = skip.shape[2] - main.shape[2]
        missing_channels = main.shape[1] - skip.shape[1]
        main = functional.pad(main, (0, missing_rows, 0, missing_rows))
        skip = functional.pad(skip, (0, 0, 0, 0, 0, missing_channels))
        return functional.relu(main + skip)  # (B, n_out, H/stride, W/stride)


def _convolution(n_in: int, n_out: int, kernel: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(n_in, n_out, kernel), nn.PReLU(n_out)


def _pool(kernel: int) -> nn.Module:
    return nn.MaxPool2d(kernel, 2, ceil_mode=True)


def _moved(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Boxes (K, 4) with each edge moved by its offset (K, 4), in shares of the box's size."""
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * torch.cat([size, size], dim=1)


def _as_points(found: Tensor) -> Tensor:
    """The points of the last network's outputs (K, 15): (K, 5, 2), x and y in shares of a box."""
    return found[:, 5:].reshape(-1, 2, 5).transpose(1, 2)


def _squares(boxes: Tensor) -> Tensor:
    """The squares (K, 4) around the boxes' centres, of their larger side."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], dim=1)


def _kept(boxes: Tensor, logits: Tensor, overlap: float) -> Tensor:
    """Which boxes (K, 4) are left when each of the surest drops those that overlap it."""
    from torchvision.ops import nms  # takes seconds to import

    return nms(boxes, logits, overlap)


def _chips(pixels: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Cut boxes (K, 4) out of each of B images: (B * K, 3, side, side)."""
    from torchvision.ops import roi_align  # takes seconds to import

    return roi_align(pixels, [boxes] * len(pixels), side, aligned=True)


def _overhang(turn: complex, shift: complex, size: tuple[int, int]) -> int:
    """How many pixels the crop, the unit square's image, reaches beyond a picture's edges."""
    corners = turn * np.array([0, 1, 1j, 1 + 1j]) + shift
    x, y = corners.real, corners.imag
    beyond = max(-x.min(), -y.min(), x.max() - size[0], y.max() - size[1])
    # A face that fills a picture's corner still lies in the picture: its crop cannot reach further.
    return int(np.clip(np.ceil(beyond) + 1, 0, 2 * max(size)))
