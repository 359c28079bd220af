from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.models.export import export_adapter, load_adapter
from fedpref.models.lora import Lora, lora_model
from fedpref.models.tiny import tiny_causal_lm, tiny_encoder
from fedpref.models.transformer import Checkpoint
from fedpref.seeds import generator
from fedpref.types import Pairs, Weights

PAIRS = Pairs(
    prompts=("is it good?",) * 9,
    chosen=tuple("the good and short " * n for n in range(1, 10)),
    rejected=tuple("bad, not fancy " * n for n in range(9, 0, -1)),
    pair_ids=tuple("abcdefghi"),
    topics=("",) * 9,
)

# What a user without fedpref does.
ELSEWHERE = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder, base = sys.argv[1:]
torch.set_num_threads(1)
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
model = PeftModel.from_pretrained(model, folder).eval()
tokenizer, reference = AutoTokenizer.from_pretrained(folder), json.load(open(f"{folder}/reference.json"))
with torch.no_grad():
    logits = [
        [float(model(**tokenizer(text, return_tensors="pt")).logits[0, 0]) for text in row]
        for row in reference["texts"]
    ]
assert not any(name.startswith("fedpref") for name in sys.modules)
print(json.dumps(logits))
"""


@pytest.fixture(scope="module", params=["encoder", "causal"])
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    build = tiny_encoder if request.param == "encoder" else tiny_causal_lm
    return Checkpoint(str(build(tmp_path_factory.mktemp(request.param))))


@pytest.fixture(scope="module")
def weights(checkpoint: Checkpoint) -> Weights:
    fresh = lora_model(checkpoint, Lora(last_layers=2)).fresh(generator(0, "fresh"), head_std=0.02)
    return {
        key: (0.3 * generator(1, key).standard_normal(array.shape)).astype(np.float32)
        for key, array in fresh.items()
    }


@pytest.fixture
def exported(checkpoint: Checkpoint, weights: Weights, tmp_path: Path) -> Path:
    folder = tmp_path / "global"
    export_adapter(folder, checkpoint, Lora(last_layers=2), weights, PAIRS)
    return folder


@pytest.mark.slow
def test_a_process_with_peft_alone_gives_the_logits_of_the_server_bit_for_bit(
    exported: Path, checkpoint: Checkpoint
) -> None:
    command = [sys.executable, "-c", ELSEWHERE, str(exported), checkpoint.model]
    found = subprocess.run(command, capture_output=True, text=True, cwd=exported, check=True)
    reference = json.loads((exported / "reference.json").read_text())
    logits = json.loads(found.stdout)
    assert logits == reference["logits"]
    assert np.shape(logits) == (8, 2) and len(set(np.ravel(logits))) == 16


def test_the_folder_holds_what_others_need(exported: Path, checkpoint: Checkpoint, weights: Weights) -> None:
    names = {path.name for path in exported.iterdir()}
    assert {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "fedpref.json",
        "reference.json",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= names
    config = json.loads((exported / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == checkpoint.model
    assert "revision" in config and config["task_type"] == "SEQ_CLS"
    assert json.loads((exported / "fedpref.json").read_text())["keys"] == sorted(weights)


def test_an_exported_adapter_loads_the_weights_that_were_exported(
    exported: Path, checkpoint: Checkpoint, weights: Weights
) -> None:
    model = load_adapter(exported, checkpoint, Lora(last_layers=2))
    for key, array in model.weights().items():
        np.testing.assert_array_equal(array, weights[key])


def test_an_adapter_without_its_head_is_refused(exported: Path, checkpoint: Checkpoint) -> None:
    from safetensors.numpy import load_file, save_file

    path = exported / "adapter_model.safetensors"
    save_file({key: array for key, array in load_file(path).items() if "lora_" in key}, path)
    with pytest.raises(ConfigurationError, match=r"(score|classifier)\.weight is missing"):
        load_adapter(exported, checkpoint, Lora(last_layers=2))


def test_an_absent_adapter_is_refused(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigurationError, match="absent"):
        load_adapter(tmp_path, checkpoint, Lora(last_layers=2))


def test_a_name_with_lora_in_it_is_refused(tmp_path: Path, checkpoint: Checkpoint, weights: Weights) -> None:
    with pytest.raises(ConfigurationError, match="2699"):
        export_adapter(tmp_path / "my-lora", checkpoint, Lora(last_layers=2), weights, PAIRS)
    assert not (tmp_path / "my-lora").exists()
