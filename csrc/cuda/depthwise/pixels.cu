// conv2d and grad_input of any layout, made for channels_last: lanes hold neighbouring channels,
// `width` to a lane, so that every tap's load is aligned and coalesced as the tensor lies.
//
// A thread sums R positions of one column for its channels. Blocks write compact tiles, so that
// what taps share comes from the first-level cache.
//
// Bytes: at least the read and the written tensor once each. From memory the kernel moves just
// that; a tile's margins, (kernel - 1) rows of a phase and (kernel - 1) * dilation columns, are
// read by its neighbours too, out of the second-level cache.
#include <algorithm>

#include "../launch.h"
#include "forms.h"
#include "plan.h"
#include "sums.h"

namespace dilconv::cuda::depthwise {
namespace {

constexpr int kThreads = 256;

// Where a thread's sums lie: `lane` is its vector of channels in the tile, `column` its column of
// the image, [from, from + rows) its positions in the phase.
struct PixelPlace {
  int lane, channel, phase, from, column;
};

template <int rows, int width>
__device__ PixelPlace place_of(const GatherPlan& plan) {
  PixelPlace place;
  int tile = blockIdx.x, pixel = threadIdx.x;
  const int channel_tile = plan.channel_tiles.split(tile);
  place.lane = plan.channel_vectors.split(pixel);
  place.channel = (channel_tile * plan.channel_vectors.value() + place.lane) * width;
  place.column = plan.column_tiles.split(tile) * plan.tile_columns.value();
  place.column += plan.tile_columns.split(pixel);
  const int row_tile = plan.row_tiles.split(tile);
  place.phase = tile;
  place.from = (row_tile * plan.row_groups.value() + pixel) * rows;
  const bool wanted = pixel < plan.row_groups.value() && place.channel < plan.channels.value();
  if (!wanted) place.column = plan.columns.written_size;
  return place;
}

// From one tap's weights to the next tap's. A vector more than there are channels, so that lanes
// which store the taps of one channel do not meet in one bank.
template <int width>
__host__ __device__ int weight_pitch(const GatherPlan& plan) {
  const int vectors = plan.channel_vectors.value();
  return (vectors > 1 ? vectors + 1 : 1) * width;
}

// Weights of the tile's channels, as [kernel column][tap of the phase][channel].
template <int width, class S>
__device__ void load_weights(Sum<S>* weights, const GatherPlan& plan, const Taps& row_taps,
                             const S* weight, int first_channel, int d) {
  const int taps = plan.weight_columns.value() * plan.weight_rows.value();
  const int channels = plan.channel_vectors.value() * width;
  for (int i = threadIdx.x; i < taps * channels; i += blockDim.x) {
    // As they lie in memory: the taps of one channel are neighbours.
    int channel = i;
    const int b = plan.weight_columns.split(channel), t = plan.weight_rows.split(channel);
    if (t >= row_taps.count || first_channel + channel >= plan.channels.value()) continue;
    const int64_t from =
        (int64_t(first_channel + channel) * plan.depth + d) * plan.weight_strides[0] +
        (row_taps.first_tap + t * row_taps.tap_step) * plan.weight_strides[1] +
        b * plan.weight_strides[2];
    store_shared(weights + (b * plan.weight_rows.value() + t) * weight_pitch<width>(plan) + channel,
                 upcast(load<S>(weight + from)));
  }
}

template <class S, int width>
__device__ Vec<Sum<S>, width> widened(const Vec<S, width>& narrow) {
  Vec<Sum<S>, width> wide;
#pragma unroll
  for (int i = 0; i < width; ++i) wide.at[i] = upcast(narrow.at[i]);
  return wide;
}

// Adds up what the read channels from `image` on give to the thread's positions.
template <bool sliding, class S, int width, int rows>
__device__ void add_image(Vec<Sum<S>, width> (&sums)[rows], const GatherPlan& plan,
                          const PixelPlace& place, const Taps& row_taps, const S* image,
                          const Sum<S>* weights) {
  const Axis& axis = plan.rows;
  const Taps taps = plan.columns.taps_at(place.column);
  const int to = smaller(place.from + rows, axis.phase_size(place.phase));
  const Span span = taps_inside(axis, row_taps, place.from, to);
  const int pitch = weight_pitch<width>(plan);
  const int first_row = row_taps.first_read + axis.step * place.from * axis.jump.value();
  for (int t = 0; t < taps.count; ++t) {
    const int column = taps.first_read + t * plan.columns.jump.value();
    if (unsigned(column) >= unsigned(plan.columns.read_size)) continue;
    const S* const from = image + int64_t(column) * plan.read.column;
    const Sum<S>* const column_weights =
        weights + (taps.first_tap + t * taps.tap_step) * plan.weight_rows.value() * pitch;
    add_taps<sliding>(
        sums, span.first, span.last, axis.step,
        [&](int e) {
          const int row = first_row + e * axis.jump.value();
          if (unsigned(row) >= unsigned(axis.read_size)) return Vec<Sum<S>, width>{};
          return widened<S>(load<Vec<S, width>>(from + int64_t(row) * plan.read.row));
        },
        [&](int e, int count, auto& factors) {
          for (auto& factor : factors) {
            if (count-- > 0) factor = load_shared<Vec<Sum<S>, width>>(column_weights + e++ * pitch);
          }
        });
  }
}

template <class S, int width, int rows>
__device__ void write(const Vec<Sum<S>, width> (&sums)[rows], const GatherPlan& plan,
                      const PixelPlace& place, int n, S* written) {
  Vec<Sum<S>, width> bias = {};
  if (plan.bias)
    bias = widened<S>(load<Vec<S, width>>(static_cast<const S*>(plan.bias) + place.channel));
  S* const to = written + n * plan.written.batch + place.channel * plan.written.channel +
                int64_t(place.column) * plan.written.column;
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    if (place.from + r >= plan.rows.phase_size(place.phase)) break;
    Vec<S, width> narrow;
#pragma unroll
    for (int i = 0; i < width; ++i) narrow.at[i] = downcast<S>(sums[r].at[i] + bias.at[i]);
    const int row = place.phase + (place.from + r) * plan.rows.period.value();
    store(to + int64_t(row) * plan.written.row, narrow);
  }
}

template <class S, int width, int rows, bool sliding>
__global__ void __launch_bounds__(kThreads, width > 1 ? 2 : 3)
    pixels_kernel(const __grid_constant__ GatherPlan plan, const S* read, const S* weight,
                  S* written) {
  using T = Sum<S>;
  T* const weights = reinterpret_cast<T*>(shared_memory());
  const PixelPlace place = place_of<rows, width>(plan);
  const Taps row_taps = plan.rows.taps_at(place.phase);
  const bool wanted =
      place.column < plan.columns.written_size && place.from < plan.rows.phase_size(place.phase);
  for (int n = blockIdx.y; n < plan.batch; n += gridDim.y) {
    Vec<T, width> sums[rows] = {};
    for (int d = 0; d < plan.depth; ++d) {
      if (plan.depth > 1 || n == blockIdx.y) {
        block_barrier();  // all have read the weights before these
        load_weights<width>(weights, plan, row_taps, weight, place.channel - place.lane * width, d);
        block_barrier();
      }
      if (!wanted) continue;
      const int channel = plan.divisor.divide(place.channel * plan.depth + d);
      add_image<sliding>(sums, plan, place, row_taps,
                         read + n * plan.read.batch + channel * plan.read.channel,
                         weights + place.lane * width);
    }
    if (wanted) write(sums, plan, place, n, written);
  }
}

// --- host -----------------------------------------------------------------------------------

int choose_rows(const Axis& axis) { return axis.phase_size(0) == 1 ? 1 : 4; }

// Channels to a lane: 16 bytes of sums, if both tensors' channels are neighbours and every pixel
// is aligned; or one.
template <class S>
int lane_channels(const GatherPlan& plan, const Gathered& data) {
  constexpr int kWidest = 16 / sizeof(Sum<S>);
  const auto aligned = [](const void* tensor, const Strides& strides) {
    return reinterpret_cast<uintptr_t>(tensor) % (kWidest * sizeof(S)) == 0 &&
           strides.channel == 1 && strides.column % kWidest == 0 && strides.row % kWidest == 0 &&
           strides.batch % kWidest == 0;
  };
  const bool wide = plan.depth == 1 && plan.divisor.value() == 1 &&
                    plan.channels.value() % kWidest == 0 && aligned(data.read, plan.read) &&
                    aligned(data.written, plan.written) &&
                    reinterpret_cast<uintptr_t>(data.bias) % (kWidest * sizeof(S)) == 0;
  return wide ? kWidest : 1;
}

// 0 if not even one vector's weights fit.
template <class S>
int choose_channel_vectors(const GatherPlan& plan, int width) {
  const int64_t taps = int64_t(plan.columns.kernel) * plan.rows.most_taps();
  const int64_t fitting = kSharedBytes / (taps * width * int64_t(sizeof(Sum<S>)));
  const int line = 128 / int(width * sizeof(S));
  int vectors = smaller(smaller(line, 32), ceil_div(plan.channels.value(), width));
  while (vectors + (vectors > 1) > fitting) vectors /= 2;
  return vectors;
}

template <class S, int width, int rows, bool sliding>
void launch_kernel(GatherPlan plan, const Gathered& data, void* stream) {
  const int vectors = plan.channel_vectors.value(), pixels = kThreads / vectors;
  const int height = plan.rows.phase_size(0), size = plan.columns.written_size;
  // Near square, so that margins are short.
  const int groups = smaller(ceil_div(height, rows), larger(1, pixels / smaller(size, 8)));
  const int columns = smaller(size, pixels / groups);
  plan.row_groups = Divisor(groups);
  plan.tile_columns = Divisor(columns);
  plan.phases = smaller(plan.rows.period.value(), plan.rows.written_size);
  plan.row_tiles = Divisor(ceil_div(height, groups * rows));
  plan.column_tiles = Divisor(ceil_div(size, columns));
  plan.channel_tiles = Divisor(ceil_div(plan.channels.value(), vectors * width));
  const int64_t tiles = int64_t(plan.phases) * plan.row_tiles.value() * plan.column_tiles.value() *
                        plan.channel_tiles.value();
  const int taps = plan.weight_columns.value() * plan.weight_rows.value();
  Grid grid = {};
  grid.blocks =
      dim3(unsigned(tiles),
           unsigned(std::clamp<int64_t>(kBlocks / tiles, 1, std::min(plan.batch, 65535))));
  grid.threads = dim3(unsigned(round_up(vectors * columns * groups, 32)));
  grid.shared_bytes = size_t(taps) * weight_pitch<width>(plan) * sizeof(Sum<S>);
  launch(pixels_kernel<S, width, rows, sliding>, grid, stream, plan,
         static_cast<const S*>(data.read), static_cast<const S*>(data.weight),
         static_cast<S*>(data.written));
}

template <class S, int width>
void launch_wide(GatherPlan plan, const Gathered& data, void* stream) {
  plan.channel_vectors = Divisor(choose_channel_vectors<S>(plan, width));
  if (choose_rows(plan.rows) == 1)
    launch_kernel<S, width, 1, true>(plan, data, stream);
  else if (plan.rows.step > 1)
    launch_kernel<S, width, 4, false>(plan, data, stream);
  else
    launch_kernel<S, width, 4, true>(plan, data, stream);
}

template <class S>
void launch_typed(const GatherPlan& plan, const Gathered& data, void* stream) {
  constexpr int kWidest = 16 / sizeof(Sum<S>);
  if (lane_channels<S>(plan, data) == kWidest && choose_channel_vectors<S>(plan, kWidest) > 0)
    launch_wide<S, kWidest>(plan, data, stream);
  else
    launch_wide<S, 1>(plan, data, stream);
}

}  // namespace

void run_pixels(const ConvProblem& problem, const Tensors& tensors, void* stream) {
  GatherPlan plan = make_gather_plan(problem);
  const Gathered data = gathered(problem, tensors);
  plan.bias = data.bias;
  constexpr decltype(&launch_typed<float>) launches[] = {
      launch_typed<double>, launch_typed<float>, launch_typed<Half>, launch_typed<BFloat16>};
  launches[problem.dtype](plan, data, stream);
}

}  // namespace dilconv::cuda::depthwise
