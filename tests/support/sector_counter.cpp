// Counts the sectors (32 bytes) of global memory that the warps of a .cu file ask for while it runs on the host. Compiled
// like race_recorder.cpp, whose rules on -fsanitize=thread hold here, too; sectors.py uses it.
//
// A GPU runs an access for the 32 threads of a warp at once. Here threads run one after the other, so the accesses that
// are the n-th of their thread in a phase are taken as one request. A request costs as many sectors as it touches. Three
// sums are kept, for reads and for writes: of each request (work of the first-level cache), of different sectors in each
// block (what that cache has to fetch if it keeps everything), and of different sectors in the launch (the memory).

#include <pthread.h>

#include <cstdint>
#include <unordered_map>
#include <unordered_set>

#include SOURCE

#ifndef __clang__
#pragma GCC optimize("O2")  // what follows; the kernels are compiled as they are written
#endif

#define UNRECORDED __attribute__((no_sanitize("thread")))

extern char __bss_start __attribute__((visibility("hidden")));
extern char _end __attribute__((visibility("hidden")));

namespace counter {

constexpr int SECTOR = 32, WARP = 32;

// What the library's own templates do is not counted.
static bool is_busy, is_on;

struct Busy {
    UNRECORDED Busy() { is_busy = true; }
    UNRECORDED ~Busy() { is_busy = false; }
};

struct Direction {
    long long of_requests, of_blocks, of_launch;
    std::unordered_set<uint64_t>* in_phase;  // a sector, and the request that touches it
    std::unordered_set<uintptr_t>*in_block, *in_launch;
    unsigned num_of_thread;
};

static Direction directions[2];
static unsigned last_block, writes_of_thread;
static uintptr_t stack_begin, stack_end;

UNRECORDED static void find_stack() {
    pthread_attr_t attributes;
    void* begin = nullptr;
    size_t size = 0;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &begin, &size);
    pthread_attr_destroy(&attributes);
    stack_begin = uintptr_t(begin), stack_end = stack_begin + size;
}

UNRECORDED static void end_phase() {
    for (Direction& direction : directions) {
        direction.of_requests += direction.in_phase->size();
        direction.in_phase->clear();
    }
}

UNRECORDED static void access(const void* pointer, size_t size, bool is_write) {
    if (is_busy || !is_on) return;
    const Busy busy;
    const uintptr_t address = uintptr_t(pointer);
    if (pointer == &threadIdx.x && is_write) {
        // A phase writes it THREADS + 1 times.
        if (writes_of_thread++ % (THREADS + 1) == 0) end_phase();
        directions[0].num_of_thread = directions[1].num_of_thread = 0;
        return;
    }
    if (threadIdx.x >= THREADS) return;  // between phases: a few values for a whole block
    if (address >= stack_begin && address < stack_end) return;
    if (address >= uintptr_t(&__bss_start) && address < uintptr_t(&_end)) return;  // shared memory and indices
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    Direction& direction = directions[is_write];
    if (block != last_block) {
        last_block = block;
        for (Direction& each : directions) each.in_block->clear();
    }
    const uint64_t warp = threadIdx.x / WARP, request = direction.num_of_thread++;
    for (uintptr_t sector = address / SECTOR; sector <= (address + size - 1) / SECTOR; ++sector) {
        // 40 bits of a sector, 16 of a request's number, 8 of a warp's.
        direction.in_phase->insert(sector << 24 | (request & 0xffff) << 8 | warp);
        direction.of_blocks += direction.in_block->insert(sector).second;
        direction.of_launch += direction.in_launch->insert(sector).second;
    }
}

}  // namespace counter

extern "C" {

UNRECORDED void counter_begin() {
    const counter::Busy busy;
    counter::find_stack();
    for (auto& direction : counter::directions) {
        delete direction.in_phase;
        delete direction.in_block;
        delete direction.in_launch;
        direction = {};
        direction.in_phase = new std::unordered_set<uint64_t>;
        direction.in_block = new std::unordered_set<uintptr_t>;
        direction.in_launch = new std::unordered_set<uintptr_t>;
    }
    counter::last_block = ~0u;
    counter::writes_of_thread = 0;
    threadIdx.x = THREADS;
    counter::is_on = true;
}

// Six numbers: sectors of requests, of blocks and of the launch, read, then written.
UNRECORDED void counter_end(long long* sectors) {
    const counter::Busy busy;
    counter::is_on = false;
    counter::end_phase();
    for (const auto& direction : counter::directions) {
        *sectors++ = direction.of_requests;
        *sectors++ = direction.of_blocks;
        *sectors++ = direction.of_launch;
    }
}

#define ACCESSES(size)                                                                          \
    UNRECORDED void __tsan_read##size(void* at) { counter::access(at, size, false); }           \
    UNRECORDED void __tsan_write##size(void* at) { counter::access(at, size, true); }           \
    UNRECORDED void __tsan_unaligned_read##size(void* at) { counter::access(at, size, false); } \
    UNRECORDED void __tsan_unaligned_write##size(void* at) { counter::access(at, size, true); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
UNRECORDED void __tsan_read_range(void* at, size_t size) { counter::access(at, size, false); }
UNRECORDED void __tsan_write_range(void* at, size_t size) { counter::access(at, size, true); }
UNRECORDED void __tsan_init() {}
UNRECORDED void __tsan_func_entry(void*) {}
UNRECORDED void __tsan_func_exit() {}
UNRECORDED void __tsan_vptr_update(void**, void*) {}
UNRECORDED void __tsan_vptr_read(void**) {}
}
