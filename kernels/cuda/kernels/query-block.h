// What a block works on, in a grid of [splits][KV heads x blocks of rows][sequences]: query rows of one KV head of one sequence,
// and a split's share of the keys that they see.
#pragma once
#include "attention-problem.h"

namespace fastmqa::gpu {

/// Rows firstRow .. firstRow + rowsHere - 1 of KV head g of sequence b; a KV head's row r is its query head r % group of query
/// token r / group.
struct QueryBlock {
  int group, split, g, b, firstRow, rowsHere;

  /// `rows`: of a block, at most.
  FASTMQA_DEVICE QueryBlock(const AttentionProblem& p, int rows) {
    group = p.groupSize();
    const int allRows = group * p.queryTokens, rowBlocks = (allRows + rows - 1) / rows;
    split = blockIndex().x, g = blockIndex().y / rowBlocks, firstRow = blockIndex().y % rowBlocks * rows, b = blockIndex().z;
    rowsHere = allRows - firstRow < rows ? allRows - firstRow : rows;
  }
  /// Query token and head of row `row` of the block.
  FASTMQA_DEVICE int token(int row) const { return (firstRow + row) / group; }
  FASTMQA_DEVICE int head(int row) const { return g * group + (firstRow + row) % group; }
  /// Element of p.queries where the row begins.
  FASTMQA_DEVICE int64_t query(const AttentionProblem& p, int row) const { return b * p.queryBatch + token(row) * p.queryToken + head(row) * p.queryHead; }

  FASTMQA_DEVICE void store(const AttentionProblem& p, int row, int channel, float x) const {
    storeResult(p, p.firstSlot + split, b, token(row), head(row), channel, x);
  }
  /// As of log2OfSum.
  FASTMQA_DEVICE void storeLogSum(const AttentionProblem& p, int row, float reference, float weights) const {
    gpu::storeLogSum(p, p.firstSlot + split, b, token(row), head(row), log2OfSum(reference, weights));
  }
};

/// The tiles that any row of the block sees, and which of them are its split's.
struct BlockTiles : VisibleTiles {
  int length, position;  ///< of the sequence: tokens of this part of the cache, and where query token 0 is
  TileRange share;

  FASTMQA_DEVICE BlockTiles(const AttentionProblem& p, const QueryBlock& block, int tileTokens)
      : BlockTiles(p, block, p.tokensOf(block.b), p.positionOf(block.b), tileTokens) {}
  /// What query token `token` sees.
  FASTMQA_DEVICE RowMask mask(const AttentionProblem& p, int token) const { return RowMask(p, length, position + token); }

 private:
  FASTMQA_DEVICE BlockTiles(const AttentionProblem& p, const QueryBlock& block, int length, int position, int tileTokens)
      : VisibleTiles(p, length, position + block.token(0), position + block.token(block.rowsHere - 1), tileTokens),
        length(length), position(position), share(shareOf(block.split, p.splits)) {}
};

}  // namespace fastmqa::gpu
