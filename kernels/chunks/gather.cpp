// Clips that lie anywhere, one after the other in an array, by several threads.
//
// A batch is larger than the caches, and read much later. Written past the caches, it costs a third less traffic: its
// memory is not read first.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace {

using Byte = std::uint8_t;

void copy_past_caches(Byte* to, const Byte* from, std::size_t num_bytes) {
#if defined(__SSE2__)
    const std::size_t head = std::min(num_bytes, -reinterpret_cast<std::uintptr_t>(to) % sizeof(__m128i));
    std::memcpy(to, from, head);
    std::size_t done = head;
    for (; done + 4 * sizeof(__m128i) <= num_bytes; done += 4 * sizeof(__m128i)) {
        __m128i part[4];
        std::memcpy(part, from + done, sizeof part);
        for (int i = 0; i < 4; ++i) _mm_stream_si128(reinterpret_cast<__m128i*>(to + done) + i, part[i]);
    }
    std::memcpy(to + done, from + done, num_bytes - done);
    _mm_sfence();
#else
    std::memcpy(to, from, num_bytes);
#endif
}

}  // namespace

extern "C" {

// Copy `num_clips` clips of `clip_bytes` to `to`, by at most `num_threads` threads, this one among them.
void gather_clips(const Byte* const* clips, std::size_t num_clips, std::size_t clip_bytes, Byte* to, int past_caches,
                  std::size_t num_threads) {
    const auto copy_some = [=](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            if (past_caches) {
                copy_past_caches(to + i * clip_bytes, clips[i], clip_bytes);
            } else {
                std::memcpy(to + i * clip_bytes, clips[i], clip_bytes);
            }
        }
    };
    std::vector<std::thread> threads;
    std::size_t begin = 0;
    for (std::size_t left = std::max<std::size_t>(1, std::min(num_threads, num_clips)); left > 1; --left) {
        const std::size_t end = begin + (num_clips - begin) / left;
        try {
            threads.emplace_back(copy_some, begin, end);
        } catch (const std::system_error&) {
            break;  // as many threads as there may be
        }
        begin = end;
    }
    copy_some(begin, num_clips);
    for (std::thread& thread : threads) thread.join();
}
}
