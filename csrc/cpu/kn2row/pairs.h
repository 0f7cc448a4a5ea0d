// The products of kn2row by the matrix kernel's register tiles in vectors.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

// What both arrangements share.
class PairOperands : public Kn2rowOperands<BFloat16, BFloat16> {
 protected:
  PairOperands(const Kn2rowPlan& plan, const void* read, const void* weight, int64_t unit,
               int64_t largest)
      : Kn2rowOperands(plan, read, weight, round_up(plan.tensors.read_channels, 2), unit, largest),
        depths_(depth_ / 2, kPanelDepth) {}

  // A block's lanes, `lane_distance` elements apart, and their pairs `pair_distance`; zero beyond
  // the last lane and the last channel.
  void pack_block(int64_t index, int64_t lane_distance, int64_t pair_distance) const {
    const int64_t group = index / blocks.parts, block = index % blocks.parts;
    const int64_t first = first_lane(block);
    BFloat16* to = weights(group, block);
    for (int64_t k = 0; k < lanes(block); ++k, to += lane_distance) {
      const bool any = first + k < total_;
      const BFloat16* from = weights_of(group, any ? first + k : 0);
      for (int64_t c = 0; c < depth_; ++c)
        to[c / 2 * pair_distance + c % 2] =
            any && c < p_.read_channels ? from[c * p_.weight_strides[1]] : BFloat16{0};
    }
  }

  const Cut depths_;  // of the summation, in pairs
};

// Rows of a register tile are pixels, whose products are in vectors of lanes.
class LanePairs : public PairOperands {
 public:
  static constexpr int64_t kSegment = 64, kBlockLanes = kTileVectors * kSquareLanes;

  LanePairs(const Kn2rowPlan& plan, const void* read, const void* weight)
      : PairOperands(plan, read, weight, kSquareLanes, kTileVectors) {}

  void pack(int64_t index) const { pack_block(index, 2, 2 * lanes(index % blocks.parts)); }
  int64_t scratch_bytes() const { return Scratch(nullptr, *this).bytes; }

  struct Scratch {
    Scratch(char* base, const LanePairs& k) {
      Arena arena(base);
      rows = arena.take<const BFloat16*>(kSegment);
      products = arena.take<float>(kSegment * kBlockLanes);
      copied = arena.take<BFloat16>(k.in_place() ? 0 : kSegment * k.depth_);
      bytes = arena.used();
    }
    const BFloat16** rows;
    float* products;
    BFloat16* copied;
    int64_t bytes;
  };

  Scratch pixels(int64_t sample, int64_t group, int64_t row, int64_t column, int64_t count, int64_t,
                 char* base) const {
    const Scratch scratch(base, *this);
    const BFloat16* from = pixel(sample, group, row, column);
    if (!in_place())
      pack_rows(scratch.copied, depth_,
                {from, p_.read_strides[3], p_.read_strides[1], count, p_.read_channels}, depth_);
    for (int64_t q = 0; q < count; ++q)
      scratch.rows[q] = in_place() ? from + q * p_.read_strides[3] : scratch.copied + q * depth_;
    return scratch;
  }

  void multiply(const Scratch& scratch, int64_t group, int64_t block, int64_t count, float* planes,
                int64_t pitch) const {
    const int64_t width = lanes(block);
    const OperandLayout layout = {1, 0, 2, 1, 2 * width, 2 * kSquareLanes};
    const Cut tiles(count, kRowUnits);
    for (int64_t d = 0; d < depths_.parts; ++d) {
      const Piece piece = {2 * depths_.begin(d), 2 * depths_.begin(d) * width, depths_.size(d)};
      for (int64_t t = 0; t < tiles.parts; ++t)
        pair_tile<Sums>(int(tiles.size(t)), int(blocks.size(block)))(
            scratch.rows + tiles.begin(t), layout, weights(group, block), &piece, 1,
            {scratch.products + tiles.begin(t) * kBlockLanes, kBlockLanes, d > 0});
    }
    turn_products(planes, pitch, scratch.products, kBlockLanes, width, count);
  }

 private:
  bool in_place() const { return p_.read_strides[1] == 1 && depth_ == p_.read_channels; }
};

// Rows of a register tile are lanes, whose products are in vectors of pixels.
class PixelPairs : public PairOperands {
 public:
  static constexpr int64_t kSegment = 2 * kTileVectors * kSquareLanes, kBlockLanes = kRowUnits;

  PixelPairs(const Kn2rowPlan& plan, const void* read, const void* weight)
      : PairOperands(plan, read, weight, 1, kRowUnits) {}

  void pack(int64_t index) const { pack_block(index, depth_, 2); }
  int64_t scratch_bytes() const { return Scratch(nullptr, *this).bytes; }

  struct Scratch {
    Scratch(char* base, const PixelPairs& k) {
      Arena arena(base);
      pairs = arena.take<BFloat16>(k.depth_ * kSegment);
      bytes = arena.used();
    }
    BFloat16* pairs;  // of channels: [pair][pixel]
    int64_t bytes;
  };

  Scratch pixels(int64_t sample, int64_t group, int64_t row, int64_t column, int64_t count,
                 int64_t next, char* base) const {
    const Scratch scratch(base, *this);
    const BFloat16* from = pixel(sample, group, row, column);
    for (int64_t c = 0; c < depth_; c += 2) {
      const BFloat16* even = from + c * p_.read_strides[1];
      const bool two = c + 1 < p_.read_channels;
      for (int64_t q = 0; q < count; q += kSquareProducts) {
        const int64_t here = least(kSquareProducts, count - q);
        const Products low = load_products(even + q, here);
        const Products high = two ? load_products(even + p_.read_strides[1] + q, here) : Products{};
        if (next) {
          __builtin_prefetch(even + q + next * p_.read_strides[2]);
          __builtin_prefetch(even + (two ? p_.read_strides[1] : 0) + q + next * p_.read_strides[2]);
        }
        BFloat16* to = scratch.pairs + c * kSegment + 2 * q;
        store_products(to, make_pairs<0>(low, high), kSquareProducts);
        store_products(to + kSquareProducts, make_pairs<1>(low, high), kSquareProducts);
      }
    }
    return scratch;
  }

  void multiply(const Scratch& scratch, int64_t group, int64_t block, int64_t count, float* planes,
                int64_t pitch) const {
    const OperandLayout layout = {1, 0, 2, 1, 2 * kSegment, 2 * kSquareLanes};
    const Cut tiles((count + kSquareLanes - 1) / kSquareLanes, kTileVectors);
    const BFloat16* rows[kRowUnits];
    for (int64_t r = 0; r < lanes(block); ++r) rows[r] = weights(group, block) + r * depth_;
    for (int64_t d = 0; d < depths_.parts; ++d)
      for (int64_t t = 0; t < tiles.parts; ++t) {
        const int64_t first = tiles.begin(t) * kSquareLanes;
        const Piece piece = {2 * depths_.begin(d), 2 * depths_.begin(d) * kSegment + 2 * first,
                             depths_.size(d)};
        pair_tile<Sums>(int(lanes(block)), int(tiles.size(t)))(rows, layout, scratch.pairs, &piece,
                                                               1, {planes + first, pitch, d > 0});
      }
  }
};
