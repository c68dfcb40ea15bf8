"""How many examples a property test that compiles may draw."""

from __future__ import annotations

from hypothesis import Phase, settings

__all__ = ["compiling"]


def compiling(cases: int = 1) -> settings:
    """Settings for a property whose every example is a compilation of a second or more.

    A tenth of the profile's examples, at least five; nightly keeps all of them. An example that
    holds several ``cases``, compiled as one module, counts as that many.
    """
    examples = settings().max_examples
    if examples < 1000:
        examples = max(5, examples // 10)
    examples = -(-examples // cases)
    # Shrinking would compile hundreds of models; the drawn example is printed as it is.
    phases = (Phase.explicit, Phase.reuse, Phase.generate)
    return settings(max_examples=examples, phases=phases)
