// grad_weight of the layers of paired_squares.h: a product takes two positions of a column, whose
// gradients are unpacked once for all taps, and what these read once for all that read it.
//
// Included inside an instruction set's anonymous namespace; see matrix.inc.

// A half's sums of a tile, which reads x and "writes" y; of an odd number of rows the last one is
// paired with zero.
template <int half, int R, bool checked, int Q>
inline void sum_half(const SquareTile<BFloat16, const BFloat16, Q>& tile, int64_t channel,
                     Vector<float> (&total)[3][3]) {
  const auto gradient = [&](int r, int q) {
    return r < R ? load_products(
                       tile.written + r * tile.written_row + q * tile.written_column + channel,
                       kPairedChannels)
                 : Products{};
  };
  Pairs gradients[(R + 1) / 2][Q];
#pragma GCC unroll 2
  for (int k = 0; k < (R + 1) / 2; ++k)
#pragma GCC unroll 4
    for (int q = 0; q < Q; ++q)
      gradients[k][q] = in_register(unpack<half>(gradient(2 * k, q), gradient(2 * k + 1, q)));
#pragma GCC unroll 3
  for (int a = 0; a < 3; ++a)
#pragma GCC unroll 3
    for (int b = 0; b < 3; ++b) total[a][b] = Vector<float>{};
  // What tap row a reads, of pair k of the rows.
  const auto add = [&](int a, int k, int v, Pairs pairs) {
#pragma GCC unroll 3
    for (int b = 0; b < 3; ++b)
      if (v >= b && v - b < Q) total[a][b] = add_products(total[a][b], pairs, gradients[k][v - b]);
  };
  Products above[Q + 2];
#pragma GCC unroll 6
  for (int u = 0; u < R + 2; ++u) {
    Products row[Q + 2];
    load_row<checked>(tile, channel, u, row);
#pragma GCC unroll 6
    for (int v = 0; v < Q + 2; ++v) {
      if (u > 0) {
        const Pairs pairs = unpack<half>(above[v], row[v]);
#pragma GCC unroll 3
        for (int a = 0; a < 3; ++a)
          if ((u - 1 - a) % 2 == 0 && u > a && u - a < R) add(a, (u - 1 - a) / 2, v, pairs);
      }
      if (R % 2 == 1 && u >= R - 1) add(u - (R - 1), R / 2, v, unpack<half>(row[v], Products{}));
      above[v] = row[v];
    }
  }
}

class PairedWeightGradient : private PairedBlocks {
 public:
  PairedWeightGradient(const DepthwisePlan& plan, const void* x, const void* y, void* w,
                       void* workspace)
      : PairedBlocks(plan),
        x_(static_cast<const BFloat16*>(x)),
        y_(static_cast<const BFloat16*>(y)),
        w_(static_cast<BFloat16*>(w)) {
    Arena arena(workspace);
    sums_ = arena.take<BlockSums>(plan.splits * blocks_.parts);
    bytes_ = arena.used();
  }

  size_t workspace_bytes() const { return size_t(bytes_); }

  void run(const TaskPool& pool) {
    pool.run(
        pool, p_.splits,
        [](void* self, int64_t split, int) {
          static_cast<PairedWeightGradient*>(self)->sum(split);
        },
        this);
    pool.run(
        pool, blocks_.parts,
        [](void* self, int64_t block, int) {
          static_cast<PairedWeightGradient*>(self)->write(block);
        },
        this);
  }

 private:
  struct BlockSums {
    Vector<float> of[2][3][3];  // [half]
  };

  // Adds a tile's sums to all blocks'.
  struct Add {
    const PairedWeightGradient& gradient;
    BlockSums* sums;

    template <int R, bool checked, int Q>
    __attribute__((noinline)) void run(const SquareTile<BFloat16, const BFloat16, Q>& tile) const {
      for (int64_t block = 0; block < gradient.blocks_.parts; ++block) {
        const int64_t c = gradient.first_channel(block);
        add_half<0, R, checked>(tile, c, sums[block]);
        add_half<1, R, checked>(tile, c, sums[block]);
      }
    }

   private:
    template <int half, int R, bool checked, int Q>
    void add_half(const SquareTile<BFloat16, const BFloat16, Q>& tile, int64_t channel,
                  BlockSums& to) const {
      Vector<float> total[3][3];
      sum_half<half, R, checked>(tile, channel, total);
#pragma GCC unroll 3
      for (int a = 0; a < 3; ++a)
#pragma GCC unroll 3
        for (int b = 0; b < 3; ++b) to.of[half][a][b] += total[a][b];
    }
  };

  // The partial sums of a split of the samples' tiles.
  void sum(int64_t split) const {
    BlockSums* sums = sums_ + split * blocks_.parts;
    for (int64_t block = 0; block < blocks_.parts; ++block) sums[block] = {};
    each_of_split(split, [&](int64_t n, const Box& tile) {
      const auto x = sample_pixels(x_, p_.read_strides, n, 0);
      const auto y = sample_pixels(y_, p_.written_strides, n, 0);
      Squares<BFloat16, const BFloat16>(p_, p_.regions[0], x, y)
          .each(tile.h, tile.w, true, Add{*this, sums});
    });
  }

  // Adds the splits' sums of a block, in order.
  void write(int64_t block) const {
    const SquareAxis h(p_.regions[0].h), w(p_.regions[0].w);
    for (int half = 0; half < 2; ++half)
      for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b) {
          Vector<float> total = {};
          for (int64_t s = 0; s < p_.splits; ++s)
            total += sums_[s * blocks_.parts + block].of[half][a][b];
          const Words words = round_lanes(total);
          BFloat16* to =
              w_ + h.kernel[a] * p_.weight_strides[1] + w.kernel[b] * p_.weight_strides[2];
          for (int lane = 0; lane < kSquareLanes; ++lane) {
            const int64_t channel = first_channel(block) + unpacked_channel(half, lane);
            // Those before are of the block before.
            if (channel >= block * kPairedChannels) to[channel * p_.lane_stride].bits = words[lane];
          }
        }
  }

  const BFloat16* x_;
  const BFloat16* y_;
  BFloat16* w_;
  BlockSums* sums_;  // [split][block]
  int64_t bytes_;
};

size_t paired_weight_workspace(const DepthwisePlan& plan, int) {
  return PairedWeightGradient(plan, nullptr, nullptr, nullptr, nullptr).workspace_bytes();
}

void run_paired_weight(const DepthwisePlan& plan, const void* x, const void* y, void* w,
                       void* workspace, const TaskPool& pool) {
  PairedWeightGradient(plan, x, y, w, workspace).run(pool);
}
