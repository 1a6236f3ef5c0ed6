"""The size of the largest tensor that some code makes."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class LargestTensor(TorchDispatchMode):
    """Within its context every operation's results are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        """Numbers in the largest tensor."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            self.largest = max(self.largest, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return result
