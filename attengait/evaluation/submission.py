"""The files that challenges take for probes without labels, and the check of their form.

Unlabelled probes are the sequences of the subject `probe`, and their view is the name of the video, as in OpenGait's
layout. A row of the file is this name and the subjects of the nearest gallery items, nearest first. A subject stands
there twice if two of its items are that near. GREW's file is handed in as a zip. The servers of challenges are closed
at times: keep the file and its checksum.
"""

import csv
import hashlib
import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attengait.errors import AttenGaitError, ParameterError, require
from attengait.evaluation.blocks import Int64, Rows
from attengait.evaluation.coverage import remarks_on
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.names import has_label, repeated, written_in_two_ways
from attengait.evaluation.ranking import nearest
from attengait.evaluation.rule import Rule, Submission, matching, rules
from attengait.evaluation.sides import Labels
from attengait.sampling.selection import UNLABELLED, some_of
from attengait.system.files import open_regular, write_atomically

_MAX_BYTES = 2**28
_SUFFIXES = (".csv", ".zip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A file for a challenge."""

    path: Path
    num_probes: int
    num_gallery: int
    num_tied: int
    """Probes among whose nearest items a tie decided. Names decided it: the first in the alphabet came first."""
    num_left_out: int
    """Gallery items whose subject is not a number, where the challenge takes numbers."""
    remarks: tuple[str, ...]
    """What else was left out, or was not there, one phrase each."""
    sha256: str

    def __str__(self) -> str:
        notes = [f"{self.num_probes} probes, {self.num_gallery} gallery items"]
        if self.num_tied:
            notes.append(f"{self.num_tied} probes with ties, in which the names decided")
        if self.num_left_out:
            notes.append(f"{self.num_left_out} gallery items are left out, whose subject is not a number")
        notes += self.remarks
        return f"{self.path}: {'; '.join(notes)}; sha256 {self.sha256}"


def submission_of(protocol: str) -> Submission:
    """The form of a protocol's file. ParameterError if it has none."""
    having = [name for name, rule in rules().items() if rule.submission is not None]
    rule = rules().get(protocol)
    if rule is None or rule.submission is None:
        raise ParameterError(f"protocol is {protocol!r}, but must be one with a file to hand in: {', '.join(having)}")
    return rule.submission


def check_target_name(path: Path) -> None:
    """Refuse a file that is neither .csv nor .zip (ParameterError)."""
    require(path.suffix in _SUFFIXES, "submission", str(path), f"a file that ends with {' or '.join(_SUFFIXES)}")


def choose(labels: Labels, rule: Rule) -> tuple[Int64, Int64, Int64]:
    """Rows of the probes, of the gallery, and of gallery items that are left out for their names.

    Raises AttenGaitError if there are no probes, no gallery, or two probes of one name.
    """
    form = submission_of(rule.name)
    is_probe = labels.subjects == UNLABELLED
    in_gallery = has_label(labels.subjects) & matching(labels.walks, form.gallery)
    left_out = np.zeros(len(labels), bool)
    if form.subjects_are_numbers:
        left_out = in_gallery & ~np.char.isdecimal(labels.subjects)
    in_gallery &= ~left_out
    if not is_probe.any():
        raise AttenGaitError(
            f"there is nothing to hand in for {rule.name}: no sequence has the subject {UNLABELLED}, but the subjects "
            f"{some_of(np.unique(labels.subjects).tolist(), 3)}"
        )
    if in_gallery.sum() < form.places:
        raise AttenGaitError(
            f"the gallery of {rule.name} has {in_gallery.sum()} sequences (walks {', '.join(form.gallery)}), but must "
            f"have at least {form.places}"
        )
    probes = np.flatnonzero(is_probe)
    if again := repeated([("", "", name) for name in labels.views[probes].tolist()]):
        raise AttenGaitError(
            f"{len(again)} unlabelled probes have the name of another one, such as {again[0][2]}: the view of an "
            "unlabelled probe must be the name of its video"
        )
    return probes, np.flatnonzero(in_gallery), np.flatnonzero(left_out)


def write_submission(
    path: Path,
    embeddings: Embeddings,
    rule: Rule,
    rows: Rows,
    probes: Int64,
    gallery: Int64,
    *,
    left_out: Int64,
    remarks: tuple[str, ...] = (),
) -> Written:
    """Check the form of the file, and write it, as .csv or as a .zip that holds it.

    `rows` are the distances of the probes to the gallery, both as `choose` gives them, and what it leaves out.
    AttenGaitError where the challenge would not take the file, or it cannot be written.
    """
    form = submission_of(rule.name)
    check_target_name(path)
    # What decides ties: the names, so that the order of the rows does not.
    items = embeddings.names(gallery)
    order = np.empty(len(items), np.int64)
    order[sorted(range(len(items)), key=items.__getitem__)] = np.arange(len(items))
    found, is_tied = nearest(rows, form.places, order)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(form.header.split(","))
    for probe, near in zip(probes, found, strict=True):
        subjects = embeddings.subjects[gallery[near]].tolist()
        if form.subjects_are_numbers:
            subjects = [str(int(subject)) for subject in subjects]
        writer.writerow([embeddings.views[probe], *subjects])
    _check_rows(path, text.getvalue(), form, names=embeddings.views[probes].tolist())
    data = text.getvalue().encode()
    if path.suffix == ".zip":
        data = _zipped(f"{path.stem}.csv", data)
    write_atomically(path, data)
    return Written(
        path=path,
        num_probes=len(probes),
        num_gallery=len(gallery),
        num_tied=int(is_tied.sum()),
        num_left_out=len(left_out),
        remarks=remarks + tuple(_remarks(embeddings, probes, gallery, left_out, form)),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _remarks(embeddings: Embeddings, probes: Int64, gallery: Int64, left_out: Int64, form: Submission) -> list[str]:
    """What the file does not show."""
    is_unused = np.ones(len(embeddings), bool)
    is_unused[np.concatenate([probes, gallery, left_out])] = False
    remarks = remarks_on(repeated(embeddings.names(gallery)), embeddings.names(is_unused))
    twins = written_in_two_ways(np.unique(embeddings.subjects[gallery]).tolist())
    if twins and form.subjects_are_numbers:
        remarks.append(f"subjects whose names are the same number are one person in the file: {some_of(twins)}")
    return remarks


def check_submission(path: Path, protocol: str) -> int:
    """Check the form of a challenge's file, a .csv or a .zip with one in it, and return how many rows it has.

    Raises AttenGaitError, naming the row, for anything that the challenge would not take.
    """
    form = submission_of(protocol)
    check_target_name(path)
    return _check_rows(path, _text_of(path), form)


def _check_rows(path: Path, text: str, form: Submission, *, names: Sequence[str] | None = None) -> int:
    """As `check_submission`, for the text of the file. With `names`, there must be a row for each of these videos."""
    if broken := [name for name in names or () if name and name.splitlines() != [name]]:
        raise AttenGaitError(f"{path} is not written: the name of the video {broken[0]!r} has a line end")
    try:
        lines = list(csv.reader(text.splitlines()))
    except csv.Error as error:
        raise AttenGaitError(f"{path} is no table of a challenge: {error}") from error
    if not lines or ",".join(lines[0]) != form.header:
        raise AttenGaitError(f"{path} does not begin with the header {form.header}")
    seen: set[str] = set()
    for number, (name, *subjects) in enumerate((line or [""] for line in lines[1:]), start=2):
        where = f"{path}, line {number}"
        if not name or name in seen:
            raise AttenGaitError(f"{where}: the video is {name!r}, but must be a name that no other row has")
        seen.add(name)
        if len(subjects) != form.places:
            raise AttenGaitError(f"{where}: there are {len(subjects)} subjects, but must be {form.places}")
        if blank := [place for place, subject in enumerate(subjects, start=1) if not subject.strip()]:
            raise AttenGaitError(f"{where}: the subject in place {blank[0]} is blank, but must be a name")
        wrong = [subject for subject in subjects if form.subjects_are_numbers and not subject.isdecimal()]
        if wrong:
            raise AttenGaitError(f"{where}: the subject is {wrong[0]!r}, but must be a number")
    if names is not None and seen != set(names):
        raise AttenGaitError(f"{path} has rows of {len(seen)} videos, but must have those of the {len(names)} probes")
    if not seen:
        raise AttenGaitError(f"{path} has no row")
    return len(seen)


def _zipped(name: str, data: bytes) -> bytes:
    """A zip with one file in it; the same bytes whenever it is made."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return content.getvalue()


def _text_of(path: Path) -> str:
    """The text of a .csv, or of the one in a .zip; a damaged file and one that unpacks to too much are refused."""
    try:
        with open_regular(path) as file:
            if path.suffix != ".zip":
                data = file.read(_MAX_BYTES + 1)
            else:
                with zipfile.ZipFile(file) as archive:
                    members = archive.namelist()
                    if len(members) != 1 or not members[0].endswith(".csv"):
                        raise AttenGaitError(f"{path} holds {len(members)} files, but must hold one .csv")
                    with archive.open(members[0]) as member:
                        data = member.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise AttenGaitError(f"{path} has more than {_MAX_BYTES:,} bytes")
        return data.decode()
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError) as error:
        raise AttenGaitError(f"{path} is damaged, or not a text or zip") from error
