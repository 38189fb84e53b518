"""Watch all cells of a notebook from one point on: `watch = holdwater.watch_notebook()`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.errors import ConfigError
from holdwater.notebook.cell_report import CellReport
from holdwater.notebook.extension import INSTALL, folder_of, names_of, report_of
from holdwater.notebook.holdings import NotebookHoldings, notebook_holdings
from holdwater.notebook.observed_kernel import ObservedKernel
from holdwater.store.history import read_history

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class NotebookWatch:
    """A notebook that is watched; shown, it is its report so far."""

    def __init__(self, shell: "InteractiveShell", out: Path) -> None:
        """Begin.

        Args:
            shell: The notebook's.
            out: The folder of the run.
        """
        self.out = out
        self._shell, self._kernel = shell, ObservedKernel(out)
        self._report: CellReport | None = None
        shell.events.register("pre_run_cell", self._learn)

    @property
    def holdings(self) -> NotebookHoldings:
        """What the notebook itself keeps now: `Out`, `_`, tracebacks."""
        return notebook_holdings(self._shell.user_ns)

    def report(self) -> CellReport:
        """The report so far: the watching process writes it every few seconds.

        Raises:
            ConfigError: Nothing was written yet.
        """
        if self._report is not None:
            return self._report
        summary = read_history(self.out).summary if (self.out / "rank-0.db").exists() else None
        if summary is None:
            raise ConfigError("nothing is known yet; ask again after a few seconds, or write `watch.stop()`")
        return CellReport(summary, self.out, self.holdings, names_of(self._shell))

    def stop(self) -> CellReport:
        """End, and return the report; again returns the same."""
        if self._report is None:
            self._shell.events.unregister("pre_run_cell", self._learn)
            self._report = report_of(self._shell, self._kernel)
        return self._report

    def _learn(self, info: Any) -> None:  # noqa: ANN401 - IPython's
        """A cell begins: hand the code of all cells to the watching process."""
        del info
        self._kernel.write_cells()


def watch_notebook(out: str | Path = "") -> NotebookWatch:
    """Watch this notebook from now on, over all cells.

    Args:
        out: The folder of the run; empty takes a fresh one in `runs`.

    Returns:
        The watch: `report()` is the verdict so far, `holdings` what the notebook itself keeps; `stop()` ends it
        and returns the report.

    Raises:
        ConfigError: This is no notebook.
        ImportError: IPython is not installed.
    """
    try:
        from IPython.core.getipython import get_ipython  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(INSTALL) from error
    shell: InteractiveShell | None = get_ipython()  # type: ignore[no-untyped-call, unused-ignore]
    if shell is None:
        raise ConfigError(
            "watch_notebook() watches a notebook, and this is a script; write holdwater run train.py"
        )
    return NotebookWatch(shell, folder_of(str(out)))
