"""What a file is that no format reads, and what makes an image of it that is read."""

from __future__ import annotations

from pathlib import Path

_VOXELS_OF = {".img": (".hdr",), ".raw": (".mhd", ".nhdr"), ".zraw": (".mhd",)}
"""Endings of files that hold voxels alone → those of the header that tells what they are."""

_KINDS = {
    **dict.fromkeys((".mnc", ".mnc2"), "MINC; convert it with mnc2nii"),
    **dict.fromkeys(
        (".par", ".rec"), "Philips PAR/REC; convert it with dcm2niix"
    ),
    **dict.fromkeys(
        (".mif", ".mif.gz", ".mih"), "MRtrix; convert it with mrconvert"
    ),
    **dict.fromkeys(
        (".npy", ".npz", ".mat", ".h5", ".hdf5"),
        "an array, which does not say where its voxels lie; save it as NIfTI",
    ),
    **dict.fromkeys(
        (".svs", ".ndpi", ".mrxs", ".scn", ".czi", ".lif", ".nd2", ".vsi"),
        "a slide or microscope's own format; export it as TIFF",
    ),
    **dict.fromkeys(
        (".vtk", ".vti", ".vtp", ".stl", ".ply", ".obj"),
        "a mesh or VTK; save the image as NIfTI",
    ),
    **dict.fromkeys(
        (".gif", ".webp", ".jp2", ".heic"),
        "another kind of picture; save it as PNG or TIFF",
    ),
    **dict.fromkeys(
        (".nii.bz2", ".nii.xz", ".nii.zst", ".zip", ".tar", ".7z"),
        "packed; unpack it first",
    ),
}


def describe_other_kind(file: Path) -> str:
    """Say what a file is that no format reads, by its name, and what to do.

    Returns:
        Words that name no file, such as ``MINC; convert it with mnc2nii``; ``""`` if nobody knows.
    """
    name = file.name.lower()
    for suffix, headers in _VOXELS_OF.items():
        for ending in (suffix, f"{suffix}.gz"):
            if name.endswith(ending):
                stem = file.name[: -len(ending)]
                return _describe_voxels(file.with_name(stem), headers)
    for suffix, kind in _KINDS.items():
        if name.endswith(suffix):
            return kind
    return ""


def _describe_voxels(stem: Path, headers: tuple[str, ...]) -> str:
    """Describe voxels without a header in their file.

    Args:
        stem: Their file, without its ending.
        headers: Endings of the headers they may have.
    """
    for ending in headers:
        if stem.with_name(stem.name + ending).is_file():
            return f"the voxels of the {ending} file beside it; give that"
    listed = " or ".join(headers)
    return f"voxels alone; the header ({listed}) that says what they are is missing"
