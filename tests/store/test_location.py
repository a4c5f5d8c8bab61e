"""What a URL or a path means: names, tensorstore's specifications, and plain files."""

import os
import pickle
from pathlib import Path

import pytest

from attengait.errors import AttenGaitError, ParameterError
from attengait.store import location
from attengait.store.location import Location


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch, tmp_path):
    """An environment that says nothing of AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(location, "VENDOR", tmp_path / "sys_vendor")


def spec_of(where):
    """The specification without its retries."""
    spec = Location.parse(where).kvstore()
    context = spec.pop("context")
    assert list(context) == [f"{spec['driver']}_request_retries"]
    return spec


@pytest.mark.parametrize(
    ("where", "shown", "name", "parent"),
    [
        ("s3://bucket/gait/w.zarr/", "s3://bucket/gait/w.zarr", "w.zarr", "s3://bucket/gait"),
        ("S3://bucket/w.zarr", "s3://bucket/w.zarr", "w.zarr", "s3://bucket"),
        ("gs://bucket/w.zarr", "gs://bucket/w.zarr", "w.zarr", "gs://bucket"),
        ("https://host:81/a%20b/w.zarr/?token=x#y", "https://host:81/a%20b/w.zarr", "w.zarr", "https://host:81/a%20b"),
        ("http://some:se@cret@host/w.zarr", "http://host/w.zarr", "w.zarr", "http://host"),
        ("http://host/a@b/w.zarr", "http://host/a@b/w.zarr", "w.zarr", "http://host/a@b"),
        ("folder/w.zarr/", "folder/w.zarr", "w.zarr", "folder"),
        ("c:/w.zarr", "c:/w.zarr", "w.zarr", "c:"),
        (".", ".", "", "."),
        (Path("/data/w.zarr"), "/data/w.zarr", "w.zarr", "/data"),
    ],
)
def test_a_place_has_a_text_a_name_and_a_parent(where, shown, name, parent):
    place = Location.parse(where)
    assert (str(place), place.name, str(place.parent)) == (shown, name, parent)
    assert place.path == (None if "://" in str(where) else Path(where))
    assert pickle.loads(pickle.dumps(place)) == place == Location.parse(place)


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("ftp://host/w.zarr", "^the scheme of ftp://host/w.zarr is 'ftp', but must be one of s3, gs, http"),
        ("file:///w.zarr", "is 'file', but must be one of .* .a path has none"),
        ("s3://", "the URL is s3://, but must name a bucket"),
        ("s3:///w.zarr", "the URL is s3:///w.zarr, but must name a bucket"),
        ("http:///w.zarr", "but must name a host"),
        ("http://some:secret@/w.zarr", "the URL is http:///w.zarr, but must name a host"),
        (Path("s3://bucket/w.zarr"), "is a path, but must be a str, because it is a URL"),
    ],
)
def test_other_urls_are_refused(where, sentence):
    with pytest.raises(ParameterError, match=sentence):
        Location.parse(where)


def test_a_bucket_alone_has_no_name():
    assert [Location.parse(url).name for url in ("s3://bucket", "gs://bucket/", "http://host")] == ["", "", ""]


def test_a_folder_is_a_file_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Location.parse("w.zarr").kvstore() == {"driver": "file", "path": f"{tmp_path}/w.zarr/"}


def test_http_keeps_its_query_behind_the_path():
    url = "https://host/w.zarr"
    assert spec_of(f"{url}?token=x") == {"driver": "http", "base_url": f"{url}/?token=x"}
    assert (Location.parse(f"{url}?token=x") / "frames").kvstore()["base_url"] == f"{url}/frames/?token=x"
    assert spec_of("http://host") == {"driver": "http", "base_url": "http://host/"}


def test_a_login_is_for_the_server_alone():
    place = Location.parse("https://some:secret@host:81/gait/w.zarr?token=secret")
    assert place.parent.kvstore()["base_url"] == "https://some:secret@host:81/gait/?token=secret"
    assert "secret" not in f"{place} {place!r} {place / 'frames'} {place.parent}"


def test_google_takes_bucket_and_path():
    assert spec_of("gs://bucket/gait/w.zarr") == {"driver": "gcs", "bucket": "bucket", "path": "gait/w.zarr/"}


def test_s3_without_any_settings_is_anonymous_and_finds_the_region_itself():
    wanted = {"driver": "s3", "bucket": "bucket", "path": "w.zarr/", "aws_credentials": {"type": "anonymous"}}
    assert spec_of("s3://bucket/w.zarr") == wanted
    assert spec_of("s3://bucket")["path"] == ""


def test_s3_takes_endpoint_and_region_from_the_environment(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000/")
    assert (spec_of("s3://bucket")["endpoint"], spec_of("s3://bucket")["aws_region"]) == (
        "http://minio:9000",
        "us-east-1",
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://ceph")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-3")
    assert (spec_of("s3://bucket")["endpoint"], spec_of("s3://bucket")["aws_region"]) == ("http://ceph", "eu-west-3")
    monkeypatch.setenv("AWS_REGION", "cn-north-1")
    assert spec_of("s3://bucket")["aws_region"] == "cn-north-1"


def test_s3_looks_for_credentials_where_there_may_be_some(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    assert spec_of("s3://bucket")["aws_credentials"] == {"type": "anonymous"}
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    assert spec_of("s3://bucket")["aws_credentials"] == {"type": "environment"}
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (tmp_path / "sys_vendor").write_text("QEMU\n")
    assert "aws_credentials" in spec_of("s3://bucket")
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert "aws_credentials" not in spec_of("s3://bucket")  # tensorstore's default, AWS's chain
    (tmp_path / "sys_vendor").unlink()
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text("[default]\n")
    assert "aws_credentials" not in spec_of("s3://bucket")


def test_files_are_read_whole_or_in_part(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    place = Location.parse(tmp_path)
    parts = [None, (2, 5), (-3, None), (8, 20), (-20, None), (20, 30)]
    assert [place.read("file", part) for part in parts] == [
        b"0123456789",
        b"234",
        b"789",
        b"89",
        b"0123456789",
        b"",
    ]
    assert [place.read("missing"), place.read("file/below")] == [None, None]
    assert place.has([("file", 10), ("file", 9), ("missing", 1)]) == [True, False, False]
    with pytest.raises(AttenGaitError, match="it is a folder, not a file"):
        place.parent.read(tmp_path.name)
