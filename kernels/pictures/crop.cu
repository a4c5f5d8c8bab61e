// From flow and silhouettes to flow images: finds the walker, and cuts the crop around the middle of the body.
//
// flows         float2 [P, H, W], (dx, dy) in pixels per frame
// silhouettes   uint8 [P, H, W], 0 where there is nobody; none is empty
// crops         int32 [P, 4]: top, bottom (excluded), width of the whole picture once resized, left column of the window
// pictures      uint8 [P, SIZE, SIZE, C]
//
// The arithmetic is that of colour.py, crop.py and encode.py. Only the pixels that a crop needs are coloured.
//
// All blocks have THREADS threads. Python sets SIZE, the height and width of a picture, and BAND, how many of its rows a
// block makes, and has the compiler keep products and sums apart (no fused multiply-add): the published colours are
// defined by float32 operations, each rounded.

#include "angle.h"
#include "device.h"

#define LARGEST_COMPONENT 1e6f

__device__ __forceinline__ bool is_known(float2 flow) {
    // False for NaN as well.
    return fabsf(flow.x) <= LARGEST_COMPONENT && fabsf(flow.y) <= LARGEST_COMPONENT;
}

struct Cubic {
    int index;  // of the second of the four neighbours
    float weights[4];
};

// Cubic interpolation (a = -0.75) with half-pixel centres at pixel `i`, `scale` source pixels to a pixel.
__device__ __forceinline__ Cubic cubic(int i, double scale) {
    const double centre = (i + 0.5) * scale - 0.5, below = floor(centre), x = float(centre - below), a = -0.75;
    const double first = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
    const double second = ((a + 2) * x - (a + 3)) * x * x + 1;
    const double third = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1;
    return {int(below), {float(first), float(second), float(third), float(1 - first - second - third)}};
}

// The weighted sum of four neighbours in a row, then of the four rows. On x86, cv2.resize (INTER_CUBIC) calls a library
// that computes these sums, in float32 and with these fused operations. Only some exact ties are rounded the other way
// there.
__device__ __forceinline__ float along_row(const Cubic& across, float a, float b, float c, float d) {
    const float* w = across.weights;
    return fmaf(d, w[3], fmaf(c, w[2], fmaf(b, w[1], a * w[0])));
}

__device__ __forceinline__ float across_rows(const Cubic& down, float a, float b, float c, float d) {
    const float* w = down.weights;
    return fmaf(a, w[0], b * w[1]) + fmaf(c, w[2], d * w[3]);
}

__device__ __forceinline__ int to_byte(float value) {
    const float rounded = rintf(value);
    return rounded < 0.0f ? 0 : rounded > 255.0f ? 255 : int(rounded);
}

// The rows that hold the walker, and the width of the whole picture when these rows are resized to SIZE.
// Fills crops[:, :3]. Grid: (1, 1, P).
extern "C" __global__ void __launch_bounds__(THREADS)
    find_rows(const unsigned char* __restrict__ silhouettes, int* __restrict__ crops, int W, int H) {
    __shared__ int top, bottom;
    const unsigned char* silhouette = silhouettes + size_t(blockIdx.z) * W * H;
    PHASE {
        if (threadIdx.x == 0) top = H, bottom = 0;
    }
    PHASE {
        int first = H, last = -1;
        for (int i = threadIdx.x; i < W * H; i += THREADS) {
            if (silhouette[i] == 0) continue;
            const int row = i / W;
            if (row < first) first = row;
            last = row;
        }
        atomicMin(&top, first);
        atomicMax(&bottom, last + 1);
    }
    PHASE {
        if (threadIdx.x != 0) continue;
        int* crop = crops + 4 * blockIdx.z;
        const int width = SIZE * W / (bottom - top);
        crop[0] = top;
        crop[1] = bottom;
        crop[2] = width > 1 ? width : 1;
    }
}

// Sum of one column of a silhouette whose rows top to bottom are resized to SIZE x width. taps: those of the SIZE rows.
__device__ __forceinline__ int column_mass(const unsigned char* silhouette, int W, int top, int rows, int width,
                                           const Cubic* taps, int column) {
    const Cubic across = cubic(column, 1.0 / (double(width) / W));
    int columns[4];
    for (int i = 0; i < 4; ++i) columns[i] = clamp(across.index - 1 + i, W - 1);
    int mass = 0;
    for (int y = 0; y < SIZE; ++y) {
        const Cubic& down = taps[y];
        float sums[4];
        for (int j = 0; j < 4; ++j) {
            const unsigned char* row = silhouette + (top + clamp(down.index - 1 + j, rows - 1)) * W;
            sums[j] = along_row(across, row[columns[0]], row[columns[1]], row[columns[2]], row[columns[3]]);
        }
        mass += to_byte(across_rows(down, sums[0], sums[1], sums[2], sums[3]));
    }
    return mass;
}

// The window's left column: SIZE / 2 before the first column at which more than half of the mass is passed.
// Reads crops[:, :3], fills crops[:, 3]. Grid: (1, 1, P).
extern "C" __global__ void __launch_bounds__(THREADS)
    find_middles(const unsigned char* __restrict__ silhouettes, int* __restrict__ crops, int W, int H) {
    __shared__ int masses[THREADS];
    __shared__ Cubic taps[SIZE];
    __shared__ long long total, passed;
    __shared__ int middle;
    const unsigned char* silhouette = silhouettes + size_t(blockIdx.z) * W * H;
    const int* crop = crops + 4 * blockIdx.z;
    const int top = crop[0], rows = crop[1] - crop[0], width = crop[2];

    PHASE {
        if (threadIdx.x == 0) total = 0, passed = 0, middle = -1;
#pragma unroll 1
        for (int y = threadIdx.x; y < SIZE; y += THREADS) taps[y] = cubic(y, 1.0 / (double(SIZE) / rows));
    }
    // Two sweeps over the columns, THREADS at a time: the first for the whole mass, the second for the middle column.
    for (int sweep = 0; sweep < 2; ++sweep) {
        for (int start = 0; start < width; start += THREADS) {
            PHASE {
                const int column = start + threadIdx.x;
                masses[threadIdx.x] = column < width ? column_mass(silhouette, W, top, rows, width, taps, column) : 0;
            }
            PHASE {
                if (threadIdx.x != 0) continue;
                for (int i = 0; i < THREADS && start + i < width; ++i) {
                    if (sweep == 0) {
                        total += masses[i];
                    } else {
                        passed += masses[i];
                        if (middle < 0 && 2 * passed > total) middle = start + i;
                    }
                }
            }
        }
    }
    PHASE {
        if (threadIdx.x == 0) crops[4 * blockIdx.z + 3] = (middle < 0 ? 0 : middle) - SIZE / 2;
    }
}

// BAND rows of a crop: it knows the pixels of the whole picture that their 4 BAND x 4 SIZE taps read. Taps outside the
// picture are not read. A block shares it: its weights are computed in 64 bits, which is slow on many GPUs.
struct Band {
    int top, rows, width, left;
    Cubic down[BAND], across[SIZE];

    // Filled by all threads of a block, in a phase of its own, for the rows of the crop from `y` on.
    __device__ __forceinline__ void fill(const int* crop, int W, int y) {
        if (threadIdx.x == 0) top = crop[0], rows = crop[1] - crop[0], width = crop[2], left = crop[3];
#pragma unroll 1
        for (int i = threadIdx.x; i < SIZE + BAND; i += THREADS) {
            const bool is_column = i < SIZE;
            const double ratio = is_column ? double(crop[2]) / W : double(SIZE) / (crop[1] - crop[0]);
            (is_column ? across[i] : down[i - SIZE]) = cubic(is_column ? crop[3] + i : y + i - SIZE, 1.0 / ratio);
        }
    }
    // Whether there is a column of the resized picture behind column `x` of the crop.
    __device__ __forceinline__ bool is_inside(int x) const { return left + x >= 0 && left + x < width; }
    // The first and the last column for which there is one: at least the middle one is.
    __device__ __forceinline__ int first_inside() const { return left < 0 ? -left : 0; }
    __device__ __forceinline__ int last_inside() const { return clamp(width - left - 1, SIZE - 1); }
    // The row that tap `j` of row `b` reads, and the column that tap `i` of column `x` reads.
    __device__ __forceinline__ int row(int b, int j) const { return top + clamp(down[b].index - 1 + j, rows - 1); }
    __device__ __forceinline__ int column(int x, int i, int W) const { return clamp(across[x].index - 1 + i, W - 1); }
};

// Colour of a flow on the wheel, three bytes. wheel: float [56, 3], the first colour once more at the end.
__device__ __forceinline__ void colour(float2 flow, float largest, const float* wheel, unsigned char* rgb) {
    if (!is_known(flow)) {
        rgb[0] = rgb[1] = rgb[2] = 0;
        return;
    }
    const float dx = largest > 0 ? flow.x / largest : flow.x, dy = largest > 0 ? flow.y / largest : flow.y;
    const float radius = sqrtf(dx * dx + dy * dy);
    // Rounded once, on every device: their libraries differ in float32.
    const float angle = angle_of(-dy, -dx) / 3.14159265358979f;
    const float position = (angle + 1.0f) / 2.0f * 54.0f;
    const int index = int(position);
    const float share = position - float(index);
    for (int c = 0; c < 3; ++c) {
        const float mixed = (1.0f - share) * wheel[3 * index + c] + share * wheel[3 * index + 3 + c];
        const float value = radius <= 1.0f ? 1.0f - radius * (1.0f - mixed) : 0.75f * mixed;
        rgb[c] = (unsigned char)(255.0f * value);
    }
}

// The pixels that a block colours, each once: all from the first tap to the last, or, along a side where that is more,
// those of the taps alone.
struct Part {
    int top, left, num_rows, num_columns;
    bool by_row,
        by_column;  // whether there is a row for each tap of a row of the crop, and a column for each of a column

    __device__ __forceinline__ Part(const Band& band, int num_crop_rows, int W) {
        top = band.row(0, 0), left = band.column(band.first_inside(), 0, W);
        const int height = band.row(num_crop_rows - 1, 3) - top + 1;
        const int width = band.column(band.last_inside(), 3, W) - left + 1;
        by_row = height > 4 * num_crop_rows, by_column = width > 4 * SIZE;
        num_rows = by_row ? 4 * num_crop_rows : height, num_columns = by_column ? 4 * SIZE : width;
    }
};

// Encoding "colour". squares: uint32 [P], bits of the largest squared magnitudes. Grid: (ceil(SIZE / BAND), 1, P).
extern "C" __global__ void __launch_bounds__(THREADS)
    crop_colours(const float2* __restrict__ flows, const unsigned* __restrict__ squares, const int* __restrict__ crops,
                 const float* __restrict__ wheel, unsigned char* __restrict__ pictures, int W, int H) {
    __shared__ unsigned char colours[4 * BAND * 4 * SIZE][3];
    __shared__ Band band;
    const float2* flow = flows + size_t(blockIdx.z) * W * H;
    const int y = blockIdx.x * BAND, num_rows = SIZE - y < BAND ? SIZE - y : BAND;
    PHASE { band.fill(crops + 4 * blockIdx.z, W, y); }
    PHASE {
        const float largest = sqrtf(__uint_as_float(squares[blockIdx.z]));
        const Part part(band, num_rows, W);
        for (int item = threadIdx.x; item < part.num_rows * part.num_columns; item += THREADS) {
            const int j = item / part.num_columns, i = item % part.num_columns;
            if (part.by_column && !band.is_inside(i / 4)) continue;
            const int row = part.by_row ? band.row(j / 4, j % 4) : part.top + j;
            const int column = part.by_column ? band.column(i / 4, i % 4, W) : part.left + i;
            const float2 pixel = flow[row * W + column];
            colour(pixel, largest, wheel, colours[item]);
        }
    }
    PHASE {
        const Part part(band, num_rows, W);
        unsigned char* picture = pictures + (size_t(blockIdx.z) * SIZE + y) * SIZE * 3;
        for (int item = threadIdx.x; item < num_rows * 3 * SIZE; item += THREADS) {
            const int b = item / (3 * SIZE), x = item / 3 % SIZE, c = item % 3;
            float sums[4] = {};
            if (band.is_inside(x)) {
                int columns[4];
                for (int i = 0; i < 4; ++i) columns[i] = part.by_column ? 4 * x + i : band.column(x, i, W) - part.left;
                for (int j = 0; j < 4; ++j) {
                    const int row = part.by_row ? 4 * b + j : band.row(b, j) - part.top;
                    const unsigned char (*tap)[3] = colours + row * part.num_columns;
                    sums[j] = along_row(band.across[x], tap[columns[0]][c], tap[columns[1]][c], tap[columns[2]][c],
                                        tap[columns[3]][c]);
                }
            }
            picture[item] = (unsigned char)to_byte(across_rows(band.down[b], sums[0], sums[1], sums[2], sums[3]));
        }
    }
}

__device__ __forceinline__ unsigned char to_step(float value, float least, float most, float zero) {
    const float step = rintf(value);
    return (unsigned char)((step < least ? least : step > most ? most : step) + zero);
}

// Encodings "uv" (C 2) and "uvm" (C 3): the flow itself, and its magnitude, in steps of 1 / steps_per_px pixels.
// Grid: (ceil(SIZE / BAND), 1, P).
extern "C" __global__ void __launch_bounds__(THREADS)
    crop_motion(const float2* __restrict__ flows, const int* __restrict__ crops, unsigned char* __restrict__ pictures,
                float steps_per_px, int C, int W, int H) {
    __shared__ Band band;
    const float2* flow = flows + size_t(blockIdx.z) * W * H;
    const int y = blockIdx.x * BAND, num_rows = SIZE - y < BAND ? SIZE - y : BAND;
    PHASE { band.fill(crops + 4 * blockIdx.z, W, y); }
    PHASE {
        for (int item = threadIdx.x; item < num_rows * SIZE; item += THREADS) {
            const int b = item / SIZE, x = item % SIZE;
            float u[4] = {}, v[4] = {};
            if (band.is_inside(x)) {
                const Cubic& across = band.across[x];
                for (int j = 0; j < 4; ++j) {
                    float2 taps[4];
                    for (int i = 0; i < 4; ++i) {
                        taps[i] = flow[band.row(b, j) * W + band.column(x, i, W)];
                        if (!is_known(taps[i])) taps[i] = make_float2(0.0f, 0.0f);
                    }
                    u[j] = along_row(across, taps[0].x, taps[1].x, taps[2].x, taps[3].x);
                    v[j] = along_row(across, taps[0].y, taps[1].y, taps[2].y, taps[3].y);
                }
            }
            unsigned char* to = pictures + ((size_t(blockIdx.z) * SIZE + y) * SIZE + item) * C;
            const float dx = across_rows(band.down[b], u[0], u[1], u[2], u[3]);
            const float dy = across_rows(band.down[b], v[0], v[1], v[2], v[3]);
            to[0] = to_step(dx * steps_per_px, -127.0f, 127.0f, 128.0f);
            to[1] = to_step(dy * steps_per_px, -127.0f, 127.0f, 128.0f);
            if (C == 3) to[2] = to_step(sqrtf(dx * dx + dy * dy) * steps_per_px, 0.0f, 255.0f, 0.0f);
        }
    }
}

LAUNCH(find_rows)
LAUNCH(find_middles)
LAUNCH(crop_colours)
LAUNCH(crop_motion)
