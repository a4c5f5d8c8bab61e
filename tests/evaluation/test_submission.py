"""The files of challenges: equal to OpenGait's, and each fault of their form is found."""

import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from attengait.cli.main import app
from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation import Embeddings, EvaluationOptions, distance, load_embeddings, save_embeddings
from attengait.evaluation.submission import check_submission
from attengait.pipelines.evaluate import evaluate, submit


@pytest.fixture(scope="module")
def reference(data: Path) -> dict[str, np.ndarray]:
    with np.load(data / "evaluation_protocols.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def grew(reference: dict[str, np.ndarray]) -> Embeddings:
    return Embeddings(
        features=reference["grew_submission_features"],
        subjects=reference["grew_submission_subjects"],
        sequences=reference["grew_submission_walks"],
        views=reference["grew_submission_views"],
        feature_order="parts-first",
    )


def test_the_csv_of_grew_equals_opengait_s(grew: Embeddings, reference: dict[str, np.ndarray], tmp_path: Path) -> None:
    written = submit(tmp_path / "s.csv", grew, protocol="grew", distance="part-l2")
    assert (tmp_path / "s.csv").read_text().splitlines() == reference["grew_submission_csv"].tolist()
    assert written.sha256 == hashlib.sha256((tmp_path / "s.csv").read_bytes()).hexdigest()
    assert (written.num_probes, written.num_gallery, written.num_tied, written.num_left_out) == (10, 60, 0, 0)


def test_the_zip_holds_the_csv_and_is_the_same_whenever_and_in_whatever_order_it_is_made(
    grew: Embeddings, reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    save_embeddings(tmp_path / "e.npz", grew)
    words = ["evaluate", "--embeddings", str(tmp_path / "e.npz"), "--protocol", "grew", "--distance", "part-l2"]
    done = CliRunner().invoke(app, [*words, "--submission", str(tmp_path / "s.zip")])
    assert done.exit_code == 0, done.output
    assert "s.zip: 10 probes, 60 gallery items; sha256 " in done.output
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == ["s.csv"]
        lines = archive.read("s.csv").decode().splitlines()
    assert sorted(lines) == sorted(reference["grew_submission_csv"].tolist())
    other = tmp_path / "other"
    other.mkdir()
    submit(other / "s.zip", grew, protocol="grew", distance="part-l2")
    assert (other / "s.zip").read_bytes() == (tmp_path / "s.zip").read_bytes()
    checked = CliRunner().invoke(app, ["evaluate", "--protocol", "grew", "--check-submission", str(tmp_path / "s.zip")])
    assert checked.output == f"{tmp_path / 's.zip'}: 10 rows, in the form that grew takes\n"


def test_ties_are_decided_by_the_names_and_counted(grew: Embeddings, tmp_path: Path) -> None:
    same = Embeddings(
        features=np.ones_like(grew.features),
        subjects=grew.subjects,
        sequences=grew.sequences,
        views=grew.views,
        feature_order="parts-first",
    )
    written = submit(tmp_path / "s.csv", same, protocol="grew")
    assert written.num_tied == 10
    row = (tmp_path / "s.csv").read_text().splitlines()[1]
    assert row.startswith("vid000,1,1,10,10,11,11,12,12,")
    order = np.random.default_rng(0).permutation(len(same))
    submit(tmp_path / "t.csv", same.select(order), protocol="grew")
    assert sorted((tmp_path / "t.csv").read_text().splitlines()) == sorted(
        (tmp_path / "s.csv").read_text().splitlines()
    )


def test_hid_takes_the_re_ranked_nearest_of_all_others_and_keeps_the_names_of_videos(
    reference: dict[str, np.ndarray], tmp_path: Path
) -> None:
    features, num_probes = reference["rerank_features"], int(reference["rerank_num_probes"])
    num = len(features)
    subjects = np.array(["probe"] * num_probes + [f"{i:05d}" for i in range(num - num_probes)])
    videos = np.array([f"{i:04d}" for i in range(num_probes)] + ["000"] * (num - num_probes))
    embeddings = Embeddings(
        features=features, subjects=subjects, sequences=np.full(num, "w"), views=videos, feature_order="parts-first"
    )
    submit(tmp_path / "h.csv", embeddings, protocol="hid", distance="part-l2")
    lines = (tmp_path / "h.csv").read_text().splitlines()
    nearest = reference["rerank_distances"].argmin(axis=1)
    assert lines == ["videoID,label", *(f"{i:04d},{item:05d}" for i, item in enumerate(nearest))]
    plain = EvaluationOptions(rerank=False)
    submit(tmp_path / "p.csv", embeddings, protocol="hid", distance="part-l2", options=plain)
    nearest = distance(features[:num_probes], features[num_probes:], "part-l2").argmin(axis=1)
    assert (tmp_path / "p.csv").read_text().splitlines()[1:] == [
        f"{i:04d},{item:05d}" for i, item in enumerate(nearest)
    ]


def test_a_file_of_embeddings_keeps_the_names_of_videos(tmp_path: Path) -> None:
    names = {"subjects": np.array(["probe", "001"]), "views": np.array(["00012", "0"])}
    embeddings = Embeddings(features=np.ones((2, 1, 3), np.float32), sequences=np.array(["03", "01"]), **names)
    save_embeddings(tmp_path / "e.npz", embeddings)
    assert load_embeddings(tmp_path / "e.npz").views.tolist() == ["00012", "000"]


@pytest.mark.parametrize("end", ["\n", "\r", "\u2028", "\x0b"])
def test_what_would_not_be_taken_is_not_written(grew: Embeddings, tmp_path: Path, end: str) -> None:
    views = np.where(grew.views == "vid000", f"vid{end}000", grew.views)
    (tmp_path / "s.csv").write_text("old")
    with pytest.raises(AttenGaitError, match=r"s\.csv is not written: the name of the video 'vid.*000' has a line end"):
        submit(tmp_path / "s.csv", replace(grew, views=views), protocol="grew")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("s.csv", "old")]


def test_people_whose_names_are_no_numbers_are_left_out_of_grew_and_counted(grew: Embeddings, tmp_path: Path) -> None:
    subjects = np.where(grew.subjects == "7", "7train", grew.subjects)
    some = Embeddings(
        features=grew.features,
        subjects=subjects,
        sequences=grew.sequences,
        views=grew.views,
        feature_order="parts-first",
    )
    written = submit(tmp_path / "s.csv", some, protocol="grew")
    assert (written.num_gallery, written.num_left_out) == (58, 2)
    assert "2 gallery items are left out, whose subject is not a number" in str(written)


def test_what_the_file_does_not_show_is_said(grew: Embeddings, tmp_path: Path) -> None:
    rows = np.flatnonzero(grew.subjects == "7")
    more = grew.select(np.concatenate([np.arange(len(grew)), rows, rows, rows]))
    subjects, sequences = more.subjects.astype(object), more.sequences.copy()
    new = len(grew) + np.arange(3 * len(rows))
    subjects[new[len(rows) : 2 * len(rows)]] = "distractor"
    subjects[new[2 * len(rows) :]] = "007"
    sequences[new[-1]] = "09"
    odd = replace(more, subjects=subjects.astype(str), sequences=sequences)
    written = submit(tmp_path / "s.csv", odd, protocol="grew")
    assert written.remarks == (
        f"{len(rows)} repeated rows of sequences that are there already, each row counts: "
        + ", ".join(sorted("/".join(name) for name in grew.names(rows))),
        f"{len(rows) + 1} sequences that the protocol does not use, of the walks 01, 02, 09",
        "subjects whose names are the same number are one person in the file: 007, 7",
    )
    assert all(remark in str(written) for remark in written.remarks)


def test_what_fusion_and_a_partition_leave_out_of_the_file_is_said(grew: Embeddings, tmp_path: Path) -> None:
    names = np.unique(grew.subjects).tolist()
    (tmp_path / "p.json").write_text(json.dumps({"TRAIN_SET": ["x"], "TEST_SET": [*names, "999"]}))
    other = grew.select(grew.views != "vid000")
    options = EvaluationOptions(fuse=other, only_common=True, partition=tmp_path / "p.json")
    written = submit(tmp_path / "s.csv", grew, protocol="grew", options=options)
    assert written.num_probes == 9
    assert "1 subjects of TEST_SET are missing: 999" in str(written)
    assert "1 sequences that the second embeddings lack are left out: probe/03/vid000" in str(written)
    with pytest.raises(ParameterError, match="only_common is True, but must be left out where there is one set of"):
        submit(tmp_path / "s.csv", grew, protocol="grew", options=EvaluationOptions(only_common=True))


def test_a_partition_need_not_name_the_probes_without_labels(grew: Embeddings, tmp_path: Path) -> None:
    names = [name for name in np.unique(grew.subjects).tolist() if name != "probe"]
    (tmp_path / "p.json").write_text(json.dumps({"TRAIN_SET": ["x"], "TEST_SET": names}))
    options = EvaluationOptions(partition=tmp_path / "p.json")
    submit(tmp_path / "with.csv", grew, protocol="grew", options=options)
    submit(tmp_path / "without.csv", grew, protocol="grew")
    assert (tmp_path / "with.csv").read_bytes() == (tmp_path / "without.csv").read_bytes()


def test_a_partition_and_subjects_hold_for_both_models_that_are_fused(grew: Embeddings, tmp_path: Path) -> None:
    names = [name for name in np.unique(grew.subjects).tolist() if name != "7"]
    few = grew.select(grew.subjects != "7")
    submit(tmp_path / "few.csv", few, protocol="grew", options=EvaluationOptions(fuse=few))
    (tmp_path / "p.json").write_text(json.dumps({"TRAIN_SET": ["7"], "TEST_SET": names}))
    options = EvaluationOptions(fuse=grew, partition=tmp_path / "p.json")
    submit(tmp_path / "partition.csv", grew, protocol="grew", options=options)
    submit(tmp_path / "subjects.csv", grew, protocol="grew", subjects=names, options=EvaluationOptions(fuse=grew))
    for name in ("partition", "subjects"):
        assert (tmp_path / f"{name}.csv").read_bytes() == (tmp_path / "few.csv").read_bytes()


def test_what_cannot_be_handed_in_is_refused(grew: Embeddings, tmp_path: Path) -> None:
    labelled = grew.select(grew.subjects != "probe")
    with pytest.raises(AttenGaitError, match="no sequence has the subject probe, but the subjects 1, 10, 11"):
        submit(tmp_path / "s.csv", labelled, protocol="grew")
    few = grew.select((grew.subjects == "probe") | (grew.subjects == "7"))
    with pytest.raises(
        AttenGaitError, match=r"the gallery of grew has 2 sequences \(walks 01, 02\), but must have at "
    ):
        submit(tmp_path / "s.csv", few, protocol="grew")
    twice = grew.select(np.concatenate([np.arange(len(grew)), np.flatnonzero(grew.subjects == "probe")[:1]]))
    with pytest.raises(AttenGaitError, match="1 unlabelled probes have the name of another one, such as vid000"):
        submit(tmp_path / "s.csv", twice, protocol="grew")
    filters = EvaluationOptions(gallery=["walk=01"])
    with pytest.raises(ParameterError, match=r"gallery is \['walk=01'\], but must be left out for the protocol grew"):
        submit(tmp_path / "s.csv", grew, protocol="grew", options=filters)
    with pytest.raises(ParameterError, match="protocol is 'oumvlp', but must be one with a file to hand in: grew, hid"):
        submit(tmp_path / "s.csv", grew, protocol="oumvlp")
    with pytest.raises(ParameterError, match=r"submission is '.*s\.txt', but must be a file that ends with \.csv"):
        submit(tmp_path / "s.txt", grew, protocol="grew")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda lines: ["x", *lines[1:]], "does not begin with the header videoId,rank1"),
        (lambda lines: [*lines, lines[1]], "line 12: the video is 'vid000', but must be a name that no other row has"),
        (lambda lines: [*lines[:2], lines[2][:-3], *lines[3:]], "line 3: there are 19 subjects, but must be 20"),
        (
            lambda lines: [*lines[:2], lines[2].rpartition(",")[0] + ", ", *lines[3:]],
            "line 3: the subject in place 20 is blank, but must be a name",
        ),
        (lambda lines: [*lines[:2], "v,a" + ",1" * 19], "line 3: the subject is 'a', but must be a number"),
        (lambda lines: [*lines[:2], "", *lines[2:]], "line 3: the video is '', but must be a name"),
        (lambda lines: lines[:1], "has no row"),
        (lambda lines: [], "does not begin with the header"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".zip"])
def test_each_fault_of_the_form_is_found(
    reference: dict[str, np.ndarray], tmp_path: Path, change: Any, fault: str, suffix: str
) -> None:
    path = tmp_path / f"s{suffix}"
    text = "\n".join(change(reference["grew_submission_csv"].tolist()))
    if suffix == ".csv":
        path.write_text(text)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("s.csv", text)
    with pytest.raises(AttenGaitError, match=fault):
        check_submission(path, "grew")


def test_a_zip_with_other_files_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    with pytest.raises(AttenGaitError, match=r"holds 2 files, but must hold one \.csv"):
        check_submission(tmp_path / "s.zip", "grew")
    (tmp_path / "s.zip").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(AttenGaitError, match="is damaged, or not a text or zip"):
        check_submission(tmp_path / "s.zip", "grew")
    (tmp_path / "s.csv").write_text("x" * 200_000)
    with pytest.raises(AttenGaitError, match="is no table of a challenge: field larger than field limit"):
        check_submission(tmp_path / "s.csv", "grew")
    (tmp_path / "s.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(AttenGaitError, match="is damaged, or not a text or zip"):
        check_submission(tmp_path / "s.csv", "grew")


def test_a_table_and_a_file_to_hand_in_are_asked_for_one_at_a_time(grew: Embeddings, tmp_path: Path) -> None:
    save_embeddings(tmp_path / "e.npz", grew)
    words = ["evaluate", "--embeddings", str(tmp_path / "e.npz"), "--protocol", "grew"]
    done = CliRunner().invoke(
        app, [*words, "--submission", str(tmp_path / "s.csv"), "--json", str(tmp_path / "t.json")]
    )
    assert "but must be left out with --submission, which makes no table" in str(done.exception)
    done = CliRunner().invoke(app, [*words, "--check-submission", str(tmp_path / "s.csv")])
    assert "but must be given with --protocol alone, and without --embeddings" in str(done.exception)
    words = ["evaluate", "run", "--json", str(tmp_path / "t.json"), "--verification", "--protocol", "grew"]
    refused = CliRunner().invoke(app, [*words, "--check-submission", str(tmp_path / "s.csv")])
    assert str(refused.exception).endswith("and without RUN, --json, --verification")
    words = ["evaluate", "--embeddings", str(tmp_path / "e.npz"), "--protocol", "grew"]
    done = CliRunner().invoke(app, [*words, "--json", str(tmp_path / "t.json")])
    assert done.exit_code == 0
    counts = json.loads((tmp_path / "t.json").read_text())["counts"]
    assert (counts["probes"], counts["gallery"], counts["unused_sequences"]) == (30, 30, 10)


def test_distractors_are_neither_probes_nor_in_a_gallery_unless_a_filter_asks_for_them(grew: Embeddings) -> None:
    extra = {"part": np.where(grew.subjects == "probe", "probe", "gallery")}
    far = Embeddings(
        features=np.concatenate([grew.features, grew.features[:3]]),
        subjects=np.array([*grew.subjects.tolist(), *["distractor"] * 3]),
        sequences=np.array([*grew.sequences.tolist(), "04", "01", "02"]),  # even by a walk of the protocol
        views=np.array([*grew.views.tolist(), "a", "b", "c"]),
        feature_order="parts-first",
        extra={"part": np.array([*extra["part"].tolist(), *["distractor"] * 3])},
    )
    for protocol in ("grew", "retrieval"):
        with_them, without = (evaluate(each, protocol=protocol) for each in (far, grew))
        assert with_them.metrics == without.metrics
        assert with_them.to_dict()["counts"]["gallery"] == without.to_dict()["counts"]["gallery"]
    options = EvaluationOptions(gallery=("part=gallery,distractor", "walk!=02"), probes=("walk=02",))
    counts = evaluate(far, protocol="custom", options=options).to_dict()["counts"]
    first = int(np.count_nonzero(grew.sequences == "01"))
    assert (counts["gallery"], counts["probes"]) == (first + 2, int(np.count_nonzero(grew.sequences == "02")))


def test_distractors_are_not_in_the_file_of_a_challenge(grew: Embeddings, tmp_path: Path) -> None:
    subjects = grew.subjects.copy().astype("U20")
    rows = np.flatnonzero(grew.sequences == "01")[:4]
    subjects[rows] = "distractor"
    written = submit(tmp_path / "s.csv", replace(grew, subjects=subjects), protocol="grew")
    assert (written.num_gallery, written.num_left_out) == (56, 0)
