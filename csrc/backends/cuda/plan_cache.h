#pragma once
#include <map>
#include <mutex>
#include <optional>
#include <string>

// What was found fastest on this machine, kept between processes: a text file of lines
// "checksum key value". The file is read once; a choice made is written at once, together with what
// other processes wrote meanwhile, beside the file and renamed. A file that is damaged counts as
// empty, with one line on the standard error stream, and is replaced by the next choice.
namespace pycnn::cuda {

class PlanCache {
 public:
  // Empty: nothing is kept.
  explicit PlanCache(std::string file);

  std::optional<std::string> find(const std::string& key);
  void put(const std::string& key, const std::string& value);
  // For this process alone.
  void put_for_now(const std::string& key, const std::string& value);
  const std::string& file() const noexcept { return file_; }

 private:
  using Entries = std::map<std::string, std::string>;
  std::optional<Entries> read() const;  // none: the file is damaged
  void write(const Entries& entries) const;

  const std::string file_;
  std::mutex mutex_;
  bool loaded_ = false;
  Entries entries_, for_now_;
};

// $PYCNN_CUDA_PLANS, a file ("off": none), else cuda_plans.txt in $PYCNN_CACHE,
// $XDG_CACHE_HOME/pycnn or $HOME/.cache/pycnn. Empty: there is no such place.
std::string plan_cache_file();

// The one of this process.
PlanCache& plan_cache();

}  // namespace pycnn::cuda
