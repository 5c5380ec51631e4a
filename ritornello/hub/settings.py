"""The table of settings of a checkpoint format: a config.json of transformers ↔ a ModelConfig.

A setting of ours is named ``"width"`` (a field of ModelConfig) or ``"mamba.state_size"`` (an option of a layer). Both
directions come from one list of `Key` and `Same`; what a model has that its format cannot say is found by reading back
what was written.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from ritornello.errors import CheckpointError, InputError
from ritornello.hub.names import ANY, MADE
from ritornello.layers.catalogue import build
from ritornello.models import LanguageModel, ModelConfig, Parallel
from ritornello.models.backbone import Block

__all__ = ["NOTHING", "Key", "Rule", "Same", "Settings", "blocks", "look_up", "parts_of", "uniform"]

MISSING = object()
NOTHING = object()
"""What a `Rule` writes where a config is to lack the name."""
UNSAID = ("pattern", "depth", "ffn", "dropout", "init_std")
"""Fields of ModelConfig that `settings_of` leaves out: the layers are told one by one, and training leaves no trace."""


def _keep(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Key:
    """A setting that both sides have.

    Args:
        name: theirs; with a dot, inside an object: ``"rope_parameters.rope_theta"``.
        ours: our name, or several that must agree.
        default: where their config lacks the name or holds null; None: what our side has for a default; MISSING: it
            must be there.
        read, write: their value → ours, and back. `read` may raise a ValueError: the value is not supported.
        older: a name that earlier configs had for it.
    """

    name: str
    ours: str | tuple[str, ...]
    default: Any = MISSING
    read: Callable[[Any], Any] = _keep
    write: Callable[[Any], Any] = _keep
    older: str | None = None

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.ours,) if isinstance(self.ours, str) else self.ours


@dataclass(frozen=True)
class Same:
    """A setting of theirs that ours has at one value only; any other is refused by name.

    Args:
        name: theirs.
        value: the one that is supported, or a function of our settings that tells it. It is assumed where absent.
        also: values that mean the same to the logits.
        written: whether it is put into a config that is saved.
    """

    name: str
    value: Any
    also: tuple[Any, ...] = ()
    written: bool = True

    def wanted(self, ours: Mapping[str, Any]) -> Any:
        return self.value(ours) if callable(self.value) else self.value


@dataclass(frozen=True)
class Rule:
    """A setting of ours that follows from several of theirs.

    Args:
        ours: our name.
        read: config → our value. It may raise a ValueError: the config is not supported.
        name: theirs that `write` tells; None where the others tell it already.
        write: our settings → the value of `name`.
        uses: names that only `read` looks at.
    """

    ours: str
    read: Callable[[Mapping[str, Any]], Any]
    name: str | None = None
    write: Callable[[Mapping[str, Any]], Any] = _keep
    uses: tuple[str, ...] = ()


Kinds = Sequence[tuple[str, str | None]]


@dataclass(frozen=True)
class Settings:
    """How a config is read and written.

    Args:
        keys: the settings.
        layers: config → (mixer, feed-forward) of every block, by the names of layers; ``"mamba2+attention"`` is a
            Parallel of both.
        tell: what `layers` reads, for the layers of a model; it may raise an InputError.
        ignored: names that no logit depends on, beside those that any config may hold; they are kept for saving.
        fixed: our settings that all models of the format share.
        consumed: names that `layers` or the weights take account of, and that are not kept.
        older: names that some configs have, and what is meant: the other is taken where both are there.
    """

    keys: tuple[Key | Same | Rule, ...]
    layers: Callable[[Mapping[str, Any]], Kinds]
    tell: Callable[[Kinds], Mapping[str, Any]]
    ignored: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    consumed: tuple[str, ...] = ()
    older: Mapping[str, str] = field(default_factory=dict)

    # -------------------------------------------------------------------------------------------------------- reading

    def read(self, config: Mapping[str, Any]) -> ModelConfig:
        """The ModelConfig of a config.json.

        Raises:
            CheckpointError: a setting that is missing, or at a value that nothing here has; it is named.
        """
        ours: dict[str, Any] = dict(self.fixed)
        if config.get("quantization_config"):
            raise CheckpointError("The config has quantization_config; only weights in a floating dtype are read.")
        older = {name: config[old] for old, name in self.older.items() if old in config}
        config = {**config, **{name: value for name, value in older.items() if config.get(name) is None}}
        _depth(config)
        for key in self.keys:
            if isinstance(key, Key):
                value = self._value(key, config)
                ours |= {target: value for target in key.targets if value is not None}
            elif isinstance(key, Rule):
                ours[key.ours] = self._ruled(key, config)
        for key in self.keys:
            if isinstance(key, Same):
                self._compare(key, config, ours)
        return _compose(ours, self.layers(config))

    def not_understood(self, config: Mapping[str, Any]) -> list[str]:
        """Names in a config that this table does not know."""
        known = {"quantization_config", *self.ignored, *self.consumed, *self.older, *ANY, *self.tell([])}
        for key in self.keys:
            names = (key.name, getattr(key, "older", None), *getattr(key, "uses", ()))
            known |= {name.split(".")[0] for name in names if name is not None}
        return sorted(n for n, value in config.items() if n not in known and value not in (None, False, [], {}))

    def origin(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What a config says that our side has no place for, and that is told again when the model is saved."""
        return {n: v for n, v in config.items() if n in (ANY | set(self.ignored)) - MADE}

    @staticmethod
    def _value(key: Key, config: Mapping[str, Any]) -> Any:
        value = look_up(config, key.name)
        if value is None and key.older is not None:
            value = look_up(config, key.older)
        if value is None:
            if key.default is MISSING:
                raise CheckpointError(f"The config lacks {key.name!r}. Copy the whole config.json.")
            return key.default
        if isinstance(value, bool) != isinstance(key.default, bool):
            wanted = "true or false" if isinstance(key.default, bool) else "what is no truth value"
            raise CheckpointError(f"The config has {key.name} = {value!r}; wanted {wanted}.")
        try:
            return key.read(value)
        except (ValueError, TypeError, KeyError) as error:
            reason = f": {error}" if isinstance(error, ValueError) else ""
            raise CheckpointError(f"The config has {key.name} = {value!r}, which is not supported{reason}.") from None

    @staticmethod
    def _ruled(rule: Rule, config: Mapping[str, Any]) -> Any:
        try:
            return rule.read(config)
        except (ValueError, TypeError, KeyError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise CheckpointError(f"The config says nothing usable of {rule.name or rule.ours} ({reason}).") from None

    @staticmethod
    def _compare(same: Same, config: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
        value, wanted = look_up(config, same.name), same.wanted(ours)
        if value is not None and value != wanted and value not in same.also:
            raise CheckpointError(f"The config has {same.name} = {value!r}; only {wanted!r} is supported.")

    # -------------------------------------------------------------------------------------------------------- writing

    def write(self, model: LanguageModel, name: str) -> dict[str, Any]:
        """The config.json of a model.

        Raises:
            InputError: the model has a layer or an option that the format `name` cannot say; it is named.
        """
        found, layers = settings_of(model)
        ours = found | self._of_layers_without(found)
        config: dict[str, Any] = dict(self.tell(layers))
        for key in self.keys:
            if isinstance(key, Same):
                if key.written:
                    put(config, key.name, key.wanted(ours))
            elif isinstance(key, Rule):
                if key.name is not None and key.ours in ours and (told := key.write(ours)) is not NOTHING:
                    put(config, key.name, told)
            elif any(target in ours for target in key.targets):
                value = next(ours[target] for target in key.targets if target in ours)
                put(config, key.name, None if value is None else key.write(value))
        made = self.read(config)
        with torch.device("meta"):
            again, layers_again = settings_of(LanguageModel(made))
        for setting in sorted(found):
            if again.get(setting, MISSING) != found[setting]:
                owner, option = setting.split(".") if "." in setting else ("the model's config", setting)
                raise InputError(
                    f"`{option}` of {owner} is {ours[setting]!r}, which a checkpoint of format {name!r} cannot say "
                    f"beside the model's other settings: it would be read as {again.get(setting)!r}. Save it as "
                    "'ritornello', or build the model with what that format can say."
                )
        if layers != layers_again:
            raise InputError(f"A checkpoint of format {name!r} cannot say this pattern. Save it as 'ritornello'.")
        return config

    def _of_layers_without(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of the layers that a config must speak of though this model has none of them: their defaults at its
        width, beside what they share with the layers that are there."""
        keys = [key.targets if isinstance(key, Key) else (key.ours,) for key in self.keys if not isinstance(key, Same)]
        shared = {t: found[s] for targets in keys for s in targets if s in found for t in targets} | dict(self.fixed)
        kinds = {t.split(".")[0] for targets in keys for t in targets if "." in t}
        told: dict[str, Any] = {}
        for kind in kinds - {name.split(".")[0] for name in found}:
            options = {t.split(".")[1]: value for t, value in shared.items() if t.startswith(f"{kind}.")}
            with torch.device("meta"):
                layer = build(kind, found["width"], **options)
            settled = _options((kind, options), layer).items()
            told |= {f"{kind}.{option}": value for option, value in settled if value is not None}
        return told


def look_up(config: Mapping[str, Any], name: str) -> Any:
    """``config["a"]["b"]`` for ``"a.b"``; None where there is none."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def put(config: dict[str, Any], name: str, value: Any) -> None:
    """Set what `look_up` finds."""
    *parents, last = name.split(".")
    for part in parents:
        config = config.setdefault(part, {})
    config[last] = value


# ------------------------------------------------------------------------------------------------------- our own side


def _compose(ours: Mapping[str, Any], layers: Kinds) -> ModelConfig:
    """The ModelConfig with these settings and layers."""

    def entry(kind: str | None) -> Any:
        if kind is None:
            return None
        if "+" in kind:
            return Parallel(*map(entry, kind.split("+")), combine=ours["parallel.combine"])
        return kind, {n.split(".")[1]: v for n, v in ours.items() if n.startswith(f"{kind}.")}

    mixers, ffns = ([entry(pair[side]) for pair in layers] for side in (0, 1))
    plain = {n: v for n, v in ours.items() if "." not in n}
    one = all(f == ffns[0] for f in ffns)
    pattern = mixers[:1] if all(m == mixers[0] for m in mixers) else mixers
    return ModelConfig(**{**plain, "pattern": pattern, "depth": len(mixers), "ffn": ffns[0] if one else ffns})


def parts_of(entry: Any, layer: Any) -> list[tuple[Any, Any]]:
    """The layers of a block's mixer or feed-forward, each with the entry that it was built of."""
    if isinstance(entry, Parallel):
        return list(zip(entry.mixers, layer.mixers, strict=True))
    return [] if layer is None else [(entry, layer)]


def settings_of(model: LanguageModel) -> tuple[dict[str, Any], list[tuple[str, str | None]]]:
    """All settings of a model as they are in effect, defaults included, and the kinds of its layers."""
    config = model.config
    ours = {f.name: getattr(config, f.name) for f in fields(config) if f.name not in UNSAID}
    layers = []
    entries = zip(config.entries(), config.feed_forwards(), model.backbone.blocks, strict=True)
    for mixer, ffn, block in entries:
        if not isinstance(block, Block):
            raise InputError("The model has a Repeat, which other formats cannot say. Save it as 'ritornello'.")
        if isinstance(mixer, Parallel):
            _agree(ours, "parallel.combine", mixer.combine)
        sides = [parts_of(mixer, block.mixer), parts_of(ffn, block.ffn)]
        for entry, layer in sides[0] + sides[1]:
            for option, value in _options(entry, layer).items():
                _agree(ours, f"{layer.kind}.{option}", value)
        layers.append(tuple("+".join(layer.kind for _, layer in side) or None for side in sides))
    return ours, layers


def _agree(ours: dict[str, Any], name: str, value: Any) -> None:
    if ours.setdefault(name, value) != value:
        owner, option = name.split(".")
        raise InputError(
            f"`{option}` of {owner} differs from block to block, which only the format 'ritornello' can say."
        )


def _options(entry: Any, layer: Any) -> dict[str, Any]:
    """The options of a built layer: as given, else as the layer settled them, else the default; and its sizes."""
    given = {} if isinstance(entry, str) else dict(entry[1])
    found = dict(layer.spec)
    for name, parameter in inspect.signature(type(layer)).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name != "place":  # which the model fills in
            settled = layer.spec.get(name, getattr(layer, name, None))
            if given.get(name) is not None:
                found[name] = given[name]
            elif isinstance(settled, (int, float, str, tuple)):  # not a module that happens to bear the option's name
                found[name] = settled
            else:
                found[name] = None if name in given else parameter.default
    if found.get("hidden") is not None:
        found.pop("expand", None)  # it only told how many channels are hidden
    return found


def _depth(config: Mapping[str, Any]) -> int:
    depth = config.get("num_hidden_layers")
    if type(depth) is not int or depth < 1:
        raise CheckpointError(f"The config has num_hidden_layers = {depth!r}; wanted a positive integer.")
    return depth


def blocks(
    types: Mapping[str, tuple[str, str | None]],
    read: Callable[[Mapping[str, Any]], Sequence[str] | None] = lambda config: config.get("layer_types"),
    tell: Callable[[Sequence[str]], Mapping[str, Any]] = lambda names: {"layer_types": list(names)},
) -> dict[str, Any]:
    """`layers` and `tell` of a format that names the type of each block.

    Args:
        types: their name of a block → (mixer, feed-forward).
        read: config → the names; cycled to ``num_hidden_layers``.
        tell: the names of all blocks → what the config says of them.
    """

    def layers(config: Mapping[str, Any]) -> Kinds:
        depth, names = _depth(config), read(config)
        if not names or not set(names) <= set(types):
            raise CheckpointError(f"The config has blocks of types {names!r}; there are {', '.join(types)}.")
        return [types[names[i % len(names)]] for i in range(depth)]

    def told(found: Kinds) -> dict[str, Any]:
        names = {pair: name for name, pair in types.items()}
        for i, pair in enumerate(found):
            if pair not in names:
                wanted = "; ".join(" and ".join(filter(None, p)) for p in names)
                raise InputError(f"Block {i} is {' and '.join(filter(None, pair))}; this format has {wanted}.")
        return {"num_hidden_layers": len(found), **tell([names[pair] for pair in found])}

    return {"layers": layers, "tell": told}


def uniform(mixer: str, ffn: str | None) -> dict[str, Any]:
    """`layers` and `tell` of a format whose blocks are all alike."""
    return blocks({"": (mixer, ffn)}, lambda config: ("",), lambda names: {})
