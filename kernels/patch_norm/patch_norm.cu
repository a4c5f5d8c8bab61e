// Swish, 2 x 2 max pooling, patch attention and LayerNorm of maps in one pass, forward and backward, for NVIDIA GPUs.
//
// The mathematics is in attengait/model/patch_norm.py. Every map is read once and written once. A thread takes 8
// features of one pixel of y; a block takes PIXELS pixels, one after the other in a frame. What a thread must remember
// from one phase to the next lies in shared memory, in the thread's own places.
//
// z is [frames][pixels][FEATURES], or [frames][2 height][2 width][FEATURES] if POOL; y and dy are
// [frames][pixels][FEATURES]; a is [pixels].
// FORMAT is that of pieces.h.

#include "pieces.h"

#define PIECES (FEATURES / PIECE)
#define PIXELS (THREADS / PIECES)
#define EPS 1e-6f

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Which piece of z belongs to a piece of pixel `pixel` of y; of a pooling window, that of its first pixel.
__device__ __forceinline__ size_t place(size_t frame, int pixel, int num_pixels, int width, int piece) {
#if POOL
    const int row = pixel / width, column = pixel - row * width;
    return ((frame * num_pixels * 4) + size_t(row) * 4 * width + column * 2) * PIECES + piece;
#else
    return (frame * num_pixels + pixel) * PIECES + piece;
#endif
}

// Offset of a pooling window's pixel k from its first one.
__device__ __forceinline__ int step_to(int k, int width) { return (k / 2 * 2 * width + k % 2) * PIECES; }

// swish(z) of a piece, the largest of a window if POOL. Of equals, the first wins; NaN wins.
__device__ __forceinline__ void load_swish(const Piece* z, int width, float (&x)[PIECE]) {
    load_piece(z, x);
    for (int i = 0; i < PIECE; ++i) x[i] *= sigmoid(x[i]);
#if POOL
    for (int k = 1; k < 4; ++k) {
        float other[PIECE];
        load_piece(z + step_to(k, width), other);
        for (int i = 0; i < PIECE; ++i) {
            const float value = other[i] * sigmoid(other[i]);
            x[i] = value > x[i] || value != value ? value : x[i];
        }
    }
#else
    (void)width;
#endif
}

// Mean and sum of squared deviations of a piece.
__device__ __forceinline__ void describe(const float (&x)[PIECE], float* mean, float* squares) {
    float sum = 0, square = 0;
    for (int i = 0; i < PIECE; ++i) sum += x[i];
    sum *= 1.0f / PIECE;
    for (int i = 0; i < PIECE; ++i) square += (x[i] - sum) * (x[i] - sum);
    *mean = sum;
    *squares = square;
}

// The same of a whole pixel, from those of its pieces (Chan, Golub and LeVeque, 1983), and s = 1 / sqrt(a^2 var + eps).
__device__ __forceinline__ float scale_of(const float* means, const float* squares, float a, float* mean) {
    float sum = 0, square = 0;
    for (int i = 0; i < PIECES; ++i) sum += means[i];
    sum *= 1.0f / PIECES;
    for (int i = 0; i < PIECES; ++i) {
        square += squares[i] + PIECE * (means[i] - sum) * (means[i] - sum);
    }
    *mean = sum;
    return 1.0f / sqrtf(a * a * (square * (1.0f / FEATURES)) + EPS);
}

// Grid: x = frames * tiles, where tiles = ceil(num_pixels / PIXELS).
extern "C" __global__ void __launch_bounds__(THREADS)
    patch_norm_forward(const Piece* __restrict__ z, const float* __restrict__ a, const float* __restrict__ gain,
                       const float* __restrict__ bias, Piece* __restrict__ y, int num_pixels, int width, int tiles) {
    __shared__ float kept[PIECE][THREADS];  // swish(z)
    __shared__ float means[THREADS], squares[THREADS];
    PHASE {
        const int pixel = int(blockIdx.x % tiles) * PIXELS + int(threadIdx.x) / PIECES;
        if (pixel >= num_pixels) continue;
        const size_t frame = blockIdx.x / tiles;
        float x[PIECE];
        load_swish(z + place(frame, pixel, num_pixels, width, threadIdx.x % PIECES), width, x);
        for (int i = 0; i < PIECE; ++i) kept[i][threadIdx.x] = x[i];
        describe(x, means + threadIdx.x, squares + threadIdx.x);
    }
    PHASE {
        const int place_in_block = int(threadIdx.x) / PIECES, piece = threadIdx.x % PIECES;
        const int pixel = int(blockIdx.x % tiles) * PIXELS + place_in_block;
        if (pixel >= num_pixels) continue;
        const size_t frame = blockIdx.x / tiles;
        float mean, values[PIECE];
        const float scale = a[pixel];
        const float s = scale_of(means + place_in_block * PIECES, squares + place_in_block * PIECES, scale, &mean);
        for (int i = 0; i < PIECE; ++i) {
            const int feature = piece * PIECE + i;
            values[i] = (kept[i][threadIdx.x] - mean) * s * (scale * gain[feature]) + bias[feature];
        }
        store_piece(y + (frame * num_pixels + pixel) * PIECES + piece, values);
    }
}
LAUNCH(patch_norm_forward)

// Grid: x = slices * tiles. A slice has the frames from frames * slice / slices on. Its sums are da
// [slices][num_pixels], and dgain and dbias [slices][tiles][FEATURES].
extern "C" __global__ void __launch_bounds__(THREADS)
    patch_norm_backward(const Piece* __restrict__ dy, const Piece* __restrict__ z, const float* __restrict__ a,
                        const float* __restrict__ gain, Piece* __restrict__ dz, float* __restrict__ da,
                        float* __restrict__ dgain, float* __restrict__ dbias, int num_pixels, int width, int tiles,
                        long long frames, int slices) {
    __shared__ float kept[PIECE][THREADS];   // swish(z), then q
    __shared__ float given[PIECE][THREADS];  // d
    __shared__ float sums_d[PIECE][THREADS], sums_adq[PIECE][THREADS];
    __shared__ float means[THREADS], squares[THREADS], scales[THREADS], totals_g[THREADS], totals_gq[THREADS];
    __shared__ float sums_a[PIXELS];
    const long long slice = blockIdx.x / tiles;
    const long long first = frames * slice / slices, last = frames * (slice + 1) / slices;
    PHASE {
        for (int i = 0; i < PIECE; ++i) sums_d[i][threadIdx.x] = sums_adq[i][threadIdx.x] = 0.0f;
        if (threadIdx.x < PIXELS) sums_a[threadIdx.x] = 0.0f;
    }
    for (long long frame = first; frame < last; ++frame) {
        PHASE {
            const int piece = threadIdx.x % PIECES,
                      pixel = int(blockIdx.x % tiles) * PIXELS + int(threadIdx.x) / PIECES;
            if (pixel >= num_pixels) continue;
            float x[PIECE], d[PIECE];
            load_swish(z + place(frame, pixel, num_pixels, width, piece), width, x);
            load_piece(dy + (size_t(frame) * num_pixels + pixel) * PIECES + piece, d);
            for (int i = 0; i < PIECE; ++i) {
                kept[i][threadIdx.x] = x[i];
                given[i][threadIdx.x] = d[i];
            }
            describe(x, means + threadIdx.x, squares + threadIdx.x);
        }
        PHASE {
            const int place_in_block = int(threadIdx.x) / PIECES, piece = threadIdx.x % PIECES;
            const int pixel = int(blockIdx.x % tiles) * PIXELS + place_in_block;
            if (pixel >= num_pixels) continue;
            float mean, total_g = 0, total_gq = 0;
            const float scale = a[pixel];
            const float s = scale_of(means + place_in_block * PIECES, squares + place_in_block * PIECES, scale, &mean);
            for (int i = 0; i < PIECE; ++i) {
                const float q = (kept[i][threadIdx.x] - mean) * s, d = given[i][threadIdx.x];
                const float g = gain[piece * PIECE + i] * d;
                total_g += g;
                total_gq += g * q;
                kept[i][threadIdx.x] = q;
                sums_d[i][threadIdx.x] += d;
                sums_adq[i][threadIdx.x] += scale * (d * q);
            }
            scales[threadIdx.x] = s;
            totals_g[threadIdx.x] = total_g;
            totals_gq[threadIdx.x] = total_gq;
        }
        PHASE {
            const int place_in_block = int(threadIdx.x) / PIECES, piece = threadIdx.x % PIECES;
            const int pixel = int(blockIdx.x % tiles) * PIXELS + place_in_block;
            if (pixel >= num_pixels) continue;
            float total_g = 0, total_gq = 0;
            for (int i = 0; i < PIECES; ++i) {
                total_g += totals_g[place_in_block * PIECES + i];
                total_gq += totals_gq[place_in_block * PIECES + i];
            }
            const float s = scales[threadIdx.x], scale = a[pixel];
            if (piece == 0) sums_a[place_in_block] += EPS * total_gq * s * s;
            const float mean_g = total_g * (1.0f / FEATURES), share = scale * scale * total_gq * (1.0f / FEATURES);
            float dx[PIECE];
            for (int i = 0; i < PIECE; ++i) {
                const float g = gain[piece * PIECE + i] * given[i][threadIdx.x];
                dx[i] = scale * s * (g - mean_g - kept[i][threadIdx.x] * share);
            }
            const size_t start = place(frame, pixel, num_pixels, width, piece);
            float best[PIECE], values[PIECE];
#if POOL
            unsigned winners = 0;  // two bits for each feature
            for (int k = 0; k < 4; ++k) {
                load_piece(z + start + step_to(k, width), values);
                for (int i = 0; i < PIECE; ++i) {
                    const float x = values[i] * sigmoid(values[i]);
                    if (k == 0 || x > best[i] || x != x) {
                        best[i] = x;
                        winners = (winners & ~(3u << 2 * i)) | unsigned(k) << 2 * i;
                    }
                }
            }
            for (int k = 0; k < 4; ++k) {
                load_piece(z + start + step_to(k, width), values);
                for (int i = 0; i < PIECE; ++i) {
                    const float gate = sigmoid(values[i]);
                    values[i] =
                        int(winners >> 2 * i & 3) == k ? dx[i] * gate * (1.0f + values[i] * (1.0f - gate)) : 0.0f;
                }
                store_piece(dz + start + step_to(k, width), values);
            }
#else
            load_piece(z + start, values);
            for (int i = 0; i < PIECE; ++i) {
                const float gate = sigmoid(values[i]);
                best[i] = dx[i] * gate * (1.0f + values[i] * (1.0f - gate));
            }
            store_piece(dz + start, best);
#endif
        }
    }
    PHASE {
        const int tile = int(blockIdx.x % tiles), pixel = tile * PIXELS + int(threadIdx.x);
        if (threadIdx.x < PIXELS && pixel < num_pixels) {
            da[slice * num_pixels + pixel] = sums_a[threadIdx.x];
        }
        for (int feature = threadIdx.x; feature < FEATURES; feature += THREADS) {
            float sum_d = 0, sum_adq = 0;
            for (int i = 0; i < PIXELS; ++i) {
                sum_d += sums_d[feature % PIECE][i * PIECES + feature / PIECE];
                sum_adq += sums_adq[feature % PIECE][i * PIECES + feature / PIECE];
            }
            dbias[(slice * tiles + tile) * FEATURES + feature] = sum_d;
            dgain[(slice * tiles + tile) * FEATURES + feature] = sum_adq;
        }
    }
}
LAUNCH(patch_norm_backward)
