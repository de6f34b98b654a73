"""Which scans are segmented by their modality; others are skipped, which is no failure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from medseg.datasets.modalities import KNOWN_MODALITIES, normalize_modality
from medseg.datasets.scan_candidates import Candidate
from medseg.errors import DatasetError

_CODE = re.compile(r"[A-Z][A-Z0-9_]{1,15}")


@dataclass(frozen=True, slots=True)
class ModalityChoice:
    """The modalities that were asked for.

    Attributes:
        wanted: DICOM's codes of them; every modality if empty.
    """

    wanted: tuple[str, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> ModalityChoice:
        """Return the choice that ``["CT,PT", "mri"]`` stands for.

        Raises:
            DatasetError: If a text is no code of a modality.

        Examples:
            >>> str(ModalityChoice.parse(["CT,PT", "mri"]))
            'CT, PT, MR'
        """
        codes: list[str] = []
        for text in texts:
            codes += [normalize_modality(code) for code in text.split(",")]
        for code in codes:
            if not _CODE.fullmatch(code):
                raise DatasetError(
                    "a modality is one of DICOM's codes, such as CT, MR or PT",
                    detail=f"got {code or 'nothing'}",
                )
        return cls(tuple(dict.fromkeys(codes)))

    def __str__(self) -> str:
        return ", ".join(self.wanted)

    def find_reason_to_skip(self, modalities: Sequence[str]) -> str:
        """Say why a scan is skipped; nothing if it is segmented.

        Args:
            modalities: Those of its channels, as headers state them. One that is asked for, or
                not known, is enough to segment it.
        """
        stated = [normalize_modality(modality) for modality in modalities]
        if not self.wanted or not all(stated) or not stated:
            return ""
        if set(stated) & set(self.wanted):
            return ""
        known = [code for code in stated if code in KNOWN_MODALITIES]
        # Text of a header that is no code of DICOM may be anything.
        shown = ", ".join(dict.fromkeys(known)) or "of another modality"
        return f"is {shown} by its DICOM header; {self} was asked for"

    def describe_unknown(
        self, candidates: Iterable[Candidate]
    ) -> Iterator[str]:
        """Say how many scans are kept because nothing states their modality."""
        count = sum(not all(each.modalities or ("",)) for each in candidates)
        if self.wanted and count:
            scans = "1 scan states" if count == 1 else f"{count} scans state"
            yield (
                f"{scans} no modality, as NIfTI files cannot, and --modality leaves such scans in"
            )
