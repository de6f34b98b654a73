"""Processes that ``torchrun`` starts again, maybe on fewer machines, and the run that is theirs.

They are started with the arguments of the first time, so the same command must both begin a run
and resume it.
"""

from __future__ import annotations

from pathlib import Path

from medseg.errors import CheckpointError
from medseg.training.distributed import (
    ProcessGroup,
    is_under_torchrun,
    was_started_again,
)
from medseg.training.run_folder import RunFolder


def must_resume(out: Path | None) -> bool:
    """Tell whether processes were started again after one was lost, so that they resume.

    Args:
        out: The run folder, if one was named.

    Raises:
        CheckpointError: If none was: it would not be known which run they belong to.
    """
    if not was_started_again():
        return False
    if out is None:
        raise CheckpointError(
            "torchrun started the processes again, and without --out they cannot tell which run "
            "is theirs; name the run folder with --out, and give --resume"
        )
    return True


def may_begin(out: Path | None, on: str = "") -> bool:
    """Tell whether a run that is to be resumed may begin: one command serves both.

    That is so where ``torchrun`` starts it, and on a cluster, which ends calls when it is lost.

    Args:
        out: The run folder, if one was named.
        on: The cluster, if there is one.
    """
    if out is None or not (on or is_under_torchrun()):
        return False
    return not RunFolder(out).has_begun


def require_shared_run(folder: RunFolder, group: ProcessGroup) -> None:
    """Make sure that no other machine holds what the main process would begin anew.

    Args:
        folder: The run folder.
        group: The processes that train together.

    Raises:
        CheckpointError: In every process, if one does.
    """
    begun = group.gather(folder.has_begun)
    if any(begun) and not begun[0]:
        raise CheckpointError(
            "this run began on another machine, and the main process does not see its folder; put "
            "--out on a disk that all machines share, or start torchrun with --node-rank 0 on the "
            "machine that has it",
            source=folder.path,
        )
