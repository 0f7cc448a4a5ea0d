// Running a problem with one way of multiplying: which kernels are launched, and on what.
#pragma once

#include <algorithm>

#include "../launch.h"
#include "gather.h"
#include "grad_weight.h"
#include "passes.h"
#include "planner.h"

namespace dilconv::cuda {

constexpr int64_t kMostPassBlocks = 4096;

inline Grid pass_grid(int64_t elements) {
  const int64_t blocks = std::min((elements + kPassThreads - 1) / kPassThreads, kMostPassBlocks);
  return {unsigned(blocks), kPassThreads, 0};
}

inline Grid pack_grid(const PackParams& pack) {
  const int64_t channels = int64_t(pack.groups) * pack.written_channels;
  const int64_t elements = int64_t(pack.kernel_height) * pack.kernel_width * pack.padded_channels;
  const int64_t across = std::min(channels, kMostPassBlocks);
  const int64_t down = std::clamp<int64_t>(kMostPassBlocks / std::max<int64_t>(across, 1), 1,
                                           (elements + kPassThreads - 1) / kPassThreads);
  return {dim3(unsigned(across), unsigned(down)), kPassThreads, 0};
}

template <class T, template <class, class, bool> class Multiplication, class TileShape>
void run_gather(const ConvProblem& problem, const Tensors& tensors, const TileSize& tile,
                void* stream) {
  constexpr int kNeighbours = Multiplication<T, TileShape, true>::kNeighbours;
  GatherParams params = make_gather(problem, tensors, tile);
  const int64_t blocks = blocks_per_sample_group(problem, params);
  if (blocks == 0) return;
  if (packs_weights(problem, tensors)) {
    const PackParams pack = make_pack(problem, tensors);
    launch(pack_kernel<T>, pack_grid(pack), stream, pack, Divisor(pack.padded_channels),
           Divisor(pack.kernel_width));
  }
  params.stores_together = stores_together(problem, params, kNeighbours);
  const auto kernel = copies_chunks(problem, params.read)
                          ? gather_kernel<T, Multiplication, TileShape, Chunks::kCopied>
                      : copies_chunks(problem, params.weight)
                          ? gather_kernel<T, Multiplication, TileShape, Chunks::kOneTap>
                          : gather_kernel<T, Multiplication, TileShape, Chunks::kSeveralTaps>;
  // A grid takes 2^31 - 1 blocks.
  const int64_t most_groups = std::clamp<int64_t>(
      INT32_MAX / blocks, 1, most_sample_groups(problem, params.splits, params.samples_per_tile));
  while (params.first_sample < params.batch) {
    const int64_t left = params.batch - params.first_sample;
    const int64_t groups =
        std::min(most_groups, (left + params.samples_per_tile - 1) / params.samples_per_tile);
    const int64_t samples = std::min(left, groups * params.samples_per_tile);
    params.sample_groups = int(groups);
    if (params.splits > 1) {
      params.first_written = params.first_sample;
      params.written_split = samples * params.written_sample;
    }
    launch(kernel, {unsigned(blocks * groups), TileShape::kThreads, TileShape::kGatherBytes},
           stream, params);
    if (params.splits > 1) {
      const AddParams add = make_add(problem, tensors, params, samples);
      launch(add_kernel<T>, pass_grid(add.elements), stream, add, Divisor(add.channels),
             Divisor(add.height), Divisor(add.width));
    }
    params.first_sample += int(samples);
  }
}

template <class T, template <class, class, bool> class Multiplication, class TileShape>
void run_grad_weight(const ConvProblem& problem, const Tensors& tensors, const TileSize& tile,
                     void* stream) {
  const WeightParams params = make_grad_weight(problem, tensors, tile);
  const int64_t blocks =
      int64_t(params.row_tiles) * params.column_tiles * params.groups * params.splits;
  if (blocks == 0) return;
  const bool copies =
      copies_chunks(problem, params.left.image) && copies_chunks(problem, params.right.image);
  launch(copies ? grad_weight_kernel<T, Multiplication, TileShape, true>
                : grad_weight_kernel<T, Multiplication, TileShape, false>,
         {unsigned(blocks), TileShape::kThreads, TileShape::kWeightBytes}, stream, params);
  const ReduceParams reduce = make_reduce(problem, tensors, params);
  launch(reduce_kernel<T>, pass_grid(int64_t(reduce.groups) * reduce.rows * reduce.columns), stream,
         reduce, Divisor(params.padded_depths), Divisor(params.kernel[1]));
}

template <class T, template <class, class, bool> class Multiplication, class TileShape>
void run_tile(const ConvProblem& problem, const Tensors& tensors, const TileSize& tile,
              void* stream) {
  if (problem.op == DILCONV_GRAD_WEIGHT) {
    run_grad_weight<T, Multiplication, TileShape>(problem, tensors, tile, stream);
  } else {
    run_gather<T, Multiplication, TileShape>(problem, tensors, tile, stream);
  }
}

// With the tiles from `largest` on.
template <class T, template <class, class, bool> class Multiplication, TileName largest>
void run_tiles(const ConvProblem& problem, const Tensors& tensors, void* stream) {
  const TileSize tile = choose_tile(problem, largest);
  if constexpr (largest == TileName::kSmall) {
    run_tile<T, Multiplication, SmallTile>(problem, tensors, tile, stream);
  } else if (tile.name == TileName::kNarrow) {
    run_tile<T, Multiplication, NarrowTile>(problem, tensors, tile, stream);
  } else if (tile.name == TileName::kMedium) {
    run_tile<T, Multiplication, MediumTile>(problem, tensors, tile, stream);
  } else if constexpr (largest == TileName::kLarge) {
    run_tile<T, Multiplication, LargeTile>(problem, tensors, tile, stream);
  }
}

}  // namespace dilconv::cuda
