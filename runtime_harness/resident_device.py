"""What devices have in common whose modules run in this process."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from .device import check_threads, check_timeout
from .selection import choose_target
from .tool_device import ToolDevice

if TYPE_CHECKING:
    from .bundle import Bundle
    from .in_process import InProcessEngine
    from .session import Session

__all__ = ["ResidentDevice"]


class ResidentDevice(ToolDevice):
    """Base of a device that this process drives; a class defines how, by ``engine``."""

    resident = True

    def session(
        self,
        bundle: Bundle,
        *,
        target: str | None = None,
        threads: int = 1,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> Session:
        """Load the bundle into this process."""
        from .session import Session

        check_threads(threads, most=self.max_threads, device=self.name)
        check_timeout(timeout)
        chosen = choose_target(bundle, self, target)
        return Session(
            bundle,
            self.engine(bundle, target=chosen, threads=threads),
            device=self.name,
            target=chosen,
            timeout=timeout,
            truncate=truncate,
        )

    @abstractmethod
    def engine(self, bundle: Bundle, *, target: str, threads: int) -> InProcessEngine:
        """Return an engine for one target, inside this process."""
