// An attention layer on a device: projections, rotary embedding, cache, attention, output projection, for a batch of
// sequences of equal length. The twin of AttentionLayer and SequenceCache; calibration and conversion stay on the CPU.
#pragma once
#include <memory>
#include <vector>

#include "../kernels/product.h"
#include "../launch/attention.h"
#include "../launch/cache.h"
#include "page-store.h"

namespace fastmqa::gpu {

class DeviceLayer {
 public:
  DeviceLayer(int device, const AcceleratorLayer& from);
  ~DeviceLayer();
  int device() const { return device_; }

  void fill(const float* const* x, int64_t tokens, bool settles);
  void settle();
  void attendAt(const float* const* x, int64_t firstPosition, int64_t tokens, float* y);
  void prefill(const float* const* x, int64_t tokens, const int64_t* positions, int64_t count, float* y);
  AcceleratorMemory memory();
  void prepareStep(const float* const* x, int64_t tokens);
  void sample(double seconds, const AcceleratorCancel* cancel, AcceleratorSamples& to);

 private:
  /// W [n][k], padded to what the matrix kernel takes, and what is added to each row.
  struct Weights {
    DeviceBlock data, bias;
    int64_t n = 0, k = 0;
    explicit operator bool() const { return n > 0; }
  };
  /// Rows of new tokens: where a token's numbers are, strides in elements.
  struct Source {
    const uint8_t* data = nullptr;
    int64_t size = 0;  ///< bytes from `data` on
    Dtype type = Dtype::f16;
    int64_t batch = 0, token = 0, head = 0;
    bool rotate = false;  ///< on the way into the cache
  };
  /// Projections of [batch][perSequence] tokens; keys are rotated only where latents are made of rotated ones.
  struct Rows {
    DeviceBlock keys, values;
    DeviceBlock latentKeys, latentValues;
    const DeviceBlock* input = nullptr;  ///< input cache: stands for latentKeys
    bool keysAreRotated = false;
    int64_t perSequence = 0;
  };

  Weights weightsOf(const AcceleratorMatrix& from, const float* bias, const int64_t* order);
  DeviceBlock uploadInputs(const float* const* x, int64_t tokens);
  DeviceBlock product(const DeviceBlock& x, int64_t m, const Weights& w);
  void rotateRows(const DeviceBlock& rows, int64_t count, int64_t heads, int64_t perSequence, int64_t firstPosition);
  Rows rowsOf(const DeviceBlock& x, int64_t perSequence, int64_t firstPosition, bool needsExact);
  Source source(const DeviceBlock& rows, int64_t perSequence, int64_t width, int64_t offset, bool perHead) const;
  Source exactKeys(const Rows& rows, int64_t offset) const;
  Source bodyKeys(const Rows& rows, int64_t offset) const;
  Source bodyValues(const Rows& rows, int64_t offset) const;
  void point(AppendSide& side, const Source& from, int64_t firstChannel) const;
  void appendExact(const ExactRows& to, const Source& keys, const Source& values, int64_t firstKey, int64_t position, int64_t count);
  void appendBody(const Source& keys, const Source& values, int64_t position, int64_t count);
  void append(const Rows& rows);
  void rollback(int64_t tokens);
  int64_t oldest() const { return window_ > 0 ? std::max<int64_t>(0, length_ - window_ + 1) : 0; }
  int64_t bodyStart() const { return origin_ + keys_->firstToken(); }  ///< position of the body's first token
  int64_t bodyFirst() const { return std::max(sinks_, bodyStart()); }  ///< of the first one that is attended there

  AttentionProblem problemFor(const DeviceBlock& q, int64_t queryTokens, int64_t firstPosition, const DeviceBlock& out) const;
  void setRows(AttentionProblem& part, const DeviceBlock& keys, const DeviceBlock& values, int64_t perSequence) const;
  void expandInto(const DeviceBlock& out, const PageStore& store, int64_t firstToken, int64_t tokens, int64_t perSequence, int64_t width, bool rotates);
  void expandTail(const DeviceBlock& out, bool values, int64_t firstToken, int64_t tokens, int64_t perSequence, int64_t at);
  void attendParts(std::vector<AttentionProblem>& parts);
  DeviceBlock queriesOf(const DeviceBlock& x, int64_t perSequence, int64_t firstPosition);
  DeviceBlock attention(const DeviceBlock& x, int64_t perSequence, int64_t firstPosition);
  void layOutPrefill(int64_t tokens);
  DeviceBlock runPrefill(const DeviceBlock& x, int64_t tokens);
  void runStep();
  void settleClocks();
  void downloadRows(const DeviceBlock& y, int64_t perSequence, const int64_t* positions, int64_t count, float* to);
  Global<const float> cosines() const { return cosine_.view<const float>(); }
  Global<const float> sines() const { return sine_.view<const float>(); }
  int64_t bytes(int64_t numbers) const { return numbers * (dtype_ == Dtype::f32 ? 4 : 2); }

  int device_;
  Device limits_;
  Stream stream_;
  DevicePool pool_;
  Dtype dtype_;
  int64_t batch_, d_, heads_, kvHeads_, headDim_, queryWidth_, keyWidth_;
  float scale_, softcap_;
  int64_t window_, sinks_, residual_, pairs_ = 0;
  bool isLatent_, cachesInput_, latentsOfRotatedKeys_, rotatesOnRead_, isTailed_ = false;
  int64_t tokenGroup_ = 1;
  /// Position of the stores' token 0. As on the CPU, sinks have a place in the body too, which groups of tokens and pages
  /// count from; only bodies that are attended where they lie begin after them.
  int64_t origin_ = 0;
  std::vector<int64_t> inputOrder_;
  Weights query_, key_, value_, output_, downKeys_, downValues_, upKeys_, upValues_;
  DeviceBlock cosine_, sine_, misfits_;
  std::unique_ptr<PageStore> keys_, values_;
  ExactRows sinkRows_, tail_;
  int64_t length_ = 0, settled_ = 0, tailStart_ = 0;
  int64_t weightBytes_ = 0, plainWeightBytes_ = 0;

  DeviceBlock stepInputs_;
  int64_t stepTokens_ = 0;  ///< 0: the step is a prefill of prefillTokens_
  int64_t prefillTokens_ = 0;
  std::unique_ptr<runtime::Graph> step_;
  DevicePool flushPool_;
  DeviceBlock flush_;
  char address_[32] = {};
};

}  // namespace fastmqa::gpu
