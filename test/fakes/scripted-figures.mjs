/** What scripted workers answer to `prepare`: figures that a real one could give, the same in every run. */
let lastHandle = 0;

export function figures(config) {
  const kvAllocatedBytes = 2 * config.batch * config.seqLen * config.kvHeads * config.headDim * 4;
  const none = { scaleBytes: 0, sinkBytes: 0, residualBytes: 0, slackBytes: 0, tableBytes: 0 };
  lastHandle += 1;
  return {
    handle: lastHandle,
    memory: {
      kvLogicalBytes: kvAllocatedBytes,
      kvAllocatedBytes,
      kvParts: { payloadBytes: kvAllocatedBytes, ...none },
      peakBytes: kvAllocatedBytes,
      extraWeightBytes: process.env.FASTMQA_FAKE_TELLS_PROCESS ? process.pid : 0,
      cachedTokens: config.seqLen,
    },
    error: {
      relativeL2: config.level === 'baseline' ? 1e-7 : 0.02,
      cosine: 1,
      rms: 1e-3,
      maxAbs: 1e-2,
      referenceRms: 1,
      tokenP95: 0.03,
      tokenMedian: 0.02,
      positions: [0, config.seqLen - 1],
    },
    controls: { zeroOutput: 1, uniformAttention: 0.99, independentLayer: 1.41 },
    work: { flops: 1e6, bytes: 1e6, tokens: config.batch },
  };
}
