// From the inflated rows of a PNG file to a grey picture, as libpng makes it for OpenCV: the filters are undone, and
// colours become grey.
//
// `rows` is uint8 [height][1 + width * channels]: each row begins with the number of its filter. 8 bits a sample, not
// interlaced; 1 channel (grey) or 3 (R, G, B). Source: PNG specification (third edition), 9 Filtering.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

typedef std::uint8_t Bytes __attribute__((vector_size(4)));
typedef int Samples __attribute__((vector_size(16)));  // of one pixel, the fourth lane unused

enum Filter { NONE, SUB, UP, AVERAGE, PAETH };

// Shares of 32768, as png_set_rgb_to_gray truncates 0.299 and 0.587.
constexpr int RED = 9797, GREEN = 19234, BLUE = 32768 - RED - GREEN;

Samples load(const std::uint8_t* from) {
    Bytes bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(bytes, Samples);
}

// `where_negative` or `elsewhere`, by the sign of `number`, without a jump: the processor could not predict it.
template <typename Value>
Value choose(Value number, Value where_negative, Value elsewhere) {
    const Value is_negative = number >> 31;
    return (where_negative & is_negative) | (elsewhere & ~is_negative);
}

// The neighbour that is nearest to left + up - corner; of equally near ones left, then up. In fewer steps than the
// specification's: the lower one where 3 * corner - up - left is at least the higher one, the higher one where it is at
// most the lower one, else the corner.
template <typename Value>
Value nearest(Value left, Value up, Value corner) {
    const Value low = left < up ? left : up, high = left < up ? up : left;
    const Value third = corner * 3 - up - left;
    return choose(low - third, choose(third - high, corner, low), high);
}

// Four bytes at a time: what lies behind a pixel is read and written too, and set right by the next pixel.
void undo_paeth_of_colours(const std::uint8_t* from, const std::uint8_t* above, std::uint8_t* to, int width) {
    Samples left{}, corner{};
    for (int x = 0; x < width - 1; ++x) {
        const Samples up = load(above + 3 * x);
        left = (load(from + 3 * x) + nearest(left, up, corner)) & 255;
        corner = up;
        const Bytes done = __builtin_convertvector(left, Bytes);
        std::memcpy(to + 3 * x, &done, sizeof done);
    }
    std::uint8_t last[4] = {};  // behind it, the rows may end
    std::memcpy(last, from + 3 * (width - 1), 3);
    left = load(last) + nearest(left, load(above + 3 * (width - 1)), corner);
    for (int i = 0; i < 3; ++i) to[3 * (width - 1) + i] = static_cast<std::uint8_t>(left[i]);
}

void undo_paeth_of_grey(const std::uint8_t* from, const std::uint8_t* above, std::uint8_t* to, int width) {
    int left = 0, corner = 0;
    for (int x = 0; x < width; ++x) {
        const int up = above[x];
        left = (from[x] + nearest(left, up, corner)) & 255;
        corner = up;
        to[x] = static_cast<std::uint8_t>(left);
    }
}

// `above` is the row before, or zeros. `above` and `to` have room for one byte more. False for an unknown filter.
template <int CHANNELS>
bool undo(int filter, const std::uint8_t* from, const std::uint8_t* above, std::uint8_t* to, int width) {
    const int length = width * CHANNELS;
    std::uint8_t left[CHANNELS] = {};
    switch (filter) {
        case NONE:
            std::memcpy(to, from, length);
            return true;
        case SUB:
            for (int x = 0; x < length; x += CHANNELS) {
                for (int i = 0; i < CHANNELS; ++i) to[x + i] = left[i] += from[x + i];
            }
            return true;
        case UP:
            for (int x = 0; x < length; ++x) to[x] = from[x] + above[x];
            return true;
        case AVERAGE:
            for (int x = 0; x < length; x += CHANNELS) {
                for (int i = 0; i < CHANNELS; ++i) to[x + i] = left[i] = from[x + i] + (left[i] + above[x + i]) / 2;
            }
            return true;
        case PAETH:
            (CHANNELS == 1 ? undo_paeth_of_grey : undo_paeth_of_colours)(from, above, to, width);
            return true;
        default:
            return false;
    }
}

}  // namespace

extern "C" {

// Fills `gray`, uint8 [height][width]. `scratch` is uint8 [2][width * channels + 4]. Returns 0 for an unknown filter.
int png_gray(const std::uint8_t* rows, int height, int width, int channels, std::uint8_t* scratch, std::uint8_t* gray) {
    const std::ptrdiff_t length = static_cast<std::ptrdiff_t>(width) * channels;
    std::uint8_t *above = scratch, *row = scratch + (length + 4);
    std::memset(above, 0, length + 4);
    for (int y = 0; y < height; ++y) {
        const std::uint8_t* from = rows + y * (length + 1);
        std::uint8_t* to = gray + static_cast<std::ptrdiff_t>(y) * width;
        if (!(channels == 1 ? undo<1> : undo<3>)(from[0], from + 1, above, row, width)) return 0;
        if (channels == 1) {
            std::memcpy(to, row, width);
        } else {
            for (int x = 0; x < width; ++x) {
                const int red = row[3 * x], green = row[3 * x + 1], blue = row[3 * x + 2];
                to[x] = static_cast<std::uint8_t>((RED * red + GREEN * green + BLUE * blue) >> 15);
            }
        }
        std::swap(above, row);
    }
    return 1;
}
}
