"""An architecture of transformers as a checkpoint format: its settings, its table of names, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ritornello.errors import CheckpointError, InputError
from ritornello.hub.base import CONFIG, TOKENIZER, Format, assign, write_folder
from ritornello.hub.progress import progress
from ritornello.hub.settings import Settings, parts_of
from ritornello.hub.shards import Header, Shards
from ritornello.hub.table import Row, under
from ritornello.models import FileTokenizer, LanguageModel, ModelConfig
from ritornello.typing import Tensor

__all__ = ["Architecture", "rows_of"]

FLOATS = {"F64", "F32", "F16", "BF16"}
DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.float16: "float16", torch.bfloat16: "bfloat16"}
DTYPE_OF = {name: dtype for dtype, name in DTYPES.items()}
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")

Rows = Sequence[Row] | Callable[[Any], Sequence[Row]]


@dataclass(frozen=True)
class Architecture:
    """What is said of one architecture, once, for reading and writing.

    Args:
        name: of the format and of transformers' ``model_type``.
        model: transformers' class, e.g. ``"MambaForCausalLM"``.
        settings: the table of settings.
        rows: of the tensors outside of the blocks; perhaps as a function of the model.
        block: of a block's tensors outside of its layers, with ``{i}``; perhaps as a function of the block.
        layers: kind of layer → (prefix of their names in a block, rows), the rows perhaps as a function of the layer.
        skipped: patterns of names of theirs that hold no weights.
        folded: config → patterns of their names, and what to do with such a tensor as it is read: multipliers of the
            activations go into the weights. Saved configs have multipliers of one.
    """

    name: str
    model: str
    settings: Settings
    rows: Rows
    block: Rows
    layers: Mapping[str, tuple[str, Rows]]
    skipped: Sequence[str] = (r".*rotary_emb\.inv_freq",)
    folded: Callable[[Mapping[str, Any]], Mapping[str, Callable[[Tensor], Tensor]]] = field(default=lambda _: {})

    def format(self) -> Format:
        """The entry for the register."""
        return Format(self.name, self._recognises, self.load, self.save, self.inspect, self.settings.not_understood)

    def _recognises(self, config: Mapping[str, Any]) -> bool:
        kind = config.get("model_type")
        return kind == self.name or (kind is None and config.get("architectures") == [self.model])

    # -------------------------------------------------------------------------------------------------------- reading

    def load(self, folder: Path, config: Mapping[str, Any]) -> LanguageModel:
        """Read a model. All is compared before a number is read; then tensor after tensor is moved, each source going
        before the next comes."""
        made, shell = self._shell(folder, config)
        shards = Shards(folder)
        rows = self._matched(shell, shards.headers, folder)
        fold = self.folded(config)
        rows = [replace(row, copies=True) if _folds(fold, row.theirs) else row for row in rows]
        tensors: dict[str, Tensor] = {}
        for row in progress(rows, lambda r: sum(shards.headers[n].nbytes for n in r.theirs if r.copies), "Loading"):
            found = shards.several(row.theirs) if row.copies else [shards.mapped(n) for n in row.theirs]
            for i, name in enumerate(row.theirs):
                for change in _folds(fold, [name]):
                    found[i] = change(found[i].to(DTYPE_OF.get(str(config.get("dtype")), found[i].dtype)))
            tensors |= zip(row.ours, row.read(found), strict=True)
            del found  # the pages of the sources go before the next ones come
        model = assign(lambda: LanguageModel(made, _tokens(folder)), tensors, folder)
        model.origin = self.settings.origin(config)
        return model

    def inspect(self, folder: Path, config: Mapping[str, Any]) -> LanguageModel:
        """The model without its numbers, after the headers of its weights were compared."""
        _, shell = self._shell(folder, config)
        self._matched(shell, Shards(folder).headers, folder)
        return shell

    def _shell(self, folder: Path, config: Mapping[str, Any]) -> tuple[ModelConfig, LanguageModel]:
        try:
            made = self.settings.read(config)
            with torch.device("meta"):
                return made, LanguageModel(made)
        except CheckpointError as error:
            raise CheckpointError(f"{str(folder / CONFIG)!r}: {error}") from None
        except (InputError, TypeError, AttributeError, RuntimeError) as error:
            why = str(error).partition("\n")[0]  # PyTorch tells its own stack below
            raise CheckpointError(f"{str(folder / CONFIG)!r} describes no model that can be built: {why}") from error

    def _matched(self, shell: LanguageModel, headers: Mapping[str, Header], folder: Path) -> list[Row]:
        """The rows of the model, after its tensors were compared with what the files hold."""
        ours = shell.state_dict()
        told = {name: header.shape for name, header in headers.items()}
        rows = [row.among(told, [ours[name] for name in row.ours]) for row in rows_of(self, shell)]
        expected: dict[str, tuple[int, ...]] = {}
        for row in rows:
            shapes = [tuple(t.shape) for t in row.write([ours[name] for name in row.ours])]
            found = [headers[name].shape for name in row.theirs if name in headers]
            if row.pooled and len(found) == len(shapes) and _pooled(found) == _pooled(shapes):
                shapes = found
            expected |= zip(row.theirs, shapes, strict=True)
        wrong = [f"{n} is missing" for n in expected if n not in headers]
        wrong += [f"{n} belongs to no layer" for n in headers if n not in expected and not self._spare(n, shell)]
        for name in expected.keys() & headers.keys():
            header, shape = headers[name], expected[name]
            if header.shape != shape:
                wrong.append(f"{name} is {header.shape}, not {shape}")
            elif header.dtype not in FLOATS:
                wrong.append(f"{name} is {header.dtype}, not a floating dtype")
        if wrong:
            more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise CheckpointError(
                f"The weights in {str(folder)!r} do not fit the config beside them: {'; '.join(wrong[:5])}{more}. Copy "
                "the checkpoint again, or give the config that it was saved with."
            )
        return rows

    def _spare(self, name: str, shell: LanguageModel) -> bool:
        """Whether a tensor may be there without being read: constants, and the second name of tied weights."""
        outer = self.rows(shell) if callable(self.rows) else self.rows
        if shell.head is None and name in (n for row in outer if "head.weight" in row.ours for n in row.theirs):
            return True
        return any(re.fullmatch(pattern, name) for pattern in self.skipped)

    # -------------------------------------------------------------------------------------------------------- writing

    def save(self, model: LanguageModel, folder: Path) -> None:
        """Write what transformers reads back."""
        known = model.origin if model.origin.get("model_type") == self.name else {}
        config = {name: model.origin.get(name) for name in SPECIAL_IDS} | known
        config |= {"architectures": [self.model], "model_type": self.name}
        config |= {"dtype": DTYPES[model.embedding.weight.dtype], **self.settings.write(model, self.name)}
        ours = model.state_dict()
        tensors: dict[str, Tensor] = {}
        for row in rows_of(self, model):
            moved = row.write([ours[name].detach().cpu() for name in row.ours])
            tensors |= {n: t.contiguous() for n, t in zip(row.theirs, moved, strict=True)}
        write_folder(folder, config, tensors, model.tokens)


def rows_of(architecture: Architecture, model: LanguageModel) -> list[Row]:
    """The rows of all tensors of a model: those whose names it has, block after block."""
    rows = list(architecture.rows(model) if callable(architecture.rows) else architecture.rows)
    entries = zip(model.config.entries(), model.config.feed_forwards(), model.backbone.blocks, strict=True)
    for i, (mixer, ffn, block) in enumerate(entries):
        found = list(architecture.block(block) if callable(architecture.block) else architecture.block)
        for side, entry in (("mixer", mixer), ("ffn", ffn)):
            layers = parts_of(entry, getattr(block, side))
            for j, (_, layer) in enumerate(layers):
                prefix, inner = architecture.layers[layer.kind]
                path = f"backbone.blocks.{{i}}.{side}." + (f"mixers.{j}." if len(layers) > 1 else "")
                found += under(prefix, path, inner(layer) if callable(inner) else inner)
        rows += [row.at(i) for row in found]
    names = set(model.state_dict())
    rows = [row for row in rows if names.issuperset(row.ours)]
    left = names.difference(*(row.ours for row in rows))
    if left:
        raise InputError(
            f"A checkpoint of format {architecture.name!r} has no place for {sorted(left)[0]}. Save it as 'ritornello'."
        )
    return rows


def _pooled(shapes: Sequence[tuple[int, ...]]) -> tuple[int, set[tuple[int, ...]]]:
    """What tensors come to, one after the other along the first dimension."""
    return sum(shape[0] for shape in shapes if shape), {shape[1:] for shape in shapes}


def _folds(fold: Mapping[str, Callable[[Tensor], Tensor]], names: Sequence[str]) -> list[Callable[[Tensor], Tensor]]:
    return [change for pattern, change in fold.items() for name in names if re.fullmatch(pattern, name)]


def _tokens(folder: Path) -> FileTokenizer | None:
    """The tokenizer beside the weights, where there is one and the package that reads it."""
    try:
        return FileTokenizer(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else None
    except CheckpointError:
        raise
    except InputError:  # the package is not installed: ids go as they are
        return None
