#include "shapes.h"

#include <ATen/ops/empty.h>

namespace dilconv {
namespace {

using at::Tensor;
using c10::SymInt;
using c10::SymIntArrayRef;

constexpr const char* kAxisNames[2] = {"height", "width"};
// Larger values cannot mean anything, and products of two of them still fit 64 bits.
constexpr int64_t kLargest = 2147483647;
constexpr int64_t kLargestSize = int64_t(1) << 40;

void check_values(const char* name, SymIntArrayRef values, size_t length, int64_t smallest,
                  const char* hint) {
  TORCH_CHECK(values.size() == length, name, " must have ", length, " values, but got ", name, "=",
              values);
  for (const SymInt& value : values) {
    TORCH_CHECK(value >= smallest, hint, ": expected ", name, " to be at least ", smallest,
                ", but got ", name, "=", values);
    TORCH_CHECK(value <= kLargest, "expected ", name, " to be at most ", kLargest, ", but got ",
                name, "=", values);
  }
}

void check_args(const ConvArgs& args) {
  check_values("stride", args.stride, 2, 1, "non-positive stride is not supported");
  check_values("dilation", args.dilation, 2, 1,
               "non-positive dilation is not supported, dilation should be greater than zero");
  check_values("padding", args.padding, 4, -kLargest, "padding is too small");
  TORCH_CHECK(args.groups > 0, "groups=", args.groups, ": non-positive groups is not supported");
}

void check_defined(const char* name, const Tensor& tensor) {
  TORCH_CHECK(tensor.defined(), name, " must be a tensor, but got None");
}

// `first` is the argument whose dtype and device the other one must share.
void check_same_kind(const char* first_name, const Tensor& first, const char* name,
                     const Tensor& other) {
  TORCH_CHECK(other.scalar_type() == first.scalar_type(), first_name, " type (",
              first.scalar_type(), ") and ", name, " type (", other.scalar_type(),
              ") should be the same");
  TORCH_CHECK(other.device() == first.device(),
              "Expected all tensors to be on the same device, but ", first_name, " is on ",
              first.device(), " and ", name, " is on ", other.device());
}

void check_batched(const char* name, const Tensor& tensor, Shape& shape) {
  const int unbatched = shape.spatial + 1;
  TORCH_CHECK(tensor.dim() == unbatched || tensor.dim() == unbatched + 1, "Expected ", unbatched,
              "D (unbatched) or ", unbatched + 1, "D (batched) ", name, " to conv", shape.spatial,
              "d, but got ", name, " of size: ", tensor.sym_sizes());
  shape.batched = tensor.dim() == unbatched + 1;
  shape.batch = shape.batched ? tensor.sym_size(0) : SymInt(1);
}

void read_weight(const Tensor& weight, const ConvArgs& args, Shape& shape) {
  TORCH_CHECK(weight.dim() == 3 || weight.dim() == 4,
              "weight should have at least three dimensions: 3 (conv1d) or ",
              "4 (conv2d), but got weight of size: ", weight.sym_sizes());
  shape.spatial = int(weight.dim()) - 2;
  shape.groups = args.groups;
  shape.out_channels = weight.sym_size(0);
  shape.in_channels = weight.sym_size(1) * args.groups;
  shape.kernel = {shape.spatial == 2 ? weight.sym_size(2) : SymInt(1), weight.sym_size(-1)};
  TORCH_CHECK(shape.out_channels >= args.groups && shape.out_channels % args.groups == 0,
              "Given groups=", args.groups, ", expected weight to be at least ", args.groups,
              " at dimension 0 and divisible by it, but got weight of size ", weight.sym_sizes());
}

void check_channels(const char* name, const Tensor& tensor, const char* weight_name,
                    const SymInt& expected, const Shape& shape) {
  const SymInt channels = tensor.sym_size(-shape.spatial - 1);
  TORCH_CHECK(channels == expected, "Given groups=", shape.groups, " and ", weight_name,
              ", expected ", name, tensor.sym_sizes(), " to have ", expected, " channels, but got ",
              channels, " channels instead");
}

std::array<SymInt, 2> spatial_sizes(const Tensor& tensor, const Shape& shape) {
  return {shape.spatial == 2 ? tensor.sym_size(-2) : SymInt(1), tensor.sym_size(-1)};
}

std::array<SymInt, 2> two_sizes(const char* name, SymIntArrayRef sizes, const Shape& shape) {
  TORCH_CHECK(int(sizes.size()) == shape.spatial, name, " must have ", shape.spatial,
              " values, but got ", sizes);
  for (const SymInt& size : sizes)
    TORCH_CHECK(size >= 1, name, " must be positive, but got ", sizes);
  return {shape.spatial == 2 ? sizes[0] : SymInt(1), sizes[shape.spatial - 1]};
}

// "5" or "5 x 7": torch's way to write a size.
std::string by_axis(const std::array<SymInt, 2>& sizes, const Shape& shape) {
  return shape.spatial == 1 ? c10::str(sizes[1]) : c10::str(sizes[0], " x ", sizes[1]);
}

// The output size that the input size, kernel and arguments give.
std::array<SymInt, 2> output_size(const Shape& shape, const ConvArgs& args) {
  std::array<SymInt, 2> padded;
  std::array<SymInt, 2> reach;
  for (int axis = 0; axis < 2; ++axis) {
    TORCH_CHECK(shape.kernel[axis] >= 1, "kernel ", kAxisNames[axis], " must be positive, but got ",
                shape.kernel[axis]);
    TORCH_CHECK(shape.in_size[axis] >= 1,
                "Only zero batch or zero channel inputs are supported, but got input ",
                kAxisNames[axis], " ", shape.in_size[axis]);
    TORCH_CHECK(shape.kernel[axis] <= kLargest && shape.in_size[axis] <= kLargestSize, "kernel ",
                kAxisNames[axis], " ", shape.kernel[axis], " or input ", kAxisNames[axis], " ",
                shape.in_size[axis], " is too large: expected at most ", kLargest, " and ",
                kLargestSize);
    padded[axis] = shape.in_size[axis] + args.padding[2 * axis] + args.padding[2 * axis + 1];
    reach[axis] = args.dilation[axis] * (shape.kernel[axis] - 1) + 1;
  }
  std::array<SymInt, 2> result;
  for (int axis = 0; axis < 2; ++axis) {
    // torch's words, which callers may look for, and then the axis.
    TORCH_CHECK(padded[axis] >= reach[axis], "Calculated padded input size per channel: (",
                by_axis(padded, shape), "). Kernel size: (", by_axis(reach, shape),
                "). Kernel size can't be greater than actual input size, but along the ",
                kAxisNames[axis], " a kernel of ", shape.kernel[axis], " with dilation ",
                args.dilation[axis], " reaches over ", reach[axis], " of ", padded[axis]);
    result[axis] = (padded[axis] - reach[axis]) / args.stride[axis] + 1;
  }
  return result;
}

void check_bias(const std::optional<Tensor>& bias, const SymInt& channels, const char* first_name,
                const Tensor& first) {
  if (!bias.has_value() || !bias->defined()) return;
  TORCH_CHECK(bias->dim() == 1 && bias->sym_size(0) == channels,
              "expected bias to be 1-dimensional with ", channels,
              " elements, but got bias of size ", bias->sym_sizes(), " instead");
  check_same_kind(first_name, first, "bias", *bias);
}

// Whether the weight asks for channels_last: its channels are innermost, and it could be told from
// a contiguous one.
bool weight_is_channels_last(const Tensor& weight) {
  if (weight.is_contiguous()) return false;
  const Tensor planes = weight.dim() == 3 ? weight.unsqueeze(2) : weight;
  return planes.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
}

// F.conv2d's rule: channels_last if the input is (batched, two-dimensional) or the weight is; but
// what has no elements is contiguous.
at::MemoryFormat activation_format(const Tensor& input, const Tensor& weight) {
  const bool last =
      input.sym_numel() != 0 &&
      ((input.dim() == 4 && input.suggest_memory_format() == at::MemoryFormat::ChannelsLast) ||
       weight_is_channels_last(weight));
  return last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

// The tensor (batch, channels, height, width), less the dimensions that the call does not have.
Tensor allocate_activation(const Tensor& input, const Tensor& weight, const Shape& shape,
                           const SymInt& channels, const std::array<SymInt, 2>& size) {
  const at::MemoryFormat format = activation_format(input, weight);
  const at::TensorOptions options = input.options().memory_format(format);
  if (shape.batched && shape.spatial == 2)
    return at::empty_symint({shape.batch, channels, size[0], size[1]}, options);
  if (format == at::MemoryFormat::ChannelsLast) {
    Tensor result = at::empty_symint({shape.batch, channels, size[0], size[1]}, options);
    if (shape.spatial == 1) result = result.squeeze(2);
    return shape.batched ? result : result.squeeze(0);
  }
  std::vector<SymInt> sizes;
  if (shape.batched) sizes.push_back(shape.batch);
  sizes.push_back(channels);
  if (shape.spatial == 2) sizes.push_back(size[0]);
  sizes.push_back(size[1]);
  return at::empty_symint(sizes, options);
}

}  // namespace

Strides strides_4d(const Tensor& tensor, int spatial, bool batched) {
  const auto strides = tensor.sym_strides();
  const int channel = batched ? 1 : 0;
  return {batched ? strides[0] : SymInt(0), strides[channel],
          spatial == 2 ? strides[channel + 1] : SymInt(0), strides.back()};
}

Tensor prepare_conv2d(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias,
                      const ConvArgs& args, Shape& shape) {
  check_defined("input", input);
  check_defined("weight", weight);
  check_args(args);
  read_weight(weight, args, shape);
  check_batched("input", input, shape);
  check_same_kind("Input", input, "weight", weight);
  check_channels("input", input, "this weight", shape.in_channels, shape);
  check_bias(bias, shape.out_channels, "Input", input);
  shape.in_size = spatial_sizes(input, shape);
  shape.out_size = output_size(shape, args);
  // As in F.conv2d, nothing comes out of nothing: no input channels give no output channels.
  if (shape.in_channels == 0) shape.out_channels = 0;
  return allocate_activation(input, weight, shape, shape.out_channels, shape.out_size);
}

Tensor prepare_grad_input(const Tensor& grad_output, const Tensor& weight,
                          SymIntArrayRef input_size, const std::optional<Tensor>& bias,
                          const ConvArgs& args, Shape& shape) {
  check_defined("grad_output", grad_output);
  check_defined("weight", weight);
  check_args(args);
  read_weight(weight, args, shape);
  check_batched("grad_output", grad_output, shape);
  check_same_kind("grad_output", grad_output, "weight", weight);
  if (shape.in_channels == 0) shape.out_channels = 0;
  check_channels("grad_output", grad_output, "this weight", shape.out_channels, shape);
  check_bias(bias, shape.in_channels, "grad_output", grad_output);
  shape.in_size = two_sizes("input_size", input_size, shape);
  shape.out_size = output_size(shape, args);
  const std::array<SymInt, 2> actual = spatial_sizes(grad_output, shape);
  TORCH_CHECK(actual == shape.out_size, "input_size=", input_size,
              " expects grad_output with height ", shape.out_size[0], " and width ",
              shape.out_size[1], ", but got grad_output of size: ", grad_output.sym_sizes());
  return allocate_activation(grad_output, weight, shape, shape.in_channels, shape.in_size);
}

Tensor prepare_grad_weight(const Tensor& grad_output, const Tensor& input,
                           SymIntArrayRef kernel_size, const ConvArgs& args, Shape& shape) {
  check_defined("grad_output", grad_output);
  check_defined("input", input);
  check_args(args);
  TORCH_CHECK(kernel_size.size() == 1 || kernel_size.size() == 2,
              "kernel_size must have 1 or 2 values, but got ", kernel_size);
  shape.spatial = int(kernel_size.size());
  check_batched("input", input, shape);
  TORCH_CHECK(grad_output.dim() == input.dim(),
              "grad_output and input must have the same number of dimensions, ", "but got sizes ",
              grad_output.sym_sizes(), " and ", input.sym_sizes());
  check_same_kind("grad_output", grad_output, "input", input);
  shape.groups = args.groups;
  shape.out_channels = grad_output.sym_size(-shape.spatial - 1);
  shape.in_channels = input.sym_size(-shape.spatial - 1);
  TORCH_CHECK(shape.out_channels % args.groups == 0 && shape.in_channels % args.groups == 0,
              "groups=", args.groups, " must divide the channels of grad_output (",
              shape.out_channels, ") and input (", shape.in_channels, ")");
  shape.kernel = two_sizes("kernel_size", kernel_size, shape);
  shape.in_size = spatial_sizes(input, shape);
  shape.out_size = output_size(shape, args);
  const bool sizes_match = spatial_sizes(grad_output, shape) == shape.out_size &&
                           (!shape.batched || grad_output.sym_size(0) == shape.batch);
  TORCH_CHECK(sizes_match, "input of size ", input.sym_sizes(), " and kernel_size=", kernel_size,
              " expect grad_output with the same batch size, height ", shape.out_size[0],
              " and width ", shape.out_size[1],
              ", but got grad_output of size: ", grad_output.sym_sizes());
  const SymInt channels = shape.in_channels / args.groups;
  if (shape.spatial == 1)
    return at::empty_symint({shape.out_channels, channels, shape.kernel[1]}, input.options());
  const bool last = input.sym_numel() != 0 && input.dim() == 4 &&
                    (input.suggest_memory_format() == at::MemoryFormat::ChannelsLast ||
                     grad_output.suggest_memory_format() == at::MemoryFormat::ChannelsLast);
  return at::empty_symint({shape.out_channels, channels, shape.kernel[0], shape.kernel[1]},
                          input.options().memory_format(last ? at::MemoryFormat::ChannelsLast
                                                             : at::MemoryFormat::Contiguous));
}

}  // namespace dilconv
