"""The buffers through which a module in this process gets its inputs and gives its outputs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from .tensors import numpy_dtype, shape_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import ModuleEntry, TensorSpec

__all__ = ["InputBuffer", "OutputBuffer"]

# The upper byte of a HAL element type: integers without sign, signed and unsigned.
_INTEGERS = (0x10, 0x11, 0x12)


class InputBuffer:
    """One input: ``array`` to write to, and ``view``, the buffer view that the module reads.

    If ``mapped``, the array is the device's own memory; else ``upload`` copies it there.
    """

    def __init__(
        self, spec: TensorSpec, module: ModuleEntry, device: Any, *, mapped: bool
    ) -> None:
        import numpy as np
        from iree.runtime import _binding as iree

        shape, dtype = list(shape_of(spec, module)), numpy_dtype(spec.dtype)
        self._device = device
        self._type = _element_type(spec)
        self.view: Any = None
        if not mapped:
            self.array = np.zeros(shape, dtype)
            return
        buffer = device.allocator.allocate_buffer(
            memory_type=iree.MemoryType.DEVICE_LOCAL | iree.MemoryType.HOST_VISIBLE,
            allowed_usage=iree.BufferUsage.DEFAULT | iree.BufferUsage.MAPPING,
            allocation_size=max(1, math.prod(shape)) * dtype.itemsize,
        )
        self.array = _as_array(buffer.map(), shape, dtype)
        self.array.fill(0)
        self.view = iree.HalBufferView(buffer, shape, self._type)

    def upload(self) -> None:
        """Copy the array to the device, which makes ``view`` a new one."""
        from iree.runtime import _binding as iree

        self.view = self._device.allocator.allocate_buffer_copy(
            memory_type=iree.MemoryType.DEVICE_LOCAL,
            allowed_usage=iree.BufferUsage.DEFAULT,
            device=self._device,
            buffer=self.array.view(_plain(self.array.dtype)),
            element_type=self._type,
        )


class OutputBuffer:
    """One output: checks what the module returns, and makes it readable."""

    def __init__(
        self, spec: TensorSpec, module: ModuleEntry, device: Any, *, mapped: bool
    ) -> None:
        self._spec = spec
        self._shape = list(shape_of(spec, module))
        self._dtype = numpy_dtype(spec.dtype)
        self._device = device
        self._mapped = mapped
        self._checked = False
        self._staging: Any = None

    def read(self, view: Any) -> NDArray[Any]:
        """Return the values behind a buffer view, valid until the next call.

        Raises BundleError if they are not of the manifest's shape and type.
        """
        if not self._checked:
            self._check(view)
        return _as_array(
            view.map() if self._mapped else self._stage(view), self._shape, self._dtype
        )

    def _check(self, view: Any) -> None:
        found, expected = int(view.element_type), int(_element_type(self._spec))
        integers = found >> 24 in _INTEGERS and expected >> 24 in _INTEGERS
        same = found == expected or (integers and found & 0xFF == expected & 0xFF)
        if list(view.shape) != self._shape or not same:
            raise BundleError(
                f"the module returns another shape or type for the output {self._spec.name!r} "
                f"({list(view.shape)}, element type 0x{found:08x}) than the manifest says "
                f"({self._shape}, {self._dtype}): build the bundle again"
            )
        self._checked = True

    def _stage(self, view: Any) -> Any:
        """Copy to memory that this process sees, and map it."""
        from iree.runtime import _binding as iree

        source = view.get_buffer()
        if self._staging is None:
            self._staging = self._device.allocator.allocate_buffer(
                memory_type=iree.MemoryType.HOST_LOCAL | iree.MemoryType.DEVICE_VISIBLE,
                allowed_usage=iree.BufferUsage.TRANSFER_TARGET | iree.BufferUsage.MAPPING_SCOPED,
                allocation_size=source.byte_length(),
            )
        semaphore = self._device.create_semaphore(0)
        self._device.queue_copy(
            source,
            self._staging,
            iree.HalFence.create_at(semaphore, 0),
            iree.HalFence.create_at(semaphore, 1),
        )
        iree.HalFence.create_at(semaphore, 1).wait()
        return self._staging.map()


def _as_array(mapping: Any, shape: list[int], dtype: Any) -> NDArray[Any]:
    array: NDArray[Any] = mapping.asarray(shape, _plain(dtype))
    return array if array.dtype == dtype else array.view(dtype)


def _plain(dtype: Any) -> Any:
    """Return a type of the same size that IREE's binding takes from NumPy's buffers."""
    import numpy as np

    return np.dtype(f"u{dtype.itemsize}") if dtype.kind in "Vb" else dtype


def _element_type(spec: TensorSpec) -> Any:
    from iree.runtime.dtypes import map_dtype_to_hal_element_type

    return map_dtype_to_hal_element_type(numpy_dtype(spec.dtype))
