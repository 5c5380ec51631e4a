"""Checkpoints: one file per format. `load` recognises a format by its config.json; no pickle is ever read."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from ritornello.errors import CheckpointError, InputError
from ritornello.hub import ritornello_format
from ritornello.hub.bamba import BAMBA
from ritornello.hub.base import CONFIG, INDEX, WEIGHTS, Format, find, formats, recognise, register
from ritornello.hub.delta_net import DELTA_NET, GATED_DELTANET
from ritornello.hub.falcon_h1 import FALCON_H1
from ritornello.hub.fla_rwkv import RWKV6, RWKV7
from ritornello.hub.gla import GLA
from ritornello.hub.hgrn2 import HGRN2
from ritornello.hub.jamba import JAMBA
from ritornello.hub.kda import KDA
from ritornello.hub.kimi_linear import KIMI_LINEAR
from ritornello.hub.lfm2 import LFM2, LFM2_MOE
from ritornello.hub.llama import LLAMA
from ritornello.hub.mamba import FALCON_MAMBA, MAMBA
from ritornello.hub.mamba2 import MAMBA2
from ritornello.hub.olmo_hybrid import OLMO_HYBRID
from ritornello.hub.qwen import (
    QWEN3_5,
    QWEN3_5_MOE,
    QWEN3_5_MOE_WITH_VISION,
    QWEN3_5_WITH_VISION,
    QWEN3_NEXT,
)
from ritornello.hub.recurrent_gemma import RECURRENT_GEMMA
from ritornello.hub.retnet import RETNET
from ritornello.hub.rwkv import RWKV
from ritornello.hub.xlstm import XLSTM
from ritornello.models import LanguageModel

__all__ = ["Format", "Inspected", "formats", "inspect", "load", "register", "save"]

register(ritornello_format.FORMAT)
for _architecture in (
    BAMBA,
    DELTA_NET,
    FALCON_H1,
    FALCON_MAMBA,
    GATED_DELTANET,
    GLA,
    HGRN2,
    JAMBA,
    KDA,
    KIMI_LINEAR,
    LFM2,
    LFM2_MOE,
    LLAMA,
    MAMBA,
    MAMBA2,
    OLMO_HYBRID,
    QWEN3_5,
    QWEN3_5_MOE,
    QWEN3_NEXT,
    RECURRENT_GEMMA,
    RETNET,
    RWKV,
    RWKV6,
    RWKV7,
    XLSTM,
):
    register(_architecture.format())
register(QWEN3_5_WITH_VISION)
register(QWEN3_5_MOE_WITH_VISION)


@dataclass(frozen=True)
class Inspected:
    """A checkpoint that was looked at and not loaded.

    Args:
        format: its name.
        folder: where it lies.
        model: what it would be, on the meta device: names and shapes without numbers.
        unknown: names in its config that are not understood.
    """

    format: str
    folder: Path
    model: LanguageModel
    unknown: list[str]


def save(model: LanguageModel, path: str | Path, format: str | None = None) -> None:
    """Write a model to the folder `path`. Whatever fails, a checkpoint that was there before stays.

    Args:
        model: a LanguageModel.
        path: a folder; it is made where there is none.
        format: the name of a checkpoint format; ``"ritornello"`` where None.

    Raises:
        CheckpointError: the disk is full, or the folder cannot be written.
        InputError: no model, or a format that is unknown or only read.
    """
    if not isinstance(model, LanguageModel):
        raise InputError(f"`model` of save is a {type(model).__name__}; wanted a ritornello.LanguageModel.")
    chosen = find(format or "ritornello")
    if chosen.save is None:
        raise InputError(f"Checkpoints of format {chosen.name!r} are only read. Save as 'ritornello'.")
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`path` of save is {str(path)!r}, a file; a model is saved to a folder. Give another path.")
    chosen.save(model, folder)


def load(path_or_id: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> LanguageModel:
    """Read a model from a folder, or from the Hugging Face hub by its id ``"owner/name"``. It is in eval mode.

    Args:
        path_or_id: a folder with a config.json, or that file itself, or an id.
        device: where the weights go.
        dtype: of the weights (see ``LanguageModel.to_dtype``); as saved where None.

    Raises:
        CheckpointError: nothing there, an unknown format, a newer version, or weights that are truncated, missing, too
            many or of another shape. Nothing is half loaded.
    """
    folder = _folder(path_or_id)
    format, config = recognise(folder)
    if dtype is not None:
        config["dtype"] = str(dtype).removeprefix("torch.")
    if unknown := format.unknown(config):
        warnings.warn(
            f"{str(folder / CONFIG)!r} has settings that nothing here understands; they are left out: "
            f"{', '.join(unknown)}. Compare the logits with those of the code that it was made for.",
            stacklevel=2,
        )
    model = format.load(folder, config)
    if dtype is not None:
        model.to_dtype(dtype)
    return model.to(device).eval()


def inspect(path_or_id: str | Path) -> Inspected:
    """What a checkpoint holds, from its config and the headers of its files: no weight is read, but of formats that
    cannot tell without.

    Raises:
        CheckpointError: as `load`.
    """
    folder = _folder(path_or_id)
    format, config = recognise(folder)
    model = (format.inspect or format.load)(folder, config)
    return Inspected(format.name, folder, model, format.unknown(config))


def _folder(path_or_id: str | Path) -> Path:
    path = Path(path_or_id)
    if path.is_dir():
        return path
    if path.is_file():
        if path.name in (CONFIG, INDEX, WEIGHTS):
            return path.parent
        raise CheckpointError(
            f"{str(path)!r} is a file; wanted the folder of a checkpoint, with {CONFIG} and {WEIGHTS}. "
            "Pickles (.pt, .bin) are never read: they could run any code."
        )
    if not isinstance(path_or_id, str) or path_or_id.count("/") != 1 or path_or_id.startswith((".", "/", "~")):
        raise CheckpointError(f"There is no folder {str(path_or_id)!r} to read a model from. Check the path.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"There is no folder {path_or_id!r}. If it is an id on the Hugging Face hub, run pip install "
            "'ritornello[hub]' to download it."
        ) from None
    try:
        return Path(
            snapshot_download(
                path_or_id,
                allow_patterns=["*.json", "*.safetensors"],
                ignore_patterns=["consolidated*", "original/*"],  # the same weights again, as their authors name them
            )
        )
    except Exception as error:  # the package raises many kinds: network, rights, names
        raise CheckpointError(
            f"There is no folder {path_or_id!r}, and the Hugging Face hub gave no such model "
            f"({type(error).__name__}). Check the path or the id."
        ) from error
