"""bench, profile and verify, on bundles that run."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save
from typer.testing import CliRunner

from canao.cli import app
from canao.errors import BundleError, DeviceError, InputError, UnsupportedError
from canao.runtime_harness import tool_device
from canao.runtime_harness.affinity import available_cores, default_cores
from canao.runtime_harness.bench import bench
from canao.runtime_harness.bundle import Bundle, ModuleEntry
from canao.runtime_harness.device import DispatchTime
from canao.runtime_harness.dispatch_events import median_dispatches
from canao.runtime_harness.local import LocalDevice
from canao.runtime_harness.measurement import Measurement
from canao.runtime_harness.profile import kind_of, profile, tabulate
from canao.runtime_harness.protocol import PROTOCOL, REAL
from canao.runtime_harness.reference import example_inputs, load_reference
from canao.runtime_harness.toolchain import Toolchain
from canao.runtime_harness.verify import verify
from canao.runtime_harness.workload import reference_bundle

from . import tiny
from .tiny import needed

TARGETS = {"local": "host", "vulkan": "vulkan-llvmpipe", "qemu": "arm64"}


@pytest.mark.parametrize("name", ["local", "vulkan", "qemu"])
def test_bench_measures(name: str, encoder_bundle: Bundle) -> None:
    device = needed(name)
    options: dict[str, Any] = {"repetitions": 6, "warmup": 2, "rounds": 2, "timeout": 120}
    found = bench(encoder_bundle.path, name, reference=encoder_bundle, **options)
    assert (found.device, found.target, found.seq_len) == (name, TARGETS[name], 16)
    assert (found.threads, found.batch, found.precision) == (1, 1, "f32")
    assert found.bundle == encoder_bundle.digest
    assert found.numerics_ok is True
    assert found.emulated is device.info().emulated
    assert (len(found.samples_ms), found.rounds) == (6, 2)
    assert [len(one) for one in found.samples_by_round()] == [3, 3]
    assert len(found.warmup_ms) >= 2
    assert found.median_ms == statistics.median(found.samples_ms)
    assert found.interval[0] <= found.median_ms <= found.interval[1]
    assert (
        found.module == encoder_bundle.manifest.files[f"modules/{TARGETS[name]}-16.vmfb"]["sha256"]
    )
    assert found.protocol == PROTOCOL
    assert found.reference is not None
    assert found.reference["bundle"] == encoder_bundle.digest
    assert found.relative is not None
    assert found.relative_interval is not None
    assert found.relative_interval[0] <= found.relative <= found.relative_interval[1]
    assert found.cores == (None if name == "vulkan" else default_cores(1))
    assert [one["when"] for one in found.environment["readings"]] == [
        "before", "round 1", "round 2", "after",
    ]  # fmt: skip
    assert found.environment["disturbance"]["wall"] > 0
    assert found.device_facts["device"] == name
    assert found.median_ms <= found.p90_ms <= found.p99_ms == max(found.samples_ms)
    assert found.peak_bytes is not None
    assert 2**20 < found.peak_bytes < 2**31
    assert found.environment["cpu"]
    json.dumps(found.to_json(), allow_nan=False)


def test_bench_takes_a_length_threads_and_canaos_own_reference(encoder_bundle: Bundle) -> None:
    found = bench(encoder_bundle, LocalDevice(), seq_len=8, threads=2, rounds=2, dispatches=True)
    assert (found.seq_len, found.threads) == (8, 2)
    assert (found.rounds, len(found.samples_ms)) == (2, 2 * REAL.max_calls)
    assert found.reference is not None
    assert found.reference["bundle"] == reference_bundle().digest
    assert found.relative is not None
    assert 0 < found.relative < 1  # the tiny encoder does next to nothing
    assert found.dispatches
    assert Measurement.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_bench_stays_on_the_chosen_core(encoder_bundle: Bundle) -> None:
    core = available_cores()[0]
    found = bench(encoder_bundle, cores=[core], rounds=1, seq_len=8, reference=encoder_bundle)
    assert found.cores == (core,)
    assert found.environment["disturbance"]["cores"] >= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seq_len": 9}, "use one of 8, 16"),
        ({"threads": 0}, "threads"),
        ({"repetitions": 0}, "repetitions"),
        ({"repetitions": 1.5}, "repetitions"),
        ({"warmup": -1}, "warmup"),
        ({"timeout": 0}, "timeout"),
        ({"rounds": 0}, "rounds"),
        ({"cores": [4096]}, "no core 4096"),
        ({"cores": []}, "1 threads need as many cores"),
        ({"reference": "no-such-bundle"}, "no-such-bundle"),
        ({"target": "none"}, "no module"),
        ({"device": "toaster"}, "local, vulkan, qemu"),
    ],
)
def test_bench_refuses_wrong_arguments(
    options: dict[str, Any], words: str, encoder_bundle: Bundle
) -> None:
    with pytest.raises(InputError, match=words):
        bench(encoder_bundle, **options)


def test_bench_runs_out_of_time(encoder_bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match="did not end within"):
        bench(encoder_bundle, timeout=0.0001)


def copy_with(bundle: Bundle, path: Path, **changes: Any) -> Bundle:
    """Write the encoder's host modules again, with another reference or tolerance."""
    files = tiny.encoder_files((8,))
    files.update(changes.pop("files", {}))
    return tiny.write(
        path,
        [(tiny.entry("host", 8), tiny.compiled(tiny.encoder(8), "host"))],
        inputs=tiny.ENCODER_INPUTS,
        outputs=tiny.ENCODER_OUTPUTS,
        files=files,
        vocab_size=tiny.VOCAB,
        **{"reference": {"8": "reference/8.safetensors"}, **changes},
    )


def wrong_reference() -> bytes:
    ids = np.ones((1, 8), np.int32)
    outputs = tiny.expected(ids)
    outputs["hidden"] = outputs["hidden"] + 1
    return save(
        {
            "s/in/input_ids": ids,
            "s/in/attention_mask": ids,
            **{f"s/out/{name}": array for name, array in outputs.items()},
        }
    )


def test_wrong_numbers_are_told_by_bench_and_verify(
    encoder_bundle: Bundle, tmp_path: Path
) -> None:
    files = {"reference/8.safetensors": wrong_reference()}
    bundle = copy_with(encoder_bundle, tmp_path / "wrong", files=files)
    assert bench(bundle, repetitions=1, warmup=0, reference=encoder_bundle).numerics_ok is False
    for command in (["bench"], ["bench", "--json"]):
        told = CliRunner().invoke(app, [*command, str(bundle.path), "--repetitions", "1"])
        assert told.exit_code == 4, told.output
        assert '"numerics_ok": false' in told.output or "NUMBERS DIFFER" in told.output
    found = verify(bundle)
    assert found["ok"] is False
    assert found["max_abs_err"] == pytest.approx(1, rel=1e-5)
    assert bundle.numerics["host"] == found


def test_without_a_reference_bench_does_not_know(encoder_bundle: Bundle, tmp_path: Path) -> None:
    bundle = copy_with(encoder_bundle, tmp_path / "bare", files={}, reference={})
    assert bench(bundle, repetitions=1, warmup=0, reference=encoder_bundle).numerics_ok is None
    with pytest.raises(InputError, match="no reference for sequence length 8"):
        verify(bundle)


@pytest.mark.parametrize("name", ["local", "vulkan", "qemu"])
def test_verify_compares_every_length_and_records(name: str, tmp_path: Path) -> None:
    needed(name)
    bundle = tiny.write_encoder(tmp_path / "bundle", [TARGETS[name]])
    found = verify(bundle.path, name, timeout=120)
    assert found == {
        "verified": True,
        "device": name,
        "max_abs_err": pytest.approx(0, abs=1e-5),
        "cosine": pytest.approx(1),
        "ok": True,
    }
    assert bundle.numerics == {TARGETS[name]: found}


def test_verify_of_one_length_is_not_recorded(tmp_path: Path) -> None:
    bundle = tiny.write_encoder(tmp_path / "bundle.canao", ["host"])
    assert verify(bundle, seq_len=8)["ok"]
    assert verify(bundle, record=False)["ok"]
    assert bundle.numerics == {}


def test_verify_works_on_any_device(encoder_bundle: Bundle) -> None:
    inner = LocalDevice()

    class Foreign:
        name = "foreign"
        check = staticmethod(inner.check)
        run = staticmethod(inner.run)

    assert verify(encoder_bundle, Foreign(), record=False)["ok"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"s/in/other": np.ones(1)}, "'s/in/other'"),
        ({"odd": np.ones(1)}, "'odd'"),
        ({"s/in/input_ids": np.ones((1, 8), np.int32)}, "lacks inputs or outputs"),
        (None, "safetensors"),
    ],
)
def test_a_bad_reference_is_refused(
    tensors: Any, words: str, encoder_bundle: Bundle, tmp_path: Path
) -> None:
    data = b"junk" if tensors is None else save(tensors)
    files = {"reference/8.safetensors": data}
    bundle = copy_with(encoder_bundle, tmp_path / "bad", files=files)
    with pytest.raises(BundleError, match=words):
        load_reference(bundle, 8)


def test_example_inputs_are_the_references_or_made_up(
    encoder_bundle: Bundle, tmp_path: Path
) -> None:
    module = encoder_bundle.module("host", 8)
    inputs = example_inputs(encoder_bundle, module)
    sample = load_reference(encoder_bundle, 8)[0]
    assert (inputs["input_ids"] == sample.inputs["input_ids"]).all()
    bare = copy_with(encoder_bundle, tmp_path / "bare", reference={}, files={})
    made = example_inputs(bare, module)
    assert made["input_ids"].dtype == np.int32
    assert made["input_ids"].max() < tiny.VOCAB
    assert (made["attention_mask"] == 1).all()
    assert (made["input_ids"] == example_inputs(bare, module)["input_ids"]).all()


def with_calls(bundle: Bundle, path: Path, target: str) -> Bundle:
    calls = [(item.name, f"layer.{i}") for i, item in enumerate(times_of(bundle, target))]
    module = tiny.entry(target, 8, calls=tuple(calls))
    return tiny.write(
        path,
        [(module, tiny.compiled(tiny.encoder(8), target))],
        inputs=tiny.ENCODER_INPUTS,
        outputs=tiny.ENCODER_OUTPUTS,
        files=tiny.encoder_files((8,)),
        vocab_size=tiny.VOCAB,
    )


def times_of(bundle: Bundle, target: str) -> list[DispatchTime]:
    module: ModuleEntry = bundle.module(target, 8)
    device = needed({value: key for key, value in TARGETS.items()}[target])
    return device.profile(bundle, module, example_inputs(bundle, module))


@pytest.mark.parametrize("name", ["local", "vulkan", "qemu"])
def test_profile_maps_dispatches_to_layers(
    name: str, encoder_bundle: Bundle, tmp_path: Path
) -> None:
    device = needed(name)
    bundle = with_calls(encoder_bundle, tmp_path / "calls", TARGETS[name])
    found = profile(bundle, name)
    assert found.emulated is device.info().emulated
    assert (found.device, found.target, found.seq_len) == (name, TARGETS[name], 8)
    assert len(found) == len(found.rows) >= 2
    assert {row.layer for row in found} == {f"layer.{i}" for i in range(len(found))}
    assert sum(row.share for row in found) == pytest.approx(1)
    assert [row.ms for row in found] == sorted((row.ms for row in found), reverse=True)
    assert found.rows[0].to_json().keys() == {"name", "layer", "kind", "calls", "ms", "share"}
    json.dumps(found.to_json(), allow_nan=False)


def test_profile_with_threads(encoder_bundle: Bundle) -> None:
    assert profile(encoder_bundle, threads=2, seq_len=8).threads == 2


@pytest.mark.parametrize("answer", ["nothing", "a refusal"])
def test_a_device_that_cannot_tell_dispatches_apart(
    answer: str, encoder_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def time_dispatches(self: Toolchain, *arguments: Any, **options: Any) -> list[DispatchTime]:
        if answer == "nothing":
            return []
        raise DeviceError("timing m.vmfb on local failed: UNIMPLEMENTED; no such data")

    monkeypatch.setattr(tool_device.Toolchain, "time_dispatches", time_dispatches)
    with pytest.raises(UnsupportedError, match="local"):
        profile(encoder_bundle)


def dispatch(name: str, ms: float, calls: int = 1) -> DispatchTime:
    return DispatchTime(name=name, ms=ms, calls=calls)


def test_each_call_of_a_dispatch_is_told_by_its_layer() -> None:
    times = [dispatch("a", 1), dispatch("b", 5), dispatch("a", 2), dispatch("a", 4)]
    calls = [("a", "x"), ("b", "y"), ("a", "z"), ("a", "x")]
    rows = tabulate(times, calls)
    assert [(row.name, row.layer, row.calls, row.ms) for row in rows] == [
        ("a", "x", 2, 5),
        ("b", "y", 1, 5),
        ("a", "z", 1, 2),
    ]
    assert sum(row.share for row in rows) == pytest.approx(1)


def test_times_of_several_calls_are_shared_out() -> None:
    rows = tabulate([dispatch("a", 6, calls=3)], [("a", "x"), ("a", "y"), ("a", "x")])
    assert {row.layer: (row.calls, row.ms) for row in rows} == {"x": (2, 4), "y": (1, 2)}


def test_layers_are_not_guessed() -> None:
    times = [dispatch("a", 1), dispatch("b", 1), dispatch("c", 1)]
    rows = tabulate(times, [("a", "x"), ("a", "y"), ("b", "z"), ("b", "z")])
    assert {row.name: row.layer for row in rows} == {"a": "", "b": "z", "c": ""}
    assert tabulate([], [("a", "x")]) == ()
    assert tabulate([dispatch("a", 0)], [])[0].share == 0


def test_the_median_leaves_out_the_first_inference() -> None:
    events = [dispatch("a", 9), dispatch("b", 9)]
    events += [dispatch("a", 1), dispatch("b", 4), dispatch("a", 3), dispatch("b", 2)]
    assert median_dispatches(events, 3) == [dispatch("a", 2), dispatch("b", 3)]
    assert median_dispatches(events[:2], 1) == events[:2]
    assert median_dispatches([], 3) == []
    for wrong in (events[:5], [*events[:4], dispatch("b", 1), dispatch("a", 1)]):
        with pytest.raises(DeviceError, match="same dispatches"):
            median_dispatches(wrong, 3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("main$async_dispatch_19_batch_matmul_1x128x384x1536_f32", "matmul"),
        ("main$async_dispatch_10_matmul_like_12x128x128x32_f32", "matmul"),
        ("main_dispatch_3_mmt4d_4x4", "matmul"),
        ("_encoding_6_encode_12x128x128xf32_to_12x128x128xf32", "pack"),
        ("main_dispatch_2_unpack_f32", "pack"),
        ("main_dispatch_1_reduction_128x384_f32", "reduction"),
        ("main_dispatch_1_softmax_12x128x128xf32_dispatch_tensor_store", "softmax"),
        ("canao_attention_bf16", "attention"),
        ("canao_layer_norm_quantize", "layer_norm"),
        ("canao_quantize_rows", "quantize"),
        ("main_dispatch_0_elementwise_128x384_f32", "elementwise"),
        ("embedding_gather", "gather"),
        ("main_dispatch_5_slow_memcpy", "copy"),
        ("main_dispatch_5_convert_f32", "other"),
        ("main_dispatch_7", "other"),
    ],
)
def test_the_kind_is_read_from_the_name(name: str, kind: str) -> None:
    assert kind_of(name) == kind
