// What the matrix kernel's register tiles share: pair_vectors.h and tiles.h define them, each with
// the same names, for different instructions.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

// A stretch of the summation: `steps` steps of kShape.step products. A row's are at rows[row] +
// Piece::row, the vectors' at product Piece::vector of a packed block.
struct Piece {
  int64_t row, vector, steps;
};

// sums[row][column] (+)= sum of the rows' products with the vectors'. Rows are whole units of
// kShape.row_unit rows, those of a unit the same distance apart.
using MultiplyPairs = void (*)(const BFloat16* const* rows, const BFloat16* vectors,
                               const Piece* pieces, int count, float* sums, int64_t pitch,
                               bool add);
