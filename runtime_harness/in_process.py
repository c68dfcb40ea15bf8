"""Modules run inside this process through IREE's runtime: the fastest way to call them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ..errors import BundleError, CanaoError, DeviceError
from .buffers import InputBuffer, OutputBuffer
from .hal_devices import forget, iree_errors
from .mismatch import contradiction
from .standing_back import standing_back
from .tensors import WEIGHTS_FILE, WEIGHTS_SCOPE
from .tools import error_line

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle, ModuleEntry

__all__ = ["InProcessEngine"]


class InProcessEngine:
    """Opens a bundle's modules on one HAL device. The weights are mapped, not read.

    IREE uses them where they lie if they start at a multiple of 64 bytes, and copies them else.
    ``check`` refuses modules the device cannot run. ``mapped`` says that the device works in
    this process's own memory, so that inputs and outputs need not be transferred; ``pooled``, that
    workers of this process do the work while the caller waits.
    """

    stoppable = False

    def __init__(
        self,
        bundle: Bundle,
        device: Any,
        *,
        check: Callable[[Bundle, ModuleEntry], None],
        mapped: bool,
        pooled: bool = False,
    ) -> None:
        from iree.runtime import _binding as iree

        self._bundle = bundle
        self._device = device
        self._check = check
        self._mapped = mapped
        self._waiting = standing_back if pooled else nullcontext
        self._instance = iree.VmInstance()
        self._modules = [iree.create_hal_module(self._instance, device)]
        if WEIGHTS_FILE in bundle.manifest.files:
            with iree_errors(f"{WEIGHTS_FILE} of {bundle.path}", BundleError):
                index = iree.ParameterIndex()
                handle = iree.FileHandle.wrap_memory(bundle.read(WEIGHTS_FILE))
                index.load_from_file_handle(handle, "safetensors")
                provider = index.create_provider(scope=WEIGHTS_SCOPE)
                self._modules.append(iree.create_io_parameters_module(self._instance, provider))

    def open(self, module: ModuleEntry) -> _InProcessProgram:
        """Load a module, its weights packed. Raises BundleError or DeviceError."""
        from iree.runtime import _binding as iree

        self._check(self._bundle, module)
        what = f"{module.file} of {self._bundle.path}"
        code = self._bundle.read(module.file)
        with iree_errors(what, BundleError):
            compiled = iree.VmModule.copy_buffer(self._instance, code)
            context = iree.VmContext(self._instance, [*self._modules, compiled])
            function = compiled.lookup_function(module.function)
        if function is None:
            raise BundleError(f"{what} has no function {module.function!r}: build it again")
        return _InProcessProgram(
            *(self._bundle, module, self._device, context, function),
            mapped=self._mapped,
            waiting=self._waiting,
        )

    def close(self) -> None:
        """Let go of the device and the weights."""
        self._modules = []
        self._device = self._instance = None


class _InProcessProgram:
    """One module with its input buffers, which are made once and written over."""

    def __init__(
        self,
        bundle: Bundle,
        module: ModuleEntry,
        device: Any,
        context: Any,
        function: Any,
        *,
        mapped: bool,
        waiting: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._waiting = waiting
        self._what = f"{module.file} of {bundle.path}"
        self._device, self._mapped = device, mapped
        self._context, self._function = context, function
        manifest = bundle.manifest
        with iree_errors(self._what, DeviceError):
            self._inputs = [
                InputBuffer(spec, module, device, mapped=mapped) for spec in manifest.inputs
            ]
            self._outputs = [
                OutputBuffer(spec, module, device, mapped=mapped) for spec in manifest.outputs
            ]
            self._arguments = self._argument_list() if mapped else None
        self.inputs: Sequence[NDArray[Any]] = [item.array for item in self._inputs]

    def _argument_list(self) -> Any:
        from iree.runtime import _binding as iree

        arguments = iree.VmVariantList(len(self._inputs))
        for item in self._inputs:
            arguments.push_ref(item.view)
        return arguments

    def invoke(self, timeout: float | None) -> list[NDArray[Any]]:
        """Run once. ``timeout`` is the session's business here."""
        from iree.runtime import _binding as iree

        try:
            if not self._mapped:
                for item in self._inputs:
                    item.upload()
                self._arguments = self._argument_list()
            results = iree.VmVariantList(len(self._outputs))
            with self._waiting():
                self._context.invoke(self._function, self._arguments, results)
            if len(results) != len(self._outputs):
                raise BundleError(
                    f"{self._what} returns {len(results)} tensors, "
                    f"but the manifest has {len(self._outputs)} outputs: build it again"
                )
            return [
                output.read(results.get_as_object(index, iree.HalBufferView))
                for index, output in enumerate(self._outputs)
            ]
        except CanaoError:
            raise
        except Exception as error:  # the binding turns each status into another kind
            line = error_line(str(error))
            words = contradiction(line)
            if words:
                raise BundleError(
                    f"{self._what} is not what the manifest says ({words}): build it again"
                ) from error
            forget(self._device)
            raise DeviceError(f"{self._what} failed: {line}") from error

    def close(self) -> None:
        """Let go of the module's buffers and its context."""
        self.inputs = []
        self._inputs, self._outputs = [], []
        self._arguments = self._context = self._function = None
        self._device = None
