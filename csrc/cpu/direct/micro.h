// Vectors and the register-blocked product that most of the direct kernel's time goes into. A register tile is at
// most kMaxRows broadcast values by kMaxVectors vectors.
//
// Included inside an instruction set's anonymous namespace; see isa.inc.

template <class T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vector = typename VectorOf<T>::Type;

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
inline void store(T* to, Vector<T> value) {
  __builtin_memcpy(to, &value, sizeof value);
}

// A stretch of the summation: `depth` steps through both operands.
template <class T>
struct Segment {
  const T* rows;     // the broadcast operand
  const T* vectors;  // the vector operand, packed: V vectors per step
  int64_t depth;
};

// How the broadcast operand lies in memory, packed or not: value (row, step) at step * stride + row (kByStep), or
// at row * stride + step (kByRow).
enum class Order { kByStep, kByRow };

// sums[row][0 .. V) (+)= sum over all steps of rows[row] * vectors[0 .. V).
template <class T, int R, int V, Order order>
void multiply(const Segment<T>* segments, int count, int64_t stride, T* sums, int64_t pitch, bool add) {
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
using Multiply = void (*)(const Segment<T>* segments, int count, int64_t stride, T* sums, int64_t pitch, bool add);

// The tile function for a number of rows (1 ... kMaxRows) and vectors (1 ... kMaxVectors).
template <class T, Order order, int R = kMaxRows>
Multiply<T> tile(int rows, int vectors) {
  if constexpr (R > 1) {
    if (rows < R) return tile<T, order, R - 1>(rows, vectors);
  }
  return vectors == 1 ? multiply<T, R, 1, order>
                      : vectors == 2 ? multiply<T, R, 2, order> : multiply<T, R, 3, order>;
}

// `total` things cut into the fewest parts of at most `largest`, as even as they come.
struct Cut {
  int64_t total, parts;
  Cut(int64_t count, int64_t largest) : total(count), parts((count + largest - 1) / largest) {}
  int64_t begin(int64_t part) const { return total * part / parts; }
  int64_t size(int64_t part) const { return begin(part + 1) - begin(part); }
};

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// Hands out consecutive pieces of a workspace, each aligned to a cache line; counts bytes when there is none.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(base_ + used_);
    used_ += round_up(count * int64_t(sizeof(T)), 64);
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};
