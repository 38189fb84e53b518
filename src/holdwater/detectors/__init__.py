"""Is something wrong with a run's memory, and where does it lead? Pure arithmetic on its history."""

from holdwater.detectors.verdict import Finding, Forecast, Rate, Verdict, VerdictKind

__all__ = ["Finding", "Forecast", "Rate", "Verdict", "VerdictKind"]
