// Threads that take tasks in turns, spin for a moment when there are none, and then sleep.
#pragma once

#include <stdint.h>

namespace engine {

constexpr int MAX_THREADS = 128;

// Scratch memory of one participant, aligned to 64 bytes; kept from call to call.
struct Scratch {
  float* memory = nullptr;
  int64_t size = 0;
};

// Memory for so many floats, or null if there is none.
float* reserve(Scratch& scratch, int64_t size);
void release(Scratch& scratch);

// Something to do in `tasks` pieces. Each participant begins with its own share of the pieces,
// always the same ones, so that what it needs from the last job is still in its cache; whoever is
// done takes over from the others.
struct Job {
  void (*run)(const void* context, int64_t task, float* scratch);
  const void* context;
  int64_t tasks;
};

// The right to use the threads, for one caller at a time: a second caller at the same time gets
// no threads beside itself. Subnormal numbers count as 0 in all that a team computes: processors
// are a hundred times slower with them.
class Team {
 public:
  // For at most so many threads, the caller's included, with so many floats of scratch memory
  // each, and `shared` ones for all.
  Team(int64_t threads, int64_t scratch, int64_t shared);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  bool has_memory() const { return has_memory_; }
  int64_t threads() const { return threads_; }
  float* shared() const { return shared_; }
  void run(const Job& job);

 private:
  struct Pool* pool_;  // null: alone
  int64_t threads_;
  bool has_memory_;
  float* shared_;
  float* own_;
  Scratch private_;  // where there is no pool
  uint64_t float_state_;
};

}  // namespace engine
