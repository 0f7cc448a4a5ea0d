// grad_weight of any layout, made for channels_last: lanes hold neighbouring channels, `width` to a
// lane, so that every load is aligned and coalesced as the tensors lie.
//
// A thread sums, for its channels, one kernel column and A of its taps, down strips of columns of
// y. A block's threads work on neighbouring columns, so that what taps share comes from the
// first-level cache.
//
// Bytes: at least x and y once each. From memory the kernel moves just that, and the partial sums;
// what blocks share comes from the second-level cache.
#include <algorithm>

#include "forms.h"
#include "partial_sums.h"
#include "sums.h"

namespace dilconv::cuda::depthwise {
namespace {

constexpr int kThreads = 256;

// Unaligned channels come one by one, in the same places: bits must not depend on the alignment.
template <class S, int width>
__device__ Vec<Sum<S>, width> load_wide(const S* from, int vector) {
  Vec<S, width> narrow;
  if (vector == width)
    narrow = load<Vec<S, width>>(from);
  else
#pragma unroll
    for (int i = 0; i < width; ++i) narrow.at[i] = load<S>(from + i);
  Vec<Sum<S>, width> wide;
#pragma unroll
  for (int i = 0; i < width; ++i) wide.at[i] = upcast(narrow.at[i]);
  return wide;
}

__host__ __device__ inline int64_t count_strips(const WeightPlan& plan) {
  return int64_t(plan.batch) * plan.phases.value() * plan.row_tiles.value() *
         plan.columns.written_size;
}

template <class S, int width, int taps, bool sliding>
class PixelWeights {
  using T = Sum<S>;
  using V = Vec<T, width>;

 public:
  using Sums = V[taps];

  __device__ PixelWeights(const WeightPlan& plan) : plan_(plan) {
    channel_ = blockIdx.x;
    column_ = plan.column_blocks.split(channel_) * plan.block_columns;
    first_tap_ = plan.runs.split(channel_) * taps;
    group_ = threadIdx.x;
    lane_ = plan.channel_vectors.split(group_);
    slice_ = plan.slices.split(group_);
    channel_ = (channel_ * plan.channel_vectors.value() + lane_) * width;
    column_ = group_ < plan.block_columns ? column_ + group_ : plan.columns.kernel;
  }

  // Adds the products of strips [first, last): strips of a row's columns follow each other.
  __device__ void add(Sums& sums, const S* x, const S* y, int first, int last) const {
    if (!wanted()) return;
    x += plan_.divisor.divide(channel_) * plan_.x.channel;
    y += channel_ * plan_.y.channel;
    for (int i = first + slice_; i < last; i += plan_.slices.value()) {
      int row_tile = i;
      const int column = plan_.width.split(row_tile);
      add_strip(sums, x, y, column, row_tile);
    }
  }

  // Adds up the slices' sums, in order, and writes them. All threads of the block call it.
  __device__ void write(const Sums& sums, T* workspace) const {
    V* const partial = reinterpret_cast<V*>(shared_memory());  // [slice][group][tap][lane]
    const int count = plan_.block_columns * taps * plan_.channel_vectors.value();
    if (group_ < plan_.block_columns) {
#pragma unroll
      for (int t = 0; t < taps; ++t)
        store_shared(
            partial + slice_ * count + (group_ * taps + t) * plan_.channel_vectors.value() + lane_,
            sums[t]);
    }
    block_barrier();
    if (!wanted()) return;
    for (int t = slice_; t < taps; t += plan_.slices.value()) {
      if (first_tap_ + t >= plan_.rows.kernel) break;
      V sum = {};
      for (int s = 0; s < plan_.slices.value(); ++s) {
        const V more = load_shared<V>(partial + s * count +
                                      (group_ * taps + t) * plan_.channel_vectors.value() + lane_);
#pragma unroll
        for (int k = 0; k < width; ++k) sum.at[k] += more.at[k];
      }
#pragma unroll
      for (int k = 0; k < width; ++k)
        store(partial_sum(workspace, plan_, blockIdx.y, channel_ + k, first_tap_ + t, column_),
              sum.at[k]);
    }
  }

 private:
  __device__ bool wanted() const {
    return channel_ < plan_.channels && column_ < plan_.columns.kernel;
  }

  __device__ void add_strip(Sums& sums, const S* x, const S* y, int column, int row_tile) const {
    const Axis& rows = plan_.rows;
    const int x_column =
        column * plan_.columns.stride + column_ * plan_.columns.dilation - plan_.columns.pad;
    if (unsigned(x_column) >= unsigned(plan_.columns.read_size))
      return;  // the tap is in the padding
    const int from = plan_.row_tiles.split(row_tile) * plan_.tile_rows;
    const int phase = plan_.phases.split(row_tile);
    const int64_t n = row_tile;
    const int count = smaller(plan_.tile_rows, rows.phase_size(phase) - from);
    const int first_row =
        phase * rows.stride - rows.pad + (from * rows.step + first_tap_) * rows.jump.value();
    const S* const x_from = x + n * plan_.x.batch + int64_t(x_column) * plan_.x.column;
    const S* const y_from = y + n * plan_.y.batch + int64_t(column) * plan_.y.column +
                            int64_t(phase + from * rows.period.value()) * plan_.y.row;
    const int64_t y_step = int64_t(rows.period.value()) * plan_.y.row;
    add_products<sliding>(
        sums, count, rows.step,
        [&](int e) {
          const int row = first_row + e * rows.jump.value();
          if (unsigned(row) >= unsigned(rows.read_size)) return V{};
          return load_wide<S, width>(x_from + int64_t(row) * plan_.x.row, plan_.x_vector);
        },
        [&](int e) { return load_wide<S, width>(y_from + e * y_step, plan_.y_vector); });
  }

  const WeightPlan& plan_;
  int first_tap_;             // of the block
  int lane_, slice_, group_;  // this thread's place in the block
  int channel_, column_;      // its first channel and its kernel column
};

template <class S, int width, int taps, bool sliding>
__global__ void __launch_bounds__(kThreads, width > 1 ? 2 : 3)
    pixels_weight_kernel(const __grid_constant__ WeightPlan plan, const S* x, const S* y,
                         Sum<S>* workspace) {
  const PixelWeights<S, width, taps, sliding> weights(plan);
  typename PixelWeights<S, width, taps, sliding>::Sums sums = {};
  const int64_t strips = count_strips(plan), split = blockIdx.y;
  weights.add(sums, x, y, int(strips * split / plan.splits),
              int(strips * (split + 1) / plan.splits));
  weights.write(sums, workspace);
}

// --- host -----------------------------------------------------------------------------------

int choose_taps(const WeightPlan& plan) {
  if (plan.rows.kernel == 1) return 1;
  return plan.rows.kernel <= 3 || plan.rows.step > 1 ? 3 : 4;
}

// `width` channels to a lane.
WeightPlan make_plan(const ConvProblem& problem, int width) {
  WeightPlan plan = make_weight_plan(problem);
  const int line = 128 / int(width * dtype_bytes(problem.dtype));
  const int vectors = smaller(smaller(line, kWarp), ceil_div(plan.channels, width));
  const int height = plan.rows.phase_size(0);
  plan.runs = Divisor(ceil_div(plan.rows.kernel, choose_taps(plan)));
  plan.channel_vectors = Divisor(vectors);
  plan.block_columns = smaller(plan.columns.kernel, 8);
  plan.column_blocks = Divisor(ceil_div(plan.columns.kernel, plan.block_columns));
  plan.channel_tiles = ceil_div(plan.channels, vectors * width);
  plan.slices = Divisor(kThreads / (vectors * plan.block_columns));
  plan.width = Divisor(larger(1, plan.columns.written_size));
  plan.phases = Divisor(larger(1, smaller(plan.rows.period.value(), plan.rows.written_size)));
  plan.tile_rows = larger(1, smaller(height, 32));
  plan.row_tiles = Divisor(larger(1, ceil_div(height, plan.tile_rows)));
  plan.splits =
      choose_splits(plan, count_strips(plan) / plan.slices.value(),
                    int64_t(plan.channel_tiles) * plan.runs.value() * plan.column_blocks.value());
  return plan;
}

// Channels to a lane: 16 bytes of sums, if both tensors' channels are neighbours; or one.
int lane_channels(const ConvProblem& p) {
  const int widest = 16 / int(sum_bytes(p.dtype));
  const bool wide = p.in_channels == p.out_channels && p.out_channels % widest == 0 &&
                    p.x_strides[1] == 1 && p.y_strides[1] == 1;
  return wide ? widest : 1;
}

template <class S, int width, int taps, bool sliding>
void launch_kernel(const WeightPlan& plan, const Tensors& tensors, void* stream) {
  Grid grid = {};
  grid.blocks = dim3(unsigned(plan.channel_tiles) * plan.runs.value() * plan.column_blocks.value(),
                     plan.splits);
  grid.threads = dim3(kThreads);
  grid.shared_bytes = size_t(plan.slices.value()) * plan.block_columns * taps *
                      plan.channel_vectors.value() * width * sizeof(Sum<S>);
  launch(pixels_weight_kernel<S, width, taps, sliding>, grid, stream, plan,
         static_cast<const S*>(tensors.x), static_cast<const S*>(tensors.y),
         static_cast<Sum<S>*>(tensors.workspace));
}

template <class S, int width>
void launch_wide(const WeightPlan& plan, const Tensors& tensors, void* stream) {
  const int taps = choose_taps(plan);
  if (taps == 1)
    launch_kernel<S, width, 1, false>(plan, tensors, stream);
  else if (plan.rows.step > 1)
    launch_kernel<S, width, 3, false>(plan, tensors, stream);
  else if (taps == 3)
    launch_kernel<S, width, 3, true>(plan, tensors, stream);
  else
    launch_kernel<S, width, 4, true>(plan, tensors, stream);
  launch_partial_sums<S>(plan, tensors.workspace, tensors.w, stream);
}

// Channels to a load: a lane's, if every pixel is aligned.
int load_channels(const void* tensor, const Strides& strides, int64_t bytes, int width) {
  const bool aligned = reinterpret_cast<uintptr_t>(tensor) % (bytes * width) == 0 &&
                       strides.column % width == 0 && strides.row % width == 0 &&
                       strides.batch % width == 0;
  return aligned ? width : 1;
}

template <class S>
void launch_typed(WeightPlan plan, const Tensors& tensors, int width, void* stream) {
  constexpr int kWidest = 16 / sizeof(Sum<S>);
  plan.x_vector = load_channels(tensors.x, plan.x, sizeof(S), width);
  plan.y_vector = load_channels(tensors.y, plan.y, sizeof(S), width);
  if (width == kWidest)
    launch_wide<S, kWidest>(plan, tensors, stream);
  else
    launch_wide<S, 1>(plan, tensors, stream);
}

}  // namespace

size_t pixels_weight_workspace(const ConvProblem& problem) {
  return partial_sums_bytes(make_plan(problem, lane_channels(problem)), sum_bytes(problem.dtype));
}

void run_pixels_weight(const ConvProblem& problem, const Tensors& tensors, void* stream) {
  const int width = lane_channels(problem);
  constexpr decltype(&launch_typed<float>) launches[] = {
      launch_typed<double>, launch_typed<float>, launch_typed<Half>, launch_typed<BFloat16>};
  launches[problem.dtype](make_plan(problem, width), tensors, width, stream);
}

}  // namespace dilconv::cuda::depthwise
