"""A cut vocabulary spells what the whole one did, and its tokenizer works everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from canao.compiler.checkpoint import packaged_minilm
from canao.compiler.compression.recipe import Recipe
from canao.compiler.compression.saving import save_compressed
from canao.compiler.compression.vocabulary import choose_tokens, cut_vocabulary
from canao.errors import InputError, UnsupportedError

TEXTS = [
    "the gull laughs at the lighthouse keeper",
    "a keeper of bees reads by candle light",
    "light rain, then a long quiet evening",
]
WORDS = sorted({word for text in TEXTS for word in text.replace(",", "").split()})
LETTERS = sorted({letter for word in WORDS for letter in word} | {",", "é"})
SPECIAL = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
_TOKENS = [
    *SPECIAL,
    *(f"[unused{number}]" for number in range(3)),
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS if letter != "é"),
    "caffé",
    *WORDS,
    "##house",
    "##er",
]
VOCABULARY = list(dict.fromkeys(_TOKENS))


def tokenizer() -> Any:
    """WordPiece with MPNet's special tokens; padding has the number 1."""
    vocabulary = {token: number for number, token in enumerate(VOCABULARY)}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="[UNK]",
        mask_token="<mask>",
    )


def model(head: str = "MPNetModel") -> Any:
    config = tf.MPNetConfig(
        vocab_size=len(VOCABULARY) + 3,  # a table is often longer than the vocabulary
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=40,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    return getattr(tf, head)(config).eval()


LEAST = len(SPECIAL) + 2 * len(LETTERS)  # "é" has no inner form, and "caffé" needs one


@given(size=st.integers(LEAST, len(VOCABULARY)), text=st.sampled_from(TEXTS))
def test_nothing_becomes_unknown(size: int, text: str) -> None:
    whole, (cut, made) = tokenizer(), cut_vocabulary(model(), tokenizer(), TEXTS[:2], size)
    assert len(made) == cut.config.vocab_size == size
    assert cut.get_input_embeddings().weight.shape == (size, 16)
    unknown = made.unk_token_id
    for word in [*WORDS, "caffé", "houses", text]:
        assert unknown not in made(word)["input_ids"]
        spelled = made.convert_ids_to_tokens(made(word)["input_ids"])
        whole_ones = whole.convert_ids_to_tokens(whole(word)["input_ids"])
        plain = ["".join(spelled).replace("##", ""), "".join(whole_ones).replace("##", "")]
        assert plain[0] == plain[1]
    assert unknown in made("日")["input_ids"]


@pytest.mark.parametrize("head", ["MPNetModel", "MPNetForMaskedLM"])
def test_kept_tokens_compute_the_same(head: str, tmp_path: Path) -> None:
    whole, before = model(head), tokenizer()
    size = len(VOCABULARY) - 4
    cut, made = cut_vocabulary(whole, before, TEXTS, size)
    assert whole.config.vocab_size == len(VOCABULARY) + 3
    place = save_compressed(cut, made, tmp_path / "model", Recipe())
    read = getattr(tf, head).from_pretrained(place).eval()
    texts = tf.AutoTokenizer.from_pretrained(place)
    plain = Tokenizer.from_file(str(place / "tokenizer.json"))
    for text in TEXTS:
        old = before(text, return_tensors="pt")["input_ids"]
        new = texts(text, return_tensors="pt")["input_ids"]
        assert before.convert_ids_to_tokens(old[0]) == texts.convert_ids_to_tokens(new[0])
        assert plain.encode(text).ids == new[0].tolist()
        with torch.no_grad():
            expected, found = whole(input_ids=old)[0], read(input_ids=new)[0]
        if head != "MPNetModel":
            kept = [VOCABULARY.index(token) for token in texts.convert_ids_to_tokens(range(size))]
            expected = expected[..., kept]
        torch.testing.assert_close(found, expected)
    assert texts.pad_token_id == read.config.pad_token_id == 1


def test_the_commonest_tokens_are_kept() -> None:
    chosen = choose_tokens(tokenizer(), ["gull gull bees"], LEAST + 2)
    kept = {VOCABULARY[number] for number in chosen}
    assert {"gull", "bees"} <= kept
    assert not {"candle", "[unused0]"} & kept


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(InputError, match=rf"embedding\.vocabulary .* {LEAST}"):
        choose_tokens(tokenizer(), TEXTS, LEAST - 1)
    with pytest.raises(InputError, match=r"embedding\.vocabulary"):
        cut_vocabulary(model(), tokenizer(), TEXTS, len(VOCABULARY) + 4)
    with pytest.raises(InputError, match="several texts"):
        choose_tokens(tokenizer(), "one text", LEAST)
    with pytest.raises(InputError, match="not a str"):
        choose_tokens(tokenizer(), [3], LEAST)  # type: ignore[list-item]


def test_other_tokenizers_are_unsupported() -> None:
    inner = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    with pytest.raises(UnsupportedError, match="BPE"):
        cut_vocabulary(model(), tf.PreTrainedTokenizerFast(tokenizer_object=inner), TEXTS, 2)
    with pytest.raises(UnsupportedError, match="fast"):
        cut_vocabulary(model(), object(), TEXTS, 2)


def test_a_real_vocabulary_is_cut() -> None:
    whole = tf.AutoTokenizer.from_pretrained(packaged_minilm())
    config = tf.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    _, made = cut_vocabulary(tf.BertModel(config), whole, TEXTS, 3000)
    for text in TEXTS:
        assert made.tokenize(text) == whole.tokenize(text)
    assert made.tokenize("unphotographable") != ["[UNK]"]
    assert made("a", "b")["token_type_ids"] == whole("a", "b")["token_type_ids"]
