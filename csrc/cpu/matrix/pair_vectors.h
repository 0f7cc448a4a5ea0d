// The matrix kernel's register tile in vectors: 8 rows, of which a pair is broadcast, by 3 vectors
// of 16 pairs.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

constexpr MatrixShape kShape = {2, 1, 0, 1, 400, 4608, 2.2};
constexpr int kRowUnits = 8;       // in a register tile
constexpr int kTileVectors = 3;    // in a register tile
constexpr int kWrittenTiles = 12;  // of rows, whose sums are written together
constexpr int kStepsToFetch = 9;   // that last long enough to fetch what is written

// What a thread sets up before it multiplies.
struct Session {
  explicit Session(int64_t) {}
};

// add_products() of each lane's pair and the broadcast one.
inline Vector<float> add_pairs(Vector<float> sum, Pairs pairs, uint32_t pair) {
  return add_products(sum, pairs, pair - Pairs{});
}

inline void keep(const Sums& to, int row, int column, Vector<float> total) {
  float* sum = to.first + row * to.pitch + column;
  store(sum, to.add ? load(sum) + total : total);
}

inline void keep(const WrittenRows& to, int row, int column, Vector<float> total) {
  if (to.before.add) total += load(to.before.first + row * to.before.pitch + column);
  round_vector(to.rows[row] + to.channel + column, 1, total + load(to.bias + column),
               least(kLanes<float>, to.channels - column));
}

inline void keep(const WrittenPlanes& to, int row, int column, Vector<float> total) {
  round_vector(to.first + row * to.stride + column, 1, total + to.bias[row],
               least(kLanes<float>, to.pixels - column));
}

// Fetches what two vectors of sums are written to, while they are added up.
inline void fetch(const Sums&, int, int) {}
inline void fetch(const WrittenRows& to, int row, int column) {
  __builtin_prefetch(to.rows[row] + to.channel + column, 1);
}
inline void fetch(const WrittenPlanes& to, int row, int column) {
  __builtin_prefetch(to.first + row * to.stride + column, 1);
}

template <int R, int V, class To>
void multiply_pairs(const BFloat16* const* units, const OperandLayout& layout,
                    const BFloat16* vectors, const Piece* pieces, int count, const To& to) {
  const int64_t pair_distance = layout.pair_distance, vector_distance = layout.vector_distance;
  const int64_t row_step = layout.row_step;
  const BFloat16* row[R];
  Vector<float> total[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    row[r] = units[r];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) total[r][v] = Vector<float>{};
  }
  if (count > 1 || (count == 1 && pieces->steps >= kStepsToFetch))
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < V; v += 2) fetch(to, r, v * kLanes<float>);
  for (int s = 0; s < count; ++s) {
    const BFloat16* from = vectors + pieces[s].vector * layout.vector_unit;
    int64_t at = pieces[s].row;
    for (int64_t step = pieces[s].steps; step > 0; --step, at += row_step, from += pair_distance) {
      Pairs vector[V];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v)
        __builtin_memcpy(&vector[v], from + v * vector_distance, kVectorBytes);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        uint32_t pair;
        __builtin_memcpy(&pair, row[r] + at, sizeof pair);
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) total[r][v] = add_pairs(total[r][v], vector[v], pair);
      }
    }
  }
  const To target = to;  // where what is written cannot change it
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) keep(target, r, v * kLanes<float>, total[r][v]);
}

// The tile function for a number of row units and vectors.
template <class To, int R = kRowUnits>
MultiplyPairs<To> pair_tile(int rows, int vectors) {
  if constexpr (R > 1) {
    if (rows < R) return pair_tile<To, R - 1>(rows, vectors);
  }
  return vectors == 1   ? multiply_pairs<R, 1, To>
         : vectors == 2 ? multiply_pairs<R, 2, To>
                        : multiply_pairs<R, 3, To>;
}
