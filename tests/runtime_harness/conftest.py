"""Small bundles, shared by the tests: one of made-up files, and some that run."""

from __future__ import annotations

import pytest

from canao.runtime_harness.bundle import Bundle, Manifest, ModuleEntry, TensorSpec

from . import tiny


@pytest.fixture(scope="session")
def small_files() -> dict[str, bytes]:
    return {
        "modules/arm64-8.vmfb": b"eight",
        "modules/host-16.vmfb": bytes(range(256)) * 3,
        "modules/host-8.vmfb": b"",
        "reference/8.safetensors": b"reference",
        "tokenizer.json": b"{}",
        "weights.safetensors": bytes(1000),
    }


@pytest.fixture(scope="session")
def small_manifest() -> Manifest:
    return Manifest(
        canao="0.1.0",
        model={"name": "small", "dims": (1, 2.5, None, True)},
        precision="f32",
        fusion="auto",
        inputs=(TensorSpec(name="input_ids", dtype="int32", shape=("batch", "seq")),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", "seq", 2)),),
        modules=(
            ModuleEntry(
                target="host",
                seq_len=16,
                batch=1,
                file="modules/host-16.vmfb",
                kind="cpu",
                arch="x86_64",
                features=("avx2",),
                patterns={"fuse-qkv": 2},
                dispatches=3,
            ),
            ModuleEntry(
                target="host",
                seq_len=8,
                batch=1,
                file="modules/host-8.vmfb",
                kind="cpu",
                arch="x86_64",
            ),
            ModuleEntry(
                target="arm64",
                seq_len=8,
                batch=1,
                file="modules/arm64-8.vmfb",
                kind="cpu",
                arch="aarch64",
            ),
        ),
        tokenizer={"file": "tokenizer.json", "pad_id": 0},
        tolerance={"max_abs_rel": 1e-4},
        vocab_size=100,
        reference={"8": "reference/8.safetensors"},
        versions={"torch": "2.13.0"},
    )


@pytest.fixture(scope="session")
def encoder_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny encoder at 8 and 16 tokens, for local, qemu and software Vulkan."""
    path = tmp_path_factory.mktemp("encoder") / "encoder"
    return tiny.write_encoder(path, ("host", "arm64", "vulkan-llvmpipe"))


@pytest.fixture(scope="session")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny encoder for local and qemu, in one zip file."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.canao"
    return tiny.write_encoder(path, ("host", "arm64"))
