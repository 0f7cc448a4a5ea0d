// The register-blocked product that most of the direct kernel's time goes into. A register tile is
// at most kMaxRows broadcast values by kMaxVectors vectors, or fewer by more (most_vectors).
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// A stretch of the summation: `depth` steps through both operands.
template <class T>
struct Segment {
  const T* rows;     // the broadcast operand
  const T* vectors;  // the vector operand, packed: V vectors per step
  int64_t depth;
};

// How the broadcast operand lies in memory, packed or not: value (row, step) at step * stride + row
// (kByStep), or at row * stride + step (kByRow).
enum class Order { kByStep, kByRow };

// sums[row][0 .. V) (+)= sum over all steps of rows[row] * vectors[0 .. V).
template <class T, int R, int V, Order order>
void multiply(const Segment<T>* segments, int count, int64_t stride, T* sums, int64_t pitch,
              bool add) {
  Vector<T> total[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) total[r][v] = Vector<T>{};
  for (int s = 0; s < count; ++s) {
    const T* rows = segments[s].rows;
    const T* vectors = segments[s].vectors;
    for (int64_t step = segments[s].depth; step > 0; --step) {
      Vector<T> vector[V];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) vector[v] = load(vectors + v * kLanes<T>);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const T value = order == Order::kByStep ? rows[r] : rows[r * stride];
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) total[r][v] += vector[v] * value;
      }
      rows += order == Order::kByStep ? stride : 1;
      vectors += V * kLanes<T>;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      T* sum = sums + r * pitch + v * kLanes<T>;
      store(sum, add ? load(sum) + total[r][v] : total[r][v]);
    }
}

template <class T>
using Multiply = void (*)(const Segment<T>* segments, int count, int64_t stride, T* sums,
                          int64_t pitch, bool add);

// The tile function for a number of rows (1 ... kMaxRows) and vectors (1 ... kMaxVectors).
template <class T, Order order, int R = kMaxRows>
Multiply<T> tile(int rows, int vectors) {
  if constexpr (R > 1) {
    if (rows < R) return tile<T, order, R - 1>(rows, vectors);
  }
  return vectors == 1   ? multiply<T, R, 1, order>
         : vectors == 2 ? multiply<T, R, 2, order>
                        : multiply<T, R, 3, order>;
}

// A stretch of a summation whose rows and vectors lie anywhere: step s multiplies the values
// rows[offsets[r] + s * row_step] by the vectors at vectors + s * vector_step.
template <class T>
struct ApartSegment {
  const T* rows;
  const int64_t* offsets;
  const T* vectors;
  int64_t row_step, vector_step, depth;
};

// sums[row][0 .. V) += sum over all steps.
template <class T, int R, int V>
void multiply_apart(const ApartSegment<T>* segments, int count, T* sums, int64_t pitch) {
  Vector<T> total[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) total[r][v] = Vector<T>{};
  for (int s = 0; s < count; ++s) {
    const ApartSegment<T>& segment = segments[s];
    const T* row[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) row[r] = segment.rows + segment.offsets[r];
    const T* vectors = segment.vectors;
    int64_t at = 0;
    for (int64_t step = segment.depth; step > 0; --step) {
      Vector<T> vector[V];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) vector[v] = load(vectors + v * kLanes<T>);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const T value = row[r][at];
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) total[r][v] += vector[v] * value;
      }
      at += segment.row_step;
      vectors += segment.vector_step;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      T* sum = sums + r * pitch + v * kLanes<T>;
      store(sum, load(sum) + total[r][v]);
    }
}

template <class T>
using MultiplyApart = void (*)(const ApartSegment<T>* segments, int count, T* sums, int64_t pitch);

template <class T, int R = kMaxRows>
MultiplyApart<T> apart_tile(int rows, int vectors) {
  if constexpr (R > 1) {
    if (rows < R) return apart_tile<T, R - 1>(rows, vectors);
  }
  return vectors == 1   ? multiply_apart<T, R, 1>
         : vectors == 2 ? multiply_apart<T, R, 2>
                        : multiply_apart<T, R, 3>;
}

// Steps that follow each other in the packed vectors: V vectors each.
template <class T>
struct Steps {
  const T* vectors;
  int64_t depth;
};

// Fetches what a register tile writes, while it adds up: stores would wait for it one by one.
template <class T>
inline void fetch_written(const T* to) {
  __builtin_prefetch(to, 1);
}

// The same for rows that lie anywhere, all in the same pattern: value (row, step) is at
// rows[row][offsets[step]]. Row r's sums go to to[r] + at, those of the last vector to to[r] + at +
// last, which may overlap the one before. bias lies likewise and is added if there is one.
template <class T, int R, int V>
void multiply_rows(const T* const* rows, const int64_t* offsets, const Steps<T>* steps, int count,
                   T* const* to, int64_t at, int64_t last, bool add, const T* bias) {
  const T* row[R];
  Vector<T> total[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    row[r] = rows[r];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) total[r][v] = Vector<T>{};
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) fetch_written(to[r] + at + v * kLanes<T>);
  for (int s = 0; s < count; ++s) {
    const T* vectors = steps[s].vectors;
    for (int64_t step = steps[s].depth; step > 0; --step) {
      const int64_t offset = *offsets++;
      Vector<T> vector[V];
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) vector[v] = load(vectors + v * kLanes<T>);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const T value = row[r][offset];
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) total[r][v] += vector[v] * value;
      }
      vectors += V * kLanes<T>;
    }
  }
  // All of a row's sums are read before one is written.
#pragma GCC unroll 3
  for (int v = 0; v < V; ++v) {
    const int64_t place = v + 1 < V ? v * kLanes<T> : last;
    const Vector<T> constant = bias ? load(bias + place) : Vector<T>{};
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      if (add) total[r][v] = load(to[r] + at + place) + total[r][v];
      if (bias) total[r][v] += constant;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) store(to[r] + at + (v + 1 < V ? v * kLanes<T> : last), total[r][v]);
}

template <class T>
using MultiplyRows = void (*)(const T* const* rows, const int64_t* offsets, const Steps<T>* steps,
                              int count, T* const* to, int64_t at, int64_t last, bool add,
                              const T* bias);

template <class T, int R = kMaxRows>
MultiplyRows<T> row_tile(int rows, int vectors) {
  if constexpr (R > 1) {
    if (rows < R) return row_tile<T, R - 1>(rows, vectors);
  }
  return vectors == 1   ? multiply_rows<T, R, 1>
         : vectors == 2 ? multiply_rows<T, R, 2>
                        : multiply_rows<T, R, 3>;
}

// Dot products of rows that lie anywhere with one vector per step: step s of a row is at
// rows[row][offsets[s]].
template <class T, int R>
void multiply_dots(const T* const* rows, const int64_t* offsets, const Steps<T>* steps, int count,
                   T* const* to, int64_t at, bool add, T bias) {
  const T* row[R];
  Vector<T> total[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    row[r] = rows[r];
    total[r] = Vector<T>{};
  }
  for (int s = 0; s < count; ++s) {
    const T* vectors = steps[s].vectors;
    for (int64_t step = steps[s].depth; step > 0; --step, vectors += kLanes<T>) {
      const int64_t offset = *offsets++;
      const Vector<T> vector = load(vectors);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) total[r] += load(row[r] + offset) * vector;
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    T lanes[kLanes<T>];
    store(lanes, total[r]);
#pragma GCC unroll 4
    for (int half = kLanes<T> / 2; half > 0; half /= 2)
#pragma GCC unroll 8
      for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
    T& sum = to[r][at];
    sum = (add ? sum + lanes[0] : lanes[0]) + bias;
  }
}

template <class T>
using MultiplyDots = void (*)(const T* const* rows, const int64_t* offsets, const Steps<T>* steps,
                              int count, T* const* to, int64_t at, bool add, T bias);

template <class T, int R = kMaxRows>
MultiplyDots<T> dot_tile(int rows) {
  if constexpr (R > 1) {
    if (rows < R) return dot_tile<T, R - 1>(rows);
  }
  return multiply_dots<T, R>;
}

// The same for vectors that lie anywhere, all in the same pattern: vector v of a step is at
// vectors[v][offsets[step]], and value (row, step) at step * R + row of a segment. Row r's sums go
// to to[v] + r * pitch.
template <class T, int R, int V>
void multiply_vectors(const T* const* vectors, const int64_t* offsets, const Segment<T>* segments,
                      int count, T* const* to, int64_t pitch, bool add, const T* bias) {
  const T* place[V];
  Vector<T> total[R][V];
#pragma GCC unroll 8
  for (int v = 0; v < V; ++v) {
    place[v] = vectors[v];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) total[r][v] = Vector<T>{};
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) fetch_written(to[v] + r * pitch);
  for (int s = 0; s < count; ++s) {
    const T* rows = segments[s].rows;
    for (int64_t step = segments[s].depth; step > 0; --step, rows += R) {
      const int64_t offset = *offsets++;
      Vector<T> vector[V];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) vector[v] = load(place[v] + offset);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) total[r][v] += vector[v] * rows[r];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      T* sum = to[v] + r * pitch;
      if (add) total[r][v] = load(sum) + total[r][v];
      store(sum, bias ? total[r][v] + bias[r] : total[r][v]);
    }
}

template <class T>
using MultiplyVectors = void (*)(const T* const* vectors, const int64_t* offsets,
                                 const Segment<T>* segments, int count, T* const* to, int64_t pitch,
                                 bool add, const T* bias);

// How many vectors that lie anywhere a register tile of so many rows takes, at most: few rows take
// more, so that no sum waits for the one before.
constexpr int kMostVectors = 8;
constexpr int most_vectors(int64_t rows) {
  return rows == 1 ? kMostVectors : rows == 2 ? 4 : kMaxVectors;
}

template <class T, int R = kMaxRows, int V = most_vectors(R)>
MultiplyVectors<T> vector_tile(int rows, int vectors) {
  if constexpr (R > 1) {
    if (rows < R) return vector_tile<T, R - 1>(rows, vectors);
  }
  if constexpr (V > 1) {
    if (vectors < V) return vector_tile<T, R, V - 1>(R, vectors);
  }
  return multiply_vectors<T, R, V>;
}
