"""``medseg download``: an open data set, fetched, verified and unpacked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.bundle.bundle import load_bundle
from medseg.bundle.shipped import list_shipped_bundles
from medseg.downloads.catalogue import OpenDataset, get_open_dataset
from medseg.downloads.installation import Installation
from medseg.events import Listener, Notice, notify


def download(
    name: str,
    out: str | Path | None = None,
    *,
    url: str = "",
    listeners: Sequence[Listener] = (),
) -> Path:
    """Fetch an open data set.

    What arrives is verified before it is unpacked, and the folder appears whole or not at all. A
    transfer that broke off goes on where it was when it is called again; where the folder holds
    the data set already, nothing is done.

    Args:
        name: The data set, such as ``hippocampus``.
        out: The folder to make; what the data set's own folder is called unless given.
        url: The archive's address at a mirror, or of a folder that holds it where it ends in
            ``/``; or an archive on this machine. The data set's own address unless given.
        listeners: Told of progress.

    Returns:
        The folder.

    Raises:
        DownloadError: If there is no such data set, it cannot be fetched, or what arrives is
            something else.
        OutputError: If the folder holds something else, cannot be written, or the disk has too
            little space.

    Examples:
        >>> import medseg
        >>> medseg.download("hippocampis")
        Traceback (most recent call last):
        medseg.errors.DownloadError: hippocampis: there is no data set of this name. ...
    """
    dataset = get_open_dataset(name)
    folder = Path(out) if out is not None else Path(dataset.folder)
    installation = Installation(dataset, folder, url, listeners)
    if not installation.run():
        done = "this data set is there already, whole; nothing was done"
        notify(listeners, Notice(done))
    return folder


def list_bundles_for(dataset: OpenDataset) -> list[str]:
    """Return the names of the bundles that come with medseg and are trained on a data set."""
    names = []
    for name, folder in list_shipped_bundles().items():
        root = Path(load_bundle(folder).spec.data.root)
        if root.name == dataset.folder:
            names.append(name)
    return names
