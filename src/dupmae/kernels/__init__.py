"""Cross-entropy and max-pool over the whole vocabulary, without ever building a tensor of tokens times vocabulary.

Both run on CPU and GPU with plain torch operations and follow autocast: their matrix products take its data type,
softmax and accumulation stay in float32 (float64 for float64 input). On a GPU what the cross-entropy does between its
products is compiled, where that works. `naive` holds the same written as one reads it in the paper.
"""

from dupmae.kernels.cross_entropy import linear_cross_entropy, weighted_linear_cross_entropy
from dupmae.kernels.max_pool import linear_max_pool, linear_max_pool_packed

__all__ = ["linear_cross_entropy", "linear_max_pool", "linear_max_pool_packed", "weighted_linear_cross_entropy"]
