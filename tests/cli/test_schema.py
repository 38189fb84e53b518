"""The JSON that commands write is what the schemas describe: each output is valid, and each field is described."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

import holdwater
from holdwater.detectors.ending import Cause
from holdwater.detectors.verdict import GRAVITY, Clock, Component
from tests.small_models import make_model

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

SCHEMAS = Path(holdwater.__file__).parent / "schemas"
SCRIPT = """
import torch
model = torch.nn.Linear(32, 32)
optimizer, kept = torch.optim.SGD(model.parameters(), lr=0.1), []
for _ in range(STEPS):
    model(torch.randn(8, 32)).square().mean().backward()
    optimizer.step()
    kept.append(torch.randn(20000))
"""
Run = Callable[..., Any]


def schema(name: str) -> dict[str, Any]:
    """A schema that is shipped."""
    found: dict[str, Any] = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    return found


def check(found: Any, name: str = "verdict-1") -> None:
    """Validate an output, and look for fields that nobody describes."""
    described = schema(name)
    jsonschema.validate(found, described, cls=jsonschema.Draft202012Validator)
    assert not list(undescribed(found, described, described.get("$defs", {})))


def undescribed(found: Any, rule: dict[str, Any], known: dict[str, Any], path: str = "") -> Iterator[str]:
    """The paths of fields that a schema does not describe."""
    rule = resolve(rule, found, known)
    if isinstance(found, list):
        for one in found:
            yield from undescribed(one, rule.get("items", {}), known, f"{path}[]")
    elif isinstance(found, dict) and "properties" in rule:
        for key, value in found.items():
            if key in rule["properties"]:
                yield from undescribed(value, rule["properties"][key], known, f"{path}.{key}")
            elif not isinstance(rule.get("additionalProperties"), dict):
                yield f"{path}.{key}"


def resolve(rule: dict[str, Any], found: Any, known: dict[str, Any]) -> dict[str, Any]:
    """A rule without references and alternatives."""
    if "$ref" in rule:
        return resolve(known[rule["$ref"].rpartition("/")[2]], found, known)
    for word in ("anyOf", "oneOf"):
        for one in rule.get(word, ()):
            whole = resolve(one, found, known)
            if not isinstance(found, dict) or set(whole.get("required", ())) <= set(found):
                if whole.get("type") == "null" and found is not None:
                    continue
                return whole
    return rule


def rules(rule: Any) -> Iterator[dict[str, Any]]:
    """All rules for fields within a schema."""
    if isinstance(rule, dict):
        yield from rule.get("properties", {}).values()
        for one in rule.values():
            yield from rules(one)
    elif isinstance(rule, list):
        for one in rule:
            yield from rules(one)


class TestOutputs:
    """What commands write is valid."""

    def test_accepts_a_leak_with_its_explanation_and_the_same_judged_again(
        self, holdwater: Run, tmp_path: Path
    ) -> None:
        """`run`, and `replay` of its folder."""
        (tmp_path / "train.py").write_text(SCRIPT.replace("STEPS", "500"), encoding="utf-8")

        holdwater("run", "--json", "v.json", "--out", "folder", "train.py")
        found = json.loads((tmp_path / "v.json").read_text())
        done = holdwater("replay", "--json", "again.json", "folder")

        assert (found["verdict"], bool(found["findings"][0]["sites"])) == ("leak", True)
        check(found)
        assert done.returncode == 0, done.stderr
        check(json.loads((tmp_path / "again.json").read_text()))

    def test_accepts_why_a_run_died(self, holdwater: Run, tmp_path: Path) -> None:
        """`run` of a script that runs out of memory."""
        (tmp_path / "train.py").write_text(SCRIPT.replace("STEPS", "30") + "raise MemoryError", encoding="utf-8")

        holdwater("run", "--json", "v.json", "train.py")
        found = json.loads((tmp_path / "v.json").read_text())

        assert found["end"]["cause"] == "host memory"
        check(found)

    def test_accepts_the_built_in_training(self, holdwater: Run, tmp_path: Path, text_file: Path) -> None:
        """`train`, whose loop reports losses."""
        done = holdwater(
            "train", "--data", str(text_file), "--preset", "tiny", "--steps", "20", "--json", "v.json"
        )
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "v.json").read_text())

        assert "loss" in found
        check(found)

    def test_accepts_a_plan(self, here: Run, tmp_path: Path) -> None:
        """`plan` has a contract of its own."""
        make_model(tmp_path / "model", "Llama", heads=1)

        here("plan", "--model", "model", "--train-seq-length", "256", "--batch-size", "2", "--json", "plan.json")

        check(json.loads((tmp_path / "plan.json").read_text()), "plan-1")

    @pytest.mark.parametrize(
        ("key", "value"),
        [("verdict", "fine"), ("schema", 2), ("steps", "many"), ("findings", None), ("exit_code", None)],
    )
    def test_refuses_what_the_contract_does_not_allow(self, key: str, value: Any) -> None:
        """A schema that accepts everything says nothing."""
        least = {
            "schema": 1, "command": [], "exit_code": 0, "steps": 1, "step_source": "torch", "verdict": "flat",
            "findings": [], "actions": [], "overhead": {}, "peak": {},
        }  # fmt: skip
        check(least)

        with pytest.raises(jsonschema.ValidationError):
            check(least | {key: value})


class TestSchemas:
    """The files themselves."""

    @pytest.mark.parametrize("name", ["verdict-1", "plan-1"])
    def test_describes_every_field_in_one_line(self, name: str) -> None:
        """It is the reference."""
        whole = schema(name)
        jsonschema.Draft202012Validator.check_schema(whole)

        assert all(rule.get("description") and "\n" not in rule["description"] for rule in rules(whole))

    def test_names_the_same_words_as_the_code(self) -> None:
        """Verdicts, components, clocks and causes."""
        known = schema("verdict-1")["$defs"]

        assert known["verdictKind"]["enum"] == list(GRAVITY)
        assert known["component"]["enum"] == list(get_args(Component))
        assert known["finding"]["properties"]["follows"]["enum"] == list(get_args(Clock))
        assert set(known["end"]["properties"]["cause"]["enum"]) == words(Cause)


def words(union: Any) -> set[str]:
    """All literals within a union of literals."""
    return {word for one in get_args(union) for word in ({one} if isinstance(one, str) else words(one))}
