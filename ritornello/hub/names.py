"""What any config.json of transformers may hold, whatever its architecture."""

from __future__ import annotations

__all__ = ["ANY", "MADE"]

GENERATION = {
    "bad_words_ids", "begin_suppress_tokens", "diversity_penalty", "do_sample", "early_stopping",
    "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty", "length_penalty", "max_length", "min_length",
    "no_repeat_ngram_size", "num_beam_groups", "num_beams", "num_return_sequences", "output_scores",
    "remove_invalid_values", "repetition_penalty", "return_dict_in_generate", "suppress_tokens", "temperature",
    "tf_legacy_loss", "tie_encoder_decoder", "top_k", "top_p", "typical_p",
}  # fmt: skip
"""How text is drawn: older versions of transformers wrote it beside the model's own settings."""

ANY = GENERATION | {
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "add_cross_attention", "architectures",
    "attention_dropout", "auto_map", "bos_token_id", "chunk_size_feed_forward", "cross_attention_hidden_size",
    "decoder_start_token_id", "dtype", "embd_pdrop", "eos_token_id", "finetuning_task", "forced_bos_token_id",
    "forced_eos_token_id", "hidden_dropout", "hidden_dropout_prob", "id2label", "initializer_range", "is_decoder",
    "is_encoder_decoder", "keys_to_ignore_at_inference", "label2id", "max_position_embeddings", "model_type",
    "num_hidden_layers", "output_attentions", "output_hidden_states", "pad_token_id", "prefix", "pretraining_tp",
    "problem_type", "pruned_heads", "resid_pdrop", "return_dict", "sep_token_id", "task_specific_params",
    "tokenizer_class", "torch_dtype", "torchscript", "transformers.js_config", "transformers_version", "use_bfloat16",
    "use_cache",
}  # fmt: skip
"""What any config may hold and no logit depends on."""

MADE = {
    "_attn_implementation_autoset", "_commit_hash", "_name_or_path", "architectures", "auto_map", "dtype",
    "num_hidden_layers", "torch_dtype", "transformers.js_config", "transformers_version",
}  # fmt: skip
"""Those of them that a file is given when it is written."""
