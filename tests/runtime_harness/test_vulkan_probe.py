from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from canao import targets
from canao.runtime_harness import vulkan_probe, vulkan_structs
from canao.runtime_harness.tools import tool_directory
from canao.runtime_harness.vulkan_probe import LoaderMissing, lacking, probe

from .tiny import needed


def test_the_structures_are_as_the_specification_lays_them_out() -> None:
    # Sizes and offsets on a 64-bit machine, from the Vulkan headers.
    assert ctypes.sizeof(vulkan_structs.Properties) == 824
    assert vulkan_structs.Properties.maxStorageBufferRange.offset == 296 + 28
    assert ctypes.sizeof(vulkan_structs.Properties2) == 16 + 824
    assert ctypes.sizeof(vulkan_structs.Features2) == 16 + 55 * 4 + 4
    assert ctypes.sizeof(vulkan_structs.InstanceCreateInfo) == 64
    assert ctypes.sizeof(vulkan_structs.ApplicationInfo) == 48
    assert ctypes.sizeof(vulkan_structs.IdProperties) == 64
    # Room for the largest of those that are asked, VkPhysicalDevice16BitStorageFeatures.
    assert ctypes.sizeof(vulkan_structs.Feature) == 16 + 4 * 4


def test_software_vulkan_has_what_narrow_precisions_need() -> None:
    needed("vulkan")
    for gpu in probe():
        if "llvmpipe" in gpu.name:
            for features in targets.VULKAN_FEATURES.values():
                assert gpu.features.issuperset(features)


def test_it_says_what_iree_says() -> None:
    needed("vulkan")
    done = subprocess.run(
        [str(tool_directory() / "iree-run-module"), "--dump_devices=vulkan"],
        capture_output=True,
        text=True,
        check=True,
    )
    for gpu in probe():
        if lacking(gpu):
            continue
        assert f"name: {gpu.name}" in done.stdout
        assert f"path: GPU-{gpu.uuid}" in done.stdout
        assert f"api: {'.'.join(map(str, gpu.version))}" in done.stdout
        assert f"size={gpu.subgroup_size} " in done.stdout
        assert gpu.max_storage_buffer_range >= 2**27


def test_without_a_driver_there_is_no_device() -> None:
    needed("vulkan")
    code = "from canao.runtime_harness.vulkan_probe import probe; print(probe())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"VK_ICD_FILENAMES": "/no/such/driver", "VK_DRIVER_FILES": "/no/such/driver"},
    )
    assert done.stdout == "[]\n"


def test_without_a_loader_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(vulkan_probe.ctypes, "CDLL", nothing)
    with pytest.raises(LoaderMissing):
        probe()
