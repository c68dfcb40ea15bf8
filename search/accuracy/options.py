"""How the shared weights are trained: one frozen value that round-trips through JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import InputError
from ..training.options import TrainingOptions

__all__ = ["SharingOptions"]

_VERSION = 1


def _training() -> TrainingOptions:
    return TrainingOptions(
        epochs=3, learning_rate=2e-4, relation_weight=0.0, dropout=0.0, tables_fixed=True
    )


@dataclass(frozen=True, kw_only=True)
class SharingOptions:
    """What decides the training of a supernet besides the teacher, the data and the space.

    Each step trains the largest sub-network, the smallest, and ``networks`` drawn ones on the
    same rows (the sandwich rule: Yu and Huang 2019, 1903.05134; Yu et al. 2020, BigNAS,
    2003.11142). Checkpoints are chosen by the mean over the largest and ``judged`` drawn ones.
    ``training``: rows, steps and the terms of the loss. Projections of the last layers are not
    compared (``relation_weight`` 0), and tables of embeddings stay as they are
    (``tables_fixed``): anything else is refused.

    Raises `InputError`, naming the field.
    """

    networks: int = 2
    judged: int = 3
    training: TrainingOptions = field(default_factory=_training)

    def __post_init__(self) -> None:
        for name, least in (("networks", 1), ("judged", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InputError(f"Sharing option {name} must be at least {least}, not {value!r}.")
        if self.training.relation_weight or not self.training.tables_fixed:
            raise InputError(
                "Sharing option training must have relation_weight 0 and tables_fixed true: "
                "sub-networks share neither relations nor tables that move."
            )

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` gives back an equal one."""
        return {
            "version": _VERSION,
            "networks": self.networks,
            "judged": self.judged,
            "training": self.training.to_json(),
        }

    @classmethod
    def from_json(cls, value: object, where: str = "sharing options") -> SharingOptions:
        """From what `to_json` gave, or a part of it; InputError, naming the field, otherwise."""
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: a table of options is needed, not {type(value).__name__}.")
        given = dict(value)
        if given.pop("version", _VERSION) != _VERSION:
            raise InputError(f"{where}: version {value['version']!r} is not {_VERSION}.")
        for name in given:
            if name not in cls.__dataclass_fields__:
                raise InputError(f"{where}: there is no sharing option {name!r}.")
        if "training" in given:
            training = given["training"]
            if not isinstance(training, Mapping):
                raise InputError(f"{where}: training must be a table of options.")
            base = {**_training().to_json(), **training}
            given["training"] = TrainingOptions.from_json(base, f"{where}: training")
        return cls(**given)
