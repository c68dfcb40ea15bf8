from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from canao.errors import BundleError, DeviceError, InputError, MissingDeviceError
from canao.runtime_harness.bundle import Bundle, TensorSpec
from canao.runtime_harness.local import LocalDevice
from canao.runtime_harness.reference import example_inputs
from canao.runtime_harness.session import load

from . import tiny
from .tiny import VOCAB, expected, needed


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)


@settings(deadline=None)
@given(rows=st.integers(1, 5), length=st.integers(1, 16), data=st.data())
def test_any_number_of_rows_and_any_length(
    encoder_bundle: Bundle, rows: int, length: int, data: st.DataObject
) -> None:
    ids = data.draw(
        st.lists(
            st.lists(st.integers(0, VOCAB - 1), min_size=length, max_size=length),
            min_size=rows,
            max_size=rows,
        )
    )
    same(shared(encoder_bundle)(input_ids=ids), expected(ids))


_sessions: dict[Path, Any] = {}


def shared(bundle: Bundle) -> Any:
    if bundle.path not in _sessions:
        _sessions[bundle.path] = load(bundle)
    return _sessions[bundle.path]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5])
def test_a_larger_static_batch_is_filled_up(tmp_path: Path, rows: int) -> None:
    bundle = tiny.write_encoder(tmp_path / "batch", ["host"], (8,), batch=2)
    ids = np.random.default_rng(rows).integers(0, VOCAB, (rows, 5))
    mask = np.tril(np.ones((rows, 5), int), 2)
    with load(bundle) as session:
        same(session(input_ids=ids, attention_mask=mask), expected(ids, mask))


@pytest.mark.parametrize("name", ["local", "vulkan", "qemu"])
def test_every_device_gives_the_same(name: str, encoder_bundle: Bundle) -> None:
    needed(name)
    ids = np.arange(14).reshape(2, 7)
    mask = np.array([[1] * 7, [1] * 3 + [0] * 4])
    with load(encoder_bundle.path, name) as session:
        assert session.device == name
        assert session.seq_lens == (8, 16)
        assert name in repr(session)
        same(session(input_ids=ids, attention_mask=mask), expected(ids, mask))
        same(session(input_ids=ids[:, :1]), expected(ids[:, :1]))


@pytest.mark.parametrize("name", ["local", "qemu"])
def test_a_zip_file_runs_too(name: str, encoder_file: Bundle) -> None:
    needed(name)
    with load(encoder_file.path, name) as session:
        same(session(input_ids=[[1, 2, 3]]), expected([[1, 2, 3]]))


@pytest.mark.parametrize("name", ["local", "vulkan", "qemu"])
def test_every_dtype_and_shapes_without_words(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    needed(name)
    targets = {"local": "host", "vulkan": "vulkan-llvmpipe", "qemu": "arm64"}
    target = targets[name]
    outputs = [
        TensorSpec(name=new, dtype=spec.dtype, shape=spec.shape)
        for new, spec in zip("ygkm", tiny.MIXED_INPUTS, strict=True)
    ]
    bundle = tiny.write(
        tmp_path_factory.mktemp("mixed") / "mixed",
        [(tiny.entry(target, 1), tiny.compiled(tiny.MIXED, target))],
        inputs=tiny.MIXED_INPUTS,
        outputs=tuple(outputs),
    )
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    f = np.array([[True, False, True], [False, False, True]])
    h = np.array([0.5, 1, -2, 3], ml_dtypes.bfloat16)
    n = np.array([1, -(2**40), 2**62])
    with load(bundle, name) as session:
        found = session(x=x, f=f, h=h, n=n)
    assert found["y"].tolist() == np.where(f, x * 2, x).tolist()
    assert found["g"].dtype == bool
    assert found["g"].tolist() == (~f).tolist()
    assert found["k"].dtype == ml_dtypes.bfloat16
    assert found["k"].astype(np.float32).tolist() == [1, 2, -4, 6]
    assert found["m"].tolist() == (n + 1).tolist()


def test_outputs_belong_to_the_caller(encoder_bundle: Bundle) -> None:
    with load(encoder_bundle) as session:
        first = session(input_ids=[[1] * 8])
        kept = {name: array.copy() for name, array in first.items()}
        session(input_ids=[[2] * 8])
        for name, array in first.items():
            assert (array == kept[name]).all()
            array[...] = 0
        same(session(input_ids=[[1] * 8]), kept)
    assert (first["pooled"] == 0).all()


def test_longer_inputs_are_refused_or_cut(encoder_bundle: Bundle) -> None:
    ids = np.arange(20)[None] % VOCAB
    with load(encoder_bundle) as session, pytest.raises(InputError, match="20 tokens"):
        session(input_ids=ids)
    with load(encoder_bundle, truncate=True) as session:
        same(session(input_ids=ids), expected(ids[:, :16]))


def test_padding_uses_the_tokenizers_pad_id(tmp_path: Path) -> None:
    # Without a mask the pad id shows in the sum over all positions.
    text = tiny.encoder(8).replace("%mask: tensor<1x8xi32>", "%other: tensor<1x8xi32>")
    text = text.replace("(%ids, %mask :", "(%ids, %other :")
    specs = (
        tiny.ENCODER_INPUTS[0],
        TensorSpec(name="weights", dtype="int32", shape=("batch", 8)),
    )
    bundle = tiny.write(
        tmp_path / "pad",
        [(tiny.entry("host", 8), tiny.compiled(text, "host"))],
        inputs=specs,
        outputs=tiny.ENCODER_OUTPUTS,
        files={**tiny.encoder_files([]), "tokenizer.json": b"{}"},
        vocab_size=VOCAB,
        tokenizer={"file": "tokenizer.json", "pad_id": 3},
    )
    with load(bundle) as session:
        found = session(input_ids=[[5, 6]], weights=np.ones((1, 8), np.int32))
    same(
        {"pooled": found["pooled"]},
        {"pooled": expected([[5, 6, 3, 3, 3, 3, 3, 3]])["pooled"]},
    )
    assert found["hidden"].shape == (1, 2, 4)


def test_an_output_for_all_rows_together_cannot_be_put_together(tmp_path: Path) -> None:
    outputs = (
        tiny.ENCODER_OUTPUTS[0],
        TensorSpec(name="pooled", dtype="float32", shape=(2, 4)),
        tiny.ENCODER_OUTPUTS[2],
    )
    bundle = tiny.write(
        tmp_path / "whole",
        [(tiny.entry("host", 8, batch=2), tiny.compiled(tiny.encoder(8, 2), "host"))],
        inputs=tiny.ENCODER_INPUTS,
        outputs=outputs,
        files=tiny.encoder_files([]),
        vocab_size=VOCAB,
    )
    with load(bundle) as session:
        same(session(input_ids=[[1], [2]]), expected([[1], [2]]))
        for rows in (1, 3):
            with pytest.raises(InputError, match=rf"exactly 2 rows.*not {rows}"):
                session(input_ids=[[1]] * rows)


def test_threads_share_a_session(encoder_bundle: Bundle) -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        random = np.random.default_rng(seed)
        try:
            for _ in range(50):
                ids = random.integers(0, VOCAB, (random.integers(1, 3), random.integers(1, 16)))
                same(session(input_ids=ids), expected(ids))
        except BaseException as error:
            failures.append(error)

    with load(encoder_bundle) as session:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def count_workers() -> int:
    count = 0
    for task in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            count += task.read_text().startswith("iree-worker")
    return count


def workers(expected: int) -> int:
    """Count the workers; each gives itself its name a moment after it was started."""
    for _ in range(200):
        if count_workers() == expected:
            break
        time.sleep(0.01)
    return count_workers()


def test_threads_are_as_many_as_asked_for_and_go_with_the_session(encoder_bundle: Bundle) -> None:
    before = count_workers()
    with load(encoder_bundle, threads=3) as three:
        assert workers(before + 3) == before + 3
        with load(encoder_bundle, threads=2) as two, load(encoder_bundle) as one:
            assert workers(before + 5) == before + 5
            for session in (one, two, three):
                same(session(input_ids=[[1, 2]]), expected([[1, 2]]))
        same(three(input_ids=[[1, 2]]), expected([[1, 2]]))
    assert workers(before) == before


def test_threads_of_others_in_this_process_stay_as_they_were(encoder_bundle: Bundle) -> None:
    code = f"""
import os, time
os.environ["IREE_PY_RUNTIME_FLAGS"] = "--task_topology_group_count=3"
from canao.runtime_harness import load
from pathlib import Path
load({str(encoder_bundle.path)!r}, threads=2)
from iree import runtime
device = runtime.get_device("local-task")
for _ in range(200):
    names = [task.read_text() for task in Path("/proc/self/task").glob("*/comm")]
    count = sum(name.startswith("iree-worker") for name in names)
    if count == 3:
        break
    time.sleep(0.01)
print(count)
"""
    assert run_python(code).stdout.split() == ["3"]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("end", ["session.close()", "del session", "pass"])
@pytest.mark.parametrize("device", ["local", "vulkan"])
def test_nothing_is_said_when_the_process_ends(
    device: str, end: str, encoder_bundle: Bundle
) -> None:
    needed(device)
    code = f"""
from canao.runtime_harness import load
session = load({str(encoder_bundle.path)!r}, {device!r}, timeout=60)
other = load({str(encoder_bundle.path)!r})
session(input_ids=[[1]])
{end}
"""
    assert run_python(code).stderr == ""


@pytest.mark.parametrize("device", ["local", "vulkan"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_forked_child_refuses_and_ends(
    device: str, threads: int, encoder_bundle: Bundle
) -> None:
    needed(device)
    if device == "vulkan" and threads > 1:
        with pytest.raises(InputError):
            load(encoder_bundle, device, threads=threads)
        return
    code = f"""
import os, signal, sys
from canao.errors import InputError
from canao.runtime_harness import load
session = load({str(encoder_bundle.path)!r}, {device!r}, threads={threads})
session(input_ids=[[1]])
child = os.fork()
if not child:
    signal.alarm(30)
    try:
        session(input_ids=[[1]])
    except InputError as error:
        assert "forked" in str(error)
    with load({str(encoder_bundle.path)!r}, threads={threads}) as own:
        own(input_ids=[[1]])
    session.close()
    del session
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
session(input_ids=[[2]])
"""
    assert run_python(code).stderr == ""


def test_a_gpu_in_use_before_a_fork_is_refused_in_the_child(encoder_bundle: Bundle) -> None:
    needed("vulkan")
    code = f"""
import os, signal, sys
from canao.errors import DeviceError
from canao.runtime_harness import load
session = load({str(encoder_bundle.path)!r}, "vulkan")
child = os.fork()
if not child:
    signal.alarm(30)
    try:
        load({str(encoder_bundle.path)!r}, "vulkan")
    except DeviceError as error:
        sys.exit(7 if "spawn" in str(error) else 8)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    run_python(code)


def slow_bundle(path: Path, target: str) -> Bundle:
    return tiny.write(
        path,
        [(tiny.entry(target, 1), tiny.compiled(tiny.SLOW, target))],
        inputs=(TensorSpec(name="rounds", dtype="int32", shape=(1,)),),
        outputs=(TensorSpec(name="x", dtype="float32", shape=(1,)),),
    )


def test_a_call_in_this_process_that_takes_too_long_loses_the_session(tmp_path: Path) -> None:
    session = load(slow_bundle(tmp_path / "slow", "host"), timeout=0.2)
    assert np.isfinite(session(rounds=[10])["x"]).all()
    with pytest.raises(DeviceError, match=r"within 0\.2 s"):
        session(rounds=[400_000_000])
    with pytest.raises(DeviceError, match="load the bundle again"):
        session(rounds=[10])
    session.close()
    with pytest.raises(DeviceError):
        session(rounds=[10])


@pytest.mark.parametrize("end", ["pass", "session.close()", "del session, call"])
@pytest.mark.parametrize("rest", [0, 5])
def test_a_lost_session_does_not_spoil_the_end_of_the_process(
    rest: float, end: str, tmp_path: Path
) -> None:
    """Neither while the lost call still runs, nor after it has returned."""
    bundle = slow_bundle(tmp_path / "slow", "host")
    code = f"""
import time
from canao.errors import DeviceError
from canao.runtime_harness import load
session = load({str(bundle.path)!r}, timeout=0.2)
call = lambda: session(rounds=[100_000_000 if {rest} else 2_000_000_000])
try:
    call()
except DeviceError:
    print("lost")
until = time.monotonic() + {rest}
while time.monotonic() < until and session._is_busy():
    time.sleep(0.05)
{end}
"""
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("lost\n", "")


def test_a_process_that_takes_too_long_is_stopped_and_the_session_stays(tmp_path: Path) -> None:
    needed("qemu")
    with load(slow_bundle(tmp_path / "slow", "arm64"), "qemu", timeout=5) as session:
        with pytest.raises(DeviceError, match="did not end"):
            session(rounds=[2_000_000_000])
        assert np.isfinite(session(rounds=[10])["x"]).all()


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True])
def test_a_wrong_timeout_is_refused(timeout: Any, encoder_bundle: Bundle) -> None:
    with pytest.raises(InputError, match="timeout"):
        load(encoder_bundle, timeout=timeout)


@pytest.mark.parametrize("threads", [0, -1, 65, 1.0, True, "2"])
def test_a_wrong_number_of_threads_is_refused(threads: Any, encoder_bundle: Bundle) -> None:
    with pytest.raises(InputError, match="threads must be from 1 to 64 on local"):
        load(encoder_bundle, threads=threads)


def test_an_unknown_device_target_or_bundle_is_refused(
    encoder_bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="local, vulkan, qemu"):
        load(encoder_bundle, "adb")
    with pytest.raises(InputError, match="no module for the target 'x'"):
        load(encoder_bundle, target="x")
    with pytest.raises(MissingDeviceError, match="for a GPU"):
        load(encoder_bundle, target="vulkan-llvmpipe")
    with pytest.raises(BundleError):
        load(tmp_path / "none")


def corrupted(tmp_path: Path, **changes: Any) -> Bundle:
    parts: dict[str, Any] = {
        "code": tiny.compiled(tiny.encoder(8), "host"),
        "inputs": tiny.ENCODER_INPUTS,
        "outputs": tiny.ENCODER_OUTPUTS,
        "files": tiny.encoder_files([]),
        "entry": tiny.entry("host", 8),
        **changes,
    }
    return tiny.write(
        tmp_path / "bad",
        [(parts["entry"], parts["code"])],
        inputs=parts["inputs"],
        outputs=parts["outputs"],
        files=parts["files"],
        vocab_size=VOCAB,
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"code": b"this is no module"}, "cannot be loaded"),
        ({"code": b""}, "cannot be loaded"),
        ({"files": {}}, "io_parameters"),
        ({"files": {"weights.safetensors": b"no weights"}}, "cannot be loaded"),
        ({"entry": tiny.entry("host", 8, function="other")}, "no function 'other'"),
    ],
)
def test_a_bundle_that_cannot_be_loaded_fails_at_once(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(BundleError, match=words) as caught:
        load(corrupted(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": tiny.ENCODER_OUTPUTS[:2]},
        {"outputs": tuple(reversed(tiny.ENCODER_OUTPUTS))},
        {
            "outputs": (
                TensorSpec(name="hidden", dtype="int32", shape=("batch", "seq", 4)),
                *tiny.ENCODER_OUTPUTS[1:],
            )
        },
    ],
)
def test_outputs_other_than_the_manifests_are_told(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    session = load(corrupted(tmp_path, **changes))
    with session, pytest.raises(BundleError, match=r"build (it|the bundle) again"):
        session(input_ids=[[1]])


@pytest.mark.parametrize(
    "inputs",
    [
        tiny.ENCODER_INPUTS[:1],
        (tiny.ENCODER_INPUTS[0], TensorSpec(name="m", dtype="int32", shape=("batch", 9))),
    ],
)
def test_inputs_other_than_the_manifests_are_told(
    tmp_path: Path, inputs: tuple[TensorSpec, ...]
) -> None:
    with load(corrupted(tmp_path, inputs=inputs)) as session:
        given = {spec.name: np.ones((1, 9 if spec.name == "m" else 8), int) for spec in inputs}
        with pytest.raises(BundleError, match="is not what the manifest says"):
            session(**given)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"function": "other"}, r"no function .other."),
        ({"batch": 2}, "input0 shape dimension 0 mismatch; expected 1 but have 2"),
    ],
)
@pytest.mark.parametrize("how", ["session", "run", "bench"])
def test_a_function_or_a_batch_other_than_the_modules_is_the_bundles_fault(
    how: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    module = tiny.entry("host", 8, **changes)
    bundle = corrupted(tmp_path, entry=module)
    inputs = example_inputs(bundle, module)
    device = LocalDevice()
    calls: dict[str, Any] = {
        "session": lambda: load(bundle)(**inputs),
        "run": lambda: device.run(bundle, module, inputs),
        "bench": lambda: device.bench(bundle, module, inputs, repetitions=1, warmup=0),
    }
    with pytest.raises(BundleError, match=words) as caught:
        calls[how]()
    assert caught.value.exit_code == 2
    assert "again" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "outputs",
    [tiny.ENCODER_OUTPUTS[:2], tuple(reversed(tiny.ENCODER_OUTPUTS))],
)
def test_outputs_other_than_the_manifests_are_told_of_a_process(
    tmp_path: Path, outputs: tuple[TensorSpec, ...]
) -> None:
    bundle = corrupted(tmp_path, outputs=outputs)
    module = bundle.module("host")
    with pytest.raises(BundleError, match="build the bundle again"):
        LocalDevice().run(bundle, module, example_inputs(bundle, module))


def test_a_dimension_of_another_word_is_told(tmp_path: Path) -> None:
    odd = TensorSpec(name="hidden", dtype="float32", shape=("batch", "words", 4))
    with pytest.raises(BundleError, match="dimension 'words'"):
        load(corrupted(tmp_path, outputs=(odd, *tiny.ENCODER_OUTPUTS[1:])))


def test_weights_are_used_where_they_lie(tmp_path: Path) -> None:
    # 64 MiB of weights, of which the module reads one row.
    table = np.zeros((2**20, 16), np.float32)
    table[7] = np.arange(16)
    header = {"table": {"dtype": "F32", "shape": list(table.shape), "data_offsets": [0, 2**26]}}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    weights = len(text).to_bytes(8, "little") + text + table.tobytes()
    mlir = """
util.global private @table = #flow.parameter.named<"model"::"table"> : tensor<1048576x16xf32>
func.func @main(%i: tensor<1xi32>) -> tensor<16xf32> {
  %t = util.global.load @table : tensor<1048576x16xf32>
  %zero = arith.constant 0 : index
  %id = tensor.extract %i[%zero] : tensor<1xi32>
  %row = arith.index_cast %id : i32 to index
  %slice = tensor.extract_slice %t[%row, 0] [1, 16] [1, 1]
    : tensor<1048576x16xf32> to tensor<16xf32>
  return %slice : tensor<16xf32>
}
"""
    bundle = tiny.write(
        tmp_path / "large",
        [(tiny.entry("host", 1), tiny.compiled(mlir, "host"))],
        inputs=(TensorSpec(name="i", dtype="int32", shape=(1,)),),
        outputs=(TensorSpec(name="row", dtype="float32", shape=(16,)),),
        files={"weights.safetensors": weights},
    )
    code = f"""
from pathlib import Path
from canao.runtime_harness import load
import iree.runtime
def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
before = own()
session = load({str(bundle.path)!r})
assert session(i=[7])["row"].tolist() == list(range(16))
print(own() - before)
"""
    assert int(run_python(code).stdout) < 2**15  # KiB: half of the weights
