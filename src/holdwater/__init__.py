"""Keep a long training run inside its memory budget, and show that it did."""

from holdwater.guard.guard import Guard
from holdwater.units import Bytes, format_size, parse_size

__all__ = ["Bytes", "Guard", "__version__", "format_size", "parse_size"]

__version__ = "0.1.0"
