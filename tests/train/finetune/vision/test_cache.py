"""The feature cache: exact to the bit, and never beyond its budget, in memory and in a folder."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from holdwater.train.finetune.vision import disk_storage
from holdwater.train.finetune.vision.cache import FeatureCache
from holdwater.units import Bytes

MB = Bytes(1_000_000)
DTYPES = (
    torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.bool, torch.int8, torch.uint8, torch.int64,
    torch.complex64, torch.float8_e4m3fn, torch.uint16,
)  # fmt: skip


@pytest.fixture(params=["memory", "disk"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """Both places."""
    return tmp_path / "cache" if request.param == "disk" else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "runs" / "cache"


def features(seed: int, count: int = 100) -> dict[str, Tensor]:
    """Features of a picture."""
    return {"pixels": torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).bfloat16()}


def same(one: dict[str, Tensor] | None, other: dict[str, Tensor]) -> bool:
    """Equal to the bit, in type and in shape."""
    return (
        one is not None and list(one) == list(other) and all(same_tensor(one[name], other[name]) for name in other)
    )


def same_tensor(one: Tensor, other: Tensor) -> bool:
    """NaN and the sign of zero included."""
    bits = [tensor.contiguous().reshape(-1).view(torch.uint8).tolist() for tensor in (one, other)]
    return one.dtype == other.dtype and one.shape == other.shape and bits[0] == bits[1]


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.iterdir())


class TestWhatIsKept:
    """The same in both places."""

    @given(
        shapes=st.lists(st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=4),
        dtypes=st.lists(st.sampled_from(DTYPES), min_size=4, max_size=4),
        data=st.binary(min_size=1, max_size=64),
    )
    @settings(max_examples=60, deadline=None)
    def test_comes_back_to_the_bit(
        self,
        shapes: list[list[int]],
        dtypes: list[torch.dtype],
        data: bytes,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        """Any type, any shape: empty ones and scalars, NaN and what else the bits may mean."""
        kept = {}
        for number, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=False)):
            size = dtype.itemsize * int(torch.tensor(shape).prod()) if shape else dtype.itemsize
            bits = bytes(byte & 1 for byte in data) if dtype == torch.bool else data
            raw = (bits * (size // len(bits) + 1))[:size]
            flat = (
                torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
            )
            kept[f"tensor {number}"] = flat.view(dtype).reshape(shape)
        for place in (None, tmp_path_factory.mktemp("cache")):
            with FeatureCache(MB, place=place) as cache:
                cache.put("a", kept)

                assert same(cache.get("a"), kept)

    def test_is_the_callers_own(self, place: Path | None) -> None:
        """Neither what was put in nor what came out changes what is kept."""
        given, kept = features(1), features(1)
        with FeatureCache(MB, place=place) as cache:
            cache.put("a", given)
            given["pixels"].zero_()
            first = cache.get("a")
            assert first is not None
            first["pixels"].zero_()

            assert same(cache.get("a"), kept)

    def test_stays_valid_when_the_cache_is_closed(self, place: Path | None) -> None:
        """What was returned is a copy."""
        cache = FeatureCache(MB, place=place)
        cache.put("a", features(1))
        found = cache.get("a")
        cache.close()

        assert same(found, features(1))
        assert cache.get("a") is None
        cache.put("b", features(2))
        assert cache.get("b") is None

    def test_views_and_gradients_are_kept_by_value(self, place: Path | None) -> None:
        """A transposed part of a tensor that wants a gradient."""
        part = torch.arange(12.0).reshape(3, 4).requires_grad_()[:, 1:3].T
        with FeatureCache(MB, place=place) as cache:
            cache.put("a", {"part": part})

            assert same(cache.get("a"), {"part": part.detach().clone()})

    def test_hits_and_misses_are_counted(self, place: Path | None) -> None:
        """And told."""
        with FeatureCache(Bytes(2_000_000), place=place) as cache:
            assert cache.summary.startswith("vision cache: not asked yet")
            assert cache.get("a") is None
            cache.put("a", features(1))
            for _ in range(3):
                cache.get("a")

            assert (cache.hits, cache.misses) == (3, 1)
            assert cache.summary.startswith("vision cache: 75.0 % hits, ")
            assert cache.summary.endswith(" of 2.00 MB")

    def test_many_entries_are_found(self, place: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also those that were sorted into the array, and those of a process before."""
        monkeypatch.setattr("holdwater.train.finetune.vision.digest_table.RECENT", 7)
        monkeypatch.setattr(disk_storage, "AT_ONCE", 11)
        cache = FeatureCache(MB, place=place)
        for number in range(100):
            cache.put(str(number), features(number, 2))
        assert all(same(cache.get(str(number)), features(number, 2)) for number in range(100))
        cache.close()

        if place is not None:
            with FeatureCache(MB, place=place) as cache:
                assert all(same(cache.get(str(number)), features(number, 2)) for number in range(100))

    def test_several_threads_may_ask(self, place: Path | None) -> None:
        """Each finds what belongs to its key."""

        def ask(first: int) -> bool:
            for number in range(first, first + 60):
                if cache.get(str(number % 80)) is None:
                    cache.put(str(number % 80), features(number % 80))
            return all(
                same(cache.get(str(number % 80)), features(number % 80)) for number in range(first, first + 60)
            )

        with FeatureCache(MB, place=place) as cache, ThreadPoolExecutor(4) as threads:
            assert all(threads.map(ask, (0, 20, 40, 60)))


class TestBudget:
    """Never beyond."""

    @given(sizes=st.lists(st.integers(0, 300), max_size=40), budget=st.integers(0, 20_000))
    @settings(max_examples=60, deadline=None)
    def test_files_never_exceed_it(
        self, sizes: list[int], budget: int, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """Index and header included; and `bytes_used` is what the files take."""
        folder = tmp_path_factory.mktemp("cache")
        with FeatureCache(Bytes(budget), place=folder) as cache:
            for number, size in enumerate(sizes):
                cache.put(str(number), features(number, size))

                assert size_of(folder) == cache.bytes_used <= budget

    def test_keeps_what_it_has(self, place: Path | None) -> None:
        """In a second epoch, the first entries are found again; least-recently-used would find none."""
        with FeatureCache(Bytes(10_000), place=place) as cache:
            for _ in range(2):
                for number in range(20):
                    if cache.get(str(number)) is None:
                        cache.put(str(number), features(number))

            assert cache.hits in {9, 10}
            assert cache.get("0") is not None

    def test_the_same_key_twice_takes_no_room(self, place: Path | None) -> None:
        """The first value stays."""
        with FeatureCache(MB, place=place) as cache:
            cache.put("a", features(1))
            used = cache.bytes_used
            cache.put("a", features(2))

            assert cache.bytes_used == used
            assert same(cache.get("a"), features(1))

    def test_a_smaller_budget_later_keeps_what_is_there(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """And adds nothing."""
        with FeatureCache(MB, place=folder) as cache:
            cache.put("a", features(1))
        size = size_of(folder)
        with FeatureCache(Bytes(500), place=folder) as cache:
            cache.put("b", features(2))

            assert same(cache.get("a"), features(1))
        assert size_of(folder) == size
        assert "more than 500 B: nothing is added" in caplog.text


class TestKeys:
    """Of which the table knows 8 of 16 bytes."""

    def test_keys_with_the_same_beginning_are_told_apart(
        self, place: Path | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second one is not kept."""
        monkeypatch.setattr(
            "holdwater.train.finetune.vision.cache._digest", lambda key: b"the same" + key.encode().ljust(8)
        )
        with FeatureCache(MB, place=place) as cache:
            cache.put("a", features(1))
            cache.put("b", features(2))

            assert same(cache.get("a"), features(1))
            assert cache.get("b") is None
