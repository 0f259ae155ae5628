#pragma once
#include <vector>

#include "pycnn/ops.h"

namespace pycnn {

// What a gradient rule may see and do. autodiff implements it, so that ops never include graph.
class GradientContext {
 public:
  virtual Symbol input(int i) const = 0;
  virtual int input_count() const = 0;
  virtual const TensorSpec& input_spec(int i) const = 0;
  virtual Symbol output(int i = 0) const = 0;
  virtual const TensorSpec& output_spec(int i = 0) const = 0;
  // Whether anything downstream needs the gradient of this input: rules skip the work for those
  // that nobody wants.
  virtual bool needs_grad(int input) const = 0;
  // Gradient of the loss with respect to an output. An output that the loss does not depend on
  // gives zeros (a Fill).
  virtual Symbol grad_output(int i = 0) = 0;
  virtual bool has_grad_output(int i = 0) const = 0;
  // What relu and relu6 let through.
  virtual ReluRule relu_rule() const = 0;
  // Adds a node and returns its first output; `result(s, k)` names the others.
  virtual Symbol emit(Op op, std::vector<Symbol> inputs) = 0;
  static Symbol result(Symbol s, int k) {
    s.output = k;
    return s;
  }
  // Adds `value` to the gradient of input i. Calls for inputs that need none are ignored.
  virtual void set_grad_input(int i, Symbol value) = 0;

 protected:
  ~GradientContext() = default;
};

}  // namespace pycnn
