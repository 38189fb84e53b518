"""The rules of PyTorch's CUDA allocator, in numbers of its source, and what holds for any requests."""

from hypothesis import given
from hypothesis import strategies as st

from holdwater.train.finetune.planner import CachingAllocator, PeakPart, predict
from holdwater.units import Bytes

MIB = 1 << 20


class TestCachingAllocator:
    """Segments and blocks."""

    def test_small_requests_share_a_segment_of_two_mebibytes(self) -> None:
        """Up to 1 MiB each, rounded to 512 bytes."""
        allocator = CachingAllocator()

        blocks = [allocator.allocate(size) for size in (1, 513, MIB)]

        assert [block.size for block in blocks] == [512, 1024, MIB]
        assert allocator.reserved == 2 * MIB

    def test_middling_requests_share_a_segment_of_twenty(self) -> None:
        """Above 1 MiB and below 10."""
        allocator = CachingAllocator()

        for _ in range(3):
            allocator.allocate(6 * MIB)

        assert allocator.reserved == 20 * MIB

    def test_a_large_request_has_a_segment_of_its_own(self) -> None:
        """In steps of 2 MiB."""
        allocator = CachingAllocator()

        allocator.allocate(11 * MIB + 1)

        assert allocator.reserved == 12 * MIB

    def test_what_is_free_is_taken_again_and_what_is_empty_is_given_back(self) -> None:
        """The smallest block that is large enough; a rest of 1 MiB is not split off."""
        allocator = CachingAllocator()
        first, second = allocator.allocate(40 * MIB), allocator.allocate(30 * MIB)
        allocator.free(first)
        allocator.free(second)

        assert allocator.allocate(29 * MIB).size == 30 * MIB
        allocator.empty_cache()
        assert allocator.reserved == 30 * MIB

    @given(st.lists(st.tuples(st.integers(1, 64 * MIB), st.booleans()), max_size=60))
    def test_never_hands_out_more_than_it_reserves(self, requests: list[tuple[int, bool]]) -> None:
        """And gives all of it back at the end."""
        allocator, held = CachingAllocator(), []
        for size, frees in requests:
            held.append(allocator.allocate(size))
            assert allocator.allocated <= allocator.reserved <= allocator.peak
            if frees:
                allocator.free(held.pop(0))
        for block in held:
            allocator.free(block)
        allocator.empty_cache()

        assert (allocator.allocated, allocator.reserved) == (0, 0)


def test_a_peak_names_what_memory_is_for() -> None:
    """Roles add up, with what is lost between blocks and the driver's own."""
    parts = [PeakPart("weights", (30 * MIB, 6 * MIB)), PeakPart("logits", (6 * MIB,)), PeakPart("weights", (100,))]

    peak = predict(parts, context=Bytes(5 * MIB))

    assert peak.roles == {"weights": 36 * MIB + 100, "logits": 6 * MIB}
    assert peak.reserved == 52 * MIB
    assert peak.fragmentation == 10 * MIB - 100
    assert peak.total == 57 * MIB
