from __future__ import annotations

import dataclasses
import gc
import weakref
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from canao import targets
from canao.errors import InputError, MissingDeviceError
from canao.runtime_harness import devices, local, probed_device, qemu, vulkan
from canao.runtime_harness.bundle import Bundle
from canao.runtime_harness.device import Device, DeviceInfo
from canao.runtime_harness.local import LocalDevice
from canao.runtime_harness.qemu import QemuDevice
from canao.runtime_harness.selection import choose_target
from canao.runtime_harness.vulkan import VulkanDevice
from canao.runtime_harness.vulkan_probe import LoaderMissing, VulkanGpu
from canao.targets import Target, machine_arch

from .tiny import entry, needed


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(devices, "_factories", dict(devices._factories))
    return


class OwnDevice(LocalDevice):
    def __init__(self, address: str) -> None:
        self.name, self.address = "own", address


def test_the_built_in_devices() -> None:
    assert devices.names()[:3] == ("local", "vulkan", "qemu")
    assert [info.name for info in devices.infos()][:3] == ["local", "vulkan", "qemu"]
    for name in ("local", "vulkan", "qemu"):
        device = devices.get(name)
        assert isinstance(device, Device)
        assert device.name == name


@pytest.mark.parametrize("name", ["adb", "ssh:me@there", "", "Local", "local "])
def test_an_unknown_device_is_refused_by_naming_the_known(name: str) -> None:
    with pytest.raises(InputError, match="local, vulkan, qemu"):
        devices.get(name)


@pytest.mark.parametrize("name", ["local", "vulkan", "qemu"])
def test_the_built_in_devices_take_no_address(name: str) -> None:
    with pytest.raises(InputError, match="no address"):
        devices.get(f"{name}:1")


@pytest.mark.usefixtures("table")
def test_a_device_can_be_added_and_gets_its_address() -> None:
    devices.register("own", OwnDevice)
    assert devices.get("own:SERIAL:1").address == "SERIAL:1"  # type: ignore[attr-defined]
    assert devices.names()[-1] == "own"
    with pytest.raises(InputError, match="already"):
        devices.register("own", OwnDevice)
    devices.register("own", OwnDevice, replace=True)
    for wrong in ("", "a:b"):
        with pytest.raises(InputError, match="colon"):
            devices.register(wrong, OwnDevice)
    with pytest.raises(InputError, match="callable"):
        devices.register("other", OwnDevice(""))  # type: ignore[arg-type]


def with_entry_points(monkeypatch: pytest.MonkeyPatch, *values: tuple[str, str]) -> None:
    found = [
        metadata.EntryPoint(name=name, value=value, group=devices.ENTRY_POINT_GROUP)
        for name, value in values
    ]
    monkeypatch.setattr(devices.metadata, "entry_points", lambda group: found)
    monkeypatch.setattr(devices, "_entry_points_loaded", False)


@pytest.mark.usefixtures("table")
def test_another_package_adds_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with_entry_points(monkeypatch, ("theirs", f"{__name__}:OwnDevice"))
    assert devices.get("theirs:7").address == "7"  # type: ignore[attr-defined]
    assert "theirs" in devices.names()


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("theirs", "no_such_module:device", "failed to load"),
        ("local", "builtins:print", "already"),
        ("theirs", "os:sep", "callable"),
    ],
)
def test_a_bad_entry_point_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    with_entry_points(monkeypatch, (name, value))
    with pytest.raises(InputError, match=rf"entry point '{name}'.*{words}"):
        devices.names()


def test_local_refuses_what_this_cpu_cannot_run(encoder_bundle: Bundle) -> None:
    device = LocalDevice()
    device.check(encoder_bundle, entry("host", 8))
    other = "aarch64" if machine_arch() == "x86_64" else "x86_64"
    for module, words in (
        (entry("host", 8, arch=other), f"for {other} CPUs, but this machine is {machine_arch()}"),
        (entry("host", 8, features=("avx99", "neon9")), r"lacks \(avx99, neon9\)"),
        (entry("vulkan-llvmpipe", 8), "for a GPU"),
    ):
        with pytest.raises(MissingDeviceError, match=words):
            device.check(encoder_bundle, module)


def test_local_accepts_arm_modules_on_an_arm_machine(
    encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "machine_arch", lambda: "aarch64")
    has = {"dotprod", "neon"}
    monkeypatch.setattr(
        local,
        "missing_features",
        lambda required, arch: tuple(name for name in required if name not in has),
    )
    device = LocalDevice()
    device.check(encoder_bundle, entry("arm64", 8))
    with pytest.raises(MissingDeviceError, match="i8mm"):
        device.check(encoder_bundle, entry("arm64", 8, features=("dotprod", "i8mm")))
    with pytest.raises(MissingDeviceError, match="x86_64"):
        device.check(encoder_bundle, entry("host", 8, arch="x86_64"))


def test_without_the_runtime(encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing() -> Path:
        raise MissingDeviceError("not here")

    monkeypatch.setattr(probed_device, "tool_directory", nothing)
    for device in (LocalDevice(), VulkanDevice()):
        info = device.info()
        assert not info.available
        assert info.targets == ()
        assert "pip install iree-base-runtime" in info.remedy
        with pytest.raises(MissingDeviceError) as caught:
            device.check(encoder_bundle, entry("host", 8))
        assert str(caught.value) == (
            f"{device.name} is not available: IREE's runtime is not installed; "
            "install it: pip install iree-base-runtime"
        )


def test_an_i8mm_module_may_run_under_emulation(encoder_bundle: Bundle) -> None:
    device = needed("qemu")
    features = targets.get("arm64-i8mm").features
    device.check(encoder_bundle, entry("arm64", 8, features=features))
    assert {"arm64", "arm64-i8mm"} <= set(device.info().targets)
    with pytest.raises(MissingDeviceError, match=r"QEMU lacks \(sve99\)"):
        device.check(encoder_bundle, entry("arm64", 8, features=("sve99",)))
    for foreign in (entry("host", 8, arch="x86_64"), entry("vulkan-llvmpipe", 8)):
        with pytest.raises(MissingDeviceError, match="runs aarch64 only"):
            device.check(encoder_bundle, foreign)


def test_qemu_says_what_is_missing_and_how_to_get_it(
    encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("QEMU_LD_PREFIX", str(tmp_path))
    monkeypatch.setenv("CANAO_CACHE_DIR", str(tmp_path / "cache"))
    info = QemuDevice().info()
    assert not info.available
    assert info.emulated
    assert info.targets == ()
    for words in ("qemu-aarch64-static", "libstdc++.so.6", "were not fetched"):
        assert words in info.missing
    for package in ("qemu-user-static", "libc6-arm64-cross", "libgcc-s1-arm64-cross"):
        assert info.remedy.count(package) == 1
    assert "python -m canao.runtime_harness.aarch64_runtime" in info.remedy
    assert info.missing.endswith(".")
    with pytest.raises(MissingDeviceError, match="qemu is not available"):
        QemuDevice().check(encoder_bundle, entry("arm64", 8))


def test_qemu_that_does_not_work_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    needed("qemu")
    monkeypatch.setattr(qemu, "_prefix", lambda: ("false",))
    info = QemuDevice().info()
    assert not info.available
    assert "does not work" in info.missing


GPU = VulkanGpu(
    name="Adreno (TM) 740",
    uuid="00",
    kind="integrated GPU",
    software=False,
    version=(1, 3, 250),
    max_storage_buffer_range=2**27,
    subgroup_size=64,
    features=frozenset({"timelineSemaphore", "scalarBlockLayout", "synchronization2"}),
)
SOFTWARE = dataclasses.replace(GPU, name="llvmpipe (LLVM 19)", software=True, uuid="01")


def with_gpus(monkeypatch: pytest.MonkeyPatch, *gpus: VulkanGpu) -> VulkanDevice:
    monkeypatch.setattr(vulkan, "probe", lambda: list(gpus))
    return VulkanDevice()


def test_vulkan_refuses_modules_for_other_gpus(encoder_bundle: Bundle) -> None:
    device = needed("vulkan")
    if not device.info().details["software"]:
        return
    device.check(encoder_bundle, entry("vulkan-llvmpipe", 8))
    for target in ("vulkan-adreno", "vulkan-mali"):
        with pytest.raises(MissingDeviceError, match=rf"{target}-8.*other GPUs.*wrong numbers"):
            device.check(encoder_bundle, entry(target, 8))
        with pytest.raises(MissingDeviceError, match="wrong numbers"):
            device.run(encoder_bundle, entry(target, 8), {})
    with pytest.raises(MissingDeviceError, match="for a CPU"):
        device.check(encoder_bundle, entry("host", 8))
    with pytest.raises(MissingDeviceError, match="'vulkan-own', which this canao does not know"):
        device.check(encoder_bundle, entry("vulkan-own", 8))


def test_vulkan_runs_each_module_where_it_is_right(
    encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = with_gpus(monkeypatch, SOFTWARE, GPU)
    assert device.info().description.endswith("Adreno (TM) 740")
    assert not device.info().emulated
    assert set(device.info().targets) == {"vulkan-llvmpipe", "vulkan-adreno"}
    for target, uuid, emulated in (
        ("vulkan-llvmpipe", "01", True),
        ("vulkan-adreno", "00", False),
    ):
        tools = device.toolchain(entry(target, 8), 1)
        assert tools.flags == (f"--device=vulkan://GPU-{uuid}",)
        assert device.facts(entry(target, 8))[0] is emulated


def test_vulkan_refuses_what_asks_for_more_than_the_driver_has(
    encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_ = "storageBuffer8BitAccess"
    narrow = dataclasses.replace(entry("vulkan-adreno", 8), features=(bytes_,))
    with pytest.raises(MissingDeviceError, match=f"Adreno .* lacks .{bytes_}.*another precision"):
        with_gpus(monkeypatch, GPU).check(encoder_bundle, narrow)
    able = dataclasses.replace(GPU, features=GPU.features | {bytes_})
    with_gpus(monkeypatch, able).check(encoder_bundle, narrow)


@pytest.mark.parametrize(
    ("gpu", "words"),
    [
        (dataclasses.replace(GPU, version=(1, 1, 0)), r"lacks Vulkan 1\.3 \(it has 1\.1\)"),
        (
            dataclasses.replace(GPU, features=frozenset({"scalarBlockLayout"})),
            "lacks timelineSemaphore, synchronization2",
        ),
    ],
)
def test_vulkan_says_what_the_driver_lacks(
    gpu: VulkanGpu, words: str, encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = with_gpus(monkeypatch, gpu)
    info = device.info()
    assert not info.available
    assert "pdate the driver" in info.remedy
    with pytest.raises(MissingDeviceError, match=words):
        device.check(encoder_bundle, entry("vulkan-adreno", 8))


def test_vulkan_without_a_driver_or_a_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    info = with_gpus(monkeypatch).info()
    assert (info.available, "ICD" in info.missing) == (False, True)

    def nothing() -> list[VulkanGpu]:
        raise LoaderMissing

    monkeypatch.setattr(vulkan, "probe", nothing)
    info = VulkanDevice().info()
    assert (info.available, "loader" in info.missing) == (False, True)
    assert "libvulkan1" in info.remedy


class Picky:
    """Accepts modules by their target's name."""

    name = "picky"

    def __init__(self, *accepted: str) -> None:
        self.accepted = accepted

    def check(self, bundle: Any, module: Any) -> None:
        if module.target not in self.accepted:
            raise MissingDeviceError("it does not fit")


class Shelf:
    """As much of a bundle as a choice needs."""

    path = "shelf"

    def __init__(self, **features: int) -> None:
        self.modules = {
            name: dataclasses.replace(
                entry("host", 8), target=name, features=tuple(map(str, range(count)))
            )
            for name, count in features.items()
        }

    targets = property(lambda self: tuple(self.modules))

    def module(self, name: str) -> Any:
        return self.modules[name]


def test_the_most_specific_target_is_chosen() -> None:
    shelf: Any = Shelf(plain=0, rich=5, some=2, alike=5)
    device: Any = Picky("plain", "rich", "some", "alike")
    assert choose_target(shelf, device) == "rich"
    assert choose_target(shelf, device, "plain") == "plain"
    assert choose_target(shelf, Picky("plain", "some")) == "some"  # type: ignore[arg-type]
    with pytest.raises(MissingDeviceError, match=r"plain, rich, some, alike: it does not fit"):
        choose_target(shelf, Picky())  # type: ignore[arg-type]
    with pytest.raises(MissingDeviceError, match="does not fit"):
        choose_target(shelf, Picky("plain"), "rich")  # type: ignore[arg-type]


def test_each_reason_is_told_once_with_its_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "machine_arch", lambda: "x86_64")
    shelf: Any = Shelf(arm=1, gpu=0, arm_too=2, other_gpu=0)
    for name, module in shelf.modules.items():
        changes = {"kind": "vulkan", "arch": ""} if "gpu" in name else {"arch": "aarch64"}
        shelf.modules[name] = dataclasses.replace(module, **changes)
    with pytest.raises(MissingDeviceError) as caught:
        choose_target(shelf, LocalDevice())
    assert str(caught.value) == (
        "shelf has no module that local can run (arm, arm_too: for aarch64 CPUs, but this "
        "machine is x86_64; gpu, other_gpu: for a GPU, not for a CPU): compile the model for "
        "the target 'host' on this machine"
    )


def test_a_choice_keeps_nothing_alive(encoder_bundle: Bundle) -> None:
    class Kept:
        pass

    def choose() -> weakref.ref[Kept]:
        kept = Kept()
        assert choose_target(encoder_bundle, LocalDevice()) == "host"
        return weakref.ref(kept)

    gc.disable()  # a cycle would be found, but only some day
    try:
        assert choose()() is None
    finally:
        gc.enable()


def test_a_device_that_is_not_here_is_the_only_reason(
    encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingDeviceError, match=r"^vulkan is not available: no Vulkan driver"):
        choose_target(encoder_bundle, with_gpus(monkeypatch))


def test_information_is_json() -> None:
    info = DeviceInfo(name="a", available=True, emulated=False, description="b", targets=("c",))
    assert info.to_json()["targets"] == ["c"]


def test_a_registered_target_finds_its_gpu(
    encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Target(
        name="vulkan-own",
        kind="vulkan",
        description="mine",
        gpu="adreno",
        precisions=("f32",),
        vulkan_device_patterns=("adreno (tm) 7",),
    )
    monkeypatch.setattr(vulkan, "get", lambda name: own if name == own.name else targets.get(name))
    device = with_gpus(monkeypatch, GPU)
    device.check(encoder_bundle, entry("vulkan-own", 8))
