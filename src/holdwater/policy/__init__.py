"""What should be done about memory, and may we? Decisions, each with its reason."""

from holdwater.policy.decision import ActionName, Decision
from holdwater.policy.remedies import Remedies, RemedyConfig

__all__ = ["ActionName", "Decision", "Remedies", "RemedyConfig"]
