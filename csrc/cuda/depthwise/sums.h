// The inner loops: sums over the taps of a kernel column, with what was read kept in registers.
#pragma once

#include "../device.h"

namespace dilconv::cuda::depthwise {

template <class T, int n>
__device__ inline void accumulate(Vec<T, n>& sum, const Vec<T, n>& a, const Vec<T, n>& b) {
#pragma unroll
  for (int i = 0; i < n; ++i) sum.at[i] = multiply_add(a.at[i], b.at[i], sum.at[i]);
}

// sums[r] += read(r + t) * factor of t for t in [first, first + taps), unrolled. weights(t, count,
// factors) puts those of [t, t + count) into an array, and may fill the rest of it.
template <int taps, int rows, class V, class Read, class Weights>
__device__ inline void add_few_taps(V (&sums)[rows], int first, const Read& read,
                                    const Weights& weights) {
  V window[rows + taps - 1], factors[taps];
#pragma unroll
  for (int e = 0; e < rows + taps - 1; ++e) window[e] = read(first + e);
  weights(first, taps, factors);
#pragma unroll
  for (int t = 0; t < taps; ++t)
#pragma unroll
    for (int r = 0; r < rows; ++r) accumulate(sums[r], window[t + r], factors[t]);
}

// sums[r] += read(step * r + t) * factor of t for t in [first, last). With sliding, step is 1: what
// `rows` taps of all sums need is read once, all of it before the first use, and the factors too.
template <bool sliding, int rows, class V, class Read, class Weights>
__device__ inline void add_taps(V (&sums)[rows], int first, int last, int step, const Read& read,
                                const Weights& weights) {
  if constexpr (sliding && rows > 1) {
    if (first >= last) return;  // then `first` may lie beyond what there is to read
    if (last - first == 3) return add_few_taps<3>(sums, first, read, weights);
    if constexpr (sizeof(V) <= sizeof(double)) {
      if (last - first == 5) return add_few_taps<5>(sums, first, read, weights);
      if (last - first == 7) return add_few_taps<7>(sums, first, read, weights);
    }
    V window[2 * rows - 1], factors[rows];
#pragma unroll
    for (int r = 0; r + 1 < rows; ++r) window[r] = read(first + r);
    // Of eight rows, or of vectors, one step is enough to do.
    [[maybe_unused]] constexpr int kUnrolled = rows == 4 && sizeof(V) <= sizeof(double) ? 4 : 1;
    int base = first;
#pragma unroll kUnrolled
    for (; base + rows <= last; base += rows) {
#pragma unroll
      for (int u = 0; u < rows; ++u) window[rows - 1 + u] = read(base + rows - 1 + u);
      weights(base, rows, factors);
#pragma unroll
      for (int u = 0; u < rows; ++u)
#pragma unroll
        for (int r = 0; r < rows; ++r) accumulate(sums[r], window[u + r], factors[u]);
#pragma unroll
      for (int r = 0; r + 1 < rows; ++r) window[r] = window[rows + r];
    }
    if (base == last) return;
#pragma unroll
    for (int u = 0; u + 1 < rows; ++u)
      if (base + u < last) window[rows - 1 + u] = read(base + rows - 1 + u);
    weights(base, last - base, factors);
#pragma unroll
    for (int u = 0; u + 1 < rows; ++u) {
      if (base + u >= last) break;
#pragma unroll
      for (int r = 0; r < rows; ++r) accumulate(sums[r], window[u + r], factors[u]);
    }
  } else {
#pragma unroll 2  // more takes registers that the blocks of a multiprocessor share
    for (int t = first; t < last; ++t) {
      V factors[1];
      weights(t, 1, factors);
#pragma unroll
      for (int r = 0; r < rows; ++r) accumulate(sums[r], read(step * r + t), factors[0]);
    }
  }
}

// sums[t] += y(i) * x(step * i + t) for i in [0, count). With sliding, step is 1: what `taps`
// factors meet is read once, all of it before the first use.
template <bool sliding, int taps, class V, class ReadX, class ReadY>
__device__ inline void add_products(V (&sums)[taps], int count, int step, const ReadX& x,
                                    const ReadY& y) {
  int first = 0;
  if constexpr (sliding) {
    V window[2 * taps - 1], factors[taps];
#pragma unroll
    for (int t = 0; t + 1 < taps; ++t) window[t] = x(t);
    for (; first + taps <= count; first += taps) {
#pragma unroll
      for (int u = 0; u < taps; ++u) {
        factors[u] = y(first + u);
        window[taps - 1 + u] = x(first + taps - 1 + u);
      }
#pragma unroll
      for (int u = 0; u < taps; ++u)
#pragma unroll
        for (int t = 0; t < taps; ++t) accumulate(sums[t], window[u + t], factors[u]);
#pragma unroll
      for (int t = 0; t + 1 < taps; ++t) window[t] = window[taps + t];
    }
  }
  for (int i = first; i < count; ++i) {
    const V factor = y(i);
#pragma unroll
    for (int t = 0; t < taps; ++t) accumulate(sums[t], x(step * i + t), factor);
  }
}

}  // namespace dilconv::cuda::depthwise
