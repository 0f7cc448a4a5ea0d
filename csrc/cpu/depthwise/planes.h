// Depthwise, contiguous planes: vectors hold neighbouring pixels of a row.
//
// A task owns a channel's planes. Each plane that is read is packed with margins once (see
// DepthwisePlan), so that no tap needs a bounds check along the row and tails are whole vectors.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

// Where tap b of a span reads a packed row, for its first position.
inline int64_t packed_origin(const DepthwisePlan& p, const Span& span, int64_t b) {
  const int64_t step = span.read_step, origin = span.taps[b].origin;
  const int64_t phase = (origin % step + step) % step;
  return phase * p.phase_length + (origin - phase) / step - p.first;
}

template <class S, class T>
class Planes {
 public:
  Planes(const DepthwisePlan& plan, void* scratch, bool weight_gradient)
      : p_(plan), step_(plan.regions[0].w.read_step) {
    Arena arena(scratch);
    pitch_ = step_ * plan.phase_length;
    written_pitch_ = round_up(plan.written_size[1], kLanes<T>);
    const int64_t taps = plan.kernel[0] * plan.kernel[1];
    read_ = arena.take<T>(plan.read_size[0] * pitch_ + kLanes<T>);
    written_ = arena.take<T>(plan.written_size[0] * written_pitch_);
    if (weight_gradient)
      sums_ = arena.take<T>(round_up(taps, kLanes<T>) * kLanes<T>);
    else
      weights_ = arena.take<T>(taps);
    offsets_ = arena.take<int64_t>(plan.kernel[1]);
    bytes_ = arena.used();
  }

  int64_t bytes() const { return bytes_; }

  // conv2d or grad_input of one plane.
  void gather_plane(int64_t n, int64_t channel, const S* read, const S* weight, const S* bias,
                    S* written) {
    pack_read(read_plane(read, n, channel));
    pack_weights(weight + channel * p_.weight_strides[0]);
    const T start = bias ? T(widen(bias[channel])) : T(0);
    S* plane = written_plane(written, n, channel);
    for (const Region* region = p_.regions; region < p_.regions + p_.region_count; ++region) {
      for (int64_t b = 0; b < region->w.tap_count; ++b)
        offsets_[b] = packed_origin(p_, region->w, b);
      if (p_.squares) {
        gather_squares(*region, plane, start);
        continue;
      }
      for (int64_t i = 0; i < region->h.count; ++i) {
        gather_row(*region, i, start);
        scatter(plane + (region->h.begin + i * region->h.step) * p_.written_strides[2] +
                    region->w.begin * p_.written_strides[3],
                region->w.step * p_.written_strides[3], written_, region->w.count);
      }
    }
  }

  // grad_weight of one channel: sums over the batch, in order.
  void weight_channel(int64_t channel, const S* x, const S* y, S* w) {
    const int64_t taps = p_.kernel[0] * p_.kernel[1];
    clear(sums_, round_up(taps, kLanes<T>) * kLanes<T>);
    for (int64_t b = 0; b < p_.kernel[1]; ++b) offsets_[b] = packed_origin(p_, p_.regions[0].w, b);
    const PlaneWeight<T> products(p_, read_, pitch_, written_, written_pitch_, offsets_, sums_);
    for (int64_t n = 0; n < p_.batch; ++n) {
      pack_read(read_plane(x, n, channel));
      pack_written(written_plane(y, n, channel));
      products.run();
    }
    T* to_add = sums_;
    for (int64_t first = 0; first < taps; first += kLanes<T>, to_add += kLanes<T> * kLanes<T>) {
      T totals[kLanes<T>];
      store(totals, add_lanes(to_add, kLanes<T>));
      for (int64_t tap = first; tap < least(taps, first + kLanes<T>); ++tap)
        narrow(totals[tap - first],
               w[channel * p_.weight_strides[0] + tap / p_.kernel[1] * p_.weight_strides[1] +
                 tap % p_.kernel[1] * p_.weight_strides[2]]);
    }
  }

 private:
  const S* read_plane(const S* read, int64_t n, int64_t channel) const {
    return read + n * p_.read_strides[0] + channel / p_.divisor * p_.read_strides[1];
  }

  template <class E>
  E* written_plane(E* written, int64_t n, int64_t channel) const {
    return written + n * p_.written_strides[0] + channel * p_.written_strides[1];
  }

  void pack_read(const S* plane) {
    const int64_t width = p_.read_size[1];
    for (int64_t phase = 0; phase < step_; ++phase) {
      // Elements m of this phase that lie inside the row, and inside the packed length.
      const int64_t inside = phase < width ? (width - 1 - phase) / step_ + 1 : 0;
      const int64_t begin = most(0, p_.first),
                    end = most(begin, least(inside, p_.first + p_.phase_length));
      const int64_t before = least(begin - p_.first, p_.phase_length);
      const S* from = plane + (phase + begin * step_) * p_.read_strides[3];
      T* to = read_ + phase * p_.phase_length;
      for (int64_t i = 0; i < p_.read_size[0]; ++i, to += pitch_, from += p_.read_strides[2])
        pack_row(to, before, from, end - begin);
    }
  }

  // Margins of zeros around `count` elements. Where rows have one phase, whole vectors: what they
  // reach into is written next.
  void pack_row(T* to, int64_t before, const S* from, int64_t count) const {
    constexpr int64_t n = kLanes<T>;
    const int64_t after = p_.phase_length - before - count;
    if (step_ > 1 || p_.read_strides[3] != 1 || count < n) {
      clear(to, before);
      gather(to + before, from, step_ * p_.read_strides[3], count);
      clear(to + before + count, after);
      return;
    }
    for (int64_t m = 0; m < before; m += n) store(to + m, Vector<T>{});
    to += before;
    for (int64_t m = 0; m < count - n; m += n) store(to + m, load_widened<T>(from + m));
    store(to + count - n, load_widened<T>(from + count - n));
    for (int64_t m = 0; m < after; m += n) store(to + count + m, Vector<T>{});
  }

  // Whole vectors, with zeros at the end of each row.
  void pack_written(const S* plane) {
    const int64_t width = p_.written_size[1];
    for (int64_t i = 0; width > 0 && i < p_.written_size[0]; ++i) {
      T* to = written_ + i * written_pitch_;
      store(to + written_pitch_ - kLanes<T>, Vector<T>{});
      gather(to, plane + i * p_.written_strides[2], p_.written_strides[3], width);
    }
  }

  void pack_weights(const S* weight) {
    for (int64_t a = 0; a < p_.kernel[0]; ++a)
      for (int64_t b = 0; b < p_.kernel[1]; ++b)
        weights_[a * p_.kernel[1] + b] =
            widen(weight[a * p_.weight_strides[1] + b * p_.weight_strides[2]]);
  }

  // A 3x3 kernel of stride 1, rows at least as long as a vector.
  void gather_squares(const Region& region, S* plane, T start) {
    const SquareAxis h(region.h), w(region.w);
    T vectors[10][kLanes<T>];
    SquareWeights<T> weights;
    for (int t = 0; t < 9; ++t) {
      weights.at[t / 3][t % 3] = vectors[t];
      store(vectors[t], Vector<T>{} + weights_[h.kernel[t / 3] * p_.kernel[1] + w.kernel[t % 3]]);
    }
    store(vectors[9], Vector<T>{} + start);
    for (int64_t phase = 0; phase < least(h.dilation, region.h.count); ++phase) {
      const Cut down(h.count({0, region.h.count}, phase), kPlaneRows);
      for (int64_t r = 0; r < down.parts; ++r)
        square_rows<kPlaneRows>(region, h, phase + down.begin(r) * h.dilation, down.size(r), plane,
                                weights, vectors[9]);
    }
  }

  template <int R>
  void square_rows(const Region& region, const SquareAxis& h, int64_t top, int64_t count, S* plane,
                   const SquareWeights<T>& weights, const T* start) {
    if constexpr (R > 1)
      if (count < R) return square_rows<R - 1>(region, h, top, count, plane, weights, start);
    SquareTile<T, S, 1> tile;
    const bool reversed = offsets_[2] < offsets_[0];
    tile.read = read_ + (h.first + top) * pitch_;
    tile.read_row = h.dilation * pitch_;
    tile.inside = 0;
    for (int v = 0; v < 3; ++v) tile.column[v] = offsets_[reversed ? 2 - v : v];
    for (int u = 0; u < R + 2; ++u)
      if (inside(h.first + top + u * h.dilation, p_.read_size[0]))
        tile.inside |= uint64_t(7) << 3 * u;
    tile.written = plane + (region.h.begin + top) * p_.written_strides[2] + region.w.begin;
    tile.written_row = h.dilation * p_.written_strides[2];
    tile.written_column = 0;
    if (tile.inside == all_inside<R, 1>())
      square_tile<R, true, false>(tile, weights, start, region.w.count);
    else
      square_tile<R, true, true>(tile, weights, start, region.w.count);
  }

  void gather_row(const Region& region, int64_t i, T start) {
    const int64_t vectors = (region.w.count + kLanes<T> - 1) / kLanes<T>;
    int64_t v = 0;
    for (; v + 4 <= vectors; v += 4) gather_vectors<4>(region, i, v * kLanes<T>, start);
    for (; v + 2 <= vectors; v += 2) gather_vectors<2>(region, i, v * kLanes<T>, start);
    for (; v < vectors; ++v) gather_vectors<1>(region, i, v * kLanes<T>, start);
  }

  template <int V>
  void gather_vectors(const Region& region, int64_t i, int64_t j, T start) {
    const int64_t taps = region.w.tap_count;
    const bool reversed = taps > 1 && region.w.taps[1].origin < region.w.taps[0].origin;
    Vector<T> total[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) total[v] = Vector<T>{} + start;
    for (int64_t a = 0; a < region.h.tap_count; ++a) {
      const int64_t row = region.h.taps[a].origin + i * region.h.read_step;
      if (row < 0 || row >= p_.read_size[0]) continue;
      const T* from = read_ + row * pitch_ + j;
      const T* weights = weights_ + region.h.taps[a].kernel * p_.kernel[1];
      // In the order of the columns, as the other forms add.
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t b = reversed ? taps - 1 - t : t;
        const T weight = weights[region.w.taps[b].kernel];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) total[v] += load(from + offsets_[b] + v * kLanes<T>) * weight;
      }
    }
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) store(written_ + j + v * kLanes<T>, total[v]);
  }

  const DepthwisePlan& p_;
  int64_t step_, pitch_, written_pitch_, bytes_;
  T* read_;
  T* written_;
  T* weights_ = nullptr;
  T* sums_ = nullptr;  // a vector for each tap
  int64_t* offsets_;
};
