"""Sessions: a bundle loaded on a device, called with NumPy arrays of any length and number."""

from __future__ import annotations

import atexit
import os
import time
import weakref
from collections.abc import Callable, Sequence
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import DeviceError, InputError
from .bucket import Bucket
from .feeds import Feeds, check_feeds
from .forking import in_child
from .keeping import keep_for_ever
from .watchdog import Expired, Watchdog

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .bundle import Bundle
    from .engine import Engine

__all__ = ["Session", "load"]

T = TypeVar("T")

# Those that hold something of IREE, closed or not.
_live: weakref.WeakSet[Session] = weakref.WeakSet()


def load(
    bundle: Bundle | str | os.PathLike[str],
    device: str = "local",
    *,
    target: str | None = None,
    threads: int = 1,
    timeout: float | None = None,
    truncate: bool = False,
) -> Session:
    """Load a bundle on a device and return a session to call.

    ``target`` chooses among the bundle's targets (None: the one that fits the device best),
    ``threads`` the number of CPU threads and ``timeout`` the seconds that one call may take
    (None: any). With ``truncate``, inputs longer than the longest compiled length are cut at
    their end; without it they are refused.

    Raises InputError for a wrong argument, BundleError for a bundle that cannot be read, and
    MissingDeviceError if the device is not here or lacks what the modules need.
    """
    from .devices import get
    from .selection import open_bundle

    return get(device).session(
        open_bundle(bundle), target=target, threads=threads, timeout=timeout, truncate=truncate
    )


class Session:
    """A loaded model. ``session(input_ids=..., attention_mask=...)`` gives its outputs by name.

    Inputs are arrays (or nested lists) of shape (rows, length); integer types are taken as they
    come if the values fit. ``attention_mask`` may be left out (all ones), and so may
    ``token_type_ids`` (all zeros). Any number of rows will do, and any length up to the longest
    compiled one: inputs are padded to the next compiled length, and outputs are cut to the real
    positions. Outputs are new arrays, the caller's to keep. The longest length is loaded at once
    and each other one when it is first needed; each keeps its own packed weights in memory.

    A session is a context manager. It may be called from several threads, one call at a time,
    but not from a forked child. After a call in this process that ran out of time it refuses
    further use. Devices make sessions; ``seq_lens`` restricts one to some of the lengths.

    Calls raise InputError for inputs the model does not take, and DeviceError if the device
    fails or the call runs out of time.
    """

    _released = True  # nothing to release before there is something

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        *,
        device: str,
        target: str,
        seq_lens: Sequence[int] | None = None,
        timeout: float | None = None,
        truncate: bool = False,
    ) -> None:
        self._bundle, self._engine = bundle, engine
        self._device, self._target = device, target
        self._timeout, self._truncate = timeout, truncate
        self._seq_lens = bundle.seq_lens(target) if seq_lens is None else tuple(sorted(seq_lens))
        self._output_names = [spec.name for spec in bundle.manifest.outputs]
        self._buckets: dict[int, Bucket] = {}
        self._watchdog: Watchdog | None = None
        self._refusal: str = ""
        self._lost = False
        self._lock = RLock()
        self._pid = os.getpid()
        self._released = False
        _live.add(self)
        try:
            # The longest now, so that a module that cannot be loaded fails here.
            self._limited(lambda deadline: self._bucket(self._seq_lens[-1]))
        except BaseException:
            self.close()
            raise

    @property
    def bundle(self) -> Bundle:
        """The bundle that is loaded."""
        return self._bundle

    @property
    def device(self) -> str:
        """The name of the device it runs on."""
        return self._device

    @property
    def target(self) -> str:
        """The target whose modules it runs."""
        return self._target

    @property
    def seq_lens(self) -> tuple[int, ...]:
        """The compiled sequence lengths, ascending."""
        return self._seq_lens

    def __call__(self, **inputs: Any) -> dict[str, NDArray[Any]]:
        """Run the model and return its outputs by name; see the class."""
        if os.getpid() != self._pid:
            raise InputError(
                "this session was loaded before the process forked: load the bundle in the child"
            )
        with self._lock:
            self._check_usable()
            feeds = check_feeds(
                self._bundle.manifest,
                inputs,
                longest=self._seq_lens[-1],
                truncate=self._truncate,
            )
            return self._limited(lambda deadline: self._run(feeds, deadline))

    def _check_usable(self) -> None:
        if self._refusal:
            raise (DeviceError if self._lost else InputError)(self._refusal)

    def _limited(self, work: Callable[[float | None], T]) -> T:
        """Do ``work`` within the time-out; it gets the deadline that it has to keep itself."""
        if self._timeout is None:
            return work(None)
        if self._engine.stoppable:
            return work(time.monotonic() + self._timeout)
        if self._watchdog is None:
            self._watchdog = Watchdog()
        try:
            return self._watchdog.run(lambda: work(None), self._timeout)
        except Expired:
            self._lost = True
            self._refusal = (
                f"a call on {self._device} did not return within {self._timeout:g} s, "
                "so this session is lost: load the bundle again"
            )
            raise DeviceError(self._refusal) from None

    def _run(self, feeds: Feeds, deadline: float | None) -> dict[str, NDArray[Any]]:
        length = feeds.length or 0
        seq_len = next(size for size in self._seq_lens if size >= length)
        outputs = self._bucket(seq_len).run(feeds, deadline)
        return dict(zip(self._output_names, outputs, strict=True))

    def _bucket(self, seq_len: int) -> Bucket:
        bucket = self._buckets.get(seq_len)
        if bucket is None:
            module = self._bundle.module(self._target, seq_len)
            bucket = Bucket(self._bundle.manifest, module, self._engine.open(module))
            self._buckets[seq_len] = bucket
        return bucket

    def close(self) -> None:
        """Give back the device and the memory; the session cannot be called afterwards."""
        if os.getpid() != self._pid:  # all of it still belongs to the parent
            return
        with self._lock:
            self._refusal = self._refusal or "this session is closed: load the bundle again"
            if self._watchdog is not None:
                self._watchdog.close()
            if not self._is_busy():  # else what the lost call works on must stay as it is
                self._release()

    def _is_busy(self) -> bool:
        """Whether a call that ran out of time is still running."""
        return self._watchdog is not None and self._watchdog.is_busy

    def _release(self) -> None:
        # In this order: a device must outlive what was made on it.
        self._released = True
        _live.discard(self)
        for bucket in self._buckets.values():
            bucket.close()
        self._buckets = {}
        self._engine.close()

    def __del__(self) -> None:
        # The call that ran out of time, if there was one, has returned: it refers to the session.
        if not self._released:
            self.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session({str(self._bundle.path)!r}, {self._device!r}, target={self._target!r})"


def _close_all() -> None:
    # IREE's objects must be gone before the interpreter is, or its binding complains.
    for session in list(_live):
        session.close()
    for session in list(_live):  # a lost call still works on them, and nothing can stop it
        keep_for_ever(session)


def _leave_to_parent() -> None:
    """In a forked child: keep the parent's sessions as they are."""
    for session in list(_live):
        keep_for_ever(session)
    _live.clear()


atexit.register(_close_all)
in_child(_leave_to_parent)
