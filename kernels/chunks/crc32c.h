// CRC-32C, the checksum of chunks: folded by carry-less products where the processor has them, and otherwise by its
// instruction for this checksum, or by a table.
//
// Folding: a message of many bytes is replaced by a shorter one with the same checksum. What stands D bits before its
// place is worth x^D there; modulo the polynomial, that is a product with a constant. When less than two strides are
// left, the instruction does the rest.
//
// Source: RFC 3720, appendix B.4 (the polynomial); V. Gopal et al., Fast CRC Computation for Generic Polynomials Using
// PCLMULQDQ Instruction (Intel, 2009).

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE4_2__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

namespace crc32c {

using Byte = std::uint8_t;

constexpr std::uint32_t POLYNOMIAL = 0x82f63b78u;  // the highest power in the lowest bit

// A sum after one more bit: times x, modulo the polynomial.
constexpr std::uint32_t times_x(std::uint32_t sum) { return sum >> 1 ^ (sum & 1 ? POLYNOMIAL : 0u); }

inline std::uint64_t eight_at(const Byte* data) {
    std::uint64_t eight;
    std::memcpy(&eight, data, sizeof eight);
    return eight;
}

// A sum after eight more bytes, the first in the lowest bits.
inline std::uint32_t add(std::uint32_t sum, std::uint64_t eight) {
#if defined(__SSE4_2__)
    return static_cast<std::uint32_t>(_mm_crc32_u64(sum, eight));
#elif defined(__ARM_FEATURE_CRC32)
    return __crc32cd(sum, eight);
#else
    static const auto table = [] {
        std::array<std::uint32_t, 256> made{};
        for (std::uint32_t byte = 0; byte < 256; ++byte) {
            made[byte] = byte;
            for (int bit = 0; bit < 8; ++bit) made[byte] = times_x(made[byte]);
        }
        return made;
    }();
    for (int i = 0; i < 8; ++i, eight >>= 8) sum = sum >> 8 ^ table[(sum ^ eight) & 255];
    return sum;
#endif
}

inline std::uint32_t add(std::uint32_t sum, const Byte* data, std::size_t num_bytes) {
    for (; num_bytes >= 8; data += 8, num_bytes -= 8) sum = add(sum, eight_at(data));
    for (; num_bytes; ++data, --num_bytes) {
        sum ^= *data;
        for (int bit = 0; bit < 8; ++bit) sum = times_x(sum);
    }
    return sum;
}

#if defined(__SSE4_2__) && defined(__PCLMUL__)

#if defined(__AVX512F__) && defined(__VPCLMULQDQ__)
using Wide = __m512i;
inline Wide xor_of(Wide a, Wide b) { return _mm512_xor_si512(a, b); }
template <int WHICH>
inline Wide product(Wide a, Wide b) {
    return _mm512_clmulepi64_epi128(a, b, WHICH);
}
#else
using Wide = __m128i;
inline Wide xor_of(Wide a, Wide b) { return _mm_xor_si128(a, b); }
template <int WHICH>
inline Wide product(Wide a, Wide b) {
    return _mm_clmulepi64_si128(a, b, WHICH);
}
#endif

constexpr std::size_t LANES = 4;  // of Wide, to keep the multiplier busy
constexpr std::size_t STRIDE = LANES * sizeof(Wide);

// x^power modulo the polynomial, the highest of 64 powers in the lowest bit.
inline std::uint64_t power_of_x(std::size_t power) {
    std::uint32_t sum = 0x80000000u;
    for (std::size_t i = 0; i < power; ++i) sum = times_x(sum);
    return std::uint64_t{sum} << 32;
}

// Replace all whole strides but the last by a message of one stride that takes its place.
inline void fold(Byte (&message)[STRIDE], const Byte* data, std::size_t num_strides) {
    // A product of two numbers in this order of bits has one power of x too many.
    static const auto factors = [] {
        std::array<std::uint64_t, sizeof(Wide) / 8> made{};
        for (std::size_t i = 0; i < made.size(); i += 2) {
            made[i] = power_of_x(8 * STRIDE + 63);
            made[i + 1] = power_of_x(8 * STRIDE - 1);
        }
        return made;
    }();
    Wide by, lanes[LANES];
    std::memcpy(&by, factors.data(), sizeof by);
    std::memcpy(lanes, message, STRIDE);
    for (std::size_t stride = 0; stride < num_strides; ++stride) {
        Wide next[LANES];
        std::memcpy(next, data + stride * STRIDE, STRIDE);
        for (std::size_t i = 0; i < LANES; ++i) {
            lanes[i] = xor_of(next[i], xor_of(product<0x00>(lanes[i], by), product<0x11>(lanes[i], by)));
        }
    }
    std::memcpy(message, lanes, STRIDE);
}

inline std::uint32_t of(const Byte* data, std::size_t num_bytes) {
    const std::size_t num_strides = num_bytes / STRIDE;
    if (num_strides < 2) return ~add(~0u, data, num_bytes);
    Byte message[STRIDE];
    std::memcpy(message, data, STRIDE);
    for (int i = 0; i < 4; ++i) message[i] ^= 0xff;  // the sum that every message begins with
    fold(message, data + STRIDE, num_strides - 1);
    return ~add(add(0, message, STRIDE), data + num_strides * STRIDE, num_bytes % STRIDE);
}

#else

inline std::uint32_t of(const Byte* data, std::size_t num_bytes) { return ~add(~0u, data, num_bytes); }

#endif

}  // namespace crc32c
