// conv2d and grad_input of planes whose rows are dense (NCHW): lanes hold neighbouring columns.
//
// A block brings what its tile reads into shared memory, each element once per tile, as vectors
// whatever the taps' alignment; then each thread sums R positions of one column of the tile.
//
// Bytes: at least the read and the written tensor once each. From memory the kernel moves just
// that; a tile's margins, (kernel - 1) rows of a phase and (kernel - 1) * dilation columns, are
// read by its neighbours too, out of the second-level cache.
#include <algorithm>

#include "../launch.h"
#include "forms.h"
#include "sums.h"
#include "tile.h"

namespace dilconv::cuda::depthwise {
namespace {

constexpr int kThreads = 256;
constexpr int kVectorBytes = 16;

// Neighbouring weights, by vectors that begin at multiples of their size, the last one whole.
template <int vector, class T, int n>
__device__ void load_factors(Vec<T, 1> (&factors)[n], const T* weights) {
#pragma unroll
  for (int first = 0; first < n; first += vector) {
    const auto some = load_shared<Vec<T, vector>>(weights + first);
#pragma unroll
    for (int i = 0; i < vector && first + i < n; ++i) factors[first + i].at[0] = some.at[i];
  }
}

// What one thread knows of its block's tile.
template <class S, int rows, bool sliding>
class PlanesTile {
  using T = Sum<S>;

 public:
  using Sums = Vec<T, 1>[rows];
  // That are loaded at a time: with one sum, or a step, there is only one row of taps at a time.
  static constexpr int kFactors = rows > 1 && sliding ? kVectorBytes / int(sizeof(T)) : 1;

  __device__ PlanesTile(const GatherPlan& plan) : plan_(plan) {
    phase_ = blockIdx.x;
    const int column_tile = plan.column_tiles.split(phase_);
    from_ = plan.row_tiles.split(phase_) * plan.row_groups.value() * rows;
    to_ = smaller(from_ + plan.row_groups.value() * rows, plan.rows.phase_size(phase_));
    row_taps_ = plan.rows.taps_at(phase_);
    row_span_ = taps_inside(plan.rows, row_taps_, from_, to_);
    plane_ = threadIdx.x;
    lane_ = plan.tile_columns.split(plane_);
    group_ = plan.row_groups.split(plane_);
    place_columns(column_tile);
    if (plane_ >= plan.tile.planes || from_ + group_ * rows >= to_) column_taps_.count = 0;
    offsets_ = reinterpret_cast<int64_t*>(shared_memory());
    weights_ = reinterpret_cast<T*>(offsets_ + round_up(plan.tile.planes, 2));
    tile_ = weights_ + plan.weights;
  }

  __device__ bool empty() const { return from_ >= to_; }

  // Adds up what the d-th read channel gives. All threads of the block call it.
  __device__ void gather(Sums& sums, const S* read, const S* weight, int first_plane, int d) {
    block_barrier();  // all have read the tile before this one
    find_planes(first_plane, d);
    load_weights(weight, first_plane, d);
    for (int tap = first_tap_; tap < last_tap_; tap += plan_.taps_at_once) {
      block_barrier();
      // A vector begins at a multiple of its size, a power of two.
      const int column = origin_ + tap * plan_.columns.jump.value();
      const int shift = column & (plan_.tile.vector - 1);
      const int row = row_taps_.first_read + plan_.rows.step * from_ * plan_.rows.jump.value();
      load_tile(tile_, offsets_, read, row, column - shift, plan_.tile);
      block_barrier();
      add(sums, tap, shift);
    }
  }

  __device__ void write(const Sums& sums, S* written, int first_plane) const {
    const int plane = first_plane + plane_;
    if (!wanted() || plane >= plan_.batch * plan_.channels.value()) return;
    int n = plane;
    const int channel = plan_.channels.split(n);
    const T bias = plan_.bias ? upcast(load<S>(static_cast<const S*>(plan_.bias) + channel)) : T(0);
    const int first = from_ + group_ * rows, period = plan_.rows.period.value();
    const int64_t step = int64_t(period) * plan_.written.row;
    S* to = written + n * plan_.written.batch + channel * plan_.written.channel +
            int64_t(phase_ + first * period) * plan_.written.row +
            int64_t(column_) * plan_.written.column;
#pragma unroll
    for (int r = 0; r < rows; ++r, to += step)
      if (first + r < to_) store(to, downcast<S>(sums[r].at[0] + bias));
  }

 private:
  __device__ bool folded() const { return plan_.tile.fold.value() > 1; }

  // Whether the thread has anything to write.
  __device__ bool wanted() const {
    return plane_ < plan_.tile.planes && from_ + group_ * rows < to_ &&
           column_ < plan_.columns.written_size;
  }

  __device__ void place_columns(int tile) {
    const Axis& axis = plan_.columns;
    const int jump = axis.jump.value();
    int base;
    if (folded()) {
      const int fold = plan_.tile.fold.value();
      const int depth = plan_.tile.fold.divide(plan_.tile_columns.value());
      const int first = plan_.folds.split(tile) * fold;
      base = tile * depth * jump + first;
      int jumps = lane_;
      const int within = plan_.tile.fold.split(jumps);
      // Beyond a jump begins what another tile writes.
      column_ = first + within < jump ? base + jumps * jump + within : axis.written_size;
      reach_ = (depth - 1) * jump + fold;
    } else {
      base = tile * plan_.tile_columns.value();
      column_ = base + lane_;
      reach_ = axis.first_reads(smaller(plan_.tile_columns.value(), axis.written_size - base));
    }
    origin_ = axis.origin(base);
    first_tap_ = larger(0, axis.jump.divide_up(1 - reach_ - origin_));
    last_tap_ = smaller(axis.most_taps(), axis.jump.divide_up(axis.read_size - origin_));
    column_taps_ = column_ < axis.written_size ? axis.taps_at(column_) : Taps{0, 0, 0, 0};
  }

  // Where the planes that are read begin; -1 past the last.
  __device__ void find_planes(int first_plane, int d) {
    for (int i = threadIdx.x; i < plan_.tile.planes; i += blockDim.x) {
      const bool exists = first_plane + i < plan_.batch * plan_.channels.value();
      int n = first_plane + i;
      const int channel = plan_.divisor.divide(plan_.channels.split(n) * plan_.depth + d);
      store_shared(offsets_ + i,
                   exists ? n * plan_.read.batch + channel * plan_.read.channel : int64_t(-1));
    }
  }

  // The tap whose weight is first in a column: that of a block's first vector.
  __device__ int first_weight() const { return kFactors > 1 ? row_span_.first : 0; }

  // Weights of the planes' channels, as [plane][kernel column][tap of the phase].
  __device__ void load_weights(const S* weight, int first_plane, int d) {
    const int taps = plan_.weight_rows.value(), columns = plan_.weight_columns.value();
    for (int i = threadIdx.x; i < plan_.tile.planes * taps * columns; i += blockDim.x) {
      // As they lie in memory.
      int plane = i;
      const int b = plan_.weight_columns.split(plane), t = plan_.weight_rows.split(plane);
      T* const to = weights_ + (plane * columns + b) * plan_.weight_pitch + t - first_weight();
      plane += first_plane;
      if (t < first_weight() || t >= row_taps_.count ||
          plane >= plan_.batch * plan_.channels.value())
        continue;
      const int channel = plan_.channels.split(plane);
      const int64_t from =
          int64_t(channel * plan_.depth + d) * plan_.weight_strides[0] +
          (row_taps_.first_tap + t * row_taps_.tap_step) * plan_.weight_strides[1] +
          b * plan_.weight_strides[2];
      store_shared(to, upcast(load<S>(weight + from)));
    }
  }

  // Adds up what the tap columns from `tap` on give, whose reads are in the tile.
  __device__ void add(Sums& sums, int tap, int shift) const {
    const int tap_end = smaller(tap + plan_.taps_at_once, smaller(last_tap_, column_taps_.count));
    const int tap_pitch = folded() ? plan_.tile.fold.value() : plan_.columns.jump.value();
    const T* const own =
        tile_ + (plane_ * plan_.tile.rows + group_ * rows * plan_.rows.step) * plan_.tile.pitch +
        shift + (folded() ? lane_ : column_taps_.first_read - origin_);
    const T* const weights = weights_ + plane_ * plan_.weight_columns.value() * plan_.weight_pitch;
    for (int t = tap; t < tap_end; ++t) {
      const T* const column = own + (t - tap) * tap_pitch;
      const int kernel_column = column_taps_.first_tap + t * column_taps_.tap_step;
      const T* const column_weights = weights + kernel_column * plan_.weight_pitch - first_weight();
      add_taps<sliding>(
          sums, row_span_.first, row_span_.last, plan_.rows.step,
          [&](int e) { return load_shared<Vec<T, 1>>(column + e * plan_.tile.pitch); },
          [&](int e, int, auto& factors) { load_factors<kFactors>(factors, column_weights + e); });
    }
  }

  const GatherPlan& plan_;
  // In shared memory: where planes begin, weights, what the tile reads.
  int64_t* offsets_;
  T* weights_;
  T* tile_;
  // The tile's rows: positions [from, to) of a phase, and the taps that read inside the image.
  int phase_, from_, to_;
  Taps row_taps_;
  Span row_span_;
  // The tile's columns: tap t of theirs reads within [origin, origin + reach) + t * jump, which
  // meets the image for t in [first_tap, last_tap).
  int origin_, reach_, first_tap_, last_tap_;
  // This thread's place in the tile, its column of the image and the taps that reach it.
  int plane_, group_, lane_, column_;
  Taps column_taps_;
};

template <class S, int rows, bool sliding>
__global__ void __launch_bounds__(kThreads, rows * sizeof(Sum<S>) > 32    ? 2
                                            : rows * sizeof(Sum<S>) == 32 ? 3
                                                                          : 4)
    planes_kernel(const __grid_constant__ GatherPlan plan, const S* read, const S* weight,
                  S* written) {
  PlanesTile<S, rows, sliding> tile(plan);
  if (tile.empty()) return;
  const int planes = plan.batch * plan.channels.value(), step = gridDim.y * plan.tile.planes;
  for (int plane = blockIdx.y * plan.tile.planes; plane < planes; plane += step) {
    typename PlanesTile<S, rows, sliding>::Sums sums = {};
    for (int d = 0; d < plan.depth; ++d) tile.gather(sums, read, weight, plane, d);
    tile.write(sums, written, plane);
  }
}

// --- host -----------------------------------------------------------------------------------

int64_t shared_bytes(const GatherPlan& plan, int64_t bytes) {
  return round_up(plan.tile.planes, 2) * int64_t(sizeof(int64_t)) +
         (plan.weights + plan.tile.planes * int64_t(plan.tile.rows) * plan.tile.pitch) * bytes;
}

// From the weights of one kernel column to those of the next: as a thread with `rows` sums reads
// them, so many at a time.
int weight_pitch(const GatherPlan& plan, int rows) { return round_up(plan.rows.most_taps(), rows); }

void set_planes(GatherPlan& plan, int planes, int rows) {
  plan.tile.planes = planes;
  plan.weight_pitch = weight_pitch(plan, rows);
  // The tile behind them begins at a vector.
  plan.weights = round_up(planes * plan.columns.kernel * plan.weight_pitch, kVectorBytes / 4);
}

void set_tile(GatherPlan& plan, int rows) {
  const int more_taps = plan.taps_at_once - 1, columns = plan.tile_columns.value();
  plan.tile.rows = plan.rows.step * (plan.row_groups.value() * rows - 1) + plan.rows.most_taps();
  plan.tile.pitch = plan.tile.fold.value() > 1
                        ? columns + more_taps * plan.tile.fold.value()
                        : round_up(plan.columns.first_reads(columns) +
                                       more_taps * plan.columns.jump.value() + plan.tile.vector - 1,
                                   plan.tile.vector);
}

// Columns of a tile: enough that its margins are few beside them.
void choose_columns(GatherPlan& plan) {
  const Axis& axis = plan.columns;
  const int jump = axis.jump.value(), size = axis.written_size;
  const int64_t margin = int64_t(axis.most_taps() - 1) * jump;
  plan.tile.fold = Divisor(1);
  if (axis.stride == 1 && jump >= 32 && margin > 64 && size > 128) {
    constexpr int kFold = 32;
    const int depth = smaller(kThreads / kFold, ceil_div(size, jump));
    plan.tile.fold = Divisor(kFold);
    plan.tile.vector = 1;
    plan.folds = Divisor(ceil_div(jump, kFold));
    plan.tile_columns = Divisor(kFold * depth);
    plan.column_tiles = Divisor(plan.folds.value() * ceil_div(ceil_div(size, jump), depth));
    return;
  }
  const int target = margin > 32 ? 128 : 64, tiles = ceil_div(size, target);
  plan.tile_columns = Divisor(tiles == 1 ? size : round_up(ceil_div(size, tiles), 8));
  plan.column_tiles = Divisor(ceil_div(size, plan.tile_columns.value()));
}

// Positions of a phase that a thread sums: several if there is room for their weights' pitch.
int choose_rows(const GatherPlan& plan, int64_t bytes) {
  const int positions = plan.rows.phase_size(0);
  const int rows = positions <= 8 || plan.rows.step > 1 ? 4 : 8;
  const int64_t weights = int64_t(plan.columns.kernel) * weight_pitch(plan, rows) * bytes;
  return positions == 1 || weights > kSharedBytes * 2 / 3 ? 1 : rows;
}

// Whether there is a tile that fits; then the plan has it.
bool plan_tile(GatherPlan& plan, int64_t bytes) {
  const int rows = choose_rows(plan, bytes), phase_size = plan.rows.phase_size(0);
  choose_columns(plan);
  const int columns = plan.tile_columns.value();
  int groups = larger(1, smaller(kThreads / columns, ceil_div(phase_size, rows)));
  plan.taps_at_once = plan.columns.most_taps();
  set_planes(plan, 1, rows);
  for (;;) {
    plan.row_groups = Divisor(groups);
    set_tile(plan, rows);
    if (shared_bytes(plan, bytes) <= kSharedBytes) break;
    if (plan.taps_at_once > 1)
      plan.taps_at_once = ceil_div(plan.taps_at_once, 2);
    else if (groups > 1)
      groups = ceil_div(groups, 2);
    else
      return false;
  }
  plan.phases = smaller(plan.rows.period.value(), plan.rows.written_size);
  plan.row_tiles = Divisor(ceil_div(phase_size, groups * rows));
  // Small images: several to a block, unless there are too few blocks to keep a GPU busy.
  const int64_t tiles = int64_t(plan.phases) * plan.row_tiles.value() * plan.column_tiles.value();
  const int64_t busy = plan.batch * int64_t(plan.channels.value()) * tiles / 512;
  const int64_t fitting = kSharedBytes / shared_bytes(plan, bytes);
  const int64_t threads = kThreads / (columns * groups);
  set_planes(plan, int(std::clamp<int64_t>(busy, 1, std::min(fitting, threads))), rows);
  return true;
}

GatherPlan make_planes_plan(const ConvProblem& problem) {
  GatherPlan plan = make_gather_plan(problem);
  plan.tile.strides = plan.read;
  plan.tile.height = plan.rows.read_size;
  plan.tile.width = plan.columns.read_size;
  plan.tile.row_jump = plan.rows.jump.value();
  plan.tile.column_jump = plan.columns.jump.value();
  return plan;
}

template <class S, int rows, bool sliding>
void launch_kernel(GatherPlan plan, const Gathered& data, void* stream) {
  const int64_t planes = plan.batch * int64_t(plan.channels.value());
  const int64_t tiles = int64_t(plan.phases) * plan.row_tiles.value() * plan.column_tiles.value();
  const int64_t blocks = (planes + plan.tile.planes - 1) / plan.tile.planes;
  const int threads =
      round_up(plan.tile.planes * plan.row_groups.value() * plan.tile_columns.value(), 32);
  set_walk(plan.tile, threads);
  Grid grid = {};
  grid.blocks =
      dim3(unsigned(tiles),
           unsigned(std::clamp<int64_t>(kBlocks / tiles, 1, std::min<int64_t>(blocks, 65535))));
  grid.threads = dim3(unsigned(threads));
  grid.shared_bytes = size_t(shared_bytes(plan, sizeof(Sum<S>)));
  launch(planes_kernel<S, rows, sliding>, grid, stream, plan, static_cast<const S*>(data.read),
         static_cast<const S*>(data.weight), static_cast<S*>(data.written));
}

template <class S>
void launch_typed(const GatherPlan& plan, const Gathered& data, void* stream) {
  const int rows = choose_rows(plan, sizeof(Sum<S>));
  if (rows == 1)
    launch_kernel<S, 1, true>(plan, data, stream);
  else if (plan.rows.step > 1)
    launch_kernel<S, 4, false>(plan, data, stream);
  else if (rows == 4)
    launch_kernel<S, 4, true>(plan, data, stream);
  else
    launch_kernel<S, 8, true>(plan, data, stream);
}

}  // namespace

bool planes_fit(const ConvProblem& problem) {
  GatherPlan plan = make_planes_plan(problem);
  plan.tile.vector = 16 / int(dtype_bytes(problem.dtype));
  return plan_tile(plan, sum_bytes(problem.dtype));
}

void run_planes(const ConvProblem& problem, const Tensors& tensors, void* stream) {
  GatherPlan plan = make_planes_plan(problem);
  const Gathered data = gathered(problem, tensors);
  plan.bias = data.bias;
  plan.tile.vector =
      vector_elements(data.read, dtype_bytes(problem.dtype), plan.read, plan.columns.read_size);
  plan_tile(plan, sum_bytes(problem.dtype));
  constexpr decltype(&launch_typed<float>) launches[] = {
      launch_typed<double>, launch_typed<float>, launch_typed<Half>, launch_typed<BFloat16>};
  launches[problem.dtype](plan, data, stream);
}

}  // namespace dilconv::cuda::depthwise
