"""Where training runs: Lightning Fabric for one process or many, with all weights in each or sharded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ritornello.errors import InputError
from ritornello.layers import MoE
from ritornello.models import LanguageModel
from ritornello.train.settings import Settings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["launch", "optimizer_state", "restore_optimizer", "whole"]


def launch(settings: Settings, model: LanguageModel) -> Fabric:
    """The processes of a run of `model`. With several devices Fabric starts this program once more for each of the
    others.

    Raises:
        InputError: more GPUs than there are, or Lightning Fabric is not installed.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise InputError(
            "Training needs Lightning Fabric, which is not installed. Run: pip install 'ritornello[train]'"
        ) from None
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and settings.devices > torch.cuda.device_count():
        raise InputError(f"`devices` is {settings.devices}; this machine has {torch.cuda.device_count()} GPUs.")
    strategy: Any = "auto"
    if settings.devices > 1:
        strategy = _replicated(model) if settings.strategy == "ddp" else _sharded(settings.devices)
    precision = "bf16-mixed" if settings.bf16 else "32-true"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it greets
    fabric = Fabric(accelerator=accelerator, devices=settings.devices, strategy=strategy, precision=precision)
    fabric.launch()
    return fabric


def _replicated(model: LanguageModel) -> str:
    """DDP waits for a gradient of every parameter, unless told to look: an expert that no step went to has none."""
    return "ddp_find_unused_parameters_true" if any(isinstance(m, MoE) for m in model.modules()) else "ddp"


def _sharded(devices: int) -> Any:
    from lightning_fabric.strategies import ModelParallelStrategy

    return ModelParallelStrategy(parallelize_fn=_shard, data_parallel_size=devices, tensor_parallel_size=1)


def _shard(objective: Any, mesh: Any) -> nn.Module:
    """FSDP2: each block's weights are gathered when it is reached, and the rest with the model."""
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for block in objective.model.backbone.blocks:
        fully_shard(block, mesh=mesh["data_parallel"])
        register_fsdp_forward_method(block, "advance")  # what the backbone calls
    fully_shard(objective, mesh=mesh["data_parallel"])
    return objective


def whole(model: LanguageModel) -> LanguageModel:
    """The model with all its weights: itself, or where they are sharded a copy on the CPU; every process calls it."""
    from torch.distributed.tensor import DTensor

    if not any(isinstance(p, DTensor) for p in model.parameters()):
        return model
    weights = {name: p.full_tensor().cpu() if isinstance(p, DTensor) else p for name, p in model.state_dict().items()}
    copy = LanguageModel(model.config, model.tokens)
    copy.load_state_dict(weights)
    return copy


def _options():
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)


def optimizer_state(module: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any]:
    """The optimisers' state by the parameters' names, whole: it does not depend on the number of devices."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return get_optimizer_state_dict(module, optimizers, options=_options())


def restore_optimizer(module: nn.Module, optimizers: list[torch.optim.Optimizer], state: dict[str, Any]) -> None:
    """The inverse of `optimizer_state`."""
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    set_optimizer_state_dict(module, optimizers, state, options=_options())
