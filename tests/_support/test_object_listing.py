"""What lies below an address is given as it is listed."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from medseg._support import object_store
from medseg._support.object_listing import list_objects


def test_of_very_many_objects_one_page_is_held_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []

    class Endless:
        """Lists as s3fs does, a folder for each object, and never ends."""

        req_kw: ClassVar = {"RequestPayer": "requester"}

        def _strip_protocol(self, address: str) -> str:
            return address.removeprefix("s3://").rstrip("/")

        def split_path(self, path: str) -> tuple[str, str, None]:
            bucket, _, key = path.partition("/")
            return bucket, key, None

        def call_s3(self, method: str, **query: Any) -> dict[str, Any]:
            assert method == "list_objects_v2"
            asked.append(query)
            names = [f"in//{len(asked)}/ct.nii.gz", f"in/{len(asked)}/"]
            contents = [{"Key": name, "Size": 1} for name in names]
            return {
                "Contents": contents,
                "IsTruncated": True,
                "NextContinuationToken": str(len(asked)),
            }

    monkeypatch.setattr(object_store, "_make_system", lambda *_: Endless())
    listed = list_objects("s3://bucket/in/")
    assert next(listed).address == "s3://bucket/in//1/ct.nii.gz"
    assert len(asked) == 1
    assert next(listed).address == "s3://bucket/in//2/ct.nii.gz"
    assert [query.get("ContinuationToken") for query in asked] == [None, "1"]
    assert {query["Prefix"] for query in asked} == {"in/"}
    assert {query["RequestPayer"] for query in asked} == {"requester"}
