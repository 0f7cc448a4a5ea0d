// The depthwise kernel's tasks: channels' planes, or rows of pixels.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class S, class T>
class Depthwise {
 public:
  Depthwise(const DepthwisePlan& plan, const void* read, const void* weight, const void* bias,
            void* written, void* workspace)
      : p_(plan),
        pixels_(plan),
        read_(static_cast<const S*>(read)),
        weight_(static_cast<const S*>(weight)),
        bias_(static_cast<const S*>(bias)),
        written_(static_cast<S*>(written)),
        workspace_(static_cast<char*>(workspace)),
        worker_bytes_(plan.channels_last ? 0 : round_up(Planes<S, T>(plan, nullptr).bytes(), 64)) {}

  size_t workspace_bytes(int workers) const {
    const int64_t packed = p_.kernel[0] * p_.kernel[1] * p_.channels * int64_t(sizeof(T));
    return size_t(p_.channels_last ? packed : workers * worker_bytes_);
  }

  void gather(const TaskPool& pool) {
    if (!p_.channels_last) {
      pool.run(
          pool, p_.batch * p_.channels,
          [](void* self, int64_t index, int worker) {
            static_cast<Depthwise*>(self)->gather_plane(index, worker);
          },
          this);
      return;
    }
    pixels_.pack_weights(weight_, reinterpret_cast<T*>(workspace_));
    rows_ = 0;
    for (int64_t r = 0; r < p_.region_count; ++r) rows_ += p_.regions[r].h.count;
    pool.run(
        pool, p_.batch * rows_,
        [](void* self, int64_t index, int) { static_cast<Depthwise*>(self)->gather_row(index); },
        this);
  }

  // x, y, w in the places of read, weight, written.
  void weight_gradient(const TaskPool& pool) {
    const int64_t tasks =
        p_.channels_last ? p_.kernel[0] * channel_groups<T>(p_.channels) : p_.channels;
    pool.run(
        pool, tasks,
        [](void* self, int64_t index, int worker) {
          static_cast<Depthwise*>(self)->weight_task(index, worker);
        },
        this);
  }

 private:
  void gather_plane(int64_t index, int worker) const {
    Planes<S, T> planes(p_, workspace_ + worker * worker_bytes_);
    planes.gather_plane(index / p_.channels, index % p_.channels, read_, weight_, bias_, written_);
  }

  void gather_row(int64_t index) const {
    int64_t row = index % rows_;
    const Region* region = p_.regions;
    while (row >= region->h.count) row -= region++->h.count;
    pixels_.gather_row(*region, index / rows_, row, read_, reinterpret_cast<const T*>(workspace_),
                       bias_, written_);
  }

  void weight_task(int64_t index, int worker) const {
    if (p_.channels_last) {
      pixels_.weight_row(index % p_.kernel[0], index / p_.kernel[0], read_, weight_, written_);
      return;
    }
    Planes<S, T> planes(p_, workspace_ + worker * worker_bytes_);
    planes.weight_channel(index, read_, weight_, written_);
  }

  const DepthwisePlan& p_;
  Pixels<S, T> pixels_;
  const S* read_;
  const S* weight_;
  const S* bias_;
  S* written_;
  char* workspace_;
  int64_t worker_bytes_;
  int64_t rows_ = 0;  // of all regions
};

template <class S, class T>
size_t depthwise_workspace(const DepthwisePlan& plan, int workers) {
  return Depthwise<S, T>(plan, nullptr, nullptr, nullptr, nullptr, nullptr)
      .workspace_bytes(workers);
}

template <class S, class T>
void run_depthwise_gather(const DepthwisePlan& plan, const void* read, const void* weight,
                          const void* bias, void* written, void* workspace, const TaskPool& pool) {
  Depthwise<S, T>(plan, read, weight, bias, written, workspace).gather(pool);
}

template <class S, class T>
void run_depthwise_weight(const DepthwisePlan& plan, const void* x, const void* y, void* w,
                          void* workspace, const TaskPool& pool) {
  Depthwise<S, T>(plan, x, y, nullptr, w, workspace).weight_gradient(pool);
}
