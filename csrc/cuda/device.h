// Everything that is special about a GPU and that kernels use inside: memory access, barriers,
// exchange between lanes, and the few PTX instructions.
//
// This is the device's side. A host compiler gets each function's twin from the emulator's header,
// which runs the kernels' source as it is; so kernels touch global and shared memory only through
// what is here. The namespace keeps names apart from csrc/cpu's, which may share a library.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "../core/scalar.h"

namespace dilconv::cuda {

// n neighbouring elements, moved by one instruction: at most 16 bytes, aligned to their size.
template <class T, int n>
struct alignas(n * sizeof(T)) Vec {
  T at[n];
};

// What products of an element are summed in.
template <class T>
struct SumOf {
  using type = float;
};
template <>
struct SumOf<double> {
  using type = double;
};
template <class T>
using Sum = typename SumOf<T>::type;

}  // namespace dilconv::cuda

#if !defined(__CUDACC__)
#include <cuda_emulator/device.h>
#else
#include <cuda_runtime.h>

namespace dilconv::cuda {

// --- conversion -----------------------------------------------------------------------------

__device__ inline float upcast(float value) { return value; }
__device__ inline double upcast(double value) { return value; }
__device__ inline float upcast(BFloat16 value) {
  return __uint_as_float(uint32_t(value.bits) << 16);
}
__device__ inline float upcast(Half value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}

// Rounds to nearest, ties to even.
template <class T>
__device__ inline T downcast(Sum<T> value) {
  return value;
}
template <>
__device__ inline Half downcast<Half>(float value) {
  Half result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
}
template <>
__device__ inline BFloat16 downcast<BFloat16>(float value) {
  BFloat16 result;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
#else
  const uint32_t bits = __float_as_uint(value);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  result.bits = uint16_t(value != value ? 0x7fff : rounded);
#endif
  return result;
}

// a * b + c, rounded once.
__device__ inline float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ inline double multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }

// --- memory ---------------------------------------------------------------------------------

// The register types of 1 to 16 bytes, by whose loads and stores a value moves as a whole.
template <int bytes>
struct WordOf;
template <>
struct WordOf<1> {
  using type = unsigned char;
};
template <>
struct WordOf<2> {
  using type = unsigned short;
};
template <>
struct WordOf<4> {
  using type = unsigned int;
};
template <>
struct WordOf<8> {
  using type = uint2;
};
template <>
struct WordOf<16> {
  using type = uint4;
};
template <class V>
using Word = typename WordOf<sizeof(V)>::type;

template <class To, class From>
__device__ inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// Reads a V, an element or a Vec of them, from global memory that the kernel does not write.
template <class V, class T>
__device__ inline V load(const T* address) {
  return bit_cast<V>(__ldg(reinterpret_cast<const Word<V>*>(address)));
}

// The same, of what nothing reads again soon.
template <class V, class T>
__device__ inline V load_streaming(const T* address) {
  return bit_cast<V>(__ldcs(reinterpret_cast<const Word<V>*>(address)));
}

template <class V, class T>
__device__ inline void store(T* address, const V& value) {
  *reinterpret_cast<Word<V>*>(address) = bit_cast<Word<V>>(value);
}

// The block's dynamic shared memory.
__device__ inline char* shared_memory() {
  extern __shared__ __align__(16) char memory[];
  return memory;
}

template <class V, class T>
__device__ inline V load_shared(const T* address) {
  return bit_cast<V>(*reinterpret_cast<const Word<V>*>(address));
}

template <class V, class T>
__device__ inline void store_shared(T* address, const V& value) {
  *reinterpret_cast<Word<V>*>(address) = bit_cast<Word<V>>(value);
}

// --- threads --------------------------------------------------------------------------------

__device__ inline void block_barrier() { __syncthreads(); }
__device__ inline void warp_barrier() { __syncwarp(); }

// The value of the lane whose index differs in the bits of `mask`. All lanes of the warp call it.
template <class T>
__device__ inline T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}

// --- asynchronous copies and tensor cores -----------------------------------------------------

}  // namespace dilconv::cuda

#endif
