// The weighted sums of the temporal pyramid's windows in one pass over the map, forward and backward, for a CPU.
//
// A bin b = 1, 2, 4, 8, 16 tiles a clip's map by windows of b frames x b rows x all columns; a tail of frames that fills
// no window is left out. Each feature of each window is a sum over the window, weighed by the bin's kernel.
//
//     x        [clips][frames][SIDE][SIDE][features], float, or bfloat16 as its 16 bits
//     kernels  [KERNEL_ROWS][SIDE][features]; bin after bin, a bin has [b frames][b rows]
//     sums     [clips][windows][features]; bin after bin, a bin has [frames / b][SIDE / b]
//
// Clips are cut into slices. A slice is worked on by one thread and has its own sum of the kernels' gradients, so no
// sum depends on the number of threads. features must be a multiple of LANES.

#include <cstddef>
#include <cstdint>

#include "vectors.h"

namespace {

constexpr int SIDE = 16, BINS = 5;
constexpr int KERNEL_ROWS = 1 + 4 + 16 + 64 + 256;

struct Clips {
    std::ptrdiff_t clips, frames, features, slices;
    int threads;
};

// Where bin i's part of `sums` and `kernels` belongs to a row of a frame. `width` is 0 in a tail.
struct Place {
    std::ptrdiff_t window, kernel;
    bool is_inside;
};

struct Row {
    Place places[BINS];
};

Row locate(std::ptrdiff_t frames, std::ptrdiff_t frame, int y) {
    Row row;
    std::ptrdiff_t windows = 0, kernels = 0;
    for (int i = 0; i < BINS; ++i) {
        const std::ptrdiff_t b = std::ptrdiff_t{1} << i;
        row.places[i] = {windows + frame / b * (SIDE / b) + y / b, kernels + frame % b * b + y % b,
                         frame < frames / b * b};
        windows += frames / b * (SIDE / b);
        kernels += b * b;
    }
    return row;
}

std::ptrdiff_t num_windows(std::ptrdiff_t frames) {
    std::ptrdiff_t windows = 0;
    for (int i = 0; i < BINS; ++i) windows += (frames >> i) * (SIDE >> i);
    return windows;
}

template <class T>
void forward(const T* x, const float* kernels, float* sums, const Clips& of) {
    const std::ptrdiff_t features = of.features, row_size = SIDE * features, windows = num_windows(of.frames);
#pragma omp parallel for schedule(dynamic) num_threads(of.threads)
    for (std::ptrdiff_t clip = 0; clip < of.clips; ++clip) {
        float* const out = sums + clip * windows * features;
        for (std::ptrdiff_t i = 0; i < windows * features; ++i) out[i] = 0.0f;
        for (std::ptrdiff_t frame = 0; frame < of.frames; ++frame) {
            for (int y = 0; y < SIDE; ++y) {
                const Row row = locate(of.frames, frame, y);
                const T* const from = x + ((clip * of.frames + frame) * SIDE + y) * row_size;
                for (std::ptrdiff_t f = 0; f < features; f += LANES) {
                    Floats total[BINS] = {};
                    for (int column = 0; column < SIDE; ++column) {
                        const Floats value = load(from + column * features + f);
#pragma GCC unroll 5
                        for (int i = 0; i < BINS; ++i) {
                            total[i] += value * load(kernels + row.places[i].kernel * row_size + column * features + f);
                        }
                    }
                    for (int i = 0; i < BINS; ++i) {
                        if (!row.places[i].is_inside) continue;
                        float* const to = out + row.places[i].window * features + f;
                        store(to, load(to) + total[i]);
                    }
                }
            }
        }
    }
}

// `dkernels` is [slices][KERNEL_ROWS][SIDE][features], zero at first.
template <class T>
void backward(const float* dsums, const T* x, const float* kernels, T* dx, float* dkernels, const Clips& of) {
    const std::ptrdiff_t features = of.features, row_size = SIDE * features, windows = num_windows(of.frames);
#pragma omp parallel for schedule(dynamic) num_threads(of.threads)
    for (std::ptrdiff_t slice = 0; slice < of.slices; ++slice) {
        float* const own = dkernels + slice * KERNEL_ROWS * row_size;
        const std::ptrdiff_t first = of.clips * slice / of.slices, last = of.clips * (slice + 1) / of.slices;
        for (std::ptrdiff_t clip = first; clip < last; ++clip) {
            const float* const given = dsums + clip * windows * features;
            for (std::ptrdiff_t frame = 0; frame < of.frames; ++frame) {
                for (int y = 0; y < SIDE; ++y) {
                    const Row row = locate(of.frames, frame, y);
                    const std::ptrdiff_t start = ((clip * of.frames + frame) * SIDE + y) * row_size;
                    for (std::ptrdiff_t f = 0; f < features; f += LANES) {
                        Floats d[BINS];
                        for (int i = 0; i < BINS; ++i) {
                            d[i] =
                                row.places[i].is_inside ? load(given + row.places[i].window * features + f) : Floats{};
                        }
                        for (int column = 0; column < SIDE; ++column) {
                            const std::ptrdiff_t at = column * features + f;
                            const Floats value = load(x + start + at);
                            Floats total{};
#pragma GCC unroll 5
                            for (int i = 0; i < BINS; ++i) {
                                const std::ptrdiff_t place = row.places[i].kernel * row_size + at;
                                total += d[i] * load(kernels + place);
                                store(own + place, load(own + place) + d[i] * value);
                            }
                            store(dx + start + at, total);
                        }
                    }
                }
            }
        }
    }
}

}  // namespace

extern "C" {

int windows_lanes() { return LANES; }

void windows_forward(const void* x, const float* kernels, float* sums, int is_bfloat16, const Clips* clips) {
    if (is_bfloat16) {
        forward(static_cast<const std::uint16_t*>(x), kernels, sums, *clips);
    } else {
        forward(static_cast<const float*>(x), kernels, sums, *clips);
    }
}

void windows_backward(const float* dsums, const void* x, const float* kernels, void* dx, float* dkernels,
                      int is_bfloat16, const Clips* clips) {
    if (is_bfloat16) {
        backward(dsums, static_cast<const std::uint16_t*>(x), kernels, static_cast<std::uint16_t*>(dx), dkernels,
                 *clips);
    } else {
        backward(dsums, static_cast<const float*>(x), kernels, static_cast<float*>(dx), dkernels, *clips);
    }
}
}
