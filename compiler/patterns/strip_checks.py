"""Run-time checks of static facts disappear.

Before::

    torch.aten._assert_tensor_metadata %mask, ...
    torch.aten._assert_scalar %ok, "..."

After: nothing.

Law: torch.export has specialised the program to the shapes and dtypes that these operations
assert, and the harness refuses inputs of any other.
"""

from __future__ import annotations

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations

__all__ = ["StripChecks"]

_CHECKS = ("torch.aten._assert_tensor_metadata", "torch.aten._assert_scalar")


class StripChecks(Pattern):
    """See the module's docstring. Required: the checks have no lowering."""

    name = "canao.strip_checks"
    stage: Stage = "torch"
    required = True

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Erase every check."""
        checks = [op for name in _CHECKS for op in operations(module, name)]
        for op in checks:
            op.erase()
        return len(checks)
