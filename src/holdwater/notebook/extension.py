"""`%load_ext holdwater`, then `%%holdwater` on a training cell; `%holdwater` lists what the kernel holds.

    %load_ext holdwater

    %%holdwater
    for batch in loader:
        train_step(batch)

A cell that fails, fails as it would without the magic, and its verdict is shown first. Not supported: `await` at
the top level of a watched cell.
"""

import ast
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdwater.attribution.cells import cells
from holdwater.attribution.inventory import inventory
from holdwater.errors import ConfigError
from holdwater.notebook.cell_report import CellReport, LiveLine, NotebookInventory
from holdwater.notebook.holdings import notebook_holdings
from holdwater.notebook.observed_kernel import ObservedKernel
from holdwater.probes.statm import read_resident
from holdwater.store.folders import make_folder
from holdwater.units import format_size

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

LIVE_EVERY = 0.5
"""Least seconds between two live lines."""
INSTALL = "notebooks need IPython: write pip install ipython"


def load_ipython_extension(shell: "InteractiveShell") -> None:
    """Make `%%holdwater` and `%holdwater` known.

    Args:
        shell: The notebook's.
    """

    def watched(line: str, cell: str) -> Any:  # noqa: ANN401 - as `run_cell`
        """Run this cell, watch it, and show its verdict: `%%holdwater`, or `%%holdwater FOLDER`."""
        __tracebackhide__ = True
        return run_cell(shell, line, cell)

    register: Callable[..., None] = shell.register_magic_function
    register(watched, "cell", "holdwater")
    register(lambda line: list_holdings(shell, line), "line", "holdwater")


def unload_ipython_extension(shell: "InteractiveShell") -> None:
    """Forget both.

    Args:
        shell: The notebook's.
    """
    for kind in ("cell", "line"):
        shell.magics_manager.magics[kind].pop("holdwater", None)


def list_holdings(shell: "InteractiveShell", line: str = "") -> NotebookInventory:
    """What the kernel holds now: `%holdwater`.

    Args:
        shell: The notebook's.
        line: What stands after the magic: nothing.

    Raises:
        ConfigError: Something stands after it.
    """
    if line.strip():
        raise ConfigError(
            f"%holdwater takes nothing, but {line.strip()!r} follows it; write %%holdwater above a cell"
        )
    return NotebookInventory(inventory(), notebook_holdings(shell.user_ns))


def run_cell(shell: "InteractiveShell", line: str, cell: str) -> Any:  # noqa: ANN401 - the last value
    """Run a cell, watch it, and show its verdict: `%%holdwater`.

    Args:
        shell: The notebook's.
        line: What stands after the magic: the folder of the run, or nothing.
        cell: The code.

    Raises:
        UsageError: The folder holds a run already, or the notebook is watched already.
    """
    __tracebackhide__ = True  # an error is shown as the cell's own
    from IPython.core.error import UsageError  # noqa: PLC0415 - an extra

    body, last = compile_cell(shell, cell)
    try:
        kernel = ObservedKernel(folder_of(line.strip()))
    except ConfigError as error:
        raise UsageError(str(error)) from None  # shown without a traceback
    _show_live(shell, kernel)
    try:
        exec(body, shell.user_ns)  # noqa: S102 - running the cell is the point
        return None if last is None else eval(last, shell.user_ns)  # noqa: S307
    finally:
        show(report_of(shell, kernel))


def compile_cell(shell: "InteractiveShell", cell: str) -> tuple[Any, Any]:
    """The code of a cell, and that of its last expression, whose value is shown; None if there is none.

    Args:
        shell: The notebook's.
        cell: The code.
    """
    transform: Callable[[str], str] = shell.transform_cell
    text = "\n" + transform(cell)  # the magic's own line comes first
    name = shell.compile.cache(text, _number(shell), raw_code=cell)
    tree = ast.parse(text, filename=name)
    for change in shell.ast_transformers:
        tree = change.visit(tree)
    compiled: Callable[..., Any] = shell.compile
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or cell.rstrip().endswith(";"):
        return compiled(tree, name, "exec"), None
    whole = ast.Module(tree.body[:-1], [])
    return compiled(whole, name, "exec"), compiled(ast.Expression(last.value), name, "eval")


def _number(shell: "InteractiveShell") -> int:
    """The number of the cell that runs now."""
    running = names_of(shell).get(next(iter(cells()), ""), "")
    return int("".join(filter(str.isdigit, running)) or shell.execution_count)


def report_of(shell: "InteractiveShell", kernel: ObservedKernel) -> CellReport:
    """End the watch, and return its report.

    Args:
        shell: The notebook's.
        kernel: What is watched.
    """
    return CellReport(kernel.stop(), kernel.out, notebook_holdings(shell.user_ns), names_of(shell))


def names_of(shell: "InteractiveShell") -> Mapping[str, str]:
    """How the notebook calls its cells, by the names of their files.

    Args:
        shell: The notebook's.
    """
    found = {}
    for file in cells():
        named = shell.compile.format_code_name(file)
        if named is not None:
            found[file] = str(named[1])
    return found


def folder_of(given: str) -> Path:
    """The folder of a run, made if it does not exist.

    Args:
        given: As the user wrote it; empty takes a fresh one in `runs`.

    Raises:
        ConfigError: It holds a run already.
    """
    out = Path(given) if given else Path("runs") / time.strftime("%Y-%m-%d-%H%M%S-notebook")
    number = 1
    while not given and out.exists():
        number += 1
        out = out.with_name(f"{out.name.partition('notebook')[0]}notebook-{number}")
    if (out / "rank-0.db").exists():
        raise ConfigError(f"{out} holds a run already; name another folder, or leave it out for a fresh one")
    make_folder(out)
    return out


def show(report: CellReport) -> None:
    """Show a report below the cell.

    Args:
        report: Of the cell.
    """
    display: Callable[..., Any] = import_module("IPython.display").display
    display(report)


def _show_live(shell: "InteractiveShell", kernel: ObservedKernel) -> None:
    """Show a live line where the front end can change what was shown: a notebook's, not a terminal."""
    if getattr(shell, "kernel", None) is None:
        return
    display: Callable[..., Any] = import_module("IPython.display").display
    began, first = time.perf_counter(), read_resident()
    shown = display(LiveLine("watching"), display_id=True)
    due = [began + LIVE_EVERY]

    def tell() -> None:
        """Change the line, from time to time."""
        now = time.perf_counter()
        if now < due[0]:
            return
        due[0] = now + LIVE_EVERY
        steps, resident = kernel.session.steps, read_resident()
        shown.update(LiveLine(
            f"step {steps:,}, {steps / (now - began):.3g} steps/s, memory {format_size(resident)} "
            f"({format_size(resident - first)} since the cell began), {kernel.verdict_so_far()} so far"
        ))  # fmt: skip

    kernel.at_each_step(tell)
