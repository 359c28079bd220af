from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fedpref.errors import ConfigurationError
from fedpref.models.choice import GENERIC, both_texts, check_choices, check_template, choice_tokens, fill
from fedpref.models.tiny import tiny_causal_lm
from fedpref.models.transformer import Checkpoint, is_causal_lm, load_tokenizer

SHORT = "{prompt} a: {response_a} b: {response_b} better:"


def saved(folder: Path, core: Tokenizer, **names: str) -> Checkpoint:
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", eos_token="<eos>", **names).save_pretrained(
        folder
    )
    (folder / "config.json").write_text("{}")
    return Checkpoint(str(folder))


def byte_level(folder: Path) -> Checkpoint:
    """As GPT-2 and Qwen: a word with a leading space is another token than the word alone."""
    alphabet = ["?", "<eos>", *pre_tokenizers.ByteLevel.alphabet(), "ĠA", "ĠB", "Ġy", "Ġye"]
    merges = [("Ġ", "A"), ("Ġ", "B"), ("Ġ", "y"), ("Ġy", "e")]
    core = Tokenizer(models.BPE({piece: n for n, piece in enumerate(alphabet)}, merges, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return saved(folder, core)


@pytest.fixture
def gpt(tmp_path: Path) -> Checkpoint:
    return byte_level(tmp_path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(str(tiny_causal_lm(tmp_path_factory.mktemp("tiny"))))


def test_a_choice_is_the_text_that_follows_the_cue_its_space_included(gpt: Checkpoint) -> None:
    tokenizer = load_tokenizer(gpt)
    spaced, bare = choice_tokens(gpt, SHORT, (" A", " B")), choice_tokens(gpt, SHORT, ("A", "B"))
    assert tokenizer.convert_ids_to_tokens(spaced) == ["ĠA", "ĠB"]
    assert tokenizer.convert_ids_to_tokens(bare) == ["A", "B"]
    asked = fill(SHORT, "x", "y", "z")
    for choice, token in zip((" A", " B"), spaced, strict=True):
        assert tokenizer(asked + choice)["input_ids"] == [*tokenizer(asked)["input_ids"], token]


def test_a_tokenizer_that_begins_every_text_with_a_token_is_no_obstacle(tmp_path: Path) -> None:
    checkpoint = byte_level(tmp_path)
    core = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    core.post_processor = processors.TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", 1)])
    other = saved(tmp_path / "begins", core)
    assert choice_tokens(other, SHORT, (" A", " B")) == choice_tokens(checkpoint, SHORT, (" A", " B"))


def test_a_tokenizer_that_ends_every_text_with_a_token_is_refused(tmp_path: Path) -> None:
    byte_level(tmp_path)
    core = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    core.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    with pytest.raises(ConfigurationError, match="ends every text with '<eos>'"):
        choice_tokens(saved(tmp_path / "ends", core), SHORT, (" A", " B"))


def test_a_choice_of_several_tokens_is_refused_with_its_tokens(gpt: Checkpoint) -> None:
    with pytest.raises(ConfigurationError, match=r"client\.choices: ' yes' must be one .*\['Ġye', 's'\]"):
        choice_tokens(gpt, SHORT, (" yes", " A"))


def test_a_choice_that_melts_into_the_cue_is_refused(gpt: Checkpoint) -> None:
    # "better: " ends with a token for the space, which the choice would swallow.
    with pytest.raises(ConfigurationError, match=r"client\.choices: 'A' .*\['ĠA'\]"):
        choice_tokens(gpt, SHORT + " ", ("A", "B"))


def test_choices_of_one_token_are_refused(tiny: Checkpoint) -> None:
    with pytest.raises(ConfigurationError, match=r"client\.choices: ' A' and ' a' coincide"):
        choice_tokens(tiny, SHORT, (" A", " a"))  # this tokenizer knows no capitals


def test_a_choice_that_the_tokenizer_does_not_know_is_refused(tiny: Checkpoint) -> None:
    with pytest.raises(ConfigurationError, match=r"client\.choices: ' ☃' must be one known token"):
        choice_tokens(tiny, SHORT, (" A", " ☃"))


@pytest.mark.parametrize("choices", [("A",), ("A", "B", "C"), ("A", "A"), ("A", " "), ()])
def test_choices_that_are_not_two_different_words_are_refused(choices: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match=r"client\.choices"):
        check_choices(choices)


@pytest.mark.parametrize("slot", ["prompt", "response_a", "response_b"])
def test_a_template_without_a_slot_is_refused_with_its_name(slot: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"client\.template: the slot {{{slot}}} is missing"):
        check_template(SHORT.replace(f"{{{slot}}}", "nothing"))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (SHORT + " {promt}:", r"{promt} is no slot.*Did you mean 'prompt'"),
        (SHORT + " {}:", "{} is no slot"),
        (SHORT + " {prompt.__class__}:", "is no slot"),
        (SHORT.replace("{prompt}", "{prompt!r}"), "the slot {prompt} is missing"),
        (SHORT.replace("{prompt}", "{prompt:>9}"), "the slot {prompt} is missing"),
        (SHORT + " {", "client.template: .*written twice"),
        (SHORT + "{response_b}", "end it with a cue"),
    ],
)
def test_a_template_with_other_slots_or_no_cue_is_refused(template: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        check_template(template)


def test_braces_in_texts_and_double_braces_in_templates_are_text() -> None:
    template = '{{"task": "{prompt}"}} ' + SHORT
    check_template(template)
    assert fill(template, "{x}", "{response_b}", "}").startswith('{"task": "{x}"} {x} a: {response_b} b: }')


def test_the_default_template_and_the_generic_one_of_the_configuration_are_one() -> None:
    from fedpref.cli.compose import compose, plain

    group = plain(compose(["client=selector", "template=generic"]))["client"]
    assert group["template"] == GENERIC
    check_template(GENERIC)


def test_a_text_that_fits_is_left_alone(tiny: Checkpoint) -> None:
    assert both_texts(tiny, SHORT, "is it", "good", "bad") == (
        "is it a: good b: bad better:",
        "is it a: bad b: good better:",
    )


@pytest.mark.parametrize("parts", [("why ", "good ", "bad "), ("why not ", "", "x"), ("", "good ", "z")])
def test_a_long_text_is_cut_to_fit_and_keeps_its_cue(tiny: Checkpoint, parts: tuple[str, str, str]) -> None:
    checkpoint = Checkpoint(tiny.model, max_tokens=16)
    tokenizer = load_tokenizer(checkpoint)
    prompt, first, second = (part * 40 for part in parts)
    texts = both_texts(checkpoint, SHORT, prompt, first, second)
    for text in texts:
        assert len(tokenizer(text)["input_ids"]) <= 16
        assert text.endswith(" better:")


def test_the_longest_part_is_cut_first_and_both_orders_alike(tiny: Checkpoint) -> None:
    checkpoint = Checkpoint(tiny.model, max_tokens=30)
    one, other = both_texts(checkpoint, SHORT, "why " * 100, "good", "bad")
    assert one.endswith(" a: good b: bad better:") and other.endswith(" a: bad b: good better:")
    prompt = one.removesuffix(" a: good b: bad better:")
    assert ("why " * 100).startswith(prompt) and len(prompt) > 20
    assert other.removesuffix(" a: bad b: good better:") == prompt


def test_no_more_is_cut_than_must_be(tiny: Checkpoint) -> None:
    checkpoint = Checkpoint(tiny.model, max_tokens=30)
    tokenizer = load_tokenizer(checkpoint)
    one, _ = both_texts(checkpoint, SHORT, "x " * 100, "y", "z")
    assert len(tokenizer(one)["input_ids"]) == 30


def test_too_few_tokens_for_the_template_itself_are_refused(tiny: Checkpoint) -> None:
    with pytest.raises(ConfigurationError, match=r"backbone\.max_tokens: 3 is too few"):
        both_texts(Checkpoint(tiny.model, max_tokens=3), SHORT, "x", "y", "z")
    with pytest.raises(ConfigurationError, match=r"backbone\.max_tokens: 3 is too few"):  # before any text
        choice_tokens(Checkpoint(tiny.model, max_tokens=3), SHORT, (" a", " b"))


def test_a_causal_language_model_is_known_by_its_configuration(tmp_path: Path, tiny: Checkpoint) -> None:
    from fedpref.models.tiny import tiny_encoder

    assert is_causal_lm(tiny)
    assert not is_causal_lm(Checkpoint(str(tiny_encoder(tmp_path / "encoder"))))
    (tmp_path / "bare").mkdir()
    config = {"model_type": "llama", "architectures": ["LlamaModel"]}  # no head that predicts tokens
    (tmp_path / "bare" / "config.json").write_text(json.dumps(config))
    assert not is_causal_lm(Checkpoint(str(tmp_path / "bare")))
