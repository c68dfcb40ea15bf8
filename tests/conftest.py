"""Hypothesis profiles: quick, ci, nightly; CANAO_HYPOTHESIS_PROFILE chooses one.

Without it, ci is taken where CI is set, else quick.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=100, deadline=None, derandomize=True)
settings.register_profile(
    "nightly", max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(
    os.environ.get("CANAO_HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "quick")
)
