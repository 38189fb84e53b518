"""Actions that release memory or end a run in good order, each with its effect measured."""

from holdwater.actions.levers import Levers
from holdwater.actions.perform import Outcome, perform

__all__ = ["Levers", "Outcome", "perform"]
