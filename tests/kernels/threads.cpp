// A pool that ThreadSanitizer understands, in place of OpenMP's, whose barriers it does not see: threads are started and joined.
#include <thread>
#include <vector>

namespace {
thread_local int number = 0;
}

extern "C" __attribute__((visibility("default"))) int kat_test_thread_num() { return number; }

extern "C" __attribute__((visibility("default"))) void kat_test_parallel(void (*body)(void*), void* data, unsigned threads, unsigned) {
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; ++i) {
    others.emplace_back([=] {
      number = static_cast<int>(i);
      body(data);
    });
  }
  body(data);
  for (auto& thread : others) thread.join();
}
