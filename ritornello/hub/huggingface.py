"""Our language models in the hands of transformers: ``AutoModelForCausalLM``, ``generate``, ``Trainer``, ``pipeline``.

Importing this module registers the two classes; nothing else imports it, so that transformers is not needed otherwise:

    import ritornello.hub.huggingface
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)      # what rt.save or save_pretrained wrote

The weights have the names of `LanguageModel`, and config.json is that of our own format: each side reads what the other
has written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch

try:
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedModel
    from transformers.generation import GenerationConfig
    from transformers.modeling_outputs import CausalLMOutputWithPast
    from transformers.utils import GENERATION_CONFIG_NAME
except ModuleNotFoundError as error:
    raise ImportError(
        f"`ritornello.hub.huggingface` needs transformers ({error}). Run: pip install 'ritornello[hub]'"
    ) from None
try:
    from transformers import PreTrainedConfig
except ImportError:  # its name before 5.0
    from transformers import PretrainedConfig as PreTrainedConfig

from ritornello import hub
from ritornello import state as states
from ritornello.errors import InputError
from ritornello.hub.ritornello_format import MODEL_TYPE, VERSION
from ritornello.models import LanguageModel, ModelConfig
from ritornello.models.reader import Reader
from ritornello.state import State
from ritornello.typing import Tensor

__all__ = ["RitornelloConfig", "RitornelloForCausalLM", "StateCache"]


class RitornelloConfig(PreTrainedConfig):
    """The config of a `LanguageModel` as transformers keeps one.

    Args:
        model: the fields of a `ModelConfig`; those of a small model where None, as transformers asks of every config.
        tokens: ``"bytes"``, ``"tokenizer.json"`` or None.
        common: of transformers: special ids and the like.
    """

    model_type = MODEL_TYPE

    def __init__(self, model: dict[str, Any] | None = None, tokens: str | None = None, **common: Any):
        self.format, self.version = "ritornello", common.pop("version", VERSION)
        common.pop("format", None)
        self.model = ModelConfig(256, 64).to_dict() if model is None else dict(model)
        self.tokens = tokens
        common["tie_word_embeddings"] = False  # tied weights are one tensor here, and need no tying
        super().__init__(**common)

    @property
    def vocab_size(self) -> int:
        return self.model["vocab_size"]

    @property
    def hidden_size(self) -> int:
        return self.model["width"]

    @property
    def num_hidden_layers(self) -> int:
        return ModelConfig.from_dict(self.model).depth or 0


class StateCache:
    """A State where transformers expects a cache: what has been read, replaced at every call.

    Args:
        state: what has been read.
        length: how many steps, padding included.
    """

    is_compileable = False

    def __init__(self, state: State | None = None, length: int = 0):
        self.state, self.length = state, length

    @property
    def state(self) -> State | None:
        """What has been read."""
        return self._state if self._reader is None else self._reader.state

    @state.setter
    def state(self, state: State | None) -> None:
        self._state, self._reader = state, None

    def reader(self, model: LanguageModel, batch: int) -> Reader:
        """What goes on from this state, which is its own from now on."""
        if self._reader is None:
            self._reader = Reader(model, model.initial_state(batch) if self._state is None else self._state)
        return self._reader

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """How many steps have been read, padding included."""
        return self.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, as a search by beams asks."""
        if self.state is not None:
            self.state = states.rows(self.state, beam_idx)


class RitornelloForCausalLM(PreTrainedModel, GenerationMixin):
    """A `LanguageModel` as a model of transformers; `language_model` is the thing itself, with the same weights."""

    config_class = RitornelloConfig
    main_input_name = "input_ids"
    _is_stateful = True
    _no_split_modules: ClassVar[list[str]] = ["Block"]
    language_model: LanguageModel

    def __init__(self, config: RitornelloConfig, language_model: LanguageModel | None = None):
        super().__init__(config)
        made = LanguageModel(ModelConfig.from_dict(config.model)) if language_model is None else language_model
        self.embedding, self.backbone, self.head = made.embedding, made.backbone, made.head
        self.__dict__["language_model"] = made  # beside the modules, not among them: no weight has two names

    @classmethod
    def of(cls, model: LanguageModel) -> RitornelloForCausalLM:
        """The same model, weights and all."""
        special = {name: value for name, value in model.origin.items() if name.endswith("_token_id")}
        return cls(RitornelloConfig(model.config.to_dict(), **special), model)

    @classmethod
    def from_pretrained(cls, path: str, *_: Any, dtype: Any = None, torch_dtype: Any = None, **options: Any):
        """Read any checkpoint that ``rt.load`` reads.

        Args:
            path: a folder, or an id on the hub.
            dtype: of the weights, e.g. ``"bfloat16"``; as saved where None or "auto".
            options: of transformers; those that would change what is loaded are refused.
        """
        for name in ("device_map", "quantization_config"):
            if options.get(name) is not None:
                raise InputError(f"`{name}` is not understood for ritornello models. Load, then call .to(device).")
        dtype = torch_dtype if dtype is None else dtype
        if isinstance(dtype, str):
            dtype = None if dtype == "auto" else getattr(torch, dtype.removeprefix("torch."))
        model = cls.of(hub.load(path, dtype=dtype))
        if (Path(path) / GENERATION_CONFIG_NAME).is_file():
            model.generation_config = GenerationConfig.from_pretrained(path)
        return model.eval()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: StateCache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
        num_items_in_batch: Any = None,
        inputs_embeds: Tensor | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """As of any causal model of transformers: a step where the mask is 0 is skipped, and `labels` are the ids."""
        if input_ids is None or inputs_embeds is not None:
            raise InputError("`inputs_embeds` is not understood: ritornello models read ids. Give `input_ids`.")
        cache = StateCache() if past_key_values is None else past_key_values
        if not isinstance(cache, StateCache):
            raise InputError(
                f"`past_key_values` is a {type(cache).__name__}; wanted what this model returned, a StateCache."
            )
        mask = None if attention_mask is None else attention_mask[:, -input_ids.shape[1] :].bool()
        if mask is not None and bool(mask.all()):
            mask = None
        kept, loss = "last" if logits_to_keep == 1 and labels is None else "all", None
        keep_cache = not self.training if use_cache is None else use_cache
        if keep_cache and not torch.is_grad_enabled():
            logits = cache.reader(self.language_model, input_ids.shape[0]).read(input_ids, mask, kept).clone()
        else:
            logits, state = self.language_model(input_ids, cache.state, mask=mask, logits=kept)
            if keep_cache:
                cache.state = state
        if kept == "last":
            logits = logits.unsqueeze(1)
        elif labels is None:
            logits = logits[:, -logits_to_keep:]  # 0: all of them
        if labels is not None:
            loss = self.loss_function(  # type: ignore[operator]
                logits, labels, vocab_size=self.config.vocab_size, num_items_in_batch=num_items_in_batch
            )
        cache.length += input_ids.shape[1]
        output = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=cache if keep_cache else None)  # type: ignore[arg-type]
        return output.to_tuple() if return_dict is False else output

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the first call makes the cache

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Nothing: every layer has drawn its own weights."""

    def get_input_embeddings(self) -> torch.nn.Module:
        return self.embedding

    def get_output_embeddings(self) -> torch.nn.Module | None:
        return self.head


AutoConfig.register(MODEL_TYPE, RitornelloConfig, exist_ok=True)
AutoModelForCausalLM.register(RitornelloConfig, RitornelloForCausalLM, exist_ok=True)
