"""Copies of a whole tensor disappear.

Before::

    %y = torch.aten.clone %x, none        (what dropout leaves behind at inference)

After: readers of ``%y`` read ``%x``.

Law: value tensors are immutable, so a copy is its source. Patterns that look for neighbours
(a product and its residual, a norm and the product that reads it) then see them side by side.
"""

from __future__ import annotations

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations

__all__ = ["StripCopies"]


class StripCopies(Pattern):
    """See the module's docstring."""

    name = "canao.strip_copies"
    stage: Stage = "torch"

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Remove every copy that keeps the type."""
        del context
        applied = 0
        for op in operations(module, "torch.aten.clone"):
            if op.operands[0].type == op.results[0].type:
                op.results[0].replace_all_uses_with(op.operands[0])
                op.erase()
                applied += 1
        return applied
