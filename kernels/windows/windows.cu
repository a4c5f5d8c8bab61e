// The weighted sums of the temporal pyramid's windows, forward and backward, for NVIDIA GPUs: one pass over the map.
//
// What a window is, and how x, kernels and sums lie in memory, is said in windows.cpp. FORMAT of x and dx: 0 float32,
// 1 bfloat16, 2 float16. A thread takes 8 features.

#include "pieces.h"

#define SIDE 16
#define BINS 5
#define PIECES (FEATURES / PIECE)

// 8 floats from an address that is a multiple of 32.
__device__ __forceinline__ void load_floats(const float* from, float (&values)[PIECE]) {
    for (int half = 0; half < 2; ++half) {
        const Words words = reinterpret_cast<const Words*>(from)[half];
        for (int i = 0; i < 4; ++i) values[4 * half + i] = __uint_as_float(words.word[i]);
    }
}

// The first row of bin i in kernels: 0, 1, 5, 21, 85.
__device__ __forceinline__ int first_kernel(int i) { return ((1 << 2 * i) - 1) / 3; }

// A row's share of each window that it lies in: rows [clips * frames * SIDE][BINS][FEATURES], for a sum over the rows
// of each window. Grid: x = ceil(num_rows * PIECES / THREADS).
extern "C" __global__ void __launch_bounds__(THREADS)
    windows_forward(const Piece* __restrict__ x, const float* __restrict__ kernels, float* __restrict__ rows,
                    long long num_rows, int frames) {
    PHASE {
        const long long item = (long long)blockIdx.x * THREADS + threadIdx.x, row = item / PIECES;
        if (row >= num_rows) continue;
        const int piece = int(item % PIECES), y = int(row % SIDE), frame = int(row / SIDE % frames);
        float totals[BINS][PIECE] = {};
        for (int column = 0; column < SIDE; ++column) {
            float values[PIECE], weights[PIECE];
            load_piece(x + (row * SIDE + column) * PIECES + piece, values);
#pragma unroll
            for (int i = 0; i < BINS; ++i) {
                const int b = 1 << i, kernel = first_kernel(i) + frame % b * b + y % b;
                load_floats(kernels + ((size_t)kernel * SIDE + column) * FEATURES + piece * PIECE, weights);
                for (int k = 0; k < PIECE; ++k) totals[i][k] += values[k] * weights[k];
            }
        }
#pragma unroll
        for (int i = 0; i < BINS; ++i) {
            for (int k = 0; k < PIECE; ++k) rows[(row * BINS + i) * FEATURES + piece * PIECE + k] = totals[i][k];
        }
    }
}
LAUNCH(windows_forward)

// dx, and what each of the 16 x 16 frames and rows of the largest window adds to the kernels' gradients:
// dkernels [BINS][16 frames][SIDE][SIDE][FEATURES], for a sum over those of each smaller kernel.
// Grid: x = ceil(16 * SIDE * SIDE * PIECES / THREADS). num_windows are those of a clip.
extern "C" __global__ void __launch_bounds__(THREADS)
    windows_backward(const float* __restrict__ dsums, const Piece* __restrict__ x, const float* __restrict__ kernels,
                     Piece* __restrict__ dx, float* __restrict__ dkernels, int clips, int frames, int num_windows) {
    PHASE {
        const int item = int(blockIdx.x) * THREADS + int(threadIdx.x);
        const int piece = item % PIECES, column = item / PIECES % SIDE, y = item / PIECES / SIDE % SIDE;
        const int phase = item / PIECES / SIDE / SIDE;  // of the largest window's frames
        if (phase >= 16) continue;
        float weights[BINS][PIECE], sums[BINS][PIECE] = {};
#pragma unroll
        for (int i = 0; i < BINS; ++i) {
            const int b = 1 << i, kernel = first_kernel(i) + phase % b * b + y % b;
            load_floats(kernels + ((size_t)kernel * SIDE + column) * FEATURES + piece * PIECE, weights[i]);
        }
        for (int clip = 0; clip < clips; ++clip) {
            for (int frame = phase; frame < frames; frame += 16) {
                const size_t at = ((((size_t)clip * frames + frame) * SIDE + y) * SIDE + column) * PIECES + piece;
                float values[PIECE], total[PIECE] = {};
                load_piece(x + at, values);
                int windows = 0;
#pragma unroll
                for (int i = 0; i < BINS; ++i) {
                    const int b = 1 << i, window = windows + frame / b * (SIDE / b) + y / b;
                    windows += frames / b * (SIDE / b);
                    if (frame >= frames / b * b) continue;
                    float d[PIECE];
                    load_floats(dsums + ((size_t)clip * num_windows + window) * FEATURES + piece * PIECE, d);
                    for (int k = 0; k < PIECE; ++k) {
                        total[k] += d[k] * weights[i][k];
                        sums[i][k] += d[k] * values[k];
                    }
                }
                store_piece(dx + at, total);
            }
        }
#pragma unroll
        for (int i = 0; i < BINS; ++i) {
            const size_t at = (((size_t)i * 16 + phase) * SIDE + y) * SIDE + column;
            for (int k = 0; k < PIECE; ++k) dkernels[at * FEATURES + piece * PIECE + k] = sums[i][k];
        }
    }
}
LAUNCH(windows_backward)
