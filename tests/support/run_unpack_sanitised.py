"""Runs the unpacking of chunks with sanitizers compiled in, on sound and damaged chunks; prints each step that is done.

All memory is allocated with exactly the size that is needed, so that the next byte is guarded.
"""

import numcodecs.blosc
import numpy as np
from packed_chunks import CONTENTS

from attengait.kernels.chunks import unpack as unpacking
from attengait.kernels.runtime.compile import NATIVE

SANITIZERS = ("-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
NUM_DAMAGED = 3000


def unpack(packed: bytes, num_bytes: int) -> bool:
    held, frames = np.frombuffer(packed, np.uint8).copy(), np.empty(num_bytes, np.uint8)
    library = unpacking._library()
    assert library is not None
    return bool(library.chunks_unpack(held.ctypes.data, len(held), frames.ctypes.data, num_bytes))


def damaged(packed: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, most of them among the sizes, and perhaps the end cut off with a header that says so."""
    data = bytearray(packed)
    for _ in range(rng.integers(1, 5)):
        data[rng.integers(0, min(60, len(data)) if rng.random() < 0.7 else len(data))] = rng.choice([0, 15, 240, 255])
    if rng.random() < 0.3:
        del data[rng.integers(16, len(data)) :]
    if rng.random() < 0.8:
        data[0:2], data[3] = b"\2\1", 1
        data[12:16] = len(data).to_bytes(4, "little")
    return bytes(data)


def main() -> None:
    """Sound chunks, damaged ones, then a step that must be caught."""
    rng = np.random.default_rng(1)
    native = unpacking.FLAGS
    packed = {
        (name, block): bytes(numcodecs.blosc.compress(data[:3000], b"lz4", 5, 0, block))
        for name, data in CONTENTS.items()
        for block in (0, 512)
    }
    for flags in (native, tuple(flag for flag in native if flag != NATIVE)):
        unpacking.FLAGS = (*flags, *SANITIZERS)
        unpacking._library.cache_clear()
        for length in range(600):
            unpacking.crc32c(rng.bytes(length))
        for (name, _), chunk in packed.items():
            assert unpack(chunk, len(CONTENTS[name][:3000]))
        print("sound" if flags == native else "", flush=True)
        refused = 0
        chunks = list(packed.values())
        for i in range(NUM_DAMAGED):
            refused += not unpack(damaged(chunks[i % len(chunks)], rng), 3000)
        assert 0 < refused < NUM_DAMAGED
    print("damaged", flush=True)

    print("overflow", flush=True)
    held, frames = np.frombuffer(chunks[0], np.uint8).copy(), np.empty(2999, np.uint8)
    unpacking._library().chunks_unpack(held.ctypes.data, len(held), frames.ctypes.data, 3000)


main()
