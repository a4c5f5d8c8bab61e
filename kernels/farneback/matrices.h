// Farneback's method, second part: what each pixel says about the flow, given the flow so far.
//
// A pixel's polynomial in the first frame is compared with a polynomial of the second frame: the one at the place where
// the present flow points, a bilinear sample between four neighbours. Sampling takes most of the method's time.
// Neighbouring pixels mostly point to neighbouring places. So a patch of a few vectors is read, and the samples are
// chosen from it in registers. Only samples that no patch covers are read one by one.
//
// R is [height][5][stride] float32 (levels.h); flow is [height][2][stride], (dx, dy) in pixels per frame. The
// results are five planes: the entries of the symmetric 2 x 2 matrix, then those of the right-hand side.

#pragma once

#include "levels.h"

namespace farneback {
namespace {

constexpr float EDGE_WEIGHTS[] = {0.14f, 0.14f, 0.4472f, 0.4472f, 0.4472f};  // from the border inward; then 1

float edge_weight(int index, int size) {
    const int distance = std::min(index, size - 1 - index);
    return distance < 5 ? EDGE_WEIGHTS[distance] : 1.0f;
}

// The flow of one level, and the two expansions it is to fit.
struct Fit {
    int height, width, stride;
    const float *first, *second;  // R, [height][5][stride]
    float* flow;                  // [height][2][stride]
    const int* columns;           // 0 to width - 2, then width - 2 again: [stride]
    const float* edge_weights;    // of the columns, [stride]
};

// Where the lanes of one vector look into the second frame's expansion.
struct Look {
    Ints column, row;     // of the upper left neighbour
    Floats share_x;       // of the right neighbours
    Floats upper, lower;  // half the weight of the upper and of the lower neighbours; 0 where the look is outside
};

// What a few vectors hold of the second frame's expansion: rows `row` to `row + 2`, 2 * LANES columns from `column` on.
struct Patch {
    int column, row;
};

INLINE bool covers(Patch patch, const Look& look) {
    const Ints right = look.column - patch.column, down = look.row - patch.row;
    return !any((right < 0) | (right > 2 * LANES - 2) | (down < 0) | (down > 1));
}

constexpr int MOST_ROWS = 12;  // more are looked up faster lane by lane

// Half of the bilinear samples of the second frame's five planes, lane by lane.
__attribute__((noinline)) void sample_anywhere(const Fit& fit, const Look& look, Floats* samples) {
    const std::size_t row_length = static_cast<std::size_t>(5) * fit.stride;
    for (int lane = 0; lane < LANES; ++lane) {
        const float* from = fit.second + look.row[lane] * row_length + look.column[lane];
        const float share_x = look.share_x[lane];
        for (int plane = 0; plane < 5; ++plane, from += fit.stride) {
            const float upper = from[0] + share_x * (from[1] - from[0]);
            const float lower = from[row_length] + share_x * (from[row_length + 1] - from[row_length]);
            samples[plane][lane] = look.upper[lane] * upper + look.lower[lane] * lower;
        }
    }
}

// Adds one row of five planes, from `from` on, to samples: the lanes are sorted out in registers.
INLINE void add_row(const float* from, int stride, Ints left, Floats share_x, Floats weight, Floats* samples) {
    const Ints right = left + 1;
    const Floats right_weight = share_x * weight, left_weight = weight - right_weight;
    for (int plane = 0; plane < 5; ++plane, from += stride) {
        const Floats low = kept(load(from)), high = kept(load(from + LANES));
        samples[plane] += left_weight * lookup(low, high, left);
        samples[plane] += right_weight * lookup(low, high, right);
    }
}

// The same, row by row from `first_row` on, with 2 * LANES columns from `first_column` on covering all lanes.
__attribute__((noinline)) void sample_rows(const Fit& fit, int first_column, int first_row, const Look& look,
                                           Floats* samples) {
    const Ints left = look.column - first_column;
    const float* from = fit.second + static_cast<std::ptrdiff_t>(first_row) * 5 * fit.stride + first_column;
    Floats sums[5]{};
    for (int row = first_row; any(look.row >= row - 1); ++row, from += 5 * fit.stride) {
        const Floats weight = look.row == row ? look.upper : look.row == row - 1 ? look.lower : Floats{};
        add_row(from, fit.stride, left, look.share_x, weight, sums);
    }
    std::copy(sums, sums + 5, samples);
}

// The same from a patch that covers all lanes.
INLINE void sample_patch(const Fit& fit, Patch patch, const Look& look, Floats* samples) {
    const Ints left = look.column - patch.column, is_upper = look.row == patch.row;
    const float* from = fit.second + static_cast<std::ptrdiff_t>(patch.row) * 5 * fit.stride + patch.column;
    for (int plane = 0; plane < 5; ++plane) samples[plane] = Floats{};
    add_row(from, fit.stride, left, look.share_x, is_upper ? look.upper : Floats{}, samples);
    add_row(from + 5 * fit.stride, fit.stride, left, look.share_x, is_upper ? look.lower : look.upper, samples);
    add_row(from + 10 * fit.stride, fit.stride, left, look.share_x, is_upper ? Floats{} : look.lower, samples);
}

// The same where no patch is enough.
__attribute__((noinline)) void sample_rest(const Fit& fit, Patch patch, const Look& look, Floats* samples) {
    const Ints left = look.column - patch.column;
    int first = patch.row, last = patch.row + 1;
    while (any(look.row < first) && last - first < MOST_ROWS) --first;
    while (any(look.row > last) && last - first < MOST_ROWS) ++last;
    if (any((left < 0) | (left > 2 * LANES - 2) | (look.row < first) | (look.row > last))) {
        sample_anywhere(fit, look, samples);
    } else {
        sample_rows(fit, patch.column, first, look, samples);
    }
}

// The same. Tries the patch at `offset` first, where the last vector was sampled; then another patch; then none.
INLINE void sample(const Fit& fit, int x, int y, Patch& offset, const Look& look, Floats* samples) {
    const auto patch_at = [&](int column, int row) { return Patch{column, std::clamp(row, 0, fit.height - 3)}; };
    Patch patch = patch_at(x + offset.column, y + offset.row);
    if (!covers(patch, look)) {
        const int row = look.row[0], column = look.column[0];
        patch = patch_at(column - LANES / 2, any(look.row < row) ? row - 1 : row);
        if (!covers(patch, look)) return sample_rest(fit, patch, look, samples);
        offset = {patch.column - x, patch.row - y};
    }
    sample_patch(fit, patch, look, samples);
}

// Where the pixels from (x, y) on look by the present flow; `inside` is set where that is in the frame.
INLINE Look look_from(const Fit& fit, int x, int y, Floats dx, Floats dy, Ints& inside) {
    Ints lanes;
    for (int lane = 0; lane < LANES; ++lane) lanes[lane] = lane;
    const Floats u = to_floats(lanes + x) + dx, v = static_cast<float>(y) + dy;
    // Written so that NaN is outside.
    const float last_u = static_cast<float>(fit.width - 1), last_v = static_cast<float>(fit.height - 1);
    inside = (u >= 0.0f) & (u < last_u) & (v >= 0.0f) & (v < last_v);
    const Floats safe_u = inside ? u : to_floats(load(fit.columns + x));
    const Floats safe_v = inside ? v : all(static_cast<float>(std::min(y, fit.height - 2)));
    Look look;
    look.column = to_ints(safe_u);
    look.row = to_ints(safe_v);
    look.share_x = safe_u - to_floats(look.column);
    const Floats half = inside ? all(0.5f) : Floats{};
    look.lower = half * (safe_v - to_floats(look.row));
    look.upper = half - look.lower;
    return look;
}

// The matrix planes at the pixels from (x, y) on, for the present flow.
INLINE void make_matrices(const Fit& fit, int x, int y, float row_weight, Patch& offset, Floats* planes) {
    const int stride = fit.stride;
    const float* r = fit.first + static_cast<std::size_t>(y) * 5 * stride + x;
    const float* flow = fit.flow + static_cast<std::size_t>(y) * 2 * stride + x;
    const Floats dx = load(flow), dy = load(flow + stride);
    Ints inside;
    const Look look = look_from(fit, x, y, dx, dy, inside);
    Floats s[5];
    sample(fit, x, y, offset, look, s);
    const Floats own = inside ? all(0.5f) : all(1.0f);
    const Floats r4 = own * load(r + 2 * stride) + s[2];
    const Floats r5 = own * load(r + 3 * stride) + s[3];
    const Floats r6 = 0.5f * (own * load(r + 4 * stride) + s[4]);
    const Floats r2 = 0.5f * load(r) - s[0] + r4 * dy + r6 * dx;
    const Floats r3 = 0.5f * load(r + stride) - s[1] + r6 * dy + r5 * dx;
    const Floats weight = row_weight * load(fit.edge_weights + x);
    const Floats squared = weight * weight;
    planes[0] = squared * (r4 * r4 + r6 * r6);
    planes[1] = squared * ((r4 + r5) * r6);
    planes[2] = squared * (r5 * r5 + r6 * r6);
    planes[3] = squared * (r4 * r2 + r6 * r3);
    planes[4] = squared * (r6 * r2 + r5 * r3);
}

}  // namespace
}  // namespace farneback
