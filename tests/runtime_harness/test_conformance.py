"""Every built-in device does what the shipped conformance suite asks of any device."""

from __future__ import annotations

import dataclasses

import pytest

from canao.errors import InputError
from canao.runtime_harness import conformance
from canao.runtime_harness.bundle import Bundle
from canao.runtime_harness.device import Device
from canao.runtime_harness.local import LocalDevice

from .tiny import needed


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ["local", "vulkan", "qemu"])
def test_conformance(name: str, check: conformance.Check, encoder_bundle: Bundle) -> None:
    check(needed(name), encoder_bundle)


def test_the_built_in_devices_are_devices() -> None:
    assert isinstance(LocalDevice(), Device)


class Careless(LocalDevice):
    """Breaks every promise that a check can see."""

    def info(self):
        return dataclasses.replace(super().info(), missing="Something.")

    def check(self, bundle, module):
        super().check(bundle, dataclasses.replace(module, features=()))

    def run(self, bundle, module, inputs, **options):
        try:
            outputs = super().run(bundle, module, inputs)
        except InputError:
            return []
        return [array + 1 if array.dtype.kind == "f" else array for array in outputs]

    def session(self, bundle, *, target=None, threads=1, timeout=None, truncate=False):
        session = super().session(bundle)
        forged = dict.fromkeys(("hidden", "pooled", "positive"))
        return type(
            "Forged",
            (),
            {
                "__enter__": lambda self: self,
                "__exit__": lambda self, *error: session.close(),
                "__call__": lambda self, **inputs: {
                    name: session(**inputs)[name] * 0 for name in forged
                },
                "target": session.target,
            },
        )()

    def bench(self, *arguments, **options):
        options["repetitions"] = 1
        return super().bench(*arguments, **options)

    def reading(self, when):
        return {"when": when}

    def profile(self, *arguments, **options):
        return []


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
def test_the_suite_sees_a_careless_device(
    check: conformance.Check, encoder_bundle: Bundle
) -> None:
    with pytest.raises(AssertionError):
        check(Careless(), encoder_bundle)
