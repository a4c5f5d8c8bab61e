// The angle of a vector in float32, rounded once: what the library's function in float64 gives, rounded, to the bit.
//
// 64-bit arithmetic is slow on many GPUs. So the angle is computed as the sum of two float32 values. Its relative error
// is below ANGLE_ERROR, which is more than twice the largest that was found. This says how it is to be rounded, except
// where it is that close to the middle between two float32 values: there, for 1 vector of 1000, the library decides.
//
// Products and sums may be fused or not: both are within the error.

#pragma once

#include "device.h"

#define NUM_SLOPES 64
#define ANGLE_ERROR 2.910383e-11f  // 2^-35

// The arc tangents of 0, 1/64, ... 64/64, each as the sum of two float32 values.
__device__ const float ARC_TANGENTS[NUM_SLOPES + 1][2] = {
    {0.0f, 0.0f},
    {0.0156237287f, -1.24208824e-10f},
    {0.0312398337f, -2.5250721e-10f},
    {0.0468407124f, 4.87876683e-10f},
    {0.062418811f, -1.02727793e-09f},
    {0.0779666305f, 3.37271056e-09f},
    {0.0934767798f, 1.39965928e-09f},
    {0.108941957f, -3.64679786e-10f},
    {0.124354996f, -1.24038224e-09f},
    {0.139708877f, -2.32063857e-09f},
    {0.154996738f, 4.08614964e-09f},
    {0.170211926f, -8.17163837e-10f},
    {0.185347944f, 5.49763257e-09f},
    {0.200398549f, 4.38835546e-09f},
    {0.215357706f, -6.25299901e-09f},
    {0.230219588f, -4.06833955e-10f},
    {0.244978666f, -3.17867777e-09f},
    {0.259629637f, -7.59468755e-09f},
    {0.274167448f, 2.83741697e-09f},
    {0.288587362f, 3.19904409e-10f},
    {0.302884877f, -8.35308622e-09f},
    {0.317055762f, -8.60497007e-09f},
    {0.331096083f, -6.22166452e-09f},
    {0.345002174f, 2.82966361e-09f},
    {0.358770669f, 1.76394988e-09f},
    {0.372398436f, 1.06072653e-08f},
    {0.385882676f, -6.24966168e-09f},
    {0.399220765f, 4.93825913e-09f},
    {0.412410438f, 3.53662677e-09f},
    {0.42544964f, -2.18874985e-09f},
    {0.438336551f, 8.66853522e-09f},
    {0.451069653f, 2.95431324e-09f},
    {0.463647604f, 5.01215869e-09f},
    {0.476069331f, -8.46367199e-10f},
    {0.488333941f, 1.05504236e-08f},
    {0.500440836f, -2.28054642e-08f},
    {0.512389481f, -2.07569197e-08f},
    {0.524179637f, -8.64918537e-09f},
    {0.535811245f, -7.48097317e-09f},
    {0.547284365f, 1.62871192e-08f},
    {0.558599293f, 2.21115979e-08f},
    {0.569756448f, 5.21408827e-09f},
    {0.580756366f, -1.26852289e-08f},
    {0.591599703f, 7.50002815e-09f},
    {0.602287352f, -5.95014926e-09f},
    {0.612820208f, -5.90742122e-09f},
    {0.623199344f, -1.37472691e-08f},
    {0.633425891f, -8.43023873e-09f},
    {0.643501103f, 5.86893734e-09f},
    {0.653426349f, -7.98229305e-09f},
    {0.663203001f, -8.31624547e-09f},
    {0.672832549f, -1.02455344e-09f},
    {0.682316542f, 1.32029951e-08f},
    {0.691656649f, -2.72595013e-08f},
    {0.700854421f, -1.2777476e-08f},
    {0.709911644f, -2.59952451e-08f},
    {0.718829989f, 1.01883355e-08f},
    {0.727611303f, 2.9297043e-08f},
    {0.736257434f, -4.90986807e-09f},
    {0.74477011f, 1.60626019e-08f},
    {0.753151298f, -1.66070802e-08f},
    {0.761402786f, -1.59724678e-08f},
    {0.769526482f, -1.22275967e-09f},
    {0.777524292f, 1.79043234e-08f},
    {0.785398185f, -2.18556941e-08f},
};

// The sum of two values, the second much smaller than the first.
struct Sum {
    float high, low;
};

// a + b without an error, where a is 0 or at least as large as b.
__device__ __forceinline__ Sum exact_sum(float a, float b) {
    const float high = a + b;
    return {high, b - (high - a)};
}

__device__ __forceinline__ Sum minus(Sum a, Sum b) {
    const Sum high = exact_sum(a.high, -b.high);
    return {high.high, high.low + (a.low - b.low)};
}

// The arc tangent of y / x, where 0 < y <= x: that of the nearest slope c of the table, and that of what is left,
// r = (slope - c) / (1 + slope c), at most 1/128, by its series.
__device__ __forceinline__ Sum arc_tangent(float y, float x) {
    const float slope = y / x, slope_low = fmaf(-slope, x, y) / x;
    const int nearest = int(rintf(slope * NUM_SLOPES));
    const float c = nearest * (1.0f / NUM_SLOPES), product = slope * c;
    const Sum above = exact_sum(slope - c, slope_low), one_more = exact_sum(1.0f, product);
    const float below = one_more.high, below_low = one_more.low + (fmaf(slope, c, -product) + slope_low * c);
    const float r = above.high / below;
    const float r_low = (fmaf(-r, below, above.high) + (above.low - r * below_low)) / below;
    const float square = r * r;
    const float series = r * square * (square * (0.2f - square * (1.0f / 7.0f)) - 1.0f / 3.0f);
    const Sum sum = exact_sum(ARC_TANGENTS[nearest][0], r);
    return {sum.high, sum.low + (ARC_TANGENTS[nearest][1] + (r_low + series))};
}

// From -pi to pi; the signs of zeros count.
__device__ __forceinline__ float angle_of(float y, float x) {
    const float width = fabsf(x), height = fabsf(y);
    const float shorter = width < height ? width : height, longer = width < height ? height : width;
    // Of smaller or larger values, the remainders of divisions would be too small for float32.
    if ((shorter == 0.0f || shorter > 1e-18f) && longer < 1e9f) {
        Sum angle = {0.0f, 0.0f};
        if (shorter > 0.0f) angle = arc_tangent(shorter, longer);
        if (width < height) angle = minus({1.57079637f, -4.37113883e-08f}, angle);
        if (__float_as_uint(x) >> 31) angle = minus({3.14159274f, -8.74227766e-08f}, angle);
        angle = exact_sum(angle.high, angle.low);
        const float error = ANGLE_ERROR * angle.high;
        const float least = angle.high + (angle.low - error), most = angle.high + (angle.low + error);
        if (least == most) return copysignf(most, y);
    }
    return float(atan2(double(y), double(x)));
}
