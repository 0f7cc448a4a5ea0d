#include "isa.h"

namespace dilconv {

std::vector<const char*> machine_instruction_sets() {
#if defined(__x86_64__)
  std::vector<const char*> sets;
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
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
