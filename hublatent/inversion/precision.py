"""The number formats that a network's passes may be taken in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

Precision = Literal["fp32", "bf16"]


def autocast(precision: str, device: str = "cpu") -> AbstractContextManager[Any]:
    """The autocast context of a precision, "fp32" or "bf16"."""
    return torch.autocast(device, torch.bfloat16) if precision == "bf16" else nullcontext()
