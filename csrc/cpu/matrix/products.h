// What the matrix kernel's register tiles share: pair_vectors.h and tiles.h define them, each with
// the same names, for different instructions.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

// A stretch of the summation: `steps` steps of kShape.step products. A row's are at its start +
// Piece::row, the vectors' at product Piece::vector of a packed block.
struct Piece {
  int64_t row, vector, steps;
};

// Rows of a unit, and how far apart they are.
struct UnitRows {
  int64_t count, distance;
};

// sums[row][column] (+)= sum of the rows' products with the vectors'. `units` says where each
// unit's first row starts; their sums follow each other.
using MultiplyPairs = void (*)(const BFloat16* const* units, UnitRows rows, const BFloat16* vectors,
                               const Piece* pieces, int count, float* sums, int64_t pitch,
                               bool add);
