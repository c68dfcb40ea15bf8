"""What a student is to learn from its teacher, and how the tensors of it lie side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Columns", "Targets"]


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What a teacher says of one batch; by the student's layer, -1 the embeddings.

    All tensors are [rows, tokens, ...] but the logits of whole texts, which are [rows, labels].
    """

    logits: Mapping[str, torch.Tensor]
    hidden: Mapping[int, torch.Tensor]
    projections: Mapping[int, tuple[torch.Tensor, ...]]

    def tensors(self) -> list[torch.Tensor]:
        """All of them, in the order that `with_tensors` takes them."""
        found = [*self.logits.values(), *self.hidden.values()]
        for parts in self.projections.values():
            found += parts
        return found

    def with_tensors(self, tensors: Iterable[torch.Tensor]) -> Targets:
        """The same targets with other tensors."""
        left = iter(tensors)
        return Targets(
            logits={name: next(left) for name in self.logits},
            hidden={place: next(left) for place in self.hidden},
            projections={
                place: tuple(next(left) for _ in parts)
                for place, parts in self.projections.items()
            },
        )


class Columns:
    """The targets of tokens as the columns of one matrix; those of whole texts stay apart."""

    def __init__(self, targets: Targets) -> None:
        tensors = targets.tensors()
        self._like = targets.with_tensors(one.new_empty(0) for one in tensors)
        self._shapes = [tuple(one.shape[2:]) for one in tensors]
        self._of_texts = [False] * len(tensors)
        for at, (name, one) in enumerate(targets.logits.items()):
            self._of_texts[at] = name == "logits" and one.ndim == 2
        tokens = zip(self._shapes, self._of_texts, strict=True)
        self.width = sum(math.prod(shape) for shape, whole in tokens if not whole)

    def texts(self, targets: Targets) -> list[torch.Tensor]:
        """Those of whole texts, each [rows, labels]."""
        pairs = zip(targets.tensors(), self._of_texts, strict=True)
        return [one for one, whole in pairs if whole]

    def join(self, targets: Targets) -> torch.Tensor:
        """Those of tokens: [rows, tokens, width]; there must be some."""
        pairs = zip(targets.tensors(), self._of_texts, strict=True)
        return torch.cat(
            [one.reshape(*one.shape[:2], -1) for one, whole in pairs if not whole], -1
        )

    def cut(self, joined: torch.Tensor, texts: Sequence[torch.Tensor]) -> Targets:
        """What `join` and `texts` gave; of the tokens' tensors, views."""
        left, start, found = iter(texts), 0, []
        for shape, whole in zip(self._shapes, self._of_texts, strict=True):
            if whole:
                found.append(next(left))
                continue
            stop = start + math.prod(shape)
            found.append(joined[..., start:stop].view(*joined.shape[:2], *shape))
            start = stop
        return self._like.with_tensors(found)
