"""Pruning whole blocks of weights, more and more of them while a model trains.

The share that is kept falls from 1 to the recipe's density d as d + (1 - d)(1 - t)^3 (Zhu and
Gupta 2017, arXiv 1710.01878). Which blocks stay: those with the largest sums of squares, or, by
movement (Sanh et al. 2020, arXiv 2005.07683; Lagunas et al. 2021, arXiv 2109.04838), those whose
weights training moved away from zero most, -sum of weight times gradient.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from ...errors import InputError
from .blocks import block_count, block_sums, expanded
from .matching import matrices, rule_for
from .recipe import Recipe, SparsityRule
from .validation import check_blocks, check_rules, kept_blocks

__all__ = ["BlockSparsifier", "Method"]

Method = Literal["magnitude", "movement"]


class BlockSparsifier:
    """Zeroes blocks of a model's weights in place, as the ``sparsity`` rules of a recipe say.

    ``model`` has its final structure already. Raises `InputError` where there is no rule, where
    one fits no matrix, where a block is served by no kernel, or where a matrix would be empty.
    """

    def __init__(self, model: Any, recipe: Recipe, *, method: Method = "magnitude") -> None:
        if not recipe.sparsity:
            raise InputError("sparsity: the recipe has no rule, so there is nothing to zero.")
        if method not in ("magnitude", "movement"):
            raise InputError(f"The method is magnitude or movement, not {method!r}.")
        check_blocks(recipe)
        check_rules(recipe, model)
        self.method: Method = method
        self._weights: dict[str, nn.Parameter] = {}
        self._rules: dict[str, SparsityRule] = {}
        for name, weight in matrices(model).items():
            rule = rule_for(recipe.sparsity, name, model)
            if rule is not None:
                self._weights[name], self._rules[name] = weight, rule
        self._blocks = {
            name: torch.ones(self._count(name), dtype=torch.bool, device=weight.device)
            for name, weight in self._weights.items()
        }
        self._scores: dict[str, torch.Tensor] = {}
        if method == "movement":
            self._scores = {
                name: torch.zeros(blocks.shape, device=blocks.device)
                for name, blocks in self._blocks.items()
            }
        self._elements = self.masks()

    def step(self, progress: float) -> None:
        """Choose the blocks that stay at ``progress`` (0 at the start, 1 at the end), zero the
        others. Blocks that went come back only where their weights did since (`apply` keeps
        them away)."""
        if not 0 <= progress <= 1:
            raise InputError(f"Progress is from 0 to 1, not {progress!r}.")
        for name, weight in self._weights.items():
            rule = self._rules[name]
            least, blocks = kept_blocks(rule, weight), self._blocks[name]
            density = rule.density + (1 - rule.density) * (1 - progress) ** 3
            count = max(least, round(density * blocks.numel()))
            scores = self._score(name).flatten()
            kept = torch.argsort(scores, descending=True, stable=True)[:count]
            chosen = torch.zeros_like(blocks).flatten()
            chosen[kept] = True
            self._blocks[name] = chosen.reshape(blocks.shape)
        self._elements = self.masks()
        self.apply()

    def accumulate(self) -> None:
        """Add what the present gradients say of movement; after ``backward``, before the
        optimiser's step. Nothing to do for magnitudes."""
        with torch.no_grad():
            for name, scores in self._scores.items():
                weight = self._weights[name]
                if weight.grad is not None:
                    scores -= block_sums(weight * weight.grad, self._rules[name].block)

    def apply(self) -> None:
        """Zero again what an optimiser's step has filled."""
        with torch.no_grad():
            for name, mask in self._elements.items():
                self._weights[name].mul_(mask)

    def masks(self) -> dict[str, torch.Tensor]:
        """By name of a weight [outputs, inputs], which of its elements stay; bool, its shape."""
        return {
            name: expanded(
                blocks,
                self._rules[name].block,
                (self._weights[name].shape[0], self._weights[name].shape[1]),
            )
            for name, blocks in self._blocks.items()
        }

    def densities(self) -> dict[str, float]:
        """By name of a weight, the share of its blocks that stay."""
        return {name: float(blocks.float().mean()) for name, blocks in self._blocks.items()}

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes: block masks and scores by name of the weight."""
        return {
            "method": self.method,
            "blocks": {name: blocks.clone() for name, blocks in self._blocks.items()},
            "scores": {name: scores.clone() for name, scores in self._scores.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`. Raises `InputError` where it is of another model or method."""
        blocks, scores = state["blocks"], state["scores"]
        found = {name: tuple(tensor.shape) for name, tensor in blocks.items()}
        own = {name: tuple(tensor.shape) for name, tensor in self._blocks.items()}
        if found != own or state["method"] != self.method or set(scores) != set(self._scores):
            raise InputError(
                "The state of the sparsifier is of another model, recipe or method: begin anew."
            )
        for name, tensor in blocks.items():
            self._blocks[name] = tensor.to(self._blocks[name].device, torch.bool).clone()
        for name, tensor in scores.items():
            self._scores[name] = tensor.to(self._scores[name].device).clone()
        self._elements = self.masks()
        self.apply()

    def _score(self, name: str) -> torch.Tensor:
        if self.method == "movement":
            return self._scores[name]
        return block_sums(self._weights[name].detach().square(), self._rules[name].block)

    def _count(self, name: str) -> tuple[int, int]:
        outputs, inputs = self._weights[name].shape
        return block_count((outputs, inputs), self._rules[name].block)
