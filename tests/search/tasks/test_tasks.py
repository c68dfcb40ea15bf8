"""Features, predictions and metrics of the other tasks, and which task a split is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import InputError
from canao.search.data import Split, TaskKind
from canao.search.tasks import Task, TextEncoder, collate, length_batches, task_for

from ..support import sentences, tiny_model, tokenizer


def split(kind: TaskKind, rows: list[dict[str, Any]], name: str = "set", **more: Any) -> Split:
    return Split(name=name, split="dev", kind=kind, rows=tuple(rows), **more)


def classified(name: str = "set", labels: tuple[int, ...] = (0, 1)) -> Split:
    rows = [{"text": text, "label": label} for text, label in zip(sentences, labels, strict=False)]
    return split(TaskKind.CLASSIFICATION, rows, name)


@pytest.mark.parametrize(
    ("name", "labels", "metric"),
    [
        ("sst2", (0, 1), "accuracy"),
        ("mrpc", (0, 1), "f1"),
        ("MRPC", (0, 1), "f1"),
        ("cola", (0, 1), "matthews"),
        ("mrpc", (0, 1, 2), "accuracy"),  # three classes: something else by that name
        ("one+cola", (0, 1), "accuracy"),
    ],
)
def test_the_primary_metric_follows_the_name(
    name: str, labels: tuple[int, ...], metric: str
) -> None:
    assert task_for(classified(name, labels)).primary == metric


def test_a_metric_that_is_asked_for() -> None:
    assert task_for(classified("mrpc"), metric="accuracy").primary == "accuracy"
    with pytest.raises(InputError, match="choose one of accuracy, f1, matthews"):
        task_for(classified(), metric="spearman")


def test_a_head_that_does_not_fit_is_refused() -> None:
    scored = split(TaskKind.REGRESSION, [{"text": "a", "text_pair": "b", "score": 1.0}])
    assert task_for(scored, head="base").head == "base"
    assert task_for(scored).head == "sequence-classification"
    with pytest.raises(InputError, match="'sequence-classification' or 'base', not 'masked-lm'"):
        task_for(scored, head="masked-lm")
    with pytest.raises(InputError, match="'sequence-classification', not 'base'"):
        task_for(classified(), head="base")


def test_classification() -> None:
    given_rows = classified().rows
    made = task_for(classified())
    features = made.features(given_rows, tokenizer(), 16)
    assert [f["labels"] for f in features] == [0, 1]
    assert [f["truncated"] for f in features] == [False, True]
    assert [len(f["input_ids"]) for f in features] == [15, 16]
    kept = made.compact({"logits": np.array([[1.0, 2.0], [3.0, 0.0]])}, features)
    assert made.decode(kept, features, given_rows) == [1, 0]
    assert made.metrics([1, 0], given_rows) == {
        "accuracy": 0.0, "f1": 0.0, "matthews": pytest.approx(-100),
    }  # fmt: skip


def test_pairs_are_told_apart_and_the_longer_text_is_cut() -> None:
    row = {"text": "who", "text_pair": "a b c d e f g h i j k", "label": 0}
    made = task_for(split(TaskKind.PAIR_CLASSIFICATION, [row, row]))
    (feature, _) = made.features([row, row], tokenizer(), 10)
    assert feature["token_type_ids"] == [0, 0, 0] + [1] * 7
    assert feature["truncated"]
    (feature, _) = made.features([row, row], tokenizer(), 32)
    assert not feature["truncated"]


def test_labels_are_held_against_the_model() -> None:
    rows = [{"text": "a", "label": 2, "place": "f, row 7"}]
    made = task_for(split(TaskKind.CLASSIFICATION, rows))
    made.check_model(3, rows, "m")
    for labels in (2, 1):
        with pytest.raises(InputError, match=f"f, row 7: the label 2 .* {labels} label"):
            made.check_model(labels, rows, "m")
    scored = [{"text": "a", "text_pair": "b", "score": 1.0}]
    regression = task_for(split(TaskKind.REGRESSION, scored))
    regression.check_model(1, scored, "m")
    with pytest.raises(InputError, match="tells 2 classes apart"):
        regression.check_model(2, scored, "m")


def test_similarity_is_the_cosine_of_mean_embeddings() -> None:
    row = {"text": "old bridge", "text_pair": "the river of bees", "score": 3.0}
    made = task_for(split(TaskKind.REGRESSION, [row]), head="base")
    features = made.features([row], tokenizer(), 32)
    hidden = np.random.default_rng(0).normal(size=(2, 20, 8))
    means = [h[: len(f["input_ids"])].mean(0) for h, f in zip(hidden, features, strict=True)]
    expected = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    found = made.decode(made.compact({"last_hidden_state": hidden}, features), features, [row])
    assert found == [pytest.approx(expected)]
    with pytest.raises(InputError, match="no 'text_pair'"):
        made.features([{"text": "a", "text_pair": None, "score": 1.0}], tokenizer(), 32)


def tagged(names: tuple[str, ...] = ()) -> Split:
    rows = [
        {"tokens": ["Ada", "Byron", "saw", "London"], "tags": [1, 2, 0, 3]},
        {"tokens": ["Rain"], "tags": [0]},
    ]
    return split(TaskKind.TOKEN_CLASSIFICATION, rows, label_names=names)


def test_a_word_is_read_at_its_first_token() -> None:
    data = tagged()
    made = task_for(data)
    features = made.features(data.rows, tokenizer(), 32)
    # [CLS] a d a b y r o n s a w l o n d o n [SEP]
    assert features[0]["labels"] == [
        -100, 1, -100, -100, 2, -100, -100, -100, -100, 0, -100, -100,
        3, -100, -100, -100, -100, -100, -100,
    ]  # fmt: skip
    assert features[0]["input_ids"] == tokenizer().encode("Ada Byron saw London").ids
    logits = np.zeros((2, 19, 4))
    for position, tag in ((1, 1), (4, 2), (9, 0), (12, 3)):
        logits[0, position, tag] = 1
    logits[0, 2:4, 3] = 5  # later tokens do not count
    predicted = made.decode(made.compact({"logits": logits}, features), features, data.rows)
    assert predicted == [[1, 2, 0, 3], [0]]
    assert made.metrics(predicted, data.rows) == {"accuracy": 100, "macro_f1": 100}


def test_words_that_were_cut_off_do_not_count() -> None:
    data = tagged()
    made = task_for(data)
    features = made.features(data.rows, tokenizer(), 8)
    assert [f["truncated"] for f in features] == [True, False]
    outputs = made.compact({"logits": np.zeros((2, 8, 4))}, features)
    predicted = made.decode(outputs, features, data.rows)
    assert predicted == [[0, 0, None, None], [0]]
    assert made.metrics(predicted, data.rows)["accuracy"] == pytest.approx(100 / 3)


def test_spans_are_whole_or_wrong() -> None:
    data = tagged(("O", "B-PER", "I-PER", "B-LOC"))
    made = task_for(data)
    assert made.primary == "f1"
    assert made.metrics([[1, 0, 0, 3], [3]], data.rows) == {
        "f1": pytest.approx(100 * 2 / 5),
        "precision": pytest.approx(100 / 3),
        "recall": 50.0,
        "accuracy": 60.0,
    }


TEXT = [{"text": text} for text in (*sentences, "", *sentences)]


@pytest.mark.parametrize("seq_len", [5, 16, 64])
def test_causal_windows_foretell_each_token_but_the_first_once(seq_len: int) -> None:
    made = task_for(split(TaskKind.LANGUAGE_MODELLING, TEXT))
    features = made.features(TEXT, tokenizer(), seq_len)
    whole = tokenizer().encode(
        "".join(f"{row['text']}\n" for row in TEXT), add_special_tokens=False
    )
    joined = [features[0]["input_ids"][0]]
    for feature in features:
        assert len(feature["input_ids"]) <= seq_len
        assert feature["labels"] == feature["input_ids"]
        assert feature["input_ids"][0] == joined[-1]
        joined += feature["input_ids"][1:]
    assert joined == whole.ids
    assert sum(f["characters"] for f in features) == whole.offsets[-1][1] - whole.offsets[0][1]


def test_causal_perplexity_is_that_of_transformers_loss() -> None:
    model = tiny_model("causal-lm")
    made = task_for(split(TaskKind.LANGUAGE_MODELLING, TEXT[:1]), head="causal-lm")
    (feature,) = made.features(TEXT[:1], tokenizer(), 64)
    batch = collate([feature], inputs=("input_ids", "attention_mask"))
    with torch.no_grad():
        found = model(**{name: torch.from_numpy(array) for name, array in batch.items()})
    outputs = made.compact({"logits": found.logits.numpy()}, [feature])
    value = made.metrics(made.decode(outputs, [feature], TEXT[:1]), TEXT[:1])["perplexity"]
    assert value == pytest.approx(math.exp(float(found.loss)), rel=1e-5)
    assert made.count(made.scores(outputs, TEXT[:1])) == len(feature["input_ids"]) - 1


def test_masked_features_hide_each_token_once() -> None:
    made = task_for(split(TaskKind.LANGUAGE_MODELLING, TEXT), head="masked-lm")
    features = made.features(TEXT, tokenizer(), 32)
    whole = tokenizer().encode(
        "".join(f"{row['text']}\n" for row in TEXT), add_special_tokens=False
    )
    mask = tokenizer().token_to_id("[MASK]")
    hidden = 0
    for feature in features:
        ids, labels = feature["input_ids"], feature["labels"]
        assert len(ids) <= 32
        assert (ids[0], ids[-1]) == (2, 3)
        there = [i for i, label in enumerate(labels) if label != -100]
        assert there == [i for i, one in enumerate(ids) if one == mask]
        assert len(there) <= math.ceil((len(ids) - 2) / 7)
        hidden += len(there)
    assert hidden == len(whole.ids)
    assert made.primary == "pseudo_perplexity"


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    for head in ("causal-lm", "masked-lm"):
        made = task_for(split(TaskKind.LANGUAGE_MODELLING, TEXT), head=head)
        features = made.features(TEXT, tokenizer(), 32)
        kept = made.compact({"logits": np.zeros((len(features), 32, 99))}, features)
        found = made.metrics(made.decode(kept, features, TEXT), TEXT)
        assert found[made.primary] == pytest.approx(99)


def test_text_without_tokens_is_refused() -> None:
    made = task_for(split(TaskKind.LANGUAGE_MODELLING, TEXT))
    with pytest.raises(InputError, match="shorter than two tokens"):
        made.features([{"text": " "}], tokenizer(), 32)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    size=st.integers(1, 8),
    borders=st.sampled_from([(), (8, 16, 64), (64,)]),
)
def test_batches_hold_each_sequence_once(
    lengths: list[int], size: int, borders: tuple[int, ...]
) -> None:
    batches = list(length_batches(lengths, size, borders=borders))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(flat, reverse=True)
    for batch in batches:
        assert len(batch) <= size
        assert len({sum(border < lengths[i] for border in borders) for i in batch}) == 1


def test_collating_pads_inputs_and_labels() -> None:
    features = [
        {"input_ids": [5, 6, 7], "attention_mask": [1] * 3, "labels": [1, 2, 3]},
        {"input_ids": [8], "attention_mask": [1], "labels": [4]},
    ]
    batch = collate(features, inputs=("input_ids", "attention_mask"), pad_id=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[1, 2, 3], [4, -100, -100]]
    assert "labels" not in collate(features, inputs=("input_ids",), labels=False)
    scored = collate([{"input_ids": [1], "labels": 2.5}], inputs=("input_ids",))
    assert scored["labels"].dtype == np.float32


@pytest.mark.parametrize("form", ["object", "text", "encoder", "transformers"])
def test_forms_of_a_tokenizer(form: str) -> None:
    from transformers import PreTrainedTokenizerFast

    raw = tokenizer()
    raw.enable_padding(length=40)
    raw.enable_truncation(3)
    given_one: Any = {
        "object": raw,
        "text": raw.to_str(),
        "encoder": TextEncoder(raw),
        "transformers": PreTrainedTokenizerFast(tokenizer_object=raw),
    }[form]
    ((encoding, cut),) = TextEncoder(given_one).texts(["who was"], 16)
    assert (encoding.tokens, cut) == (["[CLS]", "who", "was", "[SEP]"], False)
    assert raw.truncation["max_length"] == 3  # the caller's is as it was


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(InputError, match="int is no fast tokenizer"):
        TextEncoder(3)
    with pytest.raises(InputError, match="cannot be read"):
        TextEncoder("{}")


def test_a_row_without_any_token_is_named() -> None:
    bare = tokenizer()
    from tokenizers import processors

    bare.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B")
    rows = [{"text": "\u200b", "label": 0, "place": "f, row 4"}]
    made: Task = task_for(split(TaskKind.CLASSIFICATION, rows))
    with pytest.raises(InputError, match="f, row 4 has no token"):
        made.features(rows, bare, 16)
