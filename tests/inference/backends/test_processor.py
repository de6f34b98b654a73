"""The arithmetic follows from what the processor is fast in, and is never coarser."""

from __future__ import annotations

import pytest

from medseg.inference.backends import processor
from medseg.inference.backends.processor import fit_to_processor

AVX2: set[str] = {"avx2", "fma3"}
VNNI = {"avx2", "avx512_vnni"}
BF16 = {"avx2", "avx512_bf16"}
AMX = {"amx_int8", "amx_bf16"}


@pytest.mark.parametrize(
    ("instructions", "fitted"),
    [
        (set(), ["fp32", "fp32", "fp32", "fp32"]),
        (AVX2, ["fp32", "fp32", "fp32", "fp32"]),
        (VNNI, ["fp32", "fp32", "int8", "int8"]),
        (BF16, ["fp32", "bf16", "fp32", "bf16"]),
        (AMX, ["fp32", "bf16", "int8", "int8_bf16"]),
    ],
)
def test_a_precision_is_fitted_to_the_processor(
    monkeypatch: pytest.MonkeyPatch, instructions: set[str], fitted: list[str]
) -> None:
    monkeypatch.setattr(
        processor, "list_instructions", lambda: frozenset(instructions)
    )
    asked = ("fp32", "bf16", "int8", "int8_bf16")
    assert [fit_to_processor(precision) for precision in asked] == fitted
