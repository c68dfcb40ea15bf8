"""Cutting a model's vocabulary to the tokens that a corpus needs.

Kept are the special tokens, every single character, at the start of a word and within one, what
cannot be spelled by those, and then the tokens that the corpus has most of. A word that loses its
token is spelled by shorter ones, and never becomes unknown.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError, UnsupportedError
from .axes import axes_of
from .cutting import keep
from .families import family_of
from .low_rank import LowRankEmbedding, word_table

__all__ = ["choose_tokens", "cut_vocabulary", "keep_tokens"]

_BATCH = 1024
_UNUSED = "[unused"
"""How BERT's vocabulary calls rows that were left free."""


def cut_vocabulary(model: Any, tokenizer: Any, texts: Iterable[str], size: int) -> tuple[Any, Any]:
    """(a copy of ``model`` with ``size`` rows in its table of words, its new tokenizer).

    ``texts`` are of the kind that the model will read. Raises `InputError` where ``size`` is less
    than spelling needs or more than there are, `UnsupportedError` where the tokenizer is not
    WordPiece, or the model is of an unknown family.
    """
    state = _state(tokenizer)
    config = model.config
    if size > config.vocab_size:
        raise InputError(
            f"embedding.vocabulary is {size}, but the model has {config.vocab_size} tokens."
        )
    kept = choose_tokens(tokenizer, texts, size, needed=_needed(config))
    if kept[-1] >= config.vocab_size:
        raise InputError(
            f"The tokenizer has a token {kept[-1]}, but the model has rows for "
            f"{config.vocab_size}: it is another model's tokenizer."
        )
    cut = copy.deepcopy(model)
    places = keep_tokens(cut, kept)
    return cut, _renumbered(tokenizer, state, places)


def keep_tokens(model: Any, kept: Sequence[int]) -> dict[int, int]:
    """Cut a model's vocabulary to the tokens ``kept``, in place; returns their new ids."""
    places = {old: new for new, old in enumerate(kept)}
    rows = torch.tensor(kept)
    parameters = dict(model.named_parameters())
    found = axes_of(model, "vocabulary")
    keep(model, [(parameters[name], axis, rows) for name, axes in found.items() for axis in axes])
    _note_tokens(model, places)
    return places


def choose_tokens(
    tokenizer: Any, texts: Iterable[str], size: int, *, needed: Iterable[int] = ()
) -> list[int]:
    """The ids of ``size`` tokens to keep, ascending; ``needed`` ones are among them.

    Where the corpus has fewer, those follow that stand first in the vocabulary.
    Raises as `cut_vocabulary` does.
    """
    state = _state(tokenizer)
    vocabulary: Mapping[str, int] = state["model"]["vocab"]
    prefix = state["model"]["continuing_subword_prefix"]
    required = {*needed, *(token["id"] for token in state["added_tokens"])}
    required |= {i for token, i in vocabulary.items() if _is_needed(token, prefix, vocabulary)}
    unknown = vocabulary.get(state["model"]["unk_token"])
    required |= set() if unknown is None else {unknown}
    total = len(set(vocabulary.values()) | required)
    if size < len(required):
        raise InputError(
            f"embedding.vocabulary is {size}, but special tokens and single characters alone are "
            f"{len(required)}: ask for more."
        )
    if size > total:
        raise InputError(f"embedding.vocabulary is {size}, but the tokenizer has {total} tokens.")
    counts: Counter[int] = Counter()
    backend = tokenizer.backend_tokenizer
    for batch in _batches(texts):
        for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
            counts.update(encoding.ids)
    in_use = sorted(counts, key=lambda i: (-counts[i], i))
    spare = sorted((token.startswith(_UNUSED), i) for token, i in vocabulary.items())
    order = dict.fromkeys([*sorted(required), *in_use, *(i for _, i in spare)])
    return sorted(islice(order, size))


def _state(tokenizer: Any) -> dict[str, Any]:
    """The fast tokenizer as JSON values."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UnsupportedError(
            "embedding.vocabulary: canao cuts the vocabularies of fast tokenizers, which have a "
            f"tokenizer.json; {type(tokenizer).__name__} is none."
        )
    state: dict[str, Any] = json.loads(backend.to_str())
    if state["model"]["type"] != "WordPiece":
        raise UnsupportedError(
            "embedding.vocabulary: canao cuts vocabularies of WordPiece (BERT, DistilBERT, "
            f"ELECTRA, MPNet); this tokenizer is {state['model']['type']}."
        )
    return state


def _is_needed(token: str, prefix: str, vocabulary: Mapping[str, int]) -> bool:
    """Whether a token is one character, or cannot be spelled by such tokens."""
    if token.startswith(_UNUSED):  # no text has it
        return False
    inner = token.startswith(prefix) and len(token) > len(prefix)
    letters = token.removeprefix(prefix) if inner else token
    if len(letters) <= 1:
        return True
    spelled = [prefix * (inner or place > 0) + letter for place, letter in enumerate(letters)]
    return not all(letter in vocabulary for letter in spelled)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    if isinstance(texts, (str, bytes)):
        raise InputError("A corpus is several texts, not one: pass a list of them.")
    source = iter(texts)
    while batch := list(islice(source, _BATCH)):
        for text in batch:
            if not isinstance(text, str):
                raise InputError(f"A text of the corpus is a {type(text).__name__}, not a str.")
        yield batch


def _needed(config: Any) -> set[int]:
    """Tokens that the configuration names; and where positions are counted from the id of the
    padding, all before it, so that it stays."""
    found = {i for name in _token_fields(config) for i in _listed(getattr(config, name))}
    pad = getattr(config, "pad_token_id", None)
    if family_of(config).from_padding and isinstance(pad, int):
        found |= set(range(pad + 1))
    return {i for i in found if 0 <= i < config.vocab_size}


def _token_fields(config: Any) -> list[str]:
    return [name for name in vars(config) if name.endswith("_token_id")]


def _listed(value: Any) -> Sequence[int]:
    if isinstance(value, int):
        return (value,)
    return [i for i in value if isinstance(i, int)] if isinstance(value, (list, tuple)) else ()


def _note_tokens(model: Any, places: Mapping[int, int]) -> None:
    """The configuration and the table say the new numbers."""
    for config in (model.config, getattr(model, "generation_config", None)):
        for name in _token_fields(config) if config is not None else ():
            value = getattr(config, name)
            if isinstance(value, int):
                setattr(config, name, places.get(value, value))
            elif isinstance(value, list):
                setattr(config, name, [places.get(i, i) for i in value])
    model.config.vocab_size = len(places)
    _, _, table = word_table(model)
    table = table.table if isinstance(table, LowRankEmbedding) else table
    if table.padding_idx is not None:
        table.padding_idx = places.get(table.padding_idx)
    for module in model.modules():  # scorers of words that say how many there are
        if getattr(module, "vocab_size", None) is not None and isinstance(module.vocab_size, int):
            module.vocab_size = len(places)


def _renumbered(tokenizer: Any, state: dict[str, Any], places: Mapping[int, int]) -> Any:
    """The tokenizer with the kept tokens alone, under their new numbers."""
    vocabulary = state["model"]["vocab"]
    state["model"]["vocab"] = {t: places[i] for t, i in vocabulary.items() if i in places}
    for token in state["added_tokens"]:
        token["id"] = places[token["id"]]
    if state.get("padding"):
        state["padding"]["pad_id"] = places[state["padding"]["pad_id"]]
    _renumber_processor(state.get("post_processor"), places)
    with tempfile.TemporaryDirectory(prefix="canao-tokenizer-") as folder:
        tokenizer.save_pretrained(folder)
        place = Path(folder)
        (place / "tokenizer.json").write_text(
            json.dumps(state, ensure_ascii=False), encoding="utf-8"
        )
        for name in ("vocab.txt", "added_tokens.json"):  # they would speak of the old numbers
            (place / name).unlink(missing_ok=True)
        described = place / "tokenizer_config.json"
        settings = json.loads(described.read_text(encoding="utf-8"))
        known = settings.get("added_tokens_decoder")
        if known is not None:
            settings["added_tokens_decoder"] = {
                str(places[int(i)]): token for i, token in known.items() if int(i) in places
            }
            described.write_text(json.dumps(settings), encoding="utf-8")
        return type(tokenizer).from_pretrained(folder)


def _renumber_processor(processor: Any, places: Mapping[int, int]) -> None:
    """The numbers of special tokens that are put around a text."""
    if not isinstance(processor, dict):
        return
    for inner in processor.get("processors", ()):
        _renumber_processor(inner, places)
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [places[i] for i in token["ids"]]
    for name in ("sep", "cls"):
        if isinstance(processor.get(name), list):
            token, number = processor[name]
            processor[name] = [token, places[number]]
