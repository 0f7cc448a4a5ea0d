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

// The same if `wanted`; else reads nothing and returns zero. Without a branch: at its end, what was
// read before might have to be waited for.
template <class T>
__device__ inline T load_if(bool wanted, const T* address) {
  const size_t global = __cvta_generic_to_global(address);
  if constexpr (sizeof(T) == 2) {
    unsigned short word;
    asm("{ .reg .pred p; setp.ne.u32 p, %2, 0; mov.b16 %0, 0; @p ld.global.nc.b16 %0, [%1]; }"
        : "=&h"(word)
        : "l"(global), "r"(unsigned(wanted)));
    return bit_cast<T>(word);
  } else if constexpr (sizeof(T) == 4) {
    unsigned word;
    asm("{ .reg .pred p; setp.ne.u32 p, %2, 0; mov.b32 %0, 0; @p ld.global.nc.b32 %0, [%1]; }"
        : "=&r"(word)
        : "l"(global), "r"(unsigned(wanted)));
    return bit_cast<T>(word);
  } else {
    static_assert(sizeof(T) == 8, "no element is this wide");
    unsigned long long word;
    asm("{ .reg .pred p; setp.ne.u32 p, %2, 0; mov.b64 %0, 0; @p ld.global.nc.b64 %0, [%1]; }"
        : "=&l"(word)
        : "l"(global), "r"(unsigned(wanted)));
    return bit_cast<T>(word);
  }
}

// The same as load, of what nothing reads again soon.
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
  // By value: memcpy from the address itself would be compiled to loads of single bytes.
  const Word<V> word = *reinterpret_cast<const Word<V>*>(address);
  return bit_cast<V>(word);
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

__device__ inline unsigned shared_address(const void* address) {
  return unsigned(__cvta_generic_to_shared(address));
}

// Copies 16 bytes from global to shared memory, both aligned to that, or writes zeros there if not
// `valid`: then the source is not read. The copy is complete when wait_async says so; before sm_80
// at once.
__device__ inline void copy_async(void* shared, const void* global, bool valid) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
               : "memory");
#else
  store_shared(shared, valid ? __ldg(static_cast<const uint4*>(global)) : uint4{});
#endif
}

// Closes a group of this thread's copies.
__device__ inline void commit_async() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the thread's `pending` latest groups are still under way.
template <int pending>
__device__ inline void wait_async() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit elements from shared memory, by a whole warp: lane i gives the
// address of row i % 8, 16 bytes, of matrix i / 8. at[m] holds elements 2 * (lane % 4) and the
// next, the first in the low half, of row lane / 4 of matrix m.
__device__ inline Vec<uint32_t, 4> load_matrices(const void* row) {
  Vec<uint32_t, 4> result;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(result.at[0]), "=r"(result.at[1]), "=r"(result.at[2]), "=r"(result.at[3])
               : "r"(shared_address(row))
               : "memory");
  return result;
}

// The same of the transposed matrices: at[m] holds elements 2 * (lane % 4) and the next of column
// lane / 4.
__device__ inline Vec<uint32_t, 4> load_matrices_transposed(const void* row) {
  Vec<uint32_t, 4> result;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(result.at[0]), "=r"(result.at[1]), "=r"(result.at[2]), "=r"(result.at[3])
               : "r"(shared_address(row))
               : "memory");
  return result;
}

// sums += a * b by a whole warp, in the register layouts of PTX's mma.sync.row.col. Half runs from
// sm_75 on, the others from sm_80 on.

// m16n8k16
template <class T>
__device__ void multiply_matrices(float (&sums)[4], const Vec<uint32_t, 4>& a,
                                  const Vec<uint32_t, 2>& b);
template <>
__device__ inline void multiply_matrices<Half>(float (&sums)[4], const Vec<uint32_t, 4>& a,
                                               const Vec<uint32_t, 2>& b) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b.at[0]), "r"(b.at[1]));
#else
#pragma unroll
  for (int half = 0; half < 2; ++half)
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a.at[2 * half]), "r"(a.at[2 * half + 1]), "r"(b.at[half]));
#endif
}
template <>
__device__ inline void multiply_matrices<BFloat16>(float (&sums)[4], const Vec<uint32_t, 4>& a,
                                                   const Vec<uint32_t, 2>& b) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b.at[0]), "r"(b.at[1]));
#else
  __trap();
#endif
}

// m16n8k8, TF32: of what round_to_tf32 returned. Here T is float.
template <>
__device__ inline void multiply_matrices<float>(float (&sums)[4], const Vec<uint32_t, 4>& a,
                                                const Vec<uint32_t, 2>& b) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a.at[0]), "r"(a.at[1]), "r"(a.at[2]), "r"(a.at[3]), "r"(b.at[0]), "r"(b.at[1]));
#else
  __trap();
#endif
}

// The bits of a float, rounded to TF32.
__device__ inline uint32_t round_to_tf32(uint32_t bits) {
#if __CUDA_ARCH__ >= 800
  uint32_t result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(__uint_as_float(bits)));
  return result;
#else
  return bits;
#endif
}

// m8n8k4
__device__ inline void multiply_matrices(double (&sums)[2], double a, double b) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+d"(sums[0]), "+d"(sums[1])
      : "d"(a), "d"(b));
#else
  __trap();
#endif
}

}  // namespace dilconv::cuda

#endif
