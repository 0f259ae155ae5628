#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string_view>

// What users may ask of kernels by variables of the environment, read when a program is compiled,
// and by CompileOptions.
namespace pycnn::cuda {

// Whether libraries are given other convolutions for one (conv2d_rewrite.h).
enum class Rewrites : std::uint8_t { kTimed, kNever, kAlways, kOwn };

struct LibraryOptions {
  bool tf32;           // Problem::tf32 or $PYCNN_CUDA_TF32=1: float32 may be rounded to TF32
  bool deterministic;  // $PYCNN_CUDA_DETERMINISTIC=1: the first choice of a library, untimed
  // $PYCNN_CUDA_REWRITES, for tests and times: "off", "always" where there are any, or "own", these
  // by our own kernels (library_own.h).
  Rewrites rewrites = Rewrites::kTimed;
  // $PYCNN_CUDA_CHOOSE_SECONDS: of choosing for one program. Behind them no plan is timed that the
  // plan cache does not know: the first one is taken that runs and is not compiled at run time.
  double choose_seconds = kChooseSeconds;
  static constexpr double kChooseSeconds = 120.0;
};

inline LibraryOptions library_options(bool tf32 = false) {
  const auto is_on = [](const char* variable) {
    const char* const value = std::getenv(variable);
    return value != nullptr && std::strcmp(value, "1") == 0;
  };
  const char* const named = std::getenv("PYCNN_CUDA_REWRITES");
  const std::string_view rewrites = named != nullptr ? named : "";
  const char* const seconds = std::getenv("PYCNN_CUDA_CHOOSE_SECONDS");
  return {tf32 || is_on("PYCNN_CUDA_TF32"), is_on("PYCNN_CUDA_DETERMINISTIC"),
          rewrites == "off"      ? Rewrites::kNever
          : rewrites == "always" ? Rewrites::kAlways
          : rewrites == "own"    ? Rewrites::kOwn
                                 : Rewrites::kTimed,
          seconds != nullptr && *seconds != '\0' ? std::strtod(seconds, nullptr)
                                                 : LibraryOptions::kChooseSeconds};
}

}  // namespace pycnn::cuda
