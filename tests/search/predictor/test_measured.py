"""What a measurement says that ran counts, whatever would be compiled today."""

from __future__ import annotations

from dataclasses import replace

import pytest

from canao.search.predictor.measured import measured_program, measured_workload
from canao.search.predictor.recordings import shipped
from canao.search.predictor.records import Record
from canao.search.program.derive import calls_of, program_of
from canao.search.space.architecture import KINDS, Architecture
from canao.targets import machine_arch

from .devices import SETTING, drawn

WIDE = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vnni", "avx512bf16")


def named(calls: tuple[str, ...]) -> Record:
    return Record(
        setting=SETTING, architecture=drawn(3)[0], relative=1.0, median_ms=2.0, calls=calls
    )


def names_of(record: Record) -> tuple[str, ...]:
    found = calls_of(record.architecture, record.setting.target)
    return tuple(call if isinstance(call, str) else call.entry for call in found)


def precisions(architecture: Architecture) -> set[str]:
    layers = architecture.layers
    return {architecture.rest, *(one.form(kind).precision for one in layers for kind in KINDS)}


def test_what_is_named_ran() -> None:
    plain = named(())
    derived = program_of(plain.architecture, target=SETTING.target, threads=SETTING.threads)
    assert measured_program(plain) == derived
    names = names_of(plain)
    assert measured_program(named(names)) == derived
    # Another compiler left a norm to a dispatch of its own.
    norm = "run_layer_norm_2b8cbccc_beta_f32_16x96_to_16x96_by16_in1"
    found = measured_program(named((*names, norm)))
    assert found.dispatches[:-1] == derived.dispatches
    assert found.dispatches[-1].kind == "norm"
    one, other = measured_workload(named((*names, norm))), measured_workload(plain)
    assert sum(terms[0] for terms in one.terms.values()) == 1 + sum(
        terms[0] for terms in other.terms.values()
    )


def test_names_that_say_nothing_or_of_another_work_do_not_count() -> None:
    plain = named(())
    names = names_of(plain)
    derived = measured_program(plain)
    assert measured_program(named((*names, "somebody_elses"))) == derived
    large = "run_product_avx512_f32_8x48_512x4096x4096_none_bias_accurate_f32"
    assert measured_program(named((*names, large))) == derived


def test_times_of_dispatches_name_what_ran() -> None:
    names = names_of(named(()))
    timed = replace(named(("of", "others")), dispatches=tuple((name, 0.1) for name in names))
    assert timed.calls == names
    assert "calls" not in {key for key, value in timed.to_json().items() if value}


def test_what_ships_is_of_what_it_names() -> None:
    """On any machine, whatever CPU it has itself."""
    records = shipped()
    assert all(record.calls for record in records)
    for record in records[:: max(1, len(records) // 12)]:
        assert len(measured_program(record).dispatches) == len(record.calls)


@pytest.mark.skipif(machine_arch() != "x86_64", reason="features of x86 CPUs")
def test_programs_are_of_the_machine_that_was_measured() -> None:
    """Host means the machine of the setting, not the one that predicts."""
    plain = ("avx", "avx2", "f16c", "fma")
    architecture = next(one for one in drawn(8) if precisions(one) == {"f32", "int8"})
    for features, engine in ((plain, "_avx2_"), ((*plain, *WIDE), "_avx512_")):
        calls = calls_of(architecture, "host", cpu_features=features)
        names = [call if isinstance(call, str) else call.entry for call in calls]
        multiplied = [name for name in names if "product" in name or "sparse" in name]
        assert multiplied
        assert all(engine in name for name in multiplied), multiplied
        setting = replace(SETTING, fingerprint=engine, target="host", cpu_features=features)
        record = Record(
            setting=setting, architecture=architecture, relative=1.0, median_ms=2.0, calls=()
        )
        assert measured_program(record) == program_of(
            architecture, "host", SETTING.threads, cpu_features=features
        )
