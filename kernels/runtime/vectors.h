// Vectors as wide as the processor's, by the vector extensions that GCC and Clang share.
//
// `Floats` and `Ints` hold LANES elements of four bytes. A comparison gives Ints: -1 where it holds, 0 elsewhere, and
// `mask ? a : b` chooses by lane. What the extensions lack is written for each instruction set, and in plain C++.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif

// For what must be merged into its callers, whatever its size, to keep vectors in registers.
#define INLINE static inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int Ints __attribute__((vector_size(4 * LANES)));

INLINE Floats load(const float* from) {
    Floats values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

INLINE Ints load(const int* from) {
    Ints values;
    std::memcpy(&values, from, sizeof values);
    return values;
}

INLINE void store(float* to, Floats values) { std::memcpy(to, &values, sizeof values); }

typedef std::uint16_t Halves __attribute__((vector_size(2 * LANES)));

// bfloat16, as its 16 bits.
INLINE Floats load(const std::uint16_t* from) {
    Halves halves;
    std::memcpy(&halves, from, sizeof halves);
    return (Floats)(__builtin_convertvector(halves, Ints) << 16);
}

// Rounded to the nearest bfloat16, and to the even one of two.
INLINE void store(std::uint16_t* to, Floats values) {
    const Ints bits = (Ints)values;
    const Ints rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Halves halves = __builtin_convertvector(values == values ? rounded : 0x7fc0 - Ints{}, Halves);
    std::memcpy(to, &halves, sizeof halves);
}

// The same values, kept in a register: it stops the compiler from loading them again at each use.
INLINE Floats kept(Floats values) {
#if defined(__AVX2__)
    asm("" : "+v"(values));
#endif
    return values;
}

INLINE Floats all(float value) { return value - Floats{}; }

INLINE Ints all(int value) { return value - Ints{}; }

INLINE Floats to_floats(Ints values) { return __builtin_convertvector(values, Floats); }

// Toward zero: the floor of what is not negative. Every lane must fit an int.
INLINE Ints to_ints(Floats values) { return __builtin_convertvector(values, Ints); }

INLINE bool any(Ints mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_epi8((__m256i)mask) != 0;
#else
    int found = 0;
    for (int lane = 0; lane < LANES; ++lane) found |= mask[lane];
    return found != 0;
#endif
}

// The elements at `index` modulo 2 * LANES of `low` followed by `high`.
INLINE Floats lookup(Floats low, Floats high, Ints index) {
#if defined(__AVX512F__)
    return (Floats)_mm512_permutex2var_ps((__m512)low, (__m512i)index, (__m512)high);
#elif defined(__AVX2__)
    const __m256 from_low = _mm256_permutevar8x32_ps((__m256)low, (__m256i)index);
    const __m256 from_high = _mm256_permutevar8x32_ps((__m256)high, (__m256i)index);
    return (Floats)_mm256_blendv_ps(from_low, from_high, (__m256)(index << 28));  // the bit worth 8 becomes the sign
#else
    float both[2 * LANES];
    store(both, low);
    store(both + LANES, high);
    Floats found{};
    for (int lane = 0; lane < LANES; ++lane) found[lane] = both[index[lane] & (2 * LANES - 1)];
    return found;
#endif
}
