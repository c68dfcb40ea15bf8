"""Measuring for the command line: one bundle or two, into a store, told in words or JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import console

if TYPE_CHECKING:
    from ..runtime_harness.comparison import Compared
    from ..runtime_harness.measurement import Measurement

__all__ = ["BenchReport", "measure"]


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """A measurement, what it was ``compared`` with, and the ``store`` it went to."""

    bundle: str
    measurement: Measurement
    other: str | None = None
    compared: Compared | None = None
    store: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the measurement's fields, with ``compare`` beside them if there is another."""
        value = self.measurement.to_json()
        if self.compared is not None:
            value["compare"] = {
                "bundle": self.other,
                "ratio": self.compared.ratio,
                "interval": list(self.compared.interval),
                "stable": self.compared.stable,
                "reason": self.compared.reason,
                "measurement": self.compared.other.to_json(),
            }
        return value

    @property
    def right(self) -> bool:
        """Whether no outputs were beyond the tolerance just before."""
        measured = (self.measurement, *([self.compared.other] if self.compared else []))
        return all(one.numerics_ok is not False for one in measured)

    def print(self) -> None:
        """Tell it in a line or three."""
        _tell(self.bundle, self.measurement)
        if self.compared is not None and self.other is not None:
            _tell(self.other, self.compared.other)
            low, high = self.compared.interval
            mark = "" if self.compared.stable else f", UNSTABLE ({self.compared.reason})"
            console.say(
                f"{self.bundle} is {self.compared.ratio:.3f} times as fast as {self.other} "
                f"(95 %: {low:.3f} to {high:.3f}){mark}"
            )
        if self.store is not None:
            console.say(f"added to {self.store}")


def measure(
    bundle: str, device: str, *, other: str | None, store: str | None, **options: Any
) -> BenchReport:
    """Measure a bundle, beside an ``other`` if there is one; add what was found to a ``store``.

    ``options`` are those of ``canao.bench``. A store that cannot be written is refused before
    anything is measured. For a store, single dispatches are timed as well.
    """
    from ..runtime_harness.bench import bench
    from ..runtime_harness.comparison import compare
    from ..runtime_harness.selection import open_bundle
    from ..runtime_harness.timing_store import TimingStore

    timings = None if store is None else TimingStore(store)
    if timings is not None:
        timings.check()
    options["dispatches"] = timings is not None
    compared = None if other is None else compare(bundle, other, device, **options)
    found = bench(bundle, device, **options) if compared is None else compared.measurement
    if timings is not None:
        for path, one in ((bundle, found), (other, compared.other if compared else None)):
            if path is not None and one is not None:
                timings.add_of(open_bundle(path), one)
    return BenchReport(
        bundle=bundle, measurement=found, other=other, compared=compared, store=store
    )


def _tell(bundle: str, found: Measurement) -> None:
    low, high = (console.milliseconds(value) for value in found.interval)
    relative = f", {found.relative:.3f} of the reference" if found.relative is not None else ""
    marks = "" if found.stable else f", UNSTABLE ({found.reason})"
    marks += ", emulated: not a time of real silicon" if found.emulated else ""
    marks += ", and its NUMBERS DIFFER from the reference" if found.numerics_ok is False else ""
    console.say(
        f"{bundle}, {found.target} at {found.seq_len} on {found.device}, {found.threads} "
        f"thread(s): median {console.milliseconds(found.median_ms)} ms (95 %: {low} to {high}), "
        f"p90 {console.milliseconds(found.p90_ms)} ms over {len(found.samples_ms)} calls"
        f"{relative}{marks}"
    )
