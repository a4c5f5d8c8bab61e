"""The file of embeddings: round trip, what is accepted, what is refused; embedding a stream."""

import subprocess
import sys
import tracemalloc
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from hypothesis.extra.numpy import arrays as arrays_of

from attengait.errors import AttenGaitError, ParameterError
from attengait.evaluation import Embeddings, distance, embed_store, load_embeddings, save_embeddings
from attengait.evaluation.embeddings import ATTENGAIT_PARTS
from attengait.model.config import ModelConfig
from attengait.model.net import AttenGait
from attengait.store import Sequences

Heard = import_module("heard").Heard

ARRAYS: dict[str, Any] = {
    "features": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "subjects": np.array(["075", "076"]),
    "views": np.array(["000", "090"]),
    "sequences": np.array(["nm-01", "bg-02"]),
}


def test_what_is_saved_is_what_is_loaded(tmp_path: Path):
    save_embeddings(tmp_path / "e.npz", Embeddings(**ARRAYS))
    loaded = load_embeddings(tmp_path / "e.npz")
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(getattr(loaded, name), array)
    assert [path.name for path in tmp_path.iterdir()] == ["e.npz"]
    assert loaded.name(1) == "076/bg-02/090"


def test_whole_numbers_become_three_digits_and_floats_float32(tmp_path: Path):
    numbers = {"subjects": np.array([5, 10305]), "views": np.array([0, 90], np.uint8)}
    np.savez(tmp_path / "e.npz", **(ARRAYS | numbers | {"features": ARRAYS["features"].astype(np.float64)}))
    loaded = load_embeddings(tmp_path / "e.npz")
    assert loaded.subjects.tolist() == ["005", "10305"]
    assert loaded.views.tolist() == ["000", "090"]
    assert loaded.features.dtype == np.float32


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(AttenGaitError, match=r"cannot read embeddings .*absent\.npz: No such file or directory"):
        load_embeddings(tmp_path / "absent.npz")


def test_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(AttenGaitError, match=r"cannot read embeddings .*: it is a folder, not a file"):
        load_embeddings(tmp_path)


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path):
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    np.save(tmp_path / "array.npy", ARRAYS["features"])
    for name in ("text.npz", "empty.npz", "array.npy"):
        with pytest.raises(AttenGaitError, match=f"{name} are damaged or not an .npz"):
            load_embeddings(tmp_path / name)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, share: float):
    save_embeddings(tmp_path / "e.npz", Embeddings(**ARRAYS))
    whole = (tmp_path / "e.npz").read_bytes()
    (tmp_path / "e.npz").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(AttenGaitError, match="are damaged"):
        load_embeddings(tmp_path / "e.npz")


@pytest.mark.parametrize("version", ["0.1.0", "now"])
def test_every_flipped_byte_is_refused_or_harmless(tmp_path: Path, version: str):
    if version == "now":
        save_embeddings(tmp_path / "e.npz", Embeddings(**ARRAYS))
    else:
        np.savez(tmp_path / "e.npz", **ARRAYS)
    whole = (tmp_path / "e.npz").read_bytes()
    refused = 0
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        (tmp_path / "e.npz").write_bytes(damaged)
        try:
            loaded = load_embeddings(tmp_path / "e.npz")
        except AttenGaitError:
            refused += 1
        else:
            for name, array in ARRAYS.items():
                np.testing.assert_array_equal(getattr(loaded, name), array)
    assert refused > 300


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"features": np.zeros((2, 12), np.float32)},
            r"features is \[2, 12\], but must be \[n, parts, D\]",
        ),
        ({"features": np.zeros((2, 3, 4), np.int32)}, "features is int32, but must be floating-point numbers"),
        (
            {"features": np.zeros((3, 3, 4), np.float32)},
            r"subjects is \[2\], but must be \[3\], one entry for each of",
        ),
        ({"views": np.array([["000", "090"]])}, r"views is \[1, 2\], but must be \[2\], one entry"),
        ({"views": np.array([0.0, 90.0])}, "views is float64, but must be text or whole numbers"),
        ({"sequences": np.array([1, 2])}, "sequences is int64, but must be text$"),
        ({"features": np.full((2, 3, 4), 1e300)}, "2 of 2 embeddings hold values that are not finite"),
    ],
)
def test_arrays_of_another_shape_or_kind_are_refused_naming_the_file(
    tmp_path: Path, change: dict[str, Any], message: str
):
    np.savez(tmp_path / "e.npz", **(ARRAYS | change))
    with pytest.raises(AttenGaitError, match=r"e\.npz: " + message):
        load_embeddings(tmp_path / "e.npz")


def test_the_same_view_has_one_name_however_it_is_written(tmp_path: Path):
    for views in (["0", "90"], ["00", "0090"], [0, 90], ["000", "090"]):
        np.savez(tmp_path / "e.npz", **(ARRAYS | {"views": np.array(views)}))
        assert load_embeddings(tmp_path / "e.npz").views.tolist() == ["000", "090"]
    assert Embeddings(**(ARRAYS | {"views": np.array(["270", "left"])})).views.tolist() == ["270", "left"]


@pytest.mark.parametrize("shape", [(2, 256, 16), (2, 256, 62), (2, 32, 62), (2, 64, 64), (2, 128, 1)])
def test_features_that_may_be_in_opengaits_order_are_refused_with_the_way_to_convert_them(
    tmp_path: Path, shape: tuple[int, ...]
):
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    arrays = ARRAYS | {"features": features}
    np.savez(tmp_path / "e.npz", **arrays)
    with pytest.raises(
        AttenGaitError, match=r"e\.npz: features is \[2, .*\], but .*--feature-order parts-last or parts-"
    ):
        load_embeddings(tmp_path / "e.npz")
    with pytest.raises(AttenGaitError, match=r"Embeddings\.from_opengait"):
        Embeddings(**arrays)
    converted = load_embeddings(tmp_path / "e.npz", feature_order="parts-last")
    np.testing.assert_array_equal(converted.features, features.transpose(0, 2, 1))
    np.testing.assert_array_equal(Embeddings.from_opengait(**arrays).features, converted.features)
    np.testing.assert_array_equal(load_embeddings(tmp_path / "e.npz", feature_order="parts-first").features, features)
    for whole in (converted, Embeddings(**arrays, feature_order="parts-first")):
        save_embeddings(tmp_path / "saved.npz", whole)
        np.testing.assert_array_equal(load_embeddings(tmp_path / "saved.npz").features, whole.features)
        assert len(whole.select(np.array([1]))) == 1


@pytest.mark.parametrize(
    "shape", [(2, 62, 4), (2, 62, 62), (2, 62, 256), (2, 16, 256), (2, 4, 8), (2, 1, 62), (2, 1, 1)]
)
def test_features_whose_order_is_plain_need_no_word_about_it(tmp_path: Path, shape: tuple[int, ...]):
    np.savez(tmp_path / "e.npz", **(ARRAYS | {"features": np.ones(shape, np.float32)}))
    assert load_embeddings(tmp_path / "e.npz").features.shape == shape


def test_part_distances_of_opengaits_order_become_those_of_ours():
    random = np.random.default_rng(0)
    ours = random.normal(size=(2, 3, 5)).astype(np.float32)
    theirs = Embeddings.from_opengait(**(ARRAYS | {"features": ours.transpose(0, 2, 1)}))
    slow = np.mean([np.linalg.norm(ours[0, part].astype(float) - ours[1, part]) for part in range(3)])
    assert distance(theirs.features[:1], theirs.features[1:], "part-l2")[0, 0] == pytest.approx(slow, rel=1e-6)


def test_further_columns_are_kept_in_opengaits_order_too(tmp_path: Path):
    names = {"subjects": np.array(["1", "2"]), "views": np.array(["0", "0"]), "sequences": np.array(["a", "a"])}
    features = np.ones((2, 8, 4), np.float32)
    np.savez(tmp_path / "e.npz", features=features, column_camera=np.array(["c1", "c2"]), **names)
    loaded = load_embeddings(tmp_path / "e.npz", feature_order="parts-last")
    assert loaded.features.shape == (2, 4, 8)
    assert loaded.extra["camera"].tolist() == ["c1", "c2"]


def test_the_number_of_parts_is_that_of_the_network():
    network = AttenGait(ModelConfig(widths=(4, 8, 8), part_width=8, embedding_size=4))
    assert network.embed(np.zeros((16, 64, 64, 3), np.uint8)).shape[0] == ATTENGAIT_PARTS


def test_an_order_that_contradicts_the_file_or_is_unknown_is_refused(tmp_path: Path):
    save_embeddings(tmp_path / "e.npz", Embeddings(**ARRAYS))
    with pytest.raises(
        ParameterError, match=r"feature_order is 'parts-last', but must be parts-first, as .*e\.npz says"
    ):
        load_embeddings(tmp_path / "e.npz", feature_order="parts-last")
    with pytest.raises(ParameterError, match="feature_order is 'parts', but must be one of parts-first, parts-last"):
        load_embeddings(tmp_path / "e.npz", feature_order="parts")  # type: ignore[arg-type]
    np.savez(tmp_path / "other.npz", **ARRAYS, feature_axes=np.array(["sequence", "number", "part"]))
    with pytest.raises(AttenGaitError, match=r"other\.npz: feature_axes is \['sequence', 'number', 'part'\], but must"):
        load_embeddings(tmp_path / "other.npz")


ANY_ARRAY = arrays_of(
    dtype=st.sampled_from(["<f4", ">f8", "<f2", "<i8", "|u1", "|b1", "<U3", ">U2"]),
    shape=array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3),
)


@settings(
    derandomize=True,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(changes=st.dictionaries(st.sampled_from([*ARRAYS, "feature_axes"]), ANY_ARRAY, min_size=1))
def test_arrays_of_any_kind_are_embeddings_or_one_error(changes: dict[str, Any], tmp_path: Path):
    np.savez(tmp_path / "e.npz", **(ARRAYS | changes))
    try:
        loaded = load_embeddings(tmp_path / "e.npz")
    except AttenGaitError:
        return
    assert loaded.features.shape == np.shape((ARRAYS | changes)["features"])
    assert loaded.features.dtype == np.float32
    assert {column.dtype.kind for column in (loaded.subjects, loaded.views, loaded.sequences)} == {"U"}
    assert len({len(column) for column in (loaded, loaded.subjects, loaded.views, loaded.sequences)}) == 1


def test_missing_arrays_are_named(tmp_path: Path):
    np.savez(tmp_path / "e.npz", features=ARRAYS["features"], views=ARRAYS["views"])
    with pytest.raises(AttenGaitError, match=r"e\.npz lack the arrays subjects, sequences$"):
        load_embeddings(tmp_path / "e.npz")


def test_python_objects_are_refused_unread(tmp_path: Path):
    np.savez(tmp_path / "e.npz", **(ARRAYS | {"subjects": np.array(["075", None], dtype=object)}))
    with pytest.raises(AttenGaitError, match="no Python objects"):
        load_embeddings(tmp_path / "e.npz")


def test_an_embedding_that_is_not_finite_is_refused_by_name():
    features = ARRAYS["features"].copy()
    features[1, 2, 0] = np.nan
    with pytest.raises(
        AttenGaitError, match="1 of 2 embeddings hold values that are not finite, the first is 076/bg-02/090"
    ):
        Embeddings(**(ARRAYS | {"features": features}))


def test_saving_where_no_folder_is_says_so(tmp_path: Path):
    with pytest.raises(AttenGaitError, match=r"e\.npz cannot be written: there is no folder "):
        save_embeddings(tmp_path / "absent" / "e.npz", Embeddings(**ARRAYS))


class MeanOfFrames:
    """A model whose embedding of a walk is the mean of its frames, as one part."""

    def embed_ragged(self, frames: torch.Tensor, lengths: list[int], /) -> torch.Tensor:
        return torch.stack([walk.float().mean(0).flatten()[None] for walk in frames.split(lengths)])


def some_sequences() -> Sequences:
    text = np.dtypes.StringDType()
    return Sequences(
        subject=np.array(["001", "001", "002", "003"], dtype=text),
        walk=np.array(["nm-01", "nm-02", "bg-01", "cl-01"], dtype=text),
        view=np.array(["000", "018", "036", "054"], dtype=text),
        start=np.array([0, 2, 5, 6]),
        length=np.array([2, 3, 1, 4]),
        crc32c=np.zeros(4, np.uint32),
    )


def test_a_stream_in_any_order_is_embedded_in_the_order_of_the_table():
    frames = torch.randint(0, 256, (10, 2, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stream = [
        (np.array([3, 0]), torch.cat([frames[6:10], frames[0:2]]), np.array([4, 2])),
        (np.array([1]), frames[2:5], np.array([3])),
    ]
    heard = Heard()
    embeddings = embed_store(MeanOfFrames(), stream, some_sequences(), num_sequences=3, progress=heard)
    assert [embeddings.name(i) for i in range(3)] == ["001/nm-01/000", "001/nm-02/018", "003/cl-01/054"]
    expected = [frames[a:b].float().mean(0).flatten().numpy() for a, b in ((0, 2), (2, 5), (6, 10))]
    np.testing.assert_array_equal(embeddings.features, np.stack(expected)[:, None])
    assert heard.counts == [(2, 3), (3, 3)]


def test_what_was_embedded_can_be_saved_and_loaded(tmp_path: Path):
    stream = [(np.array([2]), torch.ones(1, 2, 2, 3, dtype=torch.uint8), np.array([1]))]
    save_embeddings(tmp_path / "e.npz", embed_store(MeanOfFrames(), stream, some_sequences(), num_sequences=3))
    assert load_embeddings(tmp_path / "e.npz").name(0) == "002/bg-01/036"


def test_an_empty_stream_is_an_error():
    with pytest.raises(AttenGaitError, match="there is no sequence to embed"):
        embed_store(MeanOfFrames(), [], some_sequences(), num_sequences=0)


def test_evaluating_a_file_loads_neither_torch_nor_a_console_library(data: Path):
    program = (
        "import sys; from pathlib import Path; from attengait.evaluation import *; "
        f"print(evaluate_embeddings(load_embeddings(Path({str(data / 'evaluation_casiab.npz')!r})))); "
        "sys.exit('torch' in sys.modules or 'rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_large_file_is_held_once_while_it_is_read(tmp_path: Path) -> None:
    num = 20_000
    embeddings = Embeddings(
        features=np.random.default_rng(0).normal(size=(num, 16, 32)).astype(np.float32),  # 41 MB
        subjects=np.array([f"{i % 100:03d}" for i in range(num)]),
        views=np.full(num, "000"),
        sequences=np.array([f"{i // 100:03d}" for i in range(num)]),
    )
    save_embeddings(tmp_path / "e.npz", embeddings)
    tracemalloc.start()
    loaded = load_embeddings(tmp_path / "e.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(loaded.features, embeddings.features)
    assert peak < 1.6 * embeddings.features.nbytes


def test_text_as_a_store_has_it_is_written_as_plain_text(tmp_path: Path) -> None:
    part = np.array(["train", "probe"], np.dtypes.StringDType())
    save_embeddings(tmp_path / "e.npz", Embeddings(**ARRAYS, extra={"part": part}))
    with np.load(tmp_path / "e.npz") as file:  # which refuses pickles
        assert file["column_part"].tolist() == ["train", "probe"]
    assert load_embeddings(tmp_path / "e.npz").extra["part"].tolist() == ["train", "probe"]


def test_further_columns_are_kept_selected_and_must_fit(tmp_path: Path) -> None:
    embeddings = Embeddings(**ARRAYS, extra={"camera": np.array([1, 2]), "coat": np.array(["red", "blue"])})
    save_embeddings(tmp_path / "e.npz", embeddings)
    loaded = load_embeddings(tmp_path / "e.npz")
    assert {name: column.tolist() for name, column in loaded.extra.items()} == {
        "camera": [1, 2],
        "coat": ["red", "blue"],
    }
    assert loaded.select(np.array([1])).extra["coat"].tolist() == ["blue"]
    with pytest.raises(AttenGaitError, match=r"camera is \[3\], but must be \[2\], one entry for each of the features"):
        Embeddings(**ARRAYS, extra={"camera": np.arange(3)})
