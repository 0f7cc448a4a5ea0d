// What the planning of both products asks of a problem. Host code, without CUDA.
#pragma once

#include "planner.h"

namespace dilconv::cuda {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t round_up(int64_t a, int64_t b) { return divide_up(a, b) * b; }

inline bool is_gather(const ConvProblem& p) { return p.op != DILCONV_GRAD_WEIGHT; }
inline int64_t in_per_group(const ConvProblem& p) { return p.in_channels / p.groups; }
inline int64_t out_per_group(const ConvProblem& p) { return p.out_channels / p.groups; }
inline int64_t read_channels(const ConvProblem& p) {
  return p.op == DILCONV_GRAD_INPUT ? out_per_group(p) : in_per_group(p);
}
inline int64_t written_channels(const ConvProblem& p) {
  return p.op == DILCONV_GRAD_INPUT ? in_per_group(p) : out_per_group(p);
}
inline int chunk_elements(const ConvProblem& p) { return int(16 / dtype_bytes(p.dtype)); }

// Whole chunks, or the part of one that holds them: then a chunk has several taps.
inline int padded_channels(const ConvProblem& p, int64_t channels) {
  const int chunk = chunk_elements(p);
  if (channels >= chunk) return int(round_up(channels, chunk));
  int padded = channels > 0 ? 1 : 0;
  while (padded < channels) padded *= 2;
  return padded;
}

inline int64_t kernel_size(const ConvProblem& p) { return p.kernel[0] * p.kernel[1]; }

inline ImageParams make_image(const ConvProblem& p, const void* data, const int64_t (&strides)[4],
                              const int64_t (&size)[2], int64_t channels) {
  ImageParams image;
  image.data = data;
  image.sample = strides[0];
  image.channel = strides[1];
  image.row = strides[2];
  image.column = strides[3];
  image.group = channels * strides[1];
  image.height = int(size[0]);
  image.width = int(size[1]);
  image.channels = int(channels);
  image.padded_channels = padded_channels(p, channels);
  return image;
}

inline int64_t sum_bytes(const ConvProblem& p) { return p.dtype == DILCONV_FLOAT64 ? 8 : 4; }

}  // namespace dilconv::cuda
