"""What the tests of data and evaluation share: a tiny tokenizer, rows of our own, models."""

from __future__ import annotations

import gzip
import json
import string
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

__all__ = ["save_model", "sentences", "tiny_model", "tokenizer", "write_rows"]

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = ("the", "of", "and", "river", "bridge", "old", "who", "was", "built")

sentences = (
    "The old bridge was built by monks.",
    "Nobody knows who painted the ceiling of the town hall.",
    "Rain fell all night, and the river rose.",
    "Bees dance to tell where flowers are.",
    "A quiet street.",
    "The baker sold forty loaves before nine, then shut the shop and went fishing.",
)


@cache
def _description() -> str:
    letters = [*string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase)]
    vocabulary = [*_SPECIAL, *letters, *".,?!-'", *string.digits, *_WORDS]
    assert len(vocabulary) <= 99
    numbers = {token: number for number, token in enumerate(vocabulary)}
    made = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(
        ("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"])
    )
    made.add_special_tokens(list(_SPECIAL))
    return str(made.to_str())


def tokenizer() -> Tokenizer:
    """A BERT tokenizer of letters and few words, small enough for a vocabulary of 99."""
    return Tokenizer.from_str(_description())


def tiny_model(head: str, *, seed: int = 2, **options: Any) -> Any:
    """A BERT with random, large weights, so that its answers differ from row to row."""
    kinds = {
        "base": tf.BertModel,
        "sequence-classification": tf.BertForSequenceClassification,
        "token-classification": tf.BertForTokenClassification,
        "question-answering": tf.BertForQuestionAnswering,
        "masked-lm": tf.BertForMaskedLM,
        "causal-lm": tf.BertLMHeadModel,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes: dict[str, Any] = {
            "vocab_size": 99,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            "initializer_range": 0.4,
        }
        config = tf.BertConfig(is_decoder=head == "causal-lm", **{**sizes, **options})
        return kinds[head](config).eval()


def save_model(folder: Path, head: str, **options: Any) -> Path:
    """A model directory with a tokenizer."""
    tiny_model(head, **options).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(_description(), encoding="utf-8")
    return folder


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Rows as JSON lines, compressed where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path
