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
#include <cstring>
#include <exception>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <thread>
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

#if defined(_WIN32)
#define JOULEWISE_EXPORT extern "C" __declspec(dllexport)
#else
#define JOULEWISE_EXPORT extern "C" __attribute__((visibility("default")))
#endif

// Raised with every change of a signature below: a library of another number is not used.
JOULEWISE_EXPORT std::int32_t joulewise_kernel_abi() { return 1; }

// ---------------------------------------------------------------------------------------------------------- selection
//
// Coordinate i of tensor g scores |a_i| * w_g in float64; the longest prefix of the order of falling score, ties to the
// lower index, whose integer costs fit a limit is kept. Nothing of the length of the vector is stored:
//
//   1. a sample brackets the score at which the limit is used up;
//   2. one pass over the vector sums squares (where NaN and infinity show), adds the residual and collects candidates;
//   3. the threshold is found exactly among the candidates inside the bracket;
//   4. what is kept is written out, from the candidates where they are few, else from the vector again.
//
// A bracket that misses is followed by a wider one: the sample decides the speed, never the result.

namespace {

enum Status : std::int32_t { kDone = 0, kNotFinite = 1, kSumNotFinite = 2, kNoMemory = 3, kTooLong = 4 };

// For tests alone: paths that depend on the processor, the length or luck, forced.
enum Flag : std::int32_t {
    kPortable = 1,
    kTinySample = 2,   // of 64 places, on vectors of any length
    kHighBracket = 4,  // the sampled bracket lies above the threshold
    kLowBracket = 8,   // ... below it
    kTwoPasses = 16,   // write from the vector
    kOnePass = 32,     // write from the candidates
};

constexpr std::int64_t kChunk = 1 << 16;  // as in ranking.py: squares are summed by segments of this length,
constexpr std::int64_t kLanes = 1 << 11;  // in so many lanes
constexpr std::int64_t kWords = kLanes / 64;
constexpr std::int64_t kSamples = 1 << 16;
constexpr int kBinShift = 47;  // 11 bits of exponent and 5 of mantissa: a bin is 3 % wide
constexpr std::int64_t kBins = 1 << 16;
constexpr int kRadixBits = 12;
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

inline bool reaches(float magnitude, double weight, double lo) {
    return static_cast<double>(magnitude) * weight >= lo;
}

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

#if JOULEWISE_AVX2

template <bool kCarry, bool kSquares>
__attribute__((target("avx2"))) void whole_words_avx2(const Row& row, float threshold, std::uint64_t* words) {
    const __m256 least = _mm256_set1_ps(threshold), factor = _mm256_set1_ps(row.factor);
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
    for (std::int64_t begin = 0; begin + 64 <= row.count; begin += 64) {
        std::uint64_t word = 0;
        for (int part = 0; part < 8; ++part) {
            std::int64_t at = begin + 8 * part;
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
            word |= static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm256_movemask_ps(hit))) << (8 * part);
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

bool has_avx2() { return __builtin_cpu_supports("avx2"); }

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

struct Scanner {
    const Order& order;
    bool portable;

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

// ------------------------------------------------------------------------------------------------------------ brackets

enum class Store { candidates, bracket, nothing };

struct Bracket {
    double lo, hi;
    Store store;
};

// Bins of 32 to the octave, from 2^-191 (or what is less) to 2^129: costs, their squares and numbers of samples.
struct Bins {
    static constexpr int kShift = 52 - 5;
    static constexpr std::uint64_t kFirst = static_cast<std::uint64_t>(1023 - 191) << 5;
    static constexpr std::size_t kCount = 320 << 5;
    std::vector<double> costs = std::vector<double>(kCount, 0.0), squares = costs;
    std::vector<std::int32_t> counts = std::vector<std::int32_t>(kCount, 0);
    double dearest = 0;

    static std::size_t of(std::uint64_t key) {
        std::uint64_t bin = std::max(key >> kShift, kFirst) - kFirst;
        return static_cast<std::size_t>(std::min<std::uint64_t>(bin, kCount - 1));
    }
    static double edge(std::size_t bin) { return bin ? from_bits((kFirst + bin) << kShift) : kSmallest; }
};

// One place in each stride, jittered by multiples of the golden ratio modulo one: no period of the data is met.
inline std::int64_t sample_place(std::uint64_t s, std::uint64_t stride) {
    return static_cast<std::int64_t>(s * stride + (((s * 0x9E3779B9u & 0xFFFFFFFFu) * stride) >> 32));
}

inline void prefetch(const void* place) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(place);
#else
    static_cast<void>(place);
#endif
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

Bins sampled_bins(const Order& order, std::int64_t count, double share) {
    Bins bins;
    sample(order, count, [&](std::uint64_t key, std::int64_t quanta) {
        double cost = static_cast<double>(quanta) * share;
        std::size_t bin = Bins::of(key);
        bins.costs[bin] += cost;
        bins.squares[bin] += cost * cost;
        bins.counts[bin] += 1;
        bins.dearest = std::max(bins.dearest, cost);
    });
    return bins;
}

// Four standard deviations of the sampled cost, and four samples more where few were met, on either side.
Bracket sampled_bracket(const Bins& bins, double limit) {
    Bracket found{kSmallest, kInfinity, Store::bracket};
    double cost = 0, square = 0;
    for (std::size_t bin = Bins::kCount; bin-- > 0;) {
        if (!bins.counts[bin]) continue;
        cost += bins.costs[bin];
        square += bins.squares[bin];
        double spread = 4 * std::sqrt(square) + 4 * bins.dearest;
        if (cost + spread <= limit) found.hi = Bins::edge(bin);
        if (cost - spread > limit) {
            found.lo = Bins::edge(bin);
            break;
        }
    }
    return found;
}

std::int64_t sampled_above(const Bins& bins, double score) {
    if (score == kInfinity) return 0;
    std::int64_t above = 0;
    for (std::size_t bin = Bins::of(bits_of(score)); bin < Bins::kCount; ++bin) above += bins.counts[bin];
    return above;
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
        if (key >= hi) room -= static_cast<double>(cost) * share;
        else if (key >= lo) inside.push_back({key, cost});
    });
    if (inside.empty()) return std::nullopt;
    std::sort(inside.begin(), inside.end(), [](const Sampled& a, const Sampled& b) { return a.key > b.key; });
    std::size_t at = 0;
    while (at + 1 < inside.size() && (room -= static_cast<double>(inside[at].cost) * share) >= 0) ++at;
    std::uint64_t key = inside[at].key;
    auto same = std::count_if(inside.begin(), inside.end(), [&](const Sampled& one) { return one.key == key; });
    if (2 * static_cast<std::size_t>(same) < inside.size()) return std::nullopt;
    return Bracket{from_bits(key), from_bits(key + 1), Store::nothing};
}

// The brackets to try that need no full pass of their own, the likeliest first.
std::vector<Bracket> first_brackets(const Order& order, std::int64_t limit, std::int32_t flags) {
    bool tiny = flags & kTinySample;
    if (!tiny && order.n <= 2 * kSamples) return {{kSmallest, kInfinity, Store::candidates}};
    std::int64_t count = tiny ? std::min<std::int64_t>(64, order.n) : std::min(kSamples, order.n >> 6);
    if (count < 1) return {};
    double share = static_cast<double>(order.n) / static_cast<double>(count), room = static_cast<double>(limit);
    Bins bins = sampled_bins(order, count, share);
    Bracket bracket = sampled_bracket(bins, room);
    std::int64_t candidates = sampled_above(bins, bracket.lo), sure = sampled_above(bins, bracket.hi);
    std::vector<Bracket> brackets;
    if (16 * (candidates - sure) > count) {
        if (auto tie = tie_bracket(order, count, bracket, room)) brackets.push_back(*tie);
    }
    // Candidates take eight bytes: with few of them, storing all is cheaper than reading the vector again.
    bool few = 16 * candidates < count;
    if ((few || (flags & kOnePass)) && !(flags & kTwoPasses)) bracket.store = Store::candidates;
    brackets.push_back(bracket);
    for (Bracket& one : brackets) {
        if (flags & kHighBracket) one.lo = 2 * one.lo, one.hi = kInfinity, one.store = bracket.store;
        if (flags & kLowBracket) one.hi = std::max(one.lo, kSmallest), one.lo = kSmallest, one.store = bracket.store;
    }
    return brackets;
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

// Indices and values, in blocks: growing copies nothing, and little more is taken than is used.
struct Pile {
    struct Block {
        std::unique_ptr<std::uint32_t[]> indices;
        std::unique_ptr<float[]> values;
        std::int64_t size;
    };
    static constexpr std::int64_t kBlock = 1 << 13;
    std::vector<Block> blocks;

    Block& with_room_for_a_word() {
        if (blocks.empty() || blocks.back().size + 64 > kBlock) {
            blocks.push_back({std::unique_ptr<std::uint32_t[]>(new std::uint32_t[kBlock]),
                              std::unique_ptr<float[]>(new float[kBlock]), 0});
        }
        return blocks.back();
    }
};

// What one segment adds up to. `sure` reach the upper end of the bracket, `tied` lie inside a bracket of one score.
struct Tally {
    double squares = 0;
    std::int64_t sure = 0, sure_cost = 0, tied = 0, tied_cost = 0;
};

struct Worker {
    std::size_t first = 0, last = 0;  // segments
    Pile pile;
    bool not_finite = false;
    std::int64_t writes = 0;  // how many of what is kept lie in its segments
};

std::vector<Worker> workers_for(const std::vector<Segment>& segments, std::int64_t n, std::int32_t threads) {
    std::int64_t most = std::min<std::int64_t>(std::max(threads, 1), std::max<std::int64_t>(n / kChunk, 1));
    std::vector<Worker> workers(static_cast<std::size_t>(most));
    std::size_t at = 0;
    for (std::int64_t w = 0; w < most; ++w) {
        Worker& worker = workers[static_cast<std::size_t>(w)];
        worker.first = at;
        while (at < segments.size() && (w + 1 == most || segments[at].start < n * (w + 1) / most)) ++at;
        worker.last = at;
    }
    return workers;
}

// Runs `work` for each worker, the first in this thread; false when memory ran out.
template <typename Work>
bool run_all(std::size_t count, const Work& work) {
    std::atomic<bool> enough{true};
    auto guarded = [&](std::size_t w) {
        try {
            work(w);
        } catch (const std::bad_alloc&) {
            enough = false;
        }
    };
    std::vector<std::thread> threads;
    threads.reserve(count);
    std::size_t started = 1;
    try {
        for (; started < count; ++started) threads.emplace_back(guarded, started);
    } catch (const std::exception&) {
        // No more threads, or no memory for one: this one does the rest.
    }
    guarded(0);
    for (std::size_t w = started; w < count; ++w) guarded(w);
    for (std::thread& thread : threads) thread.join();
    return enough;
}

// --------------------------------------------------------------------------------------------------- the pass over all

struct Marks {
    std::uint64_t lo[kWords], hi[kWords];
};

std::int64_t cost_of_word(const Order& order, std::int64_t tensor, std::int64_t start, std::uint64_t word) {
    if (!order.quanta_each) return order.quanta[tensor] * bit_count(word);
    std::int64_t cost = 0;
    for (; word; word &= word - 1) cost += order.quanta[start + lowest_bit(word)];
    return cost;
}

void store_word(Pile& pile, std::int64_t start, const float* x, std::uint64_t word) {
    Pile::Block& block = pile.with_room_for_a_word();
    std::uint32_t* indices = block.indices.get() + block.size;
    float* values = block.values.get() + block.size;
    block.size += bit_count(word);
    for (; word; word &= word - 1) {
        int place = lowest_bit(word);
        *indices++ = static_cast<std::uint32_t>(start + place);
        *values++ = x[place];
    }
}

struct Pass {
    const Order& order;
    Scanner scanner;
    const Test& lo;
    const Test& hi;
    Store store;
    float* carried;  // of the whole vector; null when it is written already, or not wanted
    bool squares;

    void row(const Segment& segment, std::int64_t start, float* lanes, Worker& worker, Tally& tally) const {
        std::int64_t count = std::min(kLanes, segment.stop - start);
        const float* residual = order.residual ? order.residual + start : nullptr;
        Row row{order.update + start, residual, order.factor, carried ? carried + start : nullptr, lanes, count};
        Marks marks;
        scanner.mark(row, segment.tensor, start, lo, marks.lo);
        const float* x = carried ? carried + start : order.update + start;
        std::int64_t words = (count + 63) / 64;
        if (store == Store::candidates) {
            for (std::int64_t w = 0; w < words; ++w) {
                if (marks.lo[w]) store_word(worker.pile, start + 64 * w, x + 64 * w, marks.lo[w]);
            }
            return;
        }
        Row again{x, nullptr, 1.0f, nullptr, nullptr, count};
        scanner.mark(again, segment.tensor, start, hi, marks.hi);
        for (std::int64_t w = 0; w < words; ++w) {
            if (!marks.lo[w]) continue;
            std::int64_t place = start + 64 * w;
            std::uint64_t inside = marks.lo[w] & ~marks.hi[w];
            tally.sure += bit_count(marks.hi[w]);
            tally.sure_cost += cost_of_word(order, segment.tensor, place, marks.hi[w]);
            if (store == Store::bracket) {
                if (inside) store_word(worker.pile, place, x + 64 * w, inside);
            } else {
                tally.tied += bit_count(inside);
                tally.tied_cost += cost_of_word(order, segment.tensor, place, inside);
            }
        }
    }

    void segment(const Segment& segment, Worker& worker, Tally& tally) const {
        alignas(64) float lanes[kLanes];
        std::int64_t count = segment.stop - segment.start, used = std::min((count + 63) / 64 * 64, kLanes);
        std::fill(lanes, lanes + std::max<std::int64_t>(used, 64), 0.0f);
        double before = tally.squares;
        tally = Tally{};
        for (std::int64_t start = segment.start; start < segment.stop; start += kLanes) {
            row(segment, start, squares ? lanes : nullptr, worker, tally);
        }
        tally.squares = before;
        if (!squares) return;
        tally.squares = folded(lanes, used);
        if (!(tally.squares > 1e-24 && tally.squares < kInfinity)) {
            tally.squares = squares_in_double((carried ? carried : order.update) + segment.start, count);
        }
        if (!(tally.squares < kInfinity)) worker.not_finite = true;
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
    bool all;           // everything fitted; else `misfit` is the first that did not
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

// Costs and numbers by bins of keys: bin 0 for those of at least `sure_from`, the rest below it, the best first.
struct Ladder {
    struct Rung {
        std::int64_t cost = 0, count = 0;
    };
    std::uint64_t sure_from;
    int shift;
    std::vector<Rung> rungs;

    Ladder(std::uint64_t sure_from_key, std::uint64_t worst)
        : sure_from(sure_from_key),
          shift(std::max(0, bit_length(sure_from_key - worst) - kRadixBits)),
          rungs(static_cast<std::size_t>(((sure_from_key - worst) >> shift) + 2)) {}

    // Without a branch on the key, which would be guessed wrong half the time.
    static std::size_t bin(std::uint64_t key, std::uint64_t sure_from, int shift) {
        return static_cast<std::size_t>((1 + ((sure_from - 1 - key) >> shift)) & (0 - std::uint64_t{key < sure_from}));
    }
    std::size_t bin(std::uint64_t key) const { return bin(key, sure_from, shift); }
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
        Ladder ladder(best + 1, worst);
        for (const Item& item : items) {
            Ladder::Rung& rung = ladder.rungs[ladder.bin(item.key)];
            rung.cost += cost_of(order, item);
            ++rung.count;
        }
        std::size_t crossing = ladder.descend(room, kept);
        auto outside = [&](const Item& item) { return ladder.bin(item.key) != crossing; };
        items.erase(std::remove_if(items.begin(), items.end(), outside), items.end());
    }
    std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
        return a.key != b.key ? a.key > b.key : a.index < b.index;
    });
    return run_of(order, items, room, kept);
}

struct Selected {
    Order order;
    std::vector<std::int64_t> free_of_cost;  // where a threshold decides alone
    std::vector<Segment> segments;
    std::vector<Worker> workers;
    std::vector<Tally> tallies;
    Store store = Store::nothing;
    std::int32_t flags = 0;
    double lo = kSmallest;  // what is kept scores at least this,
    Cut end{0, 0, true, {}};  // and comes before the misfit
    std::int64_t kept = 0, spent = 0;
    double squares = 0;

    Scanner scanner() const { return {order, (flags & kPortable) || !has_avx2()}; }
};

// A stretch of what a worker stored, within one tensor.
struct Stretch {
    static constexpr std::int64_t kMost = 512;
    Worker& worker;
    std::int64_t tensor, count;
    const std::uint32_t* indices;
    const float* values;
    std::uint64_t keys[kMost];
};

void fill_keys(const Order& order, Stretch& stretch) {
    if (!order.by_threshold()) {
        for (std::int64_t j = 0; j < stretch.count; ++j) {
            stretch.keys[j] = bits_of(score_of(order, stretch.tensor, stretch.indices[j], stretch.values[j]));
        }
        return;
    }
    double weight = order.weights[stretch.tensor];
    for (std::int64_t j = 0; j < stretch.count; ++j) {
        stretch.keys[j] = bits_of(std::fabs(static_cast<double>(stretch.values[j])) * weight);
    }
}

// Calls `each(stretch)` for all that the workers stored, in order.
template <typename Each>
void each_stored(Selected& chosen, const Each& each) {
    std::int64_t tensor = 0;
    for (Worker& worker : chosen.workers) {
        for (const Pile::Block& block : worker.pile.blocks) {
            for (std::int64_t at = 0; at < block.size;) {
                const std::uint32_t* indices = block.indices.get() + at;
                while (chosen.order.edges[tensor + 1] <= indices[0]) ++tensor;
                const std::uint32_t* end = indices + std::min(Stretch::kMost, block.size - at);
                std::int64_t edge = chosen.order.edges[tensor + 1];
                const std::uint32_t* next = end[-1] < edge ? end : std::lower_bound(indices, end, edge);
                Stretch stretch{worker, tensor, next - indices, indices, block.values.get() + at, {}};
                fill_keys(chosen.order, stretch);
                each(stretch);
                at += stretch.count;
            }
        }
    }
}

// What is kept of what was stored: keys above the misfit's, and equal ones of a lower index.
struct Keep {
    std::uint64_t key = 0;  // which none has: all are kept
    std::int64_t index = 0;

    explicit Keep(const Cut& end) {
        if (!end.all) key = end.misfit.key, index = end.misfit.index;
    }
    bool operator()(std::uint64_t other, std::int64_t place) const {
        return (other > key) | ((other == key) & (place < index));
    }
};

// Costs of what was stored, by bins of the bracket. Keys are computed twice instead of kept: fresh memory is dearer.
Ladder ladder_of(Selected& chosen, double hi) {
    const Order& order = chosen.order;
    Ladder ladder(bits_of(hi), bits_of(chosen.lo));
    Ladder::Rung *rungs = ladder.rungs.data(), &sure = rungs[0];
    for (const Tally& tally : chosen.tallies) sure.cost += tally.sure_cost, sure.count += tally.sure;
    each_stored(chosen, [&order, rungs, sure_from = ladder.sure_from, shift = ladder.shift](const Stretch& stretch) {
        const std::int64_t* quanta = order.quanta;
        std::int64_t step = order.quanta_each, fixed = order.quanta_each ? 0 : stretch.tensor;
        for (std::int64_t j = 0; j < stretch.count; ++j) {
            Ladder::Rung& rung = rungs[Ladder::bin(stretch.keys[j], sure_from, shift)];
            rung.cost += quanta[fixed + step * stretch.indices[j]];
            ++rung.count;
        }
    });
    return ladder;
}

std::vector<Item> items_of(Selected& chosen, const Ladder& ladder, std::size_t bin) {
    std::vector<Item> items;
    if (bin == ladder.rungs.size()) return items;
    items.reserve(static_cast<std::size_t>(ladder.rungs[bin].count));
    each_stored(chosen, [&items, bin, sure_from = ladder.sure_from, shift = ladder.shift](const Stretch& stretch) {
        for (std::int64_t j = 0; j < stretch.count; ++j) {
            if (Ladder::bin(stretch.keys[j], sure_from, shift) != bin) continue;
            items.push_back({stretch.keys[j], stretch.indices[j], static_cast<std::uint32_t>(stretch.tensor)});
        }
    });
    return items;
}

// Cuts at the limit what was stored; false when the bracket missed.
bool finish_stored(Selected& chosen, std::int64_t limit, double hi) {
    Ladder ladder = ladder_of(chosen, hi);
    std::int64_t room = limit, kept = 0;
    std::size_t crossing = ladder.descend(room, kept);
    if (crossing == 0) return false;
    chosen.end = cut(chosen.order, items_of(chosen, ladder, crossing), room, kept);
    chosen.kept = chosen.end.kept;
    chosen.spent = limit - chosen.end.room;
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
bool finish_tied(Selected& chosen, std::int64_t limit) {
    std::int64_t room = limit, kept = 0;
    for (const Tally& tally : chosen.tallies) {
        if (tally.sure_cost > room) return false;
        room -= tally.sure_cost;
        kept += tally.sure;
    }
    for (std::size_t s = 0; s < chosen.segments.size(); ++s) {
        const Segment& segment = chosen.segments[s];
        if (chosen.tallies[s].tied_cost <= room) {
            room -= chosen.tallies[s].tied_cost;
            kept += chosen.tallies[s].tied;
            continue;
        }
        std::int64_t place = place_in_ties(chosen, segment, room, kept);
        chosen.end = {room, kept, false, {bits_of(chosen.lo), static_cast<std::uint32_t>(place),
                                          static_cast<std::uint32_t>(segment.tensor)}};
        chosen.kept = kept;
        chosen.spent = limit - room;
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

// One pass with a bracket. After the first, squares are known and the sum is written: the order reads it from then on.
Outcome pass_over(Selected& chosen, const Bracket& bracket, float*& carried, bool& squares) {
    Test lo(chosen.order, bracket.lo), hi(chosen.order, bracket.hi);
    Pass pass{chosen.order, chosen.scanner(), lo, hi, bracket.store, carried, squares};
    for (Worker& worker : chosen.workers) worker.pile = Pile{};
    bool enough = run_all(chosen.workers.size(), [&](std::size_t w) {
        Worker& worker = chosen.workers[w];
        for (std::size_t s = worker.first; s < worker.last && !worker.not_finite; ++s) {
            pass.segment(chosen.segments[s], worker, chosen.tallies[s]);
        }
    });
    if (!enough) return {kNoMemory, -1};
    for (const Worker& worker : chosen.workers) {
        if (worker.not_finite) return not_finite(chosen.order);
    }
    if (carried) chosen.order.update = carried, chosen.order.residual = nullptr;
    chosen.store = bracket.store, chosen.lo = bracket.lo;
    carried = nullptr, squares = false;
    return {kDone, -1};
}

// The bracket of the one bin in which the exact costs of all scores pass the limit.
Bracket full_bracket(const Selected& chosen, std::int64_t limit) {
    const Order& order = chosen.order;
    std::vector<std::int64_t> costs(static_cast<std::size_t>(kBins), 0);
    for (const Segment& segment : chosen.segments) {
        for (std::int64_t i = segment.start; i < segment.stop; ++i) {
            double score = score_of(order, segment.tensor, i, order.update[i]);
            if (score > 0) costs[bits_of(score) >> kBinShift] += cost_of(order, segment.tensor, i);
        }
    }
    for (std::int64_t bin = kBins; bin-- > 0;) {
        if (costs[bin] > limit) {
            double lo = from_bits(static_cast<std::uint64_t>(bin) << kBinShift);
            double hi = from_bits(static_cast<std::uint64_t>(bin + 1) << kBinShift);
            return {std::max(lo, kSmallest), bin + 1 < kBins ? hi : kInfinity, Store::bracket};
        }
        limit -= costs[bin];
    }
    return {kSmallest, kSmallest, Store::bracket};  // Everything fits: all that is above zero is sure.
}

bool finish(Selected& chosen, std::int64_t limit, const Bracket& bracket) {
    bool stored = bracket.store != Store::nothing;
    return stored ? finish_stored(chosen, limit, bracket.hi) : finish_tied(chosen, limit);
}

void add_squares(Selected& chosen) {
    chosen.squares = 0;
    for (const Tally& tally : chosen.tallies) chosen.squares += tally.squares;
}

Outcome choose(Selected& chosen, std::int64_t limit, float* carried) {
    bool squares = true;
    for (const Bracket& bracket : first_brackets(chosen.order, limit, chosen.flags)) {
        Outcome outcome = pass_over(chosen, bracket, carried, squares);
        if (outcome.status != kDone) return outcome;
        add_squares(chosen);
        if (finish(chosen, limit, bracket)) return outcome;
    }
    if (!chosen.order.n) return {kDone, -1};
    Bracket bracket = full_bracket(chosen, limit);
    Outcome outcome = pass_over(chosen, bracket, carried, squares);
    if (outcome.status == kDone) finish(chosen, limit, bracket);
    return outcome;
}

// ------------------------------------------------------------------------------------------------------ writing it out

struct Output {
    std::uint32_t* indices;
    float* values;
    std::int64_t at, end;
};

inline void write_bits(Output& out, std::int64_t start, const float* x, std::uint64_t word) {
    for (; word; word &= word - 1) {
        int place = lowest_bit(word);
        out.indices[out.at] = static_cast<std::uint32_t>(start + place);
        out.values[out.at] = x[place];
        ++out.at;
    }
}

void write_portable(Output& out, std::int64_t start, const float* x, const std::uint64_t* words, std::int64_t count) {
    for (std::int64_t w = 0; w < count; ++w) write_bits(out, start + 64 * w, x + 64 * w, words[w]);
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

// Whole words, eight elements with one store, of which the next overwrites those that are not kept.
__attribute__((target("avx2"))) void write_avx2(Output& out, std::int64_t start, const float* x,
                                                const std::uint64_t* words, std::int64_t count) {
    for (std::int64_t w = 0; w < count; ++w, start += 64, x += 64) {
        std::uint64_t word = words[w];
        if (bit_count(word) < 5 || out.end - out.at < 72) {
            write_bits(out, start, x, word);
            continue;
        }
        for (int part = 0; part < 8; ++part, word >>= 8) {
            std::uint64_t packed = kPlaces.of[word & 0xFF];
            __m256i places = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(packed)));
            int first = static_cast<int>(static_cast<std::uint32_t>(start + 8 * part));
            __m256i indices = _mm256_add_epi32(places, _mm256_set1_epi32(first));
            __m256 values = _mm256_permutevar8x32_ps(_mm256_loadu_ps(x + 8 * part), places);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out.indices + out.at), indices);
            _mm256_storeu_ps(out.values + out.at, values);
            out.at += bit_count(word & 0xFF);
        }
    }
}

#else

void write_avx2(Output& out, std::int64_t start, const float* x, const std::uint64_t* words, std::int64_t count) {
    write_portable(out, start, x, words, count);
}

#endif

// Writes what passes the test in [start, stop) of a tensor.
void write_span(const Selected& chosen, const Scanner& scanner, std::int64_t tensor, std::int64_t start,
                std::int64_t stop, const Test& test, Output& out) {
    std::uint64_t words[kWords];
    for (; start < stop; start += kLanes) {
        std::int64_t count = std::min(kLanes, stop - start);
        const float* x = chosen.order.update + start;
        scanner.mark(Row{x, nullptr, 1.0f, nullptr, nullptr, count}, tensor, start, test, words);
        std::int64_t whole = count / 64;
        (scanner.portable ? write_portable : write_avx2)(out, start, x, words, whole);
        if (count % 64) write_bits(out, start + 64 * whole, x + 64 * whole, words[whole]);
    }
}

// From the vector: up to the misfit its score is enough, after it a higher one is asked for.
void write_again(const Selected& chosen, const Worker& worker, const Test& up_to, const Test& after, Output out) {
    Scanner scanner = chosen.scanner();
    std::int64_t turn = chosen.end.all ? chosen.order.n : chosen.end.misfit.index;
    for (std::size_t s = worker.first; s < worker.last; ++s) {
        const Segment& segment = chosen.segments[s];
        std::int64_t middle = std::min(std::max(turn, segment.start), segment.stop);
        write_span(chosen, scanner, segment.tensor, segment.start, middle, up_to, out);
        write_span(chosen, scanner, segment.tensor, middle, segment.stop, after, out);
    }
}

// How many of what is kept lie in the segments of each worker.
void count_writes(Selected& chosen) {
    for (Worker& worker : chosen.workers) {
        worker.writes = 0;
        for (std::size_t s = worker.first; s < worker.last; ++s) {
            const Tally& tally = chosen.tallies[s];
            worker.writes += tally.sure;
            if (chosen.store != Store::nothing) continue;
            const Segment& segment = chosen.segments[s];
            if (chosen.end.all || segment.stop <= chosen.end.misfit.index) worker.writes += tally.tied;
            if (chosen.end.all || segment.stop <= chosen.end.misfit.index || segment.start > chosen.end.misfit.index) {
                continue;
            }
            std::int64_t room = std::numeric_limits<std::int64_t>::max();
            place_in_ties(chosen, {segment.tensor, segment.start, chosen.end.misfit.index}, room, worker.writes);
        }
    }
    each_stored(chosen, [keep = Keep(chosen.end)](const Stretch& stretch) {
        std::int64_t kept = 0;
        for (std::int64_t j = 0; j < stretch.count; ++j) kept += keep(stretch.keys[j], stretch.indices[j]);
        stretch.worker.writes += kept;
    });
}

bool write_from_vector(Selected& chosen, std::uint32_t* indices, float* values) {
    count_writes(chosen);
    double least = chosen.end.all ? chosen.lo : from_bits(chosen.end.misfit.key);
    Test up_to(chosen.order, least);
    Test after(chosen.order, chosen.end.all ? least : from_bits(chosen.end.misfit.key + 1));
    std::vector<Output> outputs;
    std::int64_t at = 0;
    for (const Worker& worker : chosen.workers) {
        outputs.push_back({indices, values, at, at + worker.writes});
        at += worker.writes;
    }
    return run_all(chosen.workers.size(), [&](std::size_t w) {
        write_again(chosen, chosen.workers[w], up_to, after, outputs[w]);
    });
}

bool write_selected(Selected& chosen, std::uint32_t* indices, float* values) {
    if (chosen.store != Store::candidates) return write_from_vector(chosen, indices, values);
    std::int64_t at = 0;
    each_stored(chosen, [&at, kept = chosen.kept, keep = Keep(chosen.end), indices, values](const Stretch& stretch) {
        std::int64_t place = at;
        // What is not kept is overwritten by the next; past the last one nothing may be written.
        for (std::int64_t j = 0; j < stretch.count && place < kept; ++j) {
            indices[place] = stretch.indices[j];
            values[place] = stretch.values[j];
            place += keep(stretch.keys[j], stretch.indices[j]);
        }
        at = place;
    });
    return true;
}

// --------------------------------------------------------------------------------------------------- the border to C

void divide(Selected& chosen, std::int32_t threads) {
    chosen.segments = segments_of(chosen.order);
    chosen.workers = workers_for(chosen.segments, chosen.order.n, threads);
    chosen.tallies.resize(chosen.segments.size());
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
    std::int64_t kept;
    std::int64_t spent;
    std::int64_t misfit;  // -1: everything fits
    std::int64_t bad;     // the first element that is NaN or infinite, with the statuses that say so
    double squares;
};

JOULEWISE_EXPORT std::int32_t joulewise_select_open(const JoulewiseRequest* request, JoulewiseFound* found) {
    *found = {nullptr, 0, 0, -1, -1, 0.0};
    if (request->n > std::numeric_limits<std::uint32_t>::max()) return kTooLong;
    try {
        auto chosen = std::make_unique<Selected>();
        bool weight_each = request->weight_count != request->tensors;
        chosen->order = {request->update,  request->residual, request->factor,  request->n,
                         request->edges,   request->tensors,  request->weights, weight_each,
                         request->random != 0, request->key,  request->quanta,
                         request->quanta_count != request->tensors};
        chosen->flags = request->flags;
        divide(*chosen, request->threads);
        Outcome outcome;
        if (request->by_threshold) {
            float* carried = request->carried;
            bool squares = true;
            // Below a bracket without end nothing is cut: all that passes the test is tied, and kept.
            Bracket all{std::max(request->threshold, kSmallest), kInfinity, Store::nothing};
            chosen->free_of_cost.assign(static_cast<std::size_t>(request->tensors), 0);
            chosen->order.quanta = chosen->free_of_cost.data();
            chosen->order.quanta_each = false;
            outcome = pass_over(*chosen, all, carried, squares);
            add_squares(*chosen);
            for (const Tally& tally : chosen->tallies) chosen->kept += tally.tied;
        } else {
            outcome = choose(*chosen, request->limit, request->carried);
        }
        found->bad = outcome.index;
        if (outcome.status != kDone) return outcome.status;
        found->kept = chosen->kept;
        found->spent = chosen->spent;
        found->misfit = chosen->end.all ? -1 : static_cast<std::int64_t>(chosen->end.misfit.index);
        found->squares = chosen->squares;
        found->selected = chosen.release();
        return kDone;
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
}

// Writes indices, ascending, and values: room for `kept` of each.
JOULEWISE_EXPORT std::int32_t joulewise_select_write(void* selected, std::uint32_t* indices, float* values) {
    try {
        return write_selected(*static_cast<Selected*>(selected), indices, values) ? kDone : kNoMemory;
    } catch (const std::bad_alloc&) {
        return kNoMemory;
    }
}

JOULEWISE_EXPORT void joulewise_select_close(void* selected) { delete static_cast<Selected*>(selected); }

// Reads n words and does next to nothing with them: the floor that benchmarks compare with.
JOULEWISE_EXPORT std::uint32_t joulewise_read(const std::uint32_t* words, std::int64_t n) {
    return has_avx2() ? read_avx2(words, n) : read_portable(words, n);
}

#include "codec.inc"
