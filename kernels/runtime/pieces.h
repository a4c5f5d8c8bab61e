// Maps of features in the network's precision, taken 8 features at a time, and computed with in float32.
//
// FORMAT says what lies in memory: 0 float32, 1 bfloat16, 2 float16. Features must be a multiple of PIECE.

#pragma once

#include "device.h"

#define PIECE 8

// float16, as its 16 bits, to float and back: to the nearest, and to the even one of two.
#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
__device__ __forceinline__ unsigned short float_to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#else
inline float half_to_float(unsigned short bits) {
    const unsigned sign = unsigned(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    const float size = exponent == 0    ? std::ldexp(float(fraction), -24)
                       : exponent == 31 ? __uint_as_float(0x7f800000u | fraction << 13)
                                        : __uint_as_float((exponent + 112) << 23 | fraction << 13);
    return __uint_as_float(__float_as_uint(size) | sign);
}
inline unsigned short float_to_half(float value) {
    const unsigned bits = __float_as_uint(value), sign = bits >> 16 & 0x8000;
    const float size = std::fabs(value);
    if (!(size == size)) return (unsigned short)(sign | 0x7e00);
    if (size >= 65520.0f) return (unsigned short)(sign | 0x7c00);
    // Rounded to a multiple of the distance between neighbours; below 2^-14 that is 2^-24.
    const int exponent = size < 6.103515625e-5f ? -24 : std::ilogb(size) - 10;
    const unsigned steps = unsigned(std::nearbyint(std::ldexp(size, -exponent)));
    return (
        unsigned short)(sign |
                        (exponent == -24 && size < 6.103515625e-5f ? steps : unsigned(exponent + 24) * 1024 + steps));
}
#endif

// 8 features as they lie in memory; loaded and stored 16 bytes at once.
struct alignas(16) Words {
    unsigned word[4];
};
struct Piece {
    Words words[FORMAT == 0 ? 2 : 1];
};

__device__ __forceinline__ float to_float(unsigned short bits) {
    return FORMAT == 2 ? half_to_float(bits) : __uint_as_float(unsigned(bits) << 16);
}

// To the nearest, and to the even one of two.
__device__ __forceinline__ unsigned round_to_16_bits(float value) {
    if (FORMAT == 2) return float_to_half(value);
    const unsigned bits = __float_as_uint(value);
    return value == value ? (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16 : 0x7fc0u;
}

__device__ __forceinline__ void load_piece(const Piece* from, float (&values)[PIECE]) {
    const Piece piece = *from;
    for (int i = 0; i < PIECE; ++i) {
#if FORMAT == 0
        values[i] = __uint_as_float(piece.words[i / 4].word[i % 4]);
#else
        values[i] = to_float((unsigned short)(piece.words[0].word[i / 2] >> i % 2 * 16));
#endif
    }
}

__device__ __forceinline__ void store_piece(Piece* to, const float (&values)[PIECE]) {
    Piece piece;
#if FORMAT == 0
    for (int i = 0; i < PIECE; ++i) piece.words[i / 4].word[i % 4] = __float_as_uint(values[i]);
#else
    for (int i = 0; i < PIECE; i += 2) {
        piece.words[0].word[i / 2] = round_to_16_bits(values[i]) | round_to_16_bits(values[i + 1]) << 16;
    }
#endif
    *to = piece;
}
