"""The manifest: round trips, and one BundleError for whatever else it may hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao.errors import BundleError
from canao.runtime_harness.bundle import (
    DTYPES,
    SCHEMA,
    Manifest,
    ModuleEntry,
    TensorSpec,
)
from canao.runtime_harness.bundle.fields import MAX_JSON_BYTES, parse_json
from canao.runtime_harness.bundle.names import MAX_FILES, check_name, check_names
from canao.targets import PRECISIONS

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_name = st.from_regex(r"[a-z0-9_]{1,6}(/[a-z0-9_]{1,6}\.bin)?", fullmatch=True)
_number = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)
_plain = st.recursive(
    st.none() | st.booleans() | _number | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=10,
)
_object = st.dictionaries(_text, _plain, max_size=3)
_spec = st.builds(
    TensorSpec,
    name=_text,
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(1, 9) | st.sampled_from(("batch", "seq")), max_size=4).map(tuple),
)


def _some(item: Any, least: int, key: Callable[[Any], object]) -> Any:
    return st.lists(item, min_size=least, max_size=3, unique_by=key).map(tuple)


_files = st.dictionaries(
    _name,
    st.fixed_dictionaries(
        {"sha256": st.binary(min_size=32, max_size=32).map(bytes.hex), "bytes": st.integers(0, 9)}
    ),
    min_size=1,
    max_size=5,
).filter(lambda files: not any(f"{one}/" in two for one in files for two in files))


@st.composite
def some_manifests(draw: st.DrawFn) -> Manifest:
    files = draw(_files)
    listed = st.sampled_from(sorted(files))
    module = st.builds(
        ModuleEntry,
        target=_text,
        seq_len=st.integers(1, 512),
        batch=st.integers(1, 8),
        file=listed,
        function=_text,
        kind=st.sampled_from(("cpu", "vulkan")),
        features=st.lists(_text, max_size=3).map(tuple),
        arch=_text,
        dispatches=st.none() | st.integers(0, 99),
        patterns=st.dictionaries(_text, st.integers(0, 9), max_size=3),
        calls=st.lists(st.tuples(_text, _text), max_size=3).map(tuple),
        parameters=st.lists(_text, max_size=3).map(tuple),
    )
    lengths = st.integers(1, 99999).map(str)
    return Manifest(
        canao=draw(_text),
        model=draw(_object),
        precision=draw(st.sampled_from(PRECISIONS)),
        fusion=draw(_text),
        recipe=draw(st.none() | _object),
        inputs=draw(_some(_spec, 0, lambda spec: spec.name)),
        outputs=draw(_some(_spec, 1, lambda spec: spec.name)),
        modules=draw(_some(module, 1, lambda module: (module.target, module.seq_len))),
        tokenizer=draw(st.none() | listed.map(lambda name: {"file": name, "pad_id": 0})),
        tolerance=draw(
            st.sampled_from(("max_abs_rel", "cosine")).flatmap(
                lambda key: st.fixed_dictionaries({key: st.floats(0, 1)})
            )
        ),
        vocab_size=draw(st.none() | st.integers(1, 10**6)),
        reference=draw(st.dictionaries(lengths, listed, max_size=2)),
        versions=draw(st.dictionaries(_text, _text, max_size=2)),
        files=files,
    )


@given(some_manifests())
def test_round_trip(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    assert Manifest.from_bytes(data) == manifest
    assert Manifest.from_bytes(data).to_bytes() == data
    assert data.endswith(b"\n}\n")


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(BundleError):
        Manifest.from_bytes(data)


@given(_plain)
def test_any_json(value: object) -> None:
    with pytest.raises(BundleError):
        Manifest.from_bytes(json.dumps(value).encode())


def _places(value: object) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        item = pending.pop()
        keys = list(item) if isinstance(item, dict) else []
        keys += list(range(len(item))) if isinstance(item, list) else []
        found += [(item, key) for key in keys]
        pending += [item[key] for key in keys]  # type: ignore[index]
    return found


@given(some_manifests(), st.data())
def test_a_spoiled_value(manifest: Manifest, data: st.DataObject) -> None:
    value = json.loads(manifest.to_bytes())
    container, key = data.draw(st.sampled_from(_places(value)))
    if data.draw(st.booleans()):
        del container[key]
    else:
        container[key] = data.draw(_plain)
    try:
        spoiled = Manifest.from_bytes(json.dumps(value).encode())
    except BundleError:
        return
    assert json.loads(spoiled.to_bytes()) == value


@given(some_manifests(), st.data())
def test_spoiled_bytes(manifest: Manifest, data: st.DataObject) -> None:
    spoiled = bytearray(manifest.to_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BundleError):
        assert isinstance(Manifest.from_bytes(bytes(spoiled)), Manifest)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not valid JSON"),
        (b"\xff{}", "byte 0 is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 40 + b"]" * 40, "nested too deeply"),
        (b'{"schema": NaN}', "not finite"),
        (b'{"schema": -Infinity}', "not finite"),
        (b'{"schema": 1e999}', "not finite"),
        (b'{"schema": %s}' % (b"9" * 5000), "not valid JSON"),
        (b'{"schema": 99999999999999999999}', "beyond 64 bits"),
        (b'{"schema": 1, "schema": 1}', "key 'schema' twice"),
        (b'{"canao": "\\ud800"}', "not Unicode"),
        (b'{"\\ud800": 1}', "not Unicode"),
        (b"null", "must be a JSON object, but|must be a JSON object, not None"),
        (b'{"schema": true}', "schema must be a whole number"),
        (b'{"schema": 0}', "schema must be a whole number"),
        (b" " * (MAX_JSON_BYTES + 1), "more than"),
    ],
)
def test_hostile_json(data: bytes, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        Manifest.from_bytes(data)


def test_a_newer_schema_asks_for_an_update() -> None:
    with pytest.raises(BundleError, match=rf"schema {SCHEMA + 1}.*{SCHEMA}.*update canao"):
        Manifest.from_bytes(b'{"schema": %d, "anything": []}' % (SCHEMA + 1))


@pytest.fixture
def spoil(small_manifest: Manifest, small_files: dict[str, bytes]) -> Callable[..., Manifest]:
    """Build from the small manifest after changing what the path of keys leads to."""
    entry = {"sha256": "0" * 64, "bytes": 1}

    def build(keys: tuple[str | int, ...], item: object) -> Manifest:
        full = replace(small_manifest, files=dict.fromkeys(small_files, entry))
        value = json.loads(full.to_bytes())
        container = value
        for key in keys[:-1]:
            container = container[key]
        container[keys[-1]] = item
        return Manifest.from_json(value)

    return build


@pytest.mark.parametrize(
    ("keys", "item", "words"),
    [
        (("precision",), "f64", "precision must be one of f32"),
        (("surprise",), 1, "unknown field 'surprise'"),
        (("model",), [], "model must be an object, but is a list"),
        (("tolerance",), {}, "tolerance must be either"),
        (("tolerance",), {"cosine": "1"}, "tolerance must be either"),
        (("vocab_size",), 0, "vocab_size must be a whole number of at least 1"),
        (("inputs", 0, "dtype"), "complex64", r"inputs\[0\]: dtype must be one of"),
        (("inputs", 0, "shape"), [0], r"inputs\[0\]: shape must be"),
        (("inputs", 0, "shape"), [True], r"inputs\[0\]: shape must be"),
        (("modules",), None, "modules must be a list, but is None"),
        (("modules",), [], "lists no module, so there is nothing to run: compile"),
        (("outputs",), [], "lists no output, so there is nothing to run: compile"),
        (("modules", 0, "seq_len"), 8, "'host' at length 8 is there twice"),
        (("modules", 1, "file"), "modules/none.vmfb", "needs the file 'modules/none.vmfb'"),
        (("modules", 1, "kind"), "gpu", r"modules\[1\]: kind must be one of cpu, vulkan"),
        (("modules", 1, "patterns"), {"a": -1}, "patterns must be an object of whole numbers"),
        (("modules", 1, "features"), ["a", 1], "features must be a list of texts"),
        (("modules", 1, "extra"), 1, r"modules\[1\] has the unknown field"),
        (("tokenizer",), {}, "tokenizer needs the file"),
        (("reference",), {"08": "tokenizer.json"}, "'08', which is not a length"),
        (("reference",), {"8": "none"}, "reference for length 8 needs the file 'none'"),
        (("versions",), {"torch": 2}, "versions must be an object of texts"),
        (("files", "tokenizer.json", "sha256"), "0" * 63, "sha256 must be 64 hexadecimal"),
        (("files", "tokenizer.json", "bytes"), -1, "bytes must be a whole number"),
        (("files", "../out"), {"sha256": "0" * 64, "bytes": 1}, "leads out of the bundle"),
        (("files", "manifest.json"), {"sha256": "0" * 64, "bytes": 1}, "appears twice"),
    ],
)
def test_one_wrong_value(
    spoil: Callable[..., Manifest], keys: tuple[str | int, ...], item: object, words: str
) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        spoil(keys, item)
    assert "\n" not in str(caught.value)


def test_values_that_json_lacks_are_refused(spoil: Callable[..., Manifest]) -> None:
    for item, words in (({1: 2}, "key that is not text"), ({"a": {1}}, "holds a set")):
        with pytest.raises(BundleError, match=words):
            spoil(("model",), item)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("/etc/passwd", "absolute"),
        ("\\\\server\\share", "absolute"),
        ("C:/x", "absolute"),
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("a\\..\\x", "leads out"),
        ("", "may hold"),
        (".", "may hold"),
        ("a//b", "may hold"),
        ("a/", "may hold"),
        ("a\x00b", "may hold"),
        ("a\nb", "may hold"),
        (".hidden", "may hold"),
        ("-rf", "may hold"),
        ("ü", "may hold"),
        ("x" * 300, "may hold"),
    ],
)
def test_names_that_are_refused(name: str, fault: str) -> None:
    with pytest.raises(BundleError, match=fault) as caught:
        check_name(name)
    assert str(caught.value).isprintable()


def test_names_that_collide() -> None:
    check_names(["a", "b/a", "b/c"])
    for names, words in (
        (["a/b", "A/B"], "twice"),
        (["a", "a"], "twice"),
        (["a/b", "A"], "below another file"),
        ([f"f{i}" for i in range(MAX_FILES + 1)], "more than"),
    ):
        with pytest.raises(BundleError, match=words):
            check_names(names)


@given(st.text(max_size=20))
def test_an_allowed_name_stays_below_its_directory(name: str) -> None:
    try:
        check_name(name)
    except BundleError:
        return
    assert name.isascii()
    assert name.isprintable()
    assert not {"", ".", ".."} & set(name.split("/"))


@given(_plain)
def test_plain_json_is_parsed_as_it_is(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), "text") == value
