from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedpref.errors import ConfigurationError
from fedpref.models import Backbone, Given, Hashing, HuggingFace
from fedpref.models.text import NUM_LENGTH_FEATURES
from fedpref.models.tiny import tiny_causal_lm, tiny_encoder

TEXTS = ["the good", "a plain and long text that is not short, not fancy", "x", ""]
PROMPTS = ["is it?", "", "is it?", "why"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDPREF_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_causal_lm(tmp_path_factory.mktemp("causal")))


@pytest.fixture(params=["hashing", "encoder", "causal"])
def backbone(request: pytest.FixtureRequest) -> Backbone:
    if request.param == "hashing":
        return Hashing(dense_dim=64)
    pooling = "mean" if request.param == "encoder" else "last"
    return HuggingFace(request.getfixturevalue(request.param), pooling=pooling)


def test_features_are_finite_float32_of_the_declared_shape(backbone: Backbone) -> None:
    features = backbone.features(PROMPTS, TEXTS)
    assert features.shape == (4, backbone.dim) and features.dtype == np.float32
    assert np.isfinite(features).all()
    assert backbone.features([], []).shape == (0, backbone.dim)


def test_features_of_a_text_do_not_depend_on_its_neighbours(backbone: Backbone) -> None:
    together = backbone.features(PROMPTS, TEXTS)
    for row, (prompt, text) in enumerate(zip(PROMPTS, TEXTS, strict=True)):
        np.testing.assert_array_equal(backbone.features([prompt], [text])[0], together[row])


def test_features_have_norm_eight_but_for_the_length(backbone: Backbone) -> None:
    features = backbone.features(PROMPTS[:3], TEXTS[:3])[:, :-NUM_LENGTH_FEATURES]
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 8.0, rtol=1e-5)


def test_a_pickled_backbone_is_small_and_the_same(backbone: Backbone) -> None:
    expected = backbone.features(PROMPTS, TEXTS)
    packed = pickle.dumps(backbone)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed).features(PROMPTS, TEXTS), expected)


def test_text_backbones_refuse_vectors(backbone: Backbone) -> None:
    with pytest.raises(ConfigurationError, match="reads text"):
        backbone.features(["", ""], np.zeros((2, 3)))


def test_another_process_hashes_the_same_features() -> None:
    code = (
        "from fedpref.models import Hashing\n"
        "print(Hashing(dense_dim=16).features([''], ['the good and the bad']).tobytes().hex())"
    )
    env = {"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2])}
    other = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    ours = Hashing(dense_dim=16).features([""], ["the good and the bad"])
    assert other.stdout.strip() == ours.tobytes().hex()


def test_hashing_sees_the_order_of_words_only_through_bigrams() -> None:
    texts = ["good not bad", "bad not good"]
    unigrams = Hashing(dense_dim=16, ngrams=(1,)).features(["", ""], texts)
    np.testing.assert_array_equal(unigrams[0], unigrams[1])
    bigrams = Hashing(dense_dim=16).features(["", ""], texts)
    assert not np.allclose(bigrams[0], bigrams[1])


def test_every_option_that_changes_features_changes_the_fingerprint(encoder: str, causal: str) -> None:
    backbones: list[Backbone] = [
        Hashing(),
        Hashing(dense_dim=8),
        Hashing(ngrams=(1,)),
        Hashing(buckets=64),
        Hashing(seed=1),
        HuggingFace(encoder),
        HuggingFace(causal),
        HuggingFace(encoder, pooling="cls"),
        HuggingFace(encoder, layers=(1,)),
        HuggingFace(encoder, length=False),
        HuggingFace(encoder, max_tokens=8),
        Given(3),
    ]
    assert len({backbone.fingerprint for backbone in backbones}) == len(backbones)


def test_poolings_take_the_mean_the_last_and_the_first_token(encoder: str) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(encoder)(f"{PROMPTS[0]}\n\n{TEXTS[0]}", return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(encoder).eval()(**ids).last_hidden_state[0].numpy()
    for pooling, expected in (("mean", states.mean(axis=0)), ("last", states[-1]), ("cls", states[0])):
        found = HuggingFace(encoder, pooling=pooling, length=False).features(PROMPTS[:1], TEXTS[:1])[0]
        np.testing.assert_allclose(found, 8 * expected / np.linalg.norm(expected), atol=1e-4)


def test_the_prompt_is_part_of_what_a_transformer_reads(encoder: str) -> None:
    with_prompt, without = HuggingFace(encoder, length=False).features(["why", ""], ["good", "good"])
    assert not np.allclose(with_prompt, without)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"model": "some/model"}, "revision"),
        ({"pooling": "max"}, "pooling"),
        ({"layers": ()}, "layers"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_bad_transformer_options_are_refused_with_their_key(
    encoder: str, options: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigurationError, match=rf"backbone\..*{key}"):
        HuggingFace(**{"model": encoder, **options})  # type: ignore[arg-type]


def test_a_layer_that_the_model_lacks_is_refused(encoder: str) -> None:
    with pytest.raises(ConfigurationError, match=r"backbone\.layers"):
        HuggingFace(encoder, layers=(9,)).features([""], ["good"])


@pytest.mark.parametrize("options", [{"dense_dim": 0}, {"buckets": 0}, {"ngrams": ()}, {"ngrams": (0,)}])
def test_bad_hashing_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=rf"backbone\.{next(iter(options))}"):
        Hashing(**options)  # type: ignore[arg-type]


def test_given_passes_vectors_through_and_refuses_everything_else() -> None:
    vectors = np.arange(6.0).reshape(2, 3)
    features = Given(3).features(["", ""], vectors)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, vectors)
    with pytest.raises(ConfigurationError, match="text"):
        Given(3).features([""], ["good"])
    with pytest.raises(ConfigurationError, match=r"backbone\.dim: 4"):
        Given(4).features(["", ""], vectors)


def test_a_causal_tokenizer_without_padding_pads_with_the_end_of_text(causal: str) -> None:
    from fedpref.models.transformer import load_model, load_tokenizer

    checkpoint = HuggingFace(causal).checkpoint
    tokenizer = load_tokenizer(checkpoint)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert load_model(checkpoint).config.pad_token_id == tokenizer.eos_token_id


def test_loading_leaves_the_global_generators_alone(encoder: str) -> None:
    import torch

    from fedpref.models.transformer import load_model

    before = torch.random.get_rng_state()
    load_model(HuggingFace(encoder).checkpoint, reward=True)
    assert torch.equal(torch.random.get_rng_state(), before)
