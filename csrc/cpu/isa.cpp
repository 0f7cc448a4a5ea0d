#include "isa.h"

#include "simd/instruction_set.h"

#if defined(DILCONV_MATRIX) && defined(__linux__) && !defined(DILCONV_TWINS)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dilconv {
namespace {

#if defined(DILCONV_MATRIX)
#if defined(DILCONV_TWINS)
// The instructions' twins run anywhere.
bool multiplies_pairs() { return true; }
bool multiplies_tiles() { return true; }
#else
bool multiplies_pairs() {
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}

// Whether the CPU has AMX's tiles of bfloat16, and the operating system lets this process use them:
// it makes room for them in a thread's state only on request.
bool multiplies_tiles() {
#if defined(__linux__)
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // of leaf 7, edx
  constexpr long kRequestPermission = 0x1023, kTileData = 18;   // ARCH_REQ_XCOMP_PERM
  unsigned a, b, c, d;
  return multiplies_pairs() && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kAmxBf16) &&
         (d & kAmxTile) && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif
#endif

}  // namespace

std::vector<const char*> machine_instruction_sets() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  std::vector<const char*> sets;
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
#if defined(DILCONV_MATRIX)
  if (multiplies_tiles()) sets.push_back("amx");
  if (multiplies_pairs()) sets.push_back("avx512_bf16");
#endif
  if (avx512) sets.push_back("avx512");
  if (avx2) sets.push_back("avx2");
  sets.push_back("sse2");
  return sets;
#elif defined(__aarch64__)
  return {"neon"};
#else
  return {"generic"};
#endif
}

}  // namespace dilconv
