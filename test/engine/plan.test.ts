import { describe, expect, it } from 'vitest';
import { cacheFormula } from '../../src-main/contract/cache-formula.ts';
import { InputError } from '../../src-main/contract/input-error.ts';
import { pointConfigSchema, type Sweep, sweepSchema } from '../../src-main/contract/sweep.ts';
import { parseValues } from '../../src-main/engine/axes.ts';
import { f32MhaBytes, logicalCacheBytes, own16BitBytes } from '../../src-main/engine/estimate.ts';
import { expandSweep, pointId, previewSweep, resolvePoint } from '../../src-main/engine/plan.ts';
import { sweeps } from '../../src-main/engine/sweeps.ts';

const sweep = (axes: Sweep['axes'], zip?: string[][]): Sweep => ({ name: 'test', axes, ...(zip && { zip }) });
const message = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    return (error as Error).message;
  }
  return 'no error';
};

describe('expandSweep', () => {
  it('crosses axes in the order written, the last one fastest', () => {
    const points = expandSweep(sweep({ seqLen: [64, 128], level: ['baseline', 'four-bit'] }));
    expect(points.map(({ config }) => [config.seqLen, config.level])).toEqual([
      [64, 'baseline'],
      [64, 'four-bit'],
      [128, 'baseline'],
      [128, 'four-bit'],
    ]);
  });

  it('advances zipped axes together', () => {
    const points = expandSweep(
      sweep({ hiddenDim: [1024, 2048], batch: [1, 2], heads: [16, 32] }, [['hiddenDim', 'heads']]),
    );
    expect(points.map(({ config: c }) => [c.hiddenDim, c.heads, c.batch])).toEqual([
      [1024, 16, 1],
      [1024, 16, 2],
      [2048, 32, 1],
      [2048, 32, 2],
    ]);
  });

  it('runs further grids after the first, each point once', () => {
    const points = expandSweep({
      name: 'test',
      axes: { level: ['baseline', 'four-bit'] },
      also: [{ axes: { level: ['four-bit', 'balanced'] } }],
    });
    expect(points.map(({ config }) => config.level)).toEqual(['baseline', 'four-bit', 'balanced']);
  });

  it('says what was wrong in one sentence', () => {
    expect(message(() => expandSweep(sweep({ level: ['fast'] })))).toBe(
      'expected one of baseline, conservative, balanced, aggressive, near-lossless, near-lossless-input, four-bit, ' +
        'four-bit-input, mixed-latent-7x, mixed-latent, mixed-latent-17x, shared-64x, shared-128x, shared-512x, custom ' +
        'for level but received fast',
    );
    expect(message(() => expandSweep(sweep({ cacheDtype: ['int5'] })))).toBe(
      'expected one of f32, f16, bf16, fp8-e4m3, fp8-e5m2, int8, int4, int3, int2 for cacheDtype but received int5',
    );
    expect(message(() => expandSweep(sweep({ heads: [2.5] })))).toBe(
      'expected an integer from 1 to 256 for heads but received 2.5',
    );
    expect(message(() => expandSweep(sweep({ adaptiveEnergy: [0] })))).toBe(
      'expected a number above 0 to 1 for adaptiveEnergy but received 0',
    );
    expect(message(() => expandSweep(sweep({ kvHeads: ['GQA'] })))).toBe(
      'expected an integer from 1 to 256, MHA, MQA or GQA-n for kvHeads but received GQA',
    );
    expect(message(() => expandSweep(sweep({ hadamard: ['yes'] })))).toBe(
      'expected true or false for hadamard but received yes',
    );
    expect(message(() => expandSweep(sweep({ size: [1] })))).toMatch(
      /^expected one of level, cacheDtype, model, .* for axis but received size$/,
    );
    expect(message(() => expandSweep(sweep({ __proto__x: [1] })))).toMatch(/for axis but received __proto__x$/);
    expect(message(() => expandSweep(sweep({ toString: [1] })))).toMatch(/for axis but received toString$/);
    expect(message(() => expandSweep(sweep({ batch: [1, 2], heads: [16] }, [['batch', 'heads']])))).toBe(
      'expected axes of equal length for zip of batch, heads but received 2 and 1',
    );
    expect(message(() => expandSweep(sweep({ batch: [1] }, [['batch', 'heads']])))).toBe(
      'expected an axis of the sweep for zip but received heads',
    );
    const many = Array.from({ length: 400 }, (_, i) => i + 1);
    expect(message(() => expandSweep(sweep({ seqLen: many, batch: many })))).toBe(
      'expected at most 100000 points for sweep but received 160000',
    );
  });

  it('expands every built-in sweep to valid, distinct, possible points', () => {
    for (const builtIn of Object.values(sweeps)) {
      expect(sweepSchema.safeParse(builtIn).success).toBe(true);
      const points = expandSweep(builtIn);
      expect(new Set(points.map(({ id }) => id)).size).toBe(points.length);
      for (const { config, refused } of points) {
        expect(pointConfigSchema.safeParse(config).error).toBeUndefined();
        expect(refused).toBeUndefined();
      }
    }
    expect(expandSweep(sweeps.levels as Sweep)).toHaveLength(2 * 2 * (11 + 3));
  });
});

describe('resolvePoint', () => {
  const config = (axes: Record<string, number | string | boolean>) => resolvePoint(axes).config;

  it('fills in what was not said', () => {
    expect(config({})).toEqual({
      level: 'baseline',
      hiddenDim: 1024,
      heads: 16,
      headDim: 64,
      referenceKvHeads: 16,
      ropeTheta: 10000,
      modelSeed: 1,
      kernel: 'flash',
      kvHeads: 16,
      cacheKind: 'direct',
      keyDtype: 'f32',
      valueDtype: 'f32',
      keyRope: 'post',
      residualTokens: 0,
      sinkTokens: 0,
      batch: 1,
      seqLen: 512,
      phase: 'decode',
      backend: 'cpu',
      seed: 100,
      calibrationTokens: 4096,
    });
    expect(config({ phase: 'verify' }).verifyTokens).toBe(5);
    expect(config({ phase: 'verify', level: 'aggressive', speculativeTokens: 7 }).verifyTokens).toBe(8);
    expect(config({ verifyTokens: 3 }).verifyTokens).toBeUndefined();
  });

  it('lays axes over the level and leaves out what no longer applies', () => {
    expect(config({ cacheDtype: 'fp8' })).toMatchObject({ keyDtype: 'fp8-e4m3', valueDtype: 'fp8-e4m3' });
    expect(config({ cacheDtype: 'int4' })).toMatchObject({
      keyGrouping: 'token',
      valueGroupSize: 32,
      symmetric: false,
    });
    expect(config({ cacheDtype: 'int4', valueDtype: 'f16' })).not.toHaveProperty('valueGroupSize');
    expect(config({ level: 'four-bit', cacheDtype: 'f16' })).not.toHaveProperty('keyGroupSize');
    expect(config({ level: 'balanced', window: 'default' }).window).toBe(512);
    expect(config({ level: 'balanced', latentRankKey: 8, latentRankValue: 8 })).not.toHaveProperty(
      'adaptiveBudgetBytes',
    );
    expect(config({ level: 'conservative', latentRankKey: 8 })).toMatchObject({
      latentRankKey: 8,
      latentRankValue: 32,
    });
    expect(config({ level: 'balanced', cacheKind: 'direct' })).not.toHaveProperty('latentBasis');
    expect(config({ level: 'mixed-latent', latentRank: 64 })).not.toHaveProperty('latentBands');
  });

  it('understands head counts in words and converts by mean', () => {
    expect(config({ kvHeads: 'MHA' })).toMatchObject({ kvHeads: 16 });
    expect(config({ kvHeads: 'MHA' })).not.toHaveProperty('kvConversion');
    expect(config({ kvHeads: 'MQA' })).toMatchObject({ kvHeads: 1, kvConversion: 'mean' });
    expect(config({ kvHeads: 'GQA-4', kvConversion: 'aligned' })).toMatchObject({
      kvHeads: 4,
      kvConversion: 'aligned',
    });
    expect(config({ level: 'balanced', referenceKvHeads: 1 })).not.toHaveProperty('kvConversion');
  });

  it.each([
    [{ hiddenDim: 1000 }, 'hiddenDim 1000 does not divide into 16 heads: give headDim'],
    [{ headDim: 63 }, 'a rotary embedding needs an even headDim, not 63: set ropeTheta 0'],
    [{ referenceKvHeads: 3 }, 'heads 16 is no multiple of referenceKvHeads 3'],
    [{ kvHeads: 3 }, 'referenceKvHeads 16 is no multiple of kvHeads 3'],
    [{ referenceKvHeads: 1, kvHeads: 'MHA' }, 'the reference has 1 KV heads, so 16 cannot be cached'],
    [{ cacheDtype: 'int8', keyGroupSize: 48 }, 'keyGroupSize 48 does not divide 64 channels'],
    [{ latentRank: 8 }, 'latentRank needs cacheKind latent-separate or latent-joint, not direct'],
    [{ cacheKind: 'latent-joint' }, 'a joint latent needs latentRank, latentBands or an adaptive target'],
    [{ cacheKind: 'latent-joint', latentRank: 1025 }, 'rank 1025 is outside 1 to 1024, the rank of what it compresses'],
    [{ level: 'conservative', latentRankKey: 65 }, 'latentRankKey 65 exceeds the rank of what it compresses, 64'],
    [{ level: 'balanced', latentRank: 8 }, 'latentRank needs cacheKind latent-joint'],
    [{ cacheKind: 'input', keyDtype: 'int8' }, 'one input cache cannot be both int8 and f32'],
    [{ hadamard: true, headDim: 96 }, 'hadamard needs a headDim that is a power of two, not 96'],
    [{ layer: 0 }, 'layer needs a model'],
    [{ phase: 'speculate' }, 'the phase speculate needs a model'],
    [{ model: 'byte-mha', phase: 'speculate', batch: 2 }, 'the phase speculate needs a whole model and a batch of 1'],
    [{ model: 'byte-mha', layer: 4 }, 'model byte-mha has layers 0 to 3, not 4'],
  ])('refuses what cannot exist: %j', (axes, reason) => {
    const { config: refusedConfig, refused } = resolvePoint(axes as Record<string, number | string>);
    expect(refused).toBe(reason);
    expect(pointConfigSchema.safeParse(refusedConfig).success).toBe(true);
  });

  it('names a point by its content, whatever the order of its fields', () => {
    const point = config({ level: 'four-bit' });
    const shuffled = Object.fromEntries(Object.entries(point).reverse()) as typeof point;
    expect(pointId(point)).toMatch(/^[0-9a-f]{16}$/);
    expect(pointId(shuffled)).toBe(pointId(point));
    expect(pointId({ ...point, seed: 101 })).not.toBe(pointId(point));
  });
});

describe('a model that caches a latent by itself', () => {
  const deepSeek = {
    model: '/models/DeepSeek-V2-Lite',
    layers: 27,
    layer: 0,
    hiddenDim: 2048,
    heads: 16,
    headDim: 192,
  };
  const under = (axes: Record<string, string | number | boolean>) =>
    resolvePoint({ ...deepSeek, latentDim: 512, ropeDim: 64, valueDim: 128, seqLen: 1024, ...axes });

  it.each<[string, number, Record<string, string | boolean>?]>([
    ['baseline', 4 * 576],
    ['custom', 2 * 576, { cacheDtype: 'f16' }],
    // Rotated keys by channel over 64 tokens, the latent in groups of 64 channels; a 16-bit scale each.
    ['near-lossless', 576 + 2 * (64 / 64 + 512 / 64)],
    ['custom', 2 * 64 + 512 + 2 * (512 / 32), { keyDtype: 'f16', valueDtype: 'int8', symmetric: true }],
  ])('%s takes %i bytes a token', (level, bytes, axes = {}) => {
    const { config, refused } = under({ level, ...axes });
    expect(refused).toBeUndefined();
    expect(logicalCacheBytes(config)).toBe(1024 * bytes);
    expect(cacheFormula(config)?.bytes).toBe(1024 * bytes);
    expect([own16BitBytes(config), f32MhaBytes(config)]).toEqual([1024 * 1152, 1024 * 16 * (192 + 128) * 4]);
  });

  it.each([
    [{ level: 'conservative' }, 'there are no KV heads to merge'],
    [{ level: 'mixed-latent' }, 'it is not converted into another one'],
    [{ level: 'near-lossless-input' }, 'the layer input, 2048, is no smaller cache'],
    [{ level: 'custom', hadamard: true }, 'hadamard is for heads'],
    [{ level: 'custom', kernel: 'naive' }, 'kernel naive has no way to read it'],
  ])('%j is refused', (axes, reason) => {
    expect(under(axes).refused).toBe(`the model caches one latent of 512+64 for all heads already: ${reason}`);
  });

  it('is no synthetic layer', () => {
    const { model: _, layers: _layers, layer: _layer, ...layer } = deepSeek;
    expect(resolvePoint({ ...layer, latentDim: 512, ropeDim: 64, valueDim: 128 }).refused).toBe(
      'latentDim needs a model',
    );
  });
});

describe('parseValues', () => {
  it.each([
    ['1,2,4', [1, 2, 4]],
    ['512-8192*2', [512, 1024, 2048, 4096, 8192]],
    ['512-2048+512', [512, 1024, 1536, 2048]],
    ['near-lossless, GQA-4', ['near-lossless', 'GQA-4']],
    ['256x4+768x3+512x2', ['256x4+768x3+512x2']],
    ['true,false,0.5,-1,1e3', [true, false, 0.5, -1, 1000]],
    ['1-4*2,16', [1, 2, 4, 16]],
  ])('%s', (text, values) => {
    expect(parseValues(text)).toEqual(values);
  });

  it('refuses lists with holes and ranges that never end', () => {
    expect(message(() => parseValues('1,,2', 'batch'))).toBe(
      'expected values like 1,2,4 or 512-8192*2 for batch but received 1,,2',
    );
    expect(message(() => parseValues('', 'batch'))).toBe(
      'expected values like 1,2,4 or 512-8192*2 for batch but received nothing',
    );
    for (const text of ['4-1*2', '1-4*1', '0-4*2', '1-4+0']) {
      expect(message(() => parseValues(text, 'batch'))).toBe(
        `expected a rising range like 512-8192*2 or 512-2048+512 for batch but received ${text}`,
      );
    }
    expect(message(() => parseValues('1-1000000+1', 'batch'))).toBe(
      'expected at most 10000 values for batch but received 1-1000000+1',
    );
  });
});

describe('previewSweep', () => {
  it('counts points, names impossible ones, and estimates time and memory', () => {
    const preview = previewSweep(sweep({ kvHeads: [16, 3], seqLen: [128, 4096] }));
    expect(preview.points).toHaveLength(2);
    expect(preview.skipped.map(({ reason }) => reason)).toEqual(
      Array(2).fill('referenceKvHeads 16 is no multiple of kvHeads 3'),
    );
    expect(preview.estimatedSeconds).toBeGreaterThan(1);
    expect(preview.estimatedPeakBytes).toBeGreaterThan(4096 * 2 * 16 * 64 * 4);
  });

  it('promises the quick sweep within 20 seconds', () => {
    expect(previewSweep(sweeps.quick as Sweep).estimatedSeconds).toBeLessThan(20);
  });
});
