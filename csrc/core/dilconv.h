/* The C interface of the dilconv kernels: what a convolution is, which kernels exist, which one
 * runs.
 *
 * Plain C, no torch, no Python. `csrc/core` with one device folder builds into a shared library
 * that exports exactly this; the PyTorch extension exports it too.
 *
 * A convolution is the trilinear form  T(x, w, y) = sum y * corr(x, w)  over three tensors
 *   x  (batch, in_channels, in_h, in_w)                    the input
 *   w  (out_channels, in_channels / groups, kernel_h, kernel_w)   the weight
 *   y  (batch, out_channels, out_h, out_w)                 the output
 *   y[n, o, i, j] = sum_{c, a, b} x[n, c, i*stride_h + a*dilation_h - top, j*stride_w +
 * b*dilation_w - left]
 *                                 * w[o, c, a, b]          (x is zero outside the image)
 * and each op writes one of the three from the two others.
 */
#ifndef DILCONV_H
#define DILCONV_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define DILCONV_API __declspec(dllexport)
#else
#define DILCONV_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dilconv_op {
  DILCONV_CONV2D = 0, /* writes y from x and w (and bias over out_channels) */
  DILCONV_GRAD_INPUT =
      1, /* writes x from y and w (and bias over in_channels): a transposed convolution */
  DILCONV_GRAD_WEIGHT = 2 /* writes w from x and y */
} dilconv_op;

typedef enum dilconv_dtype {
  DILCONV_FLOAT64 = 0,
  DILCONV_FLOAT32,
  DILCONV_FLOAT16,
  DILCONV_BFLOAT16,
  DILCONV_INT8,
  DILCONV_UINT8,
  DILCONV_INT16,
  DILCONV_INT32,
  DILCONV_INT64,
  DILCONV_DTYPES
} dilconv_dtype;

/* Two-element arrays are (height, width). Strides count elements, in the order of the tensor's
 * sizes. Pads may be negative: they crop. All fields are 64-bit so that the struct is also an array
 * of them. */
typedef struct dilconv_problem {
  int64_t op;    /* dilconv_op */
  int64_t dtype; /* dilconv_dtype: of all tensors, bias included */
  int64_t has_bias;
  int64_t
      allow_tf32; /* float32 may be rounded to TF32 (10 bits of mantissa) before it multiplies */
  int64_t batch;
  int64_t groups;
  int64_t in_channels;
  int64_t out_channels;
  int64_t in_size[2];
  int64_t kernel[2];
  int64_t out_size[2];
  int64_t stride[2];
  int64_t dilation[2];
  int64_t pad_before[2]; /* top, left */
  int64_t pad_after[2];  /* bottom, right */
  int64_t x_strides[4];
  int64_t w_strides[4];
  int64_t y_strides[4];
} dilconv_problem;

/* The op says which of x, w and y is written. workspace: at least dilconv_workspace() bytes,
 * aligned to 64. */
typedef struct dilconv_tensors {
  void* x;
  void* w;
  void* y;
  const void* bias;
  void* workspace;
} dilconv_tensors;

/* How a kernel may use threads: run() calls task(context, 0 ... count - 1) concurrently and returns
 * when all have returned. A null run means one thread. */
typedef struct dilconv_threads {
  int count;
  void (*run)(void* pool, int count, void (*task)(void* context, int index), void* context);
  void* pool;
} dilconv_threads;

/* What a kernel may use while it runs: threads on the CPU; on a GPU a CUDA stream of the
 * current device), on which it enqueues its work without waiting for it. */
typedef struct dilconv_execution {
  dilconv_threads threads;
  void* stream;
} dilconv_execution;

typedef enum dilconv_status {
  DILCONV_OK = 0,
  DILCONV_INVALID = 1, /* the problem contradicts itself, or the device is unknown */
  DILCONV_REFUSED = 2, /* the named kernel cannot run the problem, or there is none */
  DILCONV_FAILED = 3   /* the kernel could not be run */
} dilconv_status;

/* A device ("cpu" or "cuda", each in the library that has its kernels) holds an ordered list of
 * kernels, best first, and the instruction sets that they are made for, best first: of the CPU
 * those that this machine runs ("avx512", "avx2", ...), of a GPU its compute capabilities ("sm_90",
 * ...). Both return null past the end, or for an unknown device. */
DILCONV_API const char* dilconv_kernel_name(const char* device, int index);
DILCONV_API const char* dilconv_instruction_set(const char* device, int index);

/* In all functions below `kernel` names one, or is null for the first that accepts; `isa` names the
 * instruction set to answer for, or is null for this machine's, as capped by the option; `message`
 * (may be null) receives at most `message_size` bytes of explanation, terminated, when the status
 * is not DILCONV_OK. */
DILCONV_API dilconv_status dilconv_accepts(const char* device, const char* kernel, const char* isa,
                                           const dilconv_problem* problem, char* message,
                                           size_t message_size);

/* Why a kernel that could run the problem is passed over unless it is named: DILCONV_REFUSED and
 * the reason, because a later one is expected to be faster; else DILCONV_OK. */
DILCONV_API dilconv_status dilconv_declines(const char* device, const char* kernel, const char* isa,
                                            const dilconv_problem* problem, char* message,
                                            size_t message_size);

/* Scratch bytes that the kernel needs with this many threads: as many as dilconv_run is given.
 * Options must not change between the two calls. */
DILCONV_API dilconv_status dilconv_workspace(const char* device, const char* kernel,
                                             const char* isa, const dilconv_problem* problem,
                                             int threads, size_t* bytes, char* message,
                                             size_t message_size);

/* Runs on this machine's instruction set, as capped by the option. A null execution means one
 * thread, or the default stream. */
DILCONV_API dilconv_status dilconv_run(const char* device, const char* kernel,
                                       const dilconv_problem* problem,
                                       const dilconv_tensors* tensors,
                                       const dilconv_execution* execution, char* message,
                                       size_t message_size);

/* Process-wide options: "kernel" (forces one), "isa" (caps the instruction set), "verbose" ("0" or
 * "1": logs choices; by default "0"), "winograd" ("0" or "1": allows it; by default "1"). They
 * start as DILCONV_KERNEL, DILCONV_ISA, DILCONV_VERBOSE and DILCONV_WINOGRAD say. The empty string
 * is the default. */
DILCONV_API const char* dilconv_get_option(const char* name);
DILCONV_API dilconv_status dilconv_set_option(const char* name, const char* value, char* message,
                                              size_t message_size);

#ifdef __cplusplus
}
#endif

#endif
