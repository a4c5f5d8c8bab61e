"""Stores of another encoding, of silhouettes alone and with columns of their own are made and kept in the same way."""

import dataclasses
import shutil
from importlib import import_module

import numpy as np
import pytest

from attengait.datasets import DATASETS, casia_b
from attengait.errors import AttenGaitError, ParameterError
from attengait.preprocessing.flow import FlowRecipe
from attengait.preprocessing.run import run_preprocessing
from attengait.preprocessing.silhouette import SilhouetteRecipe
from attengait.store import open_store, summarise
from attengait.store.verify import verify

casia, fakes, walks = map(import_module, ("casia", "store_fakes", "walks"))
Heard = import_module("heard").Heard
config_of, picture = casia.config_of, walks.picture


@pytest.mark.parametrize("encoding", ["uv", "uvm"])
def test_another_encoding_is_stored_with_its_channels_and_scale(walkers, tmp_path, encoding):
    out, recipe = tmp_path / "w.zarr", FlowRecipe(encoding=encoding)
    run_preprocessing(config_of(walkers, out, recipe=recipe))
    store = open_store(out)
    assert store.frame_shape == recipe.frame_shape
    assert (store.attributes["modality"], store.attributes["encoding"]) == ("flow", encoding)
    assert (store.attributes["encoding_steps_per_px"], store.attributes["encoding_offset"]) == (8, 128)
    assert store.attributes["recipe"]["encoding"] == encoding
    summary = summarise(store)
    assert (summary["encoding"], summary["encoding_steps_per_px"]) == (encoding, 8)
    first = casia.find(walkers / "rgb", walkers / "silh").sequences[0]
    with store.reader() as reader:
        (clip,) = reader.read_clips(store.sequences.start[:1], store.sequences.length[:1])
    np.testing.assert_array_equal(clip, recipe.make(first).pictures)
    assert verify(out) == []
    with pytest.raises(ParameterError, match=f"encoding is 'colour', but must be '{encoding}'"):
        run_preprocessing(config_of(walkers, out))


def test_silhouettes_that_changed_since_are_noticed_and_other_frames_do_not_matter(walkers, tmp_path):
    copy, out = tmp_path / "copy", tmp_path / "s.zarr"
    shutil.copytree(walkers, copy)
    changes = {"frames": None, "recipe": SilhouetteRecipe()}
    run_preprocessing(config_of(copy, out, **changes))
    shutil.rmtree(copy / "rgb")
    assert run_preprocessing(config_of(copy, out, **changes)).written.already_finished
    picture(copy, "silh", "001/nm-01/090", 3).unlink()
    with pytest.raises(AttenGaitError, match=r"was made from another input"):
        run_preprocessing(config_of(copy, out, **changes))


def test_silhouettes_stopped_half_way_are_continued_to_the_same_bytes(walkers, tmp_path):
    class Stop(KeyboardInterrupt):
        pass

    def stop(done):
        if any((tmp_path / "stopped.zarr.work" / "records").glob("*.json")):  # a shard is done
            raise Stop

    changes = {"frames": None, "recipe": SilhouetteRecipe()}
    run_preprocessing(config_of(walkers, tmp_path / "whole.zarr", **changes))
    with pytest.raises(Stop):
        run_preprocessing(config_of(walkers, tmp_path / "stopped.zarr", **changes), Heard(stop))
    summary = run_preprocessing(config_of(walkers, tmp_path / "stopped.zarr", **changes))
    assert summary.written.num_shards_reused > 0
    assert fakes.tree(tmp_path / "stopped.zarr") == fakes.tree(tmp_path / "whole.zarr")


def test_a_data_set_may_add_columns_of_its_own(walkers, tmp_path, monkeypatch):
    def scan(folders):
        found = casia_b.scan(folders)
        cameras = (
            dataclasses.replace(s, columns={"camera": f"c{i}", "year": 2000 + i}) for i, s in enumerate(found.sequences)
        )
        return dataclasses.replace(found, sequences=tuple(cameras))

    monkeypatch.setitem(DATASETS, "cameras", dataclasses.replace(DATASETS["casia-b"], scan=scan))
    out = tmp_path / "w.zarr"
    run_preprocessing(config_of(walkers, out, dataset="cameras"))
    store = open_store(out)
    assert store.attributes["columns"] == ["camera", "year"]
    assert store.sequences.extra["camera"].tolist() == ["c0", "c1", "c2"]
    assert store.sequences.columns["year"].tolist() == [2000, 2001, 2002]
    assert verify(out) == []
    # Another camera is another input.
    monkeypatch.setitem(DATASETS, "cameras", DATASETS["casia-b"])
    with pytest.raises(AttenGaitError, match=r"was made from another input"):
        run_preprocessing(config_of(walkers, out, dataset="cameras"))


def test_the_summary_names_the_flow(walkers, tmp_path):
    flow = run_preprocessing(config_of(walkers, tmp_path / "flow.zarr"))
    assert " frames (flow by opencv, " in str(flow)
    silhouettes = config_of(walkers, tmp_path / "silhouettes.zarr", frames=None, recipe=SilhouetteRecipe())
    assert "flow" not in str(run_preprocessing(silhouettes)).splitlines()[0].partition("(")[2]
