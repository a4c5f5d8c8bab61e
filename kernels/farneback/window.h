// Farneback's method, third part: one update of the flow, from the average of the matrix planes over a window.
//
// Rows go in one by one and come out half a window later. The vertical sums of a box are computed by van Herk's method:
// rows are divided into blocks as long as the window. A sum is the sum from a row to the end of its block, plus the sum
// of the next block so far. This takes three additions per value, whatever the window. Subtractions are avoided,
// because in float32 their rounding errors would add up.

#pragma once

#include "matrices.h"

namespace farneback {
namespace {

struct Window {
    int half;
    std::vector<float> weights;  // of a gaussian, [2 * half + 1]; empty for a box
    float regulariser;           // added to the determinant of what is summed, not averaged
};

Window make_window(int winsize, bool is_gaussian) {
    Window window{winsize / 2, {}, 1e-3f};
    if (is_gaussian) {
        const std::vector<double> weights = gaussian(window.half, 0.3 * window.half);
        window.weights.assign(weights.begin(), weights.end());
    } else {
        const double area = static_cast<double>(winsize) * winsize;
        window.regulariser = static_cast<float>(1e-3 * area * area);
    }
    return window;
}

#if LANES == 16
// The lanes `count` places further right in `left` followed by `right`.
template <int count> Floats shifted(Floats left, Floats right) {
    return (Floats)_mm512_maskz_alignr_epi32(0xffff, (__m512i)right, (__m512i)left, count);
}

// As sum_box, for the published window, with all intermediate sums in registers. Loads and shifts share the work.
void sum_box_of_15(const float* line, int length, float* sums) {
    const auto two_at = [=](int x) { return load(line + x) + load(line + x + 1); };
    Floats two = two_at(0), next_two = two_at(16), four = two + shifted<2>(two, next_two);
    for (int x = 0; x < length; x += 16) {
        const Floats third_two = two_at(x + 32), next_four = next_two + shifted<2>(next_two, third_two);
        const Floats eight = four + shifted<4>(four, next_four);
        store(sums + x, (eight + shifted<8>(four, next_four)) + (shifted<12>(two, next_two) + load(line + x + 14)));
        two = next_two, next_two = third_two, four = next_four;
    }
}
#endif

// For each place, the sum of `window` values from there on. Sums of 1, 2, 4, ... values are made one after the other,
// and those that the bits of `window` name are added. `line` holds length + window - 1 values and is overwritten;
// `spare` is as long.
void sum_box(float* line, float* spare, int window, int length, float* sums) {
#if LANES == 16
    if (window == 15) return sum_box_of_15(line, length, sums);
#endif
    int done = 0;
    for (int bit = 1; bit <= window; bit *= 2) {
        // `line` holds sums of `bit` values.
        if (window & bit) {
            for (int x = 0; x < length; x += LANES) {
                store(sums + x, done ? load(sums + x) + load(line + x + done) : load(line + x));
            }
            done += bit;
        }
        if (2 * bit > window) break;
        for (int x = 0; x < length + window - 2 * bit; x += LANES) {
            store(spare + x, load(line + x) + load(line + x + bit));
        }
        std::swap(line, spare);
    }
}

void sum_weighted(const float* line, const std::vector<float>& weights, int length, float* sums) {
    const int num_weights = static_cast<int>(weights.size());
    for (int x = 0; x < length; x += LANES) {
        Floats sum{};
        for (int i = 0; i < num_weights; ++i) sum += weights[i] * load(line + x + i);
        store(sums + x, sum);
    }
}

// One update of a level's flow, row by row.
class Iteration {
  public:
    Iteration(int max_width, const Window& window)
        : window_(window), half_(window.half), taps_(2 * window.half + 1), margin_(padded(window.half) + window.half),
          line_length_(padded(max_width) + padded(2 * margin_) + OVERRUN), lines_(five(line_length_)),
          spare_(line_length_), edge_(five(padded(max_width))), sums_(five(padded(max_width))),
          so_far_(five(padded(max_width))), ring_(five(padded(max_width)) * (taps_ + 1)) {}

    void start(const Fit& fit) {
        fit_ = fit;
        num_taken_ = 0;
        const std::size_t row = static_cast<std::size_t>(5) * fit.stride;
        std::fill_n(so_far_.get(), row, 0.0f);
        std::fill_n(ring_.get() + row * taps_, row, 0.0f);
    }

    // Take row `y` of the old flow; hand each row of the new flow that is finished to `next`.
    template <typename Next> void take(int y, Next&& next) {
        const Fit fit = fit_;
        const float row_weight = edge_weight(y, fit.height);
        Patch offset{-LANES / 2, -1};
        if (y > 0 && y < fit.height - 1) {
            add([=, &offset](int x, Floats* planes) { make_matrices(fit, x, y, row_weight, offset, planes); }, next);
            return;
        }
        // Above the first row and below the last row, that row is repeated.
        float* edge = edge_.get();
        for (int x = 0; x < fit.stride; x += LANES) {
            Floats planes[5];
            make_matrices(fit, x, y, row_weight, offset, planes);
            for (int plane = 0; plane < 5; ++plane) store(edge + plane * fit.stride + x, planes[plane]);
        }
        for (int i = 0; i <= half_; ++i) {
            add(
                [=](int x, Floats* planes) {
                    for (int plane = 0; plane < 5; ++plane) planes[plane] = load(edge + plane * fit.stride + x);
                },
                next);
        }
    }

  private:
    Window window_;
    int half_, taps_, margin_, line_length_, num_taken_ = 0;
    Fit fit_{};
    Buffer lines_;  // the five planes' vertical sums of a row, with a margin on either side
    Buffer spare_;
    Buffer edge_;    // the matrix planes of the first or the last row, [5][stride]
    Buffer sums_;    // a row's window sums, [5][stride]
    Buffer so_far_;  // the sum of this block's rows so far, [5][stride]
    // [taps + 1][5][stride]: this block's rows, then for the last block the sums from a row to its end, then 0.
    Buffer ring_;

    static std::size_t five(int length) { return static_cast<std::size_t>(5) * length; }

    bool is_gaussian() const { return !window_.weights.empty(); }

    // Add a row, whose planes `make(x, planes)` gives.
    template <typename Make, typename Next> void add(Make&& make, Next&& next) {
        const int stride = fit_.stride, row = 5 * stride, line_length = line_length_;
        const int place = num_taken_ % taps_, finished = num_taken_ - 2 * half_;
        ++num_taken_;
        float *own = ring_.get() + static_cast<std::size_t>(place) * row, *so_far = so_far_.get();
        float* lines = lines_.get() + margin_;
        for (int x = 0; x < stride; x += LANES) {
            Floats planes[5];
            make(x, planes);
            for (int plane = 0; plane < 5; ++plane) {
                const int at = plane * stride + x;
                const Floats sum = load(so_far + at) + planes[plane];
                store(own + at, planes[plane]);
                store(so_far + at, sum);
                store(lines + plane * line_length + x, sum + load(own + row + at));
            }
        }
        if (is_gaussian()) {
            if (finished >= 0) weigh_rows(place);
        } else if (place == taps_ - 1) {
            for (int i = 1; i < taps_; ++i) {
                own -= row;
                for (int x = 0; x < row; x += LANES) store(own + x, load(own + x) + load(own + row + x));
            }
            std::fill_n(so_far, row, 0.0f);
        }
        if (finished >= 0) {
            finish(finished);
            next(finished);
        }
    }

    // The vertical sums of a gaussian, when the newest row is at `place`.
    void weigh_rows(int place) {
        const int stride = fit_.stride;
        for (int plane = 0; plane < 5; ++plane) {
            float* line = lines_.get() + margin_ + plane * line_length_;
            for (int x = 0; x < stride; x += LANES) {
                Floats sum{};
                for (int i = 0; i < taps_; ++i) {
                    const std::size_t row = (place + 1 + i) % taps_;
                    sum += window_.weights[i] * load(ring_.get() + (row * 5 + plane) * stride + x);
                }
                store(line + x, sum);
            }
        }
    }

    // Row `y` of the new flow, from the vertical sums.
    void finish(int y) {
        const int stride = fit_.stride, width = fit_.width;
        for (int plane = 0; plane < 5; ++plane) {
            float* line = lines_.get() + margin_ + plane * line_length_;
            const Floats left = all(line[0]), right = all(line[width - 1]);
            for (int x = -padded(half_); x < 0; x += LANES) store(line + x, left);
            for (int x = 0; x < half_; x += LANES) store(line + width + x, right);
            float* sums = sums_.get() + plane * stride;
            if (!is_gaussian()) {
                sum_box(line - half_, spare_.get(), taps_, width, sums);
            } else {
                sum_weighted(line - half_, window_.weights, width, sums);
            }
        }
        const float *sums = sums_.get(), regulariser = window_.regulariser;
        float* flow = fit_.flow + static_cast<std::size_t>(y) * 2 * stride;
        for (int x = 0; x < stride; x += LANES) {
            const Floats m0 = load(sums + x), m1 = load(sums + stride + x), m2 = load(sums + 2 * stride + x);
            const Floats m3 = load(sums + 3 * stride + x), m4 = load(sums + 4 * stride + x);
            const Floats scale = 1.0f / (m0 * m2 - m1 * m1 + regulariser);
            store(flow + x, (m0 * m4 - m1 * m3) * scale);
            store(flow + stride + x, (m2 * m3 - m1 * m4) * scale);
        }
    }
};

}  // namespace
}  // namespace farneback
