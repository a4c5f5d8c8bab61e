// Farneback's dense optical flow, batched over frames and over pairs of frames, in float32.
//
// Gunnar Farneback, Two-Frame Motion Estimation Based on Polynomial Expansion (SCIA 2003), with the arithmetic of
// cv2.calcOpticalFlowFarneback on the CPU.
//
// One pyramid level at a time, coarse to fine (w x h is the level's size, W x H the frames'):
//
//     shrink   frames uint8 [N, H, W]    -> images float [N, h, w]
//     expand   images                    -> expansions float [N, 5, h, w]
//     then, `iterations` times:
//     set_up   expansions, pairs, flows  -> equations float [P, 5, h, w]
//     solve    equations                 -> flows float2 [P, h, w]
//
// Frames are grey, 0 to 255. Flow is (dx, dy) in pixels of the level per frame. Arrays are contiguous. `pairs` is
// int32 [P, 2]: indices of the first and the second frame of each pair.
//
// All blocks have THREADS threads. Python sets: POLY_N (half width of the polynomial's neighbourhood), RADIUS (half
// width of the averaging window), BOX (1 where the window's weights are equal, else 0) and TILE_H (rows of a block's
// tile in `solve`, a multiple of COLUMN_STRIP).

#include "device.h"

#define TILE_W 32
#define EXPANSION_H 8
// Neighbours that one thread of `solve` averages at a time: in a column, then in a row.
#define COLUMN_STRIP 8
#define ROW_STRIP 4

// Taps that a loop takes without a jump: all of them for the sizes in use, a few for larger ones. The time of the
// compiler grows with the square of this number and more: it took minutes for all 481 taps of POLY_N 240.
constexpr int EXPANSION_UNROLL = POLY_N <= 7 ? 2 * POLY_N + 1 : 4;
constexpr int WINDOW_UNROLL = RADIUS <= 10 ? 2 * RADIUS + COLUMN_STRIP : 4;

// Where a pixel looks in a longer or shorter row under bilinear resizing with half-pixel centres. Python computes these
// (`bilinear_taps`): they take 64-bit arithmetic, which is slow on many GPUs.
struct Tap {
    int index;    // of the first of two neighbours
    float share;  // of the second one
};

// One pixel of `shrink`: `across` and `down` are its column of either table, `frame` begins at the first row that counts.
// TAPS is `taps`, or 0 for any number. The compiler then keeps the weights of a row in registers.
template <int TAPS>
__device__ __forceinline__ float shrunk(const unsigned char* frame, int W, const unsigned* across, int w,
                                        const unsigned* down, int h, int taps) {
    const int num = TAPS != 0 ? TAPS : taps;
    const unsigned char* from = frame + across[0];
    float sum = 0.0f;
#pragma unroll TAPS != 0 && TAPS <= 4 ? TAPS : 1
    for (int j = 0; j < num; ++j) {
        float row_sum = 0.0f;
#pragma unroll TAPS != 0 ? TAPS : 2
        for (int i = 0; i < num; ++i) row_sum += __uint_as_float(across[(1 + i) * w]) * float(from[j * W + i]);
        sum += __uint_as_float(down[(1 + j) * h]) * row_sum;
    }
    return sum;
}

// Gaussian blur of the full-size frame (border reflected) and bilinear resizing to the level, in one.
// columns: uint32 [1 + taps, w], rows: uint32 [1 + taps, h]: the first of `taps` neighbours in the frame, then the bits
// of their weights, float32. Python computes them (`shrink_taps`), and they keep inside the frame.
// Grid: (ceil(w * h / THREADS), 1, N).
extern "C" __global__ void __launch_bounds__(THREADS)
    shrink(const unsigned char* __restrict__ frames, float* __restrict__ images, int W, int H, int w, int h,
           const unsigned* __restrict__ columns, const unsigned* __restrict__ rows, int taps) {
    PHASE {
        const int pixel = blockIdx.x * THREADS + threadIdx.x;
        if (pixel >= w * h) continue;
        const unsigned *across = columns + pixel % w, *down = rows + pixel / w;
        const unsigned char* frame = frames + (size_t(blockIdx.z) * H + down[0]) * W;
        // The first three are those of the published levels.
        images[size_t(blockIdx.z) * w * h + pixel] = taps == 3    ? shrunk<3>(frame, W, across, w, down, h, taps)
                                                     : taps == 4  ? shrunk<4>(frame, W, across, w, down, h, taps)
                                                     : taps == 10 ? shrunk<10>(frame, W, across, w, down, h, taps)
                                                                  : shrunk<0>(frame, W, across, w, down, h, taps);
    }
}

// Polynomial expansion: in the order y, x, y^2, x^2, xy, the coefficients of the polynomial that fits the weighted
// neighbourhood of each pixel best (border replicated).
// weights: float [3, 2 * POLY_N + 1], g, i g and i^2 g; then ig11, ig03, ig33, ig55 of the inverted normal matrix.
// Grid: (ceil(w / TILE_W), ceil(h / EXPANSION_H), N).
extern "C" __global__ void __launch_bounds__(THREADS)
    expand(const float* __restrict__ images, float* __restrict__ expansions, int w, int h,
           const float* __restrict__ weights, float ig11, float ig03, float ig33, float ig55) {
    constexpr int TAPS = 2 * POLY_N + 1, SPAN = TILE_W + 2 * POLY_N;
    __shared__ float columns[3][EXPANSION_H][SPAN];  // the three weighted sums along a column
    const int left = blockIdx.x * TILE_W, top = blockIdx.y * EXPANSION_H;
    const float* image = images + size_t(blockIdx.z) * w * h;
    const float *g = weights, *xg = weights + TAPS, *xxg = weights + 2 * TAPS;

    PHASE {
        for (int item = threadIdx.x; item < EXPANSION_H * SPAN; item += THREADS) {
            const int row = item / SPAN, column = item % SPAN;
            const float* from = image + clamp(left + column - POLY_N, w - 1);
            float sum = 0.0f, first = 0.0f, second = 0.0f;
#pragma unroll EXPANSION_UNROLL
            for (int k = 0; k < TAPS; ++k) {
                // 128 is subtracted: this changes no coefficient, and smaller numbers have smaller rounding errors.
                const float value = from[clamp(top + row + k - POLY_N, h - 1) * w] - 128.0f;
                sum += g[k] * value;
                first += xg[k] * value;
                second += xxg[k] * value;
            }
            columns[0][row][column] = sum;
            columns[1][row][column] = first;
            columns[2][row][column] = second;
        }
    }
    PHASE {
        const int row = threadIdx.x / TILE_W, column = threadIdx.x % TILE_W;
        const int x = left + column, y = top + row;
        if (x >= w || y >= h) continue;
        float b1 = 0.0f, b2 = 0.0f, b3 = 0.0f, b4 = 0.0f, b5 = 0.0f, b6 = 0.0f;
#pragma unroll EXPANSION_UNROLL
        for (int k = 0; k < TAPS; ++k) {
            const float sum = columns[0][row][column + k], first = columns[1][row][column + k];
            b1 += g[k] * sum;
            b2 += xg[k] * sum;
            b4 += xxg[k] * sum;
            b3 += g[k] * first;
            b6 += xg[k] * first;
            b5 += g[k] * columns[2][row][column + k];
        }
        float* to = expansions + size_t(blockIdx.z) * 5 * w * h + y * w + x;
        const int plane = w * h;
        to[0 * plane] = b3 * ig11;
        to[1 * plane] = b2 * ig11;
        to[2 * plane] = b1 * ig03 + b5 * ig33;
        to[3 * plane] = b1 * ig03 + b4 * ig33;
        to[4 * plane] = b6 * ig55;
    }
}

// The weight of pixel `i` of a row or column of `n` pixels: pixels near either end count less.
__device__ __forceinline__ float edge_weight(int i, int n) {
    const int distance = i < n - 1 - i ? i : n - 1 - i;
    return distance < 2 ? 0.14f : distance < 5 ? 0.4472f : 1.0f;
}

__device__ __forceinline__ float2 starting_flow(const float2* flows, int flow_w, int flow_h, const Tap* columns,
                                                const Tap* rows, float scale, int x, int y, int w, int h) {
    if (flow_w == 0) return make_float2(0.0f, 0.0f);
    const float2* flow = flows + size_t(blockIdx.z) * flow_w * flow_h;
    if (flow_w == w && flow_h == h) return make_float2(scale * flow[y * w + x].x, scale * flow[y * w + x].y);
    const Tap across = columns[x], down = rows[y];
    const int right = across.index + 1 < flow_w ? 1 : 0, below = down.index + 1 < flow_h ? flow_w : 0;
    const float2* from = flow + down.index * flow_w + across.index;
    const float2 a = from[0], b = from[right], c = from[below], d = from[below + right];
    const float s = across.share, t = down.share;
    const float upper_x = (1.0f - s) * a.x + s * b.x, lower_x = (1.0f - s) * c.x + s * d.x;
    const float upper_y = (1.0f - s) * a.y + s * b.y, lower_y = (1.0f - s) * c.y + s * d.y;
    return make_float2(scale * ((1.0f - t) * upper_x + t * lower_x), scale * ((1.0f - t) * upper_y + t * lower_y));
}

// The entries of the 2 x 2 equation system of each pixel (a11, a12, a22, b1, b2) from both expansions, the second one
// sampled where the present flow points to.
// flows: float2 [P, flow_h, flow_w], resized and multiplied by `scale`: the present flow (scale 1), that of the next
// coarser level, or no flow at all (flow_w 0). columns: Tap [w] into flow_w, rows: Tap [h] into flow_h, which are read
// where these sizes differ. Grid: (ceil(w * h / THREADS), 1, P).
extern "C" __global__ void __launch_bounds__(THREADS)
    set_up(const float* __restrict__ expansions, const int* __restrict__ pairs, const float2* __restrict__ flows,
           int flow_w, int flow_h, const Tap* __restrict__ columns, const Tap* __restrict__ rows, float scale,
           float* __restrict__ equations, int w, int h) {
    const int plane = w * h;
    const float* first = expansions + size_t(pairs[2 * blockIdx.z]) * 5 * plane;
    const float* second = expansions + size_t(pairs[2 * blockIdx.z + 1]) * 5 * plane;
    PHASE {
        const int pixel = blockIdx.x * THREADS + threadIdx.x;
        if (pixel >= plane) continue;
        const int x = pixel % w, y = pixel / w;
        const float2 flow = starting_flow(flows, flow_w, flow_h, columns, rows, scale, x, y, w, h);
        const float u = x + flow.x, v = y + flow.y;
        const float r0 = first[pixel], r1 = first[plane + pixel];
        float yy = first[2 * plane + pixel], xx = first[3 * plane + pixel], xy = first[4 * plane + pixel];
        float dy = 0.5f * r0, dx = 0.5f * r1;
        // False for NaN as well. The last row and column are outside.
        if (u >= 0.0f && u < w - 1 && v >= 0.0f && v < h - 1) {
            const int i = int(u), j = int(v);
            const float s = u - i, t = v - j;
            const float upper_left = (1.0f - s) * (1.0f - t), upper_right = s * (1.0f - t);
            const float lower_left = (1.0f - s) * t, lower_right = s * t;
            const float* from = second + j * w + i;
            float sample[5];
#pragma unroll
            for (int c = 0; c < 5; ++c) {
                const float* corner = from + c * plane;
                sample[c] = upper_left * corner[0] + upper_right * corner[1] + lower_left * corner[w] +
                            lower_right * corner[w + 1];
            }
            dy -= 0.5f * sample[0];
            dx -= 0.5f * sample[1];
            yy = 0.5f * (yy + sample[2]);
            xx = 0.5f * (xx + sample[3]);
            xy = 0.25f * (xy + sample[4]);
        } else {
            xy *= 0.5f;
        }
        dy += yy * flow.y + xy * flow.x;
        dx += xy * flow.y + xx * flow.x;
        const float weight = edge_weight(x, w) * edge_weight(y, h);
        dy *= weight, dx *= weight, yy *= weight, xx *= weight, xy *= weight;
        float* to = equations + size_t(blockIdx.z) * 5 * plane + pixel;
        to[0 * plane] = yy * yy + xy * xy;
        to[1 * plane] = (yy + xx) * xy;
        to[2 * plane] = xx * xx + xy * xy;
        to[3 * plane] = yy * dy + xy * dx;
        to[4 * plane] = xy * dy + xx * dx;
    }
}

// The sums of STRIP windows side by side: window `s` holds the values `s` to `s + 2 * RADIUS`, which `value_at` returns.
// Weighted with `window`, or plain sums where BOX. These share what all windows hold, and add what lies before and after
// it. Nothing is subtracted, so that no rounding error is carried from one window to the next.
template <int STRIP, class ValueAt>
__device__ __forceinline__ void window_sums(ValueAt value_at, const float* window, float* sums) {
    if constexpr (BOX && STRIP <= 2 * RADIUS + 1) {
        float before[STRIP];
#pragma unroll
        for (int k = 0; k < STRIP - 1; ++k) before[k] = value_at(k);
        float shared = 0.0f;
#pragma unroll WINDOW_UNROLL
        for (int k = STRIP - 1; k <= 2 * RADIUS; ++k) shared += value_at(k);
        sums[STRIP - 1] = shared;
        float outside = 0.0f;
#pragma unroll
        for (int s = STRIP - 2; s >= 0; --s) outside += before[s], sums[s] = shared + outside;
        outside = 0.0f;
#pragma unroll
        for (int s = 1; s < STRIP; ++s) outside += value_at(2 * RADIUS + s), sums[s] += outside;
    } else {
#pragma unroll
        for (int s = 0; s < STRIP; ++s) sums[s] = 0.0f;
#pragma unroll WINDOW_UNROLL
        for (int k = 0; k < 2 * RADIUS + STRIP; ++k) {
            const float value = value_at(k);
#pragma unroll
            for (int s = 0; s < STRIP; ++s) {
                if (k - s >= 0 && k - s <= 2 * RADIUS) sums[s] += BOX ? value : window[k - s] * value;
            }
        }
    }
}

// The equations averaged over a window (border replicated), and solved.
// window: float [2 * RADIUS + 1], the window's weights along one direction, not read where BOX. damping: what is added
// to the determinant, 1e-3 for weights whose sum is 1; as much larger as the square of the sums' size where BOX.
// largest_squares: uint32 [P], all 0 before, or null. It receives the bits of the largest squared magnitude of each
// flow, without flow that has a component above 1e6.
// Grid: (ceil(w / TILE_W), ceil(h / TILE_H), P).
extern "C" __global__ void __launch_bounds__(THREADS)
    solve(const float* __restrict__ equations, float2* __restrict__ flows, int w, int h,
          const float* __restrict__ window, float damping, unsigned* __restrict__ largest_squares) {
    constexpr int SPAN = TILE_W + 2 * RADIUS, NUM_STRIPS = TILE_H / COLUMN_STRIP;
    // 4 more than a multiple of 8: eight threads in eight rows read four values each from different banks.
    constexpr int STRIDE = SPAN + (12 - SPAN % 8) % 8;
    alignas(16) __shared__ float columns[5][TILE_H][STRIDE];
    // One column more, for the same reason. Threads solve in columns, and write in rows.
    __shared__ float2 solved[TILE_H][TILE_W + 1];
    __shared__ unsigned largest;
    const int left = blockIdx.x * TILE_W, top = blockIdx.y * TILE_H;
    const int plane = w * h;
    const float* equation = equations + size_t(blockIdx.z) * 5 * plane;

    PHASE {
        if (threadIdx.x == 0) largest = 0;
        // One item: COLUMN_STRIP neighbours in one column of one plane.
        for (int item = threadIdx.x; item < 5 * NUM_STRIPS * SPAN; item += THREADS) {
            const int column = item % SPAN, row = item / SPAN % NUM_STRIPS * COLUMN_STRIP;
            const int c = item / SPAN / NUM_STRIPS, first = top + row - RADIUS;
            const float* from = equation + c * plane + clamp(left + column - RADIUS, w - 1);
            float sums[COLUMN_STRIP];
            if (first >= 0 && first + 2 * RADIUS + COLUMN_STRIP <= h) {
                const float* inside = from + first * w;
                window_sums<COLUMN_STRIP>([=](int k) { return inside[k * w]; }, window, sums);
            } else {
                window_sums<COLUMN_STRIP>([=](int k) { return from[clamp(first + k, h - 1) * w]; }, window, sums);
            }
#pragma unroll
            for (int s = 0; s < COLUMN_STRIP; ++s) columns[c][row + s][column] = sums[s];
        }
    }
    PHASE {
        // One item: ROW_STRIP neighbours in one row; a warp's threads are in different rows.
        for (int item = threadIdx.x; item < TILE_H * (TILE_W / ROW_STRIP); item += THREADS) {
            const int row = item % TILE_H, column = item / TILE_H * ROW_STRIP;
            if (top + row >= h) continue;
            float m[5][ROW_STRIP];
#pragma unroll
            for (int c = 0; c < 5; ++c) {
                const float* from = &columns[c][row][column];
                window_sums<ROW_STRIP>([=](int k) { return from[k]; }, window, m[c]);
            }
            unsigned largest_here = 0;
#pragma unroll
            for (int s = 0; s < ROW_STRIP; ++s) {
                const float inverse = 1.0f / (m[0][s] * m[2][s] - m[1][s] * m[1][s] + damping);
                const float dx = (m[0][s] * m[4][s] - m[1][s] * m[3][s]) * inverse;
                const float dy = (m[2][s] * m[3][s] - m[1][s] * m[4][s]) * inverse;
                const float2 flow = make_float2(dx, dy);
                solved[row][column + s] = flow;
                if (left + column + s < w && fabsf(dx) <= 1e6f && fabsf(dy) <= 1e6f) {
                    const unsigned square = __float_as_uint(__fadd_rn(__fmul_rn(dx, dx), __fmul_rn(dy, dy)));
                    if (square > largest_here) largest_here = square;
                }
            }
            if (largest_squares != nullptr) atomicMax(&largest, largest_here);
        }
    }
    PHASE {
        const int column = threadIdx.x % TILE_W, x = left + column;
        float2* to = flows + size_t(blockIdx.z) * plane + x;
#pragma unroll 1
        for (int row = threadIdx.x / TILE_W; row < TILE_H && top + row < h; row += THREADS / TILE_W) {
            if (x < w) to[(top + row) * w] = solved[row][column];
        }
        if (threadIdx.x == 0 && largest_squares != nullptr) atomicMax(largest_squares + blockIdx.z, largest);
    }
}

LAUNCH(shrink)
LAUNCH(expand)
LAUNCH(set_up)
LAUNCH(solve)
