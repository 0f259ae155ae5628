#pragma once
#include <cstddef>
#include <string>

#include "pycnn/export.h"

namespace pycnn {

// A level of data caches.
struct CacheLevel {
  std::size_t bytes = 0;  // of one cache; 0: there is none, or it is not known
  int cores = 1;          // that share one
};

struct CacheSizes {
  CacheLevel l1, l2, l3;
};

// Of the first processor, from sysfs, else from the C library. `root` as in core/cgroup.h; the C
// library is asked only without one.
PYCNN_API CacheSizes cache_sizes(const std::string& root = "");

}  // namespace pycnn
