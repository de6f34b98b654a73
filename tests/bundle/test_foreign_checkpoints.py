"""Checkpoints that somebody forged; nothing in them runs, and none takes long."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
import torch

from medseg.bundle.foreign_checkpoints import read_foreign_checkpoint
from medseg.bundle.weights import load_weights
from medseg.errors import CheckpointError
from medseg.interop.nnunet.checkpoint import read_checkpoint


def save(content: object) -> bytes:
    """Return what ``torch.save`` writes."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def write_program(file: Path, program: bytes) -> Path:
    """Write a program of pickle's into an archive as torch does."""
    writer = torch._C.PyTorchFileWriter(str(file))
    writer.write_record("data.pkl", program, len(program))
    writer.write_end_of_file()
    return file


def text(content: str) -> bytes:
    """Return the instruction that puts a text."""
    encoded = content.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def find_directory(archive: bytes) -> tuple[int, int]:
    """Return place and size of a table of contents, as the end of a large archive states them."""
    (place,) = struct.unpack_from("<Q", archive, len(archive) - 34)
    size, start = struct.unpack_from("<2Q", archive, place + 40)
    return start, size


def test_what_torch_opens_is_what_was_checked(tmp_path: Path) -> None:
    known, unknown = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
    checked, opened = save(known), save(unknown)
    checked_start, size = find_directory(checked)
    opened_start, opened_size = find_directory(opened)
    assert (checked_start, size) == (opened_start, opened_size)
    count = struct.unpack_from("<H", checked, len(checked) - 12)[0]
    end = struct.pack(
        "<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, opened_start, 0
    )
    file = tmp_path / "two_tables.pth"
    # Python reads the table before the end, torch the one at the place that the end states.
    both = opened[: opened_start + size] + checked[: checked_start + size]
    file.write_bytes(both + end)
    assert torch.load(file, weights_only=True)["w"].tolist() == [1, 1]
    with pytest.raises(CheckpointError, match="no whole archive"):
        read_foreign_checkpoint(file)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_weights(file)


def test_the_end_of_a_large_archive_says_what_the_short_one_says(
    tmp_path: Path,
) -> None:
    archive = bytearray(save({"a": 1}))
    file = tmp_path / "contradiction.pth"
    file.write_bytes(archive)
    assert read_foreign_checkpoint(file) == {"a": 1}
    struct.pack_into("<L", archive, len(archive) - 6, 0)
    file.write_bytes(archive)
    with pytest.raises(CheckpointError, match="no whole archive"):
        read_foreign_checkpoint(file)


@pytest.mark.parametrize(
    ("function", "values"),
    [
        # Quadratic: some megabytes of it take days.
        pytest.param(
            b"c_codecs\nencode\n",
            text("\u4e00") + text("punycode") + b"\x86",
            id="slow_codec",
        ),
        pytest.param(
            b"ccollections\nOrderedDict\n",
            b"]" + b"\x85",
            id="dict_of_values",
        ),
        pytest.param(
            b"ctorch\nSize\n",
            b"(" + b"K\x01" * 65 + b"t\x85",
            id="many_axes",
        ),
        pytest.param(b"ctorch\ndevice\n", b"]", id="arguments_in_a_list"),
    ],
)
def test_a_function_gets_only_what_torch_gives_it(
    tmp_path: Path, function: bytes, values: bytes
) -> None:
    program = b"\x80\x02}" + text("a") + function + values + b"Rs."
    file = write_program(tmp_path / "forged.pth", program)
    with pytest.raises(CheckpointError, match="more than weights"):
        read_foreign_checkpoint(file)


def test_a_text_is_not_encoded_again_and_again(tmp_path: Path) -> None:
    encode = b"c_codecs\nencode\n"
    once = text("a" * 1000) + b"q\x01" + text("latin1") + b"q\x02\x86R"
    again = b"h\x01h\x02\x86R"
    program = b"\x80\x02}" + text("a") + encode + once + b"s."
    file = write_program(tmp_path / "once.pth", program)
    assert read_foreign_checkpoint(file) == {"a": b"a" * 1000}
    further = (text("b") + encode + again + b"s") * 9
    program = program[:-1] + further + b"."
    file = write_program(tmp_path / "again.pth", program)
    with pytest.raises(CheckpointError, match="more than weights"):
        read_foreign_checkpoint(file)


@pytest.mark.parametrize("method", ["items", "keys", "get"])
def test_attributes_that_hide_methods_change_nothing(
    tmp_path: Path, method: str
) -> None:
    """An OrderedDict takes attributes from the file."""
    empty = b"ccollections\nOrderedDict\n)R"
    attributes = b"}" + text(method) + b"K\x05s" + b"b"
    weights = empty + text("w") + b"K\x01s" + attributes
    program = b"\x80\x02" + empty + text("network_weights") + weights + b"s"
    file = write_program(tmp_path / "hidden.pth", program + attributes + b".")
    assert dict.items(read_foreign_checkpoint(file))
    with pytest.raises(CheckpointError, match="something else than tensors"):
        read_checkpoint(file)


def test_the_name_of_a_trainer_is_that_of_a_class(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pth"
    content = {
        "network_weights": {"w": torch.zeros(1)},
        "init_args": {"configuration": "2d"},
    }
    torch.save(content | {"trainer_name": "nnUNetTrainer_1epoch"}, file)
    assert read_checkpoint(file).trainer == "nnUNetTrainer_1epoch"
    for name in ("\x1b[2Jtrainer", "trainer\n", ""):
        torch.save(content | {"trainer_name": name}, file)
        with pytest.raises(CheckpointError, match="trainer_name"):
            read_checkpoint(file)


@pytest.mark.parametrize("found", [torch.zeros(2), [], {}, None])
def test_what_holds_no_weights_by_name_is_no_checkpoint(
    tmp_path: Path, found: object
) -> None:
    file = tmp_path / "checkpoint.pth"
    torch.save({"network_weights": found}, file)
    with pytest.raises(CheckpointError, match="has no network_weights"):
        read_checkpoint(file)
