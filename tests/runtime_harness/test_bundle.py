"""Bundles that are as they should be, as a directory and as one file."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import BundleError, InputError
from canao.runtime_harness.bundle import (
    Bundle,
    Manifest,
    Numerics,
    numerics_path,
    write_bundle,
    zip_layout,
    zip_writer,
)
from canao.runtime_harness.bundle.numerics import read_numerics, write_numerics

_contents = st.dictionaries(
    st.from_regex(r"[a-z0-9]{1,4}(/[a-z0-9][a-z0-9.]{0,3}x)?", fullmatch=True),
    st.binary(max_size=300),
    min_size=1,
    max_size=6,
).filter(lambda files: not any(two.startswith(f"{one}/") for one in files for two in files))


def _bare(manifest: Manifest, file: str) -> Manifest:
    """The manifest with one module, so that it fits any files with ``file`` among them."""
    module = replace(manifest.modules[0], file=file)
    return replace(manifest, modules=(module,), reference={}, tokenizer=None)


@pytest.fixture(params=["small", "small.canao"])
def bundle(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    small_manifest: Manifest,
    small_files: dict[str, bytes],
) -> Bundle:
    return write_bundle(tmp_path / request.param, small_manifest, small_files)


def _snapshot(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    files = (file for file in path.rglob("*") if file.is_file())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


@given(contents=_contents, suffix=st.sampled_from(("", ".canao")))
def test_round_trip(
    small_manifest: Manifest,
    tmp_path_factory: pytest.TempPathFactory,
    contents: dict[str, bytes],
    suffix: str,
) -> None:
    directory = tmp_path_factory.mktemp("trip")
    manifest = _bare(small_manifest, min(contents))
    written = write_bundle(directory / f"one{suffix}", manifest, contents)
    # In another order, from files instead of bytes: the same bundle.
    for name, data in contents.items():
        (directory / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / "source" / name).write_bytes(data)
    paths = {name: directory / "source" / name for name in reversed(contents)}
    write_bundle(directory / f"two{suffix}", manifest, paths)
    assert _snapshot(directory / f"one{suffix}") == _snapshot(directory / f"two{suffix}")

    opened = Bundle.open(directory / f"one{suffix}")
    assert opened.manifest == written.manifest
    assert opened.digest == written.digest
    assert {name: bytes(opened.read(name)) for name in opened.manifest.files} == contents
    opened.check()
    with opened.materialize() as place:
        real = {name: (place / name).read_bytes() for name in contents}
    assert real == contents
    assert {path.name for path in directory.iterdir()} <= {
        "source",
        f"one{suffix}",
        f"two{suffix}",
    }
    shutil.rmtree(directory)


def test_what_a_bundle_tells(bundle: Bundle, small_files: dict[str, bytes]) -> None:
    assert bundle.targets == ("host", "arm64")
    assert bundle.seq_lens("host") == (8, 16)
    assert bundle.module("host").seq_len == 16
    assert bundle.module("host", 8).file == "modules/host-8.vmfb"
    assert bundle.manifest.model == {"name": "small", "dims": [1, 2.5, None, True]}
    assert bundle.size_bytes == sum(map(len, small_files.values())) + len(
        bundle.manifest.to_bytes()
    )
    assert len(bundle.digest) == 64
    assert bundle.path.is_absolute()
    with pytest.raises(InputError, match=r"no module for the target 'arm65'.*host, arm64"):
        bundle.module("arm65")
    with pytest.raises(InputError, match=r"host at sequence length 9: use one of 8, 16"):
        bundle.module("host", 9)
    with pytest.raises(BundleError, match="no file 'nothing'"):
        bundle.read("nothing")
    with pytest.raises(BundleError, match=r"no file 'manifest\.json'"):
        bundle.read("manifest.json")


def test_bytes_are_mapped_not_copied(bundle: Bundle) -> None:
    view = bundle.read("weights.safetensors")
    assert view.readonly
    assert bundle.read("weights.safetensors") is view
    assert type(view.obj).__name__ == "mmap"


def test_a_view_outlives_the_bundle_and_its_files(bundle: Bundle) -> None:
    view = bundle.read("modules/host-16.vmfb")
    if bundle.path.is_dir():
        shutil.rmtree(bundle.path)
    else:
        bundle.path.unlink()
    del bundle
    gc.collect()
    assert bytes(view) == bytes(range(256)) * 3


def test_threads_may_share_a_bundle(bundle: Bundle) -> None:
    views: list[memoryview] = []
    threads = [
        threading.Thread(target=lambda: views.append(bundle.read("weights.safetensors")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(views) == 8
    assert len({id(view) for view in views}) == 1


def test_materialize_gives_what_was_asked_and_cleans_up(bundle: Bundle) -> None:
    with bundle.materialize(["modules/host-16.vmfb", "modules/host-16.vmfb"]) as place:
        assert (place / "modules/host-16.vmfb").read_bytes() == bytes(range(256)) * 3
        if bundle.path.is_file():
            assert _snapshot(place).keys() == {"modules/host-16.vmfb"}
    assert place.exists() == (place == bundle.path)
    with pytest.raises(BundleError, match="no file"), bundle.materialize(["nothing"]):
        pass


def test_materialize_cleans_up_after_a_failure(bundle: Bundle) -> None:
    def use() -> None:
        with bundle.materialize() as place:
            seen.append(place)
            raise KeyboardInterrupt

    seen: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        use()
    assert seen[0].exists() == (seen[0] == bundle.path)


def test_a_file_is_an_ordinary_zip_file_with_aligned_members(
    tmp_path: Path, small_manifest: Manifest, small_files: dict[str, bytes]
) -> None:
    path = tmp_path / "small.canao"
    write_bundle(path, small_manifest, small_files)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*sorted(small_files), "manifest.json"]
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            with archive.open(info) as member:
                member.read(0)
            data = path.read_bytes()
            start = info.header_offset + 30
            start += sum(data[info.header_offset + at] for at in (26, 28))
            start += sum(data[info.header_offset + at] << 8 for at in (27, 29))
            assert start % zip_writer.ALIGNMENT == 0
            assert data[start : start + info.file_size] == archive.read(info)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_bundle_zipped_by_another_tool_opens(
    tmp_path: Path, small_manifest: Manifest, small_files: dict[str, bytes], method: int
) -> None:
    directory = write_bundle(tmp_path / "small", small_manifest, small_files)
    packed = shutil.make_archive(str(tmp_path / "tool"), "zip", directory.path)
    with zipfile.ZipFile(tmp_path / "plain.zip", "w", method) as archive:
        for name in ["manifest.json", *small_files]:
            archive.write(directory.path / name, name)
    with (
        open(tmp_path / "streamed.zip", "wb") as file,
        zipfile.ZipFile(_Unseekable(file), "w", method) as archive,  # type: ignore[arg-type]
    ):
        for name in ["manifest.json", *small_files]:
            archive.write(directory.path / name, name)
    for path in (Path(packed), tmp_path / "plain.zip", tmp_path / "streamed.zip"):
        opened = Bundle.open(path)
        assert opened.digest == directory.digest
        opened.check()
        assert {name: bytes(opened.read(name)) for name in small_files} == small_files


class _Unseekable:
    """A pipe, as far as zipfile can see: sizes follow each member."""

    def __init__(self, file: object) -> None:
        self.write = file.write  # type: ignore[attr-defined]
        self.flush = file.flush  # type: ignore[attr-defined]


def test_sizes_beyond_32_bits(
    tmp_path: Path,
    small_manifest: Manifest,
    small_files: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A sparse file of over 4 GiB would be slow to hash, so the limit is moved instead: fields
    # above it are written as all ones plus the 64-bit form, which every reader must follow.
    path = tmp_path / "wide.canao"
    real = zip_layout.MAX32
    with monkeypatch.context() as patch:
        patch.setattr(zip_writer, "layout", _Layout(limit=500))
        write_bundle(path, small_manifest, small_files)
    assert real.to_bytes(4, "little") in path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.read("weights.safetensors") == small_files["weights.safetensors"]
    opened = Bundle.open(path)
    opened.check()
    assert bytes(opened.read("weights.safetensors")) == small_files["weights.safetensors"]


class _Limit(int):
    """Compares as a small limit, is written as all ones."""

    limit: int

    def __new__(cls, limit: int) -> _Limit:
        self = super().__new__(cls, zip_layout.MAX32)
        self.limit = limit
        return self

    def __le__(self, other: int) -> bool:
        return self.limit <= other

    def __lt__(self, other: int) -> bool:
        return self.limit < other

    def __gt__(self, other: int) -> bool:
        return self.limit > other

    def __ge__(self, other: int) -> bool:
        return self.limit >= other


class _Layout:
    def __init__(self, *, limit: int) -> None:
        self.MAX32 = _Limit(limit)

    def __getattr__(self, name: str) -> object:
        return getattr(zip_layout, name)


def test_opening_reads_no_file_but_the_manifest(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[int] = []
    import hashlib

    real = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda data: (hashed.append(len(data)), real(data))[1])
    opened = Bundle.open(bundle.path)
    assert hashed == [len(bundle.manifest.to_bytes())]
    opened.read("weights.safetensors")
    opened.read("weights.safetensors")
    assert hashed[1:] == [1000]


def test_bundles_need_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, canao.runtime_harness.bundle, canao.targets;"
        "heavy = {'torch', 'transformers', 'iree', 'numpy', 'safetensors', 'torch_mlir'};"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


_some_numerics = st.fixed_dictionaries(
    {
        "verified": st.booleans(),
        "device": st.none() | st.sampled_from(("local", "qemu")),
        "max_abs_err": st.none() | st.floats(allow_nan=False, allow_infinity=False),
        "cosine": st.none() | st.floats(-1, 1),
        "ok": st.none() | st.booleans(),
    }
)
_digests = st.binary(min_size=32, max_size=32).map(bytes.hex)


@given(targets=st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), _some_numerics))
def test_numerics_round_trip(
    tmp_path_factory: pytest.TempPathFactory, targets: dict[str, Numerics]
) -> None:
    path = tmp_path_factory.getbasetemp() / "numerics"
    write_numerics(path, "00", targets)
    assert read_numerics(path, "00") == targets
    assert read_numerics(path, "01") == {}


@given(data=st.binary(max_size=100) | st.sampled_from((b"{}", b"[" * 9999, b'{"schema": 2}')))
def test_damaged_numerics(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    numerics_path(path).write_bytes(data)
    with pytest.raises(BundleError, match="delete it and verify"):
        read_numerics(path, "00")


def test_numerics_lie_beside_the_bundle(bundle: Bundle) -> None:
    before = _snapshot(bundle.path)
    assert bundle.numerics == {}
    bundle.record_numerics("host", device="local", max_abs_err=1e-6, cosine=1.0, ok=True)
    bundle.record_numerics("arm64", verified=False)
    bundle.record_numerics("host", device="local", max_abs_err=float("nan"), ok=False)
    assert bundle.numerics == {
        "host": {
            "verified": True,
            "device": "local",
            "max_abs_err": None,
            "cosine": None,
            "ok": False,
        },
        "arm64": {
            "verified": False,
            "device": None,
            "max_abs_err": None,
            "cosine": None,
            "ok": None,
        },
    }
    assert _snapshot(bundle.path) == before
    place = bundle.path.parent / f"{bundle.path.name}.numerics.json"
    assert json.loads(place.read_bytes())["bundle"] == bundle.digest
    assert sorted(os.listdir(place.parent)) == sorted([bundle.path.name, place.name])


def test_numerics_of_another_build_do_not_count(
    bundle: Bundle, small_manifest: Manifest, small_files: dict[str, bytes]
) -> None:
    bundle.record_numerics("host", device="local", ok=True)
    same = write_bundle(bundle.path, small_manifest, small_files)
    assert same.numerics["host"]["ok"] is True
    other = write_bundle(bundle.path, replace(small_manifest, fusion="none"), small_files)
    assert other.numerics == {}
    other.record_numerics("arm64", verified=False)
    assert other.numerics.keys() == {"arm64"}


def test_numerics_that_cannot_be(bundle: Bundle) -> None:
    with pytest.raises(InputError, match="no module for the target 'mars'"):
        bundle.record_numerics("mars")
    with pytest.raises(InputError, match="not finite"):
        bundle.record_numerics("host", max_abs_err=float("inf"), ok=True)


@pytest.mark.parametrize("given_path", ["small/", "./small", "other/../small"])
def test_the_record_lies_beside_the_bundle_however_it_is_spelled(
    tmp_path: Path,
    small_manifest: Manifest,
    small_files: dict[str, bytes],
    given_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_bundle(tmp_path / "small", small_manifest, small_files)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    Bundle.open(given_path).record_numerics("host", verified=False)
    assert (tmp_path / "small.numerics.json").is_file()
    monkeypatch.chdir(tmp_path / "small")
    assert Bundle.open(".").numerics["host"]["verified"] is False
