// Depthwise, channels_last: vectors hold neighbouring channels of a pixel, and nothing is packed
// but the weights.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class T, class S>
inline Vector<T> load_widened(const S* from) {
  if constexpr (kSame<S, T>) {
    return load(from);
  } else {
    T values[kLanes<T>];
    for (int lane = 0; lane < kLanes<T>; ++lane) values[lane] = widen(from[lane]);
    return load(values);
  }
}

template <class T, class S>
inline void store_narrowed(S* to, Vector<T> value) {
  if constexpr (kSame<S, T>) {
    store(to, value);
  } else {
    T values[kLanes<T>];
    store(values, value);
    for (int lane = 0; lane < kLanes<T>; ++lane) narrow(values[lane], to[lane]);
  }
}

// Up to kGroupVectors vectors of channels. The last vector of all overlaps the one before where the
// channels are no whole number of vectors; fewer channels than one vector holds are refused by the
// kernel.
constexpr int kGroupVectors = 4;

template <int V>
struct ChannelGroup {
  int64_t at[V];  // the first channel of each vector
};

// Calls body(ChannelGroup<V>) for group `index` of `channels` channels.
template <class T, class Body>
inline void with_channel_group(int64_t channels, int64_t index, const Body& body) {
  const int64_t vectors = (channels + kLanes<T> - 1) / kLanes<T>, first = index * kGroupVectors;
  const auto at = [&](int64_t v) { return least((first + v) * kLanes<T>, channels - kLanes<T>); };
  switch (least(kGroupVectors, vectors - first)) {
    case 1:
      return body(ChannelGroup<1>{{at(0)}});
    case 2:
      return body(ChannelGroup<2>{{at(0), at(1)}});
    case 3:
      return body(ChannelGroup<3>{{at(0), at(1), at(2)}});
    default:
      return body(ChannelGroup<4>{{at(0), at(1), at(2), at(3)}});
  }
}

template <class T>
inline int64_t channel_groups(int64_t channels) {
  return ((channels + kLanes<T> - 1) / kLanes<T> + kGroupVectors - 1) / kGroupVectors;
}

template <class S, class T>
class Pixels {
 public:
  explicit Pixels(const DepthwisePlan& plan) : p_(plan) {}

  // packed[tap][channel]
  void pack_weights(const S* weight, T* packed) const {
    for (int64_t a = 0; a < p_.kernel[0]; ++a)
      for (int64_t b = 0; b < p_.kernel[1]; ++b, packed += p_.channels)
        gather(packed, weight + a * p_.weight_strides[1] + b * p_.weight_strides[2],
               p_.weight_strides[0], p_.channels);
  }

  // Row i of a region, of sample n.
  void gather_row(const Region& region, int64_t n, int64_t i, const S* read, const T* packed,
                  const S* bias, S* written) const {
    const S* from = read + n * p_.read_strides[0];
    S* to = written + n * p_.written_strides[0] +
            (region.h.begin + i * region.h.step) * p_.written_strides[2] +
            region.w.begin * p_.written_strides[3];
    const int64_t step = region.w.step * p_.written_strides[3];
    // A pixel's channels follow each other in memory: all groups of one pixel come before the next
    // pixel.
    for (int64_t j = 0; j < region.w.count; ++j)
      for (int64_t g = 0; g < channel_groups<T>(p_.channels); ++g)
        with_channel_group<T>(p_.channels, g, [&](const auto& group) {
          gather_pixel(region, i, j, group, from, packed, bias, to + j * step);
        });
  }

  // dw of kernel row a, for one group of channels.
  void weight_row(int64_t a, int64_t index, const S* x, const S* y, S* w) const {
    with_channel_group<T>(p_.channels, index, [&](const auto& group) {
      for (int64_t b = 0; b < p_.kernel[1]; ++b) weight_tap(a, b, group, x, y, w);
    });
  }

 private:
  template <int V>
  void gather_pixel(const Region& region, int64_t i, int64_t j, const ChannelGroup<V>& group,
                    const S* read, const T* packed, const S* bias, S* to) const {
    Vector<T> total[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) total[v] = bias ? load_widened<T>(bias + group.at[v]) : Vector<T>{};
    for (int64_t a = 0; a < region.h.tap_count; ++a) {
      const int64_t row = region.h.taps[a].origin + i * region.h.read_step;
      if (row < 0 || row >= p_.read_size[0]) continue;
      for (int64_t b = 0; b < region.w.tap_count; ++b) {
        const int64_t column = region.w.taps[b].origin + j * region.w.read_step;
        if (column < 0 || column >= p_.read_size[1]) continue;
        const S* from = read + row * p_.read_strides[2] + column * p_.read_strides[3];
        const T* weights =
            packed +
            (region.h.taps[a].kernel * p_.kernel[1] + region.w.taps[b].kernel) * p_.channels;
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v)
          total[v] += load_widened<T>(from + group.at[v]) * load(weights + group.at[v]);
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store_narrowed<T>(to + group.at[v], total[v]);
  }

  // Summed per row, per sample, and over the batch, in order.
  template <int V>
  void weight_tap(int64_t a, int64_t b, const ChannelGroup<V>& group, const S* x, const S* y,
                  S* w) const {
    const Region& region = p_.regions[0];
    Vector<T> total[V] = {};
    for (int64_t n = 0; n < p_.batch; ++n) {
      Vector<T> sample[V] = {};
      for (int64_t i = 0; i < region.h.count; ++i) {
        const int64_t row = region.h.taps[a].origin + i * region.h.read_step;
        if (row < 0 || row >= p_.read_size[0]) continue;
        add_row(b, group, x + n * p_.read_strides[0] + row * p_.read_strides[2],
                y + n * p_.written_strides[0] + i * p_.written_strides[2], sample);
      }
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v) total[v] += sample[v];
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) {
      T values[kLanes<T>];
      store(values, total[v]);
      // Channels that the vector before has too are its own to write: another task may hold it.
      const int64_t skip = round_up(group.at[v], kLanes<T>) - group.at[v];
      scatter(w + (group.at[v] + skip) * p_.weight_strides[0] + a * p_.weight_strides[1] +
                  b * p_.weight_strides[2],
              p_.weight_strides[0], values + skip, kLanes<T> - skip);
    }
  }

  template <int V>
  void add_row(int64_t b, const ChannelGroup<V>& group, const S* x, const S* y,
               Vector<T> (&sample)[V]) const {
    const Span& span = p_.regions[0].w;
    const int64_t origin = span.taps[b].origin, step = span.read_step;
    // Positions whose tap reads inside the row.
    const int64_t begin = origin >= 0 ? 0 : (step - 1 - origin) / step;
    const int64_t end = origin >= p_.read_size[1]
                            ? 0
                            : least(span.count, (p_.read_size[1] - 1 - origin) / step + 1);
    Vector<T> sums[V] = {};
    for (int64_t j = begin; j < end; ++j) {
      const S* from = x + (origin + j * step) * p_.read_strides[3];
      const S* written = y + j * p_.written_strides[3];
#pragma GCC unroll 8
      for (int v = 0; v < V; ++v)
        sums[v] += load_widened<T>(from + group.at[v]) * load_widened<T>(written + group.at[v]);
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) sample[v] += sums[v];
  }

  const DepthwisePlan& p_;
};
