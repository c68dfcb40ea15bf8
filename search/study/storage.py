"""Where trials are kept: the study's own file, a database, or a server of Optuna's."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CanaoError, InputError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

__all__ = ["open_storage", "reachable"]

_PATIENCE = 10.0
_GRPC = re.compile(r"grpc://([^/:@\s]+|\[[0-9a-fA-F:]+\]):([0-9]{1,5})/?")
_JOURNAL = "journal://"


def open_storage(url: str | None, own: Path, *, look: bool = False) -> BaseStorage:
    """The storage at ``url``: ``journal://FILE``, ``grpc://HOST:PORT`` (Optuna's proxy), or what
    SQLAlchemy takes, such as ``sqlite:///FILE`` and ``postgresql://HOST/NAME``. None: the
    journal ``own``. It is made if it is not there, unless ``look`` says that nothing shall be
    written.

    Raises `InputError` where there is none, or it cannot be reached, or a journal is damaged.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None or url.startswith(_JOURNAL):
        from .journal import Journal, JournalFile

        place = own if url is None else Path(url.removeprefix(_JOURNAL)).absolute()
        return Journal(JournalFile(place, look=look))
    if url.startswith("grpc:"):
        return _grpc(url)
    if "://" not in url:
        raise InputError(
            f"The storage {url!r} is no URL: name journal://FILE, sqlite:///FILE, "
            "postgresql://HOST/NAME or grpc://HOST:PORT."
        )
    try:
        if look and not _is_there(url):
            raise InputError(f"The storage {url} cannot be reached: there is no such file.")
        return optuna.storages.get_storage(url)
    except CanaoError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(
            f"The storage {url} needs the package {error.name!r}: install it."
        ) from error
    except Exception as error:
        raise InputError(f"The storage {url} cannot be reached: {_reason(error)}.") from error


@contextlib.contextmanager
def reachable(url: str | None) -> Iterator[None]:
    """Turn what a storage raises when it is lost, or holds nonsense, into one sentence.

    Raises `CanaoError`; canao's own errors, and what has nothing to do with it, pass.
    """
    from optuna.exceptions import StorageInternalError

    where = "The study's journal" if url is None else f"The storage {url}"
    try:
        yield
    except CanaoError:
        raise
    except Exception as error:
        # Named, not imported: most studies need neither package.
        foreign = type(error).__module__.partition(".")[0] in ("grpc", "sqlalchemy")
        if not foreign and not isinstance(error, StorageInternalError | ConnectionError):
            raise
        raise CanaoError(
            f"{where} was lost: {_reason(error)}; the same command goes on once it is back."
        ) from error


def _is_there(url: str) -> bool:
    """False for a SQLite file that would be made."""
    from sqlalchemy.engine import make_url

    parts = make_url(url)
    file = parts.database if parts.get_backend_name() == "sqlite" else None
    return not file or Path(file).exists()


def _grpc(url: str) -> BaseStorage:
    import optuna
    from optuna.storages import GrpcStorageProxy

    parts = _GRPC.fullmatch(url)
    if parts is None:
        raise InputError(f"The storage {url!r} must be grpc://HOST:PORT.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = GrpcStorageProxy(host=parts[1], port=int(parts[2]))
    try:
        proxy.wait_server_ready(timeout=_PATIENCE)
    except ConnectionError as error:
        raise InputError(
            f"The storage {url} cannot be reached: nothing answered in {_PATIENCE:g} s."
        ) from error
    return proxy


def _reason(error: BaseException) -> str:
    details = getattr(error, "details", None)
    text = details() if callable(details) else str(error)
    return (text or type(error).__name__).splitlines()[0].rstrip(".")
