"""Whether a process is supervised already: then it is not replaced under another one's hands."""

import pytest

from holdwater.supervise.launchers import another_supervises


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"TORCHELASTIC_RUN_ID": "1"}, True),
        ({"WORLD_SIZE": "2"}, True),
        ({"SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"PMI_SIZE": "2"}, True),
        ({"WORLD_SIZE": "1", "PMI_SIZE": "4"}, True),
        ({"WORLD_SIZE": "1"}, False),
        ({"WORLD_SIZE": "many"}, False),
        ({"SLURM_JOB_ID": "17"}, False),
        ({}, False),
    ],
    ids=str,
)
def test_launchers_of_several_processes_supervise(environment: dict[str, str], expected: bool) -> None:
    """One process alone is nobody's, whoever has started it."""
    assert another_supervises(environment) is expected
