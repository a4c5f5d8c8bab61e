"""What Python gives as names, columns, features and options: taken, or refused in one sentence, and never lost."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation import Embeddings, EvaluationOptions, load_embeddings, save_embeddings

ARRAYS: dict[str, Any] = {
    "features": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "subjects": np.array(["075", "076"]),
    "views": np.array(["000", "090"]),
    "sequences": np.array(["nm-01", "bg-02"]),
}


def test_columns_of_any_name_and_of_python_objects_are_read_as_they_were_saved(tmp_path: Path):
    extra = {
        "Camera": np.array([1, 2]),
        "camera": np.array(["a", "b"], dtype=object),
        "height": [0.5, 1],
        "n" * 120: np.array(["x", "y"], np.dtypes.StringDType()),
    }
    save_embeddings(tmp_path / "e.npz", Embeddings(**ARRAYS, extra=extra))
    loaded = load_embeddings(tmp_path / "e.npz").extra
    assert {name: column.tolist() for name, column in loaded.items()} == {
        "Camera": [1, 2],
        "camera": ["a", "b"],
        "height": [0.5, 1.0],
        "n" * 120: ["x", "y"],
    }


@pytest.mark.parametrize(
    ("name", "column", "sentence"),
    [
        ("cam-era", [1, 2], "they hold column_cam-era, whose name must be of letters, digits and _"),
        ("camera", [1, None], "they hold column_camera, which is object, but must be numbers or text"),
        ("camera", [1j, 2j], "they hold column_camera, which is object, but must be numbers or text"),
        ("camera", ["a", "b" * 1025], "they hold column_camera, whose texts have up to 1,025 letters"),
        ("camera", ["a", "\udcff"], "they hold column_camera, whose texts are not all Unicode"),
    ],
)
def test_what_would_not_be_read_is_not_saved(tmp_path: Path, name: str, column: list[Any], sentence: str):
    with pytest.raises(AttenGaitError, match=f"e.npz cannot be written: {sentence}"):
        save_embeddings(tmp_path / "e.npz", Embeddings(**ARRAYS, extra={name: column}))
    assert list(tmp_path.iterdir()) == []


def test_columns_that_are_not_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    np.savez(tmp_path / "e.npz", **ARRAYS, **{"column_Seat": [1, 2], "column_cam-era": [1, 2], "column_": [3, 4]})
    assert list(load_embeddings(tmp_path / "e.npz").extra) == ["Seat"]
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "e.npz: column_cam-era, column_ are not read: what follows column_ must be of letters, digits and _"
    )


def test_names_are_taken_as_lists_numbers_and_objects_and_all_else_is_one_sentence():
    plain = Embeddings(**ARRAYS)
    numbers = {name: [int(each) for each in ARRAYS[name].tolist()] for name in ("subjects", "views")}
    texts = {name: ARRAYS[name].tolist() for name in ("subjects", "views", "sequences")}
    for given in (
        texts,
        numbers,
        {name: np.array(each) for name, each in numbers.items()},
        {name: np.array(each, dtype=object) for name, each in texts.items()},
        {name: np.array(each, np.dtypes.StringDType()) for name, each in texts.items()},
        {"features": ARRAYS["features"].tolist()},
    ):
        made = Embeddings(**(ARRAYS | given))
        for name, values in ARRAYS.items():
            assert getattr(made, name).tolist() == getattr(plain, name).tolist(), (name, values)
            assert getattr(made, name).dtype.kind == getattr(plain, name).dtype.kind
    assert Embeddings(**(ARRAYS | {"features": np.ones((2, 1, 3), int)})).features.dtype == np.float32
    for name, value, what in (
        ("subjects", ARRAYS["subjects"].astype("S"), "is |S3, but must be text or whole numbers"),
        ("subjects", [True, False], "is bool, but must be text or whole numbers"),
        ("views", ["000", None], "is object, but must be text or whole numbers"),
        ("views", ["000", 90], "is object, but must be text or whole numbers"),
        ("sequences", [1, 2], "is int64, but must be text"),
        ("features", ARRAYS["features"].astype(complex), "is complex"),
        ("features", [[[1.0]], [[1.0, 2.0]]], "is a list, but must be an array"),
        ("features", "x", "but must be floating-point numbers"),
    ):
        with pytest.raises(ParameterError, match=f"{name} .*{re.escape(what)}"):
            Embeddings(**(ARRAYS | {name: value}))


def test_options_take_numpys_numbers_and_refuse_what_they_cannot_use():
    options = EvaluationOptions(bootstrap=np.int64(5), seed=np.uint8(3))  # type: ignore[arg-type]
    assert (options.bootstrap, options.seed) == (5, 3)
    assert {type(options.bootstrap), type(options.seed)} == {int}
    for name, value, what in (
        ("fuse", "x.npz", "Embeddings, as attengait.evaluation.load_embeddings reads them"),
        ("bootstrap", 2.0, "a number of resamples, 0 for none"),
        ("bootstrap", True, "a number of resamples, 0 for none"),
        ("fuse_weight", "0.5", "a number between 0 and 1"),
        ("gallery", 3, "a list of filters"),
    ):
        with pytest.raises(ParameterError, match=f"{name} is {value!r}, but must be {what}"):
            EvaluationOptions(**{name: value})
