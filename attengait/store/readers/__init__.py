"""Readers of clips, one for each way that frames can lie.

mapped     uncompressed and local: a clip is a view of the page cache, nothing is copied
chunks     compressed and local: chunks are unpacked in threads, straight into the clips
remote     everything else, by TensorStore: a batch of clips at a time, with all requests on their way at once
resident   frames that are in memory already
joined     several stores
checked    any of these; the checksum of a sequence is checked when it is first read
"""

from attengait.store.layout import FrameLayout
from attengait.store.location import Location
from attengait.store.readers.base import ClipReader
from attengait.store.readers.chunks import ChunkReader
from attengait.store.readers.mapped import MappedReader
from attengait.store.readers.remote import TensorStoreReader


def open_reader(location: Location, layout: FrameLayout) -> ClipReader:
    """The fastest reader for a store's frames."""
    if location.is_remote:
        return TensorStoreReader(location, layout)
    return (MappedReader if layout.codec == "none" else ChunkReader)(location, layout)
