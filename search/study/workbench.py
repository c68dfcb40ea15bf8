"""What the finals need done to models, and what comes of a step that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ...errors import CompileError, DeviceError, InputError, NumericsError
from ..space.architecture import Architecture
from .finalist import Finalist, Judged, Trained
from .measured import Measured

__all__ = ["INHERITED", "Workbench", "job", "tried"]

INHERITED = "inherited.canao"
"""What the bundle with inherited weights is called."""


class Workbench(Protocol):
    """Makes and measures models."""

    def inherit(self, architecture: Architecture, folder: Path) -> Path:
        """Compile the architecture with the teacher's weights; the bundle, `INHERITED`."""

    def adapt(self, architecture: Architecture) -> float:
        """Its accuracy on rows held out after a few steps of training with shared weights."""

    def train(self, architecture: Architecture, folder: Path) -> Trained:
        """Train it in full; goes on where it was killed."""

    def compile(
        self, architecture: Architecture, trained: Trained, folder: Path
    ) -> tuple[Path, Architecture]:
        """Compile a trained model and check its numbers; the bundle, and the architecture in it,
        of which layers may be wider than asked."""

    def measure(self, bundle: Path, device: str) -> Measured:
        """Measure a bundle."""

    def evaluate(self, architecture: Architecture, bundle: Path, device: str) -> Judged:
        """The metric of a bundle, run on a device."""


def tried(one: Finalist, step: Callable[[], Finalist]) -> Finalist:
    """What a step gives; refused where it fails for what the model is."""
    try:
        return step()
    except DeviceError:
        raise
    except (CompileError, InputError, NumericsError) as error:
        return one.replace(refused=(str(error),))


def job(bench: Workbench, one: Finalist) -> Callable[[str], Measured]:
    """What a pool of devices runs to measure the bundle of one that was compiled."""
    assert one.bundle is not None
    bundle = Path(one.bundle)
    return lambda device: bench.measure(bundle, device)
