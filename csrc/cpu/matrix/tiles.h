// The matrix kernel's register tile in tiles: 2 by 2 of sums, each of up to 16 rows by 16 columns.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

#include "tile_unit.h"

constexpr MatrixShape kShape = {32, 16, 29, 21, 3000, 4608, 16};
constexpr int kRowUnits = 2;      // in a register tile
constexpr int kTileVectors = 2;   // in a register tile
constexpr int kWrittenTiles = 1;  // of rows, whose sums are written together

using Session = TileUnit;

template <int v>
struct Index {
  static constexpr int value = v;
};

// Tiles 0 to 3 hold the sums of row unit r and vector v in 2 * r + v; 4 and 5 hold rows, 6 and 7
// vectors.
template <int R, int V, class Use>
inline void for_sums(float* sums, int64_t rows, int64_t pitch, const Use& use) {
  use(Index<0>(), sums);
  if constexpr (V > 1) use(Index<1>(), sums + 16);
  if constexpr (R > 1) use(Index<2>(), sums + rows * pitch);
  if constexpr (R > 1 && V > 1) use(Index<3>(), sums + rows * pitch + 16);
}

template <int R, int V>
void multiply_pairs(const BFloat16* const* units, const OperandLayout& layout,
                    const BFloat16* vectors, const Piece* pieces, int count, const Sums& to) {
  float* sums = to.first;
  const int64_t rows = layout.rows, pitch = to.pitch, stride = 4 * pitch;
  if (to.add)
    for_sums<R, V>(sums, rows, pitch,
                   [&](auto tile, float* at) { tile_load<tile.value>(at, stride); });
  else
    for_sums<R, V>(sums, rows, pitch, [&](auto tile, float*) { tile_zero<tile.value>(); });
  // After some 600 ns without any, the next store of a tile takes 300 ns more, at least on the one
  // machine that this was measured on. One of unfinished sums in between costs 4.
  constexpr int kStepsBetweenStores = 8;
  int steps_left = kStepsBetweenStores;
  const int64_t row_distance = 2 * layout.row_distance;
  const int64_t pair_distance = 2 * layout.pair_distance;
  const int64_t vector_step = kShape.step / 2 * layout.pair_distance;
  for (int s = 0; s < count; ++s) {
    const BFloat16* from = vectors + pieces[s].vector * layout.vector_unit;
    int64_t at = pieces[s].row;
    for (int64_t step = pieces[s].steps; step > 0; --step) {
      tile_load<6>(from, pair_distance);
      if constexpr (V > 1) tile_load<7>(from + layout.vector_distance, pair_distance);
      tile_load<4>(units[0] + at, row_distance);
      if constexpr (R > 1) tile_load<5>(units[1] + at, row_distance);
      tile_dot<0, 4, 6>();
      if constexpr (V > 1) tile_dot<1, 4, 7>();
      if constexpr (R > 1) tile_dot<2, 5, 6>();
      if constexpr (R > 1 && V > 1) tile_dot<3, 5, 7>();
      at += layout.row_step;
      from += vector_step;
      if (--steps_left > 0) continue;
      tile_store<0>(sums, stride);
      steps_left = kStepsBetweenStores;
    }
  }
  for_sums<R, V>(sums, rows, pitch,
                 [&](auto tile, float* at) { tile_store<tile.value>(at, stride); });
}

// The tile function for a number of row units and vectors.
template <class To>
MultiplyPairs<To> pair_tile(int rows, int vectors) {
  if (rows == 1) return vectors == 1 ? multiply_pairs<1, 1> : multiply_pairs<1, 2>;
  return vectors == 1 ? multiply_pairs<2, 1> : multiply_pairs<2, 2>;
}
