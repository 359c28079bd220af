"""Tiny random transformers with a word tokenizer, built offline: for tests and for debugging."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["tiny_causal_lm", "tiny_encoder"]

_WORDS = "a the of and to in is it that for on with as be this not good bad short long plain fancy".split()
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
}


def tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """A BERT of three layers and 32 dimensions, saved with its tokenizer.

    Args:
        folder: where; made if absent.
        seed: of the random weights.

    Returns:
        The folder.
    """
    from transformers import BertConfig, BertModel

    tokenizer = _tokenizer(encoder=True)
    return _save(folder, BertModel, BertConfig(vocab_size=len(tokenizer), **_SIZES), tokenizer, seed)


def tiny_causal_lm(folder: Path, seed: int = 0) -> Path:
    """A Llama of three layers and 32 dimensions, saved with a tokenizer that has no padding token.

    Args:
        folder: where; made if absent.
        seed: of the random weights.

    Returns:
        The folder.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer(encoder=False)
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, bos_token_id=None, eos_token_id=3, **_SIZES
    )
    return _save(folder, LlamaForCausalLM, config, tokenizer, seed)


def _tokenizer(encoder: bool) -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789.,!?")
    pieces = [*_SPECIAL, *dict.fromkeys([*_WORDS, *letters, *(f"##{letter}" for letter in letters)])]
    core = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(pieces)}, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = {"unk_token": "[UNK]", "eos_token": "[SEP]"}
    if encoder:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names |= {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=128, **names)


def _save(folder: Path, kind: Any, config: Any, tokenizer: Any, seed: int) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(config)
    # The random layers of a fresh model nearly copy their input; larger weights make each layer matter.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
