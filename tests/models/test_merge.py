"""Selectors and reward models elsewhere: adapters through PEFT alone, and merged into whole models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.models.choice_head import ChoiceHead
from fedpref.models.export import REFERENCE_PAIRS, export_adapter, merge_adapter, reference_logits
from fedpref.models.lora import Lora, lora_model
from fedpref.models.tiny import tiny_causal_lm, tiny_encoder
from fedpref.models.transformer import Checkpoint, load_tokenizer
from fedpref.seeds import generator
from fedpref.types import Weights

TEMPLATE = "{prompt} a: {response_a} b: {response_b} better:"
LORA = Lora(last_layers=2)

# What a user without fedpref does.
ADAPTER_ELSEWHERE = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

folder, base = sys.argv[1:]
torch.set_num_threads(1)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()
tokenizer, facts = AutoTokenizer.from_pretrained(folder), json.load(open(f"{folder}/fedpref.json"))
reference = json.load(open(f"{folder}/reference.json"))
def logits(text):
    last = model(**tokenizer(text, return_tensors="pt")).logits[0, -1]
    return [float(last[i]) for i in facts["choice_ids"]]
with torch.no_grad():
    found = [[logits(text) for text in both] for both in reference["texts"]]
assert not any(name.startswith("fedpref") for name in sys.modules)
print(json.dumps(found))
"""

MERGED_ELSEWHERE = """
import json, sys, torch
import transformers

folder, kind = sys.argv[1:]
model = getattr(transformers, kind).from_pretrained(folder).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
facts, reference = (json.load(open(f"{folder}/{name}.json")) for name in ("fedpref", "reference"))
def logits(text):
    batch = tokenizer(text, truncation=True, max_length=facts["max_tokens"], return_tensors="pt")
    found = model(**batch).logits[0]
    return [float(found[-1, i]) for i in facts["choice_ids"]] if "choice_ids" in facts else float(found[0])
with torch.no_grad():
    print(json.dumps([[logits(text) for text in both] for both in reference["texts"]]))
assert not {"peft", "fedpref"} & {name.split(".")[0] for name in sys.modules}
"""


def drawn(fresh: Weights) -> Weights:
    return {
        key: (0.3 * generator(1, key).standard_normal(array.shape)).astype(np.float32)
        for key, array in fresh.items()
    }


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(str(tiny_causal_lm(tmp_path_factory.mktemp("causal"))), max_tokens=60)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(str(tiny_encoder(tmp_path_factory.mktemp("encoder"))), max_tokens=60)


@pytest.fixture(scope="module")
def head(causal: Checkpoint) -> ChoiceHead:
    return ChoiceHead(causal, LORA, TEMPLATE, (" A", " B"), lr=1e-3, use_cache=False)


@pytest.fixture(scope="module")
def selector(head: ChoiceHead, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "selector_0"
    head.export(drawn(head.fresh(generator(0, "fresh"))), folder)
    return folder


@pytest.fixture(scope="module", params=["encoder", "causal"])
def reward(
    request: pytest.FixtureRequest,
    encoder: Checkpoint,
    causal: Checkpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    checkpoint = encoder if request.param == "encoder" else causal
    folder = tmp_path_factory.mktemp("exported") / "global"
    weights = drawn(lora_model(checkpoint, LORA).fresh(generator(0, "fresh"), head_std=0.02))
    export_adapter(folder, checkpoint, LORA, weights)
    return folder


def elsewhere(code: str, *words: object) -> np.ndarray:
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(sys.executable).anchor)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout))


def reference(folder: Path) -> np.ndarray:
    return np.array(json.loads((folder / "reference.json").read_text())["logits"])


@pytest.mark.slow
def test_a_process_with_peft_alone_gives_both_choices_logits_bit_for_bit(
    selector: Path, causal: Checkpoint
) -> None:
    expected = reference(selector)
    assert expected.shape == (len(REFERENCE_PAIRS), 2, 2)
    np.testing.assert_array_equal(elsewhere(ADAPTER_ELSEWHERE, selector, causal.model), expected)
    assert len(np.unique(expected)) == expected.size


def test_reference_logits_are_those_that_the_server_judges_by(selector: Path, head: ChoiceHead) -> None:
    weights = drawn(head.fresh(generator(0, "fresh")))
    both = head.both_orders(weights, REFERENCE_PAIRS, np.arange(len(REFERENCE_PAIRS)))
    logits = reference(selector)
    np.testing.assert_allclose(logits[..., 0] - logits[..., 1], both, atol=1e-5)


def test_the_folder_of_a_selector_holds_what_others_need(selector: Path, causal: Checkpoint) -> None:
    config, facts, kept = (
        json.loads((selector / name).read_text())
        for name in ("adapter_config.json", "fedpref.json", "reference.json")
    )
    assert config["task_type"] == "CAUSAL_LM" and config["base_model_name_or_path"] == causal.model
    assert "revision" in config and not config["modules_to_save"]
    assert (facts["template"], facts["choices"]) == (TEMPLATE, [" A", " B"])
    tokenizer = load_tokenizer(causal)
    assert tokenizer.convert_ids_to_tokens(facts["choice_ids"]) == ["a", "b"]
    for both in kept["texts"]:
        for text in both:
            assert text.endswith(" better:") and len(tokenizer(text)["input_ids"]) <= 60
    readme = (selector / "README.md").read_text()
    assert f"from_pretrained({causal.model!r}, dtype" in readme and "at most 60 tokens" in readme


def test_a_merged_selector_holds_the_logits_of_its_adapter(selector: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merge_adapter(selector, tmp_path / "merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    facts, kept = (
        json.loads((tmp_path / "merged" / f"{name}.json").read_text()) for name in ("fedpref", "reference")
    )
    found = [
        [
            model(**tokenizer(text, return_tensors="pt")).logits[0, -1, facts["choice_ids"]].detach().numpy()
            for text in both
        ]
        for both in kept["texts"]
    ]
    np.testing.assert_allclose(found, reference(selector), atol=1e-5)
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert "model.safetensors" in names and not any(name.startswith("adapter") for name in names)


def test_a_merged_reward_model_holds_the_rewards_of_its_adapter(reward: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    merge_adapter(reward, tmp_path / "merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    kept = json.loads((reward / "reference.json").read_text())
    found = [reference_logits(model, tokenizer, both, 60) for both in kept["texts"]]
    np.testing.assert_allclose(found, reference(reward), atol=1e-5)
    assert model.config.pad_token_id is not None and model.config.num_labels == 1


@pytest.mark.slow
def test_merged_models_load_with_transformers_alone(selector: Path, reward: Path, tmp_path: Path) -> None:
    for folder, kind in ((selector, "AutoModelForCausalLM"), (reward, "AutoModelForSequenceClassification")):
        merge_adapter(folder, tmp_path / kind)
        found = elsewhere(MERGED_ELSEWHERE, tmp_path / kind, kind)
        np.testing.assert_allclose(found, reference(folder), atol=1e-5)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "fedpref.json"])
def test_a_folder_that_is_no_adapter_is_refused(tmp_path: Path, name: str) -> None:
    for other in {"adapter_config.json", "adapter_model.safetensors", "fedpref.json"} - {name}:
        (tmp_path / other).write_text("{}")
    with pytest.raises(ConfigurationError, match=f"{name} is absent"):
        merge_adapter(tmp_path, tmp_path / "merged")


def test_an_adapter_without_some_weights_is_not_merged(selector: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "damaged"
    shutil.copytree(selector, folder)
    arrays = load_file(folder / "adapter_model.safetensors")
    lost = sorted(arrays)[0]
    save_file(
        {key: array for key, array in arrays.items() if key != lost}, folder / "adapter_model.safetensors"
    )
    with pytest.raises(ConfigurationError, match="is missing"):
        merge_adapter(folder, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_merged_model_does_not_overwrite_its_adapter(selector: Path) -> None:
    with pytest.raises(ConfigurationError, match="a folder of its own"):
        merge_adapter(selector, selector)


def test_a_selector_with_lora_in_its_name_is_refused(head: ChoiceHead, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="2699"):
        head.export(head.fresh(generator(0, "fresh")), tmp_path / "my-lora")
