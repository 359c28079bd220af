"""``fedpref export``: what a run has learned, for other tools."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedpref.models.tiny import tiny_encoder

Run = Callable[..., tuple[int, str, str]]
TINY = ("data.preset=tiny", "data.form=attributes", "client.local_steps=3", "name=t", "rounds=2")


def only_run(folder: Path) -> Path:
    (path,) = (folder / "runs" / "t").iterdir()
    return path


@pytest.mark.parametrize("form", ["attributes", "text"])
def test_every_model_gets_a_folder_with_the_weights_of_the_run(fedpref: Run, folder: Path, form: str) -> None:
    words = ("data.num_clients=3", "strategy=local_only", f"data.form={form}")
    assert fedpref("run", *TINY, *words)[0] == 0
    code, out, err = fedpref("export", str(only_run(folder)), "--to", "models")
    assert (code, err) == (0, "")
    names = [*(f"client_{i}" for i in range(3)), "initial"]
    assert out.splitlines() == ["written", *(f"  models/{name}" for name in names)]
    for name in names:
        written = load_file(folder / "models" / name / "head.safetensors")
        kept = load_file(only_run(folder) / "adapters" / name / "head.safetensors")
        np.testing.assert_array_equal(written["score.weight"], kept["score.weight"])


def test_a_folder_that_holds_something_is_left_alone(fedpref: Run, folder: Path) -> None:
    fedpref("run", *TINY)
    (folder / "models").mkdir()
    assert fedpref("export", "runs/latest", "--to", "models")[0] == 0  # an empty one will do
    code, _, err = fedpref("export", "runs/latest", "--to", "models")
    assert code == 2 and "not an empty folder" in err and len(err.splitlines()) == 1
    (folder / "file").write_text("mine")
    assert fedpref("export", "runs/latest", "--to", "file")[0] == 2
    assert (folder / "file").read_text() == "mine"


def test_a_rule_without_a_form_for_others_is_named(
    fedpref: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fedpref("run", *TINY)
    monkeypatch.setattr("fedpref.federation.export.export_models", lambda rule, models, root: [])
    code, _, err = fedpref("export", "runs/latest", "--to", "models")
    assert code == 2 and "LinearReward has no form that other tools read" in err
    assert not (folder / "models").exists()


def test_a_run_without_checkpoint_or_no_run_at_all_is_refused(fedpref: Run, folder: Path) -> None:
    assert fedpref("export", "nowhere", "--to", "models")[0] == 4
    fedpref("run", *TINY)
    for checkpoint in (only_run(folder) / "checkpoints").iterdir():
        (checkpoint / "state.json").write_text("{}")
    assert fedpref("export", "runs/latest", "--to", "models")[0] == 3
    assert not (folder / "models").exists()


LOAD = """
import json, sys, torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
torch.set_num_threads(1)
adapter, merged = sys.argv[1:]
reference = json.load(open(adapter + "/reference.json"))
tokenizer = AutoTokenizer.from_pretrained(merged)
model = AutoModelForSequenceClassification.from_pretrained(merged).eval()
for texts, logits in zip(reference["texts"], reference["logits"]):
    for text, expected in zip(texts, logits):
        batch = tokenizer(text, truncation=True, max_length=reference["max_tokens"], return_tensors="pt")
        with torch.no_grad():
            assert abs(float(model(**batch).logits[0, 0]) - expected) < 1e-5
print("equal")
"""


@pytest.mark.slow
def test_a_merged_model_loads_without_peft_and_says_the_same(
    fedpref: Run, folder: Path, people: Path
) -> None:
    base = tiny_encoder(folder / "base")
    words = ["data=jsonl", "data.path=people.jsonl", "client=lora_reward", "backbone=hf", "name=t"]
    words += ["rounds=1", f"backbone.model={base}", "client.rank=2", "client.local_steps=2"]
    assert fedpref("run", *words)[0] == 0
    code, out, err = fedpref("export", "runs/latest", "--to", "models", "--merge")
    assert code == 0, err
    assert out.splitlines() == ["written", "  models/global", "  models/merged/global"]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, "models/global", "models/merged/global"],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.stdout.strip() == "equal", done.stderr


def test_heads_on_frozen_features_cannot_be_merged(fedpref: Run, folder: Path) -> None:
    fedpref("run", *TINY)
    code, _, err = fedpref("export", "runs/latest", "--to", "models", "--merge")
    assert code == 2 and "leave --merge out" in err and len(err.splitlines()) == 1
    assert (folder / "models" / "global" / "head.safetensors").is_file()


def test_every_adapter_is_merged(fedpref: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def merge(adapter: Path, to: Path) -> None:
        to.mkdir(parents=True)
        (to / "from.json").write_text(json.dumps(str(adapter)))

    def export(self: object, weights: object, adapter: Path) -> None:
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text("{}")

    monkeypatch.setattr("fedpref.models.export.merge_adapter", merge)
    monkeypatch.setattr("fedpref.clients.linear_reward.LinearReward.export", export)
    fedpref("run", *TINY, "data.num_clients=2", "strategy=local_only")
    assert fedpref("export", "runs/latest", "--to", "models", "--merge")[0] == 0
    merged = sorted((folder / "models" / "merged").iterdir())
    assert [json.loads((path / "from.json").read_text()) for path in merged] == [
        "models/client_0",
        "models/client_1",
        "models/initial",
    ]
