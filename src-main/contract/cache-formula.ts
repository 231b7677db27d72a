/** Bytes of a cache by formula (attention-spec 0), with the figures of one point put in: what stands behind `kvLogicalBytes`. */
import { cachedChannels } from './cached-channels.ts';
import { formatBytes } from './format.ts';
import type { CacheDtype, PointConfig } from './sweep.ts';

export interface CacheFormula {
  readonly bytes: number;
  /** One term a line, in words and numbers. */
  readonly lines: readonly string[];
}

const bitsOf: Readonly<Record<CacheDtype, number>> = {
  ...{ f32: 32, f16: 16, bf16: 16, 'fp8-e4m3': 8, 'fp8-e5m2': 8 },
  ...{ int8: 8, int4: 4, int3: 3, int2: 2 },
};

interface Part {
  readonly bytes: number;
  readonly text: string;
}

/** @returns undefined where the level sizes its cache from data: no formula knows the ranks it chose */
export function cacheFormula(config: PointConfig): CacheFormula | undefined {
  const parts = tokenParts(config);
  if (!parts) return undefined;
  const { batch, seqLen, window, sinkTokens, residualTokens, cacheKind, hiddenDim, kvHeads } = config;
  const { heads, keyDim, valueDim } = cachedChannels(config, kvHeads);
  const held = window === undefined ? seqLen : Math.min(seqLen, window + sinkTokens);
  const exactTokens = Math.min(held, sinkTokens + residualTokens);
  const codedTokens = held - exactTokens;
  const codedBytes = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const exactBytes = cacheKind === 'input' ? 2 * hiddenDim : 2 * heads * (keyDim + valueDim);
  const lines = [
    `${batch} x ${codedTokens} tokens x ${bytesText(codedBytes)}`,
    ...parts.map(({ bytes, text }) => `${bytesText(bytes)} a token: ${text}`),
    ...(exactTokens > 0 ? [`and ${batch} x ${exactTokens} tokens kept in 16 bit x ${bytesText(exactBytes)}`] : []),
  ];
  return { bytes: batch * (codedTokens * codedBytes + exactTokens * exactBytes), lines };
}

const bytesText = (bytes: number): string => (bytes < 10_000 ? `${Number(bytes.toFixed(2))} B` : formatBytes(bytes));

function tokenParts(config: PointConfig): readonly Part[] | undefined {
  const { cacheKind, kvHeads, headDim, hiddenDim, keyDtype, valueDtype, keyGroupSize, valueGroupSize } = config;
  const { latentBands, latentRank, latentRankKey, latentRankValue } = config;
  const heads = `${kvHeads} KV ${kvHeads === 1 ? 'head' : 'heads'} x ${headDim}`;
  const coded = (name: string, shape: string, channels: number, dtype: CacheDtype, groupSize?: number): Part => {
    const payload = (channels * bitsOf[dtype]) / 8;
    const each = config.symmetric ? 2 : 4;
    const scales = groupSize === undefined ? 0 : (channels / groupSize) * each;
    const groups = scales > 0 ? `, and ${each} B of scales for every ${groupSize}` : '';
    return { bytes: payload + scales, text: `${name}, ${shape} x ${bitsOf[dtype]} bit${groups}` };
  };
  if (cacheKind === 'direct' && config.latentDim !== undefined) {
    const { keyDim, valueDim } = cachedChannels(config, kvHeads);
    return [
      coded('rotated key', String(keyDim), keyDim, keyDtype, keyGroupSize),
      coded('latent of the model', String(valueDim), valueDim, valueDtype, valueGroupSize),
    ];
  }
  if (cacheKind === 'direct') {
    const width = kvHeads * headDim;
    return [
      coded('keys', heads, width, keyDtype, keyGroupSize),
      coded('values', heads, width, valueDtype, valueGroupSize),
    ];
  }
  if (cacheKind === 'input') return [coded('layer input', String(hiddenDim), hiddenDim, keyDtype, keyGroupSize)];
  if (latentBands) return latentBands.split('+').map(bandPart);
  const rank = latentRank ?? (latentRankKey && latentRankValue ? latentRankKey + latentRankValue : undefined);
  return rank === undefined ? undefined : [coded('latent', `rank ${rank}`, rank, keyDtype, keyGroupSize)];
}

/** Groups of 32: a scale at 8 bits, scale and minimum below, none at 16 (attention-spec G.7). */
function bandPart(band: string): Part {
  const [coordinates, bits] = band.split('x').map(Number);
  const each = bits === 16 ? 0 : bits === 8 ? 2 : 4;
  const groups = each > 0 ? `, and ${each} B of scales for every 32` : '';
  return {
    bytes: (coordinates * bits) / 8 + Math.ceil(coordinates / 32) * each,
    text: `latent, ${coordinates} coordinates x ${bits} bit${groups}`,
  };
}
