#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "pycnn/tensor.h"

// Who may use shared variables when. Programs that have a variable in common find one another here.
//
// A run reads or writes each of its program's variables; readers of a variable do not mind one
// another. A run takes all that it needs at once or waits for all of it, in the order of arrival:
// so nobody waits in a circle, and nobody is overtaken by what needs the same variables.
namespace pycnn {

class VariableLocks;

// One variable. Guarded by the mutex that all of them share.
struct VariableUse {
  int readers = 0;                        // runs
  bool writing = false;                   // a run
  const VariableLocks* writer = nullptr;  // the program of which runs write or wait to write
  int writers = 0;                        // those runs
  // Marks of a look through those who wait: wanted by one who came earlier, and to write.
  std::uint64_t wanted = 0;
  std::uint64_t wanted_to_write = 0;
};

class VariableLocks {
 public:
  // Runs write the variables numbered in `assigned` and read the others. The names must live as
  // long as this.
  VariableLocks(std::span<const Tensor> variables, std::span<const std::string> names,
                std::span<const int> assigned);
  ~VariableLocks();
  VariableLocks(const VariableLocks&) = delete;
  VariableLocks& operator=(const VariableLocks&) = delete;

  // For the time of a run. Runs of one program take turns where they write; a run throws
  // TrainingError when another program is writing, or waits to write, what it is to write, too.
  class Hold {
   public:
    explicit Hold(const VariableLocks& locks);
    ~Hold();
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;

   private:
    friend class VariableLocks;

    const VariableLocks& locks_;
    bool granted_ = false;
    Hold* next_ = nullptr;  // that waits
  };

 private:
  struct Registry;
  struct Variable {
    const void* memory;
    std::shared_ptr<VariableUse> use;
    bool written;
    const std::string* name;
  };

  void announce() const;
  bool may_go(std::uint64_t look) const noexcept;
  void want(std::uint64_t look) const noexcept;
  void take() const noexcept;
  void give_back() const noexcept;

  std::vector<Variable> variables_;
};

}  // namespace pycnn
