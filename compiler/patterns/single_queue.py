"""Everything a module submits goes to one queue of the GPU.

Before::

    flow.dispatch ... {stream.affinity = #hal.device.affinity<@__device_0>}

After::

    flow.dispatch ... {stream.affinity = #hal.device.affinity<@__device_0, [0]>}

Law: the order of work is kept by its dependencies, not by the queue it is submitted to. Without
a queue, IREE's Vulkan driver makes a lane for compute and one for transfers. Where a device has
one queue, as software Vulkan and many phones do, both share it, and their two threads signal
one timeline semaphore, now and then with values out of order. Vulkan forbids that: the
driver reports a lost device or waits for ever, about once in fifty loads.
"""

from __future__ import annotations

from typing import Any

from iree.compiler import ir

from .base import Pattern, PatternContext, Stage, walk

__all__ = ["SingleQueue"]

_ANY = "#hal.device.affinity<@__device_0>"
_FIRST = "#hal.device.affinity<@__device_0, [0]>"


class SingleQueue(Pattern):
    """See the module's docstring. Required on Vulkan: without it a load may fail."""

    name = "canao.single_queue"
    stage: Stage = "dispatch"
    target_kinds = ("vulkan",)
    required = True

    def run(self, module: ir.Module, context: PatternContext) -> int:
        """Pin every affinity; returns how many attributes changed."""
        return sum(_pin(op) for op in walk(module.operation))


def _pin(op: Any) -> int:
    changed = 0
    for name in [named if isinstance(named, str) else named.name for named in op.attributes]:
        attribute = op.attributes[name]
        if isinstance(attribute, (ir.DenseElementsAttr, ir.DenseResourceElementsAttr)):
            continue  # numbers: no affinity inside, and long to print
        text = str(attribute)
        if _ANY in text:
            op.attributes[name] = ir.Attribute.parse(text.replace(_ANY, _FIRST))
            changed += 1
    return changed
