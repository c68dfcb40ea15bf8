"""From an architecture to the recipe that makes it of a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...compiler.compression.recipe import EmbeddingRecipe, PrecisionRule, Recipe, SparsityRule
from ...errors import InputError, UnsupportedError
from .architecture import KINDS, Architecture, MatrixForm

__all__ = ["check_teacher", "recipe_of"]

_PATHS = {
    "qkv": "attention.self.*",
    "output": "attention.output.dense",
    "up": "intermediate.dense",
    "down": "output.dense",
}


def recipe_of(architecture: Architecture, teacher_config: Any = None) -> Recipe:
    """See `Architecture.recipe`."""
    a = architecture
    if teacher_config is not None:
        check_teacher(a, teacher_config)
    layers = len(a.layers)
    heads = [layer.heads for layer in a.layers]
    ffn = [layer.ffn for layer in a.layers]
    same = _Same(teacher_config)
    vocabulary = None if same("vocab_size", a.vocabulary) else a.vocabulary
    embedding = EmbeddingRecipe(
        int8=a.embedding_int8, rank=a.embedding_rank, vocabulary=vocabulary
    )
    return Recipe(
        layers=None if same("num_hidden_layers", layers) else layers,
        hidden=None if same("hidden_size", a.hidden) else a.hidden,
        heads=None if same("num_attention_heads", *heads) else _short(heads),
        ffn=None if same("intermediate_size", *ffn) else _short(ffn),
        sparsity=tuple(_sparsity(a)),
        precision=tuple(_precision(a)),
        embedding=None if embedding == EmbeddingRecipe() else embedding,
    )


def check_teacher(architecture: Architecture, config: Any) -> None:
    """Raise `InputError`, naming the field, where no such model can be cut out of one of
    ``config``; `UnsupportedError` where that is no BERT. A configuration does not say how large
    the heads of a pruned model are, so heads are compared by `models.sub_network`."""
    a = architecture
    if config.model_type != "bert":
        raise UnsupportedError(
            f"Architectures describe BERT, and this model is {config.model_type!r}: take a BERT."
        )
    most = {
        "layers": (len(a.layers), config.num_hidden_layers),
        "hidden": (a.hidden, config.hidden_size),
        "heads": (max(layer.heads for layer in a.layers), config.num_attention_heads),
        "ffn": (max(layer.ffn for layer in a.layers), config.intermediate_size),
        "vocabulary": (a.vocabulary, config.vocab_size),
    }
    for field, (asked, present) in most.items():
        if asked > present:
            raise InputError(f"{field}: the architecture has {asked}, the teacher {present}.")
    for field, asked, present in (
        ("positions", a.positions, config.max_position_embeddings),
        ("types", a.types, config.type_vocab_size),
    ):
        if asked != present:
            raise InputError(
                f"{field}: the architecture has {asked}, the teacher {present}, and pruning "
                "leaves them as they are."
            )


class _Same:
    """Whether all given sizes are those of a configuration; False where there is none."""

    def __init__(self, config: Any) -> None:
        self._config = config

    def __call__(self, name: str, *sizes: int) -> bool:
        return self._config is not None and {getattr(self._config, name)} == set(sizes)


def _short(sizes: Sequence[int]) -> tuple[int, ...] | int:
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)


def _forms(a: Architecture) -> Iterator[tuple[str, MatrixForm]]:
    """Globs, each the first to fit some matrix, and the form of what they name."""
    for kind in KINDS:
        found = [layer.form(kind) for layer in a.layers]
        if len(set(found)) == 1:
            # Attention's output ends in "output.dense" too, so the layer's number ends the glob.
            yield f"encoder.layer.{_ANY_NUMBER}.{_PATHS[kind]}.weight", found[0]
        else:
            for number, form in enumerate(found):
                yield f"encoder.layer.{number}.{_PATHS[kind]}.weight", form


_ANY_NUMBER = "*[0-9]"


def _sparsity(a: Architecture) -> Iterator[SparsityRule]:
    for match, form in _forms(a):
        if form.density < 1:
            yield SparsityRule(match=match, block=a.block, density=form.density)


def _precision(a: Architecture) -> Iterator[PrecisionRule]:
    """A rule for each matrix that is not f32; what is in no layer comes last. The default stays
    f32, so that tables of words are as ``embedding_int8`` says."""
    for match, form in _forms(a):
        if form.precision != "f32" or a.rest != "f32":
            yield PrecisionRule(match=match, precision=form.precision)
    if a.rest != "f32":
        yield PrecisionRule(match="*", precision=a.rest)
