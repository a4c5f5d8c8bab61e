// The colours of flow, as in colour.py, for one core: the same float32 steps, but another arc tangent.
//
// Flow is float32 [height][width][2], (dx, dy) in pixels per frame, `stride` floats from row to row; colours are uint8
// [height][width][3], R, G, B. Products and sums must not be fused: truncation would turn some 255 into 254.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace {

constexpr int BLOCK = 64;  // pixels that go through each step together, so that the compiler can vectorise it
constexpr float LARGEST_COMPONENT_PX = 1e6f;
constexpr float PI = 3.14159265358979323846f;

// False for NaN too.
bool is_known(float dx, float dy) {
    return std::fabs(dx) <= LARGEST_COMPONENT_PX && std::fabs(dy) <= LARGEST_COMPONENT_PX;
}

// The angle of (x, y), from -pi to pi; the signs of zeros count. Within three units in the last place.
float angle_of(float y, float x) {
    const float width = std::fabs(x), height = std::fabs(y);
    const float shorter = width < height ? width : height, longer = width < height ? height : width;
    const float slope = shorter / (longer > 0 ? longer : 1.0f), square = slope * slope;
    float series = -0.00170117009f;  // of atan(slope) / slope, fitted to 2e-9 from 0 to 1
    for (const float next : {0.0104876494f, -0.0303518651f, 0.0570895563f, -0.08349725f, 0.109323415f, -0.142600161f,
                             0.199980753f, -0.333332763f, 0.999999997f}) {
        series = series * square + next;
    }
    float angle = slope * series;
    angle = width < height ? PI / 2 - angle : angle;
    angle = std::signbit(x) ? PI - angle : angle;
    return std::copysign(angle, y);
}

}  // namespace

extern "C" {

float colour_largest_magnitude(const float* flow, std::ptrdiff_t stride, int height, int width) {
    float largest[16] = {};
    for (int y = 0; y < height; ++y) {
        const float* row = flow + y * stride;
        for (int x = 0; x < width; x += 16) {
            for (int i = 0; i < std::min(16, width - x); ++i) {
                const float dx = row[2 * (x + i)], dy = row[2 * (x + i) + 1];
                const float square = is_known(dx, dy) ? dx * dx + dy * dy : 0.0f;
                largest[i] = square > largest[i] ? square : largest[i];
            }
        }
    }
    return std::sqrt(*std::max_element(largest, largest + 16));
}

// `wheel` is [56][3], the colours of the wheel and the first of them again, from 0 to 1.
void colour_flow(const float* flow, std::ptrdiff_t stride, int height, int width, float largest, const float* wheel,
                 std::uint8_t* colours) {
    const float scale = largest > 0 ? largest : 1.0f;
    for (int y = 0; y < height; ++y) {
        for (int start = 0; start < width; start += BLOCK) {
            const int length = std::min(BLOCK, width - start);
            const float* from = flow + y * stride + 2 * start;
            std::uint8_t* to = colours + (static_cast<std::ptrdiff_t>(y) * width + start) * 3;
            float radius[BLOCK], position[BLOCK], full[BLOCK];
            for (int x = 0; x < length; ++x) {
                const bool known = is_known(from[2 * x], from[2 * x + 1]);
                const float dx = (known ? from[2 * x] : 0.0f) / scale, dy = (known ? from[2 * x + 1] : 0.0f) / scale;
                radius[x] = std::sqrt(dx * dx + dy * dy);
                const float place = (angle_of(-dy, -dx) / PI + 1.0f) / 2.0f * 54.0f;
                position[x] = place > 0 ? (place < 54.0f ? place : 54.0f) : 0.0f;
                full[x] = known ? 255.0f : 0.0f;
            }
            for (int x = 0; x < length; ++x) {
                const int index = static_cast<int>(position[x]);
                const float share = position[x] - static_cast<float>(index), rest = 1.0f - share, r = radius[x];
                for (int channel = 0; channel < 3; ++channel) {
                    const float mixed = rest * wheel[3 * index + channel] + share * wheel[3 * index + 3 + channel];
                    const float colour = r <= 1.0f ? 1.0f - r * (1.0f - mixed) : 0.75f * mixed;
                    to[3 * x + channel] = static_cast<std::uint8_t>(static_cast<int>(full[x] * colour));
                }
            }
        }
    }
}
}
