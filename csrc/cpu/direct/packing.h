// Packs the weights of a gather.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T>
class WeightPacker {
 public:
  WeightPacker(const GatherOperands<S, T>& operands, int64_t group, int64_t block)
      : p_(operands.plan),
        taps_(p_.kernel[0] * p_.kernel[1]),
        width_(operands.channels(block, block + 1)),
        valid_(least(width_, p_.written_channels - operands.channels(0, block))),
        last_(width_ - operands.unit),
        overlap_(operands.unit > 1 ? last_ - operands.last_vector(block) : 0),
        from_(operands.weight + group * p_.weight_group_stride +
              operands.channels(0, block) * p_.weight_strides[0]),
        to_(operands.packed_block(group, block)) {}

  void run() const {
    const int64_t (&strides)[4] = p_.weight_strides;
    const bool dense_taps = strides[3] == 1 && strides[2] == p_.kernel[1];
    if (strides[0] != 1 && dense_taps && strides[1] == taps_) return turn(0, taps_);
    for (int64_t tap = 0; tap < taps_; ++tap)
      if (strides[0] != 1 && strides[1] == 1)
        turn(tap, 1);
      else if (strides[0] == 1)
        copy(0, p_.read_channels, tap, tap + 1);
    if (strides[0] != 1 && strides[1] != 1)
      for (int64_t c = 0; c < p_.read_channels; ++c) copy(c, c + 1, 0, taps_);
  }

 private:
  const S* element(int64_t tap, int64_t c) const {
    return from_ + c * p_.weight_strides[1] + tap / p_.kernel[1] * p_.weight_strides[2] +
           tap % p_.kernel[1] * p_.weight_strides[3];
  }

  void copy(int64_t c0, int64_t c1, int64_t tap0, int64_t tap1) const {
    for (int64_t c = c0; c < c1; ++c)
      for (int64_t tap = tap0; tap < tap1; ++tap) {
        T* to = to_ + (tap * p_.read_channels + c) * width_;
        if (overlap_ > 0) {
          gather(to, element(tap, c), p_.weight_strides[0], last_);
          gather(to + last_, element(tap, c) + (last_ - overlap_) * p_.weight_strides[0],
                 p_.weight_strides[0], width_ - last_);
          continue;
        }
        gather(to, element(tap, c), p_.weight_strides[0], valid_);
        clear(to + valid_, width_ - valid_);
      }
  }

  // Read channels of `taps` taps lie densely, the taps innermost: squares of these by written
  // channels.
  void turn(int64_t first, int64_t taps) const {
    constexpr int64_t lanes = kLanes<T>;
    const int64_t count = p_.read_channels * taps;
    for (int64_t channel = 0; channel < width_; channel += lanes) {
      const int64_t place = channel == last_ ? channel - overlap_ : channel;
      const int64_t rows = most(0, least(lanes, valid_ - place));
      int64_t c = 0, tap = 0;
      for (int64_t k = 0; k < count; k += lanes) {
        T* to[lanes];
        const int64_t products = least(lanes, count - k);
        for (int64_t q = 0; q < products; ++q) {
          to[q] = to_ + ((first + tap) * p_.read_channels + c) * width_ + channel;
          if (++tap == taps) tap = 0, ++c;
        }
        const S* from = element(first, 0) + place * p_.weight_strides[0] + k;
        transpose_lanes<T>(
            rows, products, least(lanes, width_ - channel),
            [&](int64_t r) { return from + r * p_.weight_strides[0]; },
            [&](int64_t q) { return to[q]; });
      }
    }
  }

  const GatherPlan& p_;
  int64_t taps_, width_, valid_;  // written channels: of the block, and those that there are
  int64_t last_, overlap_;        // the last vector's place, and how far before it its channels are
  const S* from_;
  T* to_;
};
