"""The command line: `holdwater train`, `report`, `doctor`."""
