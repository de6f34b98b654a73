"""A folder in which results can replace nothing is known without the names of results."""

from __future__ import annotations

from pathlib import Path

from medseg.inference.ledger import open_ledger
from medseg.inference.output_folder import holds_no_others
from medseg.inference.shards import Shard


def test_a_folder_of_results_or_an_empty_one_holds_nothing_else(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    assert holds_no_others(out)
    # As another shard leaves it for a moment: its folder is there before the ledger is.
    (out / "shards/1-of-2").mkdir(parents=True)
    assert holds_no_others(out)
    (out / "a.nii.gz").touch()
    assert not holds_no_others(out)
    with open_ledger(out, (), Shard(2, 1)):
        pass
    assert holds_no_others(out)
