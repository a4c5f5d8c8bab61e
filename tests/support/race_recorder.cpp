// Records who reads and writes each byte of shared and global memory while a .cu file runs on the host, and says where
// threads race. Compiled with -DSOURCE="..." (the .cu file) and -fsanitize=thread, whose calls before each access are
// answered here, so that nothing of the kernels changes. recorded.py uses it.
//
// Two accesses race if one of them is a write, they are not both atomic, and nothing orders them:
//   - two threads of a block, in one phase (from one barrier to the next; code between two phases is run by all threads,
//     and belongs to the phase before);
//   - two blocks, in one launch, in global memory.
// The order in which the host happens to run threads and blocks does not matter.

#include <pthread.h>

#include <cstdint>
#include <cstdio>
#include <memory>
#include <unordered_map>

#include "device.h"

#define UNRECORDED __attribute__((no_sanitize("thread")))

namespace recorder {

static const void* atomic_address;  // of the atomic operation that is going on

struct Atomically {
    UNRECORDED explicit Atomically(const void* address) { atomic_address = address; }
    UNRECORDED ~Atomically() { atomic_address = nullptr; }
};

}  // namespace recorder

#define RECORD_ATOMIC(name)                             \
    template <class T>                                  \
    UNRECORDED T recorded_##name(T* address, T value) { \
        const recorder::Atomically atomically(address); \
        return name(address, value);                    \
    }
RECORD_ATOMIC(atomicMax)
RECORD_ATOMIC(atomicMin)
RECORD_ATOMIC(atomicAdd)
#define atomicMax recorded_atomicMax
#define atomicMin recorded_atomicMin
#define atomicAdd recorded_atomicAdd

#include SOURCE

#ifndef __clang__
#pragma GCC optimize("O2")  // what follows; the kernels are compiled as they are written
#endif

// The variables of this library: __shared__ ones, and those of device.h.
extern char __bss_start __attribute__((visibility("hidden")));
extern char _end __attribute__((visibility("hidden")));

namespace recorder {

constexpr int NOBODY = -1, SEVERAL = -2, ALL = -3;

// Who wrote and who read, and whether all of these accesses were atomic.
struct Accesses {
    int64_t when = -1;
    int writer = NOBODY, reader = NOBODY;
    bool writes_are_atomic = true, reads_are_atomic = true;

    // Returns the other one of a race, or NOBODY.
    UNRECORDED int add(int64_t now, int who, bool is_write, bool is_atomic) {
        if (when != now) *this = Accesses{}, when = now;
        int other = NOBODY;
        if (writer != NOBODY && (writer != who || who == ALL) && !(is_atomic && writes_are_atomic)) other = writer;
        if (is_write && reader != NOBODY && (reader != who || who == ALL) && !(is_atomic && reads_are_atomic)) {
            other = reader;
        }
        if (is_write && who == ALL) other = ALL;
        int& one = is_write ? writer : reader;
        one = one == NOBODY || one == who ? who : SEVERAL;
        (is_write ? writes_are_atomic : reads_are_atomic) &= is_atomic;
        return other;
    }
};

struct Byte {
    Accesses in_phase, in_launch;
};

// The library's own templates are compiled with the calls, too. What they do is not recorded.
static bool is_busy;

struct Busy {
    UNRECORDED Busy() { is_busy = true; }
    UNRECORDED ~Busy() { is_busy = false; }
};

constexpr uintptr_t PAGE = 4096;
static std::unordered_map<uintptr_t, std::unique_ptr<Byte[]>>* pages;
static int64_t launches, phases, phase_before_block, writes_of_thread, num_accesses;
static unsigned last_block = ~0u;
static uintptr_t last_page;
static Byte* last_bytes;
static uintptr_t stack_begin, stack_end;
static char found[400];

UNRECORDED static void find_stack() {
    pthread_attr_t attributes;
    void* begin = nullptr;
    size_t size = 0;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &begin, &size);
    pthread_attr_destroy(&attributes);
    stack_begin = uintptr_t(begin), stack_end = stack_begin + size;
}

UNRECORDED static void say(const char* where, const char* what, int one, int other, bool is_write) {
    if (found[0] != 0) return;
    char names[2][24];
    const int numbers[2] = {one, other};
    for (int i = 0; i < 2; ++i) {
        if (numbers[i] >= 0) std::snprintf(names[i], sizeof names[i], "%s %d", what, numbers[i]);
        if (numbers[i] == ALL) std::snprintf(names[i], sizeof names[i], "every %s", what);
        if (numbers[i] == SEVERAL) std::snprintf(names[i], sizeof names[i], "several %ss", what);
    }
    std::snprintf(found, sizeof found, "%s %s what %s used, in block %u, phase %lld: a byte of %s memory", names[0],
                  is_write ? "writes" : "reads", names[1], last_block,
                  static_cast<long long>(phases - phase_before_block), where);
}

UNRECORDED static void access(const void* pointer, size_t size, bool is_write) {
    if (is_busy) return;
    const Busy busy;
    const uintptr_t address = uintptr_t(pointer);
    const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    if (block != last_block) last_block = block, phase_before_block = ++phases;
    if (pointer == &threadIdx.x && is_write) {
        // A phase writes it THREADS + 1 times.
        if (writes_of_thread++ % (THREADS + 1) == 0) ++phases;
        return;
    }
    if (launches == 0 || (address >= stack_begin && address < stack_end)) return;
    if (pointer == &backwards || (address >= uintptr_t(&threadIdx) && address < uintptr_t(&threadIdx + 1)) ||
        (address >= uintptr_t(&blockIdx) && address < uintptr_t(&blockIdx + 1)) ||
        (address >= uintptr_t(&gridDim) && address < uintptr_t(&gridDim + 1))) {
        return;
    }
    ++num_accesses;
    const int thread = threadIdx.x < THREADS ? int(threadIdx.x) : ALL;
    const bool is_shared = address >= uintptr_t(&__bss_start) && address < uintptr_t(&_end);
    const bool is_atomic = pointer == atomic_address;
    for (uintptr_t at = address; at < address + size; ++at) {
        if (at / PAGE != last_page) {
            auto& page = (*pages)[at / PAGE];
            if (!page) page.reset(new Byte[PAGE]);
            last_page = at / PAGE, last_bytes = page.get();
        }
        Byte& byte = last_bytes[at % PAGE];
        const int other = byte.in_phase.add(phases, thread, is_write, is_atomic);
        if (other != NOBODY) say(is_shared ? "shared" : "global", "thread", thread, other, is_write);
        if (is_shared) continue;
        const int other_block = byte.in_launch.add(launches, int(block), is_write, is_atomic);
        if (other_block != NOBODY) say("global", "block", int(block), other_block, is_write);
    }
}

}  // namespace recorder

extern "C" {

// Begin a launch: what was found before is forgotten.
UNRECORDED void recorder_begin() {
    const recorder::Busy busy;
    if (recorder::pages == nullptr)
        recorder::pages = new std::unordered_map<uintptr_t, std::unique_ptr<recorder::Byte[]>>;
    recorder::find_stack();
    recorder::pages->clear();
    recorder::found[0] = 0;
    recorder::last_block = ~0u;
    recorder::last_page = 0;
    recorder::writes_of_thread = recorder::phases = recorder::num_accesses = 0;
    ++recorder::launches;
    threadIdx.x = THREADS;
}

// The first race of the launch in words, or an empty string.
UNRECORDED const char* recorder_race() { return recorder::found; }

UNRECORDED long long recorder_accesses() { return recorder::num_accesses; }

#define ACCESSES(size)                                                                           \
    UNRECORDED void __tsan_read##size(void* at) { recorder::access(at, size, false); }           \
    UNRECORDED void __tsan_write##size(void* at) { recorder::access(at, size, true); }           \
    UNRECORDED void __tsan_unaligned_read##size(void* at) { recorder::access(at, size, false); } \
    UNRECORDED void __tsan_unaligned_write##size(void* at) { recorder::access(at, size, true); }
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
UNRECORDED void __tsan_read_range(void* at, size_t size) { recorder::access(at, size, false); }
UNRECORDED void __tsan_write_range(void* at, size_t size) { recorder::access(at, size, true); }
UNRECORDED void __tsan_init() {}
UNRECORDED void __tsan_func_entry(void*) {}
UNRECORDED void __tsan_func_exit() {}
UNRECORDED void __tsan_vptr_update(void**, void*) {}
UNRECORDED void __tsan_vptr_read(void**) {}
}
