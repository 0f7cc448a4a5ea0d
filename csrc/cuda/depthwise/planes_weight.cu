// grad_weight of planes whose rows are dense (NCHW): lanes hold neighbouring columns of y.
//
// A block brings a tile of y, and of x what meets it, into shared memory; each thread sums, for one
// kernel column and A of its taps, down one column of the tile. Lanes are added up by shuffles, in
// a fixed order.
//
// Bytes: at least x and y once each. From memory the kernel moves just that, and the partial sums;
// the tiles' margins, and what blocks of the same channel share, come from the second-level cache.
#include <algorithm>

#include "forms.h"
#include "partial_sums.h"
#include "sums.h"
#include "tile.h"

namespace dilconv::cuda::depthwise {
namespace {

constexpr int kThreads = 384;

__host__ __device__ inline int64_t count_tiles(const WeightPlan& plan) {
  return int64_t(plan.image_tiles) * plan.phases.value() * plan.row_tiles.value() *
         plan.column_tiles.value();
}

template <class S, int taps, bool sliding>
class WeightTile {
  using T = Sum<S>;

 public:
  using Sums = Vec<T, 1>[taps];

  __device__ WeightTile(const WeightPlan& plan) : plan_(plan) {
    channel_ = blockIdx.x;
    first_column_ = plan.column_blocks.split(channel_) * plan.block_columns;
    first_tap_ = plan.runs.split(channel_) * taps;
    column_ = threadIdx.x;
    image_ = plan.places.split(column_);
    column_ += first_column_;
    lane_ = plan.tile_columns.split(image_);
    x_offsets_ = reinterpret_cast<int64_t*>(shared_memory());
    y_offsets_ = x_offsets_ + plan.y_tile.planes;
    x_tile_ = reinterpret_cast<T*>(y_offsets_ + plan.y_tile.planes);
    y_tile_ = x_tile_ + plan.x_tile.planes * plan.x_tile.rows * plan.x_tile.pitch;
  }

  // Adds a tile's products. All threads of the block call it.
  __device__ void add(Sums& sums, const S* x, const S* y, int tile) {
    const int base = plan_.column_tiles.split(tile) * plan_.tile_columns.value();
    const int from = plan_.row_tiles.split(tile) * plan_.tile_rows;
    const int phase = plan_.phases.split(tile), first_image = tile * plan_.y_tile.planes;
    const int size = plan_.y_step > 1 ? plan_.rows.written_size : plan_.rows.phase_size(phase);
    const int rows = smaller(plan_.tile_rows, size - from);
    if (rows <= 0) return;
    const int x_row = phase * plan_.rows.stride - plan_.rows.pad +
                      from * plan_.tile_stride * plan_.x_tile.row_jump +
                      first_tap_ * plan_.rows.jump.value();
    const int x_column =
        base * plan_.columns.stride - plan_.columns.pad + first_column_ * plan_.columns.dilation;
    // A vector begins at a multiple of its size, a power of two.
    const int x_shift = x_column & (plan_.x_tile.vector - 1);
    const int y_shift = base & (plan_.y_tile.vector - 1);
    block_barrier();  // all have read the tile before this one
    find_planes(first_image);
    block_barrier();
    load_tile(x_tile_, x_offsets_, x, x_row, x_column - x_shift, plan_.x_tile);
    load_tile(y_tile_, y_offsets_, y, phase + from * plan_.y_tile.row_jump, base - y_shift,
              plan_.y_tile);
    block_barrier();
    if (column_ >= smaller(plan_.columns.kernel, first_column_ + plan_.block_columns) ||
        image_ >= plan_.y_tile.planes || base + lane_ >= plan_.columns.written_size)
      return;
    const T* const own_x = x_tile_ + image_ * plan_.x_tile.rows * plan_.x_tile.pitch + x_shift +
                           lane_ * plan_.columns.stride +
                           (column_ - first_column_) * plan_.columns.dilation;
    const T* const own_y =
        y_tile_ + image_ * plan_.y_tile.rows * plan_.y_tile.pitch + y_shift + lane_;
    const int x_pitch = plan_.x_step * plan_.x_tile.pitch;
    const int y_pitch = plan_.y_step * plan_.y_tile.pitch;
    for (int first = 0; first < smaller(plan_.y_step, rows); ++first) {
      const T* const phase_x = own_x + first * plan_.tile_stride * plan_.x_tile.pitch;
      const T* const phase_y = own_y + first * plan_.y_tile.pitch;
      const int count = plan_.y_step > 1 ? plan_.rows.period.divide_up(rows - first) : rows;
      add_products<sliding>(
          sums, count, plan_.rows.step,
          [&](int e) { return load_shared<Vec<T, 1>>(phase_x + e * x_pitch); },
          [&](int e) { return load_shared<Vec<T, 1>>(phase_y + e * y_pitch); });
    }
  }

  // Adds up the lanes' sums and writes them. All threads of the block call it.
  __device__ void write(const Sums& sums, T* workspace) {
    const int warps = plan_.places.value() / kWarp, warp = threadIdx.x / kWarp;
    T* const partial = x_tile_;  // [kernel column][warp][tap]
    block_barrier();
#pragma unroll
    for (int t = 0; t < taps; ++t) {
      const T sum = add_lanes(sums[t].at[0]);
      if (threadIdx.x % kWarp == 0) store_shared(partial + warp * taps + t, sum);
    }
    block_barrier();
    for (int i = threadIdx.x; i < plan_.block_columns * taps; i += blockDim.x) {
      const int group = i / taps, row = first_tap_ + i % taps, column = first_column_ + group;
      if (row >= plan_.rows.kernel || column >= plan_.columns.kernel) continue;
      T sum = 0;
      for (int w = 0; w < warps; ++w)
        sum += load_shared<T>(partial + (group * warps + w) * taps + i % taps);
      store(partial_sum(workspace, plan_, blockIdx.y, channel_, row, column), sum);
    }
  }

 private:
  __device__ void find_planes(int first_image) {
    for (int i = threadIdx.x; i < plan_.y_tile.planes; i += blockDim.x) {
      const int64_t n = first_image + i;
      const bool exists = n < plan_.batch;
      const int64_t x_channel = plan_.divisor.divide(channel_);
      store_shared(x_offsets_ + i,
                   exists ? n * plan_.x.batch + x_channel * plan_.x.channel : int64_t(-1));
      store_shared(y_offsets_ + i,
                   exists ? n * plan_.y.batch + channel_ * plan_.y.channel : int64_t(-1));
    }
  }

  const WeightPlan& plan_;
  // In shared memory: where planes begin, and the tiles.
  int64_t* x_offsets_;
  int64_t* y_offsets_;
  T* x_tile_;
  T* y_tile_;
  // The block's channel, first tap of its kernel columns, and first kernel column.
  int channel_, first_tap_, first_column_;
  // This thread's kernel column, and its place in the tile.
  int column_, image_, lane_;
};

template <class S, int taps, bool sliding>
__global__ void __launch_bounds__(kThreads, sizeof(Sum<S>) == 8 ? 1 : 2)
    planes_weight_kernel(const __grid_constant__ WeightPlan plan, const S* x, const S* y,
                         Sum<S>* workspace) {
  WeightTile<S, taps, sliding> tile(plan);
  typename WeightTile<S, taps, sliding>::Sums sums = {};
  const int64_t tiles = count_tiles(plan);
  const int64_t end = tiles * (blockIdx.y + 1) / plan.splits;
  for (int64_t i = tiles * blockIdx.y / plan.splits; i < end; ++i) tile.add(sums, x, y, int(i));
  tile.write(sums, workspace);
}

// --- host -----------------------------------------------------------------------------------

int choose_taps(const WeightPlan& plan) {
  if (plan.rows.kernel == 1) return 1;
  return plan.rows.kernel <= 3 || plan.rows.step > 1 ? 3 : 8;
}

int64_t shared_bytes(const WeightPlan& plan, int taps, int64_t bytes) {
  const int64_t tiles =
      int64_t(plan.x_tile.rows) * plan.x_tile.pitch + int64_t(plan.y_tile.rows) * plan.y_tile.pitch;
  const int64_t sums = int64_t(plan.block_columns) * taps * (plan.places.value() / kWarp);
  return 2 * plan.y_tile.planes * int64_t(sizeof(int64_t)) +
         std::max(plan.y_tile.planes * tiles, sums) * bytes;
}

void set_tiles(WeightPlan& plan, int taps, int columns) {
  plan.tile_columns = Divisor(columns);
  plan.places = Divisor(round_up(columns * plan.y_tile.planes, kWarp));
  plan.x_tile.planes = plan.y_tile.planes;
  plan.x_tile.rows = plan.tile_stride * (plan.tile_rows - 1) + (taps - 1) * plan.x_step + 1;
  plan.x_tile.pitch =
      round_up((columns - 1) * plan.columns.stride +
                   (plan.block_columns - 1) * plan.columns.dilation + plan.x_tile.vector,
               plan.x_tile.vector);
  plan.y_tile.rows = plan.tile_rows;
  plan.y_tile.pitch = round_up(columns + plan.y_tile.vector - 1, plan.y_tile.vector);
}

// Tiles hold rows of one phase, or all rows.
void choose_rows(WeightPlan& plan, bool all) {
  const Axis& axis = plan.rows;
  plan.tile_rows = larger(1, all ? axis.written_size : smaller(axis.phase_size(0), 32));
  plan.tile_stride = all ? axis.stride : axis.step;
  plan.x_step = all ? axis.jump.value() : 1;
  plan.y_step = all ? axis.period.value() : 1;
  plan.x_tile.row_jump = all ? 1 : axis.jump.value();
  plan.y_tile.row_jump = all ? 1 : axis.period.value();
  plan.phases = Divisor(larger(1, all ? 1 : smaller(axis.period.value(), axis.written_size)));
}

// Whether there are tiles that fit; then the plan has them.
bool plan_tiles(WeightPlan& plan, int64_t bytes) {
  const int taps = choose_taps(plan), width = larger(1, plan.columns.written_size);
  plan.runs = Divisor(ceil_div(plan.rows.kernel, taps));
  plan.block_columns = smaller(plan.columns.kernel, 8);
  const int lanes = kThreads / plan.block_columns / kWarp * kWarp;
  int columns = ceil_div(width, ceil_div(width, lanes));
  plan.y_tile.planes = 1;
  choose_rows(plan, plan.rows.period.value() > 1 && plan.rows.written_size <= 64);
  set_tiles(plan, taps, columns);
  if (shared_bytes(plan, taps, bytes) > kSharedBytes) choose_rows(plan, false);
  plan.y_tile.planes = larger(1, smaller(plan.batch, lanes / columns));
  for (;;) {
    set_tiles(plan, taps, columns);
    if (shared_bytes(plan, taps, bytes) <= kSharedBytes) break;
    if (plan.y_step > 1)
      plan.y_tile.planes = ceil_div(plan.y_tile.planes, 2);
    else if (plan.tile_rows > 8)
      plan.tile_rows = ceil_div(plan.tile_rows, 2);
    else if (plan.y_tile.planes > 1)
      plan.y_tile.planes = ceil_div(plan.y_tile.planes, 2);
    else if (plan.block_columns > 1)
      plan.block_columns = ceil_div(plan.block_columns, 2);
    else if (plan.tile_rows > 1)
      plan.tile_rows = ceil_div(plan.tile_rows, 2);
    else if (columns > kWarp)
      columns = ceil_div(columns, 2);
    else
      return false;
  }
  plan.column_blocks = Divisor(ceil_div(plan.columns.kernel, plan.block_columns));
  const int rows = plan.y_step > 1 ? plan.rows.written_size : plan.rows.phase_size(0);
  plan.row_tiles = Divisor(larger(1, ceil_div(rows, plan.tile_rows)));
  plan.column_tiles = Divisor(ceil_div(width, columns));
  plan.image_tiles = ceil_div(plan.batch, plan.y_tile.planes);
  plan.splits =
      choose_splits(plan, count_tiles(plan),
                    int64_t(plan.channels) * plan.runs.value() * plan.column_blocks.value());
  return true;
}

// The plan but for the loads' width, which its other numbers do not depend on.
bool make_plan(const ConvProblem& problem, WeightPlan& plan) {
  const int widest = 16 / int(dtype_bytes(problem.dtype));
  plan = make_weight_plan(problem);
  plan.x_tile = {plan.x, plan.rows.read_size, plan.columns.read_size};
  plan.y_tile = {plan.y, plan.rows.written_size, plan.columns.written_size};
  plan.x_tile.vector = plan.y_tile.vector = widest;
  return plan_tiles(plan, sum_bytes(problem.dtype));
}

template <class S, int taps, bool sliding>
void launch_kernel(WeightPlan plan, const Tensors& tensors, void* stream) {
  const int threads = plan.places.value() * plan.block_columns;
  set_walk(plan.x_tile, threads);
  set_walk(plan.y_tile, threads);
  Grid grid = {};
  grid.blocks =
      dim3(unsigned(plan.channels) * plan.runs.value() * plan.column_blocks.value(), plan.splits);
  grid.threads = dim3(unsigned(threads));
  grid.shared_bytes = size_t(shared_bytes(plan, taps, sizeof(Sum<S>)));
  launch(planes_weight_kernel<S, taps, sliding>, grid, stream, plan,
         static_cast<const S*>(tensors.x), static_cast<const S*>(tensors.y),
         static_cast<Sum<S>*>(tensors.workspace));
}

template <class S>
void launch_typed(WeightPlan plan, const Tensors& tensors, void* stream) {
  plan.x_tile.vector =
      vector_elements(tensors.x, sizeof(S), plan.x_tile.strides, plan.x_tile.width);
  plan.y_tile.vector =
      vector_elements(tensors.y, sizeof(S), plan.y_tile.strides, plan.y_tile.width);
  const int taps = choose_taps(plan);
  if (taps == 1)
    launch_kernel<S, 1, false>(plan, tensors, stream);
  else if (plan.rows.step > 1)
    launch_kernel<S, 3, false>(plan, tensors, stream);
  else if (taps == 3)
    launch_kernel<S, 3, true>(plan, tensors, stream);
  else
    launch_kernel<S, 8, true>(plan, tensors, stream);
  launch_partial_sums<S>(plan, tensors.workspace, tensors.w, stream);
}

}  // namespace

bool planes_weight_fit(const ConvProblem& problem) {
  WeightPlan plan;
  return make_plan(problem, plan);
}

size_t planes_weight_workspace(const ConvProblem& problem) {
  WeightPlan plan;
  make_plan(problem, plan);
  return partial_sums_bytes(plan, sum_bytes(problem.dtype));
}

void run_planes_weight(const ConvProblem& problem, const Tensors& tensors, void* stream) {
  WeightPlan plan;
  make_plan(problem, plan);
  constexpr decltype(&launch_typed<float>) launches[] = {
      launch_typed<double>, launch_typed<float>, launch_typed<Half>, launch_typed<BFloat16>};
  launches[problem.dtype](plan, tensors, stream);
}

}  // namespace dilconv::cuda::depthwise
