"""Check the documentation: help texts, links, pattern pages, numbers taken from results, and what assistants read.

`make check` runs it. With `--write` it puts the current help texts and numbers into the documents, and writes the
page of each pattern.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- (help|bar|rows): ([^\n]*?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
CALL = re.compile(r"\bholdwater ((?:[a-z-]+)(?: [^`\n#]*)?)")
"""A command within backquotes, or on a line of a shell block."""
FOR_ASSISTANTS = ("docs/llms.txt", "docs/skill/SKILL.md")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def documents() -> list[Path]:
    """All documents of the repository."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def help_text(command: str) -> str:
    """The help text of a command, at a fixed width."""
    run = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", *command.split()],
        capture_output=True,
        text=True,
        check=True,
        env={"COLUMNS": "100", "PATH": "", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
    )
    return f"```\n{run.stdout.rstrip()}\n```\n"


def bar_rows(names: str) -> str:
    """Rows of a table from results: goal and measurement."""
    rows = []
    for name in names.split():
        result = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        rows += [
            f"| {what} | {bar['measured']} | {bar['goal']} | `{result.get('by', f'benchmarks/{name}.py')}` |"
            for what, bar in result["bars"].items()
        ]
    return "\n".join(["| what | measured | goal | by |", "|---|---|---|---|", *rows]) + "\n"


def picked_rows(wanted: str) -> str:
    """Some rows of the same table: `NAME: WORDS; ...` takes the bar of a result whose title holds the words."""
    rows = []
    for one in wanted.split("; "):
        name, _, words = one.partition(": ")
        found = [row for row in bar_rows(name).splitlines()[2:] if words in row.split("|")[1]]
        rows.append(found[0] if found else f"| no bar of {name} holds {words!r} | | | |")
    return "\n".join(["| what | measured | goal | by |", "|---|---|---|---|", *rows]) + "\n"


def fill(match: re.Match[str]) -> str:
    """Generate one block; help texts are those of Python 3.11 (argparse changes their wording)."""
    if match.group(2) == "help" and sys.version_info[:2] != (3, 11):
        return match.group(0)
    make = {"help": help_text, "bar": bar_rows, "rows": picked_rows}[match.group(2)]
    return match.group(1) + make(match.group(3)) + match.group(5)


def pattern_pages() -> dict[Path, str]:
    """The page of each pattern of the catalogue, and their index."""
    from holdwater.attribution.patterns import read_patterns  # noqa: PLC0415 - the package is installed by then

    folder = ROOT / "docs" / "patterns"
    patterns = [pattern for pattern, _ in read_patterns()]
    pages = {
        folder / f"{one.name}.md": f"# {one.name}\n\n**{one.title}.**\n\n{one.why}\n\n## Cure\n\n"
        f"```text\n{one.cure}\n```\n\n## Reference\n\n<{one.reference}>\n"
        for one in patterns
    }
    rows = "".join(f"| [{one.name}]({one.name}.md) | {one.title} |\n" for one in patterns)
    head = (
        "# Known causes of growth\n\n"
        "A verdict names its pattern where one fits. The catalogue is data: "
        "`src/holdwater/attribution/patterns.toml`.\n\n| pattern | what happens |\n|---|---|\n"
    )
    pages[folder / "README.md"] = head + rows
    return pages


def check_pages(*, write: bool) -> list[str]:
    """Compare the pages of patterns with the catalogue, or write them."""
    mistakes = []
    for path, text in pattern_pages().items():
        if write:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            mistakes.append(f"{path.name} is not up to date: run python docs/check_docs.py --write")
    return mistakes


def calls_of(text: str) -> list[list[str]]:
    """The commands that a text names, each as its words."""
    shell = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in shell for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)
    return [match.group(1).split() for line in lines if (match := CALL.match(line.strip()))]


def check_calls() -> list[str]:
    """Whether every command and flag exists that the texts for assistants name."""
    mistakes, known = [], dict[str, str]()
    for name in FOR_ASSISTANTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        for command, *rest in calls_of(text):
            if command not in known:
                known[command] = help_of(command)
            flags = [word for word in rest if word.startswith("--")]
            if not known[command]:
                mistakes.append(f"{name} names the command `holdwater {command}`, which does not exist")
                continue
            mistakes += [
                f"{name} names {flag} of `holdwater {command}`, which does not exist"
                for flag in flags
                if not re.search(rf"{re.escape(flag)}\b", known[command])
            ]
        anywhere = " ".join(known.values())
        mistakes += [
            f"{name} names the flag {flag}, which no command has that it names"
            for flag in sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)))
            if not re.search(rf"{flag}\b", anywhere)
        ]
        if name.endswith(".txt"):
            mistakes += [
                f"{name} links to {link}, which does not exist"
                for link in LINK.findall(text)
                if not (ROOT / name).parent.joinpath(link).exists()
            ]
    return mistakes


def help_of(command: str) -> str:
    """The help text of one of our commands; empty where there is no such command."""
    try:
        return help_text(f"holdwater {command} --help")
    except subprocess.CalledProcessError:
        return ""


def main() -> int:
    """Check, or write; return the number of mistakes."""
    mistakes = check_pages(write="--write" in sys.argv) + check_calls()
    for path in documents():
        text = path.read_text(encoding="utf-8")
        fresh = BLOCK.sub(fill, text)
        if fresh != text and "--write" in sys.argv:
            path.write_text(fresh, encoding="utf-8")
        elif fresh != text:
            mistakes.append(f"{path.name} is not up to date: run python docs/check_docs.py --write")
        mistakes += [
            f"{path.name} links to {link}, which does not exist"
            for link in LINK.findall(fresh)
            if not (path.parent / link).exists()
        ]
    for mistake in mistakes:
        print(mistake)  # noqa: T201 - what a check is for
    return len(mistakes)


if __name__ == "__main__":
    sys.exit(main())
