"""What is compiled, as the search describes it: sizes, and the form of each matrix.

A live BERT, its recipe and what was decided about precisions become the plain JSON values of an
`Architecture` (`search.space.architecture`), for the bundle's manifest::

    BertForSequenceClassification, 6 layers, int8, two matrices kept wider
    -> {"version": 1, "hidden": 384, "layers": [{"heads": 12, "ffn": 1536, "qkv": ...}, ...], ...}

Whoever measures the bundle then knows what was measured. What is described is what was compiled,
or nothing: a model that an `Architecture` cannot say in full has no description.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...errors import UnsupportedError
from ..quantization.precisions import QUANTIZED
from ..quantization.sites import LEAST
from ..sparsity import LEAST_ZEROS
from .blocks import block_sums
from .low_rank import LowRankEmbedding, word_table
from .matching import matrices, rule_for
from .precisions import asked_precisions
from .recipe import Recipe
from .structure import Layer, Structure, structure_of
from .validation import kept_blocks

__all__ = ["describe"]

_VERSION = 1
_BLOCK = (4, 48)
_HEADS = {
    "BertModel": "base",
    "BertForSequenceClassification": "sequence-classification",
    "BertForTokenClassification": "token-classification",
    "BertForQuestionAnswering": "question-answering",
}


class _Unsaid(Exception):
    """An `Architecture` has no words for it."""


def describe(
    model: Any,
    *,
    seq_len: int,
    precision: str,
    precisions: Recipe | None,
    sizes: Recipe | None,
    wider: Mapping[int, str],
) -> dict[str, Any] | None:
    """The architecture of ``model``, for texts of ``seq_len`` tokens; None where it has none.

    ``precision``: the bundle's; ``precisions``: the recipe that says which matrices are wider;
    ``wider``: by address of a weight, what was decided beyond that. ``sizes``: the recipe that the
    model was made by, whose blocks of zeros are looked for.
    """
    if _head(model) is None:
        return None
    asked = asked_precisions(precisions, model)
    forms = _Forms(model, precision, {**asked.wider, **wider}, sizes)
    try:
        return _described(model, structure_of(model), forms) | {
            "embedding_int8": precision in QUANTIZED if asked.tables is None else asked.tables,
            "seq_len": seq_len,
        }
    except (_Unsaid, UnsupportedError):
        return None


def _head(model: Any) -> str | None:
    """Its head, where it is a BERT as transformers makes it, with nothing unusual."""
    kind = type(model)
    if not kind.__module__.startswith("transformers.") or kind.__name__ not in _HEADS:
        return None
    config = model.config
    plain = (
        config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
        and not config.is_decoder
    )
    head = _HEADS[kind.__name__]
    pooled = head != "base" or model.pooler is not None
    return head if plain and pooled else None


def _described(model: Any, structure: Structure, forms: _Forms) -> dict[str, Any]:
    config, head = model.config, _HEADS[type(model).__name__]
    head_sizes = {layer.head_size for layer in structure.layers}
    _, _, table = word_table(model)
    factorised = isinstance(table, LowRankEmbedding)
    words = table.table if factorised else table
    layers = [
        {"heads": layer.heads, "ffn": layer.ffn, **forms.of_layer(layer)}
        for layer in structure.layers
    ]
    return {
        "version": _VERSION,
        "hidden": structure.hidden,
        "head_size": _only(head_sizes),
        "layers": layers,
        "block": list(forms.block),
        "vocabulary": words.num_embeddings,
        "embedding_rank": words.embedding_dim if factorised else None,
        "positions": config.max_position_embeddings,
        "types": config.type_vocab_size,
        "head": head,
        "labels": 2 if head == "question-answering" else config.num_labels,
        "rest": forms.of_rest(),
    }


class _Forms:
    """How the matrices of a model are stored."""

    def __init__(
        self, model: Any, precision: str, wider: Mapping[int, str], sizes: Recipe | None
    ) -> None:
        self._model = model
        self._precision = precision
        self._wider = wider
        self._rules = () if sizes is None else sizes.sparsity
        self._left = dict(matrices(model))
        self._blocks: set[tuple[int, int]] = set()

    @property
    def block(self) -> tuple[int, int]:
        """The shape of the blocks that are left out, once all forms were asked for."""
        return _only(self._blocks) if self._blocks else _BLOCK

    def of_layer(self, layer: Layer) -> dict[str, dict[str, Any]]:
        """The form of each kind of matrix."""
        family = layer.family
        parts = {
            "qkv": (family.query, family.key, family.value),
            "output": (family.output,),
            "up": family.ffn_in,
            "down": (family.ffn_out,),
        }
        found = {}
        for kind, paths in parts.items():
            weights = [layer.part(path).weight for path in paths]
            names = [self._taken(weight) for weight in weights]
            found[kind] = {
                "precision": _only({self._precision_of(weight) for weight in weights}),
                "density": self._density(names, weights),
            }
        return found

    def of_rest(self) -> str:
        """The precision of what is in no layer; of narrow matrices, which no kernel takes, only
        where there are no others."""
        left = self._left.values()
        if any(_zeros(weight) >= LEAST_ZEROS for weight in left):
            raise _Unsaid
        found = [weight for weight in left if min(weight.shape) >= LEAST] or list(left)
        return str(_only({self._precision_of(weight) for weight in found} or {self._precision}))

    def _taken(self, weight: Any) -> str:
        name = next((name for name, one in self._left.items() if one is weight), None)
        if name is None:  # shared with another layer
            raise _Unsaid
        del self._left[name]
        return name

    def _precision_of(self, weight: Any) -> str:
        return self._wider.get(weight.data_ptr(), self._precision)

    def _density(self, names: Sequence[str], weights: Sequence[Any]) -> float:
        """The share of blocks that is kept, as the recipe says it where it says so."""
        rules = {rule_for(self._rules, name, self._model) for name in names}
        rule = _only(rules)
        if rule is None or rule.density == 1:
            if any(_zeros(weight) >= LEAST_ZEROS for weight in weights):
                raise _Unsaid
            return 1.0
        self._blocks.add(rule.block)
        alive = [block_sums((w.detach() != 0).float(), rule.block) > 0 for w in weights]
        counts = [int(one.sum()) for one in alive]
        if all(n == kept_blocks(rule, w) for n, w in zip(counts, weights, strict=True)):
            return float(rule.density)
        return sum(counts) / sum(one.numel() for one in alive)


def _zeros(weight: Any) -> float:
    return float((weight.detach() == 0).float().mean())


def _only(values: set[Any]) -> Any:
    """The only one there is."""
    if len(values) != 1:
        raise _Unsaid
    return next(iter(values))
