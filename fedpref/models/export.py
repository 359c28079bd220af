"""Adapters that load elsewhere: a folder that PEFT reads without fedpref, and proof that it says the same.

The folder holds ``adapter_config.json`` with base model and revision, ``adapter_model.safetensors``, the
tokenizer, ``README.md``, ``fedpref.json``, and ``reference.json`` with pairs of texts and the logits that
the server's model gives them, one text at a time on one thread.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fedpref.errors import ConfigurationError
from fedpref.models import minilm
from fedpref.models.lora import Lora, LoraModel, lora_model
from fedpref.models.text import join
from fedpref.models.transformer import Checkpoint, load_causal_lm, load_model, load_tokenizer, quiet
from fedpref.types import Pairs, Weights

__all__ = [
    "REFERENCE_PAIRS",
    "check_name",
    "export_adapter",
    "load_adapter",
    "logits_alone",
    "merge_adapter",
    "reference_logits",
    "save_adapter",
]

NUM_REFERENCE_PAIRS = 8

# Nobody's data: what is published with an adapter must not hold a client's texts.
REFERENCE_PAIRS = Pairs(
    prompts=(
        "How do I boil an egg?",
        "Name a river in Europe.",
        "Is it going to rain?",
        "Summarise: the cat sat on the mat.",
        "What is seven times eight?",
        "Tell me a joke.",
        "How far away is the moon?",
        "",
    ),
    chosen=(
        "Lower it into boiling water for eight minutes, then cool it under the tap.",
        "The Danube.",
        "I cannot see the sky from here; a local forecast will tell you.",
        "A cat was on a mat.",
        "Fifty-six.",
        "Why did the scarecrow get a prize? He was outstanding in his field.",
        "About 384,000 kilometres on average.",
        "A sentence without a prompt.",
    ),
    rejected=(
        "Eggs are laid by hens.",
        "The Nile.",
        "Yes.",
        "The mat, which was red, had been bought in 1952 by a sailor.",
        "Fifty-four, I think.",
        "No.",
        "It is very far, so nobody has ever measured it, but it is far.",
        "sentence a without prompt",
    ),
    pair_ids=tuple(f"reference/{i}" for i in range(NUM_REFERENCE_PAIRS)),
    topics=("",) * NUM_REFERENCE_PAIRS,
)

_README = """---
library_name: peft
base_model: {model}
pipeline_tag: text-classification
tags: [reward-model, lora, fedpref]
---

# A LoRA reward model, trained by federated preference learning

    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained({model!r}, num_labels=1{revision})
    model = PeftModel.from_pretrained(base, "this folder").eval()

The logit of `prompt + "\\n\\n" + response` (at most {max_tokens} tokens) is its reward; only differences of
two rewards for one prompt mean anything. `reference.json` has pairs and their logits, to check a copy.
"""


def export_adapter(
    folder: Path, checkpoint: Checkpoint, lora: Lora, weights: Weights, pairs: Pairs = REFERENCE_PAIRS
) -> None:
    """Write an adapter.

    Args:
        folder: where; made if absent.
        checkpoint: the frozen model.
        lora: where the low-rank weights sit.
        weights: what to write.
        pairs: the first 8 give the reference logits.

    Raises:
        ConfigurationError: the weights do not fit, or the name of the folder contains "lora", which
            PEFT would take for a part of a key.
    """
    check_name(folder)
    model, tokenizer = lora_model(checkpoint.exact, lora), load_tokenizer(checkpoint)
    model.load(weights)
    some = pairs.take(range(min(NUM_REFERENCE_PAIRS, len(pairs))))
    texts = [
        [join(prompt, response) for response in sides]
        for prompt, *sides in zip(some.prompts, some.chosen, some.rejected, strict=True)
    ]
    reference = {
        "texts": texts,
        "logits": [reference_logits(model.peft, tokenizer, row, checkpoint.max_tokens) for row in texts],
    }
    save_adapter(
        folder, checkpoint, model, weights, reference, {"template": "{prompt}\n\n{response}"}, _README
    )


def load_adapter(folder: Path, checkpoint: Checkpoint, lora: Lora) -> LoraModel:
    """The model of this process with an exported adapter loaded.

    Raises:
        ConfigurationError: the file is absent, or keys, those of the head above all, are missing.
    """
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ConfigurationError(f"adapter {folder}: adapter_model.safetensors is absent")
    model = lora_model(checkpoint, lora)
    found = load_file(path)
    _require_keys(folder, model.trainable, found)
    model.load({key: found[key].numpy() for key in model.trainable})
    return model


def merge_adapter(folder: Path, to: Path) -> None:
    """Write the model with an exported adapter added to its weights, as ``AutoModelFor…`` reads it.

    Reward models and selectors alike; the tokenizer, ``fedpref.json`` and ``reference.json`` come along.

    Args:
        folder: of an adapter that ``export_adapter`` or ``export_selector`` wrote.
        to: another folder; made if absent.

    Raises:
        ConfigurationError: it is no such adapter, lacks weights, or its base model cannot be loaded.
    """
    from peft import PeftModel
    from safetensors import safe_open

    if to.resolve() == folder.resolve():
        raise ConfigurationError(f"adapter {folder}: the merged model needs a folder of its own")
    names = ("adapter_config.json", "adapter_model.safetensors", "fedpref.json", "reference.json")
    for name in names:
        if not (folder / name).is_file():
            raise ConfigurationError(f"adapter {folder}: {name} is absent")
    config, facts = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (names[0], names[2]))
    with safe_open(folder / names[1], framework="pt") as file:
        _require_keys(folder, facts["keys"], file.keys())
    checkpoint = _checkpoint_of(facts)
    is_reward = config["task_type"] == "SEQ_CLS"
    base = load_model(checkpoint, reward=True) if is_reward else load_causal_lm(checkpoint)
    base.config.use_cache = True  # off while training only
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    with quiet():
        merged.save_pretrained(to)
    load_tokenizer(checkpoint).save_pretrained(to)
    for name in names[2:]:
        shutil.copyfile(folder / name, to / name)


def _require_keys(folder: Path, wanted: Iterable[str], found: Iterable[str]) -> None:
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise ConfigurationError(
            f"adapter {folder}: {', '.join(missing[:3])} is missing; a reward model without its head is "
            "noise, export it again with the head in modules_to_save"
        )


def _checkpoint_of(facts: Mapping[str, Any]) -> Checkpoint:
    """The frozen model of an adapter; MiniLM's may be on this machine under another name."""
    if (facts["base_model"], facts["revision"]) == (minilm.MODEL, minilm.REVISION):
        return minilm.MiniLM(max_tokens=facts["max_tokens"]).checkpoint
    return Checkpoint(facts["base_model"], facts["revision"], facts["max_tokens"])


def check_name(folder: Path) -> None:
    """Check the name of an adapter's folder.

    Raises:
        ConfigurationError: it contains "lora", which PEFT would take for a part of a key.
    """
    if "lora" in folder.name:
        raise ConfigurationError(
            f"adapter '{folder.name}': the name may not contain 'lora' (PEFT issue 2699)"
        )


def save_adapter(
    folder: Path,
    checkpoint: Checkpoint,
    model: LoraModel,
    weights: Weights,
    reference: Mapping[str, Any],
    facts: Mapping[str, Any],
    readme: str,
) -> None:
    """Write the files of an adapter.

    Args:
        folder: where; made if absent.
        checkpoint: the frozen model.
        model: gets the weights.
        weights: what to write.
        reference: texts and logits of ``reference.json``.
        facts: what ``fedpref.json`` says of this kind of model.
        readme: with slots {model}, {revision} and {max_tokens}.
    """
    model.load(weights)
    # Looking for changed embeddings would ask the hub; LoRA leaves them as they are.
    model.peft.save_pretrained(folder, save_embedding_layers=False)
    tokenizer = load_tokenizer(checkpoint)
    tokenizer.save_pretrained(folder)
    common = {
        "base_model": checkpoint.model,
        "revision": checkpoint.revision,
        "max_tokens": checkpoint.max_tokens,
        "pad_token_id": tokenizer.pad_token_id,
        "keys": sorted(weights),
    }
    _write_json(folder / "reference.json", {**reference, "max_tokens": checkpoint.max_tokens, "threads": 1})
    _write_json(folder / "fedpref.json", {**common, **facts})
    revision = f", revision={checkpoint.revision!r}" if checkpoint.revision else ""
    text = readme.format(model=checkpoint.model, revision=revision, max_tokens=checkpoint.max_tokens)
    (folder / "README.md").write_text(text, encoding="utf-8")


def reference_logits(model: Any, tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[float]:
    """Reward of each text, alone and on one thread, so that another process can repeat every bit."""
    return [float(logits[0]) for logits in logits_alone(model, tokenizer, texts, max_tokens)]


def logits_alone(model: Any, tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[torch.Tensor]:
    """The logits of each text, the first axis taken off: every text alone, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            batches = [
                tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt") for text in texts
            ]
            return [model(**batch.to(model.device)).logits[0] for batch in batches]
    finally:
        torch.set_num_threads(threads)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
