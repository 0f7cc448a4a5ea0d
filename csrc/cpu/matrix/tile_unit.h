// The tile instructions (AMX), 16 rows by 64 bytes each, and their twin in plain C++: the twin lets
// a machine without them run what is built on them (make check-twins).
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

// Tiles from kVectorTile on hold vectors' operands, the others rows: of these there may be fewer.
constexpr int kTiles = 8, kVectorTile = 6, kTileRows = 16, kTileBytes = 64;

#if !defined(DILCONV_TWINS)

// The state of a thread's tile unit, from construction to destruction.
class TileUnit {
 public:
  explicit TileUnit(int64_t rows) {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    static_assert(sizeof config == 64, "the layout that ldtilecfg reads");
    for (int tile = 0; tile < kTiles; ++tile) {
      config.row_bytes[tile] = kTileBytes;
      config.rows[tile] = uint8_t(tile < kVectorTile ? rows : kTileRows);
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(config));
  }
  ~TileUnit() { __asm__ volatile("tilerelease"); }
  TileUnit(const TileUnit&) = delete;
};

template <int tile>
inline void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" ::"n"(tile));
}

// Rows are `stride` bytes apart.
template <int tile>
inline void tile_load(const void* from, int64_t stride) {
  __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"n"(tile), "r"(from), "r"(stride) : "memory");
}

template <int tile>
inline void tile_store(void* to, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"n"(tile), "r"(to), "r"(stride) : "memory");
}

// sums[row][column] += the pairs of `rows` in that row times those of `vectors` in that column.
template <int sums, int rows, int vectors>
inline void tile_dot() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"n"(sums), "n"(rows), "n"(vectors));
}

#else

struct Tile {
  uint32_t words[kTileRows][kTileBytes / 4];
};

thread_local Tile twin_tiles[kTiles];
thread_local int64_t twin_rows = 0;  // 0: not configured

inline int64_t rows_of(int tile) { return tile < kVectorTile ? twin_rows : kTileRows; }

// As the instructions do, an operation outside a unit's lifetime ends the program.
inline void check_twin(bool holds) {
  if (!holds) __builtin_trap();
}

class TileUnit {
 public:
  explicit TileUnit(int64_t rows) {
    check_twin(twin_rows == 0 && rows > 0 && rows <= kTileRows);
    twin_rows = rows;
    __builtin_memset(twin_tiles, 0, sizeof twin_tiles);
  }
  ~TileUnit() { twin_rows = 0; }
  TileUnit(const TileUnit&) = delete;
};

template <int tile>
inline void tile_zero() {
  check_twin(twin_rows > 0);
  __builtin_memset(&twin_tiles[tile], 0, sizeof(Tile));
}

template <int tile>
inline void tile_load(const void* from, int64_t stride) {
  check_twin(twin_rows > 0);
  for (int row = 0; row < rows_of(tile); ++row)
    __builtin_memcpy(twin_tiles[tile].words[row], static_cast<const char*>(from) + row * stride,
                     kTileBytes);
}

template <int tile>
inline void tile_store(void* to, int64_t stride) {
  check_twin(twin_rows > 0);
  for (int row = 0; row < rows_of(tile); ++row)
    __builtin_memcpy(static_cast<char*>(to) + row * stride, twin_tiles[tile].words[row],
                     kTileBytes);
}

template <int sums, int rows, int vectors>
inline void tile_dot() {
  check_twin(twin_rows > 0);
  for (int row = 0; row < twin_rows; ++row)
    for (int pair = 0; pair < kTileBytes / 4; ++pair)
      for (int column = 0; column < kTileBytes / 4; ++column) {
        uint32_t& word = twin_tiles[sums].words[row][column];
        const uint32_t a = twin_tiles[rows].words[row][pair];
        const uint32_t b = twin_tiles[vectors].words[pair][column];
        const float even = bits_float(a << 16) * bits_float(b << 16);
        const float odd = bits_float(a & 0xffff0000u) * bits_float(b & 0xffff0000u);
        word = float_bits(bits_float(word) + even + odd);
      }
}

#endif
