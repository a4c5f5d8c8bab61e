// What the .cu files need beyond C++, so that both the CUDA compilers and the host's C++ compiler accept them.
//
// A kernel is written in phases:
//
//     __global__ void kernel(...) {
//         __shared__ float sums[...];
//         PHASE { ... }      // every thread of the block runs this
//         PHASE { ... }      // and may now read what any thread wrote in the phase before
//     }
//
// On a device, a phase begins with a barrier. On the host, a phase is a loop over the block's threads, and a launch is
// a loop over the blocks. So the same source runs there block by block, also under a debugger and under sanitizers.
// Four rules follow:
//   1. Only parameters, constants and __shared__ arrays keep their values from one phase to the next.
//   2. `continue` leaves a phase early; `return` is not used.
//   3. Conditions and loops around a phase are the same in all threads of a block, and do not read __shared__ arrays.
//   4. A float2 goes from memory into a variable, and from a variable into memory. The recorder of the tests does not see
//      it as an argument or as the result of a function.
//
// Blocks are one-dimensional, of THREADS threads. LAUNCH(kernel), once per kernel at a file's end, makes it callable
// on the host.

#pragma once

#ifndef THREADS
#define THREADS 256
#endif

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

#define PHASE for (bool first_time = (__syncthreads(), true); first_time; first_time = false)
#define LAUNCH(kernel)

#else

#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(threads)
// One block runs at a time, so its shared memory may be that of the whole program.
#define __shared__ static
// The order of threads and blocks must not matter. The tests check this with `backwards`.
#define PHASE for (unsigned turn = 0; (threadIdx.x = backwards ? THREADS - 1 - turn : turn, turn < THREADS); ++turn)
#define LAUNCH(kernel)                                                                                        \
    extern "C" int launch_##kernel(const unsigned* grid, int reverse, int num_arguments, const size_t* sizes, \
                                   void* const* arguments) {                                                  \
        return on_host::launch(kernel, grid, reverse != 0, num_arguments, sizes, arguments);                  \
    }

struct Index {
    unsigned x, y, z;
};
struct alignas(8) float2 {
    float x, y;
};
static Index threadIdx, blockIdx, gridDim;
static bool backwards;

inline float2 make_float2(float x, float y) { return {x, y}; }
inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
// Rounded on their own, also where the compiler may contract a product and a sum.
inline float __fmul_rn(float a, float b) {
    volatile float product = a * b;
    return product;
}
inline float __fadd_rn(float a, float b) {
    volatile float sum = a + b;
    return sum;
}
template <class T>
T atomicMax(T* address, T value) {
    const T old = *address;
    if (value > old) *address = value;
    return old;
}
template <class T>
T atomicMin(T* address, T value) {
    const T old = *address;
    if (value < old) *address = value;
    return old;
}
template <class T>
T atomicAdd(T* address, T value) {
    const T old = *address;
    *address = old + value;
    return old;
}

namespace on_host {
template <class... Parameters, size_t... I>
void call(void (*kernel)(Parameters...), void* const* arguments, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_reference_t<Parameters>*>(arguments[I])...);
}

// Runs every block of a grid. Returns 0, or 1 + the index of the first argument that is missing, superfluous or of
// another size than the kernel's parameter.
template <class... Parameters>
int launch(void (*kernel)(Parameters...), const unsigned* grid, bool reverse, int num_arguments, const size_t* sizes,
           void* const* arguments) {
    const size_t wanted[] = {sizeof(Parameters)...};
    constexpr int num_wanted = sizeof...(Parameters);
    for (int i = 0; i < num_wanted || i < num_arguments; ++i) {
        if (i >= num_wanted || i >= num_arguments || sizes[i] != wanted[i]) return 1 + i;
    }
    gridDim = {grid[0], grid[1], grid[2]};
    backwards = reverse;
    const size_t num_blocks = size_t(grid[0]) * grid[1] * grid[2];
    for (size_t turn = 0; turn < num_blocks; ++turn) {
        const size_t block = reverse ? num_blocks - 1 - turn : turn;
        blockIdx = {unsigned(block % grid[0]), unsigned(block / grid[0] % grid[1]),
                    unsigned(block / grid[0] / grid[1])};
        call(kernel, arguments, std::index_sequence_for<Parameters...>{});
    }
    return 0;
}
}  // namespace on_host

#endif

__device__ __forceinline__ int clamp(int i, int last) { return i < 0 ? 0 : i > last ? last : i; }
