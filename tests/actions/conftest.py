"""Stand-ins for the frameworks of accelerators, which note what they are asked to do."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, Literal

import pytest

GB = 10**9
Frameworks = Callable[..., list[tuple[str, Any]]]


@pytest.fixture
def frameworks(monkeypatch: pytest.MonkeyPatch) -> Frameworks:
    """Put stand-ins in the place of PyTorch and MLX; the list that is returned holds what they are asked to do."""

    def put(
        *,
        cuda: Literal["absent", "visible", "in use"] = "absent",
        mps: bool = False,
        mlx: bool = False,
        fraction: float = 1.0,
        mlx_limit: int = 20 * GB,
    ) -> list[tuple[str, Any]]:
        """A device of 80 GB under CUDA, of 16 GB under MPS; what was allowed of it and of MLX before can be given."""
        asked: list[tuple[str, Any]] = []

        def notes(name: str, answer: Any = None) -> Callable[..., Any]:
            """A function that notes its argument."""

            def function(argument: Any = None) -> Any:
                asked.append((name, argument))
                return answer

            return function

        torch = ModuleType("torch")
        vars(torch)["cuda"] = SimpleNamespace(
            is_available=lambda: cuda != "absent",
            is_initialized=lambda: cuda == "in use",
            current_device=lambda: 0,
            get_device_properties=lambda _: SimpleNamespace(total_memory=80 * GB),
            get_per_process_memory_fraction=lambda: fraction,
            set_per_process_memory_fraction=notes("cuda fraction"),
            synchronize=notes("cuda synchronise"),
            empty_cache=notes("cuda empty"),
        )
        vars(torch)["backends"] = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps))
        vars(torch)["mps"] = SimpleNamespace(
            recommended_max_memory=lambda: 16 * GB,
            set_per_process_memory_fraction=notes("mps fraction"),
            synchronize=notes("mps synchronise"),
            empty_cache=notes("mps empty"),
        )
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.delitem(sys.modules, "mlx.core", raising=False)
        if mlx:
            core = ModuleType("mlx.core")
            vars(core).update(
                synchronize=notes("mlx synchronise"),
                clear_cache=notes("mlx empty"),
                set_memory_limit=notes("mlx limit", mlx_limit),
                set_cache_limit=notes("mlx cache", mlx_limit),
                set_wired_limit=notes("mlx wired", 0),
            )
            monkeypatch.setitem(sys.modules, "mlx.core", core)
        return asked

    return put
