"""What the tables of the store hold: numbered steps, each of which changes the one before."""

from __future__ import annotations

_FIRST = """
CREATE TABLE scans (
    name TEXT PRIMARY KEY,
    parts TEXT NOT NULL,
    volume TEXT NOT NULL DEFAULT '',
    stamp TEXT NOT NULL,
    warnings TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;

CREATE TABLE cases (
    name TEXT PRIMARY KEY,
    state TEXT NOT NULL DEFAULT 'new'
        CHECK (state IN ('new', 'proposed', 'corrected', 'reviewed', 'rejected')),
    comment TEXT NOT NULL DEFAULT '',
    changed REAL NOT NULL DEFAULT 0,
    changed_by TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;

CREATE TABLE assignments (
    case_name TEXT NOT NULL,
    reading INTEGER NOT NULL CHECK (reading IN (1, 2)),
    person TEXT NOT NULL,
    expires REAL,
    PRIMARY KEY (case_name, reading)
) WITHOUT ROWID;

CREATE TABLE labels (
    number INTEGER PRIMARY KEY,
    case_name TEXT NOT NULL,
    tag TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    author TEXT NOT NULL DEFAULT '',
    saved REAL NOT NULL,
    info TEXT NOT NULL DEFAULT '{}'
);
CREATE INDEX labels_of_a_case ON labels (case_name, tag, number);

CREATE TABLE qualities (
    case_name TEXT NOT NULL,
    version TEXT NOT NULL,
    quality TEXT NOT NULL,
    PRIMARY KEY (case_name, version)
) WITHOUT ROWID;

CREATE TABLE segmentations (
    uid TEXT PRIMARY KEY
) WITHOUT ROWID;
"""
"""``scans``: what a folder holds, as it was checked. ``cases``: how far the work on each is.
``assignments``: who has a case, for the first or the second reading; until when, or for good.
``labels``: every label map that was ever saved, by the hash of its file; the last of a case and
tag is the current one. ``qualities``: how good a version's result probably is.
``segmentations``: DICOM SEG of the DICOMweb server that are known already."""

_PROPOSALS = """
CREATE TABLE proposals (
    case_name TEXT NOT NULL,
    version TEXT NOT NULL,
    uid TEXT NOT NULL,
    series TEXT NOT NULL,
    PRIMARY KEY (case_name, version)
) WITHOUT ROWID
"""
"""Which proposals of which version lie in the DICOMweb server: of a segmentation there, its own and
its series' UID."""

_STORERS = """
CREATE TABLE storers (
    uid TEXT PRIMARY KEY,
    person TEXT NOT NULL
) WITHOUT ROWID
"""
"""Who stored which instance in the DICOMweb server through this one, by its SOP instance UID."""

MIGRATIONS = (_FIRST, _PROPOSALS, _STORERS)
"""Step 1, step 2, …; a store knows how many it has behind it. A step that was released stays."""
