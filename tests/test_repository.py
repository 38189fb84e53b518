"""Rules of the repository that no other tool checks: sizes, names, light imports, what the wheel holds."""

import ast
import builtins
import importlib
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "src").rglob("*.py"))
HEAVY = ("torch", "mlx", "transformers", "lightning", "accelerate", "pynvml", "scipy", "safetensors")


def test_no_module_is_longer_than_400_lines() -> None:
    """A file that cannot be read in one sitting is two files."""
    assert [path.name for path in MODULES if len(path.read_text().splitlines()) > 400] == []


def test_no_function_body_is_longer_than_50_lines() -> None:
    """25 as a rule."""
    long = [
        f"{path.name}:{node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.body[0].lineno >= 50
    ]
    assert long == []


def test_no_name_says_nothing() -> None:
    """Names come from the field."""
    vague = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}
    assert [path.name for path in MODULES if path.stem in vague or path.parent.name in vague] == []


def test_no_two_modules_define_a_class_of_the_same_name() -> None:
    """A name that is met in a traceback leads to one file."""
    homes: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(path.name)
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_no_module_assigns_to_a_global_of_another() -> None:
    """No value goes from module to module by a mutable global."""
    found = []
    for path in MODULES:
        tree = ast.parse(path.read_text())
        modules = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("holdwater")
            for alias in node.names
            if (alias.asname or alias.name).islower()
        }
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) else ():
                owner = getattr(target, "value", None)
                if isinstance(target, ast.Attribute) and isinstance(owner, ast.Name) and owner.id in modules:
                    found.append(f"{path.name}:{target.lineno}")
    assert found == []


def test_what_a_signal_handler_raises_is_caught_nowhere() -> None:
    """Code that runs in a script's process catches by `signal_errors`; elsewhere, no handler of a script is called."""
    ours_alone = (  # processes of ours, and a module that is only imported in a script's
        *("cli", "config", "report", "supervise/scripts", "supervise/restart_loop", "supervise/script_imports"),
        *("process/fork_server", "process/spawn", "process/channel_folder", "process/forking", "process/witness"),
        *("process/error_reader", "process/error_stream"),
        *("process/signals", "observe/questions", "observe/explainer", "observe/news", "observe/candidates"),
        *("observe/watcher", "observe/observed_run", "observe/attached_run", "probes/outside", "probes/kills"),
        *("attribution/source", "attribution/recorded", "notebook/watcher", "store/in_memory_checkpoint"),
        *("policy/restarts", "train", "signal_errors"),
    )
    after_the_script = {  # nothing of it could catch anything there
        *("session.py:_answer_last", "worker.py:_end", "finalizing.py:free_users_modules"),
        *("restart_context.py:leave_at_once", "restart_context.py:flush_files"),
    }
    passing = {  # they raise it again
        *("session.py:_answer", "worker.py:tick", "recovering_step.py:_try", "picture_files.py:_opened"),
    }
    found = set()
    for path in MODULES:
        if str(path.relative_to(ROOT / "src" / "holdwater").with_suffix("")).startswith(ours_alone):
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(map(_catches_a_handlers, ast.walk(function))):
                found.add(f"{path.name}:{function.name}")
    assert found == after_the_script | passing


def _catches_a_handlers(node: ast.AST) -> bool:
    """Whether an `except` clause or a call of `suppress` names one of Python's own classes of exceptions."""
    kinds: list[ast.expr] = []
    if isinstance(node, ast.ExceptHandler):
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type or ast.Name("BaseException")]
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"suppress", "contextlib.suppress"}:
        kinds = node.args
    names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
    usual = {"ImportError", "NameError", "StopIteration", "GeneratorExit", "BaseException"}  # a handler's are not
    own = [getattr(builtins, name, None) for name in names - usual]
    return any(isinstance(kind, type) and issubclass(kind, BaseException) for kind in own)


def test_old_names_are_gone() -> None:
    """Words of our own that were replaced by the field's (docs/glossary.md)."""
    old = (
        "LifeFacts", "LifeLine", "relieve", "Keeper", "Vault", "pulse", "QuickFolder", "LentLoop", "Trainee", "Way",
        "WrittenOut", "OwnCode", "FewBitsLinear", "Narrowed", "OwnPlanned", "Observed", "Prepared", "choose_way",
        "holdwater.supervise.life", "holdwater.supervise.channel", "holdwater.train.tuning", "holdwater.plan",
        "holdwater.evaluation", "holdwater.integrations.session", "holdwater.cli.supervised",
    )  # fmt: skip
    words = re.compile("|".join(rf"(?<![\w.]){re.escape(name)}\b" for name in old))
    found = {path.name: sorted(set(words.findall(path.read_text()))) for path in MODULES}
    assert {name: names for name, names in found.items() if names} == {}


def test_every_documented_call_path_exists() -> None:
    """The modules and names of the five call paths in docs/architecture.md, and of its tables."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    paths = text.partition("## Five call paths")[2].partition("\n## ")[0]
    hops = re.findall(r"`([a-z_/]+)\.py`(?: `([A-Za-z_.]+)`)?", paths)
    assert len(hops) >= 10
    for module, name in hops:
        path = ROOT / "src" / "holdwater" / f"{module}.py"
        assert path.exists(), module
        defined = {getattr(node, "name", None) for node in ast.walk(ast.parse(path.read_text()))}
        assert not name or name.rpartition(".")[2] in defined, f"{module}: {name}"


def test_every_module_opens_with_a_sentence() -> None:
    """The first screen can be read alone."""
    assert [path.name for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))] == []


@pytest.mark.parametrize(
    "module",
    ["holdwater", "holdwater.report.html", "holdwater.report.terminal", "holdwater.cli.main", "holdwater.testing"],
)
def test_importing_the_core_loads_no_framework(module: str) -> None:
    """In a fresh process; import-linter does not see a package's `__init__`."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loaded.split() == []


@pytest.mark.parametrize(
    "module", ["holdwater.cli.train", "holdwater.cli.run", "holdwater.supervise.budget_callback"]
)
def test_what_runs_before_signals_are_held_back_loads_no_numpy(module: str) -> None:
    """Its threads would be met by signals that the supervisor waits for, and end it."""
    code = f"import sys, {module}; print('numpy' in sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert loaded.strip() == "False"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("holdwater.integrations.torch_step", "torch_step"),
        ("holdwater.integrations.trainer", "RecycleCallback"),
        ("holdwater.integrations.recovering_trainer", "RecoveringTraining"),
        ("holdwater.integrations.transformers", "MemoryCallback"),
        ("holdwater.actions.levers", "Levers"),
    ],
)
def test_addresses_that_were_documented_stay(module: str, name: str) -> None:
    """People import them."""
    pytest.importorskip("transformers")

    assert hasattr(importlib.import_module(module), name)


def test_every_dependency_is_pinned() -> None:
    """A fresh clone next year installs what was tested today."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (ROOT / "requirements" / "dev.txt").read_text().splitlines()
        if "==" in line
    }
    extras = project["optional-dependencies"]
    needed = {
        requirement.partition(">")[0].lower()
        for requirement in project["dependencies"] + extras["torch"] + extras["dev"]
        if not requirement.startswith("holdwater[")
    }
    assert needed - pinned == set()


def test_the_demo_installs_the_same_versions() -> None:
    """Its requirements are some of those of the tests, and all that the package needs to train."""
    pins = {
        name: set((ROOT / "requirements" / f"{name}.txt").read_text().splitlines()[2:]) for name in ("demo", "dev")
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = project["dependencies"] + project["optional-dependencies"]["torch"]
    names = {pin.partition("==")[0].lower() for pin in pins["demo"]}

    assert pins["demo"] < pins["dev"]
    assert {requirement.partition(">")[0].lower() for requirement in needed} <= names


def test_the_wheel_holds_what_the_package_reads(tmp_path: Path) -> None:
    """Profiles, the page of the report, the mark that it is typed; and no test."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())

    assert {"holdwater/report/page.html", "holdwater/py.typed", "holdwater/config/profiles/gpu_80gb.yaml"} <= names
    assert {"holdwater/schemas/verdict-1.schema.json", "holdwater/schemas/plan-1.schema.json"} <= names
    assert not [name for name in names if Path(name).name.startswith("test_")]
