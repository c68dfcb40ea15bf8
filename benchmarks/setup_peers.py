"""Create the peers' own environment, ``.venv-peers``, from ``peers-requirements.txt``.

    python benchmarks/setup_peers.py [--recreate]

Does nothing when the environment already holds what the file asks for. PyTorch must be a
CPU build: the script first asks pip what it would install, and stops before anything is
installed if that has CUDA in it. pip's own configuration chooses the index; where the
default one offers the CUDA build, set

    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence

from common.paths import BENCHMARKS, PEERS_PYTHON, ROOT

__all__ = ["main"]

_REQUIREMENTS = BENCHMARKS / "peers-requirements.txt"
_DIRECTORY = PEERS_PYTHON.parent.parent
_STAMP = _DIRECTORY / "canao-requirements.sha256"
_CUDA = ("nvidia-", "cuda-", "triton")
_SANITY = "import ai_edge_litert.interpreter, ai_edge_quantizer, litert_torch"


def main(arguments: Sequence[str] | None = None) -> int:
    """Create or update the environment; 1 if pip fails or would take a CUDA build."""
    parser = argparse.ArgumentParser(description="Create the environment of the peers.")
    parser.add_argument("--recreate", action="store_true", help="remove it first")
    options = parser.parse_args(arguments)
    wanted = _fingerprint()
    if options.recreate:
        shutil.rmtree(_DIRECTORY, ignore_errors=True)
    if _STAMP.exists() and _STAMP.read_text().strip() == wanted:
        print(f"{_DIRECTORY.name} is up to date", file=sys.stderr)
        return 0
    _STAMP.unlink(missing_ok=True)
    venv.create(_DIRECTORY, with_pip=True)
    try:
        cuda = _cuda_packages()
        if cuda:
            print(
                f"pip would install a CUDA build of PyTorch (with {', '.join(cuda[:3])} ...): "
                "point it at CPU builds, for example with "
                "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu, and run this again",
                file=sys.stderr,
            )
            return 1
        _pip("install", "--requirement", str(_REQUIREMENTS))
        subprocess.run([PEERS_PYTHON, "-c", _SANITY], check=True, stderr=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        command = " ".join(str(part) for part in error.cmd)
        print(f"failed with exit code {error.returncode}: {command}", file=sys.stderr)
        return 1
    _STAMP.write_text(wanted + "\n")
    size = sum(f.lstat().st_size for f in _DIRECTORY.rglob("*") if not f.is_symlink())
    print(f"{_DIRECTORY.relative_to(ROOT)} is ready, {size / 1e9:.1f} GB", file=sys.stderr)
    return 0


def _cuda_packages() -> list[str]:
    """What belongs to CUDA among the packages that pip would install for torch."""
    lines = _REQUIREMENTS.read_text().splitlines()
    (torch,) = (line for line in lines if line.startswith("torch=="))
    command = [str(PEERS_PYTHON), "-m", "pip", "install", "--quiet", "--dry-run"]
    done = subprocess.run(
        [*command, "--ignore-installed", "--report", "-", torch],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    report = json.loads(done.stdout)
    names = [item["metadata"]["name"].lower() for item in report["install"]]
    return sorted(name for name in names if name.startswith(_CUDA))


def _pip(*arguments: str) -> None:
    subprocess.run([PEERS_PYTHON, "-m", "pip", *arguments], check=True, stdout=sys.stderr)


def _fingerprint() -> str:
    text = platform.python_version() + _REQUIREMENTS.read_text()
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
