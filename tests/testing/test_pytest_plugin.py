"""Rules of the pytest plugin: what a test run with it reports, and what it leaves alone."""

import json
import os
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

RunTests = Callable[..., "subprocess.CompletedProcess[str]"]

LEAK = """
    KEPT = []

    def step():
        KEPT.append(bytearray(1000))

    def test_leak(flat_memory):
        flat_memory(step, steps=1500)
"""


@pytest.fixture
def run_tests(tmp_path: Path) -> RunTests:
    """Run a file of tests with the installed pytest, as a user does."""

    def run(text: str, *options: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        (tmp_path / "test_it.py").write_text(textwrap.dedent(text), encoding="utf-8")
        (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
        known = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "GITHUB"))}
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-p",
                "no:randomly",
                "-p",
                "no:cacheprovider",
                *options,
                "test_it.py",
            ],
            cwd=tmp_path,
            env=known | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return run


class TestVerdicts:
    """What fails, and what passes."""

    def test_reports_a_leak_with_component_rate_line_and_holder(self, run_tests: RunTests) -> None:
        """A test whose step keeps a kilobyte a call fails, and says where."""
        run = run_tests(LEAK)

        assert run.returncode == 1, run.stdout
        assert "memory leaks: 1.1" in run.stdout
        assert "of host.python" in run.stdout
        assert (
            "stored in `KEPT` (list, in module test_it) at test_it.py:5: KEPT.append(bytearray(1000))"
            in run.stdout
        )

    def test_reports_native_memory_with_its_line(self, run_tests: RunTests) -> None:
        """What a C library takes and nobody frees has no holder, but a line."""
        run = run_tests("""
            import ctypes

            def test_leak(flat_memory):
                take = ctypes.CDLL(None).malloc
                take.restype, take.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
                def step():
                    take(1000)
                flat_memory(step, steps=1500)
        """)

        assert run.returncode == 1, run.stdout
        assert "of host.native" in run.stdout
        assert "allocated at test_it.py:8: take(1000)" in run.stdout

    def test_reports_tensors_that_are_kept(self, run_tests: RunTests) -> None:
        """A tensor's storage is tensors, though a Python list holds it."""
        run = run_tests("""
            import torch

            def test_leak(flat_memory):
                history = []
                def step():
                    history.append(torch.ones(1000))
                flat_memory(step, steps=1000)
        """)

        assert run.returncode == 1, run.stdout
        assert "of host.tensors" in run.stdout
        assert "`history`" in run.stdout

    def test_reports_arrays_of_mlx_that_are_kept(self, run_tests: RunTests) -> None:
        """By MLX's own counter; without Metal they are memory of the host."""
        pytest.importorskip("mlx.core", reason="mlx is not installed")
        run = run_tests("""
            import mlx.core as mx

            def test_leak(flat_memory):
                history = []
                def step():
                    history.append(mx.ones((250,)) * 2)
                    mx.eval(history[-1])
                flat_memory(step, steps=1500)
        """)

        assert run.returncode == 1, run.stdout
        assert "memory leaks: 1.0" in run.stdout
        assert "of host.tensors" in run.stdout or "of device.active" in run.stdout
        assert "`history`" in run.stdout

    def test_ignores_healthy_steps_and_says_what_could_have_been_missed(self, run_tests: RunTests) -> None:
        """Caches that fill, cycles, log records, warnings and output: what a test run keeps is not the step's."""
        run = run_tests("""
            import functools, logging, re, warnings
            import pytest

            count = iter(range(1 << 40))

            @functools.lru_cache(maxsize=300)
            def cached(key):
                return [key] * 10

            class Node:
                def __init__(self):
                    self.me = self

            @pytest.mark.filterwarnings("always")
            def test_healthy(flat_memory):
                def step():
                    cached(next(count)); Node(); re.compile(f"x{next(count)}")
                    logging.getLogger("healthy").warning("call %d", next(count))
                    print("x" * 100)
                    warnings.warn("old", DeprecationWarning)
                verdict = flat_memory(step)
                assert verdict.kind == "flat"
                assert verdict.missed < 1000
        """, "--capture=sys")  # fmt: skip

        assert run.returncode == 0, run.stdout
        assert "a leak of more than" in run.stdout
        assert run.stdout.count("DeprecationWarning: old") == 1

    def test_ignores_a_container_with_a_maximum_length(self, run_tests: RunTests) -> None:
        """A deque or a cache that is not yet full when the calls end is no leak."""
        run = run_tests("""
            import collections, functools

            newest = collections.deque(maxlen=100_000)
            count = iter(range(1 << 40))

            @functools.lru_cache(maxsize=100_000)
            def cached(key):
                return bytearray(1000)

            def test_deque(flat_memory):
                verdict = flat_memory(lambda: newest.append(bytearray(1000)), steps=1500)
                assert verdict.kind == "settling"

            def test_cache(flat_memory):
                verdict = flat_memory(lambda: cached(next(count)), steps=1500)
                assert verdict.kind == "settling"
        """)

        assert run.returncode == 0, run.stdout

    def test_says_when_calls_are_too_few(self, run_tests: RunTests) -> None:
        """Three calls tell nothing: the test passes, and the summary says so."""
        run = run_tests("""
            import pytest

            @pytest.mark.flat_memory(steps=3)
            def test_few():
                pass
        """)

        assert run.returncode == 0, run.stdout
        assert "3 calls are too few to tell whether memory grows" in run.stdout

    def test_passes_on_what_the_step_raises(self, run_tests: RunTests) -> None:
        """A step that fails, fails the test as itself."""
        run = run_tests("""
            def test_wrong(flat_memory):
                flat_memory(lambda: 1 / 0)
        """)

        assert run.returncode == 1
        assert "ZeroDivisionError" in run.stdout


class TestMarker:
    """A marked test is the step itself."""

    def test_calls_the_test_again_and_again_with_its_fixtures(self, run_tests: RunTests) -> None:
        """Fixtures and parameters are those of one test."""
        run = run_tests("""
            import pytest

            @pytest.fixture
            def kept():
                return []

            @pytest.mark.flat_memory(steps=1500)
            @pytest.mark.parametrize("size", [1000])
            def test_leak(kept, size):
                kept.append(bytearray(size))

            @pytest.mark.flat_memory(steps=1500)
            def test_healthy(kept):
                kept[:] = [bytearray(1000)]
        """)

        assert run.returncode == 1, run.stdout
        assert "1 failed, 1 passed" in run.stdout
        assert "stored in `kept`" in run.stdout

    def test_refuses_what_it_cannot_do(self, run_tests: RunTests) -> None:
        """A mistake fails the test with what to write, before anything is called."""
        run = run_tests("""
            import pytest

            @pytest.mark.flat_memory(steps=0)
            def test_zero(): pass

            @pytest.mark.flat_memory(calls=9)
            def test_name(): pass

            @pytest.mark.flat_memory(2000)
            def test_unnamed(): pass

            @pytest.mark.flat_memory
            async def test_coroutine(): pass

            def test_step_is_a_coroutine(flat_memory):
                async def step(): pass
                flat_memory(step)

            def test_no_function(flat_memory):
                flat_memory(3)
        """)

        assert run.returncode == 1, run.stdout
        assert "steps is 0, but it is a number of calls" in run.stdout
        assert "calls is no limit of it; write steps or seconds" in run.stdout
        assert "write a name with each limit" in run.stdout
        assert "it is no plain test function" in run.stdout
        assert "is a coroutine function, and calling it runs nothing" in run.stdout
        assert "write the function itself, without brackets" in run.stdout


class TestReports:
    """What other programs read."""

    def test_works_under_xdist_and_annotates_where_github_runs_it(
        self, run_tests: RunTests, tmp_path: Path
    ) -> None:
        """The controller says what its workers found, and writes the annotation with the line that stores."""
        run = run_tests(
            LEAK, "-n", "2", "--junitxml=report.xml", GITHUB_ACTIONS="true", GITHUB_WORKSPACE=str(tmp_path)
        )

        assert run.returncode == 1, run.stdout
        assert "::error file=test_it.py,line=5,title=Memory leaks::memory leaks: 1.1" in run.stdout
        report = ET.parse(tmp_path / "report.xml").getroot()  # noqa: S314 - pytest has just written it
        found = report.find(".//property[@name='flat_memory']")
        assert found is not None
        row = json.loads(found.attrib["value"])
        assert (row["kind"], row["component"], row["line"]) == ("leak", "host.python", 5)
        assert row["bytes_per_call"] == pytest.approx(1110, rel=0.1)

    def test_annotates_nothing_elsewhere(self, run_tests: RunTests) -> None:
        """Without GitHub there is no workflow command."""
        assert "::error" not in run_tests(LEAK).stdout


class TestCost:
    """The plugin is loaded in every test run."""

    def test_loads_nothing_for_tests_that_do_not_use_it(self, run_tests: RunTests) -> None:
        """Neither numpy, torch nor anything of holdwater's but the plugin itself."""
        run = run_tests("""
            import sys

            def test_it():
                loaded = {name for name in sys.modules if name.partition(".")[0] in {"numpy", "torch", "psutil"}}
                ours = {name for name in sys.modules if name.startswith("holdwater.")}
                assert not loaded
                assert ours == {"holdwater.testing", "holdwater.testing.pytest_plugin"}
        """)

        assert run.returncode == 0, run.stdout

    def test_does_not_load_torch_for_those_that_do(self, run_tests: RunTests) -> None:
        """Torch is asked only where the test has loaded it."""
        run = run_tests("""
            import sys

            def test_it(flat_memory):
                flat_memory(lambda: None, steps=100)
                assert "torch" not in sys.modules
        """)

        assert run.returncode == 0, run.stdout

    def test_holdwater_does_not_need_pytest(self) -> None:
        """Only the plugin's own module imports it."""
        code = "import sys; sys.modules['pytest'] = None; import holdwater.testing.flat_memory, holdwater.testing"

        subprocess.run([sys.executable, "-c", code], check=True)
