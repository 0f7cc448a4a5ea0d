/* What a test may ask of the emulated GPU: plain C, so that ctypes can too.
 *
 * Kernels see only memory that was mapped: an address on the emulated device is no address of the
 * host, so that a plain dereference, in a kernel or in host code, ends the process.
 */
#ifndef CUDA_EMULATOR_CONTROL_H
#define CUDA_EMULATOR_CONTROL_H

#include <stddef.h>
#include <stdint.h>

#define CUDA_EMULATOR_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* The order in which threads run whenever several could:
 *   forward, reverse   by their number, each until it waits
 *   random             any, and interrupted at memory accesses
 *   greedy             one warp as far as the next block barrier, then another
 * Blocks run one after another: in reverse order in "reverse", shuffled in "random".
 * Returns 0, or -1 for an unknown name. The initial schedule is "forward". */
CUDA_EMULATOR_API int cuda_emulator_set_schedule(const char* name, unsigned seed);

/* The compute capability: 75, 80, 86, 89, 90, 100 or 120; or 110, for which there are no kernels.
 * Initially $CUDA_EMULATOR_CAPABILITY, or 80. Returns 0, or -1 for an unknown one. */
CUDA_EMULATOR_API int cuda_emulator_set_capability(int capability);

/* Makes host memory known to the device; returns its address there, a multiple of 256. At most 64
 * at once. Stores to a mapping that is not writable are faults. Unmapping forgets them all. */
CUDA_EMULATOR_API void* cuda_emulator_map(void* host, size_t bytes, int writable, const char* name);
CUDA_EMULATOR_API void cuda_emulator_unmap(void);

/* What was wrong with the last launch that failed: kernel, block, thread, source line. */
CUDA_EMULATOR_API const char* cuda_emulator_error(void);

/* While on (1), launches are checked and counted, but no thread runs and no memory is touched. */
CUDA_EMULATOR_API void cuda_emulator_launch_only(int on);

/* Counts launches and memory requests from when it is switched on (1), as a list in JSON, one
 * object per kernel: its largest block, shared memory and grid; sectors of 32 bytes of global
 * memory, and passes over the banks of shared memory, with the least that the same bytes need. */
CUDA_EMULATOR_API void cuda_emulator_count(int on);
CUDA_EMULATOR_API const char* cuda_emulator_counters(void);

/* How many threads of kernels have run to their end. */
CUDA_EMULATOR_API int64_t cuda_emulator_threads_run(void);

#ifdef __cplusplus
}
#endif

#endif
