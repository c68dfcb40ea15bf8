"""How training goes: one frozen value that round-trips through JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import InputError

__all__ = ["TrainingOptions"]

_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Everything that decides a training besides the model, the data and the recipe.

    ``batch_size`` counts rows over all processes. ``warmup`` and ``holdout`` are fractions, of
    the steps and of the training rows; the rows held out choose the checkpoint and stop training
    once ``patience`` evaluations in a row were no better (0: never). ``seq_len`` is the longest
    text in tokens (None: as the task has it; question answering cuts longer ones into windows).
    ``bf16``: autocast; None takes it where the CPU multiplies bf16 in hardware. ``bucketing``:
    batches of about equal lengths.

    The loss is the sum of four terms, each times its weight (0 leaves it out): ``task_weight`` on
    the labels; ``logits_weight`` on the teacher's outputs, softened by ``temperature`` (Hinton et
    al. 2015; squared error for a regression); ``hidden_weight`` on its hidden states, through a
    learned projection where widths differ (Jiao et al. 2020, TinyBERT; relative to the teacher's
    own square); ``relation_weight`` on the scaled products Q-Q, K-K and V-V of its last
    ``relation_layers`` matched layers, cut into ``relation_heads`` heads (Wang et al. 2021,
    MiniLMv2; None: as many as divide both widths, at most the teacher's). ``layer_map[i]`` is
    the teacher's layer (from 0) that layer i of the student follows; None spreads them evenly.

    ``dropout`` and ``attention_dropout`` are those of the model in training. ``tables_fixed``
    leaves the tables of embeddings as they are. ``quantization_aware`` simulates int8 in training
    where the recipe says int8; None does so if it does, from ``quantize_from`` of the steps on.
    Sparsity grows until ``sparse_at`` of the steps, its blocks chosen by ``sparsity_method`` every
    ``sparsity_every`` steps. ``importance_rows`` is how many training rows pruning looks at
    (0: none, but at the squares of the weights).
    ``teacher_*`` are for fine-tuning the teacher, where there is none.
    """

    epochs: float = 6.0
    learning_rate: float = 1e-4
    batch_size: int = 32
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 0
    seq_len: int | None = None
    holdout: float = 0.1
    evaluations_per_epoch: int = 1
    patience: int = 0
    bf16: bool | None = None
    bucketing: bool = True
    task_weight: float = 0.5
    logits_weight: float = 1.0
    temperature: float = 2.0
    hidden_weight: float = 1.0
    relation_weight: float = 1.0
    relation_layers: int = 1
    relation_heads: int | None = None
    layer_map: tuple[int, ...] | None = None
    dropout: float = 0.1
    attention_dropout: float = 0.0
    tables_fixed: bool = False
    quantization_aware: bool | None = None
    quantize_from: float = 0.5
    sparsity_method: Literal["magnitude", "movement"] = "magnitude"
    sparse_at: float = 0.6
    sparsity_every: int = 8
    importance_rows: int = 512
    teacher_epochs: float = 3.0
    teacher_learning_rate: float = 5e-5
    teacher_batch_size: int = 32

    def __post_init__(self) -> None:
        for name, (expected, good) in _LIMITS.items():
            value = getattr(self, name)
            if (isinstance(value, float) and not math.isfinite(value)) or not good(value):
                raise InputError(f"Training option {name} must be {expected}, not {value!r}.")
        if not self.task_weight + self.logits_weight + self.hidden_weight + self.relation_weight:
            raise InputError("Every weight of the training's loss is 0: set task_weight, say.")

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives back an equal one."""
        found = dataclasses.asdict(self)
        if self.layer_map is not None:
            found["layer_map"] = list(self.layer_map)
        return {"version": _VERSION, **found}

    @classmethod
    def from_json(cls, value: object, where: str = "training options") -> TrainingOptions:
        """From what `to_json` gave, or a part of it; InputError, naming the field, otherwise."""
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: a table of options is needed, not {type(value).__name__}.")
        given = dict(value)
        if given.pop("version", _VERSION) != _VERSION:
            raise InputError(f"{where}: version {value['version']!r} is not {_VERSION}.")
        fields = {item.name: str(item.type) for item in dataclasses.fields(cls)}
        for name in given:
            if name not in fields:
                raise InputError(f"{where}: there is no training option {name!r}.")
            given[name] = _typed(given[name], fields[name], f"{where}: {name}")
        return cls(**given)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrainingOptions:
        """Read a ``.json`` or ``.toml`` file; InputError with the file and the field."""
        file = Path(path)
        try:
            text = file.read_text(encoding="utf-8")
            value = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{file}: training options cannot be read ({reason}).") from error
        return cls.from_json(value, str(file))

    def replace(self, **changes: Any) -> TrainingOptions:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def for_teacher(self) -> TrainingOptions:
        """The options of fine-tuning the teacher; equal ones give the same teacher."""
        kept = ("warmup", "weight_decay", "seed", "seq_len", "holdout", "bf16", "bucketing")
        return TrainingOptions(
            **{name: getattr(self, name) for name in kept},
            epochs=self.teacher_epochs,
            learning_rate=self.teacher_learning_rate,
            batch_size=self.teacher_batch_size,
            dropout=0.1,
            task_weight=1.0,
            logits_weight=0.0,
            hidden_weight=0.0,
            relation_weight=0.0,
        )


def _typed(value: object, kind: str, where: str) -> Any:
    optional = kind.endswith("| None")
    if value is None and optional:
        return None
    kind = kind.removesuffix(" | None")
    number = isinstance(value, int) and not isinstance(value, bool)
    if kind == "tuple[int, ...]":
        if isinstance(value, list | tuple) and all(type(item) is int for item in value):
            return tuple(value)
    elif kind == "float":
        if number or isinstance(value, float):
            return float(value)  # type: ignore[arg-type]
    elif kind == "bool":
        if isinstance(value, bool):
            return value
    elif kind == "int":
        if number:
            return value
    elif isinstance(value, str):
        return value
    raise InputError(f"{where} must be {kind}{' or null' * optional}, not {value!r}.")


def _positive(value: float) -> bool:
    return value > 0


def _natural(value: int) -> bool:
    return value >= 1


def _not_negative(value: float) -> bool:
    return value >= 0


def _fraction(value: float) -> bool:
    return 0 <= value <= 1


def _below_one(value: float) -> bool:
    return 0 <= value < 1


_LIMITS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("epochs", "teacher_epochs", "learning_rate", "teacher_learning_rate", "temperature"),
        ("greater than 0", _positive),
    ),
    **dict.fromkeys(
        ("batch_size", "teacher_batch_size", "evaluations_per_epoch", "relation_layers"),
        ("at least 1", _natural),
    ),
    "sparsity_every": ("at least 1", _natural),
    "importance_rows": ("at least 0", _not_negative),
    "seq_len": ("at least 8", lambda value: value is None or value >= 8),
    "seed": ("from 0 to 2^32 - 1", lambda value: 0 <= value < 2**32),
    "relation_heads": ("at least 1", lambda value: value is None or value >= 1),
    "layer_map": ("of layers from 0", lambda value: value is None or min(value, default=-1) >= 0),
    **dict.fromkeys(
        ("task_weight", "logits_weight", "hidden_weight", "relation_weight", "weight_decay"),
        ("at least 0", _not_negative),
    ),
    "patience": ("at least 0", _not_negative),
    **dict.fromkeys(("warmup", "sparse_at", "quantize_from"), ("from 0 to 1", _fraction)),
    **dict.fromkeys(("dropout", "attention_dropout"), ("at least 0 and below 1", _below_one)),
    "holdout": ("above 0 and at most 0.5", lambda value: 0 < value <= 0.5),
    "sparsity_method": (
        "magnitude or movement",
        lambda value: value in ("magnitude", "movement"),
    ),
}
