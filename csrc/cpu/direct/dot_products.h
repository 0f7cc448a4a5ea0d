// A gather with read channels in vectors, for few written channels: every sum is a dot product.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T>
class DotProducts : public PixelRows<S, T> {
  using Base = PixelRows<S, T>;
  using Base::o_, Base::p_;

 public:
  // Adding up a vector's lanes takes as long as many products: it is done once per long chunk.
  static constexpr int64_t kDepth = kLanes<T> * kPanelDepth / 2, kPitch = kDepth + 16;

  // What one worker needs while it runs a task.
  struct Scratch : Base::RowScratch {
    Scratch(char* base, const GatherPlan& plan, int64_t) : Scratch(Arena(base), plan) {}
    int64_t bytes;

   private:
    Scratch(Arena arena, const GatherPlan& plan)
        : Base::RowScratch(arena, plan.block_pixels, kPitch), bytes(arena.used()) {}
  };

  explicit DotProducts(const GatherOperands<S, T>& operands) : Base(operands, kPitch, kLanes<T>) {}

  void compute(const Block& block, int64_t group, Range channels, Scratch& scratch) const {
    const int64_t depth = region_depth(p_, *block.region);
    const Cut chunks(depth / kLanes<T>, kDepth / kLanes<T>),
        tiles(block.end - block.begin, kMaxRows);
    for (int64_t chunk = 0; chunk < most(1, chunks.parts); ++chunk) {
      typename Base::Panel panel;
      panel.count = 0;
      if (depth > 0)
        this->pack(block, group, chunks.begin(chunk) * kLanes<T>, chunks.size(chunk) * kLanes<T>,
                   scratch, panel);
      for (int64_t c = channels.begin; c < channels.end; ++c) {
        Steps<T> steps[kPanelDepth];
        for (int s = 0; s < panel.count; ++s)
          steps[s] = {o_.packed_block(group, c) + panel.ranges[s].begin,
                      panel.ranges[s].depth / kLanes<T>};
        const int64_t channel = group * p_.written_channels + c;
        const T bias = o_.bias && chunk + 1 >= chunks.parts ? T(widen(o_.bias[channel])) : T(0);
        for (int64_t t = 0; t < tiles.parts; ++t) {
          const int64_t q = tiles.begin(t);
          dot_tile<T>(int(tiles.size(t)))(
              scratch.rows + q, scratch.in_place[t] ? panel.offsets : panel.steps, steps,
              panel.count, scratch.written + q, channel * p_.written_strides[1], chunk > 0, bias);
        }
      }
    }
  }
};
