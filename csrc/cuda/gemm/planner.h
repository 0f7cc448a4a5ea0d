// Makes the parameters of the implicit GEMM kernels from a problem. Host code, without CUDA.
#pragma once

#include "../../core/problem.h"
#include "params.h"

namespace dilconv::cuda {

enum class TileName { kLarge, kMedium, kNarrow, kSmall };

struct TileSize {
  TileName name;
  int rows, columns;
};

// Why no implicit GEMM kernel can run the problem, in words; null if they can.
const char* gemm_refuses(const ConvProblem& problem);

// The tile for a problem. `largest` of the kernel's tiles; the small one is alone.
TileSize choose_tile(const ConvProblem& problem, TileName largest);

// What the kernels need beside their tensors: packed weights and partial sums.
int64_t gemm_workspace_bytes(const ConvProblem& problem, const TileSize& tile);

// ---- conv2d and grad_input -----------------------------------------------------------------

GatherParams make_gather(const ConvProblem& problem, const Tensors& tensors, const TileSize& tile);

// Blocks for a sample group: `samples_per_tile` samples.
int64_t blocks_per_sample_group(const ConvProblem& problem, const GatherParams& params);
// For how many at once there is room in the workspace.
int64_t most_sample_groups(const ConvProblem& problem, int splits, int samples_per_tile);
// Of the samples from params.first_written on.
AddParams make_add(const ConvProblem& problem, const Tensors& tensors, const GatherParams& params,
                   int64_t samples);

// Whether the weights must be packed into the workspace. Those of few channels never are.
bool packs_weights(const ConvProblem& problem, const Tensors& tensors);
int64_t packed_bytes(const ConvProblem& problem);  // if they must be
PackParams make_pack(const ConvProblem& problem, const Tensors& tensors);

// Whether `neighbours` written channels may be stored at once.
bool stores_together(const ConvProblem& problem, const GatherParams& params, int neighbours);

// ---- grad_weight ---------------------------------------------------------------------------

int64_t partial_elements(const WeightParams& params);  // of a split
WeightParams make_grad_weight(const ConvProblem& problem, const Tensors& tensors,
                              const TileSize& tile);
ReduceParams make_reduce(const ConvProblem& problem, const Tensors& tensors,
                         const WeightParams& params);

// ---- both ----------------------------------------------------------------------------------

// Whether an image's chunks of 16 bytes lie in memory as they are: neighbouring channels, aligned.
bool copies_chunks(const ConvProblem& problem, const ImageParams& image);

}  // namespace dilconv::cuda
