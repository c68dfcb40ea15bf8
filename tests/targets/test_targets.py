"""The target type, the table, and the detection of this machine's features."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canao import targets
from canao.errors import InputError
from canao.targets import PRECISIONS, Target, host, registry

_words = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,8}", fullmatch=True)
_common: dict[str, st.SearchStrategy[Any]] = {
    "name": _words,
    "description": st.text(max_size=20),
    "precisions": st.lists(st.sampled_from(PRECISIONS), min_size=1, unique=True).map(tuple),
    "max_storage_buffer_bytes": st.none() | st.integers(1, 2**40),
    "subgroup_size": st.none() | st.integers(1, 128),
    "has_int64": st.booleans(),
    "devices": st.lists(_words, max_size=3).map(tuple),
    "vulkan_device_patterns": st.lists(_words, max_size=3).map(tuple),
}
some_targets = st.builds(
    Target,
    kind=st.just("cpu"),
    triple=st.sampled_from(("", "aarch64-none-linux-android34")),
    cpu=st.sampled_from(("", "cortex-a76")),
    features=st.lists(_words, max_size=4).map(tuple),
    **_common,
) | st.builds(Target, kind=st.just("vulkan"), gpu=_words, **_common)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Target]:
    """A copy of the table that the test may spoil."""
    copy = dict(registry._targets)
    monkeypatch.setattr(registry, "_targets", copy)
    monkeypatch.setattr(registry, "_entry_points_loaded", True)
    return copy


@given(some_targets)
def test_json_round_trip(target: Target) -> None:
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target


@given(some_targets, st.data())
def test_a_spoiled_field_gives_a_target_or_an_input_error(
    target: Target, data: st.DataObject
) -> None:
    value = target.to_json()
    value[data.draw(st.sampled_from([*value, "surplus"]))] = data.draw(_json)
    try:
        spoiled = Target.from_json(value)
    except InputError:
        return
    assert spoiled.to_json() == value


@given(_json)
def test_any_json_is_refused_with_an_input_error(value: object) -> None:
    with pytest.raises(InputError):
        Target.from_json(value)


def test_targets_are_values() -> None:
    target = targets.get("arm64")
    with pytest.raises(dataclasses.FrozenInstanceError):
        target.name = "other"  # type: ignore[misc]
    assert hash(target) == hash(targets.get("arm64"))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kind": "gpu"}, "kind"),
        ({"name": "A B"}, "name"),
        ({"precisions": ()}, "precisions"),
        ({"precisions": ("f64",)}, "f64"),
        ({"features": ("+dotprod",)}, r"\+dotprod"),
        ({"gpu": "adreno"}, "no gpu"),
        ({"kind": "vulkan"}, "needs gpu"),
        ({"kind": "vulkan", "gpu": "adreno"}, "no triple"),
        ({"subgroup_size": 0}, "subgroup_size"),
        ({"subgroup_size": True}, "subgroup_size"),
        ({"vulkan_device_patterns": ("Mali",)}, "lower-case"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        dataclasses.replace(targets.get("arm64"), **change)


def test_the_built_in_table() -> None:
    assert targets.names()[:6] == (
        "host",
        "arm64",
        "arm64-i8mm",
        "vulkan-llvmpipe",
        "vulkan-adreno",
        "vulkan-mali",
    )
    assert [targets.get(name).name for name in targets.names()] == list(targets.names())
    assert targets.get("arm64").arch == "aarch64"
    assert targets.get("vulkan-mali").arch == ""
    sizes = {name: targets.get(f"vulkan-{name}").subgroup_size for name in _GPUS}
    assert sizes == {"llvmpipe": 8, "adreno": 64, "mali": 16}
    assert not targets.get("vulkan-adreno").has_int64
    assert not targets.get("vulkan-mali").has_int64


_GPUS = ("llvmpipe", "adreno", "mali")


@pytest.mark.parametrize(
    ("device", "right_on"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", "vulkan-llvmpipe"),
        ("Adreno (TM) 740", "vulkan-adreno"),
        ("Mali-G710", "vulkan-mali"),
        ("Immortalis-G715", "vulkan-mali"),
        ("Mali-G52", None),
        ("SwiftShader Device (LLVM 10.0.0)", None),
    ],
)
def test_a_driver_runs_only_its_own_target(device: str, right_on: str | None) -> None:
    right = [
        target.name
        for target in map(targets.get, targets.names())
        if any(pattern in device.lower() for pattern in target.vulkan_device_patterns)
    ]
    assert right == ([right_on] if right_on else [])


def test_an_unknown_name_lists_the_known(table: dict[str, Target]) -> None:
    with pytest.raises(InputError, match=r"'armv9'.*host, arm64, arm64-i8mm"):
        targets.get("armv9")


def test_register(table: dict[str, Target]) -> None:
    mine = dataclasses.replace(targets.get("arm64"), name="mine")
    targets.register(mine)
    assert targets.get("mine") is mine
    assert targets.names()[-1] == "mine"
    with pytest.raises(InputError, match="'mine' already"):
        targets.register(mine)
    other = dataclasses.replace(mine, features=("i8mm",))
    targets.register(other, replace=True)
    assert targets.get("mine") is other
    with pytest.raises(InputError, match="always this machine"):
        targets.register(dataclasses.replace(mine, name="host"), replace=True)
    with pytest.raises(InputError, match="not str"):
        targets.register("mine")  # type: ignore[arg-type]


class _Entry:
    name = "plugin"
    dist = None

    def __init__(self, loaded: object) -> None:
        self._loaded = loaded

    def load(self) -> object:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def _install(monkeypatch: pytest.MonkeyPatch, *loaded: object) -> None:
    def entry_points(*, group: str) -> list[_Entry]:
        assert group == targets.ENTRY_POINT_GROUP == "canao.targets"
        return [_Entry(item) for item in loaded]

    monkeypatch.setattr(registry, "_entry_points_loaded", False)
    monkeypatch.setattr(metadata, "entry_points", entry_points)


def test_entry_points(table: dict[str, Target], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (
        dataclasses.replace(targets.ARM64, name=name) for name in ("one", "two", "three")
    )
    _install(monkeypatch, one, [two, three])
    assert targets.names()[-3:] == ("one", "two", "three")
    assert targets.get("three") is three


@pytest.mark.parametrize(
    ("loaded", "words"),
    [
        (ImportError("no module named zzz"), "'plugin'.*failed to load.*zzz.*uninstall"),
        ("text", "'plugin'.*not str"),
        (dataclasses.replace(targets.ARM64, features=("i8mm",)), "'plugin'.*'arm64' already"),
    ],
)
def test_a_bad_entry_point_is_named(
    table: dict[str, Target], monkeypatch: pytest.MonkeyPatch, loaded: object, words: str
) -> None:
    _install(monkeypatch, loaded)
    for _ in range(2):
        with pytest.raises(InputError, match=words):
            targets.names()


def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, *cores: str) -> None:
    word = "Features" if machine == "aarch64" else "flags"
    path = tmp_path / "cpuinfo"
    path.write_text("".join(f"processor\t: {i}\n{word}\t: {c}\n\n" for i, c in enumerate(cores)))
    monkeypatch.setattr(host, "_CPUINFO", path)
    monkeypatch.setattr("platform.machine", lambda: machine)


def test_arm_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _machine(
        monkeypatch, tmp_path, "aarch64", "fp asimd asimddp i8mm bf16", "fp asimd asimddp bf16"
    )
    assert targets.host_target().features == ("dotprod", "bf16")
    assert targets.host_target().arch == "aarch64"
    assert targets.missing_features(("neon", "+dotprod", "i8mm"), "aarch64") == ("i8mm",)
    assert targets.missing_features(("dotprod",), "x86_64") == ("x86_64", "dotprod")


def test_x86_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _machine(
        monkeypatch, tmp_path, "AMD64", "sse sse2 pni sse4_2 abm avx2 avx512_bf16 amx_bf16 aes"
    )
    plain = ("sse3", "sse4.2", "lzcnt", "avx2", "avx512bf16")
    for granted in (True, False):  # what the CPU has, a sandbox may forbid
        monkeypatch.setattr(host, "_tiles_are_granted", lambda granted=granted: granted)
        tiles = ("amx-bf16",) if granted else ()
        assert targets.host_target().features == (*plain, *tiles)
        lacking = () if granted else ("amx-bf16",)
        assert targets.missing_features(("amx-bf16",), "x86_64") == lacking
    required = ("sse2", "avx2", "avx512f", "avx512f", "aes", "never-heard-of")
    assert targets.missing_features(required, "x86_64") == ("avx512f", "never-heard-of")


def test_no_cpuinfo_means_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host, "_CPUINFO", tmp_path / "absent")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert targets.host_target().features == ()
    assert targets.missing_features(("avx2",), "x86_64") == ("avx2",)


def test_this_machine_runs_what_is_built_for_it() -> None:
    here = targets.host_target()
    assert targets.missing_features(here.features, here.arch) == ()


_MODULE = "func.func @f(%a: tensor<8xf32>) -> tensor<8xf32> { return %a : tensor<8xf32> }"
_LOCAL = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
)


def _iree_compile(*options: str) -> str:
    """Compile an addition; return what the compiler wrote, warnings included."""
    module = _MODULE.replace("return %a", "%0 = arith.addf %a, %a : tensor<8xf32> return %0")
    tool = shutil.which("iree-compile", path=str(Path(sys.executable).parent))
    assert tool is not None, "iree-compile is missing: install canao[compiler]"
    done = subprocess.run(
        [tool, "-", "-o", "-", "--compile-to=executable-targets", *options],
        input=module,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _cpu_options(triple: str, features: tuple[str, ...]) -> list[str]:
    spelled = ",".join(f"+{feature}" for feature in features)
    return [
        *_LOCAL,
        *([f"--iree-llvmcpu-target-triple={triple}"] if triple else []),
        f"--iree-llvmcpu-target-cpu-features={spelled}",
    ]


@pytest.mark.parametrize(
    ("triple", "features"),
    [
        ("x86_64-unknown-linux-gnu", tuple(host._X86_64.values())),
        ("aarch64-unknown-linux-gnu", tuple(host._AARCH64.values())),
        (targets.ARM64.triple, targets.ARM64.features),
        (targets.ARM64_I8MM.triple, targets.ARM64_I8MM.features),
    ],
    ids=["x86_64", "aarch64", "arm64", "arm64-i8mm"],
)
def test_llvm_knows_every_feature(triple: str, features: tuple[str, ...]) -> None:
    assert "not a recognized feature" not in _iree_compile(*_cpu_options(triple, features))


def test_llvm_would_tell_of_an_unknown_feature() -> None:
    text = _iree_compile(*_cpu_options("x86_64-unknown-linux-gnu", ("avx2000",)))
    assert "not a recognized feature" in text


@pytest.mark.skipif(
    targets.machine_arch() != "x86_64", reason="LLVM's own detection is compared on x86-64"
)
def test_llvm_detects_the_same_features_here() -> None:
    text = _iree_compile(*_LOCAL, "--iree-llvmcpu-target-cpu=host")
    spelled = re.search(r'cpu_features = "([^"]*)"', text)
    assert spelled is not None
    detected = set(spelled[1].split(","))
    for feature in host._X86_64.values():
        assert (f"+{feature}" in detected) == (feature in targets.host_target().features), feature


@pytest.mark.parametrize("gpu", _GPUS)
def test_the_compiler_agrees_on_the_subgroup_size(gpu: str) -> None:
    target = targets.get(f"vulkan-{gpu}")
    text = _iree_compile("--iree-hal-target-device=vulkan", f"--iree-vulkan-target={target.gpu}")
    assert f"subgroup_size_choices = [{target.subgroup_size}]" in text
    compute = re.search(r"compute = ([^,]*),", text)
    assert compute is not None
    assert ("int64" in compute[1].split("|")) == target.has_int64
