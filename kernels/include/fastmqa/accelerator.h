// The door to a library that runs layers with kernels of its own. It is found at run time (see layer/accelerator.h), so
// everything that passes is plain C: numbers, pointers, and a status where the rest of the engine throws.
#pragma once
#include <cstdint>

namespace fastmqa {

constexpr uint32_t acceleratorVersion = 5;

/// What became of a call; `poisoned`: the process must end before the device can be used again. Else as FailureKind.
enum class AcceleratorStatus : int32_t { done, refused, outOfMemory, cancelled, failed, poisoned };

/// A device and how it is now. Negative: not known (no NVML).
struct AcceleratorDevice {
  char name[128];
  int32_t capability;  ///< compute capability, major * 10 + minor
  int32_t multiprocessors, driverVersion, runtimeVersion;
  int64_t memoryBytes, freeBytes, cacheBytes;
  double clockMHz, mostClockMHz, memoryClockMHz, temperatureCelsius, powerWatts, powerLimitWatts;
  int64_t throttleReasons;  ///< bits of NVML's clocks event reasons
  int32_t foreignProcesses;
};

struct AcceleratorCeilings {
  double copyBytesPerSecond;     ///< read plus written, device to device
  double matrixFlopsPerSecond;   ///< f16 operands, f32 sums; by our kernel, or by cuBLAS where it is installed and faster
};

/// Row-major; no data where the layer has none.
struct AcceleratorMatrix {
  const float* data;
  int64_t rows, columns;
};

struct AcceleratorBand {
  int64_t channels;
  int32_t dtype;  ///< Dtype
  int32_t isSymmetric;
};

/// Twin of StoreSpec (cpu/panel-store.h).
struct AcceleratorStore {
  int64_t heads, channels;
  const AcceleratorBand* bands;
  int64_t bandCount;
  int32_t grouping;  ///< 0 n channels of a token, 1 n tokens of a channel, 2 the tensor
  int64_t groupSize;
  float tensorScale;
};

/// Multi-head latent attention: what a layer has in place of keys and values of its heads; twin of LatentWeights
/// (reference/layer.h). Rank 0: none. The layer's values then store the latent, its keys the rotated key that all heads share.
struct AcceleratorLatent {
  int64_t rank, ropeDim, valueDim;
  AcceleratorMatrix queryDown;   ///< [query rank][hiddenDim]; no data: queries come straight from x
  AcceleratorMatrix down;        ///< [rank + ropeDim][hiddenDim]
  AcceleratorMatrix up;          ///< [heads][headDim - ropeDim, then valueDim][rank]
  const float *queryNorm, *norm; ///< RMSNorm, [query rank] (or null) and [rank]
  float normEpsilon;
};

/// A finished layer: its weights as calibration left them, and what its cache stores.
struct AcceleratorLayer {
  int64_t batch, tokens;  ///< sequences, and the most tokens that each of them will hold
  int64_t hiddenDim, heads, kvHeads, headDim;
  int32_t dtype;          ///< of weights and activations: f32, f16 or bf16
  float scale, softcap;
  int64_t window, sinks, residual;  ///< window 0: none
  AcceleratorStore keys, values;    ///< values.heads 0: the keys hold both
  AcceleratorMatrix query, key, value;  ///< [heads or kvHeads * headDim][hiddenDim, or the rank of the queries' own latent]
  AcceleratorMatrix output;             ///< [hiddenDim][heads * headDim, or the latent's valueDim]
  const float *queryBias, *keyBias, *valueBias, *outputBias;  ///< added to the projections, or null
  const float *queryNorm, *keyNorm;     ///< RMSNorm of each head before the rotary embedding, [headDim], or null
  float normEpsilon;
  /// Latents: stored = down x + bias (or down of the rotated keys), key or value = up stored + mean.
  AcceleratorMatrix downKeys, downValues, upKeys, upValues;
  const float *biasKeys, *biasValues, *meanKeys, *meanValues;
  int32_t isLatent, cachesInput;
  int32_t latentsOfRotatedKeys;  ///< downKeys takes keys after the rotary embedding
  int32_t rotatesOnRead;         ///< cached before the rotary embedding, or computed again from what is cached
  int64_t rotaryPairs, positions;       ///< rotate-half, the first channels of a head (of the rotated key); 0 pairs: none
  const float *cosine, *sine;           ///< [positions][rotaryPairs]
  int32_t turnsNeighbours;              ///< pairs are (2 c, 2 c + 1); with latent attention only
  const int64_t* inputOrder;            ///< input cache: channel stored at each place
  AcceleratorLatent latent;
  int64_t reservedBytes;                ///< taken beside all this: for the weights of a whole model
};

struct AcceleratorMemory {
  int64_t settledTokens;                ///< of a sequence, that are not in an exact tail
  int64_t cacheBufferBytes, tableBytes; ///< handed out for the caches of all sequences
  int64_t weightBytes, plainWeightBytes; ///< plain: query, key, value and output of the reference's own heads are not counted here
  int64_t currentBytes, peakBytes;      ///< by the backend's allocator
  int64_t devicePeakBytes;              ///< by what the device had less free than before the layer
  int64_t heldBytes;                    ///< of the caches that are held
};

/// Seconds per step, and what was noticed while they were taken.
struct AcceleratorSamples {
  double* seconds;
  int64_t count, most;
  int64_t throttled;        ///< samples discarded because the device slowed itself down
  int32_t foreignProcesses; ///< others on the device
  int64_t graphNodes;       ///< of the recorded step, which is started as one; 0: it could not be recorded, and was started piece by piece
};

struct AcceleratorCancel {
  int32_t (*isRaised)(const void* flag);
  const void* flag;
};

/// Attention on given numbers. Query i stands at `position` + i and sees keys from `left` before to `right` after it (-1: all),
/// and `sinks` first ones. Stores of one band each.
struct AcceleratorTensors {
  int64_t batch, heads, keyDim, valueDim, queryTokens, tokens;
  int32_t dtype;                ///< of queries and outputs: f32, f16 or bf16
  AcceleratorStore keys, values;
  int64_t position, left, right, sinks;
  float scale, softcap;
  const float *q, *k, *v;       ///< [batch][queryTokens][heads][keyDim], [batch][tokens][kvHeads][keyDim or valueDim]
  float *out;                   ///< [batch][queryTokens][heads][valueDim]
  float *presentK, *presentV;   ///< as k and v: what the cache holds
};

/// Rows of a model in flight, of hiddenDim numbers each: what flows through the layers (f32), what a norm made of it, and what
/// attention and the MLP add to it (numbers of the weights' type).
enum class AcceleratorPlace : int32_t { stream, normed, attended, fed };

/// Numbers of vectors; bias -1: none.
struct AcceleratorNorm {
  int32_t weight, bias;
  int32_t isCentred;  ///< LayerNorm, else RMSNorm
  float epsilon;
};

/// Numbers of matrices: down(activation(up x)); or, gated, down(activation(first half of up x) * its second half).
struct AcceleratorMlp {
  int32_t up, down;
  int32_t isGated;
  int32_t activation;  ///< 0 SiLU, 1 GELU, 2 GELU by tanh
};

/// x: per sequence its rows [tokens][hiddenDim]. Layers may be used from any thread, one call at a time.
struct Accelerator {
  uint32_t version;
  AcceleratorStatus (*deviceCount)(int32_t* count);
  AcceleratorStatus (*describe)(int32_t device, AcceleratorDevice* to);
  /// Only what NVML knows, memory too, everything else 0: opens no device and disturbs none.
  AcceleratorStatus (*vitals)(int32_t device, AcceleratorDevice* to);
  AcceleratorStatus (*ceilings)(int32_t device, AcceleratorCeilings* to);
  AcceleratorStatus (*createLayer)(int32_t device, const AcceleratorLayer* from, void** layer);
  void (*destroyLayer)(void* layer);
  AcceleratorStatus (*fill)(void* layer, const float* const* x, int64_t tokens, int32_t settles);
  AcceleratorStatus (*settle)(void* layer);
  /// y [batch][tokens][hiddenDim]
  AcceleratorStatus (*attendAt)(void* layer, const float* const* x, int64_t firstPosition, int64_t tokens, float* y);
  /// Empties the caches first. y [batch][count][hiddenDim], of the tokens at `positions` only.
  AcceleratorStatus (*prefill)(void* layer, const float* const* x, int64_t tokens, const int64_t* positions, int64_t count, float* y);
  AcceleratorStatus (*memory)(void* layer, AcceleratorMemory* to);
  /// Caches of `batch` further sequences of `tokens` tokens, in blocks of just their size, filled from `rows` rows of x over and
  /// over, and kept until the layer ends. outOfMemory where the device refuses, or would hold more than `limitBytes` of them.
  AcceleratorStatus (*hold)(void* layer, const float* x, int64_t rows, int64_t tokens, int64_t limitBytes);
  /// Lays out a step that appends `tokens` to what is cached, and runs it once. Without it the step is the last prefill.
  AcceleratorStatus (*prepareStep)(void* layer, const float* const* x, int64_t tokens);
  AcceleratorStatus (*sample)(void* layer, double seconds, const AcceleratorCancel* cancel, AcceleratorSamples* to);

  // Whole models. A model is weights on a device, numbered from 0 in the order they are added; a run works on rows of its own
  // with them: calls are carried out in order, and only those that say so wait for results.
  AcceleratorStatus (*createModel)(int32_t device, int32_t dtype, void** model);
  void (*destroyModel)(void* model);  ///< runs keep what they use
  /// @param bias  added to results of the product, [rows], or null
  AcceleratorStatus (*addMatrix)(void* model, const AcceleratorMatrix* from, const float* bias, int32_t* number);
  AcceleratorStatus (*addVector)(void* model, const float* from, int64_t count, int32_t* number);
  AcceleratorStatus (*modelBytes)(void* model, int64_t* bytes);
  AcceleratorStatus (*createRun)(void* model, void** run);
  void (*destroyRun)(void* run);
  /// Weights of a layer, and such layers with caches of their own, whose rows are the run's; all to be destroyed before it. Of
  /// `from` addLayer does not read what the weights have.
  AcceleratorStatus (*addWeights)(void* run, const AcceleratorLayer* from, void** weights);
  void (*destroyWeights)(void* weights);
  AcceleratorStatus (*addLayer)(void* run, const AcceleratorLayer* from, void* weights, void** layer);
  /// The stream becomes scale * the rows of `embedding` at these tokens + the rows of `positions` (-1: none) where they stand.
  /// Row r stands at firstPosition + r % perSequence.
  AcceleratorStatus (*embed)(void* run, int32_t embedding, int32_t positions, const int32_t* tokens, int64_t rows, int64_t perSequence, int64_t firstPosition,
                             float scale);
  AcceleratorStatus (*normalise)(void* run, const AcceleratorNorm* norm, AcceleratorPlace from, AcceleratorPlace to);
  /// Rows [batch][tokens]: whole prompts, in the place of what the layer caches, or tokens that are appended and read the cache.
  AcceleratorStatus (*attend)(void* run, void* layer, int32_t prefills, AcceleratorPlace from, AcceleratorPlace to);
  AcceleratorStatus (*rollback)(void* layer, int64_t length);
  AcceleratorStatus (*feedForward)(void* run, const AcceleratorMlp* mlp, AcceleratorPlace from, AcceleratorPlace to);
  AcceleratorStatus (*add)(void* run, AcceleratorPlace from);  ///< to the stream
  AcceleratorStatus (*read)(void* run, AcceleratorPlace from, float* to);  ///< [rows][hiddenDim]; waits
  /// Products with `head`; softcap 0: none. to [rows][its rows], waits; null: they stay on the device.
  AcceleratorStatus (*logits)(void* run, int32_t head, float softcap, AcceleratorPlace from, float* to);
  AcceleratorStatus (*runMemory)(void* run, int32_t resetsPeak, AcceleratorMemory* to);  ///< of caches and settled tokens the layers know
  /// Times what `step` asks of the run. It may be called any number of times, only within this call, and must ask the same each
  /// time; what it returns unless `done` comes back. Samplings that follow one another directly go on with the step of the first.
  AcceleratorStatus (*sampleRun)(void* run, AcceleratorStatus (*step)(void* context), void* context, double seconds, const AcceleratorCancel* cancel,
                                 AcceleratorSamples* to);

  AcceleratorStatus (*attendTensors)(int32_t device, const AcceleratorTensors* request);
  /// Of the last call on this thread that was not `done`.
  const char* (*message)();
};

}  // namespace fastmqa

/// The library's one symbol. Null for a version that it does not speak.
extern "C" const fastmqa::Accelerator* fastmqaAccelerator(uint32_t version);
