// Farneback's method, first part: the levels of a frame's pyramid and the polynomial expansion of each.
//
// The rules are those of `cv2.calcOpticalFlowFarneback` on the CPU. Every level is made from the full-resolution frame:
// a Gaussian, then a bilinear resize, here one set of weights per output row and column. The expansion of a level is
// R: for each row five planes side by side, [height][5][stride] float32, the coefficients of y, x, y^2, x^2 and xy of
// the polynomial fitted around each pixel. A constant that is added to the frame does not change R, so 128 is
// subtracted first: smaller numbers have smaller rounding errors.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "vectors.h"

namespace farneback {

// Zeroed float32, aligned for vectors.
class Buffer {
  public:
    explicit Buffer(std::size_t size = 0)
        : data_(static_cast<float*>(::operator new[](size * sizeof(float) + 1, std::align_val_t(64)))) {
        std::fill_n(data_, size, 0.0f);
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
    Buffer& operator=(Buffer&& other) noexcept {
        std::swap(data_, other.data_);
        return *this;
    }
    ~Buffer() { ::operator delete[](data_, std::align_val_t(64)); }
    float* get() { return data_; }

  private:
    float* data_;
};

// A multiple of every vector's length, so that the last vector of a row stays in the row.
inline int padded(int size) { return (size + 15) / 16 * 16; }

constexpr int OVERRUN = 64;  // floats before and after the stored ones, which may be read but are not used

// Each output along one axis is the sum of `count` inputs from `first` on, weighted. Padded to `length` outputs, the
// last of them repeated.
struct Taps {
    int count, length;
    std::vector<int> first;      // [length]
    std::vector<float> weights;  // [count][length]
};

// Where a bilinear resize with half-pixel centres samples: between `index` and `index + 1`, `share` of the latter.
struct Sample {
    int index;
    float share;
};

inline Sample bilinear(int output, int num_inputs, int num_outputs) {
    const float centre = static_cast<float>((output + 0.5) * (static_cast<double>(num_inputs) / num_outputs) - 0.5);
    const int index = static_cast<int>(std::floor(centre));
    if (index < 0) return {0, 0.0f};
    if (index >= num_inputs - 1) return {num_inputs - 2, 1.0f};
    return {index, centre - static_cast<float>(index)};
}

inline int reflected(int index, int size) {
    while (index < 0 || index >= size) index = index < 0 ? -index : 2 * (size - 1) - index;
    return index;
}

// exp(-i^2 / 2 sigma^2) for i = -half to half, with sum 1.
inline std::vector<double> gaussian(int half, double sigma) {
    std::vector<double> weights(2 * half + 1);
    double sum = 0;
    for (int i = -half; i <= half; ++i) sum += weights[i + half] = std::exp(-i * i / (2 * sigma * sigma));
    for (double& weight : weights) weight /= sum;
    return weights;
}

// Blur by `kernel` with border reflect-101, then resize.
inline Taps blur_and_resize(const std::vector<double>& kernel, int num_inputs, int num_outputs) {
    const int length = static_cast<int>(kernel.size()), half = length / 2;
    const bool same = num_inputs == num_outputs;
    const int count = std::min(length + (same ? 0 : 1), num_inputs);
    Taps taps{count, padded(num_outputs), {}, {}};
    taps.weights.resize(static_cast<std::size_t>(count) * taps.length);
    std::vector<double> row(num_inputs);
    for (int i = 0; i < taps.length; ++i) {
        const int output = std::min(i, num_outputs - 1);
        const Sample at = same ? Sample{output, 0.0f} : bilinear(output, num_inputs, num_outputs);
        std::fill(row.begin(), row.end(), 0.0);
        for (int k = 0; k < length; ++k) {
            row[reflected(at.index + k - half, num_inputs)] += (1.0 - at.share) * kernel[k];
            if (at.share > 0) row[reflected(at.index + 1 + k - half, num_inputs)] += at.share * kernel[k];
        }
        taps.first.push_back(std::clamp(at.index - half, 0, num_inputs - count));
        for (int k = 0; k < count; ++k) {
            taps.weights[static_cast<std::size_t>(k) * taps.length + i] = static_cast<float>(row[taps.first[i] + k]);
        }
    }
    return taps;
}

struct Level {
    int height, width, stride;
    Taps rows, columns;           // from the frame to this level's image
    std::size_t expansion_start;  // where its R starts in a frame's expansion, in floats
};

inline std::vector<Level> make_levels(int height, int width, double pyr_scale, int max_levels) {
    int num_smaller = 0;
    for (double scale = pyr_scale; num_smaller < max_levels; scale *= pyr_scale, ++num_smaller) {
        if (width * scale < 32 || height * scale < 32) break;
    }
    std::vector<Level> levels;
    std::size_t start = OVERRUN;
    double scale = 1;
    for (int k = 0; k <= num_smaller; ++k, scale *= pyr_scale) {
        const double sigma = (1 / scale - 1) / 2;
        const int taps = std::max(static_cast<int>(std::nearbyint(5 * sigma)) | 1, 3);
        // A sigma of 0 means a fixed kernel: the full resolution is smoothed too.
        const std::vector<double> kernel = sigma > 0 ? gaussian(taps / 2, sigma) : std::vector<double>{0.25, 0.5, 0.25};
        Level level;
        level.height = static_cast<int>(std::nearbyint(height * scale));
        level.width = static_cast<int>(std::nearbyint(width * scale));
        level.stride = padded(level.width);
        level.rows = blur_and_resize(kernel, height, level.height);
        level.columns = blur_and_resize(kernel, width, level.width);
        level.expansion_start = start;
        start += static_cast<std::size_t>(level.height) * 5 * level.stride;
        levels.push_back(level);
    }
    return levels;
}

inline std::size_t expansion_size(const std::vector<Level>& levels) {
    const Level& last = levels.back();
    return last.expansion_start + static_cast<std::size_t>(last.height) * 5 * last.stride + OVERRUN;
}

// The fit's filters for offsets 0 to n. Even ones are mirrored to negative offsets, odd ones mirrored and negated.
struct Filters {
    std::vector<float> smooth;       // even: g
    std::vector<float> slope;        // odd: i g
    std::vector<float> curve;        // even: i^2 g ig33 + g ig03
    std::vector<float> smooth_ig11;  // even
    std::vector<float> slope_ig11;   // odd
    std::vector<float> slope_ig55;   // odd
};

inline Filters make_filters(int n, double sigma) {
    std::vector<float> g(n + 1);
    double sum = 0;
    for (int i = 0; i <= n; ++i) {
        g[i] = static_cast<float>(std::exp(-i * i / (2 * sigma * sigma)));
        sum += (i ? 2.0 : 1.0) * g[i];
    }
    for (float& value : g) value = static_cast<float>(value / sum);
    double m0 = g[0], m2 = 0, m4 = 0;
    for (int i = 1; i <= n; ++i) {
        m0 += 2.0 * g[i];
        m2 += 2.0 * g[i] * i * i;
        m4 += 2.0 * g[i] * i * i * i * i;
    }
    // Entries of the inverse of the normal equations' matrix, in closed form.
    const double a = m0 * m0, b = m0 * m2, c = m0 * m4, d = m2 * m2, f = a * (c + d) - 2 * b * b;
    const double ig03 = -b / f, ig33 = (a * c - b * b) / ((c - d) * f), ig11 = 1 / b, ig55 = 1 / d;
    Filters filters;
    for (int i = 0; i <= n; ++i) {
        const float slope = static_cast<float>(i) * g[i], curve = static_cast<float>(i) * slope;
        filters.smooth.push_back(g[i]);
        filters.slope.push_back(slope);
        filters.curve.push_back(static_cast<float>(curve * ig33 + g[i] * ig03));
        filters.smooth_ig11.push_back(static_cast<float>(g[i] * ig11));
        filters.slope_ig11.push_back(static_cast<float>(slope * ig11));
        filters.slope_ig55.push_back(static_cast<float>(slope * ig55));
    }
    return filters;
}

class Expander {
  public:
    Expander(int height, int width, int poly_n, double poly_sigma)
        : height_(height), width_(width), stride_(padded(width)), n_(poly_n), margin_(padded(poly_n)),
          filters_(make_filters(poly_n, poly_sigma)) {
        const std::size_t picture = static_cast<std::size_t>(height) * stride_;
        frame_ = Buffer(picture);
        image_ = Buffer(picture);
        lines_ = Buffer(static_cast<std::size_t>(3) * (stride_ + 2 * margin_) + OVERRUN);
    }

    // `gray` is [height][width] with `gray_stride` bytes from row to row; `expansion` takes all levels' R.
    void expand(const std::uint8_t* gray, std::ptrdiff_t gray_stride, const std::vector<Level>& levels,
                float* expansion) {
        for (int y = 0; y < height_; ++y) {
            const std::uint8_t* from = gray + y * gray_stride;
            float* to = frame_.get() + static_cast<std::size_t>(y) * stride_;
            for (int x = 0; x < width_; ++x) to[x] = static_cast<float>(from[x]) - 128.0f;
        }
        for (const Level& level : levels) {
            make_image(level);
            float* r = expansion + level.expansion_start;
            if (n_ == 5) {
                expand_level<5>(level, r);
            } else if (n_ == 7) {
                expand_level<7>(level, r);
            } else {
                expand_level<0>(level, r);
            }
        }
    }

  private:
    int height_, width_, stride_, n_, margin_;
    Filters filters_;
    Buffer frame_, image_, lines_;

    // The level's image, [level.height][level.stride].
    void make_image(const Level& level) {
        float* line = lines_.get() + margin_;
        for (int y = 0; y < level.height; ++y) {
            const float* rows = frame_.get() + static_cast<std::size_t>(level.rows.first[y]) * stride_;
            const float* weights = &level.rows.weights[y];
            for (int x = 0; x < stride_; x += LANES) {
                Floats sum{};
                for (int k = 0; k < level.rows.count; ++k) {
                    sum += weights[k * level.rows.length] * load(rows + static_cast<std::size_t>(k) * stride_ + x);
                }
                store(line + x, sum);
            }
            float* to = image_.get() + static_cast<std::size_t>(y) * level.stride;
            for (int x = 0; x < level.stride; x += LANES) store(to + x, resized(line, level.columns, x));
        }
    }

    // The outputs from `x` on of one line.
    INLINE Floats resized(const float* line, const Taps& taps, int x) {
        const int first = taps.first[x], span = taps.first[x + LANES - 1] - first;
        const Ints place = load(&taps.first[x]) - first;
        Floats sum{};
        for (int k = 0; k < taps.count; ++k) {
            const float* from = line + first + k;
            Floats input{};
            for (int start = 0; start <= span; start += 2 * LANES) {
                const Floats found = lookup(load(from + start), load(from + start + LANES), place - start);
                input = place >= start ? found : input;
            }
            sum += load(&taps.weights[static_cast<std::size_t>(k) * taps.length + x]) * input;
        }
        return sum;
    }

    // N is poly_n where the compiler may unroll for it, else 0. Borders are replicated.
    template <int N> void expand_level(const Level& level, float* r) {
        const int n = N ? N : n_;
        const int line_length = stride_ + 2 * margin_;
        float* smooth = lines_.get() + margin_;  // the frame filtered vertically by three of the filters
        float* slope = smooth + line_length;
        float* curve = slope + line_length;
        const Filters& f = filters_;
        for (int y = 0; y < level.height; ++y) {
            const int rows_below = level.height - 1 - y;
            const float* centre = image_.get() + static_cast<std::size_t>(y) * level.stride;
            for (int x = 0; x < level.stride; x += LANES) {
                const Floats middle = load(centre + x);
                Floats smooth_sum = f.smooth[0] * middle, slope_sum{}, curve_sum = f.curve[0] * middle;
                for (int i = 1; i <= n; ++i) {
                    const std::ptrdiff_t down = std::min(i, rows_below), up = std::min(i, y);
                    const Floats above = load(centre - up * level.stride + x);
                    const Floats below = load(centre + down * level.stride + x);
                    const Floats even = below + above;
                    smooth_sum += f.smooth[i] * even;
                    slope_sum += f.slope[i] * (below - above);
                    curve_sum += f.curve[i] * even;
                }
                store(smooth + x, smooth_sum);
                store(slope + x, slope_sum);
                store(curve + x, curve_sum);
            }
            for (float* line : {smooth, slope, curve}) {
                std::fill(line - n, line, line[0]);
                std::fill(line + level.width, line + level.width + n, line[level.width - 1]);
            }
            for (int x = 0; x < level.stride; x += LANES) {
                Floats r0 = f.smooth_ig11[0] * load(slope + x), r1{}, r2 = f.smooth[0] * load(curve + x);
                Floats r3 = f.curve[0] * load(smooth + x), r4{};
                for (int i = 1; i <= n; ++i) {
                    const Floats smooth_left = load(smooth + x - i), smooth_right = load(smooth + x + i);
                    const Floats slope_left = load(slope + x - i), slope_right = load(slope + x + i);
                    r0 += f.smooth_ig11[i] * (slope_right + slope_left);
                    r1 += f.slope_ig11[i] * (smooth_right - smooth_left);
                    r2 += f.smooth[i] * (load(curve + x + i) + load(curve + x - i));
                    r3 += f.curve[i] * (smooth_right + smooth_left);
                    r4 += f.slope_ig55[i] * (slope_right - slope_left);
                }
                float* to = r + static_cast<std::size_t>(y) * 5 * level.stride + x;
                store(to, r0);
                store(to + level.stride, r1);
                store(to + 2 * level.stride, r2);
                store(to + 3 * level.stride, r3);
                store(to + 4 * level.stride, r4);
            }
        }
    }
};

}  // namespace farneback
