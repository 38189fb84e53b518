"""Generated programs: the same seed gives the same text, the halves share nothing, each label is true to its script."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from zoo.bounds import VERDICTS
from zoo.generate import HALVES, Program, combinations, generate, half_of

PROGRAMS = [program for half in HALVES for program in generate(7, half, 400)]
COMPONENTS = {
    "host.python",
    "host.tensors",
    "host.native",
    "host.file",
    "host.shared",
    "host.children",
    "process.handles",
}


def label_of(program: Program) -> dict[str, object]:
    """A program's label, read."""
    return tomllib.loads(program.label)


class TestGenerate:
    """`generate` is a function of its seed."""

    def test_gives_the_same_text_for_the_same_seed(self) -> None:
        """And other text for another."""
        assert generate(3, "develop", 20) == generate(3, "develop", 20)
        assert generate(3, "develop", 20) != generate(4, "develop", 20)

    def test_begins_a_longer_list_with_the_shorter_one(self) -> None:
        """A program does not depend on how many were asked for."""
        assert generate(3, "held-out", 30)[:10] == generate(3, "held-out", 10)

    def test_gives_as_many_leaks_as_look_alikes(self) -> None:
        """In turn, and each names the other."""
        leaks, lookalikes = PROGRAMS[::2], PROGRAMS[1::2]

        assert all(leak.leaks for leak in leaks)
        assert not any(lookalike.leaks for lookalike in lookalikes)
        assert [label_of(leak)["pair"] for leak in leaks] == [lookalike.name for lookalike in lookalikes]

    def test_gives_different_programs(self) -> None:
        """No text occurs twice."""
        assert len({program.code for program in PROGRAMS}) == len(PROGRAMS)


class TestHalves:
    """What is tuned on one half is judged on the other."""

    def test_share_no_combination(self) -> None:
        """Of mechanism, holder and clock, whatever the bound."""
        develop, held_out = ({key[:3] for key in combinations(half)} for half in HALVES)

        assert len(develop) > 1000
        assert len(held_out) > 1000
        assert develop & held_out == set()

    @pytest.mark.parametrize("half", HALVES)
    def test_hold_what_is_generated_for_them(self, half: str) -> None:
        """Each program belongs to the half it was asked from."""
        known = set(combinations(half))

        programs = generate(5, half, 200)

        assert {half_of(*program.key[:3]) for program in programs} == {half}
        assert {program.key for program in programs} <= known


class TestPrograms:
    """The text of a program and its label."""

    @pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: str(program.name))
    def test_compile_and_fit_their_labels(self, program: Program) -> None:
        """Each line that a label names occurs once; a look-alike names none."""
        label = label_of(program)
        lines = [line.strip() for line in program.code.splitlines()]

        compile(program.code, program.name, "exec")
        named = [label[role] for role in ("allocated", "held") if role in label]
        assert [lines.count(line["code"]) for line in named if isinstance(line, dict)] == [1] * len(named)
        assert label["verdict"] == ("leak" if program.leaks else VERDICTS[program.key[3]])
        assert ("held" in label) == program.leaks
        assert not program.leaks or label["component"] in COMPONENTS

    def test_do_not_tell_what_they_are(self) -> None:
        """No word of us, and none of the verdict."""
        words = ("holdwater", "leak", "bounded", "look-alike")

        assert [program.name for program in PROGRAMS if any(word in program.code for word in words)] == []

    def test_share_the_code_of_their_twins(self) -> None:
        """A look-alike has at least two thirds of the lines of its leak."""
        shares = [
            len(set(leak.code.splitlines()) & set(twin.code.splitlines())) / len(set(leak.code.splitlines()))
            for leak, twin in zip(PROGRAMS[::2], PROGRAMS[1::2], strict=True)
        ]
        assert min(shares) > 2 / 3


class TestPlans:
    """The numbers of a program."""

    def test_leave_room_for_the_leak_to_be_seen(self) -> None:
        """At least 25 events, and 8 MB of what is counted in bytes."""
        few = [program.name for program in PROGRAMS if program.plan.events < 25]
        small = [program.name for program in PROGRAMS if program.plan.style.unit > 0 and program.plan.total < 8e6]
        assert few == []
        assert small == []

    def test_keep_programs_short(self) -> None:
        """5 to 30 seconds by the clock that the plan knows, and 150 to 10,000 steps."""
        assert {5 <= program.plan.seconds <= 30 for program in PROGRAMS} == {True}
        assert {150 <= program.plan.steps <= 10_200 for program in PROGRAMS} == {True}


def shortest(mechanism: str) -> Program:
    """The shortest leak of a mechanism."""
    return min(
        (program for program in PROGRAMS if program.leaks and program.key[0] == mechanism),
        key=lambda program: program.plan.seconds,
    )


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["tensor", "records"])
def test_runs(mechanism: str, tmp_path: Path) -> None:
    """A generated program ends by itself, without a word on stderr."""
    script = tmp_path / "program.py"
    script.write_text(shortest(mechanism).code, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("steps ")
