// The products of kn2row by the matrix kernel's register tiles in vectors.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

// What both arrangements share.
class PairOperands : public Kn2rowOperands<BFloat16> {
 public:
  using Operand = BFloat16;

  BFloat16* packed = nullptr;

 protected:
  PairOperands(const Kn2rowPlan& plan, const BFloat16* read, const BFloat16* weight)
      : Kn2rowOperands(plan, read, weight),
        depth_(round_up(p_.read_channels, 2)),
        depths_(depth_ / 2, kPanelDepth) {}

  // A lane's pairs, `distance` elements apart; zero beyond the last lane and the last channel.
  void pack_lane(BFloat16* to, int64_t distance, int64_t group, int64_t lane) const {
    const bool any = lane < total_;
    const BFloat16* from = weights_of(group, any ? lane : 0);
    for (int64_t c = 0; c < depth_; ++c)
      to[c / 2 * distance + c % 2] =
          any && c < p_.read_channels ? from[c * p_.weight_strides[1]] : BFloat16{0};
  }

  const int64_t depth_;  // of the summation, in whole pairs
  const Cut depths_;     // of these pairs
};

// Rows of a register tile are pixels, whose products are in vectors of lanes.
class LanePairs : public PairOperands {
 public:
  static constexpr int64_t kSegment = 64, kBlockLanes = kTileVectors * kSquareLanes;

  LanePairs(const Kn2rowPlan& plan, const BFloat16* read, const BFloat16* weight)
      : PairOperands(plan, read, weight),
        blocks((total_ + kSquareLanes - 1) / kSquareLanes, kTileVectors) {}

  int64_t first_lane(int64_t block) const { return blocks.begin(block) * kSquareLanes; }
  int64_t lanes(int64_t block) const { return blocks.size(block) * kSquareLanes; }
  int64_t packed_size() const { return p_.groups * group_size(); }
  int64_t pack_tasks() const { return p_.groups * blocks.parts; }
  int64_t scratch_bytes() const { return Scratch(nullptr, *this).bytes; }

  void pack(int64_t index) const {
    const int64_t group = index / blocks.parts, block = index % blocks.parts;
    const int64_t width = lanes(block);
    for (int64_t k = 0; k < width; ++k)
      pack_lane(weights(group, block) + 2 * k, 2 * width, group, first_lane(block) + k);
  }

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
    for (int64_t v = 0; v < width; v += kSquareLanes)
      for (int64_t q = 0; q < count; q += kSquareLanes)
        transpose_square(planes + v * pitch + q, pitch, scratch.products + q * kBlockLanes + v,
                         kBlockLanes);
  }

  const Cut blocks;  // of vectors of lanes

 private:
  bool in_place() const { return p_.read_strides[1] == 1 && depth_ == p_.read_channels; }
  int64_t group_size() const { return blocks.total * kSquareLanes * depth_; }
  BFloat16* weights(int64_t group, int64_t block) const {
    return packed + group * group_size() + first_lane(block) * depth_;
  }
};

// Rows of a register tile are lanes, whose products are in vectors of pixels.
class PixelPairs : public PairOperands {
 public:
  static constexpr int64_t kSegment = 2 * kTileVectors * kSquareLanes, kBlockLanes = kRowUnits;

  PixelPairs(const Kn2rowPlan& plan, const BFloat16* read, const BFloat16* weight)
      : PairOperands(plan, read, weight), blocks(total_, kRowUnits) {}

  int64_t first_lane(int64_t block) const { return blocks.begin(block); }
  int64_t lanes(int64_t block) const { return blocks.size(block); }
  int64_t packed_size() const { return p_.groups * total_ * depth_; }
  int64_t pack_tasks() const { return p_.groups * total_; }
  int64_t scratch_bytes() const { return Scratch(nullptr, *this).bytes; }

  void pack(int64_t index) const {
    pack_lane(packed + index * depth_, 2, index / total_, index % total_);
  }

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
    for (int64_t r = 0; r < lanes(block); ++r)
      rows[r] = packed + (group * total_ + first_lane(block) + r) * depth_;
    for (int64_t d = 0; d < depths_.parts; ++d)
      for (int64_t t = 0; t < tiles.parts; ++t) {
        const int64_t first = tiles.begin(t) * kSquareLanes;
        const Piece piece = {2 * depths_.begin(d), 2 * depths_.begin(d) * kSegment + 2 * first,
                             depths_.size(d)};
        pair_tile<Sums>(int(lanes(block)), int(tiles.size(t)))(rows, layout, scratch.pairs, &piece,
                                                               1, {planes + first, pitch, d > 0});
      }
  }

  const Cut blocks;  // of lanes
};

// Calls use(kernel) with the one that the plan is for.
template <class Use>
auto with_pairs_kn2row(const Kn2rowPlan& plan, int workers, const void* read, const void* weight,
                       const void* bias, void* written, void* workspace, const Use& use) {
  if (plan.pixels_in_vectors)
    return use(
        Kn2row<BFloat16, float, PixelPairs>(plan, workers, read, weight, bias, written, workspace));
  return use(
      Kn2row<BFloat16, float, LanePairs>(plan, workers, read, weight, bias, written, workspace));
}

inline size_t pairs_kn2row_workspace(const Kn2rowPlan& plan, int workers) {
  return with_pairs_kn2row(plan, workers, nullptr, nullptr, nullptr, nullptr, nullptr,
                           [](const auto& kernel) { return kernel.workspace_bytes(); });
}

inline void run_pairs_kn2row(const Kn2rowPlan& plan, const void* read, const void* weight,
                             const void* bias, void* written, void* workspace,
                             const TaskPool& pool) {
  with_pairs_kn2row(plan, pool.workers, read, weight, bias, written, workspace,
                    [&](auto&& kernel) { kernel.run(pool); });
}
