"""Judge a run's memory: leaks, bounded growth, pressure, and forecasts, by pure arithmetic on its history."""

from holdwater.detectors.verdict import Finding, Forecast, Rate, Verdict, VerdictKind

__all__ = ["Finding", "Forecast", "Rate", "Verdict", "VerdictKind"]
