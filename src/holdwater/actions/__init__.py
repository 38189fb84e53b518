"""Things that lower memory or end a run in good order, each measured: did it help?"""

from holdwater.actions.levers import Levers
from holdwater.actions.perform import Outcome, perform

__all__ = ["Levers", "Outcome", "perform"]
