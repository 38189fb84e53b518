"""How a run resumes: from its newest complete checkpoint, from a named one, or afresh where there is none."""

import logging
import shutil

import torch

from holdwater.errors import CheckpointError, RunFolderError
from holdwater.exit_codes import SPOILT
from holdwater.store.checkpoints import RESTING, Checkpoint, CheckpointFolder, read_checkpoint
from holdwater.train.run_folder import RunFolder
from holdwater.train.supervisor_link import SupervisorLink
from holdwater.train.trainable import Trainable

log = logging.getLogger("holdwater")


def resume(
    state: Trainable,
    checkpoints: CheckpointFolder,
    folder: RunFolder,
    link: SupervisorLink | None,
    *,
    threads: int | None,
) -> bool:
    """Resume from the newest complete checkpoint, or from the named one; start afresh if there is none.

    Args:
        state: Gets the content of the checkpoint.
        checkpoints: The run's own.
        folder: The folder of the run, and the checkpoint that was named.
        link: To the supervisor, if there is one.
        threads: The number of threads that the user has set; None if there is none.

    Returns:
        Whether there was a checkpoint.

    Raises:
        RunFolderError: The named checkpoint is not complete, or belongs to a run with other settings.
    """
    named = folder.checkpoint is not None and (link is None or link.is_first)
    checkpoint = None
    if not named:
        checkpoint = checkpoints.newest(log.warning) if link is None else link.newest(checkpoints)
    begins_branch = checkpoint is None and folder.is_branch
    if checkpoint is None and folder.checkpoint is not None:
        try:
            checkpoint = read_checkpoint(folder.checkpoint)
        except CheckpointError as error:
            raise RunFolderError(f"--resume: {error}; name another, or the folder of the run") from None
    if checkpoint is None:
        _begin_anew(state, folder)
        return False
    if not _load(state, checkpoint, branch=begins_branch):
        return resume(state, checkpoints, folder, link, threads=threads)
    if threads is not None and torch.get_num_threads() != threads:
        log.warning(
            "resuming with %d threads, as at the start of the run, instead of %d: otherwise it would not be exact",
            torch.get_num_threads(),
            threads,
        )
    if link is None or link.is_first:
        log.info("resuming from step %d (%s)", state.step, checkpoint.folder)
    return True


def _begin_anew(state: Trainable, folder: RunFolder) -> None:
    """Start afresh; if an earlier process's trained weights prevent that, the next process does."""
    try:
        state.begin_anew()
    except CheckpointError as error:
        log.error("%s by the next process", error)  # noqa: TRY400 - no bug to trace
        raise SystemExit(SPOILT) from None
    log.info("%s has no complete checkpoint: the run starts afresh", folder.out)


def _load(state: Trainable, checkpoint: Checkpoint, *, branch: bool) -> bool:
    """Load a checkpoint; one whose weights are no longer with the weight server is removed, and False returned."""
    try:
        remarks = state.load(checkpoint, branch=branch)
    except CheckpointError as error:
        if RESTING not in checkpoint.state:
            raise
        log.warning("%s: resuming from an older one", error)
        shutil.rmtree(checkpoint.folder)
        return False
    for remark in remarks:
        log.warning(remark)
    return True
