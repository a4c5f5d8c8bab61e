// One LZ4 block to bytes whose number is known, for input that may say anything.
//
// No byte outside [from, from + from_bytes) is read and none outside [to, to + to_bytes) is written, whatever the block
// says. What is accepted, the reference decoder accepts with the same result; where the two could differ (an offset of
// zero, matches that reach into the last bytes), this one refuses.
//
// Most sequences have few literals and a short match. So both are copied as 16 bytes, whatever their length, and what was
// too much is overwritten by the next; only the lengths that do not fit, which are rare, cost a branch that is guessed
// wrong.
//
// Source: the LZ4 block format, github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSSE3__)
#include <tmmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace lz4 {

using Byte = std::uint8_t;

constexpr std::size_t MIN_MATCH = 4;
constexpr std::size_t LAST_LITERALS = 5;  // bytes at the end that no match may reach
constexpr std::size_t MATCH_LIMIT = 12;   // bytes at the end in which no match may begin
constexpr std::size_t WIDE = 16;          // bytes that are copied at a time
constexpr std::size_t MARGIN = 2 * WIDE;  // what must be left of input and output for copies that are too long

// `indices[n]` repeats the first n of 16 bytes; `indices[16]` leaves them as they are.
struct Repeats {
    alignas(WIDE) Byte indices[WIDE + 1][WIDE];

    constexpr Repeats() : indices() {
        for (std::size_t period = 1; period <= WIDE; ++period) {
            for (std::size_t i = 0; i < WIDE; ++i) indices[period][i] = static_cast<Byte>(i % period);
        }
    }
};

inline constexpr Repeats REPEATS;

inline void copy_wide(Byte* to, const Byte* from) {
    Byte bytes[WIDE];
    std::memcpy(bytes, from, WIDE);
    std::memcpy(to, bytes, WIDE);
}

// Write 16 bytes of what begins `offset` bytes before `to` and goes on with what is written.
inline void repeat_wide(Byte* to, std::size_t offset) {
    const Byte* indices = REPEATS.indices[offset < WIDE ? offset : WIDE];
#if defined(__SSSE3__)
    const __m128i found = _mm_loadu_si128(reinterpret_cast<const __m128i*>(to - offset));
    const __m128i order = _mm_load_si128(reinterpret_cast<const __m128i*>(indices));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_shuffle_epi8(found, order));
#elif defined(__aarch64__)
    vst1q_u8(to, vqtbl1q_u8(vld1q_u8(to - offset), vld1q_u8(indices)));
#else
    Byte found[WIDE];
    std::memcpy(found, to - offset, WIDE);
    for (std::size_t i = 0; i < WIDE; ++i) to[i] = found[indices[i]];
#endif
}

// Add the bytes that follow a length that did not fit its four bits. False where the input ends before.
inline bool read_length(const Byte*& from, const Byte* end, std::size_t& length) {
    Byte more;
    do {
        if (from >= end) return false;
        more = *from++;
        length += more;
    } while (more == 255);
    return true;
}

// Copy a match of any length that ends before `end`.
inline void copy_match(Byte* to, std::size_t offset, std::size_t length, const Byte* end) {
    if (static_cast<std::size_t>(end - to) >= length + WIDE) {
        // As many bytes as are a whole number of repeats can be copied at a time.
        const std::size_t step = offset < WIDE ? WIDE - WIDE % offset : WIDE;
        for (std::size_t done = 0; done < length; done += step) repeat_wide(to + done, offset);
        return;
    }
    for (std::size_t i = 0; i < length; ++i) to[i] = to[i - offset];
}

// A block that is being decoded.
struct Block {
    const Byte* from;
    const Byte* from_end;
    Byte* to;
    Byte* to_begin;
    Byte* to_end;

    Block(const Byte* from, std::size_t from_bytes, Byte* to, std::size_t to_bytes)
        : from(from), from_end(from + from_bytes), to(to), to_begin(to), to_end(to + to_bytes) {}

    std::size_t left() const { return static_cast<std::size_t>(from_end - from); }
    std::size_t room() const { return static_cast<std::size_t>(to_end - to); }
    bool has_written(std::size_t offset) const { return offset - 1 < static_cast<std::size_t>(to - to_begin); }
};

inline std::size_t read_offset(const Byte* from) { return from[0] | from[1] << 8; }

// Decode a sequence as most are; false, with nothing done, for any other.
inline __attribute__((always_inline)) bool decode_short(Block& block) {
    if (block.left() < MARGIN || block.room() < 2 * MARGIN) return false;
    const std::size_t token = *block.from, num_literals = token >> 4, length = (token & 15) + MIN_MATCH;
    if (num_literals == 15 || length > WIDE) return false;
    copy_wide(block.to, block.from + 1);
    const std::size_t offset = read_offset(block.from + 1 + num_literals);
    Byte* const to = block.to + num_literals;
    if (offset - 1 >= static_cast<std::size_t>(to - block.to_begin)) return false;
    repeat_wide(to, offset);
    block.from += 1 + num_literals + 2;
    block.to = to + length;
    return true;
}

enum class Found { MORE, END, DAMAGE };

// Decode a sequence of any kind.
inline Found decode_any(Block& block) {
    if (!block.left()) return Found::DAMAGE;
    std::size_t num_literals = *block.from >> 4, length = *block.from & 15;
    ++block.from;
    if (num_literals == 15 && !read_length(block.from, block.from_end, num_literals)) return Found::DAMAGE;
    if (num_literals > block.left() || num_literals > block.room()) return Found::DAMAGE;
    std::memcpy(block.to, block.from, num_literals);
    block.from += num_literals;
    block.to += num_literals;
    if (!block.left() && !block.room()) return Found::END;
    if (block.left() < 2 + 1 + LAST_LITERALS || block.room() < MATCH_LIMIT) return Found::DAMAGE;
    const std::size_t offset = read_offset(block.from);
    block.from += 2;
    if (!block.has_written(offset)) return Found::DAMAGE;
    if (length == 15 && !read_length(block.from, block.from_end, length)) return Found::DAMAGE;
    length += MIN_MATCH;
    if (length > block.room() - LAST_LITERALS) return Found::DAMAGE;
    copy_match(block.to, offset, length, block.to_end);
    block.to += length;
    return Found::MORE;
}

// Decode up to the end; whether all was read and exactly as many bytes written as there was room for.
inline bool decode(Block& block) {
    for (;;) {
        while (decode_short(block)) {
        }
        const Found found = decode_any(block);
        if (found != Found::MORE) return found == Found::END;
    }
}

}  // namespace lz4
