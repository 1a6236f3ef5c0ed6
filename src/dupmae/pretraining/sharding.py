"""Weights, gradients and optimiser spread over processes (FSDP), and what needs the weights whole again.

The Trainer spreads them: every encoder layer is a unit of its own, gathered while it computes, and everything else
(embeddings, head, decoder), which all three losses share, is one more unit that stays gathered from the beginning of
the forward pass to the end of the backward pass. Weights stay in float32, so that a step is the same as without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import FSDPModule

from dupmae.errors import DupmaeError
from dupmae.pretraining.objective import DupMAE


def refuse_unshardable(processes: Any) -> None:
    """Refuse processes over which nothing would be spread.

    Args:
        processes: Accelerate's `PartialState`.

    Raises:
        DupmaeError: There is one process, or they compute on processors.
    """
    if processes.num_processes == 1:
        raise DupmaeError(
            "shard spreads the weights over processes, but there is one: start several with "
            "torchrun --nproc-per-node N -m dupmae ..., or leave shard out."
        )
    if processes.distributed_type == DistributedType.MULTI_CPU:
        raise DupmaeError(
            "shard spreads the weights over GPUs, but these processes compute on processors, where each of them keeps "
            "all weights: leave shard out."
        )


def shard_arguments(objective: DupMAE) -> dict[str, Any]:
    """Return what transformers' `TrainingArguments` need for an objective that is to be spread."""
    lists = [module for module in objective.backbone.encoder.modules() if isinstance(module, nn.ModuleList)]
    layers = sorted({type(layer).__name__ for layer_list in lists for layer in layer_list})
    return {"fsdp": True, "fsdp_config": {"version": 2, "transformer_layer_cls_to_wrap": layers}}


def forget_sharding() -> None:
    """Take back what accelerate writes to the environment, where it would spread whatever is trained next."""
    os.environ.pop("ACCELERATE_USE_FSDP", None)


@contextmanager
def callable_parts(objective: DupMAE) -> Iterator[None]:
    """Let the objective's parts be called one by one, outside of :meth:`DupMAE.forward`.

    Encoder layers gather themselves when they are called; what all losses share is gathered as long as this lasts. An
    objective that is not spread is left as it is.
    """
    if not isinstance(objective, FSDPModule):
        yield
        return
    objective.unshard()
    try:
        yield
    finally:
        objective.reshard()


def whole_weights(objective: DupMAE) -> dict[str, torch.Tensor]:
    """Collect all weights by name; tied ones stand under each of their names and are one tensor.

    Where the objective is spread, all processes have to call this together, and the first one alone gets the weights,
    in the memory of its processor; the others get nothing.
    """
    parameters = dict(objective.named_parameters(remove_duplicate=False))
    if not isinstance(objective, FSDPModule):
        return {name: parameter.detach() for name, parameter in parameters.items()}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole: dict[str, Any] = get_model_state_dict(objective, options=options)
    first = {id(parameter): name for name, parameter in reversed(parameters.items())}
    return {name: whole[first[id(parameter)]] for name, parameter in parameters.items() if whole}
