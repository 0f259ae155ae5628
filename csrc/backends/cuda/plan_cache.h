#pragma once
#include <map>
#include <mutex>
#include <optional>
#include <string>

// What was found fastest on this machine, kept between processes: a text file of lines
// "checksum key value", the last one of a key counts. The file is read once, and a choice made is
// written at once behind what is there: plans take kilobytes, so all of them would take long. What
// is no such file counts as empty, with one line on the standard error stream, and is replaced by
// the next choice, beside it and renamed; so is one whose last line is cut off, with all others.
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
  std::optional<Entries> read();  // none: the file is damaged
  void write(const Entries& entries);
  bool append(const std::string& key, const std::string& value) const;

  const std::string file_;
  std::mutex mutex_;
  bool loaded_ = false;
  bool is_whole_ = false;  // so that lines can be written behind those that there are
  Entries entries_, for_now_;
};

// $PYCNN_CUDA_PLANS, a file ("off": none), else cuda_plans.txt in $PYCNN_CACHE,
// $XDG_CACHE_HOME/pycnn or $HOME/.cache/pycnn. Empty: there is no such place.
std::string plan_cache_file();

// The one of this process.
PlanCache& plan_cache();

}  // namespace pycnn::cuda
