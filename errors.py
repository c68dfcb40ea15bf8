"""Every error canao raises on purpose: one root, and kinds a caller can act on.

Each message is one sentence that says what was wrong, where, and what to do. The command
line turns ``exit_code`` into the status of the process; the codes are stable.
"""

__all__ = [
    "BundleError",
    "CanaoError",
    "CompileError",
    "DeviceError",
    "DoesNotFitError",
    "InputError",
    "MissingDeviceError",
    "NumericsError",
    "UnsupportedError",
]


class CanaoError(Exception):
    """Root of every error that canao raises on purpose."""

    exit_code: int = 1


class InputError(CanaoError):
    """The call or its input is wrong: a name, a path, a shape, a dtype, a value."""

    exit_code = 2


class BundleError(InputError):
    """A bundle cannot be trusted or read: truncated, tampered with, too new, hostile."""


class MissingDeviceError(InputError):
    """A device, or a feature a module needs of it, is not here."""


class UnsupportedError(InputError):
    """An op, a shape or a precision has no form on this target."""


class DoesNotFitError(CanaoError):
    """A latency, memory or accuracy specification cannot be met.

    ``found``: what was found nevertheless, as plain JSON values; None where nothing was.
    """

    exit_code = 3

    def __init__(self, message: str, found: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.found = found


class NumericsError(CanaoError):
    """A compiled model's numbers differ from the reference beyond the tolerance."""

    exit_code = 4


class DeviceError(CanaoError):
    """A device was lost, or a call on it ran out of time."""

    exit_code = 5


class CompileError(CanaoError):
    """The compiler crashed, ran out of time or memory, or produced invalid IR."""
