// Calls every function of the kernel on inputs made from a seed, and prints hashes of all results.
//
// The kernel gives the same bits on every machine: builds for other processors, and other paths of one build, print the
// same lines. Inputs are made of integers alone (splitmix64), because the mathematics library differs between machines.
//
//   driver [portable]      portable: neither selection nor codec uses AVX2

#include "../../src/kernel/kernel.cpp"

#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace driver {

class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }

    std::uint64_t below(std::uint64_t end) { return next() % end; }

  private:
    std::uint64_t state_;
};

// FNV-1a over bytes, of little-endian machines.
class Hash {
  public:
    void add(const void* data, std::size_t bytes) {
        const auto* at = static_cast<const unsigned char*>(data);
        for (std::size_t i = 0; i < bytes; ++i) value_ = (value_ ^ at[i]) * 0x100000001b3u;
    }
    template <typename T>
    void add(const std::vector<T>& items) {
        add(items.data(), items.size() * sizeof(T));
    }
    template <typename T>
    void add_number(T number) {
        add(&number, sizeof number);
    }
    std::uint64_t value() const { return value_; }

  private:
    std::uint64_t value_ = 0xcbf29ce484222325u;
};

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "driver: %s\n", what.c_str());
    std::exit(1);
}

float from_bits(std::uint32_t bits) {
    float made;
    std::memcpy(&made, &bits, sizeof made);
    return made;
}

enum Kind { kSpread, kEqual, kMostlyZero, kDenormal, kSpike, kDuplicates, kKinds };
const char* const kind_names[kKinds] = {"spread", "equal", "mostly zero", "denormal", "spike", "duplicates"};

// Sign, a random mantissa, and an exponent that falls by one in every other number.
float drawn(Kind kind, std::uint64_t bits, std::size_t place) {
    const auto sign = static_cast<std::uint32_t>(bits >> 63) << 31;
    const auto mantissa = static_cast<std::uint32_t>(bits & 0x7fffff);
    const auto exponent = 115 - static_cast<std::uint32_t>(__builtin_ctzll((bits >> 23) | (std::uint64_t{1} << 30)));
    switch (kind) {
        case kEqual: return from_bits(sign | 0x3f000000u);
        case kMostlyZero: return bits % 33 ? from_bits(sign) : from_bits(sign | (exponent << 23) | mantissa);
        case kDenormal: return from_bits(sign | (mantissa >> (bits >> 40 & 7)));
        case kSpike: return place == 7 ? 3e38f : from_bits(sign | (exponent << 23) | mantissa);
        case kDuplicates: return from_bits(sign | (exponent << 23) | (mantissa & 0x600000));
        default: return from_bits(sign | (exponent << 23) | mantissa);
    }
}

std::vector<float> vector_of(Kind kind, std::size_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<float> made(n);
    for (std::size_t i = 0; i < n; ++i) made[i] = drawn(kind, random.next(), i);
    return made;
}

// Where tensors begin and end: some of them empty, some short.
std::vector<std::int64_t> edges_of(std::size_t n, std::uint64_t seed) {
    Random random(seed);
    std::vector<std::int64_t> edges = {0, 0};
    for (int i = 0; i < 10; ++i) edges.push_back(static_cast<std::int64_t>(random.below(n + 1)));
    edges.push_back(static_cast<std::int64_t>(n));
    std::sort(edges.begin(), edges.end());
    return edges;
}

struct Selection {
    std::vector<std::uint32_t> indices;
    std::vector<float> values;
};

Selection select(const JoulewiseRequest& request, Hash& hash) {
    JoulewiseFound found;
    if (joulewise_select_open(&request, &found) != 0) fail("a selection was refused");
    Selection kept;
    std::int32_t status = kMoreRoom;
    while (status == kMoreRoom) {
        kept.indices.resize(static_cast<std::size_t>(found.room));
        kept.values.resize(static_cast<std::size_t>(found.room));
        status = joulewise_select_write(&found, kept.indices.data(), kept.values.data());
    }
    if (status != kDone) fail("nothing was written");
    kept.indices.resize(static_cast<std::size_t>(found.kept));
    kept.values.resize(static_cast<std::size_t>(found.kept));
    joulewise_select_close(found.selected);
    hash.add(kept.indices);
    hash.add(kept.values);
    hash.add_number(found.kept);
    hash.add_number(found.spent);
    hash.add_number(found.misfit);
    hash.add_number(found.squares);
    return kept;
}

// Weights and costs, one for each of `count` tensors or coordinates.
struct Prices {
    std::vector<double> weights;
    std::vector<std::int64_t> quanta;
};

Prices prices_of(std::size_t count, bool equal, std::uint64_t seed) {
    Random random(seed);
    Prices made;
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint64_t bits = random.next();
        made.weights.push_back(equal ? 1.0 : static_cast<double>((bits & 0xffff) + 1) / 65536.0);
        made.quanta.push_back(equal ? 1 : static_cast<std::int64_t>((bits >> 16 & 0xffff) + 1));
    }
    return made;
}

JoulewiseRequest request_of(const std::vector<float>& update, const std::vector<std::int64_t>& edges,
                            const Prices& prices) {
    JoulewiseRequest request = {};
    request.update = update.data();
    request.edges = edges.data();
    request.weights = prices.weights.data();
    request.quanta = prices.quanta.data();
    request.n = static_cast<std::int64_t>(update.size());
    request.tensors = static_cast<std::int64_t>(edges.size()) - 1;
    request.weight_count = static_cast<std::int64_t>(prices.weights.size());
    request.quanta_count = static_cast<std::int64_t>(prices.quanta.size());
    request.factor = 1.0f;
    request.threads = 1;
    return request;
}

// A selection with one thread and with three, of which nothing may differ.
Selection select_twice(JoulewiseRequest request, Hash& hash) {
    Hash alone, together;
    request.threads = 1;
    Selection kept = select(request, alone);
    request.threads = 3;
    select(request, together);
    if (alone.value() != together.value()) fail("threads change a selection");
    hash.add_number(alone.value());
    return kept;
}

// What three limits, a threshold, random scores and a residual select.
std::vector<Selection> select_all(Kind kind, std::size_t n, bool each, bool equal, std::int32_t flags, Hash& hash) {
    const std::vector<float> update = vector_of(kind, n, 11 + n), residual = vector_of(kSpread, n, 12 + n);
    const std::vector<std::int64_t> edges = edges_of(n, 13 + n);
    const Prices prices = prices_of(each ? n : edges.size() - 1, equal, 14 + n);
    std::vector<float> carried(n);
    std::vector<Selection> every;
    JoulewiseRequest request = request_of(update, edges, prices);
    request.flags = flags;
    const std::int64_t all = static_cast<std::int64_t>(n) * (equal ? 1 : 32768);
    for (const std::int64_t limit : {std::int64_t{0}, all / 100, all / 3, 4 * all}) {
        request.limit = limit;
        every.push_back(select_twice(request, hash));
        request.carried = carried.data();
        request.residual = residual.data();
        request.factor = 0.75f;
        if (kind != kSpike) every.push_back(select_twice(request, hash));
        hash.add(carried);
        request.carried = nullptr;
        request.residual = nullptr;
        request.factor = 1.0f;
    }
    request.random = 1;
    request.key = 99;
    request.limit = all / 10;
    select_twice(request, hash);
    request.random = 0;
    request.by_threshold = 1;
    request.threshold = 1e-4;
    select_twice(request, hash);
    return every;
}

// Encodes with each value type and a mixture, decodes, and holds what was decoded against what was said to be sent.
void encode(const Selection& kept, const std::vector<std::int64_t>& edges, int first_type, Hash& hash) {
    const std::size_t tensors = edges.size() - 1, count = kept.indices.size();
    std::vector<std::uint8_t> types(tensors), read_types(tensors), payload(141 * tensors);
    for (std::size_t i = 0; i < tensors; ++i) types[i] = static_cast<std::uint8_t>(first_type < 4 ? first_type : i % 4);
    std::vector<float> rounded = kept.values;
    std::vector<double> bits(tensors);
    std::int64_t sizes[4], numbers[8] = {}, details[3];
    void* plan = nullptr;
    const auto room = static_cast<std::int64_t>(payload.size()), number_of_tensors = static_cast<std::int64_t>(tensors);
    if (joulewise_encode_open(kept.indices.data(), kept.values.data(), static_cast<std::int64_t>(count), edges.data(),
                              number_of_tensors, types.data(), payload.data(), room, bits.data(), sizes, &plan) != 0) {
        fail("a selection was not encoded");
    }
    payload.resize(static_cast<std::size_t>(sizes[0] + sizes[1]));
    if (joulewise_encode_write(plan, payload.data() + sizes[0], rounded.data()) != 0) fail("a payload was not written");
    joulewise_encode_close(plan);
    hash.add(payload);
    hash.add(rounded);
    hash.add(bits);
    hash.add_number(sizes[2]);
    const auto size = static_cast<std::int64_t>(payload.size());
    if (joulewise_read_table(payload.data(), size, 0, edges.data(), number_of_tensors, read_types.data(), numbers) !=
            0 ||
        numbers[0] != sizes[0] || numbers[1] != static_cast<std::int64_t>(count)) {
        fail("a table was not read as it was written");
    }
    Selection decoded = {std::vector<std::uint32_t>(count), std::vector<float>(count)};
    if (joulewise_decode(payload.data(), size, 0, sizes[0], sizes[2], edges.data(), number_of_tensors, numbers[1],
                         decoded.indices.data(), decoded.values.data(), details) != 0) {
        fail("a payload was refused that the encoder wrote");
    }
    if (decoded.indices != kept.indices || decoded.values != rounded) fail("decoded is not what was sent");
    // A payload in which a byte is wrong is refused, or read, alike on every machine.
    for (std::size_t at = 0; at < payload.size(); at += 1 + payload.size() / 50) {
        std::vector<std::uint8_t> damaged = payload;
        damaged[at] = static_cast<std::uint8_t>(damaged[at] ^ (1u << (at % 8)));
        std::int64_t told[8] = {};
        hash.add_number(
            joulewise_read_table(damaged.data(), size, 0, edges.data(), number_of_tensors, read_types.data(), told));
        hash.add(told, sizeof told);
    }
    std::vector<double> total(static_cast<std::size_t>(edges.back()), 0.5);
    joulewise_add(total.data(), edges.back(), decoded.indices.data(), decoded.values.data(), numbers[1], 0.3);
    hash.add(total);
}

void run(std::int32_t flags) {
    for (int kind = 0; kind < kKinds; ++kind) {
        for (const std::size_t n : {std::size_t{1}, std::size_t{1000}, std::size_t{65537}, std::size_t{200003}}) {
            Hash selections, payloads;
            for (const int prices : {0, 1, 2, 3}) {
                const std::vector<Selection> kept =
                    select_all(static_cast<Kind>(kind), n, prices & 1, prices & 2, flags, selections);
                if (prices != 0) continue;
                const std::vector<std::int64_t> edges = edges_of(n, 13 + n);
                for (int type = 0; type <= 4; ++type) {
                    for (const Selection& one : kept) encode(one, edges, type, payloads);
                }
            }
            std::printf("%-12s n = %6zu  selections %016" PRIx64 "  payloads %016" PRIx64 "\n", kind_names[kind], n,
                        selections.value(), payloads.value());
        }
    }
}

}  // namespace driver

int main(int count, char** arguments) {
    const bool portable = count > 1 && std::strcmp(arguments[1], "portable") == 0;
    if (portable) codec::loops = &codec::portable::loops;
    driver::run(portable ? kPortable : 0);
    return 0;
}
