"""A LoRA federation from the command line, on a tiny encoder made here, and its adapter elsewhere."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedpref.models.tiny import tiny_encoder

Run = Callable[..., tuple[int, str, str]]

LOAD = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer
torch.set_num_threads(1)
base, folder = sys.argv[1:]
reference = json.load(open(folder + "/reference.json"))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
model = PeftModel.from_pretrained(model, folder).eval()
def logit(text):
    batch = tokenizer(text, truncation=True, max_length=reference["max_tokens"], return_tensors="pt")
    with torch.no_grad():
        return float(model(**batch).logits[0, 0])
assert len(reference["texts"]) == 8
for texts, logits in zip(reference["texts"], reference["logits"]):
    assert [logit(text) for text in texts] == logits
assert not any(name.startswith("fedpref") for name in sys.modules)
print("equal to the bit")
"""


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["weighted_mean", "svd", "freeze_a"])
def test_a_lora_federation_leaves_an_adapter_that_loads_without_fedpref(
    fedpref: Run, folder: Path, people: Path, combine: str
) -> None:
    base = tiny_encoder(folder / "base")
    words = [
        "data=jsonl",
        "data.path=people.jsonl",
        "client=lora_reward",
        "backbone=hf",
        "name=t",
        "rounds=2",
    ]
    words += [f"backbone.model={base}", "client.rank=2", "client.local_steps=3", f"combine={combine}"]
    if combine == "freeze_a":
        code, _, err = fedpref("run", *words, "name=refused")
        assert code == 2 and "client.freeze_a=true" in err
        assert not (folder / "runs").exists()
        words.append("client.freeze_a=true")
    code, out, err = fedpref("run", *words)
    assert (code, err) == (0, "")
    (path,) = (folder / "runs" / "t").iterdir()
    assert f"adapters: {path.relative_to(folder)}/adapters" in out
    fold = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])["fold"]
    assert fold.keys() == {"svd_energy_lost"} if combine == "svd" else {"lora_interference"}
    if combine == "freeze_a":
        assert fold["lora_interference"] < 1e-6
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(base), str(path / "adapters" / "global")],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.stdout.strip() == "equal to the bit", done.stderr
    assert b"river" not in (path / "adapters" / "global" / "reference.json").read_bytes().replace(
        b"Name a river", b""
    )
