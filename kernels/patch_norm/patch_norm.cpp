// Swish, 2 x 2 max pooling, patch attention and LayerNorm of maps in one pass, forward and backward, for a CPU.
//
// The mathematics is in attengait/model/patch_norm.py. Every map is read once and written once; all else stays in
// registers and in the nearest cache. Compiled once for each number of FEATURES, which must divide LANES or be a
// multiple of it.
//
// z is [frames][height][width][FEATURES], or [frames][2 height][2 width][FEATURES] where it is pooled; y and dy are
// [frames][height][width][FEATURES]. Maps are float, or bfloat16 as its 16 bits. A row of y, width * FEATURES, must be a
// multiple of LANES.
//
// The frames are cut into slices. A slice is worked on by one thread and has its own sums, so no sum depends on the
// number of threads.

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "vectors.h"

namespace {

constexpr float EPS = 1e-6f;
constexpr int VECTORS = FEATURES > LANES ? FEATURES / LANES : 1;  // that hold one group of pixels
constexpr int SPAN = VECTORS * LANES;                             // elements of a group
constexpr int PIXELS = SPAN / FEATURES;                           // pixels of a group
constexpr int TOGETHER = FEATURES < LANES ? FEATURES : LANES;     // lanes of a vector that belong to one pixel
static_assert(SPAN % FEATURES == 0 && LANES % TOGETHER == 0, "FEATURES must fit the vectors");

struct Maps {
    std::ptrdiff_t frames, height, width;  // of y
    std::ptrdiff_t slices;
    int threads;
};

INLINE Floats square_root(Floats values) {
#if defined(__AVX512F__)
    return (Floats)_mm512_sqrt_ps((__m512)values);
#elif defined(__AVX2__)
    return (Floats)_mm256_sqrt_ps((__m256)values);
#else
    for (int lane = 0; lane < LANES; ++lane) values[lane] = std::sqrt(values[lane]);
    return values;
#endif
}

// 1 / (1 + exp(-x)), within some units in the last place; NaN stays NaN.
INLINE Floats sigmoid(Floats x) {
    const Floats low = all(-87.0f), high = all(87.0f), magic = all(12582912.0f);  // 1.5 * 2^23 rounds to a whole number
    x = x < low ? low : x;
    x = x > high ? high : x;
    const Floats shifted = x * -1.44269504f + magic;
    const Floats whole = shifted - magic;
    const Floats rest = (-x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Floats series = rest * 1.98756912e-4f + 1.39819994e-3f;  // of exp(rest), as in Cephes
    series = series * rest + 8.33345205e-3f;
    series = series * rest + 4.16657962e-2f;
    series = series * rest + 1.66666655e-1f;
    series = series * rest + 0.5f;
    series = series * rest * rest + rest + 1.0f;
    const Ints exponent = ((Ints)shifted - 0x4b400000 + 127) << 23;
    return 1.0f / (series * (Floats)exponent + 1.0f);
}

INLINE Ints lanes() {
    Ints numbers{};
    for (int lane = 0; lane < LANES; ++lane) numbers[lane] = lane;
    return numbers;
}

// In every lane, the sum over the lanes of its pixel.
INLINE Floats sum_together(Floats values) {
#pragma GCC unroll 4
    for (int step = 1; step < TOGETHER; step *= 2) values += lookup(values, values, lanes() ^ step);
    return values;
}

// A map's element z of one group of pixels of y, and what the forward pass makes of it.
struct Group {
    Floats z[VECTORS];     // where pooled: those that won
    Floats gate[VECTORS];  // sigmoid(z)
    Floats x[VECTORS];     // swish(z)
    Ints winner[VECTORS];  // 0 to 3, where pooled
};

// Of pixels side by side in a row of z, the even or the odd ones: lanes of low and high.
INLINE Ints every_second(int odd) {
    const Ints lane = lanes();
    return (lane / TOGETHER * 2 + odd) * TOGETHER + lane % TOGETHER;
}

template <class T>
INLINE void load_group(const T* z, Group& group) {
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) {
        group.z[v] = load(z + v * LANES);
        group.gate[v] = sigmoid(group.z[v]);
        group.x[v] = group.z[v] * group.gate[v];
    }
}

// Candidate k of vector v: the pixel at row k / 2 and column k % 2 of a pooling window. `row` is in elements.
template <class T>
INLINE Floats candidate(const T* z, std::ptrdiff_t row, int v, int k) {
    const T* from = z + k / 2 * row;
    if (FEATURES >= LANES) return load(from + k % 2 * FEATURES + v * LANES);
    return lookup(load(from), load(from + LANES), every_second(k % 2));
}

template <class T>
INLINE void load_pooled(const T* z, std::ptrdiff_t row, Group& group) {
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) {
        Floats z_won = candidate(z, row, v, 0), gate_won = sigmoid(z_won), won = z_won * gate_won;
        Ints winner{};
#pragma GCC unroll 3
        for (int k = 1; k < 4; ++k) {
            const Floats other = candidate(z, row, v, k), gate = sigmoid(other), x = other * gate;
            const Ints wins = (x > won) | (x != x);  // of equals, the first; NaN wins
            won = wins ? x : won;
            z_won = wins ? other : z_won;
            gate_won = wins ? gate : gate_won;
            winner = wins ? all(k) : winner;
        }
        group.z[v] = z_won;
        group.gate[v] = gate_won;
        group.x[v] = won;
        group.winner[v] = winner;
    }
}

// The attention of a group's pixels, in each pixel's lanes.
INLINE Floats attention(const float* a) {
    if (PIXELS == 1) return all(*a);
    Floats values{};
    for (int pixel = 0; pixel < PIXELS; ++pixel) values[pixel] = a[pixel];
    return lookup(values, values, lanes() / TOGETHER);
}

// x becomes q = (x - mean) s; returns s.
INLINE Floats normalise(Floats* x, Floats a) {
    Floats sum{}, squares{};
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) sum += x[v];
    const Floats mean = sum_together(sum) * (1.0f / FEATURES);
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) {
        x[v] -= mean;
        squares += x[v] * x[v];
    }
    const Floats variance = sum_together(squares) * (1.0f / FEATURES);
    const Floats s = 1.0f / square_root(a * a * variance + EPS);
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) x[v] *= s;
    return s;
}

// Element v of what is given for each feature: the same in every pixel of a group.
INLINE Floats per_feature(const float* values, int v) {
    if (FEATURES >= LANES) return load(values + v * LANES);
    Floats repeated{};
    for (int lane = 0; lane < LANES; ++lane) repeated[lane] = values[lane % FEATURES];
    return repeated;
}

template <class T, bool POOLED>
INLINE const T* place(const T* z, const Maps& maps, std::ptrdiff_t frame, std::ptrdiff_t row) {
    return POOLED ? z + (frame * maps.height + row) * 4 * maps.width * FEATURES
                  : z + (frame * maps.height + row) * maps.width * FEATURES;
}

template <class T, bool POOLED>
void forward_frames(const T* z, const float* a, const float* gain, const float* bias, T* y, const Maps& maps,
                    std::ptrdiff_t first, std::ptrdiff_t last) {
    Floats gains[VECTORS], biases[VECTORS];
    for (int v = 0; v < VECTORS; ++v) gains[v] = per_feature(gain, v), biases[v] = per_feature(bias, v);
    for (std::ptrdiff_t frame = first; frame < last; ++frame) {
        for (std::ptrdiff_t row = 0; row < maps.height; ++row) {
            const T* from = place<T, POOLED>(z, maps, frame, row);
            T* to = y + (frame * maps.height + row) * maps.width * FEATURES;
            for (std::ptrdiff_t column = 0; column < maps.width; column += PIXELS) {
                Group group;
                if (POOLED) {
                    load_pooled(from + column * 2 * FEATURES, 2 * maps.width * FEATURES, group);
                } else {
                    load_group(from + column * FEATURES, group);
                }
                const Floats scale = attention(a + row * maps.width + column);
                normalise(group.x, scale);
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v) {
                    store(to + column * FEATURES + v * LANES, group.x[v] * (scale * gains[v]) + biases[v]);
                }
            }
        }
    }
}

// The sums of one slice: da [height][width], and dgain and dbias [FEATURES].
template <class T, bool POOLED>
void backward_frames(const T* dy, const T* z, const float* a, const float* gain, T* dz, float* da, float* dgain,
                     float* dbias, const Maps& maps, std::ptrdiff_t first, std::ptrdiff_t last) {
    Floats gains[VECTORS];
    double sums[2][SPAN] = {};
    for (int v = 0; v < VECTORS; ++v) gains[v] = per_feature(gain, v);
    for (std::ptrdiff_t frame = first; frame < last; ++frame) {
        for (std::ptrdiff_t row = 0; row < maps.height; ++row) {
            const std::ptrdiff_t start = (frame * maps.height + row) * maps.width * FEATURES;
            const T* from = place<T, POOLED>(z, maps, frame, row);
            T* to = dz + (from - z);
            Floats sum_d[VECTORS] = {}, sum_adq[VECTORS] = {};  // of a row
            for (std::ptrdiff_t column = 0; column < maps.width; column += PIXELS) {
                Group group;
                const std::ptrdiff_t z_row = 2 * maps.width * FEATURES, z_column = (POOLED ? 2 : 1) * column * FEATURES;
                if (POOLED) {
                    load_pooled(from + z_column, z_row, group);
                } else {
                    load_group(from + z_column, group);
                }
                const Floats scale = attention(a + row * maps.width + column);
                const Floats s = normalise(group.x, scale);  // x is now q
                Floats g[VECTORS], total_g{}, total_gq{};    // G / a, and sums over features
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v) {
                    const Floats d = load(dy + start + column * FEATURES + v * LANES), dq = d * group.x[v];
                    g[v] = d * gains[v];
                    total_g += g[v];
                    total_gq += g[v] * group.x[v];
                    sum_d[v] += d;
                    sum_adq[v] += scale * dq;
                }
                total_g = sum_together(total_g);
                total_gq = sum_together(total_gq);
                const Floats of_attention = total_gq * s * s * EPS;
                for (int pixel = 0; pixel < PIXELS; ++pixel) {
                    da[row * maps.width + column + pixel] += of_attention[pixel * TOGETHER];
                }
                const Floats mean_g = total_g * (1.0f / FEATURES);
                const Floats share = scale * scale * total_gq * (1.0f / FEATURES), factor = scale * s;
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v) {
                    const Floats dx = factor * (g[v] - mean_g - group.x[v] * share), gate = group.gate[v];
                    const Floats given = dx * gate * (1.0f + group.z[v] * (1.0f - gate));
                    T* const at = to + z_column + v * LANES;
                    if (!POOLED) {
                        store(at, given);
                        continue;
                    }
                    for (int k = 0; k < 4; k += 2) {  // the two rows of the window
                        const Floats left = group.winner[v] == k ? given : Floats{};
                        const Floats right = group.winner[v] == k + 1 ? given : Floats{};
                        T* const line = at + k / 2 * z_row;
                        if (FEATURES >= LANES) {
                            store(line, left);
                            store(line + FEATURES, right);
                        } else {
                            const Ints pixel = lanes() / TOGETHER, within = lanes() % TOGETHER;
                            const Ints pick = pixel / 2 * TOGETHER + within + pixel % 2 * LANES;
                            store(line, lookup(left, right, pick));
                            store(line + LANES, lookup(left, right, pick + LANES / 2));
                        }
                    }
                }
            }
            for (int v = 0; v < VECTORS; ++v) {
                for (int lane = 0; lane < LANES; ++lane) {
                    sums[0][v * LANES + lane] += sum_adq[v][lane];
                    sums[1][v * LANES + lane] += sum_d[v][lane];
                }
            }
        }
    }
    for (int i = 0; i < SPAN; ++i) {
        dgain[i % FEATURES] += static_cast<float>(sums[0][i]);
        dbias[i % FEATURES] += static_cast<float>(sums[1][i]);
    }
}

template <class T>
void forward(const T* z, const float* a, const float* gain, const float* bias, T* y, const Maps& maps, bool pool) {
#pragma omp parallel for schedule(dynamic) num_threads(maps.threads)
    for (std::ptrdiff_t slice = 0; slice < maps.slices; ++slice) {
        const std::ptrdiff_t first = maps.frames * slice / maps.slices, last = maps.frames * (slice + 1) / maps.slices;
        (pool ? forward_frames<T, true> : forward_frames<T, false>)(z, a, gain, bias, y, maps, first, last);
    }
}

// The sums are [slices][height * width] and [slices][FEATURES], zero at first.
template <class T>
void backward(const T* dy, const T* z, const float* a, const float* gain, T* dz, float* da, float* dgain, float* dbias,
              const Maps& maps, bool pool) {
#pragma omp parallel for schedule(dynamic) num_threads(maps.threads)
    for (std::ptrdiff_t slice = 0; slice < maps.slices; ++slice) {
        const std::ptrdiff_t first = maps.frames * slice / maps.slices, last = maps.frames * (slice + 1) / maps.slices;
        (pool ? backward_frames<T, true>
              : backward_frames<T, false>)(dy, z, a, gain, dz, da + slice * maps.height * maps.width,
                                           dgain + slice * FEATURES, dbias + slice * FEATURES, maps, first, last);
    }
}

}  // namespace

extern "C" {

// What a row of y, width * FEATURES, must be a multiple of.
int patch_norm_lanes() { return LANES; }

void patch_norm_forward(const void* z, const float* a, const float* gain, const float* bias, void* y, int is_bfloat16,
                        int pool, const Maps* maps) {
    if (is_bfloat16) {
        forward(static_cast<const std::uint16_t*>(z), a, gain, bias, static_cast<std::uint16_t*>(y), *maps, pool);
    } else {
        forward(static_cast<const float*>(z), a, gain, bias, static_cast<float*>(y), *maps, pool);
    }
}

void patch_norm_backward(const void* dy, const void* z, const float* a, const float* gain, void* dz, float* da,
                         float* dgain, float* dbias, int is_bfloat16, int pool, const Maps* maps) {
    if (is_bfloat16) {
        backward(static_cast<const std::uint16_t*>(dy), static_cast<const std::uint16_t*>(z), a, gain,
                 static_cast<std::uint16_t*>(dz), da, dgain, dbias, *maps, pool);
    } else {
        backward(static_cast<const float*>(dy), static_cast<const float*>(z), a, gain, static_cast<float*>(dz), da,
                 dgain, dbias, *maps, pool);
    }
}
}
