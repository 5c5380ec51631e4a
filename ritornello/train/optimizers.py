"""What turns gradients into updates."""

from __future__ import annotations

import torch
from torch import nn

from ritornello.models import LanguageModel
from ritornello.train.settings import Settings

__all__ = ["optimizers"]


def optimizers(model: LanguageModel, settings: Settings) -> list[torch.optim.Optimizer]:
    """AdamW for all parameters; or, with ``optimizer="muon"``, Muon for the projections' weights and AdamW for others:
    embeddings and output weights among them, whether they are tied or not.

    Muon's update has the root mean square of AdamW's (``match_rms_adamw``), so one learning rate serves both.

    Source: Loshchilov and Hutter 2017, arXiv:1711.05101 (AdamW); Jordan et al. 2024 and Liu et al. 2025,
    arXiv:2502.16982, section 2.2 (Muon and its scale).
    """
    groups = model.parameter_groups(settings.weight_decay)
    found: list[torch.optim.Optimizer] = []
    if settings.optimizer == "muon":
        projections = {m.weight for m in model.modules() if isinstance(m, nn.Linear)}
        projections -= {m.weight for m in (model.embedding, model.head) if m is not None}
        chosen = [{**g, "params": [p for p in g["params"] if p in projections]} for g in groups]
        groups = [{**g, "params": [p for p in g["params"] if p not in projections]} for g in groups]
        found.append(torch.optim.Muon([g for g in chosen if g["params"]], settings.lr, adjust_lr_fn="match_rms_adamw"))
    rest = [g for g in groups if g["params"]]
    # fused: one pass over the weights; it has none for sharded ones
    found.append(torch.optim.AdamW(rest, settings.lr, (0.9, settings.beta2), fused=settings.strategy == "ddp"))
    return found
