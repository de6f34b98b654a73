"""Which requests reach MONAI Label."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import unquote

import pytest

from medseg.label_server.request_checks import (
    MAX_JSON_BYTES,
    RefusedError,
    check_file_name,
    check_json,
    check_query,
    check_route,
)
from medseg.label_server.users import Role


def status_of(check: Any, *arguments: Any) -> int:
    """Return the status a check refuses with; 200 if it does not."""
    try:
        check(*arguments)
    except RefusedError as refused:
        return refused.status
    return 200


def route(method: str, raw_path: str) -> int:
    return status_of(check_route, method, unquote(raw_path), raw_path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/info/"),
        ("GET", "/medseg/versions"),
        ("POST", "/medseg/promote/2"),
        ("POST", "/activelearning/worst_first"),
        ("POST", "/infer/made_up"),
        ("GET", "/datastore/"),
        ("HEAD", "/datastore/image"),
        ("PUT", "/datastore/label"),
        ("GET", "/datastore/label/info"),
        ("PUT", "/datastore/updatelabelinfo"),
        ("POST", "/train/made_up"),
        ("DELETE", "/train/"),
        ("GET", "/scoring/"),
        ("POST", "/batch/infer/made_up"),
        ("PUT", "/session/"),
        ("DELETE", "/session/1-2-3"),
        ("GET", "/model/info/made_up"),
        ("GET", "/ohif/assets/a@2/b.js"),
        ("GET", "/proxy/dicom/qido/studies"),
        ("GET", "/proxy/dicom/wado/studies/1.2/series/1.3/metadata"),
        ("POST", "/proxy/dicom/stow/studies/1.2"),
    ],
)
def test_what_clients_need_is_open(method: str, path: str) -> None:
    assert route(method, path) == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/model/made_up"),
        ("DELETE", "/model/made_up"),
        ("DELETE", "/datastore/image"),
        ("DELETE", "/datastore/label"),
        ("DELETE", "/datastore/"),
        ("POST", "/reload"),
        ("GET", "/logs/"),
        ("GET", "/logs/gpu"),
        ("POST", "/infer/wsi/made_up"),
        ("POST", "/infer/"),
        ("GET", "/infer/made_up"),
        ("POST", "/medseg/promote/12345"),
        ("POST", "/medseg/promote/x"),
        ("GET", "/proxy/dicom/system"),
        ("POST", "/proxy/dicom/tools/execute-script"),
        ("POST", "/proxy/dicom/studies/1.2/series"),
        ("DELETE", "/proxy/dicom/studies/1.2"),
        ("GET", "/info/extra"),
        ("GET", "/xinfo/"),
        ("PATCH", "/info/"),
    ],
)
def test_everything_else_is_closed(method: str, path: str) -> None:
    assert route(method, path) == 403


@pytest.mark.parametrize(
    "path",
    [
        "/ohif/../config.py",
        "/ohif/..%2fconfig.py",
        "/ohif/%2e%2e/config.py",
        "/ohif/%252e%252e/config.py",
        "/ohif/%2561",
        "/ohif/a\\b",
        "/ohif/a%5cb",
        "/ohif/a%00b",
        "/proxy/dicom/qido/../system",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    assert route("GET", path) == 400


PLAIN = ["case_1", "series-0a1b", "1.2.840.1", "a", "x" * 200, "ä", "肝_1"]
NOT_PLAIN = [
    "../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "..",
    "a..b",
    ".hidden",
    "-x",
    "x" * 201,
    "ä b",
    "ä\u202e",
    "a b",
]


@pytest.mark.parametrize(
    "key", ["image", "id", "label", "tag", "label_tag", "session_id", "model"]
)
def test_parameters_that_name_something_are_plain_names(key: str) -> None:
    for value in [*PLAIN, ""]:
        check_query([(key, value)])
        check_json(json.dumps({key: value}))
    for value in NOT_PLAIN:
        assert status_of(check_query, [("params", "1"), (key, value)]) == 400, (
            value
        )
        leads_elsewhere = any(sign in value for sign in ("..", "/", "\\"))
        if key == "label" and not leads_elsewhere:
            continue  # in JSON it is a structure's name, such as "left lung"
        assert status_of(check_json, json.dumps({key: value})) == 400, value
        assert (
            status_of(check_json, json.dumps({"made_up": {key: value}})) == 400
        ), value
    assert status_of(check_json, json.dumps({key: [1]})) == 400


def test_other_parameters_may_hold_any_text() -> None:
    check_query([("client_id", "/x/../y")])
    check_json(
        json.dumps({"client_id": "tester@slicer/..", "image": None, "steps": 5})
    )


@pytest.mark.parametrize(
    ("key", "value", "status"),
    [
        ("check_sum", "SHA256:" + "aF0" * 20, 200),
        ("check_sum", "ab12", 200),
        ("check_sum", "CRC:ab12", 400),
        ("check_sum", "SHA256:/x/../y", 400),
        ("check_sum", "", 400),
        ("run_sync", "true", 400),
        ("run_sync", "1", 400),
        ("run_sync", "yes", 400),
        ("run_sync", "false", 200),
        ("run_sync", "0", 200),
    ],
)
def test_parameters_that_monai_label_would_stumble_over_are_refused(
    key: str, value: str, status: int
) -> None:
    assert status_of(check_query, [(key, value)]) == status


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"steps": 1, "learning_rate": 1e-9}, 200),
        ({"steps": 1_000_000, "learning_rate": None}, 200),
        ({"steps": 0}, 400),
        ({"steps": 1_000_001}, 400),
        ({"steps": "5"}, 400),
        ({"steps": True}, 400),
        ({"steps": 5.0}, 400),
        ({"learning_rate": 0}, 400),
        ({"learning_rate": -1}, 400),
        ({"learning_rate": "x"}, 400),
        ({"learning_rate": float("nan")}, 400),
        ({"learning_rate": float("inf")}, 400),
        ({"learning_rate": False}, 400),
    ],
)
def test_settings_of_a_training_run_are_checked_before_it_is_queued(
    settings: dict[str, object], status: int
) -> None:
    for content in (settings, {"made_up": settings}):
        assert status_of(check_json, json.dumps(content)) == status


def test_an_uploads_name_has_an_end() -> None:
    assert status_of(check_file_name, "a" * 193 + ".nii.gz") == 200
    assert status_of(check_file_name, "a" * 194 + ".nii.gz") == 400
    assert status_of(check_file_name, "a" + ".b" * 100 + ".nii.gz") == 400


@pytest.mark.parametrize(
    "key", ["file", "path", "session", "bundle_path", "app_dir", "studies"]
)
def test_parameters_that_lead_to_files_are_refused(key: str) -> None:
    for value in ("x", {"image": "a"}, 0, ["x"]):
        assert status_of(check_json, json.dumps({key: value})) == 400
        assert (
            status_of(check_json, json.dumps({"made_up": {key: value}})) == 400
        )
    check_json(json.dumps({key: ""}))
    check_json(json.dumps({key: None}))


def test_a_result_suffix_may_begin_with_a_dot() -> None:
    check_json('{"result_extension": ".nii.gz"}')
    for suffix in ("/../x.py", "..x", "./x", ".a/b"):
        assert (
            status_of(check_json, json.dumps({"result_extension": suffix}))
            == 400
        )


@pytest.mark.parametrize("value", ["true", "1", "True", "yes"])
def test_archives_are_not_unpacked(value: str) -> None:
    assert status_of(check_query, [("uncompress", value)]) == 400
    for allowed in ("", "false", "False", "0"):
        check_query([("uncompress", allowed)])


@pytest.mark.parametrize(
    "text", ["[1]", "{", '"text"', "3", '{"a":' * 100_000, b"\xff\xfe"]
)
def test_parameters_are_a_json_object(text: str | bytes) -> None:
    assert status_of(check_json, text) == 400


@pytest.mark.parametrize("text", ["", b"", "{}", "null"])
def test_no_parameters_are_fine(text: str | bytes) -> None:
    check_json(text)


def test_null_is_no_form_field() -> None:
    with pytest.raises(RefusedError):
        check_json("null", may_be_null=False)
    check_json("", may_be_null=False)


def test_json_is_bounded() -> None:
    padding = " " * (MAX_JSON_BYTES - 2)
    check_json("{}" + padding)
    assert status_of(check_json, "{} " + padding) == 413


@pytest.mark.parametrize(
    "name",
    [
        "a.nii.gz",
        "a.nii",
        "a.nrrd",
        "a.seg.nrrd",
        "a.mha",
        "a.dcm",
        "A.DCM",
        "a.png",
        "/home/someone/Slicer-x1/label.1.nii.gz",
    ],
)
def test_images_may_be_uploaded(name: str) -> None:
    check_file_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "../a.nii.gz",
        "x/../a.nii.gz",
        "a\\b.nii.gz",
        "a\n.nii.gz",
        "a.py",
        "a",
        "",
        None,
        "a.zip",
        "/",
    ],
)
def test_other_uploads_are_refused(name: str | None) -> None:
    assert status_of(check_file_name, name) == 400


def test_only_who_may_judge_is_offered_what_is_to_be_judged() -> None:
    roles = {
        name: check_route("POST", path, path)
        for name in ("second_reading", "worst_first", "first", "random")
        for path in [f"/activelearning/{name}"]
    }
    assert roles.pop("second_reading") is Role.REVIEWER
    assert set(roles.values()) == {Role.ANNOTATOR}
