// The host twins of csrc/cuda/device.h, which includes this where there is no CUDA compiler. What
// each function means is said there.
#pragma once

#include <stdint.h>
#include <string.h>

#include <cmath>
#include <type_traits>

#include "../cuda_runtime.h"
#include "machine.h"

namespace dilconv::cuda {

namespace emulator = cuda_emulator;
using emulator::Access;
using emulator::Site;

// --- conversion -----------------------------------------------------------------------------

template <class T>
inline auto upcast(T value) {
  return widen(value);
}

template <class T>
inline T downcast(Sum<T> value) {
  T result;
  narrow(value, result);
  return result;
}

template <class F>
inline F multiply_add(F a, F b, F c) {
  ++emulator::arithmetic.fma;
  return std::fma(a, b, c);
}

// --- memory ---------------------------------------------------------------------------------

template <class To, class From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "sizes differ");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

template <class V>
constexpr bool kOneInstruction =
    sizeof(V) == 1 || sizeof(V) == 2 || sizeof(V) == 4 || sizeof(V) == 8 || sizeof(V) == 16;

template <class V, class T>
inline V load(const T* address, Site site = Site::here()) {
  static_assert(kOneInstruction<V>, "no load is this wide");
  V value;
  memcpy(&value, emulator::global_memory(address, sizeof value, Access::kRead, site), sizeof value);
  return value;
}

template <class T>
inline T load_if(bool wanted, const T* address, Site site = Site::here()) {
  return wanted ? load<T>(address, site) : T{};
}

template <class V, class T>
inline V load_streaming(const T* address, Site site = Site::here()) {
  return load<V>(address, site);
}

template <class V, class T>
inline void store(T* address, const V& value, Site site = Site::here()) {
  static_assert(kOneInstruction<V>, "no store is this wide");
  memcpy(emulator::global_memory(address, sizeof value, Access::kWrite, site), &value,
         sizeof value);
}

inline char* shared_memory() { return emulator::shared_base(); }

template <class V, class T>
inline V load_shared(const T* address, Site site = Site::here()) {
  static_assert(kOneInstruction<V>, "no load is this wide");
  V value;
  memcpy(&value, emulator::shared_memory(address, sizeof value, Access::kRead, site), sizeof value);
  return value;
}

template <class V, class T>
inline void store_shared(T* address, const V& value, Site site = Site::here()) {
  static_assert(kOneInstruction<V>, "no store is this wide");
  memcpy(emulator::shared_memory(address, sizeof value, Access::kWrite, site), &value,
         sizeof value);
}

// --- threads --------------------------------------------------------------------------------

inline void block_barrier(Site site = Site::here()) { emulator::block_barrier(site); }
inline void warp_barrier(Site site = Site::here()) {
  emulator::warp_barrier(emulator::kAllLanes, site);
}

template <class T>
inline T shuffle_xor(T value, int mask, Site site = Site::here()) {
  if (mask < 0 || mask >= warpSize) emulator::fault("shuffle_xor beyond the warp", site);
  struct Operands {
    T in, out;
    int mask;
  } mine = {value, value, mask};
  emulator::collective(
      "shuffle_xor", emulator::kAllLanes, &mine,
      [](void* const* lanes) {
        for (int lane = 0; lane < warpSize; ++lane) {
          Operands& own = *static_cast<Operands*>(lanes[lane]);
          own.out = static_cast<Operands*>(lanes[lane ^ own.mask])->in;
        }
      },
      site);
  return mine.out;
}

}  // namespace dilconv::cuda

#include "matrices.h"
