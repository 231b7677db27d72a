// An attention layer on a device: projections, rotary embedding, cache, attention, output projection, for a batch of
// sequences of equal length. The twin of AttentionLayer and SequenceCache; calibration and conversion stay on the CPU.
#pragma once
#include <memory>
#include <vector>

#include "../kernels/reconstruct.h"
#include "../launch/attention.h"
#include "../launch/cache.h"
#include "../launch/decoder.h"
#include "latent-attention.h"
#include "page-store.h"
#include "timer.h"

namespace fastmqa::gpu {

/// What calibration and conversion left of a layer, on the device. Copies share the memory.
class LayerWeights {
 public:
  LayerWeights(std::shared_ptr<Lane> lane, const AcceleratorLayer& from);

 protected:
  std::shared_ptr<Lane> lane_;  ///< first: its pool has to outlive what came from it
  Weights query_, key_, value_, output_, downKeys_, downValues_, upKeys_, upValues_;
  LatentAttention own_;  ///< of a model with multi-head latent attention, in the place of query_, key_ and value_
  std::shared_ptr<const DeviceBlock> queryNorm_, keyNorm_, cosine_, sine_, orderList_;
  std::vector<int64_t> inputOrder_;
  int64_t weightBytes_ = 0, plainWeightBytes_ = 0;
};

class DeviceLayer : LayerWeights {
 public:
  /// @param weights  made from the same description; the layer runs on their lane
  DeviceLayer(const AcceleratorLayer& from, LayerWeights weights);
  ~DeviceLayer();
  int device() const { return lane_->device; }
  int64_t batch() const { return batch_; }

  void fill(const float* const* x, int64_t tokens, bool settles);
  void settle();
  void attendAt(const float* const* x, int64_t firstPosition, int64_t tokens, float* y);
  void prefill(const float* const* x, int64_t tokens, const int64_t* positions, int64_t count, float* y);
  /// Of rows that are on the device, [batch][tokens]: whole prompts, in the place of what is cached; or tokens that are appended
  /// and read the cache. Starts the work, and returns where the output [batch][tokens][hiddenDim] will be.
  DeviceBlock attend(const DeviceBlock& x, int64_t tokens, bool prefills);
  /// Forgets tokens from `length` on, appended since settle().
  void rollback(int64_t length);
  AcceleratorMemory memory();
  /// @param x [rows][hiddenDim]; see Accelerator::hold
  void hold(const float* x, int64_t rows, int64_t tokens, int64_t limitBytes);
  void prepareStep(const float* const* x, int64_t tokens);
  void sample(double seconds, const AcceleratorCancel* cancel, AcceleratorSamples& to);

 private:
  /// Rows of new tokens: where a token's numbers are, strides in elements.
  struct Source {
    const uint8_t* data = nullptr;
    int64_t size = 0;  ///< bytes from `data` on
    Dtype type = Dtype::f16;
    int64_t batch = 0, token = 0, head = 0;
    bool rotate = false;  ///< on the way into the cache
  };
  /// Projections of [batch][perSequence] tokens; keys are rotated only where latents are made of rotated ones. Of the model's own
  /// latents `keys` and `values` are what LatentAttention::Cached has.
  struct Rows {
    DeviceBlock keys, values, queries;  ///< queries: of a step, where they are made in one go with the others
    DeviceBlock latentKeys, latentValues;
    const DeviceBlock* input = nullptr;  ///< input cache: stands for latentKeys
    bool keysAreRotated = false;
    int64_t perSequence = 0;  ///< 0: the rows of one sequence stand for all
  };
  /// What a batch of sequences has cached.
  struct Caches {
    std::unique_ptr<PageStore> keys, values;
    ExactRows sinkRows, tail;
    int64_t length = 0, settled = 0, tailStart = 0;
  };

  DeviceBlock uploadInputs(const float* const* x, int64_t sequences, int64_t tokens);
  void downloadRows(const DeviceBlock& y, int64_t perSequence, const int64_t* positions, int64_t count, float* to);
  DeviceBlock product(const DeviceBlock& x, int64_t m, const Weights& w) { return lane_->product(x, m, w); }
  void normaliseHeads(const DeviceBlock& rows, int64_t count, const std::shared_ptr<const DeviceBlock>& weight);
  void rotateRows(const DeviceBlock& rows, int64_t count, int64_t heads, int64_t perSequence, int64_t firstPosition);
  DeviceBlock step(const DeviceBlock& x, int64_t tokens);
  DeviceBlock runPrefill(const DeviceBlock& x, int64_t tokens);
  void runStep();

  // Writing (device-cache.cpp).
  Rows rowsOf(const DeviceBlock& x, int64_t sequences, int64_t perSequence, int64_t firstPosition, bool needsExact, bool withQueries = false);
  Source source(const DeviceBlock& rows, int64_t perSequence, int64_t width, int64_t offset, bool perHead) const;
  Source exactKeys(const Rows& rows, int64_t offset) const;
  Source exactValues(const Rows& rows, int64_t offset) const;
  Source bodyKeys(const Rows& rows, int64_t offset) const;
  Source bodyValues(const Rows& rows, int64_t offset) const;
  void point(AppendSide& side, const Source& from, int64_t firstChannel) const;
  void appendExact(const ExactRows& to, const Source& keys, const Source& values, int64_t firstKey, int64_t position, int64_t count);
  void appendBody(const Source& keys, const Source& values, int64_t position, int64_t count);
  void append(const Rows& rows);
  int64_t settledAfter(int64_t tokens) const;
  void layOutPrefill(int64_t tokens);
  void fillLaidOut(const DeviceBlock& inputs, int64_t rows);
  void swap(Caches& other);
  /// The first of so many tokens that the next query sees.
  int64_t oldestOf(int64_t tokens) const { return window_ > 0 ? std::max<int64_t>(0, tokens - window_ + 1) : 0; }
  int64_t bodyStart() const { return keys_->firstToken(); }  ///< position of the body's first token
  int64_t bodyFirst() const { return std::max(sinks_, bodyStart()); }  ///< of the first one that is attended there

  // Attending (device-attention.cpp).
  /// Heads as a kernel is to see them.
  struct HeadShape {
    int64_t kvHeads, keyDim, valueDim;
  };
  AttentionProblem problemFor(const HeadShape& shape, const DeviceBlock& q, int64_t queryTokens, int64_t firstPosition, const DeviceBlock& out) const;
  void setRows(AttentionProblem& part, const DeviceBlock& keys, const DeviceBlock& values, int64_t perSequence) const;
  AttentionProblem bodyOf(const AttentionProblem& whole) const;
  void expandInto(const DeviceBlock& out, const PageStore& store, int64_t firstToken, int64_t tokens, int64_t perSequence, int64_t width, bool rotates);
  void expandTail(const DeviceBlock& out, bool values, int64_t firstToken, int64_t tokens, int64_t perSequence, int64_t at);
  bool addMadePart(const AttentionProblem& whole, Reconstruction& made, std::vector<AttentionProblem>& parts) const;
  void attendParts(std::vector<AttentionProblem>& parts);
  DeviceBlock queriesOf(DeviceBlock made, const DeviceBlock& x, int64_t perSequence, int64_t firstPosition);
  DeviceBlock attention(const DeviceBlock& x, int64_t perSequence, int64_t firstPosition, DeviceBlock queries = {});
  DeviceBlock promptAttention(Rows rows, const DeviceBlock& x, int64_t tokens);

  // Attending, of layers with multi-head latent attention (device-latent.cpp).
  Angles anglesAt(int64_t firstPosition, int64_t perSequence) const;
  void readBack(ExpandProblem p, const DeviceBlock& rows, int64_t perSequence, int64_t at, int64_t firstToken, int64_t tokens, int64_t firstKey, bool rotates) const;
  AttentionProblem ownRows(const AttentionProblem& whole, const DeviceBlock& rows, int64_t tokens, int64_t firstKey) const;
  DeviceBlock attentionInLatent(const DeviceBlock& x, int64_t perSequence, int64_t firstPosition);
  DeviceBlock promptAttentionInLatent(Rows rows, const DeviceBlock& x, int64_t tokens);

  Global<const float> cosines() const { return cosine_ ? cosine_->view<const float>() : Global<const float>(); }
  Global<const float> sines() const { return sine_ ? sine_->view<const float>() : Global<const float>(); }
  int64_t bytes(int64_t numbers) const { return lane_->bytes(numbers); }

  static constexpr int64_t heldRegion = int64_t{256} << 20;  ///< many small blocks at a time

  const Device limits_;
  const Stream stream_;
  DevicePool& pool_;
  const Dtype dtype_;
  int64_t batch_, d_, heads_, kvHeads_, headDim_, queryWidth_, keyWidth_;
  float scale_, softcap_;
  int64_t window_, sinks_, residual_, pairs_ = 0;
  float normEpsilon_;
  bool isLatent_, cachesInput_, latentsOfRotatedKeys_, rotatesOnRead_, turnsNeighbours_, isTailed_ = false;
  /// The model's own latent and its rotated key lie side by side in `keys_`, as the latent kernels read them; there is no `values_`.
  bool isOneRow_ = false;
  int64_t tokenGroup_ = 1;
  DeviceBlock misfits_;
  std::unique_ptr<PageStore> keys_, values_;
  ExactRows sinkRows_, tail_;
  int64_t length_ = 0, settled_ = 0, tailStart_ = 0;
  int64_t laidOut_ = 0;  ///< tokens of a prompt for which everything has its place, until something is appended

  DevicePool heldPool_{heldRegion, heldRegion / 8, 64};  ///< as the Arena of the CPU rounds; a page of codes is a multiple of that
  DeviceBlock heldInputs_, reserved_;
  std::vector<Caches> held_;

  DeviceBlock stepInputs_;
  int64_t stepTokens_ = 0;  ///< 0: the step is a prefill of prefillTokens_
  int64_t prefillTokens_ = 0;
  std::unique_ptr<Timer> timer_;
};

}  // namespace fastmqa::gpu
