"""Buffers of bytes, on a GPU whose entry in IREE's table does not list them.

Before::

    util.global @__device_0 = #hal.device.target<... storage = b64|b32|b16 ...>

After::

    util.global @__device_0 = #hal.device.target<... storage = b64|b32|b16|b8 ...>

Law: none for the numbers; the module asks the driver for one feature more
(storageBuffer8BitAccess), which the bundle lists among what it needs.
"""

from __future__ import annotations

import re

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, operations

__all__ = ["ByteStorage"]

_STORAGE = re.compile(r"storage = ([\w|]+)")


class ByteStorage(Pattern):
    """See the module's docstring. Required: where the table has no bytes, int8 has no form."""

    name = "canao.byte_storage"
    stage: Stage = "dispatch"
    target_kinds = ("vulkan",)
    required = True

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Add bytes to what each device stores of a module with bytes."""
        if context.precision not in ("int8", "int8-weights"):
            return 0
        changed = 0
        for op in operations(module, "util.global"):
            before = (
                str(op.attributes["initial_value"]) if "initial_value" in op.attributes else ""
            )
            if not before.startswith("#hal.device"):
                continue
            after = _STORAGE.sub(_with_bytes, before)
            if after != before:
                op.attributes["initial_value"] = ir.Attribute.parse(after)
                changed += 1
        return changed


def _with_bytes(match: re.Match[str]) -> str:
    return match[0] if "b8" in match[1].split("|") else f"{match[0]}|b8"
