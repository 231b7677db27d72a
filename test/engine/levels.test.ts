import { describe, expect, it } from 'vitest';
import { f32MhaBytes, logicalCacheBytes, own16BitBytes } from '../../src-main/engine/estimate.ts';
import { levelNames } from '../../src-main/engine/levels.ts';
import { resolvePoint } from '../../src-main/engine/plan.ts';

const large = { hiddenDim: 2048, heads: 32, seqLen: 1024, batch: 4 };
const point = (level: string, more: Record<string, number> = {}) => resolvePoint({ level, ...large, ...more }).config;
/** Formula bytes with the pages of 64 tokens that a window occupies. */
const pagedBytes = (level: string): number => {
  const config = point(level);
  return logicalCacheBytes({ ...config, ...(config.window && { window: config.window + 64 }) });
};

describe('levels', () => {
  it.each([
    ['conservative', 64],
    ['balanced', 128],
    ['aggressive', 512],
  ])('%s saves at least %ix against f32 MHA, page slack included', (level, least) => {
    expect(f32MhaBytes(point(level)) / pagedBytes(level)).toBeGreaterThanOrEqual(least);
  });

  it('writes down what the design promises', () => {
    expect(point('conservative')).toMatchObject({
      kvHeads: 1,
      kvConversion: 'mean',
      latentRankKey: 32,
      keyRope: 'post',
    });
    expect(point('balanced')).toMatchObject({ adaptiveBudgetBytes: 96, window: 512, sinkTokens: 4, keyRope: 'pre' });
    expect(point('aggressive')).toMatchObject({ adaptiveBudgetBytes: 52, keyDtype: 'int8', speculativeTokens: 4 });
    expect(point('mixed-latent-7x').latentBands).toBe('256x8+768x4+1024x2');
    expect(point('mixed-latent-7x', { hiddenDim: 1024, heads: 16 }).latentBands).toBe('128x8+384x4+512x2');
    expect(point('mixed-latent', { referenceKvHeads: 1 }).latentBands).toBe('128x4');
    expect(point('mixed-latent', { referenceKvHeads: 8 }).latentBands).toBe('256x4+768x3');
  });

  /** Bytes per token and ratio against 16 bit as in attention-spec G.2 and G.7, sinks and residual apart. */
  it.each([
    ['near-lossless', 4224, 1.94],
    ['near-lossless-input', 2176, 3.76],
    ['four-bit', 2560, 3.2],
    ['four-bit-input', 1280, 6.4],
    ['mixed-latent-7x', 1136, 7.21],
    ['mixed-latent', 736, 11.13],
    ['mixed-latent-17x', 464, 17.66],
  ])('%s takes %i bytes a token', (level, bytes, ratio) => {
    const config = { ...point(level), sinkTokens: 0, residualTokens: 0 };
    expect(logicalCacheBytes(config) / (4 * 1024)).toBe(bytes);
    expect(!(Math.abs(own16BitBytes(config) / logicalCacheBytes(config) - ratio) <= 0.005)).toBe(false);
  });

  it.each([
    ['shared-64x', 64],
    ['shared-128x', 128],
    ['shared-512x', 512],
  ])('%s saves at least %ix where heads are shared natively', (level, least) => {
    const config = point(level, { referenceKvHeads: 1 });
    expect(f32MhaBytes(config) / logicalCacheBytes(config)).toBeGreaterThanOrEqual(least);
  });

  it('resolves every level on odd layers to something possible', () => {
    for (const level of levelNames) {
      const shapes: Record<string, number>[] = [
        { hiddenDim: 160, heads: 2, headDim: 80 },
        { hiddenDim: 96, heads: 4, headDim: 24, referenceKvHeads: 2 },
        { hiddenDim: 8, heads: 2, headDim: 4, referenceKvHeads: 1 },
        { hiddenDim: 256, heads: 1, headDim: 256 },
      ];
      for (const shape of shapes) {
        expect([level, shape, resolvePoint({ level, ...shape }).refused]).toEqual([level, shape, undefined]);
      }
    }
  });
});
