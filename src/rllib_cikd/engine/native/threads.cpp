#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include <atomic>
#include <new>

#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif

namespace engine {

namespace {

constexpr int64_t SPIN_NANOSECONDS = 200000;   // idle threads, before they sleep
constexpr int64_t YIELD_NANOSECONDS = 20000;   // a caller that waits, before it lets others run
// Pieces take less than this. If a caller waits longer for one, the machine is busy and does not let
// the thread that has it run: the caller goes on alone, for so many times as long as it has waited.
constexpr int64_t PATIENCE_NANOSECONDS = 2000000;
constexpr int64_t TIMES_ALONE = 10;

int64_t now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

void relax() {
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Treats subnormal numbers as 0; returns the state before.
uint64_t flush_subnormals() {
#if defined(__x86_64__) || defined(__i386__)
  const unsigned state = _mm_getcsr();
  _mm_setcsr(state | 0x8040);
  return state;
#elif defined(__aarch64__)
  uint64_t state;
  asm volatile("mrs %0, fpcr" : "=r"(state));
  asm volatile("msr fpcr, %0" ::"r"(state | (UINT64_C(1) << 24)));
  return state;
#else
  return 0;
#endif
}

void restore(uint64_t state) {
#if defined(__x86_64__) || defined(__i386__)
  _mm_setcsr(static_cast<unsigned>(state));
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" ::"r"(state));
#else
  (void)state;
#endif
}

}  // namespace

float* reserve(Scratch& scratch, int64_t size) {
  if (size > scratch.size) {
    release(scratch);
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, static_cast<size_t>(size) * sizeof(float))) return nullptr;
    scratch.memory = static_cast<float*>(memory);
    scratch.size = size;
  }
  return scratch.memory;
}

void release(Scratch& scratch) {
  free(scratch.memory);
  scratch = Scratch{};
}

// What is left of a participant's share of a job, in one word: the job's number in the upper 20
// bits, then the end of the share and the next piece in 22 bits each. A piece is taken by replacing
// the whole word, so that nobody takes one of a job that is over; and while a piece is not done,
// the job's description stays.
struct alignas(64) Share {
  std::atomic<uint64_t> word{0};
};

constexpr int PIECE_BITS = 22;
constexpr uint64_t PIECE_MASK = (UINT64_C(1) << PIECE_BITS) - 1;

struct Pool {
  pthread_mutex_t callers = PTHREAD_MUTEX_INITIALIZER;
  // The current job.
  std::atomic<void (*)(const void*, int64_t, float*)> run{nullptr};
  std::atomic<const void*> context{nullptr};
  std::atomic<int64_t> participants{0};
  std::atomic<float*> memory[MAX_THREADS] = {};  // each participant's scratch memory
  std::atomic<uint32_t> number{0};
  Share shares[MAX_THREADS];
  alignas(64) std::atomic<int64_t> done{0};
  // Threads.
  int64_t started = 0;
  int64_t alone_until = 0;  // in nanoseconds
  Scratch scratch[MAX_THREADS];
  Scratch shared;
  alignas(64) std::atomic<int> sleeping{0};
  pthread_mutex_t sleep = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
};

namespace {

// Takes pieces from share i until it is empty, with participant `self`'s scratch memory.
void work_on(Pool& pool, int64_t i, int64_t self) {
  std::atomic<uint64_t>& share = pool.shares[i].word;
  for (;;) {
    uint64_t word = share.load(std::memory_order_acquire);
    const uint64_t piece = word & PIECE_MASK, end = word >> PIECE_BITS & PIECE_MASK;
    if (piece >= end) return;
    if (!share.compare_exchange_weak(word, word + 1, std::memory_order_acq_rel)) continue;
    const auto run = pool.run.load(std::memory_order_relaxed);
    run(pool.context.load(std::memory_order_relaxed), static_cast<int64_t>(piece),
        pool.memory[self].load(std::memory_order_relaxed));
    pool.done.fetch_add(1, std::memory_order_release);
  }
}

void work(Pool& pool, int64_t self) {
  const int64_t participants = pool.participants.load(std::memory_order_relaxed);
  if (self >= participants) return;
  for (int64_t i = 0; i < participants; i++) work_on(pool, (self + i) % participants, self);
}

// The number of the next job.
uint32_t wait_for_job(Pool& pool, uint32_t seen) {
  const int64_t deadline = now() + SPIN_NANOSECONDS;
  do {
    for (int i = 0; i < 32; i++) {
      const uint32_t number = pool.number.load(std::memory_order_acquire);
      if (number != seen) return number;
      relax();
    }
  } while (now() < deadline);
  pthread_mutex_lock(&pool.sleep);
  pool.sleeping.fetch_add(1);
  while (pool.number.load() == seen) pthread_cond_wait(&pool.wake, &pool.sleep);
  pool.sleeping.fetch_sub(1);
  pthread_mutex_unlock(&pool.sleep);
  return pool.number.load();
}

struct Start {
  Pool* pool;
  int64_t self;
};

void* thread_main(void* argument) {
  const Start start = *static_cast<Start*>(argument);
  free(argument);
  Pool& pool = *start.pool;
  flush_subnormals();
  for (uint32_t seen = 0;;) {
    seen = wait_for_job(pool, seen);
    work(pool, start.self);
  }
  return nullptr;
}

// Starts threads up to so many, the caller's included; fewer if the system refuses.
int64_t start_threads(Pool& pool, int64_t wanted) {
  if (pool.started == 0) pool.started = 1;
  // Signals are for the program's own threads.
  sigset_t all, before;
  sigfillset(&all);
  while (pool.started < wanted) {
    auto* start = static_cast<Start*>(malloc(sizeof(Start)));
    if (!start) break;
    *start = {&pool, pool.started};
    pthread_t thread;
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&thread, nullptr, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    if (failed) {
      free(start);
      break;
    }
    pthread_detach(thread);
    pool.started++;
  }
  return wanted < pool.started ? wanted : pool.started;
}

std::atomic<Pool*> the_pool{nullptr};
std::atomic<bool> watches_fork{false};

// In a forked process there is only the thread that forked: it starts anew.
void after_fork() { the_pool.store(nullptr); }

Pool* pool() {
  Pool* pool = the_pool.load(std::memory_order_acquire);
  if (pool) return pool;
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, sizeof(Pool))) return nullptr;
  Pool* fresh = new (memory) Pool();
  if (!the_pool.compare_exchange_strong(pool, fresh)) {
    fresh->~Pool();
    free(memory);
    return pool;
  }
  if (!watches_fork.exchange(true)) pthread_atfork(nullptr, nullptr, after_fork);
  return fresh;
}

}  // namespace

Team::Team(int64_t threads, int64_t scratch, int64_t shared)
    : pool_(nullptr), threads_(1), has_memory_(false), shared_(nullptr), own_(nullptr) {
  float_state_ = flush_subnormals();
  Pool* p = pool();
  if (p && pthread_mutex_trylock(&p->callers) == 0) {
    pool_ = p;
    threads = threads > MAX_THREADS ? MAX_THREADS : threads;
    if (threads > 1 && now() < p->alone_until) threads = 1;
    threads_ = start_threads(*p, threads);
    bool has = true;
    // For all there are: a thread that is late may take part although fewer are wanted now.
    for (int64_t i = 0; i < p->started; i++) {
      float* memory = reserve(p->scratch[i], scratch);
      has = has && (memory || scratch == 0);
      p->memory[i].store(memory, std::memory_order_relaxed);
    }
    own_ = p->scratch[0].memory;
    shared_ = reserve(p->shared, shared);
    has_memory_ = has && (shared_ || shared == 0);
    return;
  }
  own_ = reserve(private_, scratch + shared);
  shared_ = own_ ? own_ + scratch : nullptr;
  has_memory_ = own_ || scratch + shared == 0;
}

Team::~Team() {
  release(private_);
  if (pool_) pthread_mutex_unlock(&pool_->callers);
  restore(float_state_);
}

void Team::run(const Job& job) {
  const int64_t participants = threads_ < job.tasks ? threads_ : job.tasks;
  if (!pool_ || participants < 2) {
    for (int64_t i = 0; i < job.tasks; i++) job.run(job.context, i, own_);
    return;
  }
  Pool& pool = *pool_;
  pool.run.store(job.run, std::memory_order_relaxed);
  pool.context.store(job.context, std::memory_order_relaxed);
  pool.participants.store(participants, std::memory_order_relaxed);
  pool.done.store(0, std::memory_order_relaxed);
  const uint32_t number = pool.number.load(std::memory_order_relaxed) + 1;
  for (int64_t i = 0; i < participants; i++) {
    const auto begin = static_cast<uint64_t>(job.tasks * i / participants);
    const auto end = static_cast<uint64_t>(job.tasks * (i + 1) / participants);
    pool.shares[i].word.store(
        static_cast<uint64_t>(number) << 2 * PIECE_BITS | end << PIECE_BITS | begin,
        std::memory_order_release);
  }
  pool.number.store(number);
  if (pool.sleeping.load() > 0) {
    pthread_mutex_lock(&pool.sleep);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.sleep);
  }
  work(pool, 0);
  if (pool.done.load(std::memory_order_acquire) == job.tasks) return;
  const int64_t start = now();
  int64_t waited = 0;
  while (pool.done.load(std::memory_order_acquire) < job.tasks) {
    for (int i = 0; i < 32 && pool.done.load(std::memory_order_acquire) < job.tasks; i++) relax();
    waited = now() - start;
    if (waited > YIELD_NANOSECONDS) sched_yield();
  }
  if (waited > PATIENCE_NANOSECONDS) pool.alone_until = now() + TIMES_ALONE * waited;
}

}  // namespace engine
