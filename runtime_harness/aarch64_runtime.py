"""IREE's tools for 64-bit ARM Linux, fetched once: what the device ``qemu`` runs.

``python -m canao.runtime_harness.aarch64_runtime`` fetches them with pip: the aarch64 wheel of
the very version of iree-base-runtime that is installed. They are kept in the user's cache
directory, or in the one that the environment variable ``CANAO_CACHE_DIR`` names.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from ..errors import CanaoError, InputError, MissingDeviceError
from ..paths import cache_dir

__all__ = ["ensure", "find", "main"]

_PACKAGE = "iree-base-runtime"
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64")
_TOOLS = "iree/_runtime_libs"
_NEEDED = ("iree-run-module", "iree-benchmark-module", "iree-cpuinfo")
_LAST_LINES = 3


def find() -> Path | None:
    """Return the directory of the tools, or None if they were not fetched; no network."""
    version = _version()
    if version is None:
        return None
    try:
        tools = _home(version) / _TOOLS
    except InputError:  # no cache can be had
        return None
    return tools if _is_complete(tools) else None


def ensure() -> Path:
    """Return the directory of the tools, fetching them if they are not there.

    Only then is the network used. Several processes may do this at once. Raises
    MissingDeviceError if iree-base-runtime is not installed, and CanaoError if the download
    fails or cannot be written.
    """
    found = find()
    if found is not None:
        return found
    version = _version()
    if version is None:
        raise MissingDeviceError(f"{_PACKAGE} is not installed: pip install {_PACKAGE}")
    try:
        home = _home(version)
        # Beside its place, so that it gets there at one stroke or not at all.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=home.parent) as scratch:
            _unpack(_download(version, Path(scratch)), Path(scratch, "tree"))
            _put(Path(scratch, "tree"), home)
    except (OSError, zipfile.BadZipFile) as error:
        raise CanaoError(f"the ARM tools cannot be unpacked into the cache: {error}") from error
    found = find()
    if found is None:
        raise CanaoError(f"the wheel of {_PACKAGE} {version} for ARM does not hold IREE's tools")
    return found


def _version() -> str | None:
    try:
        return metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        return None


def _home(version: str) -> Path:
    return cache_dir().absolute() / f"{_PACKAGE}-{version}-aarch64"


def _is_complete(tools: Path) -> bool:
    return all((tools / name).is_file() for name in _NEEDED)


def _download(version: str, scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--dest", str(scratch)]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    done = subprocess.run(
        [*command, f"{_PACKAGE}=={version}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise CanaoError(
            f"pip could not download {_PACKAGE} {version} for ARM "
            f"({' '.join(lines[-_LAST_LINES:]) or 'no wheel came'}): "
            "check the network and pip's index"
        )
    return wheels[0]


def _unpack(wheel: Path, tree: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        # The tools and the libraries they may bring; not the half that traces.
        wanted = [
            name
            for name in archive.namelist()
            if name.startswith(f"{_TOOLS}/iree-") or name.split("/")[0].endswith(".libs")
        ]
        archive.extractall(tree, wanted)
    for tool in (tree / _TOOLS).glob("iree-*"):
        tool.chmod(0o755)


def _put(tree: Path, home: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not _is_complete(home / _TOOLS):
            shutil.rmtree(home)  # left incomplete by somebody
    try:
        os.rename(tree, home)
    except OSError:
        # Another process was faster, and what it put there is the same.
        if not home.is_dir():
            raise


def main() -> int:
    """Fetch the tools and print where they are; the exit status of the process."""
    try:
        print(ensure())
    except CanaoError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
