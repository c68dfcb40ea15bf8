"""Sessions whose every call is a process of its own: slow to start, but always stoppable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .tensors import numpy_dtype, shape_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle, ModuleEntry

__all__ = ["ProcessEngine", "RunModule"]

RunModule = Callable[
    ["ModuleEntry", "dict[str, NDArray[Any]]", "float | None"], "list[NDArray[Any]]"
]
"""Runs a module once on inputs by name, within a time-out in seconds."""


class ProcessEngine:
    """Opens modules by remembering them; ``run`` does the work of each call.

    ``check`` refuses modules the device cannot run, and ``resources`` are released at the end.
    """

    stoppable = True

    def __init__(
        self,
        bundle: Bundle,
        *,
        check: Callable[[Bundle, ModuleEntry], None],
        run: RunModule,
        resources: contextlib.ExitStack | None = None,
    ) -> None:
        self._bundle, self._check, self._run = bundle, check, run
        self._resources = resources or contextlib.ExitStack()

    def open(self, module: ModuleEntry) -> _ProcessProgram:
        """Return the module, ready to be called; raises MissingDeviceError."""
        self._check(self._bundle, module)
        return _ProcessProgram(self._bundle, module, self._run)

    def close(self) -> None:
        """Release the resources."""
        self._resources.close()


class _ProcessProgram:
    def __init__(self, bundle: Bundle, module: ModuleEntry, run: RunModule) -> None:
        import numpy as np

        self._module, self._run = module, run
        self._names = [spec.name for spec in bundle.manifest.inputs]
        self.inputs: Sequence[NDArray[Any]] = [
            np.zeros(shape_of(spec, module), numpy_dtype(spec.dtype))
            for spec in bundle.manifest.inputs
        ]

    def invoke(self, timeout: float | None) -> list[NDArray[Any]]:
        inputs = dict(zip(self._names, self.inputs, strict=True))
        return self._run(self._module, inputs, timeout)

    def close(self) -> None:
        self.inputs = []
