"""Writing: all or nothing, and never over something that is not a bundle."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from canao.errors import BundleError, CanaoError, InputError
from canao.runtime_harness.bundle import Bundle, Manifest, atomic, check_destination, write_bundle

_Write = Callable[..., Bundle]


@pytest.fixture(params=["out", "out.canao"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / request.param


@pytest.fixture
def write(small_manifest: Manifest, small_files: dict[str, bytes]) -> _Write:
    def build(path: Path, *, fusion: str = "auto") -> Bundle:
        return write_bundle(path, replace(small_manifest, fusion=fusion), small_files)

    return build


def _tree(path: Path) -> dict[str, bytes | None]:
    return {
        item.relative_to(path).as_posix(): item.read_bytes() if item.is_file() else None
        for item in path.rglob("*")
    }


@contextmanager
def _failing(call: str, turn: int, error: BaseException) -> Iterator[list[int]]:
    """Let the ``turn``-th use of ``os.<call>`` raise; yields a list as long as the uses."""
    uses: list[int] = []
    real = getattr(os, call)

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        uses.append(1)
        if len(uses) == turn:
            raise error
        return real(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, call, wrapper)
        yield uses


@pytest.mark.parametrize("call", ["open", "fsync", "replace", "rename", "mkdir"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), CanaoError),
        (OSError(errno.EACCES, os.strerror(errno.EACCES)), InputError),
    ],
    ids=["ctrl-c", "full", "denied"],
)
@pytest.mark.parametrize("exchange", [True, False])
def test_a_failure_at_any_step_leaves_the_old_or_the_new(
    place: Path,
    write: _Write,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    error: BaseException,
    raised: type[BaseException],
    exchange: bool,
) -> None:
    if not exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    write(place, fusion="old")
    old = _tree(place.parent)
    turn = 0
    while True:
        turn += 1
        with _failing(call, turn, error) as uses, suppress(raised):
            write(place, fusion="new")
        after = _tree(place.parent)
        if after != old:
            # Then it is the whole new bundle, and still nothing beside it.
            assert Bundle.open(place).manifest.fusion == "new"
            Bundle.open(place).check()
            assert [item.name for item in place.parent.iterdir()] == [place.name]
            write(place, fusion="old")
            assert _tree(place.parent) == old
        if len(uses) < turn:
            break


def test_a_first_write_that_fails_leaves_nothing(place: Path, write: _Write) -> None:
    with _failing("fsync", 2, KeyboardInterrupt()), pytest.raises(KeyboardInterrupt):
        write(place)
    assert list(place.parent.iterdir()) == [] or place.is_file()


@pytest.mark.parametrize("suffix", ["", ".canao"])
def test_a_real_limit_on_file_sizes(tmp_path: Path, write: _Write, suffix: str) -> None:
    place = tmp_path / f"out{suffix}"
    write(place, fusion="old")
    old = _tree(tmp_path)
    code = f"""
import resource
from canao.errors import CanaoError, InputError
from canao.runtime_harness.bundle import Bundle, write_bundle
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
place = {str(place)!r}
try:
    manifest = Bundle.open(place).manifest
    files = {{name: bytes(50_000_000) for name in manifest.files}}
    write_bundle(place, manifest, files)
except CanaoError as error:
    assert not isinstance(error, InputError)
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"writing {place} failed: File too large\n"
    assert _tree(tmp_path) == old
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000


def test_a_bundle_replaces_a_bundle(place: Path, write: _Write) -> None:
    first = write(place, fusion="one")
    view = first.read("modules/host-16.vmfb")
    assert write(place, fusion="two").manifest.fusion == "two"
    assert Bundle.open(place).manifest.fusion == "two"
    assert bytes(view) == bytes(range(256)) * 3
    assert [item.name for item in place.parent.iterdir()] == [place.name]


def test_new_files_follow_the_umask(place: Path, write: _Write) -> None:
    old = os.umask(0o027)
    try:
        write(place)
    finally:
        os.umask(old)
    files = [place, *place.rglob("*")]
    assert {file.stat().st_mode & 0o777 for file in files if file.is_file()} == {0o640}
    assert {file.stat().st_mode & 0o777 for file in files if file.is_dir()} <= {0o750}


def test_an_empty_directory_is_taken(tmp_path: Path, write: _Write) -> None:
    (tmp_path / "out").mkdir()
    write(tmp_path / "out").check()


def test_a_link_is_followed(tmp_path: Path, write: _Write) -> None:
    for name in ("real", "real.canao"):
        write(tmp_path / name, fusion="old")
        link = tmp_path / name.replace("real", "link")
        link.symlink_to(name)
        assert write(link, fusion="new").path == link
        assert link.is_symlink()
        assert Bundle.open(tmp_path / name).manifest.fusion == "new"


def _damage(place: Path, how: str) -> None:
    if how == "truncated":
        (place / "weights.safetensors").write_bytes(b"")
    elif how == "incomplete":
        (place / "weights.safetensors").unlink()
    else:
        text = (place / "manifest.json").read_text()
        (place / "manifest.json").write_text(text.replace('"schema": 1', '"schema": 9'))


@pytest.mark.parametrize("how", ["truncated", "incomplete", "newer"])
def test_a_damaged_or_newer_bundle_can_be_replaced(
    tmp_path: Path, write: _Write, how: str
) -> None:
    place = tmp_path / "out"
    write(place)
    _damage(place, how)
    with pytest.raises(BundleError):
        Bundle.open(place)
    write(place).check()


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"out/notes.txt": "mine"}, "holds 'notes.txt', which is not part of a bundle"),
        ({"out/deep/er/notes.txt": "mine"}, "holds 'deep/er/notes.txt'"),
        ({"out/manifest.json": '{"name": "a browser extension"}'}, "holds 'manifest.json'"),
        ({"out/manifest.json": "[]"}, "holds 'manifest.json'"),
        ({"out": "a file"}, "not a directory"),
        ({"out.canao/x": ""}, "not a file"),
    ],
)
def test_what_is_not_a_bundle_is_not_overwritten(
    tmp_path: Path, write: _Write, made: dict[str, str], words: str
) -> None:
    for name, text in made.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    before = _tree(tmp_path)
    place = tmp_path / next(iter(made)).split("/")[0]
    with pytest.raises(InputError, match=words):
        write(place)
    with pytest.raises(InputError, match=words):
        check_destination(place)
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("link", [False, True])
def test_a_users_file_in_a_bundle_is_not_lost(tmp_path: Path, write: _Write, link: bool) -> None:
    place = tmp_path / "out"
    write(place)
    if link:
        (place / "notes").symlink_to(tmp_path)
    else:
        (place / "notes").write_text("mine")
    with pytest.raises(InputError, match="holds 'notes'"):
        write(place)
    assert (place / "notes").exists()


def test_places_that_cannot_be(tmp_path: Path, write: _Write) -> None:
    with pytest.raises(InputError, match="does not exist: create it first"):
        write(tmp_path / "none" / "out")
    with pytest.raises(InputError, match="choose another place"):
        write(Path("/"))
    with pytest.raises(InputError, match="null"):
        write(Path("a\0b"))
    with pytest.raises(InputError, match="name too long"):
        write(tmp_path / ("x" * 250))


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "manifest.json", "Weights.safetensors"])
def test_files_no_reader_would_accept(
    place: Path, small_manifest: Manifest, small_files: dict[str, bytes], name: str
) -> None:
    with pytest.raises(BundleError):
        write_bundle(place, small_manifest, {**small_files, name: b""})
    assert list(place.parent.iterdir()) == []


def test_a_manifest_no_reader_would_accept(
    place: Path, small_manifest: Manifest, small_files: dict[str, bytes]
) -> None:
    for change in (
        {"model": {"x": float("nan")}},
        {"model": {"x": object()}},
        {"precision": "f64"},
        {"reference": {"8": "nowhere"}},
    ):
        with pytest.raises(BundleError):
            write_bundle(place, replace(small_manifest, **change), small_files)  # type: ignore[arg-type]
    without = {name: data for name, data in small_files.items() if "host-16" not in name}
    with pytest.raises(BundleError, match=r"needs the file 'modules/host-16\.vmfb'"):
        write_bundle(place, small_manifest, without)
    assert list(place.parent.iterdir()) == []


def test_a_source_that_is_missing(
    place: Path, small_manifest: Manifest, small_files: dict[str, bytes]
) -> None:
    files = {**small_files, "weights.safetensors": place.parent / "none"}
    with pytest.raises(InputError, match="No such file"):
        write_bundle(place, small_manifest, files)
    assert list(place.parent.iterdir()) == []
