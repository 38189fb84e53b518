"""What `--fail-on` and `--least` make of a judgement: the exit code."""

from collections.abc import Callable, Mapping
from typing import Any

from holdwater.detectors.headroom import OVER_BUDGET
from holdwater.detectors.verdict import COUNTED
from holdwater.exit_codes import FOUND

Finding = Mapping[str, Any]
"""A finding as JSON."""


def failure(summary: Mapping[str, Any], values: Any) -> int:  # noqa: ANN401 - a mapping, or a configuration
    """The exit code that a judgement asks for.

    Args:
        summary: The judgement as JSON.
        values: Of the keys `fail_on` and `least`.

    Returns:
        3 where something was found that --fail-on names, else 0.
    """
    least, findings = values["least"] or 0.0, summary.get("findings", [])
    wanted = [_TESTS[name] for name in values["fail_on"] or ()]
    return FOUND if any(matters(one, least) and test(one) for one in findings for test in wanted) else 0


def matters(finding: Finding, least: float) -> bool:
    """Whether a finding is no leak, or one that is large enough; what is only counted has no size.

    Args:
        finding: As JSON.
        least: The smallest leak that matters, in bytes per step.
    """
    rate = finding["rate"]
    small = rate is not None and rate["bytes_per_step"] < least
    return not small or finding["verdict"] != "leak" or finding["component"] in COUNTED


_TESTS: dict[str, Callable[[Finding], bool]] = {
    "leak": lambda finding: bool(finding["verdict"] == "leak"),
    "warming": lambda finding: bool(finding["verdict"] == "warming"),
    "fragmentation": lambda finding: bool(finding["verdict"] == "fragmentation"),
    "over-budget": lambda finding: (
        finding["verdict"] == "pressure" and str(finding["advice"]).startswith(OVER_BUDGET)
    ),
}
"""By what `--fail-on` names."""
