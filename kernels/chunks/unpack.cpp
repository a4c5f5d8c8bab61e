// Clips out of the shards of an lz4 store: read, checked, and unpacked, many in one call.
//
// What is not plainly sound is not judged here: its clip is reported as not done, and whoever called reads that one again
// with the usual libraries, which say what is wrong. So nothing here needs to know more of Blosc than what stores are
// written with: lz4, bytes that are not shuffled, elements of one byte.
//
// Source: the Blosc header, github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst.

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "crc32c.h"
#include "lz4.h"

namespace {

using Byte = std::uint8_t;

constexpr std::uint64_t ABSENT = ~std::uint64_t{0};
constexpr std::size_t CRC_BYTES = 4;
constexpr std::size_t HEADER_BYTES = 16;
constexpr Byte STORED = 0x02, UNSPLIT = 0x10, LZ4 = 0x20;  // flags of Blosc

std::uint32_t read_u32(const Byte* from) {
    std::uint32_t value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

// Whether a Blosc buffer holds exactly `num_bytes` of lz4, and they are at `to` now.
bool unpack(const Byte* packed, std::size_t packed_bytes, Byte* to, std::size_t num_bytes) {
    if (packed_bytes < HEADER_BYTES || packed[0] != 2 || packed[1] != 1 || packed[3] != 1) return false;
    if ((packed[2] & ~(STORED | UNSPLIT)) != LZ4) return false;
    const std::size_t block_bytes = read_u32(packed + 8);
    if (read_u32(packed + 4) != num_bytes || read_u32(packed + 12) != packed_bytes) return false;
    if (!block_bytes || block_bytes > num_bytes) return false;
    if (packed[2] & STORED) {
        if (packed_bytes != HEADER_BYTES + num_bytes) return false;
        std::memcpy(to, packed + HEADER_BYTES, num_bytes);
        return true;
    }
    const std::size_t num_blocks = (num_bytes + block_bytes - 1) / block_bytes;
    if ((packed_bytes - HEADER_BYTES) / 4 < num_blocks) return false;
    for (std::size_t block = 0; block < num_blocks; ++block) {
        const std::size_t begin = read_u32(packed + HEADER_BYTES + 4 * block);
        if (begin > packed_bytes || packed_bytes - begin < 4) return false;
        const std::size_t in_block = read_u32(packed + begin), out_of_block = block * block_bytes;
        if (in_block > packed_bytes - begin - 4) return false;
        const std::size_t size = std::min(block_bytes, num_bytes - out_of_block);
        if (in_block == size) {
            std::memcpy(to + out_of_block, packed + begin + 4, size);
            continue;
        }
        lz4::Block found(packed + begin + 4, in_block, to + out_of_block, size);
        if (!lz4::decode(found)) return false;
    }
    return true;
}

struct Shape {
    std::size_t chunk_frames, frame_bytes, max_packed_bytes;
};

// As Python gives it: eight bytes each.
struct Clip {
    std::int64_t file;           // its descriptor
    const std::uint64_t* index;  // of its shard: offset and size of each chunk
    std::int64_t first, num_frames;
    Byte* frames;
};

// Whether a chunk of a shard, with its checksum, was read and unpacked to `to`; `packed` is room for it.
bool read_chunk(const Clip& clip, std::size_t chunk, const Shape& shape, Byte* packed, Byte* to) {
    const std::uint64_t offset = clip.index[2 * chunk], num_bytes = clip.index[2 * chunk + 1];
    if (offset == ABSENT || num_bytes == ABSENT) {
        std::memset(to, 0, shape.chunk_frames * shape.frame_bytes);
        return true;
    }
    if (num_bytes < CRC_BYTES || num_bytes > shape.max_packed_bytes) return false;
    const auto found = pread(static_cast<int>(clip.file), packed, num_bytes, static_cast<off_t>(offset));
    if (found < 0 || static_cast<std::uint64_t>(found) != num_bytes) return false;
    const std::size_t packed_bytes = num_bytes - CRC_BYTES;
    if (crc32c::of(packed, packed_bytes) != read_u32(packed + packed_bytes)) return false;
    return unpack(packed, packed_bytes, to, shape.chunk_frames * shape.frame_bytes);
}

bool read_clip(const Clip& clip, const Shape& shape, Byte* packed, Byte* unpacked) {
    const std::size_t first = static_cast<std::size_t>(clip.first);
    const std::size_t stop = first + static_cast<std::size_t>(clip.num_frames);
    for (std::size_t chunk = first / shape.chunk_frames; chunk * shape.chunk_frames < stop; ++chunk) {
        const std::size_t begin = chunk * shape.chunk_frames, end = begin + shape.chunk_frames;
        const std::size_t from = std::max(begin, first), until = std::min(end, stop);
        Byte* const place = clip.frames + (from - first) * shape.frame_bytes;
        const bool is_whole = from == begin && until == end;
        if (!read_chunk(clip, chunk, shape, packed, is_whole ? place : unpacked)) return false;
        if (!is_whole) {
            std::memcpy(place, unpacked + (from - begin) * shape.frame_bytes, (until - from) * shape.frame_bytes);
        }
    }
    return true;
}

}  // namespace

extern "C" {

// Read `num_clips` clips; `is_done` says which could be.
void chunks_read(const Clip* clips, std::size_t num_clips, std::size_t chunk_frames, std::size_t frame_bytes,
                 std::size_t max_packed_bytes, Byte* is_done) {
    const Shape shape{chunk_frames, frame_bytes, max_packed_bytes};
    const std::unique_ptr<Byte[]> packed(new (std::nothrow) Byte[max_packed_bytes]);
    const std::unique_ptr<Byte[]> unpacked(new (std::nothrow) Byte[chunk_frames * frame_bytes]);
    for (std::size_t i = 0; i < num_clips; ++i) {
        is_done[i] = packed && unpacked && read_clip(clips[i], shape, packed.get(), unpacked.get());
    }
}

// For tests: a chunk that is in memory, without a checksum.
int chunks_unpack(const Byte* packed, std::size_t packed_bytes, Byte* to, std::size_t num_bytes) {
    return unpack(packed, packed_bytes, to, num_bytes);
}

std::uint32_t chunks_crc32c(const Byte* data, std::size_t num_bytes) { return crc32c::of(data, num_bytes); }
}
