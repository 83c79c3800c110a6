// Selection and codec of joulewise: one file, a plain C ABI, called through numpy.ctypeslib.
//
// The same algorithms are written in NumPy beside it (prefix.py, codec.py): they are the fallback where this file was
// not built, and the oracle that it is tested against, to the last bit. So nothing here may depend on the order in
// which threads run, on contracted multiply-adds, or on the width of vectors.

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define JOULEWISE_AVX2 1
#include <immintrin.h>
#else
#define JOULEWISE_AVX2 0
#endif
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(_WIN32)
#define JOULEWISE_EXPORT extern "C" __declspec(dllexport)
#else
#define JOULEWISE_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Raised with every change of a signature below: a library of another number is not used.
JOULEWISE_EXPORT std::int32_t joulewise_kernel_abi() { return 4; }

// ---------------------------------------------------------------------------------------------------------- selection
//
// Coordinate i of tensor g scores |a_i| * w_g in float64; the longest prefix of the order of falling score, ties to the
// lower index, whose integer costs fit a limit is kept. Nothing of the length of the vector is stored:
//
//   1. a sample brackets the score at which the limit is used up;
//   2. one pass over the vector sums squares (where NaN and infinity show), adds the residual, writes all that reaches
//      the bracket to where the result belongs, and notes what lies inside it;
//   3. the threshold is found exactly among what lies inside;
//   4. what does not reach it is taken out of the result again.
//
// A bracket that misses is followed by a wider one: the sample decides the speed, never the result. Then, and where a
// bracket holds so much that it would be written in vain, the result is written in a second pass over the vector.

namespace {

enum Status : std::int32_t {
    kDone = 0,
    kNotFinite = 1,
    kSumNotFinite = 2,
    kNoMemory = 3,
    kTooLong = 4,
    kMoreRoom = 5,  // the arrays are too short; come again with longer ones
};

// For tests alone: paths that depend on the processor, the length or luck, forced.
enum Flag : std::int32_t {
    kPortable = 1,
    kTinySample = 2,    // of 64 places, on vectors of any length
    kHighBracket = 4,   // the sampled bracket lies above the threshold
    kLowBracket = 8,    // ... below it
    kTwoPasses = 16,    // write from the vector
    kOnePass = 32,      // write what was found while it is looked for
    kStreamed = 64,     // write the sum past the caches
    kLittleRoom = 128,  // as if the sample had promised next to nothing
};

constexpr std::int64_t kChunk = 1 << 16;  // as in ranking.py: squares are summed by segments of this length,
constexpr std::int64_t kLanes = 1 << 11;  // in so many lanes
constexpr std::int64_t kWords = kLanes / 64;
constexpr std::int64_t kSamples = 1 << 15;
constexpr std::int64_t kShort = 1 << 13;   // vectors up to this length are not worth a sample
constexpr std::int64_t kStream = 1 << 21;  // sums from this length on would push one another out of the caches
constexpr double kDeviations = 3.5;
constexpr int kBinShift = 47;  // 11 bits of exponent and 5 of mantissa: a bin is 3 % wide
constexpr std::int64_t kBins = 1 << 16;
constexpr int kRadixBits = 10;
constexpr double kSmallest = std::numeric_limits<double>::denorm_min();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Order {
    const float* update;
    const float* residual;  // may be null
    float factor;           // on the residual
    std::int64_t n;
    const std::int64_t* edges;
    std::int64_t tensors;
    const double* weights;
    bool weight_each;  // one per coordinate, not per tensor
    bool random;
    std::uint64_t key;
    const std::int64_t* quanta;
    bool quanta_each;

    bool by_threshold() const { return !random && !weight_each; }
};

// The order of these sums is that of compress.py: adding 0 makes -0.0 plain 0.0, before and after the residual decays.
inline float carried_at(const Order& order, std::int64_t i) {
    float sum = order.update[i] + 0.0f;
    return order.residual ? sum + order.residual[i] * order.factor : sum;
}

inline std::uint64_t bits_of(double score) {
    std::uint64_t bits;
    std::memcpy(&bits, &score, sizeof bits);
    return bits;
}

inline double from_bits(std::uint64_t bits) {
    double score;
    std::memcpy(&score, &bits, sizeof score);
    return score;
}

inline int lowest_bit(std::uint64_t word) {
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long place;
    _BitScanForward64(&place, word);
    return static_cast<int>(place);
#else
    return __builtin_ctzll(word);
#endif
}

inline int bit_count(std::uint64_t word) {
    word -= (word >> 1) & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + ((word >> 2) & 0x3333333333333333u);
    return static_cast<int>((((word + (word >> 4)) & 0x0F0F0F0F0F0F0F0Fu) * 0x0101010101010101u) >> 56);
}

int bit_length(std::uint64_t number) {
    int length = 0;
    for (; number; number >>= 1) ++length;
    return length;
}

// The counter form of splitmix64 (Steele, Lea and Flood, 2014), top 53 bits, in (0, 1].
inline double priority(std::uint64_t key, std::uint64_t index) {
    std::uint64_t z = index + key + 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
    return static_cast<double>(static_cast<std::int64_t>(z >> 11)) * 0x1p-53 + 0x1p-53;
}

inline double score_of(const Order& order, std::int64_t tensor, std::int64_t i, float value) {
    double weight = order.weights[order.weight_each ? i : tensor];
    if (!order.random) return std::fabs(static_cast<double>(value)) * weight;
    return value != 0.0f && weight > 0 ? priority(order.key, static_cast<std::uint64_t>(i)) : 0.0;
}

inline std::int64_t cost_of(const Order& order, std::int64_t tensor, std::int64_t i) {
    return order.quanta[order.quanta_each ? i : tensor];
}

// ----------------------------------------------------------------------------------------------- thresholds in float32

inline bool reaches(float magnitude, double weight, double lo) { return static_cast<double>(magnitude) * weight >= lo; }

float bisected(double weight, double lo) {
    std::uint32_t below = 0, at = 0x7F800000u;  // bits of zero, which never reaches, and of infinity, which does
    while (at - below > 1) {
        std::uint32_t middle = below + (at - below) / 2;
        float t;
        std::memcpy(&t, &middle, sizeof t);
        (reaches(t, weight, lo) ? at : below) = middle;
    }
    float t;
    std::memcpy(&t, &at, sizeof t);
    return t;
}

// The smallest positive float32 t with t * weight >= lo; infinity where none is.
float float32_threshold(double weight, double lo) {
    if (!(weight > 0) || lo == kInfinity) return std::numeric_limits<float>::infinity();
    double quotient = lo / weight;
    if (quotient < 1e-30 || quotient > 1e38 || lo < 1e-250) return bisected(weight, lo);
    float t = static_cast<float>(quotient);
    for (int step = 0; step < 4; ++step) {
        float lower = std::nextafterf(t, 0.0f);
        if (!reaches(t, weight, lo)) {
            t = std::nextafterf(t, std::numeric_limits<float>::infinity());
        } else if (reaches(lower, weight, lo)) {
            t = lower;
        } else {
            return t;
        }
    }
    return bisected(weight, lo);
}

// A least score, and, where a compare of |a| with one number per tensor tests it, those numbers.
struct Test {
    double least;
    std::vector<float> thresholds;

    Test(const Order& order, double score) : least(score) {
        if (!order.by_threshold()) return;
        thresholds.resize(static_cast<std::size_t>(order.tensors));
        for (std::int64_t g = 0; g < order.tensors; ++g) {
            bool same = g && order.weights[g] == order.weights[g - 1];
            thresholds[g] = same ? thresholds[g - 1] : float32_threshold(order.weights[g], score);
        }
    }
};

// -------------------------------------------------------------------------------------- rows: one bit for each element

// What one row of at most kLanes elements takes and gives; element j goes to lane j.
struct Row {
    const float* update;
    const float* residual;
    float factor;
    float* carried;  // null: do not write
    float* lanes;    // null: no squares
    std::int64_t count;
};

inline float row_value(const Row& row, std::int64_t j) {
    if (!row.carried) return row.update[j];
    float sum = row.update[j] + 0.0f;
    if (row.residual) sum += row.residual[j] * row.factor;
    row.carried[j] = sum;
    return sum;
}

// Adds squares, writes the sum, and marks magnitudes that reach the threshold: from element `first` on, which begins a
// word.
void finish_row(const Row& row, float threshold, std::int64_t first, std::uint64_t* words) {
    for (std::int64_t begin = first; begin < row.count; begin += 64) {
        std::int64_t end = std::min(begin + 64, row.count);
        std::uint64_t word = 0;
        for (std::int64_t j = begin; j < end; ++j) {
            float value = row_value(row, j);
            if (row.lanes) row.lanes[j] += value * value;
            word |= static_cast<std::uint64_t>(std::fabs(value) >= threshold) << (j - begin);
        }
        words[begin / 64] = word;
    }
}

// Eight bytes that are 0 or 1 as eight bits.
inline std::uint64_t gather_bits(const std::uint8_t* bytes) {
    std::uint64_t bits = 0;
    for (int j = 0; j < 8; ++j) bits |= static_cast<std::uint64_t>(bytes[j]) << (8 * j);
    return (bits * 0x0102040810204080u) >> 56;
}

// Written in loops that compilers turn into vectors of any width.
void row_portable(const Row& row, float threshold, std::uint64_t* words) {
    std::int64_t whole = row.count - row.count % 64;
    for (std::int64_t begin = 0; begin < whole; begin += 64) {
        const float* x = row.update + begin;
        if (row.carried) {
            float* sum = row.carried + begin;
            for (int j = 0; j < 64; ++j) sum[j] = x[j] + 0.0f;
            if (row.residual) {
                const float* residual = row.residual + begin;
                for (int j = 0; j < 64; ++j) sum[j] += residual[j] * row.factor;
            }
            x = sum;
        }
        if (row.lanes) {
            float* lanes = row.lanes + begin;
            for (int j = 0; j < 64; ++j) lanes[j] += x[j] * x[j];
        }
        std::uint32_t hits[64], any = 0;
        for (int j = 0; j < 64; ++j) {
            hits[j] = std::fabs(x[j]) >= threshold;
            any |= hits[j];
        }
        words[begin / 64] = 0;
        if (!any) continue;
        std::uint8_t bytes[64];
        for (int j = 0; j < 64; ++j) bytes[j] = static_cast<std::uint8_t>(hits[j]);
        for (int j = 0; j < 8; ++j) words[begin / 64] |= gather_bits(bytes + 8 * j) << (8 * j);
    }
    finish_row(row, threshold, whole, words);
}

inline void prefetch(const void* place) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(place);
#else
    static_cast<void>(place);
#endif
}

#if JOULEWISE_AVX2

// A line of memory holds 16 elements: while one row is marked and its entries are written, the next is on its way.
inline void ask_for_next(const Row& row, std::int64_t begin) {
    for (std::int64_t line = begin + kLanes; line < begin + kLanes + 64; line += 16) {
        prefetch(row.update + line);
        if (row.residual) prefetch(row.residual + line);
    }
}

// A row by value: what is stored through one of its pointers might else change the others.
template <bool kCarry, bool kSquares>
__attribute__((target("avx2"))) void whole_words_avx2(const Row row, float threshold, std::uint64_t* words) {
    const __m256 least = _mm256_set1_ps(threshold), factor = _mm256_set1_ps(row.factor);
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    for (std::int64_t begin = 0; begin + 64 <= row.count; begin += 64) {
        ask_for_next(row, begin);
        std::uint64_t word = 0;
        for (std::int64_t at = begin; at < begin + 64; at += 8) {
            __m256 x = _mm256_loadu_ps(row.update + at);
            if (kCarry) {
                x = _mm256_add_ps(x, _mm256_setzero_ps());
                if (row.residual) x = _mm256_add_ps(x, _mm256_mul_ps(_mm256_loadu_ps(row.residual + at), factor));
                _mm256_storeu_ps(row.carried + at, x);
            }
            if (kSquares) {
                __m256 lane = _mm256_loadu_ps(row.lanes + at);
                _mm256_storeu_ps(row.lanes + at, _mm256_add_ps(lane, _mm256_mul_ps(x, x)));
            }
            __m256 hit = _mm256_cmp_ps(_mm256_and_ps(x, magnitude), least, _CMP_GE_OQ);
            word |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm256_movemask_ps(hit))) << (at - begin);
        }
        words[begin / 64] = word;
    }
}

void row_avx2(const Row& row, float threshold, std::uint64_t* words) {
    if (row.carried) {
        whole_words_avx2<true, true>(row, threshold, words);
    } else if (row.lanes) {
        whole_words_avx2<false, true>(row, threshold, words);
    } else {
        whole_words_avx2<false, false>(row, threshold, words);
    }
    finish_row(row, threshold, row.count - row.count % 64, words);
}

// Every processor with AVX2 has the other two, unless a virtual machine hides them.
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("popcnt");
}

#else

void row_avx2(const Row& row, float threshold, std::uint64_t* words) { row_portable(row, threshold, words); }

bool has_avx2() { return false; }

#endif

// Marks scores that are no compare of a magnitude with a number per tensor.
void mark_scores(const Order& order, std::int64_t tensor, std::int64_t start, const float* x, std::int64_t count,
                 double least, std::uint64_t* words) {
    for (std::int64_t begin = 0; begin < count; begin += 64) {
        std::int64_t end = std::min(begin + 64, count);
        std::uint64_t word = 0;
        for (std::int64_t j = begin; j < end; ++j) {
            bool hit = score_of(order, tensor, start + j, x[j]) >= least;
            word |= static_cast<std::uint64_t>(hit) << (j - begin);
        }
        words[begin / 64] = word;
    }
}

#if JOULEWISE_AVX2

// Copies past the caches, from where a core has them to where nobody looks soon.
__attribute__((target("avx2"))) void stream(const float* from, std::int64_t count, float* to) {
    std::int64_t at = 0;
    for (; at < count && (reinterpret_cast<std::uintptr_t>(to + at) & 31); ++at) to[at] = from[at];
    for (; at + 8 <= count; at += 8) _mm256_stream_ps(to + at, _mm256_loadu_ps(from + at));
    for (; at < count; ++at) to[at] = from[at];
}

void finish_streams() { _mm_sfence(); }

#else

void stream(const float* from, std::int64_t count, float* to) { std::copy(from, from + count, to); }

void finish_streams() {}

#endif

struct Scanner {
    const Order& order;
    bool portable;

    bool streams(std::int64_t n, std::int32_t flags) const { return !portable && (n >= kStream || flags & kStreamed); }

    // Marks the elements of one row that pass the test; squares and the carried sum are made on the way, if asked for.
    void mark(const Row& row, std::int64_t tensor, std::int64_t start, const Test& test, std::uint64_t* words) const {
        bool simple = order.by_threshold();
        float threshold = simple ? test.thresholds[tensor] : std::numeric_limits<float>::infinity();
        if (simple || row.carried || row.lanes) (portable ? row_portable : row_avx2)(row, threshold, words);
        if (simple) return;
        const float* x = row.carried ? row.carried : row.update;
        mark_scores(order, tensor, start, x, row.count, test.least, words);
    }
};

// ----------------------------------------------------------------------------------------------------- sums of squares

// Lanes of 64, then of 8, then one after another, as ranking.sum_of_squares adds them.
template <typename Number>
double folded(Number* lanes, std::int64_t used) {
    for (std::int64_t row = 64; row < used; row += 64) {
        for (std::int64_t j = 0; j < 64; ++j) lanes[j] += lanes[row + j];
    }
    for (std::int64_t row = 8; row < 64; row += 8) {
        for (std::int64_t j = 0; j < 8; ++j) lanes[j] += lanes[row + j];
    }
    double total = 0;
    for (std::int64_t j = 0; j < 8; ++j) total += static_cast<double>(lanes[j]);
    return total;
}

bool all_zero(const float* x, std::int64_t count) {
    std::uint32_t any = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        std::uint32_t bits;
        std::memcpy(&bits, x + i, sizeof bits);
        any |= bits & 0x7FFFFFFFu;
    }
    return any == 0;
}

// In float64, for numbers whose squares are too small or too large for float32; NaN or infinity comes out as such.
double squares_in_double(const float* x, std::int64_t count) {
    if (all_zero(x, count)) return 0.0;
    alignas(64) double lanes[kLanes] = {};
    for (std::int64_t begin = 0; begin < count; begin += kLanes) {
        std::int64_t length = std::min(kLanes, count - begin);
        for (std::int64_t j = 0; j < length; ++j) {
            double value = x[begin + j];
            lanes[j] += value * value;
        }
    }
    return folded(lanes, std::min(count + 63, kLanes));
}

// -------------------------------------------------------------------------------------------------------------- memory

// Large blocks in huge pages, where the system has them: the first touch of a page is dearer than all that is done
// there.
void* allocated(std::size_t bytes) {
#if defined(__linux__)
    constexpr std::size_t kHugePage = std::size_t{1} << 21;
    if (bytes >= kHugePage) {
        void* found = std::aligned_alloc(kHugePage, (bytes + kHugePage - 1) / kHugePage * kHugePage);
        if (found) madvise(found, bytes, MADV_HUGEPAGE);
        return found;
    }
#endif
    return std::malloc(bytes);
}

// Indices of elements, ascending, and their values.
struct Entries {
    std::uint32_t* indices = nullptr;
    float* values = nullptr;

    Entries from(std::int64_t at) const { return {indices + at, values + at}; }
};

// Room for entries. More is kept free than a row can write, so that it is looked at once for each.
struct Sink {
    static constexpr std::int64_t kSpare = kLanes + 64;
    Entries begin;
    std::int64_t room = 0, size = 0;

    bool has_room() const { return size + kSpare <= room; }
    Entries end() const { return begin.from(size); }
};

// A sink with memory of its own.
class OwnSink : public Sink {
  public:
    bool reserve(std::int64_t count) {
        *this = OwnSink();
        memory_.reset(allocated(static_cast<std::size_t>(count + kSpare) * (sizeof(std::uint32_t) + sizeof(float))));
        if (!memory_) return false;
        room = count + kSpare;
        begin.indices = static_cast<std::uint32_t*>(memory_.get());
        begin.values = reinterpret_cast<float*>(begin.indices + room);
        return true;
    }

  private:
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    std::unique_ptr<void, Free> memory_;
};

// ---------------------------------------------------------------------------------------------- entries out of
// elements

inline void put(Entries into, std::int64_t at, std::int64_t index, float value) {
    into.indices[at] = static_cast<std::uint32_t>(index);
    into.values[at] = value;
}

// Writes the marked elements of a word; returns where the next go.
inline std::int64_t put_bits(Entries into, std::int64_t at, std::int64_t start, const float* x, std::uint64_t word) {
    for (; word; word &= word - 1) {
        int place = lowest_bit(word);
        put(into, at++, start + place, x[place]);
    }
    return at;
}

std::int64_t put_words_portable(Entries into, std::int64_t at, std::int64_t start, const float* x,
                                const std::uint64_t* words, std::int64_t count) {
    for (std::int64_t w = 0; w < count; ++w) at = put_bits(into, at, start + 64 * w, x + 64 * w, words[w]);
    return at;
}

// Those entries that `passes(index, value)`, in their order; `into` may be where they come from. Returns their number.
template <typename Passes>
std::int64_t filtered(Entries from, std::int64_t count, Entries into, const Passes& passes) {
    std::int64_t at = 0;
    for (std::int64_t j = 0; j < count; ++j) {
        std::uint32_t index = from.indices[j];
        float value = from.values[j];
        put(into, at, index, value);  // What does not pass is overwritten by the next.
        at += passes(index, value);
    }
    return at;
}

// Those whose magnitude reaches the threshold, or those whose does not.
template <bool kReach>
std::int64_t filtered_portable(Entries from, std::int64_t count, Entries into, float threshold) {
    return filtered(from, count, into,
                    [=](std::uint32_t, float value) { return (std::fabs(value) >= threshold) == kReach; });
}

#if JOULEWISE_AVX2

// For each byte the places of its bits, in order.
struct Places {
    std::uint64_t of[256];
    constexpr Places() : of() {
        for (int byte = 0; byte < 256; ++byte) {
            int found = 0;
            for (int bit = 0; bit < 8; ++bit) {
                if (byte >> bit & 1) of[byte] |= static_cast<std::uint64_t>(bit) << (8 * found++);
            }
        }
    }
};
constexpr Places kPlaces;

#define JOULEWISE_TARGET __attribute__((target("avx2,bmi,popcnt")))

// Eight entries at once, of which the next store overwrites those that are not marked. Returns how many are.
JOULEWISE_TARGET inline std::int64_t put_eight(Entries into, std::int64_t at, __m256i indices, __m256 values,
                                               std::uint32_t marks) {
    __m256i places = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(kPlaces.of[marks])));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(into.indices + at), _mm256_permutevar8x32_epi32(indices, places));
    _mm256_storeu_ps(into.values + at, _mm256_permutevar8x32_ps(values, places));
    return __builtin_popcount(marks);
}

JOULEWISE_TARGET inline std::int64_t put_dense(Entries into, std::int64_t at, std::int64_t start, const float* x,
                                               std::uint64_t word) {
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int part = 0; part < 64; part += 8) {
        __m256i first = _mm256_set1_epi32(static_cast<int>(static_cast<std::uint32_t>(start + part)));
        auto marks = static_cast<std::uint32_t>(word >> part & 0xFF);
        at += put_eight(into, at, _mm256_add_epi32(first, lanes), _mm256_loadu_ps(x + part), marks);
    }
    return at;
}

// Four at once, whether there are four or none: a branch on their number would be guessed wrong.
JOULEWISE_TARGET inline std::uint64_t put_four(Entries into, std::int64_t at, std::int64_t start, const float* x,
                                               std::uint64_t word) {
    for (int j = 0; j < 4; ++j, word &= word - 1) {
        auto place = static_cast<std::int64_t>(_tzcnt_u64(word)) & 63;
        put(into, at + j, start + place, x[place]);
    }
    return word;
}

JOULEWISE_TARGET std::int64_t put_words_avx2(Entries into, std::int64_t at, std::int64_t start, const float* x,
                                             const std::uint64_t* words, std::int64_t count) {
    for (std::int64_t w = 0; w < count; ++w, start += 64, x += 64) {
        std::int64_t marked = _mm_popcnt_u64(words[w]);
        if (marked > 8) {
            at = put_dense(into, at, start, x, words[w]);
            continue;
        }
        std::uint64_t rest = put_four(into, at, start, x, words[w]);
        if (marked > 4) put_four(into, at + 4, start, x, rest);
        at += marked;
    }
    return at;
}

template <bool kReach>
JOULEWISE_TARGET std::int64_t filtered_avx2(Entries from, std::int64_t count, Entries into, float threshold) {
    const __m256 least = _mm256_set1_ps(threshold);
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    std::int64_t at = 0, j = 0;
    for (; j + 8 <= count; j += 8) {
        __m256i indices = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from.indices + j));
        __m256 values = _mm256_loadu_ps(from.values + j);
        __m256 hit = _mm256_cmp_ps(_mm256_and_ps(values, magnitude), least, _CMP_GE_OQ);
        auto marks = static_cast<std::uint32_t>(_mm256_movemask_ps(hit)) ^ (kReach ? 0u : 0xFFu);
        at += put_eight(into, at, indices, values, marks);
    }
    return at + filtered_portable<kReach>(from.from(j), count - j, into.from(at), threshold);
}

#else

std::int64_t put_words_avx2(Entries into, std::int64_t at, std::int64_t start, const float* x,
                            const std::uint64_t* words, std::int64_t count) {
    return put_words_portable(into, at, start, x, words, count);
}

template <bool kReach>
std::int64_t filtered_avx2(Entries from, std::int64_t count, Entries into, float threshold) {
    return filtered_portable<kReach>(from, count, into, threshold);
}

#endif

// Entries of the elements of a row that are marked. Past them, what an entry more would take may be overwritten: room
// for a row of marks, and a word.
std::int64_t put_row(bool portable, Entries into, std::int64_t start, const float* x, const std::uint64_t* words,
                     std::int64_t count) {
    std::int64_t whole = count / 64;
    std::int64_t at = (portable ? put_words_portable : put_words_avx2)(into, 0, start, x, words, whole);
    return count % 64 ? put_bits(into, at, start + 64 * whole, x + 64 * whole, words[whole]) : at;
}

// ------------------------------------------------------------------------------------------------------------- workers

struct Segment {
    std::int64_t tensor, start, stop;
};

std::vector<Segment> segments_of(const Order& order) {
    std::vector<Segment> segments;
    for (std::int64_t g = 0; g < order.tensors; ++g) {
        for (std::int64_t start = order.edges[g]; start < order.edges[g + 1]; start += kChunk) {
            segments.push_back({g, start, std::min(start + kChunk, order.edges[g + 1])});
        }
    }
    return segments;
}

// What one segment adds up to: what reaches the upper end of the bracket is sure, the rest of what was found lies
// inside.
struct Tally {
    double squares = 0;
    std::int64_t sure = 0, sure_cost = 0, inside = 0, inside_cost = 0;
};

struct Worker {
    std::size_t first = 0, last = 0;  // segments
    std::int64_t elements = 0;
    Sink found;      // all that reaches the bracket, where the result goes
    OwnSink inside;  // the bracket
    bool not_finite = false, overflow = false;
};

std::vector<Worker> workers_for(const std::vector<Segment>& segments, std::int64_t n, std::int32_t threads) {
    std::int64_t most = std::min<std::int64_t>(std::max(threads, 1), std::max<std::int64_t>(n / kChunk, 1));
    std::vector<Worker> workers(static_cast<std::size_t>(most));
    std::size_t at = 0;
    for (std::int64_t w = 0; w < most; ++w) {
        Worker& worker = workers[static_cast<std::size_t>(w)];
        worker.first = at;
        for (; at < segments.size() && (w + 1 == most || segments[at].start < n * (w + 1) / most); ++at) {
            worker.elements += segments[at].stop - segments[at].start;
        }
        worker.last = at;
    }
    return workers;
}

// Runs `work` for each worker, the first in this thread. It may not throw: where memory is short, the C++ library finds
// none for a new thread's first exception, and ends the process.
template <typename Work>
void run_all(std::vector<Worker>& workers, const Work& work) {
    static_assert(noexcept(work(workers[0])));
    std::vector<std::thread> threads;
    std::size_t started = 1;
    try {
        threads.reserve(workers.size());
        for (; started < workers.size(); ++started) threads.emplace_back(work, std::ref(workers[started]));
    } catch (const std::exception&) {
        // No more threads, or no memory for one: this one does the rest.
    }
    work(workers[0]);
    for (std::size_t w = started; w < workers.size(); ++w) work(workers[w]);
    for (std::thread& thread : threads) thread.join();
}

// ------------------------------------------------------------------------------------------------------------ brackets

struct Bracket {
    double lo, hi;
    bool tied;            // one score: what lies inside is counted, and not stored
    std::int64_t found;   // how many elements it may find at most: those that reach it,
    std::int64_t inside;  // and those inside it
};

struct Bin {
    double cost = 0, square = 0, dearest = 0;
    std::int64_t count = 0;
};

// Bins of 32 to the octave, from 2^-191 (or what is less) to 2^129: costs, their squares and numbers of samples.
struct Bins {
    static constexpr int kShift = 52 - 5;
    static constexpr std::uint64_t kFirst = static_cast<std::uint64_t>(1023 - 191) << 5;
    static constexpr std::size_t kCount = 320 << 5;
    std::vector<Bin> bins = std::vector<Bin>(kCount);
    std::size_t top = 0;  // nothing from here on

    static std::size_t of(std::uint64_t key) {
        std::uint64_t bin = std::max(key >> kShift, kFirst) - kFirst;
        return static_cast<std::size_t>(std::min<std::uint64_t>(bin, kCount - 1));
    }
    static double edge(std::size_t bin) { return bin ? from_bits((kFirst + bin) << kShift) : kSmallest; }

    void add(std::uint64_t key, double cost) {
        std::size_t at = of(key);
        Bin& bin = bins[at];
        bin.cost += cost;
        bin.square += cost * cost;
        bin.dearest = std::max(bin.dearest, cost);
        bin.count += 1;
        top = std::max(top, at + 1);
    }
    std::int64_t above(double score) const {
        std::int64_t count = 0;
        for (std::size_t bin = score < kInfinity ? of(bits_of(score)) : top; bin < top; ++bin) count += bins[bin].count;
        return count;
    }
};

// One place in each stride, jittered by multiples of the golden ratio modulo one: no period of the data is met.
inline std::int64_t sample_place(std::uint64_t s, std::uint64_t stride) {
    return static_cast<std::int64_t>(s * stride + (((s * 0x9E3779B9u & 0xFFFFFFFFu) * stride) >> 32));
}

// Calls `each(key, cost)` for scores above zero at `count` places.
template <typename Each>
void sample(const Order& order, std::int64_t count, const Each& each) {
    std::uint64_t stride = static_cast<std::uint64_t>(order.n / count), ahead = 64;
    std::int64_t tensor = 0;
    for (std::uint64_t s = 0; s < static_cast<std::uint64_t>(count); ++s) {
        // Each place is on a page of its own: without asking early, each would be waited for.
        std::int64_t later = std::min(sample_place(s + ahead, stride), order.n - 1);
        prefetch(order.update + later);
        if (order.residual) prefetch(order.residual + later);
        std::int64_t i = sample_place(s, stride);
        while (order.edges[tensor + 1] <= i) ++tensor;
        double score = score_of(order, tensor, i, carried_at(order, i));
        if (score > 0 && score < kInfinity) each(bits_of(score), cost_of(order, tensor, i));
    }
}

// Three and a half standard deviations of the sampled cost, and as many samples more where few were met, on either
// side.
Bracket sampled_bracket(const Bins& sampled, double limit) {
    Bracket found{kSmallest, kInfinity, false, 0, 0};
    double cost = 0, square = 0, dearest = 0;
    for (std::size_t at = sampled.top; at-- > 0;) {
        const Bin& bin = sampled.bins[at];
        if (!bin.count) continue;
        cost += bin.cost;
        square += bin.square;
        dearest = std::max(dearest, bin.dearest);
        double spread = kDeviations * (std::sqrt(square) + dearest);
        if (cost + spread <= limit) found.hi = Bins::edge(at);
        if (cost - spread > limit) {
            found.lo = Bins::edge(at);
            break;
        }
    }
    return found;
}

struct Sampled {
    std::uint64_t key;
    std::int64_t cost;
};

// Where one score fills most of a large bracket, the bracket of that score alone: it needs no storing.
std::optional<Bracket> tie_bracket(const Order& order, std::int64_t count, const Bracket& around, double limit) {
    std::uint64_t lo = bits_of(around.lo), hi = bits_of(around.hi);
    double room = limit, share = static_cast<double>(order.n) / static_cast<double>(count);
    std::vector<Sampled> inside;
    sample(order, count, [&](std::uint64_t key, std::int64_t cost) {
        if (key >= hi)
            room -= static_cast<double>(cost) * share;
        else if (key >= lo)
            inside.push_back({key, cost});
    });
    if (inside.empty()) return std::nullopt;
    std::sort(inside.begin(), inside.end(), [](const Sampled& a, const Sampled& b) { return a.key > b.key; });
    std::size_t at = 0;
    while (at + 1 < inside.size() && (room -= static_cast<double>(inside[at].cost) * share) >= 0) ++at;
    std::uint64_t key = inside[at].key;
    auto same = std::count_if(inside.begin(), inside.end(), [&](const Sampled& one) { return one.key == key; });
    if (2 * static_cast<std::size_t>(same) < inside.size()) return std::nullopt;
    return Bracket{from_bits(key), from_bits(key + 1), true, 0, 0};
}

// How many elements there may be of a kind of which `sampled` in `count` were met: six standard deviations more, and
// what the jitter of the places may be off.
std::int64_t at_most(std::int64_t sampled, std::int64_t count, std::int64_t n) {
    double most = static_cast<double>(sampled) + 6 * std::sqrt(static_cast<double>(sampled)) + 36;
    return std::min(n, static_cast<std::int64_t>(most * static_cast<double>(n) / static_cast<double>(count)));
}

// The brackets to try that need no full pass of their own, the likeliest first.
std::vector<Bracket> first_brackets(const Order& order, std::int64_t limit, std::int32_t flags) {
    bool tiny = flags & kTinySample;
    std::int64_t n = order.n;
    if (!tiny && n <= kShort) return {{kSmallest, kInfinity, false, n, n}};
    std::int64_t count = tiny ? std::min<std::int64_t>(64, n) : std::min(kSamples, n >> 6);
    if (count < 1) return {};
    double share = static_cast<double>(n) / static_cast<double>(count), room = static_cast<double>(limit);
    Bins bins;
    sample(order, count,
           [&](std::uint64_t key, std::int64_t cost) { bins.add(key, static_cast<double>(cost) * share); });
    Bracket bracket = sampled_bracket(bins, room);
    std::int64_t found = bins.above(bracket.lo), inside = found - bins.above(bracket.hi);
    std::vector<Bracket> brackets;
    bool missing = flags & (kHighBracket | kLowBracket);
    if (16 * inside > count && !missing) {
        if (auto tie = tie_bracket(order, count, bracket, room)) brackets.push_back(*tie);
    }
    if (flags & kHighBracket) bracket.lo = 2 * bracket.lo, bracket.hi = kInfinity;
    if (flags & kLowBracket) bracket.hi = std::max(bracket.lo, kSmallest), bracket.lo = kSmallest;
    bracket.found = flags & kLittleRoom ? 0 : at_most(found, count, n);
    bracket.inside = flags & kLittleRoom ? 0 : at_most(inside, count, n);
    brackets.push_back(bracket);
    return brackets;
}

// Whether what reaches the bracket is written to the result at once: unless much would be taken out again.
bool writes_at_once(const Bracket& bracket, std::int64_t n, std::int32_t flags) {
    if (bracket.tied || flags & kTwoPasses) return false;
    return n <= kShort || flags & kOnePass || bracket.inside - n / 16 <= bracket.found - bracket.inside;
}

// --------------------------------------------------------------------------------------------------- the pass over all

std::int64_t cost_of_word(const Order& order, std::int64_t tensor, std::int64_t start, std::uint64_t word) {
    if (!order.quanta_each) return order.quanta[tensor] * bit_count(word);
    std::int64_t cost = 0;
    for (; word; word &= word - 1) cost += order.quanta[start + lowest_bit(word)];
    return cost;
}

std::int64_t cost_of_entries(const Order& order, std::int64_t tensor, Entries entries, std::int64_t count) {
    if (!order.quanta_each) return order.quanta[tensor] * count;
    std::int64_t cost = 0;
    for (std::int64_t j = 0; j < count; ++j) cost += order.quanta[entries.indices[j]];
    return cost;
}

// Entries of one tensor that reach the test, or those that do not.
template <bool kReach>
std::int64_t filtered_by(const Scanner& scanner, std::int64_t tensor, const Test& test, Entries from,
                         std::int64_t count, Entries into) {
    if (scanner.order.by_threshold()) {
        float threshold = test.thresholds[static_cast<std::size_t>(tensor)];
        return (scanner.portable ? filtered_portable<kReach> : filtered_avx2<kReach>)(from, count, into, threshold);
    }
    return filtered(from, count, into, [&](std::uint32_t index, float value) {
        return (score_of(scanner.order, tensor, index, value) >= test.least) == kReach;
    });
}

struct Pass {
    const Order& order;
    Scanner scanner;
    const Test& lo;
    const Test& hi;
    bool tied, at_once;
    float* carried;  // of the whole vector; null when it is written already, or not wanted
    bool streamed;   // write it past the caches
    bool squares;

    // What a row needs besides its elements.
    struct Buffers {
        alignas(64) float lanes[kLanes], sums[kLanes], values[Sink::kSpare];
        std::uint32_t indices[Sink::kSpare];
        std::uint64_t words[kWords];
    };

    // Marks what reaches the bracket; returns the row's elements with the residual added.
    const float* marked(const Segment& segment, std::int64_t start, std::int64_t count, Buffers& buffers) const {
        const float* residual = order.residual ? order.residual + start : nullptr;
        float* sums = !carried ? nullptr : streamed ? buffers.sums : carried + start;
        float* lanes = squares ? buffers.lanes : nullptr;
        Row row{order.update + start, residual, order.factor, sums, lanes, count};
        scanner.mark(row, segment.tensor, start, lo, buffers.words);
        if (carried && streamed) stream(sums, count, carried + start);
        return sums ? sums : row.update;
    }

    // Writes what was found in a row, and notes what of it lies inside the bracket.
    void collect(const Segment& segment, std::int64_t start, std::int64_t count, const float* x, Buffers& buffers,
                 Worker& worker, Tally& tally) const {
        worker.overflow |= (at_once && !worker.found.has_room()) || !worker.inside.has_room();
        if (worker.overflow) return;  // The pass goes on, for the sum and its squares.
        Entries into = at_once ? worker.found.end() : Entries{buffers.indices, buffers.values};
        std::int64_t found = put_row(scanner.portable, into, start, x, buffers.words, count);
        if (at_once) worker.found.size += found;
        Entries kept = worker.inside.end();
        std::int64_t inside = filtered_by<false>(scanner, segment.tensor, hi, into, found, kept);
        worker.inside.size += inside;
        tally.inside += inside;
        tally.sure += found - inside;
        tally.sure_cost +=
            cost_of_entries(order, segment.tensor, into, found) - cost_of_entries(order, segment.tensor, kept, inside);
    }

    void count_ties(const Segment& segment, std::int64_t start, std::int64_t count, const float* x,
                    const std::uint64_t* found, Tally& tally) const {
        std::uint64_t sure[kWords];
        scanner.mark(Row{x, nullptr, 1.0f, nullptr, nullptr, count}, segment.tensor, start, hi, sure);
        for (std::int64_t w = 0; 64 * w < count; ++w) {
            if (!found[w]) continue;
            std::uint64_t inside = found[w] & ~sure[w];
            tally.sure += bit_count(sure[w]);
            tally.inside += bit_count(inside);
            tally.sure_cost += cost_of_word(order, segment.tensor, start + 64 * w, sure[w]);
            tally.inside_cost += cost_of_word(order, segment.tensor, start + 64 * w, inside);
        }
    }

    void segment(const Segment& segment, Worker& worker, Tally& tally) const {
        Buffers buffers;
        std::int64_t count = segment.stop - segment.start, used = std::min((count + 63) / 64 * 64, kLanes);
        if (squares) std::fill(buffers.lanes, buffers.lanes + used, 0.0f);
        tally = Tally{tally.squares, 0, 0, 0, 0};
        for (std::int64_t start = segment.start; start < segment.stop; start += kLanes) {
            std::int64_t length = std::min(kLanes, segment.stop - start);
            const float* x = marked(segment, start, length, buffers);
            if (tied) {
                count_ties(segment, start, length, x, buffers.words, tally);
            } else {
                collect(segment, start, length, x, buffers, worker, tally);
            }
        }
        if (squares) sum_squares(segment, buffers.lanes, used, worker, tally);
    }

    void sum_squares(const Segment& segment, float* lanes, std::int64_t used, Worker& worker, Tally& tally) const {
        tally.squares = folded(lanes, used);
        if (!(tally.squares > 1e-24 && tally.squares < kInfinity)) {
            const float* x = (carried ? carried : order.update) + segment.start;
            tally.squares = squares_in_double(x, segment.stop - segment.start);
        }
        worker.not_finite = !(tally.squares < kInfinity);
    }
};

// --------------------------------------------------------------------------------------- the threshold, found exactly

struct Item {
    std::uint64_t key;  // bits of the score, which order like the score
    std::uint32_t index, tensor;
};

struct Cut {
    std::int64_t room;  // what is left
    std::int64_t kept;
    bool all;  // everything fitted; else `misfit` is the first that did not
    Item misfit;
};

std::int64_t cost_of(const Order& order, const Item& item) { return cost_of(order, item.tensor, item.index); }

// Keeps the longest run of items in their order.
Cut run_of(const Order& order, const std::vector<Item>& items, std::int64_t room, std::int64_t kept) {
    for (const Item& item : items) {
        std::int64_t cost = cost_of(order, item);
        if (cost > room) return {room, kept, false, item};
        room -= cost;
        ++kept;
    }
    return {room, kept, true, {}};
}

// Costs and numbers by bins of keys, the best first.
struct Ladder {
    struct Rung {
        std::int64_t cost = 0, count = 0;
    };
    std::uint64_t best;
    int shift;
    std::vector<Rung> rungs;

    Ladder(std::uint64_t best_key, std::uint64_t worst)
        : best(best_key),
          shift(std::max(0, bit_length(best_key - worst) - kRadixBits)),
          rungs(static_cast<std::size_t>(((best_key - worst) >> shift) + 1)) {}

    std::size_t rung(std::uint64_t key) const { return static_cast<std::size_t>((best - key) >> shift); }
    void add(std::uint64_t key, std::int64_t cost) {
        Rung& one = rungs[rung(key)];
        one.cost += cost;
        ++one.count;
    }
    // Goes down while whole rungs fit; the rung that does not, or their number.
    std::size_t descend(std::int64_t& room, std::int64_t& kept) const {
        std::size_t at = 0;
        for (; at < rungs.size() && rungs[at].cost <= room; ++at) {
            room -= rungs[at].cost;
            kept += rungs[at].count;
        }
        return at;
    }
};

// Items of ascending index: keeps the longest prefix by falling score that costs at most `room`, by cutting the range
// of keys into bins again and again until the bin in which the room is used up is small or of one score.
Cut cut(const Order& order, std::vector<Item> items, std::int64_t room, std::int64_t kept) {
    while (items.size() > 64) {
        std::uint64_t best = 0, worst = std::numeric_limits<std::uint64_t>::max();
        for (const Item& item : items) best = std::max(best, item.key), worst = std::min(worst, item.key);
        if (best == worst) return run_of(order, items, room, kept);
        Ladder ladder(best, worst);
        for (const Item& item : items) ladder.add(item.key, cost_of(order, item));
        std::size_t crossing = ladder.descend(room, kept);
        auto outside = [&](const Item& item) { return ladder.rung(item.key) != crossing; };
        items.erase(std::remove_if(items.begin(), items.end(), outside), items.end());
    }
    std::sort(items.begin(), items.end(),
              [](const Item& a, const Item& b) { return a.key != b.key ? a.key > b.key : a.index < b.index; });
    return run_of(order, items, room, kept);
}

struct Selected {
    Order order;
    std::int64_t limit = 0;
    std::int32_t flags = 0;
    float* carried = nullptr;                // where the first pass writes the sum
    bool squares = true;                     // ... and whether it is still to come
    std::vector<std::int64_t> free_of_cost;  // where a threshold decides alone
    std::vector<Segment> segments;
    std::vector<Worker> workers;
    std::vector<Tally> tallies;
    std::optional<Bracket> planned;  // to be tried once there is somewhere to write to
    bool tied = false;
    double lo = kSmallest;    // what is kept scores at least this,
    Cut end{0, 0, true, {}};  // and comes before the misfit
    std::int64_t kept = 0, spent = 0;

    Scanner scanner() const { return {order, (flags & kPortable) || !has_avx2()}; }

    void end_at(const Cut& found) { end = found, kept = found.kept, spent = limit - found.room; }
};

// Some of what a worker found inside the bracket, within one tensor.
struct Stretch {
    static constexpr std::int64_t kMost = 512;
    std::int64_t tensor, count;
    Entries entries;
    std::uint64_t keys[kMost];
};

void fill_keys(const Order& order, Stretch& stretch) {
    const float* values = stretch.entries.values;
    if (!order.by_threshold()) {
        for (std::int64_t j = 0; j < stretch.count; ++j) {
            stretch.keys[j] = bits_of(score_of(order, stretch.tensor, stretch.entries.indices[j], values[j]));
        }
        return;
    }
    double weight = order.weights[stretch.tensor];
    for (std::int64_t j = 0; j < stretch.count; ++j) {
        stretch.keys[j] = bits_of(std::fabs(static_cast<double>(values[j])) * weight);
    }
}

// Calls `each(stretch)` for all that a worker found inside the bracket, in order.
template <typename Each>
void each_inside(const Selected& chosen, const Worker& worker, const Each& each) {
    std::int64_t at = 0;
    for (std::size_t s = worker.first; s < worker.last; ++s) {
        for (std::int64_t end = at + chosen.tallies[s].inside; at < end;) {
            Stretch stretch;
            stretch.tensor = chosen.segments[s].tensor;
            stretch.count = std::min(Stretch::kMost, end - at);
            stretch.entries = worker.inside.begin.from(at);
            fill_keys(chosen.order, stretch);
            each(stretch);
            at += stretch.count;
        }
    }
}

// Costs of what lies inside the bracket. Keys are computed twice instead of kept: fresh memory is dearer.
Ladder ladder_of(const Selected& chosen, double hi) {
    Ladder ladder(std::max(bits_of(hi) - 1, bits_of(chosen.lo)), bits_of(chosen.lo));
    for (const Worker& worker : chosen.workers) {
        each_inside(chosen, worker, [&](const Stretch& stretch) {
            const std::int64_t* quanta = chosen.order.quanta;
            std::int64_t step = chosen.order.quanta_each, fixed = step ? 0 : stretch.tensor;
            for (std::int64_t j = 0; j < stretch.count; ++j) {
                ladder.add(stretch.keys[j], quanta[fixed + step * stretch.entries.indices[j]]);
            }
        });
    }
    return ladder;
}

std::vector<Item> items_of(const Selected& chosen, const Ladder& ladder, std::size_t rung) {
    std::vector<Item> items;
    if (rung == ladder.rungs.size()) return items;
    items.reserve(static_cast<std::size_t>(ladder.rungs[rung].count));
    for (const Worker& worker : chosen.workers) {
        each_inside(chosen, worker, [&](const Stretch& stretch) {
            auto tensor = static_cast<std::uint32_t>(stretch.tensor);
            for (std::int64_t j = 0; j < stretch.count; ++j) {
                if (ladder.rung(stretch.keys[j]) != rung) continue;
                items.push_back({stretch.keys[j], stretch.entries.indices[j], tensor});
            }
        });
    }
    return items;
}

// Cuts at the limit what was found; false when the bracket missed.
bool finish_inside(Selected& chosen, double hi) {
    std::int64_t room = chosen.limit, kept = 0;
    for (const Tally& tally : chosen.tallies) {
        if (tally.sure_cost > room) return false;
        room -= tally.sure_cost;
        kept += tally.sure;
    }
    Ladder ladder = ladder_of(chosen, hi);
    std::size_t crossing = ladder.descend(room, kept);
    chosen.end_at(cut(chosen.order, items_of(chosen, ladder, crossing), room, kept));
    return !chosen.end.all || chosen.lo <= kSmallest;
}

// The place among the tied elements of a segment at which `room` is used up.
std::int64_t place_in_ties(const Selected& chosen, const Segment& segment, std::int64_t& room, std::int64_t& kept) {
    const Order& order = chosen.order;
    for (std::int64_t i = segment.start; i < segment.stop; ++i) {
        if (bits_of(score_of(order, segment.tensor, i, order.update[i])) != bits_of(chosen.lo)) continue;
        std::int64_t cost = cost_of(order, segment.tensor, i);
        if (cost > room) return i;
        room -= cost;
        ++kept;
    }
    return segment.stop;
}

// Cuts among elements of one score, of which only the numbers per segment are known; false when the bracket missed.
bool finish_tied(Selected& chosen) {
    std::int64_t room = chosen.limit, kept = 0;
    for (const Tally& tally : chosen.tallies) {
        if (tally.sure_cost > room) return false;
        room -= tally.sure_cost;
        kept += tally.sure;
    }
    for (std::size_t s = 0; s < chosen.segments.size(); ++s) {
        const Segment& segment = chosen.segments[s];
        if (chosen.tallies[s].inside_cost <= room) {
            room -= chosen.tallies[s].inside_cost;
            kept += chosen.tallies[s].inside;
            continue;
        }
        auto place = static_cast<std::uint32_t>(place_in_ties(chosen, segment, room, kept));
        Item misfit{bits_of(chosen.lo), place, static_cast<std::uint32_t>(segment.tensor)};
        chosen.end_at({room, kept, false, misfit});
        return true;
    }
    return false;
}

// -------------------------------------------------------------------------------------------------------------- driver

struct Outcome {
    Status status;
    std::int64_t index;
};

// The first element that is not finite, of the update before of the sum.
Outcome not_finite(const Order& order) {
    for (std::int64_t i = 0; i < order.n; ++i) {
        if (!std::isfinite(order.update[i])) return {kNotFinite, i};
    }
    for (std::int64_t i = 0; i < order.n; ++i) {
        if (!std::isfinite(carried_at(order, i))) return {kSumNotFinite, i};
    }
    return {kDone, -1};
}

// Room for what a bracket finds, of a worker that has `elements`.
std::int64_t room_for(std::int64_t most, std::int64_t elements) { return std::min(most, elements) + Sink::kSpare; }

// Gives each worker a part of the arrays; without arrays, none.
void share_out(Selected& chosen, const Bracket& bracket, Entries* arrays) {
    std::int64_t at = 0;
    for (Worker& worker : chosen.workers) {
        worker.found = Sink();
        if (!arrays) continue;
        worker.found.begin = arrays->from(at);
        worker.found.room = room_for(bracket.found, worker.elements);
        at += worker.found.room;
    }
}

std::int64_t room_of(const Selected& chosen, const Bracket& bracket) {
    std::int64_t room = 0;
    for (const Worker& worker : chosen.workers) room += room_for(bracket.found, worker.elements);
    return room;
}

void scan_segments(const Selected& chosen, const Pass& pass, Worker& worker, std::vector<Tally>& tallies) noexcept {
    worker.not_finite = worker.overflow = false;
    for (std::size_t s = worker.first; s < worker.last && !worker.not_finite; ++s) {
        pass.segment(chosen.segments[s], worker, tallies[s]);
    }
    if (pass.streamed) finish_streams();
}

// Memory for what lies inside the bracket; false where there is none left.
bool reserve_inside(Selected& chosen, const Bracket& bracket) {
    for (Worker& worker : chosen.workers) {
        worker.inside = OwnSink();
        if (!bracket.tied && !worker.inside.reserve(std::min(bracket.inside, worker.elements))) return false;
    }
    return true;
}

// One pass with a bracket. After the first, squares are known and the sum is written: the order reads it from then on.
Outcome pass_over(Selected& chosen, const Bracket& bracket, Entries* arrays) {
    Test lo(chosen.order, bracket.lo), hi(chosen.order, bracket.hi);
    bool streamed = chosen.carried && chosen.scanner().streams(chosen.order.n, chosen.flags);
    Pass pass{chosen.order, chosen.scanner(), lo, hi, bracket.tied, arrays != nullptr, chosen.carried,
              streamed,     chosen.squares};
    share_out(chosen, bracket, arrays);
    if (!reserve_inside(chosen, bracket)) return {kNoMemory, -1};
    run_all(chosen.workers, [&](Worker& worker) noexcept { scan_segments(chosen, pass, worker, chosen.tallies); });
    for (const Worker& worker : chosen.workers) {
        if (worker.not_finite) return not_finite(chosen.order);
    }
    if (chosen.carried) chosen.order.update = chosen.carried, chosen.order.residual = nullptr;
    chosen.carried = nullptr, chosen.squares = false;
    chosen.tied = bracket.tied, chosen.lo = bracket.lo;
    return {kDone, -1};
}

// The bracket of the one bin in which the exact costs of all scores pass the limit.
Bracket full_bracket(const Selected& chosen) {
    const Order& order = chosen.order;
    std::vector<Ladder::Rung> bins(static_cast<std::size_t>(kBins));
    for (const Segment& segment : chosen.segments) {
        for (std::int64_t i = segment.start; i < segment.stop; ++i) {
            double score = score_of(order, segment.tensor, i, order.update[i]);
            if (!(score > 0)) continue;
            Ladder::Rung& bin = bins[bits_of(score) >> kBinShift];
            bin.cost += cost_of(order, segment.tensor, i);
            ++bin.count;
        }
    }
    std::int64_t room = chosen.limit;
    for (std::int64_t bin = kBins; bin-- > 0;) {
        const Ladder::Rung& one = bins[static_cast<std::size_t>(bin)];
        if (one.cost > room) {
            double lo = from_bits(static_cast<std::uint64_t>(bin) << kBinShift);
            double hi = from_bits(static_cast<std::uint64_t>(bin + 1) << kBinShift);
            return {std::max(lo, kSmallest), bin + 1 < kBins ? hi : kInfinity, false, order.n, one.count};
        }
        room -= one.cost;
    }
    return {kSmallest, kSmallest, false, order.n, 0};  // Everything fits: all that is above zero is sure.
}

// One bracket: whether the threshold was found, and the result, where there are arrays, is in them.
Outcome attempt(Selected& chosen, const Bracket& bracket, Entries* arrays, bool& found) {
    Outcome outcome = pass_over(chosen, bracket, arrays);
    found = false;
    if (outcome.status != kDone) return outcome;
    for (const Worker& worker : chosen.workers) {
        if (worker.overflow) return outcome;
    }
    found = bracket.tied ? finish_tied(chosen) : finish_inside(chosen, bracket.hi);
    return outcome;
}

Outcome choose_in_full(Selected& chosen) {
    bool found = true;
    return chosen.order.n ? attempt(chosen, full_bracket(chosen), nullptr, found) : Outcome{kDone, -1};
}

// As far as that goes without arrays to write to: the likeliest bracket may be left for later.
Outcome choose(Selected& chosen) {
    bool found = false;
    for (const Bracket& bracket : first_brackets(chosen.order, chosen.limit, chosen.flags)) {
        if (writes_at_once(bracket, chosen.order.n, chosen.flags)) {
            chosen.planned = bracket;
            return {kDone, -1};
        }
        Outcome outcome = attempt(chosen, bracket, nullptr, found);
        if (outcome.status != kDone || found) return outcome;
    }
    return choose_in_full(chosen);
}

// Keeps all that scores at least the threshold.
Outcome choose_above(Selected& chosen, double threshold) {
    // Below a bracket without end nothing is cut: all that passes the test is tied, and kept.
    Bracket all{std::max(threshold, kSmallest), kInfinity, true, 0, 0};
    chosen.free_of_cost.assign(static_cast<std::size_t>(chosen.order.tensors), 0);
    chosen.order.quanta = chosen.free_of_cost.data();
    chosen.order.quanta_each = false;
    Outcome outcome = pass_over(chosen, all, nullptr);
    for (const Tally& tally : chosen.tallies) chosen.kept += tally.inside;
    return outcome;
}

// ------------------------------------------------------------------------------------------------------ writing it out

// What is kept: up to the misfit its score is enough, after it a higher one is asked for.
struct Tests {
    std::int64_t turn;
    Test up_to, after;

    explicit Tests(const Selected& chosen)
        : turn(chosen.end.all ? chosen.order.n : chosen.end.misfit.index),
          up_to(chosen.order, chosen.end.all ? chosen.lo : from_bits(chosen.end.misfit.key)),
          after(chosen.order, chosen.end.all ? chosen.lo : from_bits(chosen.end.misfit.key + 1)) {}
};

// Takes out of what a worker found what is not kept.
void take_out(const Selected& chosen, const Tests& tests, Worker& worker) noexcept {
    Scanner scanner = chosen.scanner();
    Entries all = worker.found.begin;
    std::int64_t at = 0, kept = 0;
    for (std::size_t s = worker.first; s < worker.last; ++s) {
        std::int64_t tensor = chosen.segments[s].tensor, count = chosen.tallies[s].sure + chosen.tallies[s].inside;
        Entries from = all.from(at);
        std::int64_t turn = std::lower_bound(from.indices, from.indices + count, tests.turn) - from.indices;
        kept += filtered_by<true>(scanner, tensor, tests.up_to, from, turn, all.from(kept));
        kept += filtered_by<true>(scanner, tensor, tests.after, from.from(turn), count - turn, all.from(kept));
        at += count;
    }
    worker.found.size = kept;
}

// Leaves in the arrays, one worker's part behind the other's, what is kept of what they found.
void settle(Selected& chosen, Entries arrays) {
    if (!chosen.end.all) {
        Tests tests(chosen);
        run_all(chosen.workers, [&](Worker& worker) noexcept { take_out(chosen, tests, worker); });
    }
    std::int64_t at = 0;
    for (const Worker& worker : chosen.workers) {
        auto count = static_cast<std::size_t>(worker.found.size);
        Entries from = worker.found.begin, into = arrays.from(at);
        // The first that kept something need not be the first worker.
        if (count && into.indices != from.indices) {
            std::memmove(into.indices, from.indices, count * sizeof *into.indices);
            std::memmove(into.values, from.values, count * sizeof *into.values);
        }
        at += worker.found.size;
    }
}

// Writes what passes the test in [start, stop) of a tensor.
void write_span(const Selected& chosen, const Scanner& scanner, const Segment& span, const Test& test, Sink& out) {
    std::uint64_t words[kWords];
    std::uint32_t indices[Sink::kSpare];
    float values[Sink::kSpare];
    for (std::int64_t start = span.start; start < span.stop; start += kLanes) {
        std::int64_t count = std::min(kLanes, span.stop - start);
        const float* x = chosen.order.update + start;
        scanner.mark(Row{x, nullptr, 1.0f, nullptr, nullptr, count}, span.tensor, start, test, words);
        // Not where more than is kept would be written: behind it another worker writes, or nobody may.
        Entries into = out.has_room() ? out.end() : Entries{indices, values};
        std::int64_t kept = put_row(scanner.portable, into, start, x, words, count);
        if (into.indices == indices) {
            std::copy(indices, indices + kept, out.end().indices);
            std::copy(values, values + kept, out.end().values);
        }
        out.size += kept;
    }
}

// From the vector, a worker's part.
void write_again(const Selected& chosen, const Tests& tests, Worker& worker) noexcept {
    Scanner scanner = chosen.scanner();
    for (std::size_t s = worker.first; s < worker.last; ++s) {
        const Segment& segment = chosen.segments[s];
        std::int64_t middle = std::min(std::max(tests.turn, segment.start), segment.stop);
        write_span(chosen, scanner, {segment.tensor, segment.start, middle}, tests.up_to, worker.found);
        write_span(chosen, scanner, {segment.tensor, middle, segment.stop}, tests.after, worker.found);
    }
}

// How much of what is kept lies inside the bracket, in the segments of a worker.
std::int64_t kept_inside(const Selected& chosen, const Worker& worker) {
    if (chosen.end.all) return worker.inside.size;
    std::int64_t kept = 0;
    each_inside(chosen, worker, [&, misfit = chosen.end.misfit](const Stretch& stretch) {
        for (std::int64_t j = 0; j < stretch.count; ++j) {
            std::uint64_t key = stretch.keys[j];
            kept += (key > misfit.key) | ((key == misfit.key) & (stretch.entries.indices[j] < misfit.index));
        }
    });
    return kept;
}

// The same for a bracket of one score.
std::int64_t kept_tied(const Selected& chosen, const Worker& worker) {
    std::int64_t kept = 0;
    for (std::size_t s = worker.first; s < worker.last; ++s) {
        const Segment& segment = chosen.segments[s];
        if (chosen.end.all || segment.stop <= chosen.end.misfit.index) {
            kept += chosen.tallies[s].inside;
        } else if (segment.start <= chosen.end.misfit.index) {
            std::int64_t room = std::numeric_limits<std::int64_t>::max();
            place_in_ties(chosen, {segment.tensor, segment.start, chosen.end.misfit.index}, room, kept);
        }
    }
    return kept;
}

void write_from_vector(Selected& chosen, Entries arrays) {
    std::int64_t at = 0;
    for (Worker& worker : chosen.workers) {
        Sink& out = worker.found;
        out.begin = arrays.from(at);
        out.size = 0;
        out.room = chosen.tied ? kept_tied(chosen, worker) : kept_inside(chosen, worker);
        for (std::size_t s = worker.first; s < worker.last; ++s) out.room += chosen.tallies[s].sure;
        at += out.room;
    }
    Tests tests(chosen);
    run_all(chosen.workers, [&](Worker& worker) noexcept { write_again(chosen, tests, worker); });
}

// Finishes what was planned, or writes what was chosen, to arrays with `room`.
Outcome write_selected(Selected& chosen, Entries arrays, std::int64_t room) {
    if (chosen.planned) {
        bool found = false;
        Bracket bracket = *chosen.planned;
        chosen.planned.reset();
        Outcome outcome = attempt(chosen, bracket, &arrays, found);
        if (outcome.status != kDone) return outcome;
        if (found) {
            settle(chosen, arrays);
            return outcome;
        }
        outcome = choose_in_full(chosen);
        if (outcome.status != kDone) return outcome;
    }
    if (chosen.kept > room) return {kMoreRoom, -1};
    write_from_vector(chosen, arrays);
    return {kDone, -1};
}

// --------------------------------------------------------------------------------------------------- the border to C

void divide(Selected& chosen, std::int32_t threads) {
    chosen.segments = segments_of(chosen.order);
    chosen.workers = workers_for(chosen.segments, chosen.order.n, threads);
    chosen.tallies.resize(chosen.segments.size());
}

double squares_of(const Selected& chosen) {
    double squares = 0;
    for (const Tally& tally : chosen.tallies) squares += tally.squares;
    return squares;
}

std::uint32_t read_portable(const std::uint32_t* words, std::int64_t n) {
    std::uint32_t any = 0;
    for (std::int64_t i = 0; i < n; ++i) any |= words[i];
    return any;
}

#if JOULEWISE_AVX2
__attribute__((target("avx2"))) std::uint32_t read_avx2(const std::uint32_t* words, std::int64_t n) {
    std::uint32_t any = 0;
    for (std::int64_t i = 0; i < n; ++i) any |= words[i];
    return any;
}
#else
std::uint32_t read_avx2(const std::uint32_t* words, std::int64_t n) { return read_portable(words, n); }
#endif

}  // namespace

// What to rank by and where to stop. Mirrors native_select.Request.
struct JoulewiseRequest {
    const float* update;         // [n]
    const float* residual;       // [n] or null
    float* carried;              // [n] or null: where to write update + factor * residual
    const std::int64_t* edges;   // [tensors + 1]
    const double* weights;       // [weight_count]: one per tensor or one per coordinate
    const std::int64_t* quanta;  // [quanta_count]: likewise
    std::int64_t n;
    std::int64_t tensors;
    std::int64_t weight_count;
    std::int64_t quanta_count;
    std::int64_t limit;
    std::uint64_t key;
    double threshold;
    float factor;
    std::int32_t random;        // scores are random priorities of the stream `key`
    std::int32_t by_threshold;  // keep all that score at least `threshold`; quanta and limit are not looked at
    std::int32_t threads;
    std::int32_t flags;
};

// What was found. `selected` is given to joulewise_select_write, and then to joulewise_select_close.
struct JoulewiseFound {
    void* selected;
    std::int64_t room;  // what indices and values have to hold
    std::int64_t kept;  // what they do hold, and the rest, once they are written
    std::int64_t spent;
    std::int64_t misfit;  // -1: everything fits
    std::int64_t bad;     // the first element that is NaN or infinite, with the statuses that say so
    double squares;
};

namespace {

std::unique_ptr<Selected> selected_of(const JoulewiseRequest& request) {
    auto chosen = std::make_unique<Selected>();
    bool weight_each = request.weight_count != request.tensors;
    chosen->order = {request.update,      request.residual, request.factor,  request.n,
                     request.edges,       request.tensors,  request.weights, weight_each,
                     request.random != 0, request.key,      request.quanta,  request.quanta_count != request.tensors};
    chosen->limit = request.limit;
    chosen->flags = request.flags;
    chosen->carried = request.carried;
    divide(*chosen, request.threads);
    return chosen;
}

void tell(const Selected& chosen, JoulewiseFound& found) {
    found.room = chosen.planned ? room_of(chosen, *chosen.planned) : chosen.kept;
    found.kept = chosen.kept;
    found.spent = chosen.spent;
    found.misfit = chosen.end.all ? -1 : static_cast<std::int64_t>(chosen.end.misfit.index);
    found.squares = squares_of(chosen);
}

}  // namespace

JOULEWISE_EXPORT std::int32_t joulewise_select_open(const JoulewiseRequest* request, JoulewiseFound* found) {
    *found = {nullptr, 0, 0, 0, -1, -1, 0.0};
    if (request->n > std::numeric_limits<std::uint32_t>::max()) return kTooLong;
    try {
        std::unique_ptr<Selected> chosen = selected_of(*request);
        Outcome outcome = request->by_threshold ? choose_above(*chosen, request->threshold) : choose(*chosen);
        found->bad = outcome.index;
        if (outcome.status != kDone) return outcome.status;
        tell(*chosen, *found);
        found->selected = chosen.release();
        return kDone;
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
}

// Writes indices, ascending, and values, to arrays that have `found->room`; those may come out too short once.
JOULEWISE_EXPORT std::int32_t joulewise_select_write(JoulewiseFound* found, std::uint32_t* indices, float* values) {
    auto& chosen = *static_cast<Selected*>(found->selected);
    try {
        Outcome outcome = write_selected(chosen, {indices, values}, found->room);
        found->bad = outcome.index;
        tell(chosen, *found);
        return outcome.status;
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
}

JOULEWISE_EXPORT void joulewise_select_close(void* selected) { delete static_cast<Selected*>(selected); }

// Reads n words and does next to nothing with them: the floor that benchmarks compare with.
JOULEWISE_EXPORT std::uint32_t joulewise_read(const std::uint32_t* words, std::int64_t n) {
    return has_avx2() ? read_avx2(words, n) : read_portable(words, n);
}

// --------------------------------------------------------------------------------------------------------------- codec
//
// The codec: payload version 1, as docs/payload.md has it, byte for byte what codec.py and its parts make in NumPy.
//
// Python writes and reads the header and the tensors that travel whole; everything else is here. What comes in may be
// hostile: every length is checked against the layout and the bytes at hand before it is used. Scratch memory follows
// from the layout and the number of kept coordinates, whose bytes are there once the lengths are known to fit.

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "The codec moves words of the little-endian payload as they are; on this machine joulewise runs on NumPy."
#endif

// What is compiled for AVX2 and BMI2, and called where the processor has them; and what must become part of it.
#if JOULEWISE_AVX2
#define JOULEWISE_WIDE __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define JOULEWISE_INLINE __attribute__((always_inline))
#else
#define JOULEWISE_WIDE
#define JOULEWISE_INLINE
#endif

namespace {
namespace codec {

// Results of the functions below. native_codec.py turns the refusals into sentences; details[] holds their numbers.
enum Status : std::int32_t {
    succeeded = 0,
    out_of_memory = 1,
    invalid_argument = 2,    // lengths that do not fit together: a caller's mistake, never a payload's
    unsupported = 4,         // this processor lacks what it takes; ask elsewhere
    unsound_selection = 3,   // indices do not ascend or do not fit, or a value is NaN or infinite
    cut_off_entry = 10,      // tensor, bytes expected, bytes left
    cut_off_code = 11,       // bytes expected, bytes left
    needless_zeros = 12,     // tensor
    long_count = 13,         // tensor
    too_many_kept = 14,      // tensor, kept
    unknown_type = 15,       // tensor, number of the type
    unsound_largest = 16,    // tensor, bits of the float32
    symbol_too_high = 17,    // symbol, highest allowed
    long_unary_code = 18,    // symbols
    incomplete_code = 19,    //
    wrong_count = 20,        // positions listed, positions expected
    outside_tensor = 21,     //
    cut_off_values = 22,     //
    filled_wrongly = 23,     // bits after the last value
    unreached_largest = 24,  //
    not_shortest = 25,       //
};

enum ValueType : std::uint8_t { float32 = 0, float16 = 1, bfloat16 = 2, int8 = 3, ternary = 4 };
enum CodeKind : std::uint8_t { balanced = 0, rising = 1, falling = 2, huffman = 3 };

constexpr int types = 5;
constexpr int mantissa_bits[types] = {23, 10, 7, 0, 0};
constexpr int whole_bytes[types] = {3, 1, 1, 0, 0};  // Bytes of a value besides its symbol ...
constexpr int odd_bits[types] = {0, 3, 0, 1, 1};     // ... and bits that fill no byte.
constexpr int highest_symbol[types] = {254, 254, 254, 127, 1};

// Types whose symbols are steps of a magnitude that the table holds, with the sign as their only odd bit.
constexpr bool scaled(ValueType type) { return type >= int8; }

constexpr int symbols_of_a_byte = 256;
constexpr int longest_code = 15;
constexpr int levels = longest_code + 1;
constexpr int most_planes = 32;
constexpr std::uint32_t largest_finite = 0x7f7fffff;
constexpr double steps = 127;
constexpr std::uint64_t most_coordinates = std::uint64_t{1} << 32;
constexpr std::uint64_t entry_room = 5 + 1 + 4 + 3 + 128;  // The longest table entry.
constexpr std::size_t slack = 16;                          // Words of eight bytes are moved where fewer belong.
constexpr std::size_t chunk = 1024;                        // Numbers that are worked on at once ...
constexpr std::size_t padding = 64;                        // ... and zeros that fill the last word of their bits.
constexpr std::ptrdiff_t window = 4096;                    // Coordinates that get a flag each at once.

// ------------------------------------------------------------------------------------------------------- memory, words

// Memory that is not cleared; `failed()` where there was none.
template <typename Item>
class Scratch {
  public:
    explicit Scratch(std::uint64_t count)
        : items_(static_cast<Item*>(std::malloc(static_cast<std::size_t>(count) * sizeof(Item) + slack))) {}
    ~Scratch() { std::free(items_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    bool failed() const { return items_ == nullptr; }
    Item* get() const { return items_; }

  private:
    Item* items_;
};

template <typename Word>
inline Word load(const std::uint8_t* at) {
    Word word;
    std::memcpy(&word, at, sizeof word);
    return word;
}

template <typename Word>
inline void store(std::uint8_t* at, Word word) {
    std::memcpy(at, &word, sizeof word);
}

inline std::uint32_t bits_of(float value) {
    std::uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    return word;
}

inline float float_of(std::uint32_t word) {
    float value;
    std::memcpy(&value, &word, sizeof value);
    return value;
}

template <typename Count>
inline std::uint64_t lowest_bits(Count count) {  // count < 64
    return (std::uint64_t{1} << count) - 1;
}

// Bit j of byte i becomes bit i of byte j (H. S. Warren, Hacker's Delight, 2nd edition, section 7-3).
inline std::uint64_t transposed(std::uint64_t matrix) {
    std::uint64_t moved = (matrix ^ matrix >> 7) & 0x00aa00aa00aa00aa;
    matrix ^= moved ^ moved << 7;
    moved = (matrix ^ matrix >> 14) & 0x0000cccc0000cccc;
    matrix ^= moved ^ moved << 14;
    moved = (matrix ^ matrix >> 28) & 0x00000000f0f0f0f0;
    return matrix ^ moved ^ moved << 28;
}

// Byte i of a word, 0 or 1, as bit i.
inline std::uint8_t gathered(std::uint64_t flags) {
    return static_cast<std::uint8_t>(flags * 0x0102040810204080 >> 56);
}

// --------------------------------------------------------------------------------------------------------- bit streams

// Put `count` bits at bit `at` of a stream that holds zeros there. Both sides have slack bytes after their end.
void put_bits(std::uint8_t* stream, std::uint64_t at, const std::uint8_t* bits, std::size_t count) {
    std::uint8_t* out = stream + (at >> 3);
    const unsigned shift = at & 7;
    std::uint64_t carried = *out & lowest_bits(shift);
    for (; count >= 64; count -= 64, bits += 8, out += 8) {
        const std::uint64_t word = load<std::uint64_t>(bits);
        store<std::uint64_t>(out, carried | word << shift);
        carried = word >> 1 >> (63 - shift);
    }
    // What lies beyond the last bit may be there already: it belongs to another plane, and is kept.
    const std::uint64_t word = load<std::uint64_t>(bits) & lowest_bits(count);
    store<std::uint64_t>(out, load<std::uint64_t>(out) | carried | word << shift);
    out[8] = static_cast<std::uint8_t>(out[8] | word >> 1 >> (63 - shift));
}

// A bit stream to be read, from some bytes that nothing follows. Words are read beyond their end: the last bytes are
// copied, and zeros follow.
class Stream {
  public:
    Stream(const std::uint8_t* bytes, std::uint64_t size, std::uint64_t unary)
        : bits(8 * size), unary_bits(unary), bytes_(bytes), end_at_(size - std::min<std::uint64_t>(size, slack)) {
        std::copy(bytes + end_at_, bytes + size, end_);
    }

    const std::uint64_t bits, unary_bits;

    const std::uint8_t* bytes() const { return bytes_; }

    bool bit_at(std::uint64_t at) const { return bytes_[at / 8] >> (at & 7) & 1; }

    // The 64 bits at bit `at`, which is not beyond the end.
    std::uint64_t word_at(std::uint64_t at) const {
        const std::uint64_t byte = at / 8;
        const std::uint8_t* const in = byte < end_at_ ? bytes_ + byte : end_ + (byte - end_at_);
        const unsigned shift = at & 7;
        return load<std::uint64_t>(in) >> shift | std::uint64_t{in[8]} << 1 << (63 - shift);
    }

    void take(std::uint8_t* into, std::uint64_t at, std::size_t count) const {
        for (std::size_t done = 0; done < count; done += 64) store(into + done / 8, word_at(at + done));
    }

  private:
    const std::uint8_t* bytes_;
    std::uint64_t end_at_;
    std::uint8_t end_[2 * slack] = {};
};

// Numbers of up to 32 bits, a chunk at a time, as planes of bits, each with its own place in the stream.
struct Chunk {
    std::uint32_t numbers[chunk];
    std::uint8_t bytes[chunk + padding];
    std::uint8_t planes[most_planes][chunk / 8 + slack];
};

constexpr std::size_t words_of(std::uint64_t bits) { return static_cast<std::size_t>((bits + 63) / 64); }

// Bits that are set in a mask, moved together at the low end (Hacker's Delight, section 7-4): `moved` holds the steps,
// which `spread` takes back.
struct Moves {
    std::uint64_t moved[6];

    explicit Moves(std::uint64_t mask) {
        std::uint64_t unset = ~mask << 1;
        for (int step = 0; step < 6; ++step) {
            std::uint64_t odd = unset;  // Where the number of unset bits below is odd.
            for (int shift = 1; shift < 64; shift *= 2) odd ^= odd << shift;
            moved[step] = odd & mask;
            mask = (mask ^ moved[step]) | moved[step] >> (1 << step);
            unset &= ~odd;
        }
    }

    std::uint64_t gathered(std::uint64_t word) const {
        for (int step = 0; step < 6; ++step) {
            const std::uint64_t moving = word & moved[step];
            word = (word ^ moving) | moving >> (1 << step);
        }
        return word;
    }

    std::uint64_t spread(std::uint64_t word) const {
        for (int step = 5; step >= 0; --step) {
            const std::uint64_t still = word & ~moved[step];
            word = ((word << (1 << step)) & moved[step]) | still;
        }
        return word;
    }
};

// Zeros closed by a one, number after number, as a stream of so many bits; whole words go out, the rest waits.
struct UnaryWriter {
    std::uint8_t* out;
    std::uint8_t* last;  // The word that may not be full in the end.
    std::uint64_t word = 0, filled = 0;

    UnaryWriter(std::uint8_t* stream, std::uint64_t bits) : out(stream), last(stream + bits / 64 * 8) {}

    // Numbers that are put together as so many bits, of which the last is a one: up to 63, before the last word. The
    // word goes out full or not: a branch would be guessed wrong once a word, which takes longer.
    void put_word(std::uint64_t bits, std::uint64_t count) {
        word |= bits << filled;
        store(out, word);
        const std::uint64_t after = filled + count, is_full = after / 64;
        word = (word & (is_full - 1)) | (bits >> 1 >> (63 - filled) & (0 - is_full));
        out += is_full * 8;
        filled = after % 64;
    }

    void put_one(std::uint32_t number) {
        filled += number;
        if (filled >= 64) {
            store(out, word);
            out += filled / 64 * 8;  // The stream holds zeros already.
            word = 0;
            filled %= 64;
        }
        word |= std::uint64_t{1} << filled++;
        if (filled == 64) {
            store(out, word);
            out += 8;
            word = filled = 0;
        }
    }

    void finish() {  // Other parts of the stream may lie in the last bytes already.
        if (filled) store(out, load<std::uint64_t>(out) | word);
    }
};

// What each byte stands for. Of a few, those that occur are listed, and `size` says how many.
struct Dictionary {
    static constexpr int most = 16;

    std::uint8_t meaning[256];
    std::uint8_t listed[most];
    int size = 0;

    void add(std::uint8_t byte, std::uint8_t means) {
        meaning[byte] = means;
        if (size < most) listed[size] = byte;
        ++size;
    }
};

// Four counts of each byte, to be added up, so that runs of one byte do not wait for each other.
using Occurrences = std::uint32_t[4][256];

// Fraction and sign of a float32 in 24 bits, and back.
inline std::uint32_t without_exponent(float value) {
    const std::uint32_t word = bits_of(value);
    return (word & 0x7fffff) | word >> 31 << 23;
}

template <int width>
inline float joined(std::uint32_t symbol, std::uint32_t further) {
    const std::uint32_t mantissa = further & ((1u << width) - 1);
    return float_of(symbol << 23 | mantissa << (23 - width) | further >> width << 31);
}

// ----------------------------------------------------------------------------------------------------- innermost loops
//
// Written twice: for any processor, and with AVX2 and BMI2, which are looked for at run time. Both give the same bits.

struct Loops {
    bool wide;
    // The planes of the low bits of work.bytes, from plane `low` on, and back. Whole words: zeros follow the last bit.
    void (*split_bytes)(Chunk& work, std::size_t count, int low, int rows);
    void (*join_bytes)(Chunk& work, std::size_t count, int low, int rows);
    // The bits of words that their masks mark, one after another; returns how many. And back: the low bits of each word
    // to where its mask is set.
    std::size_t (*pack)(const std::uint64_t* words, const std::uint64_t* masks, std::size_t count, std::uint8_t* bits);
    void (*spread)(std::uint64_t* words, const std::uint64_t* masks, std::size_t count);
    // Put `numbers[i] >> shift`, one after another. On a copy of the writer, whose members can stay in registers.
    UnaryWriter (*put_unary)(UnaryWriter writer, const std::uint32_t* numbers, std::size_t count, int shift);
    // Each number becomes the sum of all up to it, modulo 2**32.
    void (*sum_up)(std::uint32_t* numbers, std::size_t count);
    // Replace bytes by what a dictionary says.
    void (*look_up)(const Dictionary& dictionary, const std::uint8_t* bytes, std::size_t count, std::uint8_t* found);
    // Add to `occurrences` how often each byte is there.
    void (*count_bytes)(const std::uint8_t* bytes, std::size_t count, Occurrences& occurrences);
    // Mantissa and sign of float32 numbers as three bytes each, and back. Nothing beyond the last byte is touched.
    void (*put_triples)(const float* values, std::size_t count, std::uint8_t* bytes);
    void (*join_triples)(const std::uint8_t* symbols, const std::uint8_t* bytes, std::size_t count, float* values);
};

namespace portable {

void split_bytes(Chunk& work, std::size_t count, int low, int rows) {
    std::fill_n(work.bytes + count, padding, std::uint8_t{0});
    for (std::size_t i = 0; i < 64 * words_of(count); i += 8) {
        const std::uint64_t matrix = transposed(load<std::uint64_t>(work.bytes + i));
        for (int row = 0; row < rows; ++row)
            work.planes[low + row][i / 8] = static_cast<std::uint8_t>(matrix >> 8 * row);
    }
}

void join_bytes(Chunk& work, std::size_t count, int low, int rows) {
    for (std::size_t i = 0; i < count; i += 8) {
        std::uint64_t matrix = 0;
        for (int row = 0; row < rows; ++row) matrix |= std::uint64_t{work.planes[low + row][i / 8]} << 8 * row;
        store(work.bytes + i, transposed(matrix));
    }
}

constexpr int few = 16;  // Bits that are sooner moved one by one.

inline std::uint64_t gathered(std::uint64_t word, std::uint64_t mask) {
    if (!(mask & (mask + 1))) return word;  // They lie at the low end.
    if (bit_count(mask) > few) return Moves(mask).gathered(word);
    std::uint64_t found = 0;
    for (int place = 0; mask; ++place, mask &= mask - 1) found |= (word >> lowest_bit(mask) & 1) << place;
    return found;
}

inline std::uint64_t spread(std::uint64_t word, std::uint64_t mask) {
    if (!(mask & (mask + 1))) return word & mask;
    if (bit_count(mask) > few) return Moves(mask).spread(word) & mask;
    std::uint64_t found = 0;
    for (; mask; word >>= 1, mask &= mask - 1) found |= (word & 1) << lowest_bit(mask);
    return found;
}

std::size_t pack(const std::uint64_t* words, const std::uint64_t* masks, std::size_t count, std::uint8_t* bits) {
    std::uint64_t waiting = 0;
    std::size_t put = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t word = gathered(words[i] & masks[i], masks[i]);
        const std::size_t shift = put % 64, after = put + static_cast<std::size_t>(bit_count(masks[i]));
        waiting |= word << shift;
        store(bits + put / 64 * 8, waiting);
        if (after / 64 > put / 64) waiting = word >> 1 >> (63 - shift);
        put = after;
    }
    store(bits + put / 64 * 8, waiting);
    return put;
}

void spread(std::uint64_t* words, const std::uint64_t* masks, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) words[i] = spread(words[i], masks[i]);
}

UnaryWriter put_unary(UnaryWriter writer, const std::uint32_t* numbers, std::size_t count, int shift) {
    std::size_t i = 0;
    for (; i + 4 <= count; i += 4) {
        std::uint64_t ends[4], end = 0;
        for (std::size_t j = 0; j < 4; ++j) ends[j] = end += numbers[i + j] >> shift, ++end;
        if (end < 64 && writer.out < writer.last) {
            const std::uint64_t one = 1;
            writer.put_word((one << ends[0] | one << ends[1]) | (one << ends[2] | one << ends[3]), end);
        } else {
            for (std::size_t j = 0; j < 4; ++j) writer.put_one(numbers[i + j] >> shift);
        }
    }
    for (; i < count; ++i) writer.put_one(numbers[i] >> shift);
    return writer;
}

void sum_up(std::uint32_t* numbers, std::size_t count) {
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) numbers[i] = sum += numbers[i];
}

void look_up(const Dictionary& dictionary, const std::uint8_t* bytes, std::size_t count, std::uint8_t* found) {
    for (std::size_t i = 0; i < count; ++i) found[i] = dictionary.meaning[bytes[i]];
}

void count_bytes(const std::uint8_t* bytes, std::size_t count, Occurrences& occurrences) {
    std::size_t done = 0;
    for (; done + 8 <= count; done += 8) {
        const auto eight = load<std::uint64_t>(bytes + done);
        for (int i = 0; i < 8; ++i) ++occurrences[i & 3][eight >> 8 * i & 255];
    }
    for (; done < count; ++done) ++occurrences[0][bytes[done]];
}

void put_triples(const float* values, std::size_t count, std::uint8_t* bytes) {
    if (!count) return;
    // The fourth byte of each is overwritten by the next.
    for (std::size_t i = 0; i + 1 < count; ++i) store(bytes + 3 * i, without_exponent(values[i]));
    const std::uint32_t last = without_exponent(values[count - 1]);
    for (unsigned place = 0; place < 3; ++place) bytes[3 * count - 3 + place] = last >> 8 * place & 255;
}

void join_triples(const std::uint8_t* symbols, const std::uint8_t* bytes, std::size_t count, float* values) {
    if (!count) return;
    const std::size_t last = count - 1;  // A payload may end with its third byte.
    for (std::size_t i = 0; i < last; ++i) {
        values[i] = joined<23>(symbols[i], load<std::uint32_t>(bytes + 3 * i) & 0xffffff);
    }
    const std::uint32_t further = load<std::uint16_t>(bytes + 3 * last) | std::uint32_t{bytes[3 * last + 2]} << 16;
    values[last] = joined<23>(symbols[last], further);
}

constexpr Loops loops = {false,  split_bytes, join_bytes,  pack,        spread,      put_unary,
                         sum_up, look_up,     count_bytes, put_triples, join_triples};

}  // namespace portable

#if JOULEWISE_AVX2

namespace wide {

JOULEWISE_WIDE inline __m256i load_wide(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

JOULEWISE_WIDE inline void store_wide(void* to, __m256i vector) {
    _mm256_storeu_si256(static_cast<__m256i*>(to), vector);
}

JOULEWISE_WIDE void split_bytes(Chunk& work, std::size_t count, int low, int rows) {
    std::fill_n(work.bytes + count, padding, std::uint8_t{0});
    for (std::size_t i = 0; i < 64 * words_of(count); i += 32) {
        const __m256i bytes = load_wide(work.bytes + i);
        for (int row = 0; row < rows; ++row) {  // Its bit becomes the uppermost of each byte, which are collected.
            const __m256i moved = _mm256_sll_epi16(bytes, _mm_cvtsi32_si128(7 - row));
            store(work.planes[low + row] + i / 8, _mm256_movemask_epi8(moved));
        }
    }
}

JOULEWISE_WIDE void join_bytes(Chunk& work, std::size_t count, int low, int rows) {
    const __m256i byte_of = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit_of = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201));
    for (std::size_t i = 0; i < count; i += 32) {
        __m256i joined = _mm256_setzero_si256();
        for (int row = 0; row < rows; ++row) {
            const __m256i bits = _mm256_set1_epi32(load<std::int32_t>(work.planes[low + row] + i / 8));
            const __m256i own = _mm256_and_si256(_mm256_shuffle_epi8(bits, byte_of), bit_of);
            const __m256i value = _mm256_set1_epi8(static_cast<char>(1 << row));
            joined = _mm256_or_si256(joined, _mm256_and_si256(_mm256_cmpeq_epi8(own, bit_of), value));
        }
        store_wide(work.bytes + i, joined);
    }
}

JOULEWISE_WIDE std::size_t pack(const std::uint64_t* words, const std::uint64_t* masks, std::size_t count,
                                std::uint8_t* bits) {
    std::uint64_t waiting = 0;
    std::size_t put = 0;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t word = _pext_u64(words[i], masks[i]);
        const std::size_t shift = put % 64, after = put + static_cast<std::size_t>(_mm_popcnt_u64(masks[i]));
        waiting |= word << shift;
        store(bits + put / 64 * 8, waiting);
        waiting = after / 64 > put / 64 ? word >> 1 >> (63 - shift) : waiting;
        put = after;
    }
    store(bits + put / 64 * 8, waiting);
    return put;
}

JOULEWISE_WIDE void spread(std::uint64_t* words, const std::uint64_t* masks, std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) words[i] = _pdep_u64(words[i], masks[i]);
}

// Of eight numbers the sums of all up to each.
JOULEWISE_WIDE inline __m256i sums_up_to(__m256i numbers) {
    const __m256i fourth = _mm256_setr_epi32(3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i upper = _mm256_setr_epi32(0, 0, 0, 0, -1, -1, -1, -1);
    __m256i sums = _mm256_add_epi32(numbers, _mm256_slli_si256(numbers, 4));
    sums = _mm256_add_epi32(sums, _mm256_slli_si256(sums, 8));
    return _mm256_add_epi32(sums, _mm256_and_si256(_mm256_permutevar8x32_epi32(sums, fourth), upper));
}

JOULEWISE_WIDE void sum_up(std::uint32_t* numbers, std::size_t count) {
    const __m256i last = _mm256_set1_epi32(7);
    __m256i before = _mm256_setzero_si256();
    std::size_t done = 0;
    for (; done + 8 <= count; done += 8) {
        const __m256i sums = sums_up_to(load_wide(numbers + done));
        store_wide(numbers + done, _mm256_add_epi32(sums, before));
        before = _mm256_add_epi32(before, _mm256_permutevar8x32_epi32(sums, last));
    }
    auto sum = static_cast<std::uint32_t>(_mm256_cvtsi256_si32(before));
    for (; done < count; ++done) numbers[done] = sum += numbers[done];
}

// Ones at eight places below 64.
JOULEWISE_WIDE inline std::uint64_t ones_at(__m256i places) {
    const __m256i one = _mm256_set1_epi64x(1);
    const __m256i low = _mm256_sllv_epi64(one, _mm256_cvtepu32_epi64(_mm256_castsi256_si128(places)));
    const __m256i high = _mm256_sllv_epi64(one, _mm256_cvtepu32_epi64(_mm256_extracti128_si256(places, 1)));
    const __m256i four = _mm256_or_si256(low, high);
    const __m128i two = _mm_or_si128(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return static_cast<std::uint64_t>(_mm_cvtsi128_si64(two) | _mm_extract_epi64(two, 1));
}

JOULEWISE_WIDE UnaryWriter put_unary(UnaryWriter writer, const std::uint32_t* numbers, std::size_t count, int shift) {
    const __m256i own = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m128i by = _mm_cvtsi32_si128(shift);
    std::size_t done = 0;
    for (; done + 8 <= count; done += 8) {
        const __m256i places = _mm256_add_epi32(sums_up_to(_mm256_srl_epi32(load_wide(numbers + done), by)), own);
        const auto last = static_cast<std::uint32_t>(_mm256_extract_epi32(places, 7));
        if (last < 63 && writer.out < writer.last) {
            writer.put_word(ones_at(places), last + 1);
        } else {
            for (std::size_t i = 0; i < 8; ++i) writer.put_one(numbers[done + i] >> shift);
        }
    }
    for (; done < count; ++done) writer.put_one(numbers[done] >> shift);
    return writer;
}

// Few bytes are compared with each that occurs.
JOULEWISE_WIDE void look_up(const Dictionary& dictionary, const std::uint8_t* bytes, std::size_t count,
                            std::uint8_t* found) {
    std::size_t done = 0;
    for (; dictionary.size <= Dictionary::most && done + 32 <= count; done += 32) {
        const __m256i own = load_wide(bytes + done);
        __m256i meanings = _mm256_setzero_si256();
        for (int i = 0; i < dictionary.size; ++i) {
            const std::uint8_t byte = dictionary.listed[i];
            const __m256i equal = _mm256_cmpeq_epi8(own, _mm256_set1_epi8(static_cast<char>(byte)));
            const __m256i meaning = _mm256_set1_epi8(static_cast<char>(dictionary.meaning[byte]));
            meanings = _mm256_or_si256(meanings, _mm256_and_si256(equal, meaning));
        }
        store_wide(found + done, meanings);
    }
    portable::look_up(dictionary, bytes + done, count - done, found + done);
}

// How many of some bytes, at most 255 * 32 and a multiple of 32, equal one.
JOULEWISE_WIDE inline std::uint32_t count_equal(const std::uint8_t* bytes, std::size_t count, int byte) {
    const __m256i own = _mm256_set1_epi8(static_cast<char>(byte));
    __m256i equal = _mm256_setzero_si256();
    for (std::size_t i = 0; i < count; i += 32) {
        equal = _mm256_sub_epi8(equal, _mm256_cmpeq_epi8(load_wide(bytes + i), own));
    }
    const __m256i four = _mm256_sad_epu8(equal, _mm256_setzero_si256());
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return static_cast<std::uint32_t>(_mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 2));
}

// Bytes that lie close together are counted one after the other.
JOULEWISE_WIDE void count_bytes(const std::uint8_t* bytes, std::size_t count, Occurrences& occurrences) {
    const std::size_t whole = std::min<std::size_t>(count, chunk) / 32 * 32;
    std::uint8_t low = 255, high = 0;
    for (std::size_t i = 0; i < whole; ++i) low = std::min(low, bytes[i]), high = std::max(high, bytes[i]);
    const bool few = high - low < Dictionary::most;
    for (int byte = low; few && byte <= high; ++byte) occurrences[0][byte] += count_equal(bytes, whole, byte);
    portable::count_bytes(bytes + (few ? whole : 0), count - (few ? whole : 0), occurrences);
}

JOULEWISE_WIDE void put_triples(const float* values, std::size_t count, std::uint8_t* bytes) {
    const __m256i fraction = _mm256_set1_epi32(0x7fffff), sign = _mm256_set1_epi32(0x800000);
    const __m256i order = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1,  //
                                           0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    std::size_t done = 0;
    for (; done + 10 <= count; done += 8) {  // 28 bytes are written, of which the last four are overwritten.
        const __m256i words = load_wide(values + done);
        const __m256i signs = _mm256_and_si256(_mm256_srli_epi32(words, 8), sign);
        const __m256i triples = _mm256_or_si256(_mm256_and_si256(words, fraction), signs);
        const __m256i packed = _mm256_shuffle_epi8(triples, order);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + 3 * done), _mm256_castsi256_si128(packed));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + 3 * done + 12), _mm256_extracti128_si256(packed, 1));
    }
    portable::put_triples(values + done, count - done, bytes + 3 * done);
}

JOULEWISE_WIDE void join_triples(const std::uint8_t* symbols, const std::uint8_t* bytes, std::size_t count,
                                 float* values) {
    const __m256i fraction = _mm256_set1_epi32(0x7fffff), sign = _mm256_set1_epi32(INT32_MIN);
    const __m256i order = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1,  //
                                           0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    std::size_t done = 0;
    for (; done + 10 <= count; done += 8) {  // 28 bytes are read.
        const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 3 * done));
        const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 3 * done + 12));
        const __m256i triples = _mm256_shuffle_epi8(_mm256_set_m128i(high, low), order);
        const __m128i eight = _mm_cvtsi64_si128(load<long long>(symbols + done));
        const __m256i exponents = _mm256_slli_epi32(_mm256_cvtepu8_epi32(eight), 23);
        const __m256i signs = _mm256_and_si256(_mm256_slli_epi32(triples, 8), sign);
        const __m256i rest = _mm256_or_si256(_mm256_and_si256(triples, fraction), exponents);
        store_wide(values + done, _mm256_or_si256(rest, signs));
    }
    portable::join_triples(symbols + done, bytes + 3 * done, count - done, values + done);
}

constexpr Loops loops = {true,   split_bytes, join_bytes,  pack,        spread,      put_unary,
                         sum_up, look_up,     count_bytes, put_triples, join_triples};

}  // namespace wide

// AMD's processors of family 17h have BMI2, but gather and spread bit by bit, more slowly than the portable loops.
const Loops& fastest_loops() {
    __builtin_cpu_init();
    const bool has_all = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2");
    return has_all && !__builtin_cpu_is("amdfam17h") ? wide::loops : portable::loops;
}

#else

const Loops& fastest_loops() { return portable::loops; }

#endif

const Loops* loops = &fastest_loops();  // Tests alone change it.

// A loop that compilers turn into vectors: compiled for any processor, and once more for AVX2.
template <typename Body>
class Twice {
  public:
    constexpr explicit Twice(Body body) : body_(body) {}

    template <typename... Arguments>
    auto operator()(Arguments... arguments) const {
        return loops->wide ? wide(body_, arguments...) : body_(arguments...);
    }

  private:
    template <typename... Arguments>
    JOULEWISE_WIDE static auto wide(Body body, Arguments... arguments) {
        return body(arguments...);
    }

    Body body_;
};

void put_rows(const Chunk& work, std::size_t count, int rows, std::uint8_t* stream, std::uint64_t* at) {
    for (int row = 0; row < rows; at[row++] += count) put_bits(stream, at[row], work.planes[row], count);
}

void take_rows(Chunk& work, std::size_t count, int rows, const Stream& stream, std::uint64_t* at) {
    for (int row = 0; row < rows; at[row++] += count) stream.take(work.planes[row], at[row], count);
}

const auto byte_of = Twice([](const std::uint32_t* __restrict numbers, std::size_t count, int shift,
                              std::uint8_t* __restrict bytes) JOULEWISE_INLINE {
    for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::uint8_t>(numbers[i] >> shift);
});

void put_planes(Chunk& work, std::size_t count, int width, std::uint8_t* stream, std::uint64_t* at) {
    for (int low = 0; low < width; low += 8) {
        byte_of(work.numbers, count, low, work.bytes);
        loops->split_bytes(work, count, low, std::min(8, width - low));
    }
    put_rows(work, count, width, stream, at);
}

void take_planes(Chunk& work, std::size_t count, int width, const Stream& stream, std::uint64_t* at) {
    take_rows(work, count, width, stream, at);
    loops->join_bytes(work, count, 0, std::min(8, width));
    for (std::size_t i = 0; i < count; ++i) work.numbers[i] = work.bytes[i];
    for (int low = 8; low < width; low += 8) {
        loops->join_bytes(work, count, low, std::min(8, width - low));
        for (std::size_t i = 0; i < count; ++i) work.numbers[i] |= std::uint32_t{work.bytes[i]} << low;
    }
}

// The places of the ones in a byte, and how many there are.
struct Ones {
    std::uint8_t places[256][8], count[256];
};

constexpr Ones ones_of_bytes() {
    Ones ones = {};
    for (int byte = 0; byte < 256; ++byte) {
        for (int bit = 0; bit < 8; ++bit) {
            if (byte >> bit & 1) ones.places[byte][ones.count[byte]++] = static_cast<std::uint8_t>(bit);
        }
    }
    return ones;
}

constexpr Ones ones_of = ones_of_bytes();

// Write the places of the ones of a byte that begins at place `first`; returns how many. Eight numbers are written:
// those beyond are to be overwritten, or left unread.
inline std::size_t put_ones(std::uint8_t byte, std::uint32_t first, std::uint32_t* places) {
    for (int i = 0; i < 8; ++i) places[i] = first + ones_of.places[byte][i];
    return ones_of.count[byte];
}

// Places of ones in a stream from byte `bytes` on, which is at bit `at`, until there are `count`; returns how many.
const auto list_ones = Twice([](const std::uint8_t* bytes, std::uint32_t at, std::size_t found, std::size_t count,
                                std::uint32_t* places) JOULEWISE_INLINE {
    for (; found < count; at += 8) found += put_ones(*bytes++, at, places + found);
    return std::make_pair(at, found);
});

class UnaryReader {
  public:
    explicit UnaryReader(const std::uint8_t* stream) : stream_(stream) {}

    // The places in the stream of the next ones, which must be there; there is room for eight more.
    void take(std::uint32_t* places, std::size_t count) {
        std::copy(next_, next_ + 8, places);
        std::size_t found;
        std::tie(at_, found) = list_ones(stream_ + at_ / 8, at_, waiting_, count, places);
        std::copy(places + count, places + count + 8, next_);
        waiting_ = found - count;
    }

  private:
    const std::uint8_t* stream_;
    std::uint32_t at_ = 0;        // A stream has as many bits as there are coordinates, at most.
    std::uint32_t next_[8] = {};  // Places that came with the last byte and are still to be asked for ...
    std::size_t waiting_ = 0;     // ... so many.
};

// -------------------------------------------------------------------------------------------------------- prefix codes

// Code lengths of the symbols low, low + 1, ..., low + count - 1; no symbols where a tensor keeps nothing.
struct Code {
    std::uint16_t count;
    std::uint8_t low;
    CodeKind kind;
    std::uint8_t lengths[symbols_of_a_byte];
};

bool same(const Code& one, const Code& other) {
    return one.count == other.count && one.low == other.low && one.kind == other.kind &&
           std::equal(one.lengths, one.lengths + one.count, other.lengths);
}

using Histogram = std::uint32_t[symbols_of_a_byte];

std::uint64_t coded_bits(const Code& code, const std::uint32_t* occurrences) {
    std::uint64_t bits = 0;
    for (int i = 0; i < code.count; ++i) bits += std::uint64_t{occurrences[i]} * code.lengths[i];
    return bits;
}

Code known_code(CodeKind kind, int low, int count) {
    Code code = {static_cast<std::uint16_t>(count), static_cast<std::uint8_t>(low), kind, {}};
    if (kind == balanced) {
        const int width = bit_length(static_cast<std::uint64_t>(count - 1)), shorter = (1 << width) - count;
        for (int i = 0; i < count; ++i) code.lengths[i] = static_cast<std::uint8_t>(i < shorter ? width - 1 : width);
        return code;
    }
    for (int i = 0; i < count; ++i) code.lengths[i] = static_cast<std::uint8_t>(std::min(i + 1, count - 1));
    if (kind == falling) std::reverse(code.lengths, code.lengths + count);
    return code;
}

// Huffman's lengths without a limit. Symbols sorted by count and joined nodes in order of age are two queues, each
// ascending by (count, number), so the two smallest nodes stand at their fronts. Returns the longest.
int join_nodes(const std::uint64_t* counts, int size, std::uint8_t* lengths) {
    std::uint64_t leaves[symbols_of_a_byte], joined[symbols_of_a_byte];
    int leaf_count = 0, parents[2 * symbols_of_a_byte], depths[2 * symbols_of_a_byte];
    for (int symbol = 0; symbol < size; ++symbol) {
        if (counts[symbol]) leaves[leaf_count++] = counts[symbol] << 8 | static_cast<unsigned>(symbol);
    }
    std::sort(leaves, leaves + leaf_count);
    int leaf = 0, oldest = 0;
    const auto smallest = [&](int newest) {
        // Of equal counts the symbol comes first: its number is below that of every joined node.
        const bool is_leaf = leaf < leaf_count && (oldest == newest || leaves[leaf] >> 8 <= joined[oldest]);
        return is_leaf ? leaf++ : symbols_of_a_byte + oldest++;
    };
    const auto count_of = [&](int node) { return node < symbols_of_a_byte ? leaves[node] >> 8 : joined[node - 256]; };
    for (int newest = 0; newest < leaf_count - 1; ++newest) {
        const int first = smallest(newest), second = smallest(newest);
        joined[newest] = count_of(first) + count_of(second);
        parents[first] = parents[second] = symbols_of_a_byte + newest;
    }
    int longest = 0;
    depths[symbols_of_a_byte + leaf_count - 2] = 0;
    for (int node = leaf_count - 3; node >= 0; --node) {
        depths[symbols_of_a_byte + node] = depths[parents[symbols_of_a_byte + node]] + 1;
    }
    std::fill(lengths, lengths + symbols_of_a_byte, std::uint8_t{0});
    for (int i = 0; i < leaf_count; ++i) {
        const int depth = depths[parents[i]] + 1;
        lengths[leaves[i] & 255] = static_cast<std::uint8_t>(depth);
        longest = std::max(longest, depth);
    }
    return longest;
}

Code huffman_code(const std::uint32_t* occurrences, int low, int count) {
    Code code = {static_cast<std::uint16_t>(count), static_cast<std::uint8_t>(low), huffman, {}};
    std::uint64_t counts[symbols_of_a_byte];
    std::copy(occurrences, occurrences + count, counts);
    while (join_nodes(counts, count, code.lengths) > longest_code) {
        for (int i = 0; i < count; ++i) counts[i] = (counts[i] + 1) / 2;
    }
    return code;
}

// The code with the fewest bits, its table included; the first of equals. At least one symbol occurs.
Code choose(const Histogram& histogram) {
    int low = 0, high = symbols_of_a_byte - 1;
    while (!histogram[low]) ++low;
    while (!histogram[high]) --high;
    const int count = high - low + 1;
    const std::uint32_t* occurrences = histogram + low;
    Code best = known_code(balanced, low, count);
    std::uint64_t bits = coded_bits(best, occurrences), values = 0;
    for (const CodeKind kind : {rising, falling}) {
        if (count < 3 || count > longest_code + 1) break;
        const Code other = known_code(kind, low, count);
        const std::uint64_t other_bits = coded_bits(other, occurrences);
        if (other_bits < bits) best = other, bits = other_bits;
    }
    for (int i = 0; i < count; ++i) values += occurrences[i];
    const std::uint64_t table_bits = 8 * ((static_cast<std::uint64_t>(count) + 1) / 2);
    if (bits <= table_bits + values) return best;  // Huffman's code has a bit for each value at least.
    const Code other = huffman_code(occurrences, low, count);
    return coded_bits(other, occurrences) + table_bits < bits ? other : best;
}

// Canonical codes, first bit lowest, each closed by a one.
void codewords(const Code& code, std::uint16_t* words) {
    unsigned next = 0;
    for (int length = 1; length <= longest_code; ++length, next <<= 1) {
        for (int i = 0; i < code.count; ++i) {
            if (code.lengths[i] != length) continue;
            unsigned word = 1u << length;
            for (int bit = 0; bit < length; ++bit) word |= (next >> (length - 1 - bit) & 1) << bit;
            words[code.low + i] = static_cast<std::uint16_t>(word);
            ++next;
        }
    }
}

int longest_length(const Code& code) { return *std::max_element(code.lengths, code.lengths + code.count); }

// ------------------------------------------------------------------------------------------------------------- tensors

// What the table of a payload says of a tensor, and where its coordinates lie.
struct Tensor {
    std::uint64_t offset, size, kept, listed;
    std::uint64_t first;  // Its first value among those of all tensors.
    std::uint64_t live[levels];
    ValueType type;
    std::uint8_t parameter;
    bool flipped;  // What it drops is listed.
    float largest;
    Code code;
};

Tensor tensor_of(const std::int64_t* offsets, std::int64_t at, std::uint64_t first, std::uint64_t kept) {
    Tensor tensor = {};
    tensor.offset = static_cast<std::uint64_t>(offsets[at]);
    tensor.size = static_cast<std::uint64_t>(offsets[at + 1] - offsets[at]);
    tensor.kept = kept;
    tensor.first = first;
    tensor.flipped = 2 * kept > tensor.size;
    tensor.listed = tensor.flipped ? tensor.size - kept : kept;
    return tensor;
}

bool sound(const std::int64_t* offsets, std::int64_t tensors) {
    if (tensors < 0 || offsets[0] != 0) return false;
    for (std::int64_t i = 0; i < tensors; ++i) {
        if (offsets[i + 1] < offsets[i]) return false;
    }
    return static_cast<std::uint64_t>(offsets[tensors]) < most_coordinates;
}

// Fill `absent` with the coordinates of a tensor that are not among `present`: a window at a time, with a flag for
// each.
const auto complement = Twice([](const Tensor* tensor, const std::uint32_t* present, std::uint64_t count,
                                 std::uint32_t* absent) JOULEWISE_INLINE {
    std::uint8_t flags[window];
    std::uint32_t last[window + 8];
    const std::uint32_t* const end = present + count;
    std::uint32_t* const absent_end = absent + (tensor->size - count);
    for (std::uint64_t begin = 0; begin < tensor->size; begin += window) {
        const auto some = static_cast<std::uint32_t>(std::min<std::uint64_t>(window, tensor->size - begin));
        const auto first = static_cast<std::uint32_t>(tensor->offset + begin);
        std::fill_n(flags, some, std::uint8_t{1});
        std::fill_n(flags + some, window - some, std::uint8_t{0});
        const std::uint32_t* const here = present;
        present = std::partition_point(here, std::min(here + some, end),
                                       [=](std::uint32_t place) { return place - first < some; });
        for (std::ptrdiff_t i = 0; i < present - here; ++i) flags[here[i] - first] = 0;
        // Places are written by eights: near the end of the room elsewhere.
        const bool has_room = absent_end - absent > window;
        std::uint32_t* const listed = has_room ? absent : last;
        std::size_t found = 0;
        for (std::uint32_t i = 0; i < some; i += 8) {
            found += put_ones(gathered(load<std::uint64_t>(flags + i)), first + i, listed + found);
        }
        if (!has_room) std::copy_n(last, found, absent);
        absent += found;
    }
    return absent;
});

// Of the gaps between positions of a tensor: the sums of all `gap >> low`, `gap >> low + 1` and `gap >> low + 2`. All
// gaps together are below 2**32.
struct Quotients {
    std::uint32_t sums[3];
};

const auto sum_quotients = Twice([](const std::uint32_t* positions, std::uint64_t count, int low) JOULEWISE_INLINE {
    std::uint32_t first = 0, second = 0, third = 0;
    for (std::uint64_t i = 1; i < count; ++i) {
        const std::uint32_t quotient = (positions[i] - positions[i - 1] - 1) >> low;
        first += quotient;
        second += quotient >> 1;
        third += quotient >> 2;
    }
    return Quotients{{first, second, third}};
});

// The Rice parameter that makes the gaps shortest (the least of equals), and the unary bits with it.
struct Rice {
    int parameter;
    std::uint64_t unary_bits;
};

Rice shortest(const Tensor& tensor, const std::uint32_t* positions) {
    if (!tensor.listed) return {0, 0};
    const std::uint64_t count = tensor.listed;
    const auto base = static_cast<std::uint32_t>(tensor.offset);
    // With j the bit length of the mean gap the best parameter lies in j - 2 ... j (see positions.py).
    const int low = std::max(0, bit_length((positions[count - 1] - base + 1 - count) / count) - 2);
    auto [sums] = sum_quotients(positions, count, low);
    for (int more = 0; more < 3; ++more) sums[more] += (positions[0] - base) >> (low + more);
    int best = 0;
    for (int more = 1; more < 3; ++more) {
        const auto bits = [&](int i) { return sums[i] + count * static_cast<std::uint64_t>(i); };
        if (bits(more) < bits(best)) best = more;
    }
    return {low + best, sums[best] + count};
}

// How often each symbol occurs, of what is added in parts.
class Counter {
  public:
    void add(const std::uint8_t* symbols, std::size_t count) { loops->count_bytes(symbols, count, parts_); }

    bool has_met(int symbol) const {
        return parts_[0][symbol] || parts_[1][symbol] || parts_[2][symbol] || parts_[3][symbol];
    }

    // Says what was counted, and begins anew.
    void finish(Histogram& histogram) {
        for (int i = 0; i < symbols_of_a_byte; ++i)
            histogram[i] = parts_[0][i] + parts_[1][i] + parts_[2][i] + parts_[3][i];
        std::memset(parts_, 0, sizeof parts_);
    }

  private:
    Occurrences parts_ = {};
};

// ------------------------------------------------------------------------------------------------------- values, split

template <int width>
inline std::uint32_t round_bits(std::uint32_t magnitude) {
    constexpr int drop = 23 - width;
    if constexpr (drop > 0) {  // To the nearest, ties to even; never beyond the largest finite number.
        magnitude += (magnitude >> drop & 1) + ((1u << drop >> 1) - 1);
        magnitude = std::min(magnitude >> drop, largest_finite >> drop);
    }
    return magnitude;
}

template <int width>
const auto float_symbols =
    Twice([](const float* __restrict values, std::size_t count, std::uint8_t* __restrict symbols) JOULEWISE_INLINE {
        for (std::size_t i = 0; i < count; ++i) {
            symbols[i] = static_cast<std::uint8_t>(round_bits<width>(bits_of(values[i]) & 0x7fffffff) >> width);
        }
    });

// Bytes that values of two bytes have besides their symbols, and the values as rounded.
template <int width>
const auto put_further = Twice([](const float* __restrict values, std::size_t count, std::uint8_t* __restrict bytes,
                                  float* __restrict rounded) JOULEWISE_INLINE {
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t word = bits_of(values[i]), sign = word >> 31;
        const std::uint32_t magnitude = round_bits<width>(word & 0x7fffffff);
        bytes[i] = static_cast<std::uint8_t>((magnitude & ((1u << width) - 1)) | sign << width);
        rounded[i] = float_of(magnitude << (23 - width) | sign << 31);
    }
});

// A number of steps back as a magnitude: one rounding of an exact product, the same on every machine.
inline float magnitude_of(int count_of_steps, float largest) {
    return static_cast<float>(static_cast<double>(largest) * count_of_steps / steps);
}

// To the nearest integer, ties to even, for numbers far below 2**51: beyond 2**52 doubles are integers.
inline int steps_of(float magnitude, float largest) {
    const double quotient = static_cast<double>(magnitude) * steps / (largest > 0 ? largest : 1.0f);
    return static_cast<int>((quotient + 0x1.8p52) - 0x1.8p52);
}

const auto step_symbols = Twice([](const float* __restrict values, std::size_t count, float largest,
                                   std::uint8_t* __restrict symbols) JOULEWISE_INLINE {
    for (std::size_t i = 0; i < count; ++i) {
        symbols[i] = static_cast<std::uint8_t>(steps_of(std::fabs(values[i]), largest));
    }
});

const auto sign_symbols =
    Twice([](const float* __restrict values, std::size_t count, std::uint8_t* __restrict symbols) JOULEWISE_INLINE {
        for (std::size_t i = 0; i < count; ++i) symbols[i] = (bits_of(values[i]) & 0x7fffffff) != 0;
    });

// The mean magnitude of the values that are not zero: added one after another, so that NumPy gives the same bits.
float mean_magnitude(const float* values, std::uint64_t count) {
    double sum = 0;
    std::uint64_t nonzero = 0;
    for (std::uint64_t i = 0; i < count; ++i) {
        sum += std::fabs(static_cast<double>(values[i]));
        nonzero += (bits_of(values[i]) & 0x7fffffff) != 0;
    }
    return static_cast<float>(sum / static_cast<double>(std::max<std::uint64_t>(nonzero, 1)));
}

// Symbols of some values of a tensor, computed anew whenever they are needed: that is cheaper than to keep them.
void symbols_of(const Tensor& tensor, const float* values, std::size_t count, std::uint8_t* symbols) {
    switch (tensor.type) {
        case float32: return float_symbols<23>(values, count, symbols);
        case float16: return float_symbols<10>(values, count, symbols);
        case bfloat16: return float_symbols<7>(values, count, symbols);
        case ternary: return sign_symbols(values, count, symbols);
        default: return step_symbols(values, count, tensor.largest, symbols);
    }
}

const auto largest_magnitude = Twice([](const float* values, std::uint64_t count) JOULEWISE_INLINE {
    std::uint32_t largest = 0;
    for (std::uint64_t i = 0; i < count; ++i) largest = std::max(largest, bits_of(values[i]) & 0x7fffffff);
    return largest;
});

// What values have besides their symbols: whole bytes, if they have some, and the values as rounded.
void put_others(const Tensor& tensor, const float* magnitudes, const float* values, const std::uint8_t* symbols,
                std::size_t count, std::uint8_t* bytes, float* rounded) {
    switch (tensor.type) {
        case float32:
            loops->put_triples(values, count, bytes);
            if (rounded) std::copy_n(values, count, rounded);
            return;
        case float16: return put_further<10>(values, count, bytes, rounded);
        case bfloat16: return put_further<7>(values, count, bytes, rounded);
        default:
            for (std::size_t i = 0; i < count; ++i) {
                rounded[i] = float_of(bits_of(magnitudes[symbols[i]]) | (bits_of(values[i]) & 0x80000000));
            }
    }
}

// The magnitudes of an int8 or a ternary tensor, by symbol.
struct Magnitudes {
    float of[128];

    explicit Magnitudes(const Tensor& tensor) {
        for (int i = 0; tensor.type == int8 && i < 128; ++i) of[i] = magnitude_of(i, tensor.largest);
        if (tensor.type == ternary) of[0] = 0, of[1] = tensor.largest;
    }
};

// Count the symbols of a tensor, a chunk at a time, which stays in the cache between loops. Returns whether all values
// are finite: of float32 numbers the symbol says so, other types have none for those that are not.
bool count_symbols(Tensor& tensor, const float* values, Counter& counter) {
    if (tensor.type == int8) tensor.largest = float_of(largest_magnitude(values, tensor.kept));
    if (tensor.type == ternary) tensor.largest = mean_magnitude(values, tensor.kept);
    for (std::uint64_t done = 0; done < tensor.kept; done += chunk) {
        const auto some = static_cast<std::size_t>(std::min<std::uint64_t>(chunk, tensor.kept - done));
        std::uint8_t symbols[chunk];
        if (tensor.type != float32 && largest_magnitude(values + done, some) > largest_finite) return false;
        symbols_of(tensor, values + done, some, symbols);
        counter.add(symbols, some);
    }
    return tensor.type != float32 || !counter.has_met(highest_symbol[float32] + 1);
}

// -------------------------------------------------------------------------------------------------------------- places

// Where the parts of the bit stream and of the value bytes begin; whoever writes or reads a part moves on.
struct Places {
    std::uint64_t bytes[types] = {};
    std::uint64_t remainders[most_planes] = {};
    std::uint64_t odd[types][3] = {};
    std::uint64_t value_bytes = 0;
    std::uint64_t symbols = 0;  // The first bit after the planes.
};

Places places_of(const Tensor* tensors, std::int64_t count, std::uint64_t unary_bits) {
    std::uint64_t listed[most_planes] = {}, kept[types] = {};
    for (std::int64_t i = 0; i < count; ++i) {
        kept[tensors[i].type] += tensors[i].kept;
        for (int plane = 0; plane < tensors[i].parameter; ++plane) listed[plane] += tensors[i].listed;
    }
    Places places;
    places.symbols = unary_bits;
    for (int plane = 0; plane < most_planes; ++plane) {
        places.remainders[plane] = places.symbols;
        places.symbols += listed[plane];
    }
    for (int type = 0; type < types; ++type) {
        places.bytes[type] = places.value_bytes;
        places.value_bytes += kept[type] * static_cast<std::uint64_t>(whole_bytes[type]);
        for (int bit = 0; bit < odd_bits[type]; ++bit) {
            places.odd[type][bit] = places.symbols;
            places.symbols += kept[type];
        }
    }
    return places;
}

// -------------------------------------------------------------------------------------------------------------- encode

std::uint8_t* put_count(std::uint8_t* out, std::uint64_t count) {
    for (; count > 127; count >>= 7) *out++ = static_cast<std::uint8_t>((count & 127) | 128);
    *out++ = static_cast<std::uint8_t>(count);
    return out;
}

std::uint8_t* put_entry(std::uint8_t* out, const Tensor& tensor) {
    const Code& code = tensor.code;
    out = put_count(out, tensor.kept);
    if (!tensor.kept) return out;
    *out++ = static_cast<std::uint8_t>(tensor.parameter | tensor.type << 5);
    if (scaled(tensor.type)) {
        store(out, tensor.largest);
        out += 4;
    }
    const int more = code.count - 1;
    *out++ = code.low;
    *out++ = static_cast<std::uint8_t>(std::min(more, 63) | code.kind << 6);
    if (more >= 63) *out++ = static_cast<std::uint8_t>(more - 63);
    for (int i = 0; code.kind == huffman && i < code.count; i += 2) {
        *out++ = static_cast<std::uint8_t>(code.lengths[i] | (i + 1 < code.count ? code.lengths[i + 1] << 4 : 0));
    }
    return out;
}

const auto all_ascend = Twice([](const std::uint32_t* indices, std::uint64_t count) JOULEWISE_INLINE {
    std::uint32_t wrong = 0;
    for (std::uint64_t i = 1; i < count; ++i) wrong |= indices[i] <= indices[i - 1];
    return !wrong;
});

// Whether the kept coordinates of a tensor ascend, and lie in it.
bool ascends(const Tensor& tensor, const std::uint32_t* indices) {
    return indices[0] >= tensor.offset && indices[tensor.kept - 1] < tensor.offset + tensor.size &&
           all_ascend(indices, tensor.kept);
}

const auto gaps_of = Twice([](const std::uint32_t* positions, std::uint32_t before, std::size_t count,
                              std::uint32_t* __restrict gaps) JOULEWISE_INLINE {
    gaps[0] = positions[0] - before - 1;
    for (std::size_t i = 1; i < count; ++i) gaps[i] = positions[i] - positions[i - 1] - 1;
});

void put_positions(const Tensor& tensor, const std::uint32_t* positions, UnaryWriter& unary, Chunk& work,
                   std::uint8_t* stream, Places& places) {
    std::uint32_t before = static_cast<std::uint32_t>(tensor.offset) - 1;  // Wraps, and wraps back.
    for (std::uint64_t done = 0; done < tensor.listed; done += chunk) {
        const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(chunk, tensor.listed - done));
        const std::uint32_t* const own = positions + done;
        gaps_of(own, before, count, work.numbers);
        before = own[count - 1];
        unary = loops->put_unary(unary, work.numbers, count, tensor.parameter);
        put_planes(work, count, tensor.parameter, stream, places.remainders);
    }
}

const auto odd_bits_of = Twice([](const float* __restrict rounded, std::size_t count, bool sign_alone,
                                  std::uint8_t* __restrict bits) JOULEWISE_INLINE {
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t word = bits_of(rounded[i]), sign = word >> 31;
        bits[i] = static_cast<std::uint8_t>(sign_alone ? sign : (word >> 21 & 3) | sign << 2);
    }
});

void put_odd_bits(ValueType type, const float* rounded, std::size_t count, Chunk& work, std::uint8_t* stream,
                  Places& places) {
    odd_bits_of(rounded, count, scaled(type), work.bytes);
    loops->split_bytes(work, count, 0, odd_bits[type]);
    put_rows(work, count, odd_bits[type], stream, places.odd[type]);
}

// Write codes of which planes hold all bits, closing ones included: a value has a bit at each level before its last
// one.
void put_levels(Chunk& work, std::size_t count, int longest, std::uint8_t* stream, std::uint64_t* level_at) {
    const std::size_t words = words_of(count);
    std::uint64_t live[chunk / 64] = {}, level_bits[chunk / 64];
    for (int level = longest - 1; level >= 0; --level) {
        for (std::size_t i = 0; i < words; ++i) live[i] |= load<std::uint64_t>(work.planes[level + 1] + 8 * i);
        std::memcpy(level_bits, work.planes[level], 8 * words);
        const std::size_t bits = loops->pack(level_bits, live, words, work.bytes);
        put_bits(stream, level_at[level], work.bytes, bits);
        level_at[level] += bits;
    }
}

// The codewords of a tensor's symbols, in two bytes.
struct Book {
    Dictionary lower, upper;
    int longest;

    explicit Book(const Code& code) : longest(longest_length(code)) {
        std::uint16_t words[symbols_of_a_byte];
        codewords(code, words);
        for (int symbol = code.low; symbol < code.low + code.count; ++symbol) {
            if (!code.lengths[symbol - code.low]) continue;
            lower.add(static_cast<std::uint8_t>(symbol), static_cast<std::uint8_t>(words[symbol]));
            upper.add(static_cast<std::uint8_t>(symbol), static_cast<std::uint8_t>(words[symbol] >> 8));
        }
    }
};

void put_symbols(const Book& book, const std::uint8_t* symbols, std::size_t count, Chunk& work, std::uint8_t* stream,
                 std::uint64_t* level_at) {
    loops->look_up(book.lower, symbols, count, work.bytes);
    loops->split_bytes(work, count, 0, std::min(8, book.longest + 1));
    if (book.longest > 7) {
        loops->look_up(book.upper, symbols, count, work.bytes);
        loops->split_bytes(work, count, 8, book.longest - 7);
    }
    put_levels(work, count, book.longest, stream, level_at);
}

// Choose code and Rice parameter of a tensor whose symbols are counted; returns its bits in the stream.
std::uint64_t plan(Tensor& tensor, const std::uint32_t* positions, Counter& counter, std::uint64_t& unary_bits) {
    const Rice rice = shortest(tensor, positions);
    tensor.parameter = static_cast<std::uint8_t>(rice.parameter);
    unary_bits += rice.unary_bits;
    Histogram histogram;
    counter.finish(histogram);
    tensor.code = choose(histogram);
    for (int i = 0; i < tensor.code.count; ++i) {
        for (int level = 0; level < tensor.code.lengths[i]; ++level)
            tensor.live[level] += histogram[tensor.code.low + i];
    }
    return rice.unary_bits + tensor.listed * tensor.parameter + coded_bits(tensor.code, histogram + tensor.code.low) +
           tensor.kept * static_cast<std::uint64_t>(mantissa_bits[tensor.type] + 1);
}

// Where each level of symbol bits begins; the last number is where the stream ends.
void place_levels(const Tensor* tensors, std::int64_t count, std::uint64_t at, std::uint64_t* level_at) {
    for (int level = 0; level < levels; ++level) {
        level_at[level] = at;
        for (std::int64_t i = 0; i < count; ++i) at += tensors[i].live[level];
    }
}

// One payload in the making: first all forms are chosen, and its lengths are known; then it is written.
class Encoder {
  public:
    Encoder(const std::uint32_t* indices, const float* values, std::int64_t tensors)
        : indices_(indices), values_(values), tensors_(static_cast<std::uint64_t>(tensors)), count_(tensors) {}

    // Finds what each tensor keeps.
    Status divide(std::uint64_t kept, const std::int64_t* offsets, const std::uint8_t* value_types) {
        if (tensors_.failed()) return out_of_memory;
        std::uint64_t first = 0, dropped = 0;
        for (std::int64_t i = 0; i < count_; ++i) {
            if (value_types[i] >= types) return invalid_argument;
            // Where indices do not ascend this is some place or other, and seen to be wrong before it is used.
            const auto* const end = std::lower_bound(indices_ + first, indices_ + kept, offsets[i + 1]);
            const auto stop = static_cast<std::uint64_t>(end - indices_);
            if (stop - first > static_cast<std::uint64_t>(offsets[i + 1] - offsets[i])) return unsound_selection;
            Tensor& tensor = tensors_.get()[i] = tensor_of(offsets, i, first, stop - first);
            tensor.type = static_cast<ValueType>(value_types[i]);
            exact_ = exact_ && (tensor.type == float32 || stop == first);
            dropped += tensor.flipped ? tensor.listed : 0;
            first = stop;
        }
        if (first != kept) return unsound_selection;
        dropped_.emplace(dropped);
        return dropped_->failed() ? out_of_memory : succeeded;
    }

    // Chooses all forms and writes the table. Returns its end; null if indices do not ascend or a value is not finite.
    std::uint8_t* plan_all(std::uint8_t* table, double* tensor_bits) {
        std::uint32_t* absent = dropped_->get();
        Counter counter;
        for (std::int64_t i = 0; i < count_; ++i) {
            Tensor& tensor = tensors_.get()[i];
            const std::uint8_t* const begin = table;
            std::uint64_t bits = 0;
            if (tensor.kept) {
                const std::uint32_t* const present = indices_ + tensor.first;
                if (!ascends(tensor, present)) return nullptr;
                if (!count_symbols(tensor, values_ + tensor.first, counter)) return nullptr;
                const std::uint32_t* const listed = tensor.flipped ? absent : present;
                if (tensor.flipped) absent = complement(&tensor, present, tensor.kept, absent);
                bits = plan(tensor, listed, counter, unary_bits_);
            }
            table = put_entry(table, tensor);
            bits += 8 * static_cast<std::uint64_t>(table - begin);
            tensor_bits[i] = tensor.kept ? static_cast<double>(bits) : 0;
        }
        places_ = places_of(tensors_.get(), count_, unary_bits_);
        place_levels(tensors_.get(), count_, places_.symbols, level_at_);
        stream_bytes_ = (level_at_[levels - 1] + 7) / 8;
        return table;
    }

    // Bytes of values and bits, and bits of the unary stream; whether the values are sent as they are.
    std::uint64_t body_bytes() const { return places_.value_bytes + stream_bytes_; }
    std::uint64_t unary_bits() const { return unary_bits_; }
    bool is_exact() const { return exact_; }

    // Words of the stream go beyond its end, where the body has none: it has a place of its own.
    Status write(std::uint8_t* body, float* rounded) const {
        Scratch<std::uint8_t> stream(stream_bytes_);
        if (stream.failed()) return out_of_memory;
        std::memset(stream.get(), 0, static_cast<std::size_t>(stream_bytes_) + slack);
        write_all(body, stream.get(), exact_ ? nullptr : rounded);
        std::memcpy(body + places_.value_bytes, stream.get(), static_cast<std::size_t>(stream_bytes_));
        return succeeded;
    }

  private:
    void write_all(std::uint8_t* body, std::uint8_t* stream, float* rounded) const {
        Chunk work = {};
        Places places = places_;
        std::uint64_t level_at[levels];
        std::copy(level_at_, level_at_ + levels, level_at);
        UnaryWriter unary(stream, unary_bits_);
        const std::uint32_t* absent = dropped_->get();
        for (std::int64_t i = 0; i < count_; ++i) {
            const Tensor& tensor = tensors_.get()[i];
            if (!tensor.kept) continue;
            put_positions(tensor, tensor.flipped ? absent : indices_ + tensor.first, unary, work, stream, places);
            absent += tensor.flipped ? tensor.listed : 0;
            put_values(tensor, body, rounded ? rounded + tensor.first : nullptr, work, stream, places, level_at);
        }
        unary.finish();
    }

    // Value bytes, odd bits and symbols of a tensor, and its values as a decoder will read them.
    void put_values(const Tensor& tensor, std::uint8_t* body, float* rounded, Chunk& work, std::uint8_t* stream,
                    Places& places, std::uint64_t* level_at) const {
        const Magnitudes magnitudes(tensor);
        const Book book(tensor.code);
        for (std::uint64_t done = 0; done < tensor.kept; done += chunk) {
            const auto some = static_cast<std::size_t>(std::min<std::uint64_t>(chunk, tensor.kept - done));
            const float* const values = values_ + tensor.first + done;
            float* const into = rounded ? rounded + done : nullptr;
            std::uint8_t symbols[chunk];
            symbols_of(tensor, values, some, symbols);
            put_others(tensor, magnitudes.of, values, symbols, some, body + places.bytes[tensor.type], into);
            places.bytes[tensor.type] += some * static_cast<std::uint64_t>(whole_bytes[tensor.type]);
            if (odd_bits[tensor.type]) put_odd_bits(tensor.type, into, some, work, stream, places);
            if (tensor.code.count > 1) put_symbols(book, symbols, some, work, stream, level_at);
        }
    }

    const std::uint32_t* indices_;
    const float* values_;
    Scratch<Tensor> tensors_;
    std::int64_t count_;
    std::optional<Scratch<std::uint32_t>> dropped_;
    bool exact_ = true;  // All values are sent as they are.
    Places places_;
    std::uint64_t unary_bits_ = 0, stream_bytes_ = 0, level_at_[levels] = {};
};

// -------------------------------------------------------------------------------------------------------------- decode

// What is left of the bytes of a payload, and the first thing that is wrong with them.
struct Reader {
    const std::uint8_t* bytes;
    std::uint64_t size, at;
    std::int64_t* details;

    Status refuse(Status status, std::int64_t first = 0, std::int64_t second = 0, std::int64_t third = 0) {
        details[0] = first;
        details[1] = second;
        details[2] = third;
        return status;
    }

    bool has(std::uint64_t count) const { return count <= size - at; }

    Status cut_off_in_entry(std::int64_t tensor, std::int64_t expected) {
        return refuse(cut_off_entry, tensor, expected, static_cast<std::int64_t>(size - at));
    }

    Status cut_off_in_code(std::int64_t expected) {
        return refuse(cut_off_code, expected, static_cast<std::int64_t>(size - at));
    }
};

Status take_count(Reader& reader, std::int64_t tensor, std::uint64_t& count) {
    count = 0;
    for (int place = 0; place < 5; ++place) {
        if (!reader.has(1)) return reader.cut_off_in_entry(tensor, 1);
        const std::uint64_t part = reader.bytes[reader.at++];
        count |= (part & 127) << 7 * place;
        if (part < 128) return part || !place ? succeeded : reader.refuse(needless_zeros, tensor);
    }
    return reader.refuse(long_count, tensor);
}

Status take_lengths(Reader& reader, Code& code) {
    const int bytes = (code.count + 1) / 2;
    if (!reader.has(static_cast<std::uint64_t>(bytes))) return reader.cut_off_in_code(bytes);
    unsigned room = 1u << longest_code, left = room;
    for (int i = 0; i < 2 * bytes; ++i) {
        const unsigned length = reader.bytes[reader.at + static_cast<unsigned>(i) / 2] >> 4 * (i & 1) & 15;
        if (length && (i >= code.count || room >> length > left)) return reader.refuse(incomplete_code);
        left -= length ? room >> length : 0;
        if (i < code.count) code.lengths[i] = static_cast<std::uint8_t>(length);
    }
    reader.at += static_cast<unsigned>(bytes);
    return left ? reader.refuse(incomplete_code) : succeeded;
}

Status take_code(Reader& reader, int highest, Code& code) {
    if (!reader.has(2)) {  // Asked for one by one.
        reader.at = reader.size;
        return reader.cut_off_in_code(1);
    }
    const int low = reader.bytes[reader.at], second = reader.bytes[reader.at + 1];
    const auto kind = static_cast<CodeKind>(second >> 6);
    int count = (second & 63) + 1;
    reader.at += 2;
    if (count == 64) {
        if (!reader.has(1)) return reader.cut_off_in_code(1);
        count += reader.bytes[reader.at++];
    }
    if (low + count - 1 > highest) return reader.refuse(symbol_too_high, low + count - 1, highest);
    if (kind == huffman) {
        code.count = static_cast<std::uint16_t>(count);
        code.low = static_cast<std::uint8_t>(low);
        code.kind = kind;
        return take_lengths(reader, code);
    }
    if (kind != balanced && count > longest_code + 1) return reader.refuse(long_unary_code, count);
    code = known_code(kind, low, count);
    return succeeded;
}

Status take_entry(Reader& reader, std::int64_t at, Tensor& tensor) {
    if (!reader.has(1)) return reader.cut_off_in_entry(at, 1);
    const int first = reader.bytes[reader.at++];
    if (first >> 5 >= types) return reader.refuse(unknown_type, at, first >> 5);
    tensor.type = static_cast<ValueType>(first >> 5);
    tensor.parameter = static_cast<std::uint8_t>(first & 31);
    if (scaled(tensor.type)) {
        if (!reader.has(4)) return reader.cut_off_in_entry(at, 4);
        const auto word = load<std::uint32_t>(reader.bytes + reader.at);
        reader.at += 4;
        if (word > largest_finite) return reader.refuse(unsound_largest, at, word);
        tensor.largest = float_of(word);
    }
    return take_code(reader, highest_symbol[tensor.type], tensor.code);
}

// What the table says of the payload as a whole: how long its parts are.
struct Extent {
    std::uint64_t kept, value_bytes[types], plane_bits, longest_unary;
};

Status take_table(Reader& reader, const std::int64_t* offsets, std::int64_t count, Tensor* tensors, Extent& extent) {
    extent = {};
    for (std::int64_t i = 0; i < count; ++i) {
        std::uint64_t kept;
        if (const Status status = take_count(reader, i, kept)) return status;
        const auto size = static_cast<std::uint64_t>(offsets[i + 1] - offsets[i]);
        if (kept > size) return reader.refuse(too_many_kept, i, static_cast<std::int64_t>(kept));
        Tensor& tensor = tensors[i] = tensor_of(offsets, i, extent.kept, kept);
        if (const Status status = kept ? take_entry(reader, i, tensor) : succeeded) return status;
        const int type = tensor.type;
        extent.kept += kept;
        extent.value_bytes[type] += kept * static_cast<std::uint64_t>(whole_bytes[type]);
        extent.plane_bits += tensor.listed * tensor.parameter + kept * static_cast<std::uint64_t>(odd_bits[type]);
        extent.longest_unary += tensor.listed + ((size - tensor.listed) >> tensor.parameter);
    }
    return succeeded;
}

// The unary stream has as many ones as positions are listed, and ends in one.
Status check_unary(const Stream& stream, std::uint64_t expected, Reader& reader) {
    std::uint64_t found = 0;
    for (std::uint64_t at = 0; at < stream.unary_bits; at += 64) {
        const std::uint64_t left = stream.unary_bits - at, word = stream.word_at(at);
        found += static_cast<std::uint64_t>(bit_count(left < 64 ? word & lowest_bits(left) : word));
    }
    const bool ends_in_one = !stream.unary_bits || stream.bit_at(stream.unary_bits - 1);
    if (found == expected && ends_in_one) return succeeded;
    return reader.refuse(wrong_count, static_cast<std::int64_t>(found), static_cast<std::int64_t>(expected));
}

const auto sum_of = Twice([](const std::uint32_t* numbers, std::size_t count) JOULEWISE_INLINE {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += numbers[i];
    return sum;
});

// Positions from the places of their ones, of which the first could be `first`, and the sums of their remainders.
const auto place = Twice([](const std::uint32_t* __restrict ones, std::uint32_t first, int parameter,
                            const std::uint32_t* __restrict remainders, std::uint32_t before, std::size_t count,
                            std::uint32_t* __restrict positions) JOULEWISE_INLINE {
    for (std::size_t i = 0; i < count; ++i) {
        const auto others = static_cast<std::uint32_t>(i);
        positions[i] = ((ones[i] - first - others) << parameter) + remainders[i] + before + others;
    }
});

// Positions of one tensor, whose quotients begin at bit `begin` of the stream; false if one lies outside it.
bool take_positions(const Tensor& tensor, UnaryReader& unary, std::uint64_t& begin, Chunk& work, const Stream& stream,
                    Places& places, std::uint32_t* positions) {
    const int parameter = tensor.parameter;
    std::uint64_t remainders = 0, zeros = 0;
    std::uint32_t ones[chunk + 8];
    for (std::uint64_t done = 0; done < tensor.listed; done += chunk) {
        const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(chunk, tensor.listed - done));
        unary.take(ones, count);
        // Checked first, so that no shift below can overflow.
        zeros = ones[count - 1] - begin - (done + count - 1);
        if (zeros > tensor.size >> parameter) return false;
        take_planes(work, count, parameter, stream, places.remainders);
        // All that lies before a position: zeros of the stream, in steps of 2**parameter, remainders, other positions.
        const auto before = static_cast<std::uint32_t>(tensor.offset + remainders + done);
        if (parameter) remainders += sum_of(work.numbers, count), loops->sum_up(work.numbers, count);
        place(ones, static_cast<std::uint32_t>(begin + done), parameter, work.numbers, before, count, positions + done);
        if ((zeros << parameter) + remainders + done + count > tensor.size) return false;
    }
    begin += zeros + tensor.listed;
    return true;
}

// Positions of all tensors. `shortest_form` becomes false where an encoder would have taken another Rice parameter.
Status take_all_positions(const Tensor* tensors, std::int64_t count, const Stream& stream, Places& places,
                          Reader& reader, std::uint32_t* indices, float* values, bool& shortest_form) {
    std::uint64_t expected = 0;
    for (std::int64_t i = 0; i < count; ++i) expected += tensors[i].listed;
    if (const Status status = check_unary(stream, expected, reader)) return status;
    UnaryReader unary(stream.bytes());
    std::uint64_t begin = 0;
    Chunk work = {};
    for (std::int64_t i = 0; i < count; ++i) {
        const Tensor& tensor = tensors[i];
        std::uint32_t* const kept = indices + tensor.first;
        // What is dropped, which is less than what is kept, has its place where values will be.
        std::uint32_t* const positions =
            tensor.flipped ? reinterpret_cast<std::uint32_t*>(values + tensor.first) : kept;
        if (!take_positions(tensor, unary, begin, work, stream, places, positions))
            return reader.refuse(outside_tensor);
        if (tensor.flipped) complement(&tensor, positions, tensor.listed, kept);
        shortest_form = shortest_form && shortest(tensor, positions).parameter == tensor.parameter;
    }
    return succeeded;
}

// How far the symbols of a tensor are read: a mask of the values that need another bit, and the planes of what was
// read. Each code ends with a closing one, as `codewords` makes them.
struct Progress {
    std::uint64_t live;  // So many need another bit.
    std::size_t words;   // Of the mask and of each plane.
    std::uint64_t *mask, *planes;
    unsigned limits[longest_code];  // Of a level: codes below it are complete, others need another bit.
    int longest;
};

void find_limits(const Code& code, Progress& progress) {
    unsigned next = 0;
    for (int level = 0; level < longest_code; ++level) {
        next *= 2;
        for (int i = 0; i < code.count; ++i) next += code.lengths[i] == level + 1;
        progress.limits[level] = next;
    }
    progress.longest = longest_length(code);
}

// Of some words of values, mark those whose code is `limit` or more: bit j of a code, uppermost first, is in plane j.
void mark_open(const std::uint64_t* planes, std::size_t stride, int level, unsigned limit, std::size_t words,
               std::uint64_t* open) {
    std::fill_n(open, words, ~std::uint64_t{0});
    for (int bit = 0; bit <= level; ++bit) {
        const std::uint64_t* const plane = planes + static_cast<std::size_t>(level - bit) * stride;
        if (limit >> bit & 1) {
            for (std::size_t i = 0; i < words; ++i) open[i] &= plane[i];
        } else {
            for (std::size_t i = 0; i < words; ++i) open[i] |= plane[i];
        }
    }
}

// One level of a tensor's codes: each value that needs a bit takes one. `at` moves behind them.
void take_level(Progress& progress, int level, const Stream& stream, std::uint64_t& at) {
    constexpr std::size_t most = 64;
    std::uint64_t taken[most], open[most];
    const unsigned limit = progress.limits[level];
    progress.live = 0;
    for (std::size_t done = 0; done < progress.words; done += most) {
        const std::size_t words = std::min(most, progress.words - done);
        std::uint64_t* const mask = progress.mask + done;
        std::uint64_t* const plane = progress.planes + static_cast<std::size_t>(level) * progress.words + done;
        for (std::size_t i = 0; i < words; ++i) {
            taken[i] = stream.word_at(at);
            at += static_cast<std::uint64_t>(bit_count(mask[i]));
        }
        loops->spread(taken, mask, words);
        for (std::size_t i = 0; i < words; ++i) plane[i] |= taken[i];
        if (limit >> level > 1) {
            std::fill_n(open, words, std::uint64_t{0});  // There are no more codes than those below the limit.
        } else {
            mark_open(progress.planes + done, progress.words, level, limit, words, open);
        }
        std::uint64_t* const closings = plane + progress.words;
        for (std::size_t i = 0; i < words; ++i) {
            closings[i] = mask[i] & ~open[i];
            mask[i] &= open[i];
            progress.live += static_cast<std::uint64_t>(bit_count(mask[i]));
        }
    }
    if (!progress.live) progress.longest = level + 1;  // A hostile table may hold longer codes, whose planes are unset.
}

// Symbols of all values, level by level; `at` moves behind them.
Status take_symbols(std::int64_t count, const Stream& stream, std::uint64_t& at, Reader& reader, Progress* all) {
    std::uint64_t live = 0;
    for (std::int64_t i = 0; i < count; ++i) live += all[i].live;
    for (int level = 0; live; ++level) {
        if (at + live > stream.bits) return reader.refuse(cut_off_values);
        live = 0;
        for (std::int64_t i = 0; i < count; ++i) {
            if (all[i].live) take_level(all[i], level, stream, at);
            live += all[i].live;
        }
    }
    return succeeded;
}

// What closed codes stand for: a byte or two.
class Meanings {
  public:
    Meanings() : symbols_(std::size_t{1} << (longest_code + 1)) {}
    bool failed() const { return symbols_.failed(); }

    void learn(const Code& code) {
        std::uint16_t book[symbols_of_a_byte];
        codewords(code, book);
        bytes_.size = 0;
        for (int i = 0; i < code.count; ++i) {
            const std::uint16_t word = code.lengths[i] ? book[code.low + i] : 0;
            const auto symbol = static_cast<std::uint8_t>(code.low + i);
            if (word) symbols_.get()[word] = symbol;
            if (word && word < 256) bytes_.add(static_cast<std::uint8_t>(word), symbol);
        }
    }

    // The symbols of a chunk of values from its planes.
    void look_up(Chunk& work, std::size_t count, int longest, std::uint8_t* symbols) const {
        loops->join_bytes(work, count, 0, std::min(8, longest + 1));
        if (longest < 8) return loops->look_up(bytes_, work.bytes, count, symbols);
        std::copy_n(work.bytes, count, symbols);
        loops->join_bytes(work, count, 8, longest - 7);
        for (std::size_t i = 0; i < count; ++i) symbols[i] = symbols_.get()[symbols[i] | unsigned{work.bytes[i]} << 8];
    }

  private:
    Scratch<std::uint8_t> symbols_;  // Only those of closed codes are ever written or read.
    Dictionary bytes_;
};

// Symbols of some values of a tensor, all of whose codes are read.
void take_meanings(const Tensor& tensor, const Progress& progress, const Meanings& meanings, std::uint64_t done,
                   std::size_t count, Chunk& work, std::uint8_t* symbols) {
    if (tensor.code.count < 2) {
        std::fill_n(symbols, count, tensor.code.low);
        return;
    }
    for (int row = 0; row <= progress.longest; ++row) {
        const std::uint64_t* const plane = progress.planes + static_cast<std::size_t>(row) * progress.words;
        std::memcpy(work.planes[row], plane + done / 64, 8 * words_of(count));
    }
    meanings.look_up(work, count, progress.longest, symbols);
}

Status check_filling(const Stream& stream, std::uint64_t at, Reader& reader) {
    const std::uint64_t left = stream.bits - at;
    if (left <= 7 && !(stream.word_at(at) & lowest_bits(left))) return succeeded;
    return reader.refuse(filled_wrongly, static_cast<std::int64_t>(left));
}

template <int width>
const auto join_shorter =
    Twice([](const std::uint8_t* __restrict symbols, const std::uint8_t* __restrict bytes,
             const std::uint8_t* __restrict upper, std::size_t count, float* __restrict values) JOULEWISE_INLINE {
        for (std::size_t i = 0; i < count; ++i) {
            values[i] = joined<width>(symbols[i], bytes[i] | (width == 10 ? std::uint32_t{upper[i]} << 8 : 0));
        }
    });

// Some values of a tensor.
void join(const Tensor& tensor, const float* magnitudes, const std::uint8_t* symbols, std::size_t count,
          const std::uint8_t* bytes, Chunk& work, const Stream& stream, Places& places, float* values) {
    const int type = tensor.type;
    take_rows(work, count, odd_bits[type], stream, places.odd[type]);
    loops->join_bytes(work, count, 0, odd_bits[type]);
    const std::uint8_t* const own = bytes + places.bytes[type];
    switch (tensor.type) {
        case float32: loops->join_triples(symbols, own, count, values); break;
        case float16: join_shorter<10>(symbols, own, work.bytes, count, values); break;
        case bfloat16: join_shorter<7>(symbols, own, work.bytes, count, values); break;
        default:
            for (std::size_t i = 0; i < count; ++i) {
                values[i] = float_of(bits_of(magnitudes[symbols[i]]) | std::uint32_t{work.bytes[i]} << 31);
            }
    }
    places.bytes[type] += count * static_cast<std::uint64_t>(whole_bytes[type]);
}

// Whether the values of an int8 or ternary tensor would get the same steps and the same magnitude again.
bool reaches_largest(const Tensor& tensor, const Histogram& histogram) {
    if (tensor.type == ternary) return (histogram[1] > 0) == (tensor.largest > 0);
    float reached = 0;
    for (int symbol = 0; symbol < 128; ++symbol) {
        if (!histogram[symbol]) continue;
        const float magnitude = magnitude_of(symbol, tensor.largest);
        if (steps_of(magnitude, tensor.largest) != symbol) return false;
        reached = std::max(reached, magnitude);
    }
    return reached == tensor.largest;
}

// Values of all tensors, and whether an encoder would have written the same codes for them.
Status take_values(const Tensor* tensors, std::int64_t count, const Progress* progress, Meanings& meanings,
                   const std::uint8_t* bytes, const Stream& stream, Places& places, Reader& reader, float* values,
                   bool& shortest_form) {
    Chunk work = {};
    Counter counter;
    for (std::int64_t i = 0; i < count; ++i) {
        const Tensor& tensor = tensors[i];
        if (!tensor.kept) continue;
        const Magnitudes magnitudes(tensor);
        meanings.learn(tensor.code);
        for (std::uint64_t done = 0; done < tensor.kept; done += chunk) {
            const auto some = static_cast<std::size_t>(std::min<std::uint64_t>(chunk, tensor.kept - done));
            std::uint8_t symbols[chunk];
            take_meanings(tensor, progress[i], meanings, done, some, work, symbols);
            counter.add(symbols, some);
            join(tensor, magnitudes.of, symbols, some, bytes, work, stream, places, values + tensor.first + done);
        }
        Histogram histogram;
        counter.finish(histogram);
        if (scaled(tensor.type) && !reaches_largest(tensor, histogram)) return reader.refuse(unreached_largest);
        shortest_form = shortest_form && same(choose(histogram), tensor.code);
    }
    return succeeded;
}

// Words that reading symbols takes: for each tensor whose codes have bits a mask and planes.
std::uint64_t symbol_words(const Tensor* tensors, std::int64_t count) {
    std::uint64_t words = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        if (tensors[i].code.count < 2) continue;
        words += words_of(tensors[i].kept) * (static_cast<std::uint64_t>(longest_length(tensors[i].code)) + 2);
    }
    return words;
}

// Make ready to read symbols: at first every value needs a bit.
void start(const Tensor* tensors, std::int64_t count, std::uint64_t* words, Progress* all) {
    for (std::int64_t i = 0; i < count; ++i) {
        const Tensor& tensor = tensors[i];
        all[i] = {};
        if (tensor.code.count < 2) continue;
        find_limits(tensor.code, all[i]);
        all[i].live = tensor.kept;
        all[i].words = words_of(tensor.kept);
        all[i].mask = words;
        all[i].planes = words + all[i].words;
        words = all[i].planes + all[i].words * (static_cast<std::size_t>(all[i].longest) + 1);
        std::fill_n(all[i].mask, all[i].words, ~std::uint64_t{0});
        if (tensor.kept % 64) all[i].mask[all[i].words - 1] = lowest_bits(tensor.kept % 64);
        std::fill_n(all[i].planes, all[i].words, std::uint64_t{0});
    }
}

Status take_body(const Tensor* tensors, std::int64_t count, const Stream& stream, const std::uint8_t* bytes,
                 Reader& reader, std::uint32_t* indices, float* values) {
    Scratch<std::uint64_t> words(symbol_words(tensors, count));
    Scratch<Progress> progress(static_cast<std::uint64_t>(count));
    Meanings meanings;
    if (words.failed() || progress.failed() || meanings.failed()) return out_of_memory;
    Places places = places_of(tensors, count, stream.unary_bits);
    bool shortest_form = true;
    Status status = take_all_positions(tensors, count, stream, places, reader, indices, values, shortest_form);
    if (status) return status;
    start(tensors, count, words.get(), progress.get());
    std::uint64_t at = places.symbols;
    if ((status = take_symbols(count, stream, at, reader, progress.get()))) return status;
    if ((status = check_filling(stream, at, reader))) return status;
    status =
        take_values(tensors, count, progress.get(), meanings, bytes, stream, places, reader, values, shortest_form);
    if (status) return status;
    return shortest_form ? succeeded : reader.refuse(not_shortest);
}

// ----------------------------------------------------------------------------------------------------------- aggregate

std::int32_t add_at(double* sum, std::int64_t length, const std::uint32_t* indices, const float* values,
                    std::int64_t kept, double weight) {
    if (length < 0 || kept < 0) return invalid_argument;
    for (std::int64_t i = 0; i < kept; ++i) {
        if (indices[i] >= length) return invalid_argument;
    }
    for (std::int64_t i = 0; i < kept; ++i) sum[indices[i]] += weight * static_cast<double>(values[i]);
    return succeeded;
}

// ------------------------------------------------------------------------------------------------------------ checksum

#if defined(__x86_64__) && defined(__GNUC__)

// CRC-32 by carry-less multiplication: with x**m and x**n modulo the polynomial (both reflected, moved by a bit), 16
// bytes move over the next ones without a table (V. Gopal et al., "Fast CRC Computation for Generic Polynomials Using
// PCLMULQDQ Instruction", Intel, 2009).
struct Folding {
    std::uint64_t low, high;
};
constexpr Folding over_64_bytes = {0x154442bd4, 0x1c6e41596};  // n = 4 * 128 + 32, 4 * 128 - 32
constexpr Folding over_16_bytes = {0x1751997d0, 0x0ccaa009e};  // n = 128 + 32, 128 - 32

__attribute__((target("pclmul,sse4.1"))) inline __m128i folded(__m128i bytes, Folding by, __m128i onto) {
    const __m128i factors = _mm_set_epi64x(static_cast<long long>(by.high), static_cast<long long>(by.low));
    const __m128i low = _mm_clmulepi64_si128(bytes, factors, 0x00), high = _mm_clmulepi64_si128(bytes, factors, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), onto);
}

inline __m128i sixteen(const std::uint8_t* bytes) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)); }

// Continue a checksum, bit by bit: for the last few bytes.
inline std::uint32_t checksum_of_few(std::uint32_t checksum, const std::uint8_t* bytes, std::uint64_t size) {
    for (std::uint64_t i = 0; i < size; ++i) {
        checksum ^= bytes[i];
        for (int bit = 0; bit < 8; ++bit) checksum = checksum >> 1 ^ (checksum & 1 ? 0xedb88320 : 0);
    }
    return checksum;
}

__attribute__((target("pclmul,sse4.1"))) std::uint32_t checksum_of(std::uint32_t checksum, const std::uint8_t* bytes,
                                                                   std::uint64_t size) {
    checksum = ~checksum;
    if (size >= 64) {
        __m128i lanes[4];
        for (int i = 0; i < 4; ++i) lanes[i] = sixteen(bytes + 16 * i);
        lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128(static_cast<int>(checksum)));
        for (bytes += 64, size -= 64; size >= 64; bytes += 64, size -= 64) {
            for (int i = 0; i < 4; ++i) lanes[i] = folded(lanes[i], over_64_bytes, sixteen(bytes + 16 * i));
        }
        __m128i all = lanes[0];
        for (int i = 1; i < 4; ++i) all = folded(all, over_16_bytes, lanes[i]);
        for (; size >= 16; bytes += 16, size -= 16) all = folded(all, over_16_bytes, sixteen(bytes));
        std::uint8_t left[16];
        std::memcpy(left, &all, sizeof left);
        checksum = checksum_of_few(0, left, sizeof left);
    }
    return ~checksum_of_few(checksum, bytes, size);
}

#endif

// ------------------------------------------------------------------------------------------------- what Python calls
// Described below, where C begins.

std::int32_t open_encoder(const std::uint32_t* indices, const float* values, std::int64_t kept,
                          const std::int64_t* offsets, std::int64_t tensors, const std::uint8_t* value_types,
                          std::uint8_t* table, std::int64_t room, double* tensor_bits, std::int64_t* sizes,
                          void** opened) {
    *opened = nullptr;
    if (kept < 0 || room < 0 || !sound(offsets, tensors)) return invalid_argument;
    if (static_cast<std::uint64_t>(room) < static_cast<std::uint64_t>(tensors) * entry_room) return invalid_argument;
    std::unique_ptr<Encoder> encoder(new (std::nothrow) Encoder(indices, values, tensors));
    if (!encoder) return out_of_memory;
    if (const Status status = encoder->divide(static_cast<std::uint64_t>(kept), offsets, value_types)) return status;
    const std::uint8_t* const table_end = encoder->plan_all(table, tensor_bits);
    if (!table_end) return unsound_selection;
    sizes[0] = table_end - table;
    sizes[1] = static_cast<std::int64_t>(encoder->body_bytes());
    sizes[2] = static_cast<std::int64_t>(encoder->unary_bits());
    sizes[3] = encoder->is_exact();
    *opened = encoder.release();
    return succeeded;
}

std::int32_t read_table(const std::uint8_t* payload, std::int64_t size, std::int64_t at, const std::int64_t* offsets,
                        std::int64_t tensors, std::uint8_t* value_types, std::int64_t* numbers) {
    if (size < 0 || at < 0 || at > size || !sound(offsets, tensors)) return invalid_argument;
    Scratch<Tensor> all(static_cast<std::uint64_t>(tensors));
    if (all.failed()) return out_of_memory;
    Reader reader = {payload, static_cast<std::uint64_t>(size), static_cast<std::uint64_t>(at), numbers};
    Extent extent;
    if (const codec::Status status = take_table(reader, offsets, tensors, all.get(), extent)) return status;
    for (std::int64_t i = 0; i < tensors; ++i) value_types[i] = all.get()[i].type;
    numbers[0] = static_cast<std::int64_t>(reader.at);
    numbers[1] = static_cast<std::int64_t>(extent.kept);
    for (int type = 0; type < types; ++type) numbers[2 + type] = static_cast<std::int64_t>(extent.value_bytes[type]);
    numbers[2 + types] = static_cast<std::int64_t>(extent.plane_bits);
    numbers[3 + types] = static_cast<std::int64_t>(extent.longest_unary);
    return succeeded;
}

std::int32_t decode(const std::uint8_t* payload, std::int64_t size, std::int64_t table_at, std::int64_t body_at,
                    std::int64_t unary_bits, const std::int64_t* offsets, std::int64_t tensors, std::int64_t kept,
                    std::uint32_t* indices, float* values, std::int64_t* details) {
    const bool ordered = 0 <= table_at && table_at <= body_at && body_at <= size;
    if (!ordered || unary_bits < 0 || !sound(offsets, tensors)) return invalid_argument;
    Scratch<Tensor> all(static_cast<std::uint64_t>(tensors));
    if (all.failed()) return out_of_memory;
    Reader reader = {payload, static_cast<std::uint64_t>(body_at), static_cast<std::uint64_t>(table_at), details};
    Extent extent;
    if (const codec::Status status = take_table(reader, offsets, tensors, all.get(), extent)) return status;
    const auto unary = static_cast<std::uint64_t>(unary_bits), left = static_cast<std::uint64_t>(size - body_at);
    std::uint64_t value_bytes = 0;
    for (const std::uint64_t bytes : extent.value_bytes) value_bytes += bytes;
    if (extent.kept != static_cast<std::uint64_t>(kept) || value_bytes > left || unary > extent.longest_unary ||
        unary + extent.plane_bits > 8 * (left - value_bytes)) {
        return invalid_argument;
    }
    const std::uint8_t* const bytes = payload + body_at;
    const Stream stream(bytes + value_bytes, left - value_bytes, unary);
    return take_body(all.get(), tensors, stream, bytes, reader, indices, values);
}

}  // namespace codec
}  // namespace

// Plan a payload, and write its table.
//
// indices uint32[kept] ascending, values float32[kept] finite (otherwise: unsound_selection), both there and unchanged
// until the plan is closed; offsets int64[tensors + 1]; value_types uint8[tensors].
// Written are: table, of which `room` bytes are at hand, at least 141 * tensors;
// tensor_bits float64[tensors]: of the kept coordinates of each, without the bits that fill the last byte;
// sizes int64[4]: bytes of the table, bytes of what joulewise_encode_write writes, bits of the unary stream, whether
//   every value is a float32, which is exact;
// plan: for joulewise_encode_write, and then joulewise_encode_close.
JOULEWISE_EXPORT std::int32_t joulewise_encode_open(const std::uint32_t* indices, const float* values,
                                                    std::int64_t kept, const std::int64_t* offsets,
                                                    std::int64_t tensors, const std::uint8_t* value_types,
                                                    std::uint8_t* table, std::int64_t room, double* tensor_bits,
                                                    std::int64_t* sizes, void** plan) {
    return codec::open_encoder(indices, values, kept, offsets, tensors, value_types, table, room, tensor_bits, sizes,
                               plan);
}

// Write value bytes and bit stream: sizes[1] bytes, and none beyond. rounded float32[kept]: what a decoder will read;
// untouched where every value is exact.
JOULEWISE_EXPORT std::int32_t joulewise_encode_write(const void* plan, std::uint8_t* body, float* rounded) {
    return static_cast<const codec::Encoder*>(plan)->write(body, rounded);
}

JOULEWISE_EXPORT void joulewise_encode_close(void* plan) { delete static_cast<codec::Encoder*>(plan); }

// Read the table of a payload, which begins at byte `at`, and check it against the layout.
//
// payload uint8[size], offsets int64[tensors + 1]; value_types uint8[tensors] is written;
// numbers int64[9] is written: where the table ends, kept coordinates, bytes of values of each of the five types, bits
// in planes (remainders and odd bits of values), and the most bits that the unary stream can have. Where the table is
// refused, numbers begin with the details.
JOULEWISE_EXPORT std::int32_t joulewise_read_table(const std::uint8_t* payload, std::int64_t size, std::int64_t at,
                                                   const std::int64_t* offsets, std::int64_t tensors,
                                                   std::uint8_t* value_types, std::int64_t* numbers) {
    return codec::read_table(payload, size, at, offsets, tensors, value_types, numbers);
}

// Read value bytes and bit stream, which begin at byte `body_at` and end with the payload.
//
// indices uint32[kept] and values float32[kept] are written; kept as the table says. The lengths of the parts are known
// to fit, as joulewise_read_table gave them (otherwise: invalid_argument). details int64[3] is written on a refusal.
JOULEWISE_EXPORT std::int32_t joulewise_decode(const std::uint8_t* payload, std::int64_t size, std::int64_t table_at,
                                               std::int64_t body_at, std::int64_t unary_bits,
                                               const std::int64_t* offsets, std::int64_t tensors, std::int64_t kept,
                                               std::uint32_t* indices, float* values, std::int64_t* details) {
    return codec::decode(payload, size, table_at, body_at, unary_bits, offsets, tensors, kept, indices, values,
                         details);
}

// sum[indices[i]] += weight * values[i], in this order; the product is rounded before it is added.
// sum float64[length], indices uint32[kept] below length, values float32[kept]. Nothing is added where an index is not
// below length.
JOULEWISE_EXPORT std::int32_t joulewise_add(double* sum, std::int64_t length, const std::uint32_t* indices,
                                            const float* values, std::int64_t kept, double weight) {
    return codec::add_at(sum, length, indices, values, kept, weight);
}

// CRC-32 as zlib has it: *checksum is that of what comes before, 0 at the start, and becomes that of what is here too.
JOULEWISE_EXPORT std::int32_t joulewise_crc32(const std::uint8_t* bytes, std::int64_t size, std::uint32_t* checksum) {
    if (size < 0) return codec::invalid_argument;
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) {
        *checksum = codec::checksum_of(*checksum, bytes, static_cast<std::uint64_t>(size));
        return codec::succeeded;
    }
#else
    static_cast<void>(bytes);
    static_cast<void>(checksum);
#endif
    return codec::unsupported;
}
