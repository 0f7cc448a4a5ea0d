// The 16-bit floating types and their conversions.
//
// Everything here has internal linkage: files compiled for a newer instruction set include it too,
// and the linker must never hand their code to a machine without it.
#pragma once

#include <stdint.h>

namespace dilconv {

struct Half {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

static inline uint32_t float_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float bits_float(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float widen(BFloat16 value) { return bits_float(uint32_t(value.bits) << 16); }

static inline float widen(Half value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000) << 16;
  const uint32_t magnitude = uint32_t(value.bits & 0x7fff) << 13;
  // Scaling by 2^112 moves the exponent bias from 15 to 127 and normalises subnormals on the way.
  const uint32_t finite = float_bits(bits_float(magnitude) * 0x1p112f);
  const uint32_t special = magnitude | 0x7f800000;
  return bits_float(sign | (magnitude >= 0x0f800000 ? special : finite));
}

static inline float widen(float value) { return value; }
static inline double widen(double value) { return value; }

// Narrowing rounds to nearest, ties to even.
static inline void narrow(float value, float& result) { result = value; }
static inline void narrow(double value, double& result) { result = value; }

static inline void narrow(float value, BFloat16& result) {
  const uint32_t bits = float_bits(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  result.bits = uint16_t(value != value ? 0x7fc0 : rounded);
}

static inline void narrow(float value, Half& result) {
  const uint32_t bits = float_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  // Below 2^-14 the result is subnormal: adding 0.5 leaves its bits, rounded, at the bottom of the
  // sum.
  const uint32_t subnormal = float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000;
  const uint32_t normal = (magnitude + 0xc8000fff + ((magnitude >> 13) & 1)) >> 13;
  const uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
  const uint32_t finite = magnitude < 0x38800000 ? subnormal : normal;
  result.bits = uint16_t(sign | (magnitude >= 0x47800000 ? special : finite));
}

}  // namespace dilconv
