/** Figures of speculative decoding from what was measured. Pure. */
import type { Speculation } from '../contract/metrics.ts';
import type { SpeculateResult } from './ports.ts';

export function speculationFigures(result: SpeculateResult, temperature: number): Speculation {
  const { rounds, tokens, offered, accepted } = result;
  const plainTokens = result.plainOutput.reduce((sum, list) => sum + list.length, 0);
  const plainTokensPerSecond = plainTokens / result.plainSeconds;
  const tokensPerSecond = tokens / result.seconds;
  const differing = result.output.reduce(
    (sum, list, i) => sum + list.reduce((count, token, t) => count + (token === result.plainOutput[i]?.[t] ? 0 : 1), 0),
    0,
  );
  return {
    tokens,
    tokensPerRound: tokens / rounds,
    acceptedByPlace: offered.map((count, i) => (count === 0 ? 0 : accepted[i] / count)),
    plainTokensPerSecond,
    tokensPerSecond,
    speedUp: tokensPerSecond / plainTokensPerSecond,
    draftCost: (result.draftSeconds / (rounds * offered.length)) * plainTokensPerSecond,
    verifyCost: (result.verifySeconds / rounds) * plainTokensPerSecond,
    targetCacheBytes: result.targetCacheBytes,
    draftCacheBytes: result.draftCacheBytes,
    ...(temperature === 0 && { differing }),
  };
}
