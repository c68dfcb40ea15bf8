"""Bundles that are damaged or built to do harm: one BundleError each, or the truth."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from canao.errors import BundleError
from canao.runtime_harness.bundle import Bundle, Manifest, ModuleEntry, TensorSpec, write_bundle

_Zip = Callable[..., Path]


@pytest.fixture
def directory(tmp_path: Path, small_manifest: Manifest, small_files: dict[str, bytes]) -> Path:
    return write_bundle(tmp_path / "small", small_manifest, small_files).path


@pytest.fixture
def file(tmp_path: Path, small_manifest: Manifest, small_files: dict[str, bytes]) -> Path:
    return write_bundle(tmp_path / "small.canao", small_manifest, small_files).path


@pytest.fixture(scope="session")
def sound(
    tmp_path_factory: pytest.TempPathFactory,
    small_manifest: Manifest,
    small_files: dict[str, bytes],
) -> bytes:
    """The bytes of a sound bundle in one file."""
    place = tmp_path_factory.mktemp("sound") / "small.canao"
    return write_bundle(place, small_manifest, small_files).path.read_bytes()


def _refused(path: Path, words: str, *, whole: bool = False) -> None:
    """Opening (or, with ``whole``, checking) gives one sentence with these words."""
    if whole:
        bundle = Bundle.open(path)
        with pytest.raises(BundleError, match=words) as caught:
            bundle.check()
    else:
        with pytest.raises(BundleError, match=words) as caught:
            Bundle.open(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not a usable bundle: ")
    assert message.isprintable()
    assert message.count(str(path)) == 1


def test_nothing_there(tmp_path: Path) -> None:
    _refused(tmp_path / "none", "there is nothing there")
    (tmp_path / "dangling").symlink_to("nowhere")
    _refused(tmp_path / "dangling", "there is nothing there")


def test_not_a_bundle(tmp_path: Path) -> None:
    _refused(tmp_path, r"it has no manifest\.json")
    for name, data, words in (
        ("empty", b"", "neither a directory nor a zip file"),
        ("text", b"hello", "neither a directory nor a zip file"),
        ("start", b"PK\x03\x04", "truncated"),
        ("nozip", b"PK" + bytes(100), "truncated"),
        ("end", b"PK\x05\x06" + bytes(18), r"it has no manifest\.json"),
    ):
        (tmp_path / name).write_bytes(data)
        _refused(tmp_path / name, words)


@pytest.mark.parametrize("name", ["weights.safetensors", "modules/host-16.vmfb"])
def test_a_changed_file_is_named(directory: Path, name: str) -> None:
    data = bytearray((directory / name).read_bytes())
    data[len(data) // 2] ^= 1
    (directory / name).write_bytes(data)
    _refused(directory, f"{name} is damaged or was changed", whole=True)
    bundle = Bundle.open(directory)
    for use in (bundle.read, lambda name: bundle.materialize([name]).__enter__()):
        with pytest.raises(BundleError, match=name):
            use(name)
    assert bytes(bundle.read("tokenizer.json")) == b"{}"


def test_a_changed_member_is_named(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[data.index(b"reference", data.index(b"reference/8") + 11)] ^= 1
    file.write_bytes(data)
    _refused(file, r"reference/8\.safetensors is damaged or was changed", whole=True)


def test_a_file_changed_after_opening(directory: Path) -> None:
    bundle = Bundle.open(directory)
    bundle.check()
    (directory / "weights.safetensors").write_bytes(bytes(999) + b"x")
    with pytest.raises(BundleError, match="weights"):
        bundle.check()
    (directory / "weights.safetensors").write_bytes(bytes(99))
    with pytest.raises(BundleError, match="was changed since the bundle was opened"):
        bundle.read("weights.safetensors")
    (directory / "weights.safetensors").unlink()
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        bundle.read("weights.safetensors")
    (directory / "weights.safetensors").symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.read("weights.safetensors")


def test_a_shortened_file(directory: Path) -> None:
    (directory / "weights.safetensors").write_bytes(bytes(10))
    _refused(directory, r"weights\.safetensors has 10 bytes instead of 1000.*truncated")


def test_a_missing_file(directory: Path) -> None:
    (directory / "weights.safetensors").unlink()
    _refused(directory, r"weights\.safetensors is missing")


@pytest.mark.parametrize("name", ["extra.txt", "modules/other.vmfb"])
def test_a_file_nobody_listed(directory: Path, name: str) -> None:
    (directory / name).write_bytes(b"")
    _refused(directory, f"it holds '{name}', which its manifest does not list")


def test_a_newer_schema(directory: Path) -> None:
    (directory / "manifest.json").write_text('{"schema": 7, "new": true}')
    _refused(directory, "schema 7.*none newer than 1: update canao")


@pytest.mark.parametrize("target", ["../../secret", "tokenizer.json", "/etc/passwd"])
@pytest.mark.parametrize("name", ["weights.safetensors", "modules", "surplus"])
def test_links_in_a_directory(directory: Path, name: str, target: str) -> None:
    place = directory / name
    if place.is_dir():
        place.rename(directory.parent / "elsewhere")
    else:
        place.unlink(missing_ok=True)
    place.symlink_to(target)
    _refused(directory, f"{name} is a link or a special file")


def test_special_files_and_odd_names_in_a_directory(directory: Path) -> None:
    os.mkfifo(directory / "pipe")
    _refused(directory, "pipe is a link or a special file")
    (directory / "pipe").unlink()
    deep = directory / "/".join("abcdefghijklmnop")
    deep.mkdir(parents=True)
    _refused(directory, "nested too deeply")
    os.removedirs(deep)
    (directory / "line\nbreak").touch()
    _refused(directory, r"line\\nbreak")


def test_a_link_to_the_bundle_itself_is_fine(directory: Path) -> None:
    (directory.parent / "link").symlink_to(directory)
    Bundle.open(directory.parent / "link").check()


def test_odd_paths(tmp_path: Path) -> None:
    (tmp_path / "device").symlink_to("/dev/null")
    _refused(tmp_path / "device", "neither a directory nor a zip file")
    _refused(tmp_path / ("x" * 300), "cannot be read|nothing there")
    with pytest.raises(BundleError, match="nothing there") as caught:
        Bundle.open("a\0b")
    assert str(caught.value).isprintable()


def _listed(contents: dict[str, bytes], **change: object) -> bytes:
    """A manifest that lists these files, the first as its only module."""
    module = ModuleEntry(
        target="host", seq_len=1, batch=1, file=next(iter(contents)), kind="cpu", arch="x86_64"
    )
    manifest = {
        "schema": 1,
        "canao": "0",
        "model": {},
        "precision": "f32",
        "fusion": "auto",
        "recipe": None,
        "inputs": [],
        "outputs": [TensorSpec(name="x", dtype="float32", shape=(1,)).to_json()],
        "modules": [module.to_json()],
        "tokenizer": None,
        "tolerance": {"cosine": 0.9},
        "vocab_size": None,
        "reference": {},
        "versions": {},
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in contents.items()
        },
    }
    return json.dumps({**manifest, **change}).encode()


@pytest.fixture
def make_zip(tmp_path: Path) -> _Zip:
    """Build a zip bundle of one file, after ``spoil`` had its way with the member."""

    def build(
        name: str = "data.bin",
        data: bytes = b"data" * 10,
        *,
        method: int = zipfile.ZIP_STORED,
        spoil: Callable[[zipfile.ZipInfo], None] = lambda info: None,
        after: Callable[[bytes], bytes] = lambda raw: raw,
        listed: bytes | None = None,
    ) -> Path:
        path = tmp_path / "built.canao"
        info = zipfile.ZipInfo(name)
        info.compress_type = method
        spoil(info)
        with zipfile.ZipFile(path, "w") as archive:
            plain = {"data.bin": data}
            archive.writestr("manifest.json", _listed(plain) if listed is None else listed)
            archive.writestr(info, data)
        path.write_bytes(after(path.read_bytes()))
        return path

    return build


def test_the_builder_builds_sound_bundles(make_zip: _Zip) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        Bundle.open(make_zip(method=method)).check()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/abs", "absolute"),
        ("../up", "leads out"),
        ("a/../../up", "leads out"),
        ("C:\\x", "absolute"),
        ("a\\..\\b", "leads out"),
        ("manifest.json/x", "below another file"),
        ("ü", "may hold"),
        ("a\nb", "may hold"),
        ("MANIFEST.JSON", "twice"),
        ("manifest.json", "twice"),
    ],
)
def test_names_in_a_zip_file(make_zip: _Zip, name: str, words: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _refused(make_zip(name), words)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFCHR])
def test_links_in_a_zip_file(make_zip: _Zip, kind: int) -> None:
    def spoil(info: zipfile.ZipInfo) -> None:
        info.create_system = 3
        info.external_attr = (kind | 0o777) << 16

    _refused(make_zip(spoil=spoil), r"data\.bin is a link or a special file")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions(make_zip: _Zip, method: int) -> None:
    _refused(make_zip(method=method), rf"data\.bin is compressed by a method \(number {method}\)")


def _patch(raw: bytes, local: int, central: int, value: bytes) -> bytes:
    """Overwrite a field in both headers of data.bin, given its offset in each."""
    data = bytearray(raw)
    first = data.rindex(b"PK\x03\x04")
    last = data.rindex(b"PK\x01\x02")
    data[first + local : first + local + len(value)] = value
    data[last + central : last + central + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize("flag", [1, 1 << 6, 1 << 13])
def test_encryption(make_zip: _Zip, flag: int) -> None:
    def after(raw: bytes) -> bytes:
        return _patch(raw, 6, 8, struct.pack("<H", flag))

    _refused(make_zip(after=after), r"data\.bin is encrypted")


def test_a_member_that_unpacks_to_too_much(make_zip: _Zip) -> None:
    bomb = bytes(50_000_000)
    path = make_zip(data=bomb, method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    _refused(path, r"data\.bin would unpack to more than 100 times its size")


@pytest.mark.parametrize("said", [10, 39, 41, 1_000_000])
def test_a_member_that_lies_about_its_size(make_zip: _Zip, said: int) -> None:
    def after(raw: bytes) -> bytes:
        return _patch(raw, 22, 24, struct.pack("<L", said))

    files = {"data.bin": b"data" * 10}
    entry = {"sha256": hashlib.sha256(files["data.bin"]).hexdigest(), "bytes": said}
    path = make_zip(
        method=zipfile.ZIP_DEFLATED,
        after=after,
        listed=_listed(files, files={"data.bin": entry}),
    )
    _refused(path, r"data\.bin does not unpack to its declared size", whole=True)
    path = make_zip(after=after, listed=_listed(files, files={"data.bin": entry}))
    _refused(path, r"data\.bin declares two sizes")


def test_a_huge_manifest(make_zip: _Zip, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "huge.canao", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("manifest.json", b" " * (17 * 1024 * 1024))
    _refused(tmp_path / "huge.canao", r"manifest\.json has more than 16777216 bytes")


def test_a_damaged_manifest_in_a_zip_file(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"vocab_size": 100', b'"vocab_size": 900'))
    _refused(file, r"manifest\.json does not match its checksum")


def test_too_many_members(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.canao", "w") as archive:
        for index in range(9000):
            archive.writestr(f"f{index}", b"")
    _refused(tmp_path / "many.canao", "it holds 9000 files, more than 4096")
    with zipfile.ZipFile(tmp_path / "some.canao", "w") as archive:
        for index in range(5000):
            archive.writestr(f"f{index}", b"")
    _refused(tmp_path / "some.canao", "more than 4096 files")


def _members(raw: bytes) -> list[int]:
    """Where each central directory entry begins."""
    start = struct.unpack_from("<L", raw, len(raw) - 6)[0]
    found = []
    while raw[start : start + 4] == b"PK\x01\x02":
        found.append(start)
        start += 46 + sum(struct.unpack_from("<3H", raw, start + 28))
    return found


def test_members_one_over_another(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    first, second = _members(raw)[:2]
    raw[second + 42 : second + 46] = raw[first + 42 : first + 46]
    file.write_bytes(raw)
    _refused(file, "contradicts the zip directory")


@pytest.mark.parametrize("at", [6, 8, 14, 18, 22, 30])
def test_a_local_header_that_differs(file: Path, at: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[at] ^= 2
    file.write_bytes(raw)
    _refused(file, r"modules/arm64-8\.vmfb contradicts the zip directory")


@pytest.mark.parametrize("at", [-18, -16, -14, -12, -10, -6])
def test_an_end_record_that_lies(file: Path, at: int) -> None:
    raw = bytearray(file.read_bytes())
    raw[at] ^= 1
    file.write_bytes(raw)
    _refused(file, "end record|zip directory is damaged|contradicts")


def test_something_before_or_after_the_zip_file(file: Path) -> None:
    raw = file.read_bytes()
    file.write_bytes(raw + b"more")
    _refused(file, "does not end where its zip end record says")
    file.write_bytes(b"PK" + raw)
    _refused(file, "end record contradicts the file")


def test_a_directory_entry_with_content(make_zip: _Zip) -> None:
    _refused(make_zip("folder/"), "the directory folder/ has content")


def test_every_truncation_is_refused(tmp_path: Path, sound: bytes) -> None:
    path = tmp_path / "cut.canao"
    for length in [*range(0, len(sound), 97), *range(len(sound) - 30, len(sound))]:
        path.write_bytes(sound[:length])
        with pytest.raises(BundleError):
            Bundle.open(path)


def _judge(path: Path, data: bytes, small_files: dict[str, bytes]) -> None:
    """Open hostile bytes: a BundleError, or a check() that tells the truth."""
    path.write_bytes(data)
    with suppress(BundleError):
        bundle = Bundle.open(path)
        assert Manifest.from_bytes(bundle.manifest.to_bytes()) == bundle.manifest
        bundle.check()
        for name, entry in bundle.manifest.files.items():
            content = bundle.read(name)
            assert len(content) == entry["bytes"]
            assert hashlib.sha256(content).hexdigest() == entry["sha256"]
            assert bytes(content) == small_files[name]


_edit = st.tuples(
    st.sampled_from(("set", "cut", "insert", "move")),
    st.floats(0, 1),
    st.binary(min_size=1, max_size=6),
)


@given(edits=st.lists(_edit, min_size=1, max_size=5), headers=st.booleans())
@example(edits=[], headers=False)
def test_mutations_of_a_sound_bundle(
    tmp_path_factory: pytest.TempPathFactory,
    small_files: dict[str, bytes],
    sound: bytes,
    edits: list[tuple[str, float, bytes]],
    headers: bool,
) -> None:
    data = bytearray(sound)
    for kind, where, some in edits:
        # Most of the file is content; half of the time aim at the zip directory at the end.
        low = len(data) - 700 if headers else 0
        at = max(0, low) + int(where * (len(data) - max(0, low)))
        if kind == "set":
            data[at : at + len(some)] = some
        elif kind == "cut":
            del data[at : at + len(some)]
        elif kind == "insert":
            data[at:at] = some
        else:
            data[at : at + 30] = data[: len(some) * 5]
    _judge(tmp_path_factory.getbasetemp() / "mutant.canao", bytes(data), small_files)


@given(
    st.binary(max_size=300)
    | st.lists(
        st.sampled_from(
            (b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04", b"PK\x06\x06", b"PK\x06\x07")
        )
        | st.binary(max_size=60)
        | st.integers(0, 60).map(bytes),
        max_size=8,
    ).map(lambda parts: b"PK" + b"".join(parts))
)
def test_random_bytes(
    tmp_path_factory: pytest.TempPathFactory, small_files: dict[str, bytes], data: bytes
) -> None:
    _judge(tmp_path_factory.getbasetemp() / "random.canao", data, small_files)


@given(manifest=st.binary(max_size=80), method=st.sampled_from((0, 8)))
def test_random_manifests_in_both_forms(
    tmp_path_factory: pytest.TempPathFactory, manifest: bytes, method: int
) -> None:
    place = tmp_path_factory.mktemp("manifest")
    with zipfile.ZipFile(place / "one.canao", "w", method) as archive:
        archive.writestr("manifest.json", manifest)
    (place / "many").mkdir()
    (place / "many" / "manifest.json").write_bytes(manifest)
    for name in ("one.canao", "many"):
        with pytest.raises(BundleError):
            Bundle.open(place / name)


@given(packed=st.binary(max_size=60), size=st.integers(0, 200))
def test_random_deflate_streams(
    tmp_path_factory: pytest.TempPathFactory, packed: bytes, size: int
) -> None:
    # A sound zip file but for the stream itself, whose size and hash are what they may be.
    files = {"data.bin": bytes(size)}
    manifest = _listed(files)
    parts, central = b"", b""
    for name, method, data, real in (
        (b"manifest.json", 0, manifest, manifest),
        (b"data.bin", 8, packed, files["data.bin"]),
    ):
        fields = struct.pack("<3L", zlib.crc32(real), len(data), len(real))
        shared = struct.pack("<5H", 20, 0, method, 0, 33) + fields
        header = len(parts)
        parts += b"PK\x03\x04" + shared + struct.pack("<2H", len(name), 0) + name + data
        central += b"PK\x01\x02" + struct.pack("<H", 20) + shared
        central += struct.pack("<5H2L", len(name), 0, 0, 0, 0, 0, header) + name
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(central), len(parts), 0)
    path = tmp_path_factory.getbasetemp() / "stream.canao"
    path.write_bytes(parts + central + end)
    bundle = Bundle.open(path)
    try:
        bundle.check()
    except BundleError:
        return
    assert zlib.decompress(packed, -15) == bytes(size)
