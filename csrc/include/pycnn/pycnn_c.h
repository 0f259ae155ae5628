#pragma once
#include <stddef.h>
#include <stdint.h>

#include "pycnn/export.h"

/**
 * \file
 * pycnn for C, and for languages that call C: load a model file, run it, train it.
 *
 * Every function that can fail returns a ::pycnn_status and, unless that is ::PYCNN_OK, has changed
 * nothing it was given; ::pycnn_last_error has the text. No C++ exception leaves a function, and
 * none prints, aborts or installs a handler. A null pointer where none is allowed, an array of the
 * wrong size or an index out of range is ::PYCNN_ARGUMENT_ERROR with a text that names function and
 * argument.
 *
 * Handles are opaque. Each `pycnn_*_free` takes what a function of the same type gave, or NULL. A
 * program or trainer keeps what it needs of its model, which may be freed before it. Texts are
 * UTF-8 and end with a zero; those that come from a handle live as long as it. One that a file
 * holds with a zero inside is ::PYCNN_UNSUPPORTED_ERROR.
 *
 * Threads: different handles are independent. A model may be used from any number of threads while
 * none trains it, a program by any number at once (::pycnn_program_run), a trainer by one at a
 * time.
 */

#ifdef __cplusplus
extern "C" {
#endif

/** Version of this interface: what this header declares. It grows when functions or options are
 * added or change their meaning; ::pycnn_c_abi_version tells that of the library that was loaded.
 */
#define PYCNN_C_ABI_VERSION 3

/** Most axes of an array. */
#define PYCNN_MAX_RANK 8

/** What a function reports: one of the PYCNN_*_ERROR codes, or ::PYCNN_OK. */
typedef int32_t pycnn_status;

/** Codes of ::pycnn_status, one for each class of pycnn/error.h. */
enum {
  PYCNN_OK = 0,                  /**< It worked. */
  PYCNN_ERROR = 1,               /**< Of no class below. */
  PYCNN_SHAPE_ERROR = 2,         /**< Sizes or ranks disagree. */
  PYCNN_DTYPE_ERROR = 3,         /**< An element type is not accepted here. */
  PYCNN_ARGUMENT_ERROR = 4,      /**< Another argument is null or out of its range. */
  PYCNN_GRAPH_ERROR = 5,         /**< The network does not go with what is asked, or nothing is left
                                      to train. */
  PYCNN_DEVICE_ERROR = 6,        /**< The device or instruction set is not there. */
  PYCNN_FORMAT_ERROR = 7,        /**< The file is malformed. */
  PYCNN_UNSUPPORTED_ERROR = 8,   /**< Legal, but not something this version can do. */
  PYCNN_LABEL_ERROR = 9,         /**< A label is negative or not below the number of classes. */
  PYCNN_FILE_ERROR = 10,         /**< The system refused a file: see ::pycnn_last_errno. */
  PYCNN_MEMORY_LIMIT_ERROR = 11, /**< More memory than the limit or the machine allows: see
                                      ::pycnn_last_wanted_bytes. */
  PYCNN_TRAINING_ERROR = 12,     /**< Another thread is training the same weights. */
  PYCNN_INTERNAL_ERROR = 13      /**< Our fault; please report the text. */
};

/** Type of the elements of an array: one of PYCNN_FLOAT32 to PYCNN_INT64. */
typedef int32_t pycnn_dtype;

/** Values of ::pycnn_dtype. */
enum {
  PYCNN_FLOAT32 = 0,  /**< `float` */
  PYCNN_FLOAT64 = 1,  /**< `double` */
  PYCNN_BFLOAT16 = 2, /**< the upper half of a `float` */
  PYCNN_FLOAT16 = 3,  /**< IEEE 754 half precision */
  PYCNN_UINT8 = 4,    /**< `uint8_t` */
  PYCNN_INT32 = 5,    /**< `int32_t` */
  PYCNN_INT64 = 6     /**< `int64_t` */
};

/** An update rule: one of PYCNN_SGD to PYCNN_MUON; formulas as PyTorch's. */
typedef int32_t pycnn_optimizer;

/** Values of ::pycnn_optimizer. */
enum {
  PYCNN_SGD = 0,   /**< stochastic gradient descent with momentum */
  PYCNN_ADAM = 1,  /**< Kingma, Ba 2015 */
  PYCNN_ADAMW = 2, /**< Loshchilov, Hutter 2019 */
  PYCNN_MUON = 3   /**< orthogonalised momentum for matrices (Jordan et al. 2024) */
};

/** A network and its weights, from a file. */
typedef struct pycnn_model pycnn_model;
/** A network compiled for inference on a fixed number of images. */
typedef struct pycnn_program pycnn_program;
/** What trains the weights of a model. */
typedef struct pycnn_trainer pycnn_trainer;

/** One input or output. */
typedef struct pycnn_array_info {
  const char* name;              /**< owned by the handle that was asked */
  pycnn_dtype dtype;             /**< of the elements */
  int32_t rank;                  /**< how many entries of `shape` count */
  int64_t shape[PYCNN_MAX_RANK]; /**< outermost axis first; images are (N, H, W, C) */
  size_t bytes;                  /**< of the whole array, contiguous and row-major */
} pycnn_array_info;

/** An array of the caller's that is read during a call. */
typedef struct pycnn_input {
  const void* data; /**< contiguous, row-major, aligned to its elements */
  size_t bytes;     /**< must be those of ::pycnn_array_info */
} pycnn_input;

/** An array of the caller's that is written during a call. */
typedef struct pycnn_output {
  void* data;   /**< contiguous, row-major, aligned to its elements */
  size_t bytes; /**< must be those of ::pycnn_array_info */
} pycnn_output;

/** How a network is compiled, by ::pycnn_program_compile and as part of ::pycnn_trainer_options.
 * Set by ::pycnn_compile_options_init first. */
typedef struct pycnn_compile_options {
  size_t struct_size; /**< set by the init function: how much of this struct the caller has */
  int64_t batch;      /**< images at once, at least 1; default 1 */
  pycnn_dtype images; /**< PYCNN_FLOAT32 (default), or PYCNN_UINT8: bytes, read as value / 255 */
  int32_t threads;    /**< at most this many; 0 (default) chooses */
  const char* device; /**< "cpu" (default), "cuda" or "cuda:N" */
  pycnn_dtype dtype;  /**< of activations: PYCNN_FLOAT32 (default), PYCNN_BFLOAT16, or PYCNN_FLOAT16
                           on a GPU */
  size_t memory_limit_bytes; /**< refuse what needs more for a run; 0 (default): what the machine
                                  has left */
  int32_t winograd; /**< not 0 (default 1): 3x3, 5x5 and 1x1 convolutions may multiply less and
                         round more (Winograd, Strassen). A library of version 2 ignores it. */
  int32_t tf32;     /**< not 0 (default 0): a GPU's tensor cores may round float32 to TF32, a
                         thousandth of the precision; the CPU never does. A library of version 2
                         ignores it. */
} pycnn_compile_options;

/** How a model is trained. Set by ::pycnn_trainer_options_init first. */
typedef struct pycnn_trainer_options {
  size_t struct_size; /**< set by the init function: how much of this struct the caller has */
  pycnn_optimizer optimizer; /**< default PYCNN_SGD */
  double learning_rate;      /**< of the first step; default 0.01 */
  double momentum;           /**< of PYCNN_SGD and PYCNN_MUON; default 0.9 */
  double weight_decay;       /**< default 0 */
  double label_smoothing;    /**< in [0, 1]; default 0 */
  const char* const*
      trained;               /**< names of the parameters and buffers to train, in which `*` stands
                                  for any text; NULL (default): all. A batch norm whose running mean
                                  is not among them keeps its running statistics and uses them. */
  size_t trained_count;      /**< entries of `trained` */
  const char* const* frozen; /**< exceptions from `trained`; default NULL */
  size_t frozen_count;       /**< entries of `frozen` */
  uint64_t seed;             /**< of dropout, below 2^63; default 0 */
  int32_t resume; /**< not 0: go on from the training state that the model's file holds */
  const pycnn_compile_options* compile; /**< batch (default 32), image type, threads, device,
                                           memory; NULL: defaults. Read by the call only. */
} pycnn_trainer_options;

/** Memory that a network takes, in bytes. */
typedef struct pycnn_memory {
  size_t run_bytes;      /**< activations and scratch, of each run under way at the same time; on a
                            GPU once, with inputs and outputs there */
  size_t shared_bytes;   /**< folded and packed weights of the program */
  size_t variable_bytes; /**< weights and training state that the program touches */
} pycnn_memory;

/** The library's version, "MAJOR.MINOR.PATCH". Never NULL. */
PYCNN_API const char* pycnn_version(void);
/** ::PYCNN_C_ABI_VERSION of the library. Lower than the header's: some functions may be missing,
 * and options at the end of a struct are ignored. */
PYCNN_API int32_t pycnn_c_abi_version(void);

/** "ShapeError" and so on; "unknown status" for a number that is none. Never NULL. */
PYCNN_API const char* pycnn_status_name(pycnn_status status);
/** The text of the last failure on this thread, "" before the first. Valid until the next failure
 * on this thread, at most 4095 bytes (longer ones are cut). Paths and names of devices are in it as
 * they were given, UTF-8 or not. Never NULL. */
PYCNN_API const char* pycnn_last_error(void);
/** errno of the last failure on this thread if it was ::PYCNN_FILE_ERROR, else 0. */
PYCNN_API int32_t pycnn_last_errno(void);
/** Bytes that the last failure on this thread wanted if it was ::PYCNN_MEMORY_LIMIT_ERROR and they
 * are known, else 0. */
PYCNN_API size_t pycnn_last_wanted_bytes(void);

/** Reads a model file that Python's `pycnn.save`, C++ or this interface wrote.
 *
 * \param path The file, as the system wants it.
 * \param[out] model To be freed by ::pycnn_model_free.
 * \return ::PYCNN_FILE_ERROR, ::PYCNN_FORMAT_ERROR (the text names tensor, field and byte) */
PYCNN_API pycnn_status pycnn_model_load(const char* path, pycnn_model** model);
/** Reads a model from the bytes of such a file, for example from a resource of the program. Nothing
 * is written into them, and they may be freed afterwards.
 *
 * \param data The bytes, of any alignment; any content is safe.
 * \param bytes How many.
 * \param[out] model To be freed by ::pycnn_model_free.
 * \return ::PYCNN_FORMAT_ERROR (the text names tensor, field and byte) */
PYCNN_API pycnn_status pycnn_model_load_memory(const void* data, size_t bytes, pycnn_model** model);
/** Writes the network and its weights as they are now, without training state, atomically: the
 * path holds all of the new file or what it held before.
 *
 * \param model The model.
 * \param path Where to.
 * \return ::PYCNN_FILE_ERROR */
PYCNN_API pycnn_status pycnn_model_save(const pycnn_model* model, const char* path);
/** Frees a model; programs and trainers of it stay valid. */
PYCNN_API void pycnn_model_free(pycnn_model* model);

/** Inputs that the network has; usually 1. */
PYCNN_API pycnn_status pycnn_model_input_count(const pycnn_model* model, size_t* count);
/** Input `index` as it was recorded, usually with N = 1. */
PYCNN_API pycnn_status pycnn_model_input(const pycnn_model* model, size_t index,
                                         pycnn_array_info* info);
/** Outputs that the network has; usually 1, scores (N, classes) before any softmax. */
PYCNN_API pycnn_status pycnn_model_output_count(const pycnn_model* model, size_t* count);
/** Output `index` as it was recorded. */
PYCNN_API pycnn_status pycnn_model_output(const pycnn_model* model, size_t index,
                                          pycnn_array_info* info);
/** A text entry of the file's metadata; `*text` is NULL where there is none of this key. */
PYCNN_API pycnn_status pycnn_model_metadata(const pycnn_model* model, const char* key,
                                            const char** text);
/** Names of classes that the file has, in the order of the scores; 0 when it has none. Nothing
 * makes a file have as many as scores: compare before asking for one. ::PYCNN_FORMAT_ERROR when the
 * entry is damaged. */
PYCNN_API pycnn_status pycnn_model_class_count(const pycnn_model* model, size_t* count);
/** The name of class `index`. */
PYCNN_API pycnn_status pycnn_model_class_name(const pycnn_model* model, size_t index,
                                              const char** name);

/** The model for another number of classes: the layer that gives the scores (and auxiliary heads')
 * starts anew, drawn from `seed`, and the names of classes are left out. A head of that many
 * classes already keeps weights and names. All other weights are shared with `model`: training one
 * trains the other.
 *
 * \param model The model; it stays as it is.
 * \param num_classes At least 1.
 * \param seed Of the fresh weights.
 * \param[out] result To be freed by ::pycnn_model_free.
 * \return ::PYCNN_GRAPH_ERROR when no dense layer or convolution gives the scores,
 * ::PYCNN_UNSUPPORTED_ERROR when what follows has the old number built in, ::PYCNN_SHAPE_ERROR or
 * ::PYCNN_MEMORY_LIMIT_ERROR for more classes than there can be weights for */
PYCNN_API pycnn_status pycnn_model_replace_head(const pycnn_model* model, int64_t num_classes,
                                                uint64_t seed, pycnn_model** result);
/** Parameters of the layer that gives the scores: what to train alone for other classes. */
PYCNN_API pycnn_status pycnn_model_head_count(const pycnn_model* model, size_t* count);
/** The name of parameter `index` of the head. ::PYCNN_GRAPH_ERROR as ::pycnn_model_replace_head. */
PYCNN_API pycnn_status pycnn_model_head_name(const pycnn_model* model, size_t index,
                                             const char** name);

/** Fills `options` with the defaults.
 *
 * \param options To fill.
 * \param struct_size sizeof(pycnn_compile_options), as the caller was compiled with. */
PYCNN_API pycnn_status pycnn_compile_options_init(pycnn_compile_options* options,
                                                  size_t struct_size);
/** What compiling a model for inference would take; nothing is compiled and no limit applies.
 *
 * \param model The model.
 * \param options NULL for the defaults.
 * \param[out] memory The plan. */
PYCNN_API pycnn_status pycnn_plan_memory(const pycnn_model* model,
                                         const pycnn_compile_options* options,
                                         pycnn_memory* memory);

/** Compiles a model for inference. The program shares the model's weights and follows their
 * training.
 *
 * \param model The model.
 * \param options NULL for the defaults.
 * \param[out] program To be freed by ::pycnn_program_free.
 * \return ::PYCNN_SHAPE_ERROR when an op does not go with the batch, ::PYCNN_MEMORY_LIMIT_ERROR,
 * ::PYCNN_DEVICE_ERROR, ::PYCNN_UNSUPPORTED_ERROR (bfloat16 without the units for it) */
PYCNN_API pycnn_status pycnn_program_compile(const pycnn_model* model,
                                             const pycnn_compile_options* options,
                                             pycnn_program** program);
/** Frees a program, which no thread may be running any more. */
PYCNN_API void pycnn_program_free(pycnn_program* program);

/** Arrays that ::pycnn_program_run reads. */
PYCNN_API pycnn_status pycnn_program_input_count(const pycnn_program* program, size_t* count);
/** Input `index`, with the batch that was compiled for. */
PYCNN_API pycnn_status pycnn_program_input(const pycnn_program* program, size_t index,
                                           pycnn_array_info* info);
/** Arrays that ::pycnn_program_run writes. */
PYCNN_API pycnn_status pycnn_program_output_count(const pycnn_program* program, size_t* count);
/** Output `index`. */
PYCNN_API pycnn_status pycnn_program_output(const pycnn_program* program, size_t index,
                                            pycnn_array_info* info);
/** What the program takes; `run_bytes` once for each thread that runs it at the same time. */
PYCNN_API pycnn_status pycnn_program_memory(const pycnn_program* program, pycnn_memory* memory);

/** Runs the network once. Any number of threads may do so at once; each gets the bits that it
 * would get alone. After a thread's first run nothing is allocated.
 *
 * \param program The program.
 * \param inputs Arrays in the order of ::pycnn_program_input.
 * \param input_count How many.
 * \param outputs Arrays in the order of ::pycnn_program_output; none may overlap another array.
 * \param output_count How many.
 * \return ::PYCNN_ARGUMENT_ERROR for a wrong count, a null array or one of another size */
PYCNN_API pycnn_status pycnn_program_run(const pycnn_program* program, const pycnn_input* inputs,
                                         size_t input_count, const pycnn_output* outputs,
                                         size_t output_count);

/** Fills `options` with the defaults.
 *
 * \param options To fill.
 * \param struct_size sizeof(pycnn_trainer_options), as the caller was compiled with. */
PYCNN_API pycnn_status pycnn_trainer_options_init(pycnn_trainer_options* options,
                                                  size_t struct_size);
/** Compiles a training step: softmax cross-entropy on class labels. The model's weights are trained
 * in place, so programs of the same model see every step.
 *
 * \param model The model; it must have one input, and one output (N, classes).
 * \param options NULL for the defaults.
 * \param[out] trainer To be freed by ::pycnn_trainer_free.
 * \return ::PYCNN_ARGUMENT_ERROR for an option out of its range or a name that fits nothing,
 * ::PYCNN_GRAPH_ERROR when nothing is left to train, and what ::pycnn_program_compile reports */
PYCNN_API pycnn_status pycnn_trainer_create(pycnn_model* model,
                                            const pycnn_trainer_options* options,
                                            pycnn_trainer** trainer);
/** Frees a trainer; the weights stay trained. */
PYCNN_API void pycnn_trainer_free(pycnn_trainer* trainer);
/** One image as ::pycnn_trainer_step wants it: (1, H, W, C). */
PYCNN_API pycnn_status pycnn_trainer_image(const pycnn_trainer* trainer, pycnn_array_info* info);
/** One step on a batch: forward pass, loss, gradients, update.
 *
 * \param trainer The trainer.
 * \param images `label_count` images, contiguous.
 * \param label_count Images in this batch, at least 1; another number than before is compiled
 * first.
 * \param labels Classes, from 0 on.
 * \param[out] loss Mean over the batch, before the update; may be NULL.
 * \param[out] correct Images whose class had the largest score; may be NULL.
 * \return ::PYCNN_LABEL_ERROR (nothing has changed then), ::PYCNN_TRAINING_ERROR when another
 * thread is in a step */
PYCNN_API pycnn_status pycnn_trainer_step(pycnn_trainer* trainer, pycnn_input images,
                                          const int64_t* labels, size_t label_count, double* loss,
                                          int64_t* correct);
/** Steps made so far, those before a resumed file included. */
PYCNN_API pycnn_status pycnn_trainer_steps(const pycnn_trainer* trainer, int64_t* steps);
/** Sets the rate of the steps that follow: at least 0, finite as a `float`. */
PYCNN_API pycnn_status pycnn_trainer_set_learning_rate(pycnn_trainer* trainer, double rate);
/** Writes network, weights and training state, atomically, to be loaded and trained on with
 * `resume`. ::PYCNN_FILE_ERROR */
PYCNN_API pycnn_status pycnn_trainer_save(const pycnn_trainer* trainer, const char* path);

#ifdef __cplusplus
}
#endif
