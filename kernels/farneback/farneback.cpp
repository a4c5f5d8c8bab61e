// Farneback's dense flow for one core: the result of `cv2.calcOpticalFlowFarneback` in float32, several times faster.
//
// Inputs: frames, uint8 [height][width]. Output: flow, float32 [height][width][2], (dx, dy) in pixels per frame. A
// frame is expanded once (levels.h) and serves all of its pairs.
//
// One sweep over a level does all iterations (window.h). An iteration takes the rows of its starting flow one by one.
// It finishes a row of the new flow half a window later, and the next iteration takes this row while it is still in the
// cache. The new row replaces the old one, because no iteration needs the old one any more.

#include <memory>

#include "window.h"

namespace farneback {
namespace {

// What a level's flow starts from: bilinear samples of the next smaller level's flow.
struct Enlargement {
    std::vector<Sample> rows;
    std::vector<int> columns;  // [stride]
    std::vector<float> shares;
};

constexpr int MOST_AT_ONCE = 4;  // iterations in one sweep: the rows of more would not fit into the cache

struct Parameters {
    double pyr_scale, poly_sigma;
    int levels, winsize, iterations, poly_n;
    bool gaussian;
};

class Farneback {
  public:
    Farneback(int height, int width, const Parameters& p)
        : height_(height), width_(width), num_iterations_(p.iterations), up_(static_cast<float>(1 / p.pyr_scale)),
          levels_(make_levels(height, width, p.pyr_scale, p.levels)), expander_(height, width, p.poly_n, p.poly_sigma) {
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
        for (std::size_t k = 1; k < levels_.size(); ++k) enlargements_.push_back(enlarge(levels_[k], levels_[k - 1]));
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
            const Fit fit{level.height,   level.width, level.stride,    first + start,
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
            for (int x = 0; x < from.stride; x += LANES) {
                store(line + x, upper * load(above + x) + lower * load(below + x));
            }
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

    // Gives row `y` to the chain from iteration `i` on. Rows that the last one finishes are interleaved into `out`.
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
std::size_t farneback_expansion_size(const void* handle) {
    return static_cast<const farneback::Farneback*>(handle)->size();
}

void farneback_expand(void* handle, const std::uint8_t* gray, std::ptrdiff_t stride_bytes, float* expansion) {
    static_cast<farneback::Farneback*>(handle)->expand(gray, stride_bytes, expansion);
}

// `flow` is [height][width][2].
void farneback_flow(void* handle, const float* first, const float* second, float* flow) {
    static_cast<farneback::Farneback*>(handle)->flow(first, second, flow);
}
}
