// Vectors of the instruction set, and small tools that every kernel uses.
//
// Included inside an instruction set's anonymous namespace; see kernels.inc.

template <class T>
struct VectorOf {
  typedef T Type __attribute__((vector_size(kVectorBytes)));
};

template <class T>
using Vector = typename VectorOf<T>::Type;

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

template <class T>
inline Vector<T> load(const T* from) {
  Vector<T> value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
inline void store(T* to, Vector<T> value) {
  __builtin_memcpy(to, &value, sizeof value);
}

// A value that stays in its register: compilers like to read memory again for each use instead.
// Twins' vectors are wider than this machine's registers.
template <class V>
inline V in_register(V value) {
#if defined(DILCONV_TWINS)
#elif defined(DILCONV_AVX512)
  __asm__("" : "+v"(value));
#elif defined(__x86_64__)
  __asm__("" : "+x"(value));
#elif defined(__aarch64__)
  __asm__("" : "+w"(value));
#endif
  return value;
}

// A pointer that the compiler computes for itself, and not from another one: chains of additions of
// a step take as long as the multiply-adds that they feed.
template <class P>
inline P* separate(P* pointer) {
#if defined(__GNUC__)
  __asm__("" : "+r"(pointer));
#endif
  return pointer;
}

// `total` things cut into the fewest parts of at most `largest`, as even as they come.
struct Cut {
  int64_t total, parts;
  Cut(int64_t count, int64_t largest) : total(count), parts((count + largest - 1) / largest) {}
  int64_t begin(int64_t part) const { return total * part / parts; }
  int64_t size(int64_t part) const { return begin(part + 1) - begin(part); }
  int64_t largest() const { return parts == 0 ? 0 : (total + parts - 1) / parts; }
};

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// Hands out consecutive pieces of a workspace, each aligned to a cache line; counts bytes when
// there is none.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(base_ + used_);
    used_ += round_up(count * int64_t(sizeof(T)), 64);
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};
