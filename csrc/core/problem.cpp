#include "problem.h"

#include <sstream>

namespace dilconv {
namespace {

struct Dtype {
  const char* name;
  int64_t bytes;
};

constexpr Dtype kDtypes[DILCONV_DTYPES] = {{"float64", 8},  {"float32", 4}, {"float16", 2},
                                           {"bfloat16", 2}, {"int8", 1},    {"uint8", 1},
                                           {"int16", 2},    {"int32", 4},   {"int64", 8}};
constexpr const char* kAxes[2] = {"height", "width"};

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

std::string check_axis(const ConvProblem& p, int axis) {
  if (p.stride[axis] < 1 || p.dilation[axis] < 1 || p.kernel[axis] < 1)
    return text("stride, dilation and kernel size must be positive, but along the ", kAxes[axis],
                " they are ", p.stride[axis], ", ", p.dilation[axis], " and ", p.kernel[axis]);
  if (p.in_size[axis] < 0 || p.out_size[axis] < 0)
    return text("sizes must not be negative along the ", kAxes[axis]);
  int64_t reach, padded;
  if (__builtin_mul_overflow(p.dilation[axis], p.kernel[axis] - 1, &reach) ||
      __builtin_add_overflow(reach, 1, &reach) ||
      __builtin_add_overflow(p.in_size[axis], p.pad_before[axis], &padded) ||
      __builtin_add_overflow(padded, p.pad_after[axis], &padded))
    return text("sizes overflow along the ", kAxes[axis]);
  const int64_t expected = padded < reach ? 0 : (padded - reach) / p.stride[axis] + 1;
  if (p.out_size[axis] != expected)
    return text("output ", kAxes[axis], " must be ", expected, ", but it is ", p.out_size[axis]);
  return {};
}

}  // namespace

const char* op_name(int64_t op) {
  constexpr const char* names[] = {"conv2d", "conv2d_grad_input", "conv2d_grad_weight"};
  return names[op];
}

const char* dtype_name(int64_t dtype) { return kDtypes[dtype].name; }

int64_t dtype_bytes(int64_t dtype) { return kDtypes[dtype].bytes; }

std::string check_problem(const ConvProblem& p) {
  if (p.op < DILCONV_CONV2D || p.op > DILCONV_GRAD_WEIGHT) return text("unknown op ", p.op);
  if (p.dtype < 0 || p.dtype >= DILCONV_DTYPES) return text("unknown dtype ", p.dtype);
  if (p.has_bias && p.op == DILCONV_GRAD_WEIGHT) return "conv2d_grad_weight takes no bias";
  if (p.batch < 0 || p.in_channels < 0 || p.out_channels < 0) return "sizes must not be negative";
  if (p.groups < 1) return text("groups must be positive, but it is ", p.groups);
  if (p.in_channels % p.groups != 0 || p.out_channels % p.groups != 0)
    return text("in_channels (", p.in_channels, ") and out_channels (", p.out_channels,
                ") must be divisible by groups (", p.groups, ")");
  const std::string height = check_axis(p, 0);
  return height.empty() ? check_axis(p, 1) : height;
}

std::string describe(const ConvProblem& p) {
  return text(op_name(p.op), ' ', dtype_name(p.dtype), p.allow_tf32 ? " (tf32)" : "", " x ",
              p.batch, 'x', p.in_channels, 'x', p.in_size[0], 'x', p.in_size[1], " w ",
              p.out_channels, 'x', p.in_channels / p.groups, 'x', p.kernel[0], 'x', p.kernel[1],
              " y ", p.batch, 'x', p.out_channels, 'x', p.out_size[0], 'x', p.out_size[1],
              " stride ", p.stride[0], 'x', p.stride[1], " dilation ", p.dilation[0], 'x',
              p.dilation[1], " pads ", p.pad_before[0], ',', p.pad_after[0], ',', p.pad_before[1],
              ',', p.pad_after[1], " groups ", p.groups,
              p.y_strides[1] == 1 && p.out_channels > 1 ? " channels_last"
              : p.y_strides[3] == 1                     ? " contiguous"
                                                        : " strided");
}

}  // namespace dilconv
