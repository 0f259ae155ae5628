#pragma once
#include <cstddef>
#include <cstdint>

// The text form of a graph: what `Graph::text` prints and `Graph::parse` reads.
//
//   pycnn.graph 1
//   input "x" = f32(32, 28, 28, 1)
//   parameter "conv1.weight" = f32(6, 5, 5, 1) layout=conv
//   buffer "bn1.running_mean" = f32(6)
//   "conv1" = conv2d("x", "conv1.weight") {stride=(1, 1), padding=(2, 2, 2, 2), dilation=(1, 1),
//       groups=1, epilogue=(false, identity, 0.01)} -> f32(32, 28, 28, 6)
//   "bn1" = batch_norm_train("conv1", ...) {eps=1e-05, momentum=0.1} -> f32(32, 28, 28, 6), ...
//   output "features" = "bn1"
//   assign "bn1.running_mean" = "bn1":3
//
// (the conv2d line is broken here only.) In that order:
//
//   text       = header { node } { output } { assignment }, every line ended by one line feed
//   header     = "pycnn.graph 1"
//   node       = leaf | operation, in the order of the graph; a node refers to earlier ones only
//   leaf       = ( "input" | "parameter" | "buffer" ) " " name " = " spec [ " layout=conv" ]
//   operation  = name " = " op "(" [ symbol { ", " symbol } ] ")" [ " {" field { ", " field } "}" ]
//                " -> " spec { ", " spec }
//   output     = "output " name " = " symbol
//   assignment = "assign " name " = " symbol
//   symbol     = name [ ":" number ]          which output of the node, left out where it is 0
//   name       = '"' characters '"'           UTF-8 without quote, backslash or control character
//   spec       = dtype "(" [ integer { ", " integer } ] ")"
//   field      = key "=" value                all fields of the op, in the order of its `fields`
//   value      = integer | real | "true" | "false" | word | "(" [ value { ", " value } ] ")"
//
// Words are dtypes, activations and reductions. A real is the shortest decimal that reads back as
// the same double. Origins and initializers are left out: a model file must not tell where it was
// made.
//
// There is one text for one graph. The reader accepts nothing else: every node goes through
// `Graph::add`, its result must be the printed spec, and what it has read must print as what it was
// given.
namespace pycnn {

inline constexpr int kTextVersion = 1;
inline constexpr std::size_t kMaxTextNodes = 1000000;
inline constexpr std::size_t kMaxLineBytes = std::size_t{1} << 24;

}  // namespace pycnn
