// What the matrix kernel's register tiles share: pair_vectors.h and tiles.h define them, each with
// the same names, for different instructions.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

// A stretch of the summation: `steps` steps of kShape.step products, and where it begins.
struct Piece {
  int64_t row;     // elements from a unit's start
  int64_t vector;  // in OperandLayout::vector_unit, from the vectors' start
  int64_t steps;
};

// How a register tile's operands lie, in elements. Rows come in units of `rows`.
struct OperandLayout {
  int64_t rows;
  int64_t row_distance;     // from a unit's row to its next
  int64_t row_step;         // from a step's products to the next one's
  int64_t vector_unit;      // of Piece::vector
  int64_t pair_distance;    // from a vector's pair to its next
  int64_t vector_distance;  // from a vector to the next
};

// Where a register tile's sums go: rows of columns, `pitch` elements apart.
struct Sums {
  float* first;
  int64_t pitch;
  bool add;  // to what is there

  Sums after(int64_t rows) const { return {first + rows * pitch, pitch, add}; }
};

// Rows of a tensor whose channels lie densely: complete sums, rounded, are some of them.
struct WrittenRows {
  BFloat16* const* rows;
  int64_t channel, channels;  // the first of them, and how many there are
  const float* bias;          // of each
  Sums before;                // those of the chunks before, if they are to be added

  WrittenRows after(int64_t count) const {
    return {rows + count, channel, channels, bias, before.after(count)};
  }
};

// Planes of pixels: complete sums, rounded, are some that follow each other in each row's.
struct WrittenPlanes {
  BFloat16* first;
  int64_t stride;     // from a row's plane to the next one's
  int64_t pixels;     // of all columns, so many
  const float* bias;  // of each row
};

// to[row][column] (+)= sum of the rows' products with the vectors'. `units` says where each unit's
// first row starts; their sums follow each other.
template <class To>
using MultiplyPairs = void (*)(const BFloat16* const* units, const OperandLayout& layout,
                               const BFloat16* vectors, const Piece* pieces, int count,
                               const To& to);
