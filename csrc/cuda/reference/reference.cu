// The obvious kernel: runs every problem, and is not fast. One thread per written element.
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../device.h"
#include "../kernels.h"
#include "../launch.h"

namespace dilconv::cuda {
namespace {

// Floating types add up in double; integers wrap modulo 2^64, and so modulo their own width.
template <class S>
using WideSum = std::conditional_t<std::is_integral_v<S>, uint64_t, double>;

template <class S>
__device__ WideSum<S> widened(S value) {
  if constexpr (std::is_integral_v<S>) {
    return uint64_t(int64_t(value));
  } else {
    return upcast(value);
  }
}

template <class S>
__device__ S narrowed(WideSum<S> sum) {
  if constexpr (std::is_integral_v<S>) {
    return S(sum);
  } else {
    return downcast<S>(Sum<S>(sum));
  }
}

template <class S>
__device__ S* at(void* data, const int64_t (&strides)[4], int64_t a, int64_t b, int64_t c,
                 int64_t d) {
  return static_cast<S*>(data) + a * strides[0] + b * strides[1] + c * strides[2] + d * strides[3];
}

template <class S>
__device__ WideSum<S> product(const S* a, const S* b) {
  return widened(load<S>(a)) * widened(load<S>(b));
}

// The input position that tap `tap` of output position `i` reads.
__device__ inline int64_t read_position(const ConvProblem& p, int axis, int64_t i, int64_t tap) {
  return i * p.stride[axis] + tap * p.dilation[axis] - p.pad_before[axis];
}

__device__ inline bool inside(const ConvProblem& p, int64_t h, int64_t w) {
  return h >= 0 && h < p.in_size[0] && w >= 0 && w < p.in_size[1];
}

template <class S>
__device__ void output_element(const ConvProblem& p, const Tensors& t, int64_t n, int64_t o,
                               int64_t i, int64_t j) {
  const int64_t depth = p.in_channels / p.groups;
  const int64_t first = o / (p.out_channels / p.groups) * depth;
  WideSum<S> sum = p.has_bias ? widened(load<S>(static_cast<const S*>(t.bias) + o)) : 0;
  for (int64_t a = 0; a < p.kernel[0]; ++a)
    for (int64_t b = 0; b < p.kernel[1]; ++b) {
      const int64_t h = read_position(p, 0, i, a), w = read_position(p, 1, j, b);
      if (!inside(p, h, w)) continue;
      for (int64_t c = 0; c < depth; ++c)
        sum += product(at<S>(t.x, p.x_strides, n, first + c, h, w),
                       at<S>(t.w, p.w_strides, o, c, a, b));
    }
  store(at<S>(t.y, p.y_strides, n, o, i, j), narrowed<S>(sum));
}

template <class S>
__device__ void input_element(const ConvProblem& p, const Tensors& t, int64_t n, int64_t c,
                              int64_t h, int64_t w) {
  const int64_t depth = p.in_channels / p.groups, breadth = p.out_channels / p.groups;
  const int64_t first = c / depth * breadth;
  WideSum<S> sum = p.has_bias ? widened(load<S>(static_cast<const S*>(t.bias) + c)) : 0;
  for (int64_t a = 0; a < p.kernel[0]; ++a)
    for (int64_t b = 0; b < p.kernel[1]; ++b) {
      // The output position (i, j) whose tap (a, b) reads (h, w), if there is one.
      const int64_t row = h - read_position(p, 0, 0, a), column = w - read_position(p, 1, 0, b);
      if (row < 0 || column < 0 || row % p.stride[0] != 0 || column % p.stride[1] != 0) continue;
      const int64_t i = row / p.stride[0], j = column / p.stride[1];
      if (i >= p.out_size[0] || j >= p.out_size[1]) continue;
      for (int64_t o = 0; o < breadth; ++o)
        sum += product(at<S>(t.y, p.y_strides, n, first + o, i, j),
                       at<S>(t.w, p.w_strides, first + o, c % depth, a, b));
    }
  store(at<S>(t.x, p.x_strides, n, c, h, w), narrowed<S>(sum));
}

template <class S>
__device__ void weight_element(const ConvProblem& p, const Tensors& t, int64_t o, int64_t c,
                               int64_t a, int64_t b) {
  const int64_t depth = p.in_channels / p.groups;
  const int64_t channel = o / (p.out_channels / p.groups) * depth + c;
  WideSum<S> sum = 0;
  for (int64_t n = 0; n < p.batch; ++n)
    for (int64_t i = 0; i < p.out_size[0]; ++i)
      for (int64_t j = 0; j < p.out_size[1]; ++j) {
        const int64_t h = read_position(p, 0, i, a), w = read_position(p, 1, j, b);
        if (inside(p, h, w))
          sum += product(at<S>(t.x, p.x_strides, n, channel, h, w),
                         at<S>(t.y, p.y_strides, n, o, i, j));
      }
  store(at<S>(t.w, p.w_strides, o, c, a, b), narrowed<S>(sum));
}

struct Sizes {
  int64_t at[4];
};

constexpr int64_t kThreads = 256;

// Each thread writes every (number of threads)-th element, the last axis fastest. Three blocks to a
// multiprocessor: left to itself, the compiler wants four, and spills.
template <class S>
__global__ void __launch_bounds__(kThreads, 3)
    reference_kernel(ConvProblem p, Tensors t, Sizes sizes) {
  const int64_t count = sizes.at[0] * sizes.at[1] * sizes.at[2] * sizes.at[3];
  const int64_t threads = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
    const int64_t d = i % sizes.at[3], c = i / sizes.at[3] % sizes.at[2];
    const int64_t ab = i / sizes.at[3] / sizes.at[2], b = ab % sizes.at[1], a = ab / sizes.at[1];
    if (p.op == DILCONV_CONV2D)
      output_element<S>(p, t, a, b, c, d);
    else if (p.op == DILCONV_GRAD_INPUT)
      input_element<S>(p, t, a, b, c, d);
    else
      weight_element<S>(p, t, a, b, c, d);
  }
}

Sizes written_sizes(const ConvProblem& p) {
  if (p.op == DILCONV_CONV2D) return {p.batch, p.out_channels, p.out_size[0], p.out_size[1]};
  if (p.op == DILCONV_GRAD_INPUT) return {p.batch, p.in_channels, p.in_size[0], p.in_size[1]};
  return {p.out_channels, p.in_channels / p.groups, p.kernel[0], p.kernel[1]};
}

template <class S>
void run_typed(const ConvProblem& problem, const Tensors& tensors, void* stream) {
  constexpr int64_t kBlocks = 1 << 16;
  const Sizes sizes = written_sizes(problem);
  const int64_t count = sizes.at[0] * sizes.at[1] * sizes.at[2] * sizes.at[3];
  const int64_t blocks = std::min((count + kThreads - 1) / kThreads, kBlocks);
  launch(reference_kernel<S>, {dim3(unsigned(blocks)), dim3(kThreads), 0}, stream, problem, tensors,
         sizes);
}

const char* refuses(const ConvProblem&, int) { return nullptr; }

size_t workspace_bytes(const ConvProblem&, int, int) { return 0; }

void run(const ConvProblem& problem, const Tensors& tensors, const Execution& execution, int) {
  using Run = void (*)(const ConvProblem&, const Tensors&, void*);
  constexpr Run runs[DILCONV_DTYPES] = {
      run_typed<double>,   run_typed<float>,   run_typed<Half>,
      run_typed<BFloat16>, run_typed<int8_t>,  run_typed<uint8_t>,
      run_typed<int16_t>,  run_typed<int32_t>, run_typed<int64_t>};
  runs[problem.dtype](problem, tensors, execution.stream);
}

}  // namespace
}  // namespace dilconv::cuda

namespace dilconv {

const Kernel kCudaReference = {"reference", cuda::refuses, never_declines, cuda::workspace_bytes,
                               cuda::run};

}  // namespace dilconv
