// Farneback's dense flow for one core: the result of `cv2.calcOpticalFlowFarneback` in float32, several times faster.
//
// Inputs: frames, uint8 [height][width]. Output: flow, float32 [height][width][2], (dx, dy) in pixels per frame. A
// frame is expanded once (farneback_levels.h) and serves all of its pairs.
//
// Each level is swept once for all iterations. An iteration takes the rows of its starting flow one by one: it makes
// the row's five matrix planes, sums them over the window horizontally, then vertically, and so finishes the row of the
// new flow that lies half a window behind, which the next iteration takes while it is still in the cache. The new row
// replaces the old one, of which nobody needs more. The vertical sums of a box are those of van Herk: of each block of
// rows as long as the window the sums from a row to the block's end, plus the sum of the next block so far. That is
// three additions per value for any window, and no subtraction, which in float32 would leave its error behind.

#include <memory>

#include "farneback_levels.h"

namespace farneback {
namespace {

constexpr float EDGE_WEIGHTS[] = {0.14f, 0.14f, 0.4472f, 0.4472f, 0.4472f};  // from the border inward; then 1

float edge_weight(int index, int size) {
    const int distance = std::min(index, size - 1 - index);
    return distance < 5 ? EDGE_WEIGHTS[distance] : 1.0f;
}

struct Window {
    int half;
    std::vector<float> weights;  // of a gaussian, [2 * half + 1]; empty for a box
    float regulariser;           // added to the determinant of what is summed, not averaged
};

Window make_window(int winsize, bool is_gaussian) {
    Window window{winsize / 2, {}, 1e-3f};
    if (is_gaussian) {
        for (double weight : gaussian(window.half, 0.3 * window.half)) window.weights.push_back(static_cast<float>(weight));
    } else {
        const double area = static_cast<double>(winsize) * winsize;
        window.regulariser = static_cast<float>(1e-3 * area * area);
    }
    return window;
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
__attribute__((noinline)) void sample_rows(const Fit& fit, int first_column, int first_row, const Look& look, Floats* samples) {
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

// The same by way of the patch where the last vector looked, shifted by `offset`, or of another one, or without.
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
    inside = (u >= 0.0f) & (u < static_cast<float>(fit.width - 1)) & (v >= 0.0f) & (v < static_cast<float>(fit.height - 1));
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

// Sums of `window` neighbours from each place on: doubled again and again, and put together by the window's bits.
// `line` holds length + window - 1 values and is overwritten; `spare` is as long.
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
        for (int x = 0; x < length + window - 2 * bit; x += LANES) store(spare + x, load(line + x) + load(line + x + bit));
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
          line_length_(padded(max_width) + padded(2 * margin_) + OVERRUN), lines_(static_cast<std::size_t>(5) * line_length_),
          spare_(line_length_), edge_(static_cast<std::size_t>(5) * padded(max_width)), sums_(static_cast<std::size_t>(5) * padded(max_width)),
          so_far_(static_cast<std::size_t>(5) * padded(max_width)),
          ring_(static_cast<std::size_t>(5) * padded(max_width) * (taps_ + 1)) {}

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
        // Beyond the first and the last row they are repeated.
        float* edge = edge_.get();
        for (int x = 0; x < fit.stride; x += LANES) {
            Floats planes[5];
            make_matrices(fit, x, y, row_weight, offset, planes);
            for (int plane = 0; plane < 5; ++plane) store(edge + plane * fit.stride + x, planes[plane]);
        }
        for (int i = 0; i <= half_; ++i) {
            add([=](int x, Floats* planes) {
                for (int plane = 0; plane < 5; ++plane) planes[plane] = load(edge + plane * fit.stride + x);
            }, next);
        }
    }

  private:
    Window window_;
    int half_, taps_, margin_, line_length_, num_taken_ = 0;
    Fit fit_{};
    Buffer lines_;   // the five planes' vertical sums of a row, with a margin on either side
    Buffer spare_;
    Buffer edge_;    // the matrix planes of the first or the last row, [5][stride]
    Buffer sums_;    // a row's window sums, [5][stride]
    Buffer so_far_;  // the sum of this block's rows so far, [5][stride]
    Buffer ring_;    // [taps + 1][5][stride]: this block's rows, then the last block's sums from a row to its end, then 0

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

// What a level's flow starts from: bilinear samples of the next smaller level's flow.
struct Enlargement {
    std::vector<Sample> rows;
    std::vector<int> columns;  // [stride]
    std::vector<float> shares;
};

constexpr int MOST_AT_ONCE = 4;  // iterations in one sweep: more need more than the cache

struct Parameters {
    double pyr_scale, poly_sigma;
    int levels, winsize, iterations, poly_n;
    bool gaussian;
};

class Farneback {
  public:
    Farneback(int height, int width, const Parameters& p)
        : height_(height), width_(width), num_iterations_(p.iterations), up_(static_cast<float>(1 / p.pyr_scale)),
          levels_(make_levels(height, width, p.pyr_scale, p.levels)),
          expander_(height, width, p.poly_n, p.poly_sigma) {
        const Window window = make_window(p.winsize, p.gaussian);
        for (int i = 0; i < std::min(p.iterations, MOST_AT_ONCE); ++i) {
            chain_.push_back(std::make_unique<Iteration>(width, window));
        }
        const std::size_t flow = static_cast<std::size_t>(height) * 2 * padded(width) + OVERRUN;
        flow_ = Buffer(flow);
        coarser_ = Buffer(flow);
        line_ = Buffer(padded(width) + OVERRUN);
        columns_.resize(padded(width));
        edge_weights_.resize(padded(width));
        for (std::size_t k = 0; k + 1 < levels_.size(); ++k) enlargements_.push_back(enlarge(levels_[k + 1], levels_[k]));
    }

    std::size_t size() const { return expansion_size(levels_); }

    void expand(const std::uint8_t* gray, std::ptrdiff_t stride, float* expansion) {
        expander_.expand(gray, stride, levels_, expansion);
    }

    void flow(const float* first, const float* second, float* out) {
        for (std::size_t k = levels_.size(); k-- > 0;) {
            const Level& level = levels_[k];
            const bool is_coarsest = k + 1 == levels_.size();
            set_borders(level);
            if (is_coarsest) std::fill_n(flow_.get(), static_cast<std::size_t>(level.height) * 2 * level.stride, 0.0f);
            const std::size_t start = level.expansion_start;
            const Fit fit{level.height, level.width,     level.stride,    first + start,
                          second + start, flow_.get(), columns_.data(), edge_weights_.data()};
            for (int done = 0; done < num_iterations_; done += MOST_AT_ONCE) {
                const std::size_t num_now = std::min(num_iterations_ - done, MOST_AT_ONCE);
                const bool is_last = k == 0 && done + MOST_AT_ONCE >= num_iterations_;
                for (std::size_t i = chain_.size() - num_now; i < chain_.size(); ++i) chain_[i]->start(fit);
                for (int y = 0; y < level.height; ++y) {
                    if (done == 0 && !is_coarsest) start_row(k, y);
                    pass(chain_.size() - num_now, y, is_last ? out : nullptr);
                }
            }
            std::swap(flow_, coarser_);
        }
    }

  private:
    int height_, width_, num_iterations_;
    float up_;
    std::vector<Level> levels_;
    std::vector<Enlargement> enlargements_;  // to each level but the coarsest
    Expander expander_;
    std::vector<std::unique_ptr<Iteration>> chain_;  // a sweep goes through all of it or the end of it
    Buffer flow_, coarser_, line_;
    std::vector<int> columns_;
    std::vector<float> edge_weights_;

    static Enlargement enlarge(const Level& from, const Level& to) {
        Enlargement enlargement;
        for (int y = 0; y < to.height; ++y) enlargement.rows.push_back(bilinear(y, from.height, to.height));
        for (int x = 0; x < to.stride; ++x) {
            const Sample at = bilinear(std::min(x, to.width - 1), from.width, to.width);
            enlargement.columns.push_back(at.index);
            enlargement.shares.push_back(at.share);
        }
        return enlargement;
    }

    void set_borders(const Level& level) {
        for (int x = 0; x < level.stride; ++x) {
            columns_[x] = std::min(x, level.width - 2);
            edge_weights_[x] = x < level.width ? edge_weight(x, level.width) : 0.0f;
        }
    }

    void start_row(std::size_t k, int y) {
        const Level &from = levels_[k + 1], &to = levels_[k];
        const Enlargement& enlargement = enlargements_[k];
        const Sample at = enlargement.rows[y];
        const float upper = up_ * (1.0f - at.share), lower = up_ * at.share;
        for (int component = 0; component < 2; ++component) {
            const float* above = coarser_.get() + static_cast<std::size_t>(2 * at.index + component) * from.stride;
            const float* below = above + 2 * from.stride;
            float* line = line_.get();
            for (int x = 0; x < from.stride; x += LANES) store(line + x, upper * load(above + x) + lower * load(below + x));
            float* flow = flow_.get() + static_cast<std::size_t>(2 * y + component) * to.stride;
            for (int x = 0; x < to.stride; x += LANES) {
                const Ints column = load(enlargement.columns.data() + x);
                const Floats share = load(enlargement.shares.data() + x);
                const float* block = line + column[0];
                const Floats low = load(block), high = load(block + LANES);
                const Ints place = column - column[0];
                store(flow + x, (1.0f - share) * lookup(low, high, place) + share * lookup(low, high, place + 1));
            }
        }
    }

    // Row `y` goes through the chain from `i` on, as rows are finished; those that leave it are interleaved for `out`.
    void pass(std::size_t i, int y, float* out) {
        if (i < chain_.size()) {
            chain_[i]->take(y, [&](int finished) { pass(i + 1, finished, out); });
        } else if (out != nullptr) {
            const int stride = levels_[0].stride;
            const float* dx = flow_.get() + static_cast<std::size_t>(y) * 2 * stride;
            float* to = out + static_cast<std::size_t>(y) * 2 * width_;
            for (int x = 0; x < width_; ++x) {
                to[2 * x] = dx[x];
                to[2 * x + 1] = dx[stride + x];
            }
        }
    }
};

}  // namespace
}  // namespace farneback

// What Python calls, by ctypes. A handle is for one thread at a time.
extern "C" {

// A handle for frames of one size, at least 10 x 10, or null when there is no memory.
void* farneback_new(int height, int width, double pyr_scale, int levels, int winsize, int iterations, int poly_n,
                    double poly_sigma, int gaussian) {
    try {
        return new farneback::Farneback(height, width,
                                        {pyr_scale, poly_sigma, levels, winsize, iterations, poly_n, gaussian != 0});
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

void farneback_free(void* handle) { delete static_cast<farneback::Farneback*>(handle); }

// How many float32 the expansion of one frame takes.
std::size_t farneback_expansion_size(const void* handle) { return static_cast<const farneback::Farneback*>(handle)->size(); }

void farneback_expand(void* handle, const std::uint8_t* gray, std::ptrdiff_t stride_bytes, float* expansion) {
    static_cast<farneback::Farneback*>(handle)->expand(gray, stride_bytes, expansion);
}

// `flow` is [height][width][2].
void farneback_flow(void* handle, const float* first, const float* second, float* flow) {
    static_cast<farneback::Farneback*>(handle)->flow(first, second, flow);
}
}
