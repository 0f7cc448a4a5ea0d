// What every machine of the architecture has: SSE2 on x86-64, NEON on aarch64.
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
#define DILCONV_INSTRUCTION_SET kSse2
#else
#define DILCONV_INSTRUCTION_SET kGeneric
#endif
namespace {
constexpr int kVectorBytes = 16;
#if defined(__aarch64__)
constexpr int kMaxRows = 8;  // 32 registers
#else
constexpr int kMaxRows = 4;
#endif
}  // namespace
#include "kernels.inc"
