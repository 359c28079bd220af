"""Selectors that load elsewhere: a PEFT adapter of a causal language model, its template and its choices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedpref.models.choice import both_texts
from fedpref.models.choice_head import choice_model
from fedpref.models.export import REFERENCE_PAIRS, check_name, logits_alone, save_adapter
from fedpref.models.lora import Lora
from fedpref.models.transformer import Checkpoint, load_tokenizer
from fedpref.types import Pairs, Weights

__all__ = ["export_selector"]

_README = """---
library_name: peft
base_model: {model}
pipeline_tag: text-generation
tags: [preference, selector, lora, fedpref]
---

# A LoRA selector of the better response, trained by federated preference learning

    import json
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    facts = json.load(open("this folder/fedpref.json"))
    tokenizer = AutoTokenizer.from_pretrained("this folder")
    base = AutoModelForCausalLM.from_pretrained({model!r}{revision}, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, "this folder").eval()

    def prefers_a(prompt, a, b):
        text = facts["template"].format(prompt=prompt, response_a=a, response_b=b)
        logits = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
        first, second = facts["choice_ids"]
        return float(logits[first] - logits[second])

    score = (prefers_a(prompt, a, b) - prefers_a(prompt, b, a)) / 2

The score is above 0 where `a` is the better response; asking both ways cancels any liking for a slot. Cut
long prompts and responses, never the template, to at most {max_tokens} tokens in all. `reference.json` has
texts in both orders and the logits of the two choices, to check a copy.
"""


def export_selector(
    folder: Path,
    checkpoint: Checkpoint,
    lora: Lora,
    weights: Weights,
    template: str,
    choices: Sequence[str],
    pairs: Pairs = REFERENCE_PAIRS,
) -> None:
    """Write a selector.

    ``reference.json`` holds, for each pair, the text of both orders and the logits of the two choices.

    Args:
        folder: where; made if absent.
        checkpoint: the frozen causal language model.
        lora: where the low-rank weights sit.
        weights: what to write.
        template: what the model reads.
        choices: its two answers.
        pairs: texts whose logits are written; nobody's data.

    Raises:
        ConfigurationError: the weights do not fit, or the name of the folder contains "lora".
    """
    check_name(folder)
    model = choice_model(checkpoint.exact, lora, template, tuple(choices))
    tokenizer = load_tokenizer(checkpoint)
    model.lora.load(weights)
    texts = [
        both_texts(checkpoint, template, prompt, str(chosen), str(rejected))
        for prompt, chosen, rejected in zip(pairs.prompts, pairs.chosen, pairs.rejected, strict=True)
    ]
    logits = [
        [[float(row[-1, token]) for token in model.tokens] for row in rows]
        for rows in (logits_alone(model.lora.peft, tokenizer, both, checkpoint.max_tokens) for both in texts)
    ]
    facts = {"template": template, "choices": list(choices), "choice_ids": list(model.tokens)}
    save_adapter(folder, checkpoint, model.lora, weights, {"texts": texts, "logits": logits}, facts, _README)
