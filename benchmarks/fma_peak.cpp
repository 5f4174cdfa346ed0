// The most float32 operations that T threads can do: multiply-adds in registers, no memory.
//   g++ -O3 -march=native -ffp-contract=fast -pthread -o fma_peak fma_peak.cpp && ./fma_peak T
// Prints GFLOP/s, the best of five times some 10 ms.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
// As many chains as hide an operation's latency and fit into the registers.
constexpr int kChains = kWidth == 16 ? 24 : 10;
constexpr long kRounds = 2'000'000;
typedef float Vector __attribute__((vector_size(4 * kWidth)));

static void work(float *result) {
  Vector sum[kChains];
  for (int i = 0; i < kChains; i++) sum[i] = Vector{} + static_cast<float>(i);
  Vector factor = Vector{} + 0.999f, term = Vector{} + 0.001f;
  for (long round = 0; round < kRounds; round++) {
#pragma GCC unroll 24
    for (int i = 0; i < kChains; i++) sum[i] = sum[i] * factor + term;
  }
  Vector all{};
  for (int i = 0; i < kChains; i++) all += sum[i];
  *result = all[0];
}

int main(int count, char **arguments) {
  const int threads = count > 1 ? std::atoi(arguments[1]) : 1;
  double best = 0;
  for (int turn = 0; turn < 5; turn++) {
    std::vector<float> results(threads);
    std::vector<std::thread> pool;
    const auto start = std::chrono::steady_clock::now();
    for (int t = 0; t < threads; t++) pool.emplace_back(work, &results[t]);
    for (auto &thread : pool) thread.join();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    const double rate = 2.0 * kWidth * kChains * kRounds * threads / time.count() / 1e9;
    best = rate > best ? rate : best;
  }
  std::printf("%.1f\n", best);
}
