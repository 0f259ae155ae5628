#pragma once
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "pycnn/checkpoint.h"
#include "pycnn/error.h"
#include "pycnn/program.h"
#include "pycnn/pycnn_c.h"
#include "pycnn/trainer.h"

// What the handles of pycnn_c.h are, and how its functions fail.

struct pycnn_model {
  pycnn::Model model;
  // In the order of the graph; the names live as long as the handle.
  std::vector<std::pair<std::string, pycnn::TensorSpec>> inputs, outputs;
  // Made when the handle is, so that reading from several threads is safe. An entry that cannot be
  // had is reported by the functions that ask for it.
  std::vector<std::string> class_names, head_names;
  std::exception_ptr class_names_error, head_names_error;
};

struct pycnn_program {
  pycnn::Program program;
};

struct pycnn_trainer {
  pycnn::Trainer trainer;
  std::string input_name;
};

namespace pycnn::c {

// Remembers the exception under way for pycnn_last_error and tells its status.
pycnn_status remember_failure() noexcept;

template <class Work>
pycnn_status guarded(const Work& work) noexcept {
  try {
    work();
    return PYCNN_OK;
  } catch (...) {
    return remember_failure();
  }
}

// Throws ArgumentError "<who>: <name> is NULL".
void require(const void* pointer, const char* who, const char* name);
// Throws ArgumentError "<who>: <name> is <index>, there are <count>".
void require_index(std::size_t index, std::size_t count, const char* who, const char* name);
// Throws ArgumentError for an array that is null or has another size than `spec`.
void require_array(const void* data, std::size_t bytes, const TensorSpec& spec, const char* who,
                   const std::string& name);

// The text as C has it. Throws UnsupportedError when it holds a zero, which would end it early.
const char* to_c_text(const std::string& text, const char* who);
pycnn_array_info describe(const std::string& name, const TensorSpec& spec);
DType to_dtype(pycnn_dtype dtype, const char* who, const char* name);

// No struct of options is larger; what is was not set by its init function.
inline constexpr std::size_t kMaxStructBytes = 4096;
// Throws ArgumentError for a size that no version of the struct `type` has.
void require_struct_size(std::size_t given, std::size_t smallest, const char* who,
                         const char* type);
// The caller's part of a struct that a newer library may have extended, over the defaults.
// Throws ArgumentError when init was not called.
pycnn_compile_options complete(const pycnn_compile_options* given, const char* who);
CompileOptions to_compile_options(const pycnn_compile_options& options, const char* who);
pycnn_memory to_memory(const MemoryReport& report);

}  // namespace pycnn::c
