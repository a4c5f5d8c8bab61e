// Grey frames from colour ones, and clips out of frames that are kept on the device.
//
// All blocks have THREADS threads.

#include "device.h"

// cv2.cvtColor(BGR2GRAY): weights of 0.114, 0.587 and 0.299 in 15 bits.
// bgr: uint8 [num_pixels, 3]; gray: uint8 [num_pixels]. Grid: (any, 1, 1).
extern "C" __global__ void __launch_bounds__(THREADS)
gray_from_bgr(const unsigned char* __restrict__ bgr, unsigned char* __restrict__ gray, long long num_pixels) {
    PHASE {
        for (long long i = (long long)(blockIdx.x) * THREADS + threadIdx.x; i < num_pixels;
             i += (long long)(gridDim.x) * THREADS) {
            const unsigned char* pixel = bgr + 3 * i;
            gray[i] = (unsigned char)((pixel[0] * 3735 + pixel[1] * 19235 + pixel[2] * 9798 + (1 << 14)) >> 15);
        }
    }
}

// Clips of T frames out of frames uint8 [F, H, W, C], each byte replaced by what a table holds for it: so the values
// are normalised, rounded to float16, bfloat16 or float32, and for a mirrored clip also negated, all as the table says.
// starts: int64 [N], first frame of each clip. is_mirrored: uint8 [N], whether left and right are swapped.
// table: [2, C, 256] of the output's type, for clips as they are and for mirrored ones. clips: [N, T, H, W, C].
// Grid: (any, T, N).
template <class Value>
__device__ __forceinline__ void gather(const unsigned char* frames, const long long* starts,
                                       const unsigned char* is_mirrored, const Value* table, Value* clips, int H, int W,
                                       int C) {
    const int frame_size = H * W * C;
    const unsigned char* frame = frames + size_t(starts[blockIdx.z] + blockIdx.y) * frame_size;
    Value* to = clips + (size_t(blockIdx.z) * gridDim.y + blockIdx.y) * frame_size;
    const bool mirrored = is_mirrored[blockIdx.z] != 0;
    PHASE {
        for (int i = blockIdx.x * THREADS + threadIdx.x; i < frame_size; i += gridDim.x * THREADS) {
            const int c = i % C, x = i / C % W;
            const int from = mirrored ? i + (W - 1 - 2 * x) * C : i;
            to[i] = table[((mirrored ? C : 0) + c) * 256 + frame[from]];
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
gather_2_bytes(const unsigned char* __restrict__ frames, const long long* __restrict__ starts,
               const unsigned char* __restrict__ is_mirrored, const unsigned short* __restrict__ table,
               unsigned short* __restrict__ clips, int H, int W, int C) {
    gather(frames, starts, is_mirrored, table, clips, H, W, C);
}

extern "C" __global__ void __launch_bounds__(THREADS)
gather_4_bytes(const unsigned char* __restrict__ frames, const long long* __restrict__ starts,
               const unsigned char* __restrict__ is_mirrored, const unsigned* __restrict__ table,
               unsigned* __restrict__ clips, int H, int W, int C) {
    gather(frames, starts, is_mirrored, table, clips, H, W, C);
}

LAUNCH(gray_from_bgr)
LAUNCH(gather_2_bytes)
LAUNCH(gather_4_bytes)
