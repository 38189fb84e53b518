"""Run the command line as `python -m holdwater`."""

import sys

from holdwater.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
